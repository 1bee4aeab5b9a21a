//! A reference names the row that its writer saw, whatever id the row has elsewhere.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use syncline_crdt::rekeyed;

use super::families::assert_all;
use super::*;

/// SQLite finds no unique index for the keys on `tag`, so the keys of these tables are not held, and
/// rows can be seen whose parent is gone.
const SCHEMA: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, tag, up INTEGER REFERENCES p(id),
        FOREIGN KEY(tag) REFERENCES p(tag));
    CREATE TABLE c(id INTEGER PRIMARY KEY, tag, parent INTEGER REFERENCES p,
        FOREIGN KEY(tag) REFERENCES p(tag))";
/// Every child with the tag of its parent.
const FAMILY: &str = "SELECT c.tag, p.tag FROM c LEFT JOIN p ON p.id = parent ORDER BY c.tag";

fn families(count: usize) -> Vec<Replica> {
    families::families(SCHEMA, &["c", "p"], count)
}

#[test]
fn references_follow_a_row_to_its_other_id_and_back() {
    let mut all = families(3);
    all[0].run("INSERT INTO p VALUES(1, 'a', NULL); INSERT INTO c VALUES(1, 'of a', 1)");
    all[1].run("INSERT INTO p VALUES(1, 'b', 1); INSERT INTO c VALUES(1, 'of b', 1)");
    all[1].run("INSERT INTO c VALUES(2, 'more of b', 1)");
    converge(&mut all);
    assert_all(&all, FAMILY, &["more of b|b", "of a|a", "of b|b"]);
    let ups = "SELECT p.tag, u.tag FROM p LEFT JOIN p AS u ON u.id = p.up ORDER BY p.tag";
    assert_all(&all, ups, &["a|∅", "b|b"]);
    // What others write meanwhile arrives with the id that its writer saw.
    all[2].run("INSERT INTO c SELECT 3, 'third of b', id FROM p WHERE tag = 'b'");
    all[0].run("DELETE FROM p WHERE tag = 'a'");
    converge(&mut all);
    assert_all(&all, "SELECT id, tag, up FROM p", &["1|b|1"]);
    let family = ["more of b|b", "of a|∅", "of b|b", "third of b|b"];
    assert_all(&all, FAMILY, &family);
    all[0].run("UPDATE c SET parent = 1 WHERE tag = 'of a'");
    converge(&mut all);
    assert_all(&all, "SELECT count(*) FROM c WHERE parent = 1", &["4"]);
}

#[test]
fn a_reference_to_a_row_that_is_gone_waits_for_it_and_takes_no_other() {
    let mut all = families(2);
    all[0].run("INSERT INTO p VALUES(5, 'a', NULL); INSERT INTO c VALUES(1, 'of a', 5)");
    converge(&mut all);
    let id = rekeyed(5, site_id(&all[0].conn).expect("site"), 0);
    all[1].run("DELETE FROM p; INSERT INTO c VALUES(9, 'other', NULL)");
    assert_eq!(
        all[1].rows("SELECT parent FROM c WHERE id = 1"),
        [id.to_string()]
    );
    all[1].run("INSERT INTO p VALUES(5, 'another', NULL)");
    converge(&mut all);
    assert_all(&all, FAMILY, &["of a|∅", "other|∅"]);
    all[1].run("DELETE FROM p");
    converge(&mut all);
    all[0].run("INSERT INTO p VALUES(5, 'a again', NULL)");
    converge(&mut all);
    assert_all(&all, FAMILY, &["of a|a again", "other|∅"]);
    assert_all(&all, "SELECT parent FROM c WHERE id = 1", &["5"]);
}

#[test]
fn what_refers_to_no_row_stays_the_number_that_it_is() {
    let mut all = families(2);
    all[0].run("INSERT INTO c VALUES(1, 'zero', 0), (2, 'far', 77), (3, 'text', 'none')");
    converge(&mut all);
    all[1].run("INSERT INTO p VALUES(77, 'b', NULL); INSERT INTO c VALUES(4, 'of b', 77)");
    all[0].run("INSERT INTO p VALUES(77, 'a', NULL); INSERT INTO c VALUES(4, 'of a', 77)");
    converge(&mut all);
    let parents = "SELECT parent FROM c WHERE id BETWEEN 1 AND 3 ORDER BY id";
    assert_all(&all, parents, &["0", "77", "none"]);
    let family = "SELECT c.tag, p.tag FROM c JOIN p ON p.id = parent WHERE c.tag LIKE 'of%'
        ORDER BY c.tag";
    assert_all(&all, family, &["of a|a", "of b|b"]);
}

