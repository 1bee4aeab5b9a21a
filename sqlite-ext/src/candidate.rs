//! Which of the user's tables can be tracked, and what is not yet held across devices.

use std::collections::BTreeSet;
use std::fmt;

use rusqlite::{Connection, OptionalExtension};

use crate::constraints::graph::components;
use crate::constraints::{checks, unique};
use crate::crsql;
use crate::options::has_autoincrement;
use crate::table::{KeyKind, TableInfo, free_rowid_name, list};
use crate::value::quoted;

/// The most columns a key can have: a packed key counts them in one byte.
const KEY_COLUMNS_MAX: usize = u8::MAX as usize;

/// The most columns of a table whose rowid is read beside them: SQLite returns 2,000 at most.
const ROWID_COLUMNS_MAX: usize = 1_999;

/// Why a table cannot be tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// There is no ordinary table of this name.
    Missing,
    /// The name belongs to SQLite or to Syncline.
    Reserved,
    /// Rows have no primary key by which replicas could tell them apart.
    NoPrimaryKey,
    /// More columns in the key than a packed key can count.
    WideKey {
        /// How many it has.
        count: usize,
    },
    /// More columns than can be read together with the rowid.
    TooWide {
        /// How many it has.
        count: usize,
    },
    /// Columns have every name by which the rowid could be read.
    NoRowidName,
    /// A unique index that names a function or a collation which only the application has: no other
    /// program could tell which rows it admits.
    Unique {
        /// The indexed columns, with commas.
        columns: String,
    },
    /// A CHECK that names a function or a collation which only the application has: no other
    /// program could tell which rows it admits.
    Check {
        /// What SQLite says of it.
        reason: String,
    },
    /// A key with a collation that only the application has: no other program could tell which
    /// keys are equal.
    Collation {
        /// The key's columns, with commas.
        columns: String,
    },
    /// `crsql_as_crr` made it a CRR.
    Crr,
    /// It is tracked already, in another way.
    OtherOptions,
    /// Rows whose primary key has a NULL.
    NullInKey {
        /// How many.
        count: i64,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Missing => write!(
                f,
                "there is no such table in the main database (name it without the database; views, \
                 virtual and temporary tables cannot be tracked)"
            ),
            Obstacle::Reserved => {
                write!(
                    f,
                    "names beginning with sqlite_, syncline_ and crsql_ are reserved"
                )
            }
            Obstacle::NoPrimaryKey => write!(
                f,
                "it has no primary key: declare one, so that devices can tell its rows apart"
            ),
            Obstacle::WideKey { count } => write!(
                f,
                "its key has {count} columns and may have {KEY_COLUMNS_MAX}"
            ),
            Obstacle::TooWide { count } => write!(
                f,
                "it has {count} columns and may have {ROWID_COLUMNS_MAX}, unless it is WITHOUT \
                 ROWID or its key is INTEGER"
            ),
            Obstacle::NoRowidName => write!(
                f,
                "it has columns named rowid, oid and _rowid_: rename one of them"
            ),
            Obstacle::Unique { columns } => write!(
                f,
                "its unique index on ({columns}) names a function or a collation that only your application has: drop that index or leave the table local"
            ),
            Obstacle::Check { reason } => write!(
                f,
                "a CHECK of it needs what only your application has ({reason}): drop the CHECK or leave the table local"
            ),
            Obstacle::Collation { columns } => write!(
                f,
                "its key ({columns}) has a collation that only your application has: declare it with one of SQLite's own, BINARY, NOCASE or RTRIM"
            ),
            Obstacle::Crr => write!(
                f,
                "crsql_as_crr made it a crr: call crsql_as_table first, a table is one or the other"
            ),
            Obstacle::OtherOptions => write!(
                f,
                "it is tracked already with other options: untrack it first"
            ),
            Obstacle::NullInKey { count } => write!(
                f,
                "{count} rows have NULL in their primary key: give them one"
            ),
        }
    }
}

/// What a tracked table's declaration promises on one device but not yet across devices.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// A foreign key to this table, which cannot be tracked.
    ForeignKey {
        /// The referenced table.
        parent: String,
    },
    /// A key that SQLite gives out by counting.
    CountedKey {
        /// The key's column.
        column: String,
    },
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::ForeignKey { parent } => write!(
                f,
                "a row may refer to a row of `{parent}`, which stays on this device: nobody checks on others that it is there"
            ),
            Limit::CountedKey { column } => write!(
                f,
                "two devices that let SQLite count `{column}` may give one number to two rows, which merge into one unless it is tracked with counted ids"
            ),
        }
    }
}

/// A table of the user's, and whether it can be tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The table's name.
    pub name: String,
    /// Why not, if not.
    pub obstacle: Option<Obstacle>,
    /// What is not yet held across devices.
    pub limits: Vec<Limit>,
}

/// Returns the user's tables with what stands against tracking them, by name.
///
/// # Errors
///
/// If SQLite fails.
pub fn candidates(conn: &Connection) -> rusqlite::Result<Vec<Candidate>> {
    let all = "SELECT name FROM main.sqlite_master WHERE type = 'table' ORDER BY name";
    let mut statement = conn.prepare_cached(all)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut candidates = Vec::new();
    for name in names {
        let name = name?;
        if is_reserved(&name) {
            continue;
        }
        candidates.push(match TableInfo::read(conn, &name)? {
            None => Candidate {
                name,
                obstacle: Some(Obstacle::Missing),
                limits: vec![],
            },
            Some(info) => Candidate {
                obstacle: obstacle(conn, &info)?,
                limits: limits(conn, &info)?,
                name,
            },
        });
    }
    Ok(candidates)
}

