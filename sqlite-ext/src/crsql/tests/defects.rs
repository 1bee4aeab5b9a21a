//! What cr-sqlite gets wrong, each done right here.

#![expect(unsafe_code, reason = "an application's hooks are set through C")]

use std::ffi::{c_int, c_void};

use rusqlite::{Connection, ffi};

use super::{Peer, peer, peers};

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b TEXT DEFAULT 'x');
    CREATE TABLE u(id INTEGER PRIMARY KEY NOT NULL, c);
    SELECT crsql_as_crr('t');";

/// Opens a database in a file, as another process would.
fn open(folder: &tempfile::TempDir) -> Peer {
    let conn = Connection::open(folder.path().join("db"));
    Peer::of(conn.expect("the file opens"))
}

#[test]
fn a_changed_key_takes_the_rows_data_to_replicas_that_had_the_row() {
    let [a, b] = peers(T);
    a.run("INSERT INTO t VALUES(1, 'kept', 'too'), (2, 'stays', NULL)");
    b.pull(&a, 0);
    let seen = a.version();
    a.run("UPDATE t SET id = 9 WHERE id = 1");
    b.pull(&a, seen);
    assert_eq!(b.rows("SELECT * FROM t"), ["2|stays|NULL", "9|kept|too"]);
    let seen = b.version();
    b.run("UPDATE t SET id = 3, a = 'both' WHERE id = 9");
    a.pull(&b, seen);
    assert_eq!(a.rows("SELECT * FROM t"), ["2|stays|NULL", "3|both|too"]);
}

#[test]
fn an_update_that_changes_nothing_takes_no_version_and_none_is_used_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let a = open(&folder);
    a.run(T).run("INSERT INTO t VALUES(1, 1, 'x')");
    let told = a.version();
    a.run("UPDATE t SET a = a, b = 'x'")
        .run("UPDATE t SET a = 1 WHERE id = 5");
    assert_eq!(a.version(), told);
    a.run("UPDATE t SET a = 2").run("DELETE FROM t");
    let told = a.version();
    drop(a);
    let a = open(&folder);
    assert_eq!(a.version(), told);
    a.run("INSERT INTO t VALUES(2, 1, 'y')");
    assert_eq!(a.version(), told + 1);
    let above = format!("SELECT DISTINCT db_version FROM crsql_changes WHERE db_version > {told}");
    assert_eq!(a.rows(&above), [(told + 1).to_string()]);
}

#[test]
fn a_crr_made_in_a_transaction_that_wrote_another_is_written_in_it() {
    let [a, b] = peers(T);
    a.run(
        "BEGIN; INSERT INTO t VALUES(1, 1, 'x'); SELECT crsql_as_crr('u');
         INSERT INTO u VALUES(1, 'in'); UPDATE u SET c = 'out'; UPDATE t SET a = 2; COMMIT",
    );
    b.run("SELECT crsql_as_crr('u')").pull(&a, 0);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|2|x"]);
    assert_eq!(b.rows("SELECT * FROM u"), ["1|out"]);
}

#[test]
fn what_fails_leaves_the_callers_transaction_as_it_was() {
    let a = peer(T);
    a.run("CREATE TABLE none(a)")
        .run("BEGIN; INSERT INTO t VALUES(1, 1, 'x'); INSERT INTO none VALUES(1)");
    a.fails("SELECT crsql_as_crr('none')");
    a.fails("SELECT crsql_as_crr('absent')");
    a.fails("SELECT crsql_begin_alter('none')");
    a.fails("SELECT crsql_commit_alter('t')");
    a.run("PRAGMA query_only = ON");
    a.fails("SELECT crsql_as_table('t')");
    a.fails("SELECT crsql_begin_alter('t')");
    a.run("PRAGMA query_only = OFF");
    assert!(!a.conn.is_autocommit());
    a.run("SELECT crsql_begin_alter('t'); CREATE UNIQUE INDEX t_a ON t(a)");
    a.fails("SELECT crsql_commit_alter('t')");
    assert!(!a.conn.is_autocommit());
    a.run("DROP INDEX t_a; SELECT crsql_commit_alter('t'); COMMIT");
    assert_eq!(a.rows("SELECT a FROM none"), ["1"]);
    assert_eq!(
        a.changes(),
        ["t|010901|a|1|1|1|1|0", "t|010901|b|x|1|1|1|1"]
    );
    a.run("UPDATE t SET a = 5");
    assert_eq!(
        a.one("SELECT col_version FROM crsql_changes WHERE cid = 'a'"),
        "2"
    );
}

