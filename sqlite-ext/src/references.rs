//! References to rows of tables with counted ids: a cell holds the id under which the row is shown
//! here, and means the row, whatever its id elsewhere.
//!
//! A row that is gone and is still referred to keeps an id of its own, see [`crate::rekeyed`], so
//! an id means one row always. What was written as a reference to a row that nobody made stays the
//! number that it is: such a cell is a *literal*, and a lane beside the column's says so.

use rusqlite::{Connection, OptionalExtension};
use syncline_crdt::{Hlc, Value};

use crate::clocks::{self, Clock, Lane};
use crate::constraints::masks;
use crate::mask::Mask;
use crate::options::{Ids, TableOptions};
use crate::rows;
use crate::table::{Column, KeyKind, Refers, RowKey, Table, TableError, TableInfo};
use crate::value::quoted;
use crate::whose::Whose;

/// How far above a column's lane the one of its literals lies.
const LITERALS: i64 = 1 << 32;

/// What a literal's entry holds: there is nothing to tell but that it is one.
const LITERAL: Clock = Clock {
    site: 0,
    version: Hlc::ZERO,
    causal_length: 0,
};

/// Returns the lane of the literals of a column that refers to rows.
pub(crate) fn literals(table_id: i64, column: &Column) -> Lane {
    Lane {
        table_id,
        lane: LITERALS + column.lane,
    }
}

/// Returns the table with counted ids that a column refers to, if it does.
pub(crate) fn parent(conn: &Connection, column: &Column) -> Result<Option<Table>, TableError> {
    let Some(refers) = &column.refers else {
        return Ok(None);
    };
    let Some(table) = Table::named(conn, &refers.table)? else {
        return Ok(None);
    };
    let at = refers.place_in(table.key_columns.iter().map(|column| &*column.name));
    if table.is_counted() {
        return Ok(at.map(|_| table));
    }
    // A part of a key that refers to a row means that row to others as well.
    match at.and_then(|at| table.shape.key.get(at)?.refers) {
        Some(parent) => Table::by_id(conn, parent),
        None => Ok(None),
    }
}

impl Refers {
    /// Returns which of these columns of a primary key is meant.
    fn place_in<'n>(&self, mut key: impl Iterator<Item = &'n str>) -> Option<usize> {
        match &self.column {
            Some(named) => key.position(|column| column.eq_ignore_ascii_case(named)),
            None => key.nth(self.position.into()).map(|_| self.position.into()),
        }
    }
}

/// How many keys may refer to each other before the last one refers to rows.
pub(crate) const KEYS_DEPTH_MAX: usize = 8;

/// Returns the id of the table with counted ids whose ids are referred to so, if it is one. `depth`
/// counts the keys that were followed to get here.
pub(crate) fn counted(
    conn: &Connection,
    refers: &Refers,
    depth: usize,
) -> Result<Option<i64>, TableError> {
    let find = "SELECT id FROM syncline_tables WHERE name = ?1 AND aside IS NULL";
    let id: Option<i64> = conn
        .prepare_cached(find)?
        .query_one([&refers.table], |row| row.get(0))
        .optional()?;
    let Some(id) = id else {
        return Ok(None);
    };
    let Some(info) = TableInfo::read(conn, &refers.table)? else {
        return Ok(None);
    };
    let key = info.key_columns().into_iter();
    let Some(at) = refers.place_in(key.map(|column| &*column.name)) else {
        return Ok(None);
    };
    if info.key_kind(conn)? == KeyKind::Integer {
        let is_counted = TableOptions::of(conn, id)?.ids == Ids::Counted;
        return Ok(is_counted.then_some(id));
    }
    if depth == KEYS_DEPTH_MAX {
        return Ok(None);
    }
    info.key_refers(conn, at, depth + 1)
}

/// Returns the tables that refer to rows of a table with counted ids, and by which columns.
pub(crate) fn children(
    conn: &Connection,
    parent: &Table,
) -> Result<Vec<(Table, Vec<usize>)>, TableError> {
    let mut found = Vec::new();
    for table in Table::all(conn)? {
        let mut columns = Vec::new();
        for (at, column) in table.columns.iter().enumerate() {
            if self::parent(conn, column)?.is_some_and(|table| table.id == parent.id) {
                columns.push(at);
            }
        }
        if !columns.is_empty() {
            found.push((table, columns));
        }
    }
    Ok(found)
}

/// The rows that one table's cells refer to, looked up by the ids they have here.
#[derive(Debug)]
pub(crate) struct Referents {
    columns: Vec<Option<Referent>>,
}

#[derive(Debug)]
struct Referent {
    whose: Whose,
    literals: Lane,
    has_literals: bool,
}

