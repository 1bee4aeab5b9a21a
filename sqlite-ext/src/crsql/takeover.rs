//! Takes a database over from cr-sqlite: what its tables know of every cell is kept in ours.
//!
//! It happens in one transaction at the first load, so a crash leaves one or the other. The
//! database stays the same site with the same version, so its peers go on where they were.

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row};
use syncline_crdt::{CausalLength, Value};

use super::cells::{self, CellClock, KnownRow};
use super::convert;
use super::crr::Crr;
use super::error::{CrsqlError, Result};
use super::functions::VERSION_MAX;
use super::session::Session;
use super::storage::{self, SENTINEL_NAME};
use crate::rows::key_from;
use crate::shadow::in_savepoint;
use crate::table::{TableInfo, list};
use crate::value::quoted;

/// The versions of cr-sqlite whose tables are read, as `crsql_master` has them: 0.15 and 0.16.
const VERSIONS: std::ops::Range<i64> = 150_000..170_000;

const CLOCK_COLUMNS: &str = "key, col_name, col_version, db_version, site_id, seq";

/// Whether cr-sqlite's clocks of some table are still there.
pub(crate) fn is_due(conn: &Connection) -> rusqlite::Result<bool> {
    let any = format!("SELECT 1 {CLOCKS}");
    conn.prepare_cached(&any)?.exists([])
}

/// Tables that are named as cr-sqlite names its clocks. Ours are views.
const CLOCKS: &str = "FROM main.sqlite_master WHERE type = 'table'
    AND name LIKE '_%\\_\\_crsql\\_clock' ESCAPE '\\'";

/// Checks that cr-sqlite's tables, if they are there, are of a version that can be read.
pub(crate) fn check(conn: &Connection) -> Result<()> {
    if !storage::has_table(conn, "crsql_master")? {
        return match is_due(conn)? {
            true => Err(refused("there is no crsql_master")),
            false => Ok(()),
        };
    }
    let version = "SELECT value FROM main.crsql_master WHERE key = 'crsqlite_version'";
    let version: Option<rusqlite::types::Value> = conn
        .prepare_cached(version)?
        .query_one([], |row| row.get(0))
        .optional()?;
    match version {
        Some(rusqlite::types::Value::Integer(known)) if VERSIONS.contains(&known) => {}
        None if !is_due(conn)? => {}
        Some(rusqlite::types::Value::Integer(other)) => {
            return Err(refused(&format!(
                "its crsqlite_version is {other}, and from {} to {} can be read",
                VERSIONS.start,
                VERSIONS.end - 1
            )));
        }
        _ => return Err(refused("crsql_master names no crsqlite_version")),
    }
    if storage::has_table(conn, "crsql_db_versions")? {
        return Err(refused("another cr-sqlite than vlcn-io's wrote it"));
    }
    Ok(())
}

fn refused(obstacle: &str) -> CrsqlError {
    CrsqlError::TakeOver {
        obstacle: obstacle.to_owned(),
    }
}

/// Makes cr-sqlite's CRRs ours. Either all of them are taken over, or nothing is changed.
pub(crate) fn run(session: Session<'_>) -> Result<()> {
    let conn = session.conn;
    check(conn)?;
    let taken_over = in_savepoint(conn, || {
        storage::prepare(conn)?;
        session.join()?;
        keep_version(conn)?;
        let mut tables = vec![];
        for name in table_names(conn)? {
            tables.extend(take_over(session, &name)?);
        }
        // All have their clocks before the first write is given a version above them.
        for crr in &tables {
            convert::start(session, crr)?;
        }
        Ok(())
    });
    session.forget_tables();
    taken_over.map_err(|error: CrsqlError| match error.code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            refused("another program uses it: load the extension again")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            refused("it cannot be written: load the extension once where it can")
        }
        _ => error,
    })
}

