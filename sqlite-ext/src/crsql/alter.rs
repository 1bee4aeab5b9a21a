//! Schema changes of CRRs: `crsql_begin_alter`, `crsql_commit_alter`, and those without them.

use rusqlite::params;
use syncline_crdt::unpack_key;

use super::capture;
use super::cells::{self, KnownRow};
use super::convert::{self, Added};
use super::crr::Crr;
use super::error::{CrsqlError, Result};
use super::fold::fold_here;
use super::session::Session;
use super::{storage, upkeep, views};
use crate::shadow::in_savepoint;
use crate::table::TableInfo;

/// What rows and cells that a schema change made count as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// As writes of this transaction, which others get.
    Count,
    /// As made before: every replica makes them itself.
    AreKnown,
}

/// Opens the bracket: from here on the table is not captured, until [`commit`].
pub(crate) fn begin(session: Session<'_>, name: &str) -> Result<()> {
    let id = id_of(session, name)?;
    if is_altering(session, id)? {
        return Err(refused(
            name,
            "crsql_commit_alter ends the bracket that is open",
        ));
    }
    session.conn.execute_batch("SAVEPOINT alter_crr")?;
    let begun = (|| {
        session.join()?;
        fold_here(session)?;
        session.conn.execute_batch(&capture::end(id))?;
        session.conn.execute_batch(&capture::part(id))?;
        if let Some(crr) = Crr::read(session.conn, id)? {
            session.conn.execute_batch(&capture::mark(&crr))?;
        }
        set_altering(session, id, true)
    })();
    if begun.is_err() {
        session
            .conn
            .execute_batch("ROLLBACK TO alter_crr; RELEASE alter_crr")?;
    }
    begun
}

/// Closes the bracket: the clocks fit the table as it is, and it is captured again.
///
/// If that fails the bracket stays open and nothing else is changed.
pub(crate) fn commit(session: Session<'_>, name: &str) -> Result<()> {
    let id = id_of(session, name)?;
    if !is_altering(session, id)? {
        return Err(refused(
            name,
            "crsql_begin_alter comes before crsql_commit_alter",
        ));
    }
    in_savepoint(session.conn, || {
        set_altering(session, id, false)?;
        let remember = "INSERT OR REPLACE INTO crsql_master(key, value)
            VALUES('pre_compact_dbversion', ?1)";
        storage::raise_db_version(session.conn)?;
        let version = storage::db_version(session.conn)?;
        session.conn.execute(remember, [version])?;
        let name = follow(session, id)?;
        if TableInfo::read(session.conn, &name)?.is_none() {
            return convert::forget(session, id, &name);
        }
        renew(session, id, Writes::AreKnown)?;
        let crr = Crr::read(session.conn, id)?;
        crr.map_or(Ok(()), |crr| upkeep::attach(session, &crr))
    })?;
    session.forget_tables();
    release(session)
}

/// Ends the savepoint that [`begin`] opened, if the application did not end it by its own COMMIT.
fn release(session: Session<'_>) -> Result<()> {
    use rusqlite::ErrorCode;
    match session.conn.execute_batch("RELEASE alter_crr") {
        // That there is no such savepoint has no code of its own.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => Ok(()),
        result => Ok(result?),
    }
}

fn refused(name: &str, obstacle: &str) -> CrsqlError {
    CrsqlError::Refused {
        table: name.to_owned(),
        obstacle: obstacle.to_owned(),
    }
}

/// Returns the number of a CRR, which may have got the name while it is altered.
fn id_of(session: Session<'_>, name: &str) -> Result<i64> {
    let unknown = || CrsqlError::UnknownTable {
        table: name.to_owned(),
    };
    if !upkeep::look(session)? {
        return Err(unknown());
    }
    if let Some(id) = storage::id_of(session.conn, name)? {
        return Ok(id);
    }
    let altered = "SELECT id FROM syncline_crsql_tables WHERE is_altering";
    let mut statement = session.conn.prepare(altered)?;
    let ids = statement.query_map([], |row| row.get(0))?;
    for id in ids {
        let id = id?;
        let marked = capture::table_of(session.conn, id, capture::ALTERING)?;
        if marked.is_some_and(|marked| marked.eq_ignore_ascii_case(name)) {
            return Ok(id);
        }
    }
    Err(unknown())
}

/// Returns the name of the table that was altered, and notes it if the table got another one.
fn follow(session: Session<'_>, id: i64) -> Result<String> {
    let noted = "SELECT name FROM syncline_crsql_tables WHERE id = ?1";
    let noted: String = session.conn.query_row(noted, [id], |row| row.get(0))?;
    let marked = capture::table_of(session.conn, id, capture::ALTERING)?;
    match marked {
        Some(name) if TableInfo::read(session.conn, &noted)?.is_none() => {
            views::remove(session.conn, &noted)?;
            upkeep::rename(session, id, &name)?;
            Ok(name)
        }
        _ => Ok(noted),
    }
}

