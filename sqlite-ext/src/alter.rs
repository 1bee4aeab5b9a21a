//! `ALTER TABLE` of a tracked table: its new name, and which columns were renamed or dropped.
//!
//! SQLite keeps a table's triggers when it alters the table, and writes a column's new name into
//! them; when a table is dropped, they go. So where all of ours stand, the table is the one that was
//! tracked, and the columns that they name, lane by lane, are its columns under their new names.
//! One that the table does not have was dropped.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use crate::heal::Entry;
use crate::options::{KEY_SEPARATOR, TableOptions};
use crate::shadow::tick;
use crate::shape::Shape;
use crate::table::{Table, TableError, TableInfo, list};
use crate::{capture, columns, constraints, other_names, rights};

/// What became of a table's columns.
#[derive(Debug)]
pub(crate) struct Altered {
    /// Its key under the names it has.
    shape: Shape,
    /// Pairs of a former and a new name, in the key and beside it.
    renamed: Vec<(String, String)>,
    /// Lanes with their new names.
    lanes: Vec<(i64, String)>,
    /// The lanes of columns that are gone.
    dropped: Vec<i64>,
}

/// Returns what became of a table's columns; `None` if nothing did, or if more did than that.
pub(crate) fn altered(
    conn: &Connection,
    entry: &Entry,
    info: &TableInfo,
) -> Result<Option<Altered>, TableError> {
    let (Some(former), shape) = (Shape::parse(&entry.shape), info.shape(conn)?) else {
        return Ok(None);
    };
    let Some(table) = Table::read(conn, entry.id, &entry.name)? else {
        return Ok(None);
    };
    let kinds = |shape: &Shape| -> Vec<_> {
        let columns = shape.key.iter();
        columns
            .map(|column| (column.affinity, column.refers))
            .collect()
    };
    if former.kind != shape.kind || kinds(&former) != kinds(&shape) {
        return Ok(None);
    }
    let known = columns::lanes(conn, entry.id)?;
    let Some(named) = named(conn, &table, &known)? else {
        return Ok(None);
    };
    let keys = former.key.iter().zip(&shape.key);
    let keys = keys.map(|(former, column)| (former.name.clone(), column.name.clone()));
    let mut altered = Altered {
        renamed: keys.filter(|(former, name)| former != name).collect(),
        lanes: Vec::new(),
        dropped: Vec::new(),
        shape: shape.clone(),
    };
    for ((lane, former), name) in known.into_iter().zip(named) {
        let mut stored = info.stored_columns();
        let Some(column) = stored.find(|c| c.name.eq_ignore_ascii_case(&name)) else {
            altered.dropped.push(lane);
            continue;
        };
        if column.name != former {
            altered.lanes.push((lane, column.name.clone()));
            altered.renamed.push((former, column.name.clone()));
        }
    }
    let is_same = altered.renamed.is_empty() && altered.dropped.is_empty();
    Ok((!is_same).then_some(altered))
}

/// Returns the name that a table has now, if it was renamed: its triggers went with it.
pub(crate) fn moved(conn: &Connection, entry: &Entry) -> rusqlite::Result<Option<String>> {
    if TableInfo::read(conn, &entry.name)?.is_some() {
        return Ok(None);
    }
    let moved = "SELECT tbl_name FROM main.sqlite_master AS m
        WHERE type = 'trigger' AND name = 'syncline_' || ?1 || '_move'
        AND NOT EXISTS (SELECT 1 FROM syncline_tables AS t WHERE t.name = m.tbl_name)";
    let name = conn
        .prepare_cached(moved)?
        .query_one([entry.id], |row| row.get(0));
    name.optional()
}

/// Takes up a table's new name, which others are told.
pub(crate) fn follow(
    conn: &Connection,
    entry: &Entry,
    name: &str,
    now_unix_ms: u64,
) -> rusqlite::Result<()> {
    let stamp = tick(conn, now_unix_ms)?;
    other_names::note_own(conn, other_names::TABLES, &entry.name, name, stamp.version)?;
    let set = "UPDATE syncline_tables SET name = ?2 WHERE id = ?1";
    conn.prepare_cached(set)?.execute((entry.id, name))?;
    Ok(())
}

