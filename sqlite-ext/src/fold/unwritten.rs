//! Cells that nobody wrote, of rows that all count as written: a default stays one, and what stands
//! for a value that has not arrived must not win over it.

use rusqlite::{Connection, params_from_iter};
use syncline_crdt::unpack_key;

use super::Folding;
use crate::clocks::{self, Clock, Lane, ROW, Range};
use crate::columns;
use crate::table::{Column, KeyKind, RowKey, Table, TableError, TableInfo};
use crate::value::{Bound, quoted};

/// Lanes, with the rows whose cells in them nobody wrote.
pub(super) type Unwritten = Vec<(i64, Vec<(RowKey, RowKey)>)>;

/// Returns the cells of shown rows that nobody wrote and that hold what such a cell holds. Where
/// rows are named by rowids of SQLite's own, nothing is known of those of a table that was rebuilt.
pub(super) fn unwritten(conn: &Connection, table: &Table) -> Result<Unwritten, TableError> {
    let mut unwritten = Unwritten::new();
    if table.kind == KeyKind::Rowid {
        return Ok(unwritten);
    }
    let Some(info) = TableInfo::read(conn, &table.name)? else {
        return Ok(unwritten);
    };
    let rows = unwritten_in(conn, table, ROW)?;
    for column in &table.columns {
        let lane = Lane {
            table_id: table.id,
            lane: column.lane,
        };
        for row in &rows {
            columns::fill(conn, lane, row)?;
        }
        let mut declared = info.stored_columns();
        let declared = declared.find(|declared| declared.name == column.name);
        let default = declared.and_then(|declared| declared.default.as_deref());
        let initial = column.placeholder.as_deref().or(default);
        let mut cells = Vec::new();
        for range in unwritten_in(conn, table, column.lane)? {
            let initial = (column, initial.unwrap_or("NULL"));
            for_each_holding(conn, table, initial, &range, |place| {
                clocks::join(&mut cells, &place, &place);
            })?;
        }
        if !cells.is_empty() {
            unwritten.push((column.lane, cells));
        }
    }
    Ok(unwritten)
}

fn unwritten_in(conn: &Connection, table: &Table, lane: i64) -> rusqlite::Result<Vec<Range>> {
    let table_id = table.id;
    let mut ranges = clocks::all(conn, Lane { table_id, lane })?;
    ranges.retain(|range| range.clock.version == Clock::UNWRITTEN.version);
    Ok(ranges)
}

/// Calls `each` with the places of the rows in a range that hold a value, given as SQL, in a column.
fn for_each_holding(
    conn: &Connection,
    table: &Table,
    (column, value): (&Column, &str),
    range: &Range,
    mut each: impl FnMut(RowKey),
) -> rusqlite::Result<()> {
    let (name, rowid) = (table.quoted(), &table.rowid);
    let holds = format!("{} COLLATE BINARY IS ({value})", quoted(&column.name));
    match (&range.first, &range.last) {
        (RowKey::Packed(packed), _) => {
            let key = unpack_key(packed).expect("keys in the clocks were packed here");
            let condition = table.key_condition(1);
            let select = format!("SELECT 1 FROM main.{name} WHERE {condition} AND {holds}");
            let mut statement = conn.prepare_cached(&select)?;
            if statement.exists(params_from_iter(key.iter().map(Bound)))? {
                each(range.first.clone());
            }
        }
        (first, last) => {
            let select = format!(
                "SELECT {rowid} FROM main.{name} WHERE {rowid} BETWEEN ?1 AND ?2 AND {holds}
                 ORDER BY 1"
            );
            let mut statement = conn.prepare_cached(&select)?;
            let mut rows = statement.query((first, last))?;
            while let Some(row) = rows.next()? {
                each(RowKey::Rowid(row.get(0)?));
            }
        }
    }
    Ok(())
}

impl Folding<'_> {
    /// Takes their clock from cells that nobody wrote, after their rows were stamped.
    pub(super) fn spare(&self, unwritten: &Unwritten) -> rusqlite::Result<()> {
        for (lane, cells) in unwritten {
            let cells: Vec<_> = cells.iter().map(|(first, last)| (first, last)).collect();
            clocks::set_all(self.conn, self.lane(*lane), &cells, Clock::UNWRITTEN)?;
        }
        Ok(())
    }
}
