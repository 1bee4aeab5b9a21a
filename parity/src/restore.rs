//! Restores an object from runs that anybody may have sent: a pure state machine.

mod pull;

pub use pull::{PullError, restore_object};

use std::collections::BTreeMap;

use blake3::Hasher;

use crate::block::{BlockDecodeError, decode_block};
use crate::code::{BlockIndex, Slot};
use crate::manifest::Manifest;

/// The restore of one object, block by block in order.
///
/// ```text
/// while let Some(block) = restore.block_wanted() {
///     // fetch runs of `block`, at least restore.runs_missing() of restore.slots_open()
///     restore.offer(block, slot, run)?;
///     if let Some(bytes) = restore.take_block() { /* write them */ }
/// }
/// let lies = restore.finish()?;
/// ```
///
/// **What is written may be used only after [`finish`](Self::finish) returned `Ok`.** It
/// holds one block and the runs of one block, and does no I/O.
#[derive(Debug)]
pub struct Restore {
    manifest: Manifest,
    /// The first block not yet taken.
    block: BlockIndex,
    /// Genuine runs of `block`.
    runs: BTreeMap<Slot, Vec<u8>>,
    /// How many runs the next attempt to decode waits for.
    runs_needed: usize,
    /// The object's bytes in `block`, once decoded.
    decoded: Option<Vec<u8>>,
    lies: BTreeMap<Slot, Lies>,
    object_hasher: Hasher,
}

/// What became of an offered run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The run is genuine and was kept.
    Accepted,
    /// The run is not what the manifest says: it was altered, cut or belongs elsewhere.
    Lied,
    /// The run was not looked at: its block is not the wanted one, or its slot is there.
    Unneeded,
}

/// The false runs that came for one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lies {
    /// The first block with a false run.
    pub first_block: BlockIndex,
    /// False runs over all blocks.
    pub runs_count: u32,
}

/// Why an object could not be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Too few genuine runs of a block.
    #[error("block {block} has {found} good runs and needs {needed}; find more of its slots")]
    TooFewRuns {
        /// The block that cannot be restored.
        block: BlockIndex,
        /// Good runs at hand.
        found: usize,
        /// Runs needed.
        needed: usize,
    },
    /// The runs are as the manifest says and the block is not: the manifest's author erred.
    #[error("block {block} decodes from good runs to other bytes; take another snapshot")]
    BlockDiffers {
        /// The block.
        block: BlockIndex,
    },
    /// Every block is as the manifest says and the object is not: the manifest's author erred.
    #[error("the object differs from its manifest's hash; discard it and take another snapshot")]
    ObjectDiffers,
}

impl Restore {
    /// Starts a restore.
    pub fn new(manifest: Manifest) -> Self {
        let runs_needed = usize::from(manifest.code().slices_needed());
        Self {
            manifest,
            block: BlockIndex(0),
            runs: BTreeMap::new(),
            runs_needed,
            decoded: None,
            lies: BTreeMap::new(),
            object_hasher: Hasher::new(),
        }
    }

    /// Returns the manifest.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the block whose runs are wanted; `None` while a block waits to be taken and
    /// when the last one was.
    pub fn block_wanted(&self) -> Option<BlockIndex> {
        let more = self.block.0 < self.manifest.blocks_count();
        (more && self.decoded.is_none()).then_some(self.block)
    }

    /// Returns how many more genuine runs the wanted block needs.
    ///
    /// In about one of 10⁹ cases the runs first counted on do not determine the block, and
    /// this goes from zero to one.
    pub fn runs_missing(&self) -> usize {
        match self.block_wanted() {
            Some(_) => self.runs_needed.saturating_sub(self.runs.len()),
            None => 0,
        }
    }

    /// Returns the slots whose runs of the wanted block are not here, slots that lied last.
    ///
    /// The order is a good one to ask in: the first `slices_needed` slots need no decoding.
    pub fn slots_open(&self) -> Vec<Slot> {
        if self.block_wanted().is_none() {
            return Vec::new();
        }
        let open = |slot: &Slot| !self.runs.contains_key(slot);
        let mut slots: Vec<Slot> = self.manifest.code().slots().filter(open).collect();
        slots.sort_by_key(|slot| self.lies.contains_key(slot));
        slots
    }

    /// Looks at a run, and decodes the block when it was the last one missing.
    ///
    /// # Errors
    ///
    /// [`RestoreError::BlockDiffers`], after which nothing more can be done with this
    /// manifest.
    pub fn offer(
        &mut self,
        block: BlockIndex,
        slot: Slot,
        run: Vec<u8>,
    ) -> Result<Offer, RestoreError> {
        if self.block_wanted() != Some(block) || self.runs.contains_key(&slot) {
            return Ok(Offer::Unneeded);
        }
        if !self.manifest.is_run(block, slot, &run) {
            let lies = self.lies.entry(slot);
            let lies = lies.or_insert(Lies {
                first_block: block,
                runs_count: 0,
            });
            lies.runs_count = lies.runs_count.saturating_add(1);
            return Ok(Offer::Lied);
        }
        self.runs.insert(slot, run);
        if self.runs.len() >= self.runs_needed {
            self.decode()?;
        }
        Ok(Offer::Accepted)
    }

    /// Returns the next block of the object, without padding, once it is decoded.
    pub fn take_block(&mut self) -> Option<Vec<u8>> {
        let bytes = self.decoded.take()?;
        self.object_hasher.update(&bytes);
        self.block.0 += 1;
        self.runs_needed = usize::from(self.manifest.code().slices_needed());
        Some(bytes)
    }

    /// Returns the slots for which false runs came, whether or not the restore goes on.
    pub const fn lies(&self) -> &BTreeMap<Slot, Lies> {
        &self.lies
    }

    /// Checks that every block was taken and that together they are the object, and returns
    /// the slots for which false runs came.
    ///
    /// # Errors
    ///
    /// [`RestoreError::TooFewRuns`] for the first block not taken,
    /// [`RestoreError::ObjectDiffers`] when what was taken must not be used.
    pub fn finish(self) -> Result<BTreeMap<Slot, Lies>, RestoreError> {
        if self.block.0 < self.manifest.blocks_count() {
            let found = self.runs.len();
            let (block, needed) = (self.block, self.runs_needed);
            return Err(RestoreError::TooFewRuns {
                block,
                found,
                needed,
            });
        }
        if self.object_hasher.finalize() != *self.manifest.object_hash() {
            return Err(RestoreError::ObjectDiffers);
        }
        Ok(self.lies)
    }

    fn decode(&mut self) -> Result<(), RestoreError> {
        let runs: Vec<(Slot, &[u8])> = self
            .runs
            .iter()
            .map(|(slot, run)| (*slot, run.as_slice()))
            .collect();
        let block = self.block;
        let mut bytes = match decode_block(self.manifest.code(), &runs) {
            Ok(bytes) => bytes,
            Err(
                BlockDecodeError::Undetermined { found }
                | BlockDecodeError::LibraryPanicked { found },
            ) => {
                self.runs_needed = found + 1;
                return Ok(());
            }
            Err(error) => unreachable!("every run was checked on arrival: {error}"),
        };
        if self.manifest.block_hash(block) != Some(&blake3::hash(&bytes)) {
            return Err(RestoreError::BlockDiffers { block });
        }
        bytes.truncate(self.manifest.block_object_bytes(block));
        self.decoded = Some(bytes);
        self.runs.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
