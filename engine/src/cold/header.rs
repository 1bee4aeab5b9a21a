//! The clear part of a sealed object: who made it, when, and what opens it.
//!
//! Version 1. All numbers are little-endian.
//!
//! | bytes | field |
//! | --- | --- |
//! | 1 | version, 1: zstd, STREAM of XChaCha20-Poly1305 with 64 KiB chunks, Ed25519 |
//! | 32 | author's Ed25519 public key |
//! | 8 | when it was made, Unix milliseconds by the author's clock |
//! | 16 | key id: names the epoch key |
//! | 32 | salt |
//! | 19 | nonce |
//! | 8 | bytes of the encoded content |
//! | 8 | bytes of the same, compressed |

use thiserror::Error;

use super::content::{CONTENT_BYTES_MAX, Fields};
use crate::trust::{KeyId, PublicKey};

/// The size of an encoded header.
pub const HEADER_BYTES: usize = 1 + 32 + 8 + 16 + 32 + NONCE_BYTES + 8 + 8;

/// The most bytes a content may have when compressed. Above [`CONTENT_BYTES_MAX`], since zstd
/// stores what it cannot compress and adds 3 bytes for each 128 KiB.
pub const COMPRESSED_BYTES_MAX: u64 = CONTENT_BYTES_MAX + (CONTENT_BYTES_MAX >> 10);

/// The size of a STREAM nonce: an XChaCha20 nonce without the counter and the last-chunk flag.
pub(super) const NONCE_BYTES: usize = 24 - 5;
/// The size of the random bytes from which a snapshot's key is derived.
pub(super) const SALT_BYTES: usize = 32;
/// The bytes that are sealed at a time.
pub(super) const CHUNK_BYTES: usize = 64 << 10;
/// What sealing adds to each chunk.
pub(super) const TAG_BYTES: usize = 16;

const VERSION: u8 = 1;

const _: () = assert!(COMPRESSED_BYTES_MAX / (CHUNK_BYTES as u64) < u32::MAX as u64);

/// The clear part of a sealed object. Every value of this type is within the limits above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub(super) author: PublicKey,
    pub(super) created_unix_ms: u64,
    pub(super) key_id: KeyId,
    pub(super) salt: [u8; SALT_BYTES],
    pub(super) nonce: [u8; NONCE_BYTES],
    pub(super) content_bytes: u64,
    pub(super) compressed_bytes: u64,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// A format this build does not know.
    #[error("snapshot version {version} is unknown; use a newer build")]
    UnknownVersion {
        /// The version it names.
        version: u8,
    },
    /// One of the declared sizes is zero or above its limit.
    #[error(
        "a snapshot of {content_bytes} bytes in {compressed_bytes} is outside the limits; \
         refuse its author's snapshots"
    )]
    Sizes {
        /// Declared bytes of content.
        content_bytes: u64,
        /// Declared bytes of compressed content.
        compressed_bytes: u64,
    },
}

impl Header {
    /// Returns who made the snapshot.
    pub fn author(&self) -> PublicKey {
        self.author
    }

    /// Returns when it was made, in Unix milliseconds by the author's clock.
    pub fn created_unix_ms(&self) -> u64 {
        self.created_unix_ms
    }

    /// Returns which epoch key opens it.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Returns the bytes of its content, encoded and not compressed.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Returns the bytes of the sealed object: the compressed content and a tag for each chunk.
    pub fn sealed_bytes(&self) -> u64 {
        let chunks = self.compressed_bytes.div_ceil(CHUNK_BYTES as u64);
        self.compressed_bytes + chunks * TAG_BYTES as u64
    }

    /// Returns the header's one encoding.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = &mut bytes[..];
        let fields: [&[u8]; 8] = [
            &[VERSION],
            &self.author.0,
            &self.created_unix_ms.to_le_bytes(),
            &self.key_id.0,
            &self.salt,
            &self.nonce,
            &self.content_bytes.to_le_bytes(),
            &self.compressed_bytes.to_le_bytes(),
        ];
        for field in fields {
            let (place, behind) = rest.split_at_mut(field.len());
            place.copy_from_slice(field);
            rest = behind;
        }
        assert!(rest.is_empty(), "the fields fill the header");
        bytes
    }

    /// Returns the header in `bytes`.
    ///
    /// # Errors
    /// Names the first rule that the bytes break.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, HeaderError> {
        let mut rest = Fields(bytes);
        let [version] = *field(&mut rest);
        if version != VERSION {
            return Err(HeaderError::UnknownVersion { version });
        }
        let header = Header {
            author: PublicKey(*field(&mut rest)),
            created_unix_ms: u64::from_le_bytes(*field(&mut rest)),
            key_id: KeyId(*field(&mut rest)),
            salt: *field(&mut rest),
            nonce: *field(&mut rest),
            content_bytes: u64::from_le_bytes(*field(&mut rest)),
            compressed_bytes: u64::from_le_bytes(*field(&mut rest)),
        };
        header.check_sizes()?;
        Ok(header)
    }

    fn check_sizes(&self) -> Result<(), HeaderError> {
        let (content_bytes, compressed_bytes) = (self.content_bytes, self.compressed_bytes);
        let content_fits = (1..=CONTENT_BYTES_MAX).contains(&content_bytes);
        if content_fits && (1..=COMPRESSED_BYTES_MAX).contains(&compressed_bytes) {
            return Ok(());
        }
        Err(HeaderError::Sizes {
            content_bytes,
            compressed_bytes,
        })
    }
}

fn field<'a, const N: usize>(rest: &mut Fields<'a>) -> &'a [u8; N] {
    rest.take()
        .expect("the fields are as long as the header together")
}
