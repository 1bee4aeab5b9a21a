//! One device's copy: the user's database, and the log of everything sealed beside it.
//!
//! Between the two runs one invariant, in both directions. **Invariant:** an own change is sealed
//! and logged together with the cursor that says so, so a crash neither loses nor repeats it. A
//! foreign envelope is logged first, merged second and marked third, so a crash merges it again,
//! which changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use syncline_crdt::{Changeset, Digest, Hlc, Part, SiteId, VersionVector};
use syncline_sqlite as sqlite;

use crate::clock::now_unix_ms;
use crate::home::OpenHome;
use crate::layer::{KeptBack, Layer, Unmerged};
use crate::log::{CURSOR_BYTES_MAX, Cursor, Heads, Log, LogError, Logged, Received, StreamRef};
use crate::trust::{
    DatabaseSecret, Identity, Kind, PAYLOAD_BYTES_MAX, Sealing, Seq, StreamId, VerifiedEnvelope,
    random_bytes, seal, verify,
};

mod error;

pub use error::ReplicaError;

/// About how many rows one envelope carries, where transactions allow.
const ENVELOPE_ROWS: u64 = 20_000;
/// How many bytes of envelopes are opened and merged before their marks are written.
const APPLY_BYTES: usize = 8 << 20;
/// How long a write waits for another program's transaction to end.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Names the layer that the database is served with.
const LAYER: &str = "layer";
/// Names the version up to which own changes are sealed.
const SEALED: &str = "sealed";
/// Names the version vector of the database when something was merged last.
const MERGED: &str = "merged";

/// One device's copy: what a [`crate::Node`] runs on, and all an application needs that brings its
/// own transport and drives [`crate::session::Session`] itself. Its calls block.
pub struct Replica {
    conn: Connection,
    layer: Layer,
    log: Log,
    identity: Arc<Identity>,
    secret: Arc<DatabaseSecret>,
    /// SQLite's counter of commits by others, as last seen.
    data_version: i64,
    /// SQLite's counter of rows changed through this connection, as last seen.
    changes_count: u64,
    /// Whether own changes may wait although nobody else committed.
    is_stale: bool,
}