impl Referents {
    pub(crate) fn new(conn: &Connection, table: &Table) -> Result<Self, TableError> {
        let referent = |column| {
            let Some(parent) = parent(conn, column)? else {
                return Ok(None);
            };
            let literals = literals(table.id, column);
            Ok(Some(Referent {
                whose: Whose::new(conn, parent.id)?,
                literals,
                has_literals: clocks::is_used(conn, literals)?,
            }))
        };
        let columns = table.columns.iter().map(referent);
        Ok(Referents {
            columns: columns.collect::<Result<_, TableError>>()?,
        })
    }

    /// Whether a column refers to rows.
    pub(crate) fn has(&self, column: usize) -> bool {
        self.columns[column].is_some()
    }

    /// Turns a cell's id into the number of the row that it refers to, and returns the ordinal of
    /// the site that created the row; `None` if the cell refers to no row.
    pub(crate) fn name(
        &mut self,
        conn: &Connection,
        (column, place): (usize, &RowKey),
        value: &mut Value,
    ) -> rusqlite::Result<Option<i64>> {
        let (Some(referent), Value::Integer(id)) = (&mut self.columns[column], &*value) else {
            return Ok(None);
        };
        if referent.has_literals && clocks::at(conn, referent.literals, place)?.is_some() {
            return Ok(None);
        }
        let Some((number, site)) = referent.whose.at(conn, *id)? else {
            return Ok(None);
        };
        *value = Value::Integer(number);
        Ok(Some(site))
    }
}

/// Notes the cells in these rows that refer to a row which nobody made.
pub(crate) fn note_literals(
    conn: &Connection,
    table: &Table,
    written: &[(RowKey, RowKey, Mask)],
) -> Result<(), TableError> {
    for (at, column) in table.columns.iter().enumerate() {
        let Some(parent) = parent(conn, column)? else {
            continue;
        };
        let mut whose = Whose::new(conn, parent.id)?;
        let runs = written.iter().filter(|(_, _, mask)| mask.has(column.lane));
        for (first, last, _) in runs {
            let mut found = Vec::new();
            find_unknown(conn, (table, at), &parent, (first, last), &mut found)?;
            find_masked(conn, (table, at), (first, last), &mut found)?;
            for (place, id) in found {
                if whose.at(conn, id)?.is_none() {
                    clocks::set(conn, literals(table.id, column), &place, &place, LITERAL)?;
                }
            }
        }
    }
    Ok(())
}

/// Finds the cells from `first` to `last` that hold ids which the parent's table does not show.
fn find_unknown(
    conn: &Connection,
    (table, column): (&Table, usize),
    parent: &Table,
    (first, last): (&RowKey, &RowKey),
    found: &mut Vec<(RowKey, i64)>,
) -> rusqlite::Result<()> {
    if table.kind == KeyKind::Packed {
        return rows::for_each(conn, table, &[column], (first, last), |_, values| {
            if let Some(Value::Integer(id)) = values.last() {
                found.push((first.clone(), *id));
            }
            Ok(())
        });
    }
    let (name, rowid) = (table.quoted(), &table.rowid);
    let (cell, parent, id) = (
        quoted(&table.columns[column].name),
        parent.quoted(),
        &parent.rowid,
    );
    let unknown = format!(
        "SELECT c.{rowid}, c.{cell} FROM main.{name} AS c
         WHERE c.{rowid} BETWEEN ?1 AND ?2 AND typeof(c.{cell}) = 'integer'
         AND NOT EXISTS (SELECT 1 FROM main.{parent} AS p WHERE p.{id} = c.{cell})"
    );
    let mut statement = conn.prepare_cached(&unknown)?;
    let mut rows = statement.query((first, last))?;
    while let Some(row) = rows.next()? {
        found.push((RowKey::Rowid(row.get(0)?), row.get(1)?));
    }
    Ok(())
}

/// Finds the cells from `first` to `last` that show NULL in the place of an id.
fn find_masked(
    conn: &Connection,
    (table, column): (&Table, usize),
    (first, last): (&RowKey, &RowKey),
    found: &mut Vec<(RowKey, i64)>,
) -> rusqlite::Result<()> {
    if !masks::any(conn, table.id)? {
        return Ok(());
    }
    for (place, shown_at) in masks::within(conn, table, (first, last))? {
        let kept = masks::at(conn, table.id, &place)?;
        if let Some(Value::Integer(id)) = kept.get(&table.columns[column].lane) {
            found.push((shown_at, *id));
        }
    }
    Ok(())
}

/// Marks a cell that was merged as a literal, or as none.
pub(crate) fn mark(
    conn: &Connection,
    lane: Lane,
    place: &RowKey,
    is_literal: bool,
) -> rusqlite::Result<()> {
    match is_literal {
        true => clocks::set(conn, lane, place, place, LITERAL),
        false => clocks::clear(conn, lane, place, place),
    }
}
