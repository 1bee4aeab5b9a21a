//! The handle on a database's cold storage: which snapshots lie here, and room for more.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use syncline_parity::{
    CodeParameters, FileError, Manifest as CodeManifest, SliceCondition, Slot, SnapshotId,
    SymbolStore,
};
use thiserror::Error;

use super::manifest::{SignedHeader, SignedManifest};
use super::wire::{Listed, Refusal, SNAPSHOTS_LISTED_MAX};
use crate::trust::{DatabaseId, DatabaseSecret, Identity, PublicKey};

/// How many bytes of others' and own slices one database may take, unless set otherwise (16 GiB).
pub const QUOTA_BYTES_DEFAULT: u64 = 16 << 30;

/// How long a stream may stand still before it is given up.
pub const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// A database's cold storage on this device. Clones are the same storage.
#[derive(Clone)]
pub struct Cold {
    pub(super) shared: Arc<Shared>,
}

/// What this device holds of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSnapshot {
    /// Its name.
    pub snapshot: SnapshotId,
    /// Who made it.
    pub author: PublicKey,
    /// When it was made, in Unix milliseconds by the author's clock.
    pub created_unix_ms: u64,
    /// The slots whose slices lie here, in order.
    pub slots: Vec<Slot>,
    /// How many slices bring it back.
    pub slices_needed: u8,
    /// How many slices were made.
    pub slices_total: u8,
    /// Bytes of the sealed object.
    pub object_bytes: u64,
    /// Bytes of the slices that lie here.
    pub held_bytes: u64,
}

