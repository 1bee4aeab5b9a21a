//! Hands out envelopes to be applied, in order, and remembers how far each stream is settled.
//!
//! Within a stream, and from the end of an author's stream to the start of the author's next one,
//! an envelope is handed out only after the one it names as `prev`. So an author's later changes
//! are never seen without the earlier ones, as far as the log has them.

use std::collections::BTreeMap;

use rusqlite::OptionalExtension;

use super::error::LogError;
use super::heads::{Position, StreamRef};
use super::store::{CURSOR_BYTES_MAX, Log, seq_column, sql_number, stream_ref};
use crate::trust::{Seq, VerifiedEnvelope};

/// An envelope in the log, to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its place.
    pub position: Position,
    /// The envelope; it was verified before it was stored.
    pub envelope: VerifiedEnvelope,
}

/// A stream that cannot go on yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedStream {
    /// The first envelope that waits.
    pub position: Position,
    /// What it waits for.
    pub reason: String,
}

/// A stream with unsettled envelopes.
struct Pending {
    stream: StreamRef,
    settled: Seq,
    head: Seq,
    /// The stream that must be settled up to the given place first.
    follows: Option<Position>,
}

impl Log {
    /// Returns envelopes that are neither applied, refused nor blocked, in the order to apply them.
    ///
    /// Stops before `bytes_max` is exceeded, but returns at least one envelope where there is one.
    /// Settle each in this order, with [`Log::mark_applied`] or [`Log::mark_refused`], or block its
    /// stream with [`Log::mark_blocked`] and ask again.
    ///
    /// # Errors
    /// [`LogError::Rotten`] when a stored envelope changed since it was stored.
    pub fn unapplied(&self, bytes_max: usize) -> Result<Vec<Logged>, LogError> {
        let pending = self.pending().map_err(|source| self.error(source))?;
        let mut settled: BTreeMap<StreamRef, Seq> = pending
            .iter()
            .map(|pending| (pending.stream, pending.settled))
            .collect();
        let mut ready = Vec::new();
        let mut bytes_left = bytes_max;
        loop {
            let mut progress = false;
            for stream in &pending {
                let done = settled[&stream.stream];
                let waits = stream.follows.is_some_and(|before| {
                    // A stream that is not pending is settled as far as it goes.
                    settled
                        .get(&before.stream)
                        .is_some_and(|done| *done < before.seq)
                });
                if done == stream.head || waits {
                    continue;
                }
                let batch = self.read(&stream.stream, done, bytes_left)?;
                let mut seq = done;
                for bytes in batch {
                    if !ready.is_empty() && bytes.len() > bytes_left {
                        return Ok(ready);
                    }
                    bytes_left = bytes_left.saturating_sub(bytes.len());
                    seq = seq.next().expect("seq is at most the head");
                    let envelope = VerifiedEnvelope::assume_verified(bytes, &self.database)?;
                    let position = Position {
                        stream: stream.stream,
                        seq,
                    };
                    ready.push(Logged { position, envelope });
                    progress = true;
                }
                settled.insert(stream.stream, seq);
                if bytes_left == 0 {
                    return Ok(ready);
                }
            }
            if !progress {
                return Ok(ready);
            }
        }
    }

    /// Remembers that everything up to `position` in its stream is in the user's tables.
    ///
    /// # Errors
    /// [`LogError::NotUnsettled`] when it is settled already or not in the log.
    pub fn mark_applied(&mut self, position: &Position) -> Result<(), LogError> {
        let changed = self
            .connection
            .prepare_cached(
                "UPDATE streams SET settled_seq = ?3, blocked = NULL
                 WHERE author = ?1 AND stream = ?2 AND settled_seq < ?3 AND head_seq >= ?3",
            )
            .and_then(|mut update| update.execute(place(position)))
            .map_err(|source| self.error(source))?;
        if changed == 0 {
            return Err(LogError::NotUnsettled {
                position: *position,
            });
        }
        Ok(())
    }

