//! The functions of cr-sqlite's surface, as SQL sees them.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rusqlite::functions::{Context, FunctionFlags, SqlFnOutput};
use rusqlite::types::{ToSqlOutput, Value as SqlValue, ValueRef};
use rusqlite::{Connection, Error, ToSql};
use syncline_crdt::{Value, unpack_key};

use super::error::{CrsqlError, Result};
use super::fold::{fold, fold_for_reading};
use super::session::{Session, State};
use super::{alter, changes, convert, storage, transaction, upkeep};
use crate::value::Bound;

/// Adds the functions and tables of cr-sqlite's surface to a connection.
///
/// # Errors
///
/// If SQLite refuses to add them.
pub(crate) fn register(conn: &Connection) -> rusqlite::Result<()> {
    let state = Arc::new(State::default());
    transaction::add(conn, Arc::clone(&state))?;
    changes::add(conn, Arc::clone(&state))?;
    tables(conn, &state)?;
    versions(conn, &state)?;
    settings(conn, &state)?;
    let session = |conn| {
        let tables = RefCell::default();
        upkeep::look(Session {
            conn,
            state: &state,
            tables: &tables,
        })
        .map(drop)
    };
    match session(conn) {
        // A file that can only be read is of use as it is.
        Err(error @ CrsqlError::TakeOver { .. }) if !conn.is_readonly("main")? => {
            Err(error.into_sqlite())
        }
        // A file that cannot be read says so where it is read.
        _ => Ok(()),
    }
}

fn tables(conn: &Connection, state: &Arc<State>) -> rusqlite::Result<()> {
    for count in [1, 2] {
        add(
            conn,
            state,
            "crsql_as_crr",
            (count, DIRECT),
            |session, context| {
                convert::as_crr(session, &last_name(context)?)?;
                Ok("OK")
            },
        )?;
        add(
            conn,
            state,
            "crsql_begin_alter",
            (count, DIRECT),
            |session, context| {
                alter::begin(session, &last_name(context)?)?;
                Ok(SqlValue::Null)
            },
        )?;
        add(
            conn,
            state,
            "crsql_commit_alter",
            (count, DIRECT),
            |session, context| {
                alter::commit(session, &last_name(context)?)?;
                Ok(SqlValue::Null)
            },
        )?;
    }
    add(
        conn,
        state,
        "crsql_as_table",
        (1, DIRECT),
        |session, context| {
            convert::as_table(session, &last_name(context)?)?;
            Ok(SqlValue::Null)
        },
    )
}

fn versions(conn: &Connection, state: &Arc<State>) -> rusqlite::Result<()> {
    // Deterministic, so that a filter by it asks once and not for every row.
    let once = ANYWHERE.union(FunctionFlags::SQLITE_DETERMINISTIC);
    add(conn, state, "crsql_site_id", (0, once), |session, _| {
        storage::prepare(session.conn)?;
        Ok(storage::site(session.conn, storage::OWN)?)
    })?;
    add(
        conn,
        state,
        "crsql_db_version",
        (0, ANYWHERE),
        |session, _| {
            if !upkeep::look(session)? {
                return Ok(0);
            }
            // Notes in an open transaction that writes may be its own, which do not count yet.
            if !session.is_writing()? {
                fold_for_reading(session)?;
            }
            Ok(storage::db_version(session.conn)?)
        },
    )?;
    add(
        conn,
        state,
        "crsql_next_db_version",
        (-1, ANYWHERE),
        |session, context| {
            storage::prepare(session.conn)?;
            upkeep::look(session)?;
            let at_least = match context.len() {
                0 => 0,
                _ => context
                    .get_raw(0)
                    .as_i64_or_null()
                    .map_err(|_| INTEGER)?
                    .unwrap_or(0),
            };
            if at_least > VERSION_MAX {
                return Err(TOO_HIGH);
            }
            if !session.conn.is_autocommit() {
                session.join()?;
            }
            Ok(session.next_version(at_least)?)
        },
    )?;
    add(
        conn,
        state,
        "crsql_increment_and_get_seq",
        (0, ANYWHERE),
        |session, _| {
            fold_own(session)?;
            Ok(session.state.take_seq())
        },
    )?;
    add(conn, state, "crsql_get_seq", (0, ANYWHERE), |session, _| {
        fold_own(session)?;
        Ok(session.state.seq())
    })?;
    add(
        conn,
        state,
        "crsql_rows_impacted",
        (0, ANYWHERE),
        |session, _| Ok(session.state.rows_impacted.load(Relaxed)),
    )
}

