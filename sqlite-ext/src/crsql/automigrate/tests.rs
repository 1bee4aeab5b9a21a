//! Schemas as they grow: what a migration makes of tables, rows and clocks.

use rusqlite::Connection;

fn connection(schema: &str) -> Connection {
    let conn = Connection::open_in_memory().expect("SQLite opens in memory");
    crate::register(&conn).expect("the functions register");
    conn.execute_batch(schema).expect(schema);
    conn
}

fn run(conn: &Connection, sql: &str) {
    conn.execute_batch(sql).expect(sql);
}

fn migrate(conn: &Connection, schema: &str) -> Result<String, String> {
    let call = "SELECT crsql_automigrate(?1, 'SELECT crsql_finalize();')";
    let done = conn.query_row(call, [schema], |row| row.get(0));
    done.map_err(|error: rusqlite::Error| error.to_string())
}

fn migrated(conn: &Connection, schema: &str) {
    assert_eq!(migrate(conn, schema).as_deref(), Ok("migration complete"));
}

fn text(conn: &Connection, sql: &str) -> String {
    let whole = format!("SELECT ifnull(group_concat(x, ' '), '') FROM ({sql})");
    conn.query_row(&whole, [], |row| row.get(0)).expect(sql)
}

/// The user's tables with their columns, and the indices with theirs.
fn shape(conn: &Connection) -> String {
    text(
        conn,
        "SELECT t.name || '(' || group_concat(c.name) || ')' AS x
         FROM pragma_table_list AS t, pragma_table_xinfo(t.name) AS c
         WHERE t.schema = 'main' AND t.type = 'table' AND t.name NOT GLOB 'sqlite_*'
           AND t.name NOT GLOB 'syncline_*' AND t.name NOT GLOB '*crsql_*'
         GROUP BY t.name
         UNION ALL SELECT i.name || '/' || group_concat(c.name) || iif(i.\"unique\", '!', '') AS x
         FROM pragma_table_list AS t, pragma_index_list(t.name) AS i, pragma_index_info(i.name) AS c
         WHERE t.schema = 'main' AND i.origin = 'c' AND t.name NOT GLOB 'syncline_*'
           AND t.name NOT GLOB '*crsql_*'
         GROUP BY i.name",
    )
}

#[test]
fn tables_become_as_the_schema_says() {
    for (before, after, expected) in [
        ("", "", ""),
        (
            "CREATE TABLE foo(a PRIMARY KEY, b); CREATE TABLE bar(a, b, c)",
            "",
            "",
        ),
        (
            "",
            "CREATE TABLE IF NOT EXISTS foo(a PRIMARY KEY, b);
             CREATE INDEX IF NOT EXISTS foo_b ON foo(b);",
            "foo(a,b) foo_b/b",
        ),
        (
            "CREATE TABLE foo(a PRIMARY KEY, b)",
            "CREATE TABLE IF NOT EXISTS foo(a PRIMARY KEY, c, B TEXT, d INTEGER NOT NULL DEFAULT 7)",
            "foo(a,b,c,d)",
        ),
        (
            "CREATE TABLE foo(a PRIMARY KEY, b, c, d); CREATE INDEX by_c ON foo(c)",
            "CREATE TABLE IF NOT EXISTS foo(a PRIMARY KEY, d)",
            "foo(a,d)",
        ),
        (
            "CREATE TABLE foo(a PRIMARY KEY, b)",
            "CREATE TABLE IF NOT EXISTS foo(a PRIMARY KEY, c)",
            "foo(a,c)",
        ),
        (
            "CREATE TABLE foo(a PRIMARY KEY, b); CREATE INDEX i ON foo(b)",
            "CREATE TABLE IF NOT EXISTS foo(a PRIMARY KEY, b)",
            "foo(a,b)",
        ),
        (
            "CREATE TABLE foo(a PRIMARY KEY, b, c); CREATE INDEX i ON foo(b, c)",
            "CREATE TABLE IF NOT EXISTS foo(a PRIMARY KEY, b, c);
             CREATE UNIQUE INDEX IF NOT EXISTS i ON foo(c, b)",
            "foo(a,b,c) i/c,b!",
        ),
        (
            "PRAGMA foreign_keys = ON;
             CREATE TABLE a_parent(id INTEGER PRIMARY KEY);
             CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES a_parent(id));
             INSERT INTO a_parent VALUES(1); INSERT INTO child VALUES(1, 1)",
            "",
            "",
        ),
        (
            "CREATE TABLE \"a \"\" b\"(\"k 1\" PRIMARY KEY, \"select\", \"x'y\")",
            "CREATE TABLE IF NOT EXISTS \"a \"\" b\"(\"k 1\" PRIMARY KEY, \"x'y\", \"from\")",
            "a \" b(k 1,x'y,from)",
        ),
    ] {
        let conn = connection(before);
        migrated(&conn, after);
        assert_eq!(shape(&conn), expected, "{before} -> {after}");
        migrated(&conn, after);
        assert_eq!(shape(&conn), expected, "twice: {before} -> {after}");
    }
}

