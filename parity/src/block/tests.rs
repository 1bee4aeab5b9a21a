//! Blocks come back from any slots, and symbols are those of format 1.

use proptest::prelude::*;

use super::*;
use crate::harness::{choices, random_bytes, seeded, small_code};

fn code(needed: u8, total: u8, symbols: u16) -> CodeParameters {
    CodeParameters::new(needed, total, symbols, 1024).expect("within the limits")
}

fn decode_from(
    code: CodeParameters,
    runs: &[Vec<u8>],
    slots: &[Slot],
) -> Result<Vec<u8>, BlockDecodeError> {
    let given: Vec<_> = slots
        .iter()
        .map(|slot| (*slot, runs[usize::from(slot.0)].as_slice()))
        .collect();
    decode_block(code, &given)
}

#[test]
fn any_needed_slots_give_the_block() {
    for needed in 1..=6 {
        for total in needed..=7 {
            for symbols in [3_u16.div_ceil(needed.into()) + 1, 9] {
                let code = code(needed, total, symbols);
                let block = random_bytes(1, code.block_bytes());
                let runs = encode_block(code, &block).expect("one block");
                for slots in choices(total, needed) {
                    assert!(
                        decode_from(code, &runs, &slots) == Ok(block.clone()),
                        "{slots:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_largest_code_works() {
    let code = CodeParameters::new(1, 64, 131, 16_384).expect("within the limits");
    let block = random_bytes(2, code.block_bytes());
    let mut encoder = BlockEncoder::new(code, &block).expect("one block");
    let run = encoder.run(Slot(63)).expect("the last slot");
    assert!(decode_block(code, &[(Slot(63), &run)]).is_ok_and(|decoded| decoded == block));
}

proptest! {
    #![proptest_config(seeded(150))]

    #[test]
    fn random_codes_and_survivors_give_the_block(
        needed in 1..=20_u8,
        spare in 0..=20_u8,
        symbols in 1..=12_u16,
        extra in 0..=3_usize,
        seed: u64,
    ) {
        let symbols = symbols.clamp(4_u16.div_ceil(needed.into()), 131 / u16::from(needed));
        let code = code(needed, needed + spare, symbols);
        let block = random_bytes(seed, code.block_bytes());
        let runs = encode_block(code, &block)?;
        let mut slots: Vec<Slot> = code.slots().collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut slots);
        slots.truncate(usize::from(needed) + extra);
        prop_assert!(decode_from(code, &runs, &slots)? == block);
    }
}

#[test]
fn the_first_slots_are_the_block_itself() {
    let code = small_code();
    let block = random_bytes(3, code.block_bytes());
    let runs = encode_block(code, &block).expect("one block");
    assert!(runs[..3].concat()[..code.block_bytes()] == block);
}

#[test]
fn one_slot_alone_has_the_bytes_of_the_whole_block() {
    let code = small_code();
    let block = random_bytes(4, code.block_bytes());
    let runs = encode_block(code, &block).expect("one block");
    for slot in code.slots() {
        let run = BlockEncoder::new(code, &block)
            .expect("one block")
            .run(slot);
        assert!(
            run.as_ref() == Ok(&runs[usize::from(slot.0)]),
            "slot {slot}"
        );
    }
}

#[test]
fn unfit_runs_are_refused_before_the_library_sees_them() {
    let code = small_code();
    let block = random_bytes(5, code.block_bytes());
    let runs = encode_block(code, &block).expect("one block");
    let run = |slot: u8| (Slot(slot), runs[usize::from(slot)].as_slice());

    let refused = |runs: &[(Slot, &[u8])]| decode_block(code, runs).expect_err("unfit");
    assert_eq!(
        refused(&[]),
        BlockDecodeError::TooFewRuns {
            found: 0,
            needed: 3
        }
    );
    assert_eq!(
        refused(&[run(0), run(4)]),
        BlockDecodeError::TooFewRuns {
            found: 2,
            needed: 3
        }
    );
    assert_eq!(
        refused(&[run(0), run(4), run(4)]),
        BlockDecodeError::SlotTwice { slot: Slot(4) }
    );
    assert_eq!(
        refused(&[run(0), run(4), (Slot(5), run(1).1)]),
        BlockDecodeError::NoSuchSlot {
            slot: Slot(5),
            slices_total: 5
        }
    );
    for length in [0, 1, 1024, 4095] {
        assert_eq!(
            refused(&[run(0), run(4), (Slot(3), &run(3).1[..length])]),
            BlockDecodeError::RunBytes {
                slot: Slot(3),
                found: length,
                expected: 4096
            }
        );
    }
}

#[test]
fn unfit_blocks_are_refused() {
    let code = small_code();
    for found in [0, code.block_bytes() - 1, code.block_bytes() + 1] {
        let expected = code.block_bytes();
        let error = encode_block(code, &vec![0; found]).expect_err("unfit");
        assert_eq!(error, BlockEncodeError::BlockBytes { found, expected });
    }
    let block = vec![0; code.block_bytes()];
    let error = BlockEncoder::new(code, &block)
        .expect("one block")
        .run(Slot(5));
    assert_eq!(
        error,
        Err(BlockEncodeError::NoSuchSlot {
            slot: Slot(5),
            slices_total: 5
        })
    );
}

/// Symbols of raptorq 2.x. Versions 1.x make others for the same bytes, and peers that
/// disagree cannot read each other's slices: a change here is a change of the format.
#[test]
fn symbols_are_those_of_format_1() {
    let golden = [
        (
            1,
            4,
            4,
            "cf93b0266e5c2b742f01059eb9000a03a4de34ad436963a5622d2f5c972d6bff",
        ),
        (
            3,
            5,
            4,
            "fd4b4b27fcdf6ba506de05a3609395e48a4e2a9c37422601e6799f5a9a2b9404",
        ),
        (
            4,
            10,
            25,
            "4a52086a581abb19c17772238d14e4ef01f5b2585b3f1acb186dceac8506b87f",
        ),
        (
            10,
            20,
            13,
            "636a3b5445d2ef034c3a31867572fa5265fa5810b614f3b663e253a52e9af295",
        ),
    ];
    for (needed, total, symbols, expected) in golden {
        let code = code(needed, total, symbols);
        let block: Vec<u8> = (0..code.block_bytes())
            .map(|at| (at * at % 251) as u8)
            .collect();
        let runs = encode_block(code, &block).expect("one block");
        assert_eq!(
            blake3::hash(&runs.concat()).to_hex().as_str(),
            expected,
            "{code:?}"
        );
    }
}
