//! Takes an author's slices while the object is being coded, before its manifest exists.

use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

use blake3::Hash;

use super::file::{FileError, FileName, TempFile, sync_directory};
use super::slice::SliceHeader;
use super::write::write_run;
use super::{PutError, Shared, SymbolStore};
use crate::code::{BlockIndex, CodeParameters, Slot};
use crate::encoder::EncodedRun;
use crate::manifest::{Manifest, SnapshotId};

/// Slices of an object that is being coded. Dropped before [`finish`](Self::finish) it
/// leaves nothing behind.
#[derive(Debug)]
pub struct SnapshotDraft {
    store: SymbolStore,
    slices: BTreeMap<Slot, DraftSlice>,
}

/// Why a draft could not become part of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DraftError {
    /// The manifest describes other runs than the draft took.
    #[error("the draft's slot {slot} is not the manifest's; finish with the encoder's manifest")]
    OtherManifest {
        /// The first slot that differs.
        slot: Slot,
    },
    /// The manifest could not be stored.
    #[error(transparent)]
    Manifest(#[from] PutError),
    /// A slice could not be stored.
    #[error(transparent)]
    File(#[from] FileError),
}

#[derive(Debug)]
struct DraftSlice {
    temp: TempFile,
    /// The hash of each run, in the order of the blocks.
    hashes: Vec<Hash>,
}

impl SymbolStore {
    /// Starts a draft that keeps the given slots; give all of them to hand most to other
    /// peers later and [`remove_slice`](Self::remove_slice) those.
    ///
    /// # Errors
    ///
    /// What the operating system said.
    pub fn draft(
        &self,
        code: CodeParameters,
        slots: impl IntoIterator<Item = Slot>,
    ) -> Result<SnapshotDraft, FileError> {
        let mut slices = BTreeMap::new();
        for slot in slots.into_iter().filter(|slot| code.has_slot(*slot)) {
            let temp = TempFile::create(&self.shared.directory, &self.shared.numbers)?;
            slices.insert(
                slot,
                DraftSlice {
                    temp,
                    hashes: Vec::new(),
                },
            );
        }
        Ok(SnapshotDraft {
            store: self.clone(),
            slices,
        })
    }
}

impl SnapshotDraft {
    /// Takes a run from [`encode_object`](crate::encode_object); one of a slot that the draft
    /// does not keep is passed over.
    ///
    /// # Errors
    ///
    /// What the operating system said, as the encoder's sink passes it on.
    pub fn write_run(&mut self, run: EncodedRun<'_>) -> io::Result<()> {
        let Some(slice) = self.slices.get_mut(&run.slot()) else {
            return Ok(());
        };
        let next = u32::try_from(slice.hashes.len()).ok().map(BlockIndex);
        assert_eq!(
            next,
            Some(run.block()),
            "an encoder gives the blocks in order"
        );
        slice
            .temp
            .write(|file| write_run(file, run.block(), run.bytes()))
            .map_err(io::Error::other)?;
        slice.hashes.push(*run.hash());
        Ok(())
    }

    /// Stores the manifest and the draft's slices. On return they are on the disk.
    ///
    /// # Errors
    ///
    /// [`DraftError::OtherManifest`] before anything is stored. After another error some of
    /// the slices may be held: remove the snapshot, or write the others.
    pub fn finish(
        mut self,
        manifest: &Manifest,
        attachment: &[u8],
    ) -> Result<SnapshotId, DraftError> {
        for (&slot, slice) in &self.slices {
            let expected = manifest
                .blocks()
                .map(|block| manifest.run_hash(block, slot));
            if !slice.hashes.iter().map(Some).eq(expected) || !manifest.code().has_slot(slot) {
                return Err(DraftError::OtherManifest { slot });
            }
        }
        let snapshot = self.store.put_manifest(manifest, attachment)?;
        let shared: &Arc<Shared> = &self.store.shared;
        let mut state = shared.lock();
        for (slot, mut slice) in std::mem::take(&mut self.slices) {
            let header = SliceHeader::new(manifest, snapshot, slot);
            slice.temp.write(|file| {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&header.encode())
            })?;
            slice
                .temp
                .keep(&FileName::Slice(snapshot, slot).path(&shared.directory))?;
            state.hold((snapshot, slot), header.file_bytes());
        }
        sync_directory(&shared.directory)?;
        Ok(snapshot)
    }
}