#[test]
fn rows_stay_and_new_columns_have_their_default() {
    let conn = connection(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, gone, kept);
         INSERT INTO t VALUES(1, 'gone', 'kept')",
    );
    migrated(
        &conn,
        "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, kept, a DEFAULT 2, b TEXT
           NOT NULL DEFAULT 'x', c INTEGER DEFAULT -3, d)",
    );
    let row = "SELECT printf('%s %s %s %s %s', kept, a, b, c, d) AS x FROM t";
    assert_eq!(text(&conn, row), "kept 2 x -3 ");
}

/// Two devices with the same tracked table; one of them has an open transaction.
fn tracked_pair(track: &str) -> [Connection; 2] {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES(1, 'x', 'y');";
    let a = connection(&format!("{schema} {track}"));
    let b = connection("");
    pull(&b, &a);
    run(&a, "UPDATE t SET b = 'z' WHERE id = 1");
    run(&a, "INSERT INTO t VALUES(2, 'two', 'two')");
    [a, b]
}

fn pull(into: &Connection, from: &Connection) {
    let changes = from.query_row("SELECT syncline_export()", [], |row| row.get(0));
    let changes: Vec<u8> = changes.expect("export");
    let import = "SELECT syncline_import(?1)";
    into.query_row(import, [changes], |_| Ok(()))
        .expect("import");
}

#[test]
fn a_tracked_table_loses_and_gains_columns_and_stays_tracked() {
    let [a, b] = tracked_pair("SELECT syncline_track('t')");
    let schema = "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a, c)";
    migrated(&b, schema);
    // The other migration comes later and writes nothing, so what was written before it wins.
    run(&b, "UPDATE t SET a = 'from b' WHERE id = 1");
    text(&b, "SELECT syncline_digest() AS x");
    migrated(&a, schema);
    run(&a, "UPDATE t SET c = 'new' WHERE id = 2");
    pull(&b, &a);
    pull(&a, &b);
    let rows = "SELECT printf('%s %s %s', id, a, c) AS x FROM t ORDER BY id";
    assert_eq!(text(&a, rows), "1 from b  2 two new");
    assert_eq!(text(&b, rows), text(&a, rows));
    let digest = "SELECT syncline_digest() AS x";
    assert_eq!(text(&a, digest), text(&b, digest));
}

#[test]
fn a_column_that_comes_back_is_a_new_one() {
    let [a, b] = tracked_pair("SELECT syncline_track('t')");
    let schema =
        |columns| format!("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, {columns})");
    for conn in [&a, &b] {
        migrated(conn, &schema("a"));
        migrated(conn, &schema("a, b DEFAULT 'back'"));
    }
    pull(&b, &a);
    pull(&a, &b);
    let rows = "SELECT printf('%s %s', id, b) AS x FROM t ORDER BY id";
    assert_eq!(text(&a, rows), "1 back 2 back");
    assert_eq!(text(&b, rows), text(&a, rows));
    let digest = "SELECT syncline_digest() AS x";
    assert_eq!(text(&a, digest), text(&b, digest));
}

