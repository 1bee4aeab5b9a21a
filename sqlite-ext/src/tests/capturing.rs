//! What the triggers notice: every write, under whatever name and wherever its key lies.

use super::*;

/// How many notes wait in the pending table of the first tracked table.
fn notes_count(replica: &Replica) -> i64 {
    let count = "SELECT count(*) FROM syncline_pending_1";
    let count = replica.conn.query_row(count, [], |row| row.get(0));
    count.expect("count")
}

#[test]
fn a_key_that_is_set_under_any_name_of_the_rowid_moves_the_row() {
    for name in ["id", "ID", "rowid", "oid", "_rowid_"] {
        let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &["t"]);
        a.run("INSERT INTO t VALUES(1, 'x'), (2, 'y')");
        let mut b = replica("", &[]);
        b.pull(&a);
        a.run(&format!("UPDATE t SET {name} = 7 WHERE id = 1"));
        b.pull(&a);
        assert_eq!(b.rows("SELECT * FROM t"), ["2|y", "7|x"], "{name}");
        assert_eq!(a.digest(), b.digest(), "{name}");
    }
}

#[test]
fn a_row_keeps_its_clock_when_its_rowid_is_set() {
    for name in ["rowid", "oid", "_rowid_"] {
        let mut a = replica("CREATE TABLE t(id TEXT PRIMARY KEY, a, b)", &["t"]);
        a.run("INSERT INTO t(rowid, id, a) VALUES(10, 'k', 'x'), (20, 'l', 'y')");
        let mut b = replica("", &[]);
        b.pull(&a);
        a.run(&format!("UPDATE t SET {name} = 5 WHERE id = 'k'"));
        a.run("UPDATE t SET a = 'z' WHERE id = 'k'");
        b.pull(&a);
        assert_eq!(b.rows("SELECT * FROM t ORDER BY id"), ["k|z|∅", "l|y|∅"]);
        assert_eq!(a.digest(), b.digest(), "{name}");
    }
}

#[test]
fn rows_are_noticed_wherever_their_key_lies() {
    let keys = [
        i64::MIN,
        -5,
        0,
        3,
        70_000,
        70_001,
        1 << 40,
        i64::MAX - 1,
        i64::MAX,
    ];
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &["t"]);
    let mut b = replica("", &[]);
    // Up, down, and each once more: beyond all others, into gaps, and in another's place.
    let there_and_back: Vec<i64> = keys.iter().chain(keys.iter().rev()).copied().collect();
    for order in [
        &there_and_back,
        &there_and_back.iter().rev().copied().collect(),
    ] {
        for (at, key) in order.iter().enumerate() {
            a.run(&format!(
                "INSERT OR REPLACE INTO t VALUES({key}, 'time {at}')"
            ));
            b.pull(&a);
            assert_eq!(a.rows("SELECT * FROM t"), b.rows("SELECT * FROM t"));
            assert_eq!(a.digest(), b.digest());
        }
    }
}

#[test]
fn a_row_beyond_all_others_needs_no_note_and_one_in_their_place_does() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &["t"]);
    for (write, notes) in [
        ("INSERT INTO t VALUES(1, 'x')", 0),
        ("INSERT INTO t VALUES(2, 'x'), (100000, 'x')", 0),
        ("INSERT INTO t VALUES(100001, 'x')", 0),
        ("INSERT INTO t VALUES(3, 'x')", 1),
        ("REPLACE INTO t VALUES(100000, 'y')", 1),
        ("INSERT INTO t VALUES(200000, 'x')", 0),
    ] {
        a.conn.execute(write, []).expect(write);
        assert_eq!(notes_count(&a), notes, "{write}");
        a.run("");
    }
}

#[test]
fn every_changed_column_of_a_wide_table_is_noticed() {
    let columns: Vec<String> = (0..20).map(|at| format!("c{at}")).collect();
    let columns = columns.join(", ");
    let mut a = replica(
        &format!("CREATE TABLE t(id INTEGER PRIMARY KEY, {columns})"),
        &["t"],
    );
    a.run("INSERT INTO t(id) VALUES(1)");
    let mut b = replica("", &[]);
    b.pull(&a);
    a.run("UPDATE t SET c0 = 'a', c7 = 'b', c8 = 'c', c15 = 'd', c16 = 'e', c19 = 'f', c3 = c3");
    assert_eq!(
        a.clock_entries(),
        1 + 6,
        "one entry for the row and one for each column"
    );
    b.pull(&a);
    assert_eq!(a.rows("SELECT * FROM t"), b.rows("SELECT * FROM t"));
    assert_eq!(a.digest(), b.digest());
}
