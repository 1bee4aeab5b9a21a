//! Appends envelopes: this device's own, and those received.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::error::LogError;
use super::heads::{Position, StreamRef};
use super::store::{
    Log, check_cursor, count_column, next_position, seq_column, sql_number, store_cursor,
    stream_ref,
};
use crate::trust::{ENVELOPE_BYTES_MAX, EnvelopeId, Header, NextPosition, Seq, VerifiedEnvelope};

/// The most envelopes per author that are kept aside as evidence of forks.
pub const FORKS_PER_AUTHOR_MAX: u64 = 16;

/// The most bytes per author that are kept aside as evidence of forks.
pub const FORK_BYTES_MAX: u64 = 64 << 20;

const _: () = assert!(FORK_BYTES_MAX >= ENVELOPE_BYTES_MAX as u64);

/// A named value that is stored together with an own envelope.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its new value.
    pub value: &'a [u8],
}

/// What became of a received envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is in the log.
    Stored,
    /// It was there already.
    Duplicate,
    /// Envelopes before it are missing; it was not stored and has to be fetched again after them.
    Gap {
        /// The place that comes next in its stream.
        expected: Seq,
    },
    /// Its author signed another envelope for the same place, or with another predecessor.
    ///
    /// The one in the log stays. This one is kept aside, within limits, and is not applied.
    Fork {
        /// What the log holds: at its place, or as its predecessor.
        kept: EnvelopeId,
    },
}

/// Evidence that an author signed two different continuations of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Where the envelope kept aside would stand.
    pub position: Position,
    /// Its id.
    pub id: EnvelopeId,
    /// Its bytes, with the author's signature.
    pub bytes: Vec<u8>,
}

/// A stream's row, as appending needs it.
struct Tail {
    stream_key: i64,
    head_seq: Seq,
    head_id: EnvelopeId,
}

impl Log {
    /// Appends own envelopes and sets `cursors`, in one transaction.
    ///
    /// They continue from [`Log::next_position`], one after the other, and count as applied: their
    /// changes come from the user's tables.
    ///
    /// # Errors
    /// [`LogError::NotNext`] when one does not stand at the next position; nothing is stored then.
    pub fn append_own(
        &mut self,
        envelopes: &[VerifiedEnvelope],
        cursors: &[Cursor<'_>],
    ) -> Result<(), LogError> {
        for cursor in cursors {
            check_cursor(cursor.name, cursor.value)?;
        }
        self.check_database(envelopes)?;
        let path = self.path.clone();
        let at = |source| super::store::sqlite_error(&path, source);
        let tx = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(at)?;
        for envelope in envelopes {
            let header = envelope.header();
            let next = next_position(&tx, &header.author, self.stream).map_err(at)?;
            let NextPosition { stream, seq, prev } = next;
            if (stream, seq, prev) != (header.stream, header.seq, header.prev) {
                return Err(LogError::NotNext {
                    position: position(header),
                });
            }
            insert(&tx, envelope, true).map_err(at)?;
        }
        for cursor in cursors {
            store_cursor(&tx, cursor.name, cursor.value).map_err(at)?;
        }
        tx.commit().map_err(at)
    }

    /// Appends received envelopes in one transaction, and returns what became of each.
    ///
    /// # Errors
    /// When the log cannot be written; nothing is stored then.
    pub fn append_received(
        &mut self,
        envelopes: &[VerifiedEnvelope],
    ) -> Result<Vec<Received>, LogError> {
        self.check_database(envelopes)?;
        let path = self.path.clone();
        let at = |source| super::store::sqlite_error(&path, source);
        let tx = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(at)?;
        let mut received = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            let outcome = judge(&tx, envelope).map_err(at)?;
            match outcome {
                Received::Stored => insert(&tx, envelope, false).map_err(at)?,
                Received::Fork { .. } => keep_aside(&tx, envelope).map_err(at)?,
                Received::Duplicate | Received::Gap { .. } => {}
            }
            received.push(outcome);
        }
        tx.commit().map_err(at)?;
        Ok(received)
    }

    /// Returns the envelopes kept aside because another stands in their place.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn forks(&self) -> Result<Vec<Fork>, LogError> {
        self.connection
            .prepare_cached("SELECT author, stream, seq, id, bytes FROM forks ORDER BY fork_key")
            .and_then(|mut select| {
                select
                    .query_map([], |row| {
                        let (stream, seq) = (stream_ref(row, 0)?, seq_column(row, 2)?);
                        let (id, bytes) = (EnvelopeId(row.get(3)?), row.get(4)?);
                        Ok(Fork {
                            position: Position { stream, seq },
                            id,
                            bytes,
                        })
                    })?
                    .collect()
            })
            .map_err(|source| self.error(source))
    }

    fn check_database(&self, envelopes: &[VerifiedEnvelope]) -> Result<(), LogError> {
        match envelopes
            .iter()
            .find(|envelope| envelope.database() != self.database)
        {
            Some(foreign) => Err(LogError::ForeignEnvelope {
                found: foreign.database(),
                expected: self.database,
            }),
            None => Ok(()),
        }
    }
}