impl Replica {
    /// Opens the database that a folder belongs to, and the log in it. With the file of a cr-sqlite
    /// extension, the database's CRR layer is that one.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn open(home: &OpenHome, crr_extension: Option<&Path>) -> Result<Self, ReplicaError> {
        let path = home.home.database();
        let at = |source| ReplicaError::Database {
            path: path.to_owned(),
            source,
        };
        let conn = Connection::open(path).map_err(at)?;
        conn.busy_timeout(BUSY_TIMEOUT).map_err(at)?;
        conn.set_prepared_statement_cache_capacity(256);
        let stream = StreamId(random_bytes()?);
        let log = Log::open(&home.home.path("log.sqlite"), &home.secret.id(), stream)?;
        let (identity, secret) = (Arc::clone(&home.identity), Arc::clone(&home.secret));
        let layer = Layer::begin(&conn, crr_extension)?;
        Replica::begin(conn, layer, log, (identity, secret), now_unix_ms())
    }

    /// Joins a database and its log.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn new(
        conn: Connection,
        log: Log,
        identity: Arc<Identity>,
        secret: Arc<DatabaseSecret>,
        now_unix_ms: u64,
    ) -> Result<Self, ReplicaError> {
        let layer = Layer::begin(&conn, None)?;
        Replica::begin(conn, layer, log, (identity, secret), now_unix_ms)
    }

    fn begin(
        conn: Connection,
        layer: Layer,
        mut log: Log,
        (identity, secret): (Arc<Identity>, Arc<DatabaseSecret>),
        now_unix_ms: u64,
    ) -> Result<Self, ReplicaError> {
        match log.cursor(LAYER)? {
            Some(before) if before != layer.name() => {
                let with_extension = before == Layer::CrSqlite.name();
                return Err(ReplicaError::OtherLayer { with_extension });
            }
            Some(_) => {}
            None => log.set_cursor(LAYER, layer.name())?,
        }
        let (data_version, changes_count, is_stale) = (-1, 0, true);
        let mut replica = Replica {
            conn,
            layer,
            log,
            identity,
            secret,
            data_version,
            changes_count,
            is_stale,
        };
        match replica.log.cursor(SEALED)? {
            None => replica.seal_first(now_unix_ms)?,
            Some(_) if replica.is_rolled_back()? => replica.merge_again(now_unix_ms)?,
            Some(_) => {}
        }
        replica.apply(now_unix_ms)?;
        Ok(replica)
    }

    /// Whether the database lacks own changes that are sealed, or others' that were merged: a power
    /// failure took them, or an older copy or a new file was put in its place.
    fn is_rolled_back(&self) -> Result<bool, ReplicaError> {
        let own = self.layer.site_id(&self.conn)?;
        let (site, sealed) = self.sealed()?;
        let seen = self.layer.version_vector(&self.conn)?;
        let merged = match self.log.cursor(MERGED)? {
            Some(bytes) => VersionVector::decode(&bytes).map_err(|_| ReplicaError::Cursor)?,
            None => VersionVector::new(),
        };
        Ok(own != site || seen.version(own) < sealed || !seen.covers(&merged))
    }

    /// Merges the whole log again; what is in the database already does not change it.
    fn merge_again(&mut self, now_unix_ms: u64) -> Result<(), ReplicaError> {
        tracing::warn!("the database lacks changes that the log has: merging the log again");
        let mut at: Vec<(StreamRef, Seq)> = self
            .log
            .heads()?
            .iter()
            .map(|(stream, _)| (stream, Seq::NONE))
            .collect();
        loop {
            let mut progress = false;
            for (stream, seq) in &mut at {
                progress |= self.merge_stream(stream, seq, now_unix_ms)?;
            }
            // What is left waits for something that the log does not have.
            if !progress {
                return Ok(());
            }
        }
    }

    /// Merges a stream from behind `seq` on, as far as it goes; returns whether it went anywhere.
    fn merge_stream(
        &self,
        stream: &StreamRef,
        seq: &mut Seq,
        now_unix_ms: u64,
    ) -> Result<bool, ReplicaError> {
        let began = *seq;
        loop {
            let batch = self.log.read(stream, *seq, APPLY_BYTES)?;
            if batch.is_empty() {
                return Ok(*seq != began);
            }
            for bytes in batch {
                let envelope = VerifiedEnvelope::assume_verified(bytes, &self.secret.id())
                    .map_err(LogError::from)?;
                match self.merge(&envelope, now_unix_ms) {
                    Ok(()) | Err(Unmerged::Never(_)) => *seq = envelope.header().seq,
                    Err(Unmerged::NotYet(_)) => return Ok(*seq != began),
                    Err(Unmerged::Failed(error)) => return Err(error),
                }
            }
        }
    }

    /// Begins the log of a database that may have a past of its own: what it imported from other
    /// sites is in nobody's log, so it goes into the first envelope with everything else.
    fn seal_first(&mut self, now_unix_ms: u64) -> Result<(), ReplicaError> {
        self.layer.fold(&self.conn, now_unix_ms)?;
        let own = self.layer.site_id(&self.conn)?;
        if self.layer.is_all_own(&self.conn)? {
            return Ok(self.log.set_cursor(SEALED, &cursor(own, Hlc::ZERO))?);
        }
        let changes = self.layer.export_all(&self.conn, now_unix_ms)?;
        self.seal(&changes.encode(), changes.until.version(own))?;
        Ok(())
    }

    /// Returns the user's database.
    pub fn conn(&self) -> &Connection {
        &self.conn
    }

    /// Returns the log.
    pub fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Looks whether anybody wrote, and returns the envelopes of what is new here.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn watch(&mut self, now_unix_ms: u64) -> Result<Vec<Vec<u8>>, ReplicaError> {
        let version = "PRAGMA data_version";
        let version = self
            .conn
            .prepare_cached(version)?
            .query_one([], |row| row.get(0))?;
        let is_seen =
            version == self.data_version && self.conn.total_changes() == self.changes_count;
        if is_seen && !self.is_stale {
            return Ok(Vec::new());
        }
        let sealed = self.seal_own(now_unix_ms);
        // A transaction above the limit counts as seen: trying again before something else is
        // written would only say so again.
        if matches!(sealed, Ok(_) | Err(ReplicaError::Seal(_))) {
            (self.data_version, self.is_stale) = (version, false);
            self.changes_count = self.conn.total_changes();
        }
        sealed
    }

    /// Folds, seals and logs what was written here, and returns the envelopes.
    fn seal_own(&mut self, now_unix_ms: u64) -> Result<Vec<Vec<u8>>, ReplicaError> {
        let site = self.layer.site_id(&self.conn)?;
        let mut sealed = Vec::new();
        while let Some((payload, until)) = self.next_own(now_unix_ms)? {
            sealed.push(self.seal(&payload, until.version(site))?);
        }
        Ok(sealed)
    }

    /// Returns what the next own envelope carries, and how far it reaches: whole versions, as many as
    /// fit.
    fn next_own(&self, now_unix_ms: u64) -> Result<Option<Payload>, ReplicaError> {
        let after = self.sealed_until()?;
        // Nobody may write between the fold and the reading: what is not folded would be read
        // under an earlier write's version, and a transaction in part.
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        let changes = self.choose_own(after, now_unix_ms);
        let ended = self.conn.execute_batch(if changes.is_ok() {
            "COMMIT"
        } else {
            "ROLLBACK"
        });
        if let Err(error) = ended {
            // A reader may hold a commit up for longer than we wait. Nobody must wait for us then.
            if !self.conn.is_autocommit() {
                self.conn.execute_batch("ROLLBACK")?;
            }
            changes?;
            return Err(error.into());
        }
        changes
    }

    fn choose_own(&self, after: Hlc, now_unix_ms: u64) -> Result<Option<Payload>, ReplicaError> {
        self.layer.fold(&self.conn, now_unix_ms)?;
        let newest = self
            .layer
            .version_vector(&self.conn)?
            .version(self.layer.site_id(&self.conn)?);
        let (mut rows_least, mut rows_max) = (1, ENVELOPE_ROWS);
        loop {
            let Some(changes) = self.layer.export_own(&self.conn, after, rows_max)? else {
                return Ok(None);
            };
            if changes.is_empty() {
                // Others overwrote all of it, or its table is gone: look further, or wait.
                if changes.until.iter().all(|(_, until)| until >= newest) {
                    return Ok(None);
                }
                rows_max = rows_max.saturating_mul(2);
                rows_least = rows_max;
                continue;
            }
            let payload = changes.encode();
            // One version alone is a transaction, and goes whole or not at all.
            if payload.len() > PAYLOAD_BYTES_MAX && rows_max > rows_least {
                rows_max = (rows_max / 2).max(rows_least);
                continue;
            }
            return Ok(Some((payload, changes.until)));
        }
    }

    /// Seals and logs one changeset together with the cursor that says so.
    fn seal(&mut self, payload: &[u8], until: Hlc) -> Result<Vec<u8>, ReplicaError> {
        let sealing = Sealing {
            database: self.secret.id(),
            key: self.secret.current_key(),
            identity: &self.identity,
            position: self.log.next_position(&self.identity.public_key())?,
            kind: Kind::Data,
            nonce: random_bytes()?,
        };
        let envelope = seal(&sealing, payload).map_err(ReplicaError::Seal)?;
        let until = cursor(self.layer.site_id(&self.conn)?, until);
        let cursor = Cursor {
            name: SEALED,
            value: &until,
        };
        self.log
            .append_own(std::slice::from_ref(&envelope), &[cursor])?;
        Ok(envelope.into_bytes())
    }

    /// Returns up to where this file's own changes are sealed.
    fn sealed_until(&self) -> Result<Hlc, ReplicaError> {
        let (site, version) = self.sealed()?;
        // Of another file's changes nothing here is sealed.
        let is_own = site == self.layer.site_id(&self.conn)?;
        Ok(if is_own { version } else { Hlc::ZERO })
    }

    /// Returns which site's changes are sealed, and up to where.
    fn sealed(&self) -> Result<(SiteId, Hlc), ReplicaError> {
        let bytes = self.log.cursor(SEALED)?.ok_or(ReplicaError::Cursor)?;
        let (site, version) = bytes.split_first_chunk().ok_or(ReplicaError::Cursor)?;
        let version = version
            .try_into()
            .map(u64::from_be_bytes)
            .ok()
            .and_then(Hlc::from_bits);
        Ok((SiteId(*site), version.ok_or(ReplicaError::Cursor)?))
    }

    /// Verifies, logs and merges what a peer sent, and returns what became of each.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn receive(
        &mut self,
        envelopes: Vec<Vec<u8>>,
        now_unix_ms: u64,
    ) -> Result<Vec<Received>, ReplicaError> {
        let database = self.secret.id();
        let verified: Result<Vec<_>, _> = envelopes
            .into_iter()
            .map(|bytes| verify(bytes, &database))
            .collect();
        let verified = verified.map_err(ReplicaError::Refused)?;
        let received = self.log.append_received(&verified)?;
        self.apply(now_unix_ms)?;
        Ok(received)
    }

    /// Merges what is logged and not merged yet, as far as it goes.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn apply(&mut self, now_unix_ms: u64) -> Result<(), ReplicaError> {
        let mut has_merged = false;
        loop {
            let batch = self.log.unapplied(APPLY_BYTES)?;
            if batch.is_empty() {
                break;
            }
            for logged in batch {
                if !self.settle(&logged, now_unix_ms)? {
                    // What follows in its stream waits with it: ask for what else there is.
                    break;
                }
                has_merged = true;
            }
        }
        if has_merged {
            let merged = self.layer.version_vector(&self.conn)?.encode();
            // With thousands of sites the own version alone shows a database that was put back.
            if merged.len() <= CURSOR_BYTES_MAX {
                self.log.set_cursor(MERGED, &merged)?;
            }
        }
        Ok(())
    }

    /// Tries again what waited for something. Called at times, since a clock may be what it needs.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn retry(&mut self, now_unix_ms: u64) -> Result<bool, ReplicaError> {
        let status = self.log.status()?;
        if status.unapplied_count == 0 {
            return Ok(false);
        }
        if !status.blocked.is_empty() {
            self.log.unblock()?;
        }
        self.apply(now_unix_ms)?;
        Ok(true)
    }

    /// Merges one envelope and marks it; `false` if it has to wait.
    fn settle(&mut self, logged: &Logged, now_unix_ms: u64) -> Result<bool, ReplicaError> {
        let position = &logged.position;
        match self.merge(&logged.envelope, now_unix_ms) {
            Ok(()) => {
                self.log.mark_applied(position)?;
                // The merge folded what was pending here, and may have made others' rows ours.
                self.is_stale = true;
                Ok(true)
            }
            Err(Unmerged::Never(reason)) => {
                tracing::warn!(seq = position.seq.number(), %reason, "an envelope is refused");
                self.log.mark_refused(position, &reason)?;
                Ok(true)
            }
            Err(Unmerged::NotYet(reason)) => {
                tracing::info!(seq = position.seq.number(), %reason, "an envelope waits");
                self.log.mark_blocked(position, &reason)?;
                Ok(false)
            }
            Err(Unmerged::Failed(error)) => Err(error),
        }
    }

    fn merge(&self, envelope: &VerifiedEnvelope, now_unix_ms: u64) -> Result<(), Unmerged> {
        let header = envelope.header();
        let Some(key) = self.secret.key(&header.key_id) else {
            return Err(Unmerged::NotYet("its epoch's key is not here".into()));
        };
        let payload = envelope
            .open(key)
            .map_err(|error| Unmerged::Never(error.to_string()))?;
        let changes =
            Changeset::decode(&payload).map_err(|error| Unmerged::Never(error.to_string()))?;
        self.layer.import(&self.conn, &changes, now_unix_ms)
    }

    /// Returns the version vector of the log.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn heads(&self) -> Result<Heads, ReplicaError> {
        Ok(self.log.heads()?)
    }

    /// Returns envelopes of a stream for a peer.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn read(
        &self,
        stream: &StreamRef,
        after: Seq,
        bytes_max: usize,
    ) -> Result<Vec<Vec<u8>>, ReplicaError> {
        Ok(self.log.read(stream, after, bytes_max)?)
    }

    /// Returns the hash of the replicated state.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn digest(&self, now_unix_ms: u64) -> Result<Digest, ReplicaError> {
        self.layer.digest(&self.conn, now_unix_ms)
    }

    /// Returns all that is replicated here as one changeset's bytes, with its digest and the heads
    /// it covers.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn whole(&mut self, now_unix_ms: u64) -> Result<Whole, ReplicaError> {
        // Sealed first: then the heads cover every change of the snapshot.
        self.seal_own(now_unix_ms)?;
        let changes = self.layer.export_all(&self.conn, now_unix_ms)?.encode();
        let digest = self.digest(now_unix_ms)?;
        Ok(Whole {
            changes,
            digest,
            heads: self.log.settled_heads()?,
        })
    }

    /// Merges a snapshot's changes. Returns the tables and columns that the snapshot lacks, since its
    /// author had dropped them: they come with the logs of others.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn take_whole(
        &mut self,
        changes: &[u8],
        now_unix_ms: u64,
    ) -> Result<Vec<Part>, ReplicaError> {
        let changes = Changeset::decode(changes).map_err(sqlite::ImportError::from)?;
        match self.layer.import(&self.conn, &changes, now_unix_ms) {
            Ok(()) => Ok(changes.lacking.into_keys().collect()),
            Err(Unmerged::Failed(error)) => Err(error),
            Err(Unmerged::Never(reason) | Unmerged::NotYet(reason)) => {
                Err(ReplicaError::Whole { reason })
            }
        }
    }

    /// Returns the names of the tables that take part.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn tables(&self) -> Result<Vec<String>, ReplicaError> {
        self.layer.tables(&self.conn)
    }

    /// Returns how many writes of programs wait to be folded.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn pending_count(&self) -> Result<u64, ReplicaError> {
        self.layer.pending_count(&self.conn)
    }

    /// Returns what does not take part although it is of a tracked table.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub fn kept_back(&self) -> Result<KeptBack, ReplicaError> {
        self.layer.kept_back(&self.conn)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.layer.end(&self.conn);
    }
}

/// A replica's whole content.
pub struct Whole {
    /// A changeset, encoded.
    pub changes: Vec<u8>,
    /// The hash of the replicated state.
    pub digest: Digest,
    /// What of the log is in it.
    pub heads: Heads,
}

/// An encoded changeset, and how far it reaches.
type Payload = (Vec<u8>, VersionVector);

/// What the log remembers of own changes: whose, and up to where they are sealed.
fn cursor(site: SiteId, until: Hlc) -> Vec<u8> {
    [&site.0[..], &until.to_bits().to_be_bytes()].concat()
}

#[cfg(test)]
mod tests;
