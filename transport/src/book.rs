//! Which peers are known, where they may be, and when to dial them next.
//!
//! Time and the seed of the jitter are arguments, so the same inputs give the same dials.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use crate::exchange::{LIST_ADDRESSES_MAX, fits};

/// How long to wait before the first new attempt to reach a peer.
pub const REDIAL_FIRST: Duration = Duration::from_millis(200);
/// The longest wait between two attempts. They never end.
pub const REDIAL_MAX: Duration = Duration::from_secs(15);
/// How many peers are kept in mind, not counting those that were configured.
pub const PEERS_KNOWN_MAX: usize = 256;
/// How many peers are connected on our own initiative, configured ones aside.
pub const MEMBERS_DIALED_MAX: usize = 32;
/// How many peers that were not configured are dialed at once: half of what the swarm allows, so
/// that a list of dead addresses cannot keep us from the peers we were told to reach.
const DIALS_MAX: usize = 16;
/// When two peers learn of each other at once, the one with the greater identity waits so much
/// longer, and mostly finds the other's connection there.
const COURTESY: Duration = Duration::from_millis(500);
/// An entry that has never answered may give way to a new one after so many attempts.
const ATTEMPTS_BEFORE_EVICTION: u32 = 3;

/// The address book and dial plan of one node.
pub(crate) struct Book {
    local: PeerId,
    entries: BTreeMap<PeerId, Entry>,
    jitter: fastrand::Rng,
}

#[derive(Default)]
struct Entry {
    /// Given by the owner. An entry that has any is never evicted and always dialed.
    configured: Vec<Multiaddr>,
    /// Where a dial last succeeded.
    proven: Option<Multiaddr>,
    /// Where the peer itself says it listens.
    reported: Vec<Multiaddr>,
    /// Where another member says it is.
    hearsay: Vec<Multiaddr>,
    state: State,
}

#[derive(Clone, Copy, Default)]
enum State {
    /// Connected, blocked, or without an address.
    #[default]
    Resting,
    Connected,
    Dialing {
        attempts: u32,
    },
    Waiting {
        attempts: u32,
        until: Instant,
    },
}

impl Book {
    pub(crate) fn new(local: PeerId, seed: u64) -> Self {
        Self {
            local,
            entries: BTreeMap::new(),
            jitter: fastrand::Rng::with_seed(seed),
        }
    }

    /// Takes an address from the owner, and plans to dial it at once.
    pub(crate) fn configure(&mut self, peer: PeerId, address: Multiaddr, now: Instant) {
        if peer == self.local {
            return;
        }
        let entry = self.entries.entry(peer).or_default();
        if !entry.configured.contains(&address) {
            // The newest stays: an owner that keeps adding addresses must not fill memory.
            entry.configured.insert(0, address);
            entry.configured.truncate(LIST_ADDRESSES_MAX);
        }
        entry.hasten(now);
    }

    /// Takes addresses from another member, and plans to dial them.
    pub(crate) fn hear(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) {
        if peer == self.local || addresses.is_empty() || !self.has_room_for(peer) {
            return;
        }
        let at = now + self.courtesy(peer) + self.spread(REDIAL_FIRST / 4);
        let entry = self.entries.entry(peer).or_default();
        let known = entry.candidates();
        let news = addresses.iter().any(|address| !known.contains(address));
        entry.hearsay = bounded(addresses);
        if news {
            entry.hasten(at);
        }
    }

    /// Takes addresses from the peer itself. Returns `true` if they are news.
    pub(crate) fn report(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) -> bool {
        let Some(entry) = self.entries.get_mut(&peer) else {
            return false;
        };
        let before = entry.first_hand();
        entry.reported = bounded(addresses);
        entry.first_hand() != before
    }

    /// Notes a connection, and where it was dialed. Returns `true` if that address is news.
    pub(crate) fn connected(&mut self, peer: PeerId, dialed: Option<Multiaddr>) -> bool {
        if !self.has_room_for(peer) {
            self.evict(|entry| !matches!(entry.state, State::Connected));
        }
        let entry = self.entries.entry(peer).or_default();
        entry.state = State::Connected;
        let before = entry.first_hand();
        entry.proven = dialed.or(entry.proven.take());
        entry.first_hand() != before
    }

