//! Objects come back from whatever is left, and liars are named.

use std::io::{self, Read};

use proptest::prelude::*;

use super::*;
use crate::code::CodeParameters;
use crate::harness::{Coded, choices, seeded, small_code};
use crate::{EncodeError, encode_object};

const BLOCK_BYTES: usize = 9 * 1024;

fn pull(
    coded: &Coded,
    mut source: impl FnMut(Slot, BlockIndex) -> Option<Vec<u8>>,
) -> Result<BTreeMap<Slot, Lies>, PullError> {
    let mut object = Vec::new();
    let lies = restore_object(coded.manifest.clone(), &mut source, &mut object)?;
    assert!(object == coded.object, "{} bytes", coded.object.len());
    Ok(lies)
}

fn reason(result: Result<BTreeMap<Slot, Lies>, PullError>) -> RestoreError {
    match result.expect_err("it cannot be restored") {
        PullError::Restore(error) => error,
        error => panic!("{error}"),
    }
}

#[test]
fn every_size_comes_back_from_every_choice_of_slots() {
    let sizes = [
        0,
        1,
        1023,
        BLOCK_BYTES - 1,
        BLOCK_BYTES,
        BLOCK_BYTES + 1,
        3 * BLOCK_BYTES + 7,
    ];
    for size in sizes {
        let coded = Coded::new(small_code(), size);
        for slots in choices(5, 3) {
            let source = |slot, block| {
                slots
                    .contains(&slot)
                    .then(|| coded.runs[&(slot, block)].clone())
            };
            assert!(pull(&coded, source).expect("three slots").is_empty());
        }
    }
}

proptest! {
    #![proptest_config(seeded(40))]

    #[test]
    fn random_objects_come_back_from_random_slots(
        size in 0..600_000_usize,
        needed in 1..=7_u8,
        spare in 0..=6_u8,
        seed: u64,
    ) {
        let code = CodeParameters::for_object(size as u64, needed, needed + spare)?;
        let coded = Coded::new(code, size);
        let mut slots: Vec<Slot> = code.slots().collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut slots);
        slots.truncate(needed.into());
        let source = |slot, block| {
            slots.contains(&slot).then(|| coded.runs[&(slot, block)].clone())
        };
        prop_assert!(pull(&coded, source)?.is_empty());
    }
}

#[test]
fn each_liar_is_named_and_the_object_still_restored() {
    let coded = Coded::new(small_code(), 3 * BLOCK_BYTES);
    let lies: [fn(&mut Vec<u8>); 5] = [
        |run| run[0] ^= 1,
        |run| *run.last_mut().expect("not empty") ^= 0x80,
        |run| run.truncate(run.len() - 1),
        |run| run.push(0),
        Vec::clear,
    ];
    for liar in small_code().slots() {
        for lie in lies {
            // The liar is asked first, or it might not be asked at all.
            let mut restore = Restore::new(coded.manifest.clone());
            let mut object = Vec::new();
            while let Some(block) = restore.block_wanted() {
                let mut run = coded.runs[&(liar, block)].clone();
                lie(&mut run);
                assert_eq!(restore.offer(block, liar, run), Ok(Offer::Lied));
                for slot in small_code().slots().filter(|slot| *slot != liar).take(3) {
                    let run = coded.runs[&(slot, block)].clone();
                    assert_eq!(restore.offer(block, slot, run), Ok(Offer::Accepted));
                }
                object.extend(restore.take_block().expect("three slots"));
            }
            assert!(object == coded.object);
            let expected = Lies {
                first_block: BlockIndex(0),
                runs_count: 3,
            };
            assert_eq!(restore.finish(), Ok(BTreeMap::from([(liar, expected)])));
        }
    }
}

