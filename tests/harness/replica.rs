//! One replica under test: a connection, its clock, and the log of its own changes.

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use syncline_crdt::{EPOCH_UNIX_MS, Hlc, SiteId, VersionVector};

use super::model::{Cell, Key, Row, Rows};
use super::operation::{Operation, Transaction};
use super::shape::Shape;

/// Where all clocks begin.
pub(crate) const NOON: u64 = EPOCH_UNIX_MS + 1_000_000_000;

/// A database with a clock of its own.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) conn: Connection,
    pub(crate) site: SiteId,
    /// Milliseconds of Unix time, as this replica's device believes.
    pub(crate) now: u64,
    /// What this replica wrote itself, in order, each part beginning where the former ends.
    pub(crate) log: Vec<Entry>,
}

/// A part of a replica's own log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) bytes: Vec<u8>,
    pub(crate) until: Hlc,
}

impl Replica {
    /// Makes a replica of a database in memory, and tracks the tables it is given.
    pub(crate) fn new(shapes: &[Shape]) -> Self {
        let conn = Connection::open_in_memory().expect("SQLite opens in memory");
        syncline_sqlite::prepare(&conn).expect("a new database is prepared");
        for shape in shapes {
            conn.execute_batch(shape.create).expect(shape.create);
            syncline_sqlite::track(&conn, shape.name, &shape.options(), NOON).expect(shape.name);
        }
        let site = syncline_sqlite::site_id(&conn).expect("a prepared database has a site");
        let mut replica = Replica {
            conn,
            site,
            now: NOON,
            log: Vec::new(),
        };
        replica.log_own();
        replica
    }

    /// Runs a transaction, and returns which of its operations were refused.
    pub(crate) fn run(&self, transaction: &Transaction) -> Vec<bool> {
        let mut refused = Vec::new();
        let mut run = |operations: &[Operation]| {
            for operation in operations {
                let result = self.conn.execute_batch(&operation.sql());
                refused.push(result.is_err());
            }
        };
        self.sql("BEGIN");
        run(&transaction.before);
        self.sql("SAVEPOINT undone");
        run(&transaction.undone);
        self.sql("ROLLBACK TO undone; RELEASE undone");
        run(&transaction.after);
        self.sql(if transaction.is_rolled_back {
            "ROLLBACK"
        } else {
            "COMMIT"
        });
        refused
    }

    pub(crate) fn sql(&self, sql: &str) {
        self.conn.execute_batch(sql).expect(sql);
    }

    /// Folds, and appends what is new to the log.
    pub(crate) fn fold(&mut self) -> Option<Hlc> {
        let version = syncline_sqlite::fold(&self.conn, self.now).expect("fold");
        self.log_own();
        version
    }

    /// Appends to the log what this replica wrote since the last entry.
    pub(crate) fn log_own(&mut self) {
        let after = self.log.last().map_or(Hlc::ZERO, |entry| entry.until);
        let own = syncline_sqlite::export_own(&self.conn, after, u64::MAX).expect("export");
        if let Some(changes) = own {
            self.log.push(Entry {
                bytes: changes.encode(),
                until: changes.until.version(self.site),
            });
        }
    }

    pub(crate) fn export(&self, since: &VersionVector) -> Vec<u8> {
        let changes = syncline_sqlite::export(&self.conn, since, self.now).expect("export");
        changes.encode()
    }

    pub(crate) fn seen(&self) -> VersionVector {
        syncline_sqlite::version_vector(&self.conn).expect("version vector")
    }

    pub(crate) fn digest(&self) -> String {
        let digest = syncline_sqlite::digest(&self.conn, self.now).expect("digest");
        digest.to_string()
    }

    /// Whether a table is there: one that begins empty gets its tables from the others.
    pub(crate) fn has(&self, shape: &Shape) -> bool {
        let exists = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1";
        let mut statement = self.conn.prepare_cached(exists).expect(exists);
        statement.exists([shape.name]).expect(exists)
    }

    /// Reads a table's rows.
    pub(crate) fn rows(&self, shape: &Shape) -> Rows {
        let keys = shape.key.iter().map(|(name, _)| *name);
        let names: Vec<_> = keys.chain(shape.columns.iter().map(|c| c.name)).collect();
        let select = format!("SELECT {} FROM {}", names.join(", "), shape.name);
        let mut statement = self.conn.prepare_cached(&select).expect(&select);
        let mut rows = statement.query([]).expect(&select);
        let mut found = Rows::new();
        while let Some(row) = rows.next().expect(&select) {
            let cell = |at| from_sqlite(row.get_ref(at).expect("the column was asked for"));
            let key: Key = (0..shape.key.len()).map(cell).collect();
            let columns = shape.columns.iter().enumerate();
            let values: Row = columns
                .map(|(at, column)| (column.name, cell(shape.key.len() + at)))
                .collect();
            assert!(
                found.insert(key, values).is_none(),
                "{} has a key twice",
                shape.name
            );
        }
        found
    }

    /// Checks what must hold in every database at every time.
    pub(crate) fn check_integrity(&self) {
        let check = "SELECT group_concat(integrity_check, '; ') FROM pragma_integrity_check";
        let says: String = self
            .conn
            .query_row(check, [], |row| row.get(0))
            .expect(check);
        assert_eq!(says, "ok");
    }
}

fn from_sqlite(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Integer(number) => Cell::Integer(number),
    }
}
