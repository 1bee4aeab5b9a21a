//! Tables that are dropped and made anew, with another key, other columns, or none that will do.

use super::*;

const SHAPES: [&str; 7] = [
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)",
    "CREATE TABLE t(id TEXT PRIMARY KEY, a, b)",
    "CREATE TABLE t(id TEXT PRIMARY KEY, a, b) WITHOUT ROWID",
    "CREATE TABLE t(id INTEGER PRIMARY KEY DESC, a, b)",
    "CREATE TABLE t(id INT, a, b, PRIMARY KEY(id, a))",
    "CREATE TABLE t(id INT, a INT, b, PRIMARY KEY(a, id)) WITHOUT ROWID",
    "CREATE TABLE t(other INTEGER PRIMARY KEY, a, b)",
];

const ROWS: &str = "INSERT INTO t VALUES('1', 5, 'x'), ('2', 6, 'y'), ('3', 7, 'z')";

#[test]
fn a_table_made_anew_with_another_key_is_tracked_by_it_and_the_others_go_on() {
    for from in SHAPES {
        for to in SHAPES {
            let schema = format!("{from}; CREATE TABLE u(id INTEGER PRIMARY KEY)");
            let mut a = replica(&schema, &["t", "u"]);
            a.run(ROWS);
            let mut b = replica("", &[]);
            b.pull(&a);
            // What is noted and not folded goes the same way.
            let rebuild = format!(
                "DELETE FROM t WHERE b = 'z'; CREATE TABLE copy AS SELECT * FROM t; DROP TABLE t;
                 {to}; INSERT INTO t SELECT * FROM copy; DROP TABLE copy; UPDATE t SET b = 'new'"
            );
            a.run(&format!("{rebuild}; INSERT INTO u VALUES(7)"));
            b.pull(&a);
            assert_eq!(b.rows("SELECT id FROM u"), ["7"], "{from} -> {to}");
            b.run(&rebuild);
            a.run("INSERT INTO t VALUES(8, 8, 'after')");
            let mut both = [a, b];
            converge(&mut both);
            for replica in &mut both {
                let rows = replica.rows("SELECT * FROM t ORDER BY 1");
                assert_eq!(rows, ["1|5|new", "2|6|new", "8|8|after"], "{from} -> {to}");
                assert_eq!(replica.rows("PRAGMA integrity_check"), ["ok"]);
                untrack(&replica.conn, "t", replica.now).expect("untrack");
                replica.run("DELETE FROM t; DROP TABLE t");
                leave(&replica.conn).expect("leave");
            }
        }
    }
}

#[test]
fn rows_that_a_rebuild_left_out_are_deleted_elsewhere_where_their_keys_are_known() {
    let with_keys = [SHAPES[0], SHAPES[2]];
    for from in with_keys {
        for to in &SHAPES[..4] {
            let mut a = replica(from, &["t"]);
            a.run(ROWS)
                .run("DELETE FROM t WHERE id = '1'; INSERT INTO t VALUES('1', 5, 'again')");
            let mut b = replica("", &[]);
            b.pull(&a);
            a.run(&format!(
                "CREATE TABLE copy AS SELECT * FROM t WHERE id <> '2'; DROP TABLE t;
                 {to}; INSERT INTO t SELECT * FROM copy; DROP TABLE copy"
            ));
            b.pull(&a);
            let rows = b.rows("SELECT * FROM t ORDER BY id");
            assert_eq!(rows, ["1|5|again", "3|7|z"], "{from} -> {to}");
        }
    }
}

