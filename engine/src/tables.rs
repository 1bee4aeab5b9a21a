//! What becomes of a file's tables when it begins or ends to take part.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use syncline_sqlite as sqlite;
pub use syncline_sqlite::{Candidate, Limit, Obstacle, OptionsError, TableOptions, Tracked};

use crate::clock::now_unix_ms;
use crate::home::{Home, HomeError};
use crate::layer::{self, Layer};
use crate::replica::ReplicaError;

/// A table that is to take part, and how it is tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The table's name.
    pub name: String,
    /// What its columns are, and how its ids are meant.
    pub options: TableOptions,
}

impl Chosen {
    /// Reads a name, or a name, `=` and the options as a JSON object.
    ///
    /// # Errors
    ///
    /// If what stands behind the `=` is an object and no options.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        // A name may have the sign in it.
        let (name, options) = match text.split_once("={") {
            Some((name, options)) => (name, TableOptions::parse(&format!("{{{options}"))?),
            None => (text, TableOptions::default()),
        };
        Ok(Chosen {
            name: name.to_owned(),
            options,
        })
    }
}

/// One table, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableReport {
    /// The table, with what it promises on one device but not across devices.
    pub candidate: Candidate,
    /// What was done; `None` if something stands against it.
    pub tracked: Option<Tracked>,
    /// Why a loaded cr-sqlite does not take the table.
    pub refused: Option<String>,
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
    /// A table that was asked for is not taken by the cr-sqlite that is loaded.
    #[error("cannot track `{table}`: {reason}")]
    Refused {
        /// The table.
        table: String,
        /// Why.
        reason: String,
    },
    /// The database failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The folder failed.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// Tracks the chosen tables, or, if none is, every table that can be tracked: with Syncline's own
/// layer, or with a cr-sqlite whose file is given.
///
/// # Errors
///
/// If a chosen table is missing or cannot be tracked; nothing is changed then.
pub fn track_tables(
    database: &Path,
    chosen: &[Chosen],
    crr_extension: Option<&Path>,
) -> Result<Vec<TableReport>, TablesError> {
    let conn = open(database)?;
    let layer = crr_extension.map(|file| Layer::begin(&conn, Some(file)));
    let layer = layer.transpose()?.unwrap_or(Layer::Syncline);
    let reports = match layer {
        Layer::Syncline => {
            let begun = Transaction::new_unchecked(&conn, TransactionBehavior::Immediate);
            let tx = begun.map_err(at(database))?;
            let reports = track(&conn, database, chosen, layer)?;
            tx.commit().map_err(at(database))?;
            Ok(reports)
        }
        Layer::CrSqlite => track(&conn, database, chosen, layer),
    };
    layer.end(&conn);
    reports
}

fn track(
    conn: &Connection,
    database: &Path,
    chosen: &[Chosen],
    layer: Layer,
) -> Result<Vec<TableReport>, TablesError> {
    let candidates = candidates(conn, layer).map_err(at(database))?;
    for Chosen { name, options } in chosen {
        if layer == Layer::CrSqlite && *options != TableOptions::default() {
            let (table, reason) = (name.clone(), "a cr-sqlite takes no options".to_owned());
            return Err(TablesError::Refused { table, reason });
        }
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
    let mut reports = BTreeMap::new();
    for place in sqlite::parents_first(conn, &candidates).map_err(at(database))? {
        let candidate = candidates[place].clone();
        let is_it = |chosen: &&Chosen| chosen.name.eq_ignore_ascii_case(&candidate.name);
        let options = match chosen.iter().find(is_it) {
            Some(chosen) => chosen.options.clone(),
            None if chosen.is_empty() => TableOptions::default(),
            None => continue,
        };
        let report = match (layer, &candidate.obstacle) {
            (_, Some(_)) => not_tracked(candidate),
            (Layer::Syncline, None) => {
                let tracked = sqlite::track(conn, &candidate.name, &options, now_unix_ms());
                TableReport {
                    tracked: Some(tracked.map_err(ReplicaError::from)?),
                    ..not_tracked(candidate)
                }
            }
            (Layer::CrSqlite, None) => track_with_cr_sqlite(conn, candidate)?,
        };
        if let Some(reason) = &report.refused
            && !chosen.is_empty()
        {
            let (table, reason) = (report.candidate.name, reason.clone());
            return Err(TablesError::Refused { table, reason });
        }
        reports.insert(place, report);
    }
    Ok(reports.into_values().collect())
}

fn not_tracked(candidate: Candidate) -> TableReport {
    TableReport {
        candidate,
        tracked: None,
        refused: None,
    }
}

/// Returns the tables there are. What stands against one, a cr-sqlite knows itself.
fn candidates(conn: &Connection, layer: Layer) -> rusqlite::Result<Vec<Candidate>> {
    let candidates = sqlite::candidates(conn)?;
    if layer == Layer::Syncline {
        return Ok(candidates);
    }
    let is_users = |candidate: &Candidate| !candidate.name.to_ascii_lowercase().contains("crsql_");
    let open = |candidate| Candidate {
        obstacle: None,
        limits: vec![],
        ..candidate
    };
    Ok(candidates.into_iter().filter(is_users).map(open).collect())
}

fn track_with_cr_sqlite(
    conn: &Connection,
    candidate: Candidate,
) -> Result<TableReport, TablesError> {
    let name = &candidate.name;
    let known = Layer::CrSqlite.tables(conn)?;
    if known.iter().any(|table| table.eq_ignore_ascii_case(name)) {
        return Ok(TableReport {
            tracked: Some(Tracked::Already),
            ..not_tracked(candidate)
        });
    }
    if let Err(error) = layer::track_with_cr_sqlite(conn, name) {
        return Ok(TableReport {
            refused: Some(error.to_string()),
            ..not_tracked(candidate)
        });
    }
    let count = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
    let rows_count: i64 = conn
        .query_row(&count, [], |row| row.get(0))
        .map_err(ReplicaError::from)?;
    Ok(TableReport {
        tracked: Some(Tracked::Begun {
            rows_count: usize::try_from(rows_count).unwrap_or(0),
        }),
        ..not_tracked(candidate)
    })
}

/// Ends a file's part: every table keeps its rows, and neither in the file nor beside it is anything
/// of Syncline left.
///
/// # Errors
///
/// [`HomeError::InUse`] while a process serves it; nothing is changed then.
pub fn leave(home: &Home, crr_extension: Option<&Path>) -> Result<(), TablesError> {
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
    if crr_extension.is_some() {
        let layer = Layer::begin(&conn, crr_extension)?;
        layer::leave_cr_sqlite(&conn).map_err(ReplicaError::from)?;
        layer.end(&conn);
    }
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
