//! Packages as cr-sqlite makes them, and packages that nobody should have made.

use proptest::prelude::*;
use rusqlite::types::Value as Cell;
use rusqlite::{Connection, params_from_iter};

fn connection() -> Connection {
    let conn = Connection::open_in_memory().expect("SQLite opens in memory");
    crate::register(&conn).expect("the functions register");
    conn
}

fn unpack(conn: &Connection, package: &Cell) -> rusqlite::Result<Vec<Cell>> {
    let all = "SELECT cell FROM crsql_unpack_columns WHERE package = ?1";
    let mut statement = conn.prepare_cached(all)?;
    statement.query_map([package], |row| row.get(0))?.collect()
}

fn pack(conn: &Connection, values: &[Cell]) -> rusqlite::Result<Cell> {
    let fields = vec!["?"; values.len()].join(", ");
    let all = format!("SELECT crsql_pack_columns({fields})");
    conn.query_row(&all, params_from_iter(values), |row| row.get(0))
}

#[test]
fn packages_have_the_bytes_of_cr_sqlite() {
    let conn = connection();
    for (values, bytes) in [
        ("0", "0101"),
        ("1", "010901"),
        ("128", "010980"),
        ("255", "0109FF"),
        ("256", "01110100"),
        ("65536", "0119010000"),
        ("-1", "0141FFFFFFFFFFFFFFFF"),
        ("1.5", "01023FF8000000000000"),
        ("''", "0103"),
        ("'a'", "010B0161"),
        ("x'00ff'", "010C0200FF"),
        ("NULL", "0105"),
        (
            "1, 'a', x'00', NULL, 2.0",
            "0509010B01610C010005024000000000000000",
        ),
        ("", "00"),
    ] {
        let select = format!("SELECT hex(crsql_pack_columns({values}))");
        let packed: String = conn.query_row(&select, [], |row| row.get(0)).expect(values);
        assert_eq!(packed, bytes, "{values}");
    }
    let long = "SELECT substr(hex(crsql_pack_columns(printf('%.300c', 'x'))), 1, 10)";
    let packed: String = conn
        .query_row(long, [], |row| row.get(0))
        .expect("it packs");
    assert_eq!(packed, "0113012C78");
}

#[test]
fn a_package_is_read_where_a_join_gives_it() {
    let conn = connection();
    conn.execute_batch(
        "CREATE TABLE p(n, package);
         INSERT INTO p VALUES(1, crsql_pack_columns(7, 'x')), (2, crsql_pack_columns(NULL)),
           (3, NULL)",
    )
    .expect("packages are stored");
    for join in [
        "SELECT n, cell FROM p JOIN crsql_unpack_columns AS u ON u.package = p.package",
        "SELECT n, cell FROM crsql_unpack_columns AS u JOIN p ON u.package = p.package",
        "SELECT n, cell FROM p, crsql_unpack_columns(p.package)",
    ] {
        let text = format!("SELECT group_concat(n || '=' || ifnull(cell, '-')) FROM ({join})");
        let joined: String = conn.query_row(&text, [], |row| row.get(0)).expect(join);
        assert_eq!(joined, "1=7,1=x,2=-", "{join}");
    }
}

#[test]
fn what_is_no_package_is_an_error() {
    let conn = connection();
    let error = |sql: &str| {
        let read = conn.query_row(sql, [], |row| row.get::<_, Cell>(0));
        read.expect_err(sql).to_string()
    };
    for (package, message) in [
        ("x''", "it is cut short at byte 0: transfer it again"),
        ("x'01'", "it is cut short at byte 1: transfer it again"),
        ("x'0900'", "a packed value has type 1 to 5"),
        ("x'0149'", "a number has at most eight bytes"),
        ("x'0243'", "cut short"),
        ("x'0143FFFFFFFFFFFFFFFF61'", "cut short"),
        ("x'01050505'", "nothing may follow the last value"),
        ("x'01027FF8000000000001'", "neither NaN"),
        (
            "'text'",
            "a package is a blob that crsql_pack_columns() made",
        ),
        ("7", "a package is a blob that crsql_pack_columns() made"),
    ] {
        let read = format!("SELECT cell FROM crsql_unpack_columns WHERE package = {package}");
        let error = error(&read);
        assert!(error.contains(message), "{package}: {error}");
    }
    let missing = error("SELECT cell FROM crsql_unpack_columns");
    assert!(missing.contains("WHERE package ="), "{missing}");
    let many = error(&format!("SELECT crsql_pack_columns(0{})", ",0".repeat(255)));
    // Older hosts allow at most 127 arguments and say so themselves.
    assert!(
        many.contains("at most 255") || many.contains("too many"),
        "{many}"
    );
}

fn cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        Just(Cell::Null),
        any::<i64>().prop_map(Cell::Integer),
        (-300i64..300).prop_map(Cell::Integer),
        (-1e300..1e300).prop_map(Cell::Real),
        ".{0,300}".prop_map(Cell::Text),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Cell::Blob),
    ]
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked(values in prop::collection::vec(cell(), 0..9)) {
        let conn = connection();
        let package = pack(&conn, &values).expect("values pack");
        prop_assert_eq!(unpack(&conn, &package).expect("it unpacks"), values);
    }

    #[test]
    fn any_bytes_unpack_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let conn = connection();
        let _ = unpack(&conn, &Cell::Blob(bytes));
        let works = conn.query_row("SELECT hex(crsql_pack_columns(1))", [], |row| row.get(0));
        prop_assert_eq!(works, Ok("010901".to_owned()));
    }
}
