//! What a snapshot holds: the database's content, the place it stands at, and its encoding.
//!
//! Version 1. All numbers are little-endian.
//!
//! | bytes | field |
//! | --- | --- |
//! | 1 | version, 1 |
//! | 32 | digest |
//! | 4 | streams in the version vector, `s` |
//! | 48 · `s` | author (32), stream (8), seq (8); ascending by author and stream, no seq is 0 |
//! | 8 | bytes of changes, `c` |
//! | `c` | the changes |

use std::fmt;

use thiserror::Error;

use crate::log::{Heads, StreamRef};
use crate::trust::{PublicKey, Seq, StreamId};

/// The most bytes one content may have, encoded and not compressed (4 GiB).
pub const CONTENT_BYTES_MAX: u64 = 4 << 30;

/// The most streams a content's version vector may name.
pub const STREAMS_MAX: usize = 1 << 20;

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 1 + 32 + 4;
const STREAM_BYTES: usize = 32 + 8 + 8;

const _: () = assert!((FIXED_BYTES + STREAMS_MAX * STREAM_BYTES + 8) as u64 <= CONTENT_BYTES_MAX);

/// All that a database holds at one version vector.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// The digest of the tables, by which replicas compare their state.
    pub digest: [u8; 32],
    /// How far each stream of the log was applied.
    pub heads: Heads,
    /// The tables as one changeset, encoded; these bytes are not looked at here.
    pub changes: Vec<u8>,
}

/// Why bytes are not a content, or a content has no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ContentError {
    /// A format this build does not know.
    #[error("content version {version} is unknown; restore it with a newer build")]
    UnknownVersion {
        /// The version it names.
        version: u8,
    },
    /// The bytes end inside a field.
    #[error("a content of {bytes} bytes ends inside a field; take another snapshot")]
    Cut {
        /// Bytes given.
        bytes: usize,
    },
    /// More streams than [`STREAMS_MAX`].
    #[error("{streams} streams; at most {STREAMS_MAX} fit a snapshot")]
    TooManyStreams {
        /// How many there are.
        streams: usize,
    },
    /// An entry of the version vector is out of order, twice there, or out of range.
    #[error("entry {entry} of the version vector breaks its order or range; take another snapshot")]
    BadStream {
        /// Its place, counted from 0.
        entry: usize,
    },
    /// The declared length of the changes is not what follows.
    #[error("{declared} bytes of changes declared and {found} found; take another snapshot")]
    ChangesLength {
        /// What the length field says.
        declared: u64,
        /// What follows it.
        found: u64,
    },
    /// Longer than [`CONTENT_BYTES_MAX`].
    #[error("a content of {bytes} bytes is above {CONTENT_BYTES_MAX}; it cannot be one snapshot")]
    TooLarge {
        /// Bytes it would take.
        bytes: u64,
    },
}

impl Content {
    /// Returns all of the encoding that stands before the changes.
    ///
    /// # Errors
    /// When a limit is broken.
    pub(super) fn encode_prefix(&self) -> Result<Vec<u8>, ContentError> {
        let streams = self.heads.len();
        if streams > STREAMS_MAX {
            return Err(ContentError::TooManyStreams { streams });
        }
        let prefix_bytes = FIXED_BYTES + streams * STREAM_BYTES + 8;
        let bytes = prefix_bytes as u64 + self.changes.len() as u64;
        if bytes > CONTENT_BYTES_MAX {
            return Err(ContentError::TooLarge { bytes });
        }
        let mut prefix = Vec::with_capacity(prefix_bytes);
        prefix.push(VERSION);
        prefix.extend_from_slice(&self.digest);
        let streams = u32::try_from(streams).expect("at most STREAMS_MAX");
        prefix.extend_from_slice(&streams.to_le_bytes());
        for (stream, seq) in self.heads.iter() {
            prefix.extend_from_slice(&stream.author.0);
            prefix.extend_from_slice(&stream.stream.0);
            prefix.extend_from_slice(&seq.number().to_le_bytes());
        }
        prefix.extend_from_slice(&(self.changes.len() as u64).to_le_bytes());
        assert!(
            prefix.len() == prefix_bytes,
            "the version vector counts itself"
        );
        Ok(prefix)
    }

    /// Returns the content with this encoding. Allocates no more than a multiple of `bytes`.
    ///
    /// # Errors
    /// Names the first rule that the bytes break.
    pub(super) fn decode(mut bytes: Vec<u8>) -> Result<Content, ContentError> {
        let cut = ContentError::Cut { bytes: bytes.len() };
        let mut rest = Fields(&bytes);
        let [version] = *rest.take().ok_or(cut)?;
        if version != VERSION {
            return Err(ContentError::UnknownVersion { version });
        }
        let digest = *rest.take().ok_or(cut)?;
        let streams = u32::from_le_bytes(*rest.take().ok_or(cut)?) as usize;
        if streams > STREAMS_MAX {
            return Err(ContentError::TooManyStreams { streams });
        }
        let mut heads = Heads::default();
        let mut before = None;
        for entry in 0..streams {
            let author = PublicKey(*rest.take().ok_or(cut)?);
            let stream = StreamId(*rest.take().ok_or(cut)?);
            let stream = StreamRef { author, stream };
            let seq = Seq::new(u64::from_le_bytes(*rest.take().ok_or(cut)?));
            let seq = seq.ok_or(ContentError::BadStream { entry })?;
            if before >= Some(stream) || !heads.advance(&stream, seq) {
                return Err(ContentError::BadStream { entry });
            }
            before = Some(stream);
        }
        let declared = u64::from_le_bytes(*rest.take().ok_or(cut)?);
        let found = rest.0.len() as u64;
        if declared != found {
            return Err(ContentError::ChangesLength { declared, found });
        }
        let prefix_bytes = bytes.len() - rest.0.len();
        bytes.drain(..prefix_bytes);
        Ok(Content {
            digest,
            heads,
            changes: bytes,
        })
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (streams, bytes) = (self.heads.len(), self.changes.len());
        write!(
            formatter,
            "Content({streams} streams, {bytes} bytes of changes)"
        )
    }
}

/// Bytes that are taken apart from the front.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// Returns the next `N` bytes, or `None` where fewer are left.
    pub(super) fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(field)
    }
}
