//! The triggers that note what was touched, in plain SQL, so that any program may write.
//!
//! A row that is added beyond all others needs no note at all: a table's watermark is the greatest
//! rowid that is folded, and what lies above it is new. So the trigger for inserts only notes rows
//! at or below it. The others append and never look anything up: the key, a mask of the changed
//! columns' lanes, and, for a deleted row, whatever names it later. Appending also keeps them clear
//! of the conflict policy of the statement that fires them, which would replace their own.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params_from_iter};
use syncline_crdt::Value;

use crate::mask;
use crate::policies;
use crate::rights;
use crate::table::{Column, KeyKind, Table, list};
use crate::value::{Bound, quoted};
use crate::watermark;

/// The mask of a row that was written as a whole.
pub(crate) const WHOLE: i64 = -1;
/// The mask of a row that was deleted.
pub(crate) const DELETED: i64 = -2;
/// How many columns one trigger compares. SQLite reads both values of each, so that an update of
/// one column would pay for all; a trigger each would cost an update of all columns more.
const COLUMNS_TOGETHER: usize = 8;
/// The names under which every rowid is known.
pub(crate) const ROWID_NAMES: [&str; 3] = ["rowid", "oid", "_rowid_"];

/// Begins to capture a table's writes.
pub(crate) fn begin(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    let (pending, keys) = (table.pending(), keys(table));
    let columns = format!("{keys}, {}", masks(table).join(", "));
    conn.execute_batch(&format!("CREATE TABLE main.{pending}({columns});"))?;
    rights::begin(conn, table)?;
    create(conn, triggers(table, Some(watermark::LEAST)))
}

/// Makes the triggers anew, after the table's columns changed.
pub(crate) fn renew(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    drop_triggers(conn, table.id)?;
    let exists = "SELECT 1 FROM pragma_table_xinfo(?1, 'main') WHERE name = ?2";
    for mask in masks(table) {
        if !conn.prepare(exists)?.exists((table.pending(), &mask))? {
            let add = format!("ALTER TABLE main.{} ADD COLUMN {mask}", table.pending());
            conn.execute_batch(&add)?;
        }
    }
    rights::begin(conn, table)?;
    create(conn, triggers(table, None))
}

/// Makes the trigger for inserts anew, with another ceiling.
pub(crate) fn renew_insert(conn: &Connection, table: &Table, ceiling: i64) -> rusqlite::Result<()> {
    let name = format!("syncline_{}_insert", table.id);
    conn.execute_batch(&format!("DROP TRIGGER IF EXISTS main.{name};"))?;
    create(conn, vec![on_insert(table, Some(ceiling))])
}

/// Ends the capture of a table's writes.
pub(crate) fn end(conn: &Connection, table_id: i64) -> rusqlite::Result<()> {
    drop_triggers(conn, table_id)?;
    rights::end(conn, table_id)?;
    conn.execute_batch(&format!(
        "DROP TABLE IF EXISTS main.syncline_pending_{table_id};"
    ))
}

/// Takes away the triggers, but not what they noted.
pub(crate) fn drop_triggers(conn: &Connection, table_id: i64) -> rusqlite::Result<()> {
    let names = "SELECT name FROM main.sqlite_master WHERE type = 'trigger' AND name GLOB ?1";
    let mut statement = conn.prepare(names)?;
    let names = statement.query_map([format!("syncline_{table_id}_*")], |row| row.get(0))?;
    let names: Vec<String> = names.collect::<Result<_, _>>()?;
    for name in names {
        conn.execute_batch(&format!("DROP TRIGGER main.{}", quoted(&name)))?;
    }
    Ok(())
}

/// Whether all triggers of a table are there, and say what they should.
pub(crate) fn is_complete(conn: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let found = found(conn, table)?.into_iter();
    let found: BTreeSet<String> = found.map(|(_, sql)| sql).collect();
    let ceiling = watermark::ceiling(conn, table)?;
    let made = |ceiling| triggers(table, ceiling).into_iter().collect();
    Ok(found == made(None) || found == made(Some(ceiling)))
}

/// Returns the names and texts of a table's triggers.
pub(crate) fn found(conn: &Connection, table: &Table) -> rusqlite::Result<Vec<(String, String)>> {
    let found = "SELECT name, sql FROM main.sqlite_master
        WHERE type = 'trigger' AND name GLOB ?1 AND name NOT GLOB '*_displace*'
        AND tbl_name = ?2 COLLATE NOCASE";
    let mut statement = conn.prepare_cached(found)?;
    let named = (format!("syncline_{}_*", table.id), &table.name);
    let found = statement.query_map(named, |row| Ok((row.get(0)?, row.get(1)?)))?;
    found.collect()
}

