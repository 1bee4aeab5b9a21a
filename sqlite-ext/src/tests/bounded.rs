//! Bounded counters as a user meets them: who may take how much, and how rights move.

mod granting;
mod hostile;

use syncline_crdt::Real;

use super::*;
use crate::grant::{CounterCell, RightsError, grant};

const BOUNDED: &str = r#"{"columns":{"n":{"bounded_counter":{"floor":0}}}}"#;

/// One key for a row in each of these tables: as it is written, and as a value.
fn kinds() -> [(&'static str, &'static str, Value); 7] {
    let real = Real::new(2.5).expect("no NaN");
    [
        (
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0)",
            "7",
            Value::Integer(7),
        ),
        (
            "CREATE TABLE t(id TEXT PRIMARY KEY, n INTEGER, other)",
            "'it''s ' || char(0)",
            Value::text("it's \u{0}"),
        ),
        (
            "CREATE TABLE t(id TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID",
            "'7'",
            Value::text("7"),
        ),
        (
            "CREATE TABLE t(id REAL PRIMARY KEY, n)",
            "2.5",
            Value::Real(real),
        ),
        (
            "CREATE TABLE t(id REAL PRIMARY KEY, n REAL) WITHOUT ROWID",
            "3.0",
            Value::Integer(3),
        ),
        (
            "CREATE TABLE t(id PRIMARY KEY, n)",
            "x'00ff'",
            Value::Blob(vec![0, 0xff]),
        ),
        (
            "CREATE TABLE t(id ANY PRIMARY KEY, n INTEGER NOT NULL) STRICT",
            "7.0",
            Value::Integer(7),
        ),
    ]
}

fn with(schema: &str, options: &str) -> Replica {
    let options = TableOptions::parse(options).expect("these are options");
    replica_of(schema, &["t"], &options)
}

/// Two replicas; the first one has a row with ten to take.
fn pair(schema: &str, key: &str) -> [Replica; 2] {
    let mut a = with(schema, BOUNDED);
    let mut b = replica("", &[]);
    a.run(&format!("INSERT INTO t(id, n) VALUES({key}, 10)"));
    b.pull(&a);
    meet(&mut a, &mut b);
    [a, b]
}

/// Has a replica know another one, which wrote nothing yet.
fn meet(replica: &mut Replica, other: &mut Replica) {
    let table = "CREATE TABLE met(id INTEGER PRIMARY KEY)";
    other.conn.execute_batch(table).expect(table);
    track(&other.conn, "met", &TableOptions::default(), other.now).expect("track");
    other.run("INSERT INTO met VALUES(1)");
    replica.pull(other);
}

fn site(replica: &Replica) -> SiteId {
    site_id(&replica.conn).expect("a site")
}

fn give(from: &mut Replica, key: &[Value], amount: i64, to: SiteId) -> Result<i64, RightsError> {
    from.now += 10;
    let counter = CounterCell {
        table: "t",
        key,
        column: "N",
    };
    grant(&from.conn, counter, (amount, to), from.now)
}

#[track_caller]
fn refused(replica: &Replica, sql: &str) -> String {
    let before = replica.rows("SELECT * FROM t");
    let error = replica.conn.execute_batch(sql).expect_err(sql).to_string();
    assert_eq!(replica.rows("SELECT * FROM t"), before);
    error
}

#[track_caller]
fn assert_all(replicas: &mut [Replica], select: &str, rows: &[&str]) {
    converge(replicas);
    for replica in &*replicas {
        assert_eq!(replica.rows(select), rows);
    }
}

const ONE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER NOT NULL)";
const VALUE: &str = "SELECT CAST(n AS INTEGER) FROM t";

#[test]
fn nobody_takes_more_than_was_granted_under_any_kind_of_key() {
    for (schema, key, value) in kinds() {
        let [mut a, mut b] = pair(schema, key);
        let error = refused(&b, "UPDATE t SET n = n - 1");
        assert!(error.contains("n: other replicas hold"), "{error}");
        assert!(error.contains("syncline_grant"), "{error}");
        let left = give(&mut a, std::slice::from_ref(&value), 4, site(&b));
        assert_eq!(left.expect("a has ten"), 6);
        b.pull(&a);
        // Several writes between two folds count together.
        b.conn
            .execute_batch("UPDATE t SET n = n - 1")
            .expect("b has four");
        refused(&b, "UPDATE t SET n = n - 4");
        b.run("UPDATE t SET n = n - 3");
        refused(&b, "UPDATE t SET n = n - 1");
        a.run("UPDATE t SET n = n - 5");
        refused(&a, "UPDATE t SET n = n - 2");
        a.run("UPDATE t SET n = n - 1");
        let mut both = [a, b];
        assert_all(&mut both, VALUE, &["0"]);
        let error = refused(&both[0], "UPDATE t SET n = -1");
        assert!(error.contains("n: it never goes below 0"), "{error}");
    }
}

