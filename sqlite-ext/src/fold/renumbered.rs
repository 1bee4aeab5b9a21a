//! New rows that SQLite gave the numbers of other rows of ours.
//!
//! SQLite does not see a parked row and counts its number again, and it gives the id of a deleted
//! row again where a row of ours has that number and is shown under another id. The new row would be
//! the same as ours to everybody. Others know ours by its number, and nobody knows the new one, so it
//! is the new one that gets another number.

use std::collections::BTreeSet;

use syncline_crdt::Value;

use super::runs::without;
use super::{Folding, Notes, Run};
use crate::births::{self, life_lane};
use crate::clocks::{self, ROW};
use crate::constraints::{self, store};
use crate::placing::Placing;
use crate::quiet::Quiet;
use crate::renames::Moves;
use crate::shadow::OWN;
use crate::table::RowKey;
use crate::{rekeyed, rows, watermark};

impl Folding<'_> {
    /// Moves new rows to fresh numbers where another one of ours lives by the number that is their
    /// id. Returns where they moved from and to.
    pub(super) fn renumber(
        &self,
        notes: &mut Notes,
        moves: &mut Moves,
    ) -> rusqlite::Result<BTreeSet<RowKey>> {
        let mut places = BTreeSet::new();
        let has_parked = store::any(self.conn, self.table.id)?;
        if !has_parked && !rekeyed::any(self.conn, self.table.id)? {
            return Ok(places);
        }
        let placing = Placing::new(self.conn, self.table);
        let (mut cut, mut new) = (Vec::new(), Vec::new());
        for run in &notes.written {
            for id in store::numbers(self.conn, self.table.id, run.numbers())? {
                let is_there = self.shows(id)?;
                if is_there && placing.find((id, OWN))?.is_none() {
                    continue;
                }
                // A row that was added and deleted before the fold leaves nothing.
                cut.push((id, id));
                new.extend(is_there.then(|| (id, run.mask.clone())));
            }
            for id in self.taken(run)? {
                cut.push((id, id));
                new.push((id, run.mask.clone()));
            }
        }
        cut.sort_unstable();
        new.sort_by_key(|(id, _)| *id);
        notes.written = without(&notes.written, &cut);
        if new.is_empty() {
            return Ok(places);
        }
        let quiet = Quiet::begin(self.conn)?;
        let mut greatest = self.greatest(notes)?;
        for (id, mask) in new {
            greatest = self.unused(greatest.saturating_add(1))?;
            self.move_new(id, greatest)?;
            moves.note_reused(id, self.version, greatest);
            let (from, to) = (RowKey::Rowid(id), RowKey::Rowid(greatest));
            notes.written.push(Run {
                first: to.clone(),
                last: to.clone(),
                mask,
            });
            places.extend([from, to]);
        }
        drop(quiet);
        notes.written.sort_by(|a, b| a.first.cmp(&b.first));
        watermark::raise(self.conn, self.table)?;
        Ok(places)
    }

    /// Returns the ids of new rows that are the numbers of rows of ours which are shown under other
    /// ids, or come back there.
    fn taken(&self, run: &Run) -> rusqlite::Result<Vec<i64>> {
        let mut taken = Vec::new();
        if !run.mask.is_whole() {
            return Ok(taken);
        }
        let lives = |id| births::at(self.conn, self.table, id).map(|site| site.is_some());
        for entry in rekeyed::by_numbers(self.conn, self.table.id, run.numbers())? {
            let is_new = entry.site == OWN && !lives(entry.number)?;
            if is_new && (lives(entry.id)? || self.shows(entry.id)?) {
                taken.push(entry.number);
            }
        }
        Ok(taken)
    }

    fn shows(&self, id: i64) -> rusqlite::Result<bool> {
        let key = [Value::Integer(id)];
        Ok(rows::place(self.conn, self.table, &key)?.is_some())
    }

    /// Returns the greatest id that is known here, and of our own rows also the greatest number
    /// that any had.
    fn greatest(&self, notes: &Notes) -> rusqlite::Result<i64> {
        let (name, rowid) = (self.table.quoted(), &self.table.rowid);
        let shown = format!("SELECT ifnull(max({rowid}), 0) FROM main.{name}");
        let mut greatest: i64 = self
            .conn
            .prepare_cached(&shown)?
            .query_one([], |row| row.get(0))?;
        for lane in [self.lane(ROW), life_lane(self.table, OWN)] {
            if let Some(RowKey::Rowid(last)) = clocks::greatest(self.conn, lane)? {
                greatest = greatest.max(last);
            }
        }
        let apart = rekeyed::numbers_of(self.conn, self.table.id, OWN)?;
        let gone = notes.deleted_runs.iter().map(|(_, last)| *last);
        Ok(apart.into_iter().chain(gone).fold(greatest, i64::max))
    }

    /// Returns the next number that none of our rows had and that nobody is shown under: the given
    /// one, or where all above are taken the next below it.
    fn unused(&self, number: i64) -> rusqlite::Result<i64> {
        let placing = Placing::new(self.conn, self.table);
        let life = life_lane(self.table, OWN);
        for number in (i64::MIN..=number).rev() {
            let place = RowKey::Rowid(number);
            if placing.identity(number)?.is_none()
                && rekeyed::by_id(self.conn, self.table.id, number)?.is_none()
                && rekeyed::of(self.conn, self.table.id, (number, OWN))?.is_none()
                && clocks::at(self.conn, life, &place)?.is_none()
                && !store::contains(self.conn, self.table.id, &place)?
                && !self.shows(number)?
            {
                return Ok(number);
            }
        }
        unreachable!("of 2^64 numbers one is free")
    }

    /// Moves a new row, which has no clocks yet, away from a parked one.
    fn move_new(&self, id: i64, number: i64) -> rusqlite::Result<()> {
        let (name, rowid) = (self.table.quoted(), &self.table.rowid);
        let update = format!("UPDATE OR ABORT main.{name} SET {rowid} = ?2 WHERE {rowid} = ?1");
        match self.conn.prepare_cached(&update)?.execute([id, number]) {
            Err(error) if constraints::is_met(self.conn, &error) => self.park_new(id, number),
            done => done.map(drop),
        }
    }

    /// Parks a new row that a constraint does not admit under its number. The row that is parked
    /// under its id steps aside meanwhile.
    fn park_new(&self, id: i64, number: i64) -> rusqlite::Result<()> {
        let (from, to) = (RowKey::Rowid(id), RowKey::Rowid(number));
        let aside = RowKey::Packed(Vec::new());
        store::rekey(self.conn, self.table.id, &from, &aside)?;
        constraints::hide(self.conn, self.table, &[Value::Integer(id)])?;
        store::rekey(self.conn, self.table.id, &from, &to)?;
        store::rekey(self.conn, self.table.id, &aside, &from)?;
        Ok(())
    }
}
