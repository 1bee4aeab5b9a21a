//! Cells that join: what each site added to them lies beside the table, which shows what it comes
//! to.
//!
//! **Invariant:** after a fold and after a merge, a cell that somebody wrote shows its state, or its
//! row is parked with it, or the column as it is declared here cannot hold it (`STRICT`). So
//! the next fold tells from the value that it finds what was done in between: by whom, how often
//! and with which program does not matter.
//!
//! `syncline_deltas` has one entry for each cell and site, under the version of what the site added
//! last. For the policies that keep entries it is the entry itself. Texts and documents keep their
//! edits in `syncline_histories` and `syncline_edits`; there the entry says up to which version the
//! site's edits lie in the saved whole only.
//!
//! Cells are named by the key of the row's causal length, which stays when rowids change, or by the
//! row's id where ids are counted; what is kept of them belongs to the row's life and ends with it.

mod cache;
mod folding;
mod histories;
mod reading;

use rusqlite::types::Type;
use rusqlite::{Connection, params, params_from_iter};
use syncline_crdt::{DeltaError, History, Hlc, Policy, SiteEntries, Stamp, Value};

use crate::rights;
use crate::shadow::{Sites, version_from, version_to};
use crate::table::{JoinedColumn, RowKey, Table};
use crate::value::{Bound, quoted};
pub(crate) use folding::{Folding, fill, fold_rows, leave_unwritten};
pub(crate) use histories::compact;
pub(crate) use reading::{add_to_digest, changes};

/// The table that holds what sites added.
const DELTAS: &str = "
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
";

/// The tables that hold joined cells.
pub(crate) const TABLES: [&str; 2] = [DELTAS, histories::TABLES];

/// Takes them away.
pub(crate) const DROP: &str =
    "DROP TABLE syncline_edits; DROP TABLE syncline_histories; DROP TABLE syncline_deltas;";

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
            return Ok(Cell::History(Box::new(histories::read(conn, at, policy)?)));
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
        let stored = version_to(version);
        match self {
            Cell::Entries(_) => {
                let entry = params![at.table_id, at.lane, at.key, site, stored, delta];
                conn.prepare_cached(put)?.execute(entry)?;
            }
            Cell::History(history) => {
                let entry = params![at.table_id, at.lane, at.key, site, stored];
                conn.prepare_cached(noted)?.execute(entry)?;
                histories::add(conn, at, *history, (site, version), delta)?;
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

/// The error for what lies in our own tables and cannot be read.
fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, Box::new(error))
}

const SHADOWS: [&str; 3] = ["syncline_deltas", "syncline_histories", "syncline_edits"];

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
    rights::forget(conn, table, first, last)
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
    rights::forget_lanes(conn, table_id, lane)
}

/// Names a row's cells by another key.
pub(crate) fn rename(
    conn: &Connection,
    table: &Table,
    from: &RowKey,
    to: &RowKey,
) -> rusqlite::Result<()> {
    for shadow in SHADOWS {
        // What another row left under the key must not mix with what comes there.
        let clear = format!("DELETE FROM {shadow} WHERE table_id = ?1 AND key = ?2");
        conn.prepare_cached(&clear)?
            .execute(params![table.id, to])?;
        let rename = format!("UPDATE {shadow} SET key = ?3 WHERE table_id = ?1 AND key = ?2");
        conn.prepare_cached(&rename)?
            .execute(params![table.id, from, to])?;
    }
    rights::rename(conn, table, from, to)
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
