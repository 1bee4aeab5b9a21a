//! Writes slices from runs that anybody may have sent.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;

use super::file::{FileError, FileName, TempFile, at, sync_directory};
use super::read::ManifestReadError;
use super::slice::{SliceHeader, run_offset};
use super::{Shared, SymbolStore};
use crate::code::{BlockIndex, Slot};
use crate::manifest::{Manifest, SnapshotId};

/// A slice on its way into the store. Dropped before [`finish`](Self::finish) it leaves
/// nothing behind.
#[derive(Debug)]
pub struct SliceWriter {
    shared: Arc<Shared>,
    manifest: Arc<Manifest>,
    snapshot: SnapshotId,
    slot: Slot,
    temp: TempFile,
    /// For each block, whether its run was written.
    written: Vec<bool>,
}

/// Why a slice or a run could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Without the manifest nothing says which bytes are right.
    #[error("the slice cannot be checked without its manifest")]
    Manifest(#[from] ManifestReadError),
    /// The snapshot has no such slot.
    #[error("snapshot {snapshot} has no slot {slot}; write one of its manifest")]
    NoSuchSlot {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The slot asked for.
        slot: Slot,
    },
    /// The bytes are not the run of this block and slot.
    #[error("the bytes for block {block} of slot {slot} are not its run; ask another peer")]
    NotTheRun {
        /// The block the bytes came for.
        block: BlockIndex,
        /// The slot the bytes came for.
        slot: Slot,
    },
    /// A run is missing.
    #[error("block {block} of slot {slot} was not written; write it before finishing")]
    Incomplete {
        /// The first block without a run.
        block: BlockIndex,
        /// The slot being written.
        slot: Slot,
    },
    /// The store does not hold the slice, or the snapshot was removed meanwhile.
    #[error("slot {slot} of snapshot {snapshot} is not held here; write the whole slice")]
    NotHeld {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The slot.
        slot: Slot,
    },
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl SymbolStore {
    /// Starts to write one slice of a snapshot whose manifest is held. A slice that is held
    /// already stays until the new one is finished.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the manifest, the slot or the disk.
    pub fn slice_writer(
        &self,
        snapshot: SnapshotId,
        slot: Slot,
    ) -> Result<SliceWriter, WriteError> {
        let manifest = self.manifest(snapshot)?;
        if !manifest.code().has_slot(slot) {
            return Err(WriteError::NoSuchSlot { snapshot, slot });
        }
        let header = SliceHeader::new(&manifest, snapshot, slot).encode();
        let mut temp = TempFile::create(&self.shared.directory, &self.shared.numbers)?;
        temp.write(|file| file.write_all(&header))?;
        let written = vec![false; manifest.blocks_count() as usize];
        let shared = Arc::clone(&self.shared);
        Ok(SliceWriter {
            shared,
            manifest,
            snapshot,
            slot,
            temp,
            written,
        })
    }

    /// Puts a good run in the place of a damaged or missing one of a held slice. On return
    /// it is on the disk.
    ///
    /// # Errors
    ///
    /// [`WriteError::NotTheRun`] before anything is changed,
    /// [`WriteError::NotHeld`] when there is no slice to mend.
    pub fn mend_run(
        &self,
        snapshot: SnapshotId,
        slot: Slot,
        block: BlockIndex,
        run: &[u8],
    ) -> Result<(), WriteError> {
        let manifest = self.manifest(snapshot)?;
        if !manifest.is_run(block, slot, run) {
            return Err(WriteError::NotTheRun { block, slot });
        }
        let mut state = self.shared.lock();
        if !state.slices.contains_key(&(snapshot, slot)) {
            return Err(WriteError::NotHeld { snapshot, slot });
        }
        let header = SliceHeader::new(&manifest, snapshot, slot);
        let path = FileName::Slice(snapshot, slot).path(&self.shared.directory);
        let mend = || {
            let mut file = File::options().write(true).open(&path)?;
            file.write_all(&header.encode())?;
            // What was cut off comes back as zeros: damaged runs, to be mended one by one.
            file.set_len(header.file_bytes())?;
            write_run(&mut file, block, run)?;
            file.sync_all()
        };
        mend().map_err(at(&path))?;
        state.hold((snapshot, slot), header.file_bytes());
        Ok(())
    }
}

impl SliceWriter {
    /// Checks and writes one run. Blocks may come in any order and more than once.
    ///
    /// # Errors
    ///
    /// [`WriteError::NotTheRun`], after which the writer goes on as before.
    pub fn write_run(&mut self, block: BlockIndex, run: &[u8]) -> Result<(), WriteError> {
        if !self.manifest.is_run(block, self.slot, run) {
            return Err(WriteError::NotTheRun {
                block,
                slot: self.slot,
            });
        }
        self.temp.write(|file| write_run(file, block, run))?;
        self.written[block.0 as usize] = true;
        Ok(())
    }

    /// Returns the first block whose run is not written.
    pub fn block_wanted(&self) -> Option<BlockIndex> {
        self.manifest
            .blocks()
            .zip(&self.written)
            .find_map(|(block, done)| (!done).then_some(block))
    }

    /// Makes the slice part of the store. On return it is on the disk.
    ///
    /// # Errors
    ///
    /// [`WriteError::Incomplete`] when a run is missing, [`WriteError::NotHeld`] when the
    /// snapshot was removed meanwhile. The writer's file is gone then.
    pub fn finish(self) -> Result<(), WriteError> {
        let (snapshot, slot) = (self.snapshot, self.slot);
        if let Some(block) = self.block_wanted() {
            return Err(WriteError::Incomplete { block, slot });
        }
        let directory = &self.shared.directory;
        let mut state = self.shared.lock();
        if !state.manifests.contains_key(&snapshot) {
            return Err(WriteError::NotHeld { snapshot, slot });
        }
        self.temp
            .keep(&FileName::Slice(snapshot, slot).path(directory))?;
        sync_directory(directory)?;
        let header = SliceHeader::new(&self.manifest, snapshot, slot);
        state.hold((snapshot, slot), header.file_bytes());
        Ok(())
    }
}

pub(super) fn write_run(file: &mut File, block: BlockIndex, run: &[u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(run_offset(block, run.len())))?;
    file.write_all(run)
}
