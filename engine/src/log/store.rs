//! Opens the log; its cursors, its heads and its status.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::append::fork_count;
use super::apply::BlockedStream;
use super::error::LogError;
use super::heads::{Heads, StreamRef};
use super::schema;
use crate::trust::{DatabaseId, EnvelopeId, NextPosition, PublicKey, Seq, StreamId};

/// The most bytes of a cursor's value, of its name, and of a reason.
pub const CURSOR_BYTES_MAX: usize = 64 << 10;

/// Prepared statements kept at hand: all that the log ever runs.
const STATEMENTS_MAX: usize = 64;

/// The envelope log of one database on this device.
pub struct Log {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) database: DatabaseId,
    pub(super) stream: StreamId,
}

/// What the log holds, for people to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Authors with at least one envelope.
    pub authors_count: u64,
    /// Streams with at least one envelope.
    pub streams_count: u64,
    /// Envelopes.
    pub envelopes_count: u64,
    /// Bytes of all envelopes.
    pub envelope_bytes: u64,
    /// Envelopes not yet applied or refused.
    pub unapplied_count: u64,
    /// Envelopes refused for good.
    pub refused_count: u64,
    /// Envelopes kept aside because another stands in their place.
    pub forks_count: u64,
    /// Streams that wait for something, and for what.
    pub blocked: Vec<BlockedStream>,
}

impl Log {
    /// Opens the log of `database` at `path`, or makes one.
    ///
    /// `stream` is what this process writes under: fresh random bytes, at every call. Nothing of
    /// it is stored before the first own envelope.
    ///
    /// # Errors
    /// When the file is no log, a newer one, another database's, or damaged.
    pub fn open(path: &Path, database: &DatabaseId, stream: StreamId) -> Result<Log, LogError> {
        let mut connection = Connection::open(path).map_err(|source| sqlite_error(path, source))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        schema::prepare(&mut connection, path, database)?;
        Ok(Log {
            connection,
            path: path.to_owned(),
            database: *database,
            stream,
        })
    }

    /// Writes own envelopes under another stream from here on: fresh random bytes.
    ///
    /// For a node that finds its own stream continued by somebody else, a clone of its machine.
    pub fn renew_stream(&mut self, stream: StreamId) {
        self.stream = stream;
    }

    /// Returns where `author`'s next envelope goes: on in this process's stream, or at its start,
    /// after the last envelope of the author's former stream.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next_position(&self, author: &PublicKey) -> Result<NextPosition, LogError> {
        next_position(&self.connection, author, self.stream).map_err(|source| self.error(source))
    }

    /// Returns the version vector of everything in the log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn heads(&self) -> Result<Heads, LogError> {
        self.heads_of("head_seq")
    }

    /// Returns the version vector of everything settled: applied, or refused for good.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn settled_heads(&self) -> Result<Heads, LogError> {
        self.heads_of("settled_seq")
    }

    /// Returns the value stored under `name`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn cursor(&self, name: &str) -> Result<Option<Vec<u8>>, LogError> {
        self.connection
            .prepare_cached("SELECT value FROM meta WHERE name = ?1")
            .and_then(|mut select| select.query_row([name], |row| row.get(0)).optional())
            .map_err(|source| self.error(source))
    }

    /// Stores `value` under `name`. [`Log::append_own`] does it together with envelopes.
    ///
    /// # Errors
    /// When the value is above [`CURSOR_BYTES_MAX`] or the log cannot be written.
    pub fn set_cursor(&mut self, name: &str, value: &[u8]) -> Result<(), LogError> {
        check_cursor(name, value)?;
        store_cursor(&self.connection, name, value).map_err(|source| self.error(source))
    }

    /// Makes everything written so far survive a power failure.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))
            .map_err(|source| self.error(source))
    }

    /// Returns counts and sizes.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn status(&self) -> Result<LogStatus, LogError> {
        let mut status = self
            .connection
            .query_row(
                "SELECT count(DISTINCT author), count(*), ifnull(sum(head_seq), 0),
                        ifnull(sum(envelope_bytes), 0), ifnull(sum(head_seq - settled_seq), 0),
                        (SELECT count(*) FROM refused)
                 FROM streams",
                [],
                |row| {
                    Ok(LogStatus {
                        authors_count: count_column(row, 0)?,
                        streams_count: count_column(row, 1)?,
                        envelopes_count: count_column(row, 2)?,
                        envelope_bytes: count_column(row, 3)?,
                        unapplied_count: count_column(row, 4)?,
                        refused_count: count_column(row, 5)?,
                        ..LogStatus::default()
                    })
                },
            )
            .map_err(|source| self.error(source))?;
        status.forks_count = fork_count(&self.connection).map_err(|source| self.error(source))?;
        status.blocked = self.blocked()?;
        Ok(status)
    }

    /// Turns an error of SQLite into one that names the file.
    pub(super) fn error(&self, source: rusqlite::Error) -> LogError {
        sqlite_error(&self.path, source)
    }

    fn heads_of(&self, column: &str) -> Result<Heads, LogError> {
        let sql = format!("SELECT author, stream, {column} FROM streams");
        self.connection
            .prepare_cached(&sql)
            .and_then(|mut select| {
                select
                    .query_map([], |row| Ok((stream_ref(row, 0)?, seq_column(row, 2)?)))?
                    .collect()
            })
            .map_err(|source| self.error(source))
    }
}

