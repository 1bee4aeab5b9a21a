//! The sync conversation between two peers, as a pure state machine without I/O or clock.
//!
//! Each side tells its version vector ("heads") at the start, on every advance, and at intervals;
//! between full tellings only what advanced, with a digest of the whole, by which the other side
//! notices that it missed something.
//! Whoever finds itself behind asks its node for a turn, sends a `Message::Want`, and is sent the
//! envelopes frame by frame, at most [`CREDIT_FRAMES`] ahead of what it has acknowledged.
//!
//! **Invariant:** a session never holds more than [`MEMORY_BYTES_MAX`] bytes for its peer, and what
//! a peer sends reaches the log only as [`Output::Store`], to be verified there.
//! **Invariant:** frames may be lost, repeated, delayed and reordered; every state has a deadline,
//! so two sessions whose frames get through at times bring both logs together.

mod announce;
mod assembly;
mod message;
mod pull;
mod serve;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod message_tests;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests;

use std::collections::VecDeque;

use thiserror::Error;

use self::announce::{Announce, PeerHeads};
use self::message::Message;
use self::pull::Pull;
use self::serve::Serve;
use crate::log::{Heads, StreamRef};
use crate::trust::{ENVELOPE_BYTES_MAX, Seq};

pub use announce::{HEADS_COALESCE_MS, HEADS_INTERVAL_MS, RESEND_HEADS_MS, STREAMS_MAX};
pub use message::{DATA_BYTES_MAX, FRAME_BYTES_MAX, MessageError};
pub use pull::{
    BACKOFF_MS_MAX, BACKOFF_MS_MIN, LARGE_TURN_MS, PullEnd, TRIES_MAX, TURN_MS, WANT_TIMEOUT_MS,
};
pub use serve::{CREDIT_FRAMES, SERVE_TIMEOUT_MS};

/// The most bytes of envelopes and frames that one session holds at any time.
///
/// One envelope being put together (its parts and the whole), one being taken apart beside a
/// batch, the frame at hand, and one telling of all heads.
pub const MEMORY_BYTES_MAX: usize = 3 * ENVELOPE_BYTES_MAX
    + 2 * DATA_BYTES_MAX
    + 2 * FRAME_BYTES_MAX
    + announce::ALL_HEADS_BYTES_MAX;

/// What happens to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A frame came from the peer.
    Frame(Vec<u8>),
    /// The log advanced: through own writes, through another session, or after [`Output::Store`].
    ///
    /// Entries that did not advance may be left out.
    Advanced(Heads),
    /// The node gives this session the turn to pull.
    Grant,
    /// The answer to [`Output::Read`]: the envelopes that follow, in order, none at the end.
    Read(Vec<Vec<u8>>),
    /// Nothing but time has passed; [`Output::Wait`]'s deadline is reached.
    Tick,
}

/// What a session wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a frame to the peer.
    ///
    /// The node must go on receiving while it sends, into a buffer of at least [`CREDIT_FRAMES`]
    /// frames: two peers that only send would wait for each other.
    Send(Vec<u8>),
    /// Verify these envelopes, append them to the log, and answer [`Input::Advanced`] at once.
    ///
    /// An envelope that does not verify closes the link. Gaps and duplicates are to be expected.
    Store(Vec<Vec<u8>>),
    /// Read the envelopes of `stream` after `after` and answer [`Input::Read`] at once.
    Read {
        /// The stream.
        stream: StreamRef,
        /// The place to start after.
        after: Seq,
        /// Stop before this is exceeded, but after one envelope at the earliest.
        bytes_max: usize,
    },
    /// The peer has something: answer [`Input::Grant`] when this session may pull.
    ///
    /// One session pulls at a time, so that envelopes are not fetched from several peers at once.
    PullWanted,
    /// The turn to pull is given back.
    PullFinished(PullEnd),
    /// Nothing to do until an input comes, or until the clock shows this many milliseconds.
    Wait(u64),
}

/// Why a session ended: the peer broke a rule. Close the link; nothing was changed.
#[derive(Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A frame is no message.
    #[error("a frame was refused")]
    Message(#[from] MessageError),
    /// The peer names more streams than [`STREAMS_MAX`].
    #[error("the peer names more than {STREAMS_MAX} streams")]
    TooManyStreams,
    /// Envelopes came that were never asked for.
    #[error("the peer answers question {round}, which was never asked")]
    Unasked {
        /// The round it names.
        round: u64,
    },
    /// More envelopes came than were acknowledged ahead.
    #[error("the peer sends data frame {index} where {allowed} is the first not allowed")]
    Overrun {
        /// The frame's number.
        index: u64,
        /// The first number it must not use yet.
        allowed: u64,
    },
    /// Frames were acknowledged that were never sent.
    #[error("the peer acknowledges {acked} data frames and {sent} were sent")]
    AckBeyond {
        /// What it acknowledges.
        acked: u64,
        /// What was sent.
        sent: u64,
    },
    /// The parts of an envelope do not fit together.
    #[error("the parts of an envelope do not make up what their hash says")]
    WrongParts,
}

/// What the one law of [`Session`] allows next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Poll,
    AdvancedOrPoll,
    Read,
    Event,
}

/// One side of the conversation with one peer, for as long as one link lasts.
///
/// **The one law: never wait before [`Session::poll`] has answered [`Output::Wait`].**
/// Call it again and again and do what it says; only after `Wait` may the next frame, grant, tick
/// or advance be waited for and handed to [`Session::handle`].
/// `Read` and `Store` are answered at once.
///
/// Both sides begin with a new session on a new link. After an error, or when the link is gone, the
/// session is dropped, and with it the turn it may have had.
pub struct Session {
    announce: Announce,
    peer: PeerHeads,
    pull: Pull,
    serve: Serve,
    outbox: VecDeque<Output>,
    now_ms: u64,
    next: Next,
}

