//! The columns of a tracked table: each has a lane, and one that is added later gets the next.

use rusqlite::{Connection, Row, params};
use syncline_crdt::{Hlc, Part};

use crate::capture;
use crate::clocks::{self, Clock, Lane, ROW, Range};
use crate::constraints::{self, masks};
use crate::gaps;
use crate::joined;
use crate::lacking;
use crate::rows::key_from;
use crate::shadow::{OWN, tick};
use crate::table::{ColumnInfo, KeyKind, RowKey, Table, TableError, TableInfo};
use crate::value::quoted;

/// Whether every column that is stored has a lane.
pub(crate) fn are_all_known(table: &Table, info: &TableInfo) -> bool {
    added(table, info).is_empty()
}

fn added<'a>(table: &Table, info: &'a TableInfo) -> Vec<&'a ColumnInfo> {
    let is_known = |name: &str| {
        let mut columns = table.captured();
        columns.any(|column| column.name.eq_ignore_ascii_case(name))
    };
    let stored = info.stored_columns();
    stored.filter(|column| !is_known(&column.name)).collect()
}

/// Returns the lanes of a table's columns with their names, in order.
pub(crate) fn lanes(conn: &Connection, table_id: i64) -> rusqlite::Result<Vec<(i64, String)>> {
    let lanes = "SELECT lane, name FROM syncline_columns WHERE table_id = ?1 AND NOT is_gone
        ORDER BY lane";
    let mut statement = conn.prepare_cached(lanes)?;
    let lanes = statement.query_map([table_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    lanes.collect()
}

/// Forgets a column that was dropped, with its clocks. Its lane stays taken: notes that are not
/// folded and parked rows may have it, and a column that is added later is another one.
pub(crate) fn forget(conn: &Connection, table_id: i64, lane: i64) -> rusqlite::Result<()> {
    let names = "SELECT t.name, c.name FROM syncline_columns AS c JOIN syncline_tables AS t
        ON t.id = c.table_id WHERE c.table_id = ?1 AND c.lane = ?2";
    let part = |row: &Row<'_>| {
        let (table, column) = (row.get(0)?, row.get(1)?);
        Ok(Part { table, column })
    };
    let part = conn
        .prepare_cached(names)?
        .query_one((table_id, lane), part)?;
    gaps::lose(conn, &part)?;
    hand_over(conn, table_id, lane)?;
    joined::forget_lanes(conn, table_id, Some(lane))?;
    masks::forget_lane(conn, table_id, lane)?;
    let clocks = "DELETE FROM syncline_clocks WHERE table_id = ?1 AND lane = ?2";
    conn.prepare_cached(clocks)?.execute((table_id, lane))?;
    let gone = "UPDATE syncline_columns SET is_gone = TRUE WHERE table_id = ?1 AND lane = ?2";
    conn.prepare_cached(gone)?.execute((table_id, lane))?;
    Ok(())
}

/// Gives rows that are known only by cells of one column, since they came in parts, the stamp of
/// that column as their own, so that others are told of them without it.
fn hand_over(conn: &Connection, table_id: i64, lane: i64) -> rusqlite::Result<()> {
    let of_table = |lane| Lane { table_id, lane };
    let others = lanes(conn, table_id)?.into_iter();
    let others: Vec<i64> = others
        .map(|(other, _)| other)
        .filter(|other| *other != lane)
        .collect();
    for cells in clocks::all(conn, of_table(lane))? {
        for row in clocks::ranges(conn, of_table(ROW), &cells.first, &cells.last)? {
            if cells.clock == Clock::UNWRITTEN || row.clock != Clock::UNWRITTEN {
                continue;
            }
            for other in &others {
                fill(conn, of_table(*other), &row)?;
            }
            clocks::set(conn, of_table(ROW), &row.first, &row.last, cells.clock)?;
        }
    }
    Ok(())
}

/// Notes the cells of a lane in a range that have no clock as unwritten.
pub(crate) fn fill(conn: &Connection, lane: Lane, range: &Range) -> rusqlite::Result<()> {
    let taken = clocks::ranges(conn, lane, &range.first, &range.last)?;
    clocks::set(conn, lane, &range.first, &range.last, Clock::UNWRITTEN)?;
    for range in taken {
        clocks::set(conn, lane, &range.first, &range.last, range.clock)?;
    }
    Ok(())
}

/// Forgets the columns that the table does not have any more.
pub(crate) fn forget_missing(
    conn: &Connection,
    table_id: i64,
    info: &TableInfo,
) -> rusqlite::Result<()> {
    for (lane, name) in lanes(conn, table_id)? {
        let mut stored = info.stored_columns();
        if !stored.any(|column| column.name.eq_ignore_ascii_case(&name)) {
            forget(conn, table_id, lane)?;
        }
    }
    Ok(())
}

/// Takes up columns that were added since the table was tracked.
pub(crate) fn take_up(
    conn: &Connection,
    table: &Table,
    now_unix_ms: u64,
) -> Result<Table, TableError> {
    let Some(info) = TableInfo::read(conn, &table.name)? else {
        return Ok(table.clone());
    };
    let added = added(table, &info);
    if added.is_empty() {
        return Ok(table.clone());
    }
    let next = "SELECT ifnull(max(lane) + 1, 0) FROM syncline_columns WHERE table_id = ?1";
    let next: i64 = conn
        .prepare_cached(next)?
        .query_one([table.id], |row| row.get(0))?;
    let mut adding = Adding {
        conn,
        table,
        now_unix_ms,
        version: None,
    };
    let mut joined = Vec::new();
    for (lane, column) in (next..).zip(added) {
        let was_dropped = "SELECT 1 FROM syncline_columns WHERE table_id = ?1 AND name = ?2";
        if conn
            .prepare_cached(was_dropped)?
            .exists((table.id, &column.name))?
        {
            lacking::note(conn)?;
            gaps::want(conn, &table.name)?;
        }
        let insert = "INSERT INTO syncline_columns(table_id, lane, name) VALUES(?1, ?2, ?3)";
        conn.prepare_cached(insert)?
            .execute(params![table.id, lane, column.name])?;
        match table.options.policy(&column.name).joins() {
            Some(_) => joined.push((lane, column, adding.written(column)?)),
            None => adding.stamp(column, lane)?,
        }
    }
    let table = Table::read(conn, table.id, &table.name)?;
    let table = table.expect("the table was just read");
    for (lane, info, written) in joined {
        let mut columns = table.joined.iter();
        if let Some(column) = columns.find(|joined| joined.column.lane == lane) {
            let default = info.default.as_deref().unwrap_or("NULL");
            joined::leave_unwritten(conn, &table, column, default)?;
            if !written.is_empty() {
                joined::fold_rows(conn, &table, &written, adding.version()?)?;
            }
        }
    }
    capture::renew(conn, &table)?;
    constraints::capture(conn, &table)?;
    Ok(table)
}

struct Adding<'a> {
    conn: &'a Connection,
    table: &'a Table,
    now_unix_ms: u64,
    /// The version of what was written to the columns before anybody looked.
    version: Option<Hlc>,
}

