//! The tables that cr-sqlite's surface keeps: its own three, and ours for the clocks.

use rusqlite::{Connection, OptionalExtension};

use super::error::Result;
use super::takeover;
use crate::shadow::{self, in_savepoint};

/// The version of cr-sqlite whose surface this is, as its `crsql_master` holds it: 0.16.3.
pub(crate) const CRSQLITE_VERSION: i64 = 160_300;

/// The column number of a row's sentinel, which tells its causal length.
pub(crate) const SENTINEL: i64 = 0;
/// The name of that column in `crsql_changes`.
pub(crate) const SENTINEL_NAME: &str = "-1";
/// The ordinal of this replica in `crsql_site_id`.
pub(crate) const OWN: i64 = 0;

// Applications write to `crsql_master` and `crsql_tracked_peers`, so these are ordinary tables. A
// database that cr-sqlite wrote has the first three already.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS crsql_site_id(site_id BLOB NOT NULL, ordinal INTEGER PRIMARY KEY);
    CREATE UNIQUE INDEX IF NOT EXISTS crsql_site_id_site_id ON crsql_site_id(site_id);
    CREATE TABLE IF NOT EXISTS crsql_master(key TEXT PRIMARY KEY, value ANY);
    CREATE TABLE IF NOT EXISTS crsql_tracked_peers(
        site_id BLOB NOT NULL,
        version INTEGER NOT NULL,
        seq INTEGER DEFAULT 0,
        tag INTEGER,
        event INTEGER,
        PRIMARY KEY(site_id, tag, event)
    ) STRICT;
    CREATE TABLE syncline_crsql_tables(
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE COLLATE NOCASE,
        key_columns TEXT NOT NULL,
        is_altering INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE syncline_crsql_columns(
        table_id INTEGER NOT NULL,
        id INTEGER NOT NULL,
        name TEXT NOT NULL COLLATE NOCASE,
        PRIMARY KEY(table_id, id)
    ) WITHOUT ROWID;
    CREATE TABLE syncline_crsql_rows(
        id INTEGER PRIMARY KEY,
        table_id INTEGER NOT NULL,
        key BLOB NOT NULL,
        pk BLOB,
        causal_length INTEGER NOT NULL,
        UNIQUE(table_id, key)
    );
    CREATE TABLE syncline_crsql_cells(
        row_id INTEGER NOT NULL,
        column_id INTEGER NOT NULL,
        col_version INTEGER NOT NULL,
        db_version INTEGER NOT NULL,
        site INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY(row_id, column_id)
    ) WITHOUT ROWID;
    CREATE INDEX syncline_crsql_cells_by_version ON syncline_crsql_cells(db_version, seq);
    CREATE TABLE syncline_crsql_pending(
        id INTEGER PRIMARY KEY, table_id INTEGER NOT NULL, kind INTEGER NOT NULL, mask, k0
    );
    INSERT OR REPLACE INTO syncline_meta(key, value) VALUES('crsql_db_version', 0);
";

/// Whether the tables are there.
pub(crate) fn is_present(conn: &Connection) -> rusqlite::Result<bool> {
    has_table(conn, "syncline_crsql_tables")
}

/// Whether the database has a table of this name.
pub(crate) fn has_table(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    let exists = "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?1";
    conn.prepare_cached(exists)?.exists([name])
}

/// Makes the tables, if they are not there. A site id that cr-sqlite gave the database stays.
pub(crate) fn prepare(conn: &Connection) -> Result<()> {
    if is_present(conn)? {
        return Ok(());
    }
    takeover::check(conn)?;
    in_savepoint(conn, || {
        let is_known = shadow::is_prepared(conn)?;
        shadow::prepare(conn)?;
        conn.execute_batch(TABLES)?;
        let own = "INSERT OR IGNORE INTO crsql_site_id(site_id, ordinal)
            SELECT site_id, ?1 FROM syncline_sites WHERE ordinal = ?2";
        conn.execute(own, (OWN, shadow::OWN))?;
        if !is_known {
            let same = "UPDATE syncline_sites SET site_id =
                (SELECT site_id FROM crsql_site_id WHERE ordinal = ?1) WHERE ordinal = ?2
                AND 16 = (SELECT length(site_id) FROM crsql_site_id WHERE ordinal = ?1)";
            conn.execute(same, (OWN, shadow::OWN))?;
        }
        let version = "INSERT OR REPLACE INTO crsql_master(key, value)
            VALUES('crsqlite_version', ?1)";
        conn.execute(version, [CRSQLITE_VERSION])?;
        Ok(())
    })
}

/// Returns the version of the last committed transaction that wrote; 0 before the first.
pub(crate) fn db_version(conn: &Connection) -> rusqlite::Result<i64> {
    let version = "SELECT value FROM syncline_meta WHERE key = 'crsql_db_version'";
    conn.prepare_cached(version)?
        .query_one([], |row| row.get(0))
}

/// Raises the version of the database to that of its newest cell.
pub(crate) fn raise_db_version(conn: &Connection) -> rusqlite::Result<()> {
    let raise = "UPDATE syncline_meta
        SET value = (SELECT max(db_version) FROM syncline_crsql_cells)
        WHERE key = 'crsql_db_version'
        AND value < (SELECT max(db_version) FROM syncline_crsql_cells)";
    conn.prepare_cached(raise)?.execute([])?;
    Ok(())
}

/// Returns the number of a CRR.
pub(crate) fn id_of(conn: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    let id = "SELECT id FROM syncline_crsql_tables WHERE name = ?1";
    conn.prepare_cached(id)?
        .query_one([name], |row| row.get(0))
        .optional()
}

/// Whether a table was made a CRR by `crsql_as_crr`, here or by a cr-sqlite whose database this is.
pub(crate) fn is_crr(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    Ok(has_table(conn, &format!("{name}__crsql_clock"))?
        || is_present(conn)? && id_of(conn, name)?.is_some())
}

/// Returns the number of a site, giving it one if it is new. No site is this one.
pub(crate) fn ordinal(conn: &Connection, site: Option<&[u8]>) -> rusqlite::Result<i64> {
    let Some(site) = site else {
        return Ok(OWN);
    };
    let known = "SELECT ordinal FROM crsql_site_id WHERE site_id = ?1";
    let known = conn
        .prepare_cached(known)?
        .query_one([site], |row| row.get(0))
        .optional()?;
    if let Some(ordinal) = known {
        return Ok(ordinal);
    }
    let add = "INSERT INTO crsql_site_id(site_id) VALUES(?1) RETURNING ordinal";
    conn.prepare_cached(add)?
        .query_one([site], |row| row.get(0))
}

/// Returns the name of a site.
pub(crate) fn site(conn: &Connection, ordinal: i64) -> rusqlite::Result<Vec<u8>> {
    let site = "SELECT site_id FROM crsql_site_id WHERE ordinal = ?1";
    conn.prepare_cached(site)?
        .query_one([ordinal], |row| row.get(0))
}

/// Whether equal values are decided by the greater site.
pub(crate) fn merges_equal_values(conn: &Connection) -> rusqlite::Result<bool> {
    let value = "SELECT CAST(value AS INTEGER) FROM crsql_master
        WHERE key = 'config.merge-equal-values'";
    let value: Option<i64> = conn
        .prepare_cached(value)?
        .query_one([], |row| row.get(0))
        .optional()?;
    Ok(value.is_some_and(|value| value != 0))
}
