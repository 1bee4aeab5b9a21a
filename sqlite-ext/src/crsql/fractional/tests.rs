//! Ordered lists as an application sees them, with the extension and without it.

use proptest::prelude::*;
use rusqlite::Connection;

use crate::crsql::order_key::key_between;
use crate::{TableOptions, export, fold, import_changeset, track};

const NOW: u64 = syncline_crdt::EPOCH_UNIX_MS + 1_000_000_000;

const TODO: &str = "CREATE TABLE todo(id INTEGER PRIMARY KEY, spot TEXT, list);
    SELECT crsql_fract_as_ordered('todo', 'spot', 'list');";

fn connection(schema: &str) -> Connection {
    let conn = Connection::open_in_memory().expect("SQLite opens in memory");
    crate::register(&conn).expect("the functions register");
    conn.execute_batch(schema).expect(schema);
    conn
}

fn run(conn: &Connection, sql: &str) {
    conn.execute_batch(sql).expect(sql);
}

fn rows(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(sql).expect(sql);
    let width = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        let cell = |at| match row.get_ref(at).expect("a cell") {
            rusqlite::types::ValueRef::Null => "-".to_owned(),
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            value => value.as_str().expect("a text").to_owned(),
        };
        Ok((0..width).map(cell).collect::<Vec<_>>().join("|"))
    };
    let rows = statement.query_map([], row).expect(sql);
    rows.collect::<Result<_, _>>().expect(sql)
}

fn in_order(conn: &Connection) -> Vec<String> {
    rows(conn, "SELECT id, spot FROM todo ORDER BY list, spot")
}

#[test]
fn one_and_minus_one_are_the_ends_of_each_list() {
    let conn = connection(TODO);
    run(
        &conn,
        "INSERT INTO todo VALUES(1, 1, 'a'), (2, 1, 'a'), (3, -1, 'a'), (4, -1, 'b'), (5, 1, NULL)",
    );
    run(&conn, "INSERT INTO todo VALUES(6, 1, NULL)");
    assert_eq!(
        in_order(&conn),
        ["5|a ", "6|a!", "3|Z~", "1|a ", "2|a!", "4|a "]
    );
    run(&conn, "UPDATE todo SET spot = 1 WHERE id = 3");
    run(&conn, "UPDATE todo SET spot = -1 WHERE id = 2");
    assert_eq!(
        rows(
            &conn,
            "SELECT id, spot FROM todo WHERE list = 'a' ORDER BY spot"
        ),
        ["2|Z~", "1|a ", "3|a\""]
    );
}

#[test]
fn a_view_places_a_row_after_another() {
    let conn = connection(TODO);
    run(
        &conn,
        "INSERT INTO todo VALUES(1, -1, 'x'), (3, 1, 'x'), (9, 1, 'y')",
    );
    let insert = "INSERT INTO todo_fractindex(id, list, after_id) VALUES";
    run(&conn, &format!("{insert}(2, 'x', 1)"));
    assert_eq!(in_order(&conn), ["1|a ", "2|a P", "3|a!", "9|a "]);
    run(&conn, &format!("{insert}(0, 'x', NULL)"));
    run(&conn, &format!("{insert}(4, 'x', 3)"));
    assert_eq!(
        in_order(&conn),
        ["0|Z~", "1|a ", "2|a P", "3|a!", "4|a\"", "9|a "]
    );
    // The row to go after is in another list, so the place is the beginning.
    run(&conn, &format!("{insert}(8, 'y', 3)"));
    assert_eq!(in_order(&conn)[5..], ["8|Z~", "9|a "]);
    assert_eq!(
        rows(&conn, "SELECT * FROM todo_fractindex WHERE id = 8"),
        ["8|Z~|y|-"]
    );
}

