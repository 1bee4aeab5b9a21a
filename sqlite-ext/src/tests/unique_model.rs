//! Random tables with unique indices on three replicas, compared with the rule as it is written
//! down: a model that shares nothing with the code but the stamps.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use proptest::prelude::*;
use rusqlite::types::Value as Sql;

use super::*;

/// A column's value and its stamp; the site breaks ties as bytes.
type Cell = (Sql, (Hlc, [u8; 16]));
/// The values of `a`, `b` and `c`.
type Shown = BTreeMap<i64, Vec<Sql>>;

const COLUMNS: [&str; 3] = ["a", "b", "c"];

/// A row that was ever heard of; odd lives are alive.
#[derive(Clone, Debug)]
struct Row {
    life: u64,
    cells: Vec<Cell>,
}

/// A unique index, the columns it mentions, and what a row holds under it.
struct Index {
    sql: &'static str,
    mentions: &'static [usize],
    tuple: fn(&[Sql]) -> Option<Vec<Sql>>,
}

const INDICES: [Index; 6] = [
    Index {
        sql: "CREATE UNIQUE INDEX i0 ON p(a)",
        mentions: &[0],
        tuple: |row| present(vec![lower(&row[0])]),
    },
    Index {
        sql: "CREATE UNIQUE INDEX i1 ON p(a COLLATE BINARY DESC)",
        mentions: &[0],
        tuple: |row| present(vec![row[0].clone()]),
    },
    Index {
        sql: "CREATE UNIQUE INDEX i2 ON p(b, \"c\")",
        mentions: &[1, 2],
        tuple: |row| present(vec![row[1].clone(), row[2].clone()]),
    },
    Index {
        sql: "CREATE UNIQUE INDEX i3 ON p(c) WHERE b > 1",
        mentions: &[1, 2],
        tuple: |row| match row[1] {
            Sql::Integer(2..) => present(vec![row[2].clone()]),
            _ => None,
        },
    },
    Index {
        sql: "CREATE UNIQUE INDEX i4 ON p(lower(a), c % 2)",
        mentions: &[0, 2],
        tuple: |row| match row[2] {
            Sql::Integer(number) => present(vec![lower(&row[0]), Sql::Integer(number % 2)]),
            _ => None,
        },
    },
    Index {
        sql: "CREATE UNIQUE INDEX i5 ON p(b)",
        mentions: &[1],
        tuple: |row| present(vec![row[1].clone()]),
    },
];

fn present(tuple: Vec<Sql>) -> Option<Vec<Sql>> {
    (!tuple.contains(&Sql::Null)).then_some(tuple)
}

fn lower(value: &Sql) -> Sql {
    match value {
        Sql::Text(text) => Sql::Text(text.to_ascii_lowercase()),
        _ => value.clone(),
    }
}

/// The order that settles a tie of times.
fn compare(a: &Sql, b: &Sql) -> Ordering {
    let rank = |value: &Sql| match value {
        Sql::Null => (0, String::new(), 0),
        Sql::Text(text) => (1, text.clone(), 0),
        Sql::Integer(number) => (2, String::new(), *number),
        other => panic!("the steps write no {other:?}"),
    };
    rank(a).cmp(&rank(b))
}

/// What one replica has heard of.
#[derive(Clone, Debug, Default)]
struct Model {
    rows: BTreeMap<i64, Row>,
    /// Whether the key's collation calls each two keys equal.
    folds: bool,
    indices: Vec<usize>,
}

impl Model {
    /// Notes what a statement did to the shown rows. `whole` is a key whose columns all count as
    /// written.
    fn wrote(&mut self, before: &Shown, after: &Shown, whole: Option<i64>, at: (Hlc, [u8; 16])) {
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
            row.cells
                .resize(COLUMNS.len(), (Sql::Null, (Hlc::ZERO, [0; 16])));
            for (column, value) in values.iter().enumerate() {
                if old.is_none_or(|old| old[column] != *value) {
                    row.cells[column] = (value.clone(), at);
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
                            .then_with(|| compare(&own.0, &their.0))
                            .then_with(|| own.1.1.cmp(&their.1.1));
                        if order.is_lt() {
                            *own = their.clone();
                        }
                    }
                }
            }
        }
    }

    /// Returns the shown rows, and the parked ones by their winner.
    fn outcome(&self) -> (Shown, BTreeMap<i64, i64>) {
        let mentioned: Vec<usize> = self
            .indices
            .iter()
            .flat_map(|index| INDICES[*index].mentions)
            .copied()
            .collect();
        let claim = |(key, row): &(&i64, &Row)| {
            let stamps = mentioned.iter().map(|column| row.cells[*column].1);
            let earliest = row.cells.iter().map(|cell| cell.1).min();
            let latest = stamps.max().or(earliest.filter(|_| self.folds));
            (latest, packed(**key, self.folds))
        };
        let mut order: Vec<(&i64, &Row)> = self
            .rows
            .iter()
            .filter(|(_, row)| row.life % 2 == 1)
            .collect();
        order.sort_by_key(claim);
        let (mut shown, mut parked) = (Shown::new(), BTreeMap::new());
        let mut holders: Vec<(usize, Vec<Sql>, i64)> = Vec::new();
        for (key, row) in order {
            let values: Vec<Sql> = row.cells.iter().map(|cell| cell.0.clone()).collect();
            let tuples = self.indices.iter();
            let own = (INDICES.len(), vec![Sql::Integer((key + 1) / 2)]);
            let tuples: Vec<(usize, Vec<Sql>)> = tuples
                .filter_map(|index| Some((*index, (INDICES[*index].tuple)(&values)?)))
                .chain(self.folds.then_some(own))
                .collect();
            let holder = holders
                .iter()
                .find(|(index, tuple, _)| tuples.contains(&(*index, tuple.clone())));
            match holder {
                Some((_, _, winner)) => {
                    parked.insert(*key, *winner);
                }
                None => {
                    holders.extend(
                        tuples
                            .into_iter()
                            .map(|(index, tuple)| (index, tuple, *key)),
                    );
                    shown.insert(*key, values);
                }
            }
        }
        (shown, parked)
    }
}

