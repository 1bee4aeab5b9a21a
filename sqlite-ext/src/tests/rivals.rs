//! What other mergeable SQLites were measured to get wrong, each case as a user would meet it.

use std::process::Command;

use super::*;

/// Two replicas of one schema with its rows, both with the other's past.
fn pair(schema: &str, tables: &[&str]) -> [Replica; 2] {
    let mut a = replica(schema, tables);
    // Rows of the schema were there before it was tracked.
    a.run("SELECT 1");
    let mut b = replica("", &[]);
    b.pull(&a);
    b.now = a.now;
    [a, b]
}

#[test]
fn the_last_write_wins_over_more_writes() {
    let [mut a, mut b] = pair(
        "CREATE TABLE t(id TEXT PRIMARY KEY, v INTEGER); INSERT INTO t VALUES('x', 0)",
        &["t"],
    );
    b.run("UPDATE t SET v = 1").run("UPDATE t SET v = 2");
    a.now = b.now + 1;
    a.run("UPDATE t SET v = 777");
    let mut both = [a, b];
    converge(&mut both);
    for replica in &both {
        assert_eq!(replica.rows("SELECT v FROM t"), ["777"]);
    }
}

/// A replica of one table whose column has a policy, and another with its past.
fn pair_joining(schema: &str, column: &str, policy: &str) -> [Replica; 2] {
    let a = replica(schema, &[]);
    let options = format!(r#"{{"columns":{{"{column}":{policy}}}}}"#);
    let options = TableOptions::parse(&options).expect("these are options");
    track(&a.conn, "t", &options, NOW).expect("the table is tracked");
    let mut b = replica("", &[]);
    b.pull(&a);
    [a, b]
}

#[test]
fn increments_made_apart_all_count() {
    let [mut a, mut b] = pair_joining(
        "CREATE TABLE t(id TEXT PRIMARY KEY, v INTEGER); INSERT INTO t VALUES('x', 0)",
        "v",
        r#""counter""#,
    );
    for _ in 0..3 {
        a.run("UPDATE t SET v = v + 1");
        b.run("UPDATE t SET v = v + 1");
    }
    let mut both = [a, b];
    converge(&mut both);
    for replica in &both {
        assert_eq!(replica.rows("SELECT v FROM t"), ["6"]);
    }
}

#[test]
fn transfers_made_apart_keep_the_sum() {
    let [mut a, mut b] = pair_joining(
        "CREATE TABLE t(id TEXT PRIMARY KEY, v INTEGER);
         INSERT INTO t VALUES('x', 100), ('y', 100), ('z', 100)",
        "v",
        r#""counter""#,
    );
    a.run("UPDATE t SET v = v + iif(id = 'x', -10, 10) WHERE id IN ('x', 'y')");
    b.run("UPDATE t SET v = v + iif(id = 'x', -20, 20) WHERE id IN ('x', 'z')");
    let mut both = [a, b];
    converge(&mut both);
    for replica in &both {
        assert_eq!(replica.rows("SELECT * FROM t"), ["x|70", "y|110", "z|120"]);
        assert_eq!(replica.rows("SELECT sum(v) FROM t"), ["300"]);
    }
}

#[test]
fn edits_of_one_line_both_stay() {
    let [mut a, mut b] = pair_joining(
        "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT);
         INSERT INTO t VALUES('x', 'one line of text')",
        "v",
        r#""text""#,
    );
    a.run("UPDATE t SET v = 'one long line of text'");
    b.run("UPDATE t SET v = 'one line of plain text'");
    let mut both = [a, b];
    converge(&mut both);
    for replica in &both {
        assert_eq!(
            replica.rows("SELECT v FROM t"),
            ["one long line of plain text"]
        );
    }
}

#[test]
fn a_deletion_wins_over_an_update_and_both_sides_agree() {
    let [mut a, mut b] = pair(
        "CREATE TABLE t(id TEXT PRIMARY KEY, v INTEGER); INSERT INTO t VALUES('x', 0), ('y', 0)",
        &["t"],
    );
    a.run("DELETE FROM t WHERE id = 'x'");
    b.run("UPDATE t SET v = 5 WHERE id = 'x'; UPDATE t SET v = 6 WHERE id = 'y'");
    let mut both = [a, b];
    converge(&mut both);
    for replica in &both {
        assert_eq!(replica.rows("SELECT * FROM t"), ["y|6"]);
    }
}

#[test]
fn sync_goes_on_while_one_side_has_another_column() {
    let [mut a, mut b] = pair(
        "CREATE TABLE t(id TEXT PRIMARY KEY, v INTEGER); INSERT INTO t VALUES('x', 0)",
        &["t"],
    );
    a.run("ALTER TABLE t ADD COLUMN extra TEXT; UPDATE t SET extra = 'kept', v = 1");
    b.run("INSERT INTO t VALUES('from b', 2)");
    b.pull(&a);
    a.pull(&b);
    assert_eq!(b.rows("SELECT * FROM t ORDER BY id"), ["from b|2", "x|1"]);
    assert_eq!(
        a.rows("SELECT * FROM t ORDER BY id"),
        ["from b|2|∅", "x|1|kept"]
    );
    b.run("ALTER TABLE t ADD COLUMN extra TEXT");
    let mut both = [a, b];
    converge(&mut both);
    assert_eq!(
        both[1].rows("SELECT * FROM t ORDER BY id"),
        ["from b|2|∅", "x|1|kept"]
    );
}

#[test]
fn columns_that_must_not_be_null_and_integer_keys_are_no_obstacle() {
    let [mut a, mut b] = pair(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER NOT NULL, name TEXT NOT NULL);
         INSERT INTO t VALUES(1, 10, 'one')",
        &["t"],
    );
    a.run("UPDATE t SET v = 11; INSERT INTO t VALUES(1000, 1, 'by a')");
    b.run("UPDATE t SET name = 'uno'; INSERT INTO t VALUES(2000, 2, 'by b')");
    let mut both = [a, b];
    converge(&mut both);
    for replica in &both {
        assert_eq!(
            replica.rows("SELECT * FROM t ORDER BY id"),
            ["1|11|uno", "1000|1|by a", "2000|2|by b"]
        );
    }
}

