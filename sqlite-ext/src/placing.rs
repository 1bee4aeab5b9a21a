//! Gives every row of a table with counted ids the id under which it is shown.
//!
//! A row wants its number. Of several living rows with one number, the one from the site that
//! tracked the table keeps it, then the one with the least site id; every other row is shown
//! under [`rekeyed`]'s id. So the ids are a function of which rows live, whatever the order in
//! which that became known: when a row arrives or goes, others move.

use rusqlite::{Connection, params};
use syncline_crdt::{SiteId, rekeyed};

use crate::births;
use crate::clocks::{self, Lane, ROW};
use crate::constraints::{self, masks, store};
use crate::joined;
use crate::rekeyed::{self, Rekeyed};
use crate::table::{RowKey, Table};

/// A number and the ordinal of the site that created the row.
pub(crate) type Identity = (i64, i64);

/// One table's ids.
pub(crate) struct Placing<'a> {
    conn: &'a Connection,
    table: &'a Table,
    /// Ids whose rows moved, from and to, in order.
    pub(crate) moved: Vec<(i64, i64)>,
}

impl<'a> Placing<'a> {
    pub(crate) fn new(conn: &'a Connection, table: &'a Table) -> Self {
        Placing {
            conn,
            table,
            moved: Vec::new(),
        }
    }

    /// Returns who is shown under an id.
    pub(crate) fn identity(&self, id: i64) -> rusqlite::Result<Option<Identity>> {
        let Some(site) = births::at(self.conn, self.table, id)? else {
            return Ok(None);
        };
        let entry = rekeyed::by_id(self.conn, self.table.id, id)?;
        Ok(Some(
            entry.map_or((id, site), |entry| (entry.number, entry.site)),
        ))
    }

    /// Returns the id under which a living row is shown.
    pub(crate) fn find(&self, (number, site): Identity) -> rusqlite::Result<Option<i64>> {
        if let Some(entry) = rekeyed::of(self.conn, self.table.id, (number, site))? {
            let is_alive = births::at(self.conn, self.table, entry.id)?.is_some();
            return Ok(is_alive.then_some(entry.id));
        }
        let holder = self.identity(number)?;
        Ok(holder
            .filter(|holder| *holder == (number, site))
            .map(|_| number))
    }

    /// Returns the id of a row, and keeps one for it if it does not live.
    pub(crate) fn keep(&mut self, identity: Identity) -> rusqlite::Result<i64> {
        if let Some(id) = self.find(identity)? {
            return Ok(id);
        }
        match rekeyed::of(self.conn, self.table.id, identity)? {
            Some(entry) => Ok(entry.id),
            None => self.place_apart(identity, 0),
        }
    }

    /// Moves the parked row of an id that a new row was given, and returns its number.
    pub(crate) fn make_way(&mut self, id: i64) -> rusqlite::Result<Option<i64>> {
        let parked = self.identity(id)?;
        self.displace(id)?;
        Ok(parked.map(|(number, _)| number))
    }

    /// Finds the id for a row that begins to live, and makes way for it.
    pub(crate) fn claim(&mut self, (number, site): Identity) -> rusqlite::Result<i64> {
        let known = rekeyed::of(self.conn, self.table.id, (number, site))?;
        match self.identity(number)? {
            None => {}
            Some((held, holder)) if held == number && self.rank(holder)? < self.rank(site)? => {
                return match known {
                    Some(entry) => Ok(entry.id),
                    None => self.place_apart((number, site), 0),
                };
            }
            Some(_) => self.displace(number)?,
        }
        if let Some(entry) = known {
            rekeyed::remove(self.conn, self.table.id, (number, site))?;
            self.moved.push((entry.id, number));
        }
        self.evict(number)?;
        Ok(number)
    }

