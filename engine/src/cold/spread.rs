//! Makes a snapshot and hands its slices to the peers.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{FuturesUnordered, StreamExt};
use syncline_parity::{
    Candidate, CodeError, CodeParameters, DraftError, EncodeError, FileError, PeerKey,
    SLICES_TOTAL_MAX, Slot, SnapshotId, encode_object, place_slots,
};
use syncline_transport::{Network, PeerId};
use thiserror::Error;

use super::content::Content;
use super::manifest::SignedManifest;
use super::progress::Progress;
use super::remote::{Dial, PeerError, Session};
use super::retire::{RETIRED_MAX, Retirement};
use super::sealed::{Salts, SealError, Sealing, seal};
use super::shelf::{Cold, Shared, blocking};
use super::survey::checked_listing;
use crate::trust::RandomError;

/// How many slices are sent at once. Each takes the memory of one run, at most 2 MiB.
const SENDS_AT_ONCE: usize = 8;

/// What became of a snapshot and its slices.
#[derive(Debug)]
pub struct Spread {
    /// Its name.
    pub snapshot: SnapshotId,
    /// How many slices bring it back.
    pub slices_needed: u8,
    /// How many slices were made.
    pub slices_total: u8,
    /// Bytes of the sealed object; a slice is about a `slices_needed`th of it.
    pub bytes: u64,
    /// Who holds each slot: this device, or a peer that has acknowledged it.
    pub holders: Vec<(Slot, PeerId)>,
    /// Peers that did not take their slice, which therefore stays here, and why.
    pub failed: Vec<(PeerId, PeerError)>,
    /// How many of the holders, this device among them, may vanish at worst without loss.
    pub losses_survived: usize,
}

