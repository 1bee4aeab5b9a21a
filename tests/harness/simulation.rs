//! Whole replicas on a simulated network, with the ledger beside them: everything is checked on it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fastrand::Rng;
use syncline_engine::log::{Position, Received, StreamRef};
use syncline_engine::session::{Input, MEMORY_BYTES_MAX, Output, Session};
use syncline_engine::trust::{DatabaseSecret, EpochKey, Genesis, PublicKey, Seq, StreamId};
use syncline_engine::{Replica, ReplicaError};

use super::ledger::Ledger;
use super::network::{Event, Network, Side, Weather};
use super::node::{Crash, LogCopy, Node, bytes};
use super::operation::Transaction;
use super::shape::Shape;
use trace::{Trace, brief};

mod trace;
mod truth;

/// How long after a broken link two nodes try again.
const RELINK_MS: u64 = 500;
/// Envelopes above this size are not told to everybody at once.
const GOSSIP_BYTES_MAX: usize = 64 << 10;

/// All replicas, all links, and what must be true.
pub(crate) struct Simulation {
    pub(crate) random: Rng,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node>,
    shapes: Vec<Shape>,
    ledger: Ledger,
    /// Which nodes know of each other, the smaller number first.
    pairs: Vec<Side>,
    talks: BTreeMap<Side, Talk>,
    links_count: u64,
    /// Which session of each node has the turn to pull.
    turns: Vec<Option<usize>>,
    /// What is to be told to sessions when the one at work waits.
    inputs: VecDeque<(Side, Input)>,
    copies: Vec<Option<(LogCopy, u64)>>,
    trace: Trace,
}

/// A node's process ended in the middle of something.
struct Crashed;

/// One side of a session.
struct Talk {
    session: Session,
    link: u64,
    /// When the session wants to be woken, in milliseconds of the simulation.
    deadline_ms: u64,
    /// Whether it waits for the turn to pull.
    wants: bool,
}

/// What a simulation is made of.
pub(crate) struct Plan<'a> {
    pub(crate) name: String,
    pub(crate) nodes_count: usize,
    /// How many of the nodes track the tables from the beginning.
    pub(crate) tracking_count: usize,
    pub(crate) shapes: &'a [Shape],
    pub(crate) pairs: Vec<Side>,
    pub(crate) weather: Weather,
}

impl Simulation {
    pub(crate) fn new(mut random: Rng, plan: Plan<'_>) -> Simulation {
        let creator = PublicKey(bytes(&mut random));
        let genesis = Genesis::new(creator, bytes(&mut random));
        let key = EpochKey::from_bytes(bytes(&mut random));
        let secret = Arc::new(DatabaseSecret::new(genesis, key));
        let mut ledger = Ledger::new(plan.shapes);
        let mut nodes = Vec::new();
        for at in 0..plan.nodes_count {
            let shapes = if at < plan.tracking_count {
                plan.shapes
            } else {
                &[]
            };
            let node = Node::new(&mut random, &secret, shapes);
            ledger.add(node.site.0, node.folded());
            nodes.push(node);
        }
        let mut simulation = Simulation {
            random,
            network: Network::new(plan.nodes_count, plan.weather),
            nodes,
            shapes: plan.shapes.to_vec(),
            ledger,
            pairs: plan.pairs,
            talks: BTreeMap::new(),
            links_count: 0,
            turns: vec![None; plan.nodes_count],
            inputs: VecDeque::new(),
            copies: (0..plan.nodes_count).map(|_| None).collect(),
            trace: Trace {
                name: plan.name,
                lines: VecDeque::new(),
            },
        };
        (0..plan.nodes_count).for_each(|at| simulation.start(at));
        simulation
    }

    /// Picks a node.
    pub(crate) fn any(&mut self) -> usize {
        self.random.usize(..self.nodes.len())
    }

    /// Picks two nodes that know of each other.
    pub(crate) fn any_pair(&mut self) -> Side {
        self.pairs[self.random.usize(..self.pairs.len())]
    }

    /// Returns the tables that a node has.
    pub(crate) fn tables(&self, at: usize) -> Vec<Shape> {
        self.shapes
            .iter()
            .filter(|shape| self.nodes[at].has(shape))
            .copied()
            .collect()
    }

    /// Runs a transaction.
    pub(crate) fn write(&mut self, at: usize, transaction: &Transaction) {
        self.note(|| format!("{at} writes {}", brief(transaction)));
        let is_inside = self.random.u8(..4) == 0;
        let says = self.nodes[at].run(is_inside, transaction);
        let expected = self.ledger.run(at, transaction);
        assert_eq!(says, expected, "which are refused of {transaction:?}");
    }

