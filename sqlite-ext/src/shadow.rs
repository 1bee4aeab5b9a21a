//! The tables Syncline keeps beside the user's: who we are, what is tracked, what we have seen.

use std::cell::Cell;
use std::collections::BTreeMap;

use rusqlite::{Connection, ErrorCode, params};
use syncline_crdt::{Hlc, SiteId, Stamp, VersionVector};

use crate::{constraints, gaps, heal, joined, policies, rights};

/// The version of the shadow tables; `docs/storage.md` describes it.
const FORMAT: i64 = 1;

/// The ordinal of this replica in `syncline_sites`.
pub(crate) const OWN: i64 = 0;

const TABLES: &str = "
    CREATE TABLE syncline_meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE syncline_sites(
        ordinal INTEGER PRIMARY KEY,
        site_id BLOB NOT NULL UNIQUE,
        version INTEGER NOT NULL DEFAULT 0,
        collected INTEGER NOT NULL DEFAULT 0,
        settled INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE syncline_tables(
        id INTEGER PRIMARY KEY,
        watermark INTEGER NOT NULL,
        ceiling INTEGER NOT NULL,
        name TEXT NOT NULL UNIQUE COLLATE NOCASE,
        site INTEGER NOT NULL,
        version INTEGER NOT NULL,
        options TEXT NOT NULL,
        shape TEXT NOT NULL,
        aside TEXT,
        origin INTEGER
    );
    CREATE TABLE syncline_columns(
        table_id INTEGER NOT NULL,
        lane INTEGER NOT NULL,
        name TEXT NOT NULL COLLATE NOCASE,
        is_gone INTEGER NOT NULL DEFAULT FALSE,
        PRIMARY KEY(table_id, lane)
    ) WITHOUT ROWID;
    CREATE TABLE syncline_renames(
        table_name TEXT NOT NULL COLLATE NOCASE,
        former TEXT NOT NULL COLLATE NOCASE,
        name TEXT NOT NULL COLLATE NOCASE,
        site INTEGER NOT NULL,
        version INTEGER NOT NULL,
        PRIMARY KEY(table_name, former, name)
    ) WITHOUT ROWID;
    CREATE TABLE syncline_clocks(
        table_id INTEGER NOT NULL,
        lane INTEGER NOT NULL,
        key NOT NULL,
        key_end NOT NULL,
        site INTEGER NOT NULL,
        version INTEGER NOT NULL,
        causal_length INTEGER NOT NULL,
        PRIMARY KEY(table_id, lane, key)
    ) WITHOUT ROWID;
    CREATE TABLE syncline_parked(id INTEGER PRIMARY KEY, name TEXT NOT NULL, changes BLOB NOT NULL);
    CREATE TABLE syncline_definitions(table_id INTEGER PRIMARY KEY, statements TEXT NOT NULL);
    CREATE TABLE syncline_rekeyed(
        table_id INTEGER NOT NULL,
        rowid INTEGER NOT NULL,
        number INTEGER NOT NULL,
        site INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        PRIMARY KEY(table_id, rowid),
        UNIQUE(table_id, number, site)
    ) WITHOUT ROWID;
    CREATE TABLE syncline_gone(
        table_id INTEGER NOT NULL,
        key BLOB NOT NULL,
        PRIMARY KEY(table_id, key)
    ) WITHOUT ROWID;
    CREATE TABLE syncline_canary(name TEXT PRIMARY KEY);
    CREATE INDEX syncline_clocks_by_stamp ON syncline_clocks(site, version);
";

/// Why a database cannot be made ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A later program wrote the shadow tables.
    #[error(
        "this database has Syncline's format {found}, and this program reads up to {FORMAT}: \
         update Syncline here"
    )]
    Newer {
        /// The format it has.
        found: i64,
    },
    /// No randomness could be had for the site id.
    #[error("the operating system gives no random bytes")]
    Random,
}

/// Makes a database ready for tracking; does nothing if it is.
///
/// # Errors
///
/// If SQLite fails or a later program wrote the shadow tables.
pub fn prepare(conn: &Connection) -> Result<(), OpenError> {
    if is_prepared(conn)? {
        return Ok(());
    }
    let mut site = [0; 16];
    #[expect(
        clippy::disallowed_methods,
        reason = "a new replica needs a name nobody else has"
    )]
    getrandom::fill(&mut site).map_err(|_| OpenError::Random)?;
    in_savepoint(conn, || {
        conn.execute_batch(TABLES)?;
        conn.execute_batch(constraints::store::TABLES)?;
        joined::TABLES
            .iter()
            .try_for_each(|tables| conn.execute_batch(tables))?;
        conn.execute_batch(gaps::TABLES)?;
        conn.execute_batch(policies::VIEW)?;
        rights::renew_view(conn)?;
        let format = "INSERT INTO syncline_meta(key, value) VALUES('format', ?1), ('clock', 0)";
        conn.execute(format, [FORMAT])?;
        heal::set_canary(conn)?;
        let own = "INSERT INTO syncline_sites(ordinal, site_id) VALUES(?1, ?2)";
        conn.execute(own, params![OWN, site])?;
        Ok(())
    })
}

