//! Answers one peer: lists, sends and takes slices, and removes what its author retires.

use syncline_parity::{BlockIndex, ReadError, SliceWriter, Slot, SnapshotId, WriteError};
use syncline_transport::{PeerId, Stream};
use thiserror::Error;
use tokio::io::AsyncWriteExt;

use super::link::{Link, LinkError, receive, receive_parts, send, send_parts};
use super::manifest::{ManifestError, SIGNED_MANIFEST_BYTES_MAX, SignedManifest};
use super::retire::{RetireError, Retirement};
use super::shelf::{Cold, Room, blocking};
use super::wire::{Answer, MessageError, REQUEST_BYTES_MAX, Refusal, Request};

/// Why serving a peer ended before the peer ended it. Nothing half-done stays in the store.
#[derive(Debug, Error)]
#[error("serving snapshots to peer {peer} ended early")]
pub struct ServeError {
    /// The peer.
    pub peer: PeerId,
    /// What it did, or what failed here.
    #[source]
    pub reason: ServeFailure,
}

/// What ended the serving of a peer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeFailure {
    /// The stream broke, stood still or carried bytes that break the rules of frames.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A frame is no message.
    #[error("the peer sent a frame that is no request")]
    Message(#[from] MessageError),
    /// A manifest of an impossible length was announced.
    #[error("a manifest of {bytes} bytes was announced; at most {SIGNED_MANIFEST_BYTES_MAX}")]
    ManifestLength {
        /// The length that was announced.
        bytes: u32,
    },
    /// A manifest was refused.
    #[error("the peer offered a slice of a snapshot whose manifest was refused")]
    Manifest(#[from] ManifestError),
    /// A run was asked for that is not here.
    #[error("the peer asked for a run that it cannot have")]
    Read(#[from] ReadError),
    /// A slice was not stored.
    #[error("the peer's slice was not stored")]
    Write(#[from] WriteError),
    /// A manifest was not stored.
    #[error("the snapshot's manifest was not stored")]
    Put(#[from] syncline_parity::PutError),
    /// There is no room, or nothing of that name.
    #[error("the peer was refused: {snapshot}")]
    Refused {
        /// The snapshot it is about.
        snapshot: SnapshotId,
        /// What the peer was told.
        #[source]
        refusal: Refusal,
    },
    /// An order to remove snapshots was refused.
    #[error("the peer's order to remove snapshots was refused")]
    Retire(#[from] RetireError),
    /// Snapshots were not removed.
    #[error("snapshots that their author retired were not removed")]
    Remove(#[from] syncline_parity::FileError),
}

impl Cold {
    /// Answers one peer's requests until it ends the stream.
    ///
    /// Whatever the peer does, nothing is stored that is not signed and checked. The futures of
    /// several streams may run at once.
    ///
    /// # Errors
    /// Names the rule the peer broke, or what failed here. The stream is over then, and the next
    /// one is served as if nothing had happened.
    pub async fn serve(&self, peer: PeerId, stream: Stream) -> Result<(), ServeError> {
        self.serve_link(peer, stream).await
    }

    pub(super) async fn serve_link(
        &self,
        peer: PeerId,
        mut link: impl Link,
    ) -> Result<(), ServeError> {
        let Err(reason) = self.answer_all(&mut link).await else {
            return Ok(());
        };
        if let Some(refusal) = reason.refusal() {
            let frame = Answer::Refused(refusal).encode();
            // The peer may be gone already, and the reason is returned in any case.
            let _ = send(&mut link, &frame, self.shared.idle_limit).await;
            let _ = tokio::time::timeout(self.shared.idle_limit, link.shutdown()).await;
        }
        Err(ServeError { peer, reason })
    }

    async fn answer_all(&self, link: &mut impl Link) -> Result<(), ServeFailure> {
        let limit = self.shared.idle_limit;
        while let Some(frame) = receive(link, REQUEST_BYTES_MAX, limit).await? {
            match Request::decode(&frame)? {
                Request::List => {
                    let listing = Answer::Listing(self.listing());
                    send(link, &listing.encode(), limit).await?;
                }
                Request::Manifest(snapshot) => self.send_manifest(link, snapshot).await?,
                Request::Run(snapshot, slot, block) => {
                    self.send_run(link, snapshot, slot, block).await?;
                }
                Request::Offer {
                    slot,
                    manifest_bytes,
                } => self.take_slice(link, slot, manifest_bytes).await?,
                Request::Retire(order) => self.take_retirement(link, order).await?,
            }
        }
        Ok(())
    }

    async fn send_manifest(
        &self,
        link: &mut impl Link,
        snapshot: SnapshotId,
    ) -> Result<(), ServeFailure> {
        let store = self.shared.store.clone();
        let manifest = blocking(move || store.manifest(snapshot)).await;
        let manifest = manifest.map_err(ReadError::Manifest)?;
        self.send_blob(link, &manifest.encode()).await
    }

    async fn send_run(
        &self,
        link: &mut impl Link,
        snapshot: SnapshotId,
        slot: Slot,
        block: BlockIndex,
    ) -> Result<(), ServeFailure> {
        let store = self.shared.store.clone();
        let run = blocking(move || store.read_run(snapshot, slot, block)).await?;
        self.send_blob(link, &run).await
    }

    async fn send_blob(&self, link: &mut impl Link, blob: &[u8]) -> Result<(), ServeFailure> {
        let limit = self.shared.idle_limit;
        let bytes = u32::try_from(blob.len()).expect("runs and manifests are far below 4 GiB");
        send(link, &Answer::Blob { bytes }.encode(), limit).await?;
        Ok(send_parts(link, blob, limit).await?)
    }

    async fn take_slice(
        &self,
        link: &mut impl Link,
        slot: Slot,
        manifest_bytes: u32,
    ) -> Result<(), ServeFailure> {
        let limit = self.shared.idle_limit;
        let total = manifest_bytes as usize;
        if total > SIGNED_MANIFEST_BYTES_MAX {
            let bytes = manifest_bytes;
            return Err(ServeFailure::ManifestLength { bytes });
        }
        let manifest = receive_parts(link, total, limit).await?;
        let manifest = SignedManifest::decode(&manifest, &self.shared.database())?;
        let snapshot = manifest.signed().snapshot();
        if !manifest.code().code().has_slot(slot) {
            return Err(WriteError::NoSuchSlot { snapshot, slot }.into());
        }
        if self.shared.holds(snapshot, slot) {
            return Ok(send(link, &Answer::Held.encode(), limit).await?);
        }
        let room = self.shared.reserve(&manifest);
        let room = room.map_err(|refusal| ServeFailure::Refused { snapshot, refusal })?;
        let code = manifest.code().clone();
        let writer = self.start_slice(manifest, slot).await?;
        send(link, &Answer::Accepted.encode(), limit).await?;
        let stored = async {
            let mut writer = writer;
            for block in code.blocks() {
                let run = receive_parts(link, code.code().run_bytes(), limit).await?;
                writer = blocking(move || writer.write_run(block, &run).map(|()| writer)).await?;
            }
            Ok::<_, ServeFailure>(blocking(move || writer.finish()).await?)
        };
        let stored = stored.await;
        end(room).await;
        stored?;
        Ok(send(link, &Answer::Stored.encode(), limit).await?)
    }

    async fn start_slice(
        &self,
        manifest: SignedManifest,
        slot: Slot,
    ) -> Result<SliceWriter, ServeFailure> {
        let store = self.shared.store.clone();
        let start = move || {
            // Putting what is there already changes nothing.
            let signed = manifest.signed().encode();
            let snapshot = store.put_manifest(manifest.code(), &signed)?;
            Ok(store.slice_writer(snapshot, slot)?)
        };
        blocking(start).await
    }

    async fn take_retirement(
        &self,
        link: &mut impl Link,
        order: Vec<u8>,
    ) -> Result<(), ServeFailure> {
        let order = Retirement::verify(&order, &self.shared.database())?;
        let shared = self.shared.clone();
        blocking(move || shared.retire(order.author, &order.snapshots)).await?;
        let retired = Answer::Retired.encode();
        Ok(send(link, &retired, self.shared.idle_limit).await?)
    }
}

impl ServeFailure {
    /// Returns what the peer is told, if anything: a peer that breaks the rules of frames is not
    /// listening.
    fn refusal(&self) -> Option<Refusal> {
        match self {
            ServeFailure::Link(_) | ServeFailure::Message(_) => None,
            ServeFailure::ManifestLength { .. } | ServeFailure::Manifest(_) => {
                Some(Refusal::BadManifest)
            }
            ServeFailure::Read(error) => Some(match error {
                ReadError::Manifest(_) => Refusal::UnknownSnapshot,
                ReadError::NoSuchRun { .. } => Refusal::NoSuchRun,
                ReadError::NotHeld { .. } => Refusal::NotHeld,
                _ => Refusal::Damaged,
            }),
            ServeFailure::Write(error) => Some(match error {
                WriteError::NoSuchSlot { .. } => Refusal::NoSuchRun,
                WriteError::NotTheRun { .. } => Refusal::NotTheRun,
                _ => Refusal::StoreFailed,
            }),
            ServeFailure::Put(_) | ServeFailure::Remove(_) => Some(Refusal::StoreFailed),
            ServeFailure::Refused { refusal, .. } => Some(*refusal),
            ServeFailure::Retire(_) => Some(Refusal::BadRetirement),
        }
    }
}

/// Gives room back, which may remove files.
async fn end(room: Room) {
    blocking(move || drop(room)).await;
}
