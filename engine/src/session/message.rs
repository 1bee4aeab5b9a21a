//! The messages of a session, and their encoding.
//!
//! A frame is version (1 byte), type (1) and the fields of the type; numbers are little-endian.
//! Every message has exactly one encoding: lists are in ascending order, nothing follows the end.

use thiserror::Error;

use crate::log::{Heads, Position, StreamRef};
use crate::trust::{ENVELOPE_BYTES_MAX, ENVELOPE_BYTES_MIN, PublicKey, SEQ_MAX, Seq, StreamId};

/// The most bytes one frame may carry. A peer that sends more is cut off.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// The most envelope bytes put into one frame.
///
/// Far below the frame's limit, so that a slow link shows progress long before a timeout.
pub const DATA_BYTES_MAX: usize = 256 << 10;

/// The most streams in one [`Message::Heads`]; more go out as several.
pub(super) const HEADS_PER_FRAME_MAX: usize = 16_384;

/// The most streams in one [`Message::Want`].
pub(super) const WANTS_MAX: usize = 4_096;

/// The most parts of one envelope.
pub(super) const PARTS_MAX: u32 = ENVELOPE_BYTES_MAX.div_ceil(DATA_BYTES_MAX) as u32;

const VERSION: u8 = 1;
const TYPE_HEADS: u8 = 1;
const TYPE_RESEND_HEADS: u8 = 2;
const TYPE_WANT: u8 = 3;
const TYPE_ENVELOPES: u8 = 4;
const TYPE_PART: u8 = 5;
const TYPE_ACK: u8 = 6;
const TYPE_DONE: u8 = 7;

/// Version, type, and the two numbers of data frames; larger than the fixed part of any message.
const FIXED_BYTES_MAX: usize = 128;
const ENTRY_BYTES: usize = 32 + 8 + 8;
const ENVELOPES_PER_FRAME_MAX: usize = DATA_BYTES_MAX / ENVELOPE_BYTES_MIN;

const _: () = assert!(FIXED_BYTES_MAX + HEADS_PER_FRAME_MAX * ENTRY_BYTES <= FRAME_BYTES_MAX);
const _: () = assert!(FIXED_BYTES_MAX + WANTS_MAX * ENTRY_BYTES <= FRAME_BYTES_MAX);
const _: () =
    assert!(FIXED_BYTES_MAX + DATA_BYTES_MAX + ENVELOPES_PER_FRAME_MAX * 4 <= FRAME_BYTES_MAX);
const _: () = assert!(PARTS_MAX as usize * DATA_BYTES_MAX >= ENVELOPE_BYTES_MAX);

/// Why a frame was refused, one variant per rule.
#[derive(Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Longer than [`FRAME_BYTES_MAX`].
    #[error("frame of {bytes} bytes; the most is {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It ends in the middle of a field.
    #[error("the frame is cut short")]
    CutShort,
    /// Bytes follow its end.
    #[error("{bytes} bytes follow the message")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// A version this build does not know.
    #[error("message version {version} is unknown; a newer build may speak it")]
    UnknownVersion {
        /// The version it names.
        version: u8,
    },
    /// A type this build does not know.
    #[error("message type {kind} is unknown; a newer build may speak it")]
    UnknownType {
        /// The type it names.
        kind: u8,
    },
    /// A list is longer than its limit.
    #[error("a list of {count} entries; the most is {count_max}")]
    TooMany {
        /// Its length.
        count: usize,
        /// The limit.
        count_max: usize,
    },
    /// A list is not in ascending order, or names something twice.
    #[error("a list is not in ascending order")]
    Unordered,
    /// A list that must have entries is empty, or a head is 0.
    #[error("an entry that must be there is missing")]
    Empty,
    /// A place is above [`SEQ_MAX`].
    #[error("seq {seq} is above {SEQ_MAX}")]
    SeqOutOfRange {
        /// The number it names.
        seq: u64,
    },
    /// An envelope's size is outside its limits.
    #[error("an envelope of {bytes} bytes does not belong into this message")]
    EnvelopeSize {
        /// Its size.
        bytes: usize,
    },
    /// A part's number, count or size does not fit the others.
    #[error("part {part} of {count} with {bytes} bytes breaks the rule for parts")]
    WrongPart {
        /// Its number, from 0.
        part: u32,
        /// How many parts there are.
        count: u32,
        /// Its size.
        bytes: usize,
    },
}

