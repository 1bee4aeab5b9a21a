//! Deletions that all have seen are forgotten, and nothing comes back.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

mod again;

/// Gives a replica a fixed name, so that two runs of one schedule can be compared.
fn named(mut replica: Replica, number: u8) -> Replica {
    prepare(&replica.conn).expect("prepared");
    let name = "UPDATE syncline_sites SET site_id = ?1 WHERE ordinal = 0";
    replica
        .conn
        .execute(name, [[number + 1; 16]])
        .expect("a name");
    replica.now = NOW;
    replica
}

impl Replica {
    fn vector(&self) -> VersionVector {
        version_vector(&self.conn).expect("vector")
    }

    fn send(&self, since: &VersionVector) -> Result<Changeset, ExportError> {
        let changes = export(&self.conn, since, self.now)?;
        Ok(Changeset::decode(&changes.encode()).expect("what was encoded is decoded"))
    }

    fn send_all(&self) -> Changeset {
        self.send(&VersionVector::new()).expect("all is exported")
    }

    fn take(&mut self, changes: &Changeset) -> Result<ImportReport, ImportError> {
        import_changeset(&self.conn, changes, self.now)
    }

    /// Takes what is new, or everything where it is behind.
    fn pull_or_join(&mut self, from: &Replica) -> VersionVector {
        let changes = match from.send(&self.seen()) {
            Err(ExportError::Collected) => from.send_all(),
            changes => changes.expect("export"),
        };
        self.take(&changes).expect("import");
        changes.until
    }

    fn collect(&self, members: &[VersionVector]) -> usize {
        collect(&self.conn, members, self.now).expect("collect")
    }

    fn deaths(&self) -> i64 {
        let count = "SELECT count(*) FROM syncline_clocks
            WHERE (lane = -2 OR lane <= -16) AND causal_length % 2 = 0";
        self.conn
            .query_row(count, [], |row| row.get(0))
            .expect("count")
    }

    fn table(&self) -> Vec<String> {
        self.rows("SELECT * FROM t ORDER BY id")
    }
}

/// Two replicas of a table with rows 1 to 4.
fn two(schema: &str) -> [Replica; 2] {
    let mut a = replica(schema, &["t"]);
    a.run("INSERT INTO t(id, a) VALUES('1', 1), ('2', 1), ('3', 1), ('4', 1)");
    let mut b = replica("", &[]);
    b.pull(&a);
    b.now = a.now;
    [a, b]
}

#[test]
fn what_all_have_seen_deleted_is_forgotten_and_the_digest_stays() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema);
        a.run("DELETE FROM t WHERE id IN ('2', '3')");
        let before = a.digest();
        assert_eq!(a.collect(&[b.vector()]), 0, "{kind}: b has not seen it");
        assert!(a.deaths() > 0, "{kind}");
        b.pull(&a);
        assert!(a.collect(&[b.vector()]) > 0, "{kind}");
        assert_eq!(a.deaths(), 0, "{kind}");
        assert_eq!(a.digest(), before, "{kind}");
        // The other one follows by itself.
        a.run("UPDATE t SET a = 2");
        b.pull(&a);
        assert_eq!(b.deaths(), 0, "{kind}");
        assert_eq!(a.digest(), b.digest(), "{kind}");
        assert_eq!(b.table(), ["1|2|d", "4|2|d"], "{kind}");
    }
}

#[test]
fn a_write_that_was_on_its_way_does_not_bring_a_row_back() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema);
        let whole = b.send_all();
        b.run("UPDATE t SET a = 'late' WHERE id = '2'");
        let edit = b.send(&a.vector()).expect("export");
        a.run("DELETE FROM t WHERE id = '2'");
        b.pull(&a);
        a.pull(&b);
        assert!(a.collect(&[b.vector()]) > 0, "{kind}");
        for stale in [&whole, &edit] {
            a.take(stale).expect("import");
            assert_eq!(a.table().len(), 3, "{kind}");
        }
        assert_eq!(a.digest(), b.digest(), "{kind}");
    }
}

#[test]
fn what_a_member_has_not_sent_yet_holds_the_collection_up() {
    let [mut a, mut b] = two(ALL_KINDS[1].1);
    a.run("DELETE FROM t WHERE id = '2'");
    b.pull(&a).run("UPDATE t SET a = 'not sent' WHERE id = '1'");
    let error = collect(&a.conn, &[b.vector()], a.now).expect_err("b knows more");
    assert!(matches!(error, CollectError::Unseen { .. }), "{error}");
    assert!(a.deaths() > 0);
    a.pull(&b);
    assert_eq!(a.collect(&[b.vector()]), 1);
}

