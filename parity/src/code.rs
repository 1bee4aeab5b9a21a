//! Says how an object is cut: blocks of symbols, and which symbols lie in which slot.

use std::fmt;

/// The most slots one snapshot is spread over. Bounds a manifest's hashes per block.
pub const SLICES_TOTAL_MAX: u8 = 64;

/// The most source symbols in one block (K). Larger blocks leave the processor's second-level
/// cache: coding K = 1,000 was measured two to three times slower, K = 10,000 seven times.
pub const SOURCE_SYMBOLS_MAX: u16 = 128;

/// Symbols that any `slices_needed` slots hold beyond K. RaptorQ decodes from K symbols with
/// a chance of failure of 5e-3; each further symbol divides it by more than 200, so three of
/// them leave about 5e-10.
pub const SURPLUS_SYMBOLS: u16 = 3;

/// The fewest bytes in a symbol. Smaller symbols cost more in RaptorQ's bookkeeping than in
/// their own bytes.
pub const SYMBOL_BYTES_MIN: u16 = 1024;

/// The most bytes in a symbol.
pub const SYMBOL_BYTES_MAX: u16 = 16_384;

/// Every symbol's size is a multiple of this: one cache line.
pub const SYMBOL_BYTES_STEP: u16 = 64;

/// The most bytes in one block before it is coded (2 MiB).
pub const BLOCK_BYTES_MAX: usize = SOURCE_SYMBOLS_MAX as usize * SYMBOL_BYTES_MAX as usize;

/// The most symbols in one slot of one block: all of a block and the surplus, when one slot
/// is enough.
pub const SYMBOLS_PER_SLICE_MAX: u16 = SOURCE_SYMBOLS_MAX + SURPLUS_SYMBOLS;

/// The most bytes in one run.
pub const RUN_BYTES_MAX: usize = SYMBOLS_PER_SLICE_MAX as usize * SYMBOL_BYTES_MAX as usize;

/// The most blocks in one object.
pub const BLOCKS_COUNT_MAX: u32 = 1 << 16;

/// The most bytes in one object (128 GiB).
pub const OBJECT_BYTES_MAX: u64 = BLOCKS_COUNT_MAX as u64 * BLOCK_BYTES_MAX as u64;

const _: () = assert!(SYMBOL_BYTES_MIN.is_multiple_of(SYMBOL_BYTES_STEP));
const _: () = assert!(SYMBOL_BYTES_MAX.is_multiple_of(SYMBOL_BYTES_STEP));
// With one symbol a slot, the most slots that can be needed still make a block of legal size.
const _: () = assert!(SLICES_TOTAL_MAX as u16 <= SYMBOLS_PER_SLICE_MAX);
// RaptorQ numbers symbols with 24 bits.
const _: () = assert!((SLICES_TOTAL_MAX as u32) * (SYMBOLS_PER_SLICE_MAX as u32) < 1 << 24);

/// One of the places a snapshot's symbols are spread over, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u8);

/// The position of a block in its object, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(pub u32);

/// How an object is coded. Every value of this type is within the limits above.
///
/// A block has K = `slices_needed` · `symbols_per_slice` − 3 source symbols. Slot `j` of a
/// block holds the symbols numbered `j · symbols_per_slice` up to the next slot's first, in
/// order; together they are the slot's *run* of that block. Symbols below K are the block's
/// own bytes, so the first `slices_needed` slots joined are the block itself and three
/// repair symbols: a restore that reaches those slots copies and does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeParameters {
    slices_needed: u8,
    slices_total: u8,
    symbols_per_slice: u16,
    symbol_bytes: u16,
}

