//! A table that was made anew with another key, under clocks that name its rows by the new one.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params_from_iter};
use syncline_crdt::{Part, Value, unpack_key};

use crate::capture::{self, DELETED};
use crate::clocks::{self, Clock, LIFE, Lane, ROW};
use crate::constraints;
use crate::constraints::masks;
use crate::constraints::store::{self, ParkedRow};
use crate::gaps;
use crate::heal::Entry;
use crate::joined;
use crate::rights;
use crate::rows::{key_from, native_key};
use crate::shadow::{OWN, after_seen, tick_at};
use crate::shape::Shape;
use crate::table::{KeyKind, RowKey, Table, TableError, list};
use crate::value::Bound;
use crate::watermark;

/// Gives a table clocks of another shape. Where the key has the same columns, lives go on and rows
/// that are gone are noted as deleted; otherwise nothing tells what became of the former rows, and
/// they stay as they are elsewhere.
pub(crate) fn rekey(conn: &Connection, entry: &Entry, shape: &Shape) -> Result<(), TableError> {
    let id = entry.id;
    let former = Shape::parse(&entry.shape).filter(|former| former.has_key_of(shape));
    let former = match former {
        Some(former) => Former::read(conn, id, &former)?,
        None => {
            // So that rows which were parked under the former key are not lost silently.
            constraints::forget(conn, id)?;
            // What others wrote under the former key cannot be given to anybody any more.
            gaps::lose(conn, &Part::whole(&entry.name))?;
            Former::default()
        }
    };
    capture::end(conn, id)?;
    constraints::forget_rows(conn, id)?;
    conn.execute("DELETE FROM syncline_clocks WHERE table_id = ?1", [id])?;
    if !former.goes_on {
        joined::forget_lanes(conn, id, None)?;
    }
    let set = "UPDATE syncline_tables SET shape = ?2, watermark = ?3, ceiling = ?3 WHERE id = ?1";
    conn.execute(set, (id, shape.to_text(), watermark::LEAST))?;
    for column in &shape.key {
        let plain = "DELETE FROM syncline_columns WHERE table_id = ?1 AND name = ?2";
        conn.execute(plain, (id, &column.name))?;
    }
    let Some(table) = Table::read(conn, id, &entry.name)? else {
        return Ok(());
    };
    capture::begin(conn, &table)?;
    constraints::capture(conn, &table)?;
    rename_joined(conn, &table)?;
    rename_masked(conn, &table)?;
    rights::fill(conn, &table)?;
    former.note_gone(conn, &table)?;
    former.set_lives(conn, &table)?;
    former.park(conn, &table)?;
    Ok(())
}

/// What was known of a table's rows under its former key.
#[derive(Default)]
struct Former {
    /// Whether the key has the same columns.
    goes_on: bool,
    /// The keys of rows that lived, or whose deletion was noted.
    keys: Vec<Vec<Value>>,
    lives: Vec<(Vec<Value>, Clock)>,
    parked: Vec<ParkedRow>,
}

impl Former {
    fn read(conn: &Connection, id: i64, shape: &Shape) -> rusqlite::Result<Self> {
        let lane = |lane| Lane { table_id: id, lane };
        let mut former = Former {
            goes_on: true,
            ..Former::default()
        };
        for place in store::places(conn, id)? {
            former.parked.extend(store::at(conn, id, &place)?);
        }
        for range in clocks::all(conn, lane(LIFE))? {
            let keys = keys(&range.first, &range.last);
            former.lives.extend(keys.map(|key| (key, range.clock)));
        }
        if shape.kind != KeyKind::Rowid {
            for range in clocks::all(conn, lane(ROW))? {
                former.keys.extend(keys(&range.first, &range.last));
            }
            return Ok(former);
        }
        // Of rows that were named by rowid only the noted deletions tell a key.
        let fields = list((0..shape.key.len()).map(|at| format!("k{at}")), ", ");
        let noted = format!("SELECT {fields} FROM syncline_pending_{id} WHERE mask = {DELETED}");
        let mut statement = conn.prepare(&noted)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            former.keys.push(key_from(row, 0, shape.key.len())?);
        }
        Ok(former)
    }

    fn note_gone(&self, conn: &Connection, table: &Table) -> rusqlite::Result<()> {
        for key in &self.keys {
            if self.parked.iter().any(|row| row.key == *key) {
                continue;
            }
            if shown_key(conn, table, key)?.is_some() {
                continue;
            }
            let Some(key) = native_key(conn, table, key)? else {
                continue;
            };
            let place = table.life_key(&key);
            if table.kind != KeyKind::Rowid {
                // So that the fold knows that others have heard of the row.
                let lane = Lane {
                    table_id: table.id,
                    lane: ROW,
                };
                clocks::set(conn, lane, &place, &place, Clock::UNWRITTEN)?;
            }
            capture::note_deletion(conn, table, &key)?;
        }
        Ok(())
    }

    fn set_lives(&self, conn: &Connection, table: &Table) -> rusqlite::Result<()> {
        // Keys that were two may be one under the new shape.
        let mut lives: BTreeMap<RowKey, Clock> = BTreeMap::new();
        for (key, clock) in &self.lives {
            let key = match shown_key(conn, table, key)? {
                Some(shown) => Some(shown),
                None => native_key(conn, table, key)?,
            };
            let Some(place) = key.map(|key| table.life_key(&key)) else {
                continue;
            };
            let life = lives.entry(place).or_insert(*clock);
            let order = |clock: &Clock| (clock.causal_length, clock.version);
            if order(life) < order(clock) {
                *life = *clock;
            }
        }
        for (place, clock) in lives {
            let lane = Lane {
                table_id: table.id,
                lane: LIFE,
            };
            clocks::set(conn, lane, &place, &place, clock)?;
        }
        Ok(())
    }
}

