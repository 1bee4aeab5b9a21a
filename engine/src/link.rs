//! Runs one sync session over one stream: the loop that does what the session says.

use std::sync::Arc;

use syncline_transport::{
    FRAME_BYTES_MAX, FrameError, PeerId, Stream, StreamProtocol, read_frame, write_frame,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Duration, Instant, sleep_until};

use crate::clock::now_unix_ms;
use crate::log::Heads;
use crate::node::Shared;
use crate::replica::ReplicaError;
use crate::session::{CREDIT_FRAMES, Input, Output, Session, SessionError};

/// The protocol of a stream that carries one session.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/syncline/sync/1");

/// How many frames wait here while a frame is being sent.
const FRAMES_WAITING_MAX: usize = CREDIT_FRAMES as usize + 8;

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The peer broke a rule of the conversation.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The stream broke, or the peer sent a frame above the limit.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// An envelope was refused, or this device failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

/// Talks to a peer until the stream ends.
pub(crate) async fn run(
    shared: Arc<Shared>,
    peer: PeerId,
    stream: Stream,
) -> Result<(), LinkError> {
    let (mut reader, writer) = tokio::io::split(stream);
    let (frames_in, frames) = mpsc::channel(FRAMES_WAITING_MAX);
    // Receiving goes on while a frame is sent: two peers that only send would wait for each other.
    let receiving = tokio::spawn(async move {
        loop {
            let frame = read_frame(&mut reader, FRAME_BYTES_MAX).await.transpose();
            let Some(frame) = frame else { return };
            let is_end = frame.is_err();
            if frames_in.send(frame).await.is_err() || is_end {
                return;
            }
        }
    });
    let heads = shared.heads.subscribe();
    let session = Session::new(heads.borrow().clone(), shared.steady_ms());
    let mut link = Link {
        shared,
        peer,
        session,
        writer,
        frames,
        heads,
        turn: None,
        wants: false,
    };
    let result = link.talk().await;
    receiving.abort();
    result
}

struct Link {
    shared: Arc<Shared>,
    peer: PeerId,
    session: Session,
    writer: tokio::io::WriteHalf<Stream>,
    frames: mpsc::Receiver<Result<Vec<u8>, FrameError>>,
    heads: tokio::sync::watch::Receiver<Heads>,
    /// The right to pull, while this session has it.
    turn: Option<OwnedSemaphorePermit>,
    /// Whether the session wants it.
    wants: bool,
}

impl Link {
    async fn talk(&mut self) -> Result<(), LinkError> {
        loop {
            let input = match self.session.poll() {
                Output::Send(frame) => {
                    write_frame(&mut self.writer, &frame).await?;
                    continue;
                }
                Output::Store(envelopes) => Input::Advanced(self.store(envelopes).await?),
                Output::Read {
                    stream,
                    after,
                    bytes_max,
                } => {
                    let read = move |replica: &mut crate::replica::Replica| {
                        replica.read(&stream, after, bytes_max)
                    };
                    Input::Read(self.shared.store.run(read).await?)
                }
                Output::PullWanted => {
                    self.wants = true;
                    continue;
                }
                Output::PullFinished(_) => {
                    self.turn = None;
                    self.wants = false;
                    continue;
                }
                Output::Wait(deadline_ms) => match self.wait(deadline_ms).await? {
                    Some(input) => input,
                    None => return Ok(()),
                },
            };
            self.session.handle(input, self.shared.steady_ms())?;
            self.shared.peer_has(self.peer, self.session.peer_heads());
        }
    }

    async fn store(&mut self, envelopes: Vec<Vec<u8>>) -> Result<Heads, LinkError> {
        let job = move |replica: &mut crate::replica::Replica| {
            replica.receive(envelopes, now_unix_ms())?;
            replica.heads()
        };
        let heads = self.shared.store.run(job).await?;
        self.shared.advance(&heads);
        Ok(heads)
    }

    /// Waits for the next input; `None` when the peer has closed the stream.
    async fn wait(&mut self, deadline_ms: u64) -> Result<Option<Input>, LinkError> {
        let deadline = self.shared.started + Duration::from_millis(deadline_ms);
        let wants = self.wants && self.turn.is_none();
        let turns = Arc::clone(&self.shared.turns);
        tokio::select! {
            frame = self.frames.recv() => match frame {
                Some(frame) => Ok(Some(Input::Frame(frame?))),
                None => Ok(None),
            },
            changed = self.heads.changed() => match changed {
                Ok(()) => Ok(Some(Input::Advanced(self.heads.borrow_and_update().clone()))),
                // The node is gone.
                Err(_) => Ok(None),
            },
            turn = turns.acquire_owned(), if wants => {
                self.turn = turn.ok();
                Ok(Some(Input::Grant))
            }
            () = sleep_until(Instant::from_std(deadline)) => Ok(Some(Input::Tick)),
        }
    }
}
