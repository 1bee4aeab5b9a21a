//! The fold of cells that show NULL in the place of a value: whether somebody wrote them.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_crdt::Value;

use super::{Notes, Run};
use crate::constraints::{masks, store};
use crate::rows;
use crate::table::{RowKey, Table};

impl Notes {
    /// Forgets what cells kept that were written, and what rows kept that are gone. Returns the rows
    /// to look at. Where a table was mended all rows count as written, and those that show NULL
    /// keep what they kept.
    pub(super) fn unmask(
        &self,
        conn: &Connection,
        table: &Table,
        is_mended: bool,
    ) -> rusqlite::Result<BTreeSet<RowKey>> {
        if !masks::any(conn, table.id)? {
            return Ok(BTreeSet::new());
        }
        if is_mended {
            return unmask_mended(conn, table);
        }
        for (key, _) in &self.deleted {
            remove_gone(conn, table, &table.life_key(key))?;
        }
        for (first, last) in &self.deleted_runs {
            let run = (&RowKey::Rowid(*first), &RowKey::Rowid(*last));
            for place in masks::places_within(conn, table.id, run)? {
                remove_gone(conn, table, &place)?;
            }
        }
        let mut ended = BTreeSet::new();
        for Run { first, last, mask } in &self.written {
            for (place, _) in masks::within(conn, table, (first, last))? {
                if masks::end(conn, (table.id, &place), |lane| mask.has(lane))? {
                    ended.insert(place);
                }
            }
        }
        Ok(ended)
    }
}

fn remove_gone(conn: &Connection, table: &Table, place: &RowKey) -> rusqlite::Result<()> {
    match rows::place(conn, table, &store::unpacked(place))? {
        Some(_) => Ok(()),
        None => masks::remove(conn, table.id, place),
    }
}

/// Ends the masks of cells that show something; what was written to the others is not known.
fn unmask_mended(conn: &Connection, table: &Table) -> rusqlite::Result<BTreeSet<RowKey>> {
    let mut kept = BTreeSet::new();
    let all: Vec<usize> = (0..table.columns.len()).collect();
    for place in masks::places(conn, table.id)? {
        let key = store::unpacked(&place);
        let Some(shown_at) = rows::place(conn, table, &key)? else {
            masks::remove(conn, table.id, &place)?;
            continue;
        };
        let mut null = Vec::new();
        rows::for_each(conn, table, &all, (&shown_at, &shown_at), |_, values| {
            let cells = table.columns.iter().zip(&values[table.key_columns.len()..]);
            let shows_null = cells.filter(|(_, value)| **value == Value::Null);
            null.extend(shows_null.map(|(column, _)| column.lane));
            Ok(())
        })?;
        masks::end(conn, (table.id, &place), |lane| !null.contains(&lane))?;
        kept.insert(place);
    }
    Ok(kept)
}
