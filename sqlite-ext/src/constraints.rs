//! Constraints that span rows: which of the rows that live are shown.
//!
//! **The merged state** is every row that lives, with its cells and clocks. The user's tables show
//! a part of it that keeps the constraints and is a function of the merged state alone: the same on
//! every replica, whatever the order in which changes arrived. The other rows are *parked*. They
//! take part in everything: changes are merged into them, they are sent on, the digest counts them,
//! and they are shown as soon as what stands against them is gone.
//!
//! **The store of parked rows** ([`store`]) holds their cells by lane. Their clocks lie in the same
//! lanes as those of shown rows, under [`store::place`]. [`stage::hide`] moves a row from the table
//! to the store and [`stage::show`] moves it back, each with its clocks; nothing else does. A key is
//! shown or parked, never both: what a local write put over a parked row, or deleted, is dropped
//! from the store by [`take_over`] in the fold that notices it.
//!
//! **Writing.** A merge does not stop at a unique index: [`Guard`] puts the row that meets one into
//! the store and notes every row that was written. [`settle`] then decides, once for all that was
//! written in a transaction. So rows may swap their values, or pass them on in a chain.
//!
//! **The contract of [`settle`]:** before it, the shown rows break no unique index, every touched
//! row is named in [`Touched`], and whatever was touched and met an index is in the store. After
//! it, the tables show the function of the merged state. It runs inside the caller's savepoint.
//!
//! Stages: only UNIQUE is decided here, `unique(M)`. Foreign keys fit around it as
//! `closure(unique(closure(M)))`, where `closure` takes away rows whose parent is not shown: before
//! the contest by leaving such rows out of the queue of [`stage::Stage::settle`], after it by hiding
//! them, with the rows of other tables found through [`store::losers`] of the parent.

pub(crate) mod checks;
mod guard;
mod listing;
mod scratch;
mod stage;
pub(crate) mod store;
mod tokens;
pub(crate) mod unique;
mod victims;

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension};

use crate::clocks::{self, Lane, ROW};
use crate::quiet::Quiet;
use crate::shadow::Sites;
use crate::table::{KeyKind, RowKey, Table, TableError};
use crate::{heal, rows, schema, watermark};
pub(crate) use guard::{Guard, is_met};
pub(crate) use stage::hide;
pub(crate) use victims::capture;

/// The rows that were written, by table and by the key of their causal length.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    tables: BTreeMap<i64, BTreeSet<RowKey>>,
}

impl Touched {
    /// Adds rows of a table.
    pub(crate) fn add(&mut self, table_id: i64, rows: BTreeSet<RowKey>) {
        self.tables.entry(table_id).or_default().extend(rows);
    }

    /// Adds all rows of another.
    pub(crate) fn join(&mut self, other: Touched) {
        for (table_id, rows) in other.tables {
            self.add(table_id, rows);
        }
    }
}

/// Shows and parks rows as the constraints ask, after the touched ones were written. Returns how
/// many rows were shown or parked.
pub(crate) fn settle(conn: &Connection, touched: &Touched) -> Result<usize, TableError> {
    let mut moved_count = 0;
    for (table_id, touched) in &touched.tables {
        // Shown rows alone cannot break an index: SQLite keeps it.
        if touched.is_empty() || !store::any(conn, *table_id)? {
            continue;
        }
        let Some(table) = Table::by_id(conn, *table_id)? else {
            continue;
        };
        let _quiet = Quiet::begin(conn)?;
        watermark::settle(conn, &table)?;
        let sites = Sites::load(conn)?;
        let mut stage = stage::Stage::new(conn, &table, &sites)?;
        stage.settle(touched)?;
        moved_count += stage.moved_count;
        // What was shown here is not the user's.
        watermark::raise(conn, &table)?;
    }
    Ok(moved_count)
}

/// Drops parked rows that a local write put over or deleted, after it was folded. `touched` are the
/// rows that the fold found notes of.
pub(crate) fn take_over(
    conn: &Connection,
    table: &Table,
    touched: &BTreeSet<RowKey>,
) -> rusqlite::Result<()> {
    for place in touched {
        if !store::contains(conn, table.id, place)? {
            continue;
        }
        store::remove(conn, table.id, place)?;
        let is_shown = rows::place(conn, table, &store::unpacked(place))?.is_some();
        // Where shown and parked rows have their clocks in one place, these are the new row's.
        if is_shown && table.kind != KeyKind::Rowid {
            continue;
        }
        for lane in std::iter::once(ROW).chain(table.column_lanes()) {
            let lane = Lane {
                table_id: table.id,
                lane,
            };
            clocks::clear(conn, lane, place, place)?;
        }
    }
    Ok(())
}

