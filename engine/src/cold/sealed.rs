//! Seals a content into an object that only holders of the epoch key can open.
//!
//! The content is compressed with zstd and cut into chunks of 64 KiB, and each chunk is sealed
//! with its number and whether it is the last (the STREAM construction: Hoang, Reyhanitabar,
//! Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance",
//! 2015). So chunks that were changed, moved, dropped or appended do not open.

use std::fmt;
use std::io::{self, Read, Write};

use aead_stream::{NewStream, StreamBE32, StreamPrimitive};
use chacha20poly1305::XChaCha20Poly1305;
use thiserror::Error;
use zstd::zstd_safe;

use super::content::{Content, ContentError};
use super::header::{CHUNK_BYTES, HEADER_BYTES, Header, NONCE_BYTES, SALT_BYTES, TAG_BYTES};
use crate::trust::{DatabaseId, DatabaseSecret, EpochKey, KeyId, PublicKey, RandomError};

/// Fast enough to disappear behind the seal, and changesets shrink to little more than at 3.
const COMPRESSION_LEVEL: i32 = 1;

/// Random bytes for one seal: two objects with the same would be sealed with the same key.
#[derive(Clone)]
pub(super) struct Salts {
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
}

/// An encrypted content, and the clear part that says how to open it.
#[derive(Clone)]
pub struct SealedObject {
    /// The clear part; the seal binds it.
    pub header: Header,
    /// The sealed chunks: [`Header::sealed_bytes`] bytes.
    pub bytes: Vec<u8>,
}

/// Who seals, when, for which database.
pub(super) struct Sealing<'a> {
    pub(super) secret: &'a DatabaseSecret,
    pub(super) author: PublicKey,
    /// Unix milliseconds.
    pub(super) created_unix_ms: u64,
    pub(super) salts: Salts,
}

/// Why a content was not sealed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The content is above a limit.
    #[error("the content does not fit a snapshot")]
    Content(#[from] ContentError),
    /// The content was not compressed.
    #[error("the content was not compressed; free some memory and try again")]
    Compression(#[source] io::Error),
}

/// Why a sealed object was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnsealError {
    /// Sealed under a key that this device does not hold.
    #[error("sealed under epoch key {needed:?}, which is not here; join the database again")]
    OtherKey {
        /// The key it names.
        needed: KeyId,
    },
    /// The object is shorter or longer than its header says.
    #[error("{found} bytes where the header declares {declared}; take another snapshot")]
    WrongLength {
        /// What the header says.
        declared: u64,
        /// What there is.
        found: u64,
    },
    /// A chunk was not sealed with this key, by this author, at this place, under this header.
    #[error("the seal of chunk {chunk} is broken; take another snapshot")]
    BrokenSeal {
        /// Its number, counted from 0.
        chunk: u32,
    },
    /// The compressed data is damaged.
    #[error("the compressed content is damaged; take another snapshot")]
    Damaged(#[source] io::Error),
    /// The compressed data needs a dictionary, which no snapshot has.
    #[error("the compressed content asks for a dictionary; take another snapshot")]
    Dictionary,
    /// The compressed data is not one frame of the declared size.
    #[error("the content is not the {declared} bytes that its header declares")]
    NotAsDeclared {
        /// What the header says.
        declared: u64,
    },
    /// The content breaks a rule of its encoding.
    #[error("the content is malformed")]
    Content(#[from] ContentError),
}

impl Salts {
    /// Draws new ones: the one door through which randomness enters a snapshot.
    ///
    /// # Errors
    /// When there is no randomness to be had.
    pub(super) fn draw() -> Result<Salts, RandomError> {
        let (salt, nonce) = (crate::trust::random_bytes()?, crate::trust::random_bytes()?);
        Ok(Salts { salt, nonce })
    }
}

impl fmt::Debug for SealedObject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (author, bytes) = (self.header.author, self.bytes.len());
        write!(formatter, "SealedObject(by {author}, {bytes} bytes)")
    }
}

/// Compresses and encrypts `content`. Takes memory for the compressed and the sealed bytes.
///
/// # Errors
/// When the content is above a limit.
pub(super) fn seal(content: &Content, sealing: Sealing<'_>) -> Result<SealedObject, SealError> {
    let prefix = content.encode_prefix()?;
    let compressed = compress(&prefix, &content.changes).map_err(SealError::Compression)?;
    let key = sealing.secret.current_key();
    let header = Header {
        author: sealing.author,
        created_unix_ms: sealing.created_unix_ms,
        key_id: key.id(),
        salt: sealing.salts.salt,
        nonce: sealing.salts.nonce,
        content_bytes: (prefix.len() + content.changes.len()) as u64,
        compressed_bytes: compressed.len() as u64,
    };
    let bytes = encrypt(key, &sealing.secret.id(), &header, &compressed);
    assert!(
        bytes.len() as u64 == header.sealed_bytes(),
        "the size is computed"
    );
    Ok(SealedObject { header, bytes })
}

