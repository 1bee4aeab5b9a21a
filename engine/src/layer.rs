//! The CRR layer inside the database: Syncline's own, or a cr-sqlite that a person named.
//!
//! Both give and take changesets, which is all that the replica asks of them.

mod cr_sqlite;

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use syncline_crdt::{Changeset, Digest, Hlc, SiteId, VersionVector};
use syncline_sqlite as sqlite;

use crate::replica::ReplicaError;

/// Which layer a connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// `sqlite-ext`, linked in.
    Syncline,
    /// A cr-sqlite, loaded into the connection. It checks and merges what it can, by its own rules.
    CrSqlite,
}

/// Why a changeset is not merged.
pub(crate) enum Unmerged {
    /// Its bytes show that no replica can.
    Never(String),
    /// It waits for something.
    NotYet(String),
    /// This device failed; nothing is decided.
    Failed(ReplicaError),
}

impl Layer {
    /// Makes the layer ready in a connection: a cr-sqlite is loaded from its file.
    pub(crate) fn begin(conn: &Connection, file: Option<&Path>) -> Result<Self, ReplicaError> {
        match file {
            None => {
                sqlite::prepare(conn)?;
                Ok(Layer::Syncline)
            }
            Some(file) => {
                cr_sqlite::load(conn, file)?;
                Ok(Layer::CrSqlite)
            }
        }
    }

    /// The layer's name in the log, so that a database is never served with another one.
    pub(crate) fn name(self) -> &'static [u8] {
        match self {
            Layer::Syncline => b"syncline",
            Layer::CrSqlite => b"cr-sqlite",
        }
    }

    pub(crate) fn site_id(self, conn: &Connection) -> rusqlite::Result<SiteId> {
        match self {
            Layer::Syncline => sqlite::site_id(conn),
            Layer::CrSqlite => cr_sqlite::site_id(conn),
        }
    }

    pub(crate) fn version_vector(self, conn: &Connection) -> rusqlite::Result<VersionVector> {
        match self {
            Layer::Syncline => sqlite::version_vector(conn),
            Layer::CrSqlite => cr_sqlite::version_vector(conn),
        }
    }

    /// Turns what was written since into versions, where the layer does that later than the write.
    pub(crate) fn fold(self, conn: &Connection, now_unix_ms: u64) -> Result<(), ReplicaError> {
        if self == Layer::Syncline {
            sqlite::fold(conn, now_unix_ms)?;
        }
        Ok(())
    }

    /// Whether nothing here came from another site.
    pub(crate) fn is_all_own(self, conn: &Connection) -> rusqlite::Result<bool> {
        match self {
            Layer::Syncline => {
                let own = sqlite::site_id(conn)?;
                Ok(sqlite::version_vector(conn)?
                    .iter()
                    .all(|(site, _)| site == own))
            }
            Layer::CrSqlite => cr_sqlite::is_all_own(conn),
        }
    }

    /// Returns own changes after a version, about `rows_max` rows of them; `None` if there are none.
    pub(crate) fn export_own(
        self,
        conn: &Connection,
        after: Hlc,
        rows_max: u64,
    ) -> Result<Option<Changeset>, ReplicaError> {
        match self {
            Layer::Syncline => Ok(sqlite::export_own(conn, after, rows_max)?),
            Layer::CrSqlite => Ok(cr_sqlite::export_own(conn, after, rows_max)?),
        }
    }

    /// Returns everything, whoever wrote it.
    pub(crate) fn export_all(
        self,
        conn: &Connection,
        now_unix_ms: u64,
    ) -> Result<Changeset, ReplicaError> {
        match self {
            Layer::Syncline => Ok(sqlite::export(conn, &VersionVector::new(), now_unix_ms)?),
            Layer::CrSqlite => Ok(cr_sqlite::export_all(conn)?),
        }
    }

    /// Merges a changeset, whole or not at all.
    pub(crate) fn import(
        self,
        conn: &Connection,
        changes: &Changeset,
        now_unix_ms: u64,
    ) -> Result<(), Unmerged> {
        let failed = match self {
            Layer::CrSqlite => return cr_sqlite::import(conn, changes),
            Layer::Syncline => sqlite::import_changeset(conn, changes, now_unix_ms),
        };
        match failed {
            Ok(_) => Ok(()),
            // The bytes alone show it, so every replica refuses it.
            Err(error @ sqlite::ImportError::Beyond { .. }) => {
                Err(Unmerged::Never(error.to_string()))
            }
            Err(error) if is_busy(&error) => Err(Unmerged::Failed(error.into())),
            // A clock, a table or an earlier change may still come.
            Err(error) => Err(Unmerged::NotYet(error.to_string())),
        }
    }

    /// Returns the hash of the replicated state.
    pub(crate) fn digest(
        self,
        conn: &Connection,
        now_unix_ms: u64,
    ) -> Result<Digest, ReplicaError> {
        match self {
            Layer::Syncline => Ok(sqlite::digest(conn, now_unix_ms)?),
            Layer::CrSqlite => Ok(cr_sqlite::digest(conn)?),
        }
    }

    /// Returns the names of the tables that take part.
    pub(crate) fn tables(self, conn: &Connection) -> Result<Vec<String>, ReplicaError> {
        match self {
            Layer::Syncline => Ok(sqlite::tracked_tables(conn)?),
            Layer::CrSqlite => Ok(cr_sqlite::tables(conn)?),
        }
    }

    /// Returns how many writes wait to be folded.
    pub(crate) fn pending_count(self, conn: &Connection) -> Result<u64, ReplicaError> {
        match self {
            Layer::Syncline => Ok(sqlite::pending_count(conn)?),
            Layer::CrSqlite => Ok(0),
        }
    }

    /// Returns what does not take part although it is of a tracked table.
    pub(crate) fn kept_back(self, conn: &Connection) -> Result<KeptBack, ReplicaError> {
        let mut kept_back = KeptBack::default();
        if self == Layer::CrSqlite {
            return Ok(kept_back);
        }
        let status = sqlite::status(conn)?;
        for (name, table) in status.tables {
            kept_back.conflicts_count += table.conflicts;
            let aside = table.aside.map(|reason| format!("{name}: {reason}"));
            kept_back.aside.extend(aside);
        }
        kept_back.parked = status.waiting;
        Ok(kept_back)
    }

    /// Lets go of a connection that is about to be closed.
    pub(crate) fn end(self, conn: &Connection) {
        if self == Layer::CrSqlite {
            cr_sqlite::finalize(conn);
        }
    }
}

