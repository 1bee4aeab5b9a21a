//! How far this replica may lower its bounded counters, kept where triggers in plain SQL look it up.
//!
//! A table with bounded counters has another beside it, `syncline_rights_<id>`, with one row for
//! each cell: the least value that may be written here, under the values of the row's key. It is
//! made of what other replicas hold, which only merges and grants change. So it stays what it is
//! while values are written here, however many transactions the next fold finds.

use std::collections::BTreeMap;

use rusqlite::{Connection, params_from_iter};
use syncline_crdt::{Policy, SiteId, Value};

use crate::constraints::{listing, store};
use crate::joined::{self, Cell, CellPlace};
use crate::shadow::{OWN, Sites};
use crate::shape::Affinity;
use crate::table::{JoinedColumn, KeyKind, RowKey, Table, list};
use crate::value::{Bound, quoted};

/// Takes the view away.
pub(crate) const DROP: &str = "DROP VIEW IF EXISTS syncline_rights;";

/// How many tables one part of the view lists: SQLite takes 500.
const VIEW_TABLES_MAX: usize = 400;

/// Returns a table's columns that are bounded counters, with their floors.
pub(crate) fn bounded(table: &Table) -> impl Iterator<Item = (&JoinedColumn, i64)> {
    table
        .joined
        .iter()
        .filter_map(|joined| match joined.policy {
            Policy::BoundedCounter { floor } => Some((joined, floor)),
            _ => None,
        })
}

fn has_any(table: &Table) -> bool {
    bounded(table).next().is_some()
}

fn name(table_id: i64) -> String {
    format!("syncline_rights_{table_id}")
}

/// Makes the table of rights, without any, if there is none yet.
pub(crate) fn begin(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    if !has_any(table) || exists(conn, table.id)? {
        return Ok(());
    }
    // SQLite looks a value up in an index only where both have one affinity.
    let columns = table.shape.key.iter().zip(keys(table));
    let columns = columns.map(|(column, key)| match column.affinity {
        Affinity::Text => format!("{key} TEXT"),
        Affinity::Number => format!("{key} NUMERIC"),
        Affinity::Blob => key,
    });
    let (columns, keys) = (list(columns, ", "), list(keys(table), ", "));
    conn.execute_batch(&format!(
        "CREATE TABLE main.{}(
            lane INTEGER NOT NULL,
            {columns},
            key TEXT NOT NULL,
            least INTEGER NOT NULL,
            elsewhere TEXT NOT NULL,
            PRIMARY KEY(lane, {keys})
        ) WITHOUT ROWID;",
        name(table.id)
    ))?;
    renew_view(conn)
}

/// Drops a table's rights.
pub(crate) fn end(conn: &Connection, table_id: i64) -> rusqlite::Result<()> {
    if !exists(conn, table_id)? {
        return Ok(());
    }
    conn.execute_batch(&format!("DROP TABLE main.{};", name(table_id)))?;
    renew_view(conn)
}

fn exists(conn: &Connection, table_id: i64) -> rusqlite::Result<bool> {
    let exists = "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?1";
    conn.prepare_cached(exists)?.exists([name(table_id)])
}

/// Makes the view that lists the rights of all tables.
pub(crate) fn renew_view(conn: &Connection) -> rusqlite::Result<()> {
    let ids = "SELECT id FROM syncline_tables ORDER BY id";
    let mut statement = conn.prepare(ids)?;
    let ids = statement.query_map([], |row| row.get(0))?;
    let mut parts = vec!["SELECT NULL, NULL, NULL, NULL, NULL WHERE FALSE".to_owned()];
    for id in ids.collect::<Result<Vec<i64>, _>>()? {
        if exists(conn, id)? {
            parts.push(format!(
                "SELECT t.name, r.key, c.name, r.least, r.elsewhere FROM {} AS r
                 JOIN syncline_tables AS t ON t.id = {id}
                 JOIN syncline_columns AS c ON c.table_id = {id} AND c.lane = r.lane",
                name(id)
            ));
        }
    }
    let parts = parts.chunks(VIEW_TABLES_MAX);
    let parts = parts.map(|part| format!("SELECT * FROM ({})", part.join(" UNION ALL ")));
    conn.execute_batch(&format!(
        "DROP VIEW IF EXISTS main.syncline_rights;
         CREATE VIEW main.syncline_rights(table_name, key, column_name, least, elsewhere) AS {};",
        list(parts, " UNION ALL ")
    ))
}

/// Returns the least value that may be written into a bounded counter of the row that a trigger
/// calls `NEW`, as SQL: its floor where nobody else holds anything.
pub(crate) fn least(table: &Table, (joined, floor): (&JoinedColumn, i64)) -> String {
    let key = table.key_columns.iter().zip(keys(table));
    let key = key.map(|(column, key)| format!("{key} = NEW.{}", quoted(&column.name)));
    let (rights, lane, key) = (name(table.id), joined.column.lane, list(key, " AND "));
    format!("ifnull((SELECT least FROM {rights} WHERE lane = {lane} AND {key}), {floor})")
}

