//! Rows that are shown under another id than their number, because another row has that number.
//!
//! `syncline_rekeyed` names them both ways. An entry outlives its row: rows that refer to it go on
//! meaning it, and it comes back under the same id.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row, params};

/// One row's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rekeyed {
    /// The id it is shown under.
    pub(crate) id: i64,
    pub(crate) number: i64,
    /// The ordinal of the site that created it.
    pub(crate) site: i64,
    /// How many ids of its were taken.
    pub(crate) attempt: u32,
}

impl Rekeyed {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Rekeyed {
            id: row.get(0)?,
            number: row.get(1)?,
            site: row.get(2)?,
            attempt: row.get(3)?,
        })
    }
}

const SELECT: &str = "SELECT rowid, number, site, attempt FROM syncline_rekeyed WHERE table_id = ";

/// Whether a table has any entry.
pub(crate) fn any(conn: &Connection, table_id: i64) -> rusqlite::Result<bool> {
    conn.prepare_cached(&format!("{SELECT}?1 LIMIT 1"))?
        .exists([table_id])
}

/// Returns the entry of an id.
pub(crate) fn by_id(
    conn: &Connection,
    table_id: i64,
    id: i64,
) -> rusqlite::Result<Option<Rekeyed>> {
    conn.prepare_cached(&format!("{SELECT}?1 AND rowid = ?2"))?
        .query_one([table_id, id], Rekeyed::read)
        .optional()
}

/// Returns the entry of a row.
pub(crate) fn of(
    conn: &Connection,
    table_id: i64,
    (number, site): (i64, i64),
) -> rusqlite::Result<Option<Rekeyed>> {
    conn.prepare_cached(&format!("{SELECT}?1 AND number = ?2 AND site = ?3"))?
        .query_one([table_id, number, site], Rekeyed::read)
        .optional()
}

/// Returns the entries of the rows with these numbers.
pub(crate) fn by_numbers(
    conn: &Connection,
    table_id: i64,
    (first, last): (i64, i64),
) -> rusqlite::Result<Vec<Rekeyed>> {
    conn.prepare_cached(&format!(
        "{SELECT}?1 AND number BETWEEN ?2 AND ?3 ORDER BY number, site"
    ))?
    .query_map([table_id, first, last], Rekeyed::read)?
    .collect()
}

/// Returns the numbers of the rows of a site that have an entry.
pub(crate) fn numbers_of(
    conn: &Connection,
    table_id: i64,
    site: i64,
) -> rusqlite::Result<BTreeSet<i64>> {
    let numbers = "SELECT number FROM syncline_rekeyed WHERE table_id = ?1 AND site = ?2";
    let mut statement = conn.prepare_cached(numbers)?;
    let numbers = statement.query_map([table_id, site], |row| row.get(0))?;
    numbers.collect()
}

/// Returns the entries of these ids, in order.
pub(crate) fn within(
    conn: &Connection,
    table_id: i64,
    (first, last): (i64, i64),
) -> rusqlite::Result<Vec<Rekeyed>> {
    conn.prepare_cached(&format!(
        "{SELECT}?1 AND rowid BETWEEN ?2 AND ?3 ORDER BY rowid"
    ))?
    .query_map([table_id, first, last], Rekeyed::read)?
    .collect()
}

/// Returns the entries whose first id was taken.
pub(crate) fn passed_over(conn: &Connection, table_id: i64) -> rusqlite::Result<Vec<Rekeyed>> {
    conn.prepare_cached(&format!("{SELECT}?1 AND attempt > 0 ORDER BY rowid"))?
        .query_map([table_id], Rekeyed::read)?
        .collect()
}

/// Adds an entry, in the place of the row's former one.
pub(crate) fn set(conn: &Connection, table_id: i64, entry: Rekeyed) -> rusqlite::Result<()> {
    let Rekeyed {
        id,
        number,
        site,
        attempt,
    } = entry;
    remove(conn, table_id, (number, site))?;
    let insert = "INSERT INTO syncline_rekeyed(table_id, rowid, number, site, attempt)
        VALUES(?1, ?2, ?3, ?4, ?5)";
    conn.prepare_cached(insert)?
        .execute(params![table_id, id, number, site, attempt])?;
    Ok(())
}

/// Removes a row's entry.
pub(crate) fn remove(
    conn: &Connection,
    table_id: i64,
    (number, site): (i64, i64),
) -> rusqlite::Result<()> {
    let delete = "DELETE FROM syncline_rekeyed WHERE table_id = ?1 AND number = ?2 AND site = ?3";
    conn.prepare_cached(delete)?
        .execute([table_id, number, site])?;
    Ok(())
}
