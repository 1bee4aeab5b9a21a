//! The views under cr-sqlite's names for its own tables, to look at.

use rusqlite::Connection;

use super::crr::Crr;
use crate::table::list;
use crate::value::quoted;

/// Returns the statement that makes `<t>__crsql_clock`, which every program can read.
pub(crate) fn clock(crr: &Crr) -> String {
    let (name, id) = (clock_name(&crr.name), crr.id);
    format!(
        "CREATE VIEW IF NOT EXISTS main.{name} AS
         SELECT c.row_id AS key, ifnull(n.name, '-1') AS col_name, c.col_version, c.db_version,
             c.site AS site_id, c.seq
         FROM syncline_crsql_rows AS r JOIN syncline_crsql_cells AS c ON c.row_id = r.id
         LEFT JOIN syncline_crsql_columns AS n ON n.table_id = r.table_id AND n.id = c.column_id
         WHERE r.table_id = {id};"
    )
}

/// Returns the statement that makes `<t>__crsql_pks`. Only the extension reads packed keys, so the
/// view is temporary.
pub(crate) fn pks(crr: &Crr) -> String {
    let (name, id) = (pks_name(&crr.name), crr.id);
    let value = |(at, column): (usize, &crate::table::Column)| {
        let name = quoted(&column.name);
        format!("syncline_key_value(ifnull(pk, key), {at}) AS {name}")
    };
    let values = list(crr.key_columns.iter().enumerate().map(value), ", ");
    format!(
        "CREATE TEMP VIEW IF NOT EXISTS {name} AS SELECT id AS __crsql_key, {values}
         FROM main.syncline_crsql_rows WHERE table_id = {id};"
    )
}

/// Removes both views of a CRR.
pub(crate) fn remove(conn: &Connection, table: &str) -> rusqlite::Result<()> {
    for (schema, name) in [("main", clock_name(table)), ("temp", pks_name(table))] {
        let is_view = format!(
            "SELECT 1 FROM {schema}.sqlite_master WHERE type = 'view' AND name = ?1 COLLATE NOCASE"
        );
        let plain = name.trim_matches('"').replace("\"\"", "\"");
        if conn.prepare_cached(&is_view)?.exists([plain])? {
            conn.execute_batch(&format!("DROP VIEW {schema}.{name}"))?;
        }
    }
    Ok(())
}

fn clock_name(table: &str) -> String {
    quoted(&format!("{table}__crsql_clock"))
}

fn pks_name(table: &str) -> String {
    quoted(&format!("{table}__crsql_pks"))
}
