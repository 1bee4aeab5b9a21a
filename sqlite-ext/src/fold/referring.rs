//! The fold of cells that refer to rows of tables with counted ids.

use rusqlite::Connection;

use super::{FoldError, Folding, Notes};
use crate::clocks::{self, Lane};
use crate::constraints::Touched;
use crate::mask::Mask;
use crate::references;
use crate::renames::Renames;
use crate::table::{RowKey, Table};

/// Runs of rows that were written, of a table that refers to others.
pub(super) type Written = Vec<(RowKey, RowKey, Mask)>;

/// Has cells refer to the rows that moved, and notes the written ones that refer to no row. Returns
/// the rows whose cells changed.
pub(super) fn refer(
    conn: &Connection,
    renames: Renames,
    written: &[(Table, Written)],
) -> Result<Touched, FoldError> {
    let touched = renames.apply(conn)?;
    for (table, runs) in written {
        references::note_literals(conn, table, runs)?;
    }
    Ok(touched)
}

impl Notes {
    /// Returns what was written, where references are among it.
    pub(super) fn runs(&self) -> Written {
        let runs = self.written.iter();
        runs.map(|run| (run.first.clone(), run.last.clone(), run.mask.clone()))
            .collect()
    }
}

impl Folding<'_> {
    /// Returns the lanes of columns some of whose cells refer to no row, each with the one that says
    /// so.
    pub(super) fn literals(&self) -> rusqlite::Result<Vec<(i64, Lane)>> {
        let mut found = Vec::new();
        for column in self.table.columns.iter().filter(|c| c.refers.is_some()) {
            let lane = references::literals(self.table.id, column);
            if clocks::is_used(self.conn, lane)? {
                found.push((column.lane, lane));
            }
        }
        Ok(found)
    }
}
