//! Every way to write to a table is captured, row for row and deletion for deletion.

use super::*;

const KINDS: [(&str, &str); 4] = [
    (
        "integer",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, u UNIQUE)",
    ),
    ("text", "CREATE TABLE t(id TEXT PRIMARY KEY, a, u UNIQUE)"),
    (
        "packed",
        "CREATE TABLE t(id TEXT PRIMARY KEY, a, u UNIQUE) WITHOUT ROWID",
    ),
    (
        "two",
        "CREATE TABLE t(id INT, a, u, k DEFAULT 0, PRIMARY KEY(id, k)); CREATE UNIQUE INDEX i ON t(u)",
    ),
];

const ROWS: &str = "INSERT INTO t(id, a, u) VALUES('1', 'a', 1), ('2', 'b', 2), ('3', 'c', 3),
    ('4', 'd', 4), ('5', 'e', 5);
    CREATE TABLE other(id, a, u);
    INSERT INTO other VALUES('2', 'other', 20), ('6', 'other', 60), ('3', 'other', 3)";

const WAYS: [&str; 30] = [
    "REPLACE INTO t(id, a, u) VALUES('2', 'x', 2)",
    "REPLACE INTO t(id, a, u) VALUES('9', 'x', 2)",
    "REPLACE INTO t(id, a, u) VALUES('1', 'x', 2), ('2', 'y', 3), ('9', 'z', 3)",
    "UPDATE OR REPLACE t SET u = 2 WHERE id = '1'",
    "UPDATE OR REPLACE t SET u = 2",
    "UPDATE OR REPLACE t SET id = '2' WHERE id = '1'",
    "UPDATE OR REPLACE t SET id = '2', u = 3 WHERE id = '1'",
    "INSERT INTO t(id, a, u) VALUES('2', 'x', 2) ON CONFLICT DO UPDATE SET a = excluded.a || a",
    "INSERT INTO t(id, a, u) VALUES('9', 'x', 2) ON CONFLICT(u) DO UPDATE SET a = 'up', u = 30",
    "INSERT INTO t(id, a, u) VALUES('8', 'x', 2) ON CONFLICT(u) DO UPDATE SET id = '7'",
    "INSERT INTO t(id, a, u) VALUES('2', 'x', 8) ON CONFLICT DO NOTHING",
    "INSERT INTO t(id, a, u) VALUES('2', 'x', 2) ON CONFLICT DO UPDATE SET a = 'no' WHERE a = 'x'",
    "INSERT OR REPLACE INTO t(id, a, u) SELECT * FROM other",
    "INSERT OR IGNORE INTO t(id, a, u) SELECT * FROM other",
    "INSERT INTO t(id, a, u) SELECT id + 10, a, u + 10 FROM t",
    "UPDATE t SET a = other.a, u = other.u + 100 FROM other WHERE t.id = other.id",
    "UPDATE t SET id = id + 100, u = NULL",
    "UPDATE t SET (a, u) = (SELECT a, u + 100 FROM other WHERE other.id = t.id) WHERE id < '4'",
    "DELETE FROM t",
    "DELETE FROM t; INSERT INTO t(id, a, u) VALUES('7', 'g', 7)",
    "DELETE FROM t; INSERT INTO t(id, a, u) SELECT * FROM other",
    "DELETE FROM t WHERE id IN (SELECT id FROM other)",
    "BEGIN; DELETE FROM t; INSERT INTO t(id, a, u) VALUES('2', 'x', 9); ROLLBACK",
    "BEGIN; DELETE FROM t WHERE id = '1'; SAVEPOINT x; DELETE FROM t; SAVEPOINT y;
     INSERT INTO t(id, a, u) VALUES('2', 'x', 9); ROLLBACK TO y;
     INSERT INTO t(id, a, u) VALUES('6', 'x', 9); RELEASE y; ROLLBACK TO x;
     INSERT INTO t(id, a, u) VALUES('8', 'x', 8); RELEASE x; COMMIT",
    "SAVEPOINT x; DELETE FROM t; SAVEPOINT y; INSERT INTO t(id, a, u) VALUES('2', 'x', 2); RELEASE x",
    "BEGIN; DELETE FROM t WHERE id = '2'; INSERT INTO t(id, a, u) VALUES('2', 'x', 2); COMMIT",
    "BEGIN; INSERT INTO t(id, a) VALUES('8', 'x'); UPDATE t SET id = '9' WHERE id = '8';
     DELETE FROM t WHERE id = '9'; COMMIT",
    "BEGIN; UPDATE t SET id = '8', u = 8 WHERE id = '1'; UPDATE t SET id = '1' WHERE id = '2'; COMMIT",
    "CREATE TRIGGER more AFTER INSERT ON t BEGIN UPDATE t SET a = 'more' WHERE id < NEW.id;
     DELETE FROM t WHERE id = '4'; END; REPLACE INTO t(id, a, u) VALUES('9', 'x', 2)",
    "VACUUM; UPDATE t SET a = 'vacuumed' WHERE id = '3'; DELETE FROM t WHERE id = '2'; VACUUM",
];

