//! What a replica says of itself: its name, its tables with their options, and what waits.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::Serialize;

use crate::shadow::in_snapshot;
use crate::table::Table;
use crate::untracked::UNTRACKED;
use crate::{TableOptions, TrackError, is_prepared, site_id, watermark};

/// How a database stands. As JSON it is what `syncline_status()` returns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// This library's version.
    pub version: &'static str,
    /// This replica's name in hexadecimal digits; `None` if no table was ever tracked here.
    pub site_id: Option<String>,
    /// The tracked tables, by name.
    pub tables: BTreeMap<String, TableStatus>,
    /// For each table or column that is not here: how many changesets wait for it.
    pub waiting: BTreeMap<String, u64>,
}

/// How a tracked table stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TableStatus {
    /// What it is tracked by, the same on every replica.
    pub options: TableOptions,
    /// How many writes wait for the next fold; none if the table stands aside.
    pub unfolded: u64,
    /// How many entries it has in `syncline_conflicts`.
    pub conflicts: u64,
    /// Why its changes neither go nor come; `None` if they do.
    pub aside: Option<String>,
}

/// Returns how a database stands. Nothing is folded and nothing is written.
///
/// # Errors
///
/// If SQLite fails or a later program wrote the shadow tables.
pub fn status(conn: &Connection) -> Result<Status, TrackError> {
    in_snapshot(conn, || {
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION"),
            ..Status::default()
        };
        if !is_prepared(conn)? {
            return Ok(status);
        }
        status.site_id = Some(site_id(conn)?.to_string());
        let all = "SELECT name, options, aside,
                (SELECT count(*) FROM syncline_conflicts AS c WHERE c.table_name = t.name)
            FROM syncline_tables AS t WHERE aside IS NOT ?1";
        let mut statement = conn.prepare_cached(all)?;
        let mut rows = statement.query([UNTRACKED])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let options: String = row.get(1)?;
            let table = TableStatus {
                options: TableOptions::parse(&options)?,
                unfolded: Table::named(conn, &name)?
                    .map_or(Ok(0), |table| unfolded_count(conn, &table))?,
                conflicts: row.get::<_, i64>(3)?.cast_unsigned(),
                aside: row.get(2)?,
            };
            status.tables.insert(name, table);
        }
        let waiting = "SELECT name, count(*) FROM syncline_parked GROUP BY name";
        let mut statement = conn.prepare_cached(waiting)?;
        let waiting = statement.query_map([], |row| {
            Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
        })?;
        status.waiting = waiting.collect::<Result<_, _>>()?;
        Ok(status)
    })
}

/// Returns how many captured writes wait to be folded.
///
/// # Errors
///
/// If SQLite fails or a later program wrote the shadow tables.
pub fn pending_count(conn: &Connection) -> Result<u64, TrackError> {
    if !is_prepared(conn)? {
        return Ok(0);
    }
    let mut count = 0;
    for table in Table::all(conn)? {
        count += unfolded_count(conn, &table)?;
    }
    Ok(count)
}

/// Returns how many notes of a table's triggers, and new rows that need none, wait to be folded.
fn unfolded_count(conn: &Connection, table: &Table) -> rusqlite::Result<u64> {
    let noted = format!("SELECT count(*) FROM {}", table.pending());
    let noted: i64 = conn.query_row(&noted, [], |row| row.get(0))?;
    Ok((noted + watermark::passed_count(conn, table)?).cast_unsigned())
}
