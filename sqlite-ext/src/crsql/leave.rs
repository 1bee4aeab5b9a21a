//! Takes everything of cr-sqlite's surface out of a file, so that it is an ordinary one again.

use rusqlite::{Connection, Result};

use super::fractional::{drop_order, order_of};
use super::{capture, storage, views};
use crate::value::quoted;

/// What the surface keeps. The first three are cr-sqlite's own.
const TABLES: [&str; 8] = [
    "crsql_site_id",
    "crsql_master",
    "crsql_tracked_peers",
    "syncline_crsql_tables",
    "syncline_crsql_columns",
    "syncline_crsql_rows",
    "syncline_crsql_cells",
    "syncline_crsql_pending",
];

/// Removes what the functions whose names begin with `crsql_` made. The tables keep their rows, and
/// lists the keys of their order.
pub(crate) fn leave(conn: &Connection) -> Result<()> {
    for definition in definitions(conn)? {
        // To drop it under its own name would drop the table.
        let definition = quoted(&definition);
        conn.execute_batch(&format!(
            "ALTER TABLE main.{definition} RENAME TO syncline_crsql_left;
             DROP TABLE main.syncline_crsql_left"
        ))?;
    }
    for table in ordered(conn)? {
        conn.execute_batch(&drop_order(&table))?;
    }
    if storage::is_present(conn)? {
        for (id, name) in crrs(conn)? {
            conn.execute_batch(&capture::end(id))?;
            conn.execute_batch(&capture::part(id))?;
            views::remove(conn, &name)?;
        }
    }
    for table in TABLES {
        conn.execute_batch(&format!("DROP TABLE IF EXISTS main.{table}"))?;
    }
    Ok(())
}

/// Returns the virtual tables that stand for the definitions of CRRs.
fn definitions(conn: &Connection) -> Result<Vec<String>> {
    let all = "SELECT name, sql FROM main.sqlite_master WHERE type = 'table' AND rootpage = 0";
    let mut statement = conn.prepare(all)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, String)> = rows.collect::<Result<_>>()?;
    let is_clset = |(_, sql): &(String, String)| {
        let words: Vec<&str> = sql.split([' ', '\t', '\r', '\n', '(']).collect();
        let mut pairs = words.windows(2);
        pairs.any(|pair| pair[0].eq_ignore_ascii_case("using") && pair[1] == "clset")
    };
    let definitions = rows.into_iter().filter(is_clset);
    Ok(definitions.map(|(name, _)| name).collect())
}

fn crrs(conn: &Connection) -> Result<Vec<(i64, String)>> {
    let all = "SELECT id, name FROM syncline_crsql_tables ORDER BY id";
    let mut statement = conn.prepare(all)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Returns the tables that `crsql_fract_as_ordered` gave an order.
fn ordered(conn: &Connection) -> Result<Vec<String>> {
    let tables = "SELECT name FROM main.sqlite_master WHERE type = 'table' ORDER BY name";
    let mut statement = conn.prepare(tables)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut ordered = Vec::new();
    for name in names {
        let name = name?;
        if order_of(conn, &name)?.is_some() {
            ordered.push(name);
        }
    }
    Ok(ordered)
}
