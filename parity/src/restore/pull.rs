//! Drives a restore from a source of runs into a writer.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{Lies, Restore, RestoreError};
use crate::code::{BlockIndex, Slot};
use crate::manifest::Manifest;

/// Why pulling an object out of a source of runs ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The runs do not give the object.
    #[error("the object could not be restored")]
    Restore(#[from] RestoreError),
    /// The restored bytes could not be written.
    #[error("block {block} could not be written")]
    Write {
        /// The block that was being written.
        block: BlockIndex,
        /// What the writer said.
        #[source]
        source: io::Error,
    },
}

/// Restores an object, asking `source` for one run at a time and for no more than needed,
/// and returns the slots for which false runs came.
///
/// The source may lack a run and may lie. What was written may be used only after `Ok`.
///
/// # Errors
///
/// Says which block lacks how many runs, or what the writer said.
pub fn restore_object(
    manifest: Manifest,
    mut source: impl FnMut(Slot, BlockIndex) -> Option<Vec<u8>>,
    mut object: impl Write,
) -> Result<BTreeMap<Slot, Lies>, PullError> {
    let mut restore = Restore::new(manifest);
    while let Some(block) = restore.block_wanted() {
        for slot in restore.slots_open() {
            if let Some(run) = source(slot, block) {
                restore.offer(block, slot, run)?;
            }
            if restore.block_wanted().is_none() {
                break;
            }
        }
        let Some(bytes) = restore.take_block() else {
            break;
        };
        object
            .write_all(&bytes)
            .map_err(|source| PullError::Write { block, source })?;
    }
    Ok(restore.finish()?)
}
