//! A query of the clocks that is stepped as long as somebody reads `crsql_changes`.

#![expect(
    unsafe_code,
    reason = "a cursor owns both its statement and what it steps"
)]

use std::rc::Rc;

use rusqlite::types::Value as SqlValue;
use rusqlite::{CachedStatement, Result, Rows, params_from_iter};

use super::session::Held;

/// A cell as the clocks tell of it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) row_id: i64,
    pub(crate) column_id: i64,
    pub(crate) table_id: i64,
    pub(crate) pk: Vec<u8>,
    pub(crate) col_version: i64,
    pub(crate) db_version: i64,
    pub(crate) site_id: Vec<u8>,
    pub(crate) causal_length: i64,
    pub(crate) seq: i64,
}

/// A statement and the rows it gives.
pub(crate) struct Scan {
    /// Dropped first: it borrows the statement.
    rows: Option<Rows<'static>>,
    statement: *mut CachedStatement<'static>,
    /// Dropped last: the statement belongs to its connection.
    _held: Rc<Held>,
}

impl Scan {
    /// Begins a query.
    pub(crate) fn begin(held: &Rc<Held>, sql: &str, values: Vec<SqlValue>) -> Result<Self> {
        let held = Rc::clone(held);
        let statement = held.conn.prepare_cached(sql)?;
        // SAFETY: the statement borrows the connection in `held`, which stays where it is and is
        // dropped after it.
        let statement = unsafe {
            std::mem::transmute::<CachedStatement<'_>, CachedStatement<'static>>(statement)
        };
        let mut scan = Scan {
            rows: None,
            statement: Box::into_raw(Box::new(statement)),
            _held: held,
        };
        // SAFETY: the pointer was just made from a box, and only the rows refer to it until both
        // are dropped.
        let statement = unsafe { &mut *scan.statement };
        scan.rows = Some(statement.query(params_from_iter(values))?);
        Ok(scan)
    }

    /// Returns the next cell.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let Some(rows) = &mut self.rows else {
            return Ok(None);
        };
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        Ok(Some(Entry {
            row_id: row.get(0)?,
            column_id: row.get(1)?,
            table_id: row.get(2)?,
            pk: row.get(3)?,
            col_version: row.get(4)?,
            db_version: row.get(5)?,
            site_id: row.get(6)?,
            causal_length: row.get(7)?,
            seq: row.get(8)?,
        }))
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.rows = None;
        // SAFETY: the pointer came from a box, nothing refers to it any more, and this is the only
        // place that takes it back.
        drop(unsafe { Box::from_raw(self.statement) });
    }
}
