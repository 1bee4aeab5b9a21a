//! Turns what the triggers noted into clocks, note by note, in the order of the writes.
//!
//! The notes say which rows and columns were touched; values are read when somebody asks. All notes
//! of one fold get the version of the open transaction, so what several transactions of a program
//! without the extension wrote, with no fold between, is one version.

use rusqlite::Row;
use syncline_crdt::Value;

use super::capture::{DELETED, INSERTED, MOVED_FROM, MOVED_TO, UPDATED, masked};
use super::cells::{self, CellClock, KnownRow};
use super::crr::Crr;
use super::error::Result;
use super::functions::VERSION_MAX;
use super::session::Session;
use super::storage::{self, OWN, SENTINEL};
use crate::rows::key_from;

/// Whether anything was noted.
pub(crate) fn has_notes(session: Session<'_>) -> Result<bool> {
    let any = "SELECT 1 FROM syncline_crsql_pending LIMIT 1";
    Ok(session.conn.prepare_cached(any)?.exists([])?)
}

/// Folds what was noted, in the open transaction or in one of its own.
pub(crate) fn fold(session: Session<'_>) -> Result<()> {
    if !storage::is_present(session.conn)? || !has_notes(session)? {
        return Ok(());
    }
    session.write(|| {
        session.join()?;
        fold_here(session)
    })
}

/// Folds what was noted if that can be: a reader that cannot write, or must wait for another
/// writer, goes on with what is folded.
pub(crate) fn fold_for_reading(session: Session<'_>) -> Result<()> {
    match fold(session) {
        Err(error) if error.is_not_writable() => Ok(()),
        result => result,
    }
}

/// Folds what was noted, inside a transaction that writes.
pub(crate) fn fold_here(session: Session<'_>) -> Result<()> {
    if !has_notes(session)? {
        return Ok(());
    }
    session.refresh()?;
    let db_version = session.next_version(0)?;
    let folding = Folding {
        session,
        db_version,
    };
    let all = "SELECT * FROM syncline_crsql_pending ORDER BY id";
    let mut statement = session.conn.prepare_cached(all)?;
    let mut rows = statement.query([])?;
    let mut moved_from = None;
    while let Some(row) = rows.next()? {
        // What was noted of a table that was dropped since concerns nobody.
        let Some(crr) = session.crr(row.get(1)?)? else {
            continue;
        };
        let note = Note::read(row, &crr)?;
        folding.fold(&crr, note, &mut moved_from)?;
    }
    drop(rows);
    drop(statement);
    let all = "DELETE FROM syncline_crsql_pending";
    session.conn.prepare_cached(all)?.execute([])?;
    Ok(())
}

struct Note {
    kind: i64,
    mask: String,
    key: Vec<Value>,
}

impl Note {
    fn read(row: &Row<'_>, crr: &Crr) -> Result<Self> {
        let mask = match row.get_ref(3)? {
            rusqlite::types::ValueRef::Integer(bits) => bits.to_string(),
            rusqlite::types::ValueRef::Text(words) => String::from_utf8_lossy(words).into_owned(),
            _ => String::new(),
        };
        Ok(Note {
            kind: row.get(2)?,
            mask,
            key: key_from(row, 4, crr.key_columns.len())?,
        })
    }
}

/// One transaction's fold.
struct Folding<'a> {
    session: Session<'a>,
    db_version: i64,
}

