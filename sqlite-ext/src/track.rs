//! Which tables take part: what can be tracked, beginning and ending it.

use rusqlite::{Connection, OptionalExtension, params};
use syncline_crdt::{Hlc, Stamp, pack_key};

use crate::candidate::{Obstacle, obstacle};
use crate::capture::{self, LANES_MAX};
use crate::clocks::{self, Clock, Lane, ROW};
use crate::collect::Past;
use crate::constraints;
use crate::fold::{FoldError, fold};
use crate::options::{OptionsError, TableOptions};
use crate::parked;
use crate::rows::key_from;
use crate::shadow::{
    OWN, OpenError, Sites, in_savepoint, is_prepared, prepare, tick, tick_oldest, version_from,
    version_to,
};
use crate::table::{KeyKind, RowKey, Table, TableError, TableInfo, list};
use crate::value::quoted;
use crate::watermark;

/// How many rows of a table that is tracked get one version: an envelope ends between versions, so
/// this bounds what the first one carries.
const BACKFILL_ROWS: usize = 20_000;
/// How many bytes, about, if the rows are long.
const BACKFILL_BYTES: usize = 4 << 20;

/// What [`track`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// The table takes part from now on, with this many rows.
    Begun {
        /// Rows that were in it.
        rows_count: usize,
    },
    /// It took part already.
    Already,
}

/// Why a table was not tracked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The database could not be made ready.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The table's declaration could not be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The options are not understood, or do not fit the table.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// What was written before could not be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// Changes that waited for the table or a column of it could not be merged.
    #[error("changes that waited for this table do not merge: {0}")]
    Parked(Box<crate::ImportError>),
    /// Something in the table stands against it.
    #[error("cannot track `{table}`: {obstacle}")]
    Refused {
        /// The table.
        table: String,
        /// What.
        obstacle: Obstacle,
    },
    /// Only a tracked table can be untracked.
    #[error("`{table}` is not tracked")]
    NotTracked {
        /// The table.
        table: String,
    },
}

/// Returns the names of the tables that take part.
///
/// # Errors
///
/// If SQLite fails or a later program wrote the shadow tables.
pub fn tracked_tables(conn: &Connection) -> Result<Vec<String>, TrackError> {
    if !is_prepared(conn)? {
        return Ok(Vec::new());
    }
    Ok(Table::all(conn)?
        .into_iter()
        .map(|table| table.name)
        .collect())
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
        let pending = format!("SELECT count(*) FROM {}", table.pending());
        count += conn
            .query_row(&pending, [], |row| row.get::<_, i64>(0))?
            .cast_unsigned();
        count += watermark::passed_count(conn, &table)?.cast_unsigned();
    }
    Ok(count)
}

/// Makes a table conflict-free, with the rows it has. It keeps its shape and its other triggers,
/// and any program may go on writing to it.
///
/// # Errors
///
/// [`TrackError::Refused`] names what stands against it; nothing is changed then.
pub fn track(
    conn: &Connection,
    name: &str,
    options: &TableOptions,
    now_unix_ms: u64,
) -> Result<Tracked, TrackError> {
    begin(conn, name, options, &|conn| {
        Ok(tick(conn, now_unix_ms)?.version)
    })
}

/// Tracks a table that is here when others' changes to it arrive. Nobody knows how old its rows are,
/// so they count as older than anything that was shared: what others wrote wins, and rows that only
/// this replica has are added.
pub(crate) fn adopt(
    conn: &Connection,
    name: &str,
    options: &TableOptions,
) -> Result<Tracked, TrackError> {
    begin(conn, name, options, &tick_oldest)
}

/// Gives the next version to what is written by tracking.
type NextVersion<'a> = dyn Fn(&Connection) -> rusqlite::Result<Hlc> + 'a;

