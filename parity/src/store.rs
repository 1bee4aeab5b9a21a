//! Keeps manifests and slices in one directory, each slice in a file of its own.
//!
//! A flipped byte harms the run it lies in and no other; a cut file, the runs behind the
//! cut. Every run is checked against its manifest on the way in and on the way out.

mod catalogue;
mod draft;
mod file;
mod manifest_file;
mod read;
mod scan;
mod slice;
mod write;

pub use draft::{DraftError, SnapshotDraft};
pub use file::FileError;
pub use manifest_file::ATTACHMENT_BYTES_MAX;
pub use read::{ManifestReadError, ReadError};
pub use scan::Finding;
pub use write::{SliceWriter, WriteError};

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catalogue::{Catalogue, Entries};
use file::{FileName, TempFile, at, remove, sync_directory};

use crate::code::Slot;
use crate::manifest::{Manifest, SnapshotId};

/// The symbol store of one directory. Clones are the same store, and it stays open as long
/// as one of them, a writer or a draft lives.
#[derive(Clone, Debug)]
pub struct SymbolStore {
    shared: Arc<Shared>,
}

/// A slice that the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldSlice {
    /// The bytes of its file.
    pub file_bytes: u64,
    /// The state of its file as a whole.
    pub condition: SliceCondition,
}

/// The state of a slice file as a whole. It says nothing about single runs: a byte that
/// flips later shows when its run is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SliceCondition {
    /// The header is good and the file as long as it says.
    Complete,
    /// The header is good and the file is shorter or longer than it says.
    Cut,
    /// The header is unreadable, or is that of another slice.
    HeaderDamaged,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another open store in this one, has the directory.
    #[error("the symbol store in {} is in use; stop the other process first", directory.display())]
    InUse {
        /// The store's directory.
        directory: PathBuf,
    },
    /// The directory or a file in it could not be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why a manifest could not be stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The attachment is longer than [`ATTACHMENT_BYTES_MAX`].
    #[error("an attachment of {found} bytes is above {ATTACHMENT_BYTES_MAX}; attach less")]
    AttachmentTooLong {
        /// Bytes given.
        found: usize,
    },
    /// The file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    /// Numbers the unfinished files.
    numbers: AtomicU64,
    findings: Vec<scan::Finding>,
    state: Mutex<State>,
    /// Held, not used: the lock on it ends when it is closed. It is closed last, so that the
    /// next to open finds a closed catalogue.
    _lock: File,
}

/// What the directory holds. Names in it change only while this is locked.
#[derive(Debug)]
struct State {
    /// Bytes of each manifest file.
    manifests: BTreeMap<SnapshotId, u64>,
    slices: Entries,
    catalogue: Catalogue,
    /// The manifest used last: runs are read and written in long rows.
    recent: Option<(SnapshotId, Arc<Manifest>)>,
}

