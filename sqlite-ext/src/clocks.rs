//! The clocks: lanes of key ranges, each with the stamp of its last write.
//!
//! Ranges of one lane never overlap. A packed key is a range of one. Neighbouring integer keys with
//! the same stamp share an entry.

mod sorted;

use rusqlite::{Connection, OptionalExtension, Row, params};
use syncline_crdt::Hlc;

use crate::shadow::{version_from, version_to};
use crate::table::RowKey;
pub(crate) use sorted::{add, at_all, join, runs, set_all};

/// The lane of causal lengths. A row without an entry is in its first life.
pub(crate) const LIFE: i64 = -2;
/// The lane of the row as a whole: every row that lives has exactly one entry, and it holds for
/// every column that has none in its own lane.
pub(crate) const ROW: i64 = -1;

// The `+` before a parameter keeps SQLite from planning by its value. Without it, binding another
// table or lane compiles the statement anew, which costs ten times as much as running it.

/// Where an entry belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane {
    pub(crate) table_id: i64,
    pub(crate) lane: i64,
}

/// What a range of rows shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// The site's ordinal.
    pub(crate) site: i64,
    /// [`Hlc::ZERO`] for a cell that was never written: any write wins over it.
    pub(crate) version: Hlc,
    /// Above zero in the lane [`LIFE`] only.
    pub(crate) causal_length: u64,
}

impl Clock {
    /// The clock of a cell that nobody wrote.
    pub(crate) const UNWRITTEN: Clock = Clock {
        site: 0,
        version: Hlc::ZERO,
        causal_length: 0,
    };
}

/// Rows with neighbouring keys that share a clock.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) first: RowKey,
    pub(crate) last: RowKey,
    pub(crate) clock: Clock,
}

impl Range {
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Range {
            first: row.get("key")?,
            last: row.get("key_end")?,
            clock: Clock {
                site: row.get("site")?,
                version: version_from(row.get("version")?)?,
                causal_length: row.get::<_, i64>("causal_length")?.cast_unsigned(),
            },
        })
    }
}

/// Returns the clock of one row in a lane.
pub(crate) fn at(conn: &Connection, lane: Lane, key: &RowKey) -> rusqlite::Result<Option<Clock>> {
    Ok(range_at(conn, lane, key)?.map(|range| range.clock))
}

/// Returns the range of a lane that one row is in.
pub(crate) fn range_at(
    conn: &Connection,
    lane: Lane,
    key: &RowKey,
) -> rusqlite::Result<Option<Range>> {
    let found = last_from(conn, lane, key)?;
    Ok(found.filter(|range| range.last >= *key))
}

/// Returns where the next range of a lane begins after a key.
pub(crate) fn next_key(
    conn: &Connection,
    lane: Lane,
    key: &RowKey,
) -> rusqlite::Result<Option<RowKey>> {
    let next = "SELECT key FROM syncline_clocks
        WHERE table_id = +?1 AND lane = +?2 AND key > ?3 ORDER BY key LIMIT 1";
    conn.prepare_cached(next)?
        .query_one(params![lane.table_id, lane.lane, key], |row| row.get(0))
        .optional()
}

/// Returns the last range that begins at or before a key.
fn last_from(conn: &Connection, lane: Lane, key: &RowKey) -> rusqlite::Result<Option<Range>> {
    // Integers sort before blobs, so a packed key must not find a rowid before it.
    let find = match key {
        RowKey::Rowid(_) => {
            "SELECT key, key_end, site, version, causal_length FROM syncline_clocks
             WHERE table_id = +?1 AND lane = +?2 AND key <= ?3 ORDER BY key DESC LIMIT 1"
        }
        RowKey::Packed(_) => {
            "SELECT key, key_end, site, version, causal_length FROM syncline_clocks
             WHERE table_id = +?1 AND lane = +?2 AND key = ?3"
        }
    };
    let mut statement = conn.prepare_cached(find)?;
    statement
        .query_one(params![lane.table_id, lane.lane, key], Range::read)
        .optional()
}

