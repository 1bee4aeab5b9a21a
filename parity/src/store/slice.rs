//! The head of a slice file, version 1. Integers are little-endian.
//!
//! | bytes | field |
//! | --- | --- |
//! | 8 | magic, `SYNSLICE` |
//! | 1 | version, 1 |
//! | 1 | slot |
//! | 32 | snapshot id |
//! | 4 | blocks in the object, `b` |
//! | 4 | bytes in a run, `r` |
//! | 32 | blake3 of the fields before it |
//! | `b` · `r` | the runs, in the order of the blocks |
//!
//! A reader who holds the manifest needs nothing from the head: offsets follow from the
//! manifest, and each run is checked against it. The head is for finding out what a
//! directory holds.

use crate::code::{BLOCKS_COUNT_MAX, BlockIndex, RUN_BYTES_MAX, Slot};
use crate::manifest::{Manifest, SnapshotId};

/// Bytes before a slice file's first run.
pub(super) const SLICE_HEADER_BYTES: usize = FIELDS_BYTES + 32;
const FIELDS_BYTES: usize = 8 + 1 + 1 + 32 + 4 + 4;
const MAGIC: [u8; 8] = *b"SYNSLICE";
const VERSION: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SliceHeader {
    pub(super) snapshot: SnapshotId,
    pub(super) slot: Slot,
    pub(super) blocks_count: u32,
    pub(super) run_bytes: u32,
}

impl SliceHeader {
    pub(super) fn new(manifest: &Manifest, snapshot: SnapshotId, slot: Slot) -> Self {
        let run_bytes = manifest.code().run_bytes();
        Self {
            snapshot,
            slot,
            blocks_count: manifest.blocks_count(),
            run_bytes: u32::try_from(run_bytes).expect("at most RUN_BYTES_MAX"),
        }
    }

    /// Returns the length of the whole file.
    pub(super) fn file_bytes(&self) -> u64 {
        run_offset(BlockIndex(self.blocks_count), self.run_bytes as usize)
    }

    pub(super) fn encode(&self) -> [u8; SLICE_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(SLICE_HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, self.slot.0]);
        bytes.extend_from_slice(&self.snapshot.0);
        bytes.extend_from_slice(&self.blocks_count.to_le_bytes());
        bytes.extend_from_slice(&self.run_bytes.to_le_bytes());
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes.try_into().expect("the fields and the checksum")
    }

    /// Returns the header, unless any byte of it is wrong.
    pub(super) fn decode(bytes: &[u8; SLICE_HEADER_BYTES]) -> Option<Self> {
        let (fields, checksum) = bytes.split_first_chunk::<FIELDS_BYTES>()?;
        let (magic, fields_after) = fields.split_first_chunk::<8>()?;
        let (&[version, slot], fields_after) = fields_after.split_first_chunk::<2>()?;
        let (snapshot, fields_after) = fields_after.split_first_chunk::<32>()?;
        let (blocks_count, run_bytes) = fields_after.split_first_chunk::<4>()?;
        let header = Self {
            snapshot: SnapshotId(*snapshot),
            slot: Slot(slot),
            blocks_count: u32::from_le_bytes(*blocks_count),
            run_bytes: u32::from_le_bytes(run_bytes.try_into().ok()?),
        };
        let genuine = *magic == MAGIC
            && version == VERSION
            && checksum == blake3::hash(fields).as_bytes()
            && header.blocks_count <= BLOCKS_COUNT_MAX
            && header.run_bytes as usize <= RUN_BYTES_MAX;
        genuine.then_some(header)
    }
}

/// Returns where a block's run starts in a slice file.
pub(super) fn run_offset(block: BlockIndex, run_bytes: usize) -> u64 {
    SLICE_HEADER_BYTES as u64 + u64::from(block.0) * run_bytes as u64
}
