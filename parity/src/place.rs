//! Decides which peer holds which slot: weighted rendezvous hashing in whole numbers.
//!
//! Every peer draws a number for every slot from a hash of snapshot, slot and peer. With
//! `u` the hash read as a number in (0, 1], the score is −log₂(u) / weight and the least
//! score wins: a peer of twice the weight wins twice as often. All arithmetic is on
//! integers, so every machine places alike.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::{SLICES_TOTAL_MAX, Slot};
use crate::manifest::SnapshotId;

/// A peer as placement knows it: its public key, or any other name all peers agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub [u8; 32]);

/// A peer that may hold slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The peer.
    pub peer: PeerKey,
    /// Its share relative to the other candidates', such as offered gigabytes. A peer of
    /// weight 0 holds nothing.
    pub weight: u32,
}

/// Why slots could not be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// No candidate has a weight above zero.
    #[error("no peer offers room; add a peer or raise a weight above 0")]
    NoPeers,
    /// A candidate is listed twice.
    #[error("peer {peer:02x?} is listed twice; list each peer once")]
    PeerTwice {
        /// The peer.
        peer: [u8; 32],
    },
    /// More slots than a snapshot may have.
    #[error("{slots} slots are more than {SLICES_TOTAL_MAX}; place fewer")]
    TooManySlots {
        /// Slots asked for.
        slots: usize,
    },
}

/// Returns the holder of each of a snapshot's `slots_total` slots, from scratch.
///
/// The order of the candidates does not matter. What holds:
///
/// - With at least as many peers as slots, all holders are distinct. With fewer, any two
///   peers' numbers of slots differ by at most one, whatever their weights.
/// - Removing a peer that holds no slot moves nothing.
/// - Removing a holder moves its slot to the next in that slot's order. If that one held a
///   later slot, the later slot moves on in turn, since holders are distinct: at most one
///   slot for each slot from the removed peer's onward, and none before it. (With fewer
///   peers than slots the even spread may move any of the others.)
///
/// To move the removed peer's slots and no others, keep the holders that remain and place
/// the rest with [`place_vacant_slots`].
///
/// # Errors
///
/// Names the rule the arguments break.
pub fn place_slots(
    snapshot: SnapshotId,
    slots_total: u8,
    candidates: &[Candidate],
) -> Result<Vec<PeerKey>, PlaceError> {
    place_vacant_slots(snapshot, &vec![None; usize::from(slots_total)], candidates)
}

/// Returns the holder of each slot, keeping the `holders` that are still candidates.
///
/// Slot `j`'s holder is at position `j`. Only slots without a holder, or with one that is
/// no candidate (or has weight 0), get a new one: each in its turn the best-scoring among
/// the peers that hold the fewest slots. So a new holder is never a peer that has a slot
/// while another has none.
///
/// # Errors
///
/// Names the rule the arguments break.
pub fn place_vacant_slots(
    snapshot: SnapshotId,
    holders: &[Option<PeerKey>],
    candidates: &[Candidate],
) -> Result<Vec<PeerKey>, PlaceError> {
    check(holders, candidates)?;
    let mut loads: BTreeMap<PeerKey, (u32, usize)> = candidates
        .iter()
        .filter(|candidate| candidate.weight > 0)
        .map(|candidate| (candidate.peer, (candidate.weight, 0)))
        .collect();
    if loads.is_empty() {
        return Err(PlaceError::NoPeers);
    }
    for holder in holders.iter().flatten() {
        if let Some((_, slots_count)) = loads.get_mut(holder) {
            *slots_count += 1;
        }
    }
    let place = |(slot, holder): (u8, &Option<PeerKey>)| {
        if let Some(holder) = holder
            && loads.contains_key(holder)
        {
            return *holder;
        }
        let chosen = choose(snapshot, Slot(slot), &loads);
        loads.get_mut(&chosen).expect("chosen from the map").1 += 1;
        chosen
    };
    Ok((0..).zip(holders).map(place).collect())
}

fn check(holders: &[Option<PeerKey>], candidates: &[Candidate]) -> Result<(), PlaceError> {
    if holders.len() > usize::from(SLICES_TOTAL_MAX) {
        return Err(PlaceError::TooManySlots {
            slots: holders.len(),
        });
    }
    let mut seen = BTreeSet::new();
    match candidates
        .iter()
        .find(|candidate| !seen.insert(candidate.peer))
    {
        Some(candidate) => Err(PlaceError::PeerTwice {
            peer: candidate.peer.0,
        }),
        None => Ok(()),
    }
}

fn choose(snapshot: SnapshotId, slot: Slot, loads: &BTreeMap<PeerKey, (u32, usize)>) -> PeerKey {
    let least = loads.values().map(|(_, slots_count)| *slots_count).min();
    let open = loads
        .iter()
        .filter(|(_, (_, slots_count))| Some(*slots_count) == least);
    let scored = open.map(|(peer, (weight, _))| (draw(snapshot, slot, *peer), *weight, *peer));
    let better = |a: &(u64, u32, PeerKey), b: &(u64, u32, PeerKey)| {
        // a.0 / a.1 against b.0 / b.1 without dividing; the key decides a tie.
        let [left, right] = [(a.0, b.1), (b.0, a.1)].map(|(x, y)| u128::from(x) * u128::from(y));
        left.cmp(&right).then(a.2.cmp(&b.2))
    };
    scored
        .min_by(better)
        .expect("the caller has at least one peer")
        .2
}

/// Returns −log₂ of a peer's hash read as a fraction, with [`LOG_FRACTION_BITS`] bits behind
/// the point.
fn draw(snapshot: SnapshotId, slot: Slot, peer: PeerKey) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("syncline parity place 1");
    hasher.update(&snapshot.0).update(&[slot.0]).update(&peer.0);
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    (64 << LOG_FRACTION_BITS) - log2(u64::from_le_bytes(number).max(1))
}

/// Bits behind the point of a logarithm: weights up to a million apart still draw fairly.
const LOG_FRACTION_BITS: u32 = 48;

/// Returns log₂ of a number above zero, cut to [`LOG_FRACTION_BITS`] bits, digit by digit:
/// squaring a number in [1, 2) doubles its logarithm, and the carry is the next digit.
fn log2(number: u64) -> u64 {
    let whole = number.ilog2();
    let mut mantissa = number << (63 - whole);
    let mut log = u64::from(whole);
    for _ in 0..LOG_FRACTION_BITS {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let carry = square >> 127;
        mantissa = (square >> (63 + carry)) as u64;
        log = log << 1 | carry as u64;
    }
    log
}

#[cfg(test)]
mod tests;
