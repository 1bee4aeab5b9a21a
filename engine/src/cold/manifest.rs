//! The signed description of a snapshot: how it is opened, how it is coded, and who says so.
//!
//! | bytes | field |
//! | --- | --- |
//! | 124 | header |
//! | 64 | the author's Ed25519 signature |
//! | the rest | the code's manifest |
//!
//! The signature covers a domain string and BLAKE3 of the database's id, the header and the
//! snapshot's id, which is the hash of the code's manifest. So header and signature, which are
//! kept beside the code's manifest and listed for peers, can be checked without it.

use thiserror::Error;

use syncline_parity::{
    ATTACHMENT_BYTES_MAX, Manifest as CodeManifest, ManifestError as CodeManifestError, SnapshotId,
};

use super::header::{HEADER_BYTES, Header, HeaderError};
use crate::trust::{DatabaseId, Identity, SignatureError};

/// The size of an encoded header with its signature.
pub const SIGNED_HEADER_BYTES: usize = HEADER_BYTES + SIGNATURE_BYTES;

/// The most bytes a signed manifest may have (16 MiB): more than twice what an object of
/// [`CONTENT_BYTES_MAX`](super::CONTENT_BYTES_MAX) needs with the most slices.
pub const SIGNED_MANIFEST_BYTES_MAX: usize = 16 << 20;

const SIGNATURE_BYTES: usize = 64;
/// What a signature covers besides the hash; no other kind of signature starts like this.
const SIGNATURE_DOMAIN: &[u8] = b"syncline/v1/manifest\0";

const _: () = assert!(HEADER_BYTES == 124);
const _: () = assert!(SIGNED_HEADER_BYTES <= ATTACHMENT_BYTES_MAX);

/// A header and its author's signature over it and over the snapshot's id, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHeader {
    header: Header,
    snapshot: SnapshotId,
    signature: [u8; SIGNATURE_BYTES],
}

/// A snapshot's signed header and its code's manifest, which fit each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedManifest {
    signed: SignedHeader,
    code: CodeManifest,
}