#[test]
fn a_view_moves_a_row() {
    let conn = connection(TODO);
    run(
        &conn,
        "INSERT INTO todo VALUES(1, 1, 'x'), (2, 1, 'x'), (3, 1, 'x')",
    );
    run(
        &conn,
        "UPDATE todo_fractindex SET after_id = 1 WHERE id = 3",
    );
    assert_eq!(in_order(&conn), ["1|a ", "3|a P", "2|a!"]);
    run(
        &conn,
        "UPDATE todo_fractindex SET after_id = NULL WHERE id = 2",
    );
    assert_eq!(in_order(&conn), ["2|Z~", "1|a ", "3|a P"]);
    // After itself, and where it is already.
    run(
        &conn,
        "UPDATE todo_fractindex SET after_id = 1 WHERE id = 1",
    );
    run(
        &conn,
        "UPDATE todo_fractindex SET after_id = 2 WHERE id = 1",
    );
    let ids = "SELECT group_concat(id) FROM (SELECT id FROM todo ORDER BY spot)";
    assert_eq!(rows(&conn, ids), ["2,1,3"]);
    // To another list, under another key, in one statement.
    run(
        &conn,
        "INSERT INTO todo VALUES(7, 1, 'y'), (8, 1, 'y');
         UPDATE todo_fractindex SET id = 5, list = 'y', after_id = 7 WHERE id = 1",
    );
    let spots = "SELECT id, spot FROM todo WHERE list = 'y' ORDER BY spot";
    assert_eq!(rows(&conn, spots), ["7|a ", "5|a P", "8|a!"]);
    // What does not name a place keeps it.
    run(&conn, "UPDATE todo_fractindex SET id = 6 WHERE id = 5");
    assert_eq!(rows(&conn, spots), ["7|a ", "6|a P", "8|a!"]);
    run(&conn, "UPDATE todo_fractindex SET spot = 1 WHERE id = 6");
    assert_eq!(rows(&conn, spots), ["7|a ", "8|a!", "6|a\""]);
}

#[test]
fn equal_keys_make_room() {
    let conn = connection(
        "CREATE TABLE todo(id PRIMARY KEY, position);
         SELECT crsql_fract_as_ordered('todo', 'position');
         INSERT INTO todo VALUES(1, 'Zm'), (2, 'ZmG'), (3, 'ZmG'), (4, 'ZmV'), (5, 'Zn');
         UPDATE todo_fractindex SET after_id = 2 WHERE id = 5;",
    );
    let keys = "SELECT id, position FROM todo ORDER BY position";
    assert_eq!(
        rows(&conn, keys),
        ["1|Zm", "2|Zm4", "5|Zm>", "3|ZmG", "4|ZmV"]
    );
    run(
        &conn,
        "UPDATE todo SET position = 'ZmG' WHERE id = 2;
         INSERT INTO todo_fractindex(id, after_id) VALUES(6, 3);",
    );
    let ids = "SELECT group_concat(id) FROM (SELECT id FROM todo ORDER BY position)";
    assert_eq!(rows(&conn, ids), ["1,5,3,6,2,4"]);
    // The function that cr-sqlite's own triggers call does the same.
    run(&conn, "UPDATE todo SET position = 'ZmG' WHERE id IN (2, 3)");
    let repair = "crsql_fract_fix_conflict_return_old_key('todo', 'position', -1, 'id', 2)";
    run(&conn, &format!("INSERT INTO todo VALUES(7, {repair})"));
    let around = "SELECT group_concat(id) FROM
        (SELECT id FROM todo WHERE id IN (2, 3, 7) ORDER BY position)";
    assert_eq!(rows(&conn, around), ["2,7,3"]);
}

#[test]
fn any_shape_of_table_is_ordered() {
    for schema in [
        "CREATE TABLE t(k TEXT PRIMARY KEY, pos, l) WITHOUT ROWID",
        "CREATE TABLE t(k TEXT PRIMARY KEY, pos, l, rowid, oid)",
        "CREATE TABLE t(k INTEGER PRIMARY KEY, pos ANY, l TEXT) STRICT",
        "CREATE TABLE t(k, pos TEXT COLLATE NOCASE, l, g AS (l || k) STORED, PRIMARY KEY(k, l))",
        "CREATE TABLE t(k PRIMARY KEY, pos, l, n INTEGER NOT NULL DEFAULT 7)",
    ] {
        let conn = connection(schema);
        run(
            &conn,
            "SELECT crsql_fract_as_ordered('t', 'pos', 'l');
             INSERT INTO t(k, pos, l) VALUES(1, 1, 'x'), (2, 1, 'x');
             UPDATE t SET pos = -1 WHERE k = 2;",
        );
        let after = if schema.contains("(k, l)") {
            "after_k, after_l"
        } else {
            "after_k"
        };
        let place = if schema.contains("(k, l)") {
            "2, 'x'"
        } else {
            "2"
        };
        run(
            &conn,
            &format!("INSERT INTO t_fractindex(k, l, {after}) VALUES(3, 'x', {place})"),
        );
        let keys = "SELECT k, pos FROM t ORDER BY pos COLLATE BINARY";
        assert_eq!(rows(&conn, keys), ["2|Z~", "3|Z~P", "1|a "], "{schema}");
    }
}