impl Session {
    /// Begins a conversation; `heads` is what the log has, and `now_ms` any steady clock.
    pub fn new(heads: Heads, now_ms: u64) -> Session {
        let mut session = Session {
            announce: Announce::new(heads),
            peer: PeerHeads::default(),
            pull: Pull::default(),
            serve: Serve::default(),
            outbox: VecDeque::new(),
            now_ms,
            next: Next::Poll,
        };
        session.act_on_time();
        session
    }

    /// Takes in what happened. Call it only as the law of [`Session`] allows.
    ///
    /// # Errors
    /// When the peer broke a rule. The session is of no use then, and the link is to be closed.
    pub fn handle(&mut self, input: Input, now_ms: u64) -> Result<(), SessionError> {
        debug_assert!(
            match input {
                Input::Read(_) => self.next == Next::Read,
                Input::Advanced(_) => matches!(self.next, Next::Event | Next::AdvancedOrPoll),
                _ => self.next == Next::Event,
            },
            "handled before `poll` answered `Wait`, next is {:?}",
            self.next
        );
        self.next = Next::Poll;
        // A clock that steps back must not stop what waits for it.
        self.now_ms = self.now_ms.max(now_ms);
        match input {
            Input::Frame(frame) => self.receive(Message::decode(&frame)?)?,
            Input::Advanced(heads) => self.advance(&heads),
            Input::Grant => self
                .pull
                .grant(self.announce.ours(), self.now_ms, &mut self.outbox),
            Input::Read(envelopes) => self.serve.read(envelopes),
            Input::Tick => {}
        }
        self.act_on_time();
        Ok(())
    }

    /// Returns the next thing to do.
    pub fn poll(&mut self) -> Output {
        debug_assert!(
            self.next != Next::Read,
            "`Read` is answered before the next poll"
        );
        let output = self
            .outbox
            .pop_front()
            .or_else(|| self.serve.next(self.now_ms))
            .unwrap_or_else(|| Output::Wait(self.deadline_ms()));
        self.next = match output {
            Output::Wait(_) => Next::Event,
            Output::Read { .. } => Next::Read,
            Output::Store(_) => Next::AdvancedOrPoll,
            _ => Next::Poll,
        };
        output
    }

    /// Returns what the peer has, as far as it told.
    pub fn peer_heads(&self) -> &Heads {
        self.peer.heads()
    }

    /// Returns how many bytes of envelopes and frames the session holds.
    pub fn memory_bytes(&self) -> usize {
        let outbox: usize = self
            .outbox
            .iter()
            .map(|output| match output {
                Output::Send(frame) => frame.len(),
                Output::Store(envelopes) => envelopes.iter().map(Vec::len).sum(),
                _ => 0,
            })
            .sum();
        outbox + self.pull.memory_bytes() + self.serve.memory_bytes()
    }

    fn receive(&mut self, message: Message) -> Result<(), SessionError> {
        match message {
            Message::Heads { digest, entries } => {
                for stream in self.peer.learn(digest, &entries, self.now_ms)? {
                    let (ours, theirs) = self.both(&stream);
                    self.pull.peer_advanced(stream, ours, theirs);
                }
            }
            Message::ResendHeads => self.announce.resend_all(),
            Message::Want { round, entries } => self.serve.want(round, entries, self.now_ms),
            Message::Envelopes { at, envelopes } => {
                let ack = self.pull.accept(at)?;
                self.outbox.push_back(Output::Store(envelopes));
                self.outbox.extend(ack);
            }
            Message::Part { at, part } => {
                let ack = self.pull.accept(at)?;
                let envelope = self.pull.accept_part(part, self.now_ms)?;
                self.outbox
                    .extend(envelope.map(|envelope| Output::Store(vec![envelope])));
                self.outbox.extend(ack);
            }
            Message::Ack { upto } => self.serve.ack(upto, self.now_ms)?,
            Message::Done { upto } => {
                self.pull
                    .done(upto, self.announce.ours(), self.now_ms, &mut self.outbox)?;
            }
        }
        Ok(())
    }

    fn advance(&mut self, heads: &Heads) {
        for stream in self.announce.advance(heads) {
            let (ours, theirs) = self.both(&stream);
            self.pull.we_advanced(stream, ours, theirs, self.now_ms);
        }
        self.pull.finish_if_level(self.now_ms, &mut self.outbox);
    }

    fn act_on_time(&mut self) {
        let now_ms = self.now_ms;
        self.pull
            .act_on_time(self.announce.ours(), now_ms, &mut self.outbox);
        self.serve.act_on_time(now_ms);
        let messages = self
            .announce
            .due(now_ms)
            .into_iter()
            .chain(self.peer.due(now_ms));
        self.outbox
            .extend(messages.map(|message| Output::Send(message.encode())));
    }

    fn deadline_ms(&self) -> u64 {
        let deadlines = [
            self.announce.deadline_ms(),
            self.peer.deadline_ms(),
            self.pull.deadline_ms(),
            self.serve.deadline_ms(),
        ];
        let deadline = deadlines.into_iter().fold(u64::MAX, u64::min);
        debug_assert!(
            deadline > self.now_ms,
            "what was due at {deadline} was not done"
        );
        deadline
    }

    fn both(&self, stream: &StreamRef) -> (Seq, Seq) {
        (
            self.announce.ours().seq(stream),
            self.peer.heads().seq(stream),
        )
    }
}