#[test]
fn a_forgotten_key_can_be_used_again_while_others_remember() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema);
        let mut c = replica("", &[]);
        c.pull(&a);
        a.run("DELETE FROM t WHERE id = '2'");
        b.pull(&a);
        c.pull(&a);
        a.collect(&[b.vector(), c.vector()]);
        a.run("INSERT INTO t(id, a) VALUES('2', 'again')");
        // By way of another that has to follow first.
        b.pull(&a);
        c.pull(&b);
        for replica in [&b, &c] {
            assert_eq!(replica.rows("SELECT a FROM t WHERE id = '2'"), ["again"]);
            assert_eq!(replica.digest(), a.digest(), "{kind}");
        }
        c.now = a.now + 100;
        c.run("UPDATE t SET a = 'edited' WHERE id = '2'");
        a.pull(&c);
        assert_eq!(a.rows("SELECT a FROM t WHERE id = '2'"), ["edited"]);
        assert_eq!(a.digest(), c.digest(), "{kind}");
    }
}

#[test]
fn who_was_away_joins_again_and_keeps_what_it_wrote() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema);
        let mut away = replica("", &[]);
        away.pull(&a);
        a.run("DELETE FROM t WHERE id IN ('2', '3'); UPDATE t SET b = 'meanwhile' WHERE id = '1'");
        b.pull(&a);
        a.collect(&[b.vector()]);
        a.run("INSERT INTO t(id, a) VALUES('3', 'new')");
        away.now = a.now + 1_000;
        away.run(
            "UPDATE t SET a = 'unsent' WHERE id IN ('1', '2');
             INSERT INTO t(id, a) VALUES('9', 'unsent'); DELETE FROM t WHERE id = '4'",
        );
        let error = a.send(&away.seen()).expect_err("it lacks deletions");
        assert!(matches!(error, ExportError::Collected), "{error}");
        // A part is refused, whoever sends it.
        let mut part = a.send(&a.vector()).expect("export");
        part.since = away.vector().meet(&a.vector());
        let error = away.take(&part).expect_err("a part");
        assert!(matches!(error, ImportError::Collected), "{error}");

        a.now = away.now;
        away.take(&a.send_all()).expect("import");
        let expected = ["1|unsent|meanwhile", "3|new|d", "9|unsent|d"];
        assert_eq!(away.table(), expected, "{kind}");
        let mut all = [a, b, away];
        converge(&mut all);
        for replica in &all {
            assert_eq!(replica.table(), expected, "{kind}");
        }
    }
}

#[test]
fn who_was_away_forgets_lives_and_deaths_that_were_forgotten() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema);
        let mut away = replica("", &[]);
        a.run("DELETE FROM t WHERE id = '2'")
            .run("INSERT INTO t(id, a) VALUES('2', 'second life')");
        b.pull(&a);
        a.run("DELETE FROM t WHERE id = '3'");
        away.pull(&a);
        b.now = a.now + 5;
        // Both delete row 3, and the one whose deletion is away is not the later one.
        b.run("DELETE FROM t WHERE id IN ('2', '3')");
        a.pull(&b);
        b.pull(&a);
        a.now = b.now;
        assert!(a.collect(&[b.vector()]) > 0, "{kind}");
        a.run("INSERT INTO t(id, a) VALUES('2', 'forgotten')");
        away.now = a.now;
        away.pull_or_join(&a);
        assert_eq!(away.table(), ["1|1|d", "2|forgotten|d", "4|1|d"], "{kind}");
        assert_eq!(away.deaths(), 0, "{kind}");
        a.run("INSERT INTO t(id, a) VALUES('3', 'again')");
        away.pull(&a);
        assert_eq!(away.digest(), a.digest(), "{kind}");
    }
}

fn without_table(replica: &Replica) {
    replica
        .conn
        .execute_batch("SELECT syncline_untrack('t'); DROP TABLE t")
        .expect("the table is dropped");
}

fn with_table(replica: &Replica, schema: &str) -> Vec<String> {
    replica
        .conn
        .execute_batch(schema)
        .expect("the table is made");
    track(&replica.conn, "t", &TableOptions::default(), replica.now).expect("tracked");
    replica.rows("SELECT id || a FROM t ORDER BY id")
}

