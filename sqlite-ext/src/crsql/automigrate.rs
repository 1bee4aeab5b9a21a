//! `crsql_automigrate`: makes the tables as a new schema says, and keeps their rows.
//!
//! The schema is first run in an empty database in memory, and what differs is then changed here
//! by name: tables and columns that are gone are dropped, new columns are added, and indices with
//! another definition are dropped. At last the whole schema is run, which makes what is new.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::{Connection, Error, OptionalExtension, Result, params};

use super::fractional::{OrderError, as_ordered, drop_order, order_of};
use crate::shadow::in_savepoint;
use crate::table::{ColumnInfo, Table, TableError, TableInfo};
use crate::value::quoted;
use crate::{capture, columns, constraints};

/// Why a schema is not taken.
#[derive(Debug, thiserror::Error)]
enum MigrationError {
    #[error(transparent)]
    Sqlite(#[from] Error),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error("crsql_automigrate takes a schema, and statements that end its work, as texts")]
    Arguments,
    #[error("the new schema does not run in an empty database: {0}")]
    Schema(#[source] Error),
    #[error("the statements that end the work do not run: {0}")]
    Cleanup(#[source] Error),
    #[error("`{table}` has another primary key in the new schema: make a new table and copy rows")]
    Key { table: String },
    #[error(
        "`{table}` has other UNIQUE constraints in the new schema: use a unique index, or make a \
         new table and copy its rows"
    )]
    Unique { table: String },
    #[error("`{column}` of `{table}` is generated, and cannot be added to a table that is there")]
    Generated { table: String, column: String },
}

/// Adds `crsql_automigrate(schema [, cleanup])` to a connection. It returns `migration complete`;
/// after an error nothing is changed, and the caller's transaction goes on.
pub(super) fn register(conn: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY;
    conn.create_scalar_function("crsql_automigrate", -1, flags, |context| {
        #[expect(
            unsafe_code,
            reason = "rusqlite cannot know how the connection is shared"
        )]
        // SAFETY: the connection is used only while this call lasts, on the thread of the call.
        let conn = unsafe { context.get_connection() }?;
        migrate(&conn, context).map_err(|error| Error::UserFunctionError(Box::new(error)))?;
        Ok("migration complete")
    })
}

fn migrate(conn: &Connection, context: &Context<'_>) -> Result<(), MigrationError> {
    let text = |at| context.get_raw(at).as_str();
    let (schema, cleanup) = match context.len() {
        1 => (text(0), Ok("")),
        2 => (text(0), text(1)),
        _ => return Err(MigrationError::Arguments),
    };
    let schema = schema.map_err(|_| MigrationError::Arguments)?;
    let cleanup = cleanup.map_err(|_| MigrationError::Arguments)?;
    let wanted = Connection::open_in_memory()?;
    // With the functions, because the schema may call them.
    crate::register(&wanted)?;
    wanted
        .execute_batch(schema)
        .map_err(MigrationError::Schema)?;
    in_savepoint(conn, || {
        drop_tables(conn, &wanted)?;
        for (table, is_virtual) in tables(conn)? {
            if !is_virtual {
                migrate_table(conn, &wanted, &table)?;
            }
        }
        conn.execute_batch(schema)?;
        Ok::<_, MigrationError>(())
    })?;
    wanted
        .execute_batch(cleanup)
        .map_err(MigrationError::Cleanup)
}

/// Returns the user's tables, and whether each is a virtual one.
fn tables(conn: &Connection) -> Result<BTreeMap<String, bool>> {
    let all = "SELECT name, type = 'virtual' FROM pragma_table_list
        WHERE schema = 'main' AND type IN ('table', 'virtual')";
    let mut statement = conn.prepare(all)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, bool)> = rows.collect::<Result<_>>()?;
    let is_users = |(name, _): &(String, bool)| {
        let name = name.to_ascii_lowercase();
        let begins = ["sqlite_", "syncline_", "crsql_", "__crsql_"];
        let ends = ["__crsql_clock", "__crsql_pks"];
        !begins.iter().any(|begin| name.starts_with(begin))
            && !ends.iter().any(|end| name.ends_with(end))
    };
    Ok(rows.into_iter().filter(is_users).collect())
}