/// Decrypts `bytes`, which were sealed under `header`, and decompresses the content.
///
/// Memory is bounded by the sizes in the header and by what the object really holds.
///
/// # Errors
/// [`UnsealError::OtherKey`] can be cured by another key; all others say that the bytes are not
/// what the header's author sealed, or that the author made a bad snapshot.
pub(super) fn unseal(
    header: &Header,
    bytes: &[u8],
    secret: &DatabaseSecret,
) -> Result<Content, UnsealError> {
    let needed = header.key_id;
    let key = secret
        .key(&needed)
        .ok_or(UnsealError::OtherKey { needed })?;
    let (declared, found) = (header.sealed_bytes(), bytes.len() as u64);
    if declared != found {
        return Err(UnsealError::WrongLength { declared, found });
    }
    let compressed = decrypt(key, &secret.id(), header, bytes)?;
    Ok(Content::decode(decompress(
        &compressed,
        header.content_bytes,
    )?)?)
}

fn compress(prefix: &[u8], changes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), COMPRESSION_LEVEL)?;
    encoder.set_pledged_src_size(Some((prefix.len() + changes.len()) as u64))?;
    encoder.write_all(prefix)?;
    encoder.write_all(changes)?;
    encoder.finish()
}

/// Returns the one zstd frame in `compressed`, which must hold `declared` bytes.
///
/// Grows with what comes out, so that a false size costs no memory.
fn decompress(compressed: &[u8], declared: u64) -> Result<Vec<u8>, UnsealError> {
    if zstd_safe::get_dict_id_from_frame(compressed).is_some() {
        return Err(UnsealError::Dictionary);
    }
    let frame_bytes = zstd_safe::find_frame_compressed_size(compressed).ok();
    if frame_bytes != Some(compressed.len()) {
        return Err(UnsealError::NotAsDeclared { declared });
    }
    let decoder = zstd::stream::Decoder::with_buffer(compressed).map_err(UnsealError::Damaged)?;
    let mut content = Vec::new();
    let capped = decoder.single_frame().take(declared + 1);
    { capped }
        .read_to_end(&mut content)
        .map_err(UnsealError::Damaged)?;
    if content.len() as u64 != declared {
        return Err(UnsealError::NotAsDeclared { declared });
    }
    Ok(content)
}

fn encrypt(key: &EpochKey, database: &DatabaseId, header: &Header, plain: &[u8]) -> Vec<u8> {
    let (stream, bound) = (stream(key, header), bound(database, header));
    let last = plain.len().div_ceil(CHUNK_BYTES) - 1;
    let mut sealed = Vec::with_capacity(plain.len() + (last + 1) * TAG_BYTES);
    let mut buffer = Vec::with_capacity(CHUNK_BYTES + TAG_BYTES);
    for (number, chunk) in (0..).zip(plain.chunks(CHUNK_BYTES)) {
        buffer.clear();
        buffer.extend_from_slice(chunk);
        stream
            .encrypt_in_place(number, number as usize == last, &bound, &mut buffer)
            .expect("a chunk is far below the cipher's limit of 256 GiB");
        sealed.extend_from_slice(&buffer);
    }
    sealed
}

fn decrypt(
    key: &EpochKey,
    database: &DatabaseId,
    header: &Header,
    sealed: &[u8],
) -> Result<Vec<u8>, UnsealError> {
    let (stream, bound) = (stream(key, header), bound(database, header));
    let chunks = sealed.chunks(CHUNK_BYTES + TAG_BYTES);
    let last = chunks.len() - 1;
    let mut plain = Vec::with_capacity(sealed.len());
    let mut buffer = Vec::with_capacity(CHUNK_BYTES + TAG_BYTES);
    for (number, chunk) in (0..).zip(chunks) {
        buffer.clear();
        buffer.extend_from_slice(chunk);
        stream
            .decrypt_in_place(number, number as usize == last, &bound, &mut buffer)
            .map_err(|_| UnsealError::BrokenSeal { chunk: number })?;
        plain.extend_from_slice(&buffer);
    }
    Ok(plain)
}

fn stream(key: &EpochKey, header: &Header) -> StreamBE32<XChaCha20Poly1305> {
    let key = key.snapshot_key(&header.salt);
    StreamBE32::new(&(*key).into(), &header.nonce.into())
}

/// Returns what every chunk's seal covers besides the chunk: the database, and the header with
/// the author in it.
fn bound(database: &DatabaseId, header: &Header) -> [u8; 32 + HEADER_BYTES] {
    let mut bytes = [0; 32 + HEADER_BYTES];
    bytes[..32].copy_from_slice(&database.0);
    bytes[32..].copy_from_slice(&header.encode());
    bytes
}
