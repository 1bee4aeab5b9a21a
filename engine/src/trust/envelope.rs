//! Seals changesets into signed envelopes, verifies the envelopes of others and opens them.
//!
//! The order is encrypt, then sign: whoever lacks the key can still verify, store and forward.
//! A refusal depends on the envelope's bytes and the database's id only, so every peer refuses the
//! same ones; a refusal that depended on a clock or on local state would make replicas diverge.

use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use thiserror::Error;
use zeroize::Zeroizing;

use super::compression::{self, CompressionError};
use super::header::{
    ENVELOPE_BYTES_MAX, ENVELOPE_BYTES_MIN, EnvelopeId, HEADER_BYTES, Header, Kind, NONCE_BYTES,
    NextPosition, PLAINTEXT_BYTES_MAX, SIGNATURE_BYTES, Seq, TAG_BYTES,
};
use super::identity::{Identity, PublicKey, SignatureError};
use super::padding::{PADDED_BYTES_MIN, padded_bytes};
use super::secret::{DatabaseId, EpochKey, KeyId};

/// The most bytes one envelope's payload may have before compression.
pub const PAYLOAD_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX - INNER_BYTES;

/// What precedes the payload inside: author, stream, seq, stored length, original length.
const INNER_BYTES: usize = 32 + 8 + 8 + 4 + 4;

/// What a signature covers besides the id; no other kind of signature starts like this.
const SIGNATURE_DOMAIN: &[u8] = b"syncline/v1/envelope\0";

const _: () = assert!(padded_bytes(INNER_BYTES + PAYLOAD_BYTES_MAX) == PLAINTEXT_BYTES_MAX);
const _: () = assert!(INNER_BYTES < PADDED_BYTES_MIN);
const _: () = assert!(compression::DECOMPRESSED_BYTES_MAX <= PAYLOAD_BYTES_MAX);

/// Why an envelope was refused, one variant per rule.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Longer than [`ENVELOPE_BYTES_MAX`].
    #[error("envelope of {bytes} bytes; the most is {ENVELOPE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Shorter than [`ENVELOPE_BYTES_MIN`].
    #[error("envelope of {bytes} bytes; the least is {ENVELOPE_BYTES_MIN}")]
    TooShort {
        /// Its size.
        bytes: usize,
    },
    /// A version this build does not know.
    #[error("envelope version {version} is unknown; a newer build may read it")]
    UnknownVersion {
        /// The version it names.
        version: u8,
    },
    /// A set of algorithms this build does not know.
    #[error("cipher suite {suite} is unknown; a newer build may read it")]
    UnknownSuite {
        /// The suite it names.
        suite: u8,
    },
    /// A kind of contents this build does not know.
    #[error("envelope kind {kind} is unknown; a newer build may read it")]
    UnknownKind {
        /// The kind it names.
        kind: u8,
    },
    /// A flag without a meaning is set.
    #[error("flags {flags:#010b} use bits that must be zero")]
    ReservedFlags {
        /// All flags.
        flags: u8,
    },
    /// `seq` is zero or above the cap.
    #[error("seq {seq} is outside 1 to 2^62")]
    SeqOutOfRange {
        /// The number it names.
        seq: u64,
    },
    /// The declared length is not the carried one.
    #[error("{declared} ciphertext bytes declared and {carried} carried")]
    WrongLength {
        /// What the header says.
        declared: usize,
        /// What there is.
        carried: usize,
    },
    /// The length is not one that padding gives.
    #[error("{bytes} plaintext bytes are not a padded length")]
    UnpaddedLength {
        /// The length of the plaintext.
        bytes: usize,
    },
    /// The author is no point on the curve.
    #[error("author {author} is no Ed25519 key")]
    InvalidAuthor {
        /// What stands in its place.
        author: PublicKey,
    },
    /// The author's key is of small order: anybody can sign for it.
    #[error("author {author} is a weak key, for which anybody can sign")]
    WeakAuthor {
        /// The key.
        author: PublicKey,
    },
    /// The signature is not the author's over these bytes in this database.
    #[error("the signature of {author} does not fit the envelope in this database")]
    BadSignature {
        /// Who is claimed to have signed.
        author: PublicKey,
    },
    /// Sealed under a key other than the one at hand.
    #[error("sealed under epoch key {needed:?}, and {given:?} was given")]
    OtherKey {
        /// The key it names.
        needed: KeyId,
        /// The key that was tried.
        given: KeyId,
    },
    /// The ciphertext was not made with this key by this author for this place.
    #[error("the seal is broken: not made under this key by {author}")]
    BrokenSeal {
        /// Who signed it.
        author: PublicKey,
    },
    /// The place inside the seal is another than the one outside.
    #[error("the place inside the seal differs from the one in the header")]
    InnerMismatch,
    /// The lengths inside the seal do not fit its size or the flags.
    #[error("{stored} stored and {original} original bytes do not fit a plaintext of {plaintext}")]
    WrongInnerLength {
        /// Bytes of payload as stored.
        stored: usize,
        /// Bytes of payload before compression.
        original: usize,
        /// Bytes of plaintext.
        plaintext: usize,
    },
    /// The padding is not all zero.
    #[error("the padding is not zero")]
    NonZeroPadding,
    /// The compressed payload breaks a rule.
    #[error("the compressed payload was refused")]
    Compression(#[from] CompressionError),
    /// A payload to seal is above the limit.
    #[error("payload of {bytes} bytes; the most is {PAYLOAD_BYTES_MAX}, split the transaction")]
    PayloadTooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// All that sealing needs besides the payload.
pub struct Sealing<'a> {
    /// The database it belongs to; bound by seal and signature, and never sent.
    pub database: DatabaseId,
    /// The epoch's key.
    pub key: &'a EpochKey,
    /// Who signs.
    pub identity: &'a Identity,
    /// Its place.
    pub position: NextPosition,
    /// What it carries.
    pub kind: Kind,
    /// Random bytes, never used before.
    ///
    /// Not a counter: a restored backup would count from the same number again.
    pub nonce: [u8; NONCE_BYTES],
}