/// Returns the triggers that name no column beside the key, with the ceiling that is among those
/// that are there.
pub(crate) fn of_key(
    conn: &Connection,
    table: &Table,
    found: &BTreeMap<String, String>,
) -> rusqlite::Result<Vec<String>> {
    let ceiling = watermark::ceiling(conn, table)?;
    let insert = on_insert(table, Some(ceiling));
    let has_ceiling = found.values().any(|sql| *sql == insert);
    Ok(key_triggers(table, has_ceiling.then_some(ceiling)))
}

/// Returns lanes in order as they share triggers.
pub(crate) fn together(lanes: &[i64]) -> Vec<&[i64]> {
    let words = lanes.chunk_by(|a, b| mask::place(*a).0 == mask::place(*b).0);
    words
        .flat_map(|word| word.chunks(COLUMNS_TOGETHER))
        .collect()
}

/// Returns the name of the trigger for updates whose first column has this lane.
pub(crate) fn update_name(table_id: i64, lane: i64) -> String {
    format!("syncline_{table_id}_update_{lane}")
}

/// Notes a row that is gone as deleted.
pub(crate) fn note_deletion(
    conn: &Connection,
    table: &Table,
    key: &[Value],
) -> rusqlite::Result<()> {
    let (pending, fields) = (table.pending(), keys(table));
    let mut places = list((1..=key.len()).map(|at| format!("?{at}")), ", ");
    if table.kind == KeyKind::Rowid {
        // Where the row was is not known; nobody's row has the least of all rowids.
        places = format!("{}, {places}", i64::MIN);
    }
    let insert = format!("INSERT INTO {pending}(mask, {fields}) VALUES({DELETED}, {places})");
    let key = params_from_iter(key.iter().map(Bound));
    conn.prepare_cached(&insert)?.execute(key)?;
    Ok(())
}

/// Returns the names of what names a row in the pending table, with commas.
pub(crate) fn keys(table: &Table) -> String {
    let keys = (0..table.key_columns.len()).map(|at| format!("k{at}"));
    match table.kind {
        KeyKind::Integer => "key".to_owned(),
        KeyKind::Rowid => format!("key, {}", list(keys, ", ")),
        KeyKind::Packed => list(keys, ", "),
    }
}

/// Returns the names of the mask's words in the pending table.
pub(crate) fn masks(table: &Table) -> Vec<String> {
    let lanes = table.captured().map(|column| column.lane);
    let (last, _) = mask::place(lanes.max().unwrap_or(0));
    (0..=last).map(mask_name).collect()
}

fn mask_name(word: usize) -> String {
    match word {
        0 => "mask".to_owned(),
        word => format!("mask{word}"),
    }
}

fn create(conn: &Connection, triggers: Vec<String>) -> rusqlite::Result<()> {
    for sql in triggers {
        // In `main` also where a temporary table has the same name.
        conn.execute_batch(&sql.replacen("TRIGGER ", "TRIGGER main.", 1))?;
    }
    Ok(())
}

/// Returns the statements that make the triggers, as SQLite stores them; `ceiling` is that of the
/// one for inserts.
fn triggers(table: &Table, ceiling: Option<i64>) -> Vec<String> {
    let mut all = key_triggers(table, ceiling);
    let mut columns: Vec<&Column> = table.captured().collect();
    columns.sort_by_key(|column| column.lane);
    let lanes: Vec<i64> = columns.iter().map(|column| column.lane).collect();
    let mut rest = &columns[..];
    for together in together(&lanes) {
        let (columns, others) = rest.split_at(together.len());
        all.push(on_update(table, columns));
        rest = others;
    }
    all.extend(policies::triggers(table));
    all
}

/// Returns the statements of the triggers that name no column beside the key.
fn key_triggers(table: &Table, ceiling: Option<i64>) -> Vec<String> {
    let old = append(table, "OLD", "mask", &DELETED.to_string());
    let delete = trigger(table, "delete", "AFTER DELETE", "", &old);
    let mut all = vec![on_insert(table, ceiling), on_move(table), delete];
    if table.kind == KeyKind::Rowid {
        all.extend(ousted(table));
    }
    all
}

