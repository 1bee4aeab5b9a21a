//! One whole replica of a simulation: its two databases, its clock, its stops, starts and crashes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use syncline_crdt::{EPOCH_UNIX_MS, SiteId};
use syncline_engine::Replica;
use syncline_engine::log::{Heads, Log, Position, StreamRef};
use syncline_engine::trust::{DatabaseSecret, Identity, Seq, StreamId};

use super::model::{Cell, Key, Row, Rows};
use super::operation::{Operation, Transaction};
use super::shape::Shape;

/// What all clocks show when a simulation begins, but for their error.
const NOON_UNIX_MS: u64 = EPOCH_UNIX_MS + 1_000_000_000;

/// Where a process ends that is killed, between the steps of taking in or giving out changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Crash {
    /// What it received is logged and not merged.
    Logged,
    /// What it received is logged, and the first of it merged, but not marked.
    Merged,
    /// What was written is folded and not sealed.
    Folded,
    /// What was written is about to be noted as sealed.
    Sealed,
}

impl Crash {
    /// Whether it happens while envelopes are taken in, or else while they are made.
    pub(crate) fn is_of_receiving(self) -> bool {
        matches!(self, Crash::Logged | Crash::Merged)
    }

    /// Returns the step that fails, so that nothing behind it happens: which database, and how.
    fn broken(self) -> (bool, &'static str) {
        match self {
            // Another program reads on and on, so that nothing is committed.
            Crash::Logged => (false, "BEGIN; SELECT count(*) FROM sqlite_master"),
            Crash::Merged => (
                true,
                "CREATE TRIGGER broken BEFORE UPDATE ON streams
                    WHEN new.settled_seq IS NOT old.settled_seq AND new.head_seq IS old.head_seq
                    BEGIN SELECT raise(ABORT, 'broken'); END",
            ),
            Crash::Folded => (
                true,
                "CREATE TRIGGER broken BEFORE INSERT ON envelopes
                    BEGIN SELECT raise(ABORT, 'broken'); END",
            ),
            Crash::Sealed => (
                true,
                "CREATE TRIGGER broken BEFORE UPDATE ON meta
                    BEGIN SELECT raise(ABORT, 'broken'); END",
            ),
        }
    }
}

/// A replica: a database with an application's connection to it, and a log.
pub(crate) struct Node {
    /// The application's own connection, which knows nothing of Syncline.
    pub(crate) app: Connection,
    pub(crate) site: SiteId,
    /// By how much its clock is wrong, in milliseconds.
    pub(crate) clock_error_ms: i64,
    /// When it last started, in milliseconds of the simulation.
    pub(crate) started_ms: u64,
    /// Where the next process ends.
    pub(crate) armed: Option<Crash>,
    /// What its log had when it was last looked at.
    pub(crate) heads: Heads,
    /// What of it was merged.
    pub(crate) settled: Heads,
    pub(crate) stream: StreamRef,
    replica: Option<Replica>,
    identity: Arc<Identity>,
    secret: Arc<DatabaseSecret>,
    database: Memory,
    log: Memory,
}

impl Node {
    /// Makes a replica that tracks `shapes`, and does not start it.
    pub(crate) fn new(random: &mut Rng, secret: &Arc<DatabaseSecret>, shapes: &[Shape]) -> Node {
        let (database, log) = (Memory::new(), Memory::new());
        let app = database.open();
        syncline_sqlite::prepare(&app).expect("a new database is prepared");
        // A name by chance would settle ties by chance.
        let site = SiteId(bytes(random));
        let name = "UPDATE syncline_sites SET site_id = ?1 WHERE ordinal = 0";
        app.execute(name, [site.0]).expect(name);
        for shape in shapes {
            app.execute_batch(shape.create).expect(shape.create);
            syncline_sqlite::track(&app, shape.name, &shape.options(), NOON_UNIX_MS)
                .expect(shape.name);
        }
        let recursive = format!("PRAGMA recursive_triggers = {}", random.bool());
        app.execute_batch(&recursive).expect(&recursive);
        let identity = Identity::from_secret(&bytes(random));
        Node {
            site,
            clock_error_ms: 0,
            started_ms: 0,
            armed: None,
            heads: Heads::default(),
            settled: Heads::default(),
            stream: StreamRef {
                author: identity.public_key(),
                stream: StreamId([0; 8]),
            },
            replica: None,
            identity: Arc::new(identity),
            secret: Arc::clone(secret),
            app,
            database,
            log,
        }
    }

