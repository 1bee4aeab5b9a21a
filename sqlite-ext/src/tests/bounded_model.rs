//! Random schedules of a bounded counter on three replicas, compared with a model that knows
//! nothing but which operations each replica has heard of.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::grant::{CounterCell, grant};

/// What somebody did to a row in one of its lives; odd lives are alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    /// The row was born or died: this is its life since.
    Life,
    Added(i64),
    Took(i64),
    /// The right to take this much was given to a replica.
    Granted(i64, usize),
}

/// Everything a replica heard of: the number of the step, the replica that did it, the row, its
/// life, and what was done.
type Heard = BTreeSet<(usize, usize, i64, u64, Deed)>;

fn life(heard: &Heard, row: i64) -> u64 {
    let of_row = heard.iter().filter(|deed| deed.2 == row);
    of_row.map(|deed| deed.3).max().unwrap_or(0)
}

fn deeds(heard: &Heard, row: i64) -> impl Iterator<Item = (usize, &Deed)> {
    let life = life(heard, row);
    let of_life = heard
        .iter()
        .filter(move |deed| (deed.2, deed.3) == (row, life));
    of_life.map(|deed| (deed.1, &deed.4))
}

fn total(heard: &Heard, row: i64) -> i64 {
    let change = |(_, deed): (usize, &Deed)| match deed {
        Deed::Added(amount) => *amount,
        Deed::Took(amount) => -*amount,
        Deed::Life | Deed::Granted(..) => 0,
    };
    deeds(heard, row).map(change).sum()
}

/// How much a replica may take, by all that it heard.
fn left(heard: &Heard, row: i64, own: usize) -> i64 {
    let change = |(by, deed): (usize, &Deed)| match deed {
        Deed::Added(amount) if by == own => *amount,
        Deed::Took(amount) if by == own => -*amount,
        Deed::Granted(amount, _) if by == own => -*amount,
        Deed::Granted(amount, to) if *to == own => *amount,
        _ => 0,
    };
    deeds(heard, row).map(change).sum()
}

#[derive(Clone, Debug)]
enum Step {
    Insert(i64),
    Delete,
    Add(i64, bool),
    Take(i64, bool),
    Grant(i64, usize),
    Pull(usize),
    /// What one replica did itself, without what it knew when it did.
    PullOwn(usize),
}

fn step() -> impl Strategy<Value = (usize, i64, Step)> {
    let step = prop_oneof![
        3 => (0i64..20).prop_map(Step::Insert),
        1 => Just(Step::Delete),
        3 => (1i64..9, any::<bool>()).prop_map(|(amount, folds)| Step::Add(amount, folds)),
        8 => (1i64..12, any::<bool>()).prop_map(|(amount, folds)| Step::Take(amount, folds)),
        5 => (0i64..9, 0usize..3).prop_map(|(amount, to)| Step::Grant(amount, to)),
        6 => (0usize..3).prop_map(Step::Pull),
        2 => (0usize..3).prop_map(Step::PullOwn),
    ];
    (0usize..3, 1i64..3, step)
}

struct Schedule {
    replicas: Vec<Replica>,
    heard: Vec<Heard>,
    /// Whether somebody heard of a deed and not of what its doer knew.
    has_gaps: bool,
    floor: i64,
    has_text_keys: bool,
}

