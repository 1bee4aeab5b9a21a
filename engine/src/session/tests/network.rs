//! Nodes with logs in memory, joined by links that lose, repeat, delay and cut.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;

use crate::log::{Heads, StreamRef};
use crate::session::{Input, MEMORY_BYTES_MAX, Output, Session};
use crate::trust::{ENVELOPE_BYTES_MIN, PublicKey, Seq, StreamId};

/// What the clock shows at first: not zero, which deadlines could mistake for "at once".
pub(super) const START_MS: u64 = 1_000;

pub(super) type FakeLog = BTreeMap<StreamRef, Vec<Vec<u8>>>;

/// What links do to frames.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    pub(super) lost_percent: u8,
    pub(super) repeated_percent: u8,
    pub(super) latency_ms: u64,
    /// Up to this much is added to each frame's latency, so frames overtake each other.
    pub(super) reorder_ms: u64,
}

impl Weather {
    pub(super) const CALM: Weather = Weather {
        lost_percent: 0,
        repeated_percent: 0,
        latency_ms: 2,
        reorder_ms: 0,
    };

    pub(super) fn foul(random: &mut Rng) -> Weather {
        Weather {
            lost_percent: random.u8(0..35),
            repeated_percent: random.u8(0..30),
            latency_ms: random.u64(0..200),
            reorder_ms: random.u64(0..300),
        }
    }
}

/// All nodes, all links and the clock.
pub(super) struct Network {
    pub(super) logs: Vec<FakeLog>,
    pub(super) now_ms: u64,
    pub(super) frames_sent: u64,
    pub(super) duplicates_count: u64,
    /// By (own node, other node).
    sessions: BTreeMap<(usize, usize), Session>,
    /// When each session wants to be woken.
    deadlines: BTreeMap<(usize, usize), u64>,
    /// By (arrival, number): where to, which sending session it belongs to, and the bytes.
    frames: BTreeMap<(u64, u64), Flying>,
    /// Counts up when a link is made anew; frames of the former link are dropped.
    links: BTreeMap<(usize, usize), u64>,
    cut: Vec<bool>,
    liars: BTreeMap<usize, (StreamRef, u64)>,
    turns: Vec<Option<usize>>,
    waiting: Vec<Vec<usize>>,
    turns_counts: Vec<u64>,
    /// What happened to sessions while another one was at work.
    events: VecDeque<((usize, usize), Input)>,
    weather: Weather,
    seed: u64,
    random: Rng,
}

struct Flying {
    from: usize,
    to: usize,
    link: u64,
    bytes: Vec<u8>,
}

impl Network {
    pub(super) fn new(nodes: usize, seed: u64, weather: Weather) -> Network {
        let mut network = Network {
            logs: vec![FakeLog::new(); nodes],
            now_ms: START_MS,
            frames_sent: 0,
            duplicates_count: 0,
            sessions: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            frames: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: vec![false; nodes],
            liars: BTreeMap::new(),
            turns: vec![None; nodes],
            waiting: vec![Vec::new(); nodes],
            turns_counts: vec![0; nodes],
            events: VecDeque::new(),
            weather,
            seed,
            random: Rng::with_seed(seed),
        };
        for own in 0..nodes {
            for other in own + 1..nodes {
                network.connect(own, other);
            }
        }
        network
    }

    /// Appends `count` small envelopes to a stream that only `node` writes.
    pub(super) fn write(&mut self, node: usize, stream: StreamRef, count: usize) {
        for _ in 0..count {
            let bytes = self.random.usize(ENVELOPE_BYTES_MIN..900);
            self.push(node, stream, bytes);
        }
        self.tell_all(node, stream);
    }

    /// Appends one envelope of a given size.
    pub(super) fn append(&mut self, node: usize, stream: StreamRef, bytes: usize) {
        self.push(node, stream, bytes);
        self.tell_all(node, stream);
    }

    /// Lets a node claim `claimed` envelopes of a stream that it does not have.
    pub(super) fn lie(&mut self, node: usize, stream: StreamRef, claimed: u64) {
        self.liars.insert(node, (stream, claimed));
        self.restart(node);
    }

    /// Cuts a node off from everybody, or lets it back in.
    pub(super) fn partition(&mut self, node: usize, cut: bool) {
        self.cut[node] = cut;
    }

    pub(super) fn heal(&mut self) {
        self.cut.fill(false);
    }

    /// Ends all sessions of a node and begins them again on both sides.
    pub(super) fn restart(&mut self, node: usize) {
        for other in (0..self.logs.len()).filter(|other| *other != node) {
            self.connect(node.min(other), node.max(other));
        }
    }