#[test]
fn who_adds_may_take_as_much_and_others_may_not() {
    let [mut a, mut b] = pair(ONE, "1");
    b.conn
        .execute_batch("UPDATE t SET n = n + 5")
        .expect("all may add");
    refused(&b, "UPDATE t SET n = n - 6");
    b.run("UPDATE t SET n = n - 2");
    a.pull(&b);
    assert_eq!(a.rows(VALUE), ["13"]);
    refused(&a, "UPDATE t SET n = n - 11");
    a.run("UPDATE t SET n = n - 10");
    b.run("UPDATE t SET n = n - 3");
    assert_all(&mut [a, b], VALUE, &["0"]);
}

#[test]
fn what_may_be_taken_is_listed_and_stays_right_between_folds() {
    let schema = "CREATE TABLE t(id INTEGER, part BLOB, n, PRIMARY KEY(id, part))";
    let mut a = with(schema, BOUNDED);
    let list = "SELECT table_name, key, column_name, least, elsewhere FROM syncline_rights
        ORDER BY key";
    assert!(a.rows(list).is_empty());
    a.run("INSERT INTO t VALUES(1, x'00', 10), (2, x'', 3)");
    let mut b = replica("", &[]);
    b.pull(&a);
    meet(&mut a, &mut b);
    let key = [Value::Integer(1), Value::Blob(vec![0])];
    give(&mut a, &key, 4, site(&b)).expect("a has ten");
    b.pull(&a);
    let name = |replica: &Replica| site(replica).0.map(|byte| format!("{byte:02x}")).concat();
    let (first, second) = (r#"{"id":1,"part":"x'00'"}"#, r#"{"id":2,"part":"x''"}"#);
    let at_a = [
        format!("t|{first}|n|4|{{\"{}\":4}}", name(&b)),
        format!("t|{second}|n|0|{{}}"),
    ];
    let at_b = [
        format!("t|{first}|n|6|{{\"{}\":6}}", name(&a)),
        format!("t|{second}|n|3|{{\"{}\":3}}", name(&a)),
    ];
    assert_eq!((a.rows(list), b.rows(list)), (at_a.to_vec(), at_b.to_vec()));
    let left = "SELECT n - least FROM t, syncline_rights
        WHERE id = 1 AND json_extract(key, '$.id') = id";
    b.conn
        .execute_batch("UPDATE t SET n = n - 3 WHERE id = 1")
        .expect("b has four");
    assert_eq!(b.rows(left), ["1"]);
    b.run("UPDATE t SET n = n + 7 WHERE id = 1");
    assert_eq!(
        (b.rows(left), b.rows(list)),
        (vec!["8".to_owned()], at_b.to_vec())
    );
    let policies = a.rows("SELECT * FROM syncline_policies");
    assert_eq!(policies, [r#"t|n|{"bounded_counter":{"floor":0}}"#]);
}

#[test]
fn no_way_of_writing_takes_more_than_is_held_here() {
    for (schema, key, _) in kinds() {
        let [mut a, mut b] = pair(schema, key);
        for way in [
            "REPLACE INTO t(id, n) VALUES({key}, 9)",
            "INSERT INTO t(id, n) VALUES({key}, 1) ON CONFLICT DO UPDATE SET n = n - 1",
            "UPDATE OR IGNORE t SET n = 0",
            "UPDATE OR REPLACE t SET n = 9.0",
            "BEGIN; DELETE FROM t; INSERT INTO t(id, n) VALUES({key}, 9); COMMIT",
            "BEGIN; INSERT INTO t(id, n) VALUES(100, 1);
             UPDATE OR REPLACE t SET id = {key} WHERE id = 100; COMMIT",
            "BEGIN; DELETE FROM t; INSERT INTO t(id, n) VALUES(100, 1);
             UPDATE t SET id = {key}; COMMIT",
            "WITH new(n) AS (SELECT 9) UPDATE t SET n = new.n FROM new",
        ] {
            let sql = way.replace("{key}", key);
            b.conn.execute_batch(&sql).expect_err(&sql);
            if !b.conn.is_autocommit() {
                b.conn.execute_batch("ROLLBACK").expect("rollback");
            }
            assert_eq!(b.rows(VALUE), ["10"], "{sql} in {schema}");
        }
        b.run(&format!("REPLACE INTO t(id, n) VALUES({key}, 12)"));
        a.run("UPDATE t SET n = n - 10");
        b.run("UPDATE t SET n = n - 2");
        assert_all(&mut [a, b], VALUE, &["0"]);
    }
}

#[test]
fn a_row_that_is_replaced_by_nothing_keeps_its_value_and_its_rights() {
    let [mut a, mut b] = pair("CREATE TABLE t(id TEXT PRIMARY KEY, n INTEGER)", "1");
    b.conn
        .execute_batch("REPLACE INTO t VALUES(1, NULL)")
        .expect("NULL writes nothing");
    refused(&b, "UPDATE t SET n = 9");
    refused(&b, "UPDATE t SET n = 0");
    b.run("UPDATE t SET n = 11");
    b.run("REPLACE INTO t VALUES(1, NULL)");
    assert_eq!(b.rows(VALUE), ["11"]);
    a.run("UPDATE t SET n = n - 10");
    assert_all(&mut [a, b], VALUE, &["1"]);
}

#[test]
fn a_new_life_and_a_new_key_begin_with_rights_of_their_own() {
    for (schema, key, _) in kinds() {
        let [mut a, mut b] = pair(schema, key);
        b.run("DELETE FROM t");
        b.run(&format!("INSERT INTO t(id, n) VALUES({key}, 3)"));
        a.run("UPDATE t SET n = n - 9");
        let mut both = [a, b];
        assert_all(&mut both, VALUE, &["3"]);
        refused(&both[0], "UPDATE t SET n = 2");
        both[1].run("UPDATE t SET n = 2");
        // Who moves a row has all that it held.
        both[0].run("UPDATE t SET id = '100'");
        assert_all(&mut both, VALUE, &["3"]);
        refused(&both[1], "UPDATE t SET n = 2");
        both[0].run("UPDATE t SET n = 0");
        assert_all(&mut both, VALUE, &["0"]);
        let left = both[1].rows("SELECT count(*) FROM syncline_rights");
        assert_eq!(left, ["1"], "{schema}");
    }
}

#[test]
fn a_program_without_syncline_is_held_to_the_rights_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.db");
    let mut a = with(ONE, BOUNDED);
    a.run("INSERT INTO t VALUES(1, 10)");
    let mut b = replica("", &[]);
    b.conn = Connection::open(&path).expect("open");
    b.pull(&a);
    meet(&mut a, &mut b);
    give(&mut a, &[Value::Integer(1)], 4, site(&b)).expect("a has ten");
    b.pull(&a);
    let plain = Connection::open(&path).expect("open");
    plain
        .execute_batch("UPDATE t SET n = n - 1; UPDATE t SET n = n - 2")
        .expect("b has four");
    let error = plain
        .execute_batch("UPDATE t SET n = n - 2")
        .expect_err("b has one");
    assert!(error.to_string().contains("syncline_rights"), "{error}");
    let least = "SELECT n - least FROM t, syncline_rights";
    let left: i64 = plain
        .query_row(least, [], |row| row.get(0))
        .expect("the view");
    assert_eq!(left, 1);
    assert_all(&mut [a, b], VALUE, &["7"]);
}

#[test]
fn values_below_the_floor_are_not_taken_up() {
    let begin = |floor: &str, schema: &str| {
        let a = replica(schema, &[]);
        let options = BOUNDED.replace(":0}", &format!(":{floor}}}"));
        let options = TableOptions::parse(&options).expect("options");
        track(&a.conn, "t", &options, NOW).map(|_| a)
    };
    let with_rows = format!("{ONE}; INSERT INTO t VALUES(1, 5), (2, 7)");
    let error = begin("6", &with_rows)
        .err()
        .expect("5 is below 6")
        .to_string();
    assert!(error.contains("it holds less than its floor"), "{error}");
    let mut a = begin("5", &with_rows).expect("nothing is below 5");
    let mut b = replica("", &[]);
    b.pull(&a);
    refused(&a, "INSERT INTO t VALUES(3, 4)");
    a.run("UPDATE t SET n = 5");
    assert_all(&mut [a, b], "SELECT n FROM t", &["5", "5"]);
    let below = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER DEFAULT 4)";
    let error = begin("5", below)
        .err()
        .expect("the default is below")
        .to_string();
    assert!(error.contains("its default is below its floor"), "{error}");
    begin("4", below).expect("it is the floor");
    begin("-9223372036854775808", ONE).expect("any number is above it");
    let half = BOUNDED.replace(":0}", ":0.5}");
    TableOptions::parse(&half).expect_err("a floor is a whole number");
}

#[test]
fn a_row_of_which_the_value_has_not_arrived_shows_the_floor() {
    let options = BOUNDED.replace(":0}", ":3}");
    for (n, shown) in [
        ("INTEGER NOT NULL", "3"),
        ("INTEGER NOT NULL DEFAULT 9", "3"),
        ("DEFAULT 9", "∅"),
    ] {
        let schema = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, name, n {n})");
        let mut a = with(&schema, &options);
        let (mut b, mut c) = (replica("", &[]), replica("", &[]));
        b.pull(&a);
        c.pull(&a);
        a.run("INSERT INTO t VALUES(1, 'x', 10)");
        b.pull(&a);
        b.run("UPDATE t SET name = 'y'");
        let own = export_own(&b.conn, Hlc::ZERO, 50)
            .expect("export")
            .expect("b wrote");
        import_changeset(&c.conn, &own, b.now).expect("import");
        assert_eq!(c.rows("SELECT name, n FROM t"), [format!("y|{shown}")]);
        c.now = b.now;
        c.run("UPDATE t SET n = 5");
        assert_all(&mut [a, b, c], "SELECT name, n FROM t", &["y|12"]);
    }
}

