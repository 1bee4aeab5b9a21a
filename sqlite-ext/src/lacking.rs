//! What this replica has seen and does not have any more, though nobody deleted it: until it gets it
//! back, it asks others for everything they have.
//!
//! A table that was made anew can leave out rows whose keys only it knew, and a column that was
//! dropped is added again without its values.

use rusqlite::{Connection, OptionalExtension};
use syncline_crdt::{Changeset, VersionVector};

use crate::clocks::ROW;
use crate::shadow::version_vector;
use crate::table::Table;

/// Notes that something which was seen may be lost.
pub(crate) fn note(conn: &Connection) -> rusqlite::Result<()> {
    let note = "INSERT OR REPLACE INTO syncline_meta(key, value) VALUES('lacking', ?1)";
    conn.prepare_cached(note)?
        .execute([version_vector(conn)?.encode()])?;
    Ok(())
}

/// Whether a table that is named by rowids has as many rows as it has clocks for shown ones.
pub(crate) fn has_all(conn: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let (name, rowid) = (table.quoted(), &table.rowid);
    let missing = format!(
        "SELECT 1 FROM syncline_clocks WHERE table_id = ?1 AND lane = ?2
         AND typeof(key) = 'integer' AND key_end - key + 1 >
            (SELECT count(*) FROM main.{name} WHERE {rowid} BETWEEN key AND key_end)"
    );
    Ok(!conn.prepare_cached(&missing)?.exists((table.id, ROW))?)
}

/// Returns what to ask others by: what was seen, or nothing if some of it may be lost.
pub(crate) fn asking(conn: &Connection) -> rusqlite::Result<VersionVector> {
    match lost_at(conn)? {
        Some(_) => Ok(VersionVector::new()),
        None => version_vector(conn),
    }
}

/// Notes that a changeset was merged: one of everything brings back what was lost before it.
pub(crate) fn settle(conn: &Connection, merged: &Changeset) -> rusqlite::Result<()> {
    let is_back = |lost_at: VersionVector| merged.since.is_empty() && merged.until.covers(&lost_at);
    if lost_at(conn)?.is_some_and(is_back) {
        let settle = "DELETE FROM syncline_meta WHERE key = 'lacking'";
        conn.prepare_cached(settle)?.execute([])?;
    }
    Ok(())
}

/// Returns what had been seen when something was lost.
fn lost_at(conn: &Connection) -> rusqlite::Result<Option<VersionVector>> {
    let lacking = "SELECT value FROM syncline_meta WHERE key = 'lacking'";
    let found: Option<Vec<u8>> = conn
        .prepare_cached(lacking)?
        .query_one([], |row| row.get(0))
        .optional()?;
    let read = |bytes: Vec<u8>| VersionVector::decode(&bytes).expect("it was encoded here");
    Ok(found.map(read))
}