    /// Lets a node look whether anybody wrote, and tell what it finds.
    pub(crate) fn watch(&mut self, at: usize) {
        let Ok(sealed) = self.attempt(at, false, Replica::watch) else {
            return self.tell_sessions();
        };
        self.observe_fold(at);
        let expected = self.ledger.unsealed(at);
        // The first envelope tells of tables, too.
        let is_due = self.ledger.sealed(at) > 0 || !expected.is_empty();
        assert!(sealed.len() <= 1, "so few rows fit into one envelope");
        assert!(
            !is_due || expected.is_empty() == sealed.is_empty(),
            "{at} seals {expected:?}"
        );
        if !sealed.is_empty() {
            self.sealed(at, expected);
        }
        self.observe(at);
        for envelope in sealed
            .iter()
            .filter(|envelope| envelope.len() <= GOSSIP_BYTES_MAX)
        {
            self.gossip(at, envelope);
        }
        self.tell_sessions();
    }

    fn sealed(&mut self, at: usize, facts: Vec<usize>) {
        let stream = self.nodes[at].stream;
        let heads = self.nodes[at].replica().heads().expect("the log is read");
        let position = Position {
            stream,
            seq: heads.seq(&stream),
        };
        self.note(|| format!("{at} seals {} facts at {}", facts.len(), position.seq));
        self.ledger.seal(at, position, facts);
    }

