//! Snapshots as fountain-coded symbols on peers: encode, place, store, verify, decode.
//!
//! An *object* is any run of bytes; this crate does not know what is in it. It is cut into
//! blocks, every block into K source symbols, and [RaptorQ] makes further symbols of those.
//! The symbols lie in `n` *slots*, each slot's part of the object is a *slice*, and any `k`
//! slices give the object back. A [`Manifest`] holds a hash of every block and of every
//! *run* (a slot's symbols of one block), so a byte that a peer sent is checked before it
//! goes anywhere, and whoever sent a false one is known at once.
//!
//! ```
//! use syncline_parity::{CodeParameters, encode_object, restore_object};
//! use std::collections::BTreeMap;
//!
//! let object = vec![7; 100_000];
//! let code = CodeParameters::for_object(object.len() as u64, 2, 5)?;
//! let mut runs = BTreeMap::new();
//! let manifest = encode_object(code, object.as_slice(), |run| {
//!     runs.insert((run.slot(), run.block()), run.bytes().to_vec());
//!     Ok(())
//! })?;
//!
//! runs.retain(|(slot, _), _| slot.0 >= 3); // three of five peers are gone
//! let mut restored = Vec::new();
//! let source = |slot, block| runs.get(&(slot, block)).cloned();
//! let lies = restore_object(manifest, source, &mut restored)?;
//! assert!(restored == object && lies.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`CodeParameters`] says how an object is cut; [`encode_block`] and [`decode_block`] do
//!   it for one block, [`encode_object`] for a stream.
//! - [`Restore`] is the way back as a state machine without I/O; [`restore_object`] drives
//!   it from a closure.
//! - [`SymbolStore`] keeps manifests and slices on disk.
//! - [`place_slots`] says which peer holds which slot.
//!
//! Signing a manifest, sealing the object's bytes and talking to peers are the caller's.
//!
//! [RaptorQ]: https://www.rfc-editor.org/rfc/rfc6330

mod block;
mod code;
mod encoder;
mod manifest;
mod place;
mod restore;
mod store;

pub use block::{BlockDecodeError, BlockEncodeError, BlockEncoder, decode_block, encode_block};
pub use code::{
    BLOCK_BYTES_MAX, BLOCKS_COUNT_MAX, BlockIndex, CodeError, CodeParameters, OBJECT_BYTES_MAX,
    RUN_BYTES_MAX, SLICES_TOTAL_MAX, SOURCE_SYMBOLS_MAX, SURPLUS_SYMBOLS, SYMBOL_BYTES_MAX,
    SYMBOL_BYTES_MIN, SYMBOL_BYTES_STEP, SYMBOLS_PER_SLICE_MAX, Slot,
};
pub use encoder::{EncodeError, EncodedRun, encode_object};
pub use manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestError, SnapshotId};
pub use place::{Candidate, PeerKey, PlaceError, place_slots, place_vacant_slots};
pub use restore::{Lies, Offer, PullError, Restore, RestoreError, restore_object};
pub use store::{
    ATTACHMENT_BYTES_MAX, DraftError, FileError, Finding, HeldSlice, ManifestReadError, OpenError,
    PutError, ReadError, SliceCondition, SliceWriter, SnapshotDraft, SymbolStore, WriteError,
};

#[cfg(test)]
mod harness;
