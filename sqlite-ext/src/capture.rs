//! The triggers that note what was touched, in plain SQL, so that any program may write.
//!
//! A row that is added beyond all others needs no note at all: a table's watermark is the greatest
//! rowid that is folded, and what lies above it is new. So the trigger for inserts only notes rows
//! at or below it. The others append and never look anything up: the key, a mask of the changed
//! columns' lanes, and, for a deleted row, whatever names it later. Appending also keeps them clear
//! of the conflict policy of the statement that fires them, which would replace their own.

use crate::table::{Column, KeyKind, Table, list};
use crate::value::quoted;
use crate::watermark;

/// The mask of a row that was written as a whole.
pub(crate) const WHOLE: i64 = -1;
/// The mask of a row that was deleted.
pub(crate) const DELETED: i64 = -2;
/// The most columns beside the key that a mask has bits for.
pub(crate) const LANES_MAX: usize = 62;
/// How many columns one trigger compares. SQLite reads both values of each, so that an update of
/// one column would pay for all; a trigger each would cost an update of all columns more.
const COLUMNS_TOGETHER: usize = 8;
/// The names under which every rowid is known.
const ROWID_NAMES: [&str; 3] = ["rowid", "oid", "_rowid_"];

/// Returns the statements that begin to capture a table's writes.
pub(crate) fn begin(table: &Table) -> String {
    let pending = table.pending();
    let keys = (0..table.key_columns.len()).map(|at| format!("k{at}"));
    let columns = match table.kind {
        KeyKind::Integer => "key, mask".to_owned(),
        KeyKind::Rowid => format!("key, mask, {}", list(keys, ", ")),
        KeyKind::Packed => format!("mask, {}", list(keys, ", ")),
    };
    let triggers = triggers(table, Some(watermark::LEAST));
    format!("CREATE TABLE {pending}({columns});\n{triggers}")
}

/// Returns the statements that make the triggers anew, after the table's columns changed.
pub(crate) fn renew(table: &Table) -> String {
    format!("{}\n{}", drop_triggers(table.id), triggers(table, None))
}

/// Returns the statements that end the capture of a table's writes.
pub(crate) fn end(table_id: i64) -> String {
    format!(
        "{}\nDROP TABLE IF EXISTS syncline_pending_{table_id};",
        drop_triggers(table_id)
    )
}

/// Returns the statements that make the trigger for inserts anew, with another ceiling.
pub(crate) fn renew_insert(table: &Table, ceiling: i64) -> String {
    let drop = format!("DROP TRIGGER IF EXISTS syncline_{}_insert;", table.id);
    format!("{drop}\n{}", on_insert(table, Some(ceiling)))
}

fn drop_triggers(table_id: i64) -> String {
    let drop = |event: String| format!("DROP TRIGGER IF EXISTS syncline_{table_id}_{event};");
    let updates = (0..LANES_MAX.div_ceil(COLUMNS_TOGETHER)).map(update_event);
    let others = ["insert", "move", "delete", "displace", "displaced"].map(str::to_owned);
    list(others.into_iter().chain(updates).map(drop), "\n")
}

/// Returns the triggers; `ceiling` is that of the one for inserts.
fn triggers(table: &Table, ceiling: Option<i64>) -> String {
    let old = append(table, "OLD", &DELETED.to_string());
    let delete = trigger(table, "delete", "AFTER DELETE", "", &old);
    let updates = table.columns.chunks(COLUMNS_TOGETHER).enumerate();
    let updates = updates.map(|(at, columns)| on_update(table, &update_event(at), columns));
    let all = [on_insert(table, ceiling), on_move(table), delete];
    list(all.into_iter().chain(updates), "\n")
}

fn update_event(at: usize) -> String {
    format!("update_{at}")
}

fn on_insert(table: &Table, ceiling: Option<i64>) -> String {
    let unnamed = without_key(table);
    let condition = match (watermark::condition(table, ceiling), &unnamed) {
        (None, _) => String::new(),
        (Some(below), None) => format!("WHEN {below}"),
        (Some(below), Some(unnamed)) => format!("WHEN {unnamed} OR {below}"),
    };
    let new = append(table, "NEW", &WHOLE.to_string());
    let body = format!("{}{new}", refusal(unnamed));
    trigger(table, "insert", "AFTER INSERT", &condition, &body)
}

fn on_move(table: &Table) -> String {
    let rowid = (table.kind != KeyKind::Packed).then_some(&table.rowid);
    let rowid = rowid.map(|rowid| format!("OLD.{rowid} IS NOT NEW.{rowid}"));
    let moved = rowid
        .into_iter()
        .chain(table.key_columns.iter().map(differs));
    let condition = format!("WHEN {}", list(moved, " OR "));
    let names = table.key_columns.iter().map(|column| quoted(&column.name));
    let names = match table.kind {
        KeyKind::Packed => list(names, ", "),
        // Under any of its names a statement may set the rowid.
        KeyKind::Integer | KeyKind::Rowid => {
            list(names.chain(ROWID_NAMES.map(str::to_owned)), ", ")
        }
    };
    let old = append(table, "OLD", &DELETED.to_string());
    let new = append(table, "NEW", &WHOLE.to_string());
    let body = format!("{}{old} {new}", refusal(without_key(table)));
    let when = format!("AFTER UPDATE OF {names}");
    trigger(table, "move", &when, &condition, &body)
}

fn on_update(table: &Table, event: &str, columns: &[Column]) -> String {
    let bit = |column: &Column| {
        let (changed, bit) = (differs(column), 1i64 << column.lane);
        format!("CASE WHEN {changed} THEN {bit} ELSE 0 END")
    };
    let mask = list(columns.iter().map(bit), " | ");
    let names = list(columns.iter().map(|column| quoted(&column.name)), ", ");
    let when = format!("AFTER UPDATE OF {names}");
    trigger(table, event, &when, "", &append(table, "NEW", &mask))
}

/// Returns the condition that a row's key has a NULL, where SQLite lets it in, any number of times;
/// no other replica could tell the rows apart.
fn without_key(table: &Table) -> Option<String> {
    let nullable = table
        .key_columns
        .iter()
        .filter(|column| !column.is_not_null);
    let is_null = nullable.map(|column| format!("NEW.{} IS NULL", quoted(&column.name)));
    let is_null = list(is_null, " OR ");
    (table.kind == KeyKind::Rowid && !is_null.is_empty()).then_some(is_null)
}

fn refusal(unnamed: Option<String>) -> String {
    let message = "'a row of a tracked table needs a primary key'";
    let refuse = |unnamed| format!("SELECT RAISE(ABORT, {message}) WHERE {unnamed}; ");
    unnamed.map(refuse).unwrap_or_default()
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
pub(crate) fn differs(column: &Column) -> String {
    let name = quoted(&column.name);
    let values = format!("OLD.{name} IS NOT NEW.{name} COLLATE BINARY");
    if column.keeps_number_types {
        format!("({values} OR typeof(OLD.{name}) <> typeof(NEW.{name}))")
    } else {
        values
    }
}