    /// Begins a process, which writes under a stream of its own.
    pub(crate) fn start(&mut self, stream: StreamId, now_ms: u64) {
        assert!(self.replica.is_none(), "one process has a log at a time");
        self.started_ms = now_ms;
        self.stream.stream = stream;
        let path = Path::new(&self.log.address);
        let log = Log::open(path, &self.secret.id(), stream).expect("the log opens");
        let (identity, secret) = (Arc::clone(&self.identity), Arc::clone(&self.secret));
        let conn = self.database.open();
        let replica = Replica::new(conn, log, identity, secret, self.unix_ms(now_ms));
        self.replica = Some(replica.expect("a replica starts"));
    }

    /// Ends the process.
    pub(crate) fn stop(&mut self) {
        self.replica = None;
        self.armed = None;
    }

    pub(crate) fn is_up(&self) -> bool {
        self.replica.is_some()
    }

    pub(crate) fn replica(&mut self) -> &mut Replica {
        self.replica
            .as_mut()
            .expect("only asked of a node that is up")
    }

    /// Returns what the node's wall clock shows.
    pub(crate) fn unix_ms(&self, now_ms: u64) -> u64 {
        (NOON_UNIX_MS + now_ms).saturating_add_signed(self.clock_error_ms)
    }

    /// Returns what the clock shows that measures time from the node's start.
    pub(crate) fn steady_ms(&self, now_ms: u64) -> u64 {
        now_ms - self.started_ms
    }

    /// Loses the log, as if its file had been moved away.
    pub(crate) fn lose_log(&mut self) {
        assert!(self.replica.is_none(), "a log that is open is not lost");
        self.log = Memory::new();
        self.heads = Heads::default();
        self.settled = Heads::default();
    }

    /// Keeps a copy of the log, to come back to after a power failure.
    pub(crate) fn copy_log(&self) -> LogCopy {
        let copy = Memory::new();
        self.log.copy_to(&copy);
        LogCopy {
            log: copy,
            heads: self.heads.clone(),
            settled: self.settled.clone(),
        }
    }

    /// Brings back a copy of the log.
    pub(crate) fn revert_log(&mut self, copy: LogCopy) {
        assert!(self.replica.is_none(), "a log that is open is not replaced");
        (self.log, self.heads, self.settled) = (copy.log, copy.heads, copy.settled);
    }

    /// Runs a transaction through the application's connection or, in a process that is both, the
    /// replica's, and returns which of its operations were refused.
    pub(crate) fn run(&self, is_inside: bool, transaction: &Transaction) -> Vec<bool> {
        let inside = self.replica.as_ref().filter(|_| is_inside);
        let conn = inside.map_or(&self.app, Replica::conn);
        let mut refused = Vec::new();
        let mut run = |operations: &[Operation]| {
            for operation in operations {
                refused.push(conn.execute_batch(&operation.sql()).is_err());
            }
        };
        let sql = |sql: &str| conn.execute_batch(sql).expect(sql);
        sql("BEGIN");
        run(&transaction.before);
        sql("SAVEPOINT undone");
        run(&transaction.undone);
        sql("ROLLBACK TO undone; RELEASE undone");
        run(&transaction.after);
        sql(if transaction.is_rolled_back {
            "ROLLBACK"
        } else {
            "COMMIT"
        });
        refused
    }

    /// Makes the step fail before which the armed crash is to happen.
    pub(crate) fn break_at(&self, crash: Crash) {
        let (is_log, sql) = crash.broken();
        let broken = if is_log {
            &self.log.anchor
        } else {
            &self.database.anchor
        };
        broken.execute_batch(sql).expect(sql);
    }