#[test]
fn a_parked_row_that_makes_way_keeps_the_number_that_names_no_row() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, tag);
        CREATE TABLE c(id INTEGER PRIMARY KEY, tag, parent INTEGER REFERENCES p(id))";
    let mut all = families::families(schema, &["c", "p"], 3);
    all[0].run("INSERT INTO c VALUES(5, 'waits', 1), (4, 'a', NULL)");
    let (first, rest) = all.split_at_mut(1);
    rest[0]
        .pull(&first[0])
        .run("INSERT INTO c(tag) VALUES('b')");
    converge(&mut all);
    all[1].run("INSERT INTO p VALUES(1, 'p of b')");
    all[0].run("INSERT INTO p VALUES(1, 'p of a')");
    converge(&mut all);
    assert_all(&all, "SELECT parent FROM c WHERE tag = 'waits'", &["1"]);
}

/// Also where the new row is shown under another id at once.
#[test]
fn a_new_row_that_takes_a_parked_rows_number_keeps_its_own_that_names_no_row() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, tag);
        CREATE TABLE c(id INTEGER PRIMARY KEY, tag, parent INTEGER REFERENCES p(id))";
    let mut all = families::families(schema, &["c", "p"], 2);
    all[0].run("INSERT INTO c VALUES(1, 'a', 99)");
    let (first, rest) = all.split_at_mut(1);
    rest[0]
        .pull(&first[0])
        .run("INSERT INTO c VALUES(1, 'b', 98)");
    converge(&mut all);
    all[0].run("INSERT INTO p VALUES(98, 'x'), (99, 'y')");
    converge(&mut all);
    all[0].run("DELETE FROM p");
    converge(&mut all);
    all[1].run("INSERT INTO p VALUES(99, 'of b')");
    all[0].run("INSERT INTO p VALUES(99, 'of a')");
    converge(&mut all);
    assert_all(&all, "SELECT parent FROM c WHERE tag = 'a'", &["99"]);
}

/// The ids that two cells refer by are no measure: each replica has its own.
#[test]
fn of_references_written_at_one_time_the_same_wins_everywhere() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, tag);
        CREATE TABLE c(id INTEGER PRIMARY KEY, tag, parent INTEGER REFERENCES p(id))";
    let a = replica_of(schema, &["p"], &with_ids(Ids::Counted));
    track(&a.conn, "c", &TableOptions::default(), NOW).expect("the table is tracked");
    let mut all = [a, replica("", &[])];
    all[0].run("INSERT INTO p VALUES(1, 'one'); INSERT INTO c VALUES(1, 'child', 1)");
    let (first, rest) = all.split_at_mut(1);
    rest[0].pull(&first[0]);
    converge(&mut all);
    let now = all[0].now + 1_000;
    for (replica, tag) in all.iter_mut().zip(["a", "b"]) {
        replica.now = now;
        let writes = format!("INSERT INTO p VALUES(2, '{tag}'); UPDATE c SET parent = 2");
        replica.conn.execute_batch(&writes).expect(&writes);
        fold(&replica.conn, now).expect("fold");
    }
    let changes = [0, 1].map(|at| export(&all[at].conn, &all[1 - at].seen(), now).expect("export"));
    import_changeset(&all[0].conn, &changes[1], now).expect("import");
    import_changeset(&all[1].conn, &changes[0], now).expect("import");
    assert_eq!(all[0].digest(), all[1].digest());
    let [one, other] = [0, 1].map(|at| all[at].rows(FAMILY));
    assert_eq!(one, other);
}

#[test]
fn numbers_that_named_no_row_when_a_table_was_tracked_stay_numbers() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, tag);
        CREATE TABLE c(id INTEGER PRIMARY KEY, tag, parent INTEGER REFERENCES p(id));
        INSERT INTO p VALUES(1, 'there'); PRAGMA foreign_keys = OFF;
        INSERT INTO c VALUES(1, 'of none', 2), (2, 'of p', 1)";
    let mut all = families::families(schema, &["p", "c"], 2);
    all[0].run("INSERT INTO p VALUES(2, 'later')");
    converge(&mut all);
    all[0].run("DELETE FROM p WHERE id = 2");
    converge(&mut all);
    all[1].run("INSERT INTO p VALUES(2, 'again')");
    converge(&mut all);
    let all_parents = "SELECT parent FROM c ORDER BY id";
    assert_all(&all, all_parents, &["2", "1"]);
}