fn begin(
    conn: &Connection,
    name: &str,
    options: &TableOptions,
    next: &NextVersion<'_>,
) -> Result<Tracked, TrackError> {
    prepare(conn)?;
    in_savepoint(conn, || {
        let refused = |obstacle| TrackError::Refused {
            table: name.to_owned(),
            obstacle,
        };
        let info = TableInfo::read(conn, name)?.ok_or_else(|| refused(Obstacle::Missing))?;
        options.check(&info)?;
        if let Some(id) = id_of(conn, &info.name)? {
            if *options != TableOptions::default() && *options != TableOptions::of(conn, id)? {
                return Err(refused(Obstacle::OtherOptions));
            }
            return Ok(Tracked::Already);
        }
        if let Some(obstacle) = obstacle(conn, &info)? {
            return Err(refused(obstacle));
        }
        let version = next(conn)?;
        let table = register(
            conn,
            &info,
            options,
            Clock {
                site: OWN,
                version,
                causal_length: 0,
            },
        )?;
        let rows_count = backfill(conn, &table, next)?;
        parked::replay(conn, &table.name, Past::default())?;
        constraints::note_schema(conn)?;
        Ok(Tracked::Begun { rows_count })
    })
}

/// Notes a table that was tracked at `tracked` and begins to capture its writes.
pub(crate) fn register(
    conn: &Connection,
    info: &TableInfo,
    options: &TableOptions,
    tracked: Clock,
) -> Result<Table, TrackError> {
    // A table that was dropped and made anew leaves its old shadow behind.
    let add = "INSERT INTO syncline_tables(name, site, version, watermark, ceiling, options)
        VALUES(?1, ?2, ?3, ?4, ?4, ?5) RETURNING id";
    let (site, version) = (tracked.site, version_to(tracked.version));
    let values = params![
        info.name,
        site,
        version,
        watermark::LEAST,
        options.to_json()
    ];
    let id: i64 = conn
        .prepare_cached(add)?
        .query_one(values, |row| row.get(0))?;
    let stored = info
        .columns
        .iter()
        .filter(|c| c.key_position == 0 && !c.is_generated);
    let column = "INSERT INTO syncline_columns(table_id, lane, name) VALUES(?1, ?2, ?3)";
    for (lane, info) in stored.enumerate() {
        conn.prepare_cached(column)?
            .execute(params![id, lane as i64, info.name])?;
    }
    let missing = || TrackError::NotTracked {
        table: info.name.clone(),
    };
    let table = Table::read(conn, id, &info.name)?.ok_or_else(missing)?;
    conn.execute_batch(&capture::begin(&table))?;
    constraints::capture(conn, &table)?;
    constraints::note_definition(conn, &table)?;
    Ok(table)
}

/// Returns the id of a tracked table.
pub(crate) fn id_of(conn: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    let id = "SELECT id FROM syncline_tables WHERE name = ?1";
    conn.prepare_cached(id)?
        .query_one([name], |row| row.get(0))
        .optional()
}

/// Returns when and where a table was first tracked.
pub(crate) fn tracked_at(conn: &Connection, sites: &Sites, id: i64) -> rusqlite::Result<Stamp> {
    let stamp = "SELECT site, version FROM syncline_tables WHERE id = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, version_from(row.get(1)?)?));
    let (site, version) = conn.prepare_cached(stamp)?.query_one([id], read)?;
    Ok(sites.stamp(site, version))
}

/// Gives the rows that are there a clock, as writes of this replica.
fn backfill(conn: &Connection, table: &Table, next: &NextVersion<'_>) -> rusqlite::Result<usize> {
    let mut version = Hlc::ZERO;
    let (mut rows_left, mut bytes_left) = (0, 0);
    let mut rows_count = 0;
    for run in runs(conn, table)? {
        if rows_left < run.rows || bytes_left < run.bytes {
            version = next(conn)?;
            (rows_left, bytes_left) = (BACKFILL_ROWS, BACKFILL_BYTES);
        }
        rows_left -= run.rows;
        bytes_left = bytes_left.saturating_sub(run.bytes);
        rows_count += run.rows;
        let clock = Clock {
            site: OWN,
            version,
            causal_length: 0,
        };
        clocks::set(
            conn,
            Lane {
                table_id: table.id,
                lane: ROW,
            },
            &run.first,
            &run.last,
            clock,
        )?;
    }
    watermark::raise(conn, table)?;
    Ok(rows_count)
}