    pub(super) fn equal(&self) -> bool {
        // Lengths first: comparing megabytes at every step would take most of the time.
        let same_lengths = |pair: &[FakeLog]| {
            let lengths = |log: &FakeLog| -> Vec<(StreamRef, usize)> {
                log.iter()
                    .map(|(stream, list)| (*stream, list.len()))
                    .collect()
            };
            pair[0].len() == pair[1].len() && lengths(&pair[0]) == lengths(&pair[1])
        };
        self.logs.windows(2).all(same_lengths)
            && self.logs.windows(2).all(|pair| pair[0] == pair[1])
    }

    pub(super) fn run_until_equal(&mut self, ms_max: u64) {
        let end_ms = self.now_ms + ms_max;
        while !self.equal() {
            assert!(
                self.now_ms < end_ms,
                "seed {}: not equal after {ms_max} ms",
                self.seed
            );
            self.step();
        }
    }

    pub(super) fn run_for(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.next_ms() <= end_ms {
            self.step();
        }
        self.now_ms = end_ms;
    }

    /// Lets the next frame arrive, or the next deadline pass.
    pub(super) fn step(&mut self) {
        let next_ms = self.next_ms();
        assert!(
            next_ms >= self.now_ms,
            "{next_ms} is before {}",
            self.now_ms
        );
        self.now_ms = next_ms;
        match self.frames.first_key_value() {
            Some(((at_ms, _), _)) if *at_ms == next_ms => {
                let (_, flying) = self.frames.pop_first().unwrap();
                self.arrive(flying);
            }
            _ => {
                let due = self.deadlines.iter().find(|(_, at_ms)| **at_ms == next_ms);
                let key = *due.unwrap().0;
                self.handle(key, Input::Tick);
            }
        }
    }

    pub(super) fn bytes_under_way(&self) -> usize {
        self.frames.values().map(|flying| flying.bytes.len()).sum()
    }

    pub(super) fn turns_count(&self, node: usize) -> u64 {
        self.turns_counts[node]
    }

    fn next_ms(&self) -> u64 {
        let frame = self
            .frames
            .first_key_value()
            .map_or(u64::MAX, |((at_ms, _), _)| *at_ms);
        frame
            .min(self.deadlines.values().copied().min().unwrap_or(u64::MAX))
            .max(self.now_ms)
    }

    fn connect(&mut self, first: usize, second: usize) {
        *self.links.entry((first, second)).or_default() += 1;
        for key in [(first, second), (second, first)] {
            self.end_turn(key);
            self.sessions
                .insert(key, Session::new(self.heads(key.0), self.now_ms));
        }
        for key in [(first, second), (second, first)] {
            self.drain(key);
        }
        self.handle_events();
    }

    fn heads(&self, node: usize) -> Heads {
        let lie = self.liars.get(&node).copied();
        let real = self.logs[node]
            .iter()
            .map(|(stream, list)| (*stream, list.len() as u64));
        real.chain(lie)
            .map(|(stream, seq)| (stream, Seq::new(seq).unwrap()))
            .collect()
    }

    fn push(&mut self, node: usize, stream: StreamRef, bytes: usize) {
        let list = self.logs[node].entry(stream).or_default();
        list.push(fake_envelope(&stream, list.len() as u64 + 1, bytes));
    }

    fn tell_all(&mut self, node: usize, stream: StreamRef) {
        let seq = self.logs[node]
            .get(&stream)
            .map_or(0, |list| list.len() as u64);
        let heads: Heads = [(stream, Seq::new(seq).unwrap())].into_iter().collect();
        for other in (0..self.logs.len()).filter(|other| *other != node) {
            self.handle((node, other), Input::Advanced(heads.clone()));
        }
    }

    fn arrive(&mut self, flying: Flying) {
        let Flying {
            from,
            to,
            link,
            bytes,
        } = flying;
        if self.links[&(from.min(to), from.max(to))] == link && !self.cut[from] && !self.cut[to] {
            self.handle((to, from), Input::Frame(bytes));
        }
    }

    fn handle(&mut self, key: (usize, usize), input: Input) {
        self.events.push_back((key, input));
        self.handle_events();
    }

    fn handle_events(&mut self) {
        while let Some((key, input)) = self.events.pop_front() {
            let session = self.sessions.get_mut(&key).unwrap();
            session.handle(input, self.now_ms).unwrap();
            self.drain(key);
        }
    }

