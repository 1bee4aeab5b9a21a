//! Makes tables CRRs and CRRs tables.

use rusqlite::params;

use super::capture;
use super::cells::{self, CellClock};
use super::crr::Crr;
use super::error::{CrsqlError, Result};
use super::fold::fold;
use super::session::Session;
use super::storage::{self, OWN, SENTINEL_NAME};
use super::{upkeep, views};
use crate::rows::key_from;
use crate::shadow::in_savepoint;
use crate::table::{Column, TableInfo};
use crate::value::quoted;

/// Makes a table a CRR, with the rows it has; does nothing if it is one.
pub(crate) fn as_crr(session: Session<'_>, name: &str) -> Result<()> {
    let conn = session.conn;
    storage::prepare(conn)?;
    upkeep::look(session)?;
    if storage::id_of(conn, name)?.is_some() {
        return Ok(());
    }
    in_savepoint(conn, || {
        let info = checked(session, name)?;
        session.join()?;
        fold(session)?;
        start(session, &declare(session, &info)?)
    })?;
    session.forget_tables();
    Ok(())
}

/// Notes a table as a CRR, with its columns.
pub(crate) fn declare(session: Session<'_>, info: &TableInfo) -> Result<Crr> {
    let add = "INSERT INTO syncline_crsql_tables(name, key_columns) VALUES(?1, ?2) RETURNING id";
    let key: Vec<&str> = info.key_columns().iter().map(|c| &*c.name).collect();
    let id: i64 = session
        .conn
        .prepare_cached(add)?
        .query_one(params![info.name, key_text(&key)], |row| row.get(0))?;
    widen(session, info.key_columns().len())?;
    number(session, id, info)
}

/// Begins to capture a CRR's writes, and gives clocks to rows that have none.
pub(crate) fn start(session: Session<'_>, crr: &Crr) -> Result<()> {
    session.conn.execute_batch(&capture::begin(crr))?;
    session.conn.execute_batch(&views::clock(crr))?;
    let db_version = session.next_version(0)?;
    backfill(session, crr, db_version, &[])?;
    upkeep::attach(session, crr)
}

/// Returns how a key's columns are noted, to see when another rebuild has changed them.
pub(crate) fn key_text(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| quoted(name))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Checks that a table can be a CRR.
pub(crate) fn checked(session: Session<'_>, name: &str) -> Result<TableInfo> {
    let conn = session.conn;
    let refused = |table: &str, obstacle: String| CrsqlError::Refused {
        table: table.to_owned(),
        obstacle,
    };
    let Some(info) = TableInfo::read(conn, name)? else {
        let obstacle = "there is no such table (views and virtual tables cannot be one)";
        return Err(refused(name, obstacle.to_owned()));
    };
    let tracked = "SELECT 1 FROM syncline_tables
        WHERE name = ?1 AND aside IS NOT 'untracked'";
    if conn.prepare_cached(tracked)?.exists([&info.name])? {
        let obstacle = "syncline_track tracks it: untrack it first, a table is one or the other";
        return Err(refused(&info.name, obstacle.to_owned()));
    }
    match obstacle(session, &info)? {
        Some(obstacle) => Err(refused(&info.name, obstacle)),
        None => Ok(info),
    }
}

/// Names beginning so belong to SQLite, to us and to cr-sqlite.
const RESERVED: [&str; 3] = ["sqlite_", "syncline_", "crsql_"];

/// Returns what stands against a table's being a CRR.
pub(crate) fn obstacle(session: Session<'_>, info: &TableInfo) -> Result<Option<String>> {
    let conn = session.conn;
    let lower = info.name.to_ascii_lowercase();
    if RESERVED.iter().any(|prefix| lower.starts_with(prefix)) || lower.contains("__crsql_") {
        return Ok(Some("its name is reserved".to_owned()));
    }
    let key = info.key_columns();
    if key.is_empty() {
        let why = "it has no primary key: declare one, so that replicas can tell its rows apart";
        return Ok(Some(why.to_owned()));
    }
    let is_sentinel = |column: &crate::table::ColumnInfo| column.name == SENTINEL_NAME;
    if info.columns.iter().any(is_sentinel) {
        let why = "its column `-1` has the name by which rows are told to live: rename it";
        return Ok(Some(why.to_owned()));
    }
    if key.len() > usize::from(u8::MAX) {
        return Ok(Some("its key has more than 255 columns".to_owned()));
    }
    let is_rowid = info.key_kind(conn)? == crate::table::KeyKind::Integer;
    let nullable = key.iter().find(|column| !column.is_not_null);
    if let Some(column) = nullable.filter(|_| !is_rowid && !info.is_without_rowid) {
        let name = &column.name;
        return Ok(Some(format!(
            "`{name}` of its primary key may be NULL: declare it NOT NULL"
        )));
    }
    let unique = "SELECT name FROM pragma_index_list(?1, 'main')
        WHERE \"unique\" AND origin <> 'pk'";
    if conn.prepare_cached(unique)?.exists([&info.name])? {
        let why = "it has a UNIQUE index besides its primary key, which two replicas could break \
            together: drop it, or use syncline_track, which keeps it everywhere";
        return Ok(Some(why.to_owned()));
    }
    let foreign = "SELECT 1 FROM pragma_foreign_key_list(?1, 'main')";
    if conn.prepare_cached(foreign)?.exists([&info.name])? {
        let why = "it has a foreign key, whose row another replica could delete: drop it, or use \
            syncline_track, which keeps it everywhere";
        return Ok(Some(why.to_owned()));
    }
    Ok(None)
}