#[test]
fn who_was_away_without_the_table_gets_no_forgotten_row_later() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema);
        let mut away = replica("", &[]);
        away.pull(&a);
        without_table(&b);
        without_table(&away);
        a.run("INSERT INTO t(id, a) VALUES('5', 'x'), ('6', 'x')");
        b.pull(&a);
        away.pull(&a);
        a.run("DELETE FROM t WHERE id = '5'");
        b.pull(&a);
        a.collect(&[b.vector()]);
        a.run("INSERT INTO t(id, a) VALUES('7', 'x')");
        b.pull(&a);
        away.now = a.now;
        b.now = a.now;
        away.pull_or_join(&b);
        assert_eq!(with_table(&away, schema), ["6x", "7x"], "{kind}");
        assert_eq!(with_table(&b, schema), ["6x", "7x"], "{kind}");
    }
}

#[test]
fn cells_that_wait_for_a_column_do_not_bring_a_forgotten_row_to_a_newcomer() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema);
        a.run("ALTER TABLE t ADD COLUMN late; UPDATE t SET late = 'l' WHERE id IN ('1', '2')");
        b.pull(&a);
        a.run("DELETE FROM t WHERE id = '2'");
        b.pull(&a);
        b.collect(&[a.vector()]);
        let mut newcomer = replica("", &[]);
        newcomer.now = b.now;
        newcomer.pull(&b);
        assert_eq!(newcomer.table(), ["1|1|d", "3|1|d", "4|1|d"], "{kind}");
        // What waits for the column of a row that is there arrives.
        newcomer.run("ALTER TABLE t ADD COLUMN late");
        assert_eq!(newcomer.rows("SELECT late FROM t WHERE id = '1'"), ["l"]);
        assert_eq!(newcomer.digest(), a.digest(), "{kind}");
    }
}

#[test]
fn who_joins_again_gives_way_where_its_row_was_parked_too() {
    let schema = "CREATE TABLE t(id TEXT PRIMARY KEY, a UNIQUE)";
    let mut a = replica(schema, &["t"]);
    a.run("INSERT INTO t VALUES('1', 'same')");
    let mut b = replica("", &[]);
    b.pull(&a);
    let mut away = replica("", &[]);
    away.pull(&a);
    b.now = a.now + 100;
    b.run("DELETE FROM t; INSERT INTO t VALUES('2', 'same')");
    let mut late = replica("", &[]);
    late.pull(&a);
    away.pull(&b);
    // The parked row and the row it gave way to are deleted and forgotten meanwhile.
    a.pull(&b);
    a.run("DELETE FROM t WHERE id = '2'");
    b.pull(&a);
    a.collect(&[b.vector()]);
    a.run("INSERT INTO t VALUES('3', 'same')");
    for replica in [&mut away, &mut late] {
        replica.now = a.now;
        replica.pull_or_join(&a);
        assert_eq!(replica.table(), ["3|same"]);
        assert_eq!(replica.digest(), a.digest());
    }
}

#[test]
fn deletions_that_wait_for_their_table_are_forgotten_too() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema);
        without_table(&b);
        a.run("INSERT INTO t(id, a) VALUES('5', 'x'), ('6', 'x')");
        b.pull(&a);
        a.run("DELETE FROM t WHERE id = '5'");
        b.pull(&a);
        a.collect(&[b.vector()]);
        a.run("INSERT INTO t(id, a) VALUES('5', 'again')");
        b.pull(&a);
        assert_eq!(with_table(&b, schema), ["5again", "6x"], "{kind}");
    }
}

#[test]
fn the_function_takes_what_the_others_have_seen() {
    let [mut a, mut b] = two(ALL_KINDS[0].1);
    a.run("DELETE FROM t WHERE id = '2'");
    b.pull(&a);
    let collect = "SELECT syncline_collect(?1, syncline_version_vector())";
    let collected: i64 = a
        .conn
        .query_row(collect, [b.vector().encode()], |row| row.get(0))
        .expect("collect");
    assert_eq!(collected, 1);
    for nonsense in ["syncline_collect()", "syncline_collect('x')"] {
        let error = a
            .conn
            .query_row(&format!("SELECT {nonsense}"), [], |_| Ok(()))
            .expect_err(nonsense)
            .to_string();
        assert!(error.contains("each other replica"), "{error}");
    }
}