#[test]
fn a_number_that_a_row_is_given_while_it_moves_stays_one() {
    let mut both = families(2);
    both[0].run("INSERT INTO c VALUES(1, 'first', NULL)");
    both[1].run("INSERT INTO c VALUES(1, 'second', NULL)");
    converge(&mut both);
    // With this the second row gets its number back, in the fold that notices the other.
    both[1].run("DELETE FROM c WHERE tag = 'first'; UPDATE c SET parent = 1");
    both[0].run("INSERT INTO p VALUES(1, 'a', NULL)");
    converge(&mut both);
    both[0].run("UPDATE p SET id = 2; INSERT INTO p VALUES(3, 'b', NULL)");
    converge(&mut both);
    assert_all(&both, "SELECT tag, parent FROM c", &["second|1"]);
}

#[test]
fn a_child_that_comes_before_its_parent_finds_it() {
    let mut both = families(2);
    let mut reader = replica("", &[]);
    reader
        .pull(&both[0])
        .run("PRAGMA foreign_keys = OFF; INSERT INTO p VALUES(1, 'own', NULL)");
    both[0].run("INSERT INTO p VALUES(1, 'a', NULL), (2, 'up', 3), (3, 'top', NULL)");
    both[0].run("INSERT INTO c VALUES(1, 'of a', 1)");
    let mut changes = export(&both[0].conn, &reader.seen(), both[0].now).expect("export");
    changes.tables.retain(|table| table.name == "c");
    let until = std::mem::take(&mut changes.until);
    let stamps = changes.tables.iter().flat_map(|table| &table.groups);
    for stamp in stamps.map(|group| group.stamp).collect::<Vec<_>>() {
        changes.until.advance(stamp.site, stamp.version);
    }
    // Of the same site a later change may not come first, so its parent comes with everything.
    assert_eq!(changes.until, until);
    import_changeset(&reader.conn, &changes, both[0].now).expect("import");
    assert_eq!(reader.rows(FAMILY), ["of a|∅"]);
    let all = export(&both[0].conn, &VersionVector::new(), both[0].now).expect("export");
    import_changeset(&reader.conn, &all, both[0].now).expect("import");
    assert_eq!(reader.rows(FAMILY), ["of a|a"]);
    both.push(reader);
    converge(&mut both);
    assert_all(&both, FAMILY, &["of a|a"]);
}

#[test]
fn ids_that_sqlite_gives_again_while_a_parked_row_has_them_are_other_rows() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, tag, name UNIQUE);
        CREATE TABLE c(id INTEGER PRIMARY KEY, tag, parent INTEGER REFERENCES p,
            FOREIGN KEY(tag) REFERENCES p(tag))";
    let mut all = families::families(schema, &["c", "p"], 2);
    all[0].run("INSERT INTO p VALUES(1, 'a', 'x')");
    all[1].now += 1_000;
    all[1].run("INSERT INTO p VALUES(2, 'b', 'x'); INSERT INTO c VALUES(2, 'of b', 2)");
    converge(&mut all);
    assert_all(&all, "SELECT id, tag FROM p", &["1|a"]);
    all[0].run(
        "INSERT INTO p(tag, name) VALUES('new', 'y');
         INSERT INTO c(tag, parent) VALUES('of new', last_insert_rowid())",
    );
    converge(&mut all);
    assert_all(&all, FAMILY, &["of b|∅", "of new|new"]);
    all[0].run("UPDATE p SET name = 'z' WHERE tag = 'a'");
    converge(&mut all);
    assert_all(&all, FAMILY, &["of b|b", "of new|new"]);
}

