//! Deleted rows of tables whose key is not the rowid, all together and in order of their keys.

use syncline_crdt::CausalLength;

use super::{Folding, Notes, length};
use crate::clocks::{self, Clock, LIFE, ROW, runs};
use crate::joined;
use crate::rows::{self, Lookup};
use crate::shadow::OWN;
use crate::table::{KeyKind, RowKey};

impl Folding<'_> {
    /// Ends the lives of rows that are gone.
    pub(super) fn deletions(&self, notes: &Notes) -> rusqlite::Result<()> {
        if notes.deleted.is_empty() && notes.reborn.is_empty() {
            return Ok(());
        }
        let mut lookup = Lookup::new(self.conn, self.table)?;
        let (mut left, mut gone) = (Vec::new(), Vec::new());
        for (key, rowid) in &notes.deleted {
            let is_at = lookup.place(key)?;
            let life_key = self.table.life_key(key);
            let was_at = rowid.map_or_else(|| life_key.clone(), RowKey::Rowid);
            if is_at.as_ref() == Some(&was_at) {
                continue;
            }
            left.push(was_at);
            if is_at.is_none() {
                gone.push(life_key);
            }
        }
        gone.extend(notes.reborn.iter().cloned());
        for keys in [&mut left, &mut gone] {
            keys.sort_unstable();
            keys.dedup();
        }
        if !self.table.joined.is_empty() {
            for (first, last) in runs(&gone) {
                joined::forget(self.conn, self.table, first, last)?;
            }
        }
        let gone = self.told(gone)?;
        // A rowid may be taken by another row since; its notes say what was written there.
        self.forget_rows(&left)?;
        self.end(gone)
    }

    /// Returns the rows that others may have heard of, with the lengths of their lives; `gone`
    /// ascend, and none of them is there.
    fn told(&self, gone: Vec<RowKey>) -> rusqlite::Result<Vec<(RowKey, Option<CausalLength>)>> {
        let lives = clocks::at_all(self.conn, self.lane(LIFE), &gone)?;
        let lives = lives
            .into_iter()
            .map(|life| life.map(|clock| length(&clock)));
        // A row that REPLACE moved is known under its former rowid, of which nothing is noted. So
        // where rows can move every deletion is told, even of a row nobody else heard of.
        if self.table.kind == KeyKind::Rowid {
            return Ok(gone.into_iter().zip(lives).collect());
        }
        let rows = clocks::at_all(self.conn, self.lane(ROW), &gone)?;
        let told = gone.into_iter().zip(lives).zip(rows);
        let told = told.filter(|((_, life), row)| life.is_some() || row.is_some());
        Ok(told.map(|(told, _)| told).collect())
    }

    /// Takes their clocks from rows, whose places ascend.
    fn forget_rows(&self, places: &[RowKey]) -> rusqlite::Result<()> {
        let columns = self.table.columns.iter().map(|column| column.lane);
        for lane in std::iter::once(ROW).chain(columns) {
            let lane = self.lane(lane);
            if clocks::is_used(self.conn, lane)? {
                for (first, last) in runs(places) {
                    clocks::clear(self.conn, lane, first, last)?;
                }
            }
        }
        Ok(())
    }

    /// Ends lives, whose keys ascend.
    fn end(&self, gone: Vec<(RowKey, Option<CausalLength>)>) -> rusqlite::Result<()> {
        let mut first_lives = Vec::new();
        for (key, life) in gone {
            match life {
                None => first_lives.push(key),
                // Who came back and went again between two folds is as dead as everybody knows.
                Some(lived) if !lived.is_alive() => {}
                Some(lived) => self.set_lives(&key, &key, lived.dead())?,
            }
        }
        let clock = Clock {
            site: OWN,
            version: self.version,
            causal_length: CausalLength::FIRST.dead().get(),
        };
        clocks::add(self.conn, self.lane(LIFE), &runs(&first_lives), clock)
    }

    /// Takes the clocks from rows that were written and then deleted before the fold.
    pub(super) fn drop_phantoms(&self, notes: &Notes) -> rusqlite::Result<()> {
        for (key, rowid) in &notes.deleted {
            let place = rowid.map_or_else(|| self.table.life_key(key), RowKey::Rowid);
            if !notes.has_written(&place) {
                continue;
            }
            let mut is_taken = false;
            rows::for_each(self.conn, self.table, &[], (&place, &place), |_, _| {
                is_taken = true;
                Ok(())
            })?;
            if !is_taken {
                self.forget(&place, &place)?;
            }
        }
        Ok(())
    }
}

impl Notes {
    /// Whether the row at this place is among those that were written.
    fn has_written(&self, place: &RowKey) -> bool {
        let after = self.written.partition_point(|run| run.first <= *place);
        let before = after.checked_sub(1).map(|at| &self.written[at]);
        before.is_some_and(|run| run.last >= *place)
    }
}
