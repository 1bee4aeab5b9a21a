//! The greatest rowid of a table that is folded: what lies above it was added since.
//!
//! **Invariant:** every row at or below the watermark is folded or noted in the pending table. It
//! only grows, and grows in the transaction that folds or merges what it passes.
//!
//! Looking the watermark up would cost each insert as much as half the insert itself, or several
//! times that when SQLite's cache is full of changed pages and the one page that is not changed is
//! read again each time. So the trigger also knows a ceiling, as a number in its text: what lies
//! above it lies above the watermark.
//!
//! **Invariant:** the watermark is never above the ceiling in the trigger.

use rusqlite::Connection;

use crate::capture::{self, WHOLE};
use crate::table::{KeyKind, Table};

/// The watermark of a table whose rows are all noted, and of one that never had any.
pub(crate) const LEAST: i64 = i64::MIN;
/// How far above the watermark the ceiling is put, so that few folds have to change the schema.
const HEADROOM: i64 = 1 << 16;

/// Whether rows lie above the watermark.
pub(crate) fn is_passed(conn: &Connection, table: &Table) -> rusqlite::Result<bool> {
    match above(table, "1") {
        Some(above) => conn.prepare_cached(&format!("{above} LIMIT 1"))?.exists([]),
        None => Ok(false),
    }
}

/// Returns how many rows lie above the watermark.
pub(crate) fn passed_count(conn: &Connection, table: &Table) -> rusqlite::Result<i64> {
    match above(table, "count(*)") {
        Some(above) => conn.prepare_cached(&above)?.query_one([], |row| row.get(0)),
        None => Ok(0),
    }
}

/// Calls `each` with the rowids above the watermark, in order.
pub(crate) fn for_each(
    conn: &Connection,
    table: &Table,
    mut each: impl FnMut(i64),
) -> rusqlite::Result<()> {
    let Some(above) = above(table, &table.rowid) else {
        return Ok(());
    };
    let mut statement = conn.prepare_cached(&format!("{above} ORDER BY 1"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(row.get(0)?);
    }
    Ok(())
}

/// Raises the watermark to the greatest rowid, and the ceiling if that lies above it.
pub(crate) fn raise(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    if table.kind == KeyKind::Packed {
        return Ok(());
    }
    let (name, rowid) = (table.quoted(), &table.rowid);
    let raise = format!(
        "UPDATE syncline_tables
         SET watermark = max(watermark, ifnull((SELECT max({rowid}) FROM main.{name}), watermark))
         WHERE id = ?1 RETURNING watermark, ceiling"
    );
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let (watermark, ceiling): (i64, i64) =
        conn.prepare_cached(&raise)?.query_one([table.id], read)?;
    if watermark > ceiling {
        let ceiling = watermark.saturating_add(HEADROOM);
        let set = "UPDATE syncline_tables SET ceiling = ?2 WHERE id = ?1";
        conn.prepare_cached(set)?.execute([table.id, ceiling])?;
        capture::renew_insert(conn, table, ceiling)?;
    }
    Ok(())
}

/// Notes the rows above the watermark and raises it, before others' rows are added there.
pub(crate) fn settle(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    let Some(above) = above(table, &format!("{}, {WHOLE}", table.rowid)) else {
        return Ok(());
    };
    let note = format!("INSERT INTO {}(key, mask) {above}", table.pending());
    conn.prepare_cached(&note)?.execute([])?;
    raise(conn, table)
}

/// Returns the ceiling that the trigger for inserts may know.
pub(crate) fn ceiling(conn: &Connection, table: &Table) -> rusqlite::Result<i64> {
    let ceiling = "SELECT ceiling FROM syncline_tables WHERE id = ?1";
    conn.prepare_cached(ceiling)?
        .query_one([table.id], |row| row.get(0))
}

/// Returns the condition that a row which is inserted lies at or below the watermark, for a trigger.
/// Without a ceiling it looks the watermark up for every row.
pub(crate) fn condition(table: &Table, ceiling: Option<i64>) -> Option<String> {
    let (id, rowid) = (table.id, &table.rowid);
    let below = ceiling.map(|ceiling| format!("NEW.{rowid} <= {ceiling} AND "));
    let below = below.unwrap_or_default();
    let watermark = format!("SELECT watermark FROM syncline_tables WHERE id = {id}");
    (table.kind != KeyKind::Packed).then(|| format!("{below}NEW.{rowid} <= ({watermark})"))
}

/// Returns the query of the rows above the watermark; `None` for a table without rowids.
pub(crate) fn above(table: &Table, fields: &str) -> Option<String> {
    let (id, name, rowid) = (table.id, table.quoted(), &table.rowid);
    let watermark = format!("SELECT watermark FROM syncline_tables WHERE id = {id}");
    (table.kind != KeyKind::Packed)
        .then(|| format!("SELECT {fields} FROM main.{name} WHERE {rowid} > ({watermark})"))
}
