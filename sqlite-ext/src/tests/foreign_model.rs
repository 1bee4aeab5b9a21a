//! Random tables that refer to each other on three replicas, compared with the rule as it is
//! written down: a model that shares nothing with the code but the stamps.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

mod schemas;

use schemas::{Key, Policy, SCHEMAS, Spec};

/// A value and its stamp; the site breaks ties as bytes.
type Cell = (Option<i64>, (Hlc, [u8; 16]));
/// The rows of all tables: by table and id, the columns beside the id.
type Shown = BTreeMap<(usize, i64), Vec<Option<i64>>>;

/// A row that was ever heard of; odd lives are alive.
#[derive(Clone, Debug)]
struct Row {
    life: u64,
    cells: Vec<Cell>,
}

/// What one replica has heard of.
#[derive(Clone)]
struct Model {
    schema: &'static [Spec],
    rows: BTreeMap<(usize, i64), Row>,
}

impl Model {
    /// Notes what a statement did to the shown rows. `whole` is a row whose columns all count as
    /// written.
    fn wrote(
        &mut self,
        before: &Shown,
        after: &Shown,
        whole: Option<(usize, i64)>,
        at: (Hlc, [u8; 16]),
    ) {
        for key in before.keys().filter(|key| !after.contains_key(key)) {
            let row = self.rows.get_mut(key).expect("a shown row is known");
            row.life += 1;
            row.cells.clear();
        }
        for (key, values) in after {
            let row = self.rows.entry(*key).or_insert(Row {
                life: 0,
                cells: vec![],
            });
            let old = before.get(key).filter(|_| whole != Some(*key));
            row.life |= 1;
            row.cells.resize(values.len(), (None, (Hlc::ZERO, [0; 16])));
            for (column, value) in values.iter().enumerate() {
                if old.is_none_or(|old| old[column] != *value) {
                    row.cells[column] = (*value, at);
                }
            }
        }
    }

    fn merge(&mut self, other: &Model) {
        for (key, theirs) in &other.rows {
            let Some(ours) = self.rows.get_mut(key) else {
                self.rows.insert(*key, theirs.clone());
                continue;
            };
            match ours.life.cmp(&theirs.life) {
                Ordering::Greater => {}
                Ordering::Less => *ours = theirs.clone(),
                Ordering::Equal => {
                    for (own, their) in ours.cells.iter_mut().zip(&theirs.cells) {
                        let order = (own.1.0.cmp(&their.1.0))
                            .then_with(|| own.0.cmp(&their.0))
                            .then_with(|| own.1.1.cmp(&their.1.1));
                        if order.is_lt() {
                            *own = *their;
                        }
                    }
                }
            }
        }
    }

    /// Whether rows of a table depend on rows of another, directly or not.
    fn depends(&self, child: usize, parent: usize) -> bool {
        let mut reached = BTreeSet::new();
        let mut next = vec![child];
        while let Some(table) = next.pop() {
            for key in self.schema[table].keys {
                if reached.insert(key.parent) {
                    next.push(key.parent);
                }
            }
        }
        reached.contains(&parent)
    }

    fn alive(&self, tables: &BTreeSet<usize>) -> Shown {
        let rows = self.rows.iter();
        rows.filter(|((table, _), row)| row.life % 2 == 1 && tables.contains(table))
            .map(|(key, row)| (*key, row.cells.iter().map(|cell| cell.0).collect()))
            .collect()
    }

    /// Returns the rows that are shown.
    fn shown(&self) -> Shown {
        let mut shown = Shown::new();
        let mut left: BTreeSet<usize> = (0..self.schema.len()).collect();
        while let Some(first) = left.iter().copied().find(|table| {
            let mut left = left.iter().copied();
            left.all(|other| !self.depends(*table, other) || self.depends(other, *table))
        }) {
            let is_member = |other: &usize| {
                *other == first || (self.depends(first, *other) && self.depends(*other, first))
            };
            let members: BTreeSet<usize> = left.iter().copied().filter(is_member).collect();
            left.retain(|table| !members.contains(table));
            self.settle(&members, &mut shown);
        }
        shown
    }

