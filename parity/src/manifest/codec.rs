//! The bytes of a manifest, version 1. Integers are little-endian.
//!
//! | bytes | field |
//! | --- | --- |
//! | 1 | version, 1: RaptorQ of RFC 6330 as raptorq 2.x computes it, blake3 hashes |
//! | 1 | slices needed |
//! | 1 | slices in total, `n` |
//! | 2 | symbols per slice |
//! | 2 | bytes per symbol |
//! | 8 | bytes in the object |
//! | 32 | hash of the object |
//! | (1 + `n`) · 32, for each block | hash of the padded block, hash of each slot's run |
//!
//! The number of blocks follows from the object's length, so a length that does not fit the
//! rest is refused, as is every byte too many.

use blake3::Hash;

use super::{Manifest, hashes_per_block};
use crate::code::{BLOCKS_COUNT_MAX, CodeError, CodeParameters, SLICES_TOTAL_MAX};

/// The most bytes a manifest can have.
pub const MANIFEST_BYTES_MAX: usize =
    HEADER_BYTES + BLOCKS_COUNT_MAX as usize * (1 + SLICES_TOTAL_MAX as usize) * HASH_BYTES;

const VERSION: u8 = 1;
const HASH_BYTES: usize = 32;
const HEADER_BYTES: usize = 1 + 1 + 1 + 2 + 2 + 8 + HASH_BYTES;

/// Why bytes are not a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Fewer bytes than the fields before the hashes.
    #[error(
        "a manifest of {found} bytes ends before its {HEADER_BYTES}-byte header; fetch it again"
    )]
    HeaderCut {
        /// Bytes given.
        found: usize,
    },
    /// A format this program does not know.
    #[error("manifest version {found} is not {VERSION}; use a program that knows it")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// The code parameters or the object's length break a limit.
    #[error("the manifest's code parameters are outside the limits; refuse its author's snapshot")]
    Code(#[source] CodeError),
    /// The bytes are not as many as the header says.
    #[error("a manifest has {found} bytes and its header asks for {expected}; fetch it again")]
    Length {
        /// Bytes given.
        found: usize,
        /// Bytes that follow from the header.
        expected: usize,
    },
}

pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    let code = &manifest.code;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + manifest.hashes.len() * HASH_BYTES);
    bytes.extend_from_slice(&[VERSION, code.slices_needed(), code.slices_total()]);
    bytes.extend_from_slice(&code.symbols_per_slice().to_le_bytes());
    bytes.extend_from_slice(&code.symbol_bytes().to_le_bytes());
    bytes.extend_from_slice(&manifest.object_bytes.to_le_bytes());
    bytes.extend_from_slice(manifest.object_hash.as_bytes());
    for hash in &manifest.hashes {
        bytes.extend_from_slice(hash.as_bytes());
    }
    assert!(bytes.len() <= MANIFEST_BYTES_MAX, "{} bytes", bytes.len());
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let found = bytes.len();
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(ManifestError::HeaderCut { found });
    };
    let [version, needed, total, s0, s1, t0, t1, fields @ ..] = *header;
    if version != VERSION {
        return Err(ManifestError::Version { found: version });
    }
    let [symbols, symbol_bytes] = [[s0, s1], [t0, t1]].map(u16::from_le_bytes);
    let code =
        CodeParameters::new(needed, total, symbols, symbol_bytes).map_err(ManifestError::Code)?;
    let [l0, l1, l2, l3, l4, l5, l6, l7, object_hash @ ..] = fields;
    let object_bytes = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
    let blocks = code
        .blocks_count(object_bytes)
        .map_err(ManifestError::Code)?;

    let expected = HEADER_BYTES + blocks as usize * hashes_per_block(&code) * HASH_BYTES;
    if found != expected {
        return Err(ManifestError::Length { found, expected });
    }
    let (hashes, []) = rest.as_chunks::<HASH_BYTES>() else {
        unreachable!("{found} bytes are a header and whole hashes");
    };
    let hashes = hashes.iter().map(|hash| Hash::from_bytes(*hash)).collect();
    Manifest::new(code, object_bytes, Hash::from_bytes(object_hash), hashes)
        .map_err(ManifestError::Code)
}
