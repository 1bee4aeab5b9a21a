//! A naive model of replicas: each has a set of events, and its tables are worked out from them.
//!
//! It shares no code with what it checks. Nothing is merged here: for every question, all events a
//! replica has seen are looked at anew.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::operation::{Operation, Transaction};
use super::shape::Shape;

/// What a cell holds, in the order that settles ties.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Null,
    Blob(Vec<u8>),
    Text(String),
    Real(f64),
    Integer(i64),
}

impl Cell {
    fn rank(&self) -> u8 {
        match self {
            Cell::Null => 0,
            Cell::Blob(_) => 1,
            Cell::Text(_) => 2,
            Cell::Real(_) => 3,
            Cell::Integer(_) => 4,
        }
    }
}

impl Ord for Cell {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Cell::Blob(a), Cell::Blob(b)) => a.cmp(b),
            (Cell::Text(a), Cell::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Cell::Real(a), Cell::Real(b)) => a.partial_cmp(b).expect("no cell holds NaN"),
            (Cell::Integer(a), Cell::Integer(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Cell {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Cell {}

pub(crate) type Key = Vec<Cell>;
/// The columns beside the key.
pub(crate) type Row = BTreeMap<&'static str, Cell>;
pub(crate) type Rows = BTreeMap<Key, Row>;
pub(crate) type Tables = BTreeMap<&'static str, Rows>;

/// What a replica has seen, as places in the list of all events.
pub(crate) type Seen = BTreeSet<usize>;

/// What one fold says of one row.
#[derive(Clone, Debug)]
struct Event {
    version: u64,
    site: [u8; 16],
    table: &'static str,
    key: Key,
    causal_length: u64,
    /// The columns that were written; `None` if the row was deleted.
    writes: Option<Row>,
}

/// One replica, as the model sees it.
#[derive(Clone, Debug)]
struct Site {
    id: [u8; 16],
    seen: Seen,
    local: Local,
}

/// What a transaction can change, and a rollback gives back.
#[derive(Clone, Debug, Default)]
struct Local {
    tables: Tables,
    /// Which columns of which rows were written since the last fold; also of rows that are gone.
    touched: BTreeMap<(&'static str, Key), BTreeSet<&'static str>>,
}

/// All replicas of one schedule.
#[derive(Debug)]
pub(crate) struct Model {
    shapes: Vec<Shape>,
    events: Vec<Event>,
    sites: Vec<Site>,
}

impl Model {
    pub(crate) fn new(shapes: &[Shape]) -> Self {
        Model {
            shapes: shapes.to_vec(),
            events: Vec::new(),
            sites: Vec::new(),
        }
    }

    /// Adds a replica that has seen nothing; they are numbered from zero.
    pub(crate) fn add(&mut self, id: [u8; 16]) {
        let seen = Seen::new();
        let local = Local {
            tables: self.visible(&seen),
            ..Local::default()
        };
        self.sites.push(Site { id, seen, local });
    }

    /// Runs a transaction, and returns which of its operations were refused.
    pub(crate) fn run(&mut self, at: usize, transaction: &Transaction) -> Vec<bool> {
        let mut local = self.sites[at].local.clone();
        let mut refused = Vec::new();
        let mut run = |local: &mut Local, operations: &[Operation]| {
            for operation in operations {
                refused.push(local.run(&self.shapes, operation).is_err());
            }
        };
        run(&mut local, &transaction.before);
        run(&mut local.clone(), &transaction.undone);
        run(&mut local, &transaction.after);
        if !transaction.is_rolled_back {
            self.sites[at].local = local;
        }
        refused
    }

    /// Whether a fold of this replica has anything to look at.
    pub(crate) fn is_touched(&self, at: usize) -> bool {
        !self.sites[at].local.touched.is_empty()
    }

    /// Whether a fold of this replica has anything to tell the others.
    pub(crate) fn has_news(&self, at: usize) -> bool {
        !self.news(at, 0).is_empty()
    }

    /// Turns what was written into events. `version` is what the implementation chose: it must be
    /// later than all this replica has seen.
    pub(crate) fn fold(&mut self, at: usize, version: u64) {
        for event in &self.sites[at].seen {
            let seen = &self.events[*event];
            assert!(version > seen.version, "{version} is not after {seen:?}");
        }
        let news = self.news(at, version);
        let new = self.events.len()..self.events.len() + news.len();
        self.events.extend(news);
        self.sites[at].seen.extend(new);
        self.sites[at].local.touched.clear();
        let visible = self.visible(&self.sites[at].seen);
        assert_eq!(visible, self.sites[at].local.tables, "the model disagrees");
    }

    fn news(&self, at: usize, version: u64) -> Vec<Event> {
        let Site { id, seen, local } = &self.sites[at];
        let mut news = Vec::new();
        for ((table, key), columns) in &local.touched {
            let lengths = self.of_row(seen, table, key).map(|e| e.causal_length);
            let known = lengths.max().unwrap_or(0);
            let row = local.tables[table].get(key);
            let causal_length = match (row, known % 2 == 1) {
                (Some(_), true) => known,
                (Some(_), false) | (None, true) => known + 1,
                // Nobody heard of the row; only a table whose rows move when they are replaced
                // cannot tell, and says that it is gone.
                (None, false) if known == 0 && self.shape(table).rows_move => 2,
                (None, false) => continue,
            };
            let written = |row: &Row| columns.iter().map(|c| (*c, row[c].clone())).collect();
            news.push(Event {
                version,
                site: *id,
                table,
                key: key.clone(),
                causal_length,
                writes: row.map(written),
            });
        }
        news
    }

    /// Returns what a replica has seen, to be taken along by a message.
    pub(crate) fn seen(&self, at: usize) -> Seen {
        self.sites[at].seen.clone()
    }

    /// Returns what one replica wrote itself up to a version.
    pub(crate) fn own(&self, at: usize, until: u64) -> Seen {
        let site = self.sites[at].id;
        let is_own = |event: &Event| event.site == site && event.version <= until;
        let events = self.events.iter().enumerate();
        events.filter(|(_, e)| is_own(e)).map(|(n, _)| n).collect()
    }

    /// Takes in what a message carries. Everything local was folded before.
    pub(crate) fn join(&mut self, at: usize, seen: &Seen) {
        assert!(!self.is_touched(at), "an import folds first");
        self.sites[at].seen.extend(seen);
        self.sites[at].local.tables = self.visible(&self.sites[at].seen);
    }

    /// Returns what a replica shows.
    pub(crate) fn tables(&self, at: usize) -> &Tables {
        &self.sites[at].local.tables
    }

    fn shape(&self, table: &str) -> &Shape {
        let found = self.shapes.iter().find(|shape| shape.name == table);
        found.expect("events name tables of the schedule")
    }

    fn of_row<'a>(
        &'a self,
        seen: &'a Seen,
        table: &'a str,
        key: &'a Key,
    ) -> impl Iterator<Item = &'a Event> {
        let all = seen.iter().map(|event| &self.events[*event]);
        all.filter(move |event| event.table == table && event.key == *key)
    }

    /// Works out what a replica shows that has seen these events.
    fn visible(&self, seen: &Seen) -> Tables {
        let empty = |shape: &Shape| (shape.name, Rows::new());
        let mut tables: Tables = self.shapes.iter().map(empty).collect();
        for event in seen {
            let Event { table, key, .. } = &self.events[*event];
            if let Some(row) = self.visible_row(seen, table, key) {
                let rows = tables.get_mut(table).expect("every shape is there");
                rows.insert(key.clone(), row);
            }
        }
        tables
    }

    fn visible_row(&self, seen: &Seen, table: &str, key: &Key) -> Option<Row> {
        let life = self
            .of_row(seen, table, key)
            .map(|e| e.causal_length)
            .max()?;
        if life % 2 == 0 {
            return None;
        }
        let cell = |column: &'static str| {
            let writes = self.of_row(seen, table, key).filter_map(|event| {
                let value = event.writes.as_ref()?.get(column)?;
                (event.causal_length == life).then_some((event.version, value, event.site))
            });
            writes.max().map(|(_, value, _)| value.clone())
        };
        let columns = self.shape(table).columns.iter();
        let filled = columns.map(|c| (c.name, cell(c.name).unwrap_or_else(|| c.absent.cell())));
        Some(filled.collect())
    }
}

/// An operation that SQLite refuses; it changes nothing.
struct Refused;

impl Local {
    fn run(&mut self, shapes: &[Shape], operation: &Operation) -> Result<(), Refused> {
        let found = shapes.iter().find(|shape| shape.name == operation.table());
        let shape = found.expect("operations name tables of the schedule");
        match operation {
            Operation::Insert { key, values, .. } => {
                if self.rows(shape).contains_key(key) {
                    return Err(Refused);
                }
                self.put(shape, key, full(shape, values));
            }
            Operation::Replace { key, values, .. } => self.put(shape, key, full(shape, values)),
            Operation::Upsert {
                key, values, set, ..
            } => {
                if self.rows(shape).contains_key(key) {
                    let excluded = full(shape, values);
                    let set = set.iter().map(|column| (*column, excluded[column].clone()));
                    self.update(shape, key, &set.collect());
                } else {
                    self.put(shape, key, full(shape, values));
                }
            }
            Operation::Update { key, set, .. } => {
                for key in self.chosen(shape, key.as_ref()) {
                    self.update(shape, &key, set);
                }
            }
            Operation::Delete { key, .. } => {
                for key in self.chosen(shape, key.as_ref()) {
                    self.take(shape, &key);
                }
            }
            Operation::Move {
                from,
                to,
                set,
                or_replace,
                ..
            } => {
                if !self.rows(shape).contains_key(from) {
                    return Ok(());
                }
                if from == to {
                    self.update(shape, from, set);
                    return Ok(());
                }
                if self.rows(shape).contains_key(to) && !or_replace {
                    return Err(Refused);
                }
                let mut row = self.take(shape, from);
                row.extend(set.clone());
                self.put(shape, to, row);
            }
        }
        Ok(())
    }

    fn rows(&mut self, shape: &Shape) -> &mut Rows {
        self.tables.entry(shape.name).or_default()
    }

    fn chosen(&mut self, shape: &Shape, key: Option<&Key>) -> Vec<Key> {
        let keys = self.rows(shape).keys().cloned();
        keys.filter(|known| key.is_none_or(|key| key == known))
            .collect()
    }

    fn put(&mut self, shape: &Shape, key: &Key, row: Row) {
        let touched = self.touched.entry((shape.name, key.clone())).or_default();
        touched.extend(row.keys());
        self.rows(shape).insert(key.clone(), row);
    }

    fn take(&mut self, shape: &Shape, key: &Key) -> Row {
        self.touched.entry((shape.name, key.clone())).or_default();
        self.rows(shape).remove(key).expect("the row is there")
    }

    fn update(&mut self, shape: &Shape, key: &Key, set: &Row) {
        let row = self.rows(shape).get_mut(key).expect("the row is there");
        let mut changed = BTreeSet::new();
        for (column, value) in set {
            if row.insert(column, value.clone()).as_ref() != Some(value) {
                changed.insert(*column);
            }
        }
        if !changed.is_empty() {
            let touched = self.touched.entry((shape.name, key.clone())).or_default();
            touched.extend(changed);
        }
    }
}

/// Fills in the columns that an INSERT leaves out.
fn full(shape: &Shape, values: &Row) -> Row {
    let cell = |column: &super::shape::Column| {
        let given = values.get(column.name).cloned();
        (column.name, given.unwrap_or_else(|| column.absent.cell()))
    };
    shape.columns.iter().map(cell).collect()
}
