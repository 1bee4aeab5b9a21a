//! Decides which peer is asked for which run next, without I/O.

use std::collections::{BTreeMap, BTreeSet};

use syncline_parity::{BlockIndex, Slot};
use syncline_transport::PeerId;

/// How many blocks are fetched at once: memory for the runs of as many, about 2 MiB each.
const BLOCKS_AT_ONCE: u32 = 4;

/// How many runs one peer is asked for at once, so that its link does not idle between two.
const RUNS_PER_PEER: usize = 2;

/// One run to be asked of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) peer: PeerId,
    pub(super) slot: Slot,
    pub(super) block: BlockIndex,
}

/// The fetching of one object's runs, a window of blocks at a time.
pub(super) struct Plan {
    holders: BTreeMap<Slot, BTreeSet<PeerId>>,
    /// How many runs each peer is being asked for.
    loads: BTreeMap<PeerId, usize>,
    window: BTreeMap<BlockIndex, Block>,
    slices_needed: usize,
    blocks_count: u32,
}

#[derive(Default)]
struct Block {
    needed: usize,
    asked: BTreeSet<Slot>,
    arrived: BTreeMap<Slot, Vec<u8>>,
    /// Slots whose runs were taken.
    taken: BTreeSet<Slot>,
    refused: BTreeSet<(Slot, PeerId)>,
}

impl Plan {
    pub(super) fn new(slices_needed: u8, blocks_count: u32) -> Plan {
        let mut plan = Plan {
            holders: BTreeMap::new(),
            loads: BTreeMap::new(),
            window: BTreeMap::new(),
            slices_needed: usize::from(slices_needed),
            blocks_count,
        };
        (0..BLOCKS_AT_ONCE).for_each(|block| plan.open(BlockIndex(block)));
        plan
    }

    /// Adds peers that hold slots.
    pub(super) fn add(&mut self, holders: BTreeMap<Slot, BTreeSet<PeerId>>) {
        for (slot, peers) in holders {
            self.holders.entry(slot).or_default().extend(peers);
        }
    }

    /// Returns the next run to ask for, and counts on it; `None` until something happens.
    pub(super) fn next(&mut self) -> Option<Job> {
        let (&block, job) = self.window.iter().find_map(|(block, state)| {
            let coming = state.asked.len() + state.arrived.len() + state.taken.len();
            let more = coming < state.needed;
            more.then(|| self.choose(state))
                .flatten()
                .map(|job| (block, job))
        })?;
        let (slot, peer) = job;
        *self.loads.entry(peer).or_default() += 1;
        let state = self.window.get_mut(&block).expect("just found there");
        state.asked.insert(slot);
        Some(Job { peer, slot, block })
    }

    /// Takes a genuine run.
    pub(super) fn arrived(&mut self, job: Job, run: Vec<u8>) {
        self.answered(job);
        if let Some(state) = self.window.get_mut(&job.block) {
            state.arrived.insert(job.slot, run);
        }
    }

    /// Notes that a peer did not give a run; it is not asked for it again.
    pub(super) fn refused(&mut self, job: Job) {
        self.answered(job);
        if let Some(state) = self.window.get_mut(&job.block) {
            state.refused.insert((job.slot, job.peer));
        }
    }

    /// Asks nothing more of a peer.
    pub(super) fn forget(&mut self, peer: PeerId) {
        self.holders.values_mut().for_each(|peers| {
            peers.remove(&peer);
        });
    }

    /// Returns the runs of the first block, once they are as many as it needs.
    pub(super) fn take_ready(&mut self) -> Option<(BlockIndex, BTreeMap<Slot, Vec<u8>>)> {
        let mut first = self.window.first_entry()?;
        let (block, state) = (*first.key(), first.get_mut());
        if state.arrived.is_empty() || state.arrived.len() + state.taken.len() < state.needed {
            return None;
        }
        state.taken.extend(state.arrived.keys());
        Some((block, std::mem::take(&mut state.arrived)))
    }

    /// Moves the window on, once the first block is decoded.
    pub(super) fn decoded(&mut self, block: BlockIndex) {
        self.window.remove(&block);
        self.open(BlockIndex(block.0 + BLOCKS_AT_ONCE));
    }

    /// Asks for more runs of a block than it seemed to need.
    pub(super) fn want_more(&mut self, block: BlockIndex, runs: usize) {
        if let Some(state) = self.window.get_mut(&block) {
            state.needed = state.taken.len() + runs;
        }
    }

    /// Returns how many runs of the first block are here or might still be had, and how many it
    /// needs, if those are fewer than these.
    pub(super) fn shortage(&self) -> Option<(usize, usize)> {
        let state = self.window.values().next()?;
        let there = |slot: &Slot| state.arrived.contains_key(slot) || state.taken.contains(slot);
        let open = self.holders.iter().filter(|(slot, _)| !there(slot));
        let reachable = open.filter(|(slot, peers)| {
            let mut peers = peers.iter();
            peers.any(|peer| !state.refused.contains(&(**slot, *peer)))
        });
        let found = state.arrived.len() + state.taken.len() + reachable.count();
        (found < state.needed).then_some((found, state.needed))
    }

    fn open(&mut self, block: BlockIndex) {
        if block.0 < self.blocks_count {
            let needed = self.slices_needed;
            let state = Block {
                needed,
                ..Block::default()
            };
            self.window.insert(block, state);
        }
    }

    fn answered(&mut self, job: Job) {
        let load = self.loads.entry(job.peer).or_default();
        *load = load.saturating_sub(1);
        if let Some(state) = self.window.get_mut(&job.block) {
            state.asked.remove(&job.slot);
        }
    }

    /// Returns the lowest slot that a peer with room has, and the least busy of those peers. The
    /// lowest slots hold the object's own bytes, which need no decoding.
    fn choose(&self, state: &Block) -> Option<(Slot, PeerId)> {
        let there = |slot: &Slot| {
            state.asked.contains(slot)
                || state.arrived.contains_key(slot)
                || state.taken.contains(slot)
        };
        let load = |peer: &PeerId| self.loads.get(peer).copied().unwrap_or_default();
        let open = self.holders.iter().filter(|(slot, _)| !there(slot));
        let mut chosen = open.filter_map(|(slot, peers)| {
            let ready = peers.iter().filter(|peer| {
                load(peer) < RUNS_PER_PEER && !state.refused.contains(&(*slot, **peer))
            });
            Some((*slot, *ready.min_by_key(|peer| load(peer))?))
        });
        chosen.next()
    }
}
