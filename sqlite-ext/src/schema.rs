//! Table definitions on their way between replicas.
//!
//! They travel as the SQL the user wrote, so nothing of them is lost; and since that SQL comes
//! from a peer, it is first run in an empty database in memory where an authorizer allows nothing
//! but to create this one table and its indices. Its defaults are worked out there, within limits.

mod defaults;

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_int, c_void};

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection, ffi, params};
use syncline_crdt::TableSchema;

use crate::constraints::tokens::index_name;
use crate::value::quoted;

/// Returns the statements that make a table and its indices.
///
/// # Errors
///
/// If SQLite fails.
pub fn statements(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let all = "SELECT sql FROM main.sqlite_master WHERE tbl_name = ?1 COLLATE NOCASE
        AND type IN ('table', 'index') AND sql IS NOT NULL ORDER BY type DESC, name";
    let mut statement = conn.prepare_cached(all)?;
    statement
        .query_map(params![table], |row| row.get(0))?
        .collect()
}

/// Why a table definition from a peer is not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// It does not run, or does more than it may.
    #[error("the definition of `{table}` is refused: {source}")]
    Refused {
        /// The table.
        table: String,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// It runs and makes something else.
    #[error("the definition of `{table}` does not make that table")]
    Other {
        /// The table.
        table: String,
    },
}

/// Checks that a definition makes its table and its indices, and nothing else.
pub(crate) fn check(schema: &TableSchema) -> Result<(), SchemaError> {
    let refused = |source| SchemaError::Refused {
        table: schema.name.clone(),
        source,
    };
    let other = || SchemaError::Other {
        table: schema.name.clone(),
    };
    let scratch = Connection::open_in_memory().map_err(refused)?;
    authorize(&scratch, Some(allow_creation)).map_err(refused)?;
    for sql in &schema.statements {
        let mut batch = Batch::new(&scratch, sql);
        let mut statement = batch.next().map_err(refused)?.ok_or_else(other)?;
        statement.execute([]).map_err(refused)?;
        drop(statement);
        if batch.next().map_err(refused)?.is_some() {
            return Err(other());
        }
    }
    authorize(&scratch, None).map_err(refused)?;
    let count = "SELECT count(*) FILTER (WHERE type = 'table' AND name = ?1), count(*) FILTER
        (WHERE tbl_name = ?1 AND type IN ('table', 'index')), count(*) FROM sqlite_master
        WHERE name <> 'sqlite_sequence'";
    let counts: (i64, i64, i64) = scratch
        .query_row(count, [&schema.name], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .map_err(refused)?;
    if counts.0 != 1 || counts.1 != counts.2 {
        return Err(other());
    }
    defaults::check(&scratch, &schema.name).map_err(refused)?;
    // A virtual table's arguments could be anything; so could a table that is only declared.
    let rows = format!("SELECT count(*) FROM {}", quoted(&schema.name));
    let rows: i64 = scratch
        .query_row(&rows, [], |row| row.get(0))
        .map_err(refused)?;
    if rows == 0 { Ok(()) } else { Err(other()) }
}

/// Makes a table that a peer defined, unless one of its name is here. Returns whether it was made.
///
/// # Errors
///
/// If the definition does more than that, or SQLite fails.
pub fn create(conn: &Connection, schema: &TableSchema) -> Result<bool, SchemaError> {
    let refused = |source| SchemaError::Refused {
        table: schema.name.clone(),
        source,
    };
    if is_taken(conn, &schema.name).map_err(refused)? {
        return Ok(false);
    }
    check(schema)?;
    run(conn, schema).map_err(refused)?;
    Ok(true)
}

/// Runs a definition that was checked. An index whose name means something else here gets another.
pub(crate) fn run(conn: &Connection, schema: &TableSchema) -> rusqlite::Result<()> {
    for sql in &schema.statements {
        let mut sql = Cow::Borrowed(&sql[..]);
        if let Some((name, place)) = index_name(&sql)
            && is_taken(conn, &name)?
        {
            let name = quoted(&free_name(conn, &schema.name, &name)?);
            sql.to_mut().replace_range(place, &name);
        }
        conn.prepare(&sql)?.execute([])?;
    }
    Ok(())
}

/// Returns a name for an index that is not taken, from that of its table and its own.
fn free_name(conn: &Connection, table: &str, index: &str) -> rusqlite::Result<String> {
    let mut name = format!("{table}_{index}");
    let mut number = 2;
    while is_taken(conn, &name)? {
        name = format!("{table}_{index}_{number}");
        number += 1;
    }
    Ok(name)
}

fn is_taken(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    let any = "SELECT 1 FROM main.sqlite_master WHERE name = ?1 COLLATE NOCASE";
    conn.prepare_cached(any)?.exists([name])
}

type Authorizer = unsafe extern "C" fn(
    *mut c_void,
    c_int,
    *const c_char,
    *const c_char,
    *const c_char,
    *const c_char,
) -> c_int;

/// Sets or takes away what decides about each action of a statement that is prepared.
///
/// rusqlite's own way needs SQLite 3.44 in the host.
fn authorize(conn: &Connection, authorizer: Option<Authorizer>) -> rusqlite::Result<()> {
    #[expect(unsafe_code, reason = "older hosts have only the C function")]
    // SAFETY: the handle is open as long as `conn` is, and the authorizer uses no user data.
    let code =
        unsafe { ffi::sqlite3_set_authorizer(conn.handle(), authorizer, std::ptr::null_mut()) };
    if code == ffi::SQLITE_OK {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
}

/// Allows to create a table and indices, and what SQLite does for it in its own tables.
///
/// # Safety
///
/// `object` is null or a C string, as SQLite promises.
#[expect(unsafe_code, reason = "SQLite calls it")]
unsafe extern "C" fn allow_creation(
    _user_data: *mut c_void,
    action: c_int,
    object: *const c_char,
    _detail: *const c_char,
    _database: *const c_char,
    _trigger: *const c_char,
) -> c_int {
    let is_allowed = match action {
        ffi::SQLITE_CREATE_TABLE
        | ffi::SQLITE_CREATE_INDEX
        | ffi::SQLITE_REINDEX
        | ffi::SQLITE_FUNCTION
        // An index is filled by reading its table.
        | ffi::SQLITE_READ => true,
        ffi::SQLITE_INSERT | ffi::SQLITE_UPDATE if !object.is_null() => {
            // SAFETY: checked above not to be null.
            let table = unsafe { CStr::from_ptr(object) };
            table.to_bytes().starts_with(b"sqlite_")
        }
        _ => false,
    };
    if is_allowed {
        ffi::SQLITE_OK
    } else {
        ffi::SQLITE_DENY
    }
}
