//! New rows that SQLite gives the ids of own rows that wait are other rows.

use std::collections::BTreeMap;

use super::families::families;
use super::*;

const SCHEMA: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, tag);
    CREATE TABLE c(id INTEGER PRIMARY KEY, tag, parent INTEGER REFERENCES p);
    CREATE TABLE g(id INTEGER PRIMARY KEY, tag, parent INTEGER REFERENCES c)";
/// Every child with the tag of its parent.
const FAMILY: &str = "SELECT c.tag, p.tag FROM c JOIN p ON p.id = parent ORDER BY c.tag";
/// The same a generation later.
const NEXT: &str = "SELECT g.tag, c.tag FROM g JOIN c ON c.id = g.parent ORDER BY g.tag";
const WAITING: &str = "SELECT json_extract(row, '$.tag') FROM syncline_conflicts ORDER BY 1";

#[track_caller]
fn assert_all(all: &[Replica], select: &str, expected: &[&str]) {
    for replica in all {
        assert_eq!(replica.rows(select), expected);
        assert_eq!(replica.rows("PRAGMA foreign_key_check"), [""; 0]);
    }
}

/// Has the first replica's children of parent 1 wait, below a parent 2 that stays.
fn orphans(all: &mut [Replica], children: &str) {
    all[0].run("INSERT INTO p VALUES(1, 'p'), (2, 'q')");
    all[0].run(children);
    converge(all);
    all[1].now = all[0].now + 1_000;
    all[1].run("DELETE FROM p WHERE id = 1");
    converge(all);
    let now = all[1].now + 1_000;
    all.iter_mut().for_each(|replica| replica.now = now);
}

#[test]
fn a_new_row_with_the_id_of_an_own_row_that_waits_moves_on() {
    let mut all = families(SCHEMA, &["g", "c", "p"], 3);
    let children = "INSERT INTO c VALUES(1, 'waits', 1); INSERT INTO g VALUES(1, 'of waits', 1)";
    orphans(&mut all, children);
    assert_all(&all, WAITING, &["of waits", "waits"]);
    all[0].run(
        "INSERT INTO c(tag, parent) VALUES('comes', 2);
         INSERT INTO g(tag, parent) VALUES('of comes', last_insert_rowid());
         INSERT INTO g(tag, parent) SELECT 'more of comes', id FROM c WHERE tag = 'comes'",
    );
    let version = version_vector(&all[0].conn).expect("vector");
    assert_eq!(all[0].seen(), version, "nothing is left to fold");
    assert_all(&all[..1], "SELECT id, tag FROM c", &["2|comes"]);
    converge(&mut all);
    assert_all(&all, FAMILY, &["comes|q"]);
    assert_all(&all, NEXT, &["more of comes|comes", "of comes|comes"]);
    assert_all(&all, WAITING, &["of waits", "waits"]);
    all[2].run("UPDATE c SET tag = 'came' WHERE tag = 'comes'");
    all[0].run("INSERT INTO p VALUES(1, 'p again')");
    converge(&mut all);
    assert_all(&all, FAMILY, &["came|q", "waits|p again"]);
    let next = ["more of comes|came", "of comes|came", "of waits|waits"];
    assert_all(&all, NEXT, &next);
    assert_all(&all, WAITING, &[]);
}

#[test]
fn a_run_of_new_rows_over_rows_that_wait_moves_on() {
    let mut all = families(SCHEMA, &["g", "c", "p"], 3);
    orphans(
        &mut all,
        "INSERT INTO c VALUES(1, 'stays', 2), (2, 'a', 1), (3, 'b', 1), (4, 'd', 1), (9, 'z', 1)",
    );
    all[0].run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5)
         INSERT INTO c(tag, parent) SELECT 'new ' || i, 2 FROM n;
         INSERT INTO g SELECT id, 'of ' || tag, id FROM c",
    );
    converge(&mut all);
    let (ids, new) = ("SELECT id, tag FROM c", ["5|new 4", "6|new 5"]);
    let moved = ["10|new 1", "11|new 2", "12|new 3"];
    assert_all(&all, ids, &[&["1|stays"], &new[..], &moved[..]].concat());
    let broken = "SELECT g.tag FROM g LEFT JOIN c ON c.id = g.parent
        WHERE 'of ' || c.tag IS NOT g.tag";
    assert_all(&all, broken, &[]);
    assert_all(&all, "SELECT count(*) FROM g", &["6"]);
    assert_all(&all, WAITING, &["a", "b", "d", "z"]);
    all[2].run("UPDATE c SET parent = NULL");
    all[0].run("INSERT INTO p VALUES(1, 'p again')");
    converge(&mut all);
    assert_all(
        &all,
        FAMILY,
        &["a|p again", "b|p again", "d|p again", "z|p again"],
    );
}

