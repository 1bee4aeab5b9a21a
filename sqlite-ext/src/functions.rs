//! The SQL functions.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Result};
use syncline_crdt::{Seen, SiteId, Value, VersionVector};

use crate::apply::STATEMENTS_COUNT;
use crate::crsql;
use crate::grant::{CounterCell, grant};
use crate::value::from_sqlite;
use crate::{
    TableOptions, Tracked, collect, digest, export, export_to, fold, gaps, import, is_prepared,
    leave, prepare, site_id, status, track, untrack,
};

/// Adds the SQL functions to a connection.
///
/// | function | returns |
/// | --- | --- |
/// | `syncline_track(table [, options])` | what happened, as text; the options are those of
///   [`TableOptions`](crate::TableOptions), as JSON |
/// | `syncline_untrack(table)` | what happened, as text |
/// | `syncline_leave()` | what happened, as text |
/// | `syncline_grant(table, key, …, column, amount, site)` | how much of a bounded counter is left to
///   take here, after another replica was given the right to take the amount |
/// | `syncline_export([since])` | a changeset: all changes, also for NULL, or those after a version
///   vector |
/// | `syncline_import(changeset)` | the number of rows that look different now |
/// | `syncline_collect(vector, …)` | how many deletions were forgotten that all have seen, given
///   what each other replica has seen |
/// | `syncline_version_vector()` | what this replica has seen, as a blob |
/// | `syncline_digest()` | 64 hexadecimal digits, equal on converged replicas |
/// | `syncline_status()` | a [`Status`](crate::Status) as JSON: the tables with their options, and
///   what waits |
/// | `syncline_site_id()` | the 16 bytes that name this replica |
/// | `syncline_version()` | the version of this library |
///
/// And cr-sqlite's functions and tables, whose names begin with `crsql_`.
///
/// # Errors
///
/// If SQLite refuses to add them.
pub fn register(conn: &Connection) -> Result<()> {
    add(conn, "syncline_track", 1, |conn, context| {
        tracked(conn, &name_argument(context)?, &TableOptions::default())
    })?;
    add(conn, "syncline_track", 2, |conn, context| {
        let options = context.get_raw(1).as_str();
        let options = options.map_err(|_| usage("a table's options are a JSON object, as text"))?;
        let options = TableOptions::parse(options).map_err(user)?;
        tracked(conn, &name_argument(context)?, &options)
    })?;
    add(conn, "syncline_untrack", 1, |conn, context| {
        let table: String = name_argument(context)?;
        untrack(conn, &table, now_unix_ms()).map_err(user)?;
        Ok(format!("{table} is an ordinary table again"))
    })?;
    add(conn, "syncline_grant", -1, granted)?;
    add(conn, "syncline_leave", 0, |conn, _| {
        leave(conn).map_err(user)?;
        Ok("this is an ordinary database again")
    })?;
    add(conn, "syncline_export", 0, |conn, _| exported_whole(conn))?;
    add(conn, "syncline_export", 1, |conn, context| {
        // A program that keeps nothing yet of the other database binds NULL.
        if context.get_raw(0) == ValueRef::Null {
            return exported_whole(conn);
        }
        let bytes = blob_argument(
            context,
            "syncline_export",
            "another database's syncline_version_vector()",
        )?;
        let seen = Seen::decode(bytes).map_err(user)?;
        Ok(export_to(conn, &seen, now_unix_ms())
            .map_err(user)?
            .encode())
    })?;
    add(conn, "syncline_import", 1, |conn, context| {
        let bytes = blob_argument(
            context,
            "syncline_import",
            "what syncline_export() returned",
        )?;
        let report = import(conn, bytes, now_unix_ms()).map_err(user)?;
        Ok(i64::try_from(report.changed_count).unwrap_or(i64::MAX))
    })?;
    add(conn, "syncline_collect", -1, |conn, context| {
        let wants = "the syncline_version_vector() of each other replica";
        if context.is_empty() {
            return Err(usage(&format!("syncline_collect takes {wants}, blobs")));
        }
        let member = |at| {
            let bytes = blob_at(context, at, "syncline_collect", wants)?;
            Ok(gaps::held(&Seen::decode(bytes).map_err(user)?))
        };
        let members: Vec<_> = (0..context.len()).map(member).collect::<Result<_>>()?;
        let count = collect(conn, &members, now_unix_ms()).map_err(user)?;
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    })?;
    add(conn, "syncline_version_vector", 0, |conn, _| {
        fold(conn, now_unix_ms()).map_err(user)?;
        let prepared = is_prepared(conn).map_err(user)?;
        let found = if prepared {
            gaps::asking(conn)?
        } else {
            Seen::default()
        };
        Ok(found.encode())
    })?;
    add(conn, "syncline_digest", 0, |conn, _| {
        Ok(digest(conn, now_unix_ms()).map_err(user)?.to_string())
    })?;
    add(conn, "syncline_status", 0, |conn, _| {
        let status = status(conn).map_err(user)?;
        serde_json::to_string(&status).map_err(user)
    })?;
    add(conn, "syncline_site_id", 0, |conn, _| {
        prepare(conn).map_err(user)?;
        Ok(site_id(conn)?.0)
    })?;
    add(conn, "syncline_version", 0, |_, _| {
        Ok(env!("CARGO_PKG_VERSION"))
    })?;
    crsql::register(conn)
}