#[test]
fn names_are_quoted_and_a_second_call_replaces_the_first() {
    let name = "o'clock */ \"x\"";
    let conn = connection("");
    let table = crate::value::quoted(name);
    run(
        &conn,
        &format!("CREATE TABLE {table}(\"the \"\" key\" PRIMARY KEY, \"a 'b'\", \"order\")"),
    );
    let literal = name.replace('\'', "''");
    let order = format!("SELECT crsql_fract_as_ordered('{literal}', 'order', 'a ''b''')");
    run(&conn, &format!("{order}; {order};"));
    let names = super::order_of(&conn, name).expect("it is read");
    assert_eq!(
        names.expect("it is ordered"),
        [name.to_owned(), "order".to_owned(), "a 'b'".to_owned()]
    );
    run(
        &conn,
        &format!("INSERT INTO {table} VALUES(1, 'l', 1), (2, 'l', 1)"),
    );
    let view = crate::value::quoted(&format!("{name}_fractindex"));
    run(
        &conn,
        &format!(
            "INSERT INTO {view}(\"the \"\" key\", \"a 'b'\", \"after_the \"\" key\") VALUES(3, 'l', 1)"
        ),
    );
    let keys = format!("SELECT \"the \"\" key\", \"order\" FROM {table} ORDER BY \"order\"");
    assert_eq!(rows(&conn, &keys), ["1|a ", "3|a P", "2|a!"]);
    run(&conn, &super::drop_order(name));
    assert_eq!(
        rows(
            &conn,
            "SELECT count(*) FROM sqlite_master WHERE type <> 'table'"
        ),
        ["1"]
    );
}

#[test]
fn what_cannot_be_ordered_is_refused_and_the_transaction_goes_on() {
    let conn = connection(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, pos, g AS (id)); CREATE TABLE plain(pos);
         CREATE TABLE u(id PRIMARY KEY, pos); CREATE TABLE u_fractindex(x); BEGIN;
         INSERT INTO t(id) VALUES(1)",
    );
    for (arguments, message) in [
        ("", "takes a table"),
        ("'t'", "takes a table"),
        ("'t', 7", "takes a table"),
        ("'t', 'nothing'", "table `t` has no column `nothing`"),
        ("'t', 'g'", "table `t` has no column `g`"),
        ("'t', 'pos', 'nothing'", "table `t` has no column `nothing`"),
        ("'t', 'id'", "part of its primary key"),
        ("'nowhere', 'pos'", "there is no table `nowhere`"),
        ("'plain', 'pos'", "table `plain` needs a primary key"),
        ("'u', 'pos'", "u_fractindex"),
    ] {
        let order = format!("SELECT crsql_fract_as_ordered({arguments})");
        let error = conn.execute_batch(&order).expect_err(arguments).to_string();
        assert!(error.contains(message), "{arguments}: {error}");
    }
    run(&conn, "COMMIT");
    assert_eq!(rows(&conn, "SELECT id FROM t"), ["1"]);
    assert_eq!(
        rows(
            &conn,
            "SELECT count(*) FROM sqlite_master WHERE type IN ('trigger', 'view')"
        ),
        ["0"]
    );
}

#[test]
fn programs_without_the_extension_append_and_prepend() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.db");
    let conn = Connection::open(&file).expect("it opens");
    crate::register(&conn).expect("the functions register");
    run(&conn, TODO);
    track(&conn, "todo", &TableOptions::default(), NOW).expect("it is tracked");
    drop(conn);
    let plain = Connection::open(&file).expect("it opens");
    run(
        &plain,
        "INSERT INTO todo VALUES(1, 1, 'x'), (2, -1, 'x'), (3, 1, 'x');
         UPDATE todo SET spot = -1 WHERE id = 3;",
    );
    assert_eq!(in_order(&plain), ["3|Z}", "2|Z~", "1|a "]);
    let place = "UPDATE todo_fractindex SET after_id = 2 WHERE id = 3";
    let error = plain.execute_batch(place).expect_err("no such function");
    assert!(error.to_string().contains("crsql_fract_key_between"));
    let conn = Connection::open(&file).expect("it opens");
    crate::register(&conn).expect("the functions register");
    fold(&conn, NOW).expect("fold");
    let changes = export(&conn, &Default::default(), NOW).expect("export");
    // The other device has its own triggers; they do not touch what arrives.
    let other = connection(TODO);
    import_changeset(&other, &changes, NOW).expect("import");
    assert_eq!(in_order(&other), in_order(&plain));
}

