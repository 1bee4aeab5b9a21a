//! Reads what is new to another replica, by the index on stamps: in time proportional to the
//! change, not to the database.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use syncline_crdt::{
    CausalLength, Changeset, Group, GroupKind, Hlc, Parts, Seen, SiteId, Stamp, TableChanges,
    TableSchema, Value, VersionVector, unpack_key,
};

use crate::births;
use crate::clocks::{self, Clock, LIFE, Lane, ROW, Range};
use crate::collect;
use crate::constraints::masks::Masks;
use crate::constraints::store;
use crate::fold::read_folded;
use crate::gaps::{self, Filling};
use crate::key_references::{KeyNames, origins};
use crate::references::Referents;
use crate::shadow::{OWN, OpenError, Sites, in_snapshot, is_prepared, version_from, version_to};
use crate::table::{RowKey, Table};
use crate::whose::Whose;
use crate::{FoldError, joined, other_names, parked, rows, schema, track};

/// Why changes cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The database is not ours.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A table's declaration could not be read.
    #[error(transparent)]
    Table(#[from] crate::TableError),
    /// Pending writes could not be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The reader lacks deletions that are forgotten here.
    #[error(
        "deletions were forgotten here that this replica has not seen: give it everything, \
         syncline_export() without an argument; what it wrote is kept"
    )]
    Collected,
    /// No table is tracked, so there is nothing to send.
    #[error("no table is tracked: call syncline_track('table') first")]
    NothingTracked,
}

/// Returns all that a replica which has seen `since` lacks. Folds first.
///
/// # Errors
///
/// [`ExportError::NothingTracked`], [`ExportError::Collected`], or if SQLite fails.
pub fn export(
    conn: &Connection,
    since: &VersionVector,
    now_unix_ms: u64,
) -> Result<Changeset, ExportError> {
    export_to(conn, &since.clone().into(), now_unix_ms)
}

/// Returns all that a replica lacks which has seen this much, with gaps. Folds first.
///
/// # Errors
///
/// As [`export`].
pub fn export_to(
    conn: &Connection,
    reader: &Seen,
    now_unix_ms: u64,
) -> Result<Changeset, ExportError> {
    read_folded(conn, now_unix_ms, || read_since(conn, reader))
}

fn read_since(conn: &Connection, reader: &Seen) -> Result<Changeset, ExportError> {
    let since = &reader.vector;
    if !is_prepared(conn)? {
        return Err(ExportError::NothingTracked);
    }
    let (collected, _) = collect::vectors(conn)?;
    if !since.is_empty() && !since.covers(&collected) {
        return Err(ExportError::Collected);
    }
    let sites = Sites::load(conn)?;
    let until: VersionVector = sites
        .iter()
        .map(|(_, site, version)| (site, version))
        .collect();
    let windows = sites.iter().map(|(ordinal, site, version)| Window {
        ordinal,
        after: since.version(site),
        until: version,
    });
    // What the reader has seen of sites that are unknown here is no condition for reading this.
    let known = |(site, version): (_, Hlc)| (site, version.min(until.version(site)));
    let since: VersionVector = since.iter().map(known).collect();
    let lacking = gaps::lacking(conn, (&since, &until), &reader.gaps)?;
    read(
        conn,
        &sites,
        &windows.collect::<Vec<_>>(),
        Span {
            since,
            until,
            filling: Filling::of(conn, reader.gaps.clone(), &lacking)?,
            lacking,
        },
    )
}

/// Returns this replica's own changes after `after`, whole versions up to about `rows_max` rows (at
/// least one version); `None` if there are none.
///
/// Does not fold. Where others may write, fold in the same transaction before: a value that was
/// written since the last fold would be read under the stamp of the write before it.
///
/// # Errors
///
/// If SQLite fails.
pub fn export_own(
    conn: &Connection,
    after: Hlc,
    rows_max: u64,
) -> Result<Option<Changeset>, ExportError> {
    in_snapshot(conn, || read_own(conn, after, rows_max))
}

