//! The asking side of the protocol: one peer, over a stream that is opened when it is needed.

use std::time::Duration;

use syncline_parity::{BlockIndex, Slot, SnapshotId, SymbolStore};
use syncline_transport::{Network, OpenStreamError, PeerId, Stream, StreamProtocol};
use thiserror::Error;

use super::PROTOCOL;
use super::link::{Link, LinkError, receive, receive_parts, send, send_parts};
use super::manifest::SignedManifest;
use super::shelf::blocking;
use super::wire::{ANSWER_BYTES_MAX, Answer, Listed, MessageError, Refusal, Request};

/// How long a holder may take to bring a whole slice to its disk.
const STORE_LIMIT: Duration = Duration::from_secs(60);

/// Opens streams to peers.
pub(super) trait Dial: Sync {
    /// A stream.
    type Link: Link;

    /// Returns this device's own name among the peers.
    fn local(&self) -> PeerId;

    /// Opens a stream of [`PROTOCOL`].
    fn open(
        &self,
        peer: PeerId,
    ) -> impl Future<Output = Result<Self::Link, OpenStreamError>> + Send;
}

impl Dial for Network {
    type Link = Stream;

    fn local(&self) -> PeerId {
        self.local_peer()
    }

    async fn open(&self, peer: PeerId) -> Result<Stream, OpenStreamError> {
        self.open_stream(peer, StreamProtocol::new(PROTOCOL)).await
    }
}

/// Why a peer did not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PeerError {
    /// No stream to it could be opened.
    #[error(transparent)]
    Open(#[from] OpenStreamError),
    /// The stream broke or stood still.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It sent a frame that is no message.
    #[error("it sent a frame that is no answer")]
    Message(#[from] MessageError),
    /// It sent a message that does not answer the request.
    #[error("its answer does not fit the request; update it")]
    Unexpected,
    /// It announced a blob of the wrong length.
    #[error("it announced {announced} bytes where at most {allowed} can be right")]
    Length {
        /// The length it announced.
        announced: u32,
        /// The most it may be.
        allowed: usize,
    },
    /// It refused, and says why.
    #[error("it refused")]
    Refused(#[from] Refusal),
    /// The slice that was to be sent could not be read here.
    #[error("the slice to be sent could not be read here")]
    Read(#[from] syncline_parity::ReadError),
}

/// A conversation with one peer. After an error the next request opens a new stream.
pub(super) struct Session<'a, D: Dial> {
    dial: &'a D,
    peer: PeerId,
    limit: Duration,
    link: Option<D::Link>,
}

impl<'a, D: Dial> Session<'a, D> {
    pub(super) fn new(dial: &'a D, peer: PeerId, limit: Duration) -> Session<'a, D> {
        let link = None;
        Session {
            dial,
            peer,
            limit,
            link,
        }
    }

    /// Returns whether the peer is this device itself, with which there is no stream.
    pub(super) fn is_local(&self) -> bool {
        self.peer == self.dial.local()
    }

    /// Asks what the peer holds.
    pub(super) async fn list(&mut self) -> Result<Vec<Listed>, PeerError> {
        let (link, answer) = self.ask(&Request::List).await?;
        let Answer::Listing(listed) = answer else {
            return Err(PeerError::Unexpected);
        };
        self.link = Some(link);
        Ok(listed)
    }

    /// Asks for the code's manifest of a snapshot: at most `bytes_max` bytes, not checked.
    pub(super) async fn manifest(
        &mut self,
        snapshot: SnapshotId,
        bytes_max: usize,
    ) -> Result<Vec<u8>, PeerError> {
        self.blob(&Request::Manifest(snapshot), bytes_max).await
    }

    /// Asks for a run of at most `bytes_max` bytes, not checked.
    pub(super) async fn run(
        &mut self,
        snapshot: SnapshotId,
        slot: Slot,
        block: BlockIndex,
        bytes_max: usize,
    ) -> Result<Vec<u8>, PeerError> {
        let request = Request::Run(snapshot, slot, block);
        self.blob(&request, bytes_max).await
    }

    /// Hands over a slice that lies in `store`.
    pub(super) async fn offer(
        &mut self,
        manifest: &SignedManifest,
        slot: Slot,
        store: &SymbolStore,
    ) -> Result<(), PeerError> {
        let limit = self.limit;
        let encoded = manifest.encode();
        let manifest_bytes = u32::try_from(encoded.len()).expect("manifests are below 4 GiB");
        let request = Request::Offer {
            slot,
            manifest_bytes,
        };
        // The answer follows the parts, so this request cannot be repeated by `ask`.
        let mut link = self.dial.open(self.peer).await?;
        send(&mut link, &request.encode(), limit).await?;
        send_parts(&mut link, &encoded, limit).await?;
        match read_answer(&mut link, limit).await? {
            Answer::Held => return Ok(()),
            Answer::Accepted => {}
            _ => return Err(PeerError::Unexpected),
        }
        let snapshot = manifest.signed().snapshot();
        for block in manifest.code().blocks() {
            let store = store.clone();
            let run = blocking(move || store.read_run(snapshot, slot, block)).await?;
            send_parts(&mut link, &run, limit).await?;
        }
        match read_answer(&mut link, limit.max(STORE_LIMIT)).await? {
            Answer::Stored => {
                self.link = Some(link);
                Ok(())
            }
            _ => Err(PeerError::Unexpected),
        }
    }

    /// Sends a signed order to remove snapshots.
    pub(super) async fn retire(&mut self, order: Vec<u8>) -> Result<(), PeerError> {
        let (link, answer) = self.ask(&Request::Retire(order)).await?;
        if answer != Answer::Retired {
            return Err(PeerError::Unexpected);
        }
        self.link = Some(link);
        Ok(())
    }

    async fn blob(&mut self, request: &Request, bytes_max: usize) -> Result<Vec<u8>, PeerError> {
        let (mut link, answer) = self.ask(request).await?;
        let Answer::Blob { bytes: announced } = answer else {
            return Err(PeerError::Unexpected);
        };
        if announced as usize > bytes_max {
            let allowed = bytes_max;
            return Err(PeerError::Length { announced, allowed });
        }
        let blob = receive_parts(&mut link, announced as usize, self.limit).await?;
        self.link = Some(link);
        Ok(blob)
    }

    /// Sends a request and returns its answer, and the stream, for as long as all is well.
    async fn ask(&mut self, request: &Request) -> Result<(D::Link, Answer), PeerError> {
        if let Some(link) = self.link.take() {
            match self.ask_on(link, request).await {
                // The peer may have given the stream up while nothing was asked.
                Err(PeerError::Link(_)) => {}
                answered => return answered,
            }
        }
        let link = self.dial.open(self.peer).await?;
        self.ask_on(link, request).await
    }

    // Exclusive, so that the future may move between threads: a stream is not shared.
    async fn ask_on(
        &mut self,
        mut link: D::Link,
        request: &Request,
    ) -> Result<(D::Link, Answer), PeerError> {
        send(&mut link, &request.encode(), self.limit).await?;
        let answer = read_answer(&mut link, self.limit).await?;
        Ok((link, answer))
    }
}

async fn read_answer(link: &mut impl Link, limit: Duration) -> Result<Answer, PeerError> {
    let frame = receive(link, ANSWER_BYTES_MAX, limit).await?;
    match Answer::decode(&frame.ok_or(LinkError::Ended)?)? {
        Answer::Refused(refusal) => Err(refusal.into()),
        answer => Ok(answer),
    }
}
