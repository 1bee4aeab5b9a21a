//! The rows of virtual tables that hold nothing.

use std::ffi::c_int;

use rusqlite::Result;
use rusqlite::vtab::{Context, Filters, VTabCursor, sqlite3_vtab_cursor};

/// None, whatever is asked.
#[repr(C)]
#[derive(Default)]
pub(super) struct NoRows {
    /// SQLite's part; it has to be the first.
    base: sqlite3_vtab_cursor,
}

#[expect(unsafe_code, reason = "SQLite reads the first field of a cursor")]
// SAFETY: the struct is `repr(C)` and begins with `sqlite3_vtab_cursor`.
unsafe impl VTabCursor for NoRows {
    fn filter(&mut self, _plan: c_int, _name: Option<&str>, _args: &Filters<'_>) -> Result<()> {
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        Ok(())
    }

    fn eof(&self) -> bool {
        true
    }

    fn column(&self, _context: &mut Context, _column: c_int) -> Result<()> {
        Ok(())
    }

    fn rowid(&self) -> Result<i64> {
        Ok(0)
    }
}