/// An envelope whose signature and form were checked, or that this device made itself.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedEnvelope {
    database: DatabaseId,
    header: Header,
    id: EnvelopeId,
    bytes: Vec<u8>,
}

/// Encrypts `payload` and signs it.
///
/// # Errors
/// [`EnvelopeError::PayloadTooLarge`].
pub fn seal(sealing: &Sealing<'_>, payload: &[u8]) -> Result<VerifiedEnvelope, EnvelopeError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(EnvelopeError::PayloadTooLarge {
            bytes: payload.len(),
        });
    }
    // Below the padding's floor compression saves nothing.
    let fits = INNER_BYTES + payload.len() <= PADDED_BYTES_MIN;
    let compressed = if fits {
        None
    } else {
        compression::compress(payload)
    };
    let stored = compressed.as_deref().unwrap_or(payload);
    let plaintext_bytes = padded_bytes(INNER_BYTES + stored.len());
    let NextPosition { stream, seq, prev } = sealing.position;
    assert!(seq >= Seq::FIRST, "an envelope's seq starts at 1");
    let header = Header {
        kind: sealing.kind,
        compressed: compressed.is_some(),
        author: sealing.identity.public_key(),
        stream,
        seq,
        prev,
        key_id: sealing.key.id(),
        nonce: sealing.nonce,
        ciphertext_bytes: plaintext_bytes + TAG_BYTES,
    };
    let encoded = header.encode();
    let mut bytes = Vec::with_capacity(plaintext_bytes + ENVELOPE_BYTES_MIN - PADDED_BYTES_MIN);
    bytes.extend_from_slice(&encoded);
    bytes.extend_from_slice(&inner(&header, stored.len(), payload.len()));
    bytes.extend_from_slice(stored);
    bytes.resize(HEADER_BYTES + plaintext_bytes, 0);
    let tag = cipher(sealing.key, &header.author)
        .encrypt_inout_detached(
            &XNonce::from(header.nonce),
            &associated(&sealing.database, &encoded),
            InOutBuf::from(&mut bytes[HEADER_BYTES..]),
        )
        .expect("the plaintext is far below the cipher's limit of 256 GiB");
    bytes.extend_from_slice(&tag);
    let id = hash(&sealing.database, &bytes);
    bytes.extend_from_slice(&sealing.identity.sign(&signed_message(&id)));
    assert!(bytes.len() >= ENVELOPE_BYTES_MIN && bytes.len() <= ENVELOPE_BYTES_MAX);
    Ok(VerifiedEnvelope {
        database: sealing.database,
        header,
        id,
        bytes,
    })
}

