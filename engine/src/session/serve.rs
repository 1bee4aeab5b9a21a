//! Answers the peer's question: reads from the log and sends frame by frame.

use std::collections::VecDeque;

use super::message::{DATA_BYTES_MAX, DataIndex, Message, Part};
use super::{Output, SessionError};
use crate::log::Position;
use crate::trust::Seq;

/// How many data frames may be under way: sent and not yet acknowledged.
///
/// 8 MiB: enough for 80 MB/s over 100 ms, and what a peer must be able to buffer.
pub const CREDIT_FRAMES: u64 = 32;

/// A peer that acknowledges nothing for this long is no longer sent anything.
pub const SERVE_TIMEOUT_MS: u64 = 60_000;

const _: () = assert!(SERVE_TIMEOUT_MS > super::WANT_TIMEOUT_MS);

/// The answer under way, if there is one.
#[derive(Default)]
pub(super) struct Serve {
    /// The number of the last question.
    round: u64,
    /// Whether its answer is still to be completed.
    active: bool,
    /// What is still to be read.
    queue: VecDeque<Position>,
    /// Envelopes read and not yet sent, less than a frame and one envelope more.
    batch: VecDeque<Vec<u8>>,
    batch_bytes: usize,
    large: Option<Large>,
    sent: u64,
    acked: u64,
    deadline_ms: u64,
}

/// An envelope that goes out in parts.
struct Large {
    hash: [u8; 32],
    bytes: Vec<u8>,
    next: u32,
}

impl Serve {
    /// Takes in a question, which replaces the one before.
    pub(super) fn want(&mut self, round: u64, entries: Vec<Position>, now_ms: u64) {
        // A question that was overtaken by a later one, or came twice.
        if round <= self.round {
            return;
        }
        *self = Serve {
            round,
            active: !entries.is_empty(),
            queue: entries.into(),
            deadline_ms: now_ms + SERVE_TIMEOUT_MS,
            ..Serve::default()
        };
    }

    /// Takes in how far the peer has got.
    pub(super) fn ack(&mut self, upto: DataIndex, now_ms: u64) -> Result<(), SessionError> {
        if upto.round > self.round {
            return Err(SessionError::Unasked { round: upto.round });
        }
        if upto.round < self.round {
            return Ok(());
        }
        if upto.index > self.sent {
            return Err(SessionError::AckBeyond {
                acked: upto.index,
                sent: self.sent,
            });
        }
        if upto.index > self.acked {
            self.acked = upto.index;
            self.deadline_ms = now_ms + SERVE_TIMEOUT_MS;
        }
        Ok(())
    }

    /// Takes in what was read for the first stream of the queue.
    pub(super) fn read(&mut self, envelopes: Vec<Vec<u8>>) {
        let Some(position) = self.queue.front_mut() else {
            return;
        };
        let after = position.seq.number() + envelopes.len() as u64;
        match Seq::new(after) {
            Some(seq) if !envelopes.is_empty() => position.seq = seq,
            _ => drop(self.queue.pop_front()),
        }
        self.batch_bytes += envelopes.iter().map(Vec::len).sum::<usize>();
        self.batch.extend(envelopes);
    }

    /// Returns what to read or send next, as far as the peer's acknowledgements allow.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<Output> {
        if !self.active || self.sent - self.acked >= CREDIT_FRAMES {
            return None;
        }
        if let Some(part) = self.next_part() {
            return Some(self.data(|at| Message::Part { at, part }, now_ms));
        }
        if self.batch_bytes < DATA_BYTES_MAX
            && let Some(position) = self.queue.front()
        {
            let bytes_max = DATA_BYTES_MAX - self.batch_bytes;
            return Some(Output::Read {
                stream: position.stream,
                after: position.seq,
                bytes_max,
            });
        }
        if self
            .batch
            .front()
            .is_some_and(|envelope| envelope.len() > DATA_BYTES_MAX)
        {
            let bytes = self.take_first().expect("there is a first one, see above");
            let hash = *blake3::hash(&bytes).as_bytes();
            self.large = Some(Large {
                hash,
                bytes,
                next: 0,
            });
            return self.next(now_ms);
        }
        let envelopes = self.take_frame();
        if !envelopes.is_empty() {
            return Some(self.data(|at| Message::Envelopes { at, envelopes }, now_ms));
        }
        self.active = false;
        let upto = DataIndex {
            round: self.round,
            index: self.sent,
        };
        Some(Output::Send(Message::Done { upto }.encode()))
    }

    pub(super) fn deadline_ms(&self) -> u64 {
        match self.active {
            true => self.deadline_ms,
            false => u64::MAX,
        }
    }

    /// Gives up on a peer that does not acknowledge.
    pub(super) fn act_on_time(&mut self, now_ms: u64) {
        if now_ms >= self.deadline_ms() {
            *self = Serve {
                round: self.round,
                sent: self.sent,
                ..Serve::default()
            };
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.batch_bytes + self.large.as_ref().map_or(0, |large| large.bytes.len())
    }

    fn data(&mut self, message: impl FnOnce(DataIndex) -> Message, now_ms: u64) -> Output {
        let at = DataIndex {
            round: self.round,
            index: self.sent,
        };
        if self.sent == self.acked {
            // Nothing was under way, so there was nothing to acknowledge until here.
            self.deadline_ms = now_ms + SERVE_TIMEOUT_MS;
        }
        self.sent += 1;
        Output::Send(message(at).encode())
    }

    fn next_part(&mut self) -> Option<Part> {
        let Large { hash, bytes, next } = self.large.as_mut()?;
        let (hash, part) = (*hash, *next);
        let count = u32::try_from(bytes.len().div_ceil(DATA_BYTES_MAX))
            .expect("an envelope has at most ENVELOPE_BYTES_MAX bytes");
        let start = part as usize * DATA_BYTES_MAX;
        let end = bytes.len().min(start + DATA_BYTES_MAX);
        let bytes = bytes[start..end].to_vec();
        *next += 1;
        if *next == count {
            self.large = None;
        }
        Some(Part {
            hash,
            part,
            count,
            bytes,
        })
    }

    fn take_frame(&mut self) -> Vec<Vec<u8>> {
        let mut envelopes = Vec::new();
        let mut bytes_left = DATA_BYTES_MAX;
        while self
            .batch
            .front()
            .is_some_and(|envelope| envelope.len() <= bytes_left)
        {
            let envelope = self.take_first().expect("there is a first one, see above");
            bytes_left -= envelope.len();
            envelopes.push(envelope);
        }
        envelopes
    }

    fn take_first(&mut self) -> Option<Vec<u8>> {
        let envelope = self.batch.pop_front()?;
        self.batch_bytes -= envelope.len();
        Some(envelope)
    }
}
