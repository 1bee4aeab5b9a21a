//! Finds out what a store's directory holds; the files decide, the catalogue saves reading.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::catalogue::{Catalogue, Entries};
use super::file::{FileError, FileName, at, remove};
use super::slice::{SLICE_HEADER_BYTES, SliceHeader};
use super::{HeldSlice, SliceCondition};
use crate::code::Slot;
use crate::manifest::SnapshotId;

/// Something an open found that is not as a store leaves it. None of these stops the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The catalogue was missing, empty or unreadable and was made anew from the slice files.
    CatalogueRebuilt,
    /// A file that a crash left unfinished was removed.
    UnfinishedRemoved,
    /// A file that is not the store's; it is left alone.
    Foreign {
        /// Its name in the directory.
        name: OsString,
    },
    /// A slice file is shorter or longer than its header says. The runs in it are served;
    /// mend or rewrite the others.
    SliceCut {
        /// The snapshot of the slice.
        snapshot: SnapshotId,
        /// The slot of the slice.
        slot: Slot,
    },
    /// A slice file's header is unreadable or another's. Runs that its manifest vouches for
    /// are served all the same.
    SliceHeaderDamaged {
        /// The snapshot of the slice.
        snapshot: SnapshotId,
        /// The slot of the slice.
        slot: Slot,
    },
    /// Slices are held without the manifest they need; put it again.
    ManifestMissing {
        /// The snapshot of the slices.
        snapshot: SnapshotId,
    },
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Bytes of each manifest file.
    pub(super) manifests: BTreeMap<SnapshotId, u64>,
    pub(super) slices: Entries,
    pub(super) findings: Vec<Finding>,
}

/// Lists the directory, sweeps what crashes left, and brings the catalogue up to date.
pub(super) fn scan(directory: &Path) -> Result<(Listing, Catalogue), FileError> {
    let (mut catalogue, known, deleted) = Catalogue::open(FileName::Catalogue.path(directory));
    let mut listing = list(directory, &known)?;
    // sled also opens a database that lost its head or its tail, and calls it empty.
    if deleted || (known.is_empty() && !listing.slices.is_empty()) {
        listing.findings.push(Finding::CatalogueRebuilt);
    }
    if known != listing.slices {
        catalogue.reset(&known, &listing.slices);
    }
    report_slices(&mut listing);
    for finding in &listing.findings {
        tracing::warn!(?finding, directory = %directory.display(), "symbol store");
    }
    Ok((listing, catalogue))
}

fn list(directory: &Path, known: &Entries) -> Result<Listing, FileError> {
    let mut listing = Listing::default();
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        names.insert(entry.map_err(at(directory))?.file_name());
    }
    for name in names {
        let path = directory.join(&name);
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            result => Some(result.map_err(at(&path))?),
        };
        let file_bytes = metadata
            .filter(fs::Metadata::is_file)
            .map(|metadata| metadata.len());
        match (name.to_str().and_then(FileName::parse), file_bytes) {
            (Some(FileName::Catalogue), None) | (Some(FileName::Lock), Some(_)) => {}
            (Some(FileName::Unfinished(_)), Some(_)) => {
                remove(&path)?;
                listing.findings.push(Finding::UnfinishedRemoved);
            }
            (Some(FileName::Manifest(snapshot)), Some(bytes)) => {
                listing.manifests.insert(snapshot, bytes);
            }
            (Some(FileName::Slice(snapshot, slot)), Some(bytes)) => {
                let at = (snapshot, slot);
                let known = known.get(&at).filter(|known| known.file_bytes == bytes);
                let slice = known
                    .copied()
                    .map_or_else(|| inspect(&path, at, bytes), Ok)?;
                listing.slices.insert(at, slice);
            }
            _ => listing.findings.push(Finding::Foreign { name }),
        }
    }
    Ok(listing)
}

/// Reads a slice file's header and holds it against the file's name and length.
fn inspect(
    path: &Path,
    (snapshot, slot): (SnapshotId, Slot),
    file_bytes: u64,
) -> Result<HeldSlice, FileError> {
    let mut bytes = [0; SLICE_HEADER_BYTES];
    let mut file = File::open(path).map_err(at(path))?;
    let header = match file.read_exact(&mut bytes) {
        Ok(()) => SliceHeader::decode(&bytes),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => None,
        Err(error) => return Err(at(path)(error)),
    };
    let condition = match header {
        Some(header) if (header.snapshot, header.slot) != (snapshot, slot) => {
            SliceCondition::HeaderDamaged
        }
        Some(header) if header.file_bytes() != file_bytes => SliceCondition::Cut,
        Some(_) => SliceCondition::Complete,
        None => SliceCondition::HeaderDamaged,
    };
    Ok(HeldSlice {
        file_bytes,
        condition,
    })
}

fn report_slices(listing: &mut Listing) {
    let mut orphans = BTreeSet::new();
    for (&(snapshot, slot), slice) in &listing.slices {
        match slice.condition {
            SliceCondition::Complete => {}
            SliceCondition::Cut => {
                listing.findings.push(Finding::SliceCut { snapshot, slot });
            }
            SliceCondition::HeaderDamaged => {
                listing
                    .findings
                    .push(Finding::SliceHeaderDamaged { snapshot, slot });
            }
        }
        if !listing.manifests.contains_key(&snapshot) {
            orphans.insert(snapshot);
        }
    }
    let missing = orphans
        .into_iter()
        .map(|snapshot| Finding::ManifestMissing { snapshot });
    listing.findings.extend(missing);
}
