//! Ids that every replica counts for itself: two rows with one id never merge, and all find theirs.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use syncline_crdt::rekeyed;

use super::*;

const NOTE: &str = "CREATE TABLE note(id INTEGER PRIMARY KEY, text)";
const ALL: &str = "SELECT id, text FROM note ORDER BY id DESC";

/// Replicas that share an empty table, the first of which tracked it.
fn notes(count: usize) -> Vec<Replica> {
    let mut all = vec![replica_of(NOTE, &["note"], &with_ids(Ids::Counted))];
    for _ in 1..count {
        let mut next = replica("", &[]);
        next.pull(&all[0]);
        all.push(next);
    }
    all
}

fn site(replica: &Replica) -> syncline_crdt::SiteId {
    site_id(&replica.conn).expect("site")
}

#[test]
fn two_devices_that_count_keep_both_rows() {
    let mut both = notes(2);
    both[0].run("INSERT INTO note(text) VALUES('from a'), ('more from a')");
    both[1].run("INSERT INTO note(text) VALUES('from b')");
    converge(&mut both);
    let b1 = rekeyed(1, site(&both[1]), 0);
    for replica in &both {
        let expected = [
            "2|more from a".to_owned(),
            "1|from a".to_owned(),
            format!("{b1}|from b"),
        ];
        assert_eq!(replica.rows(ALL), expected);
        let entries = "SELECT rowid, number FROM syncline_rekeyed";
        assert_eq!(replica.rows(entries), [format!("{b1}|1")]);
    }
    // Either may go on writing to either row, under the id it sees.
    both[0].run(&format!(
        "UPDATE note SET text = 'b, edited by a' WHERE id = {b1}"
    ));
    both[1].run("UPDATE note SET text = 'a, edited by b' WHERE id = 1");
    both[1].run("INSERT INTO note(text) VALUES('next')");
    converge(&mut both);
    for replica in &both {
        assert_eq!(
            replica.rows("SELECT text FROM note ORDER BY id DESC"),
            ["next", "more from a", "a, edited by b", "b, edited by a"]
        );
        assert_eq!(replica.rows("SELECT max(id) FROM note"), ["3"]);
    }
}

#[test]
fn a_row_gets_its_number_back_when_the_other_one_is_deleted() {
    for deleting in [0, 1] {
        let mut both = notes(2);
        both[0].run("INSERT INTO note VALUES(5, 'a')");
        both[1].run("INSERT INTO note VALUES(5, 'b')");
        converge(&mut both);
        both[deleting].run("DELETE FROM note WHERE text = 'a'");
        assert_eq!(both[deleting].rows(ALL), ["5|b"]);
        converge(&mut both);
        for replica in &both {
            assert_eq!(replica.rows(ALL), ["5|b"]);
            assert_eq!(replica.rows("SELECT * FROM syncline_rekeyed"), [""; 0]);
        }
        // The number is taken, so nobody can bring the other back under it; another site's is new.
        both[0].run("UPDATE note SET id = 6; INSERT INTO note VALUES(5, 'a again')");
        converge(&mut both);
        for replica in &both {
            assert_eq!(replica.rows(ALL), ["6|b", "5|a again"]);
        }
    }
}

#[test]
fn a_deletion_is_of_one_row_and_not_of_its_number() {
    let mut both = notes(2);
    both[0].run("INSERT INTO note VALUES(5, 'a')");
    both[1].run("INSERT INTO note VALUES(5, 'b')");
    both[1].run("DELETE FROM note");
    converge(&mut both);
    assert_eq!(both[1].rows(ALL), ["5|a"]);
    // A new row of b's at its old number is b's second life there, beside a's.
    let mut third = replica("", &[]);
    third.pull(&both[0]);
    both[1]
        .run("DELETE FROM note")
        .run("INSERT INTO note VALUES(5, 'b again')");
    third.run("UPDATE note SET text = 'too late'");
    both.push(third);
    converge(&mut both);
    for replica in &both {
        assert_eq!(replica.rows(ALL), ["5|b again"]);
    }
}

