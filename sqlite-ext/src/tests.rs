//! What a user sees of tracking: writes by any statement are captured, merged and given back.

use proptest::prelude::ProptestConfig;
use rusqlite::Connection;
use syncline_crdt::{
    CAUSAL_LENGTH_MAX, CausalLength, Changeset, EPOCH_UNIX_MS, GroupKind, Hlc, SiteId, Value,
    VersionVector,
};

use crate::*;

mod admitted;
mod adopted;
mod alike_keys;
mod altered_options;
mod altering;
mod altering_model;
mod bounded;
mod bounded_model;
mod bulk;
mod capturing;
mod changed_keys;
mod checks;
mod circles;
mod collect;
pub(crate) mod content;
mod counted;
mod defaults;
mod deferred;
mod differing;
mod families;
mod foreign;
mod foreign_model;
mod functions;
mod gaps;
mod guarded;
mod histories;
mod key_references;
mod key_references_model;
mod kills;
mod looking;
mod masks;
mod mutations;
mod policies;
mod policies_model;
mod rebuilt;
mod references;
mod refused;
mod renumbered;
mod reused;
mod rivals;
mod shapes;
mod status;
mod unique;
mod unique_model;
mod untracked;
mod waiting;
mod ways;
mod wide;

const NOW: u64 = EPOCH_UNIX_MS + 1_000_000_000;

/// A database in memory with a connection that also has the SQL functions.
struct Replica {
    conn: Connection,
    now: u64,
}

fn replica(schema: &str, tables: &[&str]) -> Replica {
    replica_of(schema, tables, &TableOptions::default())
}

fn replica_of(schema: &str, tables: &[&str], options: &TableOptions) -> Replica {
    let conn = Connection::open_in_memory().expect("SQLite opens in memory");
    register(&conn).expect("the functions register");
    with_plain_codes(&conn);
    conn.execute_batch(schema).expect("the schema runs");
    for table in tables {
        track(&conn, table, options, NOW).expect("the table is tracked");
    }
    Replica { conn, now: NOW }
}

/// Has a connection say what most programs' connections do; rusqlite's say more of an error.
#[expect(unsafe_code, reason = "rusqlite switches them on and has no way back")]
fn with_plain_codes(conn: &Connection) {
    // SAFETY: the handle is open as long as `conn` is.
    let code = unsafe { rusqlite::ffi::sqlite3_extended_result_codes(conn.handle(), 0) };
    assert_eq!(code, rusqlite::ffi::SQLITE_OK);
}

fn with_ids(ids: Ids) -> TableOptions {
    TableOptions {
        ids,
        ..TableOptions::default()
    }
}

/// An eighth of the usual cases, where each is a whole schedule; PROPTEST_CASES gives others.
fn few() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases / 8,
        ..usual
    }
}

impl Replica {
    fn run(&mut self, sql: &str) -> &mut Self {
        self.conn.execute_batch(sql).expect(sql);
        self.now += 10;
        fold(&self.conn, self.now).expect("fold");
        self
    }

    fn seen(&self) -> VersionVector {
        fold(&self.conn, self.now).expect("fold");
        if is_prepared(&self.conn).expect("ours") {
            version_vector(&self.conn).expect("vector")
        } else {
            VersionVector::new()
        }
    }

    fn pull(&mut self, from: &Replica) -> &mut Self {
        let changes = export(&from.conn, &self.seen(), from.now).expect("export");
        let changes = Changeset::decode(&changes.encode()).expect("decode");
        import_changeset(&self.conn, &changes, self.now.max(from.now)).expect("import");
        self
    }

    fn digest(&self) -> String {
        digest(&self.conn, self.now).expect("digest").to_string()
    }

