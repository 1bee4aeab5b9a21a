//! The triggers that note which rows `REPLACE` may delete through a unique index.
//!
//! SQLite fires no delete trigger for them, unless `recursive_triggers` is on. So before a row is
//! inserted or changed, the rows that stand in its way are noted as deleted: the fold looks at what
//! became of them, and a note of a row that stayed is harmless.

use rusqlite::Connection;

use super::unique::{self, UniqueIndex};
use crate::capture;
use crate::table::{KeyKind, Table, list};
use crate::value::quoted;

/// Makes these triggers anew.
pub(crate) fn capture(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    let id = table.id;
    let drop = "DROP TRIGGER IF EXISTS syncline_";
    conn.execute_batch(&format!("{drop}{id}_displace; {drop}{id}_displaced;"))?;
    let indices = unique::indices(conn, &table.name)?;
    if indices.is_empty() {
        return Ok(());
    }
    let generated = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 0";
    let mut generated = conn.prepare_cached(generated)?;
    let generated = generated.query_map([&table.name], |row| row.get(0))?;
    let generated: Vec<String> = generated.collect::<Result<_, _>>()?;
    let notes = |other: &str| {
        let note =
            |index: &UniqueIndex| note(table, &index.rivals_of_new(table, &generated), other);
        list(indices.iter().map(note), " ")
    };
    let name = table.quoted();
    // A row that is updated is not in its own way.
    let key = table.key_columns.iter().map(|column| {
        let column = quoted(&column.name);
        format!("{column} IS NOT OLD.{column}")
    });
    let other = format!(" AND ({})", list(key, " OR "));
    conn.execute_batch(&format!(
        "CREATE TRIGGER syncline_{id}_displace BEFORE INSERT ON {name} BEGIN {} END;
         CREATE TRIGGER syncline_{id}_displaced BEFORE UPDATE ON {name} BEGIN {} END;",
        notes(""),
        notes(&other),
    ))
}

/// Returns the statement that notes the rows which meet a condition as deleted.
fn note(table: &Table, condition: &str, other: &str) -> String {
    let (pending, name, rowid) = (table.pending(), table.quoted(), &table.rowid);
    let mask = capture::DELETED;
    let key = table.key_list();
    let fields = match table.kind {
        KeyKind::Integer => format!("{rowid}, {mask}"),
        KeyKind::Rowid => format!("{rowid}, {mask}, {key}"),
        KeyKind::Packed => format!("{mask}, {key}"),
    };
    format!("INSERT INTO {pending} SELECT {fields} FROM {name} WHERE {condition}{other};")
}