/// The least key goes first: numbers have one digit here, and capitals go before small letters.
fn packed(key: i64, folds: bool) -> (bool, i64) {
    (folds && key % 2 == 1, key)
}

/// How the keys are written where the collation calls each two of them equal.
const LETTERS: [&str; 8] = ["", "a", "A", "b", "B", "c", "C", "d"];

fn literal(key: i64, folds: bool) -> String {
    match folds {
        true => format!("'{}'", LETTERS[key as usize]),
        false => key.to_string(),
    }
}

fn number(key: &str) -> i64 {
    let letter = LETTERS.iter().position(|letter| *letter == key);
    letter.map_or_else(|| key.parse().expect("a key"), |at| at as i64)
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        at: usize,
        sql: String,
        whole: Option<i64>,
    },
    Pull {
        into: usize,
        from: usize,
    },
    Index {
        at: usize,
        index: usize,
    },
    Wait {
        at: usize,
        ms: u64,
    },
}

fn value(column: usize) -> BoxedStrategy<String> {
    match column {
        0 => prop::sample::select(vec!["'x'", "'X'", "'y'", "NULL"]).boxed(),
        1 => prop::sample::select(vec!["1", "2", "3", "NULL"]).boxed(),
        _ => prop::sample::select(vec!["1", "2", "3"]).boxed(),
    }
    .prop_map(str::to_owned)
    .boxed()
}

fn write() -> impl Strategy<Value = (String, Option<i64>)> {
    let policy = || prop::sample::select(vec!["ABORT", "IGNORE", "REPLACE"]);
    let insert =
        (policy(), 1i64..8, value(0), value(1), value(2)).prop_map(|(policy, key, a, b, c)| {
            let whole = (policy == "REPLACE").then_some(key);
            (
                format!("INSERT OR {policy} INTO p VALUES(@{key}@, {a}, {b}, {c})"),
                whole,
            )
        });
    let update = (policy(), 1i64..8, 0usize..3).prop_flat_map(|(policy, key, column)| {
        let name = COLUMNS[column];
        value(column).prop_map(move |value| {
            let update = format!("UPDATE OR {policy} p SET {name} = {value} WHERE id = @{key}@");
            (update, None)
        })
    });
    let rename = (policy(), 1i64..8, 1i64..8).prop_map(|(policy, old, new)| {
        let update = format!("UPDATE OR {policy} p SET id = @{new}@ WHERE id = @{old}@");
        (update, (old != new).then_some(new))
    });
    let rotate = Just((
        "UPDATE OR IGNORE p SET b = b % 3 + 1, c = c % 3 + 1".to_owned(),
        None,
    ));
    let delete = (1i64..8).prop_map(|key| (format!("DELETE FROM p WHERE id = @{key}@"), None));
    prop_oneof![6 => insert, 4 => update, 1 => rename, 1 => rotate, 2 => delete]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..3, write()).prop_map(|(at, (sql, whole))| Step::Write { at, sql, whole }),
        5 => (0usize..3, 1usize..3).prop_map(|(into, other)| Step::Pull {
            into,
            from: (into + other) % 3,
        }),
        1 => (0usize..3, 0usize..INDICES.len()).prop_map(|(at, index)| Step::Index { at, index }),
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
        let all = "SELECT CAST(id AS TEXT), a, b, c FROM p";
        let mut statement = self.replica.conn.prepare(all).expect("the table is there");
        let rows = statement.query_map([], |row| {
            let key = number(&row.get::<_, String>(0)?);
            Ok((key, vec![row.get(1)?, row.get(2)?, row.get(3)?]))
        });
        rows.expect("rows")
            .collect::<Result<_, _>>()
            .expect("values")
    }

    fn parked(&self) -> BTreeMap<i64, i64> {
        let all = "SELECT CAST(key ->> 'id' AS TEXT), CAST(winner ->> 'id' AS TEXT)
            FROM syncline_conflicts";
        let mut statement = self.replica.conn.prepare(all).expect("the view is there");
        let key = |row: &rusqlite::Row<'_>, at| row.get(at).map(|key: String| number(&key));
        let rows = statement.query_map([], |row| Ok((key(row, 0)?, key(row, 1)?)));
        rows.expect("rows").collect::<Result<_, _>>().expect("keys")
    }

    fn write(&mut self, sql: &str, whole: Option<i64>) {
        let before = self.shown();
        let parts = sql.split('@').enumerate();
        let sql: String = parts
            .map(|(at, part)| match at % 2 {
                0 => part.to_owned(),
                _ => literal(part.parse().expect("a key"), self.model.folds),
            })
            .collect();
        // A statement that a unique index refuses changes nothing.
        let changed = self.replica.conn.execute(&sql, []).unwrap_or(0);
        let after = self.shown();
        let site = site_id(&self.replica.conn).expect("prepared").0;
        let version = fold(&self.replica.conn, self.replica.now).expect("fold");
        if changed > 0 {
            let whole = whole.filter(|key| after.contains_key(key));
            // A row that was given the key that it had was not written.
            let is_moved = !sql.starts_with("UPDATE") || !before.keys().eq(after.keys());
            let whole = whole.filter(|_| is_moved);
            let version = version.unwrap_or(Hlc::ZERO);
            self.model.wrote(&before, &after, whole, (version, site));
        }
    }

    fn toggle(&mut self, index: usize) {
        let (conn, held) = (&self.replica.conn, &mut self.model.indices);
        if let Some(at) = held.iter().position(|known| *known == index) {
            conn.execute(&format!("DROP INDEX i{index}"), [])
                .expect("it is there");
            held.remove(at);
        } else if conn.execute(INDICES[index].sql, []).is_ok() {
            held.push(index);
        }
        fold(conn, self.replica.now).expect("fold");
    }

    #[track_caller]
    fn check(&self) {
        let (shown, parked) = self.model.outcome();
        assert_eq!((self.shown(), self.parked()), (shown, parked));
    }
}

