//! Codes one block into runs and back; the only file that calls RaptorQ.
//!
//! The coding library panics or gives wrong bytes on input it does not expect, so it sees
//! parameters from [`CodeParameters`] only, symbols of the right length and number only, and
//! a decode runs behind `catch_unwind`. It also turns one poisoned symbol into a wrong block
//! without a word: callers check every run against a manifest before it comes here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use raptorq::{
    EncodingPacket, ObjectTransmissionInformation, PayloadId, SourceBlockDecoder,
    SourceBlockEncoder,
};

use crate::code::{CodeParameters, Slot};

/// Makes the runs of one block, one slot at a time.
pub struct BlockEncoder<'block> {
    code: CodeParameters,
    block: &'block [u8],
    /// Made when the first repair symbol is asked for; source symbols need none.
    repair: Option<SourceBlockEncoder>,
}

/// Why a block could not be coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockEncodeError {
    /// The block is not exactly as long as the code says.
    #[error("a block of {found} bytes cannot be coded; pad it with zeros to {expected}")]
    BlockBytes {
        /// Bytes given.
        found: usize,
        /// Bytes in every padded block of this code.
        expected: usize,
    },
    /// The code has no such slot.
    #[error("slot {slot} does not exist; the code has {slices_total} slots, from 0")]
    NoSuchSlot {
        /// The slot asked for.
        slot: Slot,
        /// Slots of the code.
        slices_total: u8,
    },
}

/// Why a block could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockDecodeError {
    /// Fewer runs than the code needs.
    #[error("{found} runs were given and {needed} are needed; find more slots")]
    TooFewRuns {
        /// Runs given.
        found: usize,
        /// Runs needed.
        needed: u8,
    },
    /// The code has no such slot.
    #[error("slot {slot} does not exist; the code has {slices_total} slots, from 0")]
    NoSuchSlot {
        /// The slot given.
        slot: Slot,
        /// Slots of the code.
        slices_total: u8,
    },
    /// One slot was given twice.
    #[error("slot {slot} was given twice; give each slot once")]
    SlotTwice {
        /// The slot given twice.
        slot: Slot,
    },
    /// A run has the wrong length.
    #[error("the run of slot {slot} has {found} bytes in place of {expected}; fetch it again")]
    RunBytes {
        /// The slot whose run it is.
        slot: Slot,
        /// Bytes given.
        found: usize,
        /// Bytes in every run of this code.
        expected: usize,
    },
    /// The symbols do not determine the block; rare by design of [`crate::SURPLUS_SYMBOLS`].
    #[error("these {found} runs do not determine the block; add a run of another slot")]
    Undetermined {
        /// Runs given.
        found: usize,
    },
    /// The coding library panicked.
    #[error("the coding library stopped on {found} checked runs; add or change slots")]
    LibraryPanicked {
        /// Runs given.
        found: usize,
    },
}

impl<'block> BlockEncoder<'block> {
    /// Takes a padded block.
    ///
    /// # Errors
    ///
    /// [`BlockEncodeError::BlockBytes`] unless the block is
    /// [`CodeParameters::block_bytes`] long.
    pub fn new(code: CodeParameters, block: &'block [u8]) -> Result<Self, BlockEncodeError> {
        let expected = code.block_bytes();
        if block.len() != expected {
            return Err(BlockEncodeError::BlockBytes {
                found: block.len(),
                expected,
            });
        }
        Ok(Self {
            code,
            block,
            repair: None,
        })
    }

    /// Returns one slot's run: [`CodeParameters::run_bytes`] bytes.
    ///
    /// # Errors
    ///
    /// [`BlockEncodeError::NoSuchSlot`].
    pub fn run(&mut self, slot: Slot) -> Result<Vec<u8>, BlockEncodeError> {
        if !self.code.has_slot(slot) {
            let slices_total = self.code.slices_total();
            return Err(BlockEncodeError::NoSuchSlot { slot, slices_total });
        }
        let source_symbols = u32::from(self.code.source_symbols());
        let first = self.code.first_symbol(slot);
        let end = first + u32::from(self.code.symbols_per_slice());
        let mut run = Vec::with_capacity(self.code.run_bytes());

        let [from, to] = [first, end].map(|symbol| {
            symbol.min(source_symbols) as usize * usize::from(self.code.symbol_bytes())
        });
        run.extend_from_slice(&self.block[from..to]);
        if end > source_symbols {
            let start = first.max(source_symbols);
            for packet in self
                .repair()
                .repair_packets(start - source_symbols, end - start)
            {
                run.extend_from_slice(packet.data());
            }
        }
        assert_eq!(
            run.len(),
            self.code.run_bytes(),
            "slot {slot} of {:?}",
            self.code
        );
        Ok(run)
    }

