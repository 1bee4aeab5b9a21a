//! What one connection holds of cr-sqlite's surface: counters of its open transaction, and tables.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

use rusqlite::{Connection, TransactionState};

use super::crr::Crr;
use super::error::Result;
use super::storage;

/// Counters that live as long as the open transaction, and what the connection has seen.
///
/// One thread at a time uses a connection; the atomics only make sharing safe to write down.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Whether the end of the open transaction will be told to [`super::transaction`].
    pub(crate) is_joined: AtomicBool,
    /// Whether a change is being written to a base table.
    pub(crate) is_merging: AtomicBool,
    /// Merges in the open transaction that changed something.
    pub(crate) rows_impacted: AtomicI64,
    /// The version of the open transaction, once it has one; 0 before.
    reserved: AtomicI64,
    /// The next `seq` of the open transaction.
    seq: AtomicI64,
    /// The schema versions of `main` and `temp` at which all was last found in order, plus one.
    seen_main: AtomicI64,
    seen_temp: AtomicI64,
    /// Whether our tables were there then.
    seen_tables: AtomicBool,
}

impl State {
    /// Forgets the transaction that ended.
    pub(crate) fn end(&self) {
        self.is_joined.store(false, Relaxed);
        self.rows_impacted.store(0, Relaxed);
        self.reserved.store(0, Relaxed);
        self.seq.store(0, Relaxed);
    }

    /// Returns the next `seq` and moves on.
    pub(crate) fn take_seq(&self) -> i64 {
        self.seq.fetch_add(1, Relaxed)
    }

    /// Returns the next `seq`.
    pub(crate) fn seq(&self) -> i64 {
        self.seq.load(Relaxed)
    }

    /// Returns whether our tables are there, if the schemas are as they were last found in order.
    pub(crate) fn seen(&self, (main, temp): (i64, i64)) -> Option<bool> {
        let seen = (self.seen_main.load(Relaxed), self.seen_temp.load(Relaxed));
        (seen == (main + 1, temp + 1)).then(|| self.seen_tables.load(Relaxed))
    }

    /// Notes that all is in order with the schemas as they are.
    pub(crate) fn set_seen(&self, (main, temp): (i64, i64), has_tables: bool) {
        self.seen_main.store(main + 1, Relaxed);
        self.seen_temp.store(temp + 1, Relaxed);
        self.seen_tables.store(has_tables, Relaxed);
    }
}

/// The CRRs as they were read at one version of the schema.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    schema_version: i64,
    by_id: BTreeMap<i64, Option<Rc<Crr>>>,
}

/// A connection, kept by a virtual table for as long as that is connected, so that its prepared
/// statements are kept too. SQLite disconnects virtual tables before it asks whether a connection
/// can be closed, so nothing has to be called before closing.
pub(crate) struct Held {
    pub(crate) conn: Connection,
    state: Arc<State>,
    tables: RefCell<Tables>,
}

/// Prepared statements a virtual table keeps: some for each table that is read or merged into.
const STATEMENTS_COUNT: usize = 128;

impl Held {
    pub(crate) fn new(conn: Connection, state: Arc<State>) -> Self {
        conn.set_prepared_statement_cache_capacity(STATEMENTS_COUNT);
        Held {
            conn,
            state,
            tables: RefCell::default(),
        }
    }

    pub(crate) fn session(&self) -> Session<'_> {
        Session {
            conn: &self.conn,
            state: &self.state,
            tables: &self.tables,
        }
    }
}

/// A connection with what is known of it.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) state: &'a State,
    pub(crate) tables: &'a RefCell<Tables>,
}

impl Session<'_> {
    /// Forgets tables that were read at another version of the schema.
    pub(crate) fn refresh(&self) -> rusqlite::Result<()> {
        let version = schema_version(self.conn, "main")?;
        let mut tables = self.tables.borrow_mut();
        if tables.schema_version != version {
            *tables = Tables {
                schema_version: version,
                by_id: BTreeMap::new(),
            };
        }
        Ok(())
    }

    /// Forgets the tables, after something was changed that the schema does not show.
    pub(crate) fn forget_tables(&self) {
        *self.tables.borrow_mut() = Tables::default();
    }

    /// Returns a CRR; `None` if its table is gone.
    pub(crate) fn crr(&self, id: i64) -> Result<Option<Rc<Crr>>> {
        if let Some(known) = self.tables.borrow().by_id.get(&id) {
            return Ok(known.clone());
        }
        let crr = Crr::read(self.conn, id)?.map(Rc::new);
        self.tables.borrow_mut().by_id.insert(id, crr.clone());
        Ok(crr)
    }

    /// Whether a transaction is open that writes, by this statement or another.
    pub(crate) fn is_writing(&self) -> rusqlite::Result<bool> {
        let state = self.conn.transaction_state(Some("main"))?;
        Ok(state == TransactionState::Write)
    }

    /// Runs `body`, which writes, in a transaction: in the open one, if there is one.
    ///
    /// Inside a statement that writes SQLite allows no savepoint, so `body` orders its writes such
    /// that what may fail comes first.
    pub(crate) fn write<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.conn.is_autocommit() || self.is_writing()? {
            return body();
        }
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        let result = body();
        let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
        match self.conn.execute_batch(end) {
            Ok(()) => result,
            Err(error) => {
                if !self.conn.is_autocommit() {
                    self.conn.execute_batch("ROLLBACK")?;
                }
                result.and(Err(error.into()))
            }
        }
    }

    /// Makes sure that the end of the open transaction is told, so that its version ends with it.
    pub(crate) fn join(&self) -> rusqlite::Result<()> {
        if !self.state.is_joined.load(Relaxed) {
            let touch = "INSERT INTO syncline_transaction(touched) VALUES(1)";
            self.conn.prepare_cached(touch)?.execute([])?;
        }
        Ok(())
    }

    /// Returns the version that the open transaction's writes get: above every committed one, and
    /// the same until the transaction ends, unless `at_least` raises it.
    pub(crate) fn next_version(&self, at_least: i64) -> rusqlite::Result<i64> {
        let committed = storage::db_version(self.conn)?;
        let reserved = self.state.reserved.load(Relaxed);
        let version = reserved.max(committed.saturating_add(1)).max(at_least);
        self.state.reserved.store(version, Relaxed);
        Ok(version)
    }
}

/// Returns the number that changes with every change of a schema.
pub(crate) fn schema_version(conn: &Connection, schema: &str) -> rusqlite::Result<i64> {
    conn.prepare_cached(&format!("PRAGMA {schema}.schema_version"))?
        .query_one([], |row| row.get(0))
}
