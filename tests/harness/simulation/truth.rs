//! What must be true of all nodes, while they work and when everybody has heard everything.

use syncline_engine::log::Heads;

use super::super::network::Weather;
use super::Simulation;

impl Simulation {
    /// Compares what a node shows with what it must show, knowing what it knows.
    pub(super) fn compare(&self, at: usize) {
        for shape in self.tables(at) {
            let (shown, expected) = (self.nodes[at].rows(&shape), self.ledger.rows(at, &shape));
            assert_eq!(shown, expected, "table {} of node {at}", shape.name);
        }
    }

    /// Lets everybody hear everything: starts all nodes, makes the network perfect and waits.
    ///
    /// Returns how many milliseconds that took.
    ///
    /// # Panics
    ///
    /// If it is not done after `ms_max`, or anything is not as it must be.
    pub(crate) fn settle(&mut self, ms_max: u64) -> u64 {
        self.partition(false);
        self.network.weather = Weather::calm(1);
        let began_ms = self.network.now_ms;
        for at in 0..self.nodes.len() {
            self.nodes[at].armed = None;
            self.start(at);
        }
        loop {
            for at in 0..self.nodes.len() {
                self.watch(at);
                self.retry(at);
            }
            let took_ms = self.network.now_ms - began_ms;
            if self.is_quiet() {
                self.check();
                return took_ms;
            }
            assert!(
                took_ms < ms_max,
                "not settled after {took_ms} ms: {}",
                self.differences()
            );
            self.run_for(500);
        }
    }

    /// Whether everybody has heard and merged everything.
    pub(crate) fn is_quiet(&self) -> bool {
        let first = &self.nodes[0].heads;
        self.nodes
            .iter()
            .all(|node| node.heads == *first && node.settled == *first)
    }

    fn differences(&mut self) -> String {
        let heads: Vec<_> = self.nodes.iter().map(|node| node.heads.clone()).collect();
        let count = |heads: &Heads| heads.iter().map(|(_, seq)| seq.number()).sum::<u64>();
        let mut text = String::new();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let (logged, merged) = (count(&heads[at]), count(&node.settled));
            let blocked = node.replica().log().blocked().expect("the log is read");
            text += &format!("\n{at}: {logged} logged, {merged} merged, {blocked:?} waits");
        }
        text
    }

    /// Checks all that must be true when everybody has heard everything.
    pub(crate) fn check(&mut self) {
        let truth: Vec<_> = self
            .shapes
            .iter()
            .map(|shape| self.ledger.truth(shape))
            .collect();
        let mut digests = Vec::new();
        for at in 0..self.nodes.len() {
            for (shape, truth) in self.shapes.iter().zip(&truth) {
                assert!(
                    self.nodes[at].has(shape),
                    "node {at} has no table {}",
                    shape.name
                );
                assert_eq!(
                    self.nodes[at].rows(shape),
                    *truth,
                    "{} of node {at}",
                    shape.name
                );
            }
            let unix_ms = self.unix_ms(at);
            let node = &mut self.nodes[at];
            digests.push(
                node.replica()
                    .digest(unix_ms)
                    .expect("the tables are read")
                    .to_string(),
            );
            let status = node.replica().log().status().expect("the log is read");
            assert!(status.blocked.is_empty(), "node {at} waits: {status:?}");
            let counts = (
                status.unapplied_count,
                status.refused_count,
                status.forks_count,
            );
            assert_eq!(
                counts,
                (0, 0, 0),
                "unapplied, refused and forked at node {at}"
            );
            node.check_integrity();
        }
        assert!(
            digests.windows(2).all(|pair| pair[0] == pair[1]),
            "{digests:?}"
        );
    }
}
