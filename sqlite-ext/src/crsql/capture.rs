//! The triggers of a CRR: in plain SQL, what was touched in which order, so that any program may
//! write; and, for connections with the extension, what tells them of the end of a transaction.

use rusqlite::{Connection, OptionalExtension};

use super::crr::Crr;
use crate::capture::differs;
use crate::table::{Column, list};
use crate::value::quoted;

/// The kinds of notes.
pub(crate) const INSERTED: i64 = 0;
pub(crate) const UPDATED: i64 = 1;
/// The row's key changed: this note has the old key, the next one the new key.
pub(crate) const MOVED_FROM: i64 = 2;
pub(crate) const MOVED_TO: i64 = 3;
pub(crate) const DELETED: i64 = 4;

/// How many columns one number of a mask has bits for.
const BITS: usize = 62;

const EVENTS: [&str; 5] = ["insert", "update", "move", "delete", ALTERING];
/// The name of a trigger that does nothing: it is there while a table is altered, and goes with it
/// when the table gets another name.
pub(crate) const ALTERING: &str = "altering";
const JOINS: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];

/// Returns the statements that begin to capture a CRR's writes.
pub(crate) fn begin(crr: &Crr) -> String {
    let moved = list(crr.key_columns.iter().map(differs), " OR ");
    let mask = mask(crr);
    let old = |kind| note(crr, "OLD", kind, "NULL");
    let new = |kind, mask: &str| note(crr, "NEW", kind, mask);
    let both = format!("{} {}", old(MOVED_FROM), new(MOVED_TO, &mask));
    let mut triggers = vec![
        trigger(crr, "insert", "INSERT", "", &new(INSERTED, "NULL")),
        trigger(crr, "delete", "DELETE", "", &old(DELETED)),
        trigger(crr, "move", "UPDATE", &format!("WHEN {moved}"), &both),
    ];
    if !crr.is_key_only() {
        let stays = format!("WHEN NOT ({moved})");
        triggers.push(trigger(
            crr,
            "update",
            "UPDATE",
            &stays,
            &new(UPDATED, &mask),
        ));
    }
    triggers.join("\n")
}

/// Returns the statements that end the capture of a CRR's writes.
pub(crate) fn end(id: i64) -> String {
    let drop = |event: &str| format!("DROP TRIGGER IF EXISTS main.{};", name(id, event));
    list(EVENTS.into_iter().map(drop), "\n")
}

/// Returns the statement that marks a table which is altered.
pub(crate) fn mark(crr: &Crr) -> String {
    trigger(crr, ALTERING, "DELETE", "WHEN 0", "SELECT 1;")
}

/// Returns the table that one of a CRR's triggers is on.
pub(crate) fn table_of(
    conn: &Connection,
    id: i64,
    event: &str,
) -> rusqlite::Result<Option<String>> {
    let table = "SELECT tbl_name FROM main.sqlite_master WHERE type = 'trigger' AND name = ?1";
    conn.prepare_cached(table)?
        .query_one([name(id, event)], |row| row.get(0))
        .optional()
}

/// Returns the name of a trigger.
pub(crate) fn name(id: i64, event: &str) -> String {
    format!("syncline_crsql_{id}_{event}")
}

/// Returns the statements that make a connection hear of the transactions that write to a CRR.
///
/// Their bodies never run. A statement that could fire a trigger which writes to a virtual table
/// makes that table take part in the transaction, and this is all that is wanted. They are
/// temporary: other connections do not see them.
pub(crate) fn join(crr: &Crr) -> String {
    let (id, table) = (crr.id, crr.quoted());
    let trigger = |event: &&str| {
        let name = join_name(id, event);
        format!(
            "CREATE TEMP TRIGGER IF NOT EXISTS {name} AFTER {event} ON main.{table} WHEN 0
             BEGIN INSERT INTO syncline_transaction(touched) VALUES(1); END;"
        )
    };
    list(JOINS.iter().map(trigger), "\n")
}

/// Returns the statements that undo [`join`].
pub(crate) fn part(id: i64) -> String {
    let drop = |event: &&str| format!("DROP TRIGGER IF EXISTS temp.{};", join_name(id, event));
    list(JOINS.iter().map(drop), "\n")
}

fn join_name(id: i64, event: &str) -> String {
    format!("syncline_crsql_{id}_join_{}", event.to_ascii_lowercase())
}

fn trigger(crr: &Crr, event: &str, statement: &str, condition: &str, body: &str) -> String {
    let (name, table) = (name(crr.id, event), crr.quoted());
    format!("CREATE TRIGGER main.{name} AFTER {statement} ON {table} {condition} BEGIN {body} END;")
}

fn note(crr: &Crr, row: &str, kind: i64, mask: &str) -> String {
    let places = list((0..crr.key_columns.len()).map(|at| format!("k{at}")), ", ");
    let key = |column: &Column| format!("{row}.{}", quoted(&column.name));
    let keys = list(crr.key_columns.iter().map(key), ", ");
    let id = crr.id;
    format!(
        "INSERT INTO syncline_crsql_pending(table_id, kind, mask, {places})
         VALUES({id}, {kind}, {mask}, {keys});"
    )
}

/// Returns the expression of a mask: a bit for each numbered column that changed, in numbers with
/// commas where one has not enough bits. Columns that are gone have no bit set.
fn mask(crr: &Crr) -> String {
    let mut words: Vec<String> = Vec::new();
    for (at, numbered) in crr.columns.iter().enumerate() {
        let Some(column) = &numbered.column else {
            continue;
        };
        words.resize(at / BITS + 1, "0".to_owned());
        let bit = format!(" | (({}) << {})", differs(column), at % BITS);
        words[at / BITS].push_str(&bit);
    }
    match &words[..] {
        [] => "0".to_owned(),
        [word] => word.clone(),
        _ => list(words.iter().map(|word| format!("({word})")), " || ',' || "),
    }
}

/// Returns the places of the columns that a mask names.
pub(crate) fn masked(mask: &str) -> Vec<usize> {
    let words = mask.split(',').map(|word| word.parse::<u64>().unwrap_or(0));
    let mut places = Vec::new();
    for (at, word) in words.enumerate() {
        places.extend(
            (0..BITS)
                .filter(|bit| word >> bit & 1 == 1)
                .map(|bit| at * BITS + bit),
        );
    }
    places
}