/// Why cold storage was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store of slices was not opened.
    #[error("the store of snapshots could not be used")]
    Store(#[from] syncline_parity::OpenError),
    /// What an interrupted transfer left could not be removed.
    #[error("what an interrupted transfer left could not be removed")]
    Sweep(#[source] FileError),
}

pub(super) struct Shared {
    pub(super) store: SymbolStore,
    pub(super) identity: Arc<Identity>,
    pub(super) secret: Arc<DatabaseSecret>,
    pub(super) idle_limit: Duration,
    quota_bytes: AtomicU64,
    index: Mutex<Index>,
    /// Held while this device spreads a snapshot: a second one would retire the first half-way.
    pub(super) spreading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Index {
    known: BTreeMap<SnapshotId, Known>,
    /// How many slices of each snapshot are being taken.
    taking: BTreeMap<SnapshotId, usize>,
    /// Bytes promised to slices that are being taken.
    reserved_bytes: u64,
}

struct Known {
    signed: SignedHeader,
    code: CodeParameters,
}

/// Room for a slice that is being taken. When the last one of a snapshot ends and no slice of it
/// was stored, nothing of the snapshot stays.
pub(super) struct Room {
    shared: Arc<Shared>,
    snapshot: SnapshotId,
    bytes: u64,
}

impl Cold {
    /// Opens the storage in `directory`, or makes it. Reads every manifest there: call it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// When another process has it open, or the disk fails.
    pub fn open(
        directory: impl AsRef<Path>,
        identity: Arc<Identity>,
        secret: Arc<DatabaseSecret>,
    ) -> Result<Cold, OpenError> {
        Cold::open_idle(directory, identity, secret, IDLE_LIMIT)
    }

    pub(super) fn open_idle(
        directory: impl AsRef<Path>,
        identity: Arc<Identity>,
        secret: Arc<DatabaseSecret>,
        idle_limit: Duration,
    ) -> Result<Cold, OpenError> {
        let store = SymbolStore::open(directory)?;
        for finding in store.findings() {
            tracing::warn!(?finding, "cold storage is not as it was left");
        }
        let mut index = Index::default();
        for snapshot in store.snapshots() {
            if store.slices(snapshot).is_empty() {
                store.remove(snapshot).map_err(OpenError::Sweep)?;
            } else if let Some(known) = read_known(&store, snapshot, &secret.id()) {
                index.known.insert(snapshot, known);
            }
        }
        let shared = Shared {
            store,
            identity,
            secret,
            idle_limit,
            quota_bytes: AtomicU64::new(QUOTA_BYTES_DEFAULT),
            index: Mutex::new(index),
            spreading: tokio::sync::Mutex::new(()),
        };
        Ok(Cold {
            shared: Arc::new(shared),
        })
    }

    /// Sets how many bytes this device keeps for the database, [`QUOTA_BYTES_DEFAULT`] at first.
    ///
    /// Slices that peers hand over are refused above it. Own snapshots count, and are not refused.
    pub fn set_quota(&self, quota_bytes: u64) {
        self.shared
            .quota_bytes
            .store(quota_bytes, Ordering::Relaxed);
    }

    /// Returns the bytes of all slices and manifests here.
    pub fn usage_bytes(&self) -> u64 {
        self.shared.store.usage_bytes()
    }

    /// Returns what lies here, the newest snapshot first.
    pub fn snapshots(&self) -> Vec<HeldSnapshot> {
        let index = self.shared.lock();
        let held = index.known.iter().filter_map(|(&snapshot, known)| {
            let slices = self.shared.store.slices(snapshot);
            let blocks = known
                .code
                .blocks_count(known.signed.header().sealed_bytes());
            let slice_bytes = u64::from(blocks.unwrap_or(0)) * known.code.run_bytes() as u64;
            let held = HeldSnapshot {
                snapshot,
                author: known.signed.header().author(),
                created_unix_ms: known.signed.header().created_unix_ms(),
                held_bytes: slices.len() as u64 * slice_bytes,
                slots: slices.into_keys().collect(),
                slices_needed: known.code.slices_needed(),
                slices_total: known.code.slices_total(),
                object_bytes: known.signed.header().sealed_bytes(),
            };
            (!held.slots.is_empty()).then_some(held)
        });
        let mut held: Vec<HeldSnapshot> = held.collect();
        held.sort_by_key(|held| std::cmp::Reverse((held.created_unix_ms, held.snapshot)));
        held
    }

    /// Returns what peers are told about what lies here.
    pub(super) fn listing(&self) -> Vec<Listed> {
        let newest = self.snapshots().into_iter().take(SNAPSHOTS_LISTED_MAX);
        let index = self.shared.lock();
        let listed = newest.filter_map(|held| {
            let known = index.known.get(&held.snapshot)?;
            Some(Listed {
                snapshot: held.snapshot,
                slots: held.slots.iter().fold(0, |slots, slot| slots | 1 << slot.0),
                signed: known.signed.encode(),
            })
        });
        listed.collect()
    }
}

impl Shared {
    pub(super) fn database(&self) -> DatabaseId {
        self.secret.id()
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // Every change of the index is one step, so a panic elsewhere leaves it whole.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the slice lies here, whole as far as its length tells.
    pub(super) fn holds(&self, snapshot: SnapshotId, slot: Slot) -> bool {
        let slices = self.store.slices(snapshot);
        let held = slices.get(&slot);
        held.is_some_and(|held| held.condition == SliceCondition::Complete)
    }

    /// Returns the author's other snapshots here that are older than `created_unix_ms`.
    pub(super) fn older(&self, author: PublicKey, created_unix_ms: u64) -> Vec<SnapshotId> {
        let is_older = |known: &Known| {
            let header = known.signed.header();
            header.author() == author && header.created_unix_ms() < created_unix_ms
        };
        let index = self.lock();
        let older = index.known.iter().filter(|(_, known)| is_older(known));
        older.map(|(snapshot, _)| *snapshot).collect()
    }

    /// Removes those of the snapshots that `author` made. Blocks on the disk.
    pub(super) fn retire(
        &self,
        author: PublicKey,
        snapshots: &[SnapshotId],
    ) -> Result<(), FileError> {
        for snapshot in snapshots {
            let mut index = self.lock();
            let known = index.known.get(snapshot);
            if known.is_some_and(|known| known.signed.header().author() == author) {
                self.store.remove(*snapshot)?;
                index.known.remove(snapshot);
            }
        }
        Ok(())
    }

    /// Notes a snapshot whose manifest the store holds.
    pub(super) fn note(&self, manifest: &SignedManifest) {
        let known = Known::of(manifest.signed(), manifest.code());
        self.lock()
            .known
            .insert(manifest.signed().snapshot(), known);
    }

    /// Sets room aside for one slice of a snapshot that a peer hands over.
    ///
    /// # Errors
    /// When the quota has no room, or the snapshot is held under another header.
    pub(super) fn reserve(self: &Arc<Self>, manifest: &SignedManifest) -> Result<Room, Refusal> {
        let snapshot = manifest.signed().snapshot();
        let bytes = manifest.code().slice_bytes() + manifest.code().encode().len() as u64;
        let mut index = self.lock();
        // The first header stays: a later one, by whomever, must not make the slices unusable.
        if let Some(known) = index.known.get(&snapshot)
            && known.signed != *manifest.signed()
        {
            return Err(Refusal::OtherHeader);
        }
        let used = self
            .store
            .usage_bytes()
            .saturating_add(index.reserved_bytes);
        if used.saturating_add(bytes) > self.quota_bytes.load(Ordering::Relaxed) {
            return Err(Refusal::QuotaExceeded);
        }
        index.reserved_bytes += bytes;
        *index.taking.entry(snapshot).or_default() += 1;
        let known = Known::of(manifest.signed(), manifest.code());
        index.known.insert(snapshot, known);
        Ok(Room {
            shared: Arc::clone(self),
            snapshot,
            bytes,
        })
    }
}

impl Known {
    fn of(signed: &SignedHeader, code: &CodeManifest) -> Known {
        let signed = signed.clone();
        Known {
            signed,
            code: code.code(),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut index = self.shared.lock();
        index.reserved_bytes -= self.bytes;
        let taking = index.taking.entry(self.snapshot).or_default();
        *taking -= 1;
        if *taking > 0 {
            return;
        }
        index.taking.remove(&self.snapshot);
        if self.shared.store.slices(self.snapshot).is_empty() {
            index.known.remove(&self.snapshot);
            if let Err(error) = self.shared.store.remove(self.snapshot) {
                tracing::warn!(%error, snapshot = %self.snapshot, "a manifest stays");
            }
        }
    }
}

/// Runs `work`, which blocks, where that is allowed.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is ending, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}

fn read_known(store: &SymbolStore, snapshot: SnapshotId, database: &DatabaseId) -> Option<Known> {
    let code = store.manifest(snapshot);
    let attachment = store.attachment(snapshot);
    let (Ok(code), Ok(attachment)) = (code, attachment) else {
        tracing::warn!(%snapshot, "a snapshot's manifest cannot be read; its slices lie idle");
        return None;
    };
    match SignedHeader::verify(&attachment, snapshot, database) {
        Ok(signed) => Some(Known::of(&signed, &code)),
        Err(error) => {
            tracing::warn!(%snapshot, %error, "a snapshot is not signed; its slices lie idle");
            None
        }
    }
}