    /// Lets the row that wants an id most have it, after the one that had it is gone.
    pub(crate) fn vacate(&mut self, id: i64) -> rusqlite::Result<()> {
        let mut best: Option<(SiteRank, Rekeyed)> = None;
        for entry in rekeyed::by_numbers(self.conn, self.table.id, (id, id))? {
            let rank = self.rank(entry.site)?;
            if self.is_alive(entry.id)? && best.as_ref().is_none_or(|(held, _)| rank < *held) {
                best = Some((rank, entry));
            }
        }
        let Some((_, entry)) = best else {
            return self.vacate_apart(id);
        };
        rekeyed::remove(self.conn, self.table.id, (entry.number, entry.site))?;
        self.evict(id)?;
        self.move_row(entry.id, id)?;
        self.vacate(entry.id)
    }

    /// The same for an id that only rows without their number want.
    fn vacate_apart(&mut self, id: i64) -> rusqlite::Result<()> {
        if id >= 0 {
            return Ok(());
        }
        let mut best: Option<(i64, SiteId, u32, Rekeyed)> = None;
        for entry in rekeyed::passed_over(self.conn, self.table.id)? {
            let site = self.site_id(entry.site)?;
            let wanted =
                (0..entry.attempt).find(|attempt| rekeyed(entry.number, site, *attempt) == id);
            let Some(attempt) = wanted else { continue };
            let is_better = best
                .as_ref()
                .is_none_or(|(number, held, ..)| (entry.number, site) < (*number, *held));
            if is_better && self.is_alive(entry.id)? {
                best = Some((entry.number, site, attempt, entry));
            }
        }
        let Some((_, _, attempt, entry)) = best else {
            return Ok(());
        };
        self.evict(id)?;
        rekeyed::set(
            self.conn,
            self.table.id,
            Rekeyed {
                id,
                attempt,
                ..entry
            },
        )?;
        self.move_row(entry.id, id)?;
        self.vacate(entry.id)
    }

    /// Gives a number to the row that should have it, after the ranks changed or a row came to life
    /// under another id.
    pub(crate) fn arrange(&mut self, number: i64) -> rusqlite::Result<()> {
        let Some((held, holder)) = self.identity(number)? else {
            return self.vacate(number);
        };
        let holder = self.rank(holder)?;
        for entry in rekeyed::by_numbers(self.conn, self.table.id, (number, number))? {
            let is_first = held != number || self.rank(entry.site)? < holder;
            if is_first && self.is_alive(entry.id)? {
                self.displace(number)?;
                return self.vacate(number);
            }
        }
        Ok(())
    }

    /// Gives every number that two rows want to the one that should have it.
    pub(crate) fn arrange_all(&mut self) -> rusqlite::Result<()> {
        let all = rekeyed::by_numbers(self.conn, self.table.id, (i64::MIN, i64::MAX))?;
        let mut numbers: Vec<i64> = all.iter().map(|entry| entry.number).collect();
        numbers.dedup();
        numbers
            .into_iter()
            .try_for_each(|number| self.arrange(number))
    }

    /// Returns the ids that rows wanted before the ones they have.
    pub(crate) fn passed_over(&self) -> rusqlite::Result<Vec<i64>> {
        let mut ids = Vec::new();
        for entry in rekeyed::passed_over(self.conn, self.table.id)? {
            let site = self.site_id(entry.site)?;
            ids.extend((0..entry.attempt).map(|attempt| rekeyed(entry.number, site, attempt)));
        }
        Ok(ids)
    }

    fn is_alive(&self, id: i64) -> rusqlite::Result<bool> {
        Ok(births::at(self.conn, self.table, id)?.is_some())
    }

    /// Moves the row that is shown under an id to the next one of its own.
    fn displace(&mut self, id: i64) -> rusqlite::Result<()> {
        let Some(identity) = self.identity(id)? else {
            return Ok(());
        };
        let entry = rekeyed::of(self.conn, self.table.id, identity)?;
        let attempt = entry.map_or(0, |entry| entry.attempt + 1);
        let to = self.place_apart(identity, attempt)?;
        self.move_row(id, to)
    }

