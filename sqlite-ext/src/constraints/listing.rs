//! How a parked row reads in `syncline_conflicts`.

use rusqlite::{Connection, params};
use syncline_crdt::{Claim, Stamp, Value};

use super::store::{self, ParkedRow};
use crate::shadow::version_to;
use crate::table::{Column, RowKey, Table};

/// Why a row is parked.
pub(super) struct Ground<'a> {
    /// The constraint.
    pub(super) broken: &'a str,
    /// What stands against the row, in words; of the winner, if there is one.
    pub(super) reason: String,
    /// The row that holds what this one claims.
    pub(super) winner: Option<&'a Claim>,
}

/// Notes why a row is parked, in a form that is the same on every replica.
pub(super) fn note(
    conn: &Connection,
    table: &Table,
    place: &RowKey,
    ground: &Ground<'_>,
    since: Stamp,
) -> rusqlite::Result<()> {
    let row = store::at(conn, table.id, place)?;
    let Some(row) = row else { return Ok(()) };
    let winner = ground
        .winner
        .map(|winner| store::place_of(table, winner.key()));
    let set = "UPDATE syncline_parked_rows SET broken = ?3, reason = ?4, winner_table_id = ?5,
        winner = ?6, winner_json = ?7, since = ?8, key_json = ?9, row_json = ?10
        WHERE table_id = ?1 AND place = ?2";
    let json = |key: &[Value]| key_json(table, key);
    let winner_json = winner.as_ref().map(|place| json(&store::unpacked(place)));
    let reason = match &winner_json {
        Some(winner) => format!("the row {winner} {}", ground.reason),
        None => ground.reason.clone(),
    };
    conn.prepare_cached(set)?.execute(params![
        table.id,
        place,
        ground.broken,
        reason,
        winner.as_ref().map(|_| table.id),
        winner,
        winner_json,
        version_to(since.version),
        json(&row.key),
        row_json(table, &row),
    ])?;
    Ok(())
}

/// Returns a row's key as a JSON object.
pub(super) fn key_json(table: &Table, key: &[Value]) -> String {
    object(table.key_columns.iter().zip(key.to_vec()))
}

fn row_json(table: &Table, row: &ParkedRow) -> String {
    let key = table.key_columns.iter().zip(row.key.clone());
    let cells = table.captured().map(|column| (column, row.cell(column)));
    object(key.chain(cells))
}

/// Returns columns and values as a JSON object.
fn object<'c>(cells: impl Iterator<Item = (&'c Column, Value)>) -> String {
    named(cells.map(|(column, value)| (column.name.as_str(), value)))
}

/// Returns names and values as a JSON object.
pub(crate) fn named<'c>(cells: impl Iterator<Item = (&'c str, Value)>) -> String {
    let cells = cells.map(|(name, value)| {
        let name = serde_json::Value::from(name);
        format!("{name}:{}", json(&value))
    });
    format!("{{{}}}", cells.collect::<Vec<_>>().join(","))
}

/// Returns a value as JSON; a blob as SQL writes it.
fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Integer(number) => (*number).into(),
        Value::Real(real) => real.get().into(),
        Value::Text(text) => String::from_utf8_lossy(text).into(),
        Value::Blob(blob) => {
            let digits: String = blob.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{digits}'").into()
        }
    }
}