#[test]
fn a_row_whose_parent_another_device_deleted_stops_nothing_and_is_not_lost() {
    let [mut a, mut b] = pair(
        "CREATE TABLE p(id TEXT PRIMARY KEY);
         CREATE TABLE c(id TEXT PRIMARY KEY, p TEXT REFERENCES p(id));
         INSERT INTO p VALUES('x'), ('y')",
        &["p", "c"],
    );
    a.run("DELETE FROM p WHERE id = 'x'");
    b.run("INSERT INTO c VALUES('child', 'x'), ('unrelated', 'y')");
    let mut both = [a, b];
    converge(&mut both);
    for replica in &both {
        assert_eq!(replica.rows("SELECT * FROM c"), ["unrelated|y"]);
        assert_eq!(replica.rows("PRAGMA foreign_key_check"), [""; 0]);
        let parked = "SELECT row FROM syncline_conflicts";
        assert_eq!(replica.rows(parked), [r#"{"id":"child","p":"x"}"#]);
    }
    both[0].run("INSERT INTO p VALUES('x')");
    converge(&mut both);
    for replica in &both {
        let all = "SELECT * FROM c ORDER BY id";
        assert_eq!(replica.rows(all), ["child|x", "unrelated|y"]);
    }
}

#[test]
fn the_plain_shell_writes_to_a_converted_file_and_the_write_is_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.db");
    let conn = Connection::open(&path).expect("open");
    conn.execute_batch("CREATE TABLE t(id TEXT PRIMARY KEY, v INTEGER)")
        .expect("schema");
    track(&conn, "t", &TableOptions::default(), NOW).expect("track");
    let write = "INSERT INTO t VALUES('shell', 1); UPDATE t SET v = 2; \
                 INSERT OR REPLACE INTO t VALUES('other', 3)";
    let shell = Command::new("sqlite3").arg(&path).arg(write).output();
    match shell {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        // Without a shell, a connection that has none of our functions is as plain.
        Err(_) => {
            let plain = Connection::open(&path).expect("open");
            plain.execute_batch(write).expect("a plain write");
        }
    }
    let changes = export(&conn, &VersionVector::new(), NOW).expect("export");
    let b = replica("", &[]);
    import_changeset(&b.conn, &changes, NOW).expect("import");
    assert_eq!(
        b.rows("SELECT * FROM t ORDER BY id"),
        ["other|3", "shell|2"]
    );
}

#[test]
fn a_connection_closes_without_a_call_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let conn = Connection::open(folder.path().join("app.db")).expect("open");
    register(&conn).expect("the functions register");
    conn.execute_batch(
        "CREATE TABLE t(id TEXT PRIMARY KEY, v INTEGER);
         SELECT syncline_track('t');
         INSERT INTO t VALUES('x', 1);
         SELECT syncline_import(syncline_export());
         SELECT syncline_digest(), syncline_version_vector();",
    )
    .expect("the functions run");
    // A statement that somebody kept would make this SQLITE_BUSY.
    conn.close().expect("nothing is left open");
}