#[test]
fn a_table_that_is_tracked_again_takes_no_more_than_it_may() {
    for (schema, key, value) in kinds() {
        let [mut a, mut b] = pair(schema, key);
        give(&mut a, &[value], 4, site(&b)).expect("a has ten");
        b.pull(&a);
        untrack(&b.conn, "t", b.now).expect("untrack");
        assert!(b.rows("SELECT * FROM syncline_rights").is_empty());
        b.run("UPDATE t SET n = 1");
        a.run("UPDATE t SET n = n - 6");
        let options = TableOptions::parse(BOUNDED).expect("options");
        track(&b.conn, "t", &options, b.now).expect("track");
        // Four of the nine were there to be taken.
        assert_eq!(b.rows(VALUE), ["6"]);
        refused(&b, "UPDATE t SET n = 5");
        // Also where nothing was written meanwhile.
        untrack(&b.conn, "t", b.now).expect("untrack");
        track(&b.conn, "t", &options, b.now).expect("track");
        refused(&b, "UPDATE t SET n = 5");
        assert_all(&mut [a, b], VALUE, &["0"]);
    }
}

#[test]
fn what_is_collected_leaves_the_rights() {
    let [mut a, b] = pair(ONE, "1");
    give(&mut a, &[Value::Integer(1)], 4, site(&b)).expect("a has ten");
    a.run("INSERT INTO t VALUES(2, 1)")
        .run("DELETE FROM t WHERE id = 2");
    let mut both = [a, b];
    converge(&mut both);
    let seen = both[1].seen();
    let digest = both[0].digest();
    let count = crate::collect(&both[0].conn, &[seen], both[0].now).expect("collect");
    assert_eq!((count, both[0].digest()), (1, digest));
    both[1].run("UPDATE t SET n = n - 4");
    refused(&both[1], "UPDATE t SET n = n - 1");
    let mut newcomer = replica("", &[]);
    newcomer.pull(&both[1]);
    refused(&newcomer, "UPDATE t SET n = n - 1");
    both[0].run("UPDATE t SET n = n - 6");
    let [a, b] = both;
    assert_all(&mut [a, b, newcomer], VALUE, &["0"]);
}

