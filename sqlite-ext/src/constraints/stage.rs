//! The contest for unique values, on the tables themselves.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params_from_iter};
use syncline_crdt::{Arena, Claim, Stamp, Value, settle_claims};

use super::checks;
use super::listing::{self, Ground};
use super::scratch::{self, Scratch};
use super::store::{self, ParkedRow};
use super::unique::{self, UniqueIndex};
use crate::clocks::{self, Lane, ROW};
use crate::rows;
use crate::shadow::Sites;
use crate::table::{KeyKind, RowKey, Table};
use crate::value::Bound;

/// One table's contest.
pub(super) struct Stage<'a> {
    conn: &'a Connection,
    table: &'a Table,
    sites: &'a Sites,
    indices: Vec<UniqueIndex>,
    /// The lanes whose stamps make a row's claim.
    lanes: Vec<i64>,
    scratch: Option<Scratch>,
    /// The index under which each rival was met last.
    grounds: BTreeMap<Vec<u8>, usize>,
    /// Rows that were shown or parked.
    pub(super) moved_count: usize,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        table: &'a Table,
        sites: &'a Sites,
    ) -> rusqlite::Result<Self> {
        let indices = unique::indices(conn, &table.name)?;
        let lanes = unique::claiming_lanes(conn, table, &indices)?;
        Ok(Stage {
            conn,
            table,
            sites,
            indices,
            lanes,
            scratch: None,
            grounds: BTreeMap::new(),
            moved_count: 0,
        })
    }

    /// Decides which of the rows that were written, or depend on them, are shown.
    pub(super) fn settle(&mut self, touched: &BTreeSet<RowKey>) -> rusqlite::Result<()> {
        let mut queue = BTreeSet::new();
        for place in touched {
            if let Some(row) = store::at(self.conn, self.table.id, place)?
                && self.enter(place, row)?
            {
                queue.insert(self.claim(place, place)?);
            }
        }
        for place in touched {
            let winner = (self.table.id, place);
            let mut depend = store::losers(self.conn, self.table.id, winner)?;
            depend.extend(self.claimants(&store::unpacked(place))?);
            for place in depend {
                queue.insert(self.claim(&place, &place)?);
            }
        }
        settle_claims(self, queue)
    }

    /// Completes a parked row that was written and notes what it claims. Returns whether the table
    /// admits it at all.
    fn enter(&mut self, place: &RowKey, mut row: ParkedRow) -> rusqlite::Result<bool> {
        store::drop_claims(self.conn, self.table.id, place)?;
        let scratch = match self.scratch.take() {
            Some(scratch) => scratch,
            None => Scratch::open(self.conn, &self.table.name)?,
        };
        let scratch = self.scratch.insert(scratch);
        if let Err(error) = scratch.fill(self.table, &mut row) {
            let claim = self.claim(place, place)?;
            let broken = checks::broken(&error);
            let reason = match &broken {
                Some(_) => "what was written to it on several devices breaks it".to_owned(),
                None => format!("the table does not admit it: {error}"),
            };
            let ground = Ground {
                broken: broken.as_deref().unwrap_or_default(),
                reason,
                winner: None,
            };
            listing::note(self.conn, self.table, place, &ground, &claim)?;
            return Ok(false);
        }
        store::put(self.conn, self.table, &row)?;
        for index in &self.indices {
            if let Some(tuple) = index.tuple(&scratch.conn, self.table, &row.key)? {
                let claim = (index.label.as_str(), &index.form(&tuple)[..]);
                store::add_claim(self.conn, self.table.id, claim, place)?;
            }
        }
        Ok(true)
    }

    /// Returns a row's claim: the latest stamp among its columns that an index mentions.
    fn claim(&self, place: &RowKey, clocks_at: &RowKey) -> rusqlite::Result<Claim> {
        let at = |lane| {
            let lane = Lane {
                table_id: self.table.id,
                lane,
            };
            let clock = clocks::at(self.conn, lane, clocks_at)?;
            Ok::<_, rusqlite::Error>(clock.map(|clock| self.sites.stamp(clock.site, clock.version)))
        };
        let whole = at(ROW)?.unwrap_or_default();
        let mut latest: Option<Stamp> = None;
        for lane in &self.lanes {
            latest = latest.max(Some(at(*lane)?.unwrap_or(whole)));
        }
        Ok(Claim::new(latest.unwrap_or(whole), store::packed(place)))
    }

    /// Returns the places of the parked rows that are rivals of a shown row; none if it is not
    /// shown.
    fn claimants(&self, key: &[Value]) -> rusqlite::Result<Vec<RowKey>> {
        let mut found = Vec::new();
        for index in &self.indices {
            if let Some(tuple) = index.tuple(self.conn, self.table, key)? {
                let claim = (index.label.as_str(), &index.form(&tuple)[..]);
                found.extend(store::claimants(self.conn, self.table.id, claim)?);
            }
        }
        Ok(found)
    }

    fn place_of(&self, claim: &Claim) -> RowKey {
        store::place_of(self.table, claim.key())
    }

    /// Takes a shown row out of the table and keeps it as a parked one.
    fn hide(&self, place: &RowKey) -> rusqlite::Result<()> {
        let key = store::unpacked(place);
        let mut claims = Vec::new();
        for index in &self.indices {
            if let Some(tuple) = index.tuple(self.conn, self.table, &key)? {
                claims.push((index.label.as_str(), index.form(&tuple)));
            }
        }
        hide(self.conn, self.table, &key)?;
        for (label, form) in &claims {
            store::add_claim(self.conn, self.table.id, (label, form), place)?;
        }
        Ok(())
    }
}

