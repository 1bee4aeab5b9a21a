//! What a user sees of foreign keys: they hold on every replica, and no row is lost to one.

use super::*;

pub(super) const CONFLICTS: &str =
    "SELECT table_name, key, row, constraint_name, reason, winner, since
    FROM syncline_conflicts ORDER BY table_name, key";
pub(super) const KEYS: &str = "SELECT table_name || key FROM syncline_conflicts ORDER BY 1";

/// A plain program's connection, which does not enforce foreign keys unless it is told to.
pub(super) const PLAIN: &str = "PRAGMA foreign_keys = OFF;";

/// Starts replicas from one that has run `start`.
pub(super) fn replicas<const COUNT: usize>(
    schema: &str,
    tables: &[&str],
    start: &str,
) -> [Replica; COUNT] {
    let mut first = replica(&format!("{PLAIN} {schema}"), tables);
    first.run(start);
    let mut all = Vec::new();
    for _ in 1..COUNT {
        let mut other = replica(PLAIN, &[]);
        other.pull(&first);
        other.now = first.now;
        all.push(other);
    }
    all.insert(0, first);
    all.try_into().ok().expect("as many as were made")
}

/// Exchanges everything, and checks that all replicas show the same and keep their constraints.
#[track_caller]
pub(super) fn settle(replicas: &mut [Replica], tables: &[&str]) {
    converge(replicas);
    for replica in &*replicas {
        for table in tables {
            let all = format!("SELECT * FROM {table} ORDER BY 1");
            assert_eq!(replica.rows(&all), replicas[0].rows(&all));
        }
        assert_eq!(replica.rows(CONFLICTS), replicas[0].rows(CONFLICTS));
        assert_eq!(replica.rows("PRAGMA foreign_key_check"), [""; 0]);
        assert_eq!(replica.rows("PRAGMA integrity_check"), ["ok"]);
        assert_eq!(replica.digest(), replicas[0].digest());
    }
}

impl Replica {
    /// Runs statements a second later.
    pub(super) fn later(&mut self, sql: &str) -> &mut Self {
        self.now += 1_000;
        self.run(sql)
    }
}

