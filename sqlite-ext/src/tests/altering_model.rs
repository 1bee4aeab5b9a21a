//! Schema steps, writes and exchanges in any order, against a model that knows a column by when it
//! was added, whatever it is called.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What all replicas do to their tables, each in its own time.
#[derive(Clone, Debug)]
enum Change {
    Add,
    Drop(usize),
    Rename(usize),
    RenameKey,
    Rebuild,
    Index(usize),
    DropIndex,
}

#[derive(Clone, Debug)]
enum Step {
    /// Replica, row, column, value.
    Put(usize, u8, usize, u8),
    Delete(usize, u8),
    Pull(usize, usize),
    /// A replica makes the next change of the schema.
    Advance(usize),
}

/// One state of the schema: the key's name, and names of columns with what they are.
#[derive(Clone, Debug)]
struct Version {
    key: String,
    columns: Vec<(String, usize)>,
    /// What makes it of the version before.
    sql: String,
    is_rebuilt: bool,
}

/// Works out the versions that the changes make.
fn versions(kind: &str, changes: &[Change]) -> Vec<Version> {
    let first = Version {
        key: "id".into(),
        columns: vec![("c0".into(), 0), ("c1".into(), 1)],
        sql: String::new(),
        is_rebuilt: false,
    };
    let mut all = vec![first];
    let (mut has_index, mut fresh) = (false, 2);
    for change in changes {
        let mut next = all.last().expect("the first").clone();
        next.is_rebuilt = false;
        next.sql = match change {
            Change::Add => {
                next.columns.push((format!("c{fresh}"), fresh));
                fresh += 1;
                format!("ALTER TABLE t ADD COLUMN c{}", fresh - 1)
            }
            Change::Drop(at) if next.columns.len() > 1 => {
                let (name, _) = next.columns.remove(at % next.columns.len());
                let drop = if has_index { "DROP INDEX i;" } else { "" };
                has_index = false;
                format!("{drop} ALTER TABLE t DROP COLUMN {name}")
            }
            Change::Rename(at) => {
                let at = at % next.columns.len();
                let name = format!("renamed \"\"{fresh}");
                fresh += 1;
                let former = std::mem::replace(&mut next.columns[at].0, format!("\"{name}\""));
                format!("ALTER TABLE t RENAME COLUMN {former} TO \"{name}\"")
            }
            Change::RenameKey => {
                let former = std::mem::replace(&mut next.key, format!("key{fresh}"));
                fresh += 1;
                format!("ALTER TABLE t RENAME COLUMN {former} TO {}", next.key)
            }
            Change::Rebuild => {
                next.is_rebuilt = true;
                has_index = false;
                rebuild(kind, &next)
            }
            Change::Index(at) if !has_index => {
                has_index = true;
                format!(
                    "CREATE INDEX i ON t({})",
                    next.columns[at % next.columns.len()].0
                )
            }
            Change::DropIndex if has_index => {
                has_index = false;
                "DROP INDEX i".into()
            }
            Change::Drop(_) | Change::Index(_) | Change::DropIndex => String::new(),
        };
        all.push(next);
    }
    all
}

fn rebuild(kind: &str, version: &Version) -> String {
    let columns: Vec<_> = version
        .columns
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let (columns, key) = (columns.join(", "), &version.key);
    let definition = kind.replace("KEY_NAME", key).replace("COLUMNS", &columns);
    let copy = definition.replace("TABLE t(", "TABLE copy(");
    format!(
        "{copy}; INSERT INTO copy({key}, {columns}) SELECT {key}, {columns} FROM t;
         DROP TABLE t; ALTER TABLE copy RENAME TO t"
    )
}

const KINDS: [&str; 3] = [
    "CREATE TABLE t(KEY_NAME INTEGER PRIMARY KEY, COLUMNS)",
    "CREATE TABLE t(COLUMNS, KEY_NAME TEXT PRIMARY KEY)",
    "CREATE TABLE t(KEY_NAME TEXT PRIMARY KEY, COLUMNS) WITHOUT ROWID",
];