#[test]
fn runs_of_another_slot_or_block_are_lies() {
    let coded = Coded::new(small_code(), 2 * BLOCK_BYTES);
    let mut restore = Restore::new(coded.manifest.clone());
    let mut offer = |slot, run: &[u8]| restore.offer(BlockIndex(0), slot, run.to_vec());
    assert_eq!(offer(Slot(0), coded.run(1, 0)), Ok(Offer::Lied));
    assert_eq!(offer(Slot(0), coded.run(0, 1)), Ok(Offer::Lied));
    assert_eq!(offer(Slot(5), coded.run(0, 0)), Ok(Offer::Lied));
    assert_eq!(offer(Slot(255), &[]), Ok(Offer::Lied));
    assert_eq!(offer(Slot(0), coded.run(0, 0)), Ok(Offer::Accepted));
}

#[test]
fn two_liars_of_five_do_no_harm_and_three_are_named_in_the_error() {
    let coded = Coded::new(small_code(), 2 * BLOCK_BYTES);
    let source = |liars: u8| {
        let coded = &coded;
        move |slot: Slot, block: BlockIndex| {
            let mut run = coded.runs[&(slot, block)].clone();
            run[17] ^= u8::from(slot.0 < liars);
            Some(run)
        }
    };
    let lies = pull(&coded, source(2)).expect("three slots are good");
    assert_eq!(lies.keys().copied().collect::<Vec<_>>(), [Slot(0), Slot(1)]);
    // Once known they are asked last, so they lied about the first block only.
    assert!(lies.values().all(|lies| lies.runs_count == 1));
    assert_eq!(
        reason(pull(&coded, source(3))),
        RestoreError::TooFewRuns {
            block: BlockIndex(0),
            found: 2,
            needed: 3
        }
    );
}

#[test]
fn too_few_slots_name_the_block_and_the_counts() {
    let coded = Coded::new(small_code(), 3 * BLOCK_BYTES);
    for found in 0..3 {
        let source = |slot: Slot, block: BlockIndex| {
            let held = block.0 < 2 || usize::from(slot.0) < found;
            held.then(|| coded.runs[&(slot, block)].clone())
        };
        let (block, needed) = (BlockIndex(2), 3);
        let expected = RestoreError::TooFewRuns {
            block,
            found,
            needed,
        };
        assert_eq!(reason(pull(&coded, source)), expected);
    }
}

#[test]
fn only_the_runs_that_are_missing_are_looked_at() {
    let coded = Coded::new(small_code(), 2 * BLOCK_BYTES);
    let mut restore = Restore::new(coded.manifest.clone());
    let offer = |restore: &mut Restore, block: u32, slot: u8| {
        restore.offer(
            BlockIndex(block),
            Slot(slot),
            coded.run(slot, block).to_vec(),
        )
    };
    assert_eq!(restore.runs_missing(), 3);
    assert_eq!(offer(&mut restore, 1, 0), Ok(Offer::Unneeded));
    assert_eq!(offer(&mut restore, 0, 3), Ok(Offer::Accepted));
    assert_eq!(offer(&mut restore, 0, 3), Ok(Offer::Unneeded));
    assert_eq!(restore.slots_open(), [Slot(0), Slot(1), Slot(2), Slot(4)]);
    assert_eq!(restore.take_block(), None);
    assert_eq!(offer(&mut restore, 0, 0), Ok(Offer::Accepted));
    assert_eq!(offer(&mut restore, 0, 1), Ok(Offer::Accepted));
    assert_eq!((restore.block_wanted(), restore.runs_missing()), (None, 0));
    assert_eq!(offer(&mut restore, 0, 2), Ok(Offer::Unneeded));
    assert!(
        restore
            .take_block()
            .is_some_and(|block| block == coded.object[..BLOCK_BYTES])
    );
    assert_eq!(restore.take_block(), None);
    assert_eq!(
        (restore.block_wanted(), restore.runs_missing()),
        (Some(BlockIndex(1)), 3)
    );
    let expected = RestoreError::TooFewRuns {
        block: BlockIndex(1),
        found: 0,
        needed: 3,
    };
    assert_eq!(restore.finish(), Err(expected));
}

