//! A connection closes whatever was prepared on it, and goes on working after `crsql_finalize`.

use rusqlite::Connection;

fn connection() -> Connection {
    let conn = Connection::open_in_memory().expect("SQLite opens in memory");
    crate::register(&conn).expect("the functions register");
    conn
}

fn text(conn: &Connection, sql: &str) -> String {
    conn.query_row(sql, [], |row| row.get(0)).expect(sql)
}

#[test]
fn the_library_says_who_it_is() {
    let conn = connection();
    let version = concat!("syncline ", env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&conn, "SELECT crsql_version()"), version);
    assert_eq!(text(&conn, "SELECT crsql_sha()"), version);
}

const USED: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a);
    INSERT INTO t VALUES(1, 'x');
    SELECT syncline_track('t');
    UPDATE t SET a = 'y';
    SELECT length(syncline_export());
    SELECT cell FROM crsql_unpack_columns WHERE package = crsql_pack_columns(1);
    SELECT crsql_fract_as_ordered('t', 'a');
    INSERT INTO t VALUES(2, 1);";

#[test]
fn a_connection_closes_without_a_call_before_it() {
    let conn = connection();
    conn.execute_batch(USED).expect("it is used");
    assert!(conn.close().is_ok());
}

#[test]
fn all_goes_on_working_after_finalize() {
    let conn = connection();
    assert_eq!(text(&conn, "SELECT crsql_finalize()"), "finalized");
    conn.execute_batch(USED).expect("it is used");
    assert_eq!(text(&conn, "SELECT crsql_finalize(1, 'x')"), "finalized");
    conn.execute_batch("INSERT INTO t VALUES(3, 1); SELECT syncline_digest();")
        .expect("it is used again");
    assert_eq!(text(&conn, "SELECT crsql_finalize()"), "finalized");
    assert_eq!(text(&conn, "SELECT count(*) || '' FROM t"), "3");
    assert!(conn.close().is_ok());
}
