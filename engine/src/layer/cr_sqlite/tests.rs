//! Two databases with a cr-sqlite, whose file the environment variable `CRSQLITE_PATH` names.
//!
//! Without it these tests show nothing. `.ci/run` names a real one, and then this project's own
//! extension in a file of cr-sqlite's name.

use std::path::PathBuf;

use super::*;

/// Returns databases with the cr-sqlite, if one is named.
fn databases<const N: usize>() -> Option<[Connection; N]> {
    let Some(file) = std::env::var_os("CRSQLITE_PATH").map(PathBuf::from) else {
        println!("left out: CRSQLITE_PATH names no cr-sqlite");
        return None;
    };
    Some(std::array::from_fn(|_| {
        let conn = Connection::open_in_memory().expect("SQLite opens in memory");
        load(&conn, &file).expect("CRSQLITE_PATH names a cr-sqlite");
        conn
    }))
}

fn run(conn: &Connection, sql: &str) {
    conn.execute_batch(sql).expect(sql);
}

const SCHEMA: &str = "CREATE TABLE item(id INTEGER PRIMARY KEY NOT NULL, name TEXT);
    CREATE INDEX item_by_name ON item(name);";

fn rows(conn: &Connection) -> Vec<String> {
    let rows = "SELECT id || ifnull(name, '-') FROM item ORDER BY id";
    let mut statement = conn.prepare(rows).expect("the table is there");
    let rows = statement
        .query_map([], |row| row.get(0))
        .expect("it is read");
    rows.collect::<Result<_, _>>().expect("texts")
}

/// Sends what is new since `sealed`, through the bytes of a changeset, and returns up to where.
fn send(from: &Connection, to: &Connection, sealed: Hlc) -> Hlc {
    let own = site_id(from).expect("it has a name");
    let Some(changes) = export_own(from, sealed, 2).expect("it is read") else {
        return sealed;
    };
    if changes.is_empty() {
        return sealed;
    }
    let bytes = changes.encode();
    let changes = Changeset::decode(&bytes).expect("the changeset is one");
    assert!(import(to, &changes).is_ok(), "it merges");
    changes.until.version(own)
}

fn finish<const N: usize>(databases: [Connection; N]) {
    for conn in databases {
        finalize(&conn);
        conn.close().expect("it closes");
    }
}

#[test]
fn a_cr_sqlite_gets_tables_rows_and_deletions_of_another() {
    let Some([one, two]) = databases() else {
        return;
    };
    run(&one, SCHEMA);
    track(&one, "item").expect("it is made a crr");
    run(&one, "INSERT INTO item VALUES(1, 'tea'), (2, 'milk')");
    run(&one, "INSERT INTO item VALUES(3, 'salt')");
    let mut sealed = [Hlc::ZERO; 2];
    for _ in 0..3 {
        sealed[0] = send(&one, &two, sealed[0]);
    }
    assert_eq!(rows(&two), ["1tea", "2milk", "3salt"]);
    assert_eq!(tables(&two).expect("they are listed"), ["item"]);
    let index = "SELECT 1 FROM sqlite_master WHERE name = 'item_by_name'";
    assert!(two.prepare(index).expect("SQL").exists([]).expect("SQL"));

    run(
        &two,
        "DELETE FROM item WHERE id = 1; UPDATE item SET name = 'rice' WHERE id = 2",
    );
    run(&one, "UPDATE item SET name = 'oats' WHERE id = 1");
    for _ in 0..3 {
        sealed[0] = send(&one, &two, sealed[0]);
        sealed[1] = send(&two, &one, sealed[1]);
    }
    assert_eq!(rows(&one), ["2rice", "3salt"]);
    assert_eq!(rows(&one), rows(&two));
    assert_eq!(
        digest(&one).expect("a digest"),
        digest(&two).expect("a digest")
    );
    assert!(!is_all_own(&one).expect("it is read"));
    leave(&one).expect("the table stays");
    assert!(tables(&one).expect("they are listed").is_empty());
    finish([one, two]);
}

/// An `UPDATE` that changes nothing raises `crsql_db_version()` in the connection that runs it, and
/// in no other, so another one's next write can have that number.
#[test]
fn a_write_after_an_empty_update_is_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some([other]) = databases() else { return };
    let file = std::env::var_os("CRSQLITE_PATH").map(PathBuf::from);
    let file = file.expect("it was there a line before");
    let [node, program] = [(); 2].map(|()| {
        let conn = Connection::open(folder.path().join("a.db")).expect("it opens");
        load(&conn, &file).expect("CRSQLITE_PATH names a cr-sqlite");
        conn
    });
    run(&node, SCHEMA);
    track(&node, "item").expect("it is made a crr");
    let mut sealed = Hlc::ZERO;
    for number in 1..6 {
        run(&program, &format!("INSERT INTO item VALUES({number}, 'a')"));
        run(&node, "UPDATE item SET name = name");
        sealed = send(&node, &other, sealed);
        assert_eq!(rows(&other).len(), number);
    }
    finish([node, program, other]);
}

#[test]
fn a_definition_may_not_name_tables_of_cr_sqlite() {
    let Some([one, two]) = databases() else {
        return;
    };
    run(&one, SCHEMA);
    track(&one, "item").expect("it is made a crr");
    run(&one, "INSERT INTO item VALUES(1, 'tea')");
    let changes = export_own(&one, Hlc::ZERO, 9).expect("it is read");
    let changes = changes.expect("a row was written");
    for (name, statement) in [
        ("crsql_master2", "CREATE TABLE crsql_master2(a)"),
        ("x__crsql_clock", "CREATE TABLE x__crsql_clock(a)"),
        ("item", "DROP TABLE crsql_master"),
        ("item", "CREATE TABLE item(id INTEGER)"),
    ] {
        let mut hostile = changes.clone();
        hostile.schemas[0].name = name.to_owned();
        hostile.schemas[0].statements = vec![statement.to_owned()];
        assert!(
            matches!(import(&two, &hostile), Err(Unmerged::NotYet(_))),
            "{statement}"
        );
        let made = "SELECT 1 FROM sqlite_master WHERE name IN ('crsql_master2', 'item')";
        assert!(!two.prepare(made).expect("SQL").exists([]).expect("SQL"));
    }
    finish([one, two]);
}
