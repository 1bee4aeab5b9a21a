//! Which tables take part: what can be tracked, beginning and ending it.

use rusqlite::{Connection, OptionalExtension, params};
use syncline_crdt::{Hlc, Part, SiteId, Stamp};

use crate::candidate::{Obstacle, obstacle};
use crate::capture;
use crate::clocks::{self, Clock, Lane, ROW};
use crate::collect::Past;
use crate::constraints;
use crate::crsql;
use crate::fold::{FoldError, fold};
use crate::gaps;
use crate::heal;
use crate::joined;
use crate::key_references;
use crate::mask::Mask;
use crate::moved_keys;
use crate::options::{OptionsError, TableOptions};
use crate::origin;
use crate::parked;
use crate::policies;
use crate::references;
use crate::rights;
use crate::rows::key_from;
use crate::shadow::{
    OWN, OpenError, Sites, in_savepoint, is_prepared, prepare, tick, version_from, version_to,
};
use crate::table::{KeyKind, RowKey, Table, TableError, TableInfo};
use crate::untracked::{self, UNTRACKED};
use crate::value::quoted;
use crate::watermark;

/// How many rows of a table that is tracked get one version: an envelope ends between versions, so
/// this bounds what the first one carries.
const BACKFILL_ROWS: usize = 20_000;
/// How many bytes, about, if the rows are long.
const BACKFILL_BYTES: usize = 4 << 20;

/// What [`track`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// The table takes part from now on, with this many rows.
    Begun {
        /// Rows that were in it.
        rows_count: usize,
    },
    /// It took part already.
    Already,
}

/// Why a table was not tracked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The database could not be made ready.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The table's declaration could not be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The options are not understood, or do not fit the table.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// What was written before could not be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// Something in the table stands against it.
    #[error("cannot track `{table}`: {obstacle}")]
    Refused {
        /// The table.
        table: String,
        /// What.
        obstacle: Obstacle,
    },
    /// Only a tracked table can be untracked.
    #[error("`{table}` is not tracked")]
    NotTracked {
        /// The table.
        table: String,
    },
}

