//! Reads manifests and runs back, and trusts neither before it has checked them.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::sync::Arc;

use super::file::{FileError, FileName, at};
use super::slice::run_offset;
use super::{SymbolStore, manifest_file};
use crate::code::{BlockIndex, Slot};
use crate::manifest::{Manifest, SnapshotId};

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestReadError {
    /// The store has no manifest of that name.
    #[error("no manifest of snapshot {snapshot} is held; fetch and put it first")]
    NotHeld {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// The manifest's file is not what was written.
    #[error("the manifest of snapshot {snapshot} is damaged; fetch and put it again")]
    Damaged {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why a run could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Without the manifest nothing says which bytes are right.
    #[error("the run cannot be checked without its manifest")]
    Manifest(#[from] ManifestReadError),
    /// The snapshot has no such slot or block.
    #[error("snapshot {snapshot} has no block {block} in slot {slot}; ask within its manifest")]
    NoSuchRun {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The slot asked for.
        slot: Slot,
        /// The block asked for.
        block: BlockIndex,
    },
    /// The store does not hold the slice.
    #[error("slot {slot} of snapshot {snapshot} is not held; ask another peer")]
    NotHeld {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The slot asked for.
        slot: Slot,
    },
    /// The slice file ends before the run does.
    #[error("block {block} of slot {slot} of snapshot {snapshot} is cut off; mend or rewrite it")]
    Cut {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The slot of the run.
        slot: Slot,
        /// The block of the run.
        block: BlockIndex,
    },
    /// The bytes on the disk are not the run.
    #[error("block {block} of slot {slot} of snapshot {snapshot} is damaged; mend or rewrite it")]
    Damaged {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The slot of the run.
        slot: Slot,
        /// The block of the run.
        block: BlockIndex,
    },
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl SymbolStore {
    /// Returns a manifest. Fast for the one asked for last.
    ///
    /// # Errors
    ///
    /// Says whether it is missing, damaged or could not be read.
    pub fn manifest(&self, snapshot: SnapshotId) -> Result<Arc<Manifest>, ManifestReadError> {
        if let Some((held, manifest)) = &self.shared.lock().recent
            && *held == snapshot
        {
            return Ok(Arc::clone(manifest));
        }
        let (manifest, _) = self.read_manifest(snapshot)?;
        let manifest = Arc::new(manifest);
        let mut state = self.shared.lock();
        if state.manifests.contains_key(&snapshot) {
            state.recent = Some((snapshot, Arc::clone(&manifest)));
        }
        Ok(manifest)
    }

    /// Returns the bytes that were put beside a manifest.
    ///
    /// # Errors
    ///
    /// Says whether the manifest is missing, damaged or could not be read.
    pub fn attachment(&self, snapshot: SnapshotId) -> Result<Vec<u8>, ManifestReadError> {
        Ok(self.read_manifest(snapshot)?.1)
    }

    /// Returns the run of one block in a slot, checked against the manifest.
    ///
    /// # Errors
    ///
    /// Says whether the run is missing, cut or damaged; the other runs of the slice are not
    /// touched by that.
    pub fn read_run(
        &self,
        snapshot: SnapshotId,
        slot: Slot,
        block: BlockIndex,
    ) -> Result<Vec<u8>, ReadError> {
        let manifest = self.manifest(snapshot)?;
        if manifest.run_hash(block, slot).is_none() {
            return Err(ReadError::NoSuchRun {
                snapshot,
                slot,
                block,
            });
        }
        if !self.shared.lock().slices.contains_key(&(snapshot, slot)) {
            return Err(ReadError::NotHeld { snapshot, slot });
        }
        let path = FileName::Slice(snapshot, slot).path(&self.shared.directory);
        let mut run = vec![0; manifest.code().run_bytes()];
        let offset = SeekFrom::Start(run_offset(block, run.len()));
        let mut read = || {
            let mut file = File::open(&path)?;
            file.seek(offset)?;
            file.read_exact(&mut run)
        };
        match read() {
            Ok(()) if manifest.is_run(block, slot, &run) => Ok(run),
            Ok(()) => Err(ReadError::Damaged {
                snapshot,
                slot,
                block,
            }),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(ReadError::Cut {
                snapshot,
                slot,
                block,
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(ReadError::NotHeld { snapshot, slot })
            }
            Err(error) => Err(at(&path)(error).into()),
        }
    }

    fn read_manifest(
        &self,
        snapshot: SnapshotId,
    ) -> Result<(Manifest, Vec<u8>), ManifestReadError> {
        if !self.shared.lock().manifests.contains_key(&snapshot) {
            return Err(ManifestReadError::NotHeld { snapshot });
        }
        let path = FileName::Manifest(snapshot).path(&self.shared.directory);
        match manifest_file::read(&path, snapshot) {
            Ok(read) => read.ok_or(ManifestReadError::Damaged { snapshot }),
            Err(error) if error.source.kind() == ErrorKind::NotFound => {
                Err(ManifestReadError::NotHeld { snapshot })
            }
            Err(error) => Err(error.into()),
        }
    }
}
