//! The description of one coded object: everything a restore needs to trust nobody's bytes.

mod codec;

pub use codec::{MANIFEST_BYTES_MAX, ManifestError};

use std::fmt;

use blake3::Hash;

use crate::code::{BlockIndex, CodeError, CodeParameters, Slot};

/// The name of a coded object: blake3 of its manifest's encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub [u8; 32]);

/// The code parameters, length and hashes of one coded object.
///
/// A manifest is well formed by construction; whether it is genuine is for its reader to
/// check, by a signature or a [`SnapshotId`] from someone trusted.
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    code: CodeParameters,
    object_bytes: u64,
    object_hash: Hash,
    /// Block by block: the padded block's hash, then its runs' in the order of the slots.
    hashes: Vec<Hash>,
}

impl Manifest {
    /// Joins what an encoder has collected.
    ///
    /// # Errors
    ///
    /// [`CodeError::ObjectTooLarge`].
    ///
    /// # Panics
    ///
    /// When there are not exactly one plus `slices_total` hashes a block.
    pub(crate) fn new(
        code: CodeParameters,
        object_bytes: u64,
        object_hash: Hash,
        hashes: Vec<Hash>,
    ) -> Result<Self, CodeError> {
        let blocks = code.blocks_count(object_bytes)? as usize;
        assert_eq!(
            hashes.len(),
            blocks * hashes_per_block(&code),
            "{object_bytes} {code:?}"
        );
        Ok(Self {
            code,
            object_bytes,
            object_hash,
            hashes,
        })
    }

    /// Returns how the object is coded.
    pub const fn code(&self) -> CodeParameters {
        self.code
    }

    /// Returns the bytes in the object.
    pub const fn object_bytes(&self) -> u64 {
        self.object_bytes
    }

    /// Returns the blake3 hash of the object.
    pub const fn object_hash(&self) -> &Hash {
        &self.object_hash
    }

    /// Returns the number of blocks; an empty object has none.
    pub fn blocks_count(&self) -> u32 {
        let blocks = self.hashes.len() / hashes_per_block(&self.code);
        u32::try_from(blocks).expect("a manifest has at most BLOCKS_COUNT_MAX blocks")
    }

    /// Returns the blocks in order.
    pub fn blocks(&self) -> impl DoubleEndedIterator<Item = BlockIndex> + use<> {
        (0..self.blocks_count()).map(BlockIndex)
    }

    /// Returns how many of a block's bytes are the object's; the rest is padding. Zero for a
    /// block the object does not have.
    pub fn block_object_bytes(&self, block: BlockIndex) -> usize {
        let start = u64::from(block.0) * self.code.block_bytes() as u64;
        let rest = self.object_bytes.saturating_sub(start);
        usize::try_from(rest)
            .unwrap_or(usize::MAX)
            .min(self.code.block_bytes())
    }

    /// Returns the blake3 hash of a padded block, if the object has that block.
    pub fn block_hash(&self, block: BlockIndex) -> Option<&Hash> {
        self.hashes.get(self.first_hash(block)?)
    }

    /// Returns the blake3 hash of a run, if the object has that block and slot.
    pub fn run_hash(&self, block: BlockIndex, slot: Slot) -> Option<&Hash> {
        if !self.code.has_slot(slot) {
            return None;
        }
        self.hashes
            .get(self.first_hash(block)? + 1 + usize::from(slot.0))
    }

    /// Returns whether the bytes are the run of that block and slot.
    pub fn is_run(&self, block: BlockIndex, slot: Slot, run: &[u8]) -> bool {
        run.len() == self.code.run_bytes()
            && self
                .run_hash(block, slot)
                .is_some_and(|expected| *expected == blake3::hash(run))
    }

    /// Returns the bytes one slice takes: a run for each block.
    pub fn slice_bytes(&self) -> u64 {
        u64::from(self.blocks_count()) * self.code.run_bytes() as u64
    }

    /// Returns the object's name.
    pub fn id(&self) -> SnapshotId {
        SnapshotId(*blake3::hash(&self.encode()).as_bytes())
    }

    /// Returns the manifest's one encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Returns the manifest with this encoding.
    ///
    /// Allocates no more than a small multiple of `bytes`, whatever they say.
    ///
    /// # Errors
    ///
    /// Names the first rule that the bytes break.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        codec::decode(bytes)
    }

    /// Returns where a block's hashes start, if the object has that block.
    fn first_hash(&self, block: BlockIndex) -> Option<usize> {
        let held = block.0 < self.blocks_count();
        held.then(|| block.0 as usize * hashes_per_block(&self.code))
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("code", &self.code)
            .field("object_bytes", &self.object_bytes)
            .field("object_hash", &self.object_hash)
            .finish_non_exhaustive()
    }
}

impl SnapshotId {
    /// Returns the id written as 64 lower-case hexadecimal digits, if that is what it is.
    pub fn from_hex(text: &str) -> Option<Self> {
        let hash = Hash::from_hex(text).ok()?;
        let id = Self(*hash.as_bytes());
        // Hash::from_hex also reads capitals; a name has one spelling.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hash::from(self.0).to_hex().fmt(f)
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotId({self})")
    }
}

/// One for the block and one for each slot's run.
pub(crate) fn hashes_per_block(code: &CodeParameters) -> usize {
    1 + usize::from(code.slices_total())
}

#[cfg(test)]
mod tests;
