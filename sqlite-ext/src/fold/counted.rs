//! The fold of a table whose ids every replica counts for itself: whose row was touched.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_crdt::{CausalLength, Hlc};

use super::runs::{followed, without};
use super::{Folding, Notes, length, numbers};
use crate::births::{self, Births, between, life_lane};
use crate::clocks::{self, Clock, Lane, ROW};
use crate::constraints::store;
use crate::placing::Placing;
use crate::quiet::Quiet;
use crate::rekeyed;
use crate::renames::{Moves, Renames};
use crate::shadow::OWN;
use crate::table::{RowKey, Table};
use crate::unwritten;

/// Returns what of these runs is not the id of a parked row: such a row cannot have been deleted
/// here, and one that was added and deleted under its id leaves nothing.
pub(super) fn without_parked(
    conn: &Connection,
    table: &Table,
    gone: Vec<(i64, i64)>,
) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut left = Vec::new();
    for run in gone {
        let parked = store::numbers(conn, table.id, run)?;
        let parked: Vec<_> = parked.into_iter().map(|id| (id, id)).collect();
        left.extend(between(run, &parked));
    }
    Ok(left)
}

impl Folding<'_> {
    /// Folds the notes of a table whose ids are counted. `gone` are the rows that are not there any
    /// more.
    pub(super) fn fold_counted(
        &self,
        notes: &mut Notes,
        gone: &[(i64, i64)],
        renames: &mut Renames,
    ) -> rusqlite::Result<BTreeSet<RowKey>> {
        let moves = renames.of(self.table.id);
        let mut counted = Counted::new(self.conn, self.table, self.version, moves)?;
        for run in gone {
            counted.end_lives(*run)?;
            self.forget_runs(run)?;
        }
        self.end_former(notes, gone, &mut counted)?;
        let renumbered = self.renumber(notes, counted.renames)?;
        counted.moved.extend(renumbered);
        // Rows that were written and then deleted before the fold are left out.
        let left = without(&notes.written, gone);
        self.writes(&left, Some(&mut counted))?;
        unwritten::spare(self.conn, self.table, &notes.unwritten)?;
        counted.moved.extend(self.join(&left)?);
        counted.arrange(notes)
    }
}

/// Rows by their numbers, and where they are shown.
struct Shown {
    numbers: Births,
    /// The id of the first of them; the others follow it.
    first_id: i64,
}

impl Shown {
    fn has_its_number(&self) -> bool {
        self.first_id == self.numbers.first
    }

    fn ids(&self) -> Births {
        let Births { first, last, site } = self.numbers;
        Births {
            first: self.first_id,
            last: self.first_id + (last - first),
            site,
        }
    }
}

/// One counted table's fold.
pub(super) struct Counted<'a> {
    conn: &'a Connection,
    table: &'a Table,
    version: Hlc,
    /// Whether any row is shown under another id than its number.
    has_rekeyed: bool,
    /// Ids whose rows are gone, and numbers of rows that came back under another id.
    touched: Vec<(i64, i64)>,
    /// Where rows moved from and to.
    moved: BTreeSet<RowKey>,
    renames: &'a mut Moves,
}