/// Notes what may be written into a cell after its entries changed.
pub(crate) fn note(
    conn: &Connection,
    table: &Table,
    column: &JoinedColumn,
    key: &[Value],
    (cell, sites): (&Cell, &Sites),
) -> rusqlite::Result<()> {
    let Cell::Entries(entries) = cell else {
        return Ok(());
    };
    let own = sites.site(OWN);
    let Some(least) = entries.least(own) else {
        return Ok(());
    };
    let named = table.key_columns.iter().zip(key);
    let named = named.map(|(column, value)| (column.name.as_str(), value.clone()));
    let put = format!(
        "INSERT OR REPLACE INTO {}(lane, key, least, elsewhere, {}) VALUES(?1, ?2, ?3, ?4, {})",
        name(table.id),
        list(keys(table), ", "),
        list((5..5 + key.len()).map(|at| format!("?{at}")), ", "),
    );
    let values = [
        Value::Integer(column.column.lane),
        Value::text(&listing::named(named)),
        Value::Integer(least),
        Value::text(&elsewhere(entries.holders(), own)),
    ];
    let values = values.iter().chain(key).map(Bound);
    conn.prepare_cached(&put)?
        .execute(params_from_iter(values))?;
    Ok(())
}

/// Returns what other sites hold, as a JSON object.
fn elsewhere(holders: BTreeMap<SiteId, i64>, own: SiteId) -> String {
    let others = holders.into_iter().filter(|(site, _)| *site != own);
    let others = others.map(|(site, amount)| format!("\"{site}\":{amount}"));
    format!("{{{}}}", list(others, ","))
}

/// Notes anew what may be written into a table's cells.
pub(crate) fn fill(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    if !has_any(table) {
        return Ok(());
    }
    conn.execute(&format!("DELETE FROM {}", name(table.id)), [])?;
    let sites = Sites::load(conn)?;
    for place in joined::keys(conn, table.id)? {
        let key = store::unpacked(&place);
        for (column, _) in bounded(table) {
            let at = CellPlace::new(table, column, &place);
            let cell = Cell::read(conn, &sites, at, column.policy)?;
            if cell.shown().is_some() {
                note(conn, table, column, &key, (&cell, &sites))?;
            }
        }
    }
    Ok(())
}

/// Drops the rights in the rows from `first` to `last`, whose lives ended.
pub(crate) fn forget(
    conn: &Connection,
    table: &Table,
    first: &RowKey,
    last: &RowKey,
) -> rusqlite::Result<()> {
    for (column, _) in bounded(table) {
        let lane = Value::Integer(column.column.lane);
        let (rows, mut values) = match table.kind {
            KeyKind::Integer => {
                let span = [first, last].map(store::unpacked);
                ("k0 BETWEEN ?2 AND ?3".to_owned(), span.concat())
            }
            KeyKind::Rowid | KeyKind::Packed => (is_at(table, 2), store::unpacked(first)),
        };
        values.insert(0, lane);
        let delete = format!("DELETE FROM {} WHERE lane = ?1 AND {rows}", name(table.id));
        conn.prepare_cached(&delete)?
            .execute(params_from_iter(values.iter().map(Bound)))?;
    }
    Ok(())
}

/// Drops the rights in a column's cells, or those in all of a table's.
pub(crate) fn forget_lanes(
    conn: &Connection,
    table_id: i64,
    lane: Option<i64>,
) -> rusqlite::Result<()> {
    if exists(conn, table_id)? {
        let delete = format!(
            "DELETE FROM {} WHERE lane = ifnull(?1, lane)",
            name(table_id)
        );
        conn.execute(&delete, [lane])?;
    }
    Ok(())
}

/// Notes the rights in a row's cells under another key.
pub(crate) fn rename(
    conn: &Connection,
    table: &Table,
    from: &RowKey,
    to: &RowKey,
) -> rusqlite::Result<()> {
    if !has_any(table) {
        return Ok(());
    }
    forget(conn, table, from, from)?;
    forget(conn, table, to, to)?;
    let key = store::unpacked(to);
    let sites = Sites::load(conn)?;
    for (column, _) in bounded(table) {
        let cell = Cell::read(
            conn,
            &sites,
            CellPlace::new(table, column, to),
            column.policy,
        )?;
        if cell.shown().is_some() {
            note(conn, table, column, &key, (&cell, &sites))?;
        }
    }
    Ok(())
}

/// Returns the columns that hold the values of a row's key.
fn keys(table: &Table) -> impl Iterator<Item = String> {
    (0..table.key_columns.len()).map(|at| format!("k{at}"))
}

/// Returns the condition that names one row by its key, from parameter `first` on.
fn is_at(table: &Table, first: usize) -> String {
    let term = |(at, key): (usize, String)| format!("{key} = ?{}", first + at);
    list(keys(table).enumerate().map(term), " AND ")
}