/// Rows that follow each other.
struct Run {
    first: RowKey,
    last: RowKey,
    rows: usize,
    bytes: usize,
}

/// Returns a table's rows as runs, none of them above what one version carries.
fn runs(conn: &Connection, table: &Table) -> rusqlite::Result<Vec<Run>> {
    let name = table.quoted();
    let size = table.columns.iter().map(|column| {
        let column = quoted(&column.name);
        format!("ifnull(length({column}), 0) + ")
    });
    let size = list(size, "");
    let place = match table.kind {
        KeyKind::Packed => table.key_list(),
        KeyKind::Integer | KeyKind::Rowid => table.rowid.clone(),
    };
    let order = if table.kind == KeyKind::Packed {
        ""
    } else {
        &format!("ORDER BY {place}")
    };
    let mut statement = conn.prepare(&format!(
        "SELECT {size} 8, {place} FROM main.{name} {order}"
    ))?;
    let mut rows = statement.query([])?;
    let mut runs: Vec<Run> = Vec::new();
    while let Some(row) = rows.next()? {
        let bytes = usize::try_from(row.get::<_, i64>(0)?).unwrap_or(usize::MAX);
        let place = match table.kind {
            KeyKind::Packed => table.life_key(&key_from(row, 1, table.key_columns.len())?),
            KeyKind::Integer | KeyKind::Rowid => RowKey::Rowid(row.get(1)?),
        };
        match (runs.last_mut(), &place) {
            (
                Some(Run {
                    last: RowKey::Rowid(last),
                    rows,
                    bytes: sum,
                    ..
                }),
                RowKey::Rowid(next),
            ) if last.checked_add(1) == Some(*next)
                && *rows < BACKFILL_ROWS
                && sum.saturating_add(bytes) <= BACKFILL_BYTES =>
            {
                (*last, *rows, *sum) = (*next, *rows + 1, *sum + bytes);
            }
            _ => runs.push(Run {
                first: place.clone(),
                last: place,
                rows: 1,
                bytes,
            }),
        }
    }
    Ok(runs)
}