impl<'a> Counted<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        table: &'a Table,
        version: Hlc,
        renames: &'a mut Moves,
    ) -> rusqlite::Result<Self> {
        Ok(Counted {
            conn,
            table,
            version,
            has_rekeyed: rekeyed::any(conn, table.id)?,
            touched: Vec::new(),
            moved: BTreeSet::new(),
            renames,
        })
    }

    /// Ends the lives of the rows that were shown under a run of ids. Their clocks are still there.
    pub(super) fn end_lives(&mut self, run: (i64, i64)) -> rusqlite::Result<()> {
        // A row that was made and deleted before anybody heard of it has no clock and leaves
        // nothing.
        let all = births::ranges(self.conn, self.table, run.0, run.1)?;
        let known: Vec<_> = all.iter().map(|run| (run.first, run.last)).collect();
        for (first, last) in between(run, &known) {
            let site = OWN;
            self.renames.note_run_gone(Births { first, last, site });
        }
        for known in all {
            for shown in self.end(known)? {
                // A row that was shown under another id keeps that one.
                if shown.has_its_number() {
                    self.renames.note_run_gone(shown.numbers);
                }
            }
        }
        self.touched.push(run);
        Ok(())
    }

    /// The same for a run of ids that new rows have. Their references are taken over.
    pub(super) fn end_former(&mut self, run: (i64, i64)) -> rusqlite::Result<()> {
        for known in births::ranges(self.conn, self.table, run.0, run.1)? {
            for shown in self.end(known)? {
                // Our own row of a number is the same in its next life, and so is one that was
                // shown under another id.
                if shown.numbers.site == OWN {
                    self.renames.note_reborn(shown.ids());
                } else if shown.has_its_number() {
                    self.renames.note_inherited(shown.numbers, self.version);
                }
            }
        }
        self.touched.push(run);
        Ok(())
    }

    /// Ends the lives of a run of rows, and returns them.
    fn end(&self, run: Births) -> rusqlite::Result<Vec<Shown>> {
        let all = self.shown(run)?;
        for Births { first, last, site } in all.iter().map(|shown| shown.numbers) {
            self.set_lives(site, (first, last), CausalLength::dead)?;
        }
        Ok(all)
    }

    /// Returns the rows that a run of ids shows.
    fn shown(&self, run: Births) -> rusqlite::Result<Vec<Shown>> {
        let ids = (run.first, run.last);
        let entries = if self.has_rekeyed {
            rekeyed::within(self.conn, self.table.id, ids)?
        } else {
            Vec::new()
        };
        let apart: Vec<_> = entries.iter().map(|entry| (entry.id, entry.id)).collect();
        let numbers = between(ids, &apart).into_iter();
        let run_of = |(first, last)| Shown {
            numbers: Births { first, last, ..run },
            first_id: first,
        };
        let mut found: Vec<_> = numbers.map(run_of).collect();
        found.extend(entries.iter().map(|entry| Shown {
            numbers: Births {
                first: entry.number,
                last: entry.number,
                site: entry.site,
            },
            first_id: entry.id,
        }));
        Ok(found)
    }

    /// Gives rows of a site their next causal length, where it is another one.
    fn set_lives(
        &self,
        site: i64,
        run: (i64, i64),
        next: fn(CausalLength) -> CausalLength,
    ) -> rusqlite::Result<()> {
        let lane = life_lane(self.table, site);
        let (first, last) = (RowKey::Rowid(run.0), RowKey::Rowid(run.1));
        let lives = clocks::ranges(self.conn, lane, &first, &last)?;
        let set = |(from, to): (i64, i64), length: CausalLength| {
            let clock = Clock {
                site: OWN,
                version: self.version,
                causal_length: length.get(),
            };
            let (from, to) = (RowKey::Rowid(from), RowKey::Rowid(to));
            clocks::set(self.conn, lane, &from, &to, clock)
        };
        for life in &lives {
            let known = length(&life.clock);
            if next(known) != known {
                set(numbers(life), next(known))?;
            }
        }
        let taken: Vec<_> = lives.iter().map(numbers).collect();
        if next(CausalLength::FIRST) != CausalLength::FIRST {
            for run in between(run, &taken) {
                set(run, next(CausalLength::FIRST))?;
            }
        }
        Ok(())
    }

    /// Stamps rows that were written as a whole. One that was known goes on; one at an id that
    /// nobody has is ours.
    pub(super) fn write(&mut self, run: (i64, i64), clock: Clock) -> rusqlite::Result<()> {
        self.make_way(run)?;
        let known = births::ranges(self.conn, self.table, run.0, run.1)?;
        let (first, last) = (RowKey::Rowid(run.0), RowKey::Rowid(run.1));
        let row = Lane {
            table_id: self.table.id,
            lane: ROW,
        };
        clocks::set(self.conn, row, &first, &last, clock)?;
        for births in &known {
            self.set_born((births.first, births.last), births.site)?;
        }
        let taken: Vec<_> = known.iter().map(|run| (run.first, run.last)).collect();
        for (first, last) in between(run, &taken) {
            let ours = Births {
                first,
                last,
                site: OWN,
            };
            for Births { first, last, site } in self.shown(ours)?.iter().map(|shown| shown.numbers)
            {
                self.set_lives(site, (first, last), CausalLength::born)?;
            }
            if self.has_rekeyed {
                self.come_back((first, last))?;
                self.take_numbers((first, last))?;
            }
        }
        Ok(())
    }

    /// Moves parked rows from ids that SQLite gave to new rows, since nobody saw them there.
    fn make_way(&mut self, run: (i64, i64)) -> rusqlite::Result<()> {
        let parked = store::numbers(self.conn, self.table.id, run)?;
        if parked.is_empty() {
            return Ok(());
        }
        let _quiet = Quiet::begin(self.conn)?;
        for id in parked {
            let mut placing = Placing::new(self.conn, self.table);
            let number = placing.make_way(id)?;
            self.touched.extend(number.map(|number| (number, number)));
            self.has_rekeyed = true;
            self.take_moves(&placing);
            self.renames.note_reused(id, self.version, id);
        }
        Ok(())
    }

    fn take_moves(&mut self, placing: &Placing<'_>) {
        let ids = placing.moved.iter().flat_map(|(from, to)| [*from, *to]);
        self.moved.extend(ids.map(RowKey::Rowid));
        self.renames.note_all(&placing.moved);
    }

    /// A row that was written under the id of a dead one which is kept for it is that one again.
    fn come_back(&mut self, run: (i64, i64)) -> rusqlite::Result<()> {
        for entry in rekeyed::within(self.conn, self.table.id, run)? {
            self.set_born((entry.id, entry.id), entry.site)?;
            self.touched.push((entry.number, entry.number));
        }
        Ok(())
    }

    /// Our own rows that were gone and are written anew have their numbers again.
    fn take_numbers(&mut self, run: (i64, i64)) -> rusqlite::Result<()> {
        for entry in rekeyed::by_numbers(self.conn, self.table.id, run)? {
            if entry.site == OWN {
                rekeyed::remove(self.conn, self.table.id, (entry.number, entry.site))?;
                self.renames.note(entry.id, entry.number);
            }
        }
        Ok(())
    }

    fn set_born(&self, run: (i64, i64), site: i64) -> rusqlite::Result<()> {
        let run = (RowKey::Rowid(run.0), RowKey::Rowid(run.1));
        births::set(self.conn, self.table, (&run.0, &run.1), site, OWN)
    }

    /// Gives ids that became free to the rows that want them. What was noted of these follows.
    pub(super) fn arrange(mut self, notes: &mut Notes) -> rusqlite::Result<BTreeSet<RowKey>> {
        if !self.has_rekeyed || self.touched.is_empty() {
            return Ok(self.moved);
        }
        let mut numbers = Vec::new();
        for run in &self.touched {
            let wanted = rekeyed::by_numbers(self.conn, self.table.id, *run)?;
            numbers.extend(wanted.iter().map(|entry| entry.number));
        }
        let mut placing = Placing::new(self.conn, self.table);
        for id in placing.passed_over()? {
            let is_free = |run: &(i64, i64)| (run.0..=run.1).contains(&id);
            numbers.extend(self.touched.iter().any(is_free).then_some(id));
        }
        if numbers.is_empty() {
            return Ok(self.moved);
        }
        numbers.sort_unstable();
        numbers.dedup();
        let _quiet = Quiet::begin(self.conn)?;
        numbers
            .into_iter()
            .try_for_each(|number| placing.arrange(number))?;
        self.take_moves(&placing);
        notes.written = followed(&notes.written, &placing.moved);
        Ok(self.moved)
    }
}