#[test]
fn a_parked_row_keeps_its_rights() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE, n INTEGER NOT NULL)";
    let mut a = with(schema, BOUNDED);
    let mut b = replica("", &[]);
    b.pull(&a);
    a.run("INSERT INTO t VALUES(1, 'x', 1)");
    b.now = a.now + 1;
    b.run("INSERT INTO t VALUES(2, 'x', 5)");
    a.pull(&b);
    assert_eq!(a.rows("SELECT id FROM t"), ["1"]);
    let two = [Value::Integer(2)];
    give(&mut a, &two, 1, site(&b)).expect_err("it is not shown");
    // A row that is written over it goes on with it.
    refused(&a, "INSERT INTO t VALUES(2, 'y', 4)");
    b.run("UPDATE t SET n = n - 2");
    a.run("INSERT INTO t VALUES(2, 'y', 6)");
    let mut both = [a, b];
    assert_all(&mut both, "SELECT * FROM t", &["1|x|1", "2|y|4"]);
    refused(&both[0], "UPDATE t SET n = 2 WHERE id = 2");
    both[0].run("UPDATE t SET n = 3 WHERE id = 2");
    both[1].run("UPDATE t SET n = 1 WHERE id = 2");
    assert_all(&mut both, "SELECT n FROM t WHERE id = 2", &["0"]);
}