    fn rows(&self, select: &str) -> Vec<String> {
        let mut statement = self.conn.prepare(select).expect(select);
        let width = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let cells = (0..width).map(|at| match row.get_ref(at).expect("cell") {
                rusqlite::types::ValueRef::Null => "∅".to_owned(),
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                rusqlite::types::ValueRef::Real(number) => format!("{number:?}"),
                rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                rusqlite::types::ValueRef::Blob(blob) => format!("{blob:02x?}"),
            });
            Ok(cells.collect::<Vec<_>>().join("|"))
        };
        statement
            .query_map([], row)
            .expect(select)
            .collect::<Result<_, _>>()
            .expect(select)
    }

    /// The tables that stand aside, each with the reason.
    fn aside(&self) -> Vec<(String, String)> {
        let tables = status(&self.conn).expect("status").tables.into_iter();
        tables
            .filter_map(|(name, table)| Some((name, table.aside?)))
            .collect()
    }

    fn clock_entries(&self) -> i64 {
        let count = "SELECT count(*) FROM syncline_clocks";
        self.conn
            .query_row(count, [], |row| row.get(0))
            .expect("count")
    }
}

#[track_caller]
fn converge(replicas: &mut [Replica]) {
    for _ in 0..2 {
        for into in 0..replicas.len() {
            for from in 0..replicas.len() {
                if into != from {
                    let (a, b) = replicas.split_at_mut(into.max(from));
                    let (low, high) = (&mut a[into.min(from)], &mut b[0]);
                    if into < from {
                        low.pull(high)
                    } else {
                        high.pull(low)
                    };
                }
            }
        }
    }
    for replica in &*replicas {
        assert_eq!(replica.digest(), replicas[0].digest());
    }
}

const ALL_KINDS: [(&str, &str); 4] = [
    (
        "integer key",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT DEFAULT 'd')",
    ),
    (
        "text key",
        "CREATE TABLE t(id TEXT PRIMARY KEY, a, b TEXT DEFAULT 'd')",
    ),
    (
        "without rowid",
        "CREATE TABLE t(id PRIMARY KEY, a, b TEXT DEFAULT 'd') WITHOUT ROWID",
    ),
    (
        "descending integer",
        "CREATE TABLE t(id INTEGER PRIMARY KEY DESC, a, b TEXT DEFAULT 'd')",
    ),
];

#[test]
fn a_new_replica_gets_tables_rows_and_indices() {
    for (kind, schema) in ALL_KINDS {
        let mut a = replica(schema, &["t"]);
        a.run("CREATE INDEX by_a ON t(a); INSERT INTO t VALUES('1', 'x', 'y'), ('2', NULL, 'z')");
        let mut b = replica("", &[]);
        b.pull(&a);
        assert_eq!(
            b.rows("SELECT * FROM t ORDER BY id"),
            ["1|x|y", "2|∅|z"],
            "{kind}"
        );
        assert_eq!(a.digest(), b.digest(), "{kind}");
        assert_eq!(
            b.rows("SELECT count(*) FROM sqlite_master WHERE name = 'by_a'"),
            ["1"]
        );
    }
}

#[test]
fn edits_to_different_columns_both_stay() {
    for (kind, schema) in ALL_KINDS {
        let mut a = replica(schema, &["t"]);
        a.run("INSERT INTO t VALUES('1', 'x', 'y')");
        let mut b = replica("", &[]);
        b.pull(&a);
        a.run("UPDATE t SET a = 'from a'");
        b.run("UPDATE t SET b = 'from b'");
        let mut both = [a, b];
        converge(&mut both);
        assert_eq!(
            both[0].rows("SELECT * FROM t"),
            ["1|from a|from b"],
            "{kind}"
        );
        assert_eq!(
            both[1].rows("SELECT * FROM t"),
            ["1|from a|from b"],
            "{kind}"
        );
    }
}

#[test]
fn the_latest_edit_wins_not_the_most_edited() {
    for (kind, schema) in ALL_KINDS {
        let mut a = replica(schema, &["t"]);
        a.run("INSERT INTO t VALUES('1', 0, 0)");
        let mut b = replica("", &[]);
        b.pull(&a);
        b.run("UPDATE t SET a = 1").run("UPDATE t SET a = 2");
        a.now = b.now + 100;
        a.run("UPDATE t SET a = 777");
        let mut both = [a, b];
        converge(&mut both);
        assert_eq!(both[1].rows("SELECT a FROM t"), ["777"], "{kind}");
    }
}

