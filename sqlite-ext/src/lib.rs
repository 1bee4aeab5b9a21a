//! Everything Syncline does inside SQLite: capture, fold, merge, SQL functions.
//!
//! A tracked table keeps its shape and stays writable by every program. Triggers in plain SQL
//! append what was touched to a pending table, in the writer's own transaction; [`fold`] turns
//! that into clocks; [`export`] reads what is new to another replica; [`import`] merges what
//! another replica sent, whole or not at all. None of it needs a network or a key.
//!
//! Every function takes an open connection and a clock value, and works on its `main` database. It
//! runs in a savepoint of its own, so it may stand inside the caller's transaction. Built with the
//! feature `loadable` the same functions are SQL functions of a loadable extension; see
//! [`register`].
//!
//! The clocks lie in lanes: one for the row as a whole, one for each column that was written after
//! the row, one for its causal length. In each lane, neighbouring rows with the same stamp share
//! one entry, so a bulk insert costs one.

mod adoption;
mod alter;
mod apply;
mod births;
mod candidate;
mod capture;
mod clocks;
mod collect;
mod columns;
mod constraints;
mod crsql;
mod digest;
mod export;
mod fold;
mod functions;
mod gaps;
mod grant;
mod heal;
mod joined;
mod key_references;
mod lacking;
#[cfg(feature = "loadable")]
mod loadable;
mod mask;
mod moved_keys;
mod options;
mod origin;
#[cfg(feature = "linked")]
mod other;
mod other_names;
mod parked;
mod placing;
mod policies;
mod quiet;
mod references;
mod rekey;
mod rekeyed;
mod renames;
mod rights;
mod rows;
mod schema;
mod shadow;
mod shape;
mod status;
mod table;
mod track;
mod untracked;
mod unwritten;
mod value;
mod watermark;
mod whose;

pub use apply::{ImportError, ImportReport, import, import_changeset};
pub use candidate::{Candidate, Limit, Obstacle, candidates, parents_first};
pub use collect::{CollectError, collect};
pub use digest::digest;
pub use export::{ExportError, export, export_own, export_to};
pub use fold::{FoldError, fold};
pub use functions::register;
pub use gaps::seen;
pub use options::{ColumnPolicy, ForeignKeyPolicy, Ids, OptionsError, TableOptions};
#[cfg(feature = "linked")]
pub use other::load_extension;
pub use schema::{SchemaError, create as create_table, statements as table_statements};
pub use shadow::{OpenError, is_prepared, prepare, site_id, version_vector};
pub use status::{Status, TableStatus, pending_count, status};
pub use table::TableError;
pub use track::{TrackError, Tracked, leave, track, tracked_tables, untrack};

#[cfg(test)]
mod tests;