/// A parent `album` and a child `track` of each kind of key, whose ids are texts of digits.
pub(super) fn kinds(reference: &str) -> [(&'static str, String); 4] {
    let schema = |album: &str, track: &str, suffix: &str, index: &str| {
        format!(
            "CREATE TABLE album(id {album} PRIMARY KEY, name TEXT UNIQUE){suffix};
             CREATE TABLE track(id {track} PRIMARY KEY, album {album} {reference}, title TEXT)
             {suffix}; {index}"
        )
    };
    let index = "CREATE INDEX track_album ON track(album);";
    [
        ("integer", schema("INTEGER", "INTEGER", "", "")),
        ("indexed", schema("INTEGER", "INTEGER", "", index)),
        ("text", schema("TEXT", "TEXT", "", index)),
        (
            "without rowid",
            schema("TEXT", "TEXT", " WITHOUT ROWID", ""),
        ),
    ]
}

pub(super) const BOTH: [&str; 2] = ["album", "track"];

#[test]
fn a_row_whose_parent_was_deleted_waits_until_it_is_back() {
    for (kind, schema) in kinds("REFERENCES album(id)") {
        let start = "INSERT INTO album VALUES('1', 'one'), ('2', 'two')";
        let mut all: [Replica; 3] = replicas(&schema, &BOTH, start);
        let [a, b, c] = &mut all;
        a.later("DELETE FROM album WHERE id = '1'");
        b.later("INSERT INTO track VALUES('7', '1', 'song'), ('8', '2', 'other')");
        c.pull(b);
        assert_eq!(c.rows("SELECT title FROM track").len(), 2, "{kind}");
        settle(&mut all, &BOTH);
        assert_eq!(all[0].rows("SELECT title FROM track"), ["other"], "{kind}");
        let [listed] = &all[2].rows(CONFLICTS)[..] else {
            panic!("one row is parked: {kind}");
        };
        let id = |number: &str| match kind {
            "integer" | "indexed" => number.to_owned(),
            _ => format!("\"{number}\""),
        };
        let (one, seven) = (id("1"), id("7"));
        let expected = format!(
            "track|{{\"id\":{seven}}}|{{\"id\":{seven},\"album\":{one},\"title\":\"song\"}}|\
             FOREIGN KEY (album) REFERENCES album (id)|it refers to the row {{\"id\":{one}}} of \
             album, which is not there|∅|20"
        );
        assert!(listed.starts_with(&expected), "{kind}: {listed}");
        all[2].later("INSERT INTO album VALUES('1', 'again')");
        assert_eq!(all[2].rows("SELECT count(*) FROM track"), ["2"], "{kind}");
        settle(&mut all, &BOTH);
        assert_eq!(all[0].rows("SELECT count(*) FROM track"), ["2"], "{kind}");
        assert_eq!(all[1].rows(KEYS), [""; 0], "{kind}");
        // What a plain program does without enforcing foreign keys is held alike.
        all[1].later("DELETE FROM album");
        assert_eq!(all[1].rows("SELECT count(*) FROM track"), ["0"], "{kind}");
        settle(&mut all, &BOTH);
        assert_eq!(all[0].rows(KEYS).len(), 2, "{kind}");
    }
}

#[test]
fn a_parked_row_takes_edits_and_its_deletion() {
    for (kind, schema) in kinds("REFERENCES album(id)") {
        let start = "INSERT INTO album VALUES('1', 'one'), ('2', 'two');
            INSERT INTO track VALUES('7', '1', 'seven'), ('8', '1', 'eight'), ('9', '1', 'nine')";
        let mut all: [Replica; 3] = replicas(&schema, &BOTH, start);
        let [a, b, c] = &mut all;
        a.later("DELETE FROM album WHERE id = '1'");
        assert_eq!(a.rows(KEYS).len(), 3, "{kind}");
        b.later("UPDATE track SET title = 'edited' WHERE id = '7'");
        b.later("DELETE FROM track WHERE id = '8'");
        c.now = b.now;
        c.later("UPDATE track SET album = '2' WHERE id = '9'");
        a.pull(b).pull(c);
        assert_eq!(a.rows("SELECT id, title FROM track"), ["9|nine"], "{kind}");
        assert_eq!(a.rows(KEYS).len(), 1, "{kind}");
        assert!(a.rows(CONFLICTS)[0].contains("edited"), "{kind}");
        settle(&mut all, &BOTH);
        // The same key again writes the parked row over.
        all[0].later("INSERT INTO track VALUES('7', '2', 'new')");
        settle(&mut all, &BOTH);
        assert_eq!(
            all[1].rows("SELECT id, title FROM track ORDER BY id"),
            ["7|new", "9|nine"],
            "{kind}"
        );
        assert_eq!(all[2].rows(KEYS), [""; 0], "{kind}");
    }
}

#[test]
fn rows_that_refer_to_nothing_are_parked_where_they_are_written() {
    for (kind, schema) in kinds("REFERENCES album(id)") {
        let mut both: [Replica; 2] = replicas(&schema, &BOTH, "");
        both[0].later("INSERT INTO track VALUES('7', '1', 'song'), ('8', NULL, 'free')");
        assert_eq!(
            both[0].rows("SELECT id FROM track ORDER BY id"),
            ["8"],
            "{kind}"
        );
        settle(&mut both, &BOTH);
        both[1].later("INSERT INTO album VALUES('1', 'one')");
        settle(&mut both, &BOTH);
        assert_eq!(
            both[0].rows("SELECT id FROM track ORDER BY id"),
            ["7", "8"],
            "{kind}"
        );
        both[0].later("UPDATE track SET album = '5' WHERE id = '8'");
        assert_eq!(
            both[0].rows("SELECT id FROM track ORDER BY id"),
            ["7"],
            "{kind}"
        );
        // With the pragma on, SQLite refuses.
        both[1].run("PRAGMA foreign_keys = ON");
        let insert = "INSERT INTO track VALUES('9', '5', 'x')";
        both[1].conn.execute(insert, []).expect_err("no such album");
        settle(&mut both, &BOTH);
    }
}

#[test]
fn a_cascade_is_a_deletion_where_it_happens_and_hides_what_others_added() {
    for (kind, schema) in kinds("REFERENCES album(id) ON DELETE CASCADE ON UPDATE CASCADE") {
        let start =
            "INSERT INTO album VALUES('1', 'one'); INSERT INTO track VALUES('7', '1', 'song')";
        let mut both: [Replica; 2] = replicas(&schema, &BOTH, start);
        both[0]
            .run("PRAGMA foreign_keys = ON")
            .later("DELETE FROM album");
        both[1].later("INSERT INTO track VALUES('8', '1', 'late')");
        let [a, b] = &mut both;
        b.pull(a);
        assert_eq!(b.rows(KEYS).len(), 1, "{kind}");
        settle(&mut both, &BOTH);
        let [listed] = &both[0].rows(CONFLICTS)[..] else {
            panic!("the row that nobody deleted is listed: {kind}");
        };
        assert!(
            listed.contains("late") && listed.contains("it goes with"),
            "{listed}"
        );
        both[1].later("INSERT INTO album VALUES('1', 'one')");
        settle(&mut both, &BOTH);
        assert_eq!(both[0].rows("SELECT title FROM track"), ["late"], "{kind}");
        // A changed key is followed where it is changed.
        both[0].later("UPDATE album SET id = '3'");
        settle(&mut both, &BOTH);
        assert_eq!(both[1].rows("SELECT album FROM track"), ["3"], "{kind}");
    }
}

#[test]
fn a_tree_goes_and_comes_with_its_root() {
    for index in ["", "CREATE INDEX by_up ON node(up)"] {
        let schema =
            format!("CREATE TABLE node(id INTEGER PRIMARY KEY, up REFERENCES node(id)); {index}");
        let start = "INSERT INTO node VALUES(1, NULL), (2, 1), (3, 2), (9, NULL)";
        let mut both: [Replica; 2] = replicas(&schema, &["node"], start);
        both[0].later("DELETE FROM node WHERE id < 4");
        both[1].later("INSERT INTO node VALUES(4, 3), (5, 4), (6, 9)");
        settle(&mut both, &["node"]);
        assert_eq!(both[0].rows("SELECT id FROM node ORDER BY id"), ["6", "9"]);
        assert_eq!(both[0].rows(KEYS), ["node{\"id\":4}", "node{\"id\":5}"]);
        assert!(both[0].rows(CONFLICTS)[1].contains("which is parked itself"));
        both[1].later("INSERT INTO node VALUES(3, 9)");
        settle(&mut both, &["node"]);
        assert_eq!(
            both[0].rows("SELECT id FROM node ORDER BY id"),
            ["3", "4", "5", "6", "9"]
        );
        // Rows that refer to each other hold each other, and so does a row that refers to itself.
        both[0].later("UPDATE node SET up = 5 WHERE id = 3; INSERT INTO node VALUES(7, 7)");
        both[1].later("DELETE FROM node WHERE id = 9");
        settle(&mut both, &["node"]);
        assert_eq!(
            both[1].rows("SELECT id FROM node ORDER BY id"),
            ["3", "4", "5", "7"]
        );
        both[1].later("DELETE FROM node WHERE id = 4");
        settle(&mut both, &["node"]);
        assert_eq!(both[0].rows("SELECT id FROM node ORDER BY id"), ["7"]);
        both[0].later("INSERT INTO node VALUES(4, 3)");
        settle(&mut both, &["node"]);
        assert_eq!(
            both[1].rows("SELECT id FROM node ORDER BY id"),
            ["3", "4", "5", "7"]
        );
    }
}

#[test]
fn rows_that_hold_each_other_arrive_one_by_one() {
    let schema = "CREATE TABLE a(id INTEGER PRIMARY KEY, b REFERENCES b(id));
        CREATE TABLE b(id TEXT PRIMARY KEY, a INTEGER REFERENCES a(id)) WITHOUT ROWID;";
    let tables = ["a", "b"];
    let mut all: [Replica; 3] = replicas(schema, &tables, "");
    let [x, y, z] = &mut all;
    x.later("INSERT INTO a VALUES(1, 'one')");
    y.later("INSERT INTO b VALUES('one', 1)");
    z.pull(x);
    assert_eq!(z.rows("SELECT * FROM a"), [""; 0]);
    z.pull(y);
    assert_eq!(z.rows("SELECT * FROM a"), ["1|one"]);
    settle(&mut all, &tables);
    assert_eq!(all[0].rows("SELECT * FROM b"), ["one|1"]);
    all[2].later("DELETE FROM b");
    settle(&mut all, &tables);
    assert_eq!(all[1].rows(KEYS), ["a{\"id\":1}"]);
}

#[test]
fn composite_keys_of_any_order_and_type_are_compared_by_sqlite() {
    let schema =
        "CREATE TABLE p(a TEXT, b INTEGER, u COLLATE NOCASE, v, PRIMARY KEY(a, b), UNIQUE(v, u));
        CREATE TABLE c(id INTEGER PRIMARY KEY, x, y, FOREIGN KEY(x, y) REFERENCES p(b, a));
        CREATE TABLE d(id INTEGER PRIMARY KEY, x TEXT, y, FOREIGN KEY(x, y) REFERENCES p(u, v));";
    let tables = ["p", "c", "d"];
    let start = "INSERT INTO p VALUES('1', 2, 'U', 3)";
    let mut both: [Replica; 2] = replicas(schema, &tables, start);
    both[1].later("INSERT INTO c VALUES(1, '2', 1), (2, 2.0, '1'), (3, 3, NULL), (4, 1, 2)");
    both[1].later("INSERT INTO d VALUES(1, 'u', 3.0), (2, 'U', '3'), (3, NULL, 8)");
    settle(&mut both, &tables);
    assert_eq!(
        both[0].rows("SELECT id FROM c ORDER BY id"),
        ["1", "2", "3"]
    );
    assert_eq!(both[0].rows("SELECT id FROM d ORDER BY id"), ["1", "3"]);
    both[0].later("UPDATE p SET v = '3'");
    settle(&mut both, &tables);
    assert_eq!(both[1].rows("SELECT id FROM d ORDER BY id"), ["2", "3"]);
    both[0].later("DELETE FROM p");
    settle(&mut both, &tables);
    assert_eq!(both[1].rows("SELECT id FROM c ORDER BY id"), ["3"]);
    assert_eq!(both[1].rows("SELECT id FROM d ORDER BY id"), ["3"]);
    both[1].later("INSERT INTO p VALUES(1, '2', 'u', 3)");
    settle(&mut both, &tables);
    assert_eq!(
        both[0].rows("SELECT id FROM c ORDER BY id"),
        ["1", "2", "3"]
    );
    assert_eq!(both[0].rows("SELECT id FROM d ORDER BY id"), ["1", "3"]);
    assert_eq!(both[0].rows(KEYS).len(), 2);
}

#[test]
fn only_tracked_parents_count_and_the_order_of_tracking_does_not() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY);
        CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p, gone REFERENCES nowhere);
        INSERT INTO c VALUES(1, 7, 8)";
    let mut a = replica(&format!("{PLAIN} {schema}"), &["c"]);
    a.run("SELECT 1");
    assert_eq!(a.rows("SELECT id FROM c ORDER BY id"), ["1"]);
    a.run("UPDATE c SET gone = NULL");
    track(&a.conn, "p", &TableOptions::default(), a.now).expect("track");
    assert_eq!(a.rows("SELECT id FROM c ORDER BY id"), [""; 0]);
    let mut b = replica(PLAIN, &[]);
    b.pull(&a);
    let mut both = [a, b];
    settle(&mut both, &["c", "p"]);
    both[1].later("INSERT INTO p VALUES(7)");
    settle(&mut both, &["c", "p"]);
    assert_eq!(both[0].rows("SELECT id FROM c ORDER BY id"), ["1"]);
    both[0].later("DELETE FROM p");
    assert_eq!(both[0].rows("SELECT id FROM c ORDER BY id"), [""; 0]);
    let [a, _] = &mut both;
    untrack(&a.conn, "p", a.now).expect("untrack");
    assert_eq!(a.rows("SELECT id FROM c ORDER BY id"), ["1"]);
}

