//! Rows that get the id of one that was deleted before anybody looked are other rows.

use std::collections::BTreeMap;

use super::families::assert_all;
use super::*;

const NOTE: &str = "CREATE TABLE note(id INTEGER PRIMARY KEY, text, more)";
const TEXTS: &str = "SELECT text FROM note ORDER BY text";
/// Rows may be seen whose parent is gone: SQLite finds no unique index for the keys on `tag`.
const FAMILY: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, tag, up INTEGER REFERENCES p(id),
        FOREIGN KEY(tag) REFERENCES p(tag));
    CREATE TABLE c(id INTEGER PRIMARY KEY, tag, parent INTEGER REFERENCES p,
        FOREIGN KEY(tag) REFERENCES p(tag))";
/// Every child with the tag of its parent.
const CHILDREN: &str = "SELECT c.tag, p.tag FROM c LEFT JOIN p ON p.id = parent ORDER BY c.tag";

fn notes(count: usize) -> Vec<Replica> {
    families::families(NOTE, &["note"], count)
}

/// Two replicas share what the first wrote; then one runs `sql`, and the other `meanwhile`, later.
fn apart(all: &mut [Replica], (at, sql): (usize, &str), meanwhile: &str) {
    converge(all);
    all[at].run(sql);
    all[1 - at].now = all[at].now + 1_000;
    all[1 - at].run(meanwhile);
    converge(all);
}

#[test]
fn a_deletion_elsewhere_is_of_the_former_row() {
    for at in [0, 1] {
        for meanwhile in ["DELETE FROM note", "UPDATE note SET more = 'edited'"] {
            let mut both = notes(2);
            both[0].run("INSERT INTO note VALUES(5, 'old', 'x')");
            let again = "DELETE FROM note WHERE id = 5;
                INSERT INTO note(id, text) VALUES(5, 'new')";
            apart(&mut both, (at, again), meanwhile);
            assert_all(&both, "SELECT * FROM note", &["5|new|∅"]);
            both[1 - at].run("UPDATE note SET more = 'seen'");
            converge(&mut both);
            assert_all(&both, "SELECT * FROM note", &["5|new|seen"]);
        }
    }
}

#[test]
fn it_makes_no_difference_whether_a_fold_comes_between() {
    let outcome = |at: usize, folds: bool| {
        let mut both = notes(2);
        both[0].run("INSERT INTO note VALUES(1, 'first', 1), (5, 'old', 1)");
        converge(&mut both);
        let steps = [
            "DELETE FROM note WHERE id = 5",
            "INSERT INTO note(id, text) VALUES(5, 'new')",
        ];
        match folds {
            true => steps.iter().for_each(|step| {
                both[at].run(step);
            }),
            false => {
                both[at].run(&steps.join(";"));
            }
        }
        both[1 - at].now = both[at].now + 1_000;
        both[1 - at].run("UPDATE note SET more = 2");
        let lives = "SELECT lane, key, causal_length FROM syncline_clocks
            WHERE lane = -3 OR causal_length > 0 ORDER BY lane, key";
        let lives = both[at].rows(lives);
        converge(&mut both);
        (
            lives,
            both[0].rows("SELECT * FROM note"),
            both[1].rows("SELECT * FROM note"),
        )
    };
    for at in [0, 1] {
        assert_eq!(outcome(at, true), outcome(at, false));
    }
}

#[test]
fn two_devices_that_give_an_id_again_make_two_rows() {
    for at in [0, 1] {
        let mut both = notes(2);
        both[at].run("INSERT INTO note VALUES(5, 'old', 1)");
        converge(&mut both);
        for (replica, text) in both.iter_mut().zip(["a", "b"]) {
            replica.run(&format!(
                "DELETE FROM note; INSERT INTO note(id, text) VALUES(5, '{text}')"
            ));
        }
        converge(&mut both);
        assert_all(&both, TEXTS, &["a", "b"]);
        assert_all(&both, "SELECT text FROM note WHERE id = 5", &["a"]);
    }
}

