//! Joining again after an absence in which deletions were forgotten.
//!
//! The sender has seen everything up to its `until`. So a row here of which it has seen a part, and
//! which it does not name, was deleted and forgotten; and a row that it names in an earlier life
//! than one it has seen was deleted, forgotten and made anew.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_crdt::{Group, TableChanges, Value, pack_key};

use super::super::ImportError;
use super::{Merging, Met, length};
use crate::births::life_lane;
use crate::clocks::{self, Clock, Lane, ROW};
use crate::collect::{Past, Rejoin};
use crate::constraints::{self, Touched, store};
use crate::key_references::KeyNames;
use crate::quiet::Quiet;
use crate::renames::Renames;
use crate::shadow::{OWN, Sites};
use crate::table::{RowKey, Table};
use crate::track;
use crate::whose::Whose;
use crate::{other_names, rows};

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
        (group, born): (&Group, i64),
        sites: &Sites,
    ) -> Result<(), ImportError> {
        let Some(rejoin) = &mut self.past.rejoin else {
            return Ok(());
        };
        let names = rejoin.met.entry(self.table.id).or_default();
        let name = name(self.conn, self.table, &met.life_key, born)?;
        let is_first = names.insert(name);
        let ended = |life: &Clock| {
            length(life) > group.causal_length && is_first && rejoin.has_seen(sites, life)
        };
        if met.life.as_ref().is_some_and(ended) {
            self.forget(met, born)?;
            (met.place, met.life) = (None, None);
        }
        Ok(())
    }

    /// Removes a row, and that it ever was.
    fn forget(&mut self, met: &Met<'_>, born: i64) -> Result<(), ImportError> {
        self.guard.touch(&self.table.life_key(&met.key));
        self.note_gone(met, born);
        self.remove(met)?;
        let lane = life_lane(self.table, born);
        clocks::clear(self.conn, lane, &met.life_key, &met.life_key)?;
        self.vacate(met)
    }

    /// Returns the rows that the sender has seen and does not name: their keys, and who created
    /// them.
    fn unnamed(
        &self,
        rejoin: &Rejoin,
        named: &BTreeSet<RowKey>,
        sites: &Sites,
    ) -> rusqlite::Result<Vec<(Vec<Value>, i64)>> {
        let mut places = Vec::new();
        let mut whose = match self.table.is_counted() {
            true => Some(Whose::new(self.conn, self.table.id)?),
            false => None,
        };
        for range in clocks::all(self.conn, self.lane(ROW))? {
            let span = (&range.first, &range.last);
            let mut each = |place: RowKey, mut key: Vec<Value>| {
                let mut born = OWN;
                if let (Some(whose), RowKey::Rowid(id)) = (&mut whose, &place) {
                    let (number, site) = whose.at(self.conn, *id)?.unwrap_or((*id, OWN));
                    (key, born) = (vec![Value::Integer(number)], site);
                }
                let name = name(self.conn, self.table, &self.table.life_key(&key), born)?;
                if !named.contains(&name) {
                    places.push((place, (key, born), range.clock));
                }
                Ok(())
            };
            rows::for_each(self.conn, self.table, &[], span, |rowid, key| {
                each(
                    rowid.map_or_else(|| range.first.clone(), RowKey::Rowid),
                    key,
                )
            })?;
            store::for_each(self.conn, self.table.id, span, |place, row| {
                each(place, row.key)
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
        for (lane, born) in self.life_lanes(sites) {
            self.forget_deaths_in((lane, born), rejoin, named, sites)?;
        }
        Ok(())
    }

    /// Returns the lanes of causal lengths, each with the site that created its rows.
    fn life_lanes(&self, sites: &Sites) -> Vec<(Lane, i64)> {
        let of = |born| (life_lane(self.table, born), born);
        match self.table.is_counted() {
            true => sites.iter().map(|(ordinal, _, _)| of(ordinal)).collect(),
            false => vec![of(OWN)],
        }
    }

    fn forget_deaths_in(
        &self,
        (lane, born): (Lane, i64),
        rejoin: &Rejoin,
        named: &BTreeSet<RowKey>,
        sites: &Sites,
    ) -> rusqlite::Result<()> {
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
            for key in &keys {
                if !named.contains(&name(self.conn, self.table, key, born)?) {
                    clocks::clear(self.conn, lane, key, key)?;
                }
            }
        }
        Ok(())
    }
}

/// Returns what names a row among those that the sender named.
fn name(
    conn: &Connection,
    table: &Table,
    life_key: &RowKey,
    born: i64,
) -> rusqlite::Result<RowKey> {
    if let RowKey::Rowid(number) = life_key
        && table.is_counted()
    {
        let name = [Value::Integer(*number), Value::Integer(born)];
        return Ok(RowKey::Packed(pack_key(&name)));
    }
    let Some(mut names) = KeyNames::new(conn, table)? else {
        return Ok(life_key.clone());
    };
    names.name(conn, life_key)
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
    let (mut touched, mut renames) = (Touched::default(), Renames::default());
    let mut found = Vec::new();
    for name in tables {
        let name = &other_names::name_here(conn, name)?;
        let Some(id) = track::id_of(conn, name)? else {
            continue;
        };
        found.extend(Table::read(conn, id, name)?);
    }
    // Those last whose keys refer to rows of others.
    found.sort_by_key(|table| table.shape.refers());
    for table in found {
        let id = table.id;
        if table.shape.refers() {
            touched.join(std::mem::take(&mut renames).apply(conn)?);
        }
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
        let mut merging = Merging::new(conn, &table, &changes, &mut past, &mut renames)?;
        for (key, born) in merging.unnamed(rejoin, named, &sites)? {
            let met = merging.meet(&key, &key, born)?;
            merging.forget(&met, born)?;
            count += 1;
        }
        merging.forget_deaths(rejoin, named, &sites)?;
        touched.add(id, merging.guard.into_touched());
    }
    touched.join(renames.apply(conn)?);
    constraints::settle(conn, touched)?;
    Ok(count)
}