/// Where a data frame stands: the question it answers, and its number among the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataIndex {
    /// The number of the [`Message::Want`].
    pub(super) round: u64,
    /// Its number among this round's data frames, from 0.
    pub(super) index: u64,
}

/// One part of an envelope larger than [`DATA_BYTES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The BLAKE3 hash of the whole envelope's bytes.
    pub(super) hash: [u8; 32],
    /// Its number, from 0. All parts but the last have [`DATA_BYTES_MAX`] bytes.
    pub(super) part: u32,
    /// How many parts there are, at least 2.
    pub(super) count: u32,
    /// What it carries.
    pub(super) bytes: Vec<u8>,
}

/// What one frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// "I have these; the digest of all that I have is this." Only advances need to be named.
    Heads {
        /// The digest of the sender's whole version vector.
        digest: [u8; 16],
        /// All of it or some entries.
        entries: Vec<(StreamRef, Seq)>,
    },
    /// "What I know of your heads does not fit your digest: send all."
    ResendHeads,
    /// "Send me what follows these places." It replaces any question asked before.
    Want {
        /// Counts up from 1 with each question.
        round: u64,
        /// Per stream the place to start after; none takes back the question before.
        entries: Vec<Position>,
    },
    /// Envelopes asked for.
    Envelopes {
        /// Which answer this is.
        at: DataIndex,
        /// Whole envelopes.
        envelopes: Vec<Vec<u8>>,
    },
    /// A part of one envelope asked for.
    Part {
        /// Which answer this is.
        at: DataIndex,
        /// The part.
        part: Part,
    },
    /// "I have dealt with the data frames of this round below this number."
    Ack {
        /// The round, and one more than the highest number seen.
        upto: DataIndex,
    },
    /// "That was all, in as many data frames."
    Done {
        /// The round, and the number of data frames sent.
        upto: DataIndex,
    },
}