#[test]
fn three_replicas_agree_in_whatever_order_they_hear_of_each_other() {
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    for order in orders {
        let mut all = notes(3);
        for (at, replica) in all.iter_mut().enumerate() {
            replica.run(&format!("INSERT INTO note VALUES(7, 'from {at}')"));
        }
        let mut reader = replica("", &[]);
        reader
            .pull(&all[order[0]])
            .pull(&all[order[1]])
            .pull(&all[order[2]]);
        all.push(reader);
        converge(&mut all);
        // The one that tracked the table keeps its number; when it goes, the least site follows.
        let mut rest = [1, 2];
        rest.sort_by_key(|at| site(&all[*at]));
        for (step, holder) in [0, rest[0], rest[1]].into_iter().enumerate() {
            for replica in &all {
                let held = replica.rows("SELECT text FROM note WHERE id = 7");
                assert_eq!(held, [format!("from {holder}")]);
                assert_eq!(
                    replica.rows("SELECT count(*) FROM note"),
                    [(3 - step).to_string()]
                );
            }
            all[order[step]].run("DELETE FROM note WHERE id = 7");
            converge(&mut all);
        }
    }
}

#[test]
fn a_deleted_row_comes_back_under_the_id_it_was_seen_with() {
    let mut both = notes(2);
    both[0].run("INSERT INTO note VALUES(5, 'a')");
    both[1].run("INSERT INTO note VALUES(5, 'b')");
    converge(&mut both);
    let id = rekeyed(5, site(&both[1]), 0);
    both[0].run(&format!("DELETE FROM note WHERE id = {id}"));
    converge(&mut both);
    assert_eq!(both[1].rows(ALL), ["5|a"]);
    both[0].run(&format!("INSERT INTO note VALUES({id}, 'b, undone')"));
    converge(&mut both);
    for replica in &both {
        assert_eq!(
            replica.rows(ALL),
            ["5|a".to_owned(), format!("{id}|b, undone")]
        );
    }
    both[1].run("DELETE FROM note WHERE id = 5");
    converge(&mut both);
    assert_eq!(both[0].rows(ALL), ["5|b, undone"]);
}

#[test]
fn a_changed_id_keeps_the_rows_data_everywhere() {
    let mut both = notes(2);
    both[0].run("INSERT INTO note VALUES(1, 'a'), (2, 'second')");
    both[1].run("INSERT INTO note VALUES(1, 'b')");
    converge(&mut both);
    both[0].run("UPDATE note SET id = 10 WHERE id = 1");
    converge(&mut both);
    for replica in &both {
        assert_eq!(replica.rows(ALL), ["10|a", "2|second", "1|b"]);
    }
    both[1].run("UPDATE note SET id = 11 WHERE id = 10; UPDATE note SET id = 10 WHERE id = 2");
    converge(&mut both);
    for replica in &both {
        assert_eq!(replica.rows(ALL), ["11|a", "10|second", "1|b"]);
    }
}

#[test]
fn copies_of_one_table_are_the_same_rows_and_other_tables_are_not() {
    let filled = format!("{NOTE}; INSERT INTO note VALUES(1, 'x'), (2, 'y')");
    let a = replica_of(&filled, &["note"], &with_ids(Ids::Counted));
    let b = replica(&filled, &[]);
    let c = replica(&filled.replace("'y'", "'z'"), &[]);
    let mut all = [a, b, c];
    let (shared, rest) = all.split_at_mut(1);
    for copy in rest {
        copy.pull(&shared[0]);
    }
    converge(&mut all[..2]);
    assert_eq!(all[1].rows(ALL), ["2|y", "1|x"]);
    all[1].run("UPDATE note SET text = 'x, edited' WHERE id = 1");
    converge(&mut all[..2]);
    assert_eq!(all[0].rows(ALL), ["2|y", "1|x, edited"]);
    // Of two tables with different rows, the one that was shared first keeps its ids.
    converge(&mut all);
    for replica in &all {
        let shown = replica.rows("SELECT id > 0, text FROM note ORDER BY id > 0 DESC, text");
        assert_eq!(shown, ["1|x, edited", "1|y", "0|x", "0|z"]);
        let vector = version_vector(&replica.conn).expect("vector");
        assert_eq!(vector.sites_count(), 3, "no origin is a site");
    }
}

#[test]
fn bulk_stays_at_one_entry_and_so_do_runs_of_deletions() {
    let mut both = notes(2);
    let many = |from, to| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to})
             INSERT INTO note SELECT i, i FROM n"
        )
    };
    both[0].run(&many(1, 1000));
    both[1].run(&many(1001, 2000));
    converge(&mut both);
    assert_eq!((both[0].clock_entries(), both[1].clock_entries()), (2, 2));
    both[0].run("DELETE FROM note WHERE id BETWEEN 900 AND 1100");
    converge(&mut both);
    // Two runs that live, and one for what died of each site.
    assert_eq!((both[0].clock_entries(), both[1].clock_entries()), (4, 4));
    assert_eq!(both[1].rows("SELECT count(*) FROM note"), ["1799"]);
}