#[test]
fn rights_follow_rows_whose_counted_ids_move() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, name, n INTEGER NOT NULL)";
    let options = BOUNDED.replace("}}}}", "}}},\"ids\":\"counted\"}");
    let a = with(schema, &options);
    let (mut a, mut b) = (a, replica("", &[]));
    b.pull(&a);
    a.run("INSERT INTO t(name, n) VALUES('a', 10)");
    b.run("INSERT INTO t(name, n) VALUES('b', 20)");
    let mut both = [a, b];
    let select = "SELECT name, n FROM t ORDER BY name";
    assert_all(&mut both, select, &["a|10", "b|20"]);
    refused(&both[0], "UPDATE t SET n = n - 1 WHERE name = 'b'");
    refused(&both[1], "UPDATE t SET n = n - 1 WHERE name = 'a'");
    both[0].run("UPDATE t SET n = n - 10 WHERE name = 'a'");
    both[1].run("UPDATE t SET n = n - 19 WHERE name = 'b'");
    assert_all(&mut both, select, &["a|0", "b|1"]);
    let ids = both[0].rows("SELECT id FROM t WHERE name = 'b'");
    let id: i64 = ids[0].parse().expect("a number");
    let to = site(&both[0]);
    give(&mut both[1], &[Value::Integer(id)], 1, to).expect("b has one");
    // The row whose number was taken gets it back, and its rights with it.
    both[1].run("DELETE FROM t WHERE name = 'a'");
    assert_all(&mut both, select, &["b|1"]);
    refused(&both[1], "UPDATE t SET n = 0");
    both[0].run("UPDATE t SET n = 0");
    assert_all(&mut both, "SELECT id, n FROM t", &["1|0"]);
}

#[test]
fn a_table_that_is_altered_keeps_its_rights() {
    for (schema, key, value) in kinds() {
        let [mut a, mut b] = pair(schema, key);
        give(&mut a, &[value], 4, site(&b)).expect("a has ten");
        b.pull(&a);
        b.run("ALTER TABLE t RENAME COLUMN id TO key");
        refused(&b, "UPDATE t SET n = n - 5");
        b.run("ALTER TABLE t RENAME COLUMN n TO stock");
        let error = refused(&b, "UPDATE t SET stock = stock - 5");
        assert!(error.contains("stock: other replicas"), "{error}");
        let listed = b.rows(
            "SELECT column_name, json_extract(key, '$.key') IS NULL, least FROM syncline_rights",
        );
        assert_eq!(listed, ["stock|0|6"]);
        b.run("ALTER TABLE t ADD COLUMN more TEXT; ALTER TABLE t RENAME TO item");
        b.conn
            .execute_batch("UPDATE item SET stock = stock - 5")
            .expect_err("it has four");
        b.run("UPDATE item SET stock = stock - 1");
        let copy = "CREATE TABLE new(key PRIMARY KEY, stock, more);
            INSERT INTO new SELECT key, stock, more FROM item; DROP TABLE item;
            ALTER TABLE new RENAME TO item";
        b.run(copy);
        b.conn
            .execute_batch("UPDATE item SET stock = stock - 4")
            .expect_err("it has three");
        b.run("UPDATE item SET stock = stock - 3");
        b.conn
            .execute_batch("UPDATE item SET stock = stock - 1")
            .expect_err("it has none");
        a.pull(&b);
        assert_eq!(a.rows(VALUE), ["6"], "{schema}");
    }
}

#[test]
fn a_bounded_counter_may_be_dropped_here_and_stays_elsewhere() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, n, other)";
    let mut a = with(schema, BOUNDED);
    a.run("INSERT INTO t VALUES(1, 2, 3)");
    let mut b = replica("", &[]);
    b.pull(&a);
    b.run("ALTER TABLE t DROP COLUMN n");
    b.run("INSERT INTO t VALUES(2, 4); UPDATE t SET other = 5");
    assert!(b.rows("SELECT * FROM syncline_rights").is_empty());
    a.pull(&b);
    assert_eq!(a.rows("SELECT id, other FROM t"), ["1|5", "2|5"]);
    assert_eq!(a.rows("SELECT n FROM t WHERE id = 1"), ["2"]);
}

#[test]
fn leaving_takes_the_rights_away() {
    let [mut a, mut b] = pair(ONE, "1");
    b.run("UPDATE t SET n = n + 1");
    a.pull(&b);
    leave(&a.conn).expect("leave");
    assert!(
        a.rows("SELECT name FROM sqlite_master WHERE name LIKE 'syncline%'")
            .is_empty()
    );
    a.conn
        .execute_batch("UPDATE t SET n = -5")
        .expect("it is an ordinary table");
}