fn on_insert(table: &Table, ceiling: Option<i64>) -> String {
    let unnamed = without_key(table);
    let condition = match (watermark::condition(table, ceiling), &unnamed) {
        (None, _) => String::new(),
        (Some(below), None) => format!("WHEN {below}"),
        (Some(below), Some(unnamed)) => format!("WHEN {unnamed} OR {below}"),
    };
    let new = append(table, "NEW", "mask", &WHOLE.to_string());
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
    let old = append(table, "OLD", "mask", &DELETED.to_string());
    let new = append(table, "NEW", "mask", &WHOLE.to_string());
    let body = format!("{}{old} {new}", refusal(without_key(table)));
    let when = format!("AFTER UPDATE OF {names}");
    trigger(table, "move", &when, &condition, &body)
}

/// Notes the row whose rowid another one takes by name: SQLite deletes it for `REPLACE`, and fires
/// no delete trigger unless `recursive_triggers` is on. A note of a row that stays is harmless.
fn ousted(table: &Table) -> [String; 2] {
    let (pending, keys, name) = (table.pending(), keys(table), table.quoted());
    let (rowid, key) = (&table.rowid, table.key_list());
    let note = format!(
        "INSERT INTO {pending}({keys}, mask) SELECT {rowid}, {key}, {DELETED} FROM {name} \
         WHERE {rowid} = NEW.{rowid};"
    );
    // Before a row is inserted, its rowid is -1 if SQLite is to choose it.
    let chosen = format!("WHEN NEW.{rowid} <> -1");
    let moved = format!("WHEN OLD.{rowid} IS NOT NEW.{rowid}");
    let of = format!("BEFORE UPDATE OF {}", ROWID_NAMES.join(", "));
    [
        trigger(table, "oust", "BEFORE INSERT", &chosen, &note),
        trigger(table, "ousted", &of, &moved, &note),
    ]
}

/// Notes which of some columns an update changed; their lanes are in one word of the mask.
fn on_update(table: &Table, columns: &[&Column]) -> String {
    let bit = |column: &&Column| {
        let (changed, (_, bit)) = (differs(column), mask::place(column.lane));
        format!("CASE WHEN {changed} THEN {} ELSE 0 END", 1i64 << bit)
    };
    let bits = list(columns.iter().map(bit), " | ");
    let names = list(columns.iter().map(|column| quoted(&column.name)), ", ");
    let bits = outlasting(columns, &["OLD", "NEW"], &bits);
    let lane = columns[0].lane;
    let event = format!("update_{lane}");
    let when = format!("AFTER UPDATE OF {names}");
    let body = append(table, "NEW", &mask_name(mask::place(lane).0), &bits);
    trigger(table, &event, &when, "", &body)
}

/// Returns an expression of a trigger that stays valid when SQLite drops one of these columns.
///
/// SQLite drops no column that a trigger names, unless the name means something else without the
/// column: the same of a query around it. It looks there last, and never for a column that is there.
/// Each query has a source of its own, since SQLite would store the second of two.
pub(crate) fn outlasting(columns: &[&Column], rows: &[&str], expression: &str) -> String {
    let none = columns
        .iter()
        .map(|column| format!("NULL AS {}", quoted(&column.name)));
    let none = format!("SELECT {}", list(none, ", "));
    rows.iter()
        .fold(format!("(SELECT {expression})"), |inner, row| {
            format!("(SELECT {inner} FROM ({none}) AS {row})")
        })
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

pub(crate) fn trigger(
    table: &Table,
    event: &str,
    when: &str,
    condition: &str,
    body: &str,
) -> String {
    let (id, name) = (table.id, table.quoted());
    format!("CREATE TRIGGER syncline_{id}_{event} {when} ON {name} {condition} BEGIN {body} END")
}

/// Returns the statement that notes a row, with one word of its mask.
fn append(table: &Table, row: &str, word: &str, bits: &str) -> String {
    let (pending, keys) = (table.pending(), keys(table));
    let rowid = format!("{row}.{}", table.rowid);
    let key = |column: &Column| format!("{row}.{}", quoted(&column.name));
    let key = list(table.key_columns.iter().map(key), ", ");
    let (keys, key) = match table.kind {
        KeyKind::Integer => (keys, rowid),
        KeyKind::Packed => (keys, key),
        // A living row's key is read when it is folded; a deleted one's only now.
        KeyKind::Rowid if row == "NEW" => ("key".to_owned(), rowid),
        KeyKind::Rowid => (keys, format!("{rowid}, {key}")),
    };
    format!("INSERT INTO {pending}({keys}, {word}) VALUES({key}, {bits});")
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