/// Byte 15 starts the object's hash and byte 47 the first block's.
#[test]
fn a_manifest_at_odds_with_itself_is_found_out() {
    let coded = Coded::new(small_code(), 2 * BLOCK_BYTES);
    let altered = |at: usize| {
        let mut bytes = coded.manifest.encode();
        bytes[at] ^= 1;
        let manifest = Manifest::decode(&bytes).expect("well formed");
        let source = |slot, block| coded.runs.get(&(slot, block)).cloned();
        reason(restore_object(manifest, source, io::sink()))
    };
    assert_eq!(altered(15), RestoreError::ObjectDiffers);
    assert_eq!(
        altered(47),
        RestoreError::BlockDiffers {
            block: BlockIndex(0)
        }
    );
}

#[test]
fn an_object_longer_or_shorter_than_its_blocks_is_found_out() {
    let coded = Coded::new(small_code(), BLOCK_BYTES - 5);
    for object_bytes in [BLOCK_BYTES - 6, BLOCK_BYTES - 4, BLOCK_BYTES] {
        let mut bytes = coded.manifest.encode();
        bytes[7..15].copy_from_slice(&(object_bytes as u64).to_le_bytes());
        let manifest = Manifest::decode(&bytes).expect("well formed");
        let source = |slot, block| coded.runs.get(&(slot, block)).cloned();
        let error = reason(restore_object(manifest, source, io::sink()));
        assert_eq!(error, RestoreError::ObjectDiffers);
    }
}

#[test]
fn nothing_is_accepted_after_a_block_differs() {
    let coded = Coded::new(small_code(), BLOCK_BYTES);
    let mut bytes = coded.manifest.encode();
    bytes[47] ^= 1;
    let mut restore = Restore::new(Manifest::decode(&bytes).expect("well formed"));
    let block = BlockIndex(0);
    let results: Vec<_> = (0..5)
        .map(|slot| restore.offer(block, Slot(slot), coded.run(slot, 0).to_vec()))
        .collect();
    assert_eq!(results[..2], [Ok(Offer::Accepted), Ok(Offer::Accepted)]);
    assert_eq!(results[2..], [Err(RestoreError::BlockDiffers { block }); 3]);
    assert_eq!((restore.runs_missing(), restore.take_block()), (0, None));
}

#[test]
fn a_reader_that_trickles_gives_the_same_manifest() {
    struct Trickle<'a>(&'a [u8]);
    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let few = buffer.len().min(7);
            self.0.read(&mut buffer[..few])
        }
    }
    let coded = Coded::new(small_code(), 2 * BLOCK_BYTES + 1);
    let trickled = encode_object(small_code(), Trickle(&coded.object), |_| Ok(()));
    assert_eq!(trickled.expect("reads from memory"), coded.manifest);
}

#[test]
fn an_endless_object_is_cut_off() {
    struct Endless(u64);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += buffer.len() as u64;
            Ok(buffer.len())
        }
    }
    let code = CodeParameters::new(4, 4, 1, 1024).expect("within the limits");
    let error = encode_object(code, Endless(0), |_| Ok(())).expect_err("endless");
    assert!(matches!(error, EncodeError::TooLarge(_)), "{error}");
}

#[test]
fn a_sink_that_fails_stops_the_encoder_at_once() {
    let mut taken = 0;
    let object = vec![1; 3 * BLOCK_BYTES];
    let error = encode_object(small_code(), object.as_slice(), |_| {
        taken += 1;
        if taken == 7 {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    });
    let error = error.expect_err("the sink failed");
    let expected = (BlockIndex(1), Slot(1));
    assert!(
        matches!(error, EncodeError::Sink { block, slot, .. } if (block, slot) == expected),
        "{error:?}"
    );
    assert_eq!(taken, 7);
}
