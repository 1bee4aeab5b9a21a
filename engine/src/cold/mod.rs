//! Cold snapshots: a database's content, sealed, coded and spread over the peers.
//!
//! ```text
//!  Content ── zstd ── STREAM ──▶ sealed object ── RaptorQ ──▶ n slices, one for each peer
//!     ▲                                                            │ any k of them
//!     └────────────── checked, decrypted, decompressed ◀───────────┘
//! ```
//!
//! A holder needs no key to store and serve a slice: the manifest is signed, every run is checked
//! against it on the way in and on the way out, and what the runs hold is sealed.
//! While a snapshot is made or opened, its content lies in memory, about three times: plain,
//! compressed and sealed. Everything else takes a few MiB, whatever the snapshot's size.
//!
//! - [`Cold`] is the handle: [`Cold::spread`], [`Cold::restore`], [`Cold::serve`].
//! - [`Content`] is what goes in and comes out.

mod content;
mod header;
mod link;
mod manifest;
mod plan;
mod progress;
mod remote;
mod restore;
mod retire;
mod sealed;
mod serve;
mod shelf;
mod spread;
mod survey;
mod wire;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests;

pub use content::{CONTENT_BYTES_MAX, Content, ContentError, STREAMS_MAX};
pub use header::{COMPRESSED_BYTES_MAX, HEADER_BYTES, Header, HeaderError};
pub use link::LinkError;
pub use manifest::{
    ManifestError, SIGNED_HEADER_BYTES, SIGNED_MANIFEST_BYTES_MAX, SignedHeader, SignedManifest,
};
pub use progress::Progress;
pub use remote::PeerError;
pub use restore::{RestoreError, Restored};
pub use retire::{RETIRED_MAX, RetireError};
pub use sealed::{SealError, SealedObject, UnsealError};
pub use serve::{ServeError, ServeFailure};
pub use shelf::{Cold, HeldSnapshot, IDLE_LIMIT, OpenError, QUOTA_BYTES_DEFAULT};
pub use spread::{Spread, SpreadError};
pub use wire::{MessageError, Refusal, SNAPSHOTS_LISTED_MAX};

/// The name of the protocol by which peers hand slices to each other.
pub const PROTOCOL: &str = "/syncline/cold/1";
