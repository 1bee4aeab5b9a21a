//! A table that is here, untracked, when others' changes to it arrive: whose its rows are.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_crdt::{Hlc, SiteId};

use crate::births;
use crate::clocks::{self, Clock, Lane, ROW};
use crate::constraints::store;
use crate::joined;
use crate::key_references;
use crate::options::TableOptions;
use crate::rows;
use crate::shadow::{OWN, Sites, tick_oldest};
use crate::table::{KeyKind, RowKey, Table};
use crate::track::{self, Origin, Run, TrackError, Versions};

/// Tracks a table that is here when others' changes to it arrive. Nobody knows how old its rows are,
/// so they count as unwritten until those changes are merged, see [`claim`].
pub(crate) fn adopt(
    conn: &Connection,
    name: &str,
    options: &TableOptions,
) -> Result<Adopted, TrackError> {
    track::begin(conn, name, options, (Origin::Peer, &|_| Ok(Hlc::ZERO), 0))?;
    let mut adopted = Adopted {
        name: name.to_owned(),
        runs: Vec::new(),
        keys: BTreeSet::new(),
        names: BTreeSet::new(),
        origin: None,
    };
    let Some(table) = Table::named(conn, name)? else {
        return Ok(adopted);
    };
    if table.is_counted() {
        let mut sites = Sites::load(conn)?;
        let origin = track::origin_of(conn, &sites, table.id)?;
        if origin != SiteId::default() {
            adopted.origin = Some(sites.ordinal(conn, origin)?);
        }
        return Ok(adopted);
    }
    if table.shape.refers() {
        adopted.names = key_references::named(conn, &table)?.into_values().collect();
        return Ok(adopted);
    }
    adopted.runs = track::runs(conn, &table)?;
    if table.kind == KeyKind::Rowid {
        let all = (&RowKey::Rowid(i64::MIN), &RowKey::Rowid(i64::MAX));
        rows::for_each(conn, &table, &[], all, |_, key| {
            adopted.keys.insert(table.life_key(&key));
            Ok(())
        })?;
    }
    Ok(adopted)
}

/// A table that was here when others' changes to it arrived.
pub(crate) struct Adopted {
    name: String,
    /// The rows it had; none where ids are counted, since rows may move before they are claimed.
    runs: Vec<Run>,
    /// Their keys, where rows that are parked before they are claimed are named by them.
    keys: BTreeSet<RowKey>,
    /// What names them, where their keys refer to others and may follow these before they are claimed.
    names: BTreeSet<RowKey>,
    /// The ordinal of their origin, where ids are counted.
    origin: Option<i64>,
}

/// Counts what others did not write of an adopted table as written here, as early as this replica
/// can still write. Returns the table.
pub(crate) fn claim(conn: &Connection, adopted: Adopted) -> Result<Option<Table>, TrackError> {
    let Some(table) = Table::named(conn, &adopted.name)? else {
        return Ok(None);
    };
    let runs = match adopted.origin {
        Some(_) => track::runs(conn, &table)?,
        None => adopted.runs,
    };
    let parked = store::places(conn, table.id)?.into_iter();
    let parked = parked.filter(|place| adopted.keys.contains(place) || adopted.origin.is_some());
    let named = key_references::named(conn, &table)?.into_iter();
    let named = named.filter(|(_, name)| adopted.names.contains(name));
    let single = parked.chain(named.map(|(place, _)| place));
    let single = single.map(|place| Run {
        first: place.clone(),
        last: place,
        rows: 1,
        bytes: 0,
    });
    let mut versions = Versions::default();
    for run in runs.into_iter().chain(single) {
        claim_run(conn, (&table, adopted.origin), &run, &mut versions)?;
    }
    joined::fill(conn, &table)?;
    Ok(Some(table))
}

/// Counts the rows of a run that nobody wrote as written here; where ids are counted, those of one
/// origin: others came in parts.
fn claim_run(
    conn: &Connection,
    (table, origin): (&Table, Option<i64>),
    run: &Run,
    versions: &mut Versions,
) -> rusqlite::Result<()> {
    let lane = Lane {
        table_id: table.id,
        lane: ROW,
    };
    let unwritten = clocks::ranges(conn, lane, &run.first, &run.last)?.into_iter();
    let mut spans: Vec<_> = unwritten
        .filter(|range| range.clock.version == Hlc::ZERO)
        .map(|range| (range.first, range.last))
        .collect();
    if let Some(origin) = origin {
        let mut own = Vec::new();
        for span in spans {
            let (RowKey::Rowid(first), RowKey::Rowid(last)) = span else {
                continue;
            };
            let born = births::ranges(conn, table, first, last)?.into_iter();
            let born = born.filter(|born| born.site == origin);
            own.extend(born.map(|born| (RowKey::Rowid(born.first), RowKey::Rowid(born.last))));
        }
        spans = own;
    }
    if spans.is_empty() {
        return Ok(());
    }
    let clock = Clock {
        site: OWN,
        version: versions.of(conn, run, &tick_oldest)?,
        causal_length: 0,
    };
    for (first, last) in spans {
        clocks::set(conn, lane, &first, &last, clock)?;
    }
    Ok(())
}