#[test]
fn what_is_written_over_goes_on() {
    let over = [
        "REPLACE INTO note VALUES(5, 'new', 'x')",
        "INSERT INTO note VALUES(5, 'new', 'x') ON CONFLICT(id) DO UPDATE SET text = 'new'",
        "INSERT OR IGNORE INTO note VALUES(5, 'not', 'x'); UPDATE note SET text = 'new'",
        "UPDATE OR REPLACE note SET id = 5, text = 'new', more = 'x' WHERE id = 4",
    ];
    for (at, over) in [0, 1]
        .into_iter()
        .flat_map(|at| over.map(|over| (at, over)))
    {
        let mut both = notes(2);
        both[0].run("INSERT INTO note VALUES(4, 'four', 'x'), (5, 'old', 'x')");
        apart(
            &mut both,
            (at, over),
            "UPDATE note SET more = 'edited' WHERE id = 5",
        );
        assert_all(&both, "SELECT * FROM note WHERE id = 5", &["5|new|edited"]);
        apart(&mut both, (at, over), "DELETE FROM note");
        assert_all(&both, "SELECT * FROM note", &[]);
    }
}

#[test]
fn what_a_delete_trigger_hears_of_is_another_row() {
    // With recursive triggers REPLACE cannot be told from a deletion and an insertion.
    let replace = "PRAGMA recursive_triggers = ON; REPLACE INTO note VALUES(5, 'new', 'x')";
    let moved = "UPDATE note SET id = 7; UPDATE note SET id = 5, text = 'new'";
    for (at, over) in [0, 1]
        .into_iter()
        .flat_map(|at| [replace, moved].map(|over| (at, over)))
    {
        let mut both = notes(2);
        both[0].run("INSERT INTO note VALUES(5, 'old', 'x')");
        apart(&mut both, (at, over), "DELETE FROM note");
        assert_all(&both, "SELECT * FROM note", &["5|new|x"]);
    }
}

#[test]
fn a_row_that_stood_in_the_way_and_stayed_goes_on() {
    let schema = "CREATE TABLE note(id INTEGER PRIMARY KEY, text UNIQUE, more)";
    let over = [
        "INSERT INTO note(text) VALUES('x') ON CONFLICT(text) DO UPDATE SET more = 'over'",
        "INSERT OR IGNORE INTO note(text) VALUES('x'); UPDATE note SET more = 'over'",
        "REPLACE INTO note VALUES(5, 'x', 'over')",
    ];
    for (at, over) in [0, 1]
        .into_iter()
        .flat_map(|at| over.map(|over| (at, over)))
    {
        let mut both = families::families(schema, &["note"], 2);
        both[0].run("INSERT INTO note VALUES(5, 'x', 1)");
        apart(&mut both, (at, over), "UPDATE note SET text = 'edited'");
        assert_all(&both, "SELECT * FROM note", &["5|edited|over"]);
    }
}

#[test]
fn an_id_that_replace_made_free_through_a_unique_index_is_another_rows() {
    let schema = "CREATE TABLE note(id INTEGER PRIMARY KEY, text UNIQUE, more)";
    for (at, id) in [(0, 5), (1, 5), (0, -1), (1, -1)] {
        let mut both = families::families(schema, &["note"], 2);
        both[0].run(&format!("INSERT INTO note VALUES({id}, 'x', 1)"));
        let again =
            format!("REPLACE INTO note(text) VALUES('x'); INSERT INTO note VALUES({id}, 'new', 1)");
        apart(&mut both, (at, &again), "DELETE FROM note");
        assert_all(&both, TEXTS, &["new", "x"]);
        assert_all(
            &both,
            "SELECT id FROM note WHERE text = 'new'",
            &[&id.to_string()],
        );
    }
}

#[test]
fn a_cell_that_joins_begins_anew() {
    for at in [0, 1] {
        let mut both = vec![replica(NOTE, &[])];
        let columns = BTreeMap::from([("more".to_owned(), ColumnPolicy::Counter)]);
        let options = TableOptions {
            columns,
            ..with_ids(Ids::Counted)
        };
        track(&both[0].conn, "note", &options, NOW).expect("the table is tracked");
        both.push(replica("", &[]));
        let (a, b) = both.split_at_mut(1);
        b[0].pull(&a[0]);
        both[0].run("INSERT INTO note VALUES(5, 'old', 10)");
        let again = "DELETE FROM note; INSERT INTO note VALUES(5, 'new', 1)";
        apart(&mut both, (at, again), "UPDATE note SET more = more + 100");
        both[0].run("UPDATE note SET more = more + 1");
        both[1].run("UPDATE note SET more = more + 1");
        converge(&mut both);
        assert_all(&both, "SELECT * FROM note", &["5|new|3"]);
    }
}