#[test]
fn an_id_that_is_taken_is_passed_over_everywhere() {
    let mut all = notes(3);
    let id = rekeyed(5, site(&all[1]), 0);
    let next = rekeyed(5, site(&all[1]), 1);
    all[0].run("INSERT INTO note VALUES(5, 'a')");
    all[1].run("INSERT INTO note VALUES(5, 'b')");
    // The third gives that id to a row of its own, before it hears of the others.
    all[2].run(&format!("INSERT INTO note VALUES({id}, 'c')"));
    let mut late = replica("", &[]);
    late.pull(&all[0]).pull(&all[1]);
    assert_eq!(late.rows(ALL), ["5|a".to_owned(), format!("{id}|b")]);
    all.push(late);
    converge(&mut all);
    for replica in &all {
        let held = |id| replica.rows(&format!("SELECT text FROM note WHERE id = {id}"));
        assert_eq!((held(id), held(next)), (vec!["c".into()], vec!["b".into()]));
    }
    all[0].run("DELETE FROM note WHERE text = 'c'");
    converge(&mut all);
    for replica in &all {
        assert_eq!(replica.rows(ALL), ["5|a".to_owned(), format!("{id}|b")]);
    }
}

#[test]
fn a_row_that_another_site_rewrites_whole_stays_its_creators() {
    let mut all = notes(3);
    all[0].run("INSERT INTO note VALUES(1, 'a'), (2, 'a')");
    converge(&mut all);
    all[1].run("REPLACE INTO note VALUES(1, 'b')");
    all[2].run("BEGIN; DELETE FROM note WHERE id = 1; INSERT INTO note VALUES(1, 'c'); COMMIT");
    converge(&mut all);
    for replica in &all {
        assert_eq!(replica.rows(ALL).len(), 2);
        assert_eq!(replica.rows("SELECT count(*) FROM syncline_rekeyed"), ["0"]);
    }
    all[0].run("DELETE FROM note WHERE id = 1");
    converge(&mut all);
    assert_eq!(all[2].rows("SELECT id FROM note"), ["2"]);
}

#[test]
fn a_row_that_a_check_on_the_id_keeps_from_its_other_id_waits() {
    let schema = "CREATE TABLE note(id INTEGER PRIMARY KEY CHECK(id > 0), text)";
    let mut both = vec![replica_of(schema, &["note"], &with_ids(Ids::Counted))];
    both.push(replica("", &[]));
    let (a, b) = both.split_at_mut(1);
    b[0].pull(&a[0]).run("INSERT INTO note VALUES(1, 'b')");
    a[0].run("INSERT INTO note VALUES(1, 'a')");
    converge(&mut both);
    for replica in &both {
        assert_eq!(replica.rows(ALL), ["1|a"]);
        let waiting = "SELECT constraint_name, row LIKE '%\"text\":\"b\"%' FROM syncline_conflicts";
        assert_eq!(replica.rows(waiting), ["CHECK (id > 0)|1"]);
    }
    both[1].run("DELETE FROM note");
    converge(&mut both);
    for replica in &both {
        assert_eq!(replica.rows(ALL), ["1|b"]);
        assert_eq!(replica.rows("SELECT 1 FROM syncline_conflicts"), [""; 0]);
    }
}

#[test]
fn devices_that_mean_ids_differently_are_told_so_and_nothing_changes() {
    let mut a = replica_of(NOTE, &["note"], &with_ids(Ids::Counted));
    let mut b = replica_of(NOTE, &["note"], &with_ids(Ids::Shared));
    a.run("INSERT INTO note VALUES(1, 'a')");
    b.run("INSERT INTO note VALUES(1, 'b')");
    for (from, into) in [(&a, &b), (&b, &a)] {
        let changes = export(&from.conn, &into.seen(), from.now).expect("export");
        let before = (into.digest(), into.seen());
        let error = import_changeset(&into.conn, &changes, into.now).expect_err("they differ");
        assert!(matches!(error, ImportError::OtherIds { .. }), "{error}");
        assert_eq!((into.digest(), into.seen()), before);
    }
    untrack(&b.conn, "note", b.now).expect("untrack");
    track(&b.conn, "note", &with_ids(Ids::Counted), b.now).expect("track");
    b.pull(&a);
    a.pull(&b);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.rows("SELECT text FROM note ORDER BY text"), ["a", "b"]);
}