impl Adding<'_> {
    /// Gives a column's cells their clocks. Rows hold the default, which every replica fills in
    /// alike and which loses to anything that was written, or what was written to the column
    /// before anybody looked.
    fn stamp(&mut self, column: &ColumnInfo, lane: i64) -> rusqlite::Result<()> {
        let (conn, table) = (self.conn, self.table);
        let of_table = |lane| Lane {
            table_id: table.id,
            lane,
        };
        let column_lane = of_table(lane);
        for range in clocks::all(conn, of_table(ROW))? {
            clocks::set(
                conn,
                column_lane,
                &range.first,
                &range.last,
                Clock::UNWRITTEN,
            )?;
        }
        for key in self.written(column)? {
            let clock = Clock {
                site: OWN,
                version: self.version()?,
                causal_length: 0,
            };
            clocks::set(conn, column_lane, &key, &key, clock)?;
        }
        Ok(())
    }

    /// Returns the places of the rows that do not hold a column's default.
    fn written(&self, column: &ColumnInfo) -> rusqlite::Result<Vec<RowKey>> {
        let table = self.table;
        let default = column.default.as_deref().unwrap_or("NULL");
        let (name, column) = (table.quoted(), quoted(&column.name));
        let key = match table.kind {
            KeyKind::Packed => table.key_list(),
            KeyKind::Integer | KeyKind::Rowid => table.rowid.clone(),
        };
        let written = format!("SELECT {key} FROM main.{name} WHERE {column} IS NOT ({default})");
        let mut statement = self.conn.prepare(&written)?;
        let mut rows = statement.query([])?;
        let mut places = Vec::new();
        while let Some(row) = rows.next()? {
            places.push(match table.kind {
                KeyKind::Packed => table.life_key(&key_from(row, 0, table.key_columns.len())?),
                KeyKind::Integer | KeyKind::Rowid => RowKey::Rowid(row.get(0)?),
            });
        }
        Ok(places)
    }

    fn version(&mut self) -> rusqlite::Result<Hlc> {
        match self.version {
            Some(version) => Ok(version),
            None => Ok(*self
                .version
                .insert(tick(self.conn, self.now_unix_ms)?.version)),
        }
    }
}
