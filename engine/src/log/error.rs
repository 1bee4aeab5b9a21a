//! What can go wrong with a log.

use std::path::PathBuf;

use thiserror::Error;

use super::heads::Position;
use crate::trust::{DatabaseId, EnvelopeError};

/// Why the log could not do what was asked. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file is a SQLite database of another kind, or none at all.
    #[error("`{}` is not a syncline log; name another file or move it away", path.display())]
    NotALog {
        /// The file.
        path: PathBuf,
    },
    /// A newer build wrote the file.
    #[error(
        "`{}` has version {found}, and this build reads up to {supported}; use a newer build",
        path.display()
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version this build reads.
        supported: i64,
    },
    /// The log belongs to another database.
    #[error("`{}` is the log of database {found}, not of {expected}", path.display())]
    OtherDatabase {
        /// The file.
        path: PathBuf,
        /// Whose log it is.
        found: DatabaseId,
        /// Whose log was expected.
        expected: DatabaseId,
    },
    /// SQLite finds the file damaged.
    #[error(
        "`{}` is damaged; move it away and sync again, peers hold what was sent",
        path.display()
    )]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// A stored envelope is not what it was when it was stored.
    #[error(
        "seq {} of {} is damaged in the log; move the log away and sync again",
        position.seq,
        position.stream
    )]
    Rotten {
        /// Where.
        position: Position,
    },
    /// A stored envelope no longer has the form of one.
    #[error("a stored envelope is damaged; move the log away and sync again")]
    Unreadable(#[from] EnvelopeError),
    /// The envelope was verified for another database.
    #[error("an envelope of database {found} does not belong into the log of {expected}")]
    ForeignEnvelope {
        /// For which it was verified.
        found: DatabaseId,
        /// Whose log this is.
        expected: DatabaseId,
    },
    /// An own envelope does not stand at the next position of this process's stream.
    #[error("seq {} of {} is not the author's next position", position.seq, position.stream)]
    NotNext {
        /// Where it stands.
        position: Position,
    },
    /// Only the first unsettled envelope of a stream can be marked.
    #[error("seq {} of {} is not the next to be settled", position.seq, position.stream)]
    NotUnsettled {
        /// What was to be marked.
        position: Position,
    },
    /// A cursor's value, a reason, or a peer's record is above its limit.
    #[error("{what} of {bytes} bytes; the most is {bytes_max}")]
    TooLarge {
        /// Which value.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// An address is not plain text within its limits.
    #[error("an address is empty, too long or has spaces or control characters")]
    Address,
    /// SQLite refused: the disk is full, the file is locked, or the like.
    #[error("cannot access log `{}`", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
}
