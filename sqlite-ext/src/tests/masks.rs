//! What a user sees of keys that set NULL: the row stays, and the value comes back with its parent.

use super::families::families;
use super::foreign::{BOTH, CONFLICTS, KEYS, PLAIN, kinds, replicas, settle};
use super::*;

const STATES: &str = "SELECT table_name || key || row || state FROM syncline_conflicts ORDER BY 1";

#[test]
fn a_reference_shows_null_until_its_parent_is_back() {
    for (kind, schema) in kinds("REFERENCES album(id) ON DELETE SET NULL") {
        let start = "INSERT INTO album VALUES('1', 'one'), ('2', 'two');
            INSERT INTO track VALUES('7', '1', 'seven'), ('8', '2', 'eight')";
        let mut all: [Replica; 3] = replicas(&schema, &BOTH, start);
        all[0].later("DELETE FROM album WHERE id = '1'");
        all[1].later("INSERT INTO track VALUES('9', '1', 'nine'); UPDATE track SET title = 'x'");
        let tracks = "SELECT id, album, title FROM track ORDER BY id";
        settle(&mut all, &BOTH);
        assert_eq!(all[2].rows(tracks), ["7|∅|x", "8|2|x", "9|∅|x"], "{kind}");
        // Writing what is shown writes nothing, and other columns do not touch it.
        all[2].later("UPDATE track SET album = NULL WHERE id = '9'; UPDATE track SET title = 'y'");
        // A new replica has what is kept.
        let mut new = replica(PLAIN, &[]);
        new.pull(&all[2]);
        assert_eq!(new.rows(tracks), ["7|∅|y", "8|2|y", "9|∅|y"], "{kind}");
        new.now = all[2].now;
        new.later("INSERT INTO album VALUES('1', 'again')");
        all[0].now = new.now;
        all[0].later("UPDATE track SET album = '2' WHERE id = '7'");
        assert_eq!(all[0].rows(KEYS).len(), 1, "{kind}");
        all[0].pull(&new);
        settle(&mut all, &BOTH);
        assert_eq!(all[1].rows(tracks), ["7|2|y", "8|2|y", "9|1|y"], "{kind}");
        assert_eq!(all[1].rows(KEYS), [""; 0], "{kind}");
        // Where foreign keys are enforced, NULL is written.
        all[1]
            .run("PRAGMA foreign_keys = ON")
            .later("DELETE FROM album");
        all[1].later("INSERT INTO album VALUES('1', 'one')");
        settle(&mut all, &BOTH);
        assert_eq!(all[0].rows(tracks), ["7|∅|y", "8|∅|y", "9|∅|y"], "{kind}");
    }
}

#[test]
fn what_is_kept_is_listed_with_its_reason() {
    let [(_, schema), ..] = kinds("REFERENCES album(id) ON DELETE SET NULL");
    let mut both: [Replica; 2] = replicas(&schema, &BOTH, "");
    both[0].later("INSERT INTO track VALUES(7, 1, 'seven')");
    settle(&mut both, &BOTH);
    let [listed] = &both[1].rows(CONFLICTS)[..] else {
        panic!("one cell is masked");
    };
    let expected = "track|{\"id\":7}|{\"album\":1}|FOREIGN KEY (album) REFERENCES album (id)|\
         it refers to the row {\"id\":1} of album, which is not shown|∅|2026-";
    assert!(
        listed.starts_with(&expected[..expected.len() - 5]),
        "{listed}"
    );
    assert_eq!(
        both[0].rows("SELECT state FROM syncline_conflicts"),
        ["masked"]
    );
    // A deleted row keeps nothing, and neither does one that is written over or changes its key.
    both[0].later("DELETE FROM track");
    assert_eq!(both[0].rows(KEYS), [""; 0]);
    both[0].later("INSERT INTO track VALUES(7, 1, 'a'), (8, 1, 'b'), (9, 1, 'c')");
    both[0].later("REPLACE INTO track VALUES(7, NULL, 'a'); UPDATE track SET id = 5 WHERE id = 8");
    settle(&mut both, &BOTH);
    assert_eq!(both[1].rows(KEYS), ["track{\"id\":9}"]);
    both[1].later("DELETE FROM track; INSERT INTO album VALUES(1, 'one')");
    settle(&mut both, &BOTH);
    assert_eq!(both[0].rows("SELECT * FROM track"), [""; 0]);
}

