//! What a user sees of CHECK constraints: a row that several devices made together may break one;
//! then it waits, everywhere, and is not lost.

use rusqlite::functions::FunctionFlags;

use super::*;

const SPANS: [&str; 3] = [
    "CREATE TABLE p(id INTEGER PRIMARY KEY, low INTEGER, high INTEGER, name TEXT UNIQUE,
        CHECK(low <= high))",
    "CREATE TABLE p(id TEXT PRIMARY KEY, low INTEGER, high INTEGER, name TEXT UNIQUE,
        CONSTRAINT \"in order\" CHECK(low <= high))",
    "CREATE TABLE p(id TEXT PRIMARY KEY, low INTEGER, high INTEGER, name TEXT UNIQUE,
        CHECK(low <= high)) WITHOUT ROWID",
];

const CONFLICTS: &str = "SELECT constraint_name, reason, winner, row FROM syncline_conflicts
    ORDER BY table_name, key";

/// Two replicas of a schema with one row.
fn pair(schema: &str) -> [Replica; 2] {
    let mut first = replica(schema, &["p"]);
    first.run("INSERT INTO p VALUES(1, 3, 10, 'a')");
    let mut second = replica("", &[]);
    second.pull(&first);
    [first, second]
}

#[track_caller]
fn settle(replicas: &mut [Replica]) {
    converge(replicas);
    for replica in &*replicas {
        assert_eq!(
            replica.rows("SELECT * FROM p ORDER BY id"),
            replicas[0].rows("SELECT * FROM p ORDER BY id")
        );
        assert_eq!(replica.rows(CONFLICTS), replicas[0].rows(CONFLICTS));
        assert_eq!(replica.rows("PRAGMA integrity_check"), ["ok"]);
    }
}

#[test]
fn a_row_that_two_devices_broke_together_waits_until_it_holds() {
    for schema in SPANS {
        let mut both = pair(schema);
        both[0].run("UPDATE p SET low = 6");
        both[1].run("UPDATE p SET high = 4");
        settle(&mut both);
        assert!(both[0].rows("SELECT * FROM p").is_empty(), "{schema}");
        let listed = both[0].rows(CONFLICTS);
        assert_eq!(listed.len(), 1, "{schema}");
        let name = if schema.contains("in order") {
            "CHECK (in order)|"
        } else {
            "CHECK (low <= high)|"
        };
        assert!(listed[0].starts_with(name), "{listed:?}");
        assert!(listed[0].contains("\"low\":6,\"high\":4"), "{listed:?}");

        // Written anew by its key, and edited by a device that had not seen the clash.
        both[1].run("INSERT INTO p VALUES(1, 5, 7, 'a')");
        settle(&mut both);
        assert_eq!(both[0].rows("SELECT * FROM p"), ["1|5|7|a"], "{schema}");
        assert!(both[0].rows(CONFLICTS).is_empty(), "{schema}");
    }
}

#[test]
fn an_edit_from_elsewhere_brings_it_back() {
    for schema in SPANS {
        let [first, second] = pair(schema);
        let mut third = replica("", &[]);
        third.pull(&first);
        let mut all = [first, second, third];
        all[0].run("UPDATE p SET low = 6");
        all[1].run("UPDATE p SET high = 4");
        all[2].now += 1_000;
        all[2].run("UPDATE p SET high = 9");
        let (first, rest) = all.split_at_mut(1);
        first[0].pull(&rest[0]);
        assert!(first[0].rows("SELECT * FROM p").is_empty(), "{schema}");
        settle(&mut all);
        assert_eq!(all[1].rows("SELECT * FROM p"), ["1|6|9|a"], "{schema}");
    }
}

#[test]
fn a_row_that_waits_holds_no_unique_value() {
    for schema in SPANS {
        let mut both = pair(schema);
        both[0].run("UPDATE p SET low = 6");
        both[1].run("UPDATE p SET high = 4");
        settle(&mut both);
        both[0].run("INSERT INTO p VALUES(2, 0, 0, 'a')");
        settle(&mut both);
        assert_eq!(both[1].rows("SELECT * FROM p"), ["2|0|0|a"], "{schema}");
        // The row that comes back claimed the value first.
        both[1].run("DELETE FROM p WHERE id = 2; INSERT INTO p VALUES(1, 1, 2, 'b')");
        settle(&mut both);
        assert_eq!(both[0].rows("SELECT * FROM p"), ["1|1|2|b"], "{schema}");
    }
}

#[test]
fn cells_that_arrive_one_by_one_do_not_lose_the_row() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, low INTEGER NOT NULL CHECK(low > 0),
        high INTEGER NOT NULL CHECK(high > low), name TEXT NOT NULL CHECK(length(name) > 0))";
    let mut both = pair(schema);
    for sql in [
        "INSERT INTO p VALUES(2, 1, 2, 'b')",
        "UPDATE p SET high = 20 WHERE id = 2",
        "UPDATE p SET name = 'B' WHERE id = 2",
    ] {
        both[0].run(sql);
    }
    settle(&mut both);
    assert_eq!(both[1].rows("SELECT * FROM p WHERE id = 2"), ["2|1|20|B"]);
    // The connection of an application that ignores CHECKs keeps its setting.
    let ignores = "PRAGMA ignore_check_constraints";
    both[1].run("PRAGMA ignore_check_constraints = ON");
    both[0].run("UPDATE p SET low = 6 WHERE id = 1");
    both[1].run("UPDATE p SET high = 5 WHERE id = 1");
    settle(&mut both);
    assert_eq!(both[1].rows(ignores), ["1"]);
    assert_eq!(both[1].rows("SELECT id FROM p"), ["2"]);
    // A value that breaks it is still refused where it is written.
    let refused = both[0]
        .conn
        .execute("UPDATE p SET high = 0 WHERE id = 2", []);
    assert!(refused.is_err_and(|error| error.to_string().contains("high > low")));
}

#[test]
fn a_check_that_only_the_application_can_evaluate_is_refused() {
    let mut replica = replica("", &[]);
    let is_even = |context: &rusqlite::functions::Context<'_>| Ok(context.get::<i64>(0)? % 2 == 0);
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    replica
        .conn
        .create_scalar_function("is_even", 1, flags, is_even)
        .expect("a function");
    replica.run("CREATE TABLE p(id INTEGER PRIMARY KEY, n CHECK(is_even(n)))");
    let refused = track(&replica.conn, "p", &TableOptions::default(), NOW)
        .expect_err("nobody else can evaluate it");
    assert!(
        refused.to_string().contains("no such function: is_even"),
        "{refused}"
    );
}