fn read_own(
    conn: &Connection,
    after: Hlc,
    rows_max: u64,
) -> Result<Option<Changeset>, ExportError> {
    if !is_prepared(conn)? {
        return Ok(None);
    }
    let sites = Sites::load(conn)?;
    let Some((_, own, newest)) = sites.iter().find(|(ordinal, _, _)| *ordinal == OWN) else {
        return Ok(None);
    };
    if newest <= after {
        return Ok(None);
    }
    let until = cut(conn, after, rows_max)?.unwrap_or(newest);
    let window = Window {
        ordinal: OWN,
        after,
        until,
    };
    let since = VersionVector::of(own, after);
    let until = VersionVector::of(own, until);
    let lacking = match after {
        // All is told once more, as to a new log, and others may know what was lost meanwhile.
        Hlc::ZERO => gaps::lacking(conn, (&since, &until), &Parts::new())?,
        // What was lost before it was ever told is nobody's.
        _ => Parts::new(),
    };
    let span = Span {
        since,
        until,
        filling: Filling::default(),
        lacking,
    };
    read(conn, &sites, &[window], span).map(Some)
}

/// Returns the version at which `rows_max` rows are reached, if there is more behind it.
fn cut(conn: &Connection, after: Hlc, rows_max: u64) -> rusqlite::Result<Option<Hlc>> {
    let sizes =
        "SELECT version, sum(CASE typeof(key) WHEN 'integer' THEN key_end - key + 1 ELSE 1 END)
        FROM (SELECT version, key, key_end FROM syncline_clocks WHERE site = ?1 AND version > ?2
            UNION ALL
            SELECT version, '', '' FROM syncline_deltas WHERE site = ?1 AND version > ?2)
        GROUP BY version ORDER BY version";
    let mut statement = conn.prepare_cached(sizes)?;
    let mut sizes = statement.query((OWN, version_to(after)))?;
    let mut rows_count = 0;
    while let Some(row) = sizes.next()? {
        rows_count += row.get::<_, i64>(1)?.unsigned_abs();
        if rows_count >= rows_max {
            return version_from(row.get(0)?).map(Some);
        }
    }
    Ok(None)
}

/// The versions of one site that are to be read.
pub(crate) struct Window {
    pub(crate) ordinal: i64,
    pub(crate) after: Hlc,
    pub(crate) until: Hlc,
}

struct Span {
    since: VersionVector,
    until: VersionVector,
    /// Tables of which more is given.
    filling: Filling,
    /// What is lacking here.
    lacking: Parts,
}

fn read(
    conn: &Connection,
    sites: &Sites,
    windows: &[Window],
    Span {
        since,
        until,
        filling,
        lacking,
    }: Span,
) -> Result<Changeset, ExportError> {
    let mut dirty = written(conn, windows)?;
    filling.add_ranges(conn, sites, (&since, &until), &mut dirty)?;
    let (collected, settled) = collect::vectors(conn)?;
    let mut changeset = Changeset {
        filled: filling.parts.clone(),
        lacking,
        since,
        until,
        collected,
        settled,
        ..Changeset::default()
    };
    let is_between = |since: &VersionVector, stamp: Stamp| {
        stamp.version > since.version(stamp.site)
            && stamp.version <= changeset.until.version(stamp.site)
    };
    let (mut schemas, mut tables) = (Vec::new(), Vec::new());
    for table in Table::all(conn)? {
        let stamp = track::tracked_at(conn, sites, table.id)?;
        let from = filling.from(&table.name);
        if is_between(from.unwrap_or(&changeset.since), stamp) {
            let (name, statements) = (table.name.clone(), schema::statements(conn, &table.name)?);
            schemas.push(TableSchema {
                name,
                stamp,
                origin: track::origin_of(conn, sites, table.id)?,
                options: table.options.to_json(),
                statements,
            });
        }
        let mut reading = Reading {
            conn,
            sites,
            table: &table,
            groups: BTreeMap::new(),
            has_parked: store::any(conn, table.id)?,
            masks: Masks::new(conn, &table)?,
            lives: births::has_lives(conn, &table)?,
            whose: match table.is_counted() {
                true => Some(Whose::new(conn, table.id)?),
                false => None,
            },
            names: KeyNames::new(conn, &table)?,
            referents: Referents::new(conn, &table)?,
        };
        let of_table = Lane {
            table_id: table.id,
            lane: i64::MIN,
        }..;
        for (lane, ranges) in dirty
            .range(of_table)
            .take_while(|(l, _)| l.table_id == table.id)
        {
            for range in ranges {
                reading.add(lane.lane, range)?;
            }
        }
        tables.extend(reading.finish());
        let more = from.map(|after| windows_between(sites, after, &changeset.until));
        let windows = more.as_deref().unwrap_or(windows);
        tables.extend(joined::changes(conn, sites, &table, windows)?);
    }
    let since = &changeset.since;
    let renames = other_names::changes(conn, sites, |stamp| is_between(since, stamp))?;
    tables.extend(parked::changes(conn, |name, stamp| {
        is_between(filling.from(name).unwrap_or(since), stamp)
    })?);
    (changeset.schemas, changeset.tables) = (schemas, tables);
    changeset.renames = renames;
    Ok(changeset)
}