/// The highest version that a change may have, so that versions above it are left for our own.
pub(crate) const VERSION_MAX: i64 = 1 << 62;

const INTEGER: CrsqlError = CrsqlError::Invalid {
    rule: "a version is an integer",
};
const TOO_HIGH: CrsqlError = CrsqlError::Invalid {
    rule: "versions go up to 2^62",
};

/// Folds what the open transaction wrote, so that it has its numbers before others are given.
fn fold_own(session: Session<'_>) -> Result<()> {
    if !session.conn.is_autocommit() && session.is_writing()? {
        fold(session)?;
    }
    Ok(())
}

fn settings(conn: &Connection, state: &Arc<State>) -> rusqlite::Result<()> {
    const NAME: &str = "merge-equal-values";
    let is_known = |context: &Context<'_>| match context.get_raw(0) {
        ValueRef::Text(name) if name == NAME.as_bytes() => Ok(()),
        _ => Err(CrsqlError::UnknownSetting),
    };
    add(
        conn,
        state,
        "crsql_config_set",
        (2, DIRECT),
        move |session, context| {
            is_known(context)?;
            let value: i64 = context.get(1)?;
            storage::prepare(session.conn)?;
            let set = "INSERT OR REPLACE INTO crsql_master(key, value)
            VALUES('config.merge-equal-values', ?1)";
            session.conn.execute(set, [i64::from(value != 0)])?;
            Ok(value)
        },
    )?;
    add(
        conn,
        state,
        "crsql_config_get",
        (1, ANYWHERE),
        move |session, context| {
            is_known(context)?;
            let has_tables = storage::is_present(session.conn)?;
            Ok(i64::from(
                has_tables && storage::merges_equal_values(session.conn)?,
            ))
        },
    )?;
    for count in [0, 1] {
        add(
            conn,
            state,
            "crsql_internal_sync_bit",
            (count, ANYWHERE),
            |session, context| {
                if context.len() == 1 {
                    session.state.is_merging.store(context.get(0)?, Relaxed);
                }
                Ok(i64::from(session.state.is_merging.load(Relaxed)))
            },
        )?;
    }
    add(
        conn,
        state,
        "syncline_key_value",
        (2, INNOCUOUS),
        |_, context| {
            let packed = context.get_raw(0).as_blob().unwrap_or_default();
            let key = unpack_key(packed).map_err(CrsqlError::Key)?;
            let at: u8 = context.get(1)?;
            let value = key.into_iter().nth(usize::from(at)).unwrap_or(Value::Null);
            Ok(Owned(value))
        },
    )
}

struct Owned(Value);

impl ToSql for Owned {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(Bound(&self.0).value()))
    }
}

const DIRECT: FunctionFlags = FunctionFlags::SQLITE_UTF8.union(FunctionFlags::SQLITE_DIRECTONLY);
const ANYWHERE: FunctionFlags = FunctionFlags::SQLITE_UTF8;
const INNOCUOUS: FunctionFlags = FunctionFlags::SQLITE_UTF8
    .union(FunctionFlags::SQLITE_INNOCUOUS)
    .union(FunctionFlags::SQLITE_DETERMINISTIC);

fn add<T: SqlFnOutput + 'static>(
    conn: &Connection,
    state: &Arc<State>,
    name: &str,
    (arguments_count, flags): (i32, FunctionFlags),
    body: impl Fn(Session<'_>, &Context<'_>) -> Result<T> + Send + 'static,
) -> rusqlite::Result<()> {
    let state = Arc::clone(state);
    conn.create_scalar_function(name, arguments_count, flags, move |context| {
        #[expect(
            unsafe_code,
            reason = "rusqlite cannot know how the connection is shared"
        )]
        // SAFETY: the connection is used only while this call lasts, on the thread of the call.
        let conn = unsafe { context.get_connection() }?;
        let tables = RefCell::default();
        let session = Session {
            conn: &conn,
            state: &state,
            tables: &tables,
        };
        body(session, context).map_err(|error| match error {
            CrsqlError::Sqlite(error) => error,
            other => Error::UserFunctionError(Box::new(other)),
        })
    })
}

/// Returns the table's name: the last argument, after a schema's, which is not looked at.
fn last_name(context: &Context<'_>) -> Result<String> {
    let name = context.get_raw(context.len() - 1).as_str();
    let rule = "a table's name is a text";
    Ok(name.map_err(|_| CrsqlError::Invalid { rule })?.to_owned())
}
