//! A CRR that one statement makes and one drops.

use rusqlite::Connection;

fn connection() -> Connection {
    let conn = Connection::open_in_memory().expect("SQLite opens in memory");
    crate::register(&conn).expect("the functions register");
    conn
}

fn run(conn: &Connection, sql: &str) {
    conn.execute_batch(sql).expect(sql);
}

fn text(conn: &Connection, sql: &str) -> String {
    let whole = format!("SELECT ifnull(group_concat(x, ' '), '') FROM ({sql})");
    conn.query_row(&whole, [], |row| row.get(0)).expect(sql)
}

const CREATE: &str =
    "CREATE VIRTUAL TABLE foo_schema USING clset(id INTEGER PRIMARY KEY NOT NULL, a, b DEFAULT 7);";
const CHANGES: &str = "SELECT cid || val AS x FROM crsql_changes ORDER BY cid, db_version";
/// What is left of a CRR in the schema.
const TRACES: &str = "SELECT name AS x FROM sqlite_master
    WHERE tbl_name LIKE 'foo%' OR type = 'trigger'
    UNION ALL SELECT name AS x FROM temp.sqlite_master WHERE type = 'trigger'";

#[test]
fn a_statement_makes_a_crr() {
    for (begin, end) in [("", ""), ("BEGIN;", "COMMIT;")] {
        let conn = connection();
        run(&conn, begin);
        run(&conn, CREATE);
        run(&conn, "INSERT INTO foo(id, a) VALUES(1, 'x')");
        run(&conn, end);
        assert_eq!(text(&conn, CHANGES), "ax b7");
        assert_eq!(text(&conn, "SELECT crsql_db_version() AS x"), "1");
        assert_eq!(text(&conn, "SELECT 1 AS x FROM foo_schema"), "");
        run(&conn, "UPDATE foo SET a = 'y'");
        assert_eq!(text(&conn, CHANGES), "ay b7");
    }
}

#[test]
fn to_drop_it_drops_the_crr() {
    for (begin, end) in [("", ""), ("BEGIN;", "COMMIT;")] {
        let conn = connection();
        run(
            &conn,
            &format!("{CREATE} INSERT INTO foo VALUES(1, 'x', 'y')"),
        );
        run(&conn, &format!("{begin} DROP TABLE foo_schema; {end}"));
        assert_eq!(text(&conn, TRACES), "");
        assert_eq!(text(&conn, CHANGES), "");
        // And it can be made again.
        run(
            &conn,
            &format!("{CREATE} INSERT INTO foo VALUES(2, 'z', 'z')"),
        );
        assert_eq!(text(&conn, CHANGES), "az bz");
    }
}

#[test]
fn a_rollback_takes_it_back() {
    let conn = connection();
    run(
        &conn,
        &format!("BEGIN; {CREATE} INSERT INTO foo VALUES(1, 'x', 'y'); ROLLBACK;"),
    );
    assert_eq!(text(&conn, TRACES), "");
    run(&conn, CREATE);
    run(
        &conn,
        "BEGIN; DROP TABLE foo_schema; ROLLBACK; INSERT INTO foo VALUES(1, 'x', 'y');",
    );
    assert_eq!(text(&conn, CHANGES), "ax by");
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    for begin in ["", "BEGIN;"] {
        let conn = connection();
        run(&conn, "CREATE TABLE there(id INTEGER PRIMARY KEY NOT NULL)");
        run(&conn, begin);
        for (create, message) in [
            (
                "foo USING clset(id INTEGER PRIMARY KEY NOT NULL)",
                "must end with _schema",
            ),
            (
                "_schema USING clset(id INTEGER PRIMARY KEY NOT NULL)",
                "must end with _schema",
            ),
            ("foo_schema USING clset(a, b)", "`foo` cannot be made a crr"),
            (
                "foo_schema USING clset(id PRIMARY KEY NOT NULL, a REFERENCES foo(id))",
                "foreign",
            ),
            ("foo_schema USING clset(", "incomplete"),
            ("foo_schema USING clset(a PRIMARY,,)", "syntax error"),
            ("foo_schema USING clset", "syntax error"),
            (
                "temp.foo_schema USING clset(id INTEGER PRIMARY KEY NOT NULL)",
                "main database",
            ),
            (
                "there_schema USING clset(id INTEGER PRIMARY KEY NOT NULL)",
                "already exists",
            ),
        ] {
            let create = format!("CREATE VIRTUAL TABLE {create}");
            let error = conn.execute_batch(&create).expect_err(&create).to_string();
            assert!(error.contains(message), "{create}: {error}");
        }
        if !begin.is_empty() {
            run(&conn, "COMMIT");
        }
        assert_eq!(text(&conn, TRACES), "");
        run(
            &conn,
            &format!("{CREATE} INSERT INTO foo VALUES(1, 'x', 'y')"),
        );
        assert_eq!(text(&conn, CHANGES), "ax by");
    }
}

#[test]
fn it_is_there_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.db");
    let open = || Connection::open(&file).expect("it opens");
    let conn = open();
    crate::register(&conn).expect("the functions register");
    run(
        &conn,
        &format!("{CREATE} INSERT INTO foo VALUES(1, 'x', 'y')"),
    );
    assert!(conn.close().is_ok());
    // A program without the extension writes to the table.
    run(&open(), "INSERT INTO foo VALUES(2, 'plain', 'plain')");
    let conn = open();
    crate::register(&conn).expect("the functions register");
    assert_eq!(text(&conn, CHANGES), "ax aplain by bplain");
    run(&conn, "DROP TABLE foo_schema");
    assert_eq!(text(&conn, TRACES), "");
    assert!(conn.close().is_ok());
}