/// Whether the definition of a tracked table is another than when it was last looked at.
pub(crate) fn is_outdated(conn: &Connection) -> Result<bool, TableError> {
    if noted_version(conn)? == Some(schema_version(conn)?) {
        return Ok(false);
    }
    for table in Table::all(conn)? {
        if definition(conn, &table)? != noted_definition(conn, &table)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes up a table's definition if it changed, with its unique indices. Returns the rows that have
/// to be decided about again.
pub(crate) fn refresh(conn: &Connection, table: &Table) -> Result<BTreeSet<RowKey>, TableError> {
    let (new, old) = (definition(conn, table)?, noted_definition(conn, table)?);
    if new == old {
        return Ok(BTreeSet::new());
    }
    capture(conn, table)?;
    let is_known = |statement: &String| old.contains(statement);
    let is_unique = |statement: &String| {
        let words = statement.split_ascii_whitespace().take(2);
        words.eq(["CREATE", "UNIQUE"])
    };
    if new.iter().any(|added| is_unique(added) && !is_known(added)) {
        // What REPLACE deleted through the index before the triggers knew of it left no note.
        heal::note_all_gone(conn, table)?;
    }
    note_definition(conn, table)?;
    Ok(store::places(conn, table.id)?.into_iter().collect())
}

/// Notes the schema as looked at, so that looking again costs nothing while it stays.
pub(crate) fn note_schema(conn: &Connection) -> rusqlite::Result<()> {
    let version = schema_version(conn)?;
    if noted_version(conn)? != Some(version) {
        let set = "INSERT OR REPLACE INTO syncline_meta(key, value) VALUES('schema', ?1)";
        conn.prepare_cached(set)?.execute([version])?;
    }
    Ok(())
}

/// Notes a table's definition as looked at.
pub(crate) fn note_definition(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    let set = "INSERT OR REPLACE INTO syncline_definitions(table_id, statements) VALUES(?1, ?2)";
    let statements = serde_json::Value::from(definition(conn, table)?).to_string();
    conn.prepare_cached(set)?.execute((table.id, statements))?;
    Ok(())
}

fn definition(conn: &Connection, table: &Table) -> rusqlite::Result<Vec<String>> {
    schema::statements(conn, &table.name)
}

fn noted_definition(conn: &Connection, table: &Table) -> rusqlite::Result<Vec<String>> {
    let find = "SELECT statements FROM syncline_definitions WHERE table_id = ?1";
    let noted: Option<String> = conn
        .prepare_cached(find)?
        .query_one([table.id], |row| row.get(0))
        .optional()?;
    Ok(noted.map_or(vec![], |json| {
        serde_json::from_str(&json).expect("definitions were written here as JSON")
    }))
}

fn schema_version(conn: &Connection) -> rusqlite::Result<i64> {
    let mut statement = conn.prepare_cached("PRAGMA main.schema_version")?;
    statement.query_one([], |row| row.get(0))
}

fn noted_version(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    let find = "SELECT value FROM syncline_meta WHERE key = 'schema'";
    let mut statement = conn.prepare_cached(find)?;
    statement.query_one([], |row| row.get(0)).optional()
}

/// Forgets what is kept of a table. Its parked rows move to the list of those left behind.
pub(crate) fn forget(conn: &Connection, table_id: i64) -> rusqlite::Result<()> {
    if store::any(conn, table_id)? {
        conn.execute_batch(LEFT_BEHIND)?;
        let copy = "INSERT INTO syncline_left_behind
            SELECT c.* FROM syncline_conflicts AS c
            JOIN syncline_tables AS t ON t.name = c.table_name WHERE t.id = ?1";
        conn.execute(copy, [table_id])?;
    }
    forget_rows(conn, table_id)?;
    let definition = "DELETE FROM syncline_definitions WHERE table_id = ?1";
    conn.execute(definition, [table_id])?;
    Ok(())
}

/// Forgets a table's parked rows.
pub(crate) fn forget_rows(conn: &Connection, table_id: i64) -> rusqlite::Result<()> {
    for shadow in ["syncline_parked_rows", "syncline_parked_claims"] {
        let delete = format!("DELETE FROM {shadow} WHERE table_id = ?1");
        conn.execute(&delete, [table_id])?;
    }
    Ok(())
}

/// An ordinary table that outlives Syncline here: rows that were parked when their table was
/// untracked, so that none is lost silently.
const LEFT_BEHIND: &str = "CREATE TABLE IF NOT EXISTS syncline_left_behind(
    table_name TEXT NOT NULL, key TEXT NOT NULL, row TEXT NOT NULL, constraint_name TEXT NOT NULL,
    reason TEXT NOT NULL, winner_table TEXT, winner TEXT, since TEXT NOT NULL)";