const KEYS: u8 = 6;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        at: usize,
        key: u8,
    },
    Edit {
        at: usize,
        key: u8,
        column: bool,
    },
    Delete {
        at: usize,
        key: u8,
    },
    Pull {
        into: usize,
        from: usize,
    },
    Hold {
        at: usize,
    },
    Deliver {
        to: usize,
        held: prop::sample::Index,
    },
    Collect {
        at: usize,
    },
}

fn step(replicas: usize) -> impl Strategy<Value = Step> {
    let at = 0..replicas;
    let key = 0..KEYS;
    prop_oneof![
        3 => (at.clone(), key.clone()).prop_map(|(at, key)| Step::Insert { at, key }),
        3 => (at.clone(), key.clone(), any::<bool>())
            .prop_map(|(at, key, column)| Step::Edit { at, key, column }),
        3 => (at.clone(), key).prop_map(|(at, key)| Step::Delete { at, key }),
        6 => (at.clone(), at.clone()).prop_map(|(into, from)| Step::Pull { into, from }),
        1 => at.clone().prop_map(|at| Step::Hold { at }),
        2 => (at.clone(), any::<prop::sample::Index>())
            .prop_map(|(to, held)| Step::Deliver { to, held }),
        4 => at.prop_map(|at| Step::Collect { at }),
    ]
}

/// Replicas, what each last heard that the others have seen, and what is on its way.
struct Schedule {
    replicas: Vec<Replica>,
    heard: Vec<Vec<VersionVector>>,
    held: Vec<Changeset>,
    /// The keys that each has known to be in use; deletions may have followed.
    used: Vec<BTreeSet<u8>>,
    collects: bool,
    /// Whether keys are used again after a deletion.
    reuses: bool,
    collected: usize,
}

impl Schedule {
    fn new(schema: &str, count: usize, collects: bool, reuses: bool) -> Self {
        let mut replicas = vec![named(replica("", &[]), 0)];
        replicas[0].conn.execute_batch(schema).expect("schema");
        track(&replicas[0].conn, "t", &with_ids(Ids::Shared), NOW).expect("tracked");
        replicas[0].run("INSERT INTO t(id, a) VALUES('0', 'first'), ('1', 'first')");
        for number in 1..count {
            let mut next = named(replica("", &[]), number as u8);
            next.now = replicas[0].now;
            next.pull(&replicas[0]);
            replicas.push(next);
        }
        Schedule {
            heard: vec![vec![VersionVector::new(); count]; count],
            used: vec![BTreeSet::from([0, 1]); count],
            replicas,
            held: Vec::new(),
            collects,
            reuses,
            collected: 0,
        }
    }

    fn pull(&mut self, into: usize, from: usize) {
        if into == from {
            return;
        }
        let since = self.replicas[into].seen();
        let changes = self.replicas[from].send(&since).expect("a member exports");
        self.replicas[into]
            .take(&changes)
            .expect("a member imports");
        self.heard[into][from] = changes.until.clone();
        self.held.push(changes);
        let used = self.used[from].clone();
        self.used[into].extend(used);
    }

    fn collect(&mut self, at: usize, members: usize) {
        if self.collects {
            let others = (0..members).filter(|other| *other != at);
            let heard: Vec<_> = others.map(|other| self.heard[at][other].clone()).collect();
            self.collected += self.replicas[at].collect(&heard);
        }
    }

    fn run(&mut self, number: usize, step: &Step, members: usize) {
        let now = NOW + 1_000 + 100 * number as u64;
        self.replicas
            .iter_mut()
            .for_each(|replica| replica.now = now);
        match step {
            Step::Insert { at, key } => {
                if self.reuses || !self.used[*at].contains(key) {
                    self.used[*at].insert(*key);
                    let insert =
                        format!("INSERT OR IGNORE INTO t(id, a) VALUES('{key}', {number})");
                    self.replicas[*at].run(&insert);
                }
            }
            Step::Edit { at, key, column } => {
                let column = if *column { "a" } else { "b" };
                let edit = format!("UPDATE t SET {column} = {number} WHERE id = '{key}'");
                self.replicas[*at].run(&edit);
            }
            Step::Delete { at, key } => {
                let delete = format!("DELETE FROM t WHERE id = '{key}'");
                self.replicas[*at].run(&delete);
            }
            Step::Pull { into, from } => self.pull(*into, *from),
            Step::Hold { at } => self.held.push(self.replicas[*at].send_all()),
            Step::Deliver { to, held } => {
                if !self.held.is_empty() {
                    let changes = &self.held[held.index(self.held.len())];
                    let taken = self.replicas[*to].take(changes);
                    assert!(
                        matches!(taken, Ok(_) | Err(ImportError::Gap { .. })),
                        "{taken:?}"
                    );
                }
            }
            Step::Collect { at } => self.collect(*at, members),
        }
    }