/// Why parameters were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// `slices_needed` is zero.
    #[error("a snapshot needs at least one slice; ask for 1 or more")]
    NoSlices,
    /// More slots are needed than exist.
    #[error("{needed} slices are needed but only {total} are made; make at least {needed}")]
    TooFewSlices {
        /// Slots needed to restore.
        needed: u8,
        /// Slots made.
        total: u8,
    },
    /// More than [`SLICES_TOTAL_MAX`] slots.
    #[error("{total} slices are more than {SLICES_TOTAL_MAX}; make fewer")]
    TooManySlices {
        /// Slots asked for.
        total: u8,
    },
    /// K would be zero or above [`SOURCE_SYMBOLS_MAX`].
    #[error(
        "{needed} slices of {symbols_per_slice} symbols leave no block of 1 to \
         {SOURCE_SYMBOLS_MAX} source symbols; change the symbols per slice"
    )]
    SourceSymbols {
        /// Slots needed to restore.
        needed: u8,
        /// Symbols of one block in one slot.
        symbols_per_slice: u16,
    },
    /// The symbol size is outside its limits or not a multiple of [`SYMBOL_BYTES_STEP`].
    #[error(
        "a symbol of {symbol_bytes} bytes is not a multiple of {SYMBOL_BYTES_STEP} between \
         {SYMBOL_BYTES_MIN} and {SYMBOL_BYTES_MAX}; choose one that is"
    )]
    SymbolBytes {
        /// Bytes in one symbol.
        symbol_bytes: u16,
    },
    /// The object needs more than [`BLOCKS_COUNT_MAX`] blocks of this size.
    #[error("an object of {object_bytes} bytes does not fit this code; split it")]
    ObjectTooLarge {
        /// Bytes in the object.
        object_bytes: u64,
    },
}

impl CodeParameters {
    /// Checks and returns parameters.
    ///
    /// # Errors
    ///
    /// Names the limit that does not hold.
    pub const fn new(
        slices_needed: u8,
        slices_total: u8,
        symbols_per_slice: u16,
        symbol_bytes: u16,
    ) -> Result<Self, CodeError> {
        if let Err(error) = check_slices(slices_needed, slices_total) {
            return Err(error);
        }
        // Both factors are bounded before they are multiplied, so nothing wraps.
        let too_many = symbols_per_slice > SYMBOLS_PER_SLICE_MAX;
        if too_many || !is_block(slices_needed as u16 * symbols_per_slice) {
            return Err(CodeError::SourceSymbols {
                needed: slices_needed,
                symbols_per_slice,
            });
        }
        if symbol_bytes < SYMBOL_BYTES_MIN
            || symbol_bytes > SYMBOL_BYTES_MAX
            || !symbol_bytes.is_multiple_of(SYMBOL_BYTES_STEP)
        {
            return Err(CodeError::SymbolBytes { symbol_bytes });
        }
        Ok(Self {
            slices_needed,
            slices_total,
            symbols_per_slice,
            symbol_bytes,
        })
    }

    /// Chooses parameters for an object of a known size: as few blocks as possible, and
    /// within that the least padding.
    ///
    /// Stored bytes per slot come to `object_bytes / slices_needed` plus three symbols in K
    /// and less than one percent of padding; objects below about 128 KiB have a floor of
    /// one to four symbols of 1 KiB per slot.
    ///
    /// # Errors
    ///
    /// Refuses slice counts outside the limits and objects above about [`OBJECT_BYTES_MAX`]
    /// (somewhat less where K does not reach its maximum).
    pub fn for_object(
        object_bytes: u64,
        slices_needed: u8,
        slices_total: u8,
    ) -> Result<Self, CodeError> {
        check_slices(slices_needed, slices_total)?;
        let needed = u64::from(slices_needed);
        let symbols_max = SYMBOLS_PER_SLICE_MAX / u16::from(slices_needed);
        let symbols_min = (SURPLUS_SYMBOLS + 1).div_ceil(u16::from(slices_needed));
        let source_max = needed * u64::from(symbols_max) - u64::from(SURPLUS_SYMBOLS);

        let blocks = object_bytes
            .div_ceil(source_max * u64::from(SYMBOL_BYTES_MAX))
            .max(1);
        if blocks > u64::from(BLOCKS_COUNT_MAX) {
            return Err(CodeError::ObjectTooLarge { object_bytes });
        }
        let block_bytes = object_bytes.div_ceil(blocks);
        let symbol_bytes = block_bytes
            .div_ceil(source_max)
            .next_multiple_of(u64::from(SYMBOL_BYTES_STEP))
            .clamp(u64::from(SYMBOL_BYTES_MIN), u64::from(SYMBOL_BYTES_MAX));
        let symbols_per_slice = (block_bytes.div_ceil(symbol_bytes) + u64::from(SURPLUS_SYMBOLS))
            .div_ceil(needed)
            .clamp(u64::from(symbols_min), u64::from(symbols_max));
        Self::new(
            slices_needed,
            slices_total,
            u16::try_from(symbols_per_slice).expect("clamped to symbols_max"),
            u16::try_from(symbol_bytes).expect("clamped to SYMBOL_BYTES_MAX"),
        )
    }

