//! One table's rows between the table and the store: the contest for unique values, and both ways.

mod masking;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rusqlite::{Connection, Error, params_from_iter};
use syncline_crdt::{Arena, Claim, Hlc, Stamp, Value, settle_claims};

use super::checks;
use super::listing::{self, Ground};
use super::masks;
use super::reference::Reference;
use super::scratch::{self, Scratch};
use super::store::{self, ParkedRow, Standing};
use super::unique::{self, Claiming, UniqueIndex};
use crate::clocks::{self, Lane, ROW};
use crate::rows;
use crate::shadow::Sites;
use crate::table::{KeyKind, RowKey, Table};
use crate::value::Bound;

/// The label of a constraint, and the form of what a row claims or refers to by it.
type Labelled = (String, Vec<u8>);

/// One table's rows.
pub(super) struct Stage<'a> {
    conn: &'a Connection,
    table: &'a Table,
    sites: &'a Sites,
    indices: Vec<UniqueIndex>,
    /// What makes a row's claim.
    claiming: Claiming,
    /// What its rows refer to.
    references: Vec<Rc<Reference>>,
    scratch: Option<Scratch>,
    /// The index under which each rival was met last.
    grounds: BTreeMap<Vec<u8>, usize>,
    /// Rows that were shown.
    pub(super) shown: BTreeSet<RowKey>,
    /// Rows that were taken out of the table.
    pub(super) hidden: BTreeSet<RowKey>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        table: &'a Table,
        sites: &'a Sites,
        references: Vec<Rc<Reference>>,
    ) -> rusqlite::Result<Self> {
        let indices = unique::indices(conn, &table.name)?;
        let claiming = unique::claiming(conn, table, &indices)?;
        Ok(Stage {
            conn,
            table,
            sites,
            indices,
            claiming,
            references,
            scratch: None,
            grounds: BTreeMap::new(),
            shown: BTreeSet::new(),
            hidden: BTreeSet::new(),
        })
    }

    /// Completes the parked ones of the rows that were written, and notes what they claim.
    pub(super) fn enter(&mut self, touched: &BTreeSet<RowKey>) -> rusqlite::Result<()> {
        for place in touched {
            if let Some(row) = store::at(self.conn, self.table.id, place)? {
                self.enter_row(place, row)?;
            }
        }
        Ok(())
    }

    fn enter_row(&mut self, place: &RowKey, mut row: ParkedRow) -> rusqlite::Result<()> {
        let (conn, table) = (self.conn, self.table);
        store::drop_claims(conn, table.id, place)?;
        if let Err(error) = self.fill(&mut row) {
            return self.note_unfit(place, &error);
        }
        store::put(conn, table, &row)?;
        // What it refers to is what it keeps, and what it holds is what it would show.
        let mut claims = self.references_of(self.copy(), &row.key)?;
        if !self.mask_row(&mut row)?.is_empty()
            && let Err(error) = self.fill(&mut row)
        {
            self.add_claims(place, &claims)?;
            return self.note_unfit(place, &error);
        }
        if store::standing(conn, table.id, place)? == Some(Standing::Unfit) {
            store::set_standing(conn, table.id, place, Standing::Contends)?;
        }
        claims.extend(self.holdings_of(self.copy(), &row.key)?);
        self.add_claims(place, &claims)
    }

    /// Notes that the table does not admit a row as it is.
    fn note_unfit(&self, place: &RowKey, error: &Error) -> rusqlite::Result<()> {
        let (conn, table) = (self.conn, self.table);
        store::set_standing(conn, table.id, place, Standing::Unfit)?;
        let claim = self.claim(place, place)?;
        let broken = checks::broken(error);
        let reason = match &broken {
            Some(_) => "what was written to it on several devices breaks it".to_owned(),
            None => format!("the table does not admit it: {error}"),
        };
        let ground = Ground {
            broken: broken.as_deref().unwrap_or_default(),
            reason,
            winner: None,
        };
        listing::note(conn, table, place, &ground, claim.stamp())
    }

    /// Returns the copy of the table, after a row was put into it.
    fn copy(&self) -> &Connection {
        let scratch = self.scratch.as_ref();
        &scratch.expect("a row was put into it").conn
    }

    /// Makes a parked row the only one of the copy, and completes it.
    fn fill(&mut self, row: &mut ParkedRow) -> rusqlite::Result<()> {
        let scratch = match self.scratch.take() {
            Some(scratch) => scratch,
            None => Scratch::open(self.conn, &self.table.name)?,
        };
        self.scratch.insert(scratch).fill(self.table, row)
    }

    /// Returns what a row holds under the unique indices: labels and forms. `at` is open on the table
    /// or on its copy.
    fn holdings_of(&self, at: &Connection, key: &[Value]) -> rusqlite::Result<Vec<Labelled>> {
        let mut found = Vec::new();
        for index in &self.indices {
            if let Some(tuple) = index.tuple(at, self.table, key)? {
                found.push((index.label.clone(), index.form(&tuple)));
            }
        }
        Ok(found)
    }

    /// Returns what a row refers to, in the same way.
    fn references_of(&self, at: &Connection, key: &[Value]) -> rusqlite::Result<Vec<Labelled>> {
        let mut found = Vec::new();
        for reference in &self.references {
            if let Some(values) = reference.values(at, key)? {
                let form = reference.form(self.conn, &values)?;
                found.push((reference.key.label.clone(), form));
            }
        }
        Ok(found)
    }

    fn add_claims(&self, place: &RowKey, claims: &[(String, Vec<u8>)]) -> rusqlite::Result<()> {
        for (label, form) in claims {
            store::add_claim(self.conn, self.table.id, (label, form), place)?;
        }
        Ok(())
    }

    /// Returns what a row refers to, if it is there and refers to anything.
    pub(super) fn reference(
        &mut self,
        reference: &Reference,
        place: &RowKey,
    ) -> rusqlite::Result<Option<Vec<Value>>> {
        let Some(mut row) = store::at(self.conn, self.table.id, place)? else {
            return reference.values(self.conn, &store::unpacked(place));
        };
        self.fill(&mut row)?;
        let scratch = self.scratch.as_ref().expect("a row was put into it");
        reference.values(&scratch.conn, &row.key)
    }

    /// Decides which of the rows that were written, or depend on them, are shown.
    pub(super) fn contest(&mut self, touched: &BTreeSet<RowKey>) -> rusqlite::Result<()> {
        let mut queue = BTreeSet::new();
        for place in touched {
            if store::standing(self.conn, self.table.id, place)? == Some(Standing::Contends) {
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

    /// Keeps a row out of sight, since something that it needs is not there.
    pub(super) fn bar(
        &mut self,
        place: &RowKey,
        ground: &Ground<'_>,
        standing: Standing,
        columns: &[String],
    ) -> rusqlite::Result<()> {
        if !store::contains(self.conn, self.table.id, place)? {
            self.hide(place)?;
        }
        store::set_standing(self.conn, self.table.id, place, standing)?;
        let is_named = |name: &String| columns.iter().any(|own| own.eq_ignore_ascii_case(name));
        let named = self.table.columns.iter().filter(|c| is_named(&c.name));
        let mut lanes: Vec<i64> = named.map(|column| column.lane).collect();
        if lanes.is_empty() {
            lanes = self
                .table
                .columns
                .iter()
                .map(|column| column.lane)
                .collect();
        }
        let since = self.latest(&lanes, place)?;
        listing::note(self.conn, self.table, place, ground, since)
    }

    /// Returns a row's claim.
    fn claim(&self, place: &RowKey, clocks_at: &RowKey) -> rusqlite::Result<Claim> {
        let stamp = match &self.claiming {
            Claiming::Latest(lanes) => self.latest(lanes, clocks_at)?,
            Claiming::Earliest(lanes) => {
                let (stamps, whole) = self.stamps(lanes, clocks_at)?;
                let written = stamps.into_iter().filter(|stamp| stamp.version > Hlc::ZERO);
                written.min().unwrap_or(whole)
            }
        };
        Ok(Claim::new(stamp, store::packed(place)))
    }

    /// Returns the latest stamp of a row in some lanes.
    fn latest(&self, lanes: &[i64], clocks_at: &RowKey) -> rusqlite::Result<Stamp> {
        let (stamps, whole) = self.stamps(lanes, clocks_at)?;
        Ok(stamps.into_iter().max().unwrap_or(whole))
    }

    /// Returns a row's stamps in some lanes, and its own.
    fn stamps(&self, lanes: &[i64], clocks_at: &RowKey) -> rusqlite::Result<(Vec<Stamp>, Stamp)> {
        let at = |lane| {
            let lane = Lane {
                table_id: self.table.id,
                lane,
            };
            let clock = clocks::at(self.conn, lane, clocks_at)?;
            Ok::<_, rusqlite::Error>(clock.map(|clock| self.sites.stamp(clock.site, clock.version)))
        };
        let whole = at(ROW)?.unwrap_or_default();
        let mut stamps = Vec::with_capacity(lanes.len());
        for lane in lanes {
            stamps.push(at(*lane)?.unwrap_or(whole));
        }
        Ok((stamps, whole))
    }

    /// Returns the places of the parked rows that are rivals of a shown row; none if it is not
    /// shown.
    fn claimants(&self, key: &[Value]) -> rusqlite::Result<Vec<RowKey>> {
        let mut found = Vec::new();
        for index in &self.indices {
            if let Some(tuple) = index.tuple(self.conn, self.table, key)? {
                let claim = (index.label.as_str(), &index.form(&tuple)[..]);
                let claimants = store::claimants(self.conn, self.table.id, claim)?;
                let contends = |(_, standing): &(RowKey, _)| *standing == Standing::Contends;
                let contending = claimants.into_iter().filter(contends);
                found.extend(contending.map(|(place, _)| place));
            }
        }
        Ok(found)
    }

    fn place_of(&self, claim: &Claim) -> RowKey {
        store::place_of(self.table, claim.key())
    }

    /// Takes a shown row out of the table and keeps it as a parked one.
    fn hide(&mut self, place: &RowKey) -> rusqlite::Result<()> {
        let key = store::unpacked(place);
        let mut claims = self.holdings_of(self.conn, &key)?;
        claims.extend(self.references_of(self.conn, &key)?);
        hide(self.conn, self.table, &key)?;
        self.hidden.insert(place.clone());
        if self.references.iter().any(|reference| !reference.hides()) {
            // What it keeps is not seen in the table.
            return self.enter(&BTreeSet::from([place.clone()]));
        }
        self.add_claims(place, &claims)
    }
}

impl Arena for Stage<'_> {
    type Error = Error;

    fn shown_rivals(&mut self, claim: &Claim) -> rusqlite::Result<Vec<Claim>> {
        let place = self.place_of(claim);
        if self.indices.is_empty() {
            return Ok(vec![]);
        }
        let Some(mut row) = store::at(self.conn, self.table.id, &place)? else {
            return Ok(vec![]);
        };
        self.mask_row(&mut row)?;
        self.fill(&mut row)?;
        let scratch = self.scratch.as_ref().expect("a row was put into it");
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
        let place = self.place_of(claim);
        let Some(mut row) = store::at(self.conn, self.table.id, &place)? else {
            return Ok(());
        };
        let masks = self.mask_row(&mut row)?;
        show(self.conn, self.table, &place, &row)?;
        self.keep(&place, &masks)?;
        self.shown.insert(place);
        Ok(())
    }

    fn park(&mut self, claim: &Claim, winner: &Claim) -> rusqlite::Result<()> {
        let place = self.place_of(claim);
        if !store::contains(self.conn, self.table.id, &place)? {
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
        listing::note(self.conn, self.table, &place, &ground, claim.stamp())
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
    let Some(mut row) = row else {
        return Ok(None);
    };
    let masked_at = store::place(table, &row.key);
    row.cells.extend(masks::at(conn, table.id, &masked_at)?);
    masks::remove(conn, table.id, &masked_at)?;
    let (name, condition) = (table.quoted(), table.key_condition(1));
    conn.prepare_cached(&format!("DELETE FROM main.{name} WHERE {condition}"))?
        .execute(params_from_iter(row.key.iter().map(Bound)))?;
    let place = store::put(conn, table, &row)?;
    store::move_clocks(conn, table, &shown_at, &place)?;
    Ok(Some(place))
}

/// Moves a parked row with its clocks to the table, where it looks like `row`.
fn show(conn: &Connection, table: &Table, place: &RowKey, row: &ParkedRow) -> rusqlite::Result<()> {
    scratch::insert(conn, table, row)?;
    store::remove(conn, table.id, place)?;
    if table.kind == KeyKind::Rowid {
        let rowid = RowKey::Rowid(conn.last_insert_rowid());
        store::move_clocks(conn, table, place, &rowid)?;
    }
    Ok(())
}
