//! Cells that nobody wrote, of a table that was rebuilt, whose rows all count as written: a default
//! stays one, and what stands for a value that has not arrived must not win over it.
//!
//! Where the rebuild gives a column another default, its cells count as written: the others have the
//! former one, and newcomers the new one.

use std::collections::BTreeMap;

use rusqlite::{Connection, params_from_iter};
use syncline_crdt::{Value, unpack_key};

use crate::clocks::{self, Clock, Lane, ROW, Range};
use crate::columns;
use crate::constraints;
use crate::table::{Column, ColumnInfo, KeyKind, RowKey, Table, TableInfo};
use crate::value::{Bound, from_sqlite, quoted};

/// What cells that nobody wrote hold, by lane.
pub(crate) type Initial = BTreeMap<i64, Value>;

/// Lanes, with the rows whose cells in them nobody wrote.
pub(crate) type Unwritten = Vec<(i64, Vec<(RowKey, RowKey)>)>;

/// Returns what cells hold that nobody wrote, before a table's new definition is taken up; only of
/// columns for which that stays the same. Where rows are named by rowids of SQLite's own, nothing is
/// known of those of a table that was rebuilt.
pub(crate) fn initial(conn: &Connection, table: &Table) -> rusqlite::Result<Initial> {
    let mut initial = Initial::new();
    if table.kind == KeyKind::Rowid {
        return Ok(initial);
    }
    let given = TableInfo::read(conn, &table.name)?;
    let former = former(conn, table)?;
    // Apart from the file, and from the functions that only one application has.
    let scratch = Connection::open_in_memory()?;
    for column in &table.columns {
        let of = |info: &Option<TableInfo>| {
            let declared = info.as_ref().and_then(|info| initial_of(info, column));
            declared.map(|sql| worked_out(&scratch, &sql))
        };
        // A column that is new has no other definition.
        let value = match (of(&former), of(&given)) {
            (Some(former), Some(given)) if former != given => None,
            (_, given) => given.flatten(),
        };
        initial.extend(value.map(|value| (column.lane, value)));
    }
    Ok(initial)
}

/// Returns what an expression comes to, unless it needs what is not there.
fn worked_out(scratch: &Connection, sql: &str) -> Option<Value> {
    let value = scratch.query_row(&format!("SELECT ({sql})"), [], |row| {
        row.get_ref(0).map(from_sqlite)
    });
    value.ok()
}

/// Returns the cells of shown rows that nobody wrote and that hold what such a cell holds.
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

/// Calls `each` with the places of the rows in a range that hold a value in a column.
fn for_each_holding(
    conn: &Connection,
    table: &Table,
    (column, value): (&Column, &Value),
    range: &Range,
    mut each: impl FnMut(RowKey),
) -> rusqlite::Result<()> {
    let (name, rowid) = (table.quoted(), &table.rowid);
    let cell = quoted(&column.name);
    let mut holds = format!("{cell} COLLATE BINARY IS ?1");
    if column.keeps_number_types {
        holds.push_str(&format!(" AND typeof({cell}) = typeof(?1)"));
    }
    match (&range.first, &range.last) {
        (RowKey::Packed(packed), _) => {
            let key = unpack_key(packed).expect("keys in the clocks were packed here");
            let condition = table.key_condition(2);
            let select = format!("SELECT 1 FROM main.{name} WHERE {condition} AND {holds}");
            let mut statement = conn.prepare_cached(&select)?;
            if statement.exists(params_from_iter(
                std::iter::once(value).chain(&key).map(Bound),
            ))? {
                each(range.first.clone());
            }
        }
        (first, last) => {
            let select = format!(
                "SELECT {rowid} FROM main.{name} WHERE {rowid} BETWEEN ?2 AND ?3 AND {holds}
                 ORDER BY 1"
            );
            let mut statement = conn.prepare_cached(&select)?;
            let mut rows = statement.query((Bound(value), first, last))?;
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
