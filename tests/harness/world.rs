//! Replicas and the model side by side: everything is done to both, and compared.

use fastrand::Rng;
use syncline_crdt::{Changeset, VersionVector};
use syncline_sqlite::ImportError;

use super::model::{Model, Seen};
use super::operation::Transaction;
use super::replica::Replica;
use super::shape::Shape;

/// The replicas of one schedule.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) random: Rng,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) model: Model,
}

/// Changes on their way.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    /// What a reader has seen afterwards that had seen all before it.
    pub(crate) carries: Seen,
}

impl World {
    /// Makes replicas, of which those from `tracking` on begin without tables.
    pub(crate) fn new(random: Rng, shapes: &[Shape], count: usize, tracking: usize) -> Self {
        let mut model = Model::new(shapes);
        let made = (0..count).map(|at| {
            let replica = Replica::new(if at < tracking { shapes } else { &[] });
            model.add(replica.site.0);
            replica
        });
        World {
            random,
            shapes: shapes.to_vec(),
            replicas: made.collect(),
            model,
        }
    }

    /// Picks a replica.
    pub(crate) fn any(&mut self) -> usize {
        self.random.usize(..self.replicas.len())
    }

    /// Runs a random transaction at a replica.
    pub(crate) fn write(&mut self, at: usize) {
        let replica = &self.replicas[at];
        let here = self.shapes.iter().filter(|shape| replica.has(shape));
        let here: Vec<Shape> = here.copied().collect();
        if here.is_empty() {
            return;
        }
        let transaction = Transaction::draw(&mut self.random, &here);
        let (says, expected) = (replica.run(&transaction), self.model.run(at, &transaction));
        assert_eq!(says, expected, "which are refused of {transaction:?}");
        self.compare(at);
    }

    /// Folds what a replica wrote.
    pub(crate) fn fold(&mut self, at: usize) {
        let version = self.replicas[at].fold();
        match version {
            Some(version) => self.model.fold(at, version.to_bits()),
            None => assert!(!self.model.has_news(at), "replica {at} folds nothing"),
        }
    }

    /// Exports what a reader lacks that has seen `since`.
    pub(crate) fn export(&mut self, at: usize, since: &VersionVector) -> Message {
        self.fold(at);
        Message {
            bytes: self.replicas[at].export(since),
            carries: self.model.seen(at),
        }
    }

    /// Takes an entry from the log of a replica's own changes.
    pub(crate) fn entry(&mut self, at: usize, entry: usize) -> Option<Message> {
        let entry = self.replicas[at].log.get(entry)?;
        Some(Message {
            bytes: entry.bytes.clone(),
            carries: self.model.own(at, entry.until.to_bits()),
        })
    }

    /// Imports a message, or sees it refused when something before it is missing.
    pub(crate) fn import(&mut self, at: usize, message: &Message) {
        self.fold(at);
        let replica = &mut self.replicas[at];
        let changes = Changeset::decode(&message.bytes).expect("it was encoded here");
        let is_due = replica.seen().covers(&changes.since);
        let result = syncline_sqlite::import(&replica.conn, &message.bytes, replica.now);
        if is_due {
            result.expect("a changeset that is due is taken in");
            self.model.join(at, &message.carries);
        } else {
            let error = result.expect_err("a changeset that is not due is refused");
            assert!(matches!(error, ImportError::Gap { .. }), "{error}");
        }
        // A table that arrived, or had waited, may be a change of this replica's own.
        self.replicas[at].log_own();
        self.compare(at);
    }

    /// Compares what a replica shows with the model.
    pub(crate) fn compare(&self, at: usize) {
        let replica = &self.replicas[at];
        for shape in self.shapes.iter().filter(|shape| replica.has(shape)) {
            let (shown, expected) = (replica.rows(shape), &self.model.tables(at)[shape.name]);
            assert_eq!(shown, *expected, "table {} of replica {at}", shape.name);
        }
    }

    /// Lets everyone hear everything, and compares all there is to compare.
    pub(crate) fn settle(&mut self) {
        let count = self.replicas.len();
        (1..count).for_each(|from| self.pull(0, from));
        (1..count).for_each(|to| self.pull(to, 0));
        for at in 0..self.replicas.len() {
            let replica = &self.replicas[at];
            replica.check_integrity();
            assert!(self.shapes.iter().all(|shape| replica.has(shape)));
            assert_eq!(self.model.tables(at), self.model.tables(0));
            assert_eq!(replica.seen(), self.replicas[0].seen());
            assert_eq!(replica.digest(), self.replicas[0].digest(), "replica {at}");
            let rest = replica.export(&self.replicas[0].seen());
            let rest = Changeset::decode(&rest).expect("it was encoded here");
            assert!(rest.is_empty(), "replica {at} has more to tell: {rest:?}");
        }
    }

    /// Lets one replica hear all that another has seen.
    pub(crate) fn pull(&mut self, to: usize, from: usize) {
        let since = self.replicas[to].seen();
        let message = self.export(from, &since);
        self.import(to, &message);
    }
}
