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
//! **Foreign keys.** Tables are settled in components, parents first ([`graph`]). A row takes part if
//! the rows that it refers to are shown; those that take part contend for unique values; the others
//! are barred. Within a component that is its own parent, `closure(contest(closure(M)))`: rows take
//! part if what they refer to does, which may be each other, and in the end those whose parents lost
//! are taken away ([`settling`]). Such a row keeps what it won from others.
//!
//! **Masks.** By a key that sets NULL, a row without its parent stays, and shows NULL in the columns
//! that refer ([`masks`]). Where the parent is of another component that is decided before the
//! closure, so that constraints meet the row as it is shown; within a component it is decided in
//! the end, and a key by which that could change which rows are shown parks ([`foreign`]).

pub(crate) mod checks;
mod foreign;
pub(crate) mod graph;
mod guard;
pub(crate) mod listing;
pub(crate) mod masks;
mod nullable;
mod reference;
mod scratch;
mod settling;
mod stage;
pub(crate) mod store;
pub(crate) mod tokens;
pub(crate) mod unique;
mod victims;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rusqlite::{Connection, OptionalExtension};

use crate::clocks::{self, Lane, ROW};
use crate::shadow::Sites;
use crate::table::{KeyKind, RowKey, Table, TableError};
use crate::{heal, rows, schema};
pub(crate) use foreign::{binds, check};
pub(crate) use guard::{Guard, is_met};
use reference::Reference;
use settling::Settling;
pub(crate) use stage::hide;
pub(crate) use victims::capture;

/// What was written, by table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    tables: BTreeMap<i64, Rows>,
}

/// What was written in one table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// Rows that were written or deleted, by the key of their causal length.
    pub(crate) places: BTreeSet<RowKey>,
    /// Rowids of rows that were written, first and last, where nothing of the table is parked.
    pub(crate) runs: Vec<(i64, i64)>,
    /// Rows that may have left the table.
    pub(crate) gone: BTreeSet<RowKey>,
    /// Whether rows that stay may hold other values.
    pub(crate) is_rewritten: bool,
    /// Whether every row is to be looked at.
    pub(crate) is_whole: bool,
}

impl Rows {
    fn is_empty(&self) -> bool {
        self.places.is_empty() && self.runs.is_empty() && self.gone.is_empty() && !self.is_whole
    }

    fn extend(&mut self, other: Rows) {
        self.places.extend(other.places);
        self.runs.extend(other.runs);
        self.gone.extend(other.gone);
        self.is_rewritten |= other.is_rewritten;
        self.is_whole |= other.is_whole;
    }

    /// Returns all rows that are named by a number as runs, and the others.
    fn spans(&self) -> (Vec<(i64, i64)>, Vec<&RowKey>) {
        let mut runs = self.runs.clone();
        let mut single = Vec::new();
        for place in &self.places {
            match (place, runs.last_mut()) {
                (RowKey::Rowid(next), Some((_, last))) if last.checked_add(1) == Some(*next) => {
                    *last = *next;
                }
                (RowKey::Rowid(rowid), _) => runs.push((*rowid, *rowid)),
                (RowKey::Packed(_), _) => single.push(place),
            }
        }
        (runs, single)
    }
}

impl Touched {
    /// Adds rows of a table.
    pub(crate) fn add(&mut self, table_id: i64, rows: Rows) {
        self.tables.entry(table_id).or_default().extend(rows);
    }

    /// Adds rows that moved to other keys, or whose references were written with those.
    pub(crate) fn add_moved(&mut self, table_id: i64, places: BTreeSet<RowKey>) {
        let rows = Rows {
            gone: places.clone(),
            places,
            is_rewritten: true,
            ..Rows::default()
        };
        self.add(table_id, rows);
    }