    /// Finds an id for a row that does not have its number, and notes it.
    fn place_apart(&mut self, (number, site): Identity, first: u32) -> rusqlite::Result<i64> {
        let site_id = self.site_id(site)?;
        for attempt in first.. {
            let id = rekeyed(number, site_id, attempt);
            match self.identity(id)? {
                None => {}
                // Who has the id as its number keeps it.
                Some((held, _)) if held == id => continue,
                Some((held, holder)) => {
                    if (held, self.site_id(holder)?) < (number, site_id) {
                        continue;
                    }
                    self.displace(id)?;
                }
            }
            self.evict(id)?;
            let entry = Rekeyed {
                id,
                number,
                site,
                attempt,
            };
            rekeyed::set(self.conn, self.table.id, entry)?;
            return Ok(id);
        }
        unreachable!("of 2^32 ids one is free")
    }

    /// Gives a row that does not live another id, if an entry keeps this one for it.
    fn evict(&mut self, id: i64) -> rusqlite::Result<()> {
        let Some(entry) = rekeyed::by_id(self.conn, self.table.id, id)? else {
            return Ok(());
        };
        let identity = (entry.number, entry.site);
        rekeyed::remove(self.conn, self.table.id, identity)?;
        let to = self.place_apart(identity, entry.attempt + 1)?;
        self.moved.push((id, to));
        Ok(())
    }

    /// Returns who goes first: the site that tracked the table and what it held then, then the
    /// others by their ids.
    fn rank(&self, site: i64) -> rusqlite::Result<SiteRank> {
        let tracked = "SELECT site <> ?2, origin IS NOT ?2 FROM syncline_tables WHERE id = ?1";
        let (is_other, is_no_origin) = self
            .conn
            .prepare_cached(tracked)?
            .query_one([self.table.id, site], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((is_no_origin, is_other, self.site_id(site)?))
    }

    fn site_id(&self, ordinal: i64) -> rusqlite::Result<SiteId> {
        let id = "SELECT site_id FROM syncline_sites WHERE ordinal = ?1";
        self.conn
            .prepare_cached(id)?
            .query_one([ordinal], |row| row.get(0).map(SiteId))
    }

    /// Shows a row under another id, with its clocks.
    fn move_row(&mut self, from: i64, to: i64) -> rusqlite::Result<()> {
        let (old, new) = (RowKey::Rowid(from), RowKey::Rowid(to));
        if !store::rekey(self.conn, self.table.id, &old, &new)? {
            self.move_shown(&old, &new)?;
        }
        for lane in self.table.column_lanes().chain([ROW, births::BORN]) {
            let lane = Lane {
                table_id: self.table.id,
                lane,
            };
            if let Some(clock) = clocks::at(self.conn, lane, &old)? {
                clocks::clear(self.conn, lane, &old, &old)?;
                clocks::set(self.conn, lane, &new, &new, clock)?;
            }
        }
        if !self.table.joined.is_empty() {
            joined::rename(self.conn, self.table, &old, &new)?;
        }
        self.moved.push((from, to));
        Ok(())
    }

    /// Moves a row within the table. One that a constraint does not admit there is parked.
    fn move_shown(&self, old: &RowKey, new: &RowKey) -> rusqlite::Result<()> {
        let (name, rowid) = (self.table.quoted(), &self.table.rowid);
        let update = format!("UPDATE OR ABORT main.{name} SET {rowid} = ?2 WHERE {rowid} = ?1");
        let mut statement = self.conn.prepare_cached(&update)?;
        match statement.execute(params![old, new]) {
            Err(error) if constraints::is_met(self.conn, &error) => {
                constraints::hide(self.conn, self.table, &store::unpacked(old))?;
                store::rekey(self.conn, self.table.id, old, new)?;
            }
            done => {
                done?;
                masks::rekey(self.conn, self.table.id, old, new)?;
            }
        }
        Ok(())
    }
}

/// The less, the better.
type SiteRank = (bool, bool, SiteId);