fn tracked(conn: &Connection, table: &str, options: &TableOptions) -> Result<String> {
    let tracked = track(conn, table, options, now_unix_ms()).map_err(user)?;
    Ok(match tracked {
        Tracked::Already => format!("{table} is tracked already"),
        Tracked::Begun { rows_count } => format!("tracking {table} with {rows_count} rows"),
    })
}

fn exported_whole(conn: &Connection) -> Result<Vec<u8>> {
    let changeset = export(conn, &VersionVector::new(), now_unix_ms()).map_err(user)?;
    Ok(changeset.encode())
}

fn granted(conn: &Connection, context: &Context<'_>) -> Result<i64> {
    let wants = "syncline_grant takes a table, the values of a row's key, a bounded counter of it, \
        an amount, and another database's syncline_site_id()";
    // A table, a key of at least one value, and these three.
    let at = context.len().checked_sub(3).filter(|at| *at >= 2);
    let at = at.ok_or_else(|| usage(wants))?;
    let value = |at| context.get_raw(at);
    let key: Vec<Value> = (1..at).map(|at| from_sqlite(value(at))).collect();
    let column = value(at).as_str().map_err(|_| usage(wants))?;
    let amount = value(at + 1).as_i64().map_err(|_| usage(wants))?;
    let site = value(at + 2).as_blob().map_err(|_| usage(wants))?;
    let site: [u8; 16] = site.try_into().map_err(|_| usage(wants))?;
    let table = name_argument(context)?;
    let counter = CounterCell {
        table: &table,
        key: &key,
        column,
    };
    grant(conn, counter, (amount, SiteId(site)), now_unix_ms()).map_err(user)
}

fn add<T: rusqlite::functions::SqlFnOutput + 'static>(
    conn: &Connection,
    name: &str,
    arguments_count: i32,
    body: fn(&Connection, &Context<'_>) -> Result<T>,
) -> Result<()> {
    // Only a statement of the application's own may call these: a trigger or a view in a file from
    // elsewhere may not.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    conn.create_scalar_function(name, arguments_count, flags, move |context| {
        #[expect(
            unsafe_code,
            reason = "rusqlite cannot know how the connection is shared"
        )]
        // SAFETY: the connection is used only while this call lasts, on the thread of the call.
        let conn = unsafe { context.get_connection() }?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_COUNT);
        body(&conn, context)
    })
}

fn user(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::UserFunctionError(Box::new(error))
}

fn name_argument(context: &Context<'_>) -> Result<String> {
    let name = context
        .get_raw(0)
        .as_str()
        .map_err(|_| usage("a table's name is a text"))?;
    Ok(name.to_owned())
}

fn blob_argument<'a>(context: &'a Context<'_>, function: &str, wants: &str) -> Result<&'a [u8]> {
    blob_at(context, 0, function, wants)
}

fn blob_at<'a>(
    context: &'a Context<'_>,
    at: usize,
    function: &str,
    wants: &str,
) -> Result<&'a [u8]> {
    let wrong = |_| usage(&format!("{function} takes {wants}, a blob"));
    context.get_raw(at).as_blob().map_err(wrong)
}

fn usage(message: &str) -> Error {
    Error::UserFunctionError(message.into())
}

/// The one place where the SQL functions look at the clock.
pub(crate) fn now_unix_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a write through SQL happens now")]
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