    /// Adds all rows of a table.
    fn add_whole(&mut self, table_id: i64) {
        self.tables.entry(table_id).or_default().is_whole = true;
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
pub(crate) fn settle(conn: &Connection, touched: Touched) -> Result<usize, TableError> {
    let mut changed = touched.tables;
    changed.retain(|_, rows| !rows.is_empty());
    if changed.is_empty() {
        return Ok(0);
    }
    let bonds = foreign::all(conn)?;
    let sites = Sites::load(conn)?;
    let mut quiet = None;
    let mut moved_count = 0;
    let edges = bonds.iter().map(|bond| (bond.child, bond.parent)).collect();
    for component in graph::components(&changed.keys().copied().collect(), &edges) {
        let own: Vec<_> = bonds
            .iter()
            .filter(|bond| component.members.contains(&bond.child))
            .collect();
        let mut concern = own.iter().any(|bond| changed.contains_key(&bond.parent));
        for id in component
            .members
            .iter()
            .filter(|id| changed.contains_key(id))
        {
            concern |= !own.is_empty() || store::any(conn, *id)? || masks::any(conn, *id)?;
        }
        if !concern {
            continue;
        }
        let mut tables = BTreeMap::new();
        let parents = own.iter().map(|bond| bond.parent);
        for id in component.members.iter().copied().chain(parents) {
            if let Some(table) = Table::by_id(conn, id)? {
                tables.insert(id, Rc::new(table));
            }
        }
        let mut references = Vec::new();
        for bond in own {
            if let (Some(child), Some(parent)) = (tables.get(&bond.child), tables.get(&bond.parent))
            {
                let ends = (Rc::clone(child), Rc::clone(parent));
                let is_inner = component.members.contains(&bond.parent);
                references.push(Rc::new(Reference::new(conn, bond, ends, is_inner)?));
            }
        }
        let settling = Settling::new((conn, &sites), &component, &tables, &references, &mut quiet);
        let settled = settling.run(&changed)?;
        moved_count += settled.moved_count;
        changed.extend(settled.changed);
        changed.retain(|_, rows| !rows.is_empty());
    }
    Ok(moved_count)
}

/// Takes up the foreign keys of all tables after one was tracked, untracked or defined anew, and
/// shows and parks rows as they ask.
pub(crate) fn renew(conn: &Connection) -> Result<(), TableError> {
    let mut touched = Touched::default();
    refresh_foreign(conn, &mut touched)?;
    settle(conn, touched)?;
    Ok(())
}

/// Takes up the foreign keys of all tables, and adds those that have others to what is touched.
pub(crate) fn refresh_foreign(conn: &Connection, touched: &mut Touched) -> Result<(), TableError> {
    if noted_version(conn)? != Some(schema_version(conn)?) {
        for table_id in foreign::refresh(conn)? {
            touched.add_whole(table_id);
        }
    }
    Ok(())
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
    foreign::is_outdated(conn)
}

/// Takes up a table's definition if it changed, with its unique indices. Returns the rows that have
/// to be decided about again.
pub(crate) fn refresh(conn: &Connection, table: &Table) -> Result<Rows, TableError> {
    let (new, old) = (definition(conn, table)?, noted_definition(conn, table)?);
    if new == old {
        return Ok(Rows::default());
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
    Ok(Rows {
        places: store::places(conn, table.id)?.into_iter().collect(),
        ..Rows::default()
    })
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

/// Returns the statements of a table's definition when it was last looked at, its own first.
pub(crate) fn noted_definition(conn: &Connection, table: &Table) -> rusqlite::Result<Vec<String>> {
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

/// Forgets what is kept of a table. Its parked rows, and what its masked cells keep, move to the list
/// of what is left behind.
pub(crate) fn forget(conn: &Connection, table_id: i64) -> rusqlite::Result<()> {
    if store::any(conn, table_id)? || masks::any(conn, table_id)? {
        conn.execute_batch(LEFT_BEHIND)?;
        let copy = "INSERT INTO syncline_left_behind
            SELECT c.* FROM syncline_conflicts AS c
            JOIN syncline_tables AS t ON t.name = c.table_name WHERE t.id = ?1";
        conn.execute(copy, [table_id])?;
    }
    forget_rows(conn, table_id)?;
    let masks = "DELETE FROM syncline_masks WHERE table_id = ?1";
    conn.execute(masks, [table_id])?;
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

/// An ordinary table that outlives Syncline here: rows that were parked, and values that were masked,
/// when their table was untracked, so that none is lost silently.
const LEFT_BEHIND: &str = "CREATE TABLE IF NOT EXISTS syncline_left_behind(
    table_name TEXT NOT NULL, key TEXT NOT NULL, row TEXT NOT NULL, constraint_name TEXT NOT NULL,
    reason TEXT NOT NULL, winner_table TEXT, winner TEXT, since TEXT NOT NULL, state TEXT NOT NULL)";