    /// Remembers that `position`, the next of its stream, can never be applied, on any replica.
    ///
    /// The stream goes on behind it. The decision must depend on the envelope's bytes alone.
    ///
    /// # Errors
    /// [`LogError::NotUnsettled`] when it is not the next to be settled.
    pub fn mark_refused(&mut self, position: &Position, reason: &str) -> Result<(), LogError> {
        check_reason(reason)?;
        let path = self.path.clone();
        let at = |source| super::store::sqlite_error(&path, source);
        let tx = self.connection.transaction().map_err(at)?;
        let stream_key: Option<i64> = tx
            .prepare_cached(
                "UPDATE streams SET settled_seq = ?3, blocked = NULL
                 WHERE author = ?1 AND stream = ?2 AND settled_seq = ?3 - 1 AND head_seq >= ?3
                 RETURNING stream_key",
            )
            .and_then(|mut update| {
                update
                    .query_row(place(position), |row| row.get(0))
                    .optional()
            })
            .map_err(at)?;
        let Some(stream_key) = stream_key else {
            return Err(LogError::NotUnsettled {
                position: *position,
            });
        };
        tx.execute(
            "INSERT INTO refused(stream_key, seq, reason) VALUES (?1, ?2, ?3)",
            (stream_key, sql_number(position.seq), reason),
        )
        .map_err(at)?;
        tx.commit().map_err(at)
    }

    /// Remembers that `position`, the next of its stream, waits for something: a key, a table, a
    /// clock. It and what follows it are not handed out until [`Log::unblock`].
    ///
    /// # Errors
    /// [`LogError::NotUnsettled`] when it is not the next to be settled.
    pub fn mark_blocked(&mut self, position: &Position, reason: &str) -> Result<(), LogError> {
        check_reason(reason)?;
        let (author, stream, seq) = place(position);
        let changed = self
            .connection
            .execute(
                "UPDATE streams SET blocked = ?4
                 WHERE author = ?1 AND stream = ?2 AND settled_seq = ?3 - 1 AND head_seq >= ?3",
                (author, stream, seq, reason),
            )
            .map_err(|source| self.error(source))?;
        if changed == 0 {
            return Err(LogError::NotUnsettled {
                position: *position,
            });
        }
        Ok(())
    }

    /// Hands out blocked envelopes again, because what they waited for may have come.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn unblock(&mut self) -> Result<(), LogError> {
        self.connection
            .execute(
                "UPDATE streams SET blocked = NULL WHERE blocked IS NOT NULL",
                [],
            )
            .map(drop)
            .map_err(|source| self.error(source))
    }

    /// Returns the streams that wait, and for what.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn blocked(&self) -> Result<Vec<BlockedStream>, LogError> {
        self.connection
            .prepare_cached(
                "SELECT author, stream, settled_seq + 1, blocked FROM streams
                 WHERE blocked IS NOT NULL ORDER BY author, stream",
            )
            .and_then(|mut select| {
                select
                    .query_map([], |row| {
                        let (stream, seq) = (stream_ref(row, 0)?, seq_column(row, 2)?);
                        let position = Position { stream, seq };
                        Ok(BlockedStream {
                            position,
                            reason: row.get(3)?,
                        })
                    })?
                    .collect()
            })
            .map_err(|source| self.error(source))
    }

    /// Lists all streams with unsettled envelopes, the blocked ones as having no more than that.
    fn pending(&self) -> rusqlite::Result<Vec<Pending>> {
        let mut select = self.connection.prepare_cached(
            "SELECT later.author, later.stream, later.settled_seq,
                    iif(later.blocked IS NULL, later.head_seq, later.settled_seq),
                    former.author, former.stream, former.head_seq
             FROM streams AS later LEFT JOIN streams AS former
               ON former.author = later.author AND former.head_id = later.first_prev
             WHERE later.settled_seq < later.head_seq
             ORDER BY later.stream_key",
        )?;
        let rows = select.query_map([], |row| {
            let former: Option<[u8; 32]> = row.get(4)?;
            let follows = match former {
                Some(_) => Some(Position {
                    stream: stream_ref(row, 4)?,
                    seq: seq_column(row, 6)?,
                }),
                None => None,
            };
            Ok(Pending {
                stream: stream_ref(row, 0)?,
                settled: seq_column(row, 2)?,
                head: seq_column(row, 3)?,
                follows,
            })
        })?;
        rows.collect()
    }
}

fn place(position: &Position) -> ([u8; 32], [u8; 8], i64) {
    let StreamRef { author, stream } = position.stream;
    (author.0, stream.0, sql_number(position.seq))
}

fn check_reason(reason: &str) -> Result<(), LogError> {
    match reason.len() {
        bytes if bytes > CURSOR_BYTES_MAX => Err(LogError::TooLarge {
            what: "a reason",
            bytes,
            bytes_max: CURSOR_BYTES_MAX,
        }),
        _ => Ok(()),
    }
}