#[test]
fn who_loses_a_unique_value_takes_along_what_refers_to_it() {
    for (kind, schema) in kinds("REFERENCES album(id)") {
        let mut both: [Replica; 2] = replicas(&schema, &BOTH, "");
        both[0].later(
            "INSERT INTO album VALUES('1', 'same'); INSERT INTO track VALUES('7', '1', 'a')",
        );
        both[1].now = both[0].now + 5;
        both[1].later(
            "INSERT INTO album VALUES('2', 'same'); INSERT INTO track VALUES('8', '2', 'b')",
        );
        settle(&mut both, &BOTH);
        assert_eq!(
            both[0].rows("SELECT id FROM track ORDER BY id"),
            ["7"],
            "{kind}"
        );
        assert_eq!(both[0].rows(KEYS).len(), 2, "{kind}");
        both[0].later("UPDATE album SET name = 'other'");
        settle(&mut both, &BOTH);
        assert_eq!(
            both[1].rows("SELECT id FROM track ORDER BY id"),
            ["7", "8"],
            "{kind}"
        );
        assert_eq!(both[1].rows(KEYS), [""; 0], "{kind}");
    }
}

#[test]
fn a_row_without_its_parent_claims_nothing() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY);
        CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p, u UNIQUE);";
    let tables = ["p", "c"];
    let mut both: [Replica; 2] = replicas(schema, &tables, "INSERT INTO p VALUES(1), (2)");
    both[0].later("INSERT INTO c VALUES(1, 1, 'x')");
    both[1].now = both[0].now + 5;
    both[1].later("INSERT INTO c VALUES(2, 2, 'x'); DELETE FROM p WHERE id = 1");
    settle(&mut both, &tables);
    assert_eq!(both[0].rows("SELECT id FROM c ORDER BY id"), ["2"]);
    both[1].later("INSERT INTO p VALUES(1)");
    settle(&mut both, &tables);
    assert_eq!(both[0].rows("SELECT id FROM c ORDER BY id"), ["1"]);
    assert_eq!(both[0].rows(KEYS), ["c{\"id\":2}"]);
    both[0].later("DELETE FROM p");
    settle(&mut both, &tables);
    assert_eq!(both[1].rows(KEYS).len(), 2);
}

