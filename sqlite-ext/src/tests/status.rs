//! What a replica says of itself follows what is done, and to ask changes nothing.

use super::content::content;
use super::*;

fn said(replica: &Replica) -> serde_json::Value {
    let text = replica.rows("SELECT syncline_status()").concat();
    let said: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let status = status(&replica.conn).expect("status");
    assert_eq!(said, serde_json::to_value(status).expect("it is JSON"));
    said
}

#[test]
fn a_database_without_tables_says_so() {
    let plain = Connection::open_in_memory().expect("SQLite opens in memory");
    register(&plain).expect("the functions are added");
    let before = content(&plain);
    let status = status(&plain).expect("status");
    assert_eq!((status.site_id, status.tables.len()), (None, 0));
    let text = "SELECT json_extract(syncline_status(), '$.version') = syncline_version()";
    let is_same: bool = plain.query_row(text, [], |row| row.get(0)).expect(text);
    assert!(is_same);
    assert_eq!(content(&plain), before);
}

#[test]
fn options_and_what_waits_are_told() {
    let counter = r#"{"columns":{"stock":"counter"},"ids":"counted"}"#;
    let schema = "CREATE TABLE item(id INTEGER PRIMARY KEY, stock INTEGER);
        CREATE TABLE name(id TEXT PRIMARY KEY, word TEXT)";
    let mut a = replica(schema, &["name"]);
    let options = TableOptions::parse(counter).expect("they are options");
    track(&a.conn, "item", &options, a.now).expect("it is tracked");
    let site = a.rows("SELECT lower(hex(syncline_site_id()))").concat();
    let mut b = replica("", &[]);
    b.pull(&a);
    for replica in [&a, &b] {
        let item = &said(replica)["tables"]["item"];
        assert_eq!(item["options"]["columns"]["stock"], "counter", "{item}");
        assert_eq!(item["options"]["ids"], "counted", "{item}");
    }
    assert_eq!(said(&a)["site_id"], site);
    let writes = "INSERT INTO name VALUES('x', 'one'), ('y', 'two');
        INSERT INTO item VALUES(1, 5), (2, 5)";
    a.conn.execute_batch(writes).expect(writes);
    b.run("CREATE UNIQUE INDEX one ON name(word); INSERT INTO name VALUES('z', 'one')");
    let (before, told) = (content(&a.conn), said(&a));
    assert_eq!(content(&a.conn), before);
    assert_eq!(told["tables"]["item"]["unfolded"], 2, "{told}");
    assert_eq!(told["tables"]["name"]["unfolded"], 2, "{told}");
    b.pull(&a);
    a.pull(&b);
    assert_eq!(said(&b)["tables"]["name"]["conflicts"], 1, "{}", said(&b));
    for table in ["item", "name"] {
        assert_eq!(said(&a)["tables"][table]["unfolded"], 0, "{}", said(&a));
    }
    assert_eq!(said(&a)["tables"]["name"]["aside"], serde_json::Value::Null);
}

#[test]
fn what_waits_for_a_column_and_what_stands_aside_is_told() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY)", &["t"]);
    let mut b = replica("", &[]);
    b.pull(&a);
    a.run("ALTER TABLE t ADD COLUMN late; INSERT INTO t VALUES(1, 'x')");
    b.pull(&a);
    assert_eq!(said(&b)["waiting"]["t"], 1, "{}", said(&b));
    b.run("ALTER TABLE t ADD COLUMN late").pull(&a);
    assert_eq!(said(&b)["waiting"], serde_json::json!({}), "{}", said(&b));
    b.run("DROP TABLE t; CREATE TABLE t(id TEXT PRIMARY KEY, rowid, oid, _rowid_)");
    let told = said(&b);
    assert!(told["tables"]["t"]["aside"].is_string(), "{told}");
    untrack(&a.conn, "t", a.now).expect("it is untracked");
    assert_eq!(said(&a)["tables"], serde_json::json!({}));
}