/// Checks an envelope's form and signature, cheapest first.
///
/// # Errors
/// One variant of [`EnvelopeError`] per rule; the answer depends on `bytes` and `database` alone.
pub fn verify(bytes: Vec<u8>, database: &DatabaseId) -> Result<VerifiedEnvelope, EnvelopeError> {
    let envelope = VerifiedEnvelope::assume_verified(bytes, database)?;
    let author = envelope.header.author;
    let signature = envelope
        .bytes
        .last_chunk()
        .expect("parsing checked the length");
    author
        .verify(&signed_message(&envelope.id), signature)
        .map_err(|error| match error {
            SignatureError::InvalidKey { .. } => EnvelopeError::InvalidAuthor { author },
            SignatureError::WeakKey { .. } => EnvelopeError::WeakAuthor { author },
            SignatureError::Mismatch { .. } => EnvelopeError::BadSignature { author },
        })?;
    Ok(envelope)
}

/// Returns the id of an envelope: BLAKE3 of the database's id and all bytes but the signature.
///
/// Bytes shorter than a signature have the id of an empty envelope, which no envelope has.
pub fn envelope_id(database: &DatabaseId, envelope: &[u8]) -> EnvelopeId {
    hash(
        database,
        &envelope[..envelope.len().saturating_sub(SIGNATURE_BYTES)],
    )
}

impl VerifiedEnvelope {
    /// Takes back an envelope that this device verified before it stored it.
    ///
    /// Checks the form only; the signature costs twenty times as much as all the rest.
    /// Never use it on bytes that come from a peer.
    ///
    /// # Errors
    /// As [`Header::parse`]; then the store is damaged.
    pub fn assume_verified(
        bytes: Vec<u8>,
        database: &DatabaseId,
    ) -> Result<VerifiedEnvelope, EnvelopeError> {
        let header = Header::parse(&bytes)?;
        let id = envelope_id(database, &bytes);
        Ok(VerifiedEnvelope {
            database: *database,
            header,
            id,
            bytes,
        })
    }

    /// Returns the clear part.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the envelope's id.
    pub fn id(&self) -> EnvelopeId {
        self.id
    }

    /// Returns the database for which it was verified.
    pub fn database(&self) -> DatabaseId {
        self.database
    }

    /// Returns the bytes that are stored and sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the bytes that are stored and sent.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Decrypts the payload.
    ///
    /// # Errors
    /// [`EnvelopeError::OtherKey`] can be cured by another key; all others say that the author
    /// made a bad envelope (or that the store is damaged).
    pub fn open(&self, key: &EpochKey) -> Result<Vec<u8>, EnvelopeError> {
        let (needed, given) = (self.header.key_id, key.id());
        if needed != given {
            return Err(EnvelopeError::OtherKey { needed, given });
        }
        let plaintext = self.decrypt(key)?;
        let (stored, original) = self.check_inner(&plaintext)?;
        let payload = &plaintext[INNER_BYTES..INNER_BYTES + stored];
        if self.header.compressed {
            return Ok(compression::decompress(payload, original)?);
        }
        Ok(payload.to_vec())
    }

    fn decrypt(&self, key: &EpochKey) -> Result<Vec<u8>, EnvelopeError> {
        let author = self.header.author;
        let (header, rest) = self
            .bytes
            .split_first_chunk()
            .expect("parsing checked the length");
        let (sealed, _signature) = rest.split_at(self.header.ciphertext_bytes);
        let (ciphertext, tag) = sealed
            .split_last_chunk()
            .expect("parsing checked the length");
        let mut plaintext = ciphertext.to_vec();
        cipher(key, &author)
            .decrypt_inout_detached(
                &XNonce::from(self.header.nonce),
                &associated(&self.database, header),
                InOutBuf::from(&mut plaintext[..]),
                &Tag::from(*tag),
            )
            .map_err(|_| EnvelopeError::BrokenSeal { author })?;
        Ok(plaintext)
    }

    /// Returns the stored and the original length of the payload.
    fn check_inner(&self, plaintext: &[u8]) -> Result<(usize, usize), EnvelopeError> {
        let length = |at: usize| {
            let bytes = plaintext[at..]
                .first_chunk()
                .expect("a plaintext has a least size");
            u32::from_le_bytes(*bytes) as usize
        };
        let (stored, original) = (length(48), length(52));
        if plaintext[..48] != inner(&self.header, stored, original)[..48] {
            return Err(EnvelopeError::InnerMismatch);
        }
        let padded = INNER_BYTES.checked_add(stored).is_some_and(|bytes| {
            bytes <= plaintext.len() && padded_bytes(bytes) == plaintext.len()
        });
        if !padded || (!self.header.compressed && stored != original) {
            let plaintext = plaintext.len();
            return Err(EnvelopeError::WrongInnerLength {
                stored,
                original,
                plaintext,
            });
        }
        if plaintext[INNER_BYTES + stored..]
            .iter()
            .any(|byte| *byte != 0)
        {
            return Err(EnvelopeError::NonZeroPadding);
        }
        Ok((stored, original))
    }
}

