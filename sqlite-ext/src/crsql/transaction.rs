//! Hears of the end of transactions, by a virtual table that takes part in those that write CRRs.
//!
//! SQLite has one commit hook for a connection, and it may be the application's. A virtual table is
//! told of every transaction it takes part in, and may still write when it is told. So each
//! transaction is folded as it commits and gets a version of its own, no hook is taken, and the
//! counters begin again after a commit and after a rollback.

#![expect(unsafe_code, reason = "virtual tables are laid out for C")]

use std::borrow::Cow;
use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rusqlite::types::ValueRef;
use rusqlite::vtab::{
    CreateVTab, IndexInfo, Inserts, Module, TransactionVTab, UpdateVTab, Updates, VTab, VTabConfig,
    VTabConnection, VTabKind, sqlite3_vtab,
};
use rusqlite::{Connection, Result};

use super::error::CrsqlError;
use super::fold::fold_here;
use super::no_rows::NoRows;
use super::session::{Held, State};
use super::storage;

/// Adds the table to a connection.
pub(crate) fn add(conn: &Connection, state: Arc<State>) -> Result<()> {
    const MODULE: &Module<'_, TransactionTable> = &Module::update_module_with_tx();
    conn.create_module(c"syncline_transaction", MODULE, Some(state))
}

/// The table: empty, and whatever is inserted is forgotten.
#[repr(C)]
struct TransactionTable {
    base: sqlite3_vtab,
    held: Held,
    state: Arc<State>,
}

// SAFETY: the first member is the base class, and the layout is C's.
unsafe impl VTab<'_> for TransactionTable {
    type Aux = Arc<State>;
    type Cursor = NoRows;

    fn connect(
        db: &mut VTabConnection,
        aux: Option<&Self::Aux>,
        _module: &[u8],
        _database: &[u8],
        _table: &[u8],
        _arguments: &[&[u8]],
    ) -> Result<(Cow<'static, CStr>, Self)> {
        // Triggers write to it, also where the schema is not trusted; it does nothing then.
        db.config(VTabConfig::Innocuous)?;
        let state = aux.cloned().unwrap_or_default();
        // SAFETY: SQLite disconnects the table, which drops this, before the connection closes.
        let conn = unsafe { Connection::from_handle(db.handle()) }?;
        let table = TransactionTable {
            base: sqlite3_vtab::default(),
            held: Held::new(conn, Arc::clone(&state)),
            state,
        };
        Ok((Cow::Borrowed(c"CREATE TABLE x(touched)"), table))
    }

    fn best_index(&self, _info: &mut IndexInfo) -> Result<bool> {
        Ok(true)
    }

    fn open(&mut self) -> Result<Self::Cursor> {
        Ok(NoRows::default())
    }
}

impl CreateVTab<'_> for TransactionTable {
    const KIND: VTabKind = VTabKind::EponymousOnly;
}

impl UpdateVTab<'_> for TransactionTable {
    fn delete(&mut self, _rowid: ValueRef<'_>) -> Result<()> {
        Ok(())
    }

    fn insert(&mut self, _values: &Inserts<'_>) -> Result<i64> {
        Ok(1)
    }

    fn update(&mut self, _values: &Updates<'_>) -> Result<()> {
        Ok(())
    }
}

impl TransactionVTab<'_> for TransactionTable {
    fn begin(&mut self) -> Result<()> {
        self.state.is_joined.store(true, Relaxed);
        Ok(())
    }

    /// Before the commit, inside the transaction.
    fn sync(&mut self) -> Result<()> {
        let session = self.held.session();
        if !storage::is_present(session.conn)? {
            return Ok(());
        }
        fold_here(session).map_err(CrsqlError::into_sqlite)?;
        storage::raise_db_version(session.conn)
    }

    fn commit(&mut self) -> Result<()> {
        self.state.end();
        Ok(())
    }

    fn rollback(&mut self) -> Result<()> {
        self.state.end();
        Ok(())
    }
}