#[test]
fn a_row_waits_for_the_one_it_refers_to_under_whatever_id() {
    let held = "CREATE TABLE p(id INTEGER PRIMARY KEY, tag);
        CREATE TABLE c(id INTEGER PRIMARY KEY, tag, parent INTEGER REFERENCES p)";
    let mut all = vec![replica_of(held, &["c", "p"], &with_ids(Ids::Counted))];
    for _ in 1..3 {
        let mut next = replica("", &[]);
        next.pull(&all[0]);
        all.push(next);
    }
    for (replica, tag) in all.iter_mut().zip(["a", "b"]) {
        replica.run(&format!("INSERT INTO p VALUES(1, '{tag}')"));
        replica.run(&format!("INSERT INTO c VALUES(1, 'of {tag}', 1)"));
    }
    converge(&mut all);
    assert_all(&all, FAMILY, &["of a|a", "of b|b"]);
    all[0].run("DELETE FROM c WHERE tag = 'of b'; DELETE FROM p WHERE tag = 'b'");
    all[2].run("INSERT INTO c SELECT 7, 'late', id FROM p WHERE tag = 'b'");
    all[1].run("DELETE FROM c WHERE tag = 'of a'; DELETE FROM p WHERE tag = 'a'");
    converge(&mut all);
    assert_all(&all, "SELECT tag FROM p", &[]);
    assert_all(&all, "SELECT tag FROM c", &[]);
    let waiting = "SELECT row LIKE '%late%' FROM syncline_conflicts";
    assert_all(&all, waiting, &["1"]);
    assert_all(&all, "PRAGMA foreign_key_check", &[]);
    // Whoever made it makes it again, and what waited comes back.
    all[1].run("INSERT INTO p VALUES(1, 'b again')");
    converge(&mut all);
    assert_all(&all, FAMILY, &["late|b again"]);
    assert_all(&all, "SELECT count(*) FROM syncline_conflicts", &["0"]);
}

#[test]
fn a_bulk_of_children_stays_at_one_entry() {
    let mut both = families(2);
    both[0].run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
         INSERT INTO p SELECT i, i, nullif(i - 1, 0) FROM n;
         INSERT INTO c SELECT id, id, id FROM p",
    );
    converge(&mut both);
    assert_eq!((both[0].clock_entries(), both[1].clock_entries()), (2, 2));
    let broken = "SELECT count(*) FROM c LEFT JOIN p ON p.id = parent WHERE p.id IS NOT c.id";
    assert_all(&both, broken, &["0"]);
    assert_all(&both, "SELECT count(*) FROM p WHERE up = id - 1", &["999"]);
}

/// One write of a user's, to rows that are chosen among those that are seen.
#[derive(Clone, Debug)]
enum Step {
    AddParent(Option<i64>),
    AddChild(usize),
    Refer(usize, usize),
    Climb(usize, usize),
    Wander(usize, i64),
    RemoveParent(usize),
    RemoveChild(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0usize..9;
    prop_oneof![
        3 => prop::option::of(1i64..6).prop_map(Step::AddParent),
        3 => at().prop_map(Step::AddChild),
        2 => (at(), at()).prop_map(|(child, parent)| Step::Refer(child, parent)),
        2 => (at(), at()).prop_map(|(child, parent)| Step::Climb(child, parent)),
        1 => (at(), -1i64..8).prop_map(|(child, id)| Step::Wander(child, id)),
        2 => at().prop_map(Step::RemoveParent),
        1 => at().prop_map(Step::RemoveChild),
    ]
}

/// What one device does before anybody looks, or from whom it pulls.
#[derive(Clone, Debug)]
enum Turn {
    Write(Vec<Step>),
    Pull(usize),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        3 => prop::collection::vec(step(), 1..6).prop_map(Turn::Write),
        2 => (0usize..3).prop_map(Turn::Pull),
    ]
}

/// What a cell refers to, as its last writer saw it.
#[derive(Clone, Debug, PartialEq)]
enum Meant {
    Nobody,
    Row(String),
    /// A number that was written without looking.
    Number,
}

/// Rows by tags that nobody uses twice, and what refers to them.
#[derive(Default)]
struct Model {
    /// Which device made a parent, and the number that it got there.
    births: BTreeMap<String, (usize, i64)>,
    /// What was made last under a number of one device: that is the same row, if it was gone.
    latest: BTreeMap<(usize, i64), String>,
    parents: BTreeMap<String, Meant>,
    children: BTreeMap<String, Meant>,
    gone: BTreeSet<String>,
    /// Children that were ever given a number without looking.
    wandered: BTreeSet<String>,
    /// Those of them that a device may have seen refer to a row which made way for another.
    unsure: BTreeSet<String>,
}

/// What one device did since it last looked.
#[derive(Default)]
struct Window {
    /// Parents that were there before and are removed, by their ids.
    removed: BTreeMap<i64, String>,
    added: BTreeSet<String>,
}