impl std::fmt::Debug for VerifiedEnvelope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "VerifiedEnvelope({}, {} bytes)",
            self.id,
            self.bytes.len()
        )
    }
}

fn inner(header: &Header, stored: usize, original: usize) -> [u8; INNER_BYTES] {
    let mut inner = [0; INNER_BYTES];
    inner[..32].copy_from_slice(&header.author.0);
    inner[32..40].copy_from_slice(&header.stream.0);
    inner[40..48].copy_from_slice(&header.seq.number().to_le_bytes());
    for (at, length) in [(48, stored), (52, original)] {
        let length = u32::try_from(length).expect("lengths are below 32 MiB or were a u32");
        inner[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
    inner
}

fn associated(database: &DatabaseId, header: &[u8; HEADER_BYTES]) -> [u8; 32 + HEADER_BYTES] {
    let mut bytes = [0; 32 + HEADER_BYTES];
    bytes[..32].copy_from_slice(&database.0);
    bytes[32..].copy_from_slice(header);
    bytes
}

fn cipher(key: &EpochKey, author: &PublicKey) -> XChaCha20Poly1305 {
    let key: Zeroizing<[u8; 32]> = key.author_key(author);
    XChaCha20Poly1305::new(&(*key).into())
}

fn hash(database: &DatabaseId, unsigned: &[u8]) -> EnvelopeId {
    EnvelopeId(
        *blake3::Hasher::new()
            .update(&database.0)
            .update(unsigned)
            .finalize()
            .as_bytes(),
    )
}

fn signed_message(id: &EnvelopeId) -> [u8; SIGNATURE_DOMAIN.len() + 32] {
    let mut message = [0; SIGNATURE_DOMAIN.len() + 32];
    message[..SIGNATURE_DOMAIN.len()].copy_from_slice(SIGNATURE_DOMAIN);
    message[SIGNATURE_DOMAIN.len()..].copy_from_slice(&id.0);
    message
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
pub(super) mod forge {
    //! Makes envelopes that break one rule, signed by a real member.
    use super::*;

    /// Seals `plaintext` as it stands under the header's own claims, and signs it.
    pub(in crate::trust) fn seal_plaintext(
        sealing: &Sealing<'_>,
        compressed: bool,
        plaintext: &[u8],
    ) -> Vec<u8> {
        let header = Header {
            kind: sealing.kind,
            compressed,
            author: sealing.identity.public_key(),
            stream: sealing.position.stream,
            seq: sealing.position.seq,
            prev: sealing.position.prev,
            key_id: sealing.key.id(),
            nonce: sealing.nonce,
            ciphertext_bytes: plaintext.len() + TAG_BYTES,
        };
        let encoded = header.encode();
        let mut bytes = [&encoded[..], plaintext].concat();
        let tag = cipher(sealing.key, &header.author)
            .encrypt_inout_detached(
                &XNonce::from(header.nonce),
                &associated(&sealing.database, &encoded),
                InOutBuf::from(&mut bytes[HEADER_BYTES..]),
            )
            .unwrap();
        bytes.extend_from_slice(&tag);
        bytes.extend_from_slice(&[0; SIGNATURE_BYTES]);
        sign(&mut bytes, &sealing.database, sealing.identity);
        bytes
    }

    /// Replaces the signature by a valid one over whatever stands before it.
    pub(in crate::trust) fn sign(bytes: &mut [u8], database: &DatabaseId, identity: &Identity) {
        let signature = identity.sign(&signed_message(&envelope_id(database, bytes)));
        let start = bytes.len() - SIGNATURE_BYTES;
        bytes[start..].copy_from_slice(&signature);
    }

    /// Returns an honest plaintext: inner header, payload, padding.
    pub(in crate::trust) fn plaintext(
        sealing: &Sealing<'_>,
        stored: &[u8],
        original: usize,
    ) -> Vec<u8> {
        let mut bytes = vec![0; INNER_BYTES];
        bytes[..32].copy_from_slice(&sealing.identity.public_key().0);
        bytes[32..40].copy_from_slice(&sealing.position.stream.0);
        bytes[40..48].copy_from_slice(&sealing.position.seq.number().to_le_bytes());
        bytes[48..52].copy_from_slice(&(stored.len() as u32).to_le_bytes());
        bytes[52..56].copy_from_slice(&(original as u32).to_le_bytes());
        bytes.extend_from_slice(stored);
        bytes.resize(padded_bytes(bytes.len()), 0);
        bytes
    }
}