#[test]
fn delete_wins_over_a_concurrent_edit_and_a_new_life_over_the_deletion() {
    for (kind, schema) in ALL_KINDS {
        let mut a = replica(schema, &["t"]);
        a.run("INSERT INTO t VALUES('1', 'x', 'y'), ('2', 'x', 'y')");
        let mut b = replica("", &[]);
        b.pull(&a);
        a.run("DELETE FROM t");
        b.now += 1_000;
        b.run("UPDATE t SET a = 'later'");
        let mut both = [a, b];
        converge(&mut both);
        assert_eq!(both[1].rows("SELECT * FROM t"), [""; 0], "{kind}");
        both[1].run("INSERT INTO t(id, a) VALUES('2', 'again')");
        converge(&mut both);
        assert_eq!(both[0].rows("SELECT * FROM t"), ["2|again|d"], "{kind}");
    }
}

#[test]
fn every_way_to_write_is_captured() {
    for (kind, schema) in ALL_KINDS {
        for recursive in ["ON", "OFF"] {
            let mut a = replica(schema, &["t"]);
            let mut b = replica("", &[]);
            a.run(&format!("PRAGMA recursive_triggers = {recursive}"));
            let steps = [
                "INSERT INTO t VALUES('1', 'a', 'b'), ('2', 'a', 'b'), ('3', 'a', 'b')",
                "INSERT OR REPLACE INTO t VALUES('2', 'replaced', 'b')",
                "REPLACE INTO t(id, a) VALUES('9', 'new')",
                "INSERT INTO t VALUES('1', 'up', 's') ON CONFLICT DO UPDATE SET a = excluded.a",
                "INSERT OR IGNORE INTO t VALUES('1', 'ignored', 's')",
                "UPDATE t SET a = 'from', b = t.b || 'x' FROM (SELECT 3 AS n) AS s WHERE id = s.n",
                "UPDATE t SET id = '7' WHERE id = '3'",
                "UPDATE OR REPLACE t SET id = '7' WHERE id = '9'",
                "BEGIN; INSERT INTO t VALUES('4', 1, 2); SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT",
                "BEGIN; DELETE FROM t; ROLLBACK",
                "INSERT INTO t SELECT id + 10, a, b FROM t",
                "BEGIN; DELETE FROM t WHERE id = '1'; INSERT INTO t VALUES('1', 'same', 'tx'); COMMIT",
                "BEGIN; INSERT INTO t VALUES('50', 1, 1); DELETE FROM t WHERE id = '50'; COMMIT",
                "DELETE FROM t WHERE id IN ('2', '4')",
                "DELETE FROM t",
                "INSERT INTO t VALUES('2', 'second', 'life')",
                "BEGIN; DELETE FROM t; INSERT INTO t VALUES('2', 'third', 'life'); COMMIT",
            ];
            for step in steps {
                a.run(step);
                b.pull(&a);
                let select = "SELECT * FROM t ORDER BY id";
                assert_eq!(
                    a.rows(select),
                    b.rows(select),
                    "{kind}, {recursive}: {step}"
                );
                assert_eq!(a.digest(), b.digest(), "{kind}, {recursive}: {step}");
            }
        }
    }
}

#[test]
fn a_deletion_is_told_whatever_became_of_the_rowid_since_the_last_fold() {
    for (kind, schema) in ALL_KINDS {
        for steps in [
            // REPLACE gives the row another rowid, and says nothing of the one it had.
            "REPLACE INTO t(id) VALUES('2'); DELETE FROM t WHERE id = '2'",
            // Another row takes the rowid, and goes too.
            "DELETE FROM t WHERE id = '2'; INSERT INTO t(id) VALUES('1'); DELETE FROM t",
            "DELETE FROM t WHERE id = '2'; INSERT INTO t(id) VALUES('3'); DELETE FROM t",
            "UPDATE t SET id = '1'; DELETE FROM t",
            "UPDATE t SET id = '3'; UPDATE t SET id = '1'; DELETE FROM t",
        ] {
            let mut a = replica(schema, &["t"]);
            a.run("INSERT INTO t(id) VALUES('2')");
            let mut b = replica("", &[]);
            b.pull(&a);
            assert_eq!(b.rows("SELECT id FROM t"), ["2"], "{kind}");
            a.run(steps);
            b.pull(&a);
            assert_eq!(b.rows("SELECT id FROM t"), [""; 0], "{kind}: {steps}");
        }
    }
}