/// Returns the ranges of a lane that touch the keys from `first` to `last`, cut to fit, in order.
pub(crate) fn ranges(
    conn: &Connection,
    lane: Lane,
    first: &RowKey,
    last: &RowKey,
) -> rusqlite::Result<Vec<Range>> {
    let within = "SELECT key, key_end, site, version, causal_length FROM syncline_clocks
        WHERE table_id = +?1 AND lane = +?2 AND key > ?3 AND key <= ?4 ORDER BY key";
    let mut found = Vec::new();
    if let Some(range) = last_from(conn, lane, first)?.filter(|range| range.last >= *first) {
        found.push(Range {
            first: first.clone(),
            ..range
        });
    }
    let mut statement = conn.prepare_cached(within)?;
    let rows = statement.query_map(params![lane.table_id, lane.lane, first, last], Range::read)?;
    for range in rows {
        found.push(range?);
    }
    if let Some(range) = found.last_mut().filter(|range| range.last > *last) {
        range.last = last.clone();
    }
    Ok(found)
}

/// Returns all ranges of a lane, in order.
pub(crate) fn all(conn: &Connection, lane: Lane) -> rusqlite::Result<Vec<Range>> {
    let all = "SELECT key, key_end, site, version, causal_length FROM syncline_clocks
        WHERE table_id = +?1 AND lane = +?2 ORDER BY key";
    let mut statement = conn.prepare_cached(all)?;
    statement
        .query_map(params![lane.table_id, lane.lane], Range::read)?
        .collect()
}

/// Returns the greatest key in a lane.
pub(crate) fn greatest(conn: &Connection, lane: Lane) -> rusqlite::Result<Option<RowKey>> {
    let last = "SELECT key_end FROM syncline_clocks
        WHERE table_id = +?1 AND lane = +?2 ORDER BY key DESC LIMIT 1";
    conn.prepare_cached(last)?
        .query_one([lane.table_id, lane.lane], |row| row.get(0))
        .optional()
}

/// Whether a lane has any entry.
pub(crate) fn is_used(conn: &Connection, lane: Lane) -> rusqlite::Result<bool> {
    let any = "SELECT 1 FROM syncline_clocks WHERE table_id = +?1 AND lane = +?2 LIMIT 1";
    conn.prepare_cached(any)?
        .exists(params![lane.table_id, lane.lane])
}

/// Gives the rows from `first` to `last` a clock, whatever they had.
pub(crate) fn set(
    conn: &Connection,
    lane: Lane,
    first: &RowKey,
    last: &RowKey,
    clock: Clock,
) -> rusqlite::Result<()> {
    clear(conn, lane, first, last)?;
    let params = |key: RowKey| (lane.table_id, lane.lane, key);
    if let RowKey::Rowid(first) = first
        && let Some(before) = first.checked_sub(1).map(RowKey::Rowid)
        && let Some(left) = last_from(conn, lane, &before)?
        && left.last == before
        && left.clock == clock
    {
        let extend = "UPDATE syncline_clocks SET key_end = ?4
            WHERE table_id = +?1 AND lane = +?2 AND key = ?3";
        let (table_id, lane, key) = params(left.first);
        conn.prepare_cached(extend)?
            .execute(params![table_id, lane, key, last])?;
        return Ok(());
    }
    insert(
        conn,
        lane,
        &Range {
            first: first.clone(),
            last: last.clone(),
            clock,
        },
    )
}

/// Takes their clock from the rows from `first` to `last`.
pub(crate) fn clear(
    conn: &Connection,
    lane: Lane,
    first: &RowKey,
    last: &RowKey,
) -> rusqlite::Result<()> {
    let (RowKey::Rowid(first_key), RowKey::Rowid(last_key)) = (first, last) else {
        let delete = "DELETE FROM syncline_clocks WHERE table_id = +?1 AND lane = +?2 AND key = ?3";
        conn.prepare_cached(delete)?
            .execute(params![lane.table_id, lane.lane, first])?;
        return Ok(());
    };
    let Some(rightmost) = last_from(conn, lane, last)? else {
        return Ok(());
    };
    if rightmost.last < *first {
        return Ok(());
    }
    let leftmost = last_from(conn, lane, first)?.filter(|range| range.last >= *first);
    let delete = "DELETE FROM syncline_clocks
        WHERE table_id = +?1 AND lane = +?2 AND key BETWEEN ?3 AND ?4";
    conn.prepare_cached(delete)?
        .execute(params![lane.table_id, lane.lane, first, last])?;
    if let Some(left) = leftmost.filter(|range| range.first < *first) {
        let cut = "UPDATE syncline_clocks SET key_end = ?4
            WHERE table_id = +?1 AND lane = +?2 AND key = ?3";
        let end = first_key - 1;
        conn.prepare_cached(cut)?
            .execute(params![lane.table_id, lane.lane, left.first, end])?;
    }
    if rightmost.last > *last {
        insert(
            conn,
            lane,
            &Range {
                first: RowKey::Rowid(last_key + 1),
                ..rightmost
            },
        )?;
    }
    Ok(())
}

