//! Replicas of one schema, the steps that happen to them, and the account of what is owed.

mod schema;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use rusqlite::{Connection, OptionalExtension};
use syncline::{TableOptions, digest, export, fold, import, prepare, track, version_vector};
use syncline_crdt::EPOCH_UNIX_MS;

pub(crate) use schema::{Likes, Schema};

const NOON: u64 = EPOCH_UNIX_MS + 43_200_000;
const REPLICAS: usize = 3;
/// How often the replicas of one case meet.
pub(crate) const ROUNDS: usize = 16;

/// A schema and what happens, in rounds: after each, all replicas have heard of everything.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) schema: Schema,
    pub(crate) rounds: Vec<Vec<Step>>,
}

/// Something that happens at one replica.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A statement of the application's; the numbers choose rows and values.
    Write { at: usize, kind: u8, a: u8, b: u8 },
    /// One replica tells another what it lacks.
    Tell { from: usize, to: usize },
    /// What is pending is folded.
    Fold { at: usize },
    /// The schema changes at one replica, long before it does at the others.
    Change { at: usize, which: bool },
}

impl Case {
    pub(crate) fn any(enforces_keys: bool) -> impl Strategy<Value = Case> {
        let round = prop::collection::vec(Step::any(), 1..6);
        let rounds = prop::collection::vec(round, ROUNDS);
        (Schema::any(enforces_keys), rounds).prop_map(|(schema, rounds)| Case { schema, rounds })
    }
}

impl Step {
    fn any() -> impl Strategy<Value = Step> {
        let at = 0..REPLICAS;
        prop_oneof![
            6 => (at.clone(), any::<u8>(), 0u8..6, 0u8..6)
                .prop_map(|(at, kind, a, b)| Step::Write { at, kind, a, b }),
            3 => (at.clone(), 0..REPLICAS).prop_map(|(from, to)| Step::Tell { from, to }),
            1 => at.clone().prop_map(|at| Step::Fold { at }),
            1 => (at, any::<bool>()).prop_map(|(at, which)| Step::Change { at, which }),
        ]
    }
}

/// The replicas, and the account.
pub(crate) struct World {
    schema: Schema,
    replicas: Vec<Connection>,
    now: u64,
    tokens_count: u64,
    /// Tokens that were seen, and whether they are still owed.
    account: BTreeMap<String, bool>,
    /// What `likes` of the row with this token has to be.
    likes: BTreeMap<String, i64>,
    /// The changes of the schema that were made somewhere.
    changes: BTreeSet<bool>,
}

impl World {
    pub(crate) fn new(case: &Case) -> Self {
        let replicas = (0..REPLICAS).map(|_| {
            let conn = Connection::open_in_memory().expect("SQLite opens in memory");
            prepare(&conn).expect("the database becomes a replica");
            let on = if case.schema.enforces_keys {
                "ON"
            } else {
                "OFF"
            };
            conn.execute_batch(&format!("PRAGMA foreign_keys = {on}"))
                .expect("a pragma");
            conn
        });
        let mut world = World {
            schema: case.schema.clone(),
            replicas: replicas.collect(),
            now: NOON,
            tokens_count: 0,
            account: BTreeMap::new(),
            likes: BTreeMap::new(),
            changes: BTreeSet::new(),
        };
        // Tracked where it began, so that all replicas have one definition; elsewhere it arrives.
        world.replicas[0]
            .execute_batch(&world.schema.create())
            .expect("the schema is good");
        for (table, options) in world.schema.options() {
            let options = TableOptions::parse(&options).expect("the options are good");
            track(&world.replicas[0], table, &options, world.now).expect("the table is tracked");
        }
        for at in 1..REPLICAS {
            world.tell(0, at);
        }
        world
    }

    pub(crate) fn take(&mut self, step: &Step) {
        self.now += 3;
        match step {
            Step::Write { at, kind, a, b } => {
                self.write(*at, *kind, *a, *b);
                // A value that nobody looked at before it was overwritten was no extreme.
                if matches!(self.schema.likes(), Likes::Max | Likes::Min) {
                    fold(&self.replicas[*at], self.now).expect("what is pending folds");
                }
            }
            Step::Tell { from, to } => self.tell(*from, *to),
            Step::Fold { at } => {
                fold(&self.replicas[*at], self.now).expect("what is pending folds");
            }
            Step::Change { at, which } => {
                self.changes.insert(*which);
                self.change(*at, *which);
            }
        }
    }

    /// Changes the schema, if it is not changed yet.
    fn change(&self, at: usize, which: bool) {
        let done = self.replicas[at].execute_batch(Schema::change(which));
        let is_twice = |error: &rusqlite::Error| error.to_string().contains("duplicate column");
        assert!(done.as_ref().err().is_none_or(is_twice), "{done:?}");
    }

    /// Runs a statement, which SQLite may refuse, and books what it did to the tokens.
    fn write(&mut self, at: usize, kind: u8, a: u8, b: u8) {
        self.tokens_count += 1;
        let token = format!("{}-{}", at, self.tokens_count);
        let statement = self.schema.statement(kind, (a, b), &token);
        let before = self.shown(at);
        let likes_before = self.likes(at);
        // A refusal is the application's to hear: nothing happened then.
        let _ = self.replicas[at].execute_batch(&statement);
        let after = self.shown(at);
        for gone in before.difference(&after) {
            self.account.insert(gone.clone(), false);
        }
        for new in after.difference(&before) {
            self.account.entry(new.clone()).or_insert(true);
        }
        for (token, written) in self.likes(at) {
            let before = likes_before.get(&token).copied();
            if before != Some(written) {
                self.book(token, before, written);
            }
        }
    }

