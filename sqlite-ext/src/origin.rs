//! The origin of rows that a table held before it was tracked: a hash of all of them.
//!
//! Two devices that begin with copies of one file must not get every row twice. So such rows count
//! as created by a site that only their contents name, and copies name the same one.

use rusqlite::Connection;
use syncline_crdt::{Hlc, OriginHasher};

use crate::clocks::{self, Clock, Lane, ROW};
use crate::rows;
use crate::shadow::Sites;
use crate::table::{RowKey, Table};
use crate::{births, track};

/// Gives all rows of a table that is being tracked their common origin.
pub(crate) fn give(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    let columns = table.key_columns.iter().chain(&table.columns);
    let mut hasher = OriginHasher::new(&table.name, columns.map(|column| column.name.as_str()));
    let all: Vec<usize> = (0..table.columns.len()).collect();
    let span = (&RowKey::Rowid(i64::MIN), &RowKey::Rowid(i64::MAX));
    rows::for_each(conn, table, &all, span, |_, values| {
        hasher.row(&values);
        Ok(())
    })?;
    let origin = hasher.finish();
    track::set_origin(conn, table.id, origin)?;
    let clock = Clock {
        site: Sites::load(conn)?.ordinal(conn, origin)?,
        version: Hlc::ZERO,
        causal_length: 0,
    };
    let lane = |lane| Lane {
        table_id: table.id,
        lane,
    };
    for range in clocks::all(conn, lane(ROW))? {
        clocks::set(conn, lane(births::BORN), &range.first, &range.last, clock)?;
    }
    Ok(())
}