    /// Undoes [`Node::break_at`].
    pub(crate) fn mend(&self, crash: Crash) {
        let (is_log, _) = crash.broken();
        match is_log {
            true => self
                .log
                .anchor
                .execute_batch("DROP TRIGGER broken")
                .expect("it is there"),
            false => self
                .database
                .anchor
                .execute_batch("ROLLBACK")
                .expect("it was begun"),
        }
    }

    /// Returns the envelope that is to be settled next.
    pub(crate) fn first_unsettled(&mut self) -> Position {
        let ready = self.replica().log().unapplied(0).expect("the log is read");
        ready.first().expect("something waits").position
    }

    /// Returns the version of the last fold.
    pub(crate) fn folded(&self) -> u64 {
        let seen = syncline_sqlite::version_vector(&self.app).expect("a prepared database");
        seen.version(self.site).to_bits()
    }

    /// Returns the envelopes that were settled since this was last asked.
    pub(crate) fn newly_settled(&mut self) -> Vec<Position> {
        let settled = self
            .replica()
            .log()
            .settled_heads()
            .expect("the log is read");
        let mut news = Vec::new();
        for (stream, seq) in settled.iter() {
            let first = self.settled.seq(&stream).number() + 1;
            let seqs = (first..=seq.number()).filter_map(Seq::new);
            news.extend(seqs.map(|seq| Position { stream, seq }));
        }
        self.settled = settled;
        news
    }

    /// Whether a table is there: one that begins empty gets its tables from the others.
    pub(crate) fn has(&self, shape: &Shape) -> bool {
        let exists = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1";
        let mut statement = self.app.prepare_cached(exists).expect(exists);
        statement.exists([shape.name]).expect(exists)
    }

    /// Reads a table's rows.
    pub(crate) fn rows(&self, shape: &Shape) -> Rows {
        let keys = shape.key.iter().map(|(name, _)| *name);
        let names: Vec<_> = keys.chain(shape.columns.iter().map(|c| c.name)).collect();
        let select = format!("SELECT {} FROM {}", names.join(", "), shape.name);
        let mut statement = self.app.prepare_cached(&select).expect(&select);
        let mut rows = statement.query([]).expect(&select);
        let mut found = Rows::new();
        while let Some(row) = rows.next().expect(&select) {
            let cell = |at| cell(row.get_ref(at).expect("the column was asked for"));
            let key: Key = (0..shape.key.len()).map(cell).collect();
            let cells = (shape.key.len()..).map(cell);
            let values: Row = shape.columns.iter().map(|c| c.name).zip(cells).collect();
            assert!(
                found.insert(key, values).is_none(),
                "{} has a key twice",
                shape.name
            );
        }
        found
    }

    /// Checks what must hold in every database at every time.
    pub(crate) fn check_integrity(&mut self) {
        let check = "SELECT group_concat(integrity_check, '; ') FROM pragma_integrity_check";
        let says: String = self
            .app
            .query_row(check, [], |row| row.get(0))
            .expect(check);
        assert_eq!(says, "ok");
        self.replica().log().check().expect("the log is whole");
    }
}

/// A log as it was, and how far it went.
pub(crate) struct LogCopy {
    log: Memory,
    heads: Heads,
    settled: Heads,
}

/// A database in memory that several connections share, for as long as this one is open.
struct Memory {
    address: String,
    anchor: Connection,
}

impl Memory {
    fn new() -> Memory {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let address = format!("file:/simulation-{number}?vfs=memdb");
        let anchor = Connection::open(&address).expect("SQLite opens in memory");
        Memory { address, anchor }
    }

    fn open(&self) -> Connection {
        let conn = Connection::open(&self.address).expect("SQLite opens in memory");
        // Nobody lets go while this thread waits.
        conn.busy_timeout(Duration::ZERO).expect("a time is set");
        conn
    }

    fn copy_to(&self, other: &Memory) {
        let mut target = other.open();
        let backup =
            rusqlite::backup::Backup::new(&self.anchor, &mut target).expect("a copy begins");
        backup.step(-1).expect("a copy ends");
    }
}

/// Draws random bytes.
pub(crate) fn bytes<const N: usize>(random: &mut Rng) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Real(number) => Cell::Real(number),
        ValueRef::Integer(number) => Cell::Integer(number),
    }
}