/// Returns the names of the tables that have cr-sqlite's clocks.
fn table_names(conn: &Connection) -> Result<Vec<String>> {
    let names = format!(
        "SELECT substr(name, 1, length(name) - length('__crsql_clock')) {CLOCKS} ORDER BY 1"
    );
    let mut statement = conn.prepare(&names)?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

/// Raises the version of the database to the one it had, so that no peer misses a change. That is
/// the highest of all clocks, also of tables and columns that are gone, or what was noted before
/// some were removed.
fn keep_version(conn: &Connection) -> Result<()> {
    let clocks = table_names(conn)?;
    let newest = clocks.iter().map(|name| {
        let clocks = shadow(name, "clock");
        format!("SELECT max(db_version) AS version FROM {clocks}")
    });
    let noted = "SELECT CAST(value AS INTEGER) AS version FROM main.crsql_master
        WHERE key = 'pre_compact_dbversion'";
    let all = list(newest.chain([noted.to_owned()]), " UNION ALL ");
    let version: Option<i64> =
        conn.query_row(&format!("SELECT max(version) FROM ({all})"), [], |row| {
            row.get(0)
        })?;
    let version = number(version.unwrap_or(0))?;
    let raise = "UPDATE syncline_meta SET value = max(value, ?1) WHERE key = 'crsql_db_version'";
    conn.execute(raise, [version])?;
    Ok(())
}

/// Returns a table of cr-sqlite's for one of the user's.
fn shadow(table: &str, kind: &str) -> String {
    format!("main.{}", quoted(&format!("{table}__crsql_{kind}")))
}

/// Takes over one table; returns nothing if it is gone and only its clocks are there.
fn take_over(session: Session<'_>, name: &str) -> Result<Option<Crr>> {
    let conn = session.conn;
    for event in ["i", "u", "d"] {
        let trigger = quoted(&format!("{name}__crsql_{event}trig"));
        conn.execute_batch(&format!("DROP TRIGGER IF EXISTS main.{trigger}"))?;
    }
    let crr = match TableInfo::read(conn, name)? {
        None => None,
        Some(info) => {
            check_shape(conn, &info)?;
            let info = convert::checked(session, name).map_err(|error| match error {
                CrsqlError::Refused { table, obstacle } => {
                    refused(&format!("`{table}` cannot be a crr: {obstacle}"))
                }
                other => other,
            })?;
            let crr = convert::declare(session, &info)?;
            copy_clocks(conn, &crr)?;
            Some(crr)
        }
    };
    let (clocks, keys) = (shadow(name, "clock"), shadow(name, "pks"));
    conn.execute_batch(&format!("DROP TABLE {clocks}; DROP TABLE IF EXISTS {keys}"))?;
    Ok(crr)
}

/// Checks that a table's clocks are laid out as those that can be read.
fn check_shape(conn: &Connection, info: &TableInfo) -> Result<()> {
    let columns = "SELECT group_concat(name, ', ') FROM
        (SELECT name FROM pragma_table_info(?1, 'main') ORDER BY cid)";
    let of = |kind: &str| {
        let name = format!("{}__crsql_{kind}", info.name);
        conn.query_row(columns, [name], |row| row.get::<_, Option<String>>(0))
    };
    let key = info.key_columns();
    let key = list(key.iter().map(|column| column.name.clone()), ", ");
    let is_known = of("clock")?.as_deref() == Some(CLOCK_COLUMNS)
        && of("pks")?
            .is_some_and(|names| names.eq_ignore_ascii_case(&format!("__crsql_key, {key}")));
    if is_known {
        return Ok(());
    }
    let name = &info.name;
    Err(refused(&format!(
        "the columns of `{name}__crsql_clock` or `{name}__crsql_pks` are not those of cr-sqlite 0.15 or 0.16"
    )))
}

/// Gives every row and cell the clock it had.
fn copy_clocks(conn: &Connection, crr: &Crr) -> Result<()> {
    let keys = crr
        .key_columns
        .iter()
        .map(|c| format!("k.{}", quoted(&c.name)));
    let keys = list(keys, ", ");
    let all = format!(
        "SELECT c.key, c.col_name, c.col_version, c.db_version, c.site_id, c.seq,
             s.ordinal IS NOT NULL, {keys}
         FROM {} AS c JOIN {} AS k ON k.__crsql_key = c.key
         LEFT JOIN main.crsql_site_id AS s ON s.ordinal = c.site_id ORDER BY c.key",
        shadow(&crr.name, "clock"),
        shadow(&crr.name, "pks")
    );
    let mut statement = conn.prepare(&all)?;
    let mut rows = statement.query([])?;
    let mut known: Option<(i64, KnownRow)> = None;
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        let found = match known {
            Some((last, found)) if last == number => found,
            _ => match known_row(conn, crr, row)? {
                Some(found) => found,
                None => continue,
            },
        };
        known = Some((number, copy_clock(conn, crr, found, row)?));
    }
    Ok(())
}

/// Makes a row's key known. Two spellings of a key that the table's collation calls equal are two
/// keys to cr-sqlite, and one to us.
fn known_row(conn: &Connection, crr: &Crr, row: &Row<'_>) -> Result<Option<KnownRow>> {
    let key = key_from(row, 7, crr.key_columns.len())?;
    if key.contains(&Value::Null) {
        return Ok(None);
    }
    Ok(Some(match cells::find(conn, crr, &key)? {
        Some(known) => known,
        None => cells::add(conn, crr, &key)?,
    }))
}

/// Gives one cell its clock, if it has none of a higher version by another spelling of its key.
fn copy_clock(conn: &Connection, crr: &Crr, known: KnownRow, row: &Row<'_>) -> Result<KnownRow> {
    let name: String = row.get(1)?;
    let has_site: bool = row.get(6)?;
    if !has_site {
        return Err(refused("a clock names a site that crsql_site_id lacks"));
    }
    let clock = CellClock {
        col_version: number(row.get(2)?)?,
        db_version: number(row.get(3)?)?,
        site: row.get(4)?,
        seq: number(row.get(5)?)?,
    };
    if name == SENTINEL_NAME {
        let length = CausalLength::new(clock.col_version.cast_unsigned());
        if length.is_none_or(|length| length.get() == 0) {
            return Err(refused("a row has a causal length that no row can have"));
        }
        if clock.col_version > known.sentinel {
            cells::set_sentinel(conn, known, clock)?;
        }
        return Ok(KnownRow {
            sentinel: known.sentinel.max(clock.col_version),
            ..known
        });
    }
    // The clock of a column that is gone tells nobody anything.
    let Ok(column) = crr.column_id(&name) else {
        return Ok(known);
    };
    let present = cells::at(conn, known, column)?;
    if present.is_none_or(|present| present.col_version < clock.col_version) {
        cells::set(conn, known, column, clock)?;
    }
    Ok(known)
}

/// Returns a counter that was read, if it is one.
fn number(value: i64) -> Result<i64> {
    if (0..=VERSION_MAX).contains(&value) {
        return Ok(value);
    }
    Err(refused("a clock has a version that no write can have"))
}

#[cfg(test)]
mod tests;
