//! Where the histories of texts and documents lie: what automerge saved as a whole, and beside it
//! each edit that was added since, so that a key that a user presses costs its own size.
//!
//! The edits lie under the version and the site that they were added under, so what another replica
//! lacks is found without the rest. The saved whole lies among them under the version 0, which no
//! edit has.

use rusqlite::{Connection, OptionalExtension, params};
use syncline_crdt::{Aside, History, Hlc, Policy, VersionVector};

use super::{CellPlace, cache, unreadable};
use crate::shadow::{Sites, version_from, version_to};
use crate::table::{JoinedColumn, RowKey, Table};

/// The tables that hold histories.
pub(super) const TABLES: &str = "
    CREATE TABLE syncline_histories(
        table_id INTEGER NOT NULL,
        lane INTEGER NOT NULL,
        key NOT NULL,
        token BLOB NOT NULL,
        fingerprint BLOB NOT NULL,
        saved_bytes INTEGER NOT NULL,
        added_bytes INTEGER NOT NULL,
        PRIMARY KEY(table_id, lane, key)
    ) WITHOUT ROWID;
    CREATE TABLE syncline_edits(
        table_id INTEGER NOT NULL,
        lane INTEGER NOT NULL,
        key NOT NULL,
        version INTEGER NOT NULL,
        site INTEGER NOT NULL,
        edits BLOB NOT NULL,
        PRIMARY KEY(table_id, lane, key, version, site)
    ) WITHOUT ROWID;
";

/// How many bytes of edits are added to a history before it is saved anew, beside a share of what
/// is saved. Saving costs time in proportion to the whole, and adding in proportion to these.
const ADDED_BYTES_MAX: i64 = 16 << 10;
const ADDED_SHARE: i64 = 4;

/// From how many bytes of edits that all replicas have on it pays to save a history anew.
const COMPACTED_BYTES_MIN: i64 = 1 << 10;

/// The version and the site under which the saved whole lies.
const SAVED: (i64, i64) = (0, 0);

/// Reads a history, or takes the one that lies in memory.
pub(super) fn read(
    conn: &Connection,
    at: CellPlace<'_>,
    policy: Policy,
) -> rusqlite::Result<History> {
    let find = "SELECT token FROM syncline_histories
        WHERE table_id = +?1 AND lane = +?2 AND key = ?3";
    let mut statement = conn.prepare_cached(find)?;
    let token = statement.query_one(params![at.table_id, at.lane, at.key], |row| row.get(0));
    let Some(token) = token.optional()? else {
        return Ok(History::new(policy));
    };
    if let Some(history) = cache::take(policy, token) {
        return Ok(history);
    }
    let all = "SELECT version, edits FROM syncline_edits
        WHERE table_id = +?1 AND lane = +?2 AND key = ?3 ORDER BY version, site";
    let mut statement = conn.prepare_cached(all)?;
    let mut rows = statement.query(params![at.table_id, at.lane, at.key])?;
    let (mut saved, mut added) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let part = match row.get::<_, i64>(0)? == SAVED.0 {
            true => &mut saved,
            false => &mut added,
        };
        part.extend_from_slice(row.get_ref(1)?.as_blob().map_err(unreadable)?);
    }
    History::load(policy, token, &saved, &added).map_err(unreadable)
}