#[test]
fn an_id_under_which_two_rows_wait_is_left_to_them() {
    let mut all = families(SCHEMA, &["g", "c", "p"], 3);
    all[0].run("INSERT INTO p VALUES(1, 'p'), (2, 'q')");
    converge(&mut all);
    all[0].run("INSERT INTO c VALUES(1, 'first', 1)");
    all[1].run("INSERT INTO c VALUES(1, 'second', 1); INSERT INTO g VALUES(1, 'of second', 1)");
    converge(&mut all);
    all[2].now = all[1].now + 1_000;
    all[2].run("DELETE FROM p WHERE id = 1");
    converge(&mut all);
    assert_all(&all, WAITING, &["first", "of second", "second"]);
    for (at, tag) in ["x", "y", "z"].into_iter().enumerate() {
        all[at].run(&format!(
            "INSERT INTO c(id, tag, parent) VALUES(1, '{tag}', 2);
             INSERT INTO g VALUES(1, 'of {tag}', 1)"
        ));
    }
    converge(&mut all);
    assert_all(&all, FAMILY, &["x|q", "y|q", "z|q"]);
    assert_all(&all, NEXT, &["of x|x", "of y|y", "of z|z"]);
    assert_all(&all, WAITING, &["first", "of second", "second"]);
    all[0].run("INSERT INTO p VALUES(1, 'p again')");
    converge(&mut all);
    let back = ["first|p again", "second|p again", "x|q", "y|q", "z|q"];
    assert_all(&all, FAMILY, &back);
    assert_all(
        &all,
        NEXT,
        &["of second|second", "of x|x", "of y|y", "of z|z"],
    );
}

#[test]
fn a_row_that_was_added_and_deleted_over_one_that_waits_leaves_nothing() {
    let mut all = families(SCHEMA, &["g", "c", "p"], 3);
    orphans(&mut all, "INSERT INTO c VALUES(1, 'waits', 1)");
    let apart = "SELECT number FROM syncline_rekeyed JOIN syncline_tables ON id = table_id
        WHERE name = 'c'";
    for at in [0, 1] {
        all[at].run("INSERT INTO c VALUES(1, 'passes', 2); DELETE FROM c WHERE id = 1");
        converge(&mut all);
        assert_all(&all, "SELECT * FROM c", &[]);
        assert_all(&all, WAITING, &["waits"]);
        assert_all(&all, apart, &[]);
    }
    all[0].run("INSERT INTO p VALUES(1, 'p again')");
    converge(&mut all);
    assert_all(&all, "SELECT id, tag FROM c", &["1|waits"]);
}

#[test]
fn a_row_that_a_check_keeps_from_moving_on_waits_as_well() {
    let schema = SCHEMA.replace("INTEGER REFERENCES p", "INTEGER REFERENCES p CHECK(id < 2)");
    let mut all = families(&schema, &["g", "c", "p"], 3);
    orphans(&mut all, "INSERT INTO c VALUES(1, 'waits', 1)");
    all[0].run("INSERT INTO c VALUES(1, 'comes', 2); INSERT INTO g VALUES(1, 'of comes', 1)");
    converge(&mut all);
    assert_all(&all, "SELECT * FROM c", &[]);
    assert_all(&all, WAITING, &["comes", "of comes", "waits"]);
    all[0].run("INSERT INTO p VALUES(1, 'p again')");
    converge(&mut all);
    assert_all(&all, "SELECT id, tag FROM c", &["1|waits"]);
    assert_all(&all, WAITING, &["comes", "of comes"]);
}

#[test]
fn what_joins_begins_anew_and_the_greatest_number_may_be_taken() {
    let mut all = vec![replica(SCHEMA, &[])];
    let counted = with_ids(Ids::Counted);
    let columns = BTreeMap::from([("tag".to_owned(), ColumnPolicy::Counter)]);
    let counting = TableOptions {
        columns,
        ..counted.clone()
    };
    for (table, options) in [("p", &counted), ("c", &counting)] {
        track(&all[0].conn, table, options, NOW).expect("the table is tracked");
    }
    let mut other = replica("", &[]);
    other.pull(&all[0]);
    all.push(other);
    all[1].run("PRAGMA foreign_keys = OFF");
    let most = i64::MAX;
    orphans(
        &mut all,
        &format!("INSERT INTO c VALUES(1, 5, 1), ({most}, 6, 1)"),
    );
    all[0].run("INSERT INTO c VALUES(1, 7, 2)");
    all[0].run("UPDATE c SET tag = tag + 1");
    converge(&mut all);
    let next = format!("{}|8", most - 1);
    assert_all(&all, "SELECT id, tag FROM c", &[&next]);
    all[0].run("INSERT INTO p VALUES(1, 'p again')");
    converge(&mut all);
    assert_all(&all, "SELECT tag FROM c ORDER BY id", &["5", "8", "6"]);
}