impl Model {
    /// What replicas show of references: the tags of rows with those of what they refer to.
    fn shown(&self, of: &BTreeMap<String, Meant>) -> Vec<String> {
        let is_there = |tag: &&String| !self.gone.contains(*tag);
        let named = |(tag, meant): (&String, &Meant)| match meant {
            Meant::Row(row) => {
                let row = &self.latest[&self.births[row]];
                let row = if is_there(&row) { row } else { "∅" };
                Some(format!("{tag}|{row}"))
            }
            Meant::Nobody => Some(format!("{tag}|∅")),
            Meant::Number => None,
        };
        let rows = of.iter().filter(|(tag, _)| is_there(tag));
        rows.filter_map(named).collect()
    }

    fn numbers(&self) -> BTreeSet<String> {
        let all = self.children.iter();
        let wander = all.filter(|(_, meant)| **meant == Meant::Number);
        let wander = wander.map(|(tag, _)| tag);
        wander.chain(&self.unsure).cloned().collect()
    }

    /// Has cells of a device that hold the id of a removed row mean what has it, before anybody
    /// looks. Where that is gone as well, those that meant it mean the removed one.
    fn inherit(&mut self, replica: &Replica, at: usize, window: &Window) {
        for (id, former) in &window.removed {
            if self.births[former].0 == at {
                continue;
            }
            let holder = replica.rows(&format!("SELECT tag FROM p WHERE id = {id}"));
            let heir = Meant::Row(holder.first().unwrap_or(former).clone());
            let takes = |meant: &Meant| match meant {
                _ if !holder.is_empty() => true,
                Meant::Row(row) => window.added.contains(row),
                _ => false,
            };
            for tag in replica.rows(&format!("SELECT tag FROM p WHERE up = {id}")) {
                let meant = self.parents.get_mut(&tag);
                if let Some(meant) = meant.filter(|meant| takes(meant)) {
                    *meant = heir.clone();
                }
            }
            for tag in replica.rows(&format!("SELECT tag FROM c WHERE parent = {id}")) {
                let meant = self.children.get_mut(&tag);
                if let Some(meant) = meant.filter(|meant| takes(meant)) {
                    *meant = heir.clone();
                    if self.wandered.contains(&tag) {
                        self.unsure.insert(tag);
                    }
                }
            }
        }
    }

    /// Notes the numbers that new rows have after their device looked.
    fn number(&mut self, replica: &Replica, at: usize, window: &Window) {
        for tag in &window.added {
            let id = replica.rows(&format!("SELECT id FROM p WHERE tag = '{tag}'"));
            let id: Option<i64> = id.first().map(|id| id.parse().expect("ids are numbers"));
            if let Some(id @ 0..) = id {
                self.births.insert(tag.clone(), (at, id));
                self.latest.insert((at, id), tag.clone());
            }
        }
    }
}

fn tags(replica: &Replica, table: &str) -> Vec<String> {
    replica.rows(&format!("SELECT tag FROM {table} ORDER BY tag"))
}

