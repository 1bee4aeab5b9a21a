//! A simulated network and its clock: what is sent arrives later, twice, in another order or never.

use std::collections::BTreeMap;

use fastrand::Rng;

/// What the network does to what is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) lost_percent: u8,
    pub(crate) repeated_percent: u8,
    pub(crate) latency_ms: u64,
    /// Up to this much is added to each latency, so that frames overtake each other.
    pub(crate) jitter_ms: u64,
    /// How much of what is told to everybody at once gets lost.
    pub(crate) gossip_lost_percent: u8,
}

impl Weather {
    pub(crate) fn calm(latency_ms: u64) -> Weather {
        Weather {
            lost_percent: 0,
            repeated_percent: 0,
            latency_ms,
            jitter_ms: 0,
            gossip_lost_percent: 0,
        }
    }

    pub(crate) fn draw(random: &mut Rng) -> Weather {
        Weather {
            lost_percent: [0, 1, 10, 35][random.usize(..4)],
            repeated_percent: [0, 5, 30][random.usize(..3)],
            latency_ms: [0, 1, 20, 300][random.usize(..4)],
            jitter_ms: [0, 2, 100, 2_000][random.usize(..4)],
            gossip_lost_percent: [0, 20, 60, 100][random.usize(..4)],
        }
    }
}

/// One side of a link: its own node, and the other one.
pub(crate) type Side = (usize, usize);

/// What happens at some time.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A session's frame arrives, if the link is still the one it was sent on.
    Frame { to: Side, link: u64, bytes: Vec<u8> },
    /// A sealed envelope arrives that was told to everybody.
    Gossip {
        from: usize,
        to: usize,
        bytes: Vec<u8>,
    },
    /// A session's deadline may have passed.
    Wake { side: Side, link: u64 },
    /// Two nodes that are no longer linked try again.
    Relink { side: Side },
    /// A node that was stopped starts.
    Start { at: usize },
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) frames_count: u64,
    pub(crate) frame_bytes: u64,
    pub(crate) gossip_count: u64,
    pub(crate) gossip_bytes: u64,
}

/// All that is on its way, by time of arrival.
pub(crate) struct Network {
    pub(crate) now_ms: u64,
    pub(crate) weather: Weather,
    pub(crate) traffic: Traffic,
    /// Nodes of different groups do not hear each other.
    groups: Vec<u8>,
    /// By time, and by number for what happens at one time.
    events: BTreeMap<(u64, u64), Event>,
    events_count: u64,
}

impl Network {
    pub(crate) fn new(nodes_count: usize, weather: Weather) -> Network {
        Network {
            // Not zero, which a deadline could mistake for "at once".
            now_ms: 1_000,
            weather,
            traffic: Traffic::default(),
            groups: vec![0; nodes_count],
            events: BTreeMap::new(),
            events_count: 0,
        }
    }

    /// Divides the nodes at random.
    pub(crate) fn partition(&mut self, random: &mut Rng) {
        let groups_count = random.u8(2..=3);
        self.groups.fill_with(|| random.u8(..groups_count));
    }

    pub(crate) fn heal(&mut self) {
        self.groups.fill(0);
    }

    pub(crate) fn is_divided(&self, (own, other): Side) -> bool {
        self.groups[own] != self.groups[other]
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.events_count += 1;
        self.events
            .insert((self.now_ms + ms, self.events_count), event);
    }

    /// Sends a frame to the other side of a link.
    pub(crate) fn send(&mut self, random: &mut Rng, from: Side, link: u64, bytes: &[u8]) {
        self.traffic.frames_count += 1;
        self.traffic.frame_bytes += bytes.len() as u64;
        let lost_percent = self.weather.lost_percent;
        let to = (from.1, from.0);
        self.carry(
            random,
            lost_percent,
            &Event::Frame {
                to,
                link,
                bytes: bytes.to_vec(),
            },
        );
    }

    /// Tells another node something small; nobody minds if it does not hear it.
    pub(crate) fn gossip(&mut self, random: &mut Rng, (from, to): Side, bytes: &[u8]) {
        self.traffic.gossip_count += 1;
        self.traffic.gossip_bytes += bytes.len() as u64;
        let lost_percent = self.weather.gossip_lost_percent;
        self.carry(
            random,
            lost_percent,
            &Event::Gossip {
                from,
                to,
                bytes: bytes.to_vec(),
            },
        );
    }

    fn carry(&mut self, random: &mut Rng, lost_percent: u8, event: &Event) {
        if random.u8(..100) < lost_percent {
            return;
        }
        let copies = 1 + u8::from(random.u8(..100) < self.weather.repeated_percent);
        for _ in 0..copies {
            let ms = self.weather.latency_ms + random.u64(0..=self.weather.jitter_ms);
            self.after(ms, event.clone());
        }
    }

    /// Lets time pass until the next event, but not beyond `until_ms`.
    pub(crate) fn next(&mut self, until_ms: u64) -> Option<Event> {
        let (at_ms, _) = *self.events.first_key_value()?.0;
        if at_ms > until_ms {
            return None;
        }
        self.now_ms = self.now_ms.max(at_ms);
        self.events.pop_first().map(|(_, event)| event)
    }
}

/// Links each with each.
pub(crate) fn mesh(nodes_count: usize) -> Vec<Side> {
    (0..nodes_count)
        .flat_map(|own| (own + 1..nodes_count).map(move |other| (own, other)))
        .collect()
}

/// Links each with the next.
pub(crate) fn line(nodes_count: usize) -> Vec<Side> {
    (1..nodes_count).map(|other| (other - 1, other)).collect()
}

/// Links all with the first.
pub(crate) fn star(nodes_count: usize) -> Vec<Side> {
    (1..nodes_count).map(|other| (0, other)).collect()
}
