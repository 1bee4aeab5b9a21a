//! Changes to tables and columns that are not here yet: kept until they are, and passed on.

use rusqlite::{Connection, params};
use syncline_crdt::{Changeset, Stamp, TableChanges};

use crate::apply::{ImportError, merge_tables};
use crate::track::TrackError;

/// Keeps a table's changes for later.
pub(crate) fn park(conn: &Connection, table: &TableChanges) -> rusqlite::Result<()> {
    let changes = Changeset {
        tables: vec![table.clone()],
        ..Changeset::default()
    }
    .encode();
    // The same changes arrive again and again from whoever exports everything.
    let insert = "INSERT INTO syncline_parked(name, changes) SELECT ?1, ?2 WHERE NOT EXISTS
        (SELECT 1 FROM syncline_parked WHERE name = ?1 AND changes = ?2)";
    conn.prepare_cached(insert)?
        .execute(params![table.name, changes])?;
    Ok(())
}

/// Merges what waited for a table. What of it still has no place is parked again; merging the rest
/// a second time changes nothing.
pub(crate) fn replay(conn: &Connection, name: &str) -> Result<(), TrackError> {
    let take = "DELETE FROM syncline_parked WHERE name = ?1 RETURNING changes";
    let mut statement = conn.prepare_cached(take)?;
    let waiting = statement.query_map([name], |row| row.get::<_, Vec<u8>>(0))?;
    let waiting: Vec<Vec<u8>> = waiting.collect::<Result<_, _>>()?;
    for bytes in waiting {
        let merged = Changeset::decode(&bytes)
            .map_err(ImportError::from)
            .and_then(|changeset| merge_tables(conn, &changeset.tables));
        merged.map_err(|error| TrackError::Parked(Box::new(error)))?;
    }
    Ok(())
}

/// Returns the parked changes whose stamp passes `is_new`, so that they are passed on although this
/// replica cannot show them.
pub(crate) fn changes(
    conn: &Connection,
    is_new: impl Fn(Stamp) -> bool,
) -> rusqlite::Result<Vec<TableChanges>> {
    let all = "SELECT changes FROM syncline_parked ORDER BY id";
    let mut statement = conn.prepare_cached(all)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let bytes: Vec<u8> = row.get(0)?;
        let parked = Changeset::decode(&bytes).expect("parked changes were encoded here");
        for mut table in parked.tables {
            table.groups.retain(|group| is_new(group.stamp));
            if !table.groups.is_empty() {
                found.push(table);
            }
        }
    }
    Ok(found)
}