#[test]
fn where_null_would_not_do_the_row_is_parked() {
    for track in [
        "id INTEGER PRIMARY KEY, album NOT NULL REFERENCES album(id) ON DELETE SET NULL",
        "id INTEGER, album REFERENCES album(id) ON DELETE SET NULL, PRIMARY KEY(id, album)",
        "id INTEGER PRIMARY KEY, album REFERENCES album(id) ON DELETE SET NULL, CHECK(album < 5)",
        "id INTEGER PRIMARY KEY, album REFERENCES album(id) ON DELETE SET NULL,
            next NOT NULL AS (album + 1)",
        "id INTEGER PRIMARY KEY, album REFERENCES album(id) ON DELETE SET NULL
            REFERENCES label(id)",
    ] {
        let schema = format!(
            "CREATE TABLE album(id INTEGER PRIMARY KEY); CREATE TABLE label(id INTEGER PRIMARY KEY);
             CREATE TABLE track({track})"
        );
        let tables = ["album", "label", "track"];
        let start = "INSERT INTO label VALUES(1)";
        let mut both: [Replica; 2] = replicas(&schema, &tables, start);
        both[0].later("INSERT INTO track(id, album) VALUES(7, 1)");
        settle(&mut both, &tables);
        assert_eq!(both[1].rows("SELECT * FROM track"), [""; 0], "{track}");
        let states = "SELECT state FROM syncline_conflicts";
        assert_eq!(both[1].rows(states), ["parked"], "{track}");
        both[1].later("INSERT INTO album VALUES(1)");
        settle(&mut both, &tables);
        assert_eq!(both[0].rows("SELECT album FROM track"), ["1"], "{track}");
    }
}

#[test]
fn where_an_index_gives_null_no_value_the_row_waits() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY);
        CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE SET NULL);
        CREATE INDEX i ON c(abs(CASE WHEN p IS NULL THEN -9223372036854775808 ELSE p END));
        CREATE TABLE d(id INTEGER PRIMARY KEY, c REFERENCES c)";
    let tables = ["p", "c", "d"];
    let start = "INSERT INTO p VALUES(1); INSERT INTO c VALUES(1, 1); INSERT INTO d VALUES(1, 1)";
    let mut both: [Replica; 2] = replicas(schema, &tables, start);
    both[0].later("DELETE FROM p");
    settle(&mut both, &tables);
    assert_eq!(
        both[1].rows("SELECT id FROM c UNION ALL SELECT id FROM d"),
        [""; 0]
    );
    assert_eq!(
        both[1].rows("SELECT state FROM syncline_conflicts"),
        ["parked", "parked"]
    );
    both[1].later("INSERT INTO p VALUES(1)");
    settle(&mut both, &tables);
    assert_eq!(both[0].rows("SELECT c.p, d.c FROM c JOIN d"), ["1|1"]);
    assert_eq!(both[0].rows(KEYS), [""; 0]);
}

#[test]
fn a_masked_value_claims_nothing() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY);
        CREATE TABLE c(id INTEGER PRIMARY KEY, p UNIQUE REFERENCES p ON DELETE SET NULL);
        CREATE TABLE d(id INTEGER PRIMARY KEY, c REFERENCES c(p))";
    let tables = ["p", "c", "d"];
    let mut both: [Replica; 2] = replicas(schema, &tables, "INSERT INTO p VALUES(1)");
    both[0].later("INSERT INTO c VALUES(1, 1); INSERT INTO d VALUES(1, 1)");
    both[1].now = both[0].now + 5;
    both[1].later("INSERT INTO c VALUES(2, 1)");
    settle(&mut both, &tables);
    assert_eq!(both[1].rows("SELECT * FROM c"), ["1|1"]);
    both[0].later("DELETE FROM p");
    settle(&mut both, &tables);
    assert_eq!(both[1].rows("SELECT * FROM c ORDER BY id"), ["1|∅", "2|∅"]);
    // What refers to it by the masked value waits.
    let states = [
        "c{\"id\":1}{\"p\":1}masked",
        "c{\"id\":2}{\"p\":1}masked",
        "d{\"id\":1}{\"id\":1,\"c\":1}parked",
    ];
    assert_eq!(both[1].rows(STATES), states);
    both[1].later("INSERT INTO p VALUES(1)");
    settle(&mut both, &tables);
    assert_eq!(both[0].rows("SELECT * FROM c"), ["1|1"]);
    assert_eq!(both[0].rows("SELECT * FROM d"), ["1|1"]);
}

