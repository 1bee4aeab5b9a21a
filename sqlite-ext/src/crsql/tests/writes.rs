//! Random writes to CRRs of several shapes.

use proptest::prelude::*;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b TEXT DEFAULT 'x');
    CREATE TABLE p(k TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(n, k));
    CREATE TABLE w(k BLOB PRIMARY KEY NOT NULL, c REAL) WITHOUT ROWID;
    SELECT crsql_as_crr('t'); SELECT crsql_as_crr('p'); SELECT crsql_as_crr('w');";

/// What the tables hold.
pub(crate) const TABLES: [&str; 3] = [
    "SELECT id, quote(a), quote(b) FROM t ORDER BY id",
    "SELECT k, n FROM p ORDER BY n, k",
    "SELECT quote(k), quote(c) FROM w ORDER BY k",
];

/// What replicas that have all of each other agree on. That a row with cells is in its first life
/// may be told or not.
pub(crate) const CLOCKS: &str = "SELECT \"table\", quote(pk), cid, quote(val), col_version, cl
    FROM crsql_changes WHERE NOT (cid = '-1' AND cl = 1 AND \"table\" <> 'p') ORDER BY 1, 2, 3";

pub(crate) fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A statement; `#` stands for a number that no other statement has.
pub(crate) fn statement() -> impl Strategy<Value = String> {
    let id = 1..4;
    prop_oneof![
        4 => (id.clone(), any::<bool>()).prop_map(|(id, replaces)| {
            let verb = if replaces { "REPLACE" } else { "INSERT OR IGNORE" };
            format!("{verb} INTO t(id, a) VALUES({id}, #)")
        }),
        3 => id.clone().prop_map(|id| format!("UPDATE t SET a = # WHERE id = {id}")),
        2 => id.clone().prop_map(|id| format!("UPDATE t SET b = '#' WHERE id >= {id}")),
        2 => id.clone().prop_map(|id| format!("DELETE FROM t WHERE id = {id}")),
        2 => id.clone().prop_map(|id| format!("INSERT OR IGNORE INTO p VALUES('k', {id})")),
        1 => id.clone().prop_map(|id| format!("DELETE FROM p WHERE n = {id}")),
        2 => id.clone().prop_map(|id| format!(
            "INSERT INTO w VALUES(x'0{id}', #) ON CONFLICT DO UPDATE SET c = excluded.c"
        )),
        1 => id.prop_map(|id| format!("DELETE FROM w WHERE k = x'0{id}'")),
        1 => Just("DELETE FROM t".to_owned()),
    ]
}

/// Transactions, with whether each is committed.
pub(crate) fn transactions() -> impl Strategy<Value = Vec<(Vec<String>, bool)>> {
    let transaction = (
        prop::collection::vec(statement(), 1..4),
        prop::bool::weighted(0.9),
    );
    prop::collection::vec(transaction, 1..8)
}

/// Returns the statements of transactions, one text each.
pub(crate) fn numbered(transactions: &[(Vec<String>, bool)]) -> Vec<String> {
    let mut number = 100;
    let mut text = |(statements, is_committed): &(Vec<String>, bool)| {
        let statements = statements.iter().map(|statement| {
            number += 1;
            statement.replace('#', &number.to_string())
        });
        let body = statements.collect::<Vec<_>>().join("; ");
        let end = if *is_committed { "COMMIT" } else { "ROLLBACK" };
        format!("BEGIN; {body}; {end}")
    };
    transactions.iter().map(&mut text).collect()
}
