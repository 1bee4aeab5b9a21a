//! Which write wins: values, clocks, merge rules, changesets and their codec.
//!
//! Everything here is a plain function of its inputs. The crate does not know SQLite, reads no
//! clock and does no I/O; time, sites and bytes are arguments.
//!
//! - [`Value`] is what a cell holds, with the order that settles ties.
//! - [`Hlc`] and [`Stamp`] say when and where a cell was written, [`CausalLength`] how often a row
//!   was created and deleted.
//! - [`merge_life`] and [`merge_cell`] are the merge: total, and the same on every replica.
//! - [`settle_claims`] decides which of the rows that a constraint admits once are shown.
//! - [`Policy`] says how cells join that do not replace each other: counters, sets, texts.
//! - [`rekeyed`] and [`OriginHasher`] tell rows apart that got the same id on two replicas.
//! - [`Changeset`] carries changes between replicas, [`VersionVector`] says what one has seen.
//! - [`Digest`] is equal on replicas that converged.

#![forbid(unsafe_code)]

mod changeset;
mod codec;
mod contest;
mod digest;
mod identity;
mod merge;
mod policy;
mod stamp;
mod value;
mod vector;

pub use changeset::{Changeset, Group, GroupKind, Rename, TableChanges, TableSchema};
pub use codec::{
    CHANGESET_BYTES_MAX, COLUMNS_COUNT_MAX, DecodeError, NAME_BYTES_MAX, OPTIONS_BYTES_MAX,
    ROW_BYTES_MAX, SITES_COUNT_MAX, pack_key, unpack_key,
};
pub use contest::{Arena, Claim, settle_claims};
pub use digest::{Digest, RowHasher};
pub use identity::{OriginHasher, REKEYED_MIN, rekeyed};
pub use merge::{CellOutcome, LifeOutcome, merge_cell, merge_life};
pub use policy::{Aside, DELTA_BYTES_MAX, DeltaError, GrantError, History, Policy, SiteEntries};
pub use stamp::{CAUSAL_LENGTH_MAX, CausalLength, DRIFT_MS_MAX, EPOCH_UNIX_MS, Hlc, SiteId, Stamp};
pub use value::{Real, Value};
pub use vector::{Part, Parts, Seen, VersionVector};