    fn repair(&mut self) -> &SourceBlockEncoder {
        self.repair.get_or_insert_with(|| {
            SourceBlockEncoder::new(LIBRARY_BLOCK, &library_parameters(&self.code), self.block)
        })
    }
}

/// Returns the runs of a padded block, in the order of the slots.
///
/// # Errors
///
/// As [`BlockEncoder::new`].
pub fn encode_block(code: CodeParameters, block: &[u8]) -> Result<Vec<Vec<u8>>, BlockEncodeError> {
    let mut encoder = BlockEncoder::new(code, block)?;
    code.slots().map(|slot| encoder.run(slot)).collect()
}

/// Returns the padded block that the runs were made from.
///
/// The runs must be known to be genuine: a wrong one gives a wrong block, not an error.
///
/// # Errors
///
/// Names what is wrong with the runs, or says that more are needed.
pub fn decode_block(
    code: CodeParameters,
    runs: &[(Slot, &[u8])],
) -> Result<Vec<u8>, BlockDecodeError> {
    check_runs(&code, runs)?;
    let found = runs.len();
    let block = match joined_source(&code, runs) {
        Some(block) => block,
        None => catch_unwind(AssertUnwindSafe(|| solve(&code, runs)))
            .map_err(|_| BlockDecodeError::LibraryPanicked { found })?
            .ok_or(BlockDecodeError::Undetermined { found })?,
    };
    assert_eq!(block.len(), code.block_bytes(), "{code:?}");
    Ok(block)
}

fn check_runs(code: &CodeParameters, runs: &[(Slot, &[u8])]) -> Result<(), BlockDecodeError> {
    let mut seen = [false; u8::MAX as usize + 1];
    let expected = code.run_bytes();
    for &(slot, run) in runs {
        if !code.has_slot(slot) {
            let slices_total = code.slices_total();
            return Err(BlockDecodeError::NoSuchSlot { slot, slices_total });
        }
        if std::mem::replace(&mut seen[usize::from(slot.0)], true) {
            return Err(BlockDecodeError::SlotTwice { slot });
        }
        if run.len() != expected {
            return Err(BlockDecodeError::RunBytes {
                slot,
                found: run.len(),
                expected,
            });
        }
    }
    let needed = code.slices_needed();
    if runs.len() < usize::from(needed) {
        return Err(BlockDecodeError::TooFewRuns {
            found: runs.len(),
            needed,
        });
    }
    Ok(())
}

/// Joins the block from the slots that hold its own bytes, if they are all there.
fn joined_source(code: &CodeParameters, runs: &[(Slot, &[u8])]) -> Option<Vec<u8>> {
    let mut block = Vec::with_capacity(usize::from(code.slices_needed()) * code.run_bytes());
    for slot in code.slots().take(usize::from(code.slices_needed())) {
        let (_, run) = runs.iter().find(|(held, _)| *held == slot)?;
        block.extend_from_slice(run);
    }
    block.truncate(code.block_bytes());
    Some(block)
}

fn solve(code: &CodeParameters, runs: &[(Slot, &[u8])]) -> Option<Vec<u8>> {
    let block_bytes = code.block_bytes() as u64;
    let mut decoder =
        SourceBlockDecoder::new(LIBRARY_BLOCK, &library_parameters(code), block_bytes);
    // One call with every symbol: the library solves again on each call past K symbols.
    decoder.decode(runs.iter().flat_map(|&(slot, run)| {
        let symbols = run.chunks_exact(usize::from(code.symbol_bytes()));
        (code.first_symbol(slot)..)
            .zip(symbols)
            .map(|(number, symbol)| {
                EncodingPacket::new(PayloadId::new(LIBRARY_BLOCK, number), symbol.to_vec())
            })
    }))
}

fn library_parameters(code: &CodeParameters) -> ObjectTransmissionInformation {
    let block_bytes = code.block_bytes() as u64;
    ObjectTransmissionInformation::new(block_bytes, code.symbol_bytes(), 1, 1, SYMBOL_ALIGNMENT)
}

/// The library numbers blocks with eight bits; each of ours is a world of its own.
const LIBRARY_BLOCK: u8 = 0;

/// Divides every legal symbol size; eight is what the library's vector code likes.
const SYMBOL_ALIGNMENT: u8 = 8;
const _: () = assert!(crate::code::SYMBOL_BYTES_STEP.is_multiple_of(SYMBOL_ALIGNMENT as u16));

#[cfg(test)]
mod tests;
