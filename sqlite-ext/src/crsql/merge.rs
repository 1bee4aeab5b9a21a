//! Merges a row of `crsql_changes` by cr-sqlite's rules.
//!
//! This runs inside the caller's INSERT, where SQLite allows no savepoint. So the base table, whose
//! constraints may refuse, is written first, by one statement; only then the clocks are.

use std::sync::atomic::Ordering::Relaxed;

use rusqlite::types::ValueRef;
use syncline_crdt::{DRIFT_MS_MAX, Hlc, Value};

use super::cells::{self, CellClock, KnownRow};
use super::crr::Crr;
use super::error::{CrsqlError, Result};
use super::fold::fold_here;
use super::functions::VERSION_MAX;
use super::session::Session;
use super::storage::{self, SENTINEL};
use super::upkeep;
use crate::functions::now_unix_ms;
use crate::value::from_sqlite;

/// The most bytes in the name of a table or column.
const NAME_BYTES_MAX: usize = 2_048;
/// How far a change may drive this database's version, so that nobody uses the counter up: beyond
/// this it is stored at our next one, which is as good, because versions are each replica's own.
const DB_VERSION_LEAP_MAX: i64 = 1 << 40;
/// The most bytes in a site id.
const SITE_BYTES_MAX: usize = 16;

/// A row of `crsql_changes` that somebody inserts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    table: &'a str,
    pk: &'a [u8],
    column: &'a str,
    value: ValueRef<'a>,
    col_version: i64,
    db_version: i64,
    site: Option<&'a [u8]>,
    causal_length: i64,
    seq: i64,
}

impl<'a> Change<'a> {
    /// Reads the values of the columns, in their order.
    pub(crate) fn read(values: &[ValueRef<'a>]) -> Result<Self> {
        let &[
            table,
            pk,
            column,
            value,
            col_version,
            db_version,
            site,
            causal_length,
            seq,
        ] = values
        else {
            return Err(invalid("it has nine columns"));
        };
        let site = match site {
            ValueRef::Null => None,
            ValueRef::Blob(site) if site.len() <= SITE_BYTES_MAX => Some(site),
            _ => return Err(invalid("a site_id is a blob of at most 16 bytes")),
        };
        let change = Change {
            table: name(table)?,
            pk: pk.as_blob().map_err(|_| invalid("a pk is a blob"))?,
            column: name(column)?,
            value,
            col_version: version(col_version)?,
            db_version: version(db_version)?,
            site,
            causal_length: version(causal_length)?,
            seq: version(seq)?,
        };
        // Each birth and each death takes a time of its own, so there are no more than times. A peer
        // that could name the greatest number there is would use the counter up.
        let times = Hlc::at_unix_ms(now_unix_ms().saturating_add(DRIFT_MS_MAX)).to_bits();
        if change.causal_length.cast_unsigned() > times {
            return Err(invalid(
                "a cl goes up to 4096 for each millisecond since 2024",
            ));
        }
        Ok(change)
    }
}

fn invalid(rule: &'static str) -> CrsqlError {
    CrsqlError::Invalid { rule }
}

fn name(value: ValueRef<'_>) -> Result<&str> {
    let name = value.as_str().map_err(|_| invalid("names are texts"))?;
    if name.len() > NAME_BYTES_MAX {
        return Err(invalid("a name has at most 2048 bytes"));
    }
    Ok(name)
}

fn version(value: ValueRef<'_>) -> Result<i64> {
    match value {
        ValueRef::Integer(version @ 0..=VERSION_MAX) => Ok(version),
        _ => Err(invalid("versions, cl and seq are integers from 0 to 2^62")),
    }
}

/// Merges a change into the table it names.
pub(crate) fn merge(session: Session<'_>, change: &Change<'_>) -> Result<()> {
    let unknown = || CrsqlError::UnknownTable {
        table: change.table.to_owned(),
    };
    if !upkeep::look(session)? {
        return Err(unknown());
    }
    session.refresh()?;
    let id = storage::id_of(session.conn, change.table)?.ok_or_else(unknown)?;
    let crr = session.crr(id)?.ok_or_else(unknown)?;
    session.join()?;
    // What was written here before is older than this merge, and must have its clocks.
    fold_here(session)?;
    let merging = Merging {
        session,
        crr: &crr,
        change,
        column: crr.column_id(change.column)?,
        key: crr.unpack(session.conn, change.pk)?,
    };
    if merging.run()? {
        session.state.rows_impacted.fetch_add(1, Relaxed);
    }
    Ok(())
}

struct Merging<'a> {
    session: Session<'a>,
    crr: &'a Crr,
    change: &'a Change<'a>,
    column: i64,
    key: Vec<Value>,
}

