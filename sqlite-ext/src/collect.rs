//! Forgets which rows were deleted, once nothing can bring them back.
//!
//! A deleted row leaves its causal length, so that writes which did not know of the deletion lose
//! against it. When all replicas have seen the deletion, only writes from before that can still be
//! on their way, and this replica has merged all of those too: it refuses them by their stamp and
//! needs no note of the row.
//!
//! **Invariant:** a change of a row that is unknown here, by a stamp that is settled here, belongs
//! to a row that was deleted and forgotten.
//!
//! A key that is used again begins at its first life where its death is forgotten, and would lose
//! against the death where it is not. So what was forgotten travels with every changeset, and who
//! merges one forgets as much before. A replica that lacks some of the forgotten deletions merges
//! nothing but a whole export: what that does not name is gone.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use syncline_crdt::{CausalLength, Changeset, Group, SiteId, Stamp, VersionVector};

use crate::apply::ImportError;
use crate::births::LIVES;
use crate::clocks::LIFE;
use crate::fold::{FoldError, fold};
use crate::shadow::{
    OpenError, Sites, in_savepoint, is_prepared, version_from, version_to, version_vector,
};
use crate::table::{RowKey, Table};
use crate::{joined, parked};

/// Why nothing was collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The database is not ours.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Pending writes could not be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A replica knows more than this one, and something of it could bring a row back.
    #[error("a replica has seen changes of site {site} that are missing here: import them first")]
    Unseen {
        /// Whose changes.
        site: SiteId,
    },
}

/// Forgets the deletions that all replicas have seen, and returns how many entries went. Folds
/// first, and saves texts and documents in few bytes. No row that can be seen changes, and neither
/// does the digest.
///
/// `members` is what each of the other replicas said it had seen, as in the `until` of its last
/// export. A replica that is left out, or away for longer, merges a whole export when it comes
/// back: it loses nothing it wrote to rows that are there, and brings back none that are not. Where
/// changes are kept in a log, what the log has not got yet must not be covered by all of `members`.
///
/// # Errors
///
/// [`CollectError::Unseen`] if a member has seen something that this replica has not; nothing is
/// forgotten then.
pub fn collect(
    conn: &Connection,
    members: &[VersionVector],
    now_unix_ms: u64,
) -> Result<usize, CollectError> {
    if !is_prepared(conn)? {
        return Ok(0);
    }
    in_savepoint(conn, || {
        fold(conn, now_unix_ms)?;
        let seen = version_vector(conn)?;
        let mut known = members.iter().flat_map(VersionVector::iter);
        if let Some((site, _)) = known.find(|(site, version)| seen.version(*site) < *version) {
            return Err(CollectError::Unseen { site });
        }
        let below = members
            .iter()
            .fold(seen.clone(), |below, member| below.meet(member));
        let sites = Sites::load(conn)?;
        for table in Table::all(conn).map_err(FoldError::from)? {
            joined::compact(conn, &sites, &table, &below)?;
        }
        let (count, collected) = forget(conn, &below, &seen)?;
        if count > 0 {
            parked::drop_gone(conn).map_err(FoldError::from)?;
            note(conn, &collected, &seen)?;
        }
        Ok(count)
    })
}

/// Removes the deletions up to `below`, and returns how many there were and the latest of each
/// site. `settled` covers all that could name their rows.
fn forget(
    conn: &Connection,
    below: &VersionVector,
    settled: &VersionVector,
) -> rusqlite::Result<(usize, VersionVector)> {
    let dead = "FROM syncline_clocks WHERE site = ?1 AND version <= ?2
        AND (lane = ?3 OR lane <= ?4) AND causal_length % 2 = 0";
    let latest = format!("SELECT ifnull(max(version), 0) {dead}");
    let delete = format!("DELETE {dead}");
    let sites = Sites::load(conn)?;
    parked::drop_ended(conn, &sites, below)?;
    let mut count = 0;
    let mut collected = VersionVector::new();
    for (ordinal, site, _) in sites.iter() {
        let bounds = (ordinal, version_to(below.version(site)), LIFE, LIVES);
        let version = conn
            .prepare_cached(&latest)?
            .query_one(bounds, |row| version_from(row.get(0)?))?;
        collected.advance(site, version);
        count += conn.prepare_cached(&delete)?.execute(bounds)?;
    }
    count += parked::forget(conn, below, settled, &mut collected)?;
    Ok((count, collected))
}