impl Schedule {
    fn new(keys: &str, rest: &str, floor: i64) -> Self {
        let first = replica(
            &format!("CREATE TABLE t({keys}, n INTEGER NOT NULL{rest}"),
            &[],
        );
        let columns = format!(r#"{{"n":{{"bounded_counter":{{"floor":{floor}}}}}}}"#);
        let options = TableOptions::parse(&format!(r#"{{"columns":{columns}}}"#));
        track(&first.conn, "t", &options.expect("options"), NOW).expect("track");
        let mut replicas = vec![first];
        for _ in 0..2 {
            let mut other = replica("", &[]);
            other.pull(&replicas[0]);
            replicas.push(other);
        }
        // Nobody is granted anything of whom nothing ever arrived.
        for (at, replica) in replicas.iter_mut().enumerate().skip(1) {
            let table = format!("met{at}");
            let create = format!("CREATE TABLE {table}(id INTEGER PRIMARY KEY)");
            replica.conn.execute_batch(&create).expect("a table");
            track(&replica.conn, &table, &TableOptions::default(), replica.now).expect("track");
            replica.run(&format!("INSERT INTO {table} VALUES(1)"));
        }
        converge(&mut replicas);
        Schedule {
            replicas,
            heard: vec![Heard::new(); 3],
            has_gaps: false,
            floor,
            has_text_keys: keys.contains("TEXT"),
        }
    }

    fn take(&mut self, number: usize, (at, row, step): (usize, i64, Step)) {
        let life = life(&self.heard[at], row);
        let lives = !life.is_multiple_of(2);
        let left = left(&self.heard[at], row, at);
        let mut note = |life, deed| {
            self.heard[at].insert((number, at, row, life, deed));
        };
        match step {
            Step::Pull(from) => self.pull(at, from),
            Step::PullOwn(from) => self.pull_own(at, from),
            Step::Insert(n) if !lives => {
                note(life + 1, Deed::Life);
                note(life + 1, Deed::Added(n));
                let n = self.floor + n;
                self.replicas[at].run(&format!("INSERT INTO t(id, n) VALUES({row}, {n})"));
            }
            Step::Delete if lives => {
                note(life + 1, Deed::Life);
                self.replicas[at].run(&format!("DELETE FROM t WHERE id = {row}"));
            }
            Step::Add(amount, folds) if lives => {
                note(life, Deed::Added(amount));
                let add = format!("UPDATE t SET n = n + {amount} WHERE id = {row}");
                assert!(self.write(at, &add, folds), "{add}");
            }
            Step::Take(amount, folds) if lives => {
                if amount <= left {
                    note(life, Deed::Took(amount));
                }
                let take = format!("UPDATE t SET n = n - {amount} WHERE id = {row}");
                let is_taken = self.write(at, &take, folds);
                assert_eq!(is_taken, amount <= left, "{at} has {left}: {take}");
            }
            Step::Grant(amount, to) if lives => {
                let may = amount > 0 && amount <= left && to != at;
                if may {
                    note(life, Deed::Granted(amount, to));
                }
                let granted = self.grant(at, row, amount, to);
                assert_eq!(granted, may.then(|| left - amount), "{at} to {to}");
            }
            _ => return,
        }
        self.check(at);
    }

    fn write(&mut self, at: usize, sql: &str, folds: bool) -> bool {
        let replica = &mut self.replicas[at];
        let is_done = replica.conn.execute_batch(sql).is_ok();
        replica.now += 10;
        if folds {
            fold(&replica.conn, replica.now).expect("fold");
        }
        is_done
    }

    fn grant(&mut self, at: usize, row: i64, amount: i64, to: usize) -> Option<i64> {
        let to = site_id(&self.replicas[to].conn).expect("a site");
        let key = match self.has_text_keys {
            true => [Value::text(&row.to_string())],
            false => [Value::Integer(row)],
        };
        let counter = CounterCell {
            table: "t",
            key: &key,
            column: "n",
        };
        let replica = &mut self.replicas[at];
        replica.now += 10;
        grant(&replica.conn, counter, (amount, to), replica.now).ok()
    }

    fn pull(&mut self, at: usize, from: usize) {
        if from == at {
            return;
        }
        let heard = self.heard[from].clone();
        self.heard[at].extend(heard);
        let mut pulling = self.replicas.remove(at);
        pulling.pull(&self.replicas[if from > at { from - 1 } else { from }]);
        self.replicas.insert(at, pulling);
    }

    fn pull_own(&mut self, at: usize, from: usize) {
        if from == at {
            return;
        }
        self.has_gaps = true;
        let own = self.heard[from].iter().filter(|deed| deed.1 == from);
        let own: Vec<_> = own.cloned().collect();
        self.heard[at].extend(own);
        let source = &self.replicas[from];
        fold(&source.conn, source.now).expect("fold");
        let site = site_id(&source.conn).expect("a site");
        let now = source.now.max(self.replicas[at].now);
        let mut after = self.replicas[at].seen().version(site);
        while let Some(piece) = export_own(&source.conn, after, 50).expect("export") {
            after = piece.until.version(site);
            import_changeset(&self.replicas[at].conn, &piece, now).expect("import");
        }
    }

    /// Checks what a replica shows, and what it says may be taken there.
    fn check(&self, at: usize) {
        let select = "SELECT t.id, n, n - least FROM t LEFT JOIN syncline_rights
            ON json_extract(key, '$.id') = t.id ORDER BY 1";
        // What was inserted is listed from the next fold on.
        let rows = self.replicas[at].rows(select);
        let heard = &self.heard[at];
        let alive: Vec<i64> = (1..3)
            .filter(|row| !life(heard, *row).is_multiple_of(2))
            .collect();
        assert_eq!(rows.len(), alive.len(), "{rows:?}");
        for (row, found) in alive.into_iter().zip(rows) {
            let cells: Vec<i64> = found
                .split('|')
                .map(|cell| cell.parse().expect("numbers"))
                .collect();
            assert!(cells[1] >= self.floor, "{found}");
            assert_eq!((cells[0], cells[2]), (row, left(heard, row, at)), "{found}");
            if !self.has_gaps {
                assert_eq!(cells[1], self.floor + total(heard, row), "{found}");
            }
        }
    }
}

proptest! {
    #![proptest_config(few())]

    /// No schedule brings a value below its floor, on any replica at any moment; what was taken
    /// stays taken, and what was refused could not be had.
    #[test]
    fn bounded_counters_hold_in_any_schedule(
        keys in prop::sample::select(vec!["id INTEGER PRIMARY KEY", "id TEXT PRIMARY KEY"]),
        rest in prop::sample::select(vec![")", ", other)", ") WITHOUT ROWID"]),
        floor in prop::sample::select(vec![0, -7, 100]),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut schedule = Schedule::new(keys, rest, floor);
        for (number, step) in steps.into_iter().enumerate() {
            schedule.take(number, step);
        }
        let all: Heard = schedule.heard.iter().flatten().cloned().collect();
        schedule.heard = vec![all; 3];
        converge(&mut schedule.replicas);
        schedule.has_gaps = false;
        (0..3).for_each(|at| schedule.check(at));
    }
}