/// Returns the names that a table's triggers have for the columns that had lanes; `None` if the
/// triggers are not all there.
fn named(
    conn: &Connection,
    table: &Table,
    known: &[(i64, String)],
) -> rusqlite::Result<Option<Vec<String>>> {
    let mut found: BTreeMap<String, String> = capture::found(conn, table)?.into_iter().collect();
    for sql in capture::of_key(conn, table, &found)? {
        let Some((name, _)) = found.iter().find(|(_, text)| **text == sql) else {
            return Ok(None);
        };
        let name = name.clone();
        found.remove(&name);
    }
    // What refuses values of columns with a policy is made anew with the others.
    found.retain(|name, _| !name.contains("_refuse_"));
    let lanes: Vec<i64> = known.iter().map(|(lane, _)| *lane).collect();
    let mut names = Vec::new();
    for together in capture::together(&lanes) {
        let name = capture::update_name(table.id, together[0]);
        let listed = found.remove(&name).map(|sql| listed(&sql));
        let Some(listed) = listed.filter(|listed| listed.len() == together.len()) else {
            return Ok(None);
        };
        names.extend(listed);
    }
    Ok(found.is_empty().then_some(names))
}

/// Returns the columns in the list of a trigger that we wrote: each is in double quotes.
fn listed(sql: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = sql.split_once("UPDATE OF ").map_or("", |(_, rest)| rest);
    while let Some(quoted) = rest.strip_prefix('"') {
        let mut name = String::new();
        let mut chars = quoted.chars();
        while let Some(char) = chars.next() {
            if char != '"' {
                name.push(char);
            } else if chars.as_str().starts_with('"') {
                name.extend(chars.next());
            } else {
                break;
            }
        }
        names.push(name);
        rest = chars.as_str().trim_start_matches([',', ' ']);
    }
    names
}

/// Takes up what became of a table's columns: they keep their clocks under their new names, which
/// others are told.
pub(crate) fn take_up(
    conn: &Connection,
    entry: &Entry,
    altered: &Altered,
    now_unix_ms: u64,
) -> Result<(), TableError> {
    let id = entry.id;
    for lane in &altered.dropped {
        columns::forget(conn, id, *lane)?;
    }
    for (lane, name) in &altered.lanes {
        let rename = "UPDATE syncline_columns SET name = ?3 WHERE table_id = ?1 AND lane = ?2";
        conn.prepare_cached(rename)?.execute((id, lane, name))?;
    }
    if !altered.renamed.is_empty() {
        let stamp = tick(conn, now_unix_ms)?;
        for (former, name) in &altered.renamed {
            other_names::note_own(conn, &entry.name, former, name, stamp.version)?;
        }
    }
    let options = rename_options(TableOptions::of(conn, id)?, &altered.renamed);
    let set = "UPDATE syncline_tables SET shape = ?2, options = ?3 WHERE id = ?1";
    let values = (id, altered.shape.to_text(), options.to_json());
    conn.prepare_cached(set)?.execute(values)?;
    if let Some(table) = Table::read(conn, id, &entry.name)? {
        capture::renew(conn, &table)?;
        rights::fill(conn, &table)?;
        constraints::capture(conn, &table)?;
        columns::take_up(conn, &table, now_unix_ms)?;
    }
    Ok(())
}

/// Returns the options with the columns' new names.
fn rename_options(options: TableOptions, renamed: &[(String, String)]) -> TableOptions {
    let new_name = |name: String| {
        let mut renamed = renamed.iter();
        let found = renamed.find(|(former, _)| former.eq_ignore_ascii_case(&name));
        found.map_or(name, |(_, new)| new.clone())
    };
    let all_new = |names: String| {
        let names = names
            .split(KEY_SEPARATOR)
            .map(|name| new_name(name.to_owned()));
        list(names, KEY_SEPARATOR)
    };
    let columns = options.columns.into_iter();
    let keys = options.foreign_keys.into_iter();
    TableOptions {
        columns: columns
            .map(|(name, policy)| (new_name(name), policy))
            .collect(),
        foreign_keys: keys
            .map(|(names, policy)| (all_new(names), policy))
            .collect(),
        ..options
    }
}
