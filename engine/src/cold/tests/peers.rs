//! Snapshots spread over devices and brought back, with devices that lie, vanish or are full.

use std::collections::BTreeMap;

use super::harness::{Mood, World, choices, content};
use crate::cold::remote::PeerError;
use crate::cold::restore::RestoreError;
use crate::cold::wire::Refusal;

#[tokio::test]
async fn a_snapshot_spreads_one_slice_to_each_and_comes_back() {
    let world = World::new(5);
    let spread = world.spread(0, content(300_000), 1_000).await;
    assert_eq!((spread.slices_needed, spread.slices_total), (3, 5));
    assert_eq!(spread.losses_survived, 2);
    assert!(spread.failed.is_empty());
    assert_eq!(world.slots(spread.snapshot), [1; 5]);
    let restored = world.restore(0).await.unwrap();
    assert_eq!(restored.content, content(300_000));
    assert_eq!(restored.created_unix_ms, 1_000);
    assert!(restored.liars.is_empty());
    assert!(restored.blocks_from.len() >= 3);
}

#[tokio::test]
async fn any_two_of_five_devices_may_vanish() {
    let world = World::new(5);
    world.spread(0, content(50_000), 1_000).await;
    for gone in choices(5, 2) {
        let mood = |device| {
            if gone.contains(&device) {
                Mood::Absent
            } else {
                Mood::Honest
            }
        };
        (0..5).for_each(|device| world.turn(device, mood(device)));
        let here = (0..5).find(|device| !gone.contains(device)).unwrap();
        let restored = world.restore(here).await.unwrap();
        assert_eq!(restored.content, content(50_000), "without {gone:?}");
    }
}

#[tokio::test]
async fn too_few_slices_are_counted_and_named() {
    let world = World::new(5);
    let spread = world.spread(0, content(1_000), 1_000).await;
    (2..5).for_each(|device| world.turn(device, Mood::Absent));
    let error = world.restore(0).await.unwrap_err();
    let RestoreError::TooFewSlices {
        snapshot,
        found,
        needed,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((snapshot, found, needed), (spread.snapshot, 2, 3));
}

#[tokio::test]
async fn nothing_to_restore_is_named() {
    let world = World::new(3);
    let error = world.restore(0).await.unwrap_err();
    assert!(
        matches!(error, RestoreError::NoSnapshot { peers: 2 }),
        "{error}"
    );
}

#[tokio::test]
async fn liars_are_named_and_replaced() {
    let world = World::new(5);
    // Several blocks of 2 MiB.
    world.spread(0, content(5 << 20), 1_000).await;
    [1, 3]
        .into_iter()
        .for_each(|device| world.turn(device, Mood::Lying));
    let restored = world.restore(0).await.unwrap();
    assert_eq!(restored.content, content(5 << 20));
    let mut liars = [1, 3].map(|device: usize| world.devices[device].peer);
    liars.sort_unstable();
    assert!(!restored.liars.is_empty());
    assert!(restored.liars.iter().all(|liar| liars.contains(liar)));
    assert!(
        restored
            .liars
            .iter()
            .all(|liar| !restored.blocks_from.contains_key(liar))
    );
}

#[tokio::test]
async fn devices_that_vanish_half_way_are_replaced() {
    let world = World::new(5);
    world.spread(0, content(300_000), 1_000).await;
    [2, 4]
        .into_iter()
        .for_each(|device| world.turn(device, Mood::Vanishing));
    assert_eq!(world.restore(0).await.unwrap().content, content(300_000));
    world.turn(3, Mood::Vanishing);
    let error = world.restore(0).await.unwrap_err();
    let counted = matches!(
        error,
        RestoreError::TooFewSlices {
            found: 2,
            needed: 3,
            ..
        }
    );
    assert!(counted, "{error}");
}

#[tokio::test]
async fn a_device_that_holds_nothing_restores_as_well() {
    let world = World::new(4);
    let (view, peers) = (world.view(0), &world.peers(0)[..2]);
    let spread = world.devices[0]
        .cold
        .spread_over(&view, peers, content(9), 1, &|_| ());
    assert_eq!(spread.await.unwrap().slices_total, 3);
    world.turn(0, Mood::Absent);
    assert_eq!(world.restore(3).await.unwrap().content, content(9));
}

#[tokio::test]
async fn the_slice_of_a_failed_peer_stays_here() {
    let world = World::new(5);
    world.turn(2, Mood::Absent);
    let spread = world.spread(0, content(1_000), 1_000).await;
    assert_eq!(spread.failed.len(), 1);
    assert_eq!(spread.failed[0].0, world.devices[2].peer);
    assert_eq!(world.slots(spread.snapshot), [2, 1, 0, 1, 1]);
    let mut holders: BTreeMap<_, usize> = BTreeMap::new();
    spread
        .holders
        .iter()
        .for_each(|(_, peer)| *holders.entry(*peer).or_default() += 1);
    assert_eq!(holders[&world.devices[0].peer], 2);
    // Without this device three are left, which is just enough.
    assert_eq!(spread.losses_survived, 1);
}

#[tokio::test]
async fn a_full_peer_says_so_and_stays_as_it_was() {
    let world = World::new(3);
    world.devices[1].cold.set_quota(10_000);
    let spread = world.spread(0, content(100_000), 1_000).await;
    let [(peer, error)] = &spread.failed[..] else {
        panic!("{:?}", spread.failed);
    };
    assert_eq!(*peer, world.devices[1].peer);
    assert!(
        matches!(error, PeerError::Refused(Refusal::QuotaExceeded)),
        "{error}"
    );
    assert_eq!(world.devices[1].cold.usage_bytes(), 0);
}

#[tokio::test]
async fn older_snapshots_of_the_author_are_retired_once_the_new_one_is_placed() {
    let world = World::new(3);
    let other = world.spread(1, content(1), 500).await.snapshot;
    let first = world.spread(0, content(2), 1_000).await.snapshot;
    world.turn(2, Mood::Absent);
    // A clock that went back does not make the new snapshot the older one.
    let second = world.spread(0, content(3), 900).await.snapshot;
    assert_eq!(world.slots(first), [1, 1, 1]);
    assert_eq!(world.slots(second), [2, 1, 0]);
    assert_eq!(world.restore(1).await.unwrap().content, content(3));
    world.turn(2, Mood::Honest);
    let third = world.spread(0, content(4), 1_000).await.snapshot;
    assert_eq!(world.slots(first), [0, 0, 0]);
    assert_eq!(world.slots(second), [0, 0, 0]);
    assert_eq!(world.slots(third), [1, 1, 1]);
    assert_eq!(world.slots(other), [1, 1, 1]);
    assert_eq!(world.restore(2).await.unwrap().content, content(4));
}

#[tokio::test]
async fn an_older_snapshot_is_taken_when_the_newest_cannot_be_had() {
    let world = World::new(3);
    world.spread(1, content(1), 1_000).await;
    (1..3).for_each(|device| world.turn(device, Mood::Absent));
    let view = world.view(0);
    let alone = world.devices[0]
        .cold
        .spread_over(&view, &[], content(2), 2_000, &|_| ());
    let alone = alone.await.unwrap();
    assert_eq!(
        (
            alone.slices_needed,
            alone.slices_total,
            alone.losses_survived
        ),
        (1, 1, 0)
    );
    world.turn(0, Mood::Absent);
    world.turn(1, Mood::Honest);
    world.turn(2, Mood::Honest);
    assert_eq!(world.restore(2).await.unwrap().content, content(1));
    world.turn(0, Mood::Honest);
    assert_eq!(world.restore(2).await.unwrap().content, content(2));
}
