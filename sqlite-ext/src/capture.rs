//! The triggers that note what was touched, in plain SQL, so that any program may write.
//!
//! A row that is added beyond all others needs no note at all: a table's watermark is the greatest
//! rowid that is folded, and what lies above it is new. So the trigger for inserts only notes rows
//! at or below it. The others append and never look anything up: the key, a mask of the changed columns' lanes, and, for
//! a deleted row, whatever names it later. Appending also keeps them clear of the conflict policy
//! of the statement that fires them, which would replace their own.

use crate::table::{Column, KeyKind, Table, list};
use crate::value::quoted;
use crate::watermark;

/// The mask of a row that was written as a whole.
pub(crate) const WHOLE: i64 = -1;
/// The mask of a row that was deleted.
pub(crate) const DELETED: i64 = -2;
/// The most columns beside the key that a mask has bits for.
pub(crate) const LANES_MAX: usize = 62;

/// Returns the statements that begin to capture a table's writes.
pub(crate) fn begin(table: &Table) -> String {
    let pending = table.pending();
    let keys = (0..table.key_columns.len()).map(|at| format!("k{at}"));
    let columns = match table.kind {
        KeyKind::Integer => "key, mask".to_owned(),
        KeyKind::Rowid => format!("key, mask, {}", list(keys, ", ")),
        KeyKind::Packed => format!("mask, {}", list(keys, ", ")),
    };
    format!("CREATE TABLE {pending}({columns});\n{}", triggers(table))
}

/// Returns the statements that make the triggers anew, after the table's columns changed.
pub(crate) fn renew(table: &Table) -> String {
    format!("{}\n{}", drop_triggers(table.id), triggers(table))
}

/// Returns the statements that end the capture of a table's writes.
pub(crate) fn end(table_id: i64) -> String {
    format!(
        "{}\nDROP TABLE IF EXISTS syncline_pending_{table_id};",
        drop_triggers(table_id)
    )
}

fn drop_triggers(table_id: i64) -> String {
    let drop = |event: &str| format!("DROP TRIGGER IF EXISTS syncline_{table_id}_{event};");
    list(
        ["insert", "update", "move", "delete", "null", "unset"]
            .into_iter()
            .map(drop),
        "\n",
    )
}

fn triggers(table: &Table) -> String {
    let moved = list(
        std::iter::once((table.kind != KeyKind::Packed).then_some(&table.rowid))
            .flatten()
            .map(|rowid| format!("OLD.{rowid} IS NOT NEW.{rowid}"))
            .chain(table.key_columns.iter().map(differs)),
        " OR ",
    );
    let old = append(table, "OLD", &DELETED.to_string());
    let new = append(table, "NEW", &WHOLE.to_string());
    let mut sql = vec![
        trigger(
            table,
            "insert",
            "AFTER INSERT",
            &watermark::condition(table).unwrap_or_default(),
            &new,
        ),
        trigger(
            table,
            "move",
            "AFTER UPDATE",
            &format!("WHEN {moved}"),
            &format!("{old} {new}"),
        ),
        trigger(table, "delete", "AFTER DELETE", "", &old),
    ];
    if !table.columns.is_empty() {
        let bit = |column: &Column| format!("(({}) << {})", differs(column), column.lane);
        let mask = list(table.columns.iter().map(bit), " | ");
        sql.push(trigger(
            table,
            "update",
            "AFTER UPDATE",
            "",
            &append(table, "NEW", &mask),
        ));
    }
    if table.kind == KeyKind::Rowid {
        // SQLite lets NULL into such a key, any number of times; no other replica could tell the
        // rows apart.
        let null = |column: &Column| format!("NEW.{} IS NULL", quoted(&column.name));
        let null = format!("WHEN {}", list(table.key_columns.iter().map(null), " OR "));
        let raise = "SELECT RAISE(ABORT, 'a row of a tracked table needs a primary key');";
        sql.push(trigger(table, "null", "AFTER INSERT", &null, raise));
        sql.push(trigger(table, "unset", "AFTER UPDATE", &null, raise));
    }
    sql.join("\n")
}

fn trigger(table: &Table, event: &str, when: &str, condition: &str, body: &str) -> String {
    let (id, name) = (table.id, table.quoted());
    format!("CREATE TRIGGER syncline_{id}_{event} {when} ON {name} {condition} BEGIN {body} END;")
}

fn append(table: &Table, row: &str, mask: &str) -> String {
    let pending = table.pending();
    let rowid = format!("{row}.{}", table.rowid);
    let key = list(
        table
            .key_columns
            .iter()
            .map(|k| format!("{row}.{}", quoted(&k.name))),
        ", ",
    );
    match table.kind {
        KeyKind::Integer => format!("INSERT INTO {pending}(key, mask) VALUES({rowid}, {mask});"),
        KeyKind::Packed => format!("INSERT INTO {pending} VALUES({mask}, {key});"),
        // A living row's key is read when it is folded; a deleted one's only now.
        KeyKind::Rowid if row == "NEW" => {
            format!("INSERT INTO {pending}(key, mask) VALUES({rowid}, {mask});")
        }
        KeyKind::Rowid => format!("INSERT INTO {pending} VALUES({rowid}, {mask}, {key});"),
    }
}

/// Returns the condition that a column's value changed, byte for byte and type for type.
fn differs(column: &Column) -> String {
    let name = quoted(&column.name);
    let values = format!("OLD.{name} IS NOT NEW.{name} COLLATE BINARY");
    if column.keeps_number_types {
        format!("({values} OR typeof(OLD.{name}) <> typeof(NEW.{name}))")
    } else {
        values
    }
}