impl Former {
    /// Parks rows again that were parked, unless the table shows them.
    fn park(&self, conn: &Connection, table: &Table) -> rusqlite::Result<()> {
        for row in &self.parked {
            let Some(key) = native_key(conn, table, &row.key)? else {
                continue;
            };
            if shown_key(conn, table, &key)?.is_some() {
                continue;
            }
            let cells = row.cells.clone();
            let place = store::put(conn, table, &ParkedRow { key, cells })?;
            let lane = Lane {
                table_id: table.id,
                lane: ROW,
            };
            let clock = Clock {
                site: OWN,
                version: tick_at(conn, after_seen(conn)?)?,
                causal_length: 0,
            };
            clocks::set(conn, lane, &place, &place, clock)?;
        }
        Ok(())
    }
}

/// Names joined cells by the keys that their rows have under the table's shape.
fn rename_joined(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    for place in joined::keys(conn, table.id)? {
        let key = store::unpacked(&place);
        let named = match shown_key(conn, table, &key)? {
            Some(shown) => Some(shown),
            None => native_key(conn, table, &key)?,
        };
        match named.map(|key| table.life_key(&key)) {
            Some(to) if to != place => joined::rename(conn, table, &place, &to)?,
            Some(_) => {}
            None => joined::forget(conn, table, &place, &place)?,
        }
    }
    Ok(())
}

/// Names masks by the keys that their rows have under the table's shape.
fn rename_masked(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    for place in masks::places(conn, table.id)? {
        match shown_key(conn, table, &store::unpacked(&place))? {
            Some(key) => masks::rekey(conn, table.id, &place, &table.life_key(&key))?,
            None => masks::remove(conn, table.id, &place)?,
        }
    }
    Ok(())
}

/// Returns the keys from `first` to `last`.
fn keys(first: &RowKey, last: &RowKey) -> Box<dyn Iterator<Item = Vec<Value>>> {
    match (first, last) {
        (RowKey::Rowid(first), RowKey::Rowid(last)) => {
            Box::new((*first..=*last).map(|key| vec![Value::Integer(key)]))
        }
        (RowKey::Packed(packed), _) => {
            let key = unpack_key(packed).expect("keys in the clocks were packed here");
            Box::new(std::iter::once(key))
        }
        (RowKey::Rowid(_), RowKey::Packed(_)) => unreachable!("a range has keys of one kind"),
    }
}

/// Returns a row's key as the table shows it: its columns may have other types than they had.
fn shown_key(
    conn: &Connection,
    table: &Table,
    key: &[Value],
) -> rusqlite::Result<Option<Vec<Value>>> {
    let (fields, name) = (table.key_list(), table.quoted());
    let condition = table.key_condition(1);
    let select = format!("SELECT {fields} FROM main.{name} WHERE {condition}");
    let mut statement = conn.prepare_cached(&select)?;
    let key = params_from_iter(key.iter().map(Bound));
    let shown = statement.query_one(key, |row| key_from(row, 0, table.key_columns.len()));
    shown.optional()
}
