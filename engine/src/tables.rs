//! What becomes of a file's tables when it begins or ends to take part.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use syncline_sqlite as sqlite;
pub use syncline_sqlite::{Candidate, Limit, Obstacle, Tracked};

use crate::clock::now_unix_ms;
use crate::home::{Home, HomeError};
use crate::replica::ReplicaError;

/// One table, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableReport {
    /// The table, with what it promises on one device but not across devices.
    pub candidate: Candidate,
    /// What was done; `None` if something stands against it.
    pub tracked: Option<Tracked>,
}

/// Why a file does not begin or end to take part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TablesError {
    /// There is no such file.
    #[error("there is no file `{0}`")]
    Missing(String),
    /// A table that was asked for is not there.
    #[error("`{database}` has no table `{table}`")]
    NoTable {
        /// The file.
        database: String,
        /// The table.
        table: String,
    },
    /// A table that was asked for cannot be tracked.
    #[error("cannot track `{table}`: {obstacle}")]
    Obstacle {
        /// The table.
        table: String,
        /// Why.
        obstacle: Obstacle,
    },
    /// The database failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The folder failed.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// Tracks the tables with these names, or, without names, every table that can be tracked.
///
/// # Errors
///
/// If a named table is missing or cannot be tracked; nothing is changed then.
pub fn track_tables(database: &Path, names: &[String]) -> Result<Vec<TableReport>, TablesError> {
    let conn = open(database)?;
    let candidates = sqlite::candidates(&conn).map_err(at(database))?;
    for name in names {
        let found = candidates
            .iter()
            .find(|candidate| candidate.name.eq_ignore_ascii_case(name));
        match found {
            None => {
                let (database, table) = (database.display().to_string(), name.clone());
                return Err(TablesError::NoTable { database, table });
            }
            Some(Candidate {
                obstacle: Some(obstacle),
                ..
            }) => {
                let (table, obstacle) = (name.clone(), obstacle.clone());
                return Err(TablesError::Obstacle { table, obstacle });
            }
            Some(_) => {}
        }
    }
    let is_chosen = |candidate: &Candidate| {
        names.is_empty()
            || names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(&candidate.name))
    };
    let mut reports = Vec::new();
    for candidate in candidates.into_iter().filter(is_chosen) {
        let tracked = match candidate.obstacle {
            Some(_) => None,
            None => Some(
                sqlite::track(
                    &conn,
                    &candidate.name,
                    &sqlite::TableOptions::default(),
                    now_unix_ms(),
                )
                .map_err(ReplicaError::from)?,
            ),
        };
        reports.push(TableReport { candidate, tracked });
    }
    Ok(reports)
}

/// Ends a file's part: every table keeps its rows, and neither in the file nor beside it is anything
/// of Syncline left.
///
/// # Errors
///
/// [`HomeError::InUse`] while a process serves it; nothing is changed then.
pub fn leave(home: &Home) -> Result<(), TablesError> {
    let database = home.database();
    let conn = open(database)?;
    let is_prepared = sqlite::is_prepared(&conn).map_err(ReplicaError::from)?;
    if !is_prepared && !home.folder().exists() {
        return Err(HomeError::Absent {
            database: database.to_owned(),
        }
        .into());
    }
    // The lock first: a running node must not find its tables gone.
    let held = if home.exists() {
        Some(home.open()?)
    } else {
        None
    };
    sqlite::leave(&conn).map_err(ReplicaError::from)?;
    // Rows of ours may still lie in free pages.
    conn.execute_batch("VACUUM").map_err(at(database))?;
    drop(conn);
    drop(held);
    Ok(home.remove()?)
}

fn open(database: &Path) -> Result<Connection, TablesError> {
    if !database.exists() {
        return Err(TablesError::Missing(database.display().to_string()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(database, flags).map_err(at(database))?;
    conn.busy_timeout(crate::replica::BUSY_TIMEOUT)
        .map_err(at(database))?;
    Ok(conn)
}

fn at(database: &Path) -> impl FnOnce(rusqlite::Error) -> TablesError + use<> {
    let path = database.to_owned();
    move |source| ReplicaError::Database { path, source }.into()
}
