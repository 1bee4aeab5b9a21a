//! Cells that show NULL since what they refer to is not shown, and the values that they keep.
//!
//! The kept value is the cell's value wherever it is merged, sent on or hashed; its clock is that
//! of the cell. A write to the cell ends the mask.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use syncline_crdt::{Hlc, Value};

use super::store::{packed_cells, unpacked_cells};
use crate::rows;
use crate::shadow::version_to;
use crate::table::{KeyKind, RowKey, Table};

/// Why cells of one row are masked, and what they keep.
pub(super) struct Mask {
    /// The foreign key.
    pub(super) label: String,
    /// What the row refers to by it, in one form for all that SQLite calls equal to it.
    pub(super) form: Vec<u8>,
    /// The values by lane.
    pub(super) cells: BTreeMap<i64, Value>,
    /// What `syncline_conflicts` shows of it.
    pub(super) told: Told,
}

/// A mask as it reads in `syncline_conflicts`.
pub(super) struct Told {
    pub(super) key: String,
    pub(super) row: String,
    pub(super) reason: String,
}

/// What the rows of a table keep, read row by row.
#[derive(Debug)]
pub(crate) struct Masks<'c> {
    conn: &'c Connection,
    table: &'c Table,
    is_empty: bool,
}

impl<'c> Masks<'c> {
    pub(crate) fn new(conn: &'c Connection, table: &'c Table) -> rusqlite::Result<Self> {
        Ok(Masks {
            conn,
            table,
            is_empty: !any(conn, table.id)?,
        })
    }

    /// Puts what a row keeps into its values as they were read: the key, then these columns.
    pub(crate) fn lift(&self, columns: &[usize], values: &mut [Value]) -> rusqlite::Result<()> {
        if self.is_empty {
            return Ok(());
        }
        let (key, cells) = values.split_at_mut(self.table.key_columns.len());
        let kept = at(self.conn, self.table.id, &self.table.life_key(key))?;
        for (cell, column) in cells.iter_mut().zip(columns) {
            if let Some(value) = kept.get(&self.table.columns[*column].lane) {
                cell.clone_from(value);
            }
        }
        Ok(())
    }
}

/// Whether a table has any mask.
pub(crate) fn any(conn: &Connection, table_id: i64) -> rusqlite::Result<bool> {
    let any = "SELECT 1 FROM syncline_masks WHERE table_id = ?1 LIMIT 1";
    conn.prepare_cached(any)?.exists([table_id])
}

/// Returns the values that a row keeps, by lane.
pub(crate) fn at(
    conn: &Connection,
    table_id: i64,
    place: &RowKey,
) -> rusqlite::Result<BTreeMap<i64, Value>> {
    let kept = by_label(conn, table_id, place)?.into_iter();
    Ok(kept.flat_map(|(_, cells)| cells).collect())
}

/// Returns the values that a row keeps, by foreign key and lane.
fn by_label(
    conn: &Connection,
    table_id: i64,
    place: &RowKey,
) -> rusqlite::Result<Vec<(String, BTreeMap<i64, Value>)>> {
    let find = "SELECT label, cells FROM syncline_masks WHERE table_id = ?1 AND place = ?2";
    let mut statement = conn.prepare_cached(find)?;
    let kept = statement.query_map(params![table_id, place], |row| {
        Ok((row.get(0)?, unpacked_cells(&row.get::<_, Vec<u8>>(1)?)))
    })?;
    kept.collect()
}

/// Keeps what cells of a row hold.
pub(super) fn keep(
    conn: &Connection,
    (table_id, place): (i64, &RowKey),
    mask: &Mask,
    since: Hlc,
) -> rusqlite::Result<()> {
    let keep = "INSERT OR REPLACE INTO syncline_masks
        (table_id, place, label, form, cells, key_json, row_json, reason, since)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    conn.prepare_cached(keep)?.execute(params![
        table_id,
        place,
        mask.label,
        mask.form,
        packed_cells(&mask.cells),
        mask.told.key,
        mask.told.row,
        mask.told.reason,
        version_to(since),
    ])?;
    Ok(())
}

/// Changes what a row keeps: `change` says what becomes of each value. Returns whether it changed.
fn rewrite(
    conn: &Connection,
    (table_id, place): (i64, &RowKey),
    change: impl Fn(i64, Value) -> Option<Value>,
) -> rusqlite::Result<bool> {
    let mut is_changed = false;
    for (label, kept) in by_label(conn, table_id, place)? {
        let changed = kept.iter();
        let changed =
            changed.filter_map(|(lane, value)| Some((*lane, change(*lane, value.clone())?)));
        let changed: BTreeMap<i64, Value> = changed.collect();
        if changed == kept {
            continue;
        }
        is_changed = true;
        if changed.is_empty() {
            let remove = "DELETE FROM syncline_masks
                WHERE table_id = ?1 AND place = ?2 AND label = ?3";
            conn.prepare_cached(remove)?
                .execute(params![table_id, place, label])?;
            continue;
        }
        let set = "UPDATE syncline_masks SET cells = ?4
            WHERE table_id = ?1 AND place = ?2 AND label = ?3";
        conn.prepare_cached(set)?.execute(params![
            table_id,
            place,
            label,
            packed_cells(&changed)
        ])?;
    }
    Ok(is_changed)
}

