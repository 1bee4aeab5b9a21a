//! The clocks of many rows at once, in order.

use rusqlite::{Connection, params};

use super::{Clock, INSERT, Lane, Range, is_used, last_from, set};
use crate::shadow::version_to;
use crate::table::RowKey;

/// How many ranges are passed over before the next one that matters is looked up by its key.
const PASSED_COUNT_MAX: usize = 16;

/// Returns the clocks of rows in a lane; `keys` ascend.
pub(crate) fn at_all(
    conn: &Connection,
    lane: Lane,
    keys: &[RowKey],
) -> rusqlite::Result<Vec<Option<Clock>>> {
    let from = "SELECT key, key_end, site, version, causal_length FROM syncline_clocks
        WHERE table_id = +?1 AND lane = +?2 AND key >= ?3 ORDER BY key";
    let mut statement = conn.prepare_cached(from)?;
    let mut found = Vec::with_capacity(keys.len());
    while let Some(key) = keys.get(found.len()) {
        let before = last_from(conn, lane, key)?;
        let start = before.as_ref().map_or(key, |range| &range.first);
        let mut rows = statement.query(params![lane.table_id, lane.lane, start])?;
        let mut passed_count = 0;
        while passed_count <= PASSED_COUNT_MAX && found.len() < keys.len() {
            let Some(row) = rows.next()? else {
                found.resize(keys.len(), None);
                break;
            };
            let range = Range::read(row)?;
            let met = found.len();
            while keys.get(found.len()).is_some_and(|key| *key < range.first) {
                found.push(None);
            }
            while keys.get(found.len()).is_some_and(|key| *key <= range.last) {
                found.push(Some(range.clock));
            }
            passed_count = if found.len() > met {
                0
            } else {
                passed_count + 1
            };
        }
    }
    Ok(found)
}

/// Gives a clock to runs of rows, whatever they had; the runs ascend.
pub(crate) fn set_all(
    conn: &Connection,
    lane: Lane,
    runs: &[(&RowKey, &RowKey)],
    clock: Clock,
) -> rusqlite::Result<()> {
    if !is_used(conn, lane)? {
        return add(conn, lane, runs, clock);
    }
    for (first, last) in runs {
        set(conn, lane, first, last, clock)?;
    }
    Ok(())
}

/// Gives a clock to runs of rows that have none in a lane; the runs ascend.
pub(crate) fn add(
    conn: &Connection,
    lane: Lane,
    runs: &[(&RowKey, &RowKey)],
    clock: Clock,
) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached(INSERT)?;
    let (version, length) = (version_to(clock.version), clock.causal_length.cast_signed());
    for (first, last) in runs {
        let (table_id, lane) = (lane.table_id, lane.lane);
        statement.execute(params![
            table_id, lane, first, last, clock.site, version, length
        ])?;
    }
    Ok(())
}

/// Puts a run behind others, or into the last of them where it follows that.
pub(crate) fn join(runs: &mut Vec<(RowKey, RowKey)>, first: &RowKey, last: &RowKey) {
    if let Some((_, end)) = runs.last_mut()
        && follows(end, first)
    {
        *end = last.clone();
        return;
    }
    runs.push((first.clone(), last.clone()));
}

/// Returns the first and last of keys that follow each other; `keys` ascend.
pub(crate) fn runs(keys: &[RowKey]) -> Vec<(&RowKey, &RowKey)> {
    let chunks = keys.chunk_by(follows);
    chunks.map(|run| (&run[0], &run[run.len() - 1])).collect()
}

fn follows(a: &RowKey, b: &RowKey) -> bool {
    match (a, b) {
        (RowKey::Rowid(a), RowKey::Rowid(b)) => a.checked_add(1) == Some(*b),
        _ => false,
    }
}
