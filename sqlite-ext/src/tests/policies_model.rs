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
    /// A word was appended to the text; nobody else wrote it, but for the default.
    Word(usize),
}

/// Everything a replica heard of: the number of the step, the row, its life, and what was done.
type Heard = BTreeSet<(usize, i64, u64, Deed)>;

/// A row as it should be shown: the sum, the greatest value if there is one, the set, and the words
/// of its text.
type Shown = (i64, Option<i64>, BTreeSet<u8>, BTreeSet<usize>);

/// What a row has in the columns that an insertion leaves out.
const DEFAULTS: (i64, i64, u8, usize) = (7, 3, 9, 1000);

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
    let (mut sum, mut high, mut words) = (0, None, BTreeSet::new());
    for (_, _, _, deed) in heard.iter().filter(|deed| (deed.1, deed.2) == (row, life)) {
        match deed {
            Deed::Added(amount) => sum += amount,
            Deed::High(value) => high = high.max(Some(*value)),
            Deed::Word(word) => {
                words.insert(*word);
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
    /// A row that has what its table's declaration says.
    InsertDefaults,
    Delete,
    Add(i64),
    High(i64),
    Toggle(u8),
    Append,
    Pull(usize),
    /// Takes what another replica wrote itself, and nothing of what it has from others.
    PullOwn(usize),
}

fn step() -> impl Strategy<Value = (usize, i64, Step)> {
    let step = prop_oneof![
        3 => (-9i64..9, -9i64..9).prop_map(|(n, high)| Step::Insert(n, high)),
        2 => Just(Step::InsertDefaults),
        1 => Just(Step::Delete),
        3 => (-9i64..9).prop_map(Step::Add),
        2 => (-9i64..9).prop_map(Step::High),
        3 => (0u8..4).prop_map(Step::Toggle),
        3 => Just(Step::Append),
        5 => (0usize..3).prop_map(Step::Pull),
        4 => (0usize..3).prop_map(Step::PullOwn),
    ];
    (0usize..3, 1i64..3, step)
}

struct Schedule {
    replicas: Vec<Replica>,
    heard: Vec<Heard>,
    /// Who took each step.
    authors: Vec<usize>,
    /// Which replicas may lack what something that they have was made in knowledge of.
    has_holes: [bool; 3],
    keys: &'static str,
}

impl Schedule {
    fn new(keys: &'static str, is_not_null: bool) -> Self {
        let (n, high, element, word) = DEFAULTS;
        let null = if is_not_null { "NOT NULL" } else { "" };
        let schema = format!(
            "CREATE TABLE t({keys}, n INTEGER {null} DEFAULT {n}, high INTEGER DEFAULT {high},
             tags TEXT {null} DEFAULT '[{element}]', body TEXT {null} DEFAULT '{word} ')"
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
            authors: Vec::new(),
            has_holes: [false; 3],
            keys,
        }
    }

    fn take(&mut self, number: usize, (at, row, step): (usize, i64, Step)) {
        self.authors.push(at);
        let before = shown(&self.heard[at], row);
        let life = life(&self.heard[at], row);
        let mut note = |life, deed| {
            self.heard[at].insert((number, row, life, deed));
        };
        let word = Deed::Word(number);
        let sql = match (step, before) {
            (Step::Pull(from), _) => return self.pull(at, from),
            (Step::PullOwn(from), _) => return self.pull_own(at, from),
            (Step::Insert(n, high), None) => {
                for deed in [Deed::Life, Deed::Added(n), Deed::High(high), word] {
                    note(life + 1, deed);
                }
                format!("INSERT INTO t VALUES({row}, {n}, {high}, '[]', '{number} ')")
            }
            (Step::InsertDefaults, None) => {
                let (n, high, element, word) = DEFAULTS;
                let (element, word) = (Deed::Element(element, 1), Deed::Word(word));
                for deed in [Deed::Life, Deed::Added(n), Deed::High(high), element, word] {
                    note(life + 1, deed);
                }
                format!("INSERT INTO t(id) VALUES({row})")
            }
            (Step::Delete, Some(_)) => {
                note(life + 1, Deed::Life);
                format!("DELETE FROM t WHERE id = {row}")
            }
            (Step::Add(amount), Some(_)) if amount != 0 => {
                note(life, Deed::Added(amount));
                format!("UPDATE t SET n = ifnull(n, 0) + {amount} WHERE id = {row}")
            }
            (Step::High(value), Some((_, high, _, _))) => {
                // What is not beyond what is shown does not count as written.
                if high.is_none_or(|high| value > high) {
                    note(life, Deed::High(value));
                }
                format!("UPDATE t SET high = {value} WHERE id = {row}")
            }
            (Step::Append, Some(_)) => {
                note(life, word);
                format!("UPDATE t SET body = ifnull(body, '') || '{number} ' WHERE id = {row}")
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

    /// Calls `pull` with a replica and another one that it takes something from.
    fn between(&mut self, at: usize, from: usize, pull: impl Fn(&mut Replica, &Replica)) {
        let mut pulling = self.replicas.remove(at);
        pull(
            &mut pulling,
            &self.replicas[if from > at { from - 1 } else { from }],
        );
        self.replicas.insert(at, pulling);
        self.check(at);
    }

    fn pull(&mut self, at: usize, from: usize) {
        if from == at {
            return;
        }
        let heard = self.heard[from].clone();
        self.heard[at].extend(heard);
        self.has_holes[at] |= self.has_holes[from];
        self.between(at, from, |pulling, from| {
            pulling.pull(from);
        });
    }

    /// What a replica wrote to a life that somebody else ended is not in what it wrote itself, so
    /// nothing is pulled where a row died.
    fn pull_own(&mut self, at: usize, from: usize) {
        if from == at || self.heard[from].iter().any(|(_, _, life, _)| *life > 1) {
            return;
        }
        let heard = self.heard[from].iter();
        let own = heard.filter(|deed| self.authors[deed.0] == from);
        let own: Heard = own.cloned().collect();
        self.heard[at].extend(own);
        self.has_holes[at] = true;
        self.between(at, from, |pulling, from| {
            let site = site_id(&from.conn).expect("a site");
            let after = pulling.seen().version(site);
            let own = export_own(&from.conn, after, u64::MAX).expect("export");
            let now = pulling.now.max(from.now);
            let merged = own.map(|own| import_changeset(&pulling.conn, &own, now));
            merged.transpose().expect("import");
        });
    }

    fn check(&self, at: usize) {
        let rows =
            self.replicas[at].rows("SELECT id, ifnull(n, 0), high, tags, body FROM t ORDER BY id");
        let mut expected = Vec::new();
        for row in 1..3 {
            if let Some((n, high, elements, words)) = shown(&self.heard[at], row) {
                let high = high.map_or("∅".to_owned(), |high| high.to_string());
                expected.push((format!("{row}|{n}|{high}"), elements, words));
            }
        }
        let found = rows.iter().map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            let tags = if cells[3] == "∅" { "[]" } else { cells[3] };
            let tags = serde_json::from_str(tags).expect("a set is JSON");
            let body = if cells[4] == "∅" { "" } else { cells[4] };
            let words = body.split_whitespace();
            let words = words.map(|word| word.parse().expect("words are whole"));
            (
                cells[..3].join("|"),
                tags,
                words.collect::<BTreeSet<usize>>(),
            )
        });
        let mut found: Vec<_> = found.collect();
        if self.has_holes[at] {
            // An edit of a text waits for those that it was made in knowledge of.
            expected.iter_mut().for_each(|row| row.2.clear());
            found.iter_mut().for_each(|row| row.2.clear());
        }
        assert_eq!(found, expected, "replica {at} with {}", self.keys);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Nothing that anybody added is lost or counted twice, and all replicas show the same.
    #[test]
    fn columns_that_join_lose_nothing_in_any_schedule(
        keys in prop::sample::select(vec!["id INTEGER PRIMARY KEY", "id TEXT PRIMARY KEY"]),
        is_not_null: bool,
        known_count in 0usize..3,
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let mut schedule = Schedule::new(keys, is_not_null);
        // With these, one replica has a row that the second made and the third has not heard of.
        let known = [(0, 1, Step::InsertDefaults), (1, 1, Step::Pull(0))];
        let known = known.into_iter().take(known_count);
        for (number, step) in known.chain(steps).enumerate() {
            schedule.take(number, step);
        }
        let all: Heard = schedule.heard.iter().flatten().cloned().collect();
        schedule.heard = vec![all; 3];
        schedule.has_holes = [false; 3];
        converge(&mut schedule.replicas);
        (0..3).for_each(|at| schedule.check(at));
    }
}