#[test]
fn a_table_that_cannot_be_tracked_any_more_stands_aside_and_comes_back() {
    let spoiled = [
        ("CREATE TABLE t(id, a, b)", "no primary key"),
        (
            "CREATE TABLE t(id TEXT PRIMARY KEY, a, b); INSERT INTO t(a) VALUES(5)",
            "NULL in their primary key",
        ),
        (
            "CREATE TABLE t(id TEXT PRIMARY KEY, rowid, oid, _rowid_)",
            "rowid, oid and _rowid_",
        ),
    ];
    for from in SHAPES {
        for (to, says) in spoiled {
            let schema = format!("{from}; CREATE TABLE u(id INTEGER PRIMARY KEY)");
            let mut a = replica(&schema, &["t", "u"]);
            a.run(ROWS);
            let mut b = replica("", &[]);
            b.pull(&a);
            a.run(&format!("DROP TABLE t; {to}; INSERT INTO u VALUES(7)"));
            let aside = a.aside();
            assert_eq!(aside.len(), 1, "{from} -> {to}");
            assert!(aside[0].1.contains(says), "{aside:?}");
            b.run("UPDATE t SET b = 'meanwhile' WHERE b = 'y'; INSERT INTO u VALUES(8)");
            b.pull(&a);
            assert_eq!(b.rows("SELECT id FROM u"), ["7", "8"], "{from} -> {to}");
            a.pull(&b);
            assert_eq!(a.rows("SELECT id FROM u"), ["7", "8"], "{from} -> {to}");
            assert_eq!(pending_count(&a.conn).expect("count"), 0);
            a.run(&format!(
                "DROP TABLE t; {from}; INSERT INTO t VALUES('9', 9, 'back')"
            ));
            assert_eq!(a.aside(), []);
            b.pull(&a);
            assert_eq!(b.rows("SELECT b FROM t WHERE a = 9"), ["back"], "{from}");
            b.run("UPDATE t SET b = 'on' WHERE a = 9");
            a.pull(&b);
            assert_eq!(a.rows("SELECT b FROM t WHERE a = 9"), ["on"], "{from}");
        }
    }
}

#[test]
fn a_table_that_stands_aside_can_be_untracked() {
    for (nth, from) in SHAPES.into_iter().enumerate() {
        let mut a = replica(from, &["t"]);
        a.run(ROWS);
        a.run("DROP TABLE t; CREATE TABLE t(id, rowid, oid, _rowid_)");
        if nth % 2 == 0 {
            untrack(&a.conn, "t", a.now).expect("untrack");
            assert_eq!(a.aside(), []);
            assert_eq!(tracked_tables(&a.conn).expect("names"), [""; 0]);
        }
        leave(&a.conn).expect("leave");
        let left = "SELECT name FROM sqlite_master WHERE name LIKE '%syncline%'";
        assert_eq!(a.rows(left), [""; 0]);
    }
}

#[test]
fn changes_under_another_key_wait_until_the_table_has_it() {
    let mut a = replica(SHAPES[0], &["t"]);
    a.run(ROWS);
    let mut b = replica("", &[]);
    b.pull(&a);
    a.run("DROP TABLE t; CREATE TABLE t(name TEXT PRIMARY KEY, a); INSERT INTO t VALUES('k', 1)");
    b.pull(&a);
    assert_eq!(b.rows("SELECT count(*) FROM t"), ["3"]);
    b.run("DROP TABLE t; CREATE TABLE t(name TEXT PRIMARY KEY, a)");
    assert_eq!(b.rows("SELECT * FROM t"), ["k|1"]);
    converge(&mut [a, b]);
}

#[test]
fn what_others_wrote_since_is_not_overwritten_by_a_rebuild() {
    for (kind, schema) in ALL_KINDS {
        let mut a = replica(schema, &["t"]);
        a.run("INSERT INTO t VALUES('1', 'old', 'old'), ('2', 'old', 'old')");
        let mut b = replica("", &[]);
        b.pull(&a);
        b.now += 60_000;
        b.run("UPDATE t SET a = 'edited' WHERE id = '1'");
        let copy = schema.replace("TABLE t(", "TABLE copy(");
        a.now += 120_000;
        a.run(&format!(
            "{copy}; INSERT INTO copy SELECT id, a, 'rebuilt' FROM t; DROP TABLE t;
             ALTER TABLE copy RENAME TO t"
        ));
        let mut both = [a, b];
        converge(&mut both);
        let rows = both[0].rows("SELECT * FROM t ORDER BY id");
        assert_eq!(rows, ["1|edited|rebuilt", "2|old|rebuilt"], "{kind}");
    }
}