/// Drops the tables that the new schema does not have. One that others refer to goes after them.
fn drop_tables(conn: &Connection, wanted: &Connection) -> Result<(), MigrationError> {
    let kept: BTreeSet<String> = tables(wanted)?
        .into_keys()
        .map(|name| name.to_ascii_lowercase())
        .collect();
    let mut gone: Vec<_> = tables(conn)?
        .into_iter()
        .filter(|(name, _)| !kept.contains(&name.to_ascii_lowercase()))
        .collect();
    // A virtual table may have made another, and drops it as well.
    gone.sort_by_key(|(_, is_virtual)| !is_virtual);
    while !gone.is_empty() {
        let count = gone.len();
        let mut refused = None;
        gone.retain(|(table, _)| match drop_table(conn, table) {
            Ok(()) => false,
            Err(error) => {
                refused = Some(error);
                true
            }
        });
        if let Some(error) = refused.filter(|_| gone.len() == count) {
            return Err(error.into());
        }
    }
    Ok(())
}

pub(super) fn drop_table(conn: &Connection, table: &str) -> Result<()> {
    match Tracking::of(conn, table)? {
        Tracking::Crr => call(conn, "crsql_as_table", table)?,
        Tracking::Row(_) => call(conn, "syncline_untrack", table)?,
        Tracking::None => {}
    }
    conn.execute_batch(&format!(
        "{} DROP TABLE IF EXISTS main.{}",
        drop_order(table),
        quoted(table)
    ))
}

/// Calls one of our own functions as the application would.
pub(super) fn call(conn: &Connection, function: &str, table: &str) -> Result<()> {
    conn.query_row(&format!("SELECT {function}(?1)"), [table], |_| Ok(()))
}

/// How a table takes part in the sync.
enum Tracking {
    None,
    /// By `crsql_as_crr`.
    Crr,
    /// By `syncline_track`, under this number.
    Row(i64),
}

impl Tracking {
    fn of(conn: &Connection, table: &str) -> Result<Self> {
        let id = |list: &str| -> Result<Option<i64>> {
            let is_there = "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?1";
            if !conn.prepare(is_there)?.exists([list])? {
                return Ok(None);
            }
            let untracked = match list {
                "syncline_tables" => " AND aside IS NOT 'untracked'",
                _ => "",
            };
            let id =
                format!("SELECT id FROM main.{list} WHERE name = ?1 COLLATE NOCASE{untracked}");
            conn.query_row(&id, [table], |row| row.get(0)).optional()
        };
        if id("syncline_crsql_tables")?.is_some() {
            return Ok(Tracking::Crr);
        }
        Ok(id("syncline_tables")?.map_or(Tracking::None, Tracking::Row))
    }
}

/// Changes one table that both schemas have.
fn migrate_table(
    conn: &Connection,
    wanted: &Connection,
    table: &str,
) -> Result<(), MigrationError> {
    let (here, there) = (
        TableInfo::read(conn, table)?,
        TableInfo::read(wanted, table)?,
    );
    let (Some(here), Some(there)) = (here, there) else {
        return Ok(());
    };
    check(conn, wanted, &here, &there)?;
    for index in changed_indices(conn, wanted, &here.name)? {
        conn.execute_batch(&format!("DROP INDEX main.{}", quoted(&index)))?;
    }
    let dropped = missing(&here, &there);
    let added = missing(&there, &here);
    if dropped.is_empty() && added.is_empty() {
        return Ok(());
    }
    // Its triggers and its view name columns, and SQLite drops none that is named.
    let order = order_of(conn, &here.name)?;
    conn.execute_batch(&drop_order(&here.name))?;
    let tracking = Tracking::of(conn, &here.name)?;
    tracking.begin_alter(conn, &here.name, &dropped)?;
    let name = quoted(&here.name);
    for column in &dropped {
        let column = quoted(&column.name);
        conn.execute_batch(&format!("ALTER TABLE main.{name} DROP COLUMN {column}"))?;
    }
    for column in added {
        let definition = definition(&here.name, column)?;
        conn.execute_batch(&format!("ALTER TABLE main.{name} ADD COLUMN {definition}"))?;
    }
    tracking.commit_alter(conn, &here.name, &dropped)?;
    let is_gone = |name: &String| dropped.iter().any(|column| column.name == *name);
    match order.filter(|names| !names[1..].iter().any(is_gone)) {
        Some(names) => Ok(as_ordered(conn, &names).map(drop)?),
        None => Ok(()),
    }
}