#[test]
fn a_crr_that_was_dropped_leaves_the_others_readable() {
    let [a, b] = peers(T);
    a.run(
        "SELECT crsql_as_crr('u'); INSERT INTO u VALUES(1, 'kept'); INSERT INTO t VALUES(1, 1, 1)",
    );
    a.run("DROP TABLE t");
    assert_eq!(a.changes().len(), 1);
    assert_eq!(a.one("SELECT val FROM crsql_changes"), "kept");
    b.run("SELECT crsql_as_crr('u')").pull(&a, 0);
    assert_eq!(b.rows("SELECT * FROM u"), ["1|kept"]);
    a.run("CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, d)");
    assert_eq!(a.changes().len(), 1, "a new table of the name is no crr");
    a.run("SELECT crsql_as_crr('t'); INSERT INTO t VALUES(7, 'new')");
    assert_eq!(a.changes().len(), 2);
}

#[test]
fn a_column_added_without_brackets_is_captured() {
    let [a, b] = peers(T);
    a.run("INSERT INTO t(id, a) VALUES(1, 1), (2, 2)");
    b.pull(&a, 0);
    for peer in [&a, &b] {
        peer.run("ALTER TABLE t ADD COLUMN late DEFAULT 'd'");
    }
    a.run("UPDATE t SET late = 'now' WHERE id = 1; UPDATE t SET a = 3 WHERE id = 2");
    a.run("INSERT INTO t(id, late) VALUES(3, 'third'); UPDATE t SET late = 'more' WHERE id = 2");
    b.pull(&a, 0);
    let expected = ["1|1|x|now", "2|3|x|more", "3|NULL|x|third"];
    assert_eq!(b.rows("SELECT * FROM t"), expected);
    b.run("DELETE FROM t WHERE late = 'now'");
    a.pull(&b, 0);
    assert_eq!(a.rows("SELECT id FROM t"), ["2", "3"]);
}

#[test]
fn rows_impacted_begin_again_after_a_rollback() {
    let a = peer(T);
    let change = "INSERT INTO crsql_changes VALUES('t', x'010901', 'a', 7, 1, 1, x'01', 1, 0)";
    let impacted = "SELECT crsql_rows_impacted()";
    a.run("BEGIN").run(change).run(change);
    assert_eq!(a.one(impacted), "1");
    a.run("ROLLBACK");
    assert_eq!(a.one(impacted), "0");
    a.run("BEGIN").run(change);
    assert_eq!(a.one(impacted), "1");
    a.run("COMMIT");
    assert_eq!(a.one(impacted), "0");
}

#[test]
fn commit_alter_reads_the_schemas_name_whatever_its_length() {
    let a = peer(T);
    for schema in ["main", "m", "", "a name that is much longer than main"] {
        a.run(&format!("SELECT crsql_begin_alter('{schema}', 't')"))
            .run(&format!("SELECT crsql_commit_alter('{schema}', 't')"));
    }
    a.run("INSERT INTO t VALUES(1, 1, 1)");
    assert_eq!(a.changes().len(), 2);
}

extern "C" fn committing(count: *mut c_void) -> c_int {
    counted(count);
    0
}

extern "C" fn counted(count: *mut c_void) {
    // SAFETY: the count lives as long as the connection, and nothing else refers to it meanwhile.
    unsafe { *count.cast::<u32>() += 1 };
}

