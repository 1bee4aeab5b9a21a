//! What is refused before it does harm: definitions that peers send, calls at a wrong place.

use rusqlite::functions::FunctionFlags;
use syncline_crdt::{Group, Stamp, TableChanges, TableSchema};

use super::*;

/// A changeset with a table of this definition, and a row that leaves its column `a` out.
fn bringing(table: &str) -> Changeset {
    let site = SiteId([7; 16]);
    let version = Hlc::at_unix_ms(NOW);
    let stamp = Stamp { version, site };
    Changeset {
        until: VersionVector::of(site, version),
        schemas: vec![TableSchema {
            name: "t".to_owned(),
            stamp,
            origin: SiteId::default(),
            options: String::new(),
            statements: vec![table.to_owned()],
        }],
        tables: vec![TableChanges {
            name: "t".to_owned(),
            key_columns: vec!["id".to_owned()],
            columns: vec!["a".to_owned(), "b".to_owned()],
            groups: vec![Group {
                causal_length: CausalLength::FIRST,
                kind: GroupKind::Cells,
                stamp,
                born: SiteId::default(),
                columns: vec![1],
                parents: vec![],
                values: vec![Value::Integer(1), Value::text("b")],
            }],
        }],
        ..Changeset::default()
    }
}

#[test]
fn a_default_that_a_peer_sends_runs_nothing_but_harmless_functions() {
    for default in [
        "harm()",
        "coalesce(NULL, HARM())",
        "load_extension('x')",
        "syncline_leave()",
        "zeroblob(1000000000)",
        "hex(randomblob(10000000))",
        "sqlite_version() || nowhere()",
    ] {
        let a = replica("", &[]);
        let flags = FunctionFlags::SQLITE_UTF8;
        let harm = |_: &rusqlite::functions::Context<'_>| -> rusqlite::Result<i64> {
            panic!("a peer's definition called the application's function")
        };
        a.conn
            .create_scalar_function("harm", 0, flags, harm)
            .expect("a function");
        let table = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, a DEFAULT ({default}), b)");
        let error = import_changeset(&a.conn, &bringing(&table), NOW).expect_err(default);
        let error = error.to_string();
        assert!(
            error.contains("the definition of `t` is refused"),
            "{error}"
        );
        assert_eq!(
            a.rows("SELECT name FROM sqlite_master WHERE name = 't'"),
            [""; 0]
        );
    }
    for (default, value) in [
        ("'it''s'", "it's"),
        ("-7", "-7"),
        ("(length(hex(randomblob(8))))", "16"),
        ("(upper('a') || (1 + 1))", "A2"),
        ("NULL", "∅"),
        ("(typeof(CURRENT_TIMESTAMP) IS strftime('%s', 'now'))", "0"),
    ] {
        let a = replica("", &[]);
        let table = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, a DEFAULT {default}, b)");
        import_changeset(&a.conn, &bringing(&table), NOW).expect(default);
        assert_eq!(a.rows("SELECT a FROM t"), [value], "{default}");
    }
}

#[test]
fn what_would_fold_inside_a_statement_that_writes_says_what_to_do() {
    let mut a = replica(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE outbox(changes)",
        &["t"],
    );
    a.run("INSERT INTO t VALUES(1, 'x')");
    for begin in ["", "BEGIN;"] {
        let pending = format!("{begin} UPDATE t SET a = a || 'y'");
        a.conn.execute_batch(&pending).expect("a write");
        let insert = "INSERT INTO outbox SELECT syncline_export()";
        let error = a.conn.execute_batch(insert).expect_err(insert).to_string();
        assert!(error.contains("in a SELECT of its own first"), "{error}");
        // Nothing is lost by it, and the advice helps.
        a.conn
            .execute_batch("SELECT syncline_export()")
            .expect("an export");
        a.conn.execute_batch(insert).expect(insert);
        if !begin.is_empty() {
            a.conn.execute_batch("COMMIT").expect("a commit");
        }
    }
    assert_eq!(a.rows("SELECT a FROM t"), ["xyy"]);
    let other = replica("", &[]);
    let last = "SELECT changes FROM outbox ORDER BY rowid DESC LIMIT 1";
    let last: Vec<u8> = a.conn.query_row(last, [], |row| row.get(0)).expect(last);
    let import = "SELECT syncline_import(?1)";
    let changed: i64 = other
        .conn
        .query_row(import, [last], |row| row.get(0))
        .expect(import);
    assert_eq!(changed, 1);
    assert_eq!(other.rows("SELECT a FROM t"), ["xyy"]);
}
