//! Notices that a file was changed behind our back in ways that no trigger sees, and mends it.
//!
//! - A table that was rebuilt (`CREATE new; INSERT; DROP old; RENAME`) has lost its triggers.
//! - A file that was dumped and loaded has other rowids in tables whose key is not the rowid, and
//!   there the clocks would name other rows. A canary shows it: a row of such a table, with a
//!   rowid that loading a dump does not give again, and that VACUUM keeps as it keeps the user's.
//!
//! Either way what became of the rows in between is not known. So all rows count as written now: no
//! row is lost, and none keeps a clock that may be another's.

use rusqlite::{Connection, OptionalExtension};

use crate::capture::{self, DELETED, WHOLE};
use crate::clocks::{self, LIFE, Lane, ROW};
use crate::constraints;
use crate::rows;
use crate::table::{KeyKind, RowKey, Table, TableError, list};
use syncline_crdt::{Value, unpack_key};

/// The canary's rowid: far above what loading a dump gives a table's only row.
const CANARY: i64 = 1 << 40;

/// Puts the canary into its place.
pub(crate) fn set_canary(conn: &Connection) -> rusqlite::Result<()> {
    let set = "INSERT OR REPLACE INTO syncline_canary(rowid, name) VALUES(?1, 'canary')";
    conn.prepare_cached(set)?.execute([CANARY])?;
    Ok(())
}

fn rowids_hold(conn: &Connection) -> rusqlite::Result<bool> {
    let canary = "SELECT rowid FROM syncline_canary WHERE name = 'canary'";
    let found: Option<i64> = conn
        .prepare_cached(canary)?
        .query_one([], |row| row.get(0))
        .optional()?;
    Ok(found == Some(CANARY))
}

fn is_captured(conn: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let trigger = "SELECT 1 FROM main.sqlite_master
        WHERE type = 'trigger' AND name = ?1 AND tbl_name = ?2 COLLATE NOCASE";
    let name = format!("syncline_{}_insert", table.id);
    conn.prepare_cached(trigger)?.exists((&name, &table.name))
}

/// Whether something has to be mended.
pub(crate) fn is_needed(conn: &Connection) -> Result<bool, TableError> {
    if !rowids_hold(conn)? {
        return Ok(true);
    }
    for table in Table::all(conn)? {
        if !is_captured(conn, &table)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Mends what has to be; the notes it leaves are folded next.
pub(crate) fn heal(conn: &Connection) -> Result<(), TableError> {
    let rowids_hold = rowids_hold(conn)?;
    for table in Table::all(conn)? {
        let is_captured = is_captured(conn, &table)?;
        if !is_captured {
            conn.execute_batch(&capture::renew(&table))?;
            constraints::capture(conn, &table)?;
        }
        if !is_captured || (!rowids_hold && table.kind == KeyKind::Rowid) {
            note_everything(conn, &table)?;
        }
    }
    if !rowids_hold {
        set_canary(conn)?;
    }
    Ok(())
}

/// Notes all rows as written, and those that are gone as deleted.
fn note_everything(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    let (pending, name) = (table.pending(), table.quoted());
    conn.execute(&format!("DELETE FROM {pending}"), [])?;
    if table.kind == KeyKind::Rowid {
        // The rowids name nothing any more. Which rows are gone is not known: they stay elsewhere.
        // Parked rows are named by their keys.
        let rest = "DELETE FROM syncline_clocks
            WHERE table_id = ?1 AND lane <> ?2 AND typeof(key) = 'integer'";
        conn.execute(rest, (table.id, LIFE))?;
    } else {
        note_all_gone(conn, table)?;
    }
    let (into, fields) = match table.kind {
        KeyKind::Packed => {
            let keys = (0..table.key_columns.len()).map(|at| format!("k{at}"));
            (
                format!("mask, {}", list(keys, ", ")),
                format!("{WHOLE}, {}", table.key_list()),
            )
        }
        KeyKind::Integer | KeyKind::Rowid => {
            ("key, mask".to_owned(), format!("{}, {WHOLE}", table.rowid))
        }
    };
    conn.execute(
        &format!("INSERT INTO {pending}({into}) SELECT {fields} FROM main.{name}"),
        [],
    )?;
    Ok(())
}

/// Notes the rows that have clocks and are neither in the table nor parked. Where rows are named by
/// a rowid of SQLite's own, the key of such a row is not known, and nothing is noted.
pub(crate) fn note_all_gone(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    if table.kind == KeyKind::Rowid {
        return Ok(());
    }
    let rows = Lane {
        table_id: table.id,
        lane: ROW,
    };
    for range in clocks::all(conn, rows)? {
        note_gone(conn, table, &range)?;
    }
    Ok(())
}

/// Notes the rows of a range that are neither in the table nor parked.
fn note_gone(conn: &Connection, table: &Table, range: &clocks::Range) -> rusqlite::Result<()> {
    let pending = table.pending();
    match (&range.first, &range.last) {
        (RowKey::Rowid(first), RowKey::Rowid(last)) => {
            let (name, rowid) = (table.quoted(), &table.rowid);
            let gone = format!(
                "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
                 INSERT INTO {pending}(key, mask) SELECT i, {DELETED} FROM n
                 WHERE NOT EXISTS (SELECT 1 FROM main.{name} WHERE {rowid} = i)
                 AND NOT EXISTS
                    (SELECT 1 FROM syncline_parked_rows WHERE table_id = ?3 AND place = i)"
            );
            conn.execute(&gone, (first, last, table.id))?;
        }
        (packed @ RowKey::Packed(bytes), _) => {
            let key: Vec<Value> = unpack_key(bytes).expect("keys in the clocks were packed here");
            let mut is_there = constraints::store::contains(conn, table.id, packed)?;
            rows::for_each(conn, table, &[], (packed, packed), |_, _| {
                is_there = true;
                Ok(())
            })?;
            if !is_there {
                let fields = list((2..=key.len() + 1).map(|at| format!("?{at}")), ", ");
                let insert = format!("INSERT INTO {pending} VALUES(?1, {fields})");
                let mut statement = conn.prepare(&insert)?;
                statement.raw_bind_parameter(1, DELETED)?;
                for (at, value) in key.iter().enumerate() {
                    statement.raw_bind_parameter(at + 2, crate::value::Bound(value))?;
                }
                statement.raw_execute()?;
            }
        }
        (RowKey::Rowid(_), RowKey::Packed(_)) => unreachable!("a range has keys of one kind"),
    }
    Ok(())
}