    /// Books that `likes` was written.
    fn book(&mut self, token: String, before: Option<i64>, written: i64) {
        let due = self
            .likes
            .entry(token)
            .or_insert(match self.schema.likes() {
                Likes::Counter => 0,
                _ => written,
            });
        *due = match self.schema.likes() {
            Likes::Last => written,
            Likes::Counter => *due + written - before.unwrap_or(0),
            Likes::Max => written.max(*due),
            Likes::Min => written.min(*due),
        };
    }

    fn tell(&mut self, from: usize, to: usize) {
        if from == to {
            return;
        }
        let since = version_vector(&self.replicas[to]).expect("a vector");
        let changes = export(&self.replicas[from], &since, self.now).expect("an export");
        import(&self.replicas[to], &changes.encode(), self.now).expect("an import");
    }

    /// Lets every replica have the same schema and hear of everything.
    pub(crate) fn meet(&mut self) {
        for at in 0..REPLICAS {
            self.changes
                .iter()
                .for_each(|which| self.change(at, *which));
        }
        for at in 0..REPLICAS {
            fold(&self.replicas[at], self.now).expect("what is pending folds");
        }
        // One hears of everything, and tells the others.
        for at in 1..REPLICAS {
            self.now += 3;
            self.tell(at, 0);
        }
        for at in 1..REPLICAS {
            self.now += 3;
            self.tell(0, at);
        }
    }

    /// Checks what must hold when all replicas have heard of everything.
    pub(crate) fn check(&self) -> Result<(), TestCaseError> {
        let digests: Vec<_> = (0..REPLICAS)
            .map(|at| digest(&self.replicas[at], self.now).expect("a digest"))
            .collect();
        let tables: Vec<_> = (0..REPLICAS).map(|at| self.dump(at)).collect();
        for at in 0..REPLICAS {
            prop_assert_eq!(&tables[0], &tables[at], "replica {} shows other rows", at);
            prop_assert_eq!(digests[0], digests[at], "replica {} has another digest", at);
            self.keeps_constraints(at)?;
            let owed = self.account.iter().filter(|(_, owed)| **owed);
            let owed: BTreeSet<String> = owed.map(|(token, _)| token.clone()).collect();
            let held: BTreeSet<String> = self.shown(at).union(&self.parked(at)).cloned().collect();
            prop_assert_eq!(&owed, &held, "replica {} lost or made rows", at);
            for (token, likes) in self.likes(at) {
                // Which of two writes is the last is not the account's to say.
                if self.schema.likes() != Likes::Last {
                    let due = self.likes.get(&token).copied();
                    prop_assert_eq!(due, Some(likes), "likes of {} at replica {}", token, at);
                }
            }
        }
        Ok(())
    }

    fn keeps_constraints(&self, at: usize) -> Result<(), TestCaseError> {
        let conn = &self.replicas[at];
        let orphan: Option<String> = conn
            .query_row(
                "SELECT \"table\" FROM pragma_foreign_key_check",
                [],
                |row| row.get(0),
            )
            .optional()
            .expect("a pragma");
        prop_assert_eq!(orphan, None, "replica {} shows an orphan", at);
        let verdict: String = conn
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .expect("a pragma");
        prop_assert_eq!(verdict, "ok", "replica {} is damaged", at);
        Ok(())
    }

    /// Returns the tokens in a replica's tables.
    fn shown(&self, at: usize) -> BTreeSet<String> {
        let tables = self.schema.tables().into_iter();
        tables
            .flat_map(|table| self.texts(at, &format!("SELECT token FROM {table}")))
            .collect()
    }

    /// Returns the tokens of the rows that are not shown.
    fn parked(&self, at: usize) -> BTreeSet<String> {
        let rows = "SELECT json_extract(row, '$.token') FROM syncline_conflicts
            WHERE state = 'parked'";
        self.texts(at, rows).into_iter().collect()
    }

    /// Returns `likes` by token.
    fn likes(&self, at: usize) -> BTreeMap<String, i64> {
        let select = "SELECT token, likes FROM track WHERE likes IS NOT NULL";
        let mut statement = self.replicas[at].prepare(select).expect("a query");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.expect("a query")
            .collect::<Result<_, _>>()
            .expect("rows")
    }

    fn texts(&self, at: usize, select: &str) -> Vec<String> {
        let mut statement = self.replicas[at].prepare(select).expect("a query");
        let rows = statement.query_map([], |row| row.get(0)).expect("a query");
        rows.collect::<Result<_, _>>().expect("rows of texts")
    }

    /// Returns all rows of a replica's tables as text.
    fn dump(&self, at: usize) -> Vec<String> {
        let conn = &self.replicas[at];
        let mut lines = Vec::new();
        for table in self.schema.tables() {
            let mut statement = conn
                .prepare(&format!("SELECT * FROM {table}"))
                .expect("a query");
            let width = statement.column_count();
            let mut rows = statement.query([]).expect("a query");
            while let Some(row) = rows.next().expect("a row") {
                let cells = (0..width).map(|at| format!("{:?}", row.get_ref(at).expect("a cell")));
                lines.push(format!("{table}: {}", cells.collect::<Vec<_>>().join(", ")));
            }
        }
        lines.sort();
        lines
    }
}