/// Why no snapshot was made. Then nothing of it stays.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpreadError {
    /// There is no randomness to be had.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The content was not sealed.
    #[error("the content was not sealed")]
    Seal(#[from] SealError),
    /// The sealed object is too large for the code.
    #[error("the snapshot does not fit its code")]
    Code(#[from] CodeError),
    /// The slices could not be written.
    #[error("the slices were not written; check the disk's free space")]
    Encode(#[from] EncodeError),
    /// The slices could not become part of the store.
    #[error("the slices were not stored; check the disk's free space")]
    Draft(#[from] DraftError),
    /// A file could not be used.
    #[error("the store of snapshots could not be written")]
    File(#[from] FileError),
}

impl Cold {
    /// Seals `content`, codes it so that two fifths of the holders may vanish, and hands a slice
    /// to each peer; one stays here.
    ///
    /// Of `n` slices (one for each peer and this device, at most [`SLICES_TOTAL_MAX`]) any
    /// `n − max(1, ⌊0.4·n⌋)` bring it back; alone there is one slice, and no safety. A peer that
    /// fails is no error: its slice stays here, and the result names it. Once every slice is
    /// placed, this device's older snapshots are removed here and on `peers`. Until then both
    /// take room. Snapshots are made one after the other.
    ///
    /// `now_unix_ms` is the time in Unix milliseconds; if the clock went back, the snapshot is
    /// dated 1 ms after the newest of this device's that lies here.
    ///
    /// # Errors
    /// When the snapshot cannot be made at all.
    pub async fn spread(
        &self,
        network: &Network,
        peers: &[PeerId],
        content: Content,
        now_unix_ms: u64,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Spread, SpreadError> {
        self.spread_over(network, peers, content, now_unix_ms, &progress)
            .await
    }

    pub(super) async fn spread_over<D: Dial>(
        &self,
        dial: &D,
        peers: &[PeerId],
        content: Content,
        now_unix_ms: u64,
        progress: &(impl Fn(Progress) + Send + Sync),
    ) -> Result<Spread, SpreadError> {
        let _alone = self.shared.spreading.lock().await;
        let mut candidates: BTreeSet<PeerId> = peers.iter().copied().collect();
        candidates.insert(dial.local());
        let total = candidates.len().min(usize::from(SLICES_TOTAL_MAX));
        let total = u8::try_from(total).expect("at most SLICES_TOTAL_MAX");
        let created_unix_ms = self.next_date(now_unix_ms);
        let shared = self.shared.clone();
        let made =
            blocking(move || make(&shared, &content, needed_of(total), total, created_unix_ms));
        let manifest = made.await?;
        let object_bytes = manifest.code().object_bytes();
        progress(Progress::Coded { object_bytes });

        let placed = place(manifest.signed().snapshot(), total, &candidates);
        let mut spread = self.hand_over(dial, &manifest, placed, progress).await;
        spread.holders.sort_unstable();
        spread.losses_survived = losses_survived(&spread.holders, needed_of(total));
        if spread.failed.is_empty() {
            let others = candidates.iter().filter(|peer| **peer != dial.local());
            self.retire_older(dial, others, created_unix_ms).await;
        }
        Ok(spread)
    }

    /// Returns the date of a new snapshot: later than all of this device's that lie here.
    fn next_date(&self, now_unix_ms: u64) -> u64 {
        let author = self.shared.identity.public_key();
        let own = self.snapshots().into_iter();
        let own = own.filter(|held| held.author == author);
        let newest = own.map(|held| held.created_unix_ms).max();
        newest.map_or(now_unix_ms, |newest| {
            now_unix_ms.max(newest.saturating_add(1))
        })
    }

    async fn hand_over<D: Dial>(
        &self,
        dial: &D,
        manifest: &SignedManifest,
        placed: Vec<(Slot, PeerId)>,
        progress: &(impl Fn(Progress) + Send + Sync),
    ) -> Spread {
        let code = manifest.code().code();
        let snapshot = manifest.signed().snapshot();
        let mut spread = Spread {
            snapshot,
            slices_needed: code.slices_needed(),
            slices_total: code.slices_total(),
            bytes: manifest.code().object_bytes(),
            holders: Vec::new(),
            failed: Vec::new(),
            losses_survived: 0,
        };
        let here = |placed: &(Slot, PeerId)| placed.1 == dial.local();
        let (stays, sent): (Vec<_>, Vec<_>) = placed.into_iter().partition(here);
        spread.holders.extend(stays);
        let (mut slices_done, slices_total) = (0, sent.len());
        let mut waiting = sent.into_iter();
        let mut flying = FuturesUnordered::new();
        loop {
            while flying.len() < SENDS_AT_ONCE
                && let Some((slot, peer)) = waiting.next()
            {
                flying.push(self.send_slice(dial, manifest, slot, peer));
            }
            let Some((slot, peer, sent)) = flying.next().await else {
                return spread;
            };
            if let Err(error) = sent {
                spread.holders.push((slot, dial.local()));
                spread.failed.push((peer, error));
                continue;
            }
            let shared = self.shared.clone();
            let removed = blocking(move || shared.store.remove_slice(snapshot, slot)).await;
            if let Err(error) = removed {
                tracing::warn!(%error, "a slice that a peer holds stays here as well");
            }
            spread.holders.push((slot, peer));
            slices_done += 1;
            progress(Progress::Sent {
                slices_done,
                slices_total,
            });
        }
    }

    async fn send_slice<D: Dial>(
        &self,
        dial: &D,
        manifest: &SignedManifest,
        slot: Slot,
        peer: PeerId,
    ) -> (Slot, PeerId, Result<(), PeerError>) {
        let mut session = Session::new(dial, peer, self.shared.idle_limit);
        let sent = session.offer(manifest, slot, &self.shared.store).await;
        (slot, peer, sent)
    }

    /// Removes this device's snapshots from before `created_unix_ms`, here and on the peers. What
    /// is not removed costs room and nothing else, and the next snapshot removes it.
    async fn retire_older<D: Dial>(
        &self,
        dial: &D,
        peers: impl Iterator<Item = &PeerId>,
        created_unix_ms: u64,
    ) {
        for peer in peers {
            if let Err(error) = self.retire_on(dial, *peer, created_unix_ms).await {
                tracing::warn!(%peer, %error, "older snapshots stay on a peer");
            }
        }
        let author = self.shared.identity.public_key();
        let older = self.shared.older(author, created_unix_ms);
        let shared = self.shared.clone();
        if let Err(error) = blocking(move || shared.retire(author, &older)).await {
            tracing::warn!(%error, "older snapshots stay here");
        }
    }

    async fn retire_on<D: Dial>(
        &self,
        dial: &D,
        peer: PeerId,
        created_unix_ms: u64,
    ) -> Result<(), PeerError> {
        let (database, identity) = (self.shared.database(), &self.shared.identity);
        let mut session = Session::new(dial, peer, self.shared.idle_limit);
        let listing = session.list().await?;
        let signed = checked_listing(&listing, &database).filter_map(|(signed, _)| signed.ok());
        let older = signed.filter(|signed| {
            let header = signed.header();
            header.author() == identity.public_key() && header.created_unix_ms() < created_unix_ms
        });
        let older: Vec<SnapshotId> = older
            .map(|signed| signed.snapshot())
            .take(RETIRED_MAX)
            .collect();
        if older.is_empty() {
            return Ok(());
        }
        let order = Retirement::sign(&older, &database, identity);
        session.retire(order).await
    }
}

/// Returns how many of `total` slices must be left: two fifths may be lost, and at least one.
fn needed_of(total: u8) -> u8 {
    match total {
        0 | 1 => 1,
        _ => total - (total * 2 / 5).max(1),
    }
}

/// Seals and codes the content, and stores all its slices here. Blocks.
fn make(
    shared: &Shared,
    content: &Content,
    needed: u8,
    total: u8,
    created_unix_ms: u64,
) -> Result<SignedManifest, SpreadError> {
    let sealing = Sealing {
        secret: &shared.secret,
        author: shared.identity.public_key(),
        created_unix_ms,
        salts: Salts::draw()?,
    };
    let object = seal(content, sealing)?;
    let code = CodeParameters::for_object(object.bytes.len() as u64, needed, total)?;
    let mut draft = shared.store.draft(code, code.slots())?;
    let coded = encode_object(code, object.bytes.as_slice(), |run| draft.write_run(run))?;
    let (database, identity) = (shared.database(), &shared.identity);
    let manifest = SignedManifest::sign(object.header, coded, &database, identity);
    if let Err(error) = draft.finish(manifest.code(), &manifest.signed().encode()) {
        // Best effort: what stays is removed when the store is opened again.
        let _ = shared.store.remove(manifest.signed().snapshot());
        return Err(error.into());
    }
    shared.note(&manifest);
    Ok(manifest)
}

fn place(snapshot: SnapshotId, total: u8, peers: &BTreeSet<PeerId>) -> Vec<(Slot, PeerId)> {
    let named = peers
        .iter()
        .map(|peer| (PeerKey(*blake3::hash(&peer.to_bytes()).as_bytes()), *peer));
    let named: BTreeMap<PeerKey, PeerId> = named.collect();
    // All peers count alike until they declare how much room they offer.
    let candidate = |peer: &PeerKey| Candidate {
        peer: *peer,
        weight: 1,
    };
    let candidates: Vec<Candidate> = named.keys().map(candidate).collect();
    let holders = place_slots(snapshot, total, &candidates)
        .expect("there are candidates, each once, and no more slots than may be");
    let slots = (0..total).map(Slot);
    slots.zip(holders.iter().map(|key| named[key])).collect()
}

/// Returns how many holders may vanish, those with the most slices first, until fewer than
/// `needed` slices are left.
fn losses_survived(holders: &[(Slot, PeerId)], needed: u8) -> usize {
    let mut counts: BTreeMap<PeerId, usize> = BTreeMap::new();
    for (_, peer) in holders {
        *counts.entry(*peer).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
    let mut left = holders.len();
    let survives = |count: &&usize| {
        left -= **count;
        left >= usize::from(needed)
    };
    counts.iter().take_while(survives).count()
}
