//! Who may read and write: device keys, the database's secret, sealed envelopes and tickets.
//!
//! An envelope is encrypted with the epoch key and then signed with the author's device key, so
//! whoever lacks the epoch key can still check, store and forward it.
//! There is one epoch so far, carried by the ticket; every envelope names its epoch, so further
//! epochs change where a key comes from and no format.

mod compression;
mod envelope;
mod header;
mod identity;
mod key_file;
mod padding;
mod random;
mod secret;
mod ticket;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod envelope_tests;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod identity_tests;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod ticket_tests;

pub use compression::{CompressionError, DECOMPRESSED_BYTES_MAX};
pub use envelope::{
    EnvelopeError, PAYLOAD_BYTES_MAX, Sealing, VerifiedEnvelope, envelope_id, seal, verify,
};
pub use header::{
    ENVELOPE_BYTES_MAX, ENVELOPE_BYTES_MIN, EnvelopeId, HEADER_BYTES, Header, Kind, NONCE_BYTES,
    NextPosition, SEQ_MAX, Seq, StreamId,
};
pub use identity::{Identity, PublicKey, SignatureError};
pub use key_file::KeyFileError;
pub use random::{RandomError, random_bytes};
pub use secret::{DatabaseId, DatabaseSecret, EpochKey, Genesis, KeyId};
pub use ticket::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, DATABASE_NAME_BYTES_MAX, TICKET_CHARS_MAX, Ticket,
    TicketError, address_is_plain,
};
