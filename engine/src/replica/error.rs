//! Why a replica could not do what was asked.

use std::path::PathBuf;

use syncline_sqlite as sqlite;

use crate::log::LogError;
use crate::trust::{EnvelopeError, RandomError};

/// Why a replica could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// The user's database could not be read or written.
    #[error("cannot use `{}`", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The extension that was named could not be loaded, or is no cr-sqlite.
    #[error("`{}` cannot be used as a cr-sqlite extension", path.display())]
    Extension {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The database was served with the other layer before.
    #[error("it was served {} until now", if *with_extension { "with --crr-extension" } else { "without --crr-extension" })]
    OtherLayer {
        /// Whether that was a loaded cr-sqlite.
        with_extension: bool,
    },
    /// Something in it cannot be read as tracked.
    #[error(transparent)]
    Export(#[from] sqlite::ExportError),
    /// What was written could not be folded.
    #[error(transparent)]
    Fold(#[from] sqlite::FoldError),
    /// A table could not be tracked.
    #[error(transparent)]
    Track(#[from] sqlite::TrackError),
    /// The shadow tables could not be made.
    #[error(transparent)]
    Open(#[from] sqlite::OpenError),
    /// A changeset could not be read or merged.
    #[error(transparent)]
    Import(#[from] sqlite::ImportError),
    /// A snapshot's changes could not be merged.
    #[error("what the snapshot holds does not merge: {reason}")]
    Whole {
        /// Why.
        reason: String,
    },
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An own change could not be sealed.
    #[error("a transaction could not be sealed")]
    Seal(#[source] EnvelopeError),
    /// A peer sent something that is no envelope of this database.
    #[error("an envelope was refused")]
    Refused(#[source] EnvelopeError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A number in the log is not what was stored there.
    #[error("the log's cursor is damaged; move the log away and sync again")]
    Cursor,
}

impl From<rusqlite::Error> for ReplicaError {
    fn from(source: rusqlite::Error) -> Self {
        ReplicaError::Database {
            path: PathBuf::from("the database"),
            source,
        }
    }
}
