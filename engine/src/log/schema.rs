//! The log's tables, and the checks that a file is a log of this database and version.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::error::LogError;
use super::store::sqlite_error;
use crate::trust::DatabaseId;

/// Marks the file as a log for `file(1)` and for us: "SynL".
const APPLICATION_ID: i64 = 0x5379_6e4c;

const VERSION: i64 = 1;

/// `streams` is the index into `envelopes`, which holds seq 1 to `head_seq` of each stream.
/// Of these, 1 to `settled_seq` are applied (or refused, and then listed in `refused`).
const TABLES: &str = "
    CREATE TABLE streams(
        stream_key INTEGER PRIMARY KEY,
        author BLOB NOT NULL,
        stream BLOB NOT NULL,
        first_prev BLOB NOT NULL,
        head_seq INTEGER NOT NULL,
        head_id BLOB NOT NULL,
        settled_seq INTEGER NOT NULL,
        envelope_bytes INTEGER NOT NULL,
        blocked TEXT,
        UNIQUE (author, stream));
    CREATE TABLE envelopes(
        envelope_key INTEGER PRIMARY KEY,
        stream_key INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        id BLOB NOT NULL,
        bytes BLOB NOT NULL,
        UNIQUE (stream_key, seq));
    CREATE TABLE refused(
        stream_key INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (stream_key, seq)) WITHOUT ROWID;
    CREATE TABLE forks(
        fork_key INTEGER PRIMARY KEY,
        author BLOB NOT NULL,
        stream BLOB NOT NULL,
        seq INTEGER NOT NULL,
        id BLOB NOT NULL UNIQUE,
        bytes BLOB NOT NULL);
    CREATE INDEX forks_by_author ON forks(author);
    CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE peers(
        peer_key INTEGER PRIMARY KEY,
        peer BLOB NOT NULL UNIQUE,
        addresses TEXT NOT NULL);
";

/// The database's id among the cursors; a cursor cannot have this name.
const DATABASE_NAME: &str = "/database";

/// Makes the tables in an empty file, or checks those of an existing one.
pub(super) fn prepare(
    connection: &mut Connection,
    path: &Path,
    database: &DatabaseId,
) -> Result<(), LogError> {
    let at = |source| sqlite_error(path, source);
    connection
        .execute_batch(
            "PRAGMA busy_timeout = 5000; PRAGMA trusted_schema = OFF;
             PRAGMA cell_size_check = ON; PRAGMA foreign_keys = OFF;",
        )
        .map_err(at)?;
    let journal: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(at)?;
    tracing::trace!(journal, "log opened");
    connection
        .execute_batch("PRAGMA synchronous = NORMAL")
        .map_err(at)?;
    let tx = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(at)?;
    let pragma = |name: &str| -> rusqlite::Result<i64> {
        tx.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
    };
    let application = pragma("application_id").map_err(at)?;
    let version = pragma("user_version").map_err(at)?;
    let tables: i64 = tx
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(at)?;
    if application == 0 && version == 0 && tables == 0 {
        create(&tx, database).map_err(at)?;
        return tx.commit().map_err(at);
    }
    if application != APPLICATION_ID {
        return Err(LogError::NotALog {
            path: path.to_owned(),
        });
    }
    if version > VERSION {
        let (path, found, supported) = (path.to_owned(), version, VERSION);
        return Err(LogError::NewerVersion {
            path,
            found,
            supported,
        });
    }
    let found: Option<[u8; 32]> = tx
        .query_row(
            "SELECT value FROM meta WHERE name = ?1",
            [DATABASE_NAME],
            |row| row.get(0),
        )
        .optional()
        .map_err(at)?;
    match found.map(DatabaseId) {
        Some(found) if found == *database => Ok(()),
        Some(found) => Err(LogError::OtherDatabase {
            path: path.to_owned(),
            found,
            expected: *database,
        }),
        None => Err(LogError::NotALog {
            path: path.to_owned(),
        }),
    }
}

fn create(connection: &Connection, database: &DatabaseId) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    connection.execute(
        "INSERT INTO meta(name, value) VALUES (?1, ?2)",
        (DATABASE_NAME, database.0),
    )?;
    connection.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
    ))
}