#[test]
fn in_a_tree_of_unique_names_what_loses_takes_its_branch_along() {
    let schema = "CREATE TABLE node(id INTEGER PRIMARY KEY, up REFERENCES node, name UNIQUE)";
    let mut both: [Replica; 2] = replicas(schema, &["node"], "");
    both[0].later("INSERT INTO node VALUES(1, NULL, 'root')");
    both[1].now = both[0].now + 5;
    both[1].later("INSERT INTO node VALUES(2, NULL, 'root'), (3, 2, 'leaf'), (4, 3, 'deep')");
    settle(&mut both, &["node"]);
    assert_eq!(both[0].rows("SELECT id FROM node ORDER BY id"), ["1"]);
    assert_eq!(both[0].rows(KEYS).len(), 3);
    both[0].later("UPDATE node SET name = 'first'");
    settle(&mut both, &["node"]);
    assert_eq!(
        both[1].rows("SELECT id FROM node ORDER BY id"),
        ["1", "2", "3", "4"]
    );
    both[1].later("DELETE FROM node WHERE id = 2");
    settle(&mut both, &["node"]);
    assert_eq!(both[0].rows("SELECT id FROM node ORDER BY id"), ["1"]);
}

#[test]
fn policies_are_chosen_when_a_table_is_tracked_and_travel() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY);
        CREATE TABLE c(id INTEGER PRIMARY KEY, p NOT NULL REFERENCES p);";
    let mut a = replica(&format!("{PLAIN} {schema}"), &["p"]);
    for (options, words) in [
        (r#"{"foreign_keys":{"q":"park"}}"#, "declares none"),
        (
            r#"{"foreign_keys":{"p":"set_null"}}"#,
            "cannot be set to NULL",
        ),
    ] {
        let options = TableOptions::parse(options).expect("options");
        let error = track(&a.conn, "c", &options, NOW)
            .expect_err(words)
            .to_string();
        assert!(error.contains(words), "{error}");
    }
    let cascade = TableOptions::parse(r#"{"foreign_keys":{"p":"cascade"}}"#).expect("options");
    track(&a.conn, "c", &cascade, NOW).expect("track");
    a.later("INSERT INTO c VALUES(1, 7)");
    let mut b = replica(PLAIN, &[]);
    b.pull(&a);
    let mut both = [a, b];
    settle(&mut both, &["c", "p"]);
    assert!(both[1].rows(CONFLICTS)[0].contains("it goes with the row {\"id\":7} of p"));
}

#[test]
fn many_rows_wait_and_come_together() {
    for (kind, schema) in kinds("REFERENCES album(id)") {
        let many = "INSERT INTO track SELECT value, value, 'x' FROM generate_series(1, 300)";
        let many = many.replace(
            "generate_series(1, 300)",
            "(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 300)
              SELECT value FROM n)",
        );
        let mut both: [Replica; 2] = replicas(&schema, &BOTH, "");
        both[0].later(&many);
        settle(&mut both, &BOTH);
        assert_eq!(both[1].rows(KEYS).len(), 300, "{kind}");
        let albums = many
            .replace("track", "album")
            .replace(", value, 'x'", ", value");
        both[1].later(&albums);
        settle(&mut both, &BOTH);
        assert_eq!(
            both[0].rows("SELECT count(*) FROM track"),
            ["300"],
            "{kind}"
        );
        both[0].later("DELETE FROM album WHERE id > '2'");
        settle(&mut both, &BOTH);
        let left = both[1].rows("SELECT count(*) FROM album");
        assert_eq!(both[1].rows("SELECT count(*) FROM track"), left, "{kind}");
    }
}