impl Arena for Stage<'_> {
    type Error = rusqlite::Error;

    fn shown_rivals(&mut self, claim: &Claim) -> rusqlite::Result<Vec<Claim>> {
        let place = self.place_of(claim);
        let Some(mut row) = store::at(self.conn, self.table.id, &place)? else {
            return Ok(vec![]);
        };
        let scratch = match self.scratch.take() {
            Some(scratch) => scratch,
            None => Scratch::open(self.conn, &self.table.name)?,
        };
        let scratch = self.scratch.insert(scratch);
        scratch.fill(self.table, &mut row)?;
        let mut found: BTreeMap<RowKey, (usize, Option<i64>)> = BTreeMap::new();
        for (at, index) in self.indices.iter().enumerate() {
            if let Some(tuple) = index.tuple(&scratch.conn, self.table, &row.key)? {
                index.holders(self.conn, self.table, &tuple, |rowid, key| {
                    let holder = store::place(self.table, &key);
                    found.entry(holder).or_insert((at, rowid));
                })?;
            }
        }
        self.grounds.clear();
        let mut rivals = Vec::new();
        for (place, (at, rowid)) in found {
            let clocks_at = match rowid {
                Some(rowid) => RowKey::Rowid(rowid),
                None => place.clone(),
            };
            rivals.push(self.claim(&place, &clocks_at)?);
            self.grounds.insert(store::packed(&place), at);
        }
        Ok(rivals)
    }

    fn parked_rivals(&mut self, claim: &Claim) -> rusqlite::Result<Vec<Claim>> {
        let key = store::unpacked(&self.place_of(claim));
        let places = self.claimants(&key)?;
        places
            .iter()
            .map(|place| self.claim(place, place))
            .collect()
    }

    fn show(&mut self, claim: &Claim) -> rusqlite::Result<()> {
        self.moved_count += 1;
        show(self.conn, self.table, &self.place_of(claim))
    }

    fn park(&mut self, claim: &Claim, winner: &Claim) -> rusqlite::Result<()> {
        let place = self.place_of(claim);
        if !store::contains(self.conn, self.table.id, &place)? {
            self.moved_count += 1;
            self.hide(&place)?;
        }
        let met = self
            .grounds
            .get(winner.key())
            .or_else(|| self.grounds.get(claim.key()));
        let broken = met.map_or("", |at| &self.indices[*at].label);
        let ground = Ground {
            broken,
            reason: "claimed the same values earlier".to_owned(),
            winner: Some(winner),
        };
        listing::note(self.conn, self.table, &place, &ground, claim)
    }
}

/// Moves a shown row with its clocks from the table to the parked rows.
pub(crate) fn hide(
    conn: &Connection,
    table: &Table,
    key: &[Value],
) -> rusqlite::Result<Option<RowKey>> {
    let Some(shown_at) = rows::place(conn, table, key)? else {
        return Ok(None);
    };
    let names: Vec<&str> = table.captured().map(|column| &*column.name).collect();
    let mut row = None;
    rows::for_each_named(conn, table, &names, (&shown_at, &shown_at), |_, values| {
        let (key, cells) = values.split_at(table.key_columns.len());
        let lanes = table.captured().map(|column| column.lane);
        row = Some(ParkedRow {
            key: key.to_vec(),
            cells: lanes.zip(cells.iter().cloned()).collect(),
        });
        Ok(())
    })?;
    let Some(row) = row else { return Ok(None) };
    let (name, condition) = (table.quoted(), table.key_condition(1));
    conn.prepare_cached(&format!("DELETE FROM main.{name} WHERE {condition}"))?
        .execute(params_from_iter(row.key.iter().map(Bound)))?;
    let place = store::put(conn, table, &row)?;
    store::move_clocks(conn, table, &shown_at, &place)?;
    Ok(Some(place))
}

/// Moves a parked row with its clocks to the table.
pub(super) fn show(conn: &Connection, table: &Table, place: &RowKey) -> rusqlite::Result<()> {
    let Some(row) = store::at(conn, table.id, place)? else {
        return Ok(());
    };
    scratch::insert(conn, table, &row)?;
    store::remove(conn, table.id, place)?;
    if table.kind == KeyKind::Rowid {
        let rowid = RowKey::Rowid(conn.last_insert_rowid());
        store::move_clocks(conn, table, place, &rowid)?;
    }
    Ok(())
}