/// Notes what was forgotten, and what had been seen then: after all that has been merged.
pub(crate) fn note(
    conn: &Connection,
    collected: &VersionVector,
    settled: &VersionVector,
) -> rusqlite::Result<()> {
    let set = "UPDATE syncline_sites
        SET collected = max(collected, ?2), settled = max(settled, ?3) WHERE ordinal = ?1";
    let mut sites = Sites::load(conn)?;
    // Whoever deleted something was seen, so `settled` names all sites that `collected` names.
    for (site, version) in settled.iter() {
        let ordinal = sites.ordinal(conn, site)?;
        let collected = version_to(collected.version(site));
        conn.prepare_cached(set)?
            .execute(params![ordinal, collected, version_to(version)])?;
    }
    Ok(())
}

/// Returns up to where deletions are forgotten here, and what had been seen when they were.
pub(crate) fn vectors(conn: &Connection) -> rusqlite::Result<(VersionVector, VersionVector)> {
    let all = "SELECT site_id, collected, settled FROM syncline_sites WHERE settled > 0";
    let mut statement = conn.prepare_cached(all)?;
    let mut rows = statement.query([])?;
    let (mut collected, mut settled) = (VersionVector::new(), VersionVector::new());
    while let Some(row) = rows.next()? {
        let site = SiteId(row.get(0)?);
        collected.advance(site, version_from(row.get(1)?)?);
        settled.advance(site, version_from(row.get(2)?)?);
    }
    Ok((collected, settled))
}

/// How this replica stands to what the sender of a changeset has forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has forgotten the same before.
    Level,
    /// It had seen all of it, and forgot it just now.
    Followed,
    /// It has not: rows that are gone may be here, and the changeset names all that are not gone.
    Behind,
}

/// Forgets what the sender of a changeset has forgotten, before anything of it is merged.
pub(crate) fn follow(conn: &Connection, changeset: &Changeset) -> Result<Standing, ImportError> {
    let (collected, _) = vectors(conn)?;
    if collected.covers(&changeset.collected) {
        return Ok(Standing::Level);
    }
    let seen = version_vector(conn)?;
    let settled = &changeset.settled;
    let reached = |site| seen.version(site).max(changeset.until.version(site));
    let mut settled_at = settled.iter();
    if let Some((site, _)) = settled_at.find(|(site, version)| reached(*site) < *version) {
        return Err(ImportError::Gap { site });
    }
    if seen.covers(&changeset.collected) {
        forget(conn, &changeset.collected, settled)?;
        parked::drop_gone(conn)?;
        return Ok(Standing::Followed);
    }
    if !changeset.since.is_empty() {
        return Err(ImportError::Collected);
    }
    Ok(Standing::Behind)
}

/// What a merge knows of rows that are not here.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Changes up to here of rows that are not here belong to rows that are forgotten.
    pub(crate) settled: VersionVector,
    /// Whether the changes waited here: that they were seen does not say that they were merged.
    pub(crate) waited: bool,
    /// Whether they are among what was parked, where nothing is twice.
    pub(crate) was_parked: bool,
    /// Tables, by all their names in lower case, that were lacking and are given whole.
    pub(crate) filled: BTreeSet<String>,
    /// Set where this replica is behind.
    pub(crate) rejoin: Option<Rejoin>,
}

/// A merge of all that another replica has into one that is behind it.
#[derive(Debug)]
pub(crate) struct Rejoin {
    /// What the other replica had seen.
    pub(crate) until: VersionVector,
    /// For each table, the rows that it named, as the lane of causal lengths names them.
    pub(crate) met: BTreeMap<i64, BTreeSet<RowKey>>,
}

impl Past {
    /// Returns what this replica knows.
    pub(crate) fn of(conn: &Connection) -> rusqlite::Result<Self> {
        let (_, settled) = vectors(conn)?;
        Ok(Past {
            settled,
            ..Past::default()
        })
    }

    /// Returns the same for changes that waited here.
    pub(crate) fn of_waiting(conn: &Connection) -> rusqlite::Result<Self> {
        Ok(Past {
            waited: true,
            ..Past::of(conn)?
        })
    }

    /// Whether changes are of a life that was forgotten, of a row that has lived `local` lives as
    /// far as is known here. What is settled was merged before; where it names more lives than are
    /// known, these were forgotten, and a row that is here began anew.
    pub(crate) fn is_over(&self, group: &Group, local: CausalLength) -> bool {
        let is_unknown = local == CausalLength::UNKNOWN;
        self.has(group.stamp) && group.causal_length > local && (is_unknown || !self.waited)
    }

    /// Whether a stamp is settled.
    pub(crate) fn has(&self, stamp: Stamp) -> bool {
        self.settled.version(stamp.site) >= stamp.version
    }
}
