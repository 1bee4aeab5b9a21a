//! The virtual table `crsql_changes`: what was written, cell by cell; an INSERT merges.

#![expect(unsafe_code, reason = "virtual tables are laid out for C")]

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use rusqlite::types::{Value as SqlValue, ValueRef};
use rusqlite::vtab::{
    Context, CreateVTab, Filters, IndexInfo, Inserts, Module, UpdateVTab, Updates, VTab,
    VTabConnection, VTabCursor, VTabKind, sqlite3_vtab, sqlite3_vtab_cursor,
};
use rusqlite::{Connection, Error, Result, ffi};
use syncline_crdt::{Value, unpack_key};

use super::crr::Crr;
use super::error::CrsqlError;
use super::fold::fold_for_reading;
use super::merge::{self, Change};
use super::plan::{
    self, CID, CL, COL_VERSION, DB_VERSION, DECLARATION, PK, SEQ, SITE_ID, TABLE, VAL,
};
use super::scan::{Entry, Scan};
use super::session::{Held, State};
use super::storage::{SENTINEL, SENTINEL_NAME};
use super::upkeep;
use crate::value::Bound;

/// Adds the table to a connection.
pub(crate) fn add(conn: &Connection, state: Arc<State>) -> Result<()> {
    const MODULE: &Module<'_, ChangesTable> = &Module::update_module();
    conn.create_module(c"crsql_changes", MODULE, Some(state))
}

#[repr(C)]
struct ChangesTable {
    base: sqlite3_vtab,
    held: Rc<Held>,
}

// SAFETY: the first member is the base class, and the layout is C's.
unsafe impl<'vtab> VTab<'vtab> for ChangesTable {
    type Aux = Arc<State>;
    type Cursor = ChangesCursor<'vtab>;

    fn connect(
        db: &mut VTabConnection,
        aux: Option<&Self::Aux>,
        _module: &[u8],
        _database: &[u8],
        _table: &[u8],
        _arguments: &[&[u8]],
    ) -> Result<(Cow<'static, CStr>, Self)> {
        let state = aux.cloned().unwrap_or_default();
        // SAFETY: SQLite disconnects the table, which drops this, before the connection closes.
        let conn = unsafe { Connection::from_handle(db.handle()) }?;
        let table = ChangesTable {
            base: sqlite3_vtab::default(),
            held: Rc::new(Held::new(conn, state)),
        };
        Ok((Cow::Borrowed(DECLARATION), table))
    }

    fn best_index(&self, info: &mut IndexInfo) -> Result<bool> {
        plan::choose(info)?;
        Ok(true)
    }

    fn open(&'vtab mut self) -> Result<Self::Cursor> {
        Ok(ChangesCursor {
            base: sqlite3_vtab_cursor::default(),
            scan: None,
            entry: None,
            crr: None,
            row: RefCell::default(),
            held: Rc::clone(&self.held),
            table: PhantomData,
        })
    }
}

impl CreateVTab<'_> for ChangesTable {
    const KIND: VTabKind = VTabKind::EponymousOnly;
}

impl UpdateVTab<'_> for ChangesTable {
    fn delete(&mut self, _rowid: ValueRef<'_>) -> Result<()> {
        Err(only_insert())
    }

    fn insert(&mut self, values: &Inserts<'_>) -> Result<i64> {
        let values: Vec<ValueRef<'_>> = values.iter().skip(2).collect();
        let merge = || {
            let change = Change::read(&values)?;
            merge::merge(self.held.session(), &change)
        };
        // A panic that reached C would end the application.
        let merged = catch_unwind(AssertUnwindSafe(merge));
        let merged = merged.map_err(|_| Error::ModuleError(BUG.to_owned()))?;
        merged.map_err(CrsqlError::into_sqlite)?;
        Ok(0)
    }

    fn update(&mut self, _values: &Updates<'_>) -> Result<()> {
        Err(only_insert())
    }
}

const BUG: &str = "this change meets a bug in Syncline and is not merged: please report it";

fn only_insert() -> Error {
    let message = "Only INSERT and SELECT statements are allowed against the crsql changes table";
    Error::SqliteFailure(
        ffi::Error::new(ffi::SQLITE_MISUSE),
        Some(message.to_owned()),
    )
}

#[repr(C)]
struct ChangesCursor<'vtab> {
    base: sqlite3_vtab_cursor,
    scan: Option<Scan>,
    entry: Option<Entry>,
    /// The entry's table.
    crr: Option<Rc<Crr>>,
    /// The row of the base table that was read last; cells of one row mostly come together.
    row: RefCell<Option<BaseRow>>,
    held: Rc<Held>,
    table: PhantomData<&'vtab ChangesTable>,
}