    fn gossip(&mut self, from: usize, envelope: &[u8]) {
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            self.network.gossip(&mut self.random, (from, to), envelope);
        }
    }

    /// Lets a node try again what waited.
    pub(crate) fn retry(&mut self, at: usize) {
        let unix_ms = self.unix_ms(at);
        self.nodes[at]
            .replica()
            .retry(unix_ms)
            .expect("what waits is tried again");
        self.observe(at);
        self.tell_sessions();
    }

    /// Divides the network, or makes it whole.
    pub(crate) fn partition(&mut self, is_divided: bool) {
        self.note(|| format!("divided: {is_divided}"));
        match is_divided {
            true => self.network.partition(&mut self.random),
            false => self.network.heal(),
        }
    }

    /// Breaks the link of a pair; after a while the nodes try again.
    pub(crate) fn cut(&mut self, pair: Side) {
        self.note(|| format!("the link of {pair:?} breaks"));
        self.unlink(pair);
        self.tell_sessions();
    }

    /// Ends the two sessions of a pair.
    fn unlink(&mut self, (first, second): Side) {
        for (own, other) in [(first, second), (second, first)] {
            self.talks.remove(&(own, other));
            self.inputs.retain(|(side, _)| *side != (own, other));
            if self.turns[own] == Some(other) {
                self.turns[own] = None;
                self.grant(own);
            }
        }
        self.network.after(
            RELINK_MS,
            Event::Relink {
                side: (first, second),
            },
        );
    }

    fn relink(&mut self, side: Side) {
        let (own, other) = side;
        // A node that is down links itself when it starts.
        let is_down = !self.nodes[own].is_up() || !self.nodes[other].is_up();
        if is_down || self.talks.contains_key(&side) {
            return;
        }
        if self.network.is_divided(side) {
            return self.network.after(RELINK_MS, Event::Relink { side });
        }
        self.links_count += 1;
        let link = self.links_count;
        for (own, other) in [(own, other), (other, own)] {
            let steady_ms = self.nodes[own].steady_ms(self.network.now_ms);
            let session = Session::new(self.nodes[own].heads.clone(), steady_ms);
            let talk = Talk {
                session,
                link,
                deadline_ms: u64::MAX,
                wants: false,
            };
            self.talks.insert((own, other), talk);
        }
        self.drive((own, other));
        self.drive((other, own));
        self.tell_sessions();
    }

    /// Ends a node's process; its databases stay.
    pub(crate) fn stop(&mut self, at: usize) {
        self.end(at);
        self.tell_sessions();
    }

    fn end(&mut self, at: usize) {
        self.note(|| format!("{at} stops"));
        self.nodes[at].stop();
        for (first, second) in self.pairs.clone() {
            if first == at || second == at {
                self.unlink((first, second));
            }
        }
        self.turns[at] = None;
    }

    /// Begins a node's process, if it is not running.
    pub(crate) fn start(&mut self, at: usize) {
        if self.nodes[at].is_up() {
            return;
        }
        self.note(|| format!("{at} starts"));
        let stream = StreamId(bytes(&mut self.random));
        let now_ms = self.network.now_ms;
        self.nodes[at].start(stream, now_ms);
        self.observe_fold(at);
        // A log that is new begins with all that is in the tables.
        let heads = self.nodes[at].replica().heads().expect("the log is read");
        if heads.seq(&self.nodes[at].stream) != Seq::NONE {
            let current = self.ledger.current(at);
            self.sealed(at, current);
        }
        self.observe(at);
        for (first, second) in self.pairs.clone() {
            if first == at || second == at {
                self.relink((first, second));
            }
        }
    }

    /// Takes the log from a node that is down.
    pub(crate) fn lose_log(&mut self, at: usize) {
        self.note(|| format!("{at} loses its log"));
        self.copies[at] = None;
        self.nodes[at].lose_log();
        self.ledger.unseal(at, 0);
    }

    /// Keeps the log of a node as it is at this time.
    pub(crate) fn copy_log(&mut self, at: usize) {
        self.copies[at] = Some((self.nodes[at].copy_log(), self.ledger.sealed(at)));
    }

    /// Lets a node that is down lose what was added to its log since it was copied.
    pub(crate) fn revert_log(&mut self, at: usize) {
        if let Some((copy, sealed)) = self.copies[at].take() {
            self.note(|| format!("{at} loses the end of its log"));
            self.nodes[at].revert_log(copy);
            self.ledger.unseal(at, sealed);
        }
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, ms: u64) {
        let until_ms = self.network.now_ms + ms;
        while let Some(event) = self.network.next(until_ms) {
            self.happen(event);
        }
        self.network.now_ms = until_ms;
    }

    /// Lets the next thing happen; `false` if there is none until then.
    pub(crate) fn step(&mut self, until_ms: u64) -> bool {
        let event = self.network.next(until_ms);
        event.is_some_and(|event| {
            self.happen(event);
            true
        })
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Frame { to, link, bytes } => {
                let is_linked = self.talks.get(&to).is_some_and(|talk| talk.link == link);
                if is_linked && !self.network.is_divided(to) {
                    self.tell_session(to, Input::Frame(bytes));
                }
            }
            Event::Gossip { from, to, bytes } => {
                if self.nodes[to].is_up() && !self.network.is_divided((from, to)) {
                    self.receive(to, vec![bytes]);
                    self.tell_sessions();
                }
            }
            Event::Wake { side, link } => {
                let now_ms = self.network.now_ms;
                let is_due = |talk: &Talk| talk.link == link && talk.deadline_ms <= now_ms;
                if self.talks.get(&side).is_some_and(is_due) {
                    self.tell_session(side, Input::Tick);
                }
            }
            Event::Relink { side } => self.relink(side),
            Event::Start { at } => self.start(at),
        }
    }

    fn tell_session(&mut self, side: Side, input: Input) {
        self.inputs.push_back((side, input));
        self.tell_sessions();
    }

    fn tell_sessions(&mut self) {
        while let Some((side, input)) = self.inputs.pop_front() {
            if self.handle(side, input) {
                self.drive(side);
            }
        }
    }

    /// Hands something to a session, if it is still there.
    fn handle(&mut self, side: Side, input: Input) -> bool {
        let steady_ms = self.nodes[side.0].steady_ms(self.network.now_ms);
        let Some(talk) = self.talks.get_mut(&side) else {
            return false;
        };
        talk.session
            .handle(input, steady_ms)
            .expect("nobody here breaks a rule");
        let memory_bytes = talk.session.memory_bytes();
        assert!(
            memory_bytes <= MEMORY_BYTES_MAX,
            "{side:?} holds {memory_bytes} bytes"
        );
        true
    }

    /// Does what a session wants, until it waits.
    fn drive(&mut self, side: Side) {
        let (own, other) = side;
        while let Some(talk) = self.talks.get_mut(&side) {
            let link = talk.link;
            let input = match talk.session.poll() {
                Output::Wait(deadline_ms) => {
                    self.wait(side, deadline_ms);
                    return self.grant(own);
                }
                Output::Send(frame) => {
                    self.network.send(&mut self.random, side, link, &frame);
                    continue;
                }
                Output::PullWanted => {
                    talk.wants = true;
                    continue;
                }
                Output::PullFinished(end) => {
                    assert_eq!(self.turns[own], Some(other), "{end:?} without a turn");
                    self.turns[own] = None;
                    continue;
                }
                Output::Read {
                    stream,
                    after,
                    bytes_max,
                } => Input::Read(self.read(own, &stream, after, bytes_max)),
                Output::Store(envelopes) => {
                    self.receive(own, envelopes);
                    Input::Advanced(self.nodes[own].heads.clone())
                }
            };
            self.handle(side, input);
        }
    }

    fn wait(&mut self, side: Side, steady_ms: u64) {
        let at_ms = steady_ms.saturating_add(self.nodes[side.0].started_ms);
        let now_ms = self.network.now_ms;
        assert!(at_ms > now_ms, "a deadline that has passed");
        let talk = self.talks.get_mut(&side).expect("it was just polled");
        if talk.deadline_ms != at_ms && at_ms < u64::MAX {
            let link = talk.link;
            talk.deadline_ms = at_ms;
            self.network
                .after(at_ms - now_ms, Event::Wake { side, link });
        }
    }

    /// Gives the turn to one of the node's sessions that wait for it.
    fn grant(&mut self, own: usize) {
        if self.turns[own].is_some() {
            return;
        }
        let of_node = self.talks.range((own, 0)..(own + 1, 0));
        let waiting = of_node
            .filter(|(_, talk)| talk.wants)
            .map(|(side, _)| *side);
        let Some(side) = self.random.choice(waiting.collect::<Vec<_>>()) else {
            return;
        };
        self.talks.get_mut(&side).expect("it waits").wants = false;
        self.turns[own] = Some(side.1);
        self.inputs.push_back((side, Input::Grant));
    }

    fn read(&mut self, at: usize, stream: &StreamRef, after: Seq, most: usize) -> Vec<Vec<u8>> {
        self.nodes[at]
            .replica()
            .read(stream, after, most)
            .expect("the log is read")
    }

    /// Hands envelopes to a node, which may crash while it takes them in.
    fn receive(&mut self, at: usize, envelopes: Vec<Vec<u8>>) {
        let receive = |replica: &mut Replica, unix_ms| replica.receive(envelopes, unix_ms);
        let Ok(received) = self.attempt(at, true, receive) else {
            return;
        };
        for received in received {
            assert!(!matches!(received, Received::Fork { .. }), "nobody forks");
        }
        self.observe(at);
    }

    /// Lets a node do something, in which it crashes if that is armed.
    fn attempt<T>(
        &mut self,
        at: usize,
        is_receiving: bool,
        action: impl FnOnce(&mut Replica, u64) -> Result<T, ReplicaError>,
    ) -> Result<T, Crashed> {
        let unix_ms = self.unix_ms(at);
        let node = &mut self.nodes[at];
        let Some(crash) = node
            .armed
            .filter(|crash| crash.is_of_receiving() == is_receiving)
        else {
            return Ok(action(node.replica(), unix_ms).expect("nothing is broken"));
        };
        node.break_at(crash);
        let result = action(node.replica(), unix_ms);
        node.mend(crash);
        // It may not have come so far.
        result.map_err(|error| {
            self.note(|| format!("{at} crashes at {crash:?}: {error}"));
            self.observe_fold(at);
            if crash == Crash::Merged {
                let merged = self.nodes[at].first_unsettled();
                self.ledger.learn(at, &[merged]);
            }
            self.end(at);
            let ms = self.random.u64(..3_000);
            self.network.after(ms, Event::Start { at });
            Crashed
        })
    }

    /// Looks what became of a node, and tells the ledger and the sessions.
    fn observe(&mut self, at: usize) {
        self.observe_fold(at);
        let settled = self.nodes[at].newly_settled();
        self.ledger.learn(at, &settled);
        if self.random.u8(..8) == 0 {
            self.compare(at);
        }
        let heads = self.nodes[at].replica().heads().expect("the log is read");
        let former = std::mem::replace(&mut self.nodes[at].heads, heads.clone());
        for (stream, seq) in former.iter() {
            assert!(
                heads.seq(&stream) >= seq,
                "{stream} of node {at} went back from {seq}"
            );
        }
        if former == heads {
            return;
        }
        let own = self
            .talks
            .range((at, 0)..(at + 1, 0))
            .map(|(side, _)| *side);
        let advanced = own.map(|side| (side, Input::Advanced(heads.clone())));
        self.inputs.extend(advanced);
    }

    fn observe_fold(&mut self, at: usize) {
        self.ledger.fold(at, self.nodes[at].folded());
    }

    fn unix_ms(&self, at: usize) -> u64 {
        self.nodes[at].unix_ms(self.network.now_ms)
    }
}