/// Whether the shadow tables are there.
///
/// # Errors
///
/// If SQLite fails or a later program wrote them.
pub fn is_prepared(conn: &Connection) -> Result<bool, OpenError> {
    let exists = "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = 'syncline_meta'";
    if !conn.prepare_cached(exists)?.exists([])? {
        return Ok(false);
    }
    let format = "SELECT value FROM syncline_meta WHERE key = 'format'";
    let found: i64 = conn
        .prepare_cached(format)?
        .query_one([], |row| row.get(0))?;
    if found > FORMAT {
        return Err(OpenError::Newer { found });
    }
    Ok(true)
}

thread_local! {
    /// Whether this thread runs inside a statement that allows no savepoint.
    static INSIDE_STATEMENT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` as a part of the statement that calls it. SQLite opens no savepoint inside one that
/// writes, such as `CREATE VIRTUAL TABLE`, so [`in_savepoint`] opens none while `body` runs; what
/// it did before an error is for the caller, or for the statement, to take back.
pub(crate) fn inside_statement<T>(body: impl FnOnce() -> T) -> T {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            INSIDE_STATEMENT.set(self.0);
        }
    }
    let _reset = Reset(INSIDE_STATEMENT.replace(true));
    body()
}

/// Runs `body` in a savepoint: all of it happens, or nothing.
pub(crate) fn in_savepoint<T, E: From<rusqlite::Error>>(
    conn: &Connection,
    body: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    if INSIDE_STATEMENT.get() {
        return body();
    }
    // A savepoint outside a transaction begins a deferred one, whose upgrade from reading to
    // writing fails with BUSY_SNAPSHOT when another process wrote in between. An immediate
    // transaction waits for its turn.
    let outermost = conn.is_autocommit();
    refuse_inside_write(conn)?;
    conn.execute_batch(if outermost {
        "BEGIN IMMEDIATE"
    } else {
        "SAVEPOINT syncline"
    })?;
    let undo = if outermost {
        "ROLLBACK"
    } else {
        "ROLLBACK TO syncline; RELEASE syncline"
    };
    let unwinding = Unwinding { conn, undo };
    let result = body();
    drop(unwinding);
    let end = match (&result, outermost) {
        (Ok(_), true) => "COMMIT",
        (Ok(_), false) => "RELEASE syncline",
        (Err(_), _) => undo,
    };
    match conn.execute_batch(end) {
        Ok(()) => result,
        // A failed statement may have rolled back by itself; its own error tells more.
        Err(error) => {
            if outermost && !conn.is_autocommit() {
                conn.execute_batch("ROLLBACK")?;
            }
            result.and(Err(error.into()))
        }
    }
}

/// Takes back what was begun where a panic leaves it: whoever catches that goes on with the
/// connection.
struct Unwinding<'a> {
    conn: &'a Connection,
    undo: &'static str,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic says more than an error here could.
            let _ = self.conn.execute_batch(self.undo);
        }
    }
}

/// Refuses to begin inside a statement that writes, as in `INSERT INTO outbox SELECT
/// syncline_export()` while something is pending: SQLite begins and ends nothing there, and the
/// words in which it says so name no way out.
fn refuse_inside_write(conn: &Connection) -> rusqlite::Result<()> {
    match conn.execute_batch("SAVEPOINT syncline_probe; RELEASE syncline_probe") {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
            Err(rusqlite::Error::UserFunctionError(
                "this cannot be done inside a statement that writes: call the function in a \
                 SELECT of its own first, and write its result with the next statement"
                    .into(),
            ))
        }
        done => done,
    }
}

/// Runs `body`, which only reads, on one state of the database.
pub(crate) fn in_snapshot<T, E: From<rusqlite::Error>>(
    conn: &Connection,
    body: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    match conn.execute_batch("SAVEPOINT syncline_read") {
        Ok(()) => {}
        // A savepoint takes no lock. It is refused inside a statement that writes, as in
        // `INSERT INTO outbox SELECT syncline_export()`, which nobody else can write beside.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => return body(),
        Err(error) => return Err(error.into()),
    }
    let result = body();
    conn.execute_batch("RELEASE syncline_read")?;
    result
}

/// Returns this replica's name, 16 bytes made once for the file.
///
/// # Errors
///
/// If SQLite fails.
pub fn site_id(conn: &Connection) -> rusqlite::Result<SiteId> {
    let own = "SELECT site_id FROM syncline_sites WHERE ordinal = ?1";
    conn.prepare_cached(own)?
        .query_one([OWN], |row| row.get(0).map(SiteId))
}

/// Returns what this replica has seen, its own writes included. Only what was folded counts.
///
/// # Errors
///
/// If SQLite fails.
pub fn version_vector(conn: &Connection) -> rusqlite::Result<VersionVector> {
    let sites = Sites::load(conn)?;
    Ok(sites
        .rows
        .into_iter()
        .map(|(_, site, version)| (site, version))
        .collect())
}