/// What does not take part although it is of a tracked table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptBack {
    /// The entries of `syncline_conflicts`.
    pub conflicts_count: u64,
    /// The tables that stand aside, each with the reason.
    pub aside: Vec<String>,
    /// How many changesets wait for a table, or for what other devices have of it.
    pub parked: BTreeMap<String, u64>,
}

/// Makes a table a CRR of the cr-sqlite that is loaded.
pub(crate) fn track_with_cr_sqlite(conn: &Connection, table: &str) -> rusqlite::Result<()> {
    cr_sqlite::track(conn, table)
}

/// Makes every CRR of the cr-sqlite that is loaded an ordinary table again.
pub(crate) fn leave_cr_sqlite(conn: &Connection) -> rusqlite::Result<()> {
    cr_sqlite::leave(conn)
}

/// Whether another program held the database, however deep in the error that is.
fn is_busy(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_busy = |error: &rusqlite::Error| {
        matches!(
            error.sqlite_error_code(),
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
        )
    };
    // Transparent variants have no source of their own, so each is asked for what it wraps.
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<rusqlite::Error>().is_some_and(is_busy) {
            return true;
        }
        next = match error.downcast_ref::<sqlite::ImportError>() {
            Some(sqlite::ImportError::Sqlite(inner)) => Some(inner),
            Some(sqlite::ImportError::Open(sqlite::OpenError::Sqlite(inner))) => Some(inner),
            Some(sqlite::ImportError::Fold(sqlite::FoldError::Sqlite(inner))) => Some(inner),
            Some(sqlite::ImportError::Track(sqlite::TrackError::Sqlite(inner))) => Some(inner),
            Some(sqlite::ImportError::Table(sqlite::TableError::Sqlite(inner))) => Some(inner),
            _ => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn a_busy_database_is_seen_through_every_wrapping() {
        let busy = || {
            let code = ffi::Error::new(ffi::SQLITE_BUSY);
            rusqlite::Error::SqliteFailure(code, None)
        };
        assert!(is_busy(&sqlite::ImportError::Sqlite(busy())));
        assert!(is_busy(&sqlite::ImportError::Fold(
            sqlite::FoldError::Sqlite(busy())
        )));
        assert!(is_busy(&sqlite::ImportError::Open(
            sqlite::OpenError::Sqlite(busy())
        )));
        let missing = rusqlite::Error::QueryReturnedNoRows;
        assert!(!is_busy(&sqlite::ImportError::Sqlite(missing)));
    }
}
