//! The hash of the replicated state.

use rusqlite::Connection;
use syncline_crdt::{CausalLength, Digest, RowHasher, SiteId, Value};

use crate::FoldError;
use crate::births;
use crate::clocks::{self, Clock, Lane, ROW, Range};
use crate::constraints::masks::Masks;
use crate::constraints::store;
use crate::fold::read_folded;
use crate::joined;
use crate::key_references::{KeyNames, origins};
use crate::references::Referents;
use crate::rows;
use crate::shadow::{OWN, Sites, is_prepared};
use crate::table::{KeyKind, RowKey, Table, canonical};
use crate::whose::Whose;

/// Returns the hash of all live rows of all tracked tables with their clocks: equal on replicas
/// that have seen the same changes, in whatever order. Folds first.
///
/// # Errors
///
/// If SQLite fails.
pub fn digest(conn: &Connection, now_unix_ms: u64) -> Result<Digest, FoldError> {
    read_folded(conn, now_unix_ms, || {
        let mut digest = Digest::default();
        if !is_prepared(conn)? {
            return Ok(digest);
        }
        let sites = Sites::load(conn)?;
        for table in Table::all(conn)? {
            add_table(conn, &sites, &table, &mut digest)?;
            joined::add_to_digest(conn, &sites, &table, &mut digest)?;
        }
        Ok(digest)
    })
}

fn add_table(
    conn: &Connection,
    sites: &Sites,
    table: &Table,
    digest: &mut Digest,
) -> Result<(), FoldError> {
    let lane = |lane| Lane {
        table_id: table.id,
        lane,
    };
    let mut referents = Referents::new(conn, table)?;
    // Cells are hashed by column name, whose order is the same on every replica.
    let mut by_name: Vec<usize> = (0..table.columns.len()).collect();
    by_name.sort_by_key(|at| &table.columns[*at].name);
    let mut row_lane = Cursor::new(conn, lane(ROW))?;
    let mut lanes = Vec::new();
    for at in &by_name {
        lanes.push(Cursor::new(conn, lane(table.columns[*at].lane))?);
    }
    let lives = births::has_lives(conn, table)?;
    let mut whose = match table.is_counted() {
        true => Some(Whose::new(conn, table.id)?),
        false => None,
    };
    let mut names = KeyNames::new(conn, table)?;
    let mut hasher = RowHasher::default();
    for place in store::places(conn, table.id)? {
        add_parked(
            (conn, sites, table),
            &by_name,
            &place,
            (&mut whose, &mut names, &mut referents),
            digest,
        )?;
    }
    let masks = Masks::new(conn, table)?;
    let mut add = |place: RowKey, mut values: Vec<Value>| {
        masks.lift(&by_name, &mut values)?;
        let mut born = None;
        if let (Some(whose), RowKey::Rowid(id)) = (&mut whose, &place) {
            let (number, site) = whose.at(conn, *id)?.unwrap_or((*id, OWN));
            values[0] = Value::Integer(number);
            born = Some(site);
        }
        let (key, cells) = values.split_at_mut(table.key_columns.len());
        let life = if lives {
            let lane = births::life_lane(table, born.unwrap_or(OWN));
            clocks::at(conn, lane, &table.life_key(key))?
        } else {
            None
        };
        let life = life.and_then(|clock| CausalLength::new(clock.causal_length));
        let mut key = canonical(key);
        let life = life.unwrap_or(CausalLength::FIRST);
        let born = match &mut names {
            Some(names) => names.tell(conn, &mut key)?,
            None => vec![born],
        };
        hasher.begin(&table.name, life, &key, &origins(sites, &born));
        let whole = row_lane.at(&place).unwrap_or(Clock::UNWRITTEN);
        for (at, (cursor, value)) in by_name.iter().zip(lanes.iter_mut().zip(cells)) {
            let clock = cursor.at(&place).unwrap_or(whole);
            let name = &table.columns[*at].name;
            let stamp = sites.stamp(clock.site, clock.version);
            let parent = referents.name(conn, (*at, &place), value)?;
            let parent = parent.map_or(SiteId::default(), |site| sites.site(site));
            hasher.cell(name, stamp, value, parent);
        }
        digest.add(hasher.finish());
        Ok(())
    };
    if table.kind == KeyKind::Packed {
        for range in clocks::all(conn, lane(ROW))? {
            let span = (&range.first, &range.last);
            rows::for_each(conn, table, &by_name, span, |_, values| {
                add(range.first.clone(), values)
            })?;
        }
        return Ok(());
    }
    let span = (&RowKey::Rowid(i64::MIN), &RowKey::Rowid(i64::MAX));
    rows::for_each(conn, table, &by_name, span, |rowid, values| {
        add(RowKey::Rowid(rowid.unwrap_or_default()), values)
    })?;
    Ok(())
}

/// Adds a row that lives and is not shown: the digest is that of the merged state.
fn add_parked(
    (conn, sites, table): (&Connection, &Sites, &Table),
    by_name: &[usize],
    place: &RowKey,
    (whose, names, referents): (&mut Option<Whose>, &mut Option<KeyNames>, &mut Referents),
    digest: &mut Digest,
) -> rusqlite::Result<()> {
    let Some(mut row) = store::at(conn, table.id, place)? else {
        return Ok(());
    };
    let mut born = None;
    if let (Some(whose), RowKey::Rowid(id)) = (whose, place) {
        let (number, site) = whose.at(conn, *id)?.unwrap_or((*id, OWN));
        row.key = vec![Value::Integer(number)];
        born = Some(site);
    }
    let clock = |lane| {
        let table_id = table.id;
        clocks::at(conn, Lane { table_id, lane }, place)
    };
    let lane = births::life_lane(table, born.unwrap_or(OWN));
    let life = clocks::at(conn, lane, &table.life_key(&row.key))?;
    let life = life.and_then(|clock| CausalLength::new(clock.causal_length));
    let whole = clock(ROW)?.unwrap_or(Clock::UNWRITTEN);
    let mut hasher = RowHasher::default();
    let mut key = canonical(&row.key);
    let life = life.unwrap_or(CausalLength::FIRST);
    let born = match names {
        Some(names) => names.tell(conn, &mut key)?,
        None => vec![born],
    };
    hasher.begin(&table.name, life, &key, &origins(sites, &born));
    for at in by_name {
        let column = &table.columns[*at];
        let clock = clock(column.lane)?.unwrap_or(whole);
        let stamp = sites.stamp(clock.site, clock.version);
        let mut cell = row.cell(column);
        let parent = referents.name(conn, (*at, place), &mut cell)?;
        let parent = parent.map_or(SiteId::default(), |site| sites.site(site));
        hasher.cell(&column.name, stamp, &cell, parent);
    }
    digest.add(hasher.finish());
    Ok(())
}

/// All ranges of a lane, looked up in ascending order.
struct Cursor {
    ranges: Vec<Range>,
    next: usize,
}

impl Cursor {
    fn new(conn: &Connection, lane: Lane) -> rusqlite::Result<Self> {
        Ok(Cursor {
            ranges: clocks::all(conn, lane)?,
            next: 0,
        })
    }

    fn at(&mut self, place: &RowKey) -> Option<Clock> {
        while self
            .ranges
            .get(self.next)
            .is_some_and(|range| range.last < *place)
        {
            self.next += 1;
        }
        self.ranges
            .get(self.next)
            .filter(|range| range.first <= *place)
            .map(|range| range.clock)
    }
}