#[test]
fn what_refers_to_an_id_that_was_given_again_refers_to_the_new_row() {
    for at in [0, 1] {
        let mut both = families::families(FAMILY, &["c", "p"], 2);
        both[0].run(
            "INSERT INTO p VALUES(1, 'q', NULL), (5, 'old', 1);
             INSERT INTO c VALUES(1, 'child', 5), (2, 'none', NULL), (3, 'of q', 1)",
        );
        both[1].run("INSERT INTO c VALUES(11, 'number', 77)");
        converge(&mut both);
        both[at].run(
            "INSERT INTO c(tag, parent) VALUES('before', 5);
             DELETE FROM p WHERE id = 5; INSERT INTO p(id, tag, up) VALUES(5, 'new', 5);
             INSERT INTO c(tag, parent) VALUES('after', 5)",
        );
        let shown = [
            "after|new",
            "before|new",
            "child|new",
            "none|∅",
            "number|∅",
            "of q|q",
        ];
        assert_eq!(both[at].rows(CHILDREN), shown);
        both[1 - at].now = both[at].now + 1_000;
        both[1 - at].run("DELETE FROM p WHERE id = 5");
        converge(&mut both);
        assert_all(&both, CHILDREN, &shown);
        assert_all(
            &both,
            "SELECT tag, up FROM p ORDER BY id",
            &["q|∅", "new|5"],
        );
    }
}

#[test]
fn a_parent_that_is_replaced_in_one_transaction_keeps_its_children() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, tag);
        CREATE TABLE c(id TEXT PRIMARY KEY, parent INTEGER REFERENCES p
            DEFERRABLE INITIALLY DEFERRED, UNIQUE(parent, id))";
    let replaced = [
        "BEGIN; DELETE FROM p WHERE id = 5; INSERT INTO p VALUES(5, 'new'); COMMIT",
        "PRAGMA recursive_triggers = ON; REPLACE INTO p VALUES(5, 'new')",
    ];
    for (at, replaced) in [0, 1]
        .into_iter()
        .flat_map(|at| replaced.map(|sql| (at, sql)))
    {
        let mut both = vec![replica(schema, &[])];
        track(&both[0].conn, "p", &with_ids(Ids::Counted), NOW).expect("tracked");
        track(&both[0].conn, "c", &with_ids(Ids::Shared), NOW).expect("tracked");
        both.push(replica("", &[]));
        let (a, b) = both.split_at_mut(1);
        b[0].pull(&a[0]);
        both[0].run("INSERT INTO p VALUES(1, 'q'), (5, 'old'); INSERT INTO c VALUES('kept', 5)");
        converge(&mut both);
        both[1].run("INSERT INTO c VALUES('other', 1)");
        converge(&mut both);
        both[at].run(&format!("PRAGMA foreign_keys = ON; {replaced}"));
        // What others add to the former row meanwhile waits for it, where it is another one.
        let late = "INSERT INTO c VALUES('late', 5)";
        both[1 - at].run(late);
        converge(&mut both);
        let late = if at == 0 { vec!["late|new"] } else { vec![] };
        let shown = "SELECT c.id, tag FROM c JOIN p ON p.id = parent ORDER BY c.id";
        assert_all(
            &both,
            shown,
            &[&["kept|new"], &late[..], &["other|q"]].concat(),
        );
        assert_all(
            &both,
            "SELECT count(*) FROM c LEFT JOIN p ON p.id = parent WHERE p.id IS NULL",
            &["0"],
        );
    }
}