#[test]
fn each_column_of_a_masked_reference_may_be_written() {
    for (key, suffix) in [("INTEGER", ""), ("TEXT", ""), ("TEXT", " WITHOUT ROWID")] {
        let schema = format!(
            "CREATE TABLE p(g, id, PRIMARY KEY(g, id));
             CREATE TABLE c(k {key} PRIMARY KEY, g, p, FOREIGN KEY(g, p) REFERENCES p
                ON DELETE SET NULL){suffix}"
        );
        let tables = ["p", "c"];
        let start = "INSERT INTO p VALUES(1, 1), (1, 2); INSERT INTO c VALUES('1', 1, 1)";
        let mut both: [Replica; 2] = replicas(&schema, &tables, start);
        both[0].later("DELETE FROM p WHERE id = 1");
        assert_eq!(both[0].rows("SELECT * FROM c"), ["1|∅|∅"], "{key}{suffix}");
        // The other half is kept, and with it the row refers to another one.
        both[0].later("UPDATE c SET p = 2");
        assert_eq!(both[0].rows("SELECT * FROM c"), ["1|1|2"], "{key}{suffix}");
        both[1].later("DELETE FROM p WHERE id = 2");
        settle(&mut both, &tables);
        assert_eq!(both[0].rows("SELECT * FROM c"), ["1|∅|∅"], "{key}{suffix}");
        both[0].later("UPDATE c SET g = 5, p = 6; UPDATE c SET g = NULL, p = NULL");
        both[1].later("INSERT INTO p VALUES(1, 1), (1, 2)");
        settle(&mut both, &tables);
        assert_eq!(both[1].rows("SELECT * FROM c"), ["1|∅|∅"], "{key}{suffix}");
        assert_eq!(both[1].rows(KEYS), [""; 0], "{key}{suffix}");
    }
}

#[test]
fn what_is_kept_outlives_a_rebuilt_table() {
    let kinds = kinds("REFERENCES album(id) ON DELETE SET NULL");
    for (kind, schema) in &kinds {
        for (other, rebuilt) in &kinds {
            let start =
                "INSERT INTO album VALUES('1', 'one'); INSERT INTO track VALUES('7', '1', 't')";
            let mut both: [Replica; 2] = replicas(schema, &BOTH, start);
            both[0].later("DELETE FROM album");
            settle(&mut both, &BOTH);
            let rebuild = format!(
                "CREATE TABLE old_album AS SELECT * FROM album; DROP TABLE album;
                 CREATE TABLE old_track AS SELECT * FROM track; DROP TABLE track; {rebuilt};
                 INSERT INTO album SELECT * FROM old_album; DROP TABLE old_album;
                 INSERT INTO track SELECT * FROM old_track; DROP TABLE old_track"
            );
            both.iter_mut().for_each(|replica| {
                replica.later(&rebuild);
            });
            settle(&mut both, &BOTH);
            assert_eq!(
                both[1].rows("SELECT album FROM track"),
                ["∅"],
                "{kind} -> {other}"
            );
            both[1].later("INSERT INTO album VALUES('1', 'two')");
            settle(&mut both, &BOTH);
            assert_eq!(
                both[0].rows("SELECT album FROM track"),
                ["1"],
                "{kind} -> {other}"
            );
        }
    }
}

