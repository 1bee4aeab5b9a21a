//! Brings the newest snapshot back from whoever holds its slices.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{FuturesUnordered, StreamExt};
use syncline_crdt::Part;
use syncline_parity::{
    Manifest as CodeManifest, Restore, RestoreError as CodeError, Slot, SnapshotId,
};
use syncline_transport::{Network, PeerId};
use thiserror::Error;

use super::content::Content;
use super::manifest::{
    ManifestError, SIGNED_HEADER_BYTES, SIGNED_MANIFEST_BYTES_MAX, SignedHeader, SignedManifest,
};
use super::plan::{Job, Plan};
use super::progress::Progress;
use super::remote::{Dial, PeerError, Session};
use super::sealed::{UnsealError, unseal};
use super::shelf::{Cold, blocking};
use super::survey::Survey;
use crate::trust::PublicKey;

/// A snapshot that was brought back.
#[derive(Debug)]
pub struct Restored {
    /// What it holds.
    pub content: Content,
    /// The tables and columns that it lacks, since its author had dropped them: they come with the
    /// logs of the others. Known once its changes are merged.
    pub lacking: Vec<Part>,
    /// Its name.
    pub snapshot: SnapshotId,
    /// Who made it.
    pub author: PublicKey,
    /// When it was made, in Unix milliseconds by the author's clock.
    pub created_unix_ms: u64,
    /// How many runs (a slot's part of a block) came from each peer; this device is among them.
    pub blocks_from: BTreeMap<PeerId, u32>,
    /// Peers that sent false bytes, in ascending order. Nothing of theirs was used.
    pub liars: Vec<PeerId>,
}

/// Why no snapshot was brought back: what stood in the way of the newest one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Nobody was reached.
    #[error("no other device was reached")]
    NoPeer,
    /// Nobody holds anything.
    #[error("neither this device nor any of {peers} peers holds a snapshot; connect to more peers")]
    NoSnapshot {
        /// How many peers were asked.
        peers: usize,
    },
    /// Too few slices are within reach.
    #[error(
        "snapshot {snapshot} needs {needed} slices and {found} are within reach; connect to more \
         of the peers that hold it"
    )]
    TooFewSlices {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Slices that were found.
        found: usize,
        /// Slices that bring it back.
        needed: usize,
    },
    /// Nobody gave the code's manifest.
    #[error("no peer gives the manifest of snapshot {snapshot}; connect to more peers")]
    NoManifest {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// Its manifest contradicts itself, though signed.
    #[error("the author of snapshot {snapshot} signed a manifest that breaks a rule")]
    Manifest {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The rule.
        #[source]
        source: ManifestError,
    },
    /// The slices are as signed and do not give the object.
    #[error("the slices of snapshot {snapshot} do not give what its author signed")]
    Code {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong.
        #[source]
        source: CodeError,
    },
    /// The object cannot be opened.
    #[error("snapshot {snapshot} cannot be opened")]
    Unseal {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong.
        #[source]
        source: UnsealError,
    },
}

/// A restore under way.
struct Search<'a, D: Dial, P, F> {
    cold: &'a Cold,
    dial: &'a D,
    peers: &'a P,
    progress: &'a F,
    survey: Survey,
    blocks_from: BTreeMap<PeerId, u32>,
}

/// Streams to peers that wait for the next request.
type Idle<'a, D> = BTreeMap<PeerId, Vec<Session<'a, D>>>;

/// A finished request for a run.
type Fetched<'a, D> = (Job, Session<'a, D>, Result<Vec<u8>, PeerError>);