/// Stores what the site with this ordinal added to a history.
pub(super) fn add(
    conn: &Connection,
    at: CellPlace<'_>,
    history: History,
    (site, version): (i64, Hlc),
    delta: &[u8],
) -> rusqlite::Result<()> {
    append(conn, at, (version_to(version), site), delta)?;
    let advance = "INSERT INTO syncline_histories VALUES(?1, ?2, ?3, ?4, ?5, 0, ?6)
        ON CONFLICT DO UPDATE SET token = excluded.token, fingerprint = excluded.fingerprint,
            added_bytes = added_bytes + excluded.added_bytes
        RETURNING saved_bytes, added_bytes";
    let (saved_bytes, added_bytes): (i64, i64) = conn.prepare_cached(advance)?.query_one(
        params![
            at.table_id,
            at.lane,
            at.key,
            history.token(),
            history.fingerprint(),
            delta.len() as i64
        ],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if added_bytes > ADDED_BYTES_MAX + saved_bytes / ADDED_SHARE {
        save(conn, at, &history, |_| Hlc::MAX)?;
    }
    cache::put(history);
    Ok(())
}

/// Adds edits under a version and a site, where there may be others already.
fn append(
    conn: &Connection,
    at: CellPlace<'_>,
    (version, site): (i64, i64),
    delta: &[u8],
) -> rusqlite::Result<()> {
    let insert = "INSERT INTO syncline_edits VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
    let edits = params![at.table_id, at.lane, at.key, version, site, delta];
    if conn.prepare_cached(insert)?.execute(edits)? > 0 {
        return Ok(());
    }
    let place = "WHERE table_id = +?1 AND lane = +?2 AND key = ?3 AND version = ?4 AND site = ?5";
    let mut find = conn.prepare_cached(&format!("SELECT edits FROM syncline_edits {place}"))?;
    let place_of = params![at.table_id, at.lane, at.key, version, site];
    let mut edits: Vec<u8> = find.query_one(place_of, |row| row.get(0))?;
    edits.extend_from_slice(delta);
    let put = format!("UPDATE syncline_edits SET edits = ?6 {place}");
    let edits = params![at.table_id, at.lane, at.key, version, site, edits];
    conn.prepare_cached(&put)?.execute(edits)?;
    Ok(())
}

/// Returns what a site added to a history after one version and up to another, if none of it is in
/// the saved whole only.
pub(super) fn added(
    conn: &Connection,
    at: CellPlace<'_>,
    site: i64,
    after: Hlc,
) -> rusqlite::Result<Vec<u8>> {
    let find = "SELECT edits FROM syncline_edits
        WHERE table_id = +?1 AND lane = +?2 AND key = ?3 AND version > ?4 AND site = ?5
        ORDER BY version";
    let mut statement = conn.prepare_cached(find)?;
    let place = params![at.table_id, at.lane, at.key, version_to(after), site];
    let mut rows = statement.query(place)?;
    let mut edits = Vec::new();
    while let Some(row) = rows.next()? {
        edits.extend_from_slice(row.get_ref(0)?.as_blob().map_err(unreadable)?);
    }
    Ok(edits)
}

/// Saves a history as a whole. The edits of each site up to `until` need not lie beside it then,
/// unless they do not count.
fn save(
    conn: &Connection,
    at: CellPlace<'_>,
    history: &History,
    until: impl Fn(i64) -> Hlc,
) -> rusqlite::Result<()> {
    let saved = history.save();
    let place = "WHERE table_id = +?1 AND lane = +?2 AND key = ?3";
    let cell = params![at.table_id, at.lane, at.key];
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    {
        let all =
            format!("SELECT version, site, edits FROM syncline_edits {place} AND version > 0");
        let mut statement = conn.prepare_cached(&all)?;
        let mut rows = statement.query(cell)?;
        while let Some(row) = rows.next()? {
            let (version, site): (i64, i64) = (row.get(0)?, row.get(1)?);
            let edits = row.get_ref(2)?.as_blob().map_err(unreadable)?;
            let is_saved = version_from(version)? <= until(site)
                && (history.is_whole() || history.has_applied(edits).map_err(unreadable)?);
            match is_saved {
                true => gone.push((version, site)),
                false => kept.extend_from_slice(edits),
            }
        }
    }
    let delete = format!("DELETE FROM syncline_edits {place} AND version = ?4 AND site = ?5");
    let mut delete = conn.prepare_cached(&delete)?;
    for (version, site) in gone {
        delete.execute(params![at.table_id, at.lane, at.key, version, site])?;
    }
    if !history.is_whole() {
        let lost = history.aside(&kept).map_err(unreadable)?;
        kept.extend(keep_aside(conn, at, lost)?);
    }
    let put = "INSERT OR REPLACE INTO syncline_edits VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
    let whole = params![at.table_id, at.lane, at.key, SAVED.0, SAVED.1, saved];
    conn.prepare_cached(put)?.execute(whole)?;
    let sizes = format!("UPDATE syncline_histories SET saved_bytes = ?4, added_bytes = ?5 {place}");
    let (saved_bytes, kept_bytes) = (saved.len() as i64, kept.len() as i64);
    let bytes = params![at.table_id, at.lane, at.key, saved_bytes, kept_bytes];
    conn.prepare_cached(&sizes)?.execute(bytes)?;
    mark(conn, at, until)
}

/// Keeps edits that counted when the history was saved before, and do not any more.
fn keep_aside(conn: &Connection, at: CellPlace<'_>, lost: Vec<Aside>) -> rusqlite::Result<Vec<u8>> {
    let ordinal = "SELECT ordinal FROM syncline_sites WHERE site_id = ?1";
    let mut ordinal = conn.prepare_cached(ordinal)?;
    let mut kept = Vec::new();
    for aside in lost {
        let site = ordinal.query_one([aside.stamp.site.0], |row| row.get(0))?;
        let version = version_to(aside.stamp.version);
        append(conn, at, (version, site), &aside.edits)?;
        kept.extend_from_slice(&aside.edits);
    }
    Ok(kept)
}

/// Notes up to which version the edits of each site lie in the saved whole only.
fn mark(conn: &Connection, at: CellPlace<'_>, until: impl Fn(i64) -> Hlc) -> rusqlite::Result<()> {
    let place = "WHERE table_id = +?1 AND lane = +?2 AND key = ?3";
    let mut all = conn.prepare_cached(&format!("SELECT site FROM syncline_deltas {place}"))?;
    let sites = all.query_map(params![at.table_id, at.lane, at.key], |row| row.get(0))?;
    let sites: Vec<i64> = sites.collect::<rusqlite::Result<_>>()?;
    let mark = format!(
        "UPDATE syncline_deltas SET delta = max(delta, min(version, ?5)) {place} AND site = ?4"
    );
    let mut mark = conn.prepare_cached(&mark)?;
    for site in sites {
        let until = version_to(until(site));
        mark.execute(params![at.table_id, at.lane, at.key, site, until])?;
    }
    Ok(())
}

/// Saves the histories of a table as wholes where that makes them smaller. What a replica may lack
/// that has seen `below` stays beside them, so it is found as before.
pub(crate) fn compact(
    conn: &Connection,
    sites: &Sites,
    table: &Table,
    below: &VersionVector,
) -> rusqlite::Result<()> {
    let keeps_history = |column: &&JoinedColumn| column.policy.keeps_history();
    let until = |site| below.version(sites.site(site));
    for column in table.joined.iter().filter(keeps_history) {
        for key in compactable(conn, (table.id, column.column.lane), until)? {
            let at = CellPlace::new(table, column, &key);
            let history = read(conn, at, column.policy)?;
            save(conn, at, &history, until)?;
            cache::put(history);
        }
    }
    Ok(())
}

/// Returns the cells of a lane with enough edits up to `until` that are not only in the whole.
fn compactable(
    conn: &Connection,
    (table_id, lane): (i64, i64),
    until: impl Fn(i64) -> Hlc,
) -> rusqlite::Result<Vec<RowKey>> {
    let large = "SELECT key FROM syncline_histories
        WHERE table_id = ?1 AND lane = ?2 AND added_bytes >= ?3";
    let mut large = conn.prepare_cached(large)?;
    let edits = "SELECT version, site, length(edits) FROM syncline_edits
        WHERE table_id = +?1 AND lane = +?2 AND key = ?3 AND version > 0";
    let mut edits = conn.prepare_cached(edits)?;
    let mut keys = Vec::new();
    let mut found = large.query(params![table_id, lane, COMPACTED_BYTES_MIN])?;
    while let Some(row) = found.next()? {
        let key: RowKey = row.get(0)?;
        let mut bytes = 0;
        let mut rows = edits.query(params![table_id, lane, key])?;
        while let Some(row) = rows.next()? {
            if version_from(row.get(0)?)? <= until(row.get(1)?) {
                bytes += row.get::<_, i64>(2)?;
            }
        }
        if bytes >= COMPACTED_BYTES_MIN {
            keys.push(key);
        }
    }
    Ok(keys)
}