impl Folding<'_> {
    fn fold(&self, crr: &Crr, note: Note, moved_from: &mut Option<Vec<Value>>) -> Result<()> {
        // A program without the extension can store what has no place in a key.
        if note.key.contains(&Value::Null) {
            return Ok(());
        }
        match note.kind {
            INSERTED => self.inserted(crr, &note.key),
            UPDATED => {
                let row = self.known(crr, &note.key)?;
                self.changed(crr, row, &note.mask)
            }
            MOVED_FROM => {
                *moved_from = Some(note.key);
                Ok(())
            }
            MOVED_TO => match moved_from.take() {
                Some(old) => self.moved(crr, &old, &note),
                None => self.inserted(crr, &note.key),
            },
            DELETED => self.deleted(crr, &note.key),
            _ => Ok(()),
        }
    }

    /// Returns the clock of the next write, as version `col_version`.
    fn clock(&self, col_version: i64) -> CellClock {
        CellClock {
            col_version,
            db_version: self.db_version,
            site: OWN,
            seq: self.session.state.take_seq(),
        }
    }

    fn known(&self, crr: &Crr, key: &[Value]) -> Result<KnownRow> {
        match cells::find(self.session.conn, crr, key)? {
            Some(row) => Ok(row),
            None => cells::add(self.session.conn, crr, key),
        }
    }

    fn inserted(&self, crr: &Crr, key: &[Value]) -> Result<()> {
        let conn = self.session.conn;
        let row = match cells::find(conn, crr, key)? {
            Some(row) if row.sentinel > 0 => {
                let next = row.sentinel + 1 + row.sentinel % 2;
                cells::set_sentinel(conn, row, self.clock(next))?;
                row
            }
            // cr-sqlite counts here too, though it stores nothing.
            Some(row) => {
                self.session.state.take_seq();
                row
            }
            None => {
                let row = cells::add(conn, crr, key)?;
                if crr.is_key_only() {
                    cells::set_sentinel(conn, row, self.clock(1))?;
                }
                row
            }
        };
        for (column, _) in crr.present() {
            self.written(crr, row, column)?;
        }
        Ok(())
    }

    /// Counts a write to a cell. Where another replica drove the counter to its end, the row begins
    /// another life, in which the counters begin again: else nobody could write the cell any more.
    fn written(&self, crr: &Crr, row: KnownRow, column: i64) -> Result<()> {
        if cells::bump(self.session.conn, row, column, self.clock(0))? {
            return Ok(());
        }
        self.begin_again(crr, row)
    }

    fn begin_again(&self, crr: &Crr, row: KnownRow) -> Result<()> {
        let conn = self.session.conn;
        let length = cells::stored_length(conn, row)?;
        cells::set_sentinel(conn, row, self.clock(length + 1 + length % 2))?;
        for (column, _) in crr.present() {
            cells::set(conn, row, column, self.clock(1))?;
        }
        Ok(())
    }

    fn changed(&self, crr: &Crr, row: KnownRow, mask: &str) -> Result<()> {
        for place in masked(mask) {
            let written = crr.columns.get(place).filter(|n| n.column.is_some());
            if let Some(written) = written {
                self.written(crr, row, written.id)?;
            }
        }
        Ok(())
    }

    fn deleted(&self, crr: &Crr, key: &[Value]) -> Result<()> {
        let row = self.known(crr, key)?;
        self.end_life(row)?;
        cells::clear(self.session.conn, row)
    }

    fn end_life(&self, row: KnownRow) -> Result<()> {
        let lived = row.sentinel.max(1);
        let dead = lived + lived % 2;
        cells::set_sentinel(self.session.conn, row, self.clock(dead))
    }

    /// A changed key is the end of one row and the beginning of another, which takes the cells with
    /// it. Unlike in cr-sqlite these are written anew, so that replicas which had the old row get
    /// them, and above what the new key had.
    fn moved(&self, crr: &Crr, old: &[Value], note: &Note) -> Result<()> {
        let conn = self.session.conn;
        let from = self.known(crr, old)?;
        if crr.lookup_key(old) == crr.lookup_key(&note.key) {
            cells::spell(conn, crr, from, &note.key)?;
            return self.changed(crr, from, &note.mask);
        }
        self.end_life(from)?;
        let to = self.known(crr, &note.key)?;
        let born = match to.sentinel {
            0 => 1,
            sentinel => sentinel + 1 + sentinel % 2,
        };
        cells::set_sentinel(conn, to, self.clock(born))?;
        let mut is_at_end = false;
        for (column, col_version) in cells::of_row(conn, from)? {
            let taken = cells::at(conn, to, column)?.map_or(0, |clock| clock.col_version + 1);
            let col_version = col_version.max(taken).max(1);
            is_at_end |= col_version > VERSION_MAX;
            cells::set(conn, to, column, self.clock(col_version))?;
        }
        cells::clear(conn, from)?;
        if is_at_end {
            return self.begin_again(crr, to);
        }
        debug_assert!(cells::at(conn, from, SENTINEL)?.is_some());
        self.changed(crr, to, &note.mask)
    }
}