/// What the base table has in a row: its cells by column number, or nothing.
struct BaseRow {
    row_id: i64,
    cells: Option<Vec<(i64, Value)>>,
}

/// Rows are numbered by their key's number and the column's; more columns were never made.
const COLUMN_BITS: u32 = 16;

impl ChangesCursor<'_> {
    /// Goes to the next cell whose table and column are still there.
    fn advance(&mut self) -> Result<()> {
        let session = self.held.session();
        self.entry = None;
        while let Some(scan) = &mut self.scan {
            let Some(entry) = scan.next()? else {
                self.scan = None;
                break;
            };
            let crr = session
                .crr(entry.table_id)
                .map_err(CrsqlError::into_sqlite)?;
            let is_there = |crr: &Rc<Crr>| {
                entry.column_id == SENTINEL || crr.column_name(entry.column_id).is_some()
            };
            if crr.as_ref().is_some_and(is_there) {
                (self.entry, self.crr) = (Some(entry), crr);
                break;
            }
        }
        Ok(())
    }

    /// Calls `read` with the entry's cell as the base table has it; `None` if it has no such row.
    fn with_cell<T>(&self, entry: &Entry, read: impl FnOnce(Option<&Value>) -> T) -> Result<T> {
        let mut row = self.row.borrow_mut();
        if row.as_ref().is_none_or(|row| row.row_id != entry.row_id) {
            let key = unpack_key(&entry.pk).unwrap_or_default();
            let crr = self
                .crr
                .as_ref()
                .filter(|crr| crr.key_columns.len() == key.len());
            let cells = match crr {
                Some(crr) => crr
                    .row(&self.held.conn, &key)
                    .map_err(CrsqlError::into_sqlite)?,
                None => None,
            };
            *row = Some(BaseRow {
                row_id: entry.row_id,
                cells,
            });
        }
        let cells = row.as_ref().and_then(|row| row.cells.as_ref());
        let cell = cells.and_then(|cells| cells.iter().find(|(id, _)| *id == entry.column_id));
        Ok(read(cell.map(|(_, value)| value)))
    }
}

// SAFETY: the first member is the base class, and the layout is C's.
unsafe impl VTabCursor for ChangesCursor<'_> {
    fn filter(&mut self, _plan: c_int, sql: Option<&str>, values: &Filters<'_>) -> Result<()> {
        (self.scan, self.entry) = (None, None);
        *self.row.borrow_mut() = None;
        let session = self.held.session();
        if !upkeep::look(session).map_err(CrsqlError::into_sqlite)? {
            return Ok(());
        }
        fold_for_reading(session).map_err(CrsqlError::into_sqlite)?;
        session.refresh()?;
        let values: Vec<SqlValue> = values
            .iter()
            .map(TryInto::try_into)
            .collect::<Result<_, _>>()?;
        let sql = sql.ok_or(Error::InvalidQuery)?;
        self.scan = Some(Scan::begin(&self.held, sql, values)?);
        self.advance()
    }

    fn next(&mut self) -> Result<()> {
        self.advance()
    }

    fn eof(&self) -> bool {
        self.entry.is_none()
    }

    fn column(&self, context: &mut Context, column: c_int) -> Result<()> {
        let (Some(entry), Some(crr)) = (&self.entry, &self.crr) else {
            return Ok(());
        };
        match column {
            TABLE => context.set_result(&crr.name),
            PK => context.set_result(&entry.pk),
            CID => {
                let name = crr.column_name(entry.column_id);
                // The cells of a row that is gone without a trace are told as its sentinel.
                let has_cell = name.is_some() && self.with_cell(entry, |cell| cell.is_some())?;
                context.set_result(name.filter(|_| has_cell).unwrap_or(SENTINEL_NAME))
            }
            VAL if entry.column_id == SENTINEL => Ok(()),
            VAL => self.with_cell(entry, |cell| match cell {
                Some(value) => context.set_result(Bound(value)),
                None => Ok(()),
            })?,
            COL_VERSION => context.set_result(entry.col_version),
            DB_VERSION => context.set_result(entry.db_version),
            SITE_ID => context.set_result(&entry.site_id),
            CL => context.set_result(entry.causal_length),
            SEQ => context.set_result(entry.seq),
            _ => Ok(()),
        }
    }

    fn rowid(&self) -> Result<i64> {
        let number = |entry: &Entry| entry.row_id << COLUMN_BITS | entry.column_id;
        Ok(self.entry.as_ref().map_or(0, number))
    }
}