/// Takes up columns that were added since the table was tracked.
pub(crate) fn refresh(
    conn: &Connection,
    table: Table,
    now_unix_ms: u64,
) -> Result<Table, TrackError> {
    let Some(info) = TableInfo::read(conn, &table.name)? else {
        return Ok(table);
    };
    let is_known = |name: &str| table.columns.iter().any(|column| column.name == name);
    let stored = info
        .columns
        .iter()
        .filter(|c| c.key_position == 0 && !c.is_generated);
    let added: Vec<_> = stored.filter(|column| !is_known(&column.name)).collect();
    if added.is_empty() {
        return Ok(table);
    }
    let count = table.columns.len() + added.len();
    let next = "SELECT ifnull(max(lane) + 1, 0) FROM syncline_columns WHERE table_id = ?1";
    let next: i64 = conn
        .prepare_cached(next)?
        .query_one([table.id], |row| row.get(0))?;
    if next.cast_unsigned() as usize + added.len() > LANES_MAX {
        let obstacle = Obstacle::TooManyColumns { count };
        return Err(TrackError::Refused {
            table: table.name,
            obstacle,
        });
    }
    let mut version = None;
    for (lane, column) in (next..).zip(added) {
        let insert = "INSERT INTO syncline_columns(table_id, lane, name) VALUES(?1, ?2, ?3)";
        conn.prepare_cached(insert)?
            .execute(params![table.id, lane, column.name])?;
        // Rows hold the default, which every replica fills in alike and which loses to anything
        // that was written, or what was written to the column before anybody looked.
        let rows = Lane {
            table_id: table.id,
            lane: ROW,
        };
        for range in clocks::all(conn, rows)? {
            let lane = Lane {
                table_id: table.id,
                lane,
            };
            clocks::set(conn, lane, &range.first, &range.last, Clock::UNWRITTEN)?;
        }
        let default = column.default.as_deref().unwrap_or("NULL");
        let (name, column) = (table.quoted(), quoted(&column.name));
        let key = if table.kind == KeyKind::Packed {
            table.key_list()
        } else {
            table.rowid.clone()
        };
        let written = format!("SELECT {key} FROM main.{name} WHERE {column} IS NOT ({default})");
        let mut statement = conn.prepare(&written)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let key = match table.kind {
                KeyKind::Packed => {
                    RowKey::Packed(pack_key(&key_from(row, 0, table.key_columns.len())?))
                }
                KeyKind::Integer | KeyKind::Rowid => RowKey::Rowid(row.get(0)?),
            };
            let version = match version {
                Some(version) => version,
                None => *version.insert(tick(conn, now_unix_ms)?.version),
            };
            let clock = Clock {
                site: OWN,
                version,
                causal_length: 0,
            };
            clocks::set(
                conn,
                Lane {
                    table_id: table.id,
                    lane,
                },
                &key,
                &key,
                clock,
            )?;
        }
    }
    let (id, name) = (table.id, table.name.clone());
    let table = Table::read(conn, id, &name)?.ok_or(TrackError::NotTracked { table: name })?;
    conn.execute_batch(&capture::renew(&table))?;
    constraints::capture(conn, &table)?;
    Ok(table)
}

/// Makes a tracked table an ordinary one again. Its rows stay, here and on other replicas.
///
/// # Errors
///
/// [`TrackError::NotTracked`], or if SQLite fails.
pub fn untrack(conn: &Connection, name: &str, now_unix_ms: u64) -> Result<(), TrackError> {
    let not_tracked = || TrackError::NotTracked {
        table: name.to_owned(),
    };
    if !is_prepared(conn)? {
        return Err(not_tracked());
    }
    in_savepoint(conn, || {
        fold(conn, now_unix_ms)?;
        let id = id_of(conn, name)?.ok_or_else(not_tracked)?;
        forget(conn, id)?;
        Ok(())
    })
}

fn forget(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    conn.execute_batch(&capture::end(id))?;
    constraints::forget(conn, id)?;
    for shadow in ["syncline_clocks", "syncline_columns"] {
        conn.execute(&format!("DELETE FROM {shadow} WHERE table_id = ?1"), [id])?;
    }
    conn.execute("DELETE FROM syncline_tables WHERE id = ?1", [id])?;
    Ok(())
}

/// Makes the database an ordinary one again: every table keeps its rows, and nothing of Syncline
/// is left in the schema.
///
/// # Errors
///
/// If SQLite fails or a later program wrote the shadow tables.
pub fn leave(conn: &Connection) -> Result<(), TrackError> {
    if !is_prepared(conn)? {
        return Ok(());
    }
    in_savepoint(conn, || {
        let ids = "SELECT id FROM syncline_tables";
        let ids: Vec<i64> = conn
            .prepare(ids)?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in ids {
            forget(conn, id)?;
        }
        conn.flush_prepared_statement_cache();
        conn.execute_batch(constraints::store::DROP)?;
        conn.execute_batch(
            "DROP TABLE syncline_clocks; DROP TABLE syncline_columns; DROP TABLE syncline_tables;
             DROP TABLE syncline_parked; DROP TABLE syncline_definitions;
             DROP TABLE syncline_canary; DROP TABLE syncline_sites; DROP TABLE syncline_meta;",
        )?;
        Ok(())
    })
}
