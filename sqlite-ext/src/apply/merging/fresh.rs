//! The clocks of rows that a merge makes or writes as a whole.

use super::Merging;
use crate::births;
use crate::clocks::{self, Clock, ROW};
use crate::table::RowKey;

/// Rows that were made and follow each other.
pub(super) struct Fresh {
    first: RowKey,
    last: RowKey,
    clock: Clock,
    born: i64,
}

impl Merging<'_> {
    /// Notes a row that was made; rows that follow each other are stored together.
    pub(super) fn make_fresh(
        &mut self,
        place: RowKey,
        clock: Clock,
        born: i64,
    ) -> rusqlite::Result<()> {
        if let Some(fresh) = &mut self.fresh
            && fresh.clock == clock
            && fresh.born == born
            && let (RowKey::Rowid(last), RowKey::Rowid(next)) = (&mut fresh.last, &place)
            && last.checked_add(1) == Some(*next)
        {
            *last = *next;
            return Ok(());
        }
        self.store_fresh()?;
        self.fresh = Some(Fresh {
            first: place.clone(),
            last: place,
            clock,
            born,
        });
        Ok(())
    }

    pub(super) fn store_fresh(&mut self) -> rusqlite::Result<()> {
        match self.fresh.take() {
            Some(fresh) => self.set_whole((&fresh.first, &fresh.last), fresh.clock, fresh.born),
            None => Ok(()),
        }
    }

    /// Gives rows a clock for the columns that have none of their own.
    pub(super) fn set_rows(
        &mut self,
        (first, last): (&RowKey, &RowKey),
        clock: Clock,
        born: i64,
    ) -> rusqlite::Result<()> {
        clocks::set(self.conn, self.lane(ROW), first, last, clock)?;
        if self.table.is_counted() && (self.has_born || born != clock.site) {
            births::set(self.conn, self.table, (first, last), born, clock.site)?;
            self.has_born = true;
        }
        Ok(())
    }

    /// Gives rows one clock for all their columns.
    pub(super) fn set_whole(
        &mut self,
        (first, last): (&RowKey, &RowKey),
        clock: Clock,
        born: i64,
    ) -> rusqlite::Result<()> {
        self.set_rows((first, last), clock, born)?;
        for column in 0..self.table.columns.len() {
            if self.used[column] {
                clocks::clear(self.conn, self.column_lane(column), first, last)?;
            }
        }
        Ok(())
    }
}
