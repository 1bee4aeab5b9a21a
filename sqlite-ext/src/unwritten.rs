//! Cells that nobody wrote, of a table that was rebuilt, whose rows all count as written: a default
//! stays one, and what stands for a value that has not arrived must not win over it.
//!
//! What such a cell held is known from the definition that the table had before: the rebuild may
//! have another default, and write it.

use std::collections::BTreeMap;

use rusqlite::{Connection, params_from_iter};
use syncline_crdt::unpack_key;

use crate::clocks::{self, Clock, Lane, ROW, Range};
use crate::columns;
use crate::constraints;
use crate::table::{Column, ColumnInfo, KeyKind, RowKey, Table, TableInfo};
use crate::value::{Bound, quoted};

/// What cells that nobody wrote held, by lane, as SQL.
pub(crate) type Initial = BTreeMap<i64, String>;

/// Lanes, with the rows whose cells in them nobody wrote.
pub(crate) type Unwritten = Vec<(i64, Vec<(RowKey, RowKey)>)>;

/// Returns what cells held that nobody wrote, before a table's new definition is taken up. Where rows
/// are named by rowids of SQLite's own, nothing is known of those of a table that was rebuilt.
pub(crate) fn initial(conn: &Connection, table: &Table) -> rusqlite::Result<Initial> {
    let mut initial = Initial::new();
    if table.kind == KeyKind::Rowid {
        return Ok(initial);
    }
    let former = former(conn, table)?;
    let given = TableInfo::read(conn, &table.name)?;
    for column in &table.columns {
        let known = former.iter().chain(&given);
        let known = known.filter_map(|info| initial_of(info, column)).next();
        initial.extend(known.map(|known| (column.lane, known)));
    }
    Ok(initial)
}

/// Returns the cells of shown rows that nobody wrote and that hold what such a cell held.
pub(crate) fn unwritten(
    conn: &Connection,
    table: &Table,
    initial: &Initial,
) -> rusqlite::Result<Unwritten> {
    let mut unwritten = Unwritten::new();
    let rows = unwritten_in(conn, table, ROW)?;
    for column in &table.columns {
        let Some(initial) = initial.get(&column.lane) else {
            continue;
        };
        let lane = Lane {
            table_id: table.id,
            lane: column.lane,
        };
        for row in &rows {
            columns::fill(conn, lane, row)?;
        }
        let mut cells = Vec::new();
        for range in unwritten_in(conn, table, column.lane)? {
            for_each_holding(conn, table, (column, initial), &range, |place| {
                clocks::join(&mut cells, &place, &place);
            })?;
        }
        if !cells.is_empty() {
            unwritten.push((column.lane, cells));
        }
    }
    Ok(unwritten)
}

/// Returns the table as it was defined when it was last looked at.
fn former(conn: &Connection, table: &Table) -> rusqlite::Result<Option<TableInfo>> {
    let statements = constraints::noted_definition(conn, table)?;
    let Some(definition) = statements.first() else {
        return Ok(None);
    };
    let scratch = Connection::open_in_memory()?;
    // It may name what only the application has.
    if scratch.execute_batch(definition).is_err() {
        return Ok(None);
    }
    let name = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND sql IS NOT NULL
        AND name <> 'sqlite_sequence'";
    let name: String = scratch.query_row(name, [], |row| row.get(0))?;
    TableInfo::read(&scratch, &name)
}

/// Returns what a cell that nobody wrote holds by a definition, as SQL.
fn initial_of(info: &TableInfo, column: &Column) -> Option<String> {
    let is_it = |declared: &&ColumnInfo| declared.name.eq_ignore_ascii_case(&column.name);
    let declared = info.stored_columns().find(is_it)?;
    let placeholder = declared.tracked(column.lane, info.is_strict).placeholder;
    let initial = placeholder.or_else(|| declared.default.clone());
    Some(initial.unwrap_or_else(|| "NULL".to_owned()))
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
    let cell = quoted(&column.name);
    let mut holds = format!("{cell} COLLATE BINARY IS ({value})");
    if column.keeps_number_types {
        holds.push_str(&format!(" AND typeof({cell}) = typeof({value})"));
    }
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

/// Takes their clock from cells that nobody wrote, after their rows were stamped.
pub(crate) fn spare(
    conn: &Connection,
    table: &Table,
    unwritten: &Unwritten,
) -> rusqlite::Result<()> {
    for (lane, cells) in unwritten {
        let lane = Lane {
            table_id: table.id,
            lane: *lane,
        };
        let cells: Vec<_> = cells.iter().map(|(first, last)| (first, last)).collect();
        clocks::set_all(conn, lane, &cells, Clock::UNWRITTEN)?;
    }
    Ok(())
}
