//! Cells that join: what each site added to them lies beside the table, which shows what it comes
//! to.
//!
//! **Invariant:** after a fold and after a merge, a cell that somebody wrote shows its state. So
//! the next fold tells from the value that it finds what was done in between: by whom, how often
//! and with which program does not matter.
//!
//! `syncline_deltas` has one entry for each cell and site, under the version of what the site added
//! last. For the policies that keep entries it is the entry itself. The edits of texts and
//! documents lie in `syncline_histories` as two parts, one that automerge saved and one of edits
//! that were added since, so that a key that a user presses costs its own size. There the entry
//! says up to which version the site's edits are saved.
//!
//! Cells are named by the key of the row's causal length, which stays when rowids change; what is
//! kept of them belongs to the row's life and ends with it.

mod cache;
mod folding;
mod reading;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use syncline_crdt::{DeltaError, History, Hlc, Policy, SiteEntries, Stamp, Value};

use crate::shadow::{Sites, version_from, version_to};
use crate::table::{JoinedColumn, RowKey, Table};
use crate::value::{Bound, quoted};
pub(crate) use folding::{Folding, fill};
pub(crate) use reading::{add_to_digest, changes};

/// The tables that hold joined cells.
pub(crate) const TABLES: &str = "
    CREATE TABLE syncline_deltas(
        table_id INTEGER NOT NULL,
        lane INTEGER NOT NULL,
        key NOT NULL,
        site INTEGER NOT NULL,
        version INTEGER NOT NULL,
        delta NOT NULL,
        PRIMARY KEY(table_id, lane, key, site)
    ) WITHOUT ROWID;
    CREATE INDEX syncline_deltas_by_stamp ON syncline_deltas(site, version);
    CREATE TABLE syncline_histories(
        table_id INTEGER NOT NULL,
        lane INTEGER NOT NULL,
        key NOT NULL,
        part INTEGER NOT NULL,
        token BLOB,
        fingerprint BLOB,
        edits BLOB NOT NULL,
        PRIMARY KEY(table_id, lane, key, part)
    ) WITHOUT ROWID;
";

/// Takes them away.
pub(crate) const DROP: &str = "DROP TABLE syncline_histories; DROP TABLE syncline_deltas;";

/// The part of a history that automerge saved, and the edits that were added since; with these lie
/// its token and its fingerprint.
const SAVED: i64 = 0;
const TAIL: i64 = 1;

/// How many bytes of edits are added to a history before it is saved anew, beside a share of what
/// is saved. Saving costs time in proportion to the whole, and adding in proportion to these.
const TAIL_BYTES_MAX: usize = 16 << 10;
const TAIL_SHARE: usize = 4;

/// Where a joined cell is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CellPlace<'a> {
    table_id: i64,
    lane: i64,
    key: &'a RowKey,
}

impl<'a> CellPlace<'a> {
    pub(crate) fn new(table: &Table, column: &JoinedColumn, key: &'a RowKey) -> Self {
        CellPlace {
            table_id: table.id,
            lane: column.column.lane,
            key,
        }
    }
}

/// A joined cell with what every site added to it.
pub(crate) enum Cell {
    Entries(SiteEntries),
    History(Box<History>),
}

impl Cell {
    /// Reads a cell, empty if nobody wrote it.
    pub(crate) fn read(
        conn: &Connection,
        sites: &Sites,
        at: CellPlace<'_>,
        policy: Policy,
    ) -> rusqlite::Result<Self> {
        if policy.keeps_history() {
            return Ok(Cell::History(Box::new(read_history(conn, at, policy)?)));
        }
        let mut entries = SiteEntries::new(policy);
        let all = "SELECT site, version, delta FROM syncline_deltas
            WHERE table_id = +?1 AND lane = +?2 AND key = ?3";
        let mut statement = conn.prepare_cached(all)?;
        let mut rows = statement.query(params![at.table_id, at.lane, at.key])?;
        while let Some(row) = rows.next()? {
            let stamp = sites.stamp(row.get(0)?, version_from(row.get(1)?)?);
            let delta = row.get_ref(2)?.as_blob().map_err(unreadable)?;
            entries.join(stamp, delta).map_err(unreadable)?;
        }
        Ok(Cell::Entries(entries))
    }

    /// Returns what the cell shows; `None` if nobody wrote it.
    pub(crate) fn shown(&self) -> Option<Value> {
        match self {
            Cell::Entries(entries) => entries.shown(),
            Cell::History(history) => history.shown(),
        }
    }

