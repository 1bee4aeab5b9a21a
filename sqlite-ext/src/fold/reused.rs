//! Rows that were deleted and whose ids new rows got before the fold.
//!
//! Without AUTOINCREMENT SQLite gives the greatest id again as soon as its row is deleted. Where ids
//! are counted, the row that has it then is another one, as it would be had a fold come between: else
//! a deletion of the former row elsewhere would take it along. A row that was written over without
//! being deleted, as by `REPLACE` and UPSERT, has no note of a deletion and goes on.
//!
//! Cells that hold such an id mean the new row, whenever they were written: that is what the tables
//! show. Where the former row was another site's, the two have different names, so these cells count
//! as written.

use super::counted::Counted;
use super::{Folding, Notes};
use crate::births::between;
use crate::constraints::store;

impl Folding<'_> {
    /// Ends the lives of the rows that were deleted and whose ids new rows have; `gone` are those
    /// whose ids nobody has.
    pub(super) fn end_former(
        &self,
        notes: &Notes,
        gone: &[(i64, i64)],
        counted: &mut Counted<'_>,
    ) -> rusqlite::Result<()> {
        for run in &notes.deleted_runs {
            for there in between(*run, gone) {
                // What was deleted under the id of a parked row was not that row.
                let parked = store::numbers(self.conn, self.table.id, there)?;
                let parked: Vec<_> = parked.into_iter().map(|id| (id, id)).collect();
                for there in between(there, &parked) {
                    for run in notes.inserted(there) {
                        counted.end_former(run)?;
                        self.forget_runs(&run)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Notes {
    /// Returns which of these rows were written as a whole: a note of a deletion may also be of a
    /// row that only stood in the way of a statement.
    fn inserted(&self, (first, last): (i64, i64)) -> Vec<(i64, i64)> {
        let from = self.written.partition_point(|run| run.numbers().1 < first);
        let runs = self.written[from..].iter();
        let within = runs.take_while(|run| run.numbers().0 <= last);
        let whole = within.filter(|run| run.mask.is_whole());
        let cut = |(from, to): (i64, i64)| (from.max(first), to.min(last));
        whole.map(|run| cut(run.numbers())).collect()
    }
}
