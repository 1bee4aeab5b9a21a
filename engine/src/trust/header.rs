//! The clear part of an envelope: who wrote it, its place in the author's stream, and its sizes.
//!
//! All numbers are little-endian.
//!
//! ```text
//! offset bytes
//!      0     4  version, suite, kind, flags (bit 0: the payload is compressed with zstd)
//!      4    32  author's Ed25519 public key
//!     36     8  stream
//!     44     8  seq
//!     52    32  prev: the id of the envelope before it
//!     84    16  key id: names the epoch key
//!    100    24  nonce
//!    124     4  ciphertext length
//!    128        ciphertext with its tag
//!           64  Ed25519 signature
//! ```

use std::fmt;

use super::envelope::EnvelopeError;
use super::identity::PublicKey;
use super::padding::{PADDED_BYTES_MIN, padded_bytes};
use super::secret::KeyId;

/// The size of the clear part.
pub const HEADER_BYTES: usize = 128;

/// The size of an XChaCha20 nonce.
pub const NONCE_BYTES: usize = 24;

/// The most bytes one envelope may have: 32 MiB of padded plaintext and the overhead.
pub const ENVELOPE_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX + OVERHEAD_BYTES;

/// The fewest bytes an envelope has: the padding's floor and the overhead.
pub const ENVELOPE_BYTES_MIN: usize = PADDED_BYTES_MIN + OVERHEAD_BYTES;

/// The highest `seq`: it leaves room to count on, and fits SQLite's signed integers.
pub const SEQ_MAX: u64 = 1 << 62;

pub(super) const PLAINTEXT_BYTES_MAX: usize = 32 << 20;
pub(super) const TAG_BYTES: usize = 16;
pub(super) const SIGNATURE_BYTES: usize = 64;
pub(super) const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES + SIGNATURE_BYTES;

const VERSION: u8 = 1;
const SUITE: u8 = 1;
const FLAG_COMPRESSED: u8 = 1;

const _: () = assert!(OVERHEAD_BYTES == 208);
const _: () = assert!(padded_bytes(PLAINTEXT_BYTES_MAX) == PLAINTEXT_BYTES_MAX);
const _: () = assert!(PLAINTEXT_BYTES_MAX + TAG_BYTES <= u32::MAX as usize);
const _: () = assert!(SEQ_MAX < i64::MAX as u64);

/// The name of an envelope: the BLAKE3 hash of the database's id and of all but the signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvelopeId(pub [u8; 32]);

impl EnvelopeId {
    /// What stands in `prev` where there is no envelope before.
    pub const NONE: EnvelopeId = EnvelopeId([0; 32]);
}

impl fmt::Display for EnvelopeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&bs58::encode(self.0).into_string())
    }
}

impl fmt::Debug for EnvelopeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EnvelopeId({self})")
    }
}

/// One run of an author's process: random bytes, drawn at each start.
///
/// A device restored from a backup thus never uses a `seq` of the same stream twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; 8]);

impl fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StreamId({self})")
    }
}

/// A place in a stream: 1 for its first envelope, without gaps, at most [`SEQ_MAX`].
///
/// Where a position to start after is meant, 0 ([`Seq::NONE`]) means "from the beginning".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// Before the first envelope.
    pub const NONE: Seq = Seq(0);
    /// The first envelope of a stream.
    pub const FIRST: Seq = Seq(1);

    /// Returns the place `number`, or `None` above [`SEQ_MAX`].
    pub fn new(number: u64) -> Option<Seq> {
        (number <= SEQ_MAX).then_some(Seq(number))
    }

    /// Returns the place as a number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// Returns the next place, or `None` at the very end.
    pub fn next(self) -> Option<Seq> {
        Seq::new(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What an envelope carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The changeset of one transaction.
    Data = 1,
    /// A change of the schema.
    Schema = 2,
    /// A part of a changeset too large for one envelope.
    Part = 3,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Data, Kind::Schema, Kind::Part]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Where an author's next envelope goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextPosition {
    /// The stream it continues or opens.
    pub stream: StreamId,
    /// Its place there.
    pub seq: Seq,
    /// The envelope before it: in this stream, or at the end of the author's former stream.
    pub prev: EnvelopeId,
}

impl NextPosition {
    /// Returns the position after this one, once `id` stands here; `None` at [`SEQ_MAX`].
    pub fn following(&self, id: EnvelopeId) -> Option<NextPosition> {
        Some(NextPosition {
            stream: self.stream,
            seq: self.seq.next()?,
            prev: id,
        })
    }
}