    /// Takes in that this replica's user left `visible` in the cell. Returns what that adds.
    pub(crate) fn edit(
        &mut self,
        stamp: Stamp,
        visible: &Value,
    ) -> rusqlite::Result<Option<Vec<u8>>> {
        match self {
            Cell::Entries(entries) => {
                let delta = entries.edit(stamp.site, visible);
                if let Some(delta) = &delta {
                    entries.join(stamp, delta).map_err(unreadable)?;
                }
                Ok(delta)
            }
            Cell::History(history) => history.edit(stamp, visible).map_err(unreadable),
        }
    }

    /// Takes in what a site added and returns whether that is news.
    pub(crate) fn join(&mut self, stamp: Stamp, delta: &[u8]) -> Result<bool, DeltaError> {
        match self {
            Cell::Entries(entries) => entries.join(stamp, delta),
            Cell::History(history) => history.join(stamp, delta),
        }
    }

    /// Stores the cell after the site with this ordinal added `delta` to it.
    pub(crate) fn write(
        self,
        conn: &Connection,
        at: CellPlace<'_>,
        (site, version): (i64, Hlc),
        delta: &[u8],
    ) -> rusqlite::Result<()> {
        let put = "INSERT INTO syncline_deltas(table_id, lane, key, site, version, delta)
            VALUES(?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT DO UPDATE SET version = excluded.version, delta = excluded.delta";
        let noted = "INSERT INTO syncline_deltas(table_id, lane, key, site, version, delta)
            VALUES(?1, ?2, ?3, ?4, ?5, 0)
            ON CONFLICT DO UPDATE SET version = max(version, excluded.version)";
        let version = version_to(version);
        match self {
            Cell::Entries(_) => {
                let entry = params![at.table_id, at.lane, at.key, site, version, delta];
                conn.prepare_cached(put)?.execute(entry)?;
            }
            Cell::History(history) => {
                let entry = params![at.table_id, at.lane, at.key, site, version];
                conn.prepare_cached(noted)?.execute(entry)?;
                write_history(conn, at, *history, delta)?;
            }
        }
        Ok(())
    }

    /// Gives back a cell that did not change.
    pub(crate) fn keep(self) {
        if let Cell::History(history) = self {
            cache::put(*history);
        }
    }
}

fn part(conn: &Connection, at: CellPlace<'_>, part: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    let find = "SELECT edits FROM syncline_histories
        WHERE table_id = +?1 AND lane = +?2 AND key = ?3 AND part = ?4";
    let mut statement = conn.prepare_cached(find)?;
    let found = statement.query_one(params![at.table_id, at.lane, at.key, part], |row| {
        row.get(0)
    });
    found.optional()
}

fn read_history(conn: &Connection, at: CellPlace<'_>, policy: Policy) -> rusqlite::Result<History> {
    let find = "SELECT token, edits FROM syncline_histories
        WHERE table_id = +?1 AND lane = +?2 AND key = ?3 AND part = ?4";
    let mut statement = conn.prepare_cached(find)?;
    let mut rows = statement.query(params![at.table_id, at.lane, at.key, TAIL])?;
    let Some(row) = rows.next()? else {
        return Ok(History::new(policy));
    };
    let token: [u8; 16] = row.get(0)?;
    if let Some(history) = cache::take(policy, token) {
        return Ok(history);
    }
    let saved = part(conn, at, SAVED)?.unwrap_or_default();
    let tail = row.get_ref(1)?.as_blob().map_err(unreadable)?;
    History::load(policy, token, &saved, tail).map_err(unreadable)
}

fn write_history(
    conn: &Connection,
    at: CellPlace<'_>,
    history: History,
    delta: &[u8],
) -> rusqlite::Result<()> {
    let mut tail = part(conn, at, TAIL)?.unwrap_or_default();
    tail.extend_from_slice(delta);
    if tail.len() > TAIL_BYTES_MAX {
        let saved = "SELECT length(edits) FROM syncline_histories
            WHERE table_id = +?1 AND lane = +?2 AND key = ?3 AND part = ?4";
        let saved: Option<i64> = conn
            .prepare_cached(saved)?
            .query_one(params![at.table_id, at.lane, at.key, SAVED], |row| {
                row.get(0)
            })
            .optional()?;
        if tail.len()
            > TAIL_BYTES_MAX + usize::try_from(saved.unwrap_or(0)).unwrap_or(0) / TAIL_SHARE
        {
            tail = save(conn, at, &history)?;
        }
    }
    let put = "INSERT OR REPLACE INTO syncline_histories VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    conn.prepare_cached(put)?.execute(params![
        at.table_id,
        at.lane,
        at.key,
        TAIL,
        history.token(),
        history.fingerprint(),
        tail
    ])?;
    cache::put(history);
    Ok(())
}