    /// Notes that the last connection is gone, and plans to dial again.
    pub(crate) fn disconnected(&mut self, peer: PeerId, now: Instant) {
        let until = now + self.courtesy(peer) + self.delay(0);
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.state = State::Waiting { attempts: 0, until };
        }
    }

    /// Notes that a dial came to nothing, and plans the next.
    pub(crate) fn failed(&mut self, peer: PeerId, now: Instant) {
        let Some(&State::Dialing { attempts }) = self.entries.get(&peer).map(|e| &e.state) else {
            return;
        };
        let until = now + self.delay(attempts);
        let attempts = attempts.saturating_add(1);
        self.set(peer, State::Waiting { attempts, until });
    }

    /// Stops dialing a peer.
    pub(crate) fn rest(&mut self, peer: PeerId) {
        self.set(peer, State::Resting);
    }

    /// Plans to dial a peer at once.
    pub(crate) fn wake(&mut self, peer: PeerId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.hasten(now);
        }
    }

    /// Returns whom to dial now and where. Each is then `connected` or `failed`.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut room = self.room();
        let mut due = Vec::new();
        for (&peer, entry) in &mut self.entries {
            let State::Waiting { attempts, until } = entry.state else {
                continue;
            };
            let addresses = entry.candidates();
            if until > now || addresses.is_empty() || (!entry.is_configured() && room == 0) {
                continue;
            }
            if !entry.is_configured() {
                room -= 1;
            }
            entry.state = State::Dialing { attempts };
            due.push((peer, addresses));
        }
        due
    }

    /// Returns when `due` will next have something to say, if nothing happens before.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let room = self.room();
        let plans = self.entries.values().filter_map(|entry| match entry.state {
            State::Waiting { until, .. } if entry.is_configured() || room > 0 => {
                (!entry.candidates().is_empty()).then_some(until)
            }
            _ => None,
        });
        plans.min()
    }

    /// Returns the addresses a peer has itself vouched for, the one that last worked first.
    pub(crate) fn first_hand(&self, peer: PeerId) -> Vec<Multiaddr> {
        self.entries
            .get(&peer)
            .map(Entry::first_hand)
            .unwrap_or_default()
    }

    /// Returns every peer with first-hand addresses, connected ones first.
    pub(crate) fn members(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let (connected, gone): (Vec<_>, Vec<_>) = self
            .entries
            .iter()
            .partition(|(_, entry)| matches!(entry.state, State::Connected));
        let listed = connected.into_iter().chain(gone);
        listed
            .map(|(&peer, entry)| (peer, entry.first_hand()))
            .filter(|(_, addresses)| !addresses.is_empty())
            .collect()
    }

    /// How many more peers that were not configured may be dialed now.
    fn room(&self) -> usize {
        let count = |wanted: fn(&State) -> bool| {
            let unconfigured = self.entries.values().filter(|entry| !entry.is_configured());
            unconfigured.filter(|entry| wanted(&entry.state)).count()
        };
        let connected = count(|state| matches!(state, State::Connected));
        let dialing = count(|state| matches!(state, State::Dialing { .. }));
        DIALS_MAX
            .min(MEMBERS_DIALED_MAX.saturating_sub(connected))
            .saturating_sub(dialing)
    }

    /// Makes room for a peer at the cost of one that has never answered.
    fn has_room_for(&mut self, peer: PeerId) -> bool {
        let learned = self
            .entries
            .values()
            .filter(|entry| !entry.is_configured())
            .count();
        if self.entries.contains_key(&peer) || learned < PEERS_KNOWN_MAX {
            return true;
        }
        self.evict(|entry| match entry.state {
            State::Waiting { attempts, .. } | State::Dialing { attempts } => {
                attempts >= ATTEMPTS_BEFORE_EVICTION && entry.first_hand().is_empty()
            }
            State::Resting | State::Connected => false,
        })
    }

    fn evict(&mut self, expendable: impl Fn(&Entry) -> bool) -> bool {
        let expendable =
            |(_, entry): &(&PeerId, &Entry)| !entry.is_configured() && expendable(entry);
        let found = self.entries.iter().find(expendable).map(|(&peer, _)| peer);
        found.is_some_and(|peer| self.entries.remove(&peer).is_some())
    }

    fn set(&mut self, peer: PeerId, state: State) {
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.state = state;
        }
    }

    fn courtesy(&self, peer: PeerId) -> Duration {
        if self.local > peer {
            COURTESY
        } else {
            Duration::ZERO
        }
    }

    /// Doubles with each attempt; half of it is jitter.
    fn delay(&mut self, attempts: u32) -> Duration {
        let delay = REDIAL_FIRST
            .saturating_mul(1 << attempts.min(16))
            .min(REDIAL_MAX);
        delay / 2 + self.spread(delay / 2)
    }

    fn spread(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.jitter.f64())
    }
}

impl Entry {
    fn is_configured(&self) -> bool {
        !self.configured.is_empty()
    }

    fn hasten(&mut self, at: Instant) {
        self.state = match self.state {
            State::Resting => State::Waiting {
                attempts: 0,
                until: at,
            },
            State::Waiting { until, .. } => State::Waiting {
                attempts: 0,
                until: until.min(at),
            },
            busy => busy,
        };
    }

    fn first_hand(&self) -> Vec<Multiaddr> {
        let mut addresses: Vec<_> = self.proven.iter().cloned().collect();
        addresses.extend(self.reported.iter().cloned());
        bounded(addresses)
    }

    /// All addresses worth a dial, without repetition; at most 25.
    fn candidates(&self) -> Vec<Multiaddr> {
        let mut addresses = Vec::new();
        let all = self
            .proven
            .iter()
            .chain(&self.reported)
            .chain(&self.configured);
        for address in all.chain(&self.hearsay) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }
}

/// Keeps the first addresses that fit a list, each once.
fn bounded(addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let mut kept: Vec<Multiaddr> = Vec::new();
    for address in addresses {
        if kept.len() < LIST_ADDRESSES_MAX && fits(&address) && !kept.contains(&address) {
            kept.push(address);
        }
    }
    kept
}

#[cfg(test)]
mod tests;