#[test]
fn what_is_no_key_does_not_stop_a_list() {
    let conn = connection(TODO);
    let most = format!("z{}", "~".repeat(26));
    let insert = "INSERT INTO todo VALUES(NULL, ?1, 'x')";
    for spot in ["zz", "~", "", "a  ", "A\u{e4}", "a\u{e4}", super::LEAST] {
        conn.execute(insert, [spot]).expect(spot);
    }
    run(
        &conn,
        "INSERT INTO todo VALUES(100, x'7a', 'x'), (101, NULL, 'x'), (102, 1, 'x')",
    );
    assert_eq!(rows(&conn, "SELECT spot FROM todo WHERE id = 102"), ["a "]);
    conn.execute(insert, [&most]).expect("it is the greatest");
    run(&conn, "INSERT INTO todo VALUES(203, 1, 'x'), (204, 1, 'x')");
    assert_eq!(
        rows(
            &conn,
            "SELECT spot FROM todo WHERE id IN (203, 204) ORDER BY id"
        ),
        [format!("{most}P"), format!("{most}PP")]
    );
}

/// Any key with a whole number below the greatest, carries and borrows included.
fn order_key() -> impl Strategy<Value = String> {
    let digits = prop_oneof![
        "[ ]{26}",
        "[~]{26}",
        "[ !~]{26}",
        "[ ]{25}[!~]",
        "[ -~]{26}"
    ];
    let fraction = prop_oneof!["", "[ ]{0,3}[!-~]", "[ -~]{0,9}[!-~]"];
    let head = prop_oneof!["[AZYab]", "[A-Za-y]"];
    (head, digits, fraction).prop_map(|(head, digits, fraction)| {
        let letter = head.as_bytes()[0];
        let count = if letter < b'a' {
            b'Z' - letter
        } else {
            letter - b'a'
        };
        format!("{head}{}{fraction}", &digits[..=usize::from(count)])
    })
}

proptest! {
    #[test]
    fn plain_sql_finds_the_keys_of_the_function(keys in prop::collection::vec(order_key(), 1..4)) {
        let conn = connection(TODO);
        let keys: Vec<_> = keys.into_iter().filter(|key| key != super::LEAST).collect();
        for key in &keys {
            let insert = "INSERT INTO todo(spot, list) VALUES(?1, 'x')";
            conn.execute(insert, [key]).expect("it is a key");
        }
        run(&conn, "INSERT INTO todo VALUES(1001, 1, 'x')");
        let last = rows(&conn, "SELECT spot FROM todo WHERE id = 1001").remove(0);
        run(&conn, "DELETE FROM todo WHERE id = 1001; INSERT INTO todo VALUES(1002, -1, 'x')");
        let first = rows(&conn, "SELECT spot FROM todo WHERE id = 1002").remove(0);
        let (least, greatest) = (keys.iter().min(), keys.iter().max());
        let after = key_between(greatest.map(String::as_str), None);
        prop_assert_eq!(Ok(last), after);
        let before = key_between(None, least.map(String::as_str)).expect("our keys are keys");
        if least.is_some_and(|key| key.starts_with(super::LEAST)) {
            prop_assert!(least.is_some_and(|least| first < *least));
            prop_assert!(key_between(None, Some(&first)).is_ok());
        } else {
            prop_assert_eq!(first, before);
        }
    }
}

#[test]
fn rows_that_have_their_place_stay_whatever_the_table_is_called() {
    for table in ["o", "k", "other", "a \"b\""] {
        let name = crate::value::quoted(table);
        let view = crate::value::quoted(&format!("{table}_fractindex"));
        let conn = connection(&format!(
            "CREATE TABLE {name}(id INTEGER PRIMARY KEY, spot, list)"
        ));
        let order = "SELECT crsql_fract_as_ordered(?1, 'spot', 'list')";
        conn.query_row(order, [table], |_| Ok(()))
            .expect("it is ordered");
        run(
            &conn,
            &format!("INSERT INTO {name} VALUES(1, 1, 'l'), (2, 1, 'l'), (3, -1, 'l')"),
        );
        run(&conn, &format!("INSERT INTO {name} VALUES(4, -1, 'l')"));
        let placed = format!("SELECT id, spot FROM {name} ORDER BY spot");
        let before = rows(&conn, &placed);
        run(
            &conn,
            &format!("UPDATE {view} SET after_id = 3 WHERE id = 1"),
        );
        assert_eq!(rows(&conn, &placed), before, "{table}");
    }
}