/// Returns a version read from our own tables.
pub(crate) fn version_from(number: i64) -> rusqlite::Result<Hlc> {
    let version = u64::try_from(number).ok().and_then(Hlc::from_bits);
    version.ok_or(rusqlite::Error::IntegralValueOutOfRange(0, number))
}

/// Returns a version as our tables hold it.
pub(crate) fn version_to(version: Hlc) -> i64 {
    version.to_bits().cast_signed()
}

/// Returns the next time for a write of this replica, and notes it as seen.
pub(crate) fn tick(conn: &Connection, now_unix_ms: u64) -> rusqlite::Result<Stamp> {
    let version = clock(conn)?.tick(now_unix_ms);
    Ok(Stamp {
        version: tick_at(conn, version)?,
        site: site_id(conn)?,
    })
}

/// Returns the time right after everything that was seen, whatever the clock says.
pub(crate) fn after_seen(conn: &Connection) -> rusqlite::Result<Hlc> {
    Ok(clock(conn)?.tick(0))
}

/// Makes a time one of a write of this replica, and notes it as seen.
pub(crate) fn tick_at(conn: &Connection, version: Hlc) -> rusqlite::Result<Hlc> {
    observe(conn, version)?;
    advance(conn, OWN, version)?;
    Ok(version)
}

/// Returns the earliest time this replica can still write at: before everything that others wrote,
/// if it wrote nothing yet.
pub(crate) fn tick_oldest(conn: &Connection) -> rusqlite::Result<Hlc> {
    let own = "SELECT version FROM syncline_sites WHERE ordinal = ?1";
    let own = conn
        .prepare_cached(own)?
        .query_one([OWN], |row| version_from(row.get(0)?))?;
    tick_at(conn, own.tick(0))
}

/// Returns the latest time of anything seen.
fn clock(conn: &Connection) -> rusqlite::Result<Hlc> {
    let clock = "SELECT value FROM syncline_meta WHERE key = 'clock'";
    conn.prepare_cached(clock)?
        .query_one([], |row| version_from(row.get(0)?))
}

/// Notes a time as seen, so that the next write comes after it.
pub(crate) fn observe(conn: &Connection, version: Hlc) -> rusqlite::Result<()> {
    let set = "UPDATE syncline_meta SET value = max(value, ?1) WHERE key = 'clock'";
    conn.prepare_cached(set)?.execute([version_to(version)])?;
    Ok(())
}

/// Notes that all of a site's transactions up to `version` are known.
pub(crate) fn advance(conn: &Connection, ordinal: i64, version: Hlc) -> rusqlite::Result<()> {
    let set = "UPDATE syncline_sites SET version = max(version, ?2) WHERE ordinal = ?1";
    conn.prepare_cached(set)?
        .execute([ordinal, version_to(version)])?;
    Ok(())
}

/// The sites as they are numbered in this database.
#[derive(Debug)]
pub(crate) struct Sites {
    rows: Vec<(i64, SiteId, Hlc)>,
    ordinals: BTreeMap<SiteId, i64>,
}

impl Sites {
    pub(crate) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let all = "SELECT ordinal, site_id, version FROM syncline_sites ORDER BY ordinal";
        let mut statement = conn.prepare_cached(all)?;
        let rows = statement.query_map([], |row| {
            Ok((row.get(0)?, SiteId(row.get(1)?), version_from(row.get(2)?)?))
        })?;
        let rows: Vec<(i64, SiteId, Hlc)> = rows.collect::<Result<_, _>>()?;
        Ok(Sites {
            ordinals: rows.iter().map(|(at, site, _)| (*site, *at)).collect(),
            rows,
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, SiteId, Hlc)> + '_ {
        self.rows.iter().copied()
    }

    /// Returns the stamp that a clock entry means.
    ///
    /// # Panics
    ///
    /// If a clock names a site that is not in `syncline_sites`: they are written together.
    pub(crate) fn stamp(&self, ordinal: i64, version: Hlc) -> Stamp {
        // What nobody wrote has the same stamp on every replica.
        if version == Hlc::ZERO {
            return Stamp::default();
        }
        Stamp {
            version,
            site: self.site(ordinal),
        }
    }

    /// Returns the site with this number.
    ///
    /// # Panics
    ///
    /// If a clock names a site that is not in `syncline_sites`: they are written together.
    pub(crate) fn site(&self, ordinal: i64) -> SiteId {
        let found = self
            .rows
            .binary_search_by_key(&ordinal, |(ordinal, _, _)| *ordinal);
        self.rows[found.expect("a clock names a known site")].1
    }

    /// Returns the number of a site, giving it one if it is new.
    pub(crate) fn ordinal(&mut self, conn: &Connection, site: SiteId) -> rusqlite::Result<i64> {
        if let Some(ordinal) = self.ordinals.get(&site) {
            return Ok(*ordinal);
        }
        let add = "INSERT INTO syncline_sites(site_id) VALUES(?1) RETURNING ordinal";
        let ordinal = conn
            .prepare_cached(add)?
            .query_one([site.0], |row| row.get(0))?;
        self.rows.push((ordinal, site, Hlc::ZERO));
        self.ordinals.insert(site, ordinal);
        Ok(ordinal)
    }
}