impl Message {
    /// Returns the frame that says this.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer(vec![VERSION]);
        match self {
            Message::Heads { digest, entries } => {
                writer.0.push(TYPE_HEADS);
                writer.0.extend_from_slice(digest);
                writer.entries(entries.iter().copied());
            }
            Message::ResendHeads => writer.0.push(TYPE_RESEND_HEADS),
            Message::Want { round, entries } => {
                writer.0.push(TYPE_WANT);
                writer.number(*round);
                writer.entries(
                    entries
                        .iter()
                        .map(|position| (position.stream, position.seq)),
                );
            }
            Message::Envelopes { at, envelopes } => {
                writer.0.push(TYPE_ENVELOPES);
                writer.index(at);
                writer.count(envelopes.len());
                envelopes.iter().for_each(|bytes| writer.bytes(bytes));
            }
            Message::Part { at, part } => {
                writer.0.push(TYPE_PART);
                writer.index(at);
                writer.0.extend_from_slice(&part.hash);
                writer.0.extend_from_slice(&part.part.to_le_bytes());
                writer.0.extend_from_slice(&part.count.to_le_bytes());
                writer.bytes(&part.bytes);
            }
            Message::Ack { upto } => {
                writer.0.push(TYPE_ACK);
                writer.index(upto);
            }
            Message::Done { upto } => {
                writer.0.push(TYPE_DONE);
                writer.index(upto);
            }
        }
        assert!(
            writer.0.len() <= FRAME_BYTES_MAX,
            "frame of {} bytes",
            writer.0.len()
        );
        writer.0
    }

    /// Returns what `frame` says.
    pub(super) fn decode(frame: &[u8]) -> Result<Message, MessageError> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(MessageError::TooLarge { bytes: frame.len() });
        }
        let mut reader = Reader(frame);
        let [version] = reader.array()?;
        if version != VERSION {
            return Err(MessageError::UnknownVersion { version });
        }
        let [kind] = reader.array()?;
        let message = match kind {
            TYPE_HEADS => reader.heads()?,
            TYPE_RESEND_HEADS => Message::ResendHeads,
            TYPE_WANT => reader.want()?,
            TYPE_ENVELOPES => reader.envelopes()?,
            TYPE_PART => reader.part()?,
            TYPE_ACK => Message::Ack {
                upto: reader.index()?,
            },
            TYPE_DONE => Message::Done {
                upto: reader.index()?,
            },
            _ => return Err(MessageError::UnknownType { kind }),
        };
        match reader.0.len() {
            0 => Ok(message),
            bytes => Err(MessageError::TrailingBytes { bytes }),
        }
    }

    /// Returns the messages that tell all of `heads`, each within a frame's limits.
    pub(super) fn all_heads(heads: &Heads) -> Vec<Message> {
        let digest = heads.digest();
        let entries: Vec<_> = heads.iter().collect();
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

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        let count = u32::try_from(count).expect("lists are limited far below 2^32");
        self.0.extend_from_slice(&count.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn index(&mut self, at: &DataIndex) {
        self.number(at.round);
        self.number(at.index);
    }

    fn entries(&mut self, entries: impl ExactSizeIterator<Item = (StreamRef, Seq)>) {
        self.count(entries.len());
        for (stream, seq) in entries {
            self.0.extend_from_slice(&stream.author.0);
            self.0.extend_from_slice(&stream.stream.0);
            self.number(seq.number());
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn heads(&mut self) -> Result<Message, MessageError> {
        let digest = self.array()?;
        let entries = self.entries(HEADS_PER_FRAME_MAX)?;
        if entries.iter().any(|(_, seq)| *seq == Seq::NONE) {
            return Err(MessageError::Empty);
        }
        Ok(Message::Heads { digest, entries })
    }

    fn want(&mut self) -> Result<Message, MessageError> {
        let round = self.number()?;
        let entries = self.entries(WANTS_MAX)?;
        let entries = entries
            .into_iter()
            .map(|(stream, seq)| Position { stream, seq })
            .collect();
        Ok(Message::Want { round, entries })
    }

    fn envelopes(&mut self) -> Result<Message, MessageError> {
        let at = self.index()?;
        let count = self.count(ENVELOPES_PER_FRAME_MAX)?;
        if count == 0 {
            return Err(MessageError::Empty);
        }
        let mut envelopes = Vec::with_capacity(count);
        let mut bytes_left = DATA_BYTES_MAX;
        for _ in 0..count {
            let bytes = self.bytes()?;
            if bytes.len() < ENVELOPE_BYTES_MIN || bytes.len() > bytes_left {
                return Err(MessageError::EnvelopeSize { bytes: bytes.len() });
            }
            bytes_left -= bytes.len();
            envelopes.push(bytes.to_vec());
        }
        Ok(Message::Envelopes { at, envelopes })
    }

    fn part(&mut self) -> Result<Message, MessageError> {
        let at = self.index()?;
        let hash = self.array()?;
        let part = u32::from_le_bytes(self.array()?);
        let count = u32::from_le_bytes(self.array()?);
        let bytes = self.bytes()?;
        let last = part.checked_add(1) == Some(count);
        let fits = match bytes.len() {
            DATA_BYTES_MAX => true,
            length => last && (1..DATA_BYTES_MAX).contains(&length),
        };
        let total = part as usize * DATA_BYTES_MAX + bytes.len();
        if !(2..=PARTS_MAX).contains(&count) || part >= count || !fits || total > ENVELOPE_BYTES_MAX
        {
            return Err(MessageError::WrongPart {
                part,
                count,
                bytes: bytes.len(),
            });
        }
        Ok(Message::Part {
            at,
            part: Part {
                hash,
                part,
                count,
                bytes: bytes.to_vec(),
            },
        })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(MessageError::CutShort)?;
        self.0 = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<u64, MessageError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn count(&mut self, count_max: usize) -> Result<usize, MessageError> {
        match u32::from_le_bytes(self.array()?) as usize {
            count if count > count_max => Err(MessageError::TooMany { count, count_max }),
            count => Ok(count),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], MessageError> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(MessageError::CutShort)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn index(&mut self) -> Result<DataIndex, MessageError> {
        Ok(DataIndex {
            round: self.number()?,
            index: self.number()?,
        })
    }

    fn entries(&mut self, count_max: usize) -> Result<Vec<(StreamRef, Seq)>, MessageError> {
        let count = self.count(count_max)?;
        if self.0.len() / ENTRY_BYTES < count {
            return Err(MessageError::CutShort);
        }
        let mut entries: Vec<(StreamRef, Seq)> = Vec::with_capacity(count);
        for _ in 0..count {
            let (author, stream) = (PublicKey(self.array()?), StreamId(self.array()?));
            let stream = StreamRef { author, stream };
            let seq = self.number()?;
            let seq = Seq::new(seq).ok_or(MessageError::SeqOutOfRange { seq })?;
            if entries.last().is_some_and(|(last, _)| *last >= stream) {
                return Err(MessageError::Unordered);
            }
            entries.push((stream, seq));
        }
        Ok(entries)
    }
}