pub(super) fn fork_count(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count(*) FROM forks", [], |row| count_column(row, 0))
}

/// Decides what becomes of a received envelope; changes nothing.
fn judge(connection: &Connection, envelope: &VerifiedEnvelope) -> rusqlite::Result<Received> {
    let header = envelope.header();
    let Some(tail) = tail(connection, header)? else {
        return Ok(match header.seq {
            Seq::FIRST => Received::Stored,
            _ => Received::Gap {
                expected: Seq::FIRST,
            },
        });
    };
    if header.seq <= tail.head_seq {
        let stored: Option<[u8; 32]> = connection
            .prepare_cached("SELECT id FROM envelopes WHERE stream_key = ?1 AND seq = ?2")?
            .query_row((tail.stream_key, sql_number(header.seq)), |row| row.get(0))
            .optional()?;
        return Ok(match stored.map(EnvelopeId) {
            Some(kept) if kept != envelope.id() => Received::Fork { kept },
            _ => Received::Duplicate,
        });
    }
    Ok(match tail.head_seq.next() {
        Some(expected) if expected == header.seq && header.prev == tail.head_id => Received::Stored,
        Some(expected) if expected == header.seq => Received::Fork { kept: tail.head_id },
        Some(expected) => Received::Gap { expected },
        None => Received::Duplicate,
    })
}

fn tail(connection: &Connection, header: &Header) -> rusqlite::Result<Option<Tail>> {
    connection
        .prepare_cached(
            "SELECT stream_key, head_seq, head_id FROM streams WHERE author = ?1 AND stream = ?2",
        )?
        .query_row((header.author.0, header.stream.0), |row| {
            Ok(Tail {
                stream_key: row.get(0)?,
                head_seq: seq_column(row, 1)?,
                head_id: EnvelopeId(row.get(2)?),
            })
        })
        .optional()
}

fn insert(
    connection: &Connection,
    envelope: &VerifiedEnvelope,
    settled: bool,
) -> rusqlite::Result<()> {
    let (header, id, bytes) = (envelope.header(), envelope.id(), envelope.bytes());
    let seq = sql_number(header.seq);
    let stream_key: i64 = connection
        .prepare_cached(
            "INSERT INTO streams(author, stream, first_prev, head_seq, head_id, settled_seq,
                                 envelope_bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, iif(?6, ?4, 0), ?7)
             ON CONFLICT(author, stream) DO UPDATE SET
                 head_seq = excluded.head_seq,
                 head_id = excluded.head_id,
                 settled_seq = iif(?6, excluded.head_seq, settled_seq),
                 envelope_bytes = envelope_bytes + excluded.envelope_bytes
             RETURNING stream_key",
        )?
        .query_row(
            (
                header.author.0,
                header.stream.0,
                header.prev.0,
                seq,
                id.0,
                settled,
                bytes.len() as i64,
            ),
            |row| row.get(0),
        )?;
    connection
        .prepare_cached(
            "INSERT INTO envelopes(stream_key, seq, id, bytes) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((stream_key, seq, id.0, bytes))?;
    Ok(())
}

fn keep_aside(connection: &Connection, envelope: &VerifiedEnvelope) -> rusqlite::Result<()> {
    let header = envelope.header();
    let (count, bytes): (u64, u64) = connection.query_row(
        "SELECT count(*), ifnull(sum(length(bytes)), 0) FROM forks WHERE author = ?1",
        [header.author.0],
        |row| Ok((count_column(row, 0)?, count_column(row, 1)?)),
    )?;
    // Who forks once is found out; a thousand more forks prove nothing further.
    if count >= FORKS_PER_AUTHOR_MAX || bytes + envelope.bytes().len() as u64 > FORK_BYTES_MAX {
        return Ok(());
    }
    connection.execute(
        "INSERT INTO forks(author, stream, seq, id, bytes) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT(id) DO NOTHING",
        (
            header.author.0,
            header.stream.0,
            sql_number(header.seq),
            envelope.id().0,
            envelope.bytes(),
        ),
    )?;
    Ok(())
}

fn position(header: &Header) -> Position {
    let stream = StreamRef {
        author: header.author,
        stream: header.stream,
    };
    Position {
        stream,
        seq: header.seq,
    }
}
