//! A table's options go with its columns when these are renamed or dropped.

use super::*;

fn tracked(schema: &str, options: &str) -> Replica {
    let a = replica(schema, &[]);
    let options = TableOptions::parse(options).expect("these are options");
    track(&a.conn, "t", &options, NOW).expect("the table is tracked");
    a
}

const COUNTER: &str = r#"{"columns":{"stock":"counter"}}"#;

#[test]
fn a_renamed_column_keeps_its_policy_on_all() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, stock INTEGER NOT NULL DEFAULT 0, z)";
    let mut a = tracked(schema, COUNTER);
    let [mut b, mut newcomer] = [replica("", &[]), replica("", &[])];
    a.run("INSERT INTO t VALUES(1, 1, 'z')");
    b.pull(&a);
    a.run("ALTER TABLE t RENAME COLUMN stock TO quantity; UPDATE t SET quantity = quantity + 1");
    b.run("UPDATE t SET stock = stock + 5");
    b.pull(&a);
    newcomer.pull(&a);
    a.pull(&b);
    assert_eq!(newcomer.pull(&b).rows("SELECT quantity FROM t"), ["7"]);
    assert_eq!(a.rows("SELECT quantity FROM t"), ["7"]);
    assert_eq!(b.rows("SELECT stock FROM t"), ["7"]);
    b.run("ALTER TABLE t RENAME COLUMN stock TO quantity; UPDATE t SET quantity = 8");
    converge(&mut [a, b, newcomer]);
}

#[test]
fn another_policy_under_another_name_is_another_policy() {
    let a = tracked(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, stock INTEGER)",
        COUNTER,
    );
    let other = r#"{"columns":{"quantity":"counter"}}"#;
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, quantity INTEGER)";
    let mut b = tracked(schema, other);
    let changes = export(&a.conn, &VersionVector::new(), a.now).expect("export");
    let error = import(&b.conn, &changes.encode(), b.now).expect_err("another policy");
    assert!(
        matches!(error, ImportError::OtherPolicies { .. }),
        "{error}"
    );
    b.run("ALTER TABLE t RENAME COLUMN quantity TO stock");
    b.pull(&a);
    converge(&mut [a, b]);
}

#[test]
fn a_column_with_a_policy_is_dropped_here_and_stays_elsewhere() {
    for policy in ["counter", "set", "text", "document", "max", "min"] {
        let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, stock ANY, z)";
        let schema = match policy {
            "counter" => schema.replace("ANY", "INTEGER"),
            "set" | "text" | "document" => schema.replace("ANY", "TEXT"),
            _ => schema.to_owned(),
        };
        let options = COUNTER.replace("counter", policy);
        let mut a = tracked(&schema, &options);
        let [mut b, mut newcomer] = [replica("", &[]), replica("", &[])];
        let value = match policy {
            "set" => "'[1]'",
            "document" => r#"'{"a":1}'"#,
            "text" => "'one'",
            _ => "1",
        };
        a.run(&format!("INSERT INTO t VALUES(1, {value}, 'z')"));
        b.pull(&a);
        a.run("ALTER TABLE t DROP COLUMN stock; INSERT INTO t VALUES(2, 'later')");
        b.pull(&a);
        let kept = format!("SELECT stock IS {value} FROM t WHERE id = 1");
        assert_eq!(b.rows(&kept), ["1"], "{policy}");
        // Who has the table from there has no such column either.
        newcomer.pull(&a);
        assert_eq!(newcomer.rows("SELECT * FROM t"), ["1|z", "2|later"]);
        a.pull(&b);
        newcomer.pull(&b);
        // It is the same column when it is there again.
        for replica in [&mut a, &mut newcomer] {
            let declared = if policy == "counter" {
                "INTEGER"
            } else {
                "TEXT"
            };
            replica.run(&format!("ALTER TABLE t ADD COLUMN stock {declared}"));
            let whole = export(&b.conn, &VersionVector::new(), b.now).expect("export");
            import_changeset(&replica.conn, &whole, b.now).expect("import");
            assert_eq!(replica.rows(&kept), ["1"], "{policy}");
        }
    }
}

#[test]
fn the_columns_of_a_foreign_key_are_renamed_in_its_policy() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, n);
        CREATE TABLE t(id INTEGER PRIMARY KEY, album INTEGER REFERENCES p(id), word)";
    let mut a = tracked(schema, r#"{"foreign_keys":{"album":"cascade"}}"#);
    track(&a.conn, "p", &TableOptions::default(), NOW).expect("the table is tracked");
    let mut b = replica("", &[]);
    a.run("INSERT INTO p VALUES(1, 'x'); INSERT INTO t VALUES(1, 1, 'y')");
    a.seen();
    a.run("ALTER TABLE t RENAME COLUMN album TO record");
    b.pull(&a);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|1|y"]);
    let told = "SELECT json_extract(syncline_status(), '$.tables.t.options.foreign_keys.record')";
    assert_eq!(b.rows(told), ["cascade"]);
    // A table that is rebuilt without the key still has the policy, which then says nothing.
    let mut c = replica("", &[]);
    a.run(
        "CREATE TABLE other(id INTEGER PRIMARY KEY, record INTEGER, word);
        INSERT INTO other SELECT * FROM t; DROP TABLE t; ALTER TABLE other RENAME TO t",
    );
    c.pull(&a);
    assert_eq!(c.rows("SELECT * FROM t"), ["1|1|y"]);
}
