//! Rows that stood in a table on both sides before it was tracked.

use super::*;

/// Imports what another replica wrote itself.
fn pull_own(into: &mut Replica, from: &Replica) {
    let site = site_id(&from.conn).expect("a site");
    let after = into.seen().version(site);
    let own = export_own(&from.conn, after, u64::MAX).expect("export");
    into.now = into.now.max(from.now);
    let merged = own.map(|own| import_changeset(&into.conn, &own, into.now));
    merged.transpose().expect("import");
}

/// A replica that has a table untracked. One that is late wrote to another table after the others
/// had written what it has not heard of.
fn untracked(schema: &str, is_late: bool) -> Replica {
    let mut b = replica(
        &format!("{schema}; CREATE TABLE u(id INTEGER PRIMARY KEY)"),
        &[],
    );
    if is_late {
        b.now += 1_000;
        track(&b.conn, "u", &TableOptions::default(), b.now).expect("track");
        b.run("INSERT INTO u VALUES(1)");
    }
    b
}

const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

const SCHEMAS: [&str; 3] = [
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)",
    "CREATE TABLE t(id TEXT PRIMARY KEY, a, b)",
    "CREATE TABLE t(id TEXT PRIMARY KEY, a, b) WITHOUT ROWID",
];

#[test]
fn rows_on_both_sides_come_to_the_same_whichever_changeset_comes_first() {
    let theirs = "INSERT INTO t VALUES('1', 'same', 'same'), ('2', 'a', 'a'), ('3', 'a', 'a')";
    let ours = "INSERT INTO t VALUES('1', 'same', 'same'), ('2', 'b', 'b'), ('3', 'b', 'b'),
        ('4', 'b', 'b')";
    for schema in SCHEMAS {
        for (order, is_late) in ORDERS.iter().flat_map(|o| [(o, false), (o, true)]) {
            let mut others = vec![replica(&format!("{schema}; {theirs}"), &["t"])];
            for sql in [
                "UPDATE t SET a = 'c' WHERE id = '1'; DELETE FROM t WHERE id = '3'",
                "UPDATE t SET b = 'd' WHERE id = '2'; INSERT INTO t VALUES('5', 'd', 'd')",
            ] {
                let mut other = replica("", &[]);
                other.pull(&others[0]).run(sql);
                others.push(other);
            }
            let mut b = untracked(&format!("{schema}; {ours}"), is_late);
            order.iter().for_each(|at| pull_own(&mut b, &others[*at]));
            others.push(b);
            converge(&mut others);
            for replica in &others {
                let rows = replica.rows("SELECT * FROM t ORDER BY id");
                let expected = ["1|c|same", "2|a|d", "4|b|b", "5|d|d"];
                assert_eq!(rows, expected, "{schema} {order:?} {is_late}");
                assert_eq!(replica.digest(), others[0].digest());
            }
        }
    }
}

#[test]
fn a_copy_of_a_table_with_counted_ids_takes_no_edit_back() {
    let copy = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);
        INSERT INTO t VALUES(1, 'a', 'b'), (2, 'a', 'b'), (3, 'a', 'b')";
    for is_late in [false, true] {
        let mut a = replica_of(copy, &["t"], &with_ids(Ids::Counted));
        a.run("UPDATE t SET a = 'later' WHERE id = 1; DELETE FROM t WHERE id = 2");
        let mut b = untracked(copy, is_late);
        b.pull(&a);
        assert_eq!(b.rows("SELECT * FROM t"), ["1|later|b", "3|a|b"]);
        b.run("UPDATE t SET b = 'of b' WHERE id = 3");
        let mut both = [a, b];
        converge(&mut both);
        for replica in &both {
            assert_eq!(replica.rows("SELECT * FROM t"), ["1|later|b", "3|a|of b"]);
            assert_eq!(replica.digest(), both[0].digest());
        }
    }
}

#[test]
fn other_rows_with_counted_ids_are_told_although_they_move() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE)";
    for is_late in [false, true] {
        let theirs = format!("{schema}; INSERT INTO t VALUES(1, 'x'), (2, 'y'), (3, 'z')");
        let a = replica_of(&theirs, &["t"], &with_ids(Ids::Counted));
        let ours = format!("{schema}; INSERT INTO t VALUES(1, 'v'), (2, 'w'), (4, 'y')");
        let mut b = untracked(&ours, is_late);
        b.pull(&a);
        let mut both = [a, b];
        converge(&mut both);
        let mut c = replica("", &[]);
        c.pull(&both[1]);
        for replica in both.iter().chain([&c]) {
            assert_eq!(replica.digest(), both[0].digest());
            let names = replica.rows("SELECT name FROM t ORDER BY name");
            assert_eq!(names, ["v", "w", "x", "y", "z"]);
            assert_eq!(
                replica.rows("SELECT count(*) FROM syncline_conflicts"),
                ["1"]
            );
        }
    }
}

#[test]
fn a_row_that_waits_from_the_first_on_is_told_as_well() {
    for kind in ["", " WITHOUT ROWID"] {
        let schema = format!("CREATE TABLE t(id TEXT PRIMARY KEY, name TEXT UNIQUE){kind}");
        let a = replica(&format!("{schema}; INSERT INTO t VALUES('a', 'x')"), &["t"]);
        let mut b = untracked(
            &format!("{schema}; INSERT INTO t VALUES('b', 'x'), ('c', 'y')"),
            false,
        );
        b.pull(&a);
        let mut both = [a, b];
        converge(&mut both);
        for replica in &both {
            assert_eq!(replica.digest(), both[0].digest(), "{kind}");
            let waiting = "SELECT count(*) FROM syncline_conflicts";
            assert_eq!(replica.rows(waiting), ["1"], "{kind}");
        }
        let shown = both[0].rows("SELECT id FROM t WHERE name = 'x'");
        both[0].run(&format!("DELETE FROM t WHERE id = '{}'", shown[0]));
        converge(&mut both);
        let rest = if shown[0] == "a" { "b" } else { "a" };
        for replica in &both {
            let ids = replica.rows("SELECT id FROM t WHERE name = 'x'");
            assert_eq!(ids, [rest], "{kind}");
        }
    }
}

#[test]
fn counters_and_texts_of_a_copy_are_not_counted_again_however_many_rows_there_are() {
    let copy = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, body TEXT);
        WITH RECURSIVE c(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM c WHERE id < 20001)
        INSERT INTO t SELECT id, 1, iif(id % 10000 = 1, 'text', NULL) FROM c";
    let options = r#"{"columns":{"n":"counter","body":"text"}}"#;
    let options = TableOptions::parse(options).expect("options");
    let mut a = replica_of(copy, &["t"], &options);
    let mut b = untracked(copy, false);
    b.conn
        .execute_batch("INSERT INTO t VALUES(30000, 7, 'b')")
        .expect("insert");
    let mut c = replica("", &[]);
    for replica in [&mut b, &mut c] {
        let site = site_id(&a.conn).expect("a site");
        let (mut after, mut parts_count) = (Hlc::ZERO, 0);
        while let Some(own) = export_own(&a.conn, after, 20_000).expect("export") {
            after = own.until.version(site);
            parts_count += 1;
            import_changeset(&replica.conn, &own, a.now).expect("import");
        }
        assert_eq!(parts_count, 2);
    }
    a.pull(&b);
    c.pull(&b);
    let all = "SELECT count(*), sum(n), group_concat(body, ' ') FROM t";
    for replica in [&a, &b, &c] {
        assert_eq!(replica.rows(all), ["20002|20008|text text text b"]);
        assert_eq!(replica.digest(), a.digest());
    }
}
