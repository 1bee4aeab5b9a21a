//! One row at a time of a table like the user's, in memory: there SQLite says what a row that is
//! not shown would hold.

use rusqlite::{Connection, params_from_iter};
use syncline_crdt::Value;

use super::store::ParkedRow;
use crate::rows::{self, key_from};
use crate::table::{Column, Table, list};
use crate::value::{Bound, quoted};

/// An empty copy of one table.
pub(super) struct Scratch {
    pub(super) conn: Connection,
}

impl Scratch {
    /// Makes the copy of a table of the database `conn` is open on.
    pub(super) fn open(conn: &Connection, table: &str) -> rusqlite::Result<Self> {
        let sql = "SELECT sql FROM main.sqlite_master
            WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
        let sql: String = conn
            .prepare_cached(sql)?
            .query_one([table], |row| row.get(0))?;
        let scratch = Connection::open_in_memory()?;
        scratch.execute_batch("PRAGMA foreign_keys = OFF")?;
        scratch.execute_batch(&sql)?;
        let indices = "SELECT sql FROM main.sqlite_master
            WHERE type = 'index' AND tbl_name = ?1 COLLATE NOCASE AND sql IS NOT NULL";
        let mut statement = conn.prepare_cached(indices)?;
        let indices = statement.query_map([table], |row| row.get::<_, String>(0))?;
        for sql in indices {
            // One that names what only the application has is kept by the table alone.
            let _ = scratch.execute_batch(&sql?);
        }
        Ok(Scratch { conn: scratch })
    }

    /// Makes a parked row the only one, and takes over what the table makes of it: columns that
    /// have no cell get their default, and values the type of their column.
    pub(super) fn fill(&self, table: &Table, row: &mut ParkedRow) -> rusqlite::Result<()> {
        let name = table.quoted();
        self.conn
            .prepare_cached(&format!("DELETE FROM main.{name}"))?
            .execute([])?;
        insert(&self.conn, table, row)?;
        let fields = table.captured().map(|column| quoted(&column.name));
        let fields = list(std::iter::once(table.key_list()).chain(fields), ", ");
        let key_count = table.key_columns.len();
        let mut statement = self
            .conn
            .prepare_cached(&format!("SELECT {fields} FROM main.{name}"))?;
        let values = statement.query_one([], |found| {
            key_from(found, 0, key_count + table.captured().count())
        })?;
        let mut values = values.into_iter();
        row.key = values.by_ref().take(key_count).collect();
        let lanes = table.captured().map(|column| column.lane);
        row.cells.extend(lanes.zip(values));
        Ok(())
    }
}

/// Inserts a parked row into the table itself, or into its copy.
pub(super) fn insert(conn: &Connection, table: &Table, row: &ParkedRow) -> rusqlite::Result<()> {
    let known = table.captured();
    let known = known.filter_map(|column| Some((column, row.cells.get(&column.lane)?)));
    let (columns, cells): (Vec<&Column>, Vec<&Value>) = known.unzip();
    let insert = rows::insertion(table, &columns);
    let values = row.key.iter().chain(cells);
    conn.prepare_cached(&insert)?
        .execute(params_from_iter(values.map(Bound)))?;
    Ok(())
}
