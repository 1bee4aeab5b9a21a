//! A naive model of replicas that hear of each other in parts: who knows which write to which cell.
//!
//! It shares no code with what it checks, and goes further than [`super::model`] in one thing: what
//! a replica seals leaves out the cells that others have overwritten meanwhile, so a reader may
//! know half of a transaction until it hears from the others. Nothing is merged here: what a
//! replica shows of a row is worked out anew from all the facts it knows of it.

use std::collections::{BTreeMap, BTreeSet};

use syncline_engine::log::Position;

use super::model::{Cell, Key, Row, Rows};
use super::operation::{Operation, Transaction};
use super::shape::Shape;

/// A row of a table.
type Name = (&'static str, Key);
/// Places in the list of all facts.
pub(crate) type Facts = Vec<usize>;

/// What one fold says of one cell of a row, or of its life.
#[derive(Clone, Debug)]
struct Fact {
    row: Name,
    version: u64,
    site: [u8; 16],
    /// How often the row was created and deleted, as its writer knew.
    life: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// The row began another life or was deleted.
    Life,
    /// The row is there; said of tables that are all key.
    There,
    Written(&'static str, Cell),
}

/// One replica, as the ledger sees it.
#[derive(Debug)]
struct Site {
    id: [u8; 16],
    /// What it has heard of each row.
    known: BTreeMap<Name, BTreeSet<usize>>,
    local: Local,
    /// The version of its last fold.
    folded: u64,
    /// The version up to which its own facts are sealed.
    sealed: u64,
}

/// What a transaction can change, and a rollback gives back.
#[derive(Clone, Debug, Default)]
struct Local {
    rows: BTreeMap<Name, Row>,
    /// Which columns of which rows were written since the last fold; also of rows that are gone.
    touched: BTreeMap<Name, BTreeSet<&'static str>>,
}

/// All replicas of one schedule, and what every envelope says.
#[derive(Debug)]
pub(crate) struct Ledger {
    shapes: Vec<Shape>,
    facts: Vec<Fact>,
    sites: Vec<Site>,
    envelopes: BTreeMap<Position, Facts>,
}

impl Ledger {
    pub(crate) fn new(shapes: &[Shape]) -> Self {
        Ledger {
            shapes: shapes.to_vec(),
            facts: Vec::new(),
            sites: Vec::new(),
            envelopes: BTreeMap::new(),
        }
    }

    /// Adds a replica that knows nothing; they are numbered from zero. `version` is its first.
    pub(crate) fn add(&mut self, id: [u8; 16], version: u64) {
        self.sites.push(Site {
            id,
            known: BTreeMap::new(),
            local: Local::default(),
            folded: version,
            sealed: 0,
        });
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

    /// Takes in the version of a replica's last fold, whenever that was.
    pub(crate) fn fold(&mut self, at: usize, version: u64) {
        if version == self.sites[at].folded {
            return;
        }
        let latest = self.sites[at]
            .known
            .values()
            .flatten()
            .map(|fact| self.facts[*fact].version);
        let latest = latest.max().unwrap_or_default().max(self.sites[at].folded);
        assert!(
            version > latest,
            "replica {at} folds at {version} after it saw {latest}"
        );
        let touched = std::mem::take(&mut self.sites[at].local.touched);
        for (row, columns) in touched {
            self.fold_row(at, version, row, &columns);
        }
        self.sites[at].folded = version;
    }

    fn fold_row(&mut self, at: usize, version: u64, row: Name, columns: &BTreeSet<&'static str>) {
        let known = self.life(at, &row);
        let values = self.sites[at].local.rows.get(&row).cloned();
        let life = match (&values, known % 2 == 1) {
            (Some(_), true) => known,
            (Some(_), false) | (None, true) => known + 1,
            // Nobody heard of the row; only a table whose rows move when they are replaced cannot
            // tell, and says that it is gone.
            (None, false) if known == 0 && self.shape(row.0).rows_move => 2,
            (None, false) => return,
        };
        let mut says = Vec::new();
        if life != known && life > 1 {
            says.push(What::Life);
        }
        if let Some(values) = values {
            let written = columns
                .iter()
                .map(|name| What::Written(name, values[name].clone()));
            says.extend(written);
            if self.shape(row.0).columns.is_empty() {
                says.push(What::There);
            }
        }
        let (site, first) = (self.sites[at].id, self.facts.len());
        let fact = |what| Fact {
            row: row.clone(),
            version,
            site,
            life,
            what,
        };
        self.facts.extend(says.into_iter().map(fact));
        let last = self.facts.len();
        self.sites[at]
            .known
            .entry(row)
            .or_default()
            .extend(first..last);
    }

    /// Returns what a replica seals next: its own facts since it last did that nobody has
    /// overwritten, as far as it knows.
    pub(crate) fn unsealed(&self, at: usize) -> Facts {
        let Site { id, sealed, .. } = &self.sites[at];
        let current = self.current(at).into_iter();
        let is_new = |fact: &Fact| fact.site == *id && fact.version > *sealed;
        current.filter(|fact| is_new(&self.facts[*fact])).collect()
    }

    /// Returns all a replica knows that was not overwritten: what it seals into an empty log.
    pub(crate) fn current(&self, at: usize) -> Facts {
        let known = &self.sites[at].known;
        let current = known
            .iter()
            .flat_map(|(row, facts)| self.current_of_row(at, row, facts));
        current.collect()
    }

    fn current_of_row(&self, at: usize, row: &Name, facts: &BTreeSet<usize>) -> Facts {
        let life = self.life(at, row);
        let mut lanes: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        for fact in facts.iter().filter(|fact| self.facts[**fact].life == life) {
            let lane = match &self.facts[*fact].what {
                What::Life => None,
                What::There => Some(""),
                What::Written(column, _) => Some(*column),
            };
            let held = lanes.entry(lane).or_insert(*fact);
            if self.rank(*fact) > self.rank(*held) {
                *held = *fact;
            }
        }
        lanes.into_values().collect()
    }

    /// Notes what a replica sealed, up to its last fold.
    pub(crate) fn seal(&mut self, at: usize, position: Position, facts: Facts) {
        self.sites[at].sealed = self.sites[at].folded;
        let former = self.envelopes.insert(position, facts);
        assert!(former.is_none(), "{position:?} is sealed twice");
    }

    /// Returns the version up to which a replica's facts are sealed.
    pub(crate) fn sealed(&self, at: usize) -> u64 {
        self.sites[at].sealed
    }

    /// Notes that a replica's log lost what was sealed after `version`.
    pub(crate) fn unseal(&mut self, at: usize, version: u64) {
        self.sites[at].sealed = version;
    }

    /// Lets a replica know what envelopes say. All it wrote itself was folded before.
    pub(crate) fn learn(&mut self, at: usize, positions: &[Position]) {
        let mut rows = BTreeSet::new();
        for position in positions {
            let known = self.envelopes.get(position);
            let facts = known.unwrap_or_else(|| panic!("{position:?} was never sealed"));
            for fact in facts {
                let row = &self.facts[*fact].row;
                let is_new = self.sites[at]
                    .known
                    .entry(row.clone())
                    .or_default()
                    .insert(*fact);
                if is_new {
                    rows.insert(row.clone());
                }
            }
        }
        let is_folded = self.sites[at].local.touched.is_empty();
        assert!(
            rows.is_empty() || is_folded,
            "replica {at} merges before it folds"
        );
        for row in rows {
            let values = self.visible(&row, &self.sites[at].known[&row]);
            let rows = &mut self.sites[at].local.rows;
            match values {
                Some(values) => rows.insert(row, values),
                None => rows.remove(&row),
            };
        }
    }

    /// Returns what a replica shows of a table.
    pub(crate) fn rows(&self, at: usize, shape: &Shape) -> Rows {
        let rows = self.sites[at].local.rows.iter();
        let rows = rows.filter(|((table, _), _)| *table == shape.name);
        rows.map(|((_, key), row)| (key.clone(), row.clone()))
            .collect()
    }

    /// Returns what everybody must show of a table in the end.
    pub(crate) fn truth(&self, shape: &Shape) -> Rows {
        let mut all: BTreeMap<&Name, BTreeSet<usize>> = BTreeMap::new();
        for (at, fact) in self
            .facts
            .iter()
            .enumerate()
            .filter(|(_, f)| f.row.0 == shape.name)
        {
            all.entry(&fact.row).or_default().insert(at);
        }
        let shown = |(row, facts): (&Name, BTreeSet<usize>)| {
            self.visible(row, &facts)
                .map(|values| (row.1.clone(), values))
        };
        all.into_iter().filter_map(shown).collect()
    }

    fn shape(&self, table: &str) -> &Shape {
        let found = self.shapes.iter().find(|shape| shape.name == table);
        found.expect("facts name tables of the schedule")
    }

    /// Returns how often a row was created and deleted, as far as a replica knows.
    fn life(&self, at: usize, row: &Name) -> u64 {
        let known = self.sites[at].known.get(row).into_iter().flatten();
        known.map(|fact| self.facts[*fact].life).max().unwrap_or(0)
    }

    /// Orders facts about one cell.
    fn rank(&self, fact: usize) -> (u64, Option<&Cell>, [u8; 16]) {
        let Fact {
            version,
            site,
            what,
            ..
        } = &self.facts[fact];
        let value = match what {
            What::Written(_, value) => Some(value),
            What::Life | What::There => None,
        };
        (*version, value, *site)
    }

    /// Works out what is shown of a row by whoever knows these facts.
    fn visible(&self, row: &Name, facts: &BTreeSet<usize>) -> Option<Row> {
        let of_row = || facts.iter().map(|fact| &self.facts[*fact]);
        let life = of_row().map(|fact| fact.life).max()?;
        if life % 2 == 0 {
            return None;
        }
        let cell = |name: &'static str| {
            let writes = of_row().filter_map(|fact| match &fact.what {
                What::Written(column, value) if *column == name && fact.life == life => {
                    Some((fact.version, value, fact.site))
                }
                _ => None,
            });
            writes.max().map(|(_, value, _)| value.clone())
        };
        let columns = self.shape(row.0).columns.iter();
        let cells = columns.map(|c| (c.name, cell(c.name).unwrap_or_else(|| c.absent.cell())));
        Some(cells.collect())
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
                let row = (shape.name, key.clone());
                if self.rows.contains_key(&row) {
                    return Err(Refused);
                }
                self.put(shape, row, values);
            }
            Operation::Replace { key, values, .. } => {
                self.put(shape, (shape.name, key.clone()), values);
            }
            Operation::Update { key, set, .. } => {
                for row in self.chosen(shape, key.as_ref()) {
                    self.update(row, set);
                }
            }
            Operation::Delete { key, .. } => {
                for row in self.chosen(shape, key.as_ref()) {
                    self.rows.remove(&row);
                    self.touched.entry(row).or_default();
                }
            }
            Operation::Upsert { .. } | Operation::Move { .. } => {
                unreachable!("these schedules leave that to others")
            }
        }
        Ok(())
    }

    fn chosen(&self, shape: &Shape, key: Option<&Key>) -> Vec<Name> {
        let rows = self.rows.keys().filter(|(table, _)| *table == shape.name);
        rows.filter(|(_, known)| key.is_none_or(|key| key == known))
            .cloned()
            .collect()
    }

    fn put(&mut self, shape: &Shape, row: Name, values: &Row) {
        let cell = |column: &super::shape::Column| {
            let given = values.get(column.name).cloned();
            (column.name, given.unwrap_or_else(|| column.absent.cell()))
        };
        let values: Row = shape.columns.iter().map(cell).collect();
        self.touched
            .entry(row.clone())
            .or_default()
            .extend(values.keys());
        self.rows.insert(row, values);
    }

    fn update(&mut self, row: Name, set: &Row) {
        let Some(values) = self.rows.get_mut(&row) else {
            return;
        };
        let mut changed = BTreeSet::new();
        for (column, value) in set {
            if values.insert(column, value.clone()).as_ref() != Some(value) {
                changed.insert(*column);
            }
        }
        if !changed.is_empty() {
            self.touched.entry(row).or_default().extend(changed);
        }
    }
}