#[test]
fn what_is_kept_outlives_an_untracked_table_and_is_listed_when_its_owner_leaves() {
    for (kind, schema) in kinds("REFERENCES album(id) ON DELETE SET NULL") {
        let start = "INSERT INTO album VALUES('1', 'one'), ('2', 'two');
            INSERT INTO track VALUES('7', '1', 'a'), ('8', '1', 'b'), ('9', '1', 'c')";
        let mut both: [Replica; 2] = replicas(&schema, &BOTH, start);
        both[0].later("DELETE FROM album WHERE id = '1'");
        settle(&mut both, &BOTH);
        let [a, b] = &mut both;
        untrack(&b.conn, "track", b.now).expect("untrack");
        let shown = "SELECT id, album FROM track ORDER BY id";
        assert_eq!(b.rows(shown), ["7|∅", "8|∅", "9|∅"], "{kind}");
        assert_eq!(b.rows(KEYS).len(), 3, "{kind}");
        b.run("UPDATE track SET album = '2' WHERE id = '8'; DELETE FROM track WHERE id = '9'");
        a.later("INSERT INTO album VALUES('1', 'three')");
        b.pull(a);
        b.now = a.now + 10;
        track(&b.conn, "track", &TableOptions::default(), b.now).expect("track");
        assert_eq!(b.rows(shown), ["7|1", "8|2"], "{kind}");
        settle(&mut both, &BOTH);
        both[0].later("DELETE FROM album");
        settle(&mut both, &BOTH);
        assert_eq!(both[1].rows(KEYS).len(), 2, "{kind}");
        let [a, _] = &mut both;
        // A parent that nobody tracks here is this device's own affair.
        untrack(&a.conn, "album", a.now).expect("untrack");
        assert_eq!(a.rows(shown), ["7|1", "8|2"], "{kind}");
        let album = TableOptions::default();
        track(&a.conn, "album", &album, a.now + 10).expect("track");
        assert_eq!(a.rows(shown), ["7|∅", "8|∅"], "{kind}");
        leave(&a.conn).expect("leave");
        assert_eq!(a.rows(shown), ["7|∅", "8|∅"], "{kind}");
        let left = "SELECT json_extract(key, '$.id') || json_extract(row, '$.album') || state
            FROM syncline_left_behind ORDER BY 1";
        assert_eq!(a.rows(left), ["71masked", "82masked"], "{kind}");
    }
}

#[test]
fn what_is_kept_goes_with_a_column_that_is_dropped() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY);
        CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE SET NULL, note)";
    let mut both: [Replica; 2] = replicas(schema, &["p", "c"], "INSERT INTO c VALUES(1, 5, 'x')");
    both[0].later("SELECT 1");
    settle(&mut both, &["p", "c"]);
    assert_eq!(both[0].rows(STATES), ["c{\"id\":1}{\"p\":5}masked"]);
    both[0].later(
        "CREATE TABLE made(id INTEGER PRIMARY KEY, note); INSERT INTO made SELECT id, note FROM c;
         DROP TABLE c; ALTER TABLE made RENAME TO c",
    );
    assert_eq!(both[0].rows(STATES), [""; 0]);
    let [a, b] = &mut both;
    b.pull(a).later("INSERT INTO p VALUES(5)");
    assert_eq!(b.rows("SELECT * FROM c"), ["1|5|x"]);
    a.pull(b);
    assert_eq!(a.rows("SELECT * FROM c"), ["1|x"]);
}

#[test]
fn what_is_kept_follows_a_row_whose_id_was_counted() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, tag);
        CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p ON DELETE SET NULL, tag)";
    let tables = ["c", "p"];
    let mut all = families(schema, &tables, 3);
    all[0].later("INSERT INTO p VALUES(5, 'a'); INSERT INTO c VALUES(1, 5, 'first')");
    converge(&mut all);
    all[1].later("INSERT INTO c VALUES(2, 5, 'second')");
    all[2].later("INSERT INTO c VALUES(2, 5, 'third'); DELETE FROM p");
    settle(&mut all, &tables);
    let shown = "SELECT tag, p FROM c ORDER BY tag";
    assert_eq!(all[0].rows(shown), ["first|∅", "second|∅", "third|∅"]);
    // Another device's row of that number is another row.
    all[2].later("INSERT INTO p VALUES(5, 'another')");
    settle(&mut all, &tables);
    assert_eq!(all[1].rows(shown), ["first|∅", "second|∅", "third|∅"]);
    // The rows that keep it move, too.
    all[1].later("DELETE FROM c WHERE id = 2");
    settle(&mut all, &tables);
    assert_eq!(all[1].rows("SELECT count(*) FROM c WHERE id = 2"), ["1"]);
    assert_eq!(all[1].rows(KEYS).len(), 2);
    all[2].later("DELETE FROM p");
    settle(&mut all, &tables);
    all[0].later("INSERT INTO p VALUES(5, 'a again')");
    settle(&mut all, &tables);
    let shown = "SELECT c.id, c.p, p.tag FROM c JOIN p ON p.id = c.p ORDER BY 1";
    assert_eq!(all[2].rows(shown), ["1|5|a again", "2|5|a again"]);
    assert_eq!(all[2].rows(KEYS), [""; 0]);
}