/// Returns the clocks in some windows, lane by lane.
fn written(conn: &Connection, windows: &[Window]) -> rusqlite::Result<BTreeMap<Lane, Vec<Range>>> {
    let mut dirty: BTreeMap<Lane, Vec<Range>> = BTreeMap::new();
    let find = "SELECT table_id, lane, key, key_end, site, version, causal_length
        FROM syncline_clocks WHERE site = ?1 AND version > ?2 AND version <= ?3";
    for window in windows {
        let mut statement = conn.prepare_cached(find)?;
        let span = (
            window.ordinal,
            version_to(window.after),
            version_to(window.until),
        );
        let mut rows = statement.query(span)?;
        while let Some(row) = rows.next()? {
            let lane = Lane {
                table_id: row.get(0)?,
                lane: row.get(1)?,
            };
            dirty.entry(lane).or_default().push(Range::read(row)?);
        }
    }
    Ok(dirty)
}

/// Returns the windows between two vectors.
fn windows_between(sites: &Sites, since: &VersionVector, until: &VersionVector) -> Vec<Window> {
    let window = |(ordinal, site, _)| Window {
        ordinal,
        after: since.version(site),
        until: until.version(site),
    };
    sites.iter().map(window).collect()
}

/// What rows of one group share.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    kind: GroupKind,
    causal_length: CausalLength,
    stamp: Stamp,
    born: SiteId,
    columns: Vec<usize>,
    parents: Vec<SiteId>,
}

/// What rows that follow each other share: their causal length, who created them, and who created
/// the rows that they refer to.
type Common = (CausalLength, Option<i64>, Vec<Option<i64>>);

/// One table's changes, while they are read.
struct Reading<'a> {
    conn: &'a Connection,
    sites: &'a Sites,
    table: &'a Table,
    groups: BTreeMap<Head, Vec<Value>>,
    /// Whether any row is not in its first life.
    lives: bool,
    /// Whether any row is parked: it is sent like those that are shown.
    has_parked: bool,
    /// What cells keep that show NULL.
    masks: Masks<'a>,
    /// Who is shown under which id, where ids are counted.
    whose: Option<Whose>,
    /// Who is meant by keys that refer to rows.
    names: Option<KeyNames>,
    /// Who is meant by cells that refer to rows of tables where ids are counted.
    referents: Referents,
}

