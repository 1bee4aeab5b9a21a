//! What the peers and this device hold, as far as their word and the authors' signatures go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use syncline_parity::{SLICES_TOTAL_MAX, Slot, SnapshotId};
use syncline_transport::PeerId;

use super::header::HEADER_BYTES;
use super::manifest::{ManifestError, SIGNED_HEADER_BYTES, SignedHeader};
use super::wire::Listed;
use crate::trust::DatabaseId;

const _: () = assert!(SLICES_TOTAL_MAX as u32 <= u64::BITS);
const _: () = assert!(HEADER_BYTES < SIGNED_HEADER_BYTES);

/// Orders snapshots, the newest first. Of one snapshot there may be several headers, if somebody
/// signed another's object; only the right one opens it.
type Rank = (Reverse<u64>, SnapshotId, [u8; SIGNED_HEADER_BYTES]);

/// What is held, and by whom.
#[derive(Default)]
pub(super) struct Survey {
    /// Everybody who was asked, whether or not there was an answer.
    pub(super) asked: BTreeSet<PeerId>,
    /// Who sent what no honest peer sends.
    pub(super) liars: BTreeSet<PeerId>,
    headers: BTreeMap<Rank, SignedHeader>,
    holders: BTreeMap<SnapshotId, BTreeMap<Slot, BTreeSet<PeerId>>>,
}

/// Returns each listed snapshot's header, checked, and its slots.
pub(super) fn checked_listing<'a>(
    listing: &'a [Listed],
    database: &'a DatabaseId,
) -> impl Iterator<Item = (Result<SignedHeader, ManifestError>, u64)> + 'a {
    listing.iter().map(|listed| {
        let signed = SignedHeader::verify(&listed.signed, listed.snapshot, database);
        (signed, listed.slots)
    })
}

impl Survey {
    /// Takes what `peer` says it holds. A peer with one false signature is not believed at all.
    pub(super) fn add(&mut self, peer: PeerId, listing: &[Listed], database: &DatabaseId) {
        let mut checked = Vec::with_capacity(listing.len());
        for (signed, slots) in checked_listing(listing, database) {
            let Ok(signed) = signed else {
                self.liars.insert(peer);
                return;
            };
            checked.push((signed, slots));
        }
        for (signed, slots) in checked {
            let snapshot = signed.snapshot();
            let held = self.holders.entry(snapshot).or_default();
            for slot in (0..SLICES_TOTAL_MAX).filter(|slot| slots >> slot & 1 == 1) {
                held.entry(Slot(slot)).or_default().insert(peer);
            }
            let created = Reverse(signed.header().created_unix_ms());
            self.headers
                .insert((created, snapshot, signed.encode()), signed);
        }
    }

    /// Forgets what `peer` holds.
    pub(super) fn forget(&mut self, peer: PeerId) {
        for slots in self.holders.values_mut() {
            slots.values_mut().for_each(|peers| {
                peers.remove(&peer);
            });
        }
    }

    /// Returns the newest snapshot whose header is not in `tried`, and adds it there.
    pub(super) fn next(&self, tried: &mut BTreeSet<Rank>) -> Option<SignedHeader> {
        let mut ranked = self.headers.iter();
        let (rank, signed) = ranked.find(|(rank, _)| !tried.contains(*rank))?;
        tried.insert(*rank);
        Some(signed.clone())
    }

    /// Returns who holds which slots of a snapshot; slots without a holder may be there.
    pub(super) fn holders(&self, snapshot: SnapshotId) -> BTreeMap<Slot, BTreeSet<PeerId>> {
        self.holders.get(&snapshot).cloned().unwrap_or_default()
    }

    /// Returns who holds anything of a snapshot.
    pub(super) fn holding(&self, snapshot: SnapshotId) -> BTreeSet<PeerId> {
        let slots = self.holders.get(&snapshot);
        slots
            .into_iter()
            .flat_map(BTreeMap::values)
            .flatten()
            .copied()
            .collect()
    }
}
