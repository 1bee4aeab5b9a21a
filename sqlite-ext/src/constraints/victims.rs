//! The triggers that note which rows `REPLACE` may delete through a unique index.
//!
//! SQLite fires no delete trigger for them, unless `recursive_triggers` is on. So before a row is
//! inserted or changed, the rows that stand in its way are noted as deleted: the fold looks at what
//! became of them, and a note of a row that stayed is harmless. Where ids are counted, a noted row
//! whose id is then inserted was another row; so the row that has the new one's own id, which is
//! written over, is not noted.

use rusqlite::Connection;

use super::unique::{self, UniqueIndex};
use crate::capture;
use crate::table::{KeyKind, Table, list};
use crate::value::quoted;

/// Makes these triggers anew.
pub(crate) fn capture(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    let id = table.id;
    let drop = "DROP TRIGGER IF EXISTS main.syncline_";
    conn.execute_batch(&format!("{drop}{id}_displace; {drop}{id}_displaced;"))?;
    let indices = unique::indices(conn, &table.name)?;
    if indices.is_empty() {
        return Ok(());
    }
    let generated = unique::generated(conn, &table.name)?;
    let notes = |other: &str| {
        let note =
            |index: &UniqueIndex| note(table, &index.rivals_of_new(table, &generated), other);
        list(indices.iter().map(note), " ")
    };
    let rowid = &table.rowid;
    // Before a row is inserted, its id is -1 if SQLite is to choose it.
    let apart = match table.is_counted() {
        true => format!(" AND ({rowid} IS NOT NEW.{rowid} OR {rowid} = -1)"),
        false => String::new(),
    };
    let name = table.quoted();
    // A row that is updated is not in its own way.
    let key = table.key_columns.iter().map(|column| {
        let column = quoted(&column.name);
        format!("{column} IS NOT OLD.{column}")
    });
    let other = format!(" AND ({}){apart}", list(key, " OR "));
    // An update of other columns puts no row in its way.
    let named = unique::mentioned(conn, &table.name, &indices)?;
    let columns = table.key_columns.iter().chain(&table.columns);
    let columns = columns.filter(|column| {
        let name = column.name.to_ascii_lowercase();
        named.as_ref().is_some_and(|named| named.contains(&name))
    });
    let columns = list(columns.map(|column| quoted(&column.name)), ", ");
    let of = match &columns[..] {
        "" => String::new(),
        columns => format!("OF {columns}"),
    };
    conn.execute_batch(&format!(
        "CREATE TRIGGER main.syncline_{id}_displace BEFORE INSERT ON {name} BEGIN {} END;
         CREATE TRIGGER main.syncline_{id}_displaced BEFORE UPDATE {of} ON {name} BEGIN {} END;",
        notes(&apart),
        notes(&other),
    ))
}

/// Returns the statement that notes the rows which meet a condition as deleted.
fn note(table: &Table, condition: &str, other: &str) -> String {
    let (pending, name, rowid) = (table.pending(), table.quoted(), &table.rowid);
    let mask = capture::DELETED;
    let key = table.key_list();
    let fields = match table.kind {
        KeyKind::Integer => rowid.clone(),
        KeyKind::Rowid => format!("{rowid}, {key}"),
        KeyKind::Packed => key,
    };
    let into = format!("{pending}({}, mask)", capture::keys(table));
    format!("INSERT INTO {into} SELECT {fields}, {mask} FROM {name} WHERE {condition}{other};")
}