impl Reading<'_> {
    fn lane(&self, lane: i64) -> Lane {
        Lane {
            table_id: self.table.id,
            lane,
        }
    }

    fn add(&mut self, lane: i64, range: &Range) -> rusqlite::Result<()> {
        match lane {
            LIFE if self.names.is_some() => self.add_named_life(range),
            LIFE => {
                self.add_lives(range, SiteId::default());
                Ok(())
            }
            lane if let Some(born) = births::site_of(lane) => {
                self.add_lives(range, self.sites.site(born));
                Ok(())
            }
            ROW => self.add_rows(range),
            lane => {
                let of_lane = |column: &crate::table::Column| column.lane == lane;
                // The column of a lane may have been dropped since.
                match self.table.columns.iter().position(of_lane) {
                    Some(column) => {
                        self.add_cells(&range.first, &range.last, &[column], range.clock)
                    }
                    None => Ok(()),
                }
            }
        }
    }

    fn add_lives(&mut self, range: &Range, born: SiteId) {
        let head = Head {
            kind: GroupKind::Life,
            causal_length: length(&range.clock),
            stamp: self.sites.stamp(range.clock.site, range.clock.version),
            born,
            columns: vec![],
            parents: vec![],
        };
        let values = self.groups.entry(head).or_default();
        match (&range.first, &range.last) {
            (RowKey::Rowid(first), RowKey::Rowid(last)) => {
                values.extend((*first..=*last).map(Value::Integer));
            }
            (RowKey::Packed(packed), _) => {
                values.extend(unpack_key(packed).expect("keys in the clocks were packed here"));
            }
            (RowKey::Rowid(_), RowKey::Packed(_)) => unreachable!("a range has keys of one kind"),
        }
    }

    /// Adds the causal length of a row whose key refers to others.
    fn add_named_life(&mut self, range: &Range) -> rusqlite::Result<()> {
        let mut key = store::unpacked(&range.first);
        let parents = match &mut self.names {
            Some(names) => origins(self.sites, &names.tell(self.conn, &mut key)?),
            None => vec![],
        };
        let head = Head {
            kind: GroupKind::Life,
            causal_length: length(&range.clock),
            stamp: self.sites.stamp(range.clock.site, range.clock.version),
            born: SiteId::default(),
            columns: vec![],
            parents,
        };
        self.groups.entry(head).or_default().append(&mut key);
        Ok(())
    }

    /// A row's own stamp holds for the columns that were not written after it: cuts the range where
    /// that set changes.
    fn add_rows(&mut self, range: &Range) -> rusqlite::Result<()> {
        let mut written_later: Vec<(usize, Range)> = Vec::new();
        for (at, column) in self.table.columns.iter().enumerate() {
            let lane = self.lane(column.lane);
            let found = clocks::ranges(self.conn, lane, &range.first, &range.last)?;
            written_later.extend(found.into_iter().map(|range| (at, range)));
        }
        let mut starts: BTreeSet<RowKey> = BTreeSet::from([range.first.clone()]);
        for (_, later) in &written_later {
            starts.insert(later.first.clone());
            if let RowKey::Rowid(last) = later.last
                && later.last < range.last
            {
                starts.insert(RowKey::Rowid(last + 1));
            }
        }
        written_later.sort_by(|a, b| a.1.first.cmp(&b.1.first));
        let mut open: Vec<(usize, RowKey, Clock)> = Vec::new();
        let mut next = written_later.into_iter().peekable();
        let mut starts = starts.into_iter().peekable();
        while let Some(first) = starts.next() {
            open.retain(|(_, last, _)| *last >= first);
            while let Some((at, later)) = next.next_if(|(_, later)| later.first <= first) {
                open.push((at, later.last, later.clock));
            }
            let last = match starts.peek() {
                Some(RowKey::Rowid(next)) => RowKey::Rowid(next - 1),
                _ => range.last.clone(),
            };
            let is_open = |column: &usize| open.iter().any(|(at, _, _)| at == column);
            let columns: Vec<usize> = (0..self.table.columns.len())
                .filter(|c| !is_open(c))
                .collect();
            // Rows of which nobody wrote a cell are known by their keys alone.
            let mut clocks = open.iter().map(|(_, _, clock)| *clock);
            let is_bare = clocks.all(|clock| clock.version == Clock::UNWRITTEN.version);
            if !columns.is_empty() || is_bare {
                self.add_cells(&first, &last, &columns, range.clock)?;
            }
        }
        Ok(())
    }

    fn add_cells(
        &mut self,
        first: &RowKey,
        last: &RowKey,
        columns: &[usize],
        clock: Clock,
    ) -> rusqlite::Result<()> {
        let stamp = self.sites.stamp(clock.site, clock.version);
        let (conn, table, sites, lives) = (self.conn, self.table, self.sites, self.lives);
        let (groups, whose, names) = (&mut self.groups, &mut self.whose, &mut self.names);
        let (referents, key_count) = (&mut self.referents, table.key_columns.len());
        let mut refers = columns.iter().enumerate();
        let refers: Vec<(usize, usize)> = refers
            .by_ref()
            .filter(|(_, column)| referents.has(**column))
            .map(|(at, column)| (key_count + at, *column))
            .collect();
        let mut run: Common = (CausalLength::FIRST, None, Vec::new());
        let mut waiting: Vec<Value> = Vec::new();
        let mut put = |(causal_length, born, parents): Common, waiting: &mut Vec<Value>| {
            let site = |site: Option<i64>| site.map_or(SiteId::default(), |site| sites.site(site));
            let mut of_columns = vec![SiteId::default(); key_count + columns.len()];
            let (of_cells, of_key) = parents.split_at(refers.len().min(parents.len()));
            let of_key = of_key.iter().enumerate();
            let of_cells = refers.iter().map(|(at, _)| *at).zip(of_cells);
            for (at, parent) in of_cells.chain(of_key) {
                of_columns[at] = site(*parent);
            }
            if parents.iter().all(Option::is_none) {
                of_columns.clear();
            }
            let head = Head {
                kind: GroupKind::Cells,
                causal_length,
                stamp,
                born: site(born),
                columns: columns.to_vec(),
                parents: of_columns,
            };
            if !waiting.is_empty() {
                groups.entry(head).or_default().append(waiting);
            }
        };
        let mut each = |place: &RowKey, mut values: Vec<Value>| {
            let mut next: Common = (CausalLength::FIRST, None, Vec::new());
            for (at, column) in &refers {
                let cell = (*column, place);
                next.2.push(referents.name(conn, cell, &mut values[*at])?);
            }
            if let (Some(whose), RowKey::Rowid(id)) = (whose.as_mut(), place) {
                let (number, site) = whose.at(conn, *id)?.unwrap_or((*id, OWN));
                values[0] = Value::Integer(number);
                next.1 = Some(site);
            }
            if lives {
                let key = table.life_key(&values[..key_count]);
                let life = clocks::at(conn, births::life_lane(table, next.1.unwrap_or(OWN)), &key)?;
                next.0 = life.map_or(CausalLength::FIRST, |clock| length(&clock));
            }
            if let Some(names) = names.as_mut() {
                next.2
                    .append(&mut names.tell(conn, &mut values[..key_count])?);
            }
            if next != run {
                put(std::mem::replace(&mut run, next), &mut waiting);
            }
            waiting.append(&mut values);
            Ok(())
        };
        let masks = &self.masks;
        rows::for_each(conn, table, columns, (first, last), |rowid, mut values| {
            masks.lift(columns, &mut values)?;
            each(&rowid.map_or_else(|| first.clone(), RowKey::Rowid), values)
        })?;
        if self.has_parked {
            store::for_each(conn, table.id, (first, last), |place, row| {
                let cells = columns.iter().map(|at| row.cell(&table.columns[*at]));
                each(&place, row.key.iter().cloned().chain(cells).collect())
            })?;
        }
        put(run, &mut waiting);
        Ok(())
    }

    fn finish(self) -> Option<TableChanges> {
        let names = |columns: &[crate::table::Column]| -> Vec<String> {
            columns.iter().map(|column| column.name.clone()).collect()
        };
        let group = |(head, values): (Head, Vec<Value>)| Group {
            causal_length: head.causal_length,
            kind: head.kind,
            stamp: head.stamp,
            born: head.born,
            columns: head.columns,
            parents: head.parents,
            values,
        };
        let groups: Vec<Group> = self.groups.into_iter().map(group).collect();
        (!groups.is_empty()).then(|| TableChanges {
            name: self.table.name.clone(),
            key_columns: names(&self.table.key_columns),
            columns: names(&self.table.columns),
            groups,
        })
    }
}

fn length(clock: &Clock) -> CausalLength {
    CausalLength::new(clock.causal_length)
        .expect("the causal length was checked when it was stored")
}
