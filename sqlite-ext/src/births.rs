//! Who created a row, in a table whose ids every replica counts for itself: the lanes that tell.
//!
//! A row is known by a number and the site that created it, its *identity*. Most rows were created
//! by the site that wrote them as a whole, which the lane [`ROW`] names anyway; only where the two
//! differ the lane [`BORN`] has an entry. What died is kept in one lane for each site, by number,
//! so that runs of deleted rows share an entry and rows of two sites die apart.

use rusqlite::Connection;
use syncline_crdt::Hlc;

use crate::clocks::{self, Clock, LIFE, Lane, ROW, Range};
use crate::table::{RowKey, Table};

/// The lane of creating sites, where the row's own clock names another site. Its entries have no
/// version, so neighbours share one whenever they were written.
pub(crate) const BORN: i64 = -3;

/// The lane of the causal lengths of the rows that the site with ordinal 0 created; those of the
/// others follow below it.
pub(crate) const LIVES: i64 = -16;

/// A run of rows with the ordinal of the site that created them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Births {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) site: i64,
}

/// Returns the lane that keeps the causal lengths of the rows that a site created.
pub(crate) fn life_lane(table: &Table, site: i64) -> Lane {
    let lane = if table.is_counted() {
        LIVES - site
    } else {
        LIFE
    };
    Lane {
        table_id: table.id,
        lane,
    }
}

/// Returns the site whose rows' causal lengths lie in a lane, if it is such a lane.
pub(crate) fn site_of(lane: i64) -> Option<i64> {
    (lane <= LIVES).then_some(LIVES - lane)
}

/// Whether any row of the table is known to have died.
pub(crate) fn has_lives(conn: &Connection, table: &Table) -> rusqlite::Result<bool> {
    if !table.is_counted() {
        return clocks::is_used(conn, lane(table, LIFE));
    }
    let any = "SELECT 1 FROM syncline_clocks WHERE table_id = +?1 AND lane <= ?2 LIMIT 1";
    conn.prepare_cached(any)?.exists([table.id, LIVES])
}

fn lane(table: &Table, lane: i64) -> Lane {
    Lane {
        table_id: table.id,
        lane,
    }
}

/// Returns the site that created the living row which is shown under an id.
pub(crate) fn at(conn: &Connection, table: &Table, id: i64) -> rusqlite::Result<Option<i64>> {
    let id = RowKey::Rowid(id);
    let born = clocks::at(conn, lane(table, BORN), &id)?;
    let found = match born {
        Some(born) => Some(born),
        None => clocks::at(conn, lane(table, ROW), &id)?,
    };
    Ok(found.map(|clock| clock.site))
}

/// Returns the longest run of living rows around an id that one site created.
pub(crate) fn run_at(
    conn: &Connection,
    table_id: i64,
    id: i64,
) -> rusqlite::Result<Option<Births>> {
    let key = RowKey::Rowid(id);
    let lane = |lane| Lane { table_id, lane };
    let Some(row) = clocks::range_at(conn, lane(ROW), &key)? else {
        return Ok(None);
    };
    let row = births(&row);
    if let Some(born) = clocks::range_at(conn, lane(BORN), &key)? {
        let born = births(&born);
        return Ok(Some(Births {
            first: born.first.max(row.first),
            last: born.last.min(row.last),
            site: born.site,
        }));
    }
    let next = clocks::next_key(conn, lane(BORN), &key)?;
    let last = match next {
        Some(RowKey::Rowid(next)) => row.last.min(next - 1),
        _ => row.last,
    };
    Ok(Some(Births {
        first: id,
        last,
        site: row.site,
    }))
}

/// Returns who created the living rows from `first` to `last`, in order.
pub(crate) fn ranges(
    conn: &Connection,
    table: &Table,
    first: i64,
    last: i64,
) -> rusqlite::Result<Vec<Births>> {
    let (from, to) = (RowKey::Rowid(first), RowKey::Rowid(last));
    let rows = clocks::ranges(conn, lane(table, ROW), &from, &to)?;
    let born = clocks::ranges(conn, lane(table, BORN), &from, &to)?;
    let mut born = born.iter().map(births).peekable();
    let mut found: Vec<Births> = Vec::new();
    for row in rows.iter().map(births) {
        let mut next = Some(row.first);
        while let Some(at) = next.filter(|at| *at <= row.last) {
            while born.next_if(|range| range.last < at).is_some() {}
            let (site, last) = match born.peek() {
                Some(range) if range.first <= at => (range.site, range.last.min(row.last)),
                Some(range) if range.first <= row.last => (row.site, range.first - 1),
                _ => (row.site, row.last),
            };
            match found.last_mut() {
                Some(run) if run.site == site && run.last.checked_add(1) == Some(at) => {
                    run.last = last;
                }
                _ => found.push(Births {
                    first: at,
                    last,
                    site,
                }),
            }
            next = last.checked_add(1);
        }
    }
    Ok(found)
}

fn births(range: &Range) -> Births {
    match (&range.first, &range.last) {
        (RowKey::Rowid(first), RowKey::Rowid(last)) => Births {
            first: *first,
            last: *last,
            site: range.clock.site,
        },
        _ => unreachable!("a table of counted ids has numbers as keys"),
    }
}

/// Notes who created rows whose own clock is set to one of the site `written_by`.
pub(crate) fn set(
    conn: &Connection,
    table: &Table,
    (first, last): (&RowKey, &RowKey),
    born: i64,
    written_by: i64,
) -> rusqlite::Result<()> {
    if born == written_by {
        return clocks::clear(conn, lane(table, BORN), first, last);
    }
    let clock = Clock {
        site: born,
        version: Hlc::ZERO,
        causal_length: 0,
    };
    clocks::set(conn, lane(table, BORN), first, last, clock)
}

/// Returns what of the keys from `first` to `last` is in none of `taken`, which are in order.
pub(crate) fn between((first, last): (i64, i64), taken: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut free = Vec::new();
    let mut next = Some(first);
    let begin = taken.partition_point(|(_, to)| *to < first);
    for (from, to) in &taken[begin..] {
        if *from > last {
            break;
        }
        if let Some(next) = next
            && next < *from
        {
            free.push((next, from - 1));
        }
        next = to.checked_add(1);
    }
    free.extend(next.filter(|next| *next <= last).map(|next| (next, last)));
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_is_cut_at_both_ends() {
        assert_eq!(between((1, 9), &[]), [(1, 9)]);
        assert_eq!(
            between((1, 9), &[(-5, 2), (4, 4), (8, 20)]),
            [(3, 3), (5, 7)]
        );
        assert_eq!(between((1, 9), &[(-5, -1), (0, 10), (30, 40)]), []);
        assert_eq!(between((1, 9), &[(11, 12)]), [(1, 9)]);
        let all = (i64::MIN, i64::MAX);
        assert_eq!(between(all, &[all]), []);
    }
}
