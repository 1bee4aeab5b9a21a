//! The clocks of CRRs: one row for each key, one for each cell.

use rusqlite::{Connection, OptionalExtension, params};
use syncline_crdt::{Value, pack_key};

use super::crr::Crr;
use super::error::Result;
use super::functions::VERSION_MAX;
use super::storage::SENTINEL;

/// A row whose key is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownRow {
    pub(crate) id: i64,
    /// The version of its sentinel; 0 without one.
    pub(crate) sentinel: i64,
}

/// The clock of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellClock {
    pub(crate) col_version: i64,
    pub(crate) db_version: i64,
    pub(crate) site: i64,
    pub(crate) seq: i64,
}

/// Returns the row with this key, if it is known.
pub(crate) fn find(conn: &Connection, crr: &Crr, key: &[Value]) -> Result<Option<KnownRow>> {
    let find = "SELECT id, causal_length FROM syncline_crsql_rows WHERE table_id = ?1 AND key = ?2";
    let lookup = crr.lookup_key(key);
    let row = conn
        .prepare_cached(find)?
        .query_one(params![crr.id, lookup], |row| {
            Ok(KnownRow {
                id: row.get(0)?,
                sentinel: row.get(1)?,
            })
        });
    Ok(row.optional()?)
}

/// Makes a key known.
pub(crate) fn add(conn: &Connection, crr: &Crr, key: &[Value]) -> Result<KnownRow> {
    let add = "INSERT INTO syncline_crsql_rows(table_id, key, pk, causal_length)
        VALUES(?1, ?2, ?3, 0) RETURNING id";
    let (lookup, packed) = (crr.lookup_key(key), pack_key(key));
    let spelled = (packed != lookup).then_some(packed);
    let id = conn
        .prepare_cached(add)?
        .query_one(params![crr.id, lookup, spelled], |row| row.get(0))?;
    Ok(KnownRow { id, sentinel: 0 })
}

/// Notes how a row's key is spelled, where the table calls several spellings equal.
pub(crate) fn spell(conn: &Connection, crr: &Crr, row: KnownRow, key: &[Value]) -> Result<()> {
    let spell = "UPDATE syncline_crsql_rows SET pk = ?2 WHERE id = ?1";
    let (lookup, packed) = (crr.lookup_key(key), pack_key(key));
    let spelled = (packed != lookup).then_some(packed);
    conn.prepare_cached(spell)?
        .execute(params![row.id, spelled])?;
    Ok(())
}

/// Returns the causal length of a row: its sentinel's version, 1 where only cells are known.
pub(crate) fn causal_length(conn: &Connection, row: Option<KnownRow>) -> Result<i64> {
    let Some(row) = row else {
        return Ok(0);
    };
    if row.sentinel > 0 {
        return Ok(row.sentinel);
    }
    let any = "SELECT 1 FROM syncline_crsql_cells WHERE row_id = ?1 LIMIT 1";
    Ok(i64::from(conn.prepare_cached(any)?.exists([row.id])?))
}

/// Gives a row a sentinel, whatever it had.
pub(crate) fn set_sentinel(conn: &Connection, row: KnownRow, clock: CellClock) -> Result<()> {
    let length = "UPDATE syncline_crsql_rows SET causal_length = ?2 WHERE id = ?1";
    conn.prepare_cached(length)?
        .execute([row.id, clock.col_version])?;
    set(conn, row, SENTINEL, clock)
}

/// Gives a cell a clock, whatever it had.
pub(crate) fn set(conn: &Connection, row: KnownRow, column: i64, clock: CellClock) -> Result<()> {
    let set = "INSERT OR REPLACE INTO syncline_crsql_cells
        (row_id, column_id, col_version, db_version, site, seq) VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
    conn.prepare_cached(set)?.execute(params![
        row.id,
        column,
        clock.col_version,
        clock.db_version,
        clock.site,
        clock.seq
    ])?;
    Ok(())
}

/// Counts a write to a cell: from 1 on, one more than before. Returns whether that could be: not
/// where the counter is at its end.
pub(crate) fn bump(
    conn: &Connection,
    row: KnownRow,
    column: i64,
    clock: CellClock,
) -> Result<bool> {
    let bump = "INSERT INTO syncline_crsql_cells
        (row_id, column_id, col_version, db_version, site, seq) VALUES(?1, ?2, 1, ?3, ?4, ?5)
        ON CONFLICT DO UPDATE SET col_version = col_version + 1, db_version = excluded.db_version,
        site = excluded.site, seq = excluded.seq WHERE col_version < ?6";
    let count = conn.prepare_cached(bump)?.execute(params![
        row.id,
        column,
        clock.db_version,
        clock.site,
        clock.seq,
        VERSION_MAX
    ])?;
    Ok(count > 0)
}

/// Returns the clock of a cell.
pub(crate) fn at(conn: &Connection, row: KnownRow, column: i64) -> Result<Option<CellClock>> {
    let at = "SELECT col_version, db_version, site, seq FROM syncline_crsql_cells
        WHERE row_id = ?1 AND column_id = ?2";
    let clock = conn.prepare_cached(at)?.query_one([row.id, column], |row| {
        Ok(CellClock {
            col_version: row.get(0)?,
            db_version: row.get(1)?,
            site: row.get(2)?,
            seq: row.get(3)?,
        })
    });
    Ok(clock.optional()?)
}

/// Returns the columns of a row that have a clock, with their versions, the sentinel left out.
pub(crate) fn of_row(conn: &Connection, row: KnownRow) -> Result<Vec<(i64, i64)>> {
    let all = "SELECT column_id, col_version FROM syncline_crsql_cells
        WHERE row_id = ?1 AND column_id <> ?2 ORDER BY column_id";
    let mut statement = conn.prepare_cached(all)?;
    let rows = statement.query_map([row.id, SENTINEL], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Takes their clocks from all cells of a row but the sentinel.
pub(crate) fn clear(conn: &Connection, row: KnownRow) -> Result<()> {
    let clear = "DELETE FROM syncline_crsql_cells WHERE row_id = ?1 AND column_id <> ?2";
    conn.prepare_cached(clear)?.execute([row.id, SENTINEL])?;
    Ok(())
}

/// Returns the causal length of a row that has clocks, as it is stored.
pub(crate) fn stored_length(conn: &Connection, row: KnownRow) -> Result<i64> {
    let length = "SELECT max(causal_length, 1) FROM syncline_crsql_rows WHERE id = ?1";
    Ok(conn
        .prepare_cached(length)?
        .query_one([row.id], |row| row.get(0))?)
}

/// Begins a new life: every cell that is known counts as written before it.
pub(crate) fn zero(conn: &Connection, row: KnownRow, db_version: i64) -> Result<()> {
    let zero = "UPDATE syncline_crsql_cells SET col_version = 0, db_version = ?3
        WHERE row_id = ?1 AND column_id <> ?2";
    conn.prepare_cached(zero)?
        .execute([row.id, SENTINEL, db_version])?;
    Ok(())
}