/// The clear part of an envelope, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the envelope carries.
    pub kind: Kind,
    /// Whether the payload is compressed.
    pub compressed: bool,
    /// Who signed it.
    pub author: PublicKey,
    /// The author's stream.
    pub stream: StreamId,
    /// The place in the stream, at least 1.
    pub seq: Seq,
    /// The id of the envelope before it, [`EnvelopeId::NONE`] for an author's very first.
    pub prev: EnvelopeId,
    /// The epoch key under which it is sealed.
    pub key_id: KeyId,
    /// The nonce with which it is sealed.
    pub nonce: [u8; NONCE_BYTES],
    /// The size of the ciphertext with its tag.
    pub ciphertext_bytes: usize,
}

impl Header {
    /// Decodes the header of `envelope` and checks everything that costs no cryptography.
    ///
    /// The author is only claimed until [`verify`](super::verify) has checked the signature; it
    /// serves to turn strangers away before that.
    ///
    /// # Errors
    /// One variant of [`EnvelopeError`] per rule; the answer depends on the bytes alone.
    pub fn parse(envelope: &[u8]) -> Result<Header, EnvelopeError> {
        let bytes = envelope.len();
        if bytes > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLarge { bytes });
        }
        if bytes < ENVELOPE_BYTES_MIN {
            return Err(EnvelopeError::TooShort { bytes });
        }
        let mut fields = Fields(&envelope[..HEADER_BYTES]);
        let [version, suite, kind, flags] = fields.take();
        if version != VERSION {
            return Err(EnvelopeError::UnknownVersion { version });
        }
        if suite != SUITE {
            return Err(EnvelopeError::UnknownSuite { suite });
        }
        let kind = Kind::from_byte(kind).ok_or(EnvelopeError::UnknownKind { kind })?;
        if flags & !FLAG_COMPRESSED != 0 {
            return Err(EnvelopeError::ReservedFlags { flags });
        }
        let header = Header {
            kind,
            compressed: flags & FLAG_COMPRESSED != 0,
            author: PublicKey(fields.take()),
            stream: StreamId(fields.take()),
            seq: checked_seq(u64::from_le_bytes(fields.take()))?,
            prev: EnvelopeId(fields.take()),
            key_id: KeyId(fields.take()),
            nonce: fields.take(),
            ciphertext_bytes: u32::from_le_bytes(fields.take()) as usize,
        };
        header.check_sizes(bytes)?;
        Ok(header)
    }

    fn check_sizes(&self, envelope_bytes: usize) -> Result<(), EnvelopeError> {
        let declared = self.ciphertext_bytes;
        let carried = envelope_bytes - HEADER_BYTES - SIGNATURE_BYTES;
        if declared != carried {
            return Err(EnvelopeError::WrongLength { declared, carried });
        }
        let plaintext_bytes = carried - TAG_BYTES;
        if padded_bytes(plaintext_bytes) != plaintext_bytes {
            return Err(EnvelopeError::UnpaddedLength {
                bytes: plaintext_bytes,
            });
        }
        Ok(())
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let ciphertext_bytes =
            u32::try_from(self.ciphertext_bytes).expect("PLAINTEXT_BYTES_MAX fits, see above");
        let parts: [&[u8]; 8] = [
            &[
                VERSION,
                SUITE,
                self.kind as u8,
                u8::from(self.compressed) * FLAG_COMPRESSED,
            ],
            &self.author.0,
            &self.stream.0,
            &self.seq.0.to_le_bytes(),
            &self.prev.0,
            &self.key_id.0,
            &self.nonce,
            &ciphertext_bytes.to_le_bytes(),
        ];
        let mut header = [0; HEADER_BYTES];
        let mut offset = 0;
        for part in parts {
            header[offset..offset + part.len()].copy_from_slice(part);
            offset += part.len();
        }
        assert_eq!(offset, HEADER_BYTES, "the fields fill the header");
        header
    }
}

fn checked_seq(number: u64) -> Result<Seq, EnvelopeError> {
    match Seq::new(number) {
        Some(seq) if seq >= Seq::FIRST => Ok(seq),
        _ => Err(EnvelopeError::SeqOutOfRange { seq: number }),
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self
            .0
            .split_first_chunk::<N>()
            .expect("the fields fill the header");
        self.0 = rest;
        *field
    }
}
