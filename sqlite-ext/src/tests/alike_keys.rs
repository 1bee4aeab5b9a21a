//! Keys that a collation calls equal and that are written apart: of such rows one is shown.

use super::*;
use crate::table::Table;

/// A table `p` keyed by a name whose spelling does not count, with and without rowids.
const SCHEMAS: [&str; 3] = [
    "CREATE TABLE p(name TEXT PRIMARY KEY COLLATE NOCASE, bio, age INTEGER)",
    "CREATE TABLE p(name TEXT COLLATE NOCASE PRIMARY KEY, bio, age INTEGER) WITHOUT ROWID",
    "CREATE TABLE p(name COLLATE NOCASE, bio, age INTEGER, realm TEXT DEFAULT 'r' COLLATE RTRIM,
        PRIMARY KEY(realm, name))",
];

const SHOWN: &str = "SELECT name, bio, age FROM p ORDER BY name";
const PARKED: &str = "SELECT key ->> 'name', constraint_name, winner ->> 'name'
    FROM syncline_conflicts";

fn pair(schema: &str) -> [Replica; 2] {
    let a = replica(schema, &["p"]);
    let mut b = replica("", &[]);
    b.pull(&a);
    [a, b]
}

/// Exchanges everything, and returns what both show.
#[track_caller]
fn settled(both: &mut [Replica; 2]) -> Vec<String> {
    converge(both);
    for replica in &*both {
        assert_eq!(replica.rows(SHOWN), both[0].rows(SHOWN));
        assert_eq!(replica.rows(PARKED), both[0].rows(PARKED));
        assert_eq!(replica.rows("PRAGMA integrity_check"), ["ok"]);
        assert_eq!(replica.rows("PRAGMA foreign_key_check"), [""; 0]);
    }
    both[0].rows(SHOWN)
}

#[test]
fn the_row_that_was_there_first_is_shown_and_stays_when_it_is_edited() {
    for schema in SCHEMAS {
        let mut both = pair(schema);
        both[0].run("INSERT INTO p(name, bio) VALUES('Bob', 'first')");
        both[1].now += 5_000;
        both[1].run("INSERT INTO p(name, bio) VALUES('bob', 'second'), ('Eve', 'else')");
        assert_eq!(settled(&mut both), ["Bob|first|∅", "Eve|else|∅"]);
        let [parked] = &both[0].rows(PARKED)[..] else {
            panic!("one row waits: {schema}");
        };
        assert!(
            parked.starts_with("bob|PRIMARY KEY (") && parked.ends_with("|Bob"),
            "{parked}"
        );
        both[0].now += 10_000;
        both[0].run("UPDATE p SET bio = 'edited' WHERE name = 'BOB'");
        assert_eq!(settled(&mut both), ["Bob|edited|∅", "Eve|else|∅"]);
        both[1].run("DELETE FROM p WHERE name = 'BOB'");
        assert_eq!(settled(&mut both), ["bob|second|∅", "Eve|else|∅"]);
        assert_eq!(both[0].rows(PARKED), [""; 0]);
    }
}

#[test]
fn another_spelling_is_another_key_of_the_same_row() {
    for schema in SCHEMAS {
        let mut both = pair(schema);
        both[0].run("INSERT INTO p(name, bio, age) VALUES('bob', 'of bob', 7), ('eve', 'e', 8)");
        settled(&mut both);
        both[0].run("UPDATE p SET name = 'Bob' WHERE name = 'bob'");
        assert_eq!(settled(&mut both), ["Bob|of bob|7", "eve|e|8"]);
        both[1].now = both[0].now + 10;
        both[1].run("REPLACE INTO p(name, bio) VALUES('EVE', 'replaced')");
        assert_eq!(settled(&mut both), ["Bob|of bob|7", "EVE|replaced|∅"]);
        let upsert = "INSERT INTO p(name, bio) VALUES('eve', 'up') ON CONFLICT DO UPDATE
            SET bio = excluded.bio";
        both[0].run(upsert);
        assert_eq!(settled(&mut both), ["Bob|of bob|7", "EVE|up|∅"]);
        assert_eq!(both[1].rows(PARKED), [""; 0]);
        both[1].run("DELETE FROM p WHERE name = 'eve'; INSERT INTO p(name) VALUES('Eve')");
        assert_eq!(settled(&mut both), ["Bob|of bob|7", "Eve|∅|∅"]);
    }
}

#[test]
fn a_row_may_refer_to_such_a_key_in_any_spelling() {
    let child = "CREATE TABLE c(id TEXT PRIMARY KEY, who REFERENCES p(name))";
    for schema in &SCHEMAS[..2] {
        let mut a = replica(&format!("{schema}; {child}"), &["p", "c"]);
        let mut b = replica("", &[]);
        a.run("INSERT INTO p(name) VALUES('Bob'), ('Eve')");
        b.pull(&a);
        let mut both = [a, b];
        both[0].run("INSERT INTO c VALUES('1', 'BOB'), ('2', 'eve')");
        both[1].run("DELETE FROM p WHERE name = 'bob'");
        settled(&mut both);
        assert_eq!(both[1].rows("SELECT * FROM c"), ["2|eve"]);
        both[1].now = both[0].now + 10;
        both[1].run("INSERT INTO p(name) VALUES('bOb')");
        settled(&mut both);
        assert_eq!(
            both[0].rows("SELECT * FROM c ORDER BY id"),
            ["1|BOB", "2|eve"]
        );
    }
}

#[test]
fn an_index_finds_the_row_of_a_key() {
    for schema in SCHEMAS {
        let replica = replica(schema, &["p"]);
        let table = Table::named(&replica.conn, "p")
            .expect("read")
            .expect("it is there");
        let find = format!(
            "EXPLAIN QUERY PLAN SELECT * FROM p WHERE {}",
            table.key_condition(1)
        );
        let plan = replica.rows(&find.replace("?1", "'x'").replace("?2", "'y'"));
        assert!(
            plan.iter().all(|step| step.contains("SEARCH p USING")),
            "{plan:?}"
        );
    }
}

#[test]
fn another_spelling_is_noticed_that_was_written_while_nobody_looked() {
    for schema in SCHEMAS {
        let mut both = pair(schema);
        both[0].run("INSERT INTO p(name, bio, age) VALUES('Bob', 'of bob', 7)");
        settled(&mut both);
        let a = &mut both[0];
        untrack(&a.conn, "p", a.now).expect("untracked");
        a.run("UPDATE p SET name = 'bob' WHERE name = 'Bob'");
        track(&a.conn, "p", &TableOptions::default(), a.now).expect("tracked");
        assert_eq!(settled(&mut both), ["bob|of bob|7"], "{schema}");
    }
}
