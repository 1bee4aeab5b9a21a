//! Joining again after an absence in which deletions were forgotten.
//!
//! The sender has seen everything up to its `until`. So a row here of which it has seen a part, and
//! which it does not name, was deleted and forgotten; and a row that it names in an earlier life
//! than one it has seen was deleted, forgotten and made anew.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_crdt::{Group, TableChanges, Value};

use super::super::{ImportError, Quiet};
use super::{Merging, Met, length};
use crate::clocks::{self, Clock, LIFE, ROW};
use crate::collect::{Past, Rejoin};
use crate::constraints::{self, Touched, store};
use crate::rows;
use crate::shadow::Sites;
use crate::table::{RowKey, Table};
use crate::track;

impl Rejoin {
    fn has_seen(&self, sites: &Sites, clock: &Clock) -> bool {
        let stamp = sites.stamp(clock.site, clock.version);
        stamp.version <= self.until.version(stamp.site)
    }
}

impl Merging<'_> {
    /// Notes that the sender names a row, and forgets a life here that it has seen end.
    pub(super) fn rejoin(
        &mut self,
        met: &mut Met<'_>,
        group: &Group,
        sites: &Sites,
    ) -> Result<(), ImportError> {
        let Some(rejoin) = &mut self.past.rejoin else {
            return Ok(());
        };
        let names = rejoin.met.entry(self.table.id).or_default();
        let is_first = names.insert(met.life_key.clone());
        let ended = |life: &Clock| {
            length(life) > group.causal_length && is_first && rejoin.has_seen(sites, life)
        };
        if met.life.as_ref().is_some_and(ended) {
            self.forget(met)?;
            (met.place, met.life) = (None, None);
        }
        Ok(())
    }

    /// Removes a row, and that it ever was.
    fn forget(&mut self, met: &Met<'_>) -> Result<(), ImportError> {
        self.guard.touch(&met.life_key);
        self.remove(met)?;
        clocks::clear(self.conn, self.lane(LIFE), &met.life_key, &met.life_key)?;
        Ok(())
    }

    /// Returns the keys of the rows that the sender has seen and does not name.
    fn unnamed(
        &self,
        rejoin: &Rejoin,
        named: &BTreeSet<RowKey>,
        sites: &Sites,
    ) -> rusqlite::Result<Vec<Vec<Value>>> {
        let mut places = Vec::new();
        for range in clocks::all(self.conn, self.lane(ROW))? {
            let span = (&range.first, &range.last);
            rows::for_each(self.conn, self.table, &[], span, |rowid, key| {
                if !named.contains(&self.table.life_key(&key)) {
                    let place = rowid.map_or_else(|| range.first.clone(), RowKey::Rowid);
                    places.push((place, key, range.clock));
                }
                Ok(())
            })?;
            store::for_each(self.conn, self.table.id, span, |place, row| {
                if !named.contains(&place) {
                    places.push((place, row.key, range.clock));
                }
                Ok(())
            })?;
        }
        let has_seen = |clock: &Clock| {
            clock.version > Clock::UNWRITTEN.version && rejoin.has_seen(sites, clock)
        };
        let mut unnamed = Vec::new();
        for (place, key, whole) in places {
            let mut is_seen = has_seen(&whole);
            for column in (0..self.used.len()).filter(|column| self.used[*column]) {
                let own = clocks::at(self.conn, self.column_lane(column), &place)?;
                is_seen |= own.as_ref().is_some_and(has_seen);
            }
            if is_seen {
                unnamed.push(key);
            }
        }
        Ok(unnamed)
    }

    /// Forgets the deletions that the sender has seen and forgotten.
    fn forget_deaths(
        &self,
        rejoin: &Rejoin,
        named: &BTreeSet<RowKey>,
        sites: &Sites,
    ) -> rusqlite::Result<()> {
        let lane = self.lane(LIFE);
        for range in clocks::all(self.conn, lane)? {
            if length(&range.clock).is_alive() || !rejoin.has_seen(sites, &range.clock) {
                continue;
            }
            let keys: Vec<RowKey> = match (&range.first, &range.last) {
                (RowKey::Rowid(first), RowKey::Rowid(last)) => {
                    (*first..=*last).map(RowKey::Rowid).collect()
                }
                _ => vec![range.first],
            };
            for key in keys.iter().filter(|key| !named.contains(key)) {
                clocks::clear(self.conn, lane, key, key)?;
            }
        }
        Ok(())
    }
}

/// Removes the rows of the sender's tables that it has seen and does not name, and returns how many
/// there were.
pub(in crate::apply) fn sweep<'n>(
    conn: &Connection,
    tables: impl Iterator<Item = &'n String>,
    rejoin: &Rejoin,
) -> Result<usize, ImportError> {
    let _quiet = Quiet::begin(conn)?;
    let sites = Sites::load(conn)?;
    let nothing = BTreeSet::new();
    let mut count = 0;
    let mut touched = Touched::default();
    for name in tables {
        let Some(id) = track::id_of(conn, name)? else {
            continue;
        };
        let Some(table) = Table::read(conn, id, name)? else {
            continue;
        };
        let changes = TableChanges {
            name: table.name.clone(),
            key_columns: table
                .key_columns
                .iter()
                .map(|key| key.name.clone())
                .collect(),
            columns: vec![],
            groups: vec![],
        };
        let named = rejoin.met.get(&id).unwrap_or(&nothing);
        let mut past = Past::default();
        let mut merging = Merging::new(conn, &table, &changes, &mut past)?;
        for key in merging.unnamed(rejoin, named, &sites)? {
            let met = merging.meet(&key, &key)?;
            merging.forget(&met)?;
            count += 1;
        }
        merging.forget_deaths(rejoin, named, &sites)?;
        touched.add(id, merging.guard.into_touched());
    }
    constraints::settle(conn, &touched)?;
    Ok(count)
}
