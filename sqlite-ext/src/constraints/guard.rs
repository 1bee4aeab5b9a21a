//! What a merge does to one table's rows where they may be parked.

use rusqlite::{Connection, Error, ffi};
use syncline_crdt::Value;

use super::checks;
use super::stage::hide;
use super::store::{self, ParkedRow};
use super::{Rows, foreign, masks, unique};
use crate::table::{Column, RowKey, Table};

/// Keeps a merge going where a row meets a constraint, and notes what is written.
pub(crate) struct Guard<'a> {
    conn: &'a Connection,
    table: &'a Table,
    is_constrained: bool,
    has_parked: bool,
    has_masked: bool,
    touched: Rows,
}

impl<'a> Guard<'a> {
    pub(crate) fn new(conn: &'a Connection, table: &'a Table) -> rusqlite::Result<Self> {
        let has_parked = store::any(conn, table.id)?;
        Ok(Guard {
            conn,
            table,
            is_constrained: has_parked
                || unique::exists(conn, &table.name)?
                || checks::may_refuse(conn, &table.name)?
                || foreign::binds(conn, table.id)?,
            has_parked,
            has_masked: masks::any(conn, table.id)?,
            touched: Rows::default(),
        })
    }

    /// Notes that a row was written or deleted.
    pub(crate) fn touch(&mut self, life_key: &RowKey) {
        if self.is_constrained {
            self.touched.places.insert(life_key.clone());
        }
    }

    /// Notes that the row with this key was written or deleted.
    pub(crate) fn touch_key(&mut self, key: &[Value]) {
        if self.is_constrained {
            self.touched.places.insert(self.table.life_key(key));
        }
    }

    /// Notes that the row with this key stays and got other values.
    pub(crate) fn rewrite_key(&mut self, key: &[Value]) {
        self.touch_key(key);
        self.touched.is_rewritten = true;
    }

    /// Notes that the row with this key was taken out of the table.
    pub(crate) fn take_out(&mut self, key: &[Value]) -> rusqlite::Result<()> {
        let place = self.table.life_key(key);
        if self.has_masked {
            masks::remove(self.conn, self.table.id, &place)?;
        }
        if self.is_constrained {
            self.touched.gone.insert(place);
        }
        Ok(())
    }

    /// Returns what a cell of a shown row holds, where it shows NULL for want of a parent.
    pub(crate) fn kept(&self, key: &[Value], column: &Column) -> rusqlite::Result<Option<Value>> {
        if !self.has_masked {
            return Ok(None);
        }
        let place = self.table.life_key(key);
        let mut kept = masks::at(self.conn, self.table.id, &place)?;
        Ok(kept.remove(&column.lane))
    }

    /// Notes that cells of a shown row were written, and what they kept counts no more.
    pub(crate) fn overwrite(
        &mut self,
        key: &[Value],
        columns: impl Iterator<Item = usize>,
    ) -> rusqlite::Result<()> {
        self.rewrite_key(key);
        if self.has_masked {
            let place = self.table.life_key(key);
            let lanes: Vec<i64> = columns.map(|at| self.table.columns[at].lane).collect();
            let named = (self.table.id, &place);
            masks::end(self.conn, named, |lane| lanes.contains(&lane))?;
        }
        Ok(())
    }

    /// Returns what was written.
    pub(crate) fn into_touched(self) -> Rows {
        self.touched
    }

    /// Returns where a row is parked, if it is.
    pub(crate) fn place(&self, key: &[Value]) -> rusqlite::Result<Option<RowKey>> {
        if !self.has_parked {
            return Ok(None);
        }
        let place = store::place(self.table, key);
        let is_parked = store::contains(self.conn, self.table.id, &place)?;
        Ok(is_parked.then_some(place))
    }

    /// Whether a statement failed because the table does not admit a row, and the row may be parked.
    pub(crate) fn is_met(&self, error: &Error) -> bool {
        self.is_constrained && is_met(self.conn, error)
    }

    /// Notes that rows moved to other keys, and may be parked there.
    pub(crate) fn note_moves(&mut self, moved: &[(i64, i64)]) {
        self.has_parked |= self.is_constrained;
        for (from, to) in moved {
            for place in [from, to].map(|id| RowKey::Rowid(*id)) {
                self.touch(&place);
                self.touched.gone.insert(place);
            }
        }
    }

    /// Parks a row that was to be inserted.
    pub(crate) fn insert<'v>(
        &mut self,
        key: &[Value],
        cells: impl Iterator<Item = (usize, &'v Value)>,
    ) -> rusqlite::Result<RowKey> {
        self.has_parked = true;
        let columns = &self.table.columns;
        let row = ParkedRow {
            key: key.to_vec(),
            cells: cells
                .map(|(column, value)| (columns[column].lane, value.clone()))
                .collect(),
        };
        store::put(self.conn, self.table, &row)
    }

    /// Parks a row that is shown, and returns its place.
    pub(crate) fn hide(&mut self, key: &[Value]) -> rusqlite::Result<Option<RowKey>> {
        self.has_parked = true;
        let hidden = hide(self.conn, self.table, key);
        self.take_out(key)?;
        hidden
    }

    /// Writes cells of a parked row.
    pub(crate) fn update<'v>(
        &self,
        place: &RowKey,
        cells: impl Iterator<Item = (&'v Column, &'v Value)>,
    ) -> rusqlite::Result<()> {
        let Some(mut row) = store::at(self.conn, self.table.id, place)? else {
            return Ok(());
        };
        row.cells
            .extend(cells.map(|(column, value)| (column.lane, value.clone())));
        store::put(self.conn, self.table, &row)?;
        Ok(())
    }

    /// Returns what a cell of a parked row holds.
    pub(crate) fn value(&self, place: &RowKey, column: &Column) -> rusqlite::Result<Value> {
        let row = store::at(self.conn, self.table.id, place)?;
        Ok(row.map_or(Value::Null, |row| row.cell(column)))
    }

    /// Drops a parked row; its clocks are the caller's.
    pub(crate) fn remove(&self, place: &RowKey) -> rusqlite::Result<()> {
        store::remove(self.conn, self.table.id, place)
    }
}

/// Whether the statement that failed last did so because the table does not admit a row: it met a
/// unique index, broke a CHECK, or gave a generated column or an index an expression that has no
/// value, or none that fits.
pub(crate) fn is_met(conn: &Connection, error: &Error) -> bool {
    const MET: [i32; 7] = [
        ffi::SQLITE_CONSTRAINT_UNIQUE,
        // By a key that its collation calls equal.
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
        ffi::SQLITE_CONSTRAINT_CHECK,
        ffi::SQLITE_CONSTRAINT_NOTNULL,
        ffi::SQLITE_CONSTRAINT_DATATYPE,
        // What a function says of its arguments while a statement runs.
        ffi::SQLITE_ERROR,
        ffi::SQLITE_TOOBIG,
    ];
    if error.sqlite_error().is_none() {
        return false;
    }
    #[expect(
        unsafe_code,
        reason = "errors have no extended codes where the host did not switch these on"
    )]
    // SAFETY: the handle is open as long as `conn` is.
    let code = unsafe { ffi::sqlite3_extended_errcode(conn.handle()) };
    MET.contains(&code)
}