    fn settle(&self, members: &BTreeSet<usize>, shown: &mut Shown) {
        let mut taking_part = self.alive(members);
        set_null(self.schema, &mut taking_part, shown, |key| {
            !members.contains(&key.parent)
        });
        close(self.schema, &mut taking_part, shown);
        let mut order: Vec<_> = taking_part.keys().copied().collect();
        order.sort_by_key(|key| {
            let indexed = self.schema[key.0].unique.iter().copied().flatten();
            let cells = &self.rows[key].cells;
            let claim = indexed.map(|column| cells[column - 1].1).max();
            let claim = claim.unwrap_or((Hlc::ZERO, [0; 16]));
            (claim, key.1)
        });
        let mut won = Shown::new();
        for key in order {
            let values = &taking_part[&key];
            let rivals = |index: &&[usize], other: &Vec<Option<i64>>| {
                let mut columns = index.iter().map(|column| column - 1);
                columns.all(|at| values[at].is_some() && values[at] == other[at])
            };
            let unique = self.schema[key.0].unique;
            let mut others = won.range((key.0, i64::MIN)..=(key.0, i64::MAX));
            if !others.any(|(_, other)| unique.iter().any(|index| rivals(index, other))) {
                won.insert(key, values.clone());
            }
        }
        close(self.schema, &mut won, shown);
        let all = won.clone();
        set_null(self.schema, &mut won, &all, |key| {
            members.contains(&key.parent)
        });
        shown.append(&mut won);
    }

    /// Returns the columns that show something else than was written to them, by table and id.
    fn masked(&self, shown: &Shown) -> BTreeSet<(usize, i64, usize, i64)> {
        let mut masked = BTreeSet::new();
        for ((table, id), values) in shown {
            let cells = &self.rows[&(*table, *id)].cells;
            for (column, (value, cell)) in values.iter().zip(cells).enumerate() {
                if let Some(kept) = cell.0.filter(|_| value.is_none()) {
                    masked.insert((*table, *id, column, kept));
                }
            }
        }
        masked
    }
}

fn value((_, id): (usize, i64), values: &[Option<i64>], column: usize) -> Option<i64> {
    match column {
        0 => Some(id),
        column => values[column - 1],
    }
}

/// Whether what a row refers to by a key is among some rows, or it refers to nothing.
fn is_held(key: &Key, row: ((usize, i64), &[Option<i64>]), among: [&Shown; 2]) -> bool {
    let own: Vec<_> = key
        .columns
        .iter()
        .map(|at| value(row.0, row.1, *at))
        .collect();
    let mut parents = among
        .iter()
        .flat_map(|rows| rows.range((key.parent, i64::MIN)..=(key.parent, i64::MAX)));
    own.contains(&None)
        || parents.any(|(parent, values)| {
            let columns = key.parent_columns.iter();
            let theirs: Vec<_> = columns.map(|at| value(*parent, values, *at)).collect();
            theirs == own
        })
}

/// Takes away rows without their parents until none is left.
fn close(schema: &[Spec], rows: &mut Shown, outside: &Shown) {
    loop {
        let lost = rows.iter().find(|(at, values)| {
            let mut keys = schema[at.0].keys.iter();
            keys.any(|key| {
                key.policy == Policy::Hide && !is_held(key, (**at, values), [rows, outside])
            })
        });
        let Some((lost, _)) = lost else { return };
        let lost = *lost;
        rows.remove(&lost);
    }
}

