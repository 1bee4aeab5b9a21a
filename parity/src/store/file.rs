//! Names the store's files and writes them whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::code::{SLICES_TOTAL_MAX, Slot};
use crate::manifest::SnapshotId;

/// A file of the store could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{} could not be used; check the disk's space, permissions and health", path.display())]
pub struct FileError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

/// What a name in the store's directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileName {
    Manifest(SnapshotId),
    Slice(SnapshotId, Slot),
    /// A file being written, or left behind by a crash.
    Unfinished(u64),
    Catalogue,
    Lock,
}

/// A file that is removed again unless [`TempFile::keep`] gives it its name.
#[derive(Debug)]
pub(super) struct TempFile {
    file: File,
    path: PathBuf,
    kept: bool,
}

/// Maps an I/O error to one that names the path.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    |source| FileError {
        path: path.to_owned(),
        source,
    }
}

/// Makes renames and removals in the directory outlive a power loss.
pub(super) fn sync_directory(directory: &Path) -> Result<(), FileError> {
    // Elsewhere a directory cannot be opened as a file, and the rename is all there is.
    if cfg!(unix) {
        File::open(directory)
            .and_then(|opened| opened.sync_all())
            .map_err(at(directory))?;
    }
    Ok(())
}

/// Removes a file; one that is not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

impl FileName {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let parsed = match name {
            "catalogue" => Self::Catalogue,
            "lock" => Self::Lock,
            _ => match *name.split('.').collect::<Vec<_>>().as_slice() {
                [number, "unfinished"] => Self::Unfinished(number.parse().ok()?),
                [id, "manifest"] => Self::Manifest(SnapshotId::from_hex(id)?),
                [id, slot, "slice"] => {
                    let slot = slot.parse().ok().filter(|slot| *slot < SLICES_TOTAL_MAX)?;
                    Self::Slice(SnapshotId::from_hex(id)?, Slot(slot))
                }
                _ => return None,
            },
        };
        // One spelling a file: `7.slice` and `07.slice` must not be the same slot.
        (parsed.to_string() == name).then_some(parsed)
    }

    pub(super) fn path(self, directory: &Path) -> PathBuf {
        directory.join(self.to_string())
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifest(snapshot) => write!(f, "{snapshot}.manifest"),
            Self::Slice(snapshot, slot) => write!(f, "{snapshot}.{:02}.slice", slot.0),
            Self::Unfinished(number) => write!(f, "{number}.unfinished"),
            Self::Catalogue => f.write_str("catalogue"),
            Self::Lock => f.write_str("lock"),
        }
    }
}

impl TempFile {
    /// Creates an empty file; `numbers` is the counter of its directory.
    pub(super) fn create(directory: &Path, numbers: &AtomicU64) -> Result<Self, FileError> {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let path = FileName::Unfinished(number).path(directory);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(at(&path))?;
        Ok(Self {
            file,
            path,
            kept: false,
        })
    }

    /// Lets `write` work on the file and names the file in its error.
    pub(super) fn write(
        &mut self,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), FileError> {
        write(&mut self.file).map_err(at(&self.path))
    }

    /// Gives the file its name, replacing what had it. The caller syncs the directory.
    pub(super) fn keep(mut self, path: &Path) -> Result<(), FileError> {
        self.file.sync_all().map_err(at(&self.path))?;
        fs::rename(&self.path, path).map_err(at(path))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = remove(&self.path)
        {
            // The next open sweeps it.
            tracing::warn!(%error, "an unfinished file stays behind");
        }
    }
}
