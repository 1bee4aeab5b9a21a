//! Reads envelopes back, to send them or to check the log.

use super::error::LogError;
use super::heads::{Position, StreamRef};
use super::store::{Log, seq_column, sql_number, stream_ref};
use crate::trust::{EnvelopeId, Seq, envelope_id};

impl Log {
    /// Returns the envelopes of `stream` that follow `after`, in order and without gaps.
    ///
    /// Stops before `bytes_max` is exceeded, but returns at least one envelope where there is one.
    ///
    /// # Errors
    /// [`LogError::Rotten`] when a stored envelope changed since it was stored.
    pub fn read(
        &self,
        stream: &StreamRef,
        after: Seq,
        bytes_max: usize,
    ) -> Result<Vec<Vec<u8>>, LogError> {
        let mut envelopes = Vec::new();
        let mut bytes_total = 0;
        let mut last = after;
        let mut select = self
            .connection
            .prepare_cached(
                "SELECT seq, id, bytes FROM envelopes
                 WHERE stream_key = (SELECT stream_key FROM streams
                                     WHERE author = ?1 AND stream = ?2)
                   AND seq > ?3 ORDER BY seq",
            )
            .map_err(|source| self.error(source))?;
        let mut rows = select
            .query((stream.author.0, stream.stream.0, sql_number(after)))
            .map_err(|source| self.error(source))?;
        while let Some(row) = rows.next().map_err(|source| self.error(source))? {
            let seq = seq_column(row, 0).map_err(|source| self.error(source))?;
            let id = row
                .get(1)
                .map(EnvelopeId)
                .map_err(|source| self.error(source))?;
            let bytes: Vec<u8> = row.get(2).map_err(|source| self.error(source))?;
            bytes_total += bytes.len();
            if last.next() != Some(seq) || (!envelopes.is_empty() && bytes_total > bytes_max) {
                break;
            }
            self.check_id(
                Position {
                    stream: *stream,
                    seq,
                },
                id,
                &bytes,
            )?;
            envelopes.push(bytes);
            last = seq;
            if bytes_total >= bytes_max {
                break;
            }
        }
        Ok(envelopes)
    }

    /// Checks the whole file: SQLite's structure, and every envelope against its id.
    ///
    /// Reads everything once; for a check on demand.
    ///
    /// # Errors
    /// [`LogError::Corrupted`] or [`LogError::Rotten`] at the first damage.
    pub fn check(&self) -> Result<(), LogError> {
        let verdict: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|source| self.error(source))?;
        if verdict != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(self.error(rusqlite::Error::SqliteFailure(code, Some(verdict))));
        }
        let mut select = self
            .connection
            .prepare(
                "SELECT author, stream, seq, id, bytes FROM envelopes JOIN streams
                 USING (stream_key) ORDER BY envelope_key",
            )
            .map_err(|source| self.error(source))?;
        let mut rows = select.query([]).map_err(|source| self.error(source))?;
        while let Some(row) = rows.next().map_err(|source| self.error(source))? {
            let at = |source| self.error(source);
            let stream = stream_ref(row, 0).map_err(at)?;
            let seq = seq_column(row, 2).map_err(at)?;
            let id = row.get(3).map(EnvelopeId).map_err(at)?;
            let bytes: Vec<u8> = row.get(4).map_err(at)?;
            self.check_id(Position { stream, seq }, id, &bytes)?;
        }
        Ok(())
    }

    /// Refuses bytes that rotted on the disk, which a peer would take for forged ones.
    pub(super) fn check_id(
        &self,
        position: Position,
        id: EnvelopeId,
        bytes: &[u8],
    ) -> Result<(), LogError> {
        if envelope_id(&self.database, bytes) != id {
            return Err(LogError::Rotten { position });
        }
        Ok(())
    }
}