/// A row of the model: how often it was born or died, and its cells by what the column is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    lives: u32,
    cells: BTreeMap<usize, (u64, Option<String>)>,
}

#[derive(Clone, Debug, Default)]
struct Model {
    rows: BTreeMap<u8, Row>,
    clock: u64,
}

impl Model {
    fn tick(&mut self, now_ms: u64) -> u64 {
        self.clock = (self.clock + 1).max(now_ms << 12);
        self.clock
    }

    fn pull(&mut self, other: &Model) {
        self.clock = self.clock.max(other.clock);
        for (key, theirs) in &other.rows {
            let row = self.rows.entry(*key).or_default();
            if theirs.lives > row.lives {
                *row = theirs.clone();
            } else if theirs.lives == row.lives {
                for (column, cell) in &theirs.cells {
                    let own = row.cells.entry(*column).or_insert_with(|| cell.clone());
                    *own = own.clone().max(cell.clone());
                }
            }
        }
    }

    fn shown(&self, version: &Version) -> Vec<String> {
        let alive = self.rows.iter().filter(|(_, row)| row.lives % 2 == 1);
        let shown = alive.map(|(key, row)| {
            let cell = |(_, column): &(String, usize)| {
                let cell = row.cells.get(column).and_then(|(_, value)| value.clone());
                cell.unwrap_or("∅".into())
            };
            let cells = version.columns.iter().map(cell);
            let cells: Vec<_> = std::iter::once(key.to_string()).chain(cells).collect();
            cells.join("|")
        });
        shown.collect()
    }
}

struct World {
    versions: Vec<Version>,
    replicas: Vec<Replica>,
    models: Vec<Model>,
    at: Vec<usize>,
    now: u64,
}

impl World {
    fn new(kind: &str, changes: &[Change]) -> Self {
        let versions = versions(kind, changes);
        let schema = kind.replace("KEY_NAME", "id").replace("COLUMNS", "c0, c1");
        let mut first = replica(&schema, &["t"]);
        first.run("SELECT 1");
        let mut replicas = vec![first];
        for _ in 0..2 {
            let mut next = replica("", &[]);
            next.pull(&replicas[0]);
            replicas.push(next);
        }
        World {
            versions,
            replicas,
            models: vec![Model::default(); 3],
            at: vec![0; 3],
            now: NOW + 1_000,
        }
    }

    fn version(&self, on: usize) -> &Version {
        &self.versions[self.at[on]]
    }

    fn run(&mut self, on: usize, sql: &str) {
        // `run` folds ten milliseconds later than this.
        self.replicas[on].now = self.now - 10;
        self.replicas[on].run(sql);
    }

    fn step(&mut self, step: &Step) {
        self.now += 50;
        let ms = self.now - EPOCH_UNIX_MS;
        match *step {
            Step::Put(on, key, column, value) => self.put(on, key, column, value),
            Step::Delete(on, key) => {
                let sql = format!("DELETE FROM t WHERE {} = '{key}'", self.version(on).key);
                self.run(on, &sql);
                let model = &mut self.models[on];
                if let Some(row) = model.rows.get_mut(&key).filter(|row| row.lives % 2 == 1) {
                    row.lives += 1;
                    row.cells.clear();
                    model.tick(ms);
                }
            }
            Step::Pull(into, from) if into != from => {
                for replica in &mut self.replicas {
                    replica.now = self.now;
                }
                let [into_replica, from_replica] = self
                    .replicas
                    .get_disjoint_mut([into, from])
                    .expect("two replicas");
                into_replica.pull(from_replica);
                let other = self.models[from].clone();
                self.models[into].pull(&other);
            }
            Step::Pull(..) => {}
            Step::Advance(on) => self.advance(on),
        }
    }