#[test]
fn an_applications_own_hooks_and_ours_do_not_meet() {
    let a = peer(T);
    let (mut commits, mut rollbacks) = (0u32, 0u32);
    // SAFETY: the connection is open, and the counts outlive it.
    let (first, second) = unsafe {
        let db = a.conn.handle();
        let count = |count: &mut u32| std::ptr::from_mut(count).cast::<c_void>();
        (
            ffi::sqlite3_commit_hook(db, Some(committing), count(&mut commits)),
            ffi::sqlite3_rollback_hook(db, Some(counted), count(&mut rollbacks)),
        )
    };
    assert!(first.is_null() && second.is_null(), "no hook was taken");
    a.run("INSERT INTO t VALUES(1, 1, 1)")
        .run("UPDATE t SET a = 2");
    a.run("BEGIN; UPDATE t SET a = 3; ROLLBACK")
        .run("UPDATE t SET a = 4");
    let versions = "SELECT cid, col_version, db_version FROM crsql_changes";
    assert_eq!(a.rows(versions), ["b|1|1", "a|3|3"]);
    drop(a);
    assert_eq!((commits, rollbacks), (3, 1));
}

#[test]
fn a_connection_closes_without_a_call_and_works_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let a = open(&folder);
    a.run(T).run("INSERT INTO t VALUES(1, 1, 1)");
    let other = peer(T);
    other.pull(&a, 0);
    assert_eq!(a.one("SELECT crsql_finalize()"), "finalized");
    a.run("INSERT INTO t VALUES(2, 2, 2)");
    assert_eq!(a.changes().len(), 4);
    a.run("BEGIN; INSERT INTO t VALUES(3, 3, 3)");
    a.conn.close().expect("nothing is held");
    assert_eq!(open(&folder).changes().len(), 4);
}

#[test]
fn two_spellings_of_a_key_that_the_table_calls_equal_are_one_row() {
    let schema = "CREATE TABLE n(name TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, a, b);
        SELECT crsql_as_crr('n');";
    let [a, b] = peers(schema);
    a.run("INSERT INTO n VALUES('Ann', 'a', NULL)");
    b.run("INSERT INTO n VALUES('ANN', NULL, NULL)")
        .run("UPDATE n SET b = 'b'");
    for _ in 0..2 {
        a.pull(&b, 0);
        b.pull(&a, 0);
    }
    for peer in [&a, &b] {
        assert_eq!(peer.rows("SELECT lower(name), a, b FROM n"), ["ann|a|b"]);
        let keys = "SELECT count(DISTINCT pk) FROM crsql_changes";
        assert_eq!(peer.one(keys), "1");
    }
    a.run("DELETE FROM n WHERE name = 'aNN'");
    b.pull(&a, 0);
    assert_eq!(b.rows("SELECT * FROM n"), [""; 0]);
}

/// That a file has no other symbols to mix up is shown in `tests/extension.rs`.
#[test]
fn two_connections_of_one_process_keep_apart() {
    let [a, b] = peers(T);
    a.run("BEGIN; INSERT INTO t VALUES(1, 1, 1)");
    b.run("INSERT INTO t VALUES(2, 2, 2)")
        .run("UPDATE t SET a = 3");
    a.run("COMMIT");
    assert_eq!((a.version(), b.version()), (1, 2));
    assert_ne!(
        a.one("SELECT crsql_site_id()"),
        b.one("SELECT crsql_site_id()")
    );
}

#[test]
fn no_version_is_given_to_two_transactions_after_a_savepoint_or_statement_failed() {
    let a = peer(T);
    let versions = "SELECT count(*), count(DISTINCT db_version) FROM crsql_changes WHERE cid = 'a'";
    a.run("BEGIN; SAVEPOINT s; INSERT INTO t(id, a) VALUES(1, 1)");
    assert_eq!(a.changes().len(), 2);
    a.run("ROLLBACK TO s; INSERT INTO t(id, a) VALUES(2, 2); RELEASE s; COMMIT");
    a.fails("INSERT INTO t(id, a) VALUES(3, 3), (2, 0)");
    a.run("INSERT INTO t(id, a) VALUES(4, 4)");
    a.run("BEGIN; INSERT INTO t(id, a) VALUES(5, 5)");
    a.fails("INSERT INTO t(id, a) VALUES(6, 6), (2, 0)");
    a.run("COMMIT").run("INSERT INTO t(id, a) VALUES(7, 7)");
    assert_eq!(a.one(versions), "4|4");
    assert_eq!(a.version(), 4);
}