#[test]
fn a_new_row_makes_way_for_an_own_one_that_gets_its_number_back() {
    let mut all = families::families(FAMILY, &["c", "p"], 3);
    for (at, tag) in ["a", "b", "c"].into_iter().enumerate() {
        all[at].run(&format!(
            "INSERT INTO p VALUES(5, '{tag}', NULL); INSERT INTO c(tag, parent) VALUES('of {tag}', 5)"
        ));
    }
    converge(&mut all);
    assert_all(&all, CHILDREN, &["of a|a", "of b|b", "of c|c"]);
    // b's own row wants the number as well, and perhaps c's comes before it.
    all[1].run(
        "DELETE FROM p WHERE tag = 'a'; INSERT INTO p(id, tag) VALUES(5, 'new');
         INSERT INTO c(tag, parent) VALUES('of new', 5)",
    );
    converge(&mut all);
    let shown = ["of a|new", "of b|b", "of c|c", "of new|new"];
    assert_all(&all, CHILDREN, &shown);
    assert_all(&all, "SELECT id FROM p WHERE tag = 'new'", &["6"]);
    assert_all(&all, "SELECT tag IN ('b', 'c') FROM p WHERE id = 5", &["1"]);
    all[0].run("DELETE FROM p WHERE tag IN ('b', 'c')");
    all[2].run("UPDATE p SET tag = 'renamed' WHERE tag = 'new'");
    converge(&mut all);
    let shown = ["of a|renamed", "of b|∅", "of c|∅", "of new|renamed"];
    assert_all(&all, CHILDREN, &shown);
}

#[test]
fn a_new_row_goes_where_one_with_more_right_to_the_number_does_not_stand() {
    let mut all = families::families(FAMILY, &["c", "p"], 3);
    all[0].run("INSERT INTO p VALUES(5, 'a', NULL)");
    all[1].run("INSERT INTO p VALUES(5, 'b', NULL); INSERT INTO c(tag, parent) VALUES('of b', 5)");
    converge(&mut all);
    all[2].run(
        "DELETE FROM p WHERE tag = 'a'; INSERT INTO p(id, tag) VALUES(5, 'new');
         INSERT INTO c(tag, parent) VALUES('of new', 5)",
    );
    let shown = ["of b|b", "of new|new"];
    assert_eq!(all[2].rows(CHILDREN), shown);
    converge(&mut all);
    assert_all(&all, CHILDREN, &shown);
    let (b, c) = (site_id(&all[1].conn), site_id(&all[2].conn));
    let first = if b.expect("site") < c.expect("site") {
        "b"
    } else {
        "new"
    };
    assert_all(&all, "SELECT tag FROM p WHERE id = 5", &[first]);
}

#[test]
fn an_id_apart_that_is_given_again_is_the_row_that_it_is_kept_for() {
    let mut both = families::families(FAMILY, &["c", "p"], 2);
    both[0].run("INSERT INTO p VALUES(5, 'a', NULL)");
    both[1].run("INSERT INTO p VALUES(5, 'b', NULL); INSERT INTO c VALUES(1, 'of b', 5)");
    converge(&mut both);
    let id = both[0].rows("SELECT id FROM p WHERE tag = 'b'").remove(0);
    for at in [0, 1] {
        let again =
            format!("DELETE FROM p WHERE id = {id}; INSERT INTO p VALUES({id}, 'new {at}', NULL)");
        apart(
            &mut both,
            (at, &again),
            &format!("DELETE FROM p WHERE id = {id}"),
        );
        assert_all(&both, CHILDREN, &[&format!("of b|new {at}")]);
        assert_all(&both, "SELECT count(*) FROM p", &["2"]);
    }
    // Both ids at once: the row that is kept for its own comes back, the other is new.
    both[1].run(&format!(
        "DELETE FROM p; INSERT INTO p VALUES({id}, 'b again', NULL), (5, 'newest', NULL)"
    ));
    converge(&mut both);
    assert_all(
        &both,
        "SELECT tag FROM p ORDER BY tag",
        &["b again", "newest"],
    );
    assert_all(&both, CHILDREN, &["of b|b again"]);
}

#[test]
fn a_table_that_is_filled_anew_has_other_rows_at_little_cost() {
    let filled = format!(
        "{NOTE}; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
         INSERT INTO note SELECT i, 'row ' || i, 0 FROM n"
    );
    let mut both = vec![replica_of(&filled, &["note"], &with_ids(Ids::Counted))];
    both.push(replica("", &[]));
    let (a, b) = both.split_at_mut(1);
    b[0].pull(&a[0]);
    let anew = "CREATE TEMP TABLE kept AS SELECT * FROM note; DELETE FROM note;
        INSERT INTO note SELECT * FROM kept WHERE id <> 250; DROP TABLE kept";
    apart(&mut both, (1, anew), "DELETE FROM note WHERE id < 400");
    assert_all(&both, "SELECT count(*), sum(id) FROM note", &["499|125000"]);
    assert!(both[1].clock_entries() < 10);
}
