//! Why something of cr-sqlite's surface fails.

use rusqlite::ErrorCode;
use syncline_crdt::DecodeError;

/// The result of everything here.
pub(crate) type Result<T, E = CrsqlError> = std::result::Result<T, E>;

/// Why something of cr-sqlite's surface fails. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrsqlError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The database could not be made ready.
    #[error(transparent)]
    Open(#[from] crate::OpenError),
    /// A table's declaration could not be read.
    #[error(transparent)]
    Table(#[from] crate::TableError),
    /// The table cannot be a CRR.
    #[error("cannot make `{table}` a crr: {obstacle}")]
    Refused {
        /// The table.
        table: String,
        /// What stands against it.
        obstacle: String,
    },
    /// cr-sqlite's tables are there, and cannot become ours.
    #[error("cannot take this database over from cr-sqlite: {obstacle}")]
    TakeOver {
        /// What stands against it.
        obstacle: String,
    },
    /// The table is no CRR.
    #[error("could not find the schema information for table {table}: it is no crr here")]
    UnknownTable {
        /// The table.
        table: String,
    },
    /// The CRR has no such column.
    #[error("crr `{table}` has no column `{column}` that is replicated")]
    UnknownColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A change is not one that any replica could have made.
    #[error("the change is refused: {rule}")]
    Invalid {
        /// The rule it breaks.
        rule: &'static str,
    },
    /// The change's key cannot be read.
    #[error("the change is refused: its pk is malformed")]
    Key(#[source] DecodeError),
    /// Only what is listed can be set.
    #[error("Unknown setting name: there is merge-equal-values")]
    UnknownSetting,
}

impl CrsqlError {
    /// Returns the error as the SQL function or virtual table that met it reports it.
    pub(crate) fn into_sqlite(self) -> rusqlite::Error {
        match self {
            CrsqlError::Sqlite(error) => error,
            other => rusqlite::Error::ModuleError(other.to_string()),
        }
    }

    /// Returns SQLite's reason, if it is SQLite's.
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        match self {
            CrsqlError::Sqlite(error)
            | CrsqlError::Open(crate::OpenError::Sqlite(error))
            | CrsqlError::Table(crate::TableError::Sqlite(error)) => error.sqlite_error_code(),
            _ => None,
        }
    }

    /// Whether the file cannot be written for a while, or at all, and is as it was.
    pub(crate) fn is_not_writable(&self) -> bool {
        matches!(
            self.code(),
            Some(
                ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
            )
        )
    }
}