    /// Does what a session wants, until it waits.
    fn drain(&mut self, key: (usize, usize)) {
        loop {
            let session = self.sessions.get_mut(&key).unwrap();
            let output = session.poll();
            let memory = session.memory_bytes();
            assert!(memory <= MEMORY_BYTES_MAX, "{memory} bytes");
            let answer = match output {
                Output::Wait(deadline_ms) => {
                    assert!(deadline_ms > self.now_ms, "a deadline that has passed");
                    self.deadlines.insert(key, deadline_ms);
                    return self.grant(key.0);
                }
                Output::Send(frame) => {
                    self.send(key, frame);
                    continue;
                }
                Output::PullWanted => {
                    self.waiting[key.0].push(key.1);
                    continue;
                }
                Output::PullFinished(end) => {
                    assert_eq!(self.turns[key.0], Some(key.1), "{end:?} without a turn");
                    self.end_turn(key);
                    continue;
                }
                Output::Read {
                    stream,
                    after,
                    bytes_max,
                } => Input::Read(self.read(key.0, &stream, after, bytes_max)),
                Output::Store(envelopes) => {
                    let advanced = self.store(key.0, envelopes);
                    // The others hear of it too, as a node would tell them.
                    self.later(key, &advanced);
                    Input::Advanced(advanced)
                }
            };
            let session = self.sessions.get_mut(&key).unwrap();
            session.handle(answer, self.now_ms).unwrap();
        }
    }

    fn later(&mut self, key: (usize, usize), advanced: &Heads) {
        if advanced.is_empty() {
            return;
        }
        for other in (0..self.logs.len()).filter(|other| *other != key.0 && *other != key.1) {
            self.events
                .push_back(((key.0, other), Input::Advanced(advanced.clone())));
        }
    }

    /// Gives the turn to the next session that waits for it.
    fn grant(&mut self, node: usize) {
        if self.turns[node].is_some() || self.waiting[node].is_empty() {
            return;
        }
        let key = (node, self.waiting[node].remove(0));
        self.turns[node] = Some(key.1);
        self.turns_counts[node] += 1;
        self.events.push_back((key, Input::Grant));
    }

    fn end_turn(&mut self, key: (usize, usize)) {
        self.waiting[key.0].retain(|other| *other != key.1);
        if self.turns[key.0] == Some(key.1) {
            self.turns[key.0] = None;
        }
    }

    fn send(&mut self, key: (usize, usize), frame: Vec<u8>) {
        self.frames_sent += 1;
        if self.random.u8(0..100) < self.weather.lost_percent {
            return;
        }
        let copies = 1 + usize::from(self.random.u8(0..100) < self.weather.repeated_percent);
        let (from, to) = key;
        let link = self.links[&(from.min(to), from.max(to))];
        for _ in 0..copies {
            let reorder_ms = self.random.u64(0..=self.weather.reorder_ms);
            let at_ms = self.now_ms + self.weather.latency_ms + reorder_ms;
            let number = self.frames_sent * 2 + u64::from(self.frames.contains_key(&(at_ms, 0)));
            let mut place = (at_ms, number);
            while self.frames.contains_key(&place) {
                place.1 += 1;
            }
            self.frames.insert(
                place,
                Flying {
                    from,
                    to,
                    link,
                    bytes: frame.clone(),
                },
            );
        }
    }

    fn read(&self, node: usize, stream: &StreamRef, after: Seq, bytes_max: usize) -> Vec<Vec<u8>> {
        let list = self.logs[node].get(stream).map_or(&[][..], Vec::as_slice);
        let mut bytes_left = bytes_max;
        let mut batch: Vec<Vec<u8>> = Vec::new();
        for envelope in list.iter().skip(after.number() as usize) {
            if !batch.is_empty() && envelope.len() > bytes_left {
                break;
            }
            bytes_left = bytes_left.saturating_sub(envelope.len());
            batch.push(envelope.clone());
        }
        batch
    }

    fn store(&mut self, node: usize, envelopes: Vec<Vec<u8>>) -> Heads {
        let mut advanced = Heads::default();
        for envelope in envelopes {
            let (stream, seq) = place(&envelope);
            let list = self.logs[node].entry(stream).or_default();
            if seq == list.len() as u64 + 1 {
                list.push(envelope);
                advanced.advance(&stream, Seq::new(seq).unwrap());
            } else if seq <= list.len() as u64 {
                self.duplicates_count += 1;
            } else if list.is_empty() {
                self.logs[node].remove(&stream);
            }
        }
        advanced
    }
}

/// Returns bytes that name their place, in the size asked for.
pub(super) fn fake_envelope(stream: &StreamRef, seq: u64, bytes: usize) -> Vec<u8> {
    let mut envelope = [&stream.author.0[..], &stream.stream.0, &seq.to_le_bytes()].concat();
    envelope.resize(bytes.max(ENVELOPE_BYTES_MIN), seq as u8);
    envelope
}

fn place(envelope: &[u8]) -> (StreamRef, u64) {
    let author = PublicKey(envelope[..32].try_into().unwrap());
    let stream = StreamId(envelope[32..40].try_into().unwrap());
    let seq = u64::from_le_bytes(envelope[40..48].try_into().unwrap());
    (StreamRef { author, stream }, seq)
}