    fn put(&mut self, on: usize, key: u8, column: usize, value: u8) {
        let version = self.version(on).clone();
        let (name, column) = version.columns[column % version.columns.len()].clone();
        let (id, value) = (&version.key, format!("v{value}"));
        let model = &mut self.models[on];
        let row = model.rows.entry(key).or_default();
        let is_alive = row.lives % 2 == 1;
        let time = (model.clock + 1).max((self.now - EPOCH_UNIX_MS) << 12);
        if !is_alive {
            row.lives += 1;
            let cells = version
                .columns
                .iter()
                .map(|(_, column)| (*column, (time, None)));
            row.cells = cells.collect();
        }
        let changed = row
            .cells
            .get(&column)
            .is_none_or(|(_, old)| *old != Some(value.clone()));
        if changed {
            row.cells.insert(column, (time, Some(value.clone())));
            model.clock = time;
        }
        let sql = if is_alive {
            format!("UPDATE t SET {name} = '{value}' WHERE {id} = '{key}'")
        } else {
            format!("INSERT INTO t({id}, {name}) VALUES('{key}', '{value}')")
        };
        self.run(on, &sql);
    }

    fn advance(&mut self, on: usize) {
        if self.at[on] + 1 == self.versions.len() {
            return;
        }
        self.at[on] += 1;
        let version = self.version(on).clone();
        self.run(on, &version.sql);
        let model = &mut self.models[on];
        if version.sql.contains("RENAME COLUMN") {
            model.tick(self.now - EPOCH_UNIX_MS);
        }
        if version.is_rebuilt && model.rows.values().any(|row| row.lives % 2 == 1) {
            let time = model.tick(0);
            for row in model.rows.values_mut().filter(|row| row.lives % 2 == 1) {
                for (_, column) in &version.columns {
                    row.cells.entry(*column).or_insert((0, None)).0 = time;
                }
            }
        }
    }

    fn finish(mut self) {
        for on in 0..3 {
            while self.at[on] + 1 < self.versions.len() {
                self.now += 50;
                self.advance(on);
            }
        }
        for _ in 0..2 {
            for (into, from) in [(0, 1), (0, 2), (1, 0), (2, 0), (1, 2), (2, 1)] {
                self.step(&Step::Pull(into, from));
            }
        }
        let version = self.versions.last().expect("the first").clone();
        let columns: Vec<_> = version
            .columns
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        let select = format!(
            "SELECT {0}, {1} FROM t ORDER BY {0}",
            version.key,
            columns.join(", ")
        );
        let mut fresh = replica("", &[]);
        fresh.pull(&self.replicas[1]);
        self.replicas.push(fresh);
        self.models.push(self.models[0].clone());
        for (replica, model) in self.replicas.iter().zip(&self.models) {
            assert_eq!(replica.rows(&select), model.shown(&version));
            assert_eq!(replica.digest(), self.replicas[0].digest());
            assert_eq!(replica.rows("PRAGMA integrity_check"), ["ok"]);
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => Just(Change::Add),
        2 => (0..9usize).prop_map(Change::Drop),
        3 => (0..9usize).prop_map(Change::Rename),
        1 => Just(Change::RenameKey),
        1 => Just(Change::Rebuild),
        1 => (0..9usize).prop_map(Change::Index),
        1 => Just(Change::DropIndex),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let on = 0..3usize;
    prop_oneof![
        5 => (on.clone(), 1..5u8, 0..9usize, 0..9u8).prop_map(|(on, key, column, value)|
            Step::Put(on, key, column, value)),
        1 => (on.clone(), 1..5u8).prop_map(|(on, key)| Step::Delete(on, key)),
        3 => (on.clone(), on.clone()).prop_map(|(into, from)| Step::Pull(into, from)),
        3 => on.prop_map(Step::Advance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn schema_steps_in_any_order_lose_nothing(
        kind in 0..KINDS.len(),
        changes in prop::collection::vec(change(), 0..6),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut world = World::new(KINDS[kind], &changes);
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}

const CASES: u32 = 48;