/// Refuses what no `ALTER TABLE` can do.
fn check(
    conn: &Connection,
    wanted: &Connection,
    here: &TableInfo,
    there: &TableInfo,
) -> Result<(), MigrationError> {
    let key = |table: &TableInfo| -> Vec<String> {
        let names = table.key_columns().into_iter().map(|column| &column.name);
        names.map(|name| name.to_ascii_lowercase()).collect()
    };
    let table = here.name.clone();
    if key(here) != key(there) {
        return Err(MigrationError::Key { table });
    }
    if unique_constraints(conn, &table)? != unique_constraints(wanted, &table)? {
        return Err(MigrationError::Unique { table });
    }
    Ok(())
}

/// Returns the columns of each UNIQUE constraint in a table's definition.
fn unique_constraints(conn: &Connection, table: &str) -> Result<BTreeSet<String>> {
    let columns =
        "SELECT group_concat(quote(lower(c.name))) FROM pragma_index_list(?1, 'main') AS i
        JOIN pragma_index_info(i.name, 'main') AS c WHERE i.origin = 'u' GROUP BY i.name";
    let mut statement = conn.prepare(columns)?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// Returns the indices that the new schema does not have, or has with another definition.
fn changed_indices(conn: &Connection, wanted: &Connection, table: &str) -> Result<Vec<String>> {
    let indices = |conn: &Connection| -> Result<BTreeMap<String, String>> {
        let all = "SELECT name, sql FROM main.sqlite_master
            WHERE type = 'index' AND tbl_name = ?1 COLLATE NOCASE AND sql IS NOT NULL";
        let mut statement = conn.prepare(all)?;
        let rows = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    };
    let wanted = indices(wanted)?;
    let changed = |(name, sql)| (wanted.get(&name) != Some(&sql)).then_some(name);
    Ok(indices(conn)?.into_iter().filter_map(changed).collect())
}

/// Returns the columns of one table that another does not have.
fn missing<'a>(table: &'a TableInfo, other: &TableInfo) -> Vec<&'a ColumnInfo> {
    let is_there = |name: &str| {
        let mut columns = other.columns.iter();
        columns.any(|column| column.name.eq_ignore_ascii_case(name))
    };
    let columns = table.columns.iter();
    columns.filter(|column| !is_there(&column.name)).collect()
}

fn definition(table: &str, column: &ColumnInfo) -> Result<String, MigrationError> {
    if column.is_generated {
        return Err(MigrationError::Generated {
            table: table.to_owned(),
            column: column.name.clone(),
        });
    }
    let not_null = if column.is_not_null { " NOT NULL" } else { "" };
    let default = column
        .default
        .as_ref()
        .map(|sql| format!(" DEFAULT ({sql})"));
    Ok(format!(
        "{} {}{not_null}{}",
        quoted(&column.name),
        column.declared,
        default.unwrap_or_default()
    ))
}

impl Tracking {
    /// Makes way for changes to a table's columns. Only a CRR wants to hear of a column that is
    /// added; the triggers of both name those that are dropped.
    fn begin_alter(&self, conn: &Connection, table: &str, dropped: &[&ColumnInfo]) -> Result<()> {
        match self {
            Tracking::Crr => call(conn, "crsql_begin_alter", table),
            Tracking::Row(id) if !dropped.is_empty() => {
                // Any of the functions folds, so no note is left that a later mask would misread.
                conn.query_row("SELECT syncline_version_vector()", [], |_| Ok(()))?;
                capture::drop_triggers(conn, *id)
            }
            Tracking::Row(_) | Tracking::None => Ok(()),
        }
    }

    fn commit_alter(
        &self,
        conn: &Connection,
        table: &str,
        dropped: &[&ColumnInfo],
    ) -> Result<(), MigrationError> {
        match self {
            Tracking::Crr => Ok(call(conn, "crsql_commit_alter", table)?),
            Tracking::Row(id) if !dropped.is_empty() => {
                dropped
                    .iter()
                    .try_for_each(|column| forget_column(conn, *id, &column.name))?;
                let table = Table::read(conn, *id, table)?;
                let table = table.expect("the table was just altered");
                capture::renew(conn, &table)?;
                Ok(constraints::capture(conn, &table)?)
            }
            Tracking::Row(_) | Tracking::None => Ok(()),
        }
    }
}

/// Forgets a column and its clocks: one of the same name that comes later is another column, and
/// its cells are as old as its default.
fn forget_column(conn: &Connection, id: i64, column: &str) -> Result<()> {
    let lane =
        "SELECT lane FROM syncline_columns WHERE table_id = ?1 AND name = ?2 AND NOT is_gone";
    match conn
        .prepare(lane)?
        .query_one(params![id, column], |row| row.get(0))
        .optional()?
    {
        Some(lane) => columns::forget(conn, id, lane),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