/// Sets references to NULL where the parent is not among some rows.
fn set_null(schema: &[Spec], rows: &mut Shown, among: &Shown, is_asked: impl Fn(&Key) -> bool) {
    for (at, values) in rows {
        for key in schema[at.0].keys {
            if key.policy == Policy::SetNull
                && is_asked(key)
                && !is_held(key, (*at, values), [among, among])
            {
                let columns = key.columns.iter();
                columns.for_each(|column| values[*column - 1] = None);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        at: usize,
        enforced: bool,
        sql: String,
        whole: Option<(usize, i64)>,
    },
    Pull {
        into: usize,
        from: usize,
    },
    Wait {
        at: usize,
        ms: u64,
    },
}

const IDS: std::ops::Range<i64> = 1..6;

fn statement(schema: &'static [Spec]) -> impl Strategy<Value = (String, Option<(usize, i64)>)> {
    let policy = || prop::sample::select(vec!["ABORT", "IGNORE", "REPLACE"]);
    let value = || prop::option::weighted(0.85, IDS);
    let word = |value: Option<i64>| value.map_or("NULL".to_owned(), |value| value.to_string());
    (0..schema.len()).prop_flat_map(move |table| {
        let Spec { name, columns, .. } = &schema[table];
        let width = columns.len();
        let insert = (policy(), IDS, prop::collection::vec(value(), width)).prop_map(
            move |(policy, id, values)| {
                let values: Vec<String> = values.into_iter().map(word).collect();
                let values = values.join(", ");
                let whole = (policy == "REPLACE").then_some((table, id));
                let insert = format!("INSERT OR {policy} INTO {name} VALUES({id}, {values})");
                (insert, whole)
            },
        );
        let update = (policy(), IDS, 0..width, value()).prop_map(move |(policy, id, at, value)| {
            let (column, value) = (columns[at], word(value));
            let update =
                format!("UPDATE OR {policy} {name} SET {column} = {value} WHERE id = {id}");
            (update, None)
        });
        let rename = (policy(), IDS, IDS).prop_map(move |(policy, old, new)| {
            let update = format!("UPDATE OR {policy} {name} SET id = {new} WHERE id = {old}");
            (update, (old != new).then_some((table, new)))
        });
        let delete = IDS.prop_map(move |id| (format!("DELETE FROM {name} WHERE id = {id}"), None));
        prop_oneof![7 => insert, 3 => update, 1 => rename, 3 => delete]
    })
}

fn step(schema: &'static [Spec]) -> impl Strategy<Value = Step> {
    let write = (0usize..3, any::<bool>(), statement(schema));
    prop_oneof![
        9 => write.prop_map(|(at, enforced, (sql, whole))| Step::Write { at, enforced, sql, whole }),
        4 => (0usize..3, 1usize..3).prop_map(|(into, other)| Step::Pull {
            into,
            from: (into + other) % 3,
        }),
        2 => (0usize..3, 0u64..3).prop_map(|(at, ms)| Step::Wait { at, ms }),
    ]
}

/// A replica and what it should hold.
struct Pair {
    replica: Replica,
    model: Model,
}

impl Pair {
    fn shown(&self) -> Shown {
        let mut shown = Shown::new();
        for (table, spec) in self.model.schema.iter().enumerate() {
            let all = format!("SELECT id, {} FROM {}", spec.columns.join(", "), spec.name);
            let mut statement = self.replica.conn.prepare(&all).expect("the table is there");
            let width = spec.columns.len();
            let mut rows = statement.query([]).expect("rows");
            while let Some(row) = rows.next().expect("a row") {
                let values = (1..=width).map(|at| row.get(at).expect("a number"));
                shown.insert((table, row.get(0).expect("an id")), values.collect());
            }
        }
        shown
    }

    fn write(&mut self, enforced: bool, sql: &str, whole: Option<(usize, i64)>) {
        let conn = &self.replica.conn;
        conn.pragma_update(None, "foreign_keys", enforced)
            .expect("pragma");
        let before = self.shown();
        // A statement that a constraint refuses changes nothing.
        let is_done = conn.execute(sql, []).is_ok_and(|count| count > 0);
        let after = self.shown();
        let site = site_id(conn).expect("prepared").0;
        let version = fold(conn, self.replica.now).expect("fold");
        if is_done {
            let whole = whole.filter(|key| after.contains_key(key));
            let version = version.unwrap_or(Hlc::ZERO);
            self.model.wrote(&before, &after, whole, (version, site));
        }
    }

    /// Returns what a query gives, of which the first column names a table.
    fn listed<T: Ord>(
        &self,
        select: &str,
        read: impl Fn(usize, &rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> BTreeSet<T> {
        let conn = &self.replica.conn;
        let mut statement = conn.prepare(select).expect("the view is there");
        let listed = statement.query_map([], |row| {
            let name: String = row.get(0)?;
            let mut tables = self.model.schema.iter();
            let table = tables.position(|spec| spec.name == name);
            read(table.expect("a table of ours"), row)
        });
        let listed = listed.expect("rows").collect::<Result<_, _>>();
        listed.expect("rows as they are listed")
    }

    #[track_caller]
    fn check(&self) {
        let shown = self.model.shown();
        assert_eq!(self.shown(), shown, "shown");
        let all = (0..self.model.schema.len()).collect();
        let parked = self.model.alive(&all).into_keys();
        let parked = parked.filter(|key| !shown.contains_key(key));
        let parked: BTreeSet<(usize, i64)> = parked.collect();
        let listed = "SELECT table_name, key ->> 'id' FROM syncline_conflicts
            WHERE state = 'parked'";
        let listed = self.listed(listed, |table, row| Ok((table, row.get(1)?)));
        assert_eq!(listed, parked, "parked");
        let masked = "SELECT c.table_name, c.key ->> 'id', cell.key, cell.value
            FROM syncline_conflicts AS c, json_each(c.row) AS cell WHERE c.state = 'masked'";
        let masked = self.listed(masked, |table, row| {
            let name: String = row.get(2)?;
            let mut columns = self.model.schema[table].columns.iter();
            let column = columns.position(|column| *column == name);
            Ok((table, row.get(1)?, column.expect("a column"), row.get(3)?))
        });
        assert_eq!(masked, self.model.masked(&shown), "masked");
        assert_eq!(self.replica.rows("PRAGMA foreign_key_check"), [""; 0]);
    }
}

fn pull(pairs: &mut [Pair], into: usize, from: usize) {
    let [into, from] = pairs.get_disjoint_mut([into, from]).expect("two replicas");
    into.replica.pull(&from.replica);
    into.model.merge(&from.model);
    into.check();
}

fn pairs(schema: &'static [Spec], is_indexed: bool) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for at in 0..3 {
        let replica = replica("PRAGMA foreign_keys = OFF", &[]);
        if at == 0 {
            for Spec { name, sql, .. } in schema {
                let create = format!("CREATE TABLE {name}(id INTEGER PRIMARY KEY, {sql})");
                replica.conn.execute(&create, []).expect("a table");
            }
            for Spec {
                name,
                columns,
                options,
                ..
            } in schema
            {
                if is_indexed {
                    let column = columns[0];
                    let create = format!("CREATE INDEX i_{name} ON {name}({column})");
                    replica.conn.execute(&create, []).expect("an index");
                }
                let options = TableOptions::parse(options).expect("options");
                track(&replica.conn, name, &options, NOW).expect("track");
            }
        }
        let model = Model {
            schema,
            rows: BTreeMap::new(),
        };
        pairs.push(Pair { replica, model });
    }
    pull(&mut pairs, 1, 0);
    pull(&mut pairs, 2, 0);
    pairs
}

fn run(schema: &'static [Spec], is_indexed: bool, steps: &[Step]) {
    let mut pairs = pairs(schema, is_indexed);
    for step in steps {
        match step {
            Step::Write {
                at,
                enforced,
                sql,
                whole,
            } => {
                pairs[*at].write(*enforced, sql, *whole);
                pairs[*at].check();
            }
            Step::Pull { into, from } => pull(&mut pairs, *into, *from),
            Step::Wait { at, ms } => pairs[*at].replica.now += ms,
        }
    }
    for _ in 0..2 {
        for (into, from) in [(0, 1), (1, 2), (2, 0), (0, 2), (1, 0)] {
            pull(&mut pairs, into, from);
        }
    }
    for pair in &pairs {
        pair.check();
        assert_eq!(pair.shown(), pairs[0].shown());
        assert_eq!(pair.replica.digest(), pairs[0].replica.digest());
        let conflicts = "SELECT * FROM syncline_conflicts ORDER BY table_name, key";
        assert_eq!(
            pair.replica.rows(conflicts),
            pairs[0].replica.rows(conflicts)
        );
        assert_eq!(pair.replica.rows("PRAGMA integrity_check"), ["ok"]);
    }
}

fn case() -> impl Strategy<Value = (usize, Vec<Step>)> {
    (0..SCHEMAS.len()).prop_flat_map(|at| {
        let steps = prop::collection::vec(step(SCHEMAS[at]), 1..40);
        (Just(at), steps)
    })
}

proptest! {
    #![proptest_config(few())]

    /// The shown rows and the parked ones are what the rule says of what a replica has heard, after
    /// every step and whatever the order of changes.
    #[test]
    fn what_is_shown_follows_from_what_is_known(is_indexed in any::<bool>(), (at, steps) in case()) {
        run(SCHEMAS[at], is_indexed, &steps);
    }
}