pub(super) fn next_position(
    connection: &Connection,
    author: &PublicKey,
    stream: StreamId,
) -> rusqlite::Result<NextPosition> {
    // The newest stream is the former one; this process's own, if it wrote already, counts first.
    let last: Option<(bool, Seq, EnvelopeId)> = connection
        .prepare_cached(
            "SELECT stream = ?2, head_seq, head_id FROM streams WHERE author = ?1
             ORDER BY stream = ?2 DESC, stream_key DESC LIMIT 1",
        )?
        .query_row((author.0, stream.0), |row| {
            Ok((row.get(0)?, seq_column(row, 1)?, EnvelopeId(row.get(2)?)))
        })
        .optional()?;
    Ok(match last {
        Some((true, seq, prev)) => {
            let seq = seq
                .next()
                .expect("no process lives to write 2^62 envelopes");
            NextPosition { stream, seq, prev }
        }
        Some((false, _, prev)) => NextPosition {
            stream,
            seq: Seq::FIRST,
            prev,
        },
        None => NextPosition {
            stream,
            seq: Seq::FIRST,
            prev: EnvelopeId::NONE,
        },
    })
}

pub(super) fn check_cursor(name: &str, value: &[u8]) -> Result<(), LogError> {
    assert!(
        !name.starts_with('/'),
        "names with a slash are the log's own"
    );
    match name.len().max(value.len()) {
        bytes if bytes > CURSOR_BYTES_MAX => Err(LogError::TooLarge {
            what: "a cursor",
            bytes,
            bytes_max: CURSOR_BYTES_MAX,
        }),
        _ => Ok(()),
    }
}

pub(super) fn store_cursor(
    connection: &Connection,
    name: &str,
    value: &[u8],
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta(name, value) VALUES (?1, ?2)
             ON CONFLICT(name) DO UPDATE SET value = excluded.value",
        )?
        .execute((name, value))?;
    Ok(())
}

/// Reads (author, stream) from two columns, the first at `index`.
pub(super) fn stream_ref(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<StreamRef> {
    let (author, stream) = (PublicKey(row.get(index)?), StreamId(row.get(index + 1)?));
    Ok(StreamRef { author, stream })
}

pub(super) fn seq_column(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<Seq> {
    let number: i64 = row.get(index)?;
    u64::try_from(number)
        .ok()
        .and_then(Seq::new)
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(index, number))
}

/// Reads a count or a size, which SQLite knows as signed.
pub(super) fn count_column(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(index)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, number))
}

pub(super) fn sql_number(seq: Seq) -> i64 {
    i64::try_from(seq.number()).expect("SEQ_MAX is below i64::MAX")
}

pub(super) fn sqlite_error(path: &Path, source: rusqlite::Error) -> LogError {
    use rusqlite::Error;
    let path = path.to_owned();
    match (&source, source.sqlite_error_code()) {
        (_, Some(ErrorCode::NotADatabase)) => LogError::NotALog { path },
        (_, Some(ErrorCode::DatabaseCorrupt))
        | (
            Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::FromSqlConversionFailure(..),
            _,
        ) => LogError::Corrupted { path, source },
        _ => LogError::Sqlite { path, source },
    }
}
