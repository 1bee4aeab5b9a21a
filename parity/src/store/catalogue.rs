//! Remembers what the slice files are, so that an open need not read every header.
//!
//! The catalogue is a sled database and nothing depends on it: it is a copy of what the
//! files say. One wrong byte can make sled panic, so every call runs behind `catch_unwind`,
//! and a catalogue that errs in any way is deleted. The next open makes a new one.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::{HeldSlice, SliceCondition};
use crate::code::Slot;
use crate::manifest::SnapshotId;

/// Keys and values are below 50 bytes: this is far more than a catalogue needs.
const CACHE_BYTES: u64 = 16 << 20;

const KEY_BYTES: usize = 32 + 1;

/// The wait between two attempts to open the catalogue, and the most of them: together half
/// a second, after which rebuilding is quicker than waiting.
const OPEN_RETRY: Duration = Duration::from_millis(5);
const OPEN_RETRIES_MAX: u32 = 100;

pub(super) type Entries = BTreeMap<(SnapshotId, Slot), HeldSlice>;

#[derive(Debug)]
pub(super) struct Catalogue {
    path: PathBuf,
    /// `None` after an error: the store then works without, until it is opened again.
    db: Option<sled::Db>,
}

/// Something about the catalogue is wrong; it does not matter what.
#[derive(Debug)]
struct Doubt;

impl Catalogue {
    /// Opens the catalogue and reads it, or starts an empty one. The last value says whether
    /// there was one and it had to be deleted.
    pub(super) fn open(path: PathBuf) -> (Self, Entries, bool) {
        let existed = path.exists();
        if let Ok((db, entries)) = guard(|| open(&path)) {
            return (Self { path, db: Some(db) }, entries, false);
        }
        let mut catalogue = Self { path, db: None };
        catalogue.discard();
        catalogue.db = guard(|| open(&catalogue.path)).ok().map(|(db, _)| db);
        (catalogue, Entries::new(), existed)
    }

    /// Makes the catalogue hold exactly these entries.
    pub(super) fn reset(&mut self, old: &Entries, new: &Entries) {
        self.update(|db| {
            let mut batch = sled::Batch::default();
            old.keys()
                .filter(|at| !new.contains_key(at))
                .for_each(|at| batch.remove(&key(*at)[..]));
            new.iter()
                .for_each(|(at, slice)| batch.insert(&key(*at)[..], &value(slice)[..]));
            db.apply_batch(batch)
        });
    }

    pub(super) fn insert(&mut self, at: (SnapshotId, Slot), slice: &HeldSlice) {
        self.update(|db| db.insert(key(at), &value(slice)[..]).map(drop));
    }

    pub(super) fn remove(&mut self, at: (SnapshotId, Slot)) {
        self.update(|db| db.remove(key(at)).map(drop));
    }

    fn update(&mut self, write: impl FnOnce(&sled::Db) -> sled::Result<()>) {
        let Some(db) = &self.db else {
            return;
        };
        let written = guard(|| {
            write(db).map_err(|_| Doubt)?;
            db.flush().map_err(|_| Doubt)
        });
        if written.is_err() {
            self.discard();
        }
    }

    fn discard(&mut self) {
        tracing::warn!(path = %self.path.display(), "the slice catalogue is deleted and rebuilt");
        let db = self.db.take();
        let _ = guard(|| {
            drop(db);
            Ok(())
        });
        let removed = match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(_) => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "the store works without a catalogue");
        }
    }
}

/// Runs a call into sled and takes a panic for an error.
fn guard<T>(call: impl FnOnce() -> Result<T, Doubt>) -> Result<T, Doubt> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Doubt))
}

fn open(path: &Path) -> Result<(sled::Db, Entries), Doubt> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    let mut opened = config.open();
    // A thread inside sled keeps a closed database locked for a moment. Nobody else can have
    // it: the store's own lock is held.
    for _ in 0..OPEN_RETRIES_MAX {
        if !matches!(opened, Err(sled::Error::Io(_))) {
            break;
        }
        thread::sleep(OPEN_RETRY);
        opened = config.open();
    }
    let db = opened.map_err(|_| Doubt)?;
    let mut entries = Entries::new();
    for entry in db.iter() {
        let (key, value) = entry.map_err(|_| Doubt)?;
        let (at, slice) = parse(&key, &value).ok_or(Doubt)?;
        entries.insert(at, slice);
    }
    Ok((db, entries))
}

fn key((snapshot, slot): (SnapshotId, Slot)) -> [u8; KEY_BYTES] {
    let mut key = [slot.0; KEY_BYTES];
    key[..32].copy_from_slice(&snapshot.0);
    key
}

/// Eight bytes of file length, little-endian, and one of condition.
fn value(slice: &HeldSlice) -> [u8; 9] {
    let condition = match slice.condition {
        SliceCondition::Complete => 0,
        SliceCondition::Cut => 1,
        SliceCondition::HeaderDamaged => 2,
    };
    let mut value = [condition; 9];
    value[..8].copy_from_slice(&slice.file_bytes.to_le_bytes());
    value
}

fn parse(key: &[u8], value: &[u8]) -> Option<((SnapshotId, Slot), HeldSlice)> {
    let (snapshot, &[slot]) = key.split_first_chunk::<32>()? else {
        return None;
    };
    let (file_bytes, &[condition]) = value.split_first_chunk::<8>()? else {
        return None;
    };
    let condition = match condition {
        0 => SliceCondition::Complete,
        1 => SliceCondition::Cut,
        2 => SliceCondition::HeaderDamaged,
        _ => return None,
    };
    let slice = HeldSlice {
        file_bytes: u64::from_le_bytes(*file_bytes),
        condition,
    };
    Some(((SnapshotId(*snapshot), Slot(slot)), slice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_sled_costs_the_catalogue_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (mut catalogue, _, _) = Catalogue::open(directory.path().join("catalogue"));
        catalogue.update(|_| panic!("as sled does on a damaged page"));
        assert!(catalogue.db.is_none() && !catalogue.path.exists());
        catalogue.remove((SnapshotId([0; 32]), Slot(0)));
    }
}