#[derive(Clone, Debug)]
enum Step {
    Count,
    Give(i64),
    Edit(usize),
    Delete(usize),
    Move(usize, i64),
    Pull(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Count),
        2 => (1i64..6).prop_map(Step::Give),
        2 => (0usize..9).prop_map(Step::Edit),
        2 => (0usize..9).prop_map(Step::Delete),
        1 => ((0usize..9), (1i64..9)).prop_map(|(at, id)| Step::Move(at, id)),
        3 => (0usize..3).prop_map(Step::Pull),
    ]
}

/// What the users expect: every row they made and nobody deleted, with its latest text.
#[derive(Default)]
struct Expected {
    made: BTreeMap<String, String>,
    deleted: BTreeSet<String>,
}

fn apply(all: &mut [Replica], at: usize, step: &Step, time: usize, expected: &mut Expected) {
    all[at].now = NOW + 100 * time as u64;
    let seen = all[at].rows("SELECT tag FROM r ORDER BY tag");
    let ids = |tag: &str| all[at].rows(&format!("SELECT id FROM r WHERE tag = '{tag}'"));
    let chosen = |index: &usize| seen.get(index % seen.len().max(1)).cloned();
    let (tag, text) = (format!("tag{time}"), format!("text{time}"));
    let sql = match step {
        Step::Count => {
            expected.made.insert(tag.clone(), text.clone());
            format!("INSERT INTO r(tag, text) VALUES('{tag}', '{text}')")
        }
        Step::Give(id) => {
            if all[at]
                .rows(&format!("SELECT 1 FROM r WHERE id = {id}"))
                .is_empty()
            {
                expected.made.insert(tag.clone(), text.clone());
            }
            format!("INSERT OR IGNORE INTO r VALUES({id}, '{tag}', '{text}')")
        }
        Step::Edit(index) => {
            let Some(tag) = chosen(index) else { return };
            expected.made.insert(tag.clone(), text.clone());
            format!("UPDATE r SET text = '{text}' WHERE tag = '{tag}'")
        }
        Step::Delete(index) => {
            let Some(tag) = chosen(index) else { return };
            expected.deleted.insert(tag.clone());
            format!("DELETE FROM r WHERE id = {}", ids(&tag)[0])
        }
        Step::Move(index, id) => {
            let Some(old) = chosen(index) else { return };
            if !all[at]
                .rows(&format!("SELECT 1 FROM r WHERE id = {id}"))
                .is_empty()
            {
                return;
            }
            // Another row with new data: what others do to the old one meanwhile is not its.
            expected.deleted.insert(old.clone());
            expected.made.insert(tag.clone(), text.clone());
            format!("UPDATE r SET id = {id}, tag = '{tag}', text = '{text}' WHERE tag = '{old}'")
        }
        Step::Pull(from) => {
            if *from != at {
                let low = at.min(*from);
                let (left, right) = all.split_at_mut(at.max(*from));
                let (low, high) = (&mut left[low], &mut right[0]);
                if at < *from {
                    low.pull(high)
                } else {
                    high.pull(low)
                };
            }
            return;
        }
    };
    all[at].run(&sql);
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn whatever_is_done_every_row_is_there_once_and_all_agree(
        steps in prop::collection::vec((0usize..3, step()), 1..40),
    ) {
        let schema = "CREATE TABLE r(id INTEGER PRIMARY KEY, tag, text)";
        let mut all = vec![replica_of(schema, &["r"], &with_ids(Ids::Counted))];
        for _ in 0..2 {
            let mut next = replica("", &[]);
            next.pull(&all[0]);
            all.push(next);
        }
        let mut expected = Expected::default();
        for (time, (at, step)) in steps.iter().enumerate() {
            apply(&mut all, *at, step, time + 1, &mut expected);
        }
        converge(&mut all);
        let rows: Vec<String> = expected
            .made
            .iter()
            .filter(|(tag, _)| !expected.deleted.contains(*tag))
            .map(|(tag, text)| format!("{tag}|{text}"))
            .collect();
        let shown = "SELECT id, tag, text FROM r ORDER BY id";
        for replica in &all {
            let mut found = replica.rows("SELECT tag, text FROM r");
            found.sort();
            let mut rows = rows.clone();
            rows.sort();
            prop_assert_eq!(found, rows);
            prop_assert_eq!(replica.rows(shown), all[0].rows(shown));
            // Somebody has each number that is wanted.
            let wanted = "SELECT number FROM syncline_rekeyed AS k JOIN r ON r.id = k.rowid
                WHERE number NOT IN (SELECT id FROM r)";
            prop_assert_eq!(replica.rows(wanted), [""; 0]);
        }
    }
}