#[test]
fn a_row_that_is_dead_is_not_declared_dead_again() {
    for (kind, schema) in ALL_KINDS {
        let mut a = replica(schema, &["t"]);
        a.run("INSERT INTO t(id) VALUES('2')").run("DELETE FROM t");
        let seen = a.seen();
        a.run("INSERT INTO t(id) VALUES('2'); DELETE FROM t");
        let news = export(&a.conn, &seen, a.now).expect("export");
        assert!(news.is_empty(), "{kind}: {news:?}");
    }
}

#[test]
fn what_a_program_without_the_extension_wrote_is_folded_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.db");
    let conn = Connection::open(&path).expect("open");
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
        .expect("schema");
    track(&conn, "t", &TableOptions::default(), NOW).expect("track");
    // A second connection has no function of ours, as any other program.
    let plain = Connection::open(&path).expect("open");
    plain
        .execute_batch("INSERT INTO t VALUES(1, 'plain'); UPDATE t SET a = 'sql'")
        .expect("write");
    assert_eq!(pending_count(&conn).expect("count"), 2);
    assert!(fold(&conn, NOW).expect("fold").is_some());
    assert_eq!(pending_count(&conn).expect("count"), 0);
    assert_eq!(fold(&conn, NOW).expect("fold"), None);
    let changes = export(&conn, &VersionVector::new(), NOW).expect("export");
    assert_eq!(changes.rows_count(), 1);
}

#[test]
fn a_bulk_insert_costs_one_clock_entry() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)", &["t"]);
    a.run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
         INSERT INTO t SELECT i, i, i FROM n",
    );
    assert_eq!(a.clock_entries(), 1);
    a.run("UPDATE t SET a = 0 WHERE id BETWEEN 100 AND 199");
    assert_eq!(a.clock_entries(), 2);
    let mut b = replica("", &[]);
    b.pull(&a);
    // The rows that were updated arrive column by column; what is later holds for the row.
    assert_eq!(b.clock_entries(), 4);
    assert_eq!(a.digest(), b.digest());
    a.run("DELETE FROM t WHERE id BETWEEN 50 AND 149");
    b.pull(&a);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(b.rows("SELECT count(*) FROM t"), ["9900"]);
}

#[test]
fn own_changes_are_cut_between_versions() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &["t"]);
    for id in 0..10 {
        a.run(&format!("INSERT INTO t VALUES({id}0, 'x'), ({id}1, 'y')"));
    }
    let site = site_id(&a.conn).expect("site");
    let mut b = replica("", &[]);
    let mut after = syncline_crdt::Hlc::ZERO;
    let mut parts = 0;
    while let Some(part) = export_own(&a.conn, after, 5).expect("export") {
        assert!(part.rows_count() <= 6);
        import_changeset(&b.conn, &part, a.now).expect("import");
        after = part.until.version(site);
        parts += 1;
    }
    assert_eq!(parts, 4);
    b.now = a.now;
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn user_triggers_and_foreign_keys_do_not_act_on_merged_rows() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY);
        CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id) ON DELETE CASCADE);
        CREATE TABLE log(id INTEGER PRIMARY KEY, what);
        CREATE TRIGGER note AFTER INSERT ON c BEGIN INSERT INTO log(what) VALUES('c' || NEW.id); END;
        PRAGMA foreign_keys = ON;";
    let mut a = replica(schema, &["p", "c", "log"]);
    let mut b = replica(schema, &["p", "c", "log"]);
    a.run("INSERT INTO p VALUES(1); INSERT INTO c VALUES(1, 1)");
    b.pull(&a);
    assert_eq!(b.rows("SELECT what FROM log"), ["c1"]);
    b.run("INSERT INTO c VALUES(2, 1)");
    a.run("DELETE FROM p");
    let mut both = [a, b];
    converge(&mut both);
    // The row that nobody deleted is kept, out of sight.
    for replica in &both {
        assert_eq!(replica.rows("SELECT id FROM c"), [""; 0]);
        assert_eq!(
            replica.rows("SELECT key FROM syncline_conflicts"),
            ["{\"id\":2}"]
        );
        assert_eq!(replica.rows("PRAGMA foreign_keys"), ["1"]);
        assert_eq!(
            replica.rows("SELECT what FROM log ORDER BY what"),
            ["c1", "c2"]
        );
    }
}