/// Saves a history as a whole and returns what is left beside it.
fn save(conn: &Connection, at: CellPlace<'_>, history: &History) -> rusqlite::Result<Vec<u8>> {
    let (saved, rest) = history.save();
    let put = "INSERT OR REPLACE INTO syncline_histories(table_id, lane, key, part, edits)
        VALUES(?1, ?2, ?3, ?4, ?5)";
    conn.prepare_cached(put)?
        .execute(params![at.table_id, at.lane, at.key, SAVED, saved])?;
    let mark = "UPDATE syncline_deltas SET delta = version
        WHERE table_id = +?1 AND lane = +?2 AND key = ?3";
    conn.prepare_cached(mark)?
        .execute(params![at.table_id, at.lane, at.key])?;
    Ok(rest)
}

/// The error for what lies in our own tables and cannot be read.
fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, Box::new(error))
}

const SHADOWS: [&str; 2] = ["syncline_deltas", "syncline_histories"];

/// Drops what is kept of the rows from `first` to `last`, whose lives ended.
pub(crate) fn forget(
    conn: &Connection,
    table: &Table,
    first: &RowKey,
    last: &RowKey,
) -> rusqlite::Result<()> {
    for column in &table.joined {
        for shadow in SHADOWS {
            let delete = format!(
                "DELETE FROM {shadow} WHERE table_id = +?1 AND lane = +?2
                 AND key BETWEEN ?3 AND ?4"
            );
            let rows = params![table.id, column.column.lane, first, last];
            conn.prepare_cached(&delete)?.execute(rows)?;
        }
    }
    Ok(())
}

/// Drops all that is kept of a column, or of a whole table.
pub(crate) fn forget_lanes(
    conn: &Connection,
    table_id: i64,
    lane: Option<i64>,
) -> rusqlite::Result<()> {
    for shadow in SHADOWS {
        let delete =
            format!("DELETE FROM {shadow} WHERE table_id = ?1 AND lane = ifnull(?2, lane)");
        conn.execute(&delete, (table_id, lane))?;
    }
    Ok(())
}

/// Names a row's cells by another key.
pub(crate) fn rename(
    conn: &Connection,
    table_id: i64,
    from: &RowKey,
    to: &RowKey,
) -> rusqlite::Result<()> {
    for shadow in SHADOWS {
        let rename =
            format!("UPDATE OR REPLACE {shadow} SET key = ?3 WHERE table_id = ?1 AND key = ?2");
        conn.prepare_cached(&rename)?
            .execute(params![table_id, from, to])?;
    }
    Ok(())
}

/// Returns the rows of which cells are kept.
pub(crate) fn keys(conn: &Connection, table_id: i64) -> rusqlite::Result<Vec<RowKey>> {
    let all = "SELECT DISTINCT key FROM syncline_deltas WHERE table_id = ?1 ORDER BY key";
    let mut statement = conn.prepare_cached(all)?;
    let keys = statement.query_map([table_id], |row| row.get(0))?;
    keys.collect()
}

/// Writes what a cell shows into the table, if its row is there. A column that cannot hold it, as
/// one of a `STRICT` table that a peer declared in another way, stays as it is.
pub(crate) fn show(
    conn: &Connection,
    table: &Table,
    column: &JoinedColumn,
    key: &[Value],
    value: &Value,
) -> rusqlite::Result<usize> {
    let holds = |strict: crate::shape::StrictType| strict.holds(value);
    if !column.column.strict.is_none_or(holds) {
        return Ok(0);
    }
    let (name, column) = (table.quoted(), quoted(&column.column.name));
    let condition = table.key_condition(2);
    let update = format!("UPDATE OR ABORT main.{name} SET {column} = ?1 WHERE {condition}");
    let values = std::iter::once(value).chain(key);
    conn.prepare_cached(&update)?
        .execute(params_from_iter(values.map(Bound)))
}