    /// Brings everything everywhere, and returns the table and the digest that all have.
    fn end(&mut self, count: usize) -> (Vec<String>, String) {
        for _ in 0..2 {
            for into in 0..count {
                (0..count).for_each(|from| self.pull(into, from));
            }
        }
        let found = |replica: &Replica| (replica.table(), replica.digest());
        let first = found(&self.replicas[0]);
        for at in 0..count {
            assert_eq!(found(&self.replicas[at]), first, "replica {at}");
            self.collect(at, count);
            if self.collects {
                assert_eq!(self.replicas[at].deaths(), 0);
            }
            assert_eq!(found(&self.replicas[at]), first, "replica {at}, collected");
        }
        first
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn collecting_changes_nothing_that_can_be_seen(
        kind in 0usize..3, steps in prop::collection::vec(step(3), 1..60),
    ) {
        let run = |collects| {
            let mut schedule = Schedule::new(ALL_KINDS[kind].1, 3, collects, false);
            for (number, step) in steps.iter().enumerate() {
                schedule.run(number, step, 3);
            }
            schedule.end(3)
        };
        prop_assert_eq!(run(true), run(false));
    }

    /// Where a key is used again, its lives are counted anew, so the digest may be another than
    /// without collection; it is one.
    #[test]
    fn replicas_agree_when_forgotten_keys_are_used_again(
        kind in 0usize..3, steps in prop::collection::vec(step(3), 1..60),
    ) {
        let mut schedule = Schedule::new(ALL_KINDS[kind].1, 3, true, true);
        for (number, step) in steps.iter().enumerate() {
            schedule.run(number, step, 3);
        }
        schedule.end(3);
    }

    #[test]
    fn who_comes_back_brings_nothing_back_and_loses_nothing(
        kind in 0usize..3,
        before in prop::collection::vec(step(3), 0..30),
        apart in prop::collection::vec(step(2), 1..40),
        unsent in prop::collection::vec((0u8..KEYS, any::<bool>()), 0..8),
    ) {
        let mut schedule = Schedule::new(ALL_KINDS[kind].1, 3, true, false);
        for (number, step) in before.iter().enumerate() {
            schedule.run(number, step, 3);
        }
        // The third one is given up by the others, and goes on writing. What it wrote and nobody
        // has is about its own rows, or edits of a column.
        let away = 2;
        (0..2).for_each(|at| schedule.pull(at, away));
        schedule.held.clear();
        for (number, step) in apart.iter().enumerate() {
            schedule.run(before.len() + number, step, 2);
        }
        schedule.pull(0, 1);
        let mut keys = Vec::new();
        for (number, (key, inserts)) in unsent.iter().enumerate() {
            let write = if *inserts {
                keys.push(format!("{}", 100 + number));
                format!("INSERT INTO t(id, a) VALUES('{}', 'unsent')", 100 + number)
            } else {
                format!("UPDATE t SET a = 'unsent {number}' WHERE id = '{key}'")
            };
            schedule.replicas[away].run(&write);
        }
        let ids = "SELECT id FROM t WHERE length(id) = 1 ORDER BY id";
        let alive = schedule.replicas[0].rows(ids);
        schedule.replicas.iter_mut().for_each(|replica| replica.now += 1_000_000);
        let [first, second, third] = &mut schedule.replicas[..] else {
            unreachable!("three were made");
        };
        third.pull_or_join(first);
        prop_assert_eq!(&third.rows(ids), &alive);
        for _ in 0..2 {
            first.pull_or_join(third);
            second.pull_or_join(first);
            third.pull_or_join(second);
        }
        for replica in [&*first, second, third] {
            prop_assert_eq!(replica.digest(), first.digest());
            prop_assert_eq!(replica.table(), first.table());
            prop_assert_eq!(&replica.rows(ids), &alive);
            prop_assert_eq!(&replica.rows("SELECT id FROM t WHERE length(id) > 1"), &keys);
        }
    }
}
