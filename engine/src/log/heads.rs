//! Version vectors: how far each stream of each author is known.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use crate::trust::{PublicKey, Seq, StreamId};

const DIGEST_DOMAIN: &str = "syncline/v1/heads digest";

/// One stream of one author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamRef {
    /// Who writes it.
    pub author: PublicKey,
    /// Which of the author's streams.
    pub stream: StreamId,
}

impl fmt::Display for StreamRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "stream {} of {}", self.stream, self.author)
    }
}

/// The place of one envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Its stream.
    pub stream: StreamRef,
    /// Its place there.
    pub seq: Seq,
}

/// A version vector: per (author, stream) the last place up to which nothing is missing.
///
/// Entries only ever grow, and none is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    authors: BTreeMap<PublicKey, BTreeMap<StreamId, Seq>>,
    count: usize,
}

impl Heads {
    /// Returns how many streams it names.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether it names no stream.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns how far `stream` is known; [`Seq::NONE`] for an unknown one.
    pub fn seq(&self, stream: &StreamRef) -> Seq {
        let streams = self.authors.get(&stream.author);
        streams
            .and_then(|streams| streams.get(&stream.stream))
            .copied()
            .unwrap_or_default()
    }

    /// Raises `stream` to `seq`; returns whether that was an advance.
    pub fn advance(&mut self, stream: &StreamRef, seq: Seq) -> bool {
        if seq == Seq::NONE {
            return false;
        }
        match self
            .authors
            .entry(stream.author)
            .or_default()
            .entry(stream.stream)
        {
            Entry::Vacant(entry) => {
                entry.insert(seq);
                self.count += 1;
                true
            }
            Entry::Occupied(mut entry) => {
                let advances = seq > *entry.get();
                if advances {
                    entry.insert(seq);
                }
                advances
            }
        }
    }

    /// Returns all entries, ordered by author and stream.
    pub fn iter(&self) -> impl Iterator<Item = (StreamRef, Seq)> + '_ {
        self.authors.iter().flat_map(|(author, streams)| {
            streams.iter().map(|(stream, seq)| {
                (
                    StreamRef {
                        author: *author,
                        stream: *stream,
                    },
                    *seq,
                )
            })
        })
    }

    /// Returns the first 16 bytes of a BLAKE3 hash over all entries in order.
    pub fn digest(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_derive_key(DIGEST_DOMAIN);
        for (author, streams) in &self.authors {
            hasher
                .update(&author.0)
                .update(&(streams.len() as u64).to_le_bytes());
            for (stream, seq) in streams {
                hasher.update(&stream.0).update(&seq.number().to_le_bytes());
            }
        }
        *hasher
            .finalize()
            .as_bytes()
            .first_chunk()
            .expect("a hash has 32 bytes")
    }
}

impl FromIterator<(StreamRef, Seq)> for Heads {
    fn from_iter<I: IntoIterator<Item = (StreamRef, Seq)>>(entries: I) -> Heads {
        let mut heads = Heads::default();
        for (stream, seq) in entries {
            heads.advance(&stream, seq);
        }
        heads
    }
}