/// Why bytes are not a signed manifest of this database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Fewer or more bytes than a manifest can have.
    #[error(
        "a signed manifest of {bytes} bytes; it has {SIGNED_HEADER_BYTES} to \
         {SIGNED_MANIFEST_BYTES_MAX}"
    )]
    Length {
        /// Bytes given.
        bytes: usize,
    },
    /// The header breaks a rule.
    #[error("the header is malformed")]
    Header(#[from] HeaderError),
    /// The code's manifest breaks a rule.
    #[error("the code's manifest is malformed")]
    Code(#[from] CodeManifestError),
    /// The header and the code's manifest are of different objects.
    #[error("the header describes {sealed} bytes and the code's manifest {coded}")]
    OtherObject {
        /// Bytes of the object by the header.
        sealed: u64,
        /// Bytes of the object by the code's manifest.
        coded: u64,
    },
    /// The signature is not the author's over this header, snapshot and database.
    #[error("the manifest is not signed by its author for this database")]
    Signature(#[from] SignatureError),
}

impl SignedHeader {
    /// Signs a header for a snapshot.
    ///
    /// # Panics
    /// When `identity` is not the author.
    pub(super) fn sign(
        header: Header,
        snapshot: SnapshotId,
        database: &DatabaseId,
        identity: &Identity,
    ) -> SignedHeader {
        assert!(identity.public_key() == header.author, "authors sign");
        let signature = identity.sign(&signed_message(database, &header, snapshot));
        SignedHeader {
            header,
            snapshot,
            signature,
        }
    }

    /// Checks a header and its signature.
    ///
    /// # Errors
    /// Names the first rule that is broken; the answer depends on the arguments alone.
    pub(super) fn verify(
        bytes: &[u8],
        snapshot: SnapshotId,
        database: &DatabaseId,
    ) -> Result<SignedHeader, ManifestError> {
        let wrong = ManifestError::Length { bytes: bytes.len() };
        let (header, rest) = bytes.split_first_chunk().ok_or(wrong)?;
        let signature: [u8; SIGNATURE_BYTES] = rest.try_into().map_err(|_| wrong)?;
        let header = Header::decode(header)?;
        let message = signed_message(database, &header, snapshot);
        header.author.verify(&message, &signature)?;
        Ok(SignedHeader {
            header,
            snapshot,
            signature,
        })
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the snapshot it describes.
    pub fn snapshot(&self) -> SnapshotId {
        self.snapshot
    }

    /// Returns header and signature, as they are stored and sent.
    pub(super) fn encode(&self) -> [u8; SIGNED_HEADER_BYTES] {
        let mut bytes = [0; SIGNED_HEADER_BYTES];
        bytes[..HEADER_BYTES].copy_from_slice(&self.header.encode());
        bytes[HEADER_BYTES..].copy_from_slice(&self.signature);
        bytes
    }
}

impl SignedManifest {
    /// Signs the description of an object.
    ///
    /// # Panics
    /// When `code` describes an object of another size, or `identity` is not the author.
    pub(super) fn sign(
        header: Header,
        code: CodeManifest,
        database: &DatabaseId,
        identity: &Identity,
    ) -> SignedManifest {
        assert!(
            header.sealed_bytes() == code.object_bytes(),
            "the object was coded"
        );
        let signed = SignedHeader::sign(header, code.id(), database, identity);
        SignedManifest { signed, code }
    }

    /// Joins a signed header with its code's manifest.
    ///
    /// # Errors
    /// [`ManifestError::OtherObject`].
    ///
    /// # Panics
    /// When `code` is not the manifest that the signature names.
    pub(super) fn join(
        signed: SignedHeader,
        code: CodeManifest,
    ) -> Result<SignedManifest, ManifestError> {
        assert!(code.id() == signed.snapshot, "the caller looked it up");
        let (sealed, coded) = (signed.header.sealed_bytes(), code.object_bytes());
        if sealed != coded {
            return Err(ManifestError::OtherObject { sealed, coded });
        }
        Ok(SignedManifest { signed, code })
    }

    /// Returns the manifest with this encoding, checked cheapest first.
    ///
    /// # Errors
    /// Names the first rule that is broken; the answer depends on the arguments alone.
    pub(super) fn decode(
        bytes: &[u8],
        database: &DatabaseId,
    ) -> Result<SignedManifest, ManifestError> {
        let wrong = ManifestError::Length { bytes: bytes.len() };
        if bytes.len() > SIGNED_MANIFEST_BYTES_MAX {
            return Err(wrong);
        }
        let parts = bytes.split_at_checked(SIGNED_HEADER_BYTES);
        let (signed, code) = parts.ok_or(wrong)?;
        let code = CodeManifest::decode(code)?;
        SignedManifest::join(SignedHeader::verify(signed, code.id(), database)?, code)
    }

    /// Returns the manifest's one encoding.
    pub(super) fn encode(&self) -> Vec<u8> {
        [&self.signed.encode()[..], &self.code.encode()].concat()
    }

    /// Returns the header with its signature.
    pub fn signed(&self) -> &SignedHeader {
        &self.signed
    }

    /// Returns how the object is coded.
    pub fn code(&self) -> &CodeManifest {
        &self.code
    }
}

fn signed_message(
    database: &DatabaseId,
    header: &Header,
    snapshot: SnapshotId,
) -> [u8; SIGNATURE_DOMAIN.len() + 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&database.0).update(&header.encode());
    hasher.update(&snapshot.0);
    let mut message = [0; SIGNATURE_DOMAIN.len() + 32];
    message[..SIGNATURE_DOMAIN.len()].copy_from_slice(SIGNATURE_DOMAIN);
    message[SIGNATURE_DOMAIN.len()..].copy_from_slice(hasher.finalize().as_bytes());
    message
}