/// Whether a table of this name would be taken for one of SQLite's own, ours or cr-sqlite's.
pub(crate) fn is_reserved(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let mut beginnings = ["sqlite_", "syncline_", "crsql_"].into_iter();
    let is_own = beginnings.any(|beginning| lower.starts_with(beginning));
    // What has no name stands for tables where renames are kept.
    is_own || lower.contains("__crsql_") || name.is_empty()
}

pub(crate) fn obstacle(conn: &Connection, info: &TableInfo) -> rusqlite::Result<Option<Obstacle>> {
    if is_reserved(&info.name) {
        return Ok(Some(Obstacle::Reserved));
    }
    if crsql::is_crr(conn, &info.name)? {
        return Ok(Some(Obstacle::Crr));
    }
    let key = info.key_columns();
    if key.is_empty() {
        return Ok(Some(Obstacle::NoPrimaryKey));
    }
    if key.len() > KEY_COLUMNS_MAX {
        return Ok(Some(Obstacle::WideKey { count: key.len() }));
    }
    if info.key_kind(conn)? == KeyKind::Rowid {
        if free_rowid_name(info).is_err() {
            return Ok(Some(Obstacle::NoRowidName));
        }
        let count = key.len() + info.stored_columns().count();
        if count > ROWID_COLUMNS_MAX {
            return Ok(Some(Obstacle::TooWide { count }));
        }
    }
    if let Some((columns, is_key)) = unique::foreign(conn, &info.name)? {
        return Ok(Some(match is_key {
            true => Obstacle::Collation { columns },
            false => Obstacle::Unique { columns },
        }));
    }
    if let Some(reason) = checks::foreign(conn, &info.name)? {
        return Ok(Some(Obstacle::Check { reason }));
    }
    let null = key
        .iter()
        .map(|column| format!("{} IS NULL", quoted(&column.name)));
    let null = list(null, " OR ");
    let count = format!(
        "SELECT count(*) FROM main.{} WHERE {null}",
        quoted(&info.name)
    );
    let count = conn.query_row(&count, [], |row| row.get(0))?;
    Ok((count > 0).then_some(Obstacle::NullInKey { count }))
}

/// Whether a table is tracked with counted ids, or would be.
fn has_counted_ids(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    let exists =
        "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = 'syncline_tables'";
    if !conn.prepare_cached(exists)?.exists([])? {
        return has_autoincrement(conn, table);
    }
    let counted = "SELECT coalesce(json_extract(nullif(options, ''), '$.ids'), '') = 'counted'
        FROM syncline_tables WHERE name = ?1";
    let counted = conn
        .prepare_cached(counted)?
        .query_one([table], |row| row.get(0));
    match counted.optional()? {
        Some(counted) => Ok(counted),
        None => has_autoincrement(conn, table),
    }
}

/// Returns the places of tables in the order in which they are best tracked: each after those that
/// its rows refer to, unless these refer to it in turn.
///
/// # Errors
///
/// If SQLite fails.
pub fn parents_first(conn: &Connection, tables: &[Candidate]) -> rusqlite::Result<Vec<usize>> {
    let mut edges = BTreeSet::new();
    for (child, table) in (0..).zip(tables) {
        for parent in parents(conn, &table.name)? {
            let is_it = |table: &Candidate| table.name.eq_ignore_ascii_case(&parent);
            if let Some((parent, _)) = (0..).zip(tables).find(|(_, table)| is_it(table)) {
                edges.insert((child, parent));
            }
        }
    }
    let nodes = (0..).zip(tables).map(|(at, _)| at).collect();
    let order = components(&nodes, &edges).into_iter();
    let places = order.flat_map(|component| component.members);
    Ok(places.filter_map(|at| usize::try_from(at).ok()).collect())
}

/// Returns the tables that a table's foreign keys name.
fn parents(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let parents = "SELECT DISTINCT \"table\" FROM pragma_foreign_key_list(?1, 'main') ORDER BY 1";
    let mut statement = conn.prepare_cached(parents)?;
    let parents = statement.query_map([table], |row| row.get(0))?;
    parents.collect()
}

fn limits(conn: &Connection, info: &TableInfo) -> rusqlite::Result<Vec<Limit>> {
    let mut limits = Vec::new();
    for parent in parents(conn, &info.name)? {
        let is_tracked = match TableInfo::read(conn, &parent)? {
            Some(info) => obstacle(conn, &info)?.is_none(),
            None => false,
        };
        if !is_tracked {
            limits.push(Limit::ForeignKey { parent });
        }
    }
    let key = info.key_columns();
    if let [column] = key[..]
        && info.key_kind(conn)? == KeyKind::Integer
        && !has_counted_ids(conn, &info.name)?
    {
        limits.push(Limit::CountedKey {
            column: column.name.clone(),
        });
    }
    Ok(limits)
}
