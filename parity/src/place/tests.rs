//! Placement is even, steady and the same everywhere.

use proptest::prelude::*;

use super::*;
use crate::harness::seeded;

fn candidates(weights: &[u32]) -> Vec<Candidate> {
    let candidate = |(number, weight): (u8, &u32)| Candidate {
        peer: PeerKey([number; 32]),
        weight: *weight,
    };
    (0..).zip(weights).map(candidate).collect()
}

fn snapshot(number: u64) -> SnapshotId {
    SnapshotId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn moved(before: &[PeerKey], after: &[PeerKey]) -> Vec<usize> {
    (0..before.len())
        .filter(|slot| before[*slot] != after[*slot])
        .collect()
}

proptest! {
    #![proptest_config(seeded(300))]

    #[test]
    fn holders_are_distinct_or_evenly_loaded(
        weights in proptest::collection::vec(1..1_000_000_u32, 1..40),
        slots in 0..=64_u8,
        seed: u64,
    ) {
        let peers = candidates(&weights);
        let placed = place_slots(snapshot(seed), slots, &peers)?;
        prop_assert_eq!(placed.len(), usize::from(slots));
        let load = |peer: &Candidate| placed.iter().filter(|held| **held == peer.peer).count();
        let loads: Vec<usize> = peers.iter().map(load).collect();
        let least = loads.iter().min().expect("one peer or more");
        prop_assert!(loads.iter().all(|load| load - least <= 1), "{loads:?}");
    }

    #[test]
    fn order_of_candidates_does_not_matter(
        weights in proptest::collection::vec(0..5_u32, 1..20),
        slots in 1..=20_u8,
        seed: u64,
    ) {
        let mut peers = candidates(&weights);
        let placed = place_slots(snapshot(seed), slots, &peers);
        fastrand::Rng::with_seed(seed).shuffle(&mut peers);
        prop_assert_eq!(placed, place_slots(snapshot(seed), slots, &peers));
    }

    #[test]
    fn removing_a_peer_moves_its_slot_and_a_chain_of_later_ones(
        weights in proptest::collection::vec(1..100_u32, 2..40),
        slots in 1..=39_u8,
        gone: prop::sample::Index,
        seed: u64,
    ) {
        let mut peers = candidates(&weights);
        let slots = slots.min(peers.len() as u8 - 1);
        let before = place_slots(snapshot(seed), slots, &peers)?;
        let gone = peers.remove(gone.index(peers.len())).peer;
        let after = place_slots(snapshot(seed), slots, &peers)?;

        let moved = moved(&before, &after);
        match before.iter().position(|holder| *holder == gone) {
            None => prop_assert!(moved.is_empty()),
            Some(slot) => {
                prop_assert_eq!(moved[0], slot);
                // Each takes the place of the next: a chain, not a reshuffle.
                for pair in moved.windows(2) {
                    prop_assert_eq!(after[pair[0]], before[pair[1]]);
                }
            }
        }
    }

    #[test]
    fn vacant_slots_move_and_no_others(
        weights in proptest::collection::vec(1..100_u32, 2..40),
        slots in 1..=64_u8,
        gone: prop::sample::Index,
        seed: u64,
    ) {
        let mut peers = candidates(&weights);
        let before = place_slots(snapshot(seed), slots, &peers)?;
        let gone = peers.remove(gone.index(peers.len())).peer;
        let holders: Vec<_> = before.iter().copied().map(Some).collect();
        let after = place_vacant_slots(snapshot(seed), &holders, &peers)?;

        for slot in 0..before.len() {
            prop_assert_eq!(before[slot] == gone, before[slot] != after[slot]);
        }
        let distinct = BTreeSet::from_iter(&after).len();
        prop_assert_eq!(distinct, after.len().min(peers.len()));
    }
}

#[test]
fn weights_share_the_first_slot_in_proportion() {
    let peers = candidates(&[1, 2, 4, 8, 0]);
    let mut wins = [0_u32; 5];
    for number in 0..15_000 {
        let holder = place_slots(snapshot(number), 1, &peers).expect("peers")[0];
        wins[usize::from(holder.0[0])] += 1;
    }
    // Means of 1, 2, 4 and 8 thousand; four standard deviations are below 250.
    for (won, expected) in wins.into_iter().zip([1_000, 2_000, 4_000, 8_000, 0]) {
        assert!(won.abs_diff(expected) < 250, "{wins:?}");
    }
}

/// Every peer computes placement for itself: a change here tears them apart.
#[test]
fn placement_is_that_of_format_1() {
    let placed = place_slots(snapshot(1), 8, &candidates(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]));
    let numbers: Vec<u8> = placed
        .expect("peers")
        .iter()
        .map(|peer| peer.0[0])
        .collect();
    assert_eq!(numbers, [7, 5, 6, 4, 0, 9, 2, 8]);
}

#[test]
fn logarithms_are_those_of_floating_point() {
    for number in [1, 2, 3, 10, 1 << 40, u64::MAX / 3, u64::MAX] {
        let fixed = log2(number) as f64 / (1_u64 << LOG_FRACTION_BITS) as f64;
        let float = (number as f64).log2();
        assert!((fixed - float).abs() < 1e-12, "{number}: {fixed} {float}");
    }
}

#[test]
fn unfit_arguments_are_refused() {
    let place = |slots: usize, peers: &[Candidate]| {
        place_vacant_slots(snapshot(0), &vec![None; slots], peers)
    };
    assert_eq!(place(3, &[]), Err(PlaceError::NoPeers));
    assert_eq!(place(3, &candidates(&[0, 0])), Err(PlaceError::NoPeers));
    assert_eq!(
        place(65, &candidates(&[1])),
        Err(PlaceError::TooManySlots { slots: 65 })
    );
    let twice = [candidates(&[1]), candidates(&[1])].concat();
    assert_eq!(
        place(3, &twice),
        Err(PlaceError::PeerTwice { peer: [0; 32] })
    );
}