impl SymbolStore {
    /// Opens the store in a directory, or makes one; see [`findings`](Self::findings).
    ///
    /// # Errors
    ///
    /// [`OpenError::InUse`], or what the operating system said.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        let directory = directory.as_ref();
        fs::create_dir_all(directory).map_err(at(directory))?;
        let path = FileName::Lock.path(directory);
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(at(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse {
                    directory: directory.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(at(&path)(error).into()),
        }
        let (listing, catalogue) = scan::scan(directory)?;
        let (manifests, slices) = (listing.manifests, listing.slices);
        let state = Mutex::new(State {
            manifests,
            slices,
            catalogue,
            recent: None,
        });
        let shared = Shared {
            directory: directory.to_owned(),
            _lock: lock,
            numbers: AtomicU64::new(0),
            findings: listing.findings,
            state,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Returns what the open found that was not as a store leaves it.
    pub fn findings(&self) -> &[Finding] {
        &self.shared.findings
    }

    /// Stores a manifest, and beside it bytes that the store does not look at, such as a
    /// signature. Replaces both if the manifest is held. On return it is on the disk.
    ///
    /// # Errors
    ///
    /// [`PutError::AttachmentTooLong`], or what the operating system said.
    pub fn put_manifest(
        &self,
        manifest: &Manifest,
        attachment: &[u8],
    ) -> Result<SnapshotId, PutError> {
        if attachment.len() > ATTACHMENT_BYTES_MAX {
            return Err(PutError::AttachmentTooLong {
                found: attachment.len(),
            });
        }
        let snapshot = manifest.id();
        let bytes = manifest_file::encode(manifest, attachment);
        let mut temp = TempFile::create(&self.shared.directory, &self.shared.numbers)?;
        temp.write(|file| std::io::Write::write_all(file, &bytes))?;
        let mut state = self.shared.lock();
        temp.keep(&FileName::Manifest(snapshot).path(&self.shared.directory))?;
        state.manifests.insert(snapshot, bytes.len() as u64);
        sync_directory(&self.shared.directory)?;
        Ok(snapshot)
    }

    /// Returns the snapshots of which the store holds a manifest or a slice.
    pub fn snapshots(&self) -> BTreeSet<SnapshotId> {
        let state = self.shared.lock();
        let slices = state.slices.keys().map(|(snapshot, _)| *snapshot);
        state.manifests.keys().copied().chain(slices).collect()
    }

    /// Returns the slices that the store holds of a snapshot.
    pub fn slices(&self, snapshot: SnapshotId) -> BTreeMap<Slot, HeldSlice> {
        let state = self.shared.lock();
        let slices = state
            .slices
            .range((snapshot, Slot(0))..=(snapshot, Slot(u8::MAX)));
        slices.map(|((_, slot), slice)| (*slot, *slice)).collect()
    }

    /// Returns the bytes of all manifest and slice files.
    pub fn usage_bytes(&self) -> u64 {
        let state = self.shared.lock();
        let slices = state.slices.values().map(|slice| slice.file_bytes);
        slices.chain(state.manifests.values().copied()).sum()
    }

    /// Removes one slice of a snapshot, and its bytes from the disk. One that is not held is
    /// fine.
    ///
    /// # Errors
    ///
    /// What the operating system said.
    pub fn remove_slice(&self, snapshot: SnapshotId, slot: Slot) -> Result<(), FileError> {
        self.shared
            .lock()
            .unlink(&self.shared.directory, snapshot, slot)?;
        sync_directory(&self.shared.directory)
    }

    /// Removes a snapshot's slices and then its manifest, and their bytes from the disk. One
    /// that is not held is fine.
    ///
    /// # Errors
    ///
    /// What the operating system said; removing again goes on where it stopped.
    pub fn remove(&self, snapshot: SnapshotId) -> Result<(), FileError> {
        let directory = &self.shared.directory;
        let slots = self.slices(snapshot);
        let mut state = self.shared.lock();
        for slot in slots.into_keys() {
            state.unlink(directory, snapshot, slot)?;
        }
        // The manifest goes last: after a crash the snapshot can still be named and removed.
        remove(&FileName::Manifest(snapshot).path(directory))?;
        state.manifests.remove(&snapshot);
        state.recent = None;
        sync_directory(directory)
    }
}

impl Shared {
    /// A panic elsewhere leaves the state as the last finished step made it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn unlink(
        &mut self,
        directory: &Path,
        snapshot: SnapshotId,
        slot: Slot,
    ) -> Result<(), FileError> {
        remove(&FileName::Slice(snapshot, slot).path(directory))?;
        if self.slices.remove(&(snapshot, slot)).is_some() {
            self.catalogue.remove((snapshot, slot));
        }
        Ok(())
    }

    fn hold(&mut self, at: (SnapshotId, Slot), file_bytes: u64) {
        let slice = HeldSlice {
            file_bytes,
            condition: SliceCondition::Complete,
        };
        self.slices.insert(at, slice);
        self.catalogue.insert(at, &slice);
    }
}

#[cfg(test)]
mod tests;