/// Makes room for keys of so many columns among the notes.
pub(crate) fn widen(session: Session<'_>, key_count: usize) -> Result<()> {
    let columns = "SELECT count(*) - 4 FROM pragma_table_info('syncline_crsql_pending', 'main')";
    let present: i64 = session.conn.query_row(columns, [], |row| row.get(0))?;
    for at in present..key_count as i64 {
        let add = format!("ALTER TABLE syncline_crsql_pending ADD COLUMN k{at}");
        session.conn.execute_batch(&add)?;
    }
    Ok(())
}

/// The most numbers a CRR's columns may take up, those of columns that are gone included.
const COLUMN_ID_MAX: i64 = 65_535;

/// Numbers a table's columns that have no number yet.
pub(crate) fn number(session: Session<'_>, id: i64, info: &TableInfo) -> Result<Crr> {
    let conn = session.conn;
    let crr = Crr::of(conn, id, info)?;
    let next = "SELECT ifnull(max(id), 0) + 1 FROM syncline_crsql_columns WHERE table_id = ?1";
    let next: i64 = conn
        .prepare_cached(next)?
        .query_one([id], |row| row.get(0))?;
    let add = "INSERT INTO syncline_crsql_columns(table_id, id, name) VALUES(?1, ?2, ?3)";
    for (column_id, column) in (next..).zip(&crr.unnumbered) {
        if column_id > COLUMN_ID_MAX {
            let obstacle = "its columns were changed too often: make it a table and a crr again";
            return Err(CrsqlError::Refused {
                table: info.name.clone(),
                obstacle: obstacle.to_owned(),
            });
        }
        conn.prepare_cached(add)?
            .execute(params![id, column_id, column.name])?;
    }
    Crr::of(conn, id, info)
}

/// A column that was added since its rows were, with the expression of its default.
pub(crate) struct Added {
    pub(crate) id: i64,
    pub(crate) column: Column,
    pub(crate) default: String,
}

/// Gives clocks to rows that have none, and to cells of added columns that hold something else than
/// the default.
pub(crate) fn backfill(
    session: Session<'_>,
    crr: &Crr,
    db_version: i64,
    added: &[Added],
) -> Result<()> {
    let conn = session.conn;
    let key_count = crr.key_columns.len();
    let written = added.iter().map(|added| {
        let (name, default) = (quoted(&added.column.name), &added.default);
        format!(", {name} IS NOT ({default})")
    });
    let select = format!(
        "SELECT {}{} FROM main.{}",
        crr.key_list(),
        written.collect::<String>(),
        crr.quoted()
    );
    let clock = |col_version| CellClock {
        col_version,
        db_version,
        site: OWN,
        seq: session.state.take_seq(),
    };
    let mut statement = conn.prepare(&select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = key_from(row, 0, key_count)?;
        let known = cells::find(conn, crr, &key)?;
        let length = cells::causal_length(conn, known)?;
        let known = match known {
            Some(known) => known,
            None => cells::add(conn, crr, &key)?,
        };
        let is_new = length % 2 == 0;
        if length > 0 && is_new {
            cells::set_sentinel(conn, known, clock(length + 1))?;
        } else if is_new && crr.is_key_only() {
            cells::set_sentinel(conn, known, clock(1))?;
        }
        if is_new {
            for (column, _) in crr.present() {
                cells::bump(conn, known, column, clock(0))?;
            }
            continue;
        }
        for (at, added) in added.iter().enumerate() {
            if row.get(key_count + at)? {
                cells::bump(conn, known, added.id, clock(0))?;
            }
        }
    }
    Ok(())
}

/// Makes a CRR an ordinary table, with the rows it has; does nothing if it is none.
pub(crate) fn as_table(session: Session<'_>, name: &str) -> Result<()> {
    if !upkeep::look(session)? {
        return Ok(());
    }
    let Some(id) = storage::id_of(session.conn, name)? else {
        return Ok(());
    };
    in_savepoint(session.conn, || {
        session.join()?;
        fold(session)?;
        storage::raise_db_version(session.conn)?;
        forget(session, id, name)
    })?;
    session.forget_tables();
    Ok(())
}

/// Removes all that is kept of a CRR.
pub(crate) fn forget(session: Session<'_>, id: i64, name: &str) -> Result<()> {
    let conn = session.conn;
    conn.execute_batch(&capture::end(id))?;
    conn.execute_batch(&capture::part(id))?;
    views::remove(conn, name)?;
    forget_clocks(session, id)?;
    for shadow in ["columns", "pending"] {
        let delete = format!("DELETE FROM syncline_crsql_{shadow} WHERE table_id = ?1");
        conn.execute(&delete, [id])?;
    }
    conn.execute("DELETE FROM syncline_crsql_tables WHERE id = ?1", [id])?;
    Ok(())
}

/// Removes the clocks of a CRR. The database keeps its version.
pub(crate) fn forget_clocks(session: Session<'_>, id: i64) -> Result<()> {
    let cells = "DELETE FROM syncline_crsql_cells
        WHERE row_id IN (SELECT id FROM syncline_crsql_rows WHERE table_id = ?1)";
    session.conn.execute(cells, [id])?;
    let rows = "DELETE FROM syncline_crsql_rows WHERE table_id = ?1";
    session.conn.execute(rows, [id])?;
    Ok(())
}