const INSERT: &str = "INSERT INTO syncline_clocks
    (table_id, lane, key, key_end, site, version, causal_length)
    VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)";

fn insert(conn: &Connection, lane: Lane, range: &Range) -> rusqlite::Result<()> {
    conn.prepare_cached(INSERT)?.execute(params![
        lane.table_id,
        lane.lane,
        range.first,
        range.last,
        range.clock.site,
        version_to(range.clock.version),
        range.clock.causal_length.cast_signed(),
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const LANE: Lane = Lane {
        table_id: 1,
        lane: ROW,
    };

    fn clock(version: u64) -> Clock {
        let version = Hlc::from_bits(version).expect("small");
        Clock {
            site: 0,
            version,
            causal_length: 0,
        }
    }

    proptest! {
        /// Ranges behave as one clock for each key would.
        #[test]
        fn ranges_are_a_map_from_keys_to_clocks(
            steps in prop::collection::vec((0i64..20, 0i64..8, prop::option::of(1u64..4)), 1..20),
        ) {
            let conn = Connection::open_in_memory().expect("SQLite opens in memory");
            crate::prepare(&conn).expect("a new database is prepared");
            let mut model: BTreeMap<i64, Clock> = BTreeMap::new();
            for (first, length, version) in steps {
                let keys = first..=first + length;
                let (from, to) = (RowKey::Rowid(first), RowKey::Rowid(first + length));
                match version {
                    Some(version) => {
                        set(&conn, LANE, &from, &to, clock(version)).expect("set");
                        model.extend(keys.map(|key| (key, clock(version))));
                    }
                    None => {
                        clear(&conn, LANE, &from, &to).expect("clear");
                        model.retain(|key, _| !keys.contains(key));
                    }
                }
                for key in -1..30 {
                    let found = at(&conn, LANE, &RowKey::Rowid(key)).expect("at");
                    prop_assert_eq!(found, model.get(&key).copied(), "key {}", key);
                }
                let listed = ranges(&conn, LANE, &from, &to).expect("ranges");
                let listed = listed.into_iter().flat_map(|range| {
                    let (RowKey::Rowid(a), RowKey::Rowid(b)) = (range.first, range.last) else {
                        panic!("integer keys give integer ranges");
                    };
                    (a..=b).map(move |key| (key, range.clock))
                });
                let expected = model.range(first..=first + length).map(|(key, clock)| (*key, *clock));
                prop_assert!(listed.eq(expected));
            }
        }
    }

    #[test]
    fn neighbours_with_one_stamp_share_an_entry_and_packed_keys_do_not() {
        let conn = Connection::open_in_memory().expect("SQLite opens in memory");
        crate::prepare(&conn).expect("a new database is prepared");
        for key in 1..=100 {
            let key = RowKey::Rowid(key);
            set(&conn, LANE, &key, &key, clock(1)).expect("set");
        }
        for key in [b"a", b"b"] {
            let key = RowKey::Packed(key.to_vec());
            set(&conn, LANE, &key, &key, clock(1)).expect("set");
        }
        let count = "SELECT count(*) FROM syncline_clocks";
        let count: i64 = conn.query_row(count, [], |row| row.get(0)).expect("count");
        assert_eq!(count, 3);
        let missing = RowKey::Packed(b"c".to_vec());
        assert_eq!(at(&conn, LANE, &missing).expect("at"), None);
        for edge in [i64::MIN, i64::MAX] {
            let key = RowKey::Rowid(edge);
            set(&conn, LANE, &key, &key, clock(2)).expect("set");
            assert_eq!(at(&conn, LANE, &key).expect("at"), Some(clock(2)));
            clear(&conn, LANE, &key, &key).expect("clear");
        }
    }
}
