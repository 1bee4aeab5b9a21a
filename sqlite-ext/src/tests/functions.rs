//! The SQL functions do what the functions of the crate do.

use super::*;

#[test]
fn the_sql_functions_do_the_same() {
    let a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &[]);
    let b = replica("", &[]);
    let text = |replica: &Replica, sql: &str| -> String {
        replica
            .conn
            .query_row(sql, [], |row| row.get(0))
            .expect(sql)
    };
    a.conn
        .execute_batch("INSERT INTO t VALUES(1, 'before')")
        .expect("insert");
    assert_eq!(
        text(&a, "SELECT syncline_track('t')"),
        "tracking t with 1 rows"
    );
    assert_eq!(
        text(&a, "SELECT syncline_track('t')"),
        "t is tracked already"
    );
    let blob: Vec<u8> = a
        .conn
        .query_row("SELECT syncline_export()", [], |row| row.get(0))
        .expect("export");
    let import = "SELECT syncline_import(?1)";
    let changed: i64 = b
        .conn
        .query_row(import, [&blob], |row| row.get(0))
        .expect("import");
    assert_eq!(changed, 1);
    assert_eq!(
        text(&a, "SELECT syncline_digest()"),
        text(&b, "SELECT syncline_digest()")
    );
    let since: Vec<u8> = b
        .conn
        .query_row("SELECT syncline_version_vector()", [], |row| row.get(0))
        .expect("vector");
    a.conn
        .execute_batch("UPDATE t SET a = 'after'")
        .expect("update");
    let delta = "SELECT syncline_export(?1)";
    let delta: Vec<u8> = a
        .conn
        .query_row(delta, [&since], |row| row.get(0))
        .expect("export");
    assert_ne!(
        text(&a, "SELECT syncline_digest()"),
        text(&b, "SELECT syncline_digest()")
    );
    b.conn
        .query_row(import, [&delta], |row| row.get::<_, i64>(0))
        .expect("import");
    assert_eq!(text(&b, "SELECT a FROM t"), "after");
    for (sql, says) in [
        (
            "SELECT syncline_import('no')",
            "what syncline_export() returned, a blob",
        ),
        ("SELECT syncline_import(x'00')", "not a Syncline changeset"),
        ("SELECT syncline_export('no')", "syncline_version_vector()"),
        ("SELECT syncline_track('nope')", "no such table"),
        ("SELECT syncline_track(1)", "a table's name is a text"),
        ("SELECT syncline_untrack('nope')", "not tracked"),
    ] {
        let error = b
            .conn
            .query_row(sql, [], |_| Ok(()))
            .expect_err(sql)
            .to_string();
        assert!(error.contains(says), "{sql}: {error}");
    }
    assert_eq!(
        text(&b, "SELECT syncline_untrack('t')"),
        "t is an ordinary table again"
    );
}

#[test]
fn an_export_may_be_written_to_a_table_by_the_statement_that_makes_it() {
    let mut a = replica(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE outbox(changes)",
        &["t"],
    );
    a.run("INSERT INTO t VALUES(1, 'x')");
    a.run("INSERT INTO outbox SELECT syncline_export()");
    let blob = a
        .conn
        .query_row("SELECT changes FROM outbox", [], |row| row.get(0));
    let blob: Vec<u8> = blob.expect("the export");
    let b = replica("", &[]);
    import(&b.conn, &blob, a.now).expect("import");
    assert_eq!(b.rows("SELECT a FROM t"), ["x"]);
}

#[test]
fn an_export_for_null_is_one_of_everything() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY)", &["t"]);
    a.run("INSERT INTO t VALUES(1)");
    let all = "SELECT syncline_export(NULL) = syncline_export()";
    assert_eq!(a.rows(all), ["1"]);
}
