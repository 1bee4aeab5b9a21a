//! Random writes to columns with policies on three replicas, compared with a model that knows
//! nothing but which operations each replica has heard of.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What somebody did to a row in one of its lives; odd lives are alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    /// The row was born or died: this is its life since.
    Life,
    Added(i64),
    High(i64),
    /// An element was added, if the number is odd, or removed.
    Element(u8, u64),
    /// A word that nobody else wrote was appended to the text.
    Word,
}

/// Everything a replica heard of: the number of the step, the row, its life, and what was done.
type Heard = BTreeSet<(usize, i64, u64, Deed)>;

/// A row as it should be shown: the sum, the greatest value, the set, and the words of its text.
type Shown = (i64, i64, BTreeSet<u8>, BTreeSet<usize>);

fn life(heard: &Heard, row: i64) -> u64 {
    let of_row = heard.iter().filter(|deed| deed.1 == row);
    of_row.map(|deed| deed.2).max().unwrap_or(0)
}

fn lengths(heard: &Heard, row: i64) -> BTreeMap<u8, u64> {
    let mut lengths = BTreeMap::new();
    let life = life(heard, row);
    for (_, _, _, deed) in heard.iter().filter(|deed| (deed.1, deed.2) == (row, life)) {
        if let Deed::Element(element, length) = deed {
            let known: &mut u64 = lengths.entry(*element).or_default();
            *known = (*known).max(*length);
        }
    }
    lengths
}

fn shown(heard: &Heard, row: i64) -> Option<Shown> {
    let life = life(heard, row);
    if life.is_multiple_of(2) {
        return None;
    }
    let (mut sum, mut high, mut words) = (0, i64::MIN, BTreeSet::new());
    for (step, _, _, deed) in heard.iter().filter(|deed| (deed.1, deed.2) == (row, life)) {
        match deed {
            Deed::Added(amount) => sum += amount,
            Deed::High(value) => high = high.max(*value),
            Deed::Word => {
                words.insert(*step);
            }
            Deed::Life | Deed::Element(..) => {}
        }
    }
    let elements = lengths(heard, row).into_iter();
    let elements = elements.filter(|(_, length)| !length.is_multiple_of(2));
    Some((
        sum,
        high,
        elements.map(|(element, _)| element).collect(),
        words,
    ))
}

#[derive(Clone, Debug)]
enum Step {
    Insert(i64, i64),
    Delete,
    Add(i64),
    High(i64),
    Toggle(u8),
    Append,
    Pull(usize),
}

fn step() -> impl Strategy<Value = (usize, i64, Step)> {
    let step = prop_oneof![
        3 => (-9i64..9, -9i64..9).prop_map(|(n, high)| Step::Insert(n, high)),
        1 => Just(Step::Delete),
        3 => (-9i64..9).prop_map(Step::Add),
        2 => (-9i64..9).prop_map(Step::High),
        3 => (0u8..4).prop_map(Step::Toggle),
        3 => Just(Step::Append),
        5 => (0usize..3).prop_map(Step::Pull),
    ];
    (0usize..3, 1i64..4, step)
}

struct Schedule {
    replicas: Vec<Replica>,
    heard: Vec<Heard>,
    keys: &'static str,
}

impl Schedule {
    fn new(keys: &'static str) -> Self {
        let schema = format!(
            "CREATE TABLE t({keys}, n INTEGER NOT NULL, high INTEGER, tags TEXT, body TEXT)"
        );
        let first = replica(&schema, &[]);
        let columns = r#"{"n":"counter","high":"max","tags":"set","body":"text"}"#;
        let options = TableOptions::parse(&format!(r#"{{"columns":{columns}}}"#));
        track(&first.conn, "t", &options.expect("options"), NOW).expect("track");
        let mut replicas = vec![first];
        for _ in 0..2 {
            let mut other = replica("", &[]);
            other.pull(&replicas[0]);
            replicas.push(other);
        }
        Schedule {
            replicas,
            heard: vec![Heard::new(); 3],
            keys,
        }
    }

    fn take(&mut self, number: usize, (at, row, step): (usize, i64, Step)) {
        let before = shown(&self.heard[at], row);
        let life = life(&self.heard[at], row);
        let mut note = |life, deed| {
            self.heard[at].insert((number, row, life, deed));
        };
        let sql = match (step, before) {
            (Step::Pull(from), _) => {
                if from != at {
                    let heard = self.heard[from].clone();
                    self.heard[at].extend(heard);
                    let mut pulling = self.replicas.remove(at);
                    let from = if from > at { from - 1 } else { from };
                    pulling.pull(&self.replicas[from]);
                    self.replicas.insert(at, pulling);
                }
                return;
            }
            (Step::Insert(n, high), None) => {
                for deed in [Deed::Life, Deed::Added(n), Deed::High(high), Deed::Word] {
                    note(life + 1, deed);
                }
                format!("INSERT INTO t VALUES({row}, {n}, {high}, NULL, '{number} ')")
            }
            (Step::Delete, Some(_)) => {
                note(life + 1, Deed::Life);
                format!("DELETE FROM t WHERE id = {row}")
            }
            (Step::Add(amount), Some(_)) => {
                note(life, Deed::Added(amount));
                format!("UPDATE t SET n = n + {amount} WHERE id = {row}")
            }
            (Step::High(value), Some(_)) => {
                note(life, Deed::High(value));
                format!("UPDATE t SET high = {value} WHERE id = {row}")
            }
            (Step::Append, Some(_)) => {
                note(life, Deed::Word);
                format!("UPDATE t SET body = body || '{number} ' WHERE id = {row}")
            }
            (Step::Toggle(element), Some((_, _, mut elements, _))) => {
                let length = lengths(&self.heard[at], row).get(&element).copied();
                let deed = Deed::Element(element, length.unwrap_or(0) + 1);
                self.heard[at].insert((number, row, life, deed));
                if !elements.remove(&element) {
                    elements.insert(element);
                }
                let tags: Vec<u8> = elements.into_iter().rev().collect();
                format!("UPDATE t SET tags = '{tags:?}' WHERE id = {row}")
            }
            _ => return,
        };
        self.replicas[at].run(&sql);
        self.check(at);
    }

    fn check(&self, at: usize) {
        let rows = self.replicas[at].rows("SELECT id, n, high, tags, body FROM t ORDER BY id");
        let mut expected = Vec::new();
        for row in 1..4 {
            if let Some((n, high, elements, words)) = shown(&self.heard[at], row) {
                expected.push((format!("{row}|{n}|{high}"), elements, words));
            }
        }
        let found = rows.iter().map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            let tags = if cells[3] == "∅" { "[]" } else { cells[3] };
            let tags = serde_json::from_str(tags).expect("a set is JSON");
            let words = cells[4].split_whitespace();
            let words = words.map(|word| word.parse().expect("words are whole"));
            (cells[..3].join("|"), tags, words.collect())
        });
        let found: Vec<_> = found.collect();
        assert_eq!(found, expected, "replica {at} with {}", self.keys);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Nothing that anybody added is lost or counted twice, and all replicas show the same.
    #[test]
    fn columns_that_join_lose_nothing_in_any_schedule(
        keys in prop::sample::select(vec!["id INTEGER PRIMARY KEY", "id TEXT PRIMARY KEY"]),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let mut schedule = Schedule::new(keys);
        for (number, step) in steps.into_iter().enumerate() {
            schedule.take(number, step);
        }
        let all: Heard = schedule.heard.iter().flatten().cloned().collect();
        schedule.heard = vec![all; 3];
        converge(&mut schedule.replicas);
        (0..3).for_each(|at| schedule.check(at));
    }
}