impl Cold {
    /// Brings back the newest snapshot that enough slices are left of.
    ///
    /// Asks this device and all `peers` what they hold, fetches runs from several at once, and
    /// replaces peers that lie or vanish; when slices are missing it calls `peers` again for
    /// peers that came up meanwhile. If a snapshot cannot be brought back, the next older one is
    /// tried. The whole object lies in memory while it is opened; a few MiB come on top.
    ///
    /// # Errors
    /// Says what stood in the way of the newest snapshot.
    pub async fn restore(
        &self,
        network: &Network,
        peers: impl Fn() -> Vec<PeerId> + Send + Sync,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Restored, RestoreError> {
        self.restore_over(network, &peers, &progress).await
    }

    pub(super) async fn restore_over<D: Dial>(
        &self,
        dial: &D,
        peers: &(impl Fn() -> Vec<PeerId> + Send + Sync),
        progress: &(impl Fn(Progress) + Send + Sync),
    ) -> Result<Restored, RestoreError> {
        let mut search = Search {
            cold: self,
            dial,
            peers,
            progress,
            survey: Survey::default(),
            blocks_from: BTreeMap::new(),
        };
        let database = self.shared.database();
        search.survey.asked.insert(dial.local());
        search.survey.add(dial.local(), &self.listing(), &database);
        search.ask_new_peers().await;
        let (mut tried, mut newest) = (BTreeSet::new(), None);
        while let Some(signed) = search.survey.next(&mut tried) {
            match search.attempt(signed).await {
                Ok(restored) => return Ok(restored),
                Err(error) => {
                    tracing::warn!(%error, "a snapshot cannot be brought back");
                    newest.get_or_insert(error);
                }
            }
        }
        let nothing = match search.survey.asked.len() - 1 {
            0 => RestoreError::NoPeer,
            peers => RestoreError::NoSnapshot { peers },
        };
        Err(newest.unwrap_or(nothing))
    }
}

impl<'a, D, P, F> Search<'a, D, P, F>
where
    D: Dial,
    P: Fn() -> Vec<PeerId> + Send + Sync,
    F: Fn(Progress) + Send + Sync,
{
    /// Asks the peers that were not asked before what they hold; returns whether there were any.
    async fn ask_new_peers(&mut self) -> bool {
        let peers: BTreeSet<PeerId> = (self.peers)().into_iter().collect();
        let new: Vec<PeerId> = peers.difference(&self.survey.asked).copied().collect();
        let mut asking: FuturesUnordered<_> = new
            .iter()
            .map(|peer| self.cold.list(self.dial, *peer))
            .collect();
        let mut listings = Vec::new();
        while let Some(listed) = asking.next().await {
            listings.push(listed);
        }
        drop(asking);
        let database = self.cold.shared.database();
        for (peer, listed) in listings {
            match listed {
                Ok(listing) => self.survey.add(peer, &listing, &database),
                Err(error) => tracing::warn!(%peer, %error, "a peer does not say what it holds"),
            }
        }
        self.survey.asked.extend(&new);
        !new.is_empty()
    }

    async fn attempt(&mut self, signed: SignedHeader) -> Result<Restored, RestoreError> {
        let snapshot = signed.snapshot();
        let needed = signed.header().key_id();
        if self.cold.shared.secret.key(&needed).is_none() {
            let source = UnsealError::OtherKey { needed };
            return Err(RestoreError::Unseal { snapshot, source });
        }
        let code = self.manifest(snapshot).await?;
        let manifest = SignedManifest::join(signed, code)
            .map_err(|source| RestoreError::Manifest { snapshot, source })?;
        self.blocks_from.clear();
        let object = self.fetch(&manifest).await?;
        let header = manifest.signed().header().clone();
        let (author, created_unix_ms) = (header.author(), header.created_unix_ms());
        let secret = self.cold.shared.secret.clone();
        let content = blocking(move || unseal(&header, &object, &secret)).await;
        let content = content.map_err(|source| RestoreError::Unseal { snapshot, source })?;
        Ok(Restored {
            content,
            lacking: vec![],
            snapshot,
            author,
            created_unix_ms,
            blocks_from: std::mem::take(&mut self.blocks_from),
            liars: self.survey.liars.iter().copied().collect(),
        })
    }

    /// Returns the code's manifest, from here or from the first peer that gives it.
    async fn manifest(&mut self, snapshot: SnapshotId) -> Result<CodeManifest, RestoreError> {
        let store = self.cold.shared.store.clone();
        if let Ok(manifest) = blocking(move || store.manifest(snapshot)).await {
            return Ok(CodeManifest::clone(&manifest));
        }
        const CODE_BYTES_MAX: usize = SIGNED_MANIFEST_BYTES_MAX - SIGNED_HEADER_BYTES;
        for peer in self.survey.holding(snapshot) {
            let mut session = Session::new(self.dial, peer, self.cold.shared.idle_limit);
            match session.manifest(snapshot, CODE_BYTES_MAX).await {
                Ok(bytes) => match CodeManifest::decode(&bytes) {
                    Ok(manifest) if manifest.id() == snapshot => return Ok(manifest),
                    _ => self.blame(peer),
                },
                Err(error) => tracing::warn!(%peer, %error, "a peer does not give a manifest"),
            }
        }
        Err(RestoreError::NoManifest { snapshot })
    }

    fn blame(&mut self, peer: PeerId) {
        tracing::warn!(%peer, "a peer sends false bytes");
        self.survey.liars.insert(peer);
        self.survey.forget(peer);
    }

    /// Fetches and decodes all blocks.
    async fn fetch(&mut self, manifest: &SignedManifest) -> Result<Vec<u8>, RestoreError> {
        let (snapshot, code) = (manifest.signed().snapshot(), manifest.code());
        let mut plan = Plan::new(code.code().slices_needed(), code.blocks_count());
        plan.add(self.survey.holders(snapshot));
        let mut restore = Restore::new(code.clone());
        let mut object = Vec::new();
        let mut idle: Idle<'a, D> = BTreeMap::new();
        let mut flying = FuturesUnordered::new();
        while restore.block_wanted().is_some() {
            if let Some((found, needed)) = plan.shortage() {
                if !self.ask_new_peers().await {
                    return Err(RestoreError::TooFewSlices {
                        snapshot,
                        found,
                        needed,
                    });
                }
                plan.add(self.survey.holders(snapshot));
                continue;
            }
            while let Some(job) = plan.next() {
                let waiting = idle.get_mut(&job.peer).and_then(Vec::pop);
                let limit = self.cold.shared.idle_limit;
                let session = waiting.unwrap_or_else(|| Session::new(self.dial, job.peer, limit));
                let run_bytes = code.code().run_bytes();
                flying.push(self.cold.fetch_run(session, job, snapshot, run_bytes));
            }
            let fetched = flying.next().await;
            let fetched = fetched.expect("where nothing is short, something is asked for");
            self.judge(code, fetched, &mut plan, &mut idle);
            while let Some((block, runs)) = plan.take_ready() {
                let offered = blocking(move || offer_all(restore, block, runs)).await;
                restore = offered.map_err(|source| RestoreError::Code { snapshot, source })?;
                match restore.take_block() {
                    Some(bytes) => object.extend_from_slice(&bytes),
                    None => {
                        plan.want_more(block, restore.runs_missing());
                        continue;
                    }
                }
                plan.decoded(block);
                (self.progress)(Progress::Fetched {
                    blocks_done: block.0 + 1,
                    blocks_total: code.blocks_count(),
                });
            }
        }
        let finished = restore.finish();
        finished.map_err(|source| RestoreError::Code { snapshot, source })?;
        Ok(object)
    }

    /// Takes what came of one request.
    fn judge(
        &mut self,
        code: &CodeManifest,
        (job, session, outcome): Fetched<'a, D>,
        plan: &mut Plan,
        idle: &mut Idle<'a, D>,
    ) {
        match outcome {
            Ok(run) if code.is_run(job.block, job.slot, &run) => {
                *self.blocks_from.entry(job.peer).or_default() += 1;
                idle.entry(job.peer).or_default().push(session);
                plan.arrived(job, run);
            }
            Ok(_) | Err(PeerError::Length { .. }) => {
                self.blame(job.peer);
                plan.refused(job);
                plan.forget(job.peer);
            }
            Err(PeerError::Refused(_) | PeerError::Read(_)) => plan.refused(job),
            Err(error) => {
                tracing::warn!(peer = %job.peer, %error, "a peer is lost to the restore");
                self.survey.forget(job.peer);
                plan.refused(job);
                plan.forget(job.peer);
            }
        }
    }
}

impl Cold {
    async fn list<D: Dial>(
        &self,
        dial: &D,
        peer: PeerId,
    ) -> (PeerId, Result<Vec<super::wire::Listed>, PeerError>) {
        let mut session = Session::new(dial, peer, self.shared.idle_limit);
        (peer, session.list().await)
    }

    async fn fetch_run<'a, D: Dial>(
        &self,
        mut session: Session<'a, D>,
        job: Job,
        snapshot: SnapshotId,
        run_bytes: usize,
    ) -> Fetched<'a, D> {
        let Job { slot, block, .. } = job;
        let run = if session.is_local() {
            let store = self.shared.store.clone();
            let read = blocking(move || store.read_run(snapshot, slot, block)).await;
            read.map_err(PeerError::Read)
        } else {
            session.run(snapshot, slot, block, run_bytes).await
        };
        (job, session, run)
    }
}

fn offer_all(
    mut restore: Restore,
    block: syncline_parity::BlockIndex,
    runs: BTreeMap<Slot, Vec<u8>>,
) -> Result<Restore, CodeError> {
    for (slot, run) in runs {
        restore.offer(block, slot, run)?;
    }
    Ok(restore)
}
