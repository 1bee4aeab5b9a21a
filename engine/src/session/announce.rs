//! Tells the peer our heads, and learns the peer's.

use std::collections::BTreeSet;

use super::SessionError;
use super::message::{HEADS_PER_FRAME_MAX, Message};
use crate::log::{Heads, StreamRef};
use crate::trust::Seq;

/// The most streams a peer's heads may name: twenty devices with ten starts a day for three years.
pub const STREAMS_MAX: usize = 1 << 18;

/// At this interval heads are told even if nothing happened; without entries, if nothing did.
pub const HEADS_INTERVAL_MS: u64 = 15_000;

/// The least time between two tellings, so that a burst of writes costs one.
pub const HEADS_COALESCE_MS: u64 = 5;

/// How long a digest may differ before all heads are asked for, and the least time between two
/// tellings of all heads to a peer that asks.
pub const RESEND_HEADS_MS: u64 = 1_000;

/// The most bytes that telling all heads takes.
pub(super) const ALL_HEADS_BYTES_MAX: usize = STREAMS_MAX * 64;

/// Our heads, and what of them the peer was not told yet.
pub(super) struct Announce {
    ours: Heads,
    untold: BTreeSet<StreamRef>,
    all: bool,
    told_ms: u64,
    all_told_ms: Option<u64>,
}

/// The peer's heads, as far as it told.
#[derive(Default)]
pub(super) struct PeerHeads {
    heads: Heads,
    ask_ms: Option<u64>,
}

impl Announce {
    pub(super) fn new(ours: Heads) -> Announce {
        Announce {
            ours,
            untold: BTreeSet::new(),
            all: true,
            told_ms: 0,
            all_told_ms: None,
        }
    }

    pub(super) fn ours(&self) -> &Heads {
        &self.ours
    }

    /// Takes in new heads; returns the streams that advanced.
    pub(super) fn advance(&mut self, heads: &Heads) -> Vec<StreamRef> {
        let advanced: Vec<StreamRef> = heads
            .iter()
            .filter(|(stream, seq)| self.ours.advance(stream, *seq))
            .map(|(stream, _)| stream)
            .collect();
        self.untold.extend(advanced.iter().copied());
        advanced
    }

    pub(super) fn resend_all(&mut self) {
        self.all = true;
    }

    pub(super) fn deadline_ms(&self) -> u64 {
        let news_ms = match self.untold.is_empty() {
            true => self.told_ms + HEADS_INTERVAL_MS,
            false => self.told_ms + HEADS_COALESCE_MS,
        };
        match self.all {
            true => news_ms.min(
                self.all_told_ms
                    .map_or(0, |told_ms| told_ms + RESEND_HEADS_MS),
            ),
            false => news_ms,
        }
    }

    /// Returns the messages to send at this time.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Message> {
        if now_ms < self.deadline_ms() {
            return Vec::new();
        }
        let all_ms = self
            .all_told_ms
            .map_or(0, |told_ms| told_ms + RESEND_HEADS_MS);
        self.told_ms = now_ms;
        if self.all && now_ms >= all_ms {
            self.all = false;
            self.all_told_ms = Some(now_ms);
            self.untold.clear();
            return Message::all_heads(&self.ours);
        }
        let untold = std::mem::take(&mut self.untold);
        let entries: Vec<(StreamRef, Seq)> = untold
            .into_iter()
            .map(|stream| (stream, self.ours.seq(&stream)))
            .collect();
        let digest = self.ours.digest();
        if entries.is_empty() {
            return vec![Message::Heads { digest, entries }];
        }
        entries
            .chunks(HEADS_PER_FRAME_MAX)
            .map(|chunk| Message::Heads {
                digest,
                entries: chunk.to_vec(),
            })
            .collect()
    }
}

impl PeerHeads {
    pub(super) fn heads(&self) -> &Heads {
        &self.heads
    }

    /// Takes in what the peer told; returns the streams that advanced.
    pub(super) fn learn(
        &mut self,
        digest: [u8; 16],
        entries: &[(StreamRef, Seq)],
        now_ms: u64,
    ) -> Result<Vec<StreamRef>, SessionError> {
        let mut advanced = Vec::new();
        for (stream, seq) in entries {
            if self.heads.advance(stream, *seq) {
                advanced.push(*stream);
            }
            if self.heads.len() > STREAMS_MAX {
                return Err(SessionError::TooManyStreams);
            }
        }
        // The rest of several frames, or one that was overtaken, may be on its way.
        self.ask_ms = match self.heads.digest() == digest {
            true => None,
            false => self.ask_ms.or(Some(now_ms + RESEND_HEADS_MS)),
        };
        Ok(advanced)
    }

    pub(super) fn deadline_ms(&self) -> u64 {
        self.ask_ms.unwrap_or(u64::MAX)
    }

    /// Returns the request to tell all again, if it is time for one.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<Message> {
        (now_ms >= self.deadline_ms()).then(|| {
            self.ask_ms = None;
            Message::ResendHeads
        })
    }
}