#[test]
fn a_tracked_table_that_is_gone_leaves_nothing_behind() {
    let conn = connection(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); SELECT syncline_track('t');
         SELECT crsql_fract_as_ordered('t', 'a'); INSERT INTO t VALUES(1, 1);",
    );
    migrated(&conn, "");
    let left = "SELECT name AS x FROM sqlite_master WHERE name LIKE '%fractindex%'
        OR name LIKE 'syncline_pending%' OR type = 'trigger'";
    assert_eq!(
        (shape(&conn).as_str(), text(&conn, left).as_str()),
        ("", "")
    );
}

#[test]
fn an_ordered_table_loses_a_column_and_stays_ordered() {
    let schema = |columns: &str, order: &str| {
        format!("CREATE TABLE IF NOT EXISTS todo(id PRIMARY KEY, {columns}); {order}")
    };
    let order = "SELECT crsql_fract_as_ordered('todo', 'position', 'list');";
    let conn = connection(&schema("content TEXT, position, list, thing", order));
    // Whether the schema says so again or not.
    migrated(&conn, &schema("content TEXT, position, list", ""));
    migrated(&conn, &schema("position, list", order));
    assert_eq!(shape(&conn), "todo(id,position,list)");
    run(
        &conn,
        "INSERT INTO todo VALUES(1, 1, 'x'), (2, 1, 'x');
         UPDATE todo_fractindex SET after_id = NULL WHERE id = 2;",
    );
    let ids = "SELECT id || position AS x FROM todo ORDER BY position";
    assert_eq!(text(&conn, ids), "2Z~ 1a ");
    // Without the column that orders it there is no order.
    migrated(&conn, &schema("position", ""));
    let views = "SELECT name AS x FROM sqlite_master WHERE type IN ('view', 'trigger')";
    assert_eq!(text(&conn, views), "");
}

#[test]
fn what_does_not_migrate_changes_nothing_and_the_transaction_goes_on() {
    let conn = connection(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b); INSERT INTO t VALUES(1, 2, 3);
         CREATE TABLE u(id); CREATE VIEW v AS SELECT b FROM t; BEGIN; INSERT INTO u VALUES(1)",
    );
    let before = shape(&conn);
    for (schema, message) in [
        ("CREATE TABLE t(", "does not run in an empty database"),
        (
            "CREATE TABLE IF NOT EXISTS t(id INTEGER, k INTEGER PRIMARY KEY)",
            "another primary key",
        ),
        (
            "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a, b)",
            "UNIQUE constraints",
        ),
        (
            "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a UNIQUE, b, c NOT NULL)",
            "NOT NULL",
        ),
        (
            "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a UNIQUE, b, c DEFAULT (1 + 1))",
            "non-constant default",
        ),
        (
            "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a UNIQUE, b, c AS (b))",
            "`c` of `t` is generated",
        ),
        (
            "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a UNIQUE)",
            "error in view v",
        ),
        (
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b)",
            "already exists",
        ),
    ] {
        let error = migrate(&conn, schema).expect_err(schema);
        assert!(error.contains(message), "{schema}: {error}");
        assert_eq!(shape(&conn), before, "{schema}");
    }
    for arguments in ["", "1", "'', 1", "'', '', ''"] {
        let call = format!("SELECT crsql_automigrate({arguments})");
        let error = conn.execute_batch(&call).expect_err(&call).to_string();
        assert!(error.contains("takes a schema"), "{error}");
    }
    run(&conn, "COMMIT");
    assert_eq!(text(&conn, "SELECT id AS x FROM u"), "1");
}