impl Merging<'_> {
    /// Returns whether anything changed.
    fn run(&self) -> Result<bool> {
        let conn = self.session.conn;
        let row = cells::find(conn, self.crr, &self.key)?;
        let local = cells::causal_length(conn, row)?;
        let incoming = self.change.causal_length;
        if incoming < local || incoming == 0 {
            return Ok(false);
        }
        if incoming % 2 == 0 {
            return if incoming == local {
                Ok(false)
            } else {
                self.end_life(row)
            };
        }
        if self.column == SENTINEL {
            return if incoming == local {
                Ok(false)
            } else {
                self.begin_life(row)
            };
        }
        if incoming > local && (local > 0 || incoming > 1) {
            self.write()?;
            let row = self.known(row)?;
            cells::zero(conn, row, self.db_version()?)?;
            self.set_sentinel(row)?;
            self.set_cell(row)?;
            return Ok(true);
        }
        match row {
            Some(row) if local > 0 => self.decide(row),
            _ => {
                self.write()?;
                self.set_cell(self.known(row)?)?;
                Ok(true)
            }
        }
    }

    fn known(&self, row: Option<KnownRow>) -> Result<KnownRow> {
        match row {
            Some(row) => Ok(row),
            None => cells::add(self.session.conn, self.crr, &self.key),
        }
    }

    /// Returns the version of this database at which the change is stored: its own next one, or
    /// the change's where that is higher.
    fn db_version(&self) -> Result<i64> {
        let own = self.session.next_version(0)?;
        let named = self.change.db_version;
        if named <= own || named - own > DB_VERSION_LEAP_MAX {
            return Ok(own);
        }
        Ok(self.session.next_version(named)?)
    }

    fn clock(&self, col_version: i64) -> Result<CellClock> {
        Ok(CellClock {
            col_version,
            db_version: self.db_version()?,
            site: storage::ordinal(self.session.conn, self.change.site)?,
            seq: self.change.seq,
        })
    }

    fn set_sentinel(&self, row: KnownRow) -> Result<()> {
        let clock = self.clock(self.change.causal_length)?;
        cells::set_sentinel(self.session.conn, row, clock)
    }

    fn set_cell(&self, row: KnownRow) -> Result<()> {
        let clock = self.clock(self.change.col_version)?;
        cells::set(self.session.conn, row, self.column, clock)
    }

    fn end_life(&self, row: Option<KnownRow>) -> Result<bool> {
        self.apply(|| self.crr.delete_row(self.session.conn, &self.key))?;
        let row = self.known(row)?;
        cells::clear(self.session.conn, row)?;
        self.set_sentinel(row)?;
        Ok(true)
    }

    fn begin_life(&self, row: Option<KnownRow>) -> Result<bool> {
        self.apply(|| self.crr.insert_row(self.session.conn, &self.key))?;
        let row = self.known(row)?;
        cells::zero(self.session.conn, row, self.db_version()?)?;
        self.set_sentinel(row)?;
        Ok(true)
    }

    /// Decides between two writes to one cell in one life of its row.
    fn decide(&self, row: KnownRow) -> Result<bool> {
        let conn = self.session.conn;
        let Some(local) = cells::at(conn, row, self.column)? else {
            self.write()?;
            self.set_cell(row)?;
            return Ok(true);
        };
        match self.change.col_version.cmp(&local.col_version) {
            std::cmp::Ordering::Less => return Ok(false),
            std::cmp::Ordering::Greater => {}
            std::cmp::Ordering::Equal => {
                let cells = self.crr.row(conn, &self.key)?.unwrap_or_default();
                let held = cells.into_iter().find(|(id, _)| *id == self.column);
                let held = held.map_or(Value::Null, |(_, value)| value);
                match from_sqlite(self.change.value).cmp(&held) {
                    std::cmp::Ordering::Less => return Ok(false),
                    std::cmp::Ordering::Greater => {}
                    std::cmp::Ordering::Equal => return self.decide_equal(row, local),
                }
            }
        }
        self.write()?;
        self.set_cell(row)?;
        Ok(true)
    }

    /// Equal values of equal version stay, unless the database decides these by the greater site.
    fn decide_equal(&self, row: KnownRow, local: CellClock) -> Result<bool> {
        let conn = self.session.conn;
        if !storage::merges_equal_values(conn)? {
            return Ok(false);
        }
        let held = storage::site(conn, local.site)?;
        let own;
        let incoming = match self.change.site {
            Some(site) => site,
            None => {
                own = storage::site(conn, storage::OWN)?;
                &own
            }
        };
        let wins = incoming > &held[..];
        if wins {
            self.set_cell(row)?;
        }
        Ok(wins)
    }

    fn write(&self) -> Result<()> {
        self.apply(|| {
            let (conn, value) = (self.session.conn, self.change.value);
            self.crr.write_cell(conn, &self.key, self.column, value)
        })
    }

    /// Writes to the base table. The application's triggers fire; what they and ours note counts as
    /// part of the change, which has its clocks already.
    fn apply(&self, write: impl FnOnce() -> Result<()>) -> Result<()> {
        let is_merging = &self.session.state.is_merging;
        let was_merging = is_merging.swap(true, Relaxed);
        let result = write();
        is_merging.store(was_merging, Relaxed);
        result?;
        let forget = "DELETE FROM syncline_crsql_pending";
        self.session.conn.prepare_cached(forget)?.execute([])?;
        Ok(())
    }
}
