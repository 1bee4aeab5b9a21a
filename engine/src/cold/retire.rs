//! The signed order by which an author's older snapshots are removed from their holders.
//!
//! | bytes | field |
//! | --- | --- |
//! | 32 | author's Ed25519 public key |
//! | 2 | snapshots, `s`, little-endian |
//! | 32 · `s` | their ids |
//! | 64 | the author's Ed25519 signature |
//!
//! A replayed order does no harm: a snapshot's id depends on its random salt, so an id that was
//! once retired is never that of a later snapshot.

use thiserror::Error;

use syncline_parity::SnapshotId;

use super::content::Fields;
use crate::trust::{DatabaseId, Identity, PublicKey, SignatureError};

/// The most snapshots one order names.
pub const RETIRED_MAX: usize = 1_024;

const SIGNATURE_BYTES: usize = 64;
/// What a signature covers besides the hash; no other kind of signature starts like this.
const SIGNATURE_DOMAIN: &[u8] = b"syncline/v1/retire\0";

/// An author's order to remove snapshots, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Retirement {
    pub(super) author: PublicKey,
    pub(super) snapshots: Vec<SnapshotId>,
}

/// Why bytes are not an order to remove snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RetireError {
    /// The bytes are not as many as the fields need.
    #[error("{bytes} bytes are not an order to remove snapshots")]
    Length {
        /// Bytes given.
        bytes: usize,
    },
    /// More snapshots than [`RETIRED_MAX`].
    #[error("{snapshots} snapshots; one order names at most {RETIRED_MAX}")]
    TooMany {
        /// How many it names.
        snapshots: usize,
    },
    /// The signature is not the author's over these snapshots in this database.
    #[error("the order is not signed by its author for this database")]
    Signature(#[from] SignatureError),
}

impl Retirement {
    /// Signs an order and returns its encoding.
    ///
    /// # Panics
    /// Above [`RETIRED_MAX`] snapshots.
    pub(super) fn sign(
        snapshots: &[SnapshotId],
        database: &DatabaseId,
        identity: &Identity,
    ) -> Vec<u8> {
        assert!(
            snapshots.len() <= RETIRED_MAX,
            "{} snapshots",
            snapshots.len()
        );
        let count = u16::try_from(snapshots.len()).expect("at most RETIRED_MAX");
        let mut bytes = identity.public_key().0.to_vec();
        bytes.extend_from_slice(&count.to_le_bytes());
        for snapshot in snapshots {
            bytes.extend_from_slice(&snapshot.0);
        }
        let signature = identity.sign(&signed_message(database, &bytes));
        bytes.extend_from_slice(&signature);
        bytes
    }

    /// Checks an order.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub(super) fn verify(bytes: &[u8], database: &DatabaseId) -> Result<Retirement, RetireError> {
        let wrong = RetireError::Length { bytes: bytes.len() };
        let (body, signature) = bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(wrong)?;
        let mut rest = Fields(body);
        let author = PublicKey(*rest.take().ok_or(wrong)?);
        let snapshots = usize::from(u16::from_le_bytes(*rest.take().ok_or(wrong)?));
        if snapshots > RETIRED_MAX {
            return Err(RetireError::TooMany { snapshots });
        }
        let (ids, []) = rest.0.as_chunks::<32>() else {
            return Err(wrong);
        };
        if ids.len() != snapshots {
            return Err(wrong);
        }
        author.verify(&signed_message(database, body), signature)?;
        let snapshots = ids.iter().map(|id| SnapshotId(*id)).collect();
        Ok(Retirement { author, snapshots })
    }
}

fn signed_message(database: &DatabaseId, body: &[u8]) -> Vec<u8> {
    let hash = blake3::Hasher::new()
        .update(&database.0)
        .update(body)
        .finalize();
    [SIGNATURE_DOMAIN, hash.as_bytes()].concat()
}