/// Puts a value into the place of the one that a cell keeps. Returns whether it keeps any.
pub(crate) fn set(
    conn: &Connection,
    (table_id, place): (i64, &RowKey),
    lane: i64,
    value: &Value,
) -> rusqlite::Result<bool> {
    let is_masked = at(conn, table_id, place)?.contains_key(&lane);
    rewrite(conn, (table_id, place), |kept, old| {
        Some(if kept == lane { value.clone() } else { old })
    })?;
    Ok(is_masked)
}

/// Forgets what cells of a row keep. Returns whether they kept anything.
pub(crate) fn end(
    conn: &Connection,
    (table_id, place): (i64, &RowKey),
    is_ended: impl Fn(i64) -> bool,
) -> rusqlite::Result<bool> {
    rewrite(conn, (table_id, place), |lane, value| {
        (!is_ended(lane)).then_some(value)
    })
}

/// Forgets what a column's cells keep.
pub(crate) fn forget_lane(conn: &Connection, table_id: i64, lane: i64) -> rusqlite::Result<()> {
    for place in places(conn, table_id)? {
        end(conn, (table_id, &place), |kept| kept == lane)?;
    }
    Ok(())
}

/// Forgets what a row keeps.
pub(crate) fn remove(conn: &Connection, table_id: i64, place: &RowKey) -> rusqlite::Result<()> {
    let remove = "DELETE FROM syncline_masks WHERE table_id = ?1 AND place = ?2";
    conn.prepare_cached(remove)?
        .execute(params![table_id, place])?;
    Ok(())
}

/// Names a row anew.
pub(crate) fn rekey(
    conn: &Connection,
    table_id: i64,
    from: &RowKey,
    to: &RowKey,
) -> rusqlite::Result<()> {
    let set = "UPDATE OR REPLACE syncline_masks SET place = ?3 WHERE table_id = ?1 AND place = ?2";
    conn.prepare_cached(set)?
        .execute(params![table_id, from, to])?;
    Ok(())
}

/// Returns the rows that wait for what a form names.
pub(super) fn waiting(
    conn: &Connection,
    table_id: i64,
    (label, form): (&str, &[u8]),
) -> rusqlite::Result<Vec<RowKey>> {
    let find = "SELECT place FROM syncline_masks
        WHERE table_id = ?1 AND label = ?2 AND form = ?3";
    let mut statement = conn.prepare_cached(find)?;
    let places = statement.query_map(params![table_id, label, form], |row| row.get(0))?;
    places.collect()
}

/// Returns all rows that keep values, in order.
pub(crate) fn places(conn: &Connection, table_id: i64) -> rusqlite::Result<Vec<RowKey>> {
    let all = "SELECT DISTINCT place FROM syncline_masks WHERE table_id = ?1 ORDER BY place";
    let mut statement = conn.prepare_cached(all)?;
    let places = statement.query_map([table_id], |row| row.get(0))?;
    places.collect()
}

/// Returns the rows from `first` to `last` that keep values, in order.
pub(crate) fn places_within(
    conn: &Connection,
    table_id: i64,
    (first, last): (&RowKey, &RowKey),
) -> rusqlite::Result<Vec<RowKey>> {
    let within = "SELECT DISTINCT place FROM syncline_masks
        WHERE table_id = ?1 AND place BETWEEN ?2 AND ?3 ORDER BY place";
    let mut statement = conn.prepare_cached(within)?;
    let places = statement.query_map(params![table_id, first, last], |row| row.get(0))?;
    places.collect()
}

/// Returns the masked rows that are shown from `first` to `last`, and where they are shown.
pub(crate) fn within(
    conn: &Connection,
    table: &Table,
    (first, last): (&RowKey, &RowKey),
) -> rusqlite::Result<Vec<(RowKey, RowKey)>> {
    if table.kind != KeyKind::Rowid {
        let places = places_within(conn, table.id, (first, last))?;
        return Ok(places
            .into_iter()
            .map(|place| (place.clone(), place))
            .collect());
    }
    let mut found = Vec::new();
    rows::for_each(conn, table, &[], (first, last), |rowid, key| {
        let place = table.life_key(&key);
        if let Some(rowid) = rowid
            && !at(conn, table.id, &place)?.is_empty()
        {
            found.push((place, RowKey::Rowid(rowid)));
        }
        Ok(())
    })?;
    Ok(found)
}