#[test]
fn who_tracks_a_table_with_counted_ids_is_not_told_to() {
    let schema = format!("{NOTE}; CREATE TABLE other(id INTEGER PRIMARY KEY)");
    let a = replica_of(&schema, &["note"], &with_ids(Ids::Counted));
    let told = candidates(&a.conn).expect("the schema is read").into_iter();
    let is_told = |limit: &Limit| matches!(limit, Limit::CountedKey { .. });
    let told = told.filter(|candidate| candidate.limits.iter().any(is_told));
    let told: Vec<String> = told.map(|candidate| candidate.name).collect();
    assert_eq!(told, ["other"]);
}

#[test]
fn a_table_that_says_autoincrement_has_counted_ids_unless_told_otherwise() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY /* counted */ autoincrement, a);
        CREATE TABLE plain(id INTEGER PRIMARY KEY, \"AUTOINCREMENT\" DEFAULT 'AUTOINCREMENT')";
    let mut a = replica(schema, &[]);
    let is_told = |replica: &Replica, table: &str| {
        let all = candidates(&replica.conn).expect("candidates");
        let found = all.into_iter().find(|candidate| candidate.name == table);
        !found.expect("it is there").limits.is_empty()
    };
    let told = |replica: &Replica| ["t", "plain"].map(|table| is_told(replica, table));
    assert_eq!(told(&a), [false, true]);
    for table in ["t", "plain"] {
        track(&a.conn, table, &TableOptions::default(), NOW).expect("tracked");
        // To say it again, in whatever words, is nothing else.
        for same in [
            "",
            "{}",
            if table == "t" {
                r#"{"ids":"counted"}"#
            } else {
                r#"{"ids":"shared"}"#
            },
        ] {
            let options = TableOptions::parse(same).expect("options");
            let again = track(&a.conn, table, &options, NOW).expect(same);
            assert_eq!(again, Tracked::Already);
        }
    }
    let shared = with_ids(Ids::Shared);
    assert!(track(&a.conn, "t", &shared, NOW).is_err());
    assert!(track(&a.conn, "plain", &with_ids(Ids::Counted), NOW).is_err());
    assert_eq!(told(&a), [false, true]);
    let mut b = replica("", &[]);
    b.pull(&a);
    a.run("INSERT INTO t(a) VALUES('a'); INSERT INTO plain VALUES(1, 'a')");
    b.now += 10;
    b.run("INSERT INTO t(a) VALUES('b'); INSERT INTO plain VALUES(1, 'b')");
    let mut both = [a, b];
    converge(&mut both);
    for replica in &both {
        assert_eq!(replica.rows("SELECT a FROM t ORDER BY a"), ["a", "b"]);
        assert_eq!(replica.rows("SELECT * FROM plain"), ["1|b"]);
    }

    // Where it is told otherwise, the others hear of it.
    let mut a = replica_of(schema, &["t"], &shared);
    assert_eq!(told(&a), [true, true]);
    let mut b = replica(schema, &[]);
    b.pull(&a);
    a.run("INSERT INTO t VALUES(1, 'a')");
    b.now += 10;
    b.run("INSERT INTO t VALUES(1, 'b')");
    let mut both = [a, b];
    converge(&mut both);
    assert_eq!(both[0].rows("SELECT * FROM t"), ["1|b"]);
    // Untracked and tracked again without a word, it has the ids that it had.
    untrack(&both[0].conn, "t", both[0].now).expect("untracked");
    track(&both[0].conn, "t", &shared, both[0].now).expect("tracked");
    converge(&mut both);
}

#[test]
fn tables_are_best_tracked_after_those_that_they_refer_to() {
    let replica = replica(
        "CREATE TABLE a(id INTEGER PRIMARY KEY, to_c REFERENCES C, to_a REFERENCES a);
         CREATE TABLE b(id INTEGER PRIMARY KEY, to_a REFERENCES a, elsewhere REFERENCES nowhere);
         CREATE TABLE c(id INTEGER PRIMARY KEY, to_d REFERENCES d);
         CREATE TABLE d(id INTEGER PRIMARY KEY, to_c REFERENCES c);
         CREATE TABLE e(id INTEGER PRIMARY KEY)",
        &[],
    );
    let all = candidates(&replica.conn).expect("candidates");
    let order = parents_first(&replica.conn, &all).expect("an order");
    let names = order.iter().map(|at| &*all[*at].name);
    assert_eq!(names.collect::<String>(), "cdabe");
}
