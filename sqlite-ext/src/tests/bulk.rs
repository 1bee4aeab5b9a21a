//! Rows that are merged together end as they do when they are merged one by one.

use proptest::prelude::*;
use syncline_crdt::{Group, TableChanges};

use super::*;

const SCHEMAS: [&str; 6] = [
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c)",
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b UNIQUE, c CHECK(c < 9))",
    "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a, b NOT NULL, c)",
    "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a, b UNIQUE, c)",
    "CREATE TABLE t(kind NOT NULL, id, a, b UNIQUE, c, PRIMARY KEY(id, kind)) WITHOUT ROWID",
    "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL)",
];

/// What one replica does to some rows.
#[derive(Clone, Debug)]
enum Step {
    Insert { value: i64 },
    Update { column: usize, value: i64 },
    UpdateAll { value: i64 },
    Delete,
    Pull,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let value = 0..6i64;
    prop_oneof![
        4 => value.clone().prop_map(|value| Step::Insert { value }),
        4 => (0..3usize, value.clone()).prop_map(|(column, value)| Step::Update { column, value }),
        2 => value.prop_map(|value| Step::UpdateAll { value }),
        1 => Just(Step::Delete),
        1 => Just(Step::Pull),
        2 => Just(Step::Wait),
    ]
}

/// The statement of a step for the rows from `first` on.
fn statement(schema: &str, step: &Step, (first, count): (i64, i64)) -> String {
    let key = if schema.contains("INTEGER") {
        "i"
    } else {
        "'key ' || i"
    };
    let rows = format!(
        "WITH RECURSIVE n(i) AS
         (VALUES({first}) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {first} + {count})"
    );
    let is_key = format!("id IN ({rows} SELECT {key} FROM n)");
    let has_cells = schema.contains("a,");
    match step {
        Step::Insert { .. } if !has_cells => {
            format!("{rows} INSERT OR IGNORE INTO t SELECT {key} FROM n")
        }
        Step::Insert { value } => {
            let kind = if schema.contains("kind") {
                "i % 2, "
            } else {
                ""
            };
            format!(
                "{rows} INSERT OR IGNORE INTO t SELECT {kind}{key}, {value}, i + {value}, 'c' FROM n"
            )
        }
        Step::Update { column, value } if has_cells => {
            let column = ["a", "b", "c"][*column];
            format!("UPDATE OR IGNORE t SET {column} = {value} + length(id) WHERE {is_key}")
        }
        Step::UpdateAll { value } if has_cells => {
            format!("UPDATE OR IGNORE t SET a = {value}, b = b + 1, c = {value} WHERE {is_key}")
        }
        Step::Delete => format!("DELETE FROM t WHERE {is_key}"),
        _ => String::new(),
    }
}

/// Returns the same changes with each row in a group of its own.
fn row_by_row(changes: &Changeset) -> Changeset {
    let mut apart = changes.clone();
    for table in &mut apart.tables {
        let rows = |group: &Group| -> Vec<Group> {
            let width = table.key_columns.len() + group.columns.len();
            let row = |values: &[Value]| Group {
                values: values.to_vec(),
                ..group.clone()
            };
            group.values.chunks(width).map(row).collect()
        };
        let groups = table.groups.iter().flat_map(rows).collect();
        *table = TableChanges {
            groups,
            ..table.without_groups()
        };
    }
    apart
}

/// What is seen of a replica after it merged changes, which are taken back then.
fn outcome(replica: &Replica, changes: &Changeset) -> (Vec<String>, String) {
    replica
        .conn
        .execute_batch("SAVEPOINT trial")
        .expect("savepoint");
    import_changeset(&replica.conn, changes, replica.now).expect("import");
    let mut rows = replica.rows("SELECT * FROM t ORDER BY id");
    rows.extend(replica.rows("SELECT key, row, winner FROM syncline_conflicts ORDER BY key"));
    rows.extend(replica.rows("PRAGMA integrity_check"));
    let digest = replica.digest();
    replica
        .conn
        .execute_batch("ROLLBACK TO trial; RELEASE trial")
        .expect("rollback");
    (rows, digest)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn rows_that_are_merged_together_end_as_they_do_one_by_one(
        schema in prop::sample::select(&SCHEMAS[..]),
        steps in prop::collection::vec((0..2usize, step(), 0..20i64, 1..25i64), 1..14),
        knows in any::<bool>(),
    ) {
        let mut a = replica(schema, &["t"]);
        a.run(&statement(schema, &Step::Insert { value: 0 }, (0, 15)));
        let mut b = replica("", &[]);
        b.pull(&a);
        let mut replicas = [a, b];
        let mut now = NOW + 100;
        for (who, step, first, count) in &steps {
            replicas.iter_mut().for_each(|replica| replica.now = now);
            let [a, b] = &mut replicas;
            let (own, other) = if *who == 0 { (a, b) } else { (b, a) };
            match step {
                Step::Pull => _ = own.pull(other),
                Step::Wait => now += 10,
                step => {
                    let sql = statement(schema, step, (*first, *count));
                    own.conn.execute_batch(&sql).expect(&sql);
                    fold(&own.conn, now).expect("fold");
                }
            }
        }
        let [a, b] = &replicas;
        let since = if knows { b.seen() } else { VersionVector::new() };
        let changes = export(&a.conn, &since, now).expect("export");
        prop_assert_eq!(outcome(b, &changes), outcome(b, &row_by_row(&changes)));
    }
}