/// Does what a step says and notes what is meant by it.
fn write(
    (replica, at): (&Replica, usize),
    (step, tag): (&Step, &str),
    window: &mut Window,
    model: &mut Model,
) {
    let (parents, children) = (tags(replica, "p"), tags(replica, "c"));
    let choose = |from: &[String], at: usize| from.get(at % from.len().max(1)).cloned();
    let meant = |row: Option<String>| row.map_or(Meant::Nobody, Meant::Row);
    let id = |row: &Option<String>| match row {
        Some(tag) => format!("(SELECT id FROM p WHERE tag = '{tag}')"),
        None => "NULL".to_owned(),
    };
    // What is there already is not written.
    let is_news = |table: &str, column: &str, row: &str, id: &str| {
        let same = format!("SELECT 1 FROM {table} WHERE tag = '{row}' AND {column} IS {id}");
        replica.rows(&same).is_empty()
    };
    let sql = match step {
        Step::AddParent(number) => {
            let number = number.map_or("NULL".to_owned(), |number| number.to_string());
            let insert = format!("INSERT OR IGNORE INTO p VALUES({number}, '{tag}', NULL)");
            replica.conn.execute_batch(&insert).expect(&insert);
            let id = replica.rows(&format!("SELECT id FROM p WHERE tag = '{tag}'"));
            if let Some(id) = id.first() {
                let birth = (at, id.parse().expect("ids are numbers"));
                model.parents.insert(tag.to_owned(), Meant::Nobody);
                model.births.insert(tag.to_owned(), birth);
                model.latest.insert(birth, tag.to_owned());
                window.added.insert(tag.to_owned());
            }
            return;
        }
        Step::AddChild(at) => {
            let parent = choose(&parents, *at);
            model.children.insert(tag.to_owned(), meant(parent.clone()));
            format!(
                "INSERT INTO c(tag, parent) VALUES('{tag}', {})",
                id(&parent)
            )
        }
        Step::Refer(child, at) | Step::Climb(child, at) => {
            let (table, column, rows, meanings) = match step {
                Step::Refer(..) => ("c", "parent", &children, &mut model.children),
                _ => ("p", "up", &parents, &mut model.parents),
            };
            let Some(row) = choose(rows, *child) else {
                return;
            };
            let parent = choose(&parents, *at);
            let id = id(&parent);
            if is_news(table, column, &row, &id) {
                meanings.insert(row.clone(), meant(parent));
                model.unsure.remove(&row);
            }
            format!("UPDATE {table} SET {column} = {id} WHERE tag = '{row}'")
        }
        Step::Wander(child, number) => {
            let Some(row) = choose(&children, *child) else {
                return;
            };
            if is_news("c", "parent", &row, &number.to_string()) {
                model.children.insert(row.clone(), Meant::Number);
                model.wandered.insert(row.clone());
            }
            format!("UPDATE c SET parent = {number} WHERE tag = '{row}'")
        }
        Step::RemoveParent(at) | Step::RemoveChild(at) => {
            let (table, rows) = match step {
                Step::RemoveParent(_) => ("p", &parents),
                _ => ("c", &children),
            };
            let Some(row) = choose(rows, *at) else {
                return;
            };
            model.gone.insert(row.clone());
            if table == "p" && !window.added.contains(&row) {
                let id = replica.rows(&format!("SELECT id FROM p WHERE tag = '{row}'"));
                let id = id[0].parse().expect("ids are numbers");
                window.removed.entry(id).or_insert(row.clone());
            }
            format!("DELETE FROM {table} WHERE tag = '{row}'")
        }
    };
    replica.conn.execute_batch(&sql).expect(&sql);
}

fn take(all: &mut [Replica], (at, turn): &(usize, Turn), time: usize, model: &mut Model) {
    all[*at].now = NOW + 100 * time as u64;
    match turn {
        Turn::Write(steps) => {
            let (replica, mut window) = (&all[*at], Window::default());
            for (nth, step) in steps.iter().enumerate() {
                let tag = format!("t{time}_{nth}");
                write((replica, *at), (step, &tag), &mut window, model);
            }
            model.inherit(replica, *at, &window);
            fold(&replica.conn, replica.now).expect("fold");
            model.number(replica, *at, &window);
        }
        Turn::Pull(from) if from != at => {
            let (left, right) = all.split_at_mut((*at).max(*from));
            let (low, high) = (&mut left[(*at).min(*from)], &mut right[0]);
            match at < from {
                true => low.pull(high),
                false => high.pull(low),
            };
        }
        Turn::Pull(_) => {}
    }
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn whatever_is_done_every_reference_names_the_row_that_was_meant(
        turns in prop::collection::vec((0usize..3, turn()), 1..30),
    ) {
        let mut all = families(3);
        let mut model = Model::default();
        for (time, turn) in turns.iter().enumerate() {
            take(&mut all, turn, time + 1, &mut model);
        }
        converge(&mut all);
        let numbers = model.numbers();
        for replica in &all {
            for table in ["SELECT * FROM p ORDER BY id", "SELECT * FROM c ORDER BY id"] {
                prop_assert_eq!(replica.rows(table), all[0].rows(table));
            }
            let ups = "SELECT p.tag, u.tag FROM p LEFT JOIN p AS u ON u.id = p.up ORDER BY p.tag";
            prop_assert_eq!(replica.rows(ups), model.shown(&model.parents));
            let told = |mut family: Vec<String>| {
                family.retain(|row| row.split('|').next().is_some_and(|tag| !numbers.contains(tag)));
                family
            };
            let family = told(replica.rows(FAMILY));
            prop_assert_eq!(family, told(model.shown(&model.children)));
        }
    }
}
