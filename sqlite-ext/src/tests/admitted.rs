//! Rows that a table does not admit, because an expression has no value for them, wait as those do
//! that break a CHECK; and what holds for some rows only is asked of those only.

use super::*;

/// Two replicas with one table, whose first row the second has.
fn pair(schema: &str, row: &str) -> [Replica; 2] {
    let mut a = replica(schema, &["t"]);
    let mut b = replica("", &[]);
    a.run(row);
    b.pull(&a);
    [a, b]
}

fn meet(mut all: [Replica; 2]) -> [Replica; 2] {
    for _ in 0..2 {
        let [a, b] = &mut all;
        a.pull(b);
        b.pull(a);
    }
    assert_eq!(all[0].digest(), all[1].digest());
    for replica in &all {
        assert_eq!(replica.rows("PRAGMA integrity_check"), ["ok"]);
    }
    all
}

/// A column that must not be NULL is empty until its cell is there, which no JSON function takes.
#[test]
fn rows_arrive_in_parts_below_expressions_that_need_them_whole() {
    let shapes = [
        "doc TEXT NOT NULL); CREATE INDEX i ON t(json_extract(doc, '$.a')",
        "doc TEXT NOT NULL); CREATE UNIQUE INDEX i ON t(json_extract(doc, '$.a')",
        "doc TEXT NOT NULL, made AS (json_extract(doc, '$.a')) STORED",
        "doc TEXT NOT NULL CHECK(json_extract(doc, '$.a') > 0)",
    ];
    for shape in shapes {
        let schema = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, n, {shape})");
        let mut a = replica(&schema, &["t"]);
        a.run(r#"INSERT INTO t VALUES(1, 5, '{"a":1}')"#);
        a.seen();
        a.run(r#"UPDATE t SET doc = '{"a":2}'"#);
        let mut b = replica("", &[]);
        b.pull(&a);
        assert_eq!(
            b.rows("SELECT id, n, doc FROM t"),
            [r#"1|5|{"a":2}"#],
            "{shape}"
        );
        assert_eq!(b.rows("SELECT * FROM syncline_conflicts"), [""; 0]);
        assert_eq!(b.digest(), a.digest());
    }
}

#[test]
fn what_two_wrote_together_waits_where_the_table_does_not_admit_it() {
    let cases = [
        (
            "x, y, made AS (coalesce(x, y)) STORED NOT NULL",
            "NULL",
            "the table does not admit it: NOT NULL constraint failed: t.made",
        ),
        (
            "x, y, CHECK(abs(ifnull(x, -9223372036854775807) + ifnull(y, -1)) >= 0)",
            "NULL",
            "the table does not admit it: integer overflow",
        ),
        (
            "x, y); CREATE INDEX i ON t(json_extract(CASE WHEN x + y > 8 THEN '{' ELSE 1 END, '$')",
            "5",
            "the table does not admit it: malformed JSON",
        ),
    ];
    for (shape, value, reason) in cases {
        let schema = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, {shape})");
        let [mut a, mut b] = pair(&schema, "INSERT INTO t(id, x, y) VALUES(1, 1, 1)");
        a.run(&format!("UPDATE t SET x = {value}"));
        b.run(&format!("UPDATE t SET y = {value}"));
        let mut all = meet([a, b]);
        for replica in &all {
            let waits = replica.rows("SELECT reason FROM syncline_conflicts");
            assert_eq!(waits, [reason], "{shape}");
            assert_eq!(replica.rows("SELECT id FROM t"), [""; 0], "{shape}");
        }
        // The cell that is written last makes it whole again.
        all[1].run("INSERT INTO t(id, x, y) VALUES(1, 2, 3)");
        for replica in meet(all) {
            assert_eq!(replica.rows("SELECT id, x, y FROM t"), ["1|2|3"], "{shape}");
            assert_eq!(replica.rows("SELECT * FROM syncline_conflicts"), [""; 0]);
        }
    }
}

#[test]
fn an_index_of_some_rows_says_nothing_of_others() {
    let index = "CREATE UNIQUE INDEX i ON t(json_extract(doc, '$.k')) WHERE json_valid(doc)";
    let schema = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, doc); {index}");
    let [mut a, mut b] = pair(&schema, "INSERT INTO t VALUES(1, 'plain')");
    a.run("INSERT INTO t VALUES(2, 'no JSON'); UPDATE t SET doc = 'none' WHERE id = 1");
    a.run(r#"INSERT INTO t VALUES(3, '{"k":1}')"#);
    b.run(r#"INSERT INTO t VALUES(4, '{"k":1}'), (5, '{"k":2}'), (6, '{')"#);
    b.run(r#"REPLACE INTO t VALUES(7, '{"k":2}')"#);
    for replica in meet([a, b]) {
        assert_eq!(
            replica.rows("SELECT id FROM t ORDER BY id"),
            ["1", "2", "4", "6", "7"]
        );
        assert_eq!(
            replica.rows("SELECT key FROM syncline_conflicts"),
            [r#"{"id":3}"#]
        );
    }
}

/// Where what is written is not what is shown, the writer's own table has to admit that, too.
#[test]
fn what_a_cell_comes_to_waits_where_it_was_written_as_well() {
    let cases = [
        (
            "m INTEGER, v, CHECK(m <> 5 OR v IS NULL)",
            "max",
            "5, NULL",
            "m = 3, v = 1",
        ),
        (
            "m TEXT CHECK(m LIKE '{ %'), v",
            "document",
            "'{ \"a\":1}', 1",
            "m = '{ \"a\":2}'",
        ),
    ];
    for (shape, policy, row, edit) in cases {
        let options = format!(r#"{{"columns":{{"m":"{policy}"}}}}"#);
        let options = TableOptions::parse(&options).expect("options");
        let schema = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, {shape})");
        let mut a = replica_of(&schema, &["t"], &options);
        let mut b = replica("", &[]);
        a.run(&format!("INSERT INTO t VALUES(1, {row})"));
        b.pull(&a);
        a.run(&format!("UPDATE t SET {edit}"));
        for replica in meet([a, b]) {
            assert_eq!(replica.rows("SELECT * FROM t"), [""; 0], "{policy}");
            let waits = "SELECT constraint_name LIKE 'CHECK%' FROM syncline_conflicts";
            assert_eq!(replica.rows(waits), ["1"], "{policy}");
        }
    }
}