fn is_altering(session: Session<'_>, id: i64) -> Result<bool> {
    let altering = "SELECT is_altering FROM syncline_crsql_tables WHERE id = ?1";
    Ok(session.conn.query_row(altering, [id], |row| row.get(0))?)
}

fn set_altering(session: Session<'_>, id: i64, is_altering: bool) -> Result<()> {
    let set = "UPDATE syncline_crsql_tables SET is_altering = ?2 WHERE id = ?1";
    session.conn.execute(set, params![id, is_altering])?;
    session.forget_tables();
    Ok(())
}

/// Makes the clocks and the capture of a CRR fit its table as it is.
pub(crate) fn renew(session: Session<'_>, id: i64, writes: Writes) -> Result<()> {
    let conn = session.conn;
    session.join()?;
    // With the columns as they were when the notes were made.
    fold_here(session)?;
    let noted = "SELECT name, key_columns FROM syncline_crsql_tables WHERE id = ?1";
    let noted = conn.query_row(noted, [id], |row| Ok((row.get(0)?, row.get(1)?)));
    let (name, key_columns): (String, String) = noted?;
    let unknown = || CrsqlError::UnknownTable {
        table: name.clone(),
    };
    let info = TableInfo::read(conn, &name)?.ok_or_else(unknown)?;
    if let Some(obstacle) = convert::obstacle(session, &info)? {
        return Err(CrsqlError::Refused {
            table: name,
            obstacle,
        });
    }
    let before = Crr::of(conn, id, &info)?;
    let names: Vec<&str> = info.key_columns().iter().map(|c| &*c.name).collect();
    let is_same_key = convert::key_text(&names) == key_columns;
    if is_same_key {
        forget_lost_columns(session, &before)?;
        forget_lost_rows(session, &before)?;
    } else {
        convert::forget_clocks(session, id)?;
        let set = "UPDATE syncline_crsql_tables SET key_columns = ?2 WHERE id = ?1";
        conn.execute(set, params![id, convert::key_text(&names)])?;
        convert::widen(session, names.len())?;
    }
    let added: Vec<String> = before.unnumbered.iter().map(|c| c.name.clone()).collect();
    let crr = convert::number(session, id, &info)?;
    conn.execute_batch(&capture::end(id))?;
    conn.execute_batch(&capture::begin(&crr))?;
    views::remove(conn, &name)?;
    conn.execute_batch(&views::clock(&crr))?;
    conn.execute_batch(&views::pks(&crr))?;
    let db_version = match writes {
        Writes::Count => session.next_version(0)?,
        Writes::AreKnown => storage::db_version(conn)?,
    };
    let added = added_columns(&crr, &info, &added);
    convert::backfill(session, &crr, db_version, &added)?;
    session.forget_tables();
    Ok(())
}

fn added_columns(crr: &Crr, info: &TableInfo, names: &[String]) -> Vec<Added> {
    let default = |name: &str| {
        let column = info.columns.iter().find(|column| column.name == name);
        let default = column.and_then(|column| column.default.clone());
        default.unwrap_or_else(|| "NULL".to_owned())
    };
    let is_added = |(_, column): &(i64, &crate::table::Column)| names.contains(&column.name);
    crr.present()
        .filter(is_added)
        .map(|(id, column)| Added {
            id,
            column: column.clone(),
            default: default(&column.name),
        })
        .collect()
}

fn forget_lost_columns(session: Session<'_>, crr: &Crr) -> Result<()> {
    let cells = "DELETE FROM syncline_crsql_cells WHERE column_id = ?2
        AND row_id IN (SELECT id FROM syncline_crsql_rows WHERE table_id = ?1)";
    let column = "DELETE FROM syncline_crsql_columns WHERE table_id = ?1 AND id = ?2";
    for lost in crr.columns.iter().filter(|column| column.column.is_none()) {
        session.conn.execute(cells, [crr.id, lost.id])?;
        session.conn.execute(column, [crr.id, lost.id])?;
    }
    Ok(())
}

/// Forgets rows that are not there and of which no deletion is known.
fn forget_lost_rows(session: Session<'_>, crr: &Crr) -> Result<()> {
    let conn = session.conn;
    let living = "SELECT id, causal_length, ifnull(pk, key) FROM syncline_crsql_rows
        WHERE table_id = ?1 AND (causal_length % 2 = 1 OR causal_length = 0)";
    let mut statement = conn.prepare(living)?;
    let mut rows = statement.query([crr.id])?;
    let mut lost = Vec::new();
    while let Some(row) = rows.next()? {
        let known = KnownRow {
            id: row.get(0)?,
            sentinel: row.get(1)?,
        };
        let key = unpack_key(row.get_ref(2)?.as_blob().unwrap_or_default());
        let key = key.expect("keys in the clocks were packed here");
        if crr.row(conn, &key)?.is_none() {
            lost.push(known);
        }
    }
    for row in lost {
        cells::clear(conn, row)?;
        if row.sentinel == 0 {
            conn.prepare_cached("DELETE FROM syncline_crsql_rows WHERE id = ?1")?
                .execute([row.id])?;
        }
    }
    Ok(())
}