#[test]
fn of_two_values_that_were_written_at_once_the_greater_is_kept() {
    let [(_, schema), ..] = kinds("REFERENCES album(id) ON DELETE SET NULL");
    let start = "INSERT INTO track VALUES(7, NULL, 'seven')";
    let mut both: [Replica; 2] = replicas(&schema, &BOTH, start);
    both[0].later("UPDATE track SET album = 5");
    both[1].later("UPDATE track SET album = 3");
    settle(&mut both, &BOTH);
    assert_eq!(both[1].rows(STATES), ["track{\"id\":7}{\"album\":5}masked"]);
    both[1].later("INSERT INTO album VALUES(3, 'three'), (5, 'five')");
    settle(&mut both, &BOTH);
    assert_eq!(both[0].rows("SELECT album FROM track"), ["5"]);
}

#[test]
fn in_a_tree_a_branch_is_cut_off_while_its_root_is_parked() {
    let schema = "CREATE TABLE n(id INTEGER PRIMARY KEY, up REFERENCES n, k UNIQUE)";
    let mut first = replica(&format!("{PLAIN} {schema}"), &[]);
    let options = TableOptions::parse(r#"{"foreign_keys":{"up":"set_null"}}"#).expect("options");
    track(&first.conn, "n", &options, NOW).expect("track");
    first.run("SELECT 1");
    let mut second = replica(PLAIN, &[]);
    second.pull(&first);
    let mut both = [first, second];
    both[0].later("INSERT INTO n VALUES(1, NULL, 'x')");
    both[1].now = both[0].now + 5;
    both[1].later("INSERT INTO n VALUES(2, NULL, 'x'), (3, 2, 'leaf')");
    settle(&mut both, &["n"]);
    assert_eq!(
        both[0].rows("SELECT * FROM n ORDER BY id"),
        ["1|∅|x", "3|∅|leaf"]
    );
    both[0].later("UPDATE n SET k = 'y' WHERE id = 1");
    settle(&mut both, &["n"]);
    assert_eq!(
        both[1].rows("SELECT * FROM n ORDER BY id"),
        ["1|∅|y", "2|∅|x", "3|2|leaf"]
    );
}

#[test]
fn what_refers_to_a_row_that_waits_for_a_mask_claims_nothing() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY);
        CREATE TABLE n(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE SET NULL,
            up REFERENCES n, k UNIQUE);
        CREATE INDEX i ON n(abs(CASE WHEN p IS NULL THEN -9223372036854775808 ELSE p END));";
    let tables = ["p", "n"];
    let start = "INSERT INTO p VALUES(1), (2);
        INSERT INTO n VALUES(1, 1, NULL, 'root'), (2, 2, 1, 'x')";
    let mut both: [Replica; 2] = replicas(schema, &tables, start);
    // Row 3 comes later to a value that row 2 has.
    both[1].later("UPDATE n SET k = NULL WHERE id = 2");
    both[1].later("INSERT INTO n VALUES(3, 2, NULL, 'y')");
    settle(&mut both, &tables);
    both[0].later("UPDATE n SET k = 'y' WHERE id = 3; UPDATE n SET k = 'z' WHERE id = 2");
    both[1].now = both[0].now + 5;
    both[1].later("UPDATE n SET k = 'z' WHERE id = 3");
    settle(&mut both, &tables);
    assert_eq!(both[0].rows("SELECT id FROM n ORDER BY id"), ["1", "2"]);
    both[0].later("DELETE FROM p WHERE id = 1");
    settle(&mut both, &tables);
    assert_eq!(both[0].rows("SELECT id FROM n ORDER BY id"), ["3"]);
}