/// What needs a rowid beside the key.
const BY_ROWID: [&str; 8] = [
    "INSERT OR REPLACE INTO t(rowid, id, a, u) SELECT rowid, '9', 'x', 9 FROM t WHERE id = '2'",
    "INSERT OR REPLACE INTO t(_rowid_, id, a, u) SELECT rowid, '3', 'x', 4 FROM t WHERE id = '2'",
    "INSERT OR REPLACE INTO t(oid, id, a, u) SELECT rowid, '2', 'x', 2 FROM t WHERE id = '2'",
    "UPDATE OR REPLACE t SET rowid = (SELECT rowid FROM t WHERE id = '2') WHERE id = '1'",
    "UPDATE OR REPLACE t SET oid = 2, id = '9' WHERE id = '1'",
    "UPDATE t SET _rowid_ = -_rowid_",
    "INSERT INTO t(rowid, id, a, u) VALUES(-7, '9', 'x', 9)",
    "REPLACE INTO t(id, a, u) VALUES('2', 'x', 9); INSERT INTO t(rowid, id) VALUES(2, '9')",
];

/// Sees that a peer gets from `a` just what `a` shows, step by step and all at once.
#[track_caller]
fn tells(a: &Replica, peers: &mut [Replica], told: &str) {
    let select = "SELECT id, a, u FROM t ORDER BY id, a, u";
    let shown = a.rows(select);
    for peer in peers {
        peer.pull(a);
        assert_eq!(peer.rows(select), shown, "{told}");
        assert_eq!(peer.digest(), a.digest(), "{told}");
    }
    let mut fresh = replica("", &[]);
    fresh.pull(a);
    assert_eq!(fresh.rows(select), shown, "{told}, all at once");
    assert_eq!(fresh.digest(), a.digest(), "{told}, all at once");
    assert_eq!(a.rows("PRAGMA integrity_check"), ["ok"], "{told}");
}

#[test]
fn what_a_statement_does_is_what_the_peer_gets() {
    for (kind, schema) in KINDS {
        let by_rowid = matches!(kind, "text" | "two").then_some(BY_ROWID);
        let ways = WAYS.into_iter().chain(by_rowid.into_iter().flatten());
        for way in ways {
            for recursive in ["ON", "OFF"] {
                let mut a = replica(schema, &["t"]);
                a.run(&format!("PRAGMA recursive_triggers = {recursive}; {ROWS}"));
                let mut b = replica("", &[]);
                b.pull(&a);
                a.run(way);
                tells(
                    &a,
                    &mut [b],
                    &format!("{kind}, recursive triggers {recursive}: {way}"),
                );
            }
        }
    }
}

#[test]
fn a_statement_that_fails_half_way_leaves_what_it_left() {
    for (kind, schema) in KINDS {
        for (verb, left) in [("ABORT", 5), ("FAIL", 6), ("ROLLBACK", 5)] {
            let mut a = replica(schema, &["t"]);
            a.run(ROWS);
            let mut b = replica("", &[]);
            b.pull(&a);
            let insert = format!(
                "INSERT OR {verb} INTO t(id, a, u) VALUES('7', 'x', 7), ('8', 'x', 2), ('9', 'x', 9)"
            );
            a.conn.execute_batch(&insert).expect_err("2 is taken");
            assert_eq!(
                a.rows("SELECT count(*) FROM t"),
                [left.to_string()],
                "{kind}"
            );
            tells(&a, &mut [b], &format!("{kind}: {verb}"));
        }
    }
}

#[test]
fn connections_take_turns_in_every_journal_mode() {
    let modes = ["WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY"];
    for (nth, mode) in modes.into_iter().enumerate() {
        for (kind, schema) in [KINDS[nth % 2], KINDS[nth % 2 + 2]] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("a.db");
            let open = || {
                let conn = Connection::open(&path).expect("open");
                conn.execute_batch("PRAGMA busy_timeout = 5000")
                    .expect("wait");
                conn
            };
            let mut a = replica("", &[]);
            a.conn = open();
            register(&a.conn).expect("the functions register");
            a.conn
                .execute_batch(&format!("PRAGMA journal_mode = {mode}; {schema}"))
                .expect(mode);
            track(&a.conn, "t", &TableOptions::default(), a.now).expect("track");
            a.run(ROWS);
            let mut peers = [replica("", &[])];
            let plain = open();
            let plain_ways = WAYS.iter().filter(|way| !way.contains("TRIGGER"));
            for way in plain_ways.skip(nth).step_by(4) {
                plain
                    .execute_batch("BEGIN IMMEDIATE; DELETE FROM t")
                    .expect("plain");
                plain
                    .execute_batch(ROWS.split(';').next().expect("rows"))
                    .expect("rows");
                plain.execute_batch("COMMIT").expect("commit");
                a.now += 10;
                plain.execute_batch(way).expect(way);
                a.run("UPDATE t SET a = a || '!' WHERE id = '5'");
                tells(&a, &mut peers, &format!("{kind}, {mode}: {way}"));
            }
        }
    }
}