/// Returns the names of the tables that take part.
///
/// # Errors
///
/// If SQLite fails or a later program wrote the shadow tables.
pub fn tracked_tables(conn: &Connection) -> Result<Vec<String>, TrackError> {
    if !is_prepared(conn)? {
        return Ok(Vec::new());
    }
    let all = "SELECT t.name FROM syncline_tables AS t JOIN main.sqlite_master AS m
        ON m.type = 'table' AND m.name = t.name COLLATE NOCASE
        WHERE t.aside IS NOT ?1 ORDER BY t.name COLLATE BINARY";
    let mut statement = conn.prepare_cached(all)?;
    let names = statement.query_map([UNTRACKED], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// Makes a table conflict-free, with the rows it has. It keeps its shape and its other triggers,
/// and any program may go on writing to it.
///
/// # Errors
///
/// [`TrackError::Refused`] names what stands against it; nothing is changed then.
pub fn track(
    conn: &Connection,
    name: &str,
    options: &TableOptions,
    now_unix_ms: u64,
) -> Result<Tracked, TrackError> {
    prepare(conn)?;
    in_savepoint(conn, || {
        // What else changed in the schema is the next fold's to notice.
        let is_known = !heal::is_needed(conn)? && !constraints::is_outdated(conn)?;
        let next = |conn: &Connection| Ok(tick(conn, now_unix_ms)?.version);
        let tracked = begin(conn, name, options, (Origin::Here, &next, now_unix_ms))?;
        if is_known && !key_references::are_outdated(conn)? {
            constraints::note_schema(conn)?;
            heal::note_checked(conn)?;
        }
        Ok(tracked)
    })
}

/// Gives the next version to what is written by tracking.
pub(crate) type NextVersion<'a> = dyn Fn(&Connection) -> rusqlite::Result<Hlc> + 'a;

/// Who tracked a table first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Here,
    /// What a peer has of the same cells is merged before those here count.
    Peer,
}

pub(crate) fn begin(
    conn: &Connection,
    name: &str,
    options: &TableOptions,
    (origin, next, now_unix_ms): (Origin, &NextVersion<'_>, u64),
) -> Result<Tracked, TrackError> {
    prepare(conn)?;
    in_savepoint(conn, || {
        let refused = |obstacle| TrackError::Refused {
            table: name.to_owned(),
            obstacle,
        };
        let info = TableInfo::read(conn, name)?.ok_or_else(|| refused(Obstacle::Missing))?;
        let asked = options;
        let options = &match origin {
            Origin::Here => options.clone().settled(conn, &info)?,
            Origin::Peer => options.clone(),
        };
        match origin {
            Origin::Here => options.check(&info)?,
            Origin::Peer => options.of_columns_in(&info).check(&info)?,
        }
        constraints::check(conn, &info, options)?;
        if let Some(rows_count) = resume(conn, &info, options, now_unix_ms)? {
            constraints::renew(conn)?;
            return Ok(Tracked::Begun { rows_count });
        }
        if let Some(id) = id_of(conn, &info.name)? {
            if *asked != TableOptions::default() && *options != TableOptions::of(conn, id)? {
                return Err(refused(Obstacle::OtherOptions));
            }
            return Ok(Tracked::Already);
        }
        if let Some(obstacle) = obstacle(conn, &info)? {
            return Err(refused(obstacle));
        }
        let version = next(conn)?;
        let table = register(
            conn,
            &info,
            options,
            Clock {
                site: OWN,
                version,
                causal_length: 0,
            },
        )?;
        moved_keys::begin(conn, &table)?;
        let rows_count = backfill(conn, &table, next)?;
        if table.is_counted() && rows_count > 0 {
            origin::give(conn, &table)?;
        }
        if origin == Origin::Here {
            joined::fill(conn, &table)?;
            define_last(conn, &table)?;
            note_literals(conn, &table)?;
        }
        gaps::want(conn, &table.name)?;
        parked::replay(conn, &table.name, Past::default())?;
        constraints::renew(conn)?;
        Ok(Tracked::Begun { rows_count })
    })
}

/// Has the definition of a table with policies go with the last of its rows, where they are too many
/// for one changeset. Who has a copy of the table, untracked, claims its rows when the definition
/// arrives, and counters that come later would add up.
fn define_last(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    if table.joined.is_empty() {
        return Ok(());
    }
    let set = "UPDATE syncline_tables SET version = max(version,
        (SELECT max(version) FROM syncline_clocks WHERE table_id = ?1 AND site = ?2)) WHERE id = ?1
        AND EXISTS (SELECT 1 FROM syncline_clocks WHERE table_id = ?1 AND site = ?2)";
    conn.prepare_cached(set)?.execute((table.id, OWN))?;
    Ok(())
}

/// Notes which cells of the rows that are there refer to no row.
fn note_literals(conn: &Connection, table: &Table) -> Result<(), TrackError> {
    if table.columns.iter().all(|column| column.refers.is_none()) {
        return Ok(());
    }
    let all = runs(conn, table)?.into_iter();
    let all: Vec<_> = all.map(|run| (run.first, run.last, Mask::WHOLE)).collect();
    Ok(references::note_literals(conn, table, &all)?)
}

/// Goes on with a table that was untracked, if it is one and has the options it had; returns how
/// many rows it has. Otherwise it begins anew.
fn resume(
    conn: &Connection,
    info: &TableInfo,
    options: &TableOptions,
    now_unix_ms: u64,
) -> Result<Option<usize>, TrackError> {
    let Some(id) = untracked::id_of(conn, &info.name)? else {
        return Ok(None);
    };
    let is_as_it_was = *options == TableOptions::of(conn, id)?
        && obstacle(conn, info)?.is_none()
        && untracked::resume(conn, (id, &info.name), now_unix_ms)?;
    if !is_as_it_was {
        forget(conn, id)?;
        return Ok(None);
    }
    let count = format!("SELECT count(*) FROM main.{}", quoted(&info.name));
    let count: i64 = conn.query_row(&count, [], |row| row.get(0))?;
    Ok(Some(usize::try_from(count).unwrap_or(0)))
}

/// Notes a table that was tracked at `tracked` and begins to capture its writes.
pub(crate) fn register(
    conn: &Connection,
    info: &TableInfo,
    options: &TableOptions,
    tracked: Clock,
) -> Result<Table, TrackError> {
    policies::check(conn, info, options)?;
    let add = "INSERT INTO syncline_tables
        (name, site, version, watermark, ceiling, options, shape)
        VALUES(?1, ?2, ?3, ?4, ?4, ?5, ?6) RETURNING id";
    let (site, version) = (tracked.site, version_to(tracked.version));
    let values = params![
        info.name,
        site,
        version,
        watermark::LEAST,
        options.to_json(),
        info.shape(conn)?.to_text()
    ];
    let id: i64 = conn
        .prepare_cached(add)?
        .query_one(values, |row| row.get(0))?;
    let column = "INSERT INTO syncline_columns(table_id, lane, name) VALUES(?1, ?2, ?3)";
    for (lane, info) in info.stored_columns().enumerate() {
        conn.prepare_cached(column)?
            .execute(params![id, lane as i64, info.name])?;
    }
    let missing = || TrackError::NotTracked {
        table: info.name.clone(),
    };
    let table = Table::read(conn, id, &info.name)?.ok_or_else(missing)?;
    capture::begin(conn, &table)?;
    constraints::capture(conn, &table)?;
    constraints::note_definition(conn, &table)?;
    Ok(table)
}

/// Notes the origin of the rows that a table held when it was first tracked.
pub(crate) fn set_origin(conn: &Connection, id: i64, origin: SiteId) -> rusqlite::Result<()> {
    let ordinal = match origin == SiteId::default() {
        true => None,
        false => Some(Sites::load(conn)?.ordinal(conn, origin)?),
    };
    let set = "UPDATE syncline_tables SET origin = ?2 WHERE id = ?1";
    conn.prepare_cached(set)?.execute((id, ordinal))?;
    Ok(())
}

/// Returns the origin of the rows that a table held when it was first tracked.
pub(crate) fn origin_of(conn: &Connection, sites: &Sites, id: i64) -> rusqlite::Result<SiteId> {
    let origin = "SELECT origin FROM syncline_tables WHERE id = ?1";
    let origin: Option<i64> = conn
        .prepare_cached(origin)?
        .query_one([id], |row| row.get(0))?;
    Ok(origin.map_or(SiteId::default(), |ordinal| sites.site(ordinal)))
}

/// Returns the id of a tracked table.
pub(crate) fn id_of(conn: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    let id = "SELECT id FROM syncline_tables WHERE name = ?1";
    conn.prepare_cached(id)?
        .query_one([name], |row| row.get(0))
        .optional()
}

/// Returns when and where a table was first tracked.
pub(crate) fn tracked_at(conn: &Connection, sites: &Sites, id: i64) -> rusqlite::Result<Stamp> {
    let stamp = "SELECT site, version FROM syncline_tables WHERE id = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, version_from(row.get(1)?)?));
    let (site, version) = conn.prepare_cached(stamp)?.query_one([id], read)?;
    Ok(sites.stamp(site, version))
}

/// Gives the rows that are there a clock, as writes of this replica.
fn backfill(conn: &Connection, table: &Table, next: &NextVersion<'_>) -> rusqlite::Result<usize> {
    let mut versions = Versions::default();
    let mut rows_count = 0;
    for run in runs(conn, table)? {
        let version = versions.of(conn, &run, next)?;
        rows_count += run.rows;
        let clock = Clock {
            site: OWN,
            version,
            causal_length: 0,
        };
        clocks::set(
            conn,
            Lane {
                table_id: table.id,
                lane: ROW,
            },
            &run.first,
            &run.last,
            clock,
        )?;
    }
    watermark::raise(conn, table)?;
    Ok(rows_count)
}

/// The versions of rows that are many: none of them is given to more than a changeset carries.
#[derive(Default)]
pub(crate) struct Versions {
    last: Hlc,
    rows_left: usize,
    bytes_left: usize,
}

impl Versions {
    /// Returns the version of the next run of rows.
    pub(crate) fn of(
        &mut self,
        conn: &Connection,
        run: &Run,
        next: &NextVersion<'_>,
    ) -> rusqlite::Result<Hlc> {
        if self.rows_left < run.rows || self.bytes_left < run.bytes {
            self.last = next(conn)?;
            (self.rows_left, self.bytes_left) = (BACKFILL_ROWS, BACKFILL_BYTES);
        }
        self.rows_left -= run.rows;
        self.bytes_left = self.bytes_left.saturating_sub(run.bytes);
        Ok(self.last)
    }
}

/// Rows that follow each other.
pub(crate) struct Run {
    pub(crate) first: RowKey,
    pub(crate) last: RowKey,
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// Returns a table's rows as runs, none of them above what one version carries.
pub(crate) fn runs(conn: &Connection, table: &Table) -> rusqlite::Result<Vec<Run>> {
    let name = table.quoted();
    let sizes = table.columns.iter().map(|column| {
        let column = quoted(&column.name);
        format!("ifnull(length({column}), 0)")
    });
    let size = sum(&sizes.collect::<Vec<_>>());
    let place = match table.kind {
        KeyKind::Packed => table.key_list(),
        KeyKind::Integer | KeyKind::Rowid => table.rowid.clone(),
    };
    let order = if table.kind == KeyKind::Packed {
        ""
    } else {
        &format!("ORDER BY {place}")
    };
    let mut statement =
        conn.prepare(&format!("SELECT {size}, {place} FROM main.{name} {order}"))?;
    let mut rows = statement.query([])?;
    let mut runs: Vec<Run> = Vec::new();
    while let Some(row) = rows.next()? {
        let bytes = usize::try_from(row.get::<_, i64>(0)?).unwrap_or(usize::MAX);
        let place = match table.kind {
            KeyKind::Packed => table.life_key(&key_from(row, 1, table.key_columns.len())?),
            KeyKind::Integer | KeyKind::Rowid => RowKey::Rowid(row.get(1)?),
        };
        match (runs.last_mut(), &place) {
            (
                Some(Run {
                    last: RowKey::Rowid(last),
                    rows,
                    bytes: sum,
                    ..
                }),
                RowKey::Rowid(next),
            ) if last.checked_add(1) == Some(*next)
                && *rows < BACKFILL_ROWS
                && sum.saturating_add(bytes) <= BACKFILL_BYTES =>
            {
                (*last, *rows, *sum) = (*next, *rows + 1, *sum + bytes);
            }
            _ => runs.push(Run {
                first: place.clone(),
                last: place,
                rows: 1,
                bytes,
            }),
        }
    }
    Ok(runs)
}

/// Returns the sum of terms, and of a few bytes that every row takes. SQLite limits how deep an
/// expression may be, so it is a flat tree.
fn sum(terms: &[String]) -> String {
    match terms {
        [] => "8".to_owned(),
        [term] => term.clone(),
        _ => {
            let (left, right) = terms.split_at(terms.len() / 2);
            format!("({} + {})", sum(left), sum(right))
        }
    }
}

/// Makes a tracked table an ordinary one again. Its rows stay, here and on other replicas. What is
/// written to it here counts when it is tracked again, and what others write waits until then.
///
/// # Errors
///
/// [`TrackError::NotTracked`], or if SQLite fails.
pub fn untrack(conn: &Connection, name: &str, now_unix_ms: u64) -> Result<(), TrackError> {
    let not_tracked = || TrackError::NotTracked {
        table: name.to_owned(),
    };
    if !is_prepared(conn)? {
        return Err(not_tracked());
    }
    in_savepoint(conn, || {
        fold(conn, now_unix_ms)?;
        let id = id_of(conn, name)?.ok_or_else(not_tracked)?;
        if untracked::id_of(conn, name)?.is_some() {
            return Err(not_tracked());
        }
        // Nothing follows the rows that a key refers to while nobody looks.
        let goes_on = |table: &Table| !table.is_counted() && !table.shape.refers();
        match Table::named(conn, name)?.filter(goes_on) {
            Some(table) => untracked::keep(conn, &table)?,
            None => {
                forget(conn, id)?;
                gaps::lose(conn, &Part::whole(name))?;
            }
        }
        // Rows of other tables are not kept waiting for it.
        constraints::renew(conn)?;
        Ok(())
    })
}

pub(crate) fn forget(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    capture::end(conn, id)?;
    untracked::forget(conn, id)?;
    constraints::forget(conn, id)?;
    joined::forget_lanes(conn, id, None)?;
    for shadow in [
        "syncline_clocks",
        "syncline_columns",
        "syncline_rekeyed",
        "syncline_gone",
    ] {
        conn.execute(&format!("DELETE FROM {shadow} WHERE table_id = ?1"), [id])?;
    }
    conn.execute("DELETE FROM syncline_tables WHERE id = ?1", [id])?;
    Ok(())
}

/// Makes the database an ordinary one again: every table keeps its rows, and nothing of Syncline
/// is left in the schema.
///
/// # Errors
///
/// If SQLite fails or a later program wrote the shadow tables.
pub fn leave(conn: &Connection) -> Result<(), TrackError> {
    if !is_prepared(conn)? {
        return Ok(());
    }
    in_savepoint(conn, || {
        let ids = "SELECT id FROM syncline_tables";
        let ids: Vec<i64> = conn
            .prepare(ids)?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in ids {
            forget(conn, id)?;
        }
        conn.flush_prepared_statement_cache();
        crsql::leave(conn)?;
        conn.execute_batch(constraints::store::DROP)?;
        conn.execute_batch(policies::DROP)?;
        conn.execute_batch(rights::DROP)?;
        conn.execute_batch(joined::DROP)?;
        conn.execute_batch(gaps::DROP)?;
        conn.execute_batch(
            "DROP TABLE syncline_gone; DROP TABLE syncline_clocks; DROP TABLE syncline_columns; DROP TABLE syncline_tables;
             DROP TABLE syncline_parked; DROP TABLE syncline_rekeyed; DROP TABLE syncline_renames;
             DROP TABLE syncline_definitions;
             DROP TABLE syncline_canary; DROP TABLE syncline_sites; DROP TABLE syncline_meta;",
        )?;
        Ok(())
    })
}