#[test]
fn leaving_gives_back_the_file_as_it_was() {
    for (_, schema) in ALL_KINDS {
        let mut a = replica(schema, &["t"]);
        a.run("INSERT INTO t VALUES('1', 'x', 'y')");
        let mut b = replica("", &[]);
        b.pull(&a);
        leave(&b.conn).expect("leave");
        assert_eq!(b.rows("SELECT * FROM t"), ["1|x|y"]);
        b.conn
            .execute_batch("UPDATE t SET a = 1; DELETE FROM t")
            .expect("an ordinary table");
        let left =
            "SELECT name FROM sqlite_master WHERE name LIKE '%syncline%' OR sql LIKE '%syncline%'";
        assert_eq!(b.rows(left), [""; 0]);
    }
}

#[test]
fn runs_of_deleted_rows_share_an_entry() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &["t"]);
    a.run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO t SELECT i, i FROM n",
    );
    let mut b = replica("", &[]);
    b.pull(&a);
    a.run("DELETE FROM t WHERE id BETWEEN 200 AND 400");
    a.run("INSERT INTO t VALUES(300, 'again'); DELETE FROM t WHERE id > 250");
    b.pull(&a);
    assert_eq!(b.rows("SELECT count(*), max(id) FROM t"), ["199|199"]);
    assert_eq!(a.digest(), b.digest());
    // Rows to 199; lives that ended before, at 300 again, and after.
    assert!(
        a.clock_entries() <= 5,
        "{:?}",
        a.rows("SELECT * FROM syncline_clocks")
    );
    a.run("INSERT INTO t VALUES(300, 'third life'), (1001, 'new')");
    b.pull(&a);
    assert_eq!(
        b.rows("SELECT * FROM t WHERE id > 199"),
        ["300|third life", "1001|new"]
    );
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn odd_names_and_values_arrive_unchanged() {
    let schema = "CREATE TABLE \"a \"\"table's\"(\"the key\" TEXT, \"select\" INT, x'', rowid,
        PRIMARY KEY(\"the key\", \"select\")); CREATE TABLE typed(id INTEGER PRIMARY KEY, v)";
    let schema = schema.replace("x''", "\"ü\"");
    let mut a = replica(&schema, &["a \"table's", "typed"]);
    a.run(
        "INSERT INTO \"a \"\"table's\" VALUES('k''ey', 1, x'00ff', NULL), ('', -5, 'text', 2.5);
         INSERT INTO typed VALUES(1, 1), (2, 1.0), (3, '1'), (4, x'31'), (5, NULL), (6, -1e300),
            (7, 9223372036854775807), (8, -9223372036854775808), (9, CAST(x'ff00' AS TEXT)),
            (-9223372036854775808, 'least'), (9223372036854775807, 'greatest')",
    );
    let mut b = replica("", &[]);
    b.pull(&a);
    a.run("UPDATE typed SET v = 1.0 WHERE id = 1");
    b.pull(&a);
    let select = "SELECT id, typeof(v), hex(v) FROM typed ORDER BY id";
    assert_eq!(a.rows(select), b.rows(select));
    assert_eq!(b.rows("SELECT typeof(v) FROM typed WHERE id = 1"), ["real"]);
    assert_eq!(a.digest(), b.digest());
}