    /// Returns how many slots restore the object.
    pub const fn slices_needed(&self) -> u8 {
        self.slices_needed
    }

    /// Returns how many slots exist.
    pub const fn slices_total(&self) -> u8 {
        self.slices_total
    }

    /// Returns how many symbols of one block lie in one slot.
    pub const fn symbols_per_slice(&self) -> u16 {
        self.symbols_per_slice
    }

    /// Returns the bytes in one symbol.
    pub const fn symbol_bytes(&self) -> u16 {
        self.symbol_bytes
    }

    /// Returns K, the source symbols of one block: 1 to [`SOURCE_SYMBOLS_MAX`].
    pub const fn source_symbols(&self) -> u16 {
        self.slices_needed as u16 * self.symbols_per_slice - SURPLUS_SYMBOLS
    }

    /// Returns the bytes of one padded block: at most [`BLOCK_BYTES_MAX`].
    pub const fn block_bytes(&self) -> usize {
        self.source_symbols() as usize * self.symbol_bytes as usize
    }

    /// Returns the bytes of one run, a slot's symbols of one block.
    pub const fn run_bytes(&self) -> usize {
        self.symbols_per_slice as usize * self.symbol_bytes as usize
    }

    /// Returns the slots in order.
    pub fn slots(&self) -> impl DoubleEndedIterator<Item = Slot> + use<> {
        (0..self.slices_total).map(Slot)
    }

    /// Returns whether this code has the slot.
    pub const fn has_slot(&self, slot: Slot) -> bool {
        slot.0 < self.slices_total
    }

    /// Returns how many blocks an object of `object_bytes` makes.
    ///
    /// # Errors
    ///
    /// [`CodeError::ObjectTooLarge`] when there would be more than [`BLOCKS_COUNT_MAX`].
    pub const fn blocks_count(&self, object_bytes: u64) -> Result<u32, CodeError> {
        let blocks = object_bytes.div_ceil(self.block_bytes() as u64);
        if blocks > BLOCKS_COUNT_MAX as u64 {
            return Err(CodeError::ObjectTooLarge { object_bytes });
        }
        Ok(blocks as u32)
    }

    /// Returns the number of the first symbol in a slot's runs.
    pub(crate) const fn first_symbol(&self, slot: Slot) -> u32 {
        slot.0 as u32 * self.symbols_per_slice as u32
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BlockIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const fn check_slices(needed: u8, total: u8) -> Result<(), CodeError> {
    if needed == 0 {
        return Err(CodeError::NoSlices);
    }
    if total < needed {
        return Err(CodeError::TooFewSlices { needed, total });
    }
    if total > SLICES_TOTAL_MAX {
        return Err(CodeError::TooManySlices { total });
    }
    Ok(())
}

/// Returns whether the symbols in the needed slots make a block of legal size.
const fn is_block(symbols: u16) -> bool {
    symbols > SURPLUS_SYMBOLS && symbols <= SOURCE_SYMBOLS_MAX + SURPLUS_SYMBOLS
}

#[cfg(test)]
mod tests;