fn pull(pairs: &mut [Pair], into: usize, from: usize) {
    let [into, from] = pairs.get_disjoint_mut([into, from]).expect("two replicas");
    into.replica.pull(&from.replica);
    into.model.merge(&from.model);
    into.check();
}

fn run(kind: usize, indices: Vec<usize>, steps: &[Step]) {
    let key = [
        "INTEGER PRIMARY KEY",
        "TEXT PRIMARY KEY",
        "TEXT PRIMARY KEY",
        "TEXT PRIMARY KEY COLLATE NOCASE",
        "TEXT COLLATE NOCASE PRIMARY KEY",
    ][kind];
    let suffix = ["", "", "WITHOUT ROWID", "", "WITHOUT ROWID"][kind];
    let mut schema =
        format!("CREATE TABLE p(id {key}, a TEXT COLLATE NOCASE, b, c INTEGER){suffix};");
    indices
        .iter()
        .for_each(|index| schema.extend([INDICES[*index].sql, ";"]));
    let mut pairs = Vec::new();
    for at in 0..3 {
        let replica = match at {
            0 => replica(&schema, &["p"]),
            _ => replica("", &[]),
        };
        let model = Model {
            rows: BTreeMap::new(),
            folds: kind > 2,
            indices: indices.clone(),
        };
        pairs.push(Pair { replica, model });
    }
    pull(&mut pairs, 1, 0);
    pull(&mut pairs, 2, 0);
    for step in steps {
        match step {
            Step::Write { at, sql, whole } => {
                pairs[*at].write(sql, *whole);
                pairs[*at].check();
            }
            Step::Pull { into, from } => pull(&mut pairs, *into, *from),
            Step::Index { at, index } => {
                pairs[*at].toggle(*index);
                pairs[*at].check();
            }
            Step::Wait { at, ms } => pairs[*at].replica.now += ms,
        }
    }
    for index in 0..INDICES.len() {
        let is_everywhere = pairs.iter().all(|pair| pair.model.indices.contains(&index));
        for pair in pairs
            .iter_mut()
            .filter(|pair| pair.model.indices.contains(&index))
        {
            if !is_everywhere {
                pair.toggle(index);
            }
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
        let conflicts = "SELECT * FROM syncline_conflicts ORDER BY key";
        assert_eq!(
            pair.replica.rows(conflicts),
            pairs[0].replica.rows(conflicts)
        );
        assert_eq!(pair.replica.rows("PRAGMA integrity_check"), ["ok"]);
    }
}

proptest! {
    #![proptest_config(few())]

    /// The shown rows and the parked ones are what the rule says of what a replica has heard, after
    /// every step and whatever the order of changes.
    #[test]
    fn what_is_shown_follows_from_what_is_known(
        kind in 0usize..5,
        indices in prop::sample::subsequence((0..INDICES.len()).collect::<Vec<_>>(), 0..4),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(kind, indices, &steps);
    }
}
