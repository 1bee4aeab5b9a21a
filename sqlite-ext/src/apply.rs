//! Merges a changeset from another replica into the tables: whole, or not at all.

mod fitting;
mod merging;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use syncline_crdt::{
    Changeset, DecodeError, DeltaError, Group, Hlc, SiteId, TableChanges, TableSchema,
};

use crate::candidate::{Obstacle, is_reserved, obstacle};
use crate::clocks::Clock;
use crate::collect::{self, Past, Rejoin, Standing};
use crate::constraints::{self, Touched};
use crate::options::{Ids, OptionsError, TableOptions};
use crate::placing::Placing;
use crate::quiet::Quiet;
use crate::renames::Renames;
use crate::schema::{self, SchemaError};
use crate::shadow::{self, OpenError, Sites, in_savepoint, prepare, version_to};
use crate::table::{RowKey, Table, TableInfo};
use crate::track::{self, TrackError};
use crate::{
    FoldError, TableError, adoption, fold, gaps, heal, key_references, lacking, other_names,
    parked, untracked, watermark,
};
use fitting::{Fitted, fit};
use merging::Merging;

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Rows the changeset named.
    pub rows_count: usize,
    /// Rows that look different now.
    pub changed_count: usize,
    /// Tables that were made for it.
    pub tables_created: Vec<String>,
}

/// Why a changeset is not merged; nothing is changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The database could not be made ready.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Local writes could not be folded first.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A local table's declaration could not be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A table that arrived could not be tracked.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// A table's options are not understood, or do not fit the table that is here.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The bytes are not a changeset.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A table's definition is refused.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Changes between what is known and where the changeset begins are missing.
    #[error(
        "it begins after changes of site {site} that are missing here: export again, with this \
         database's syncline_version_vector()"
    )]
    Gap {
        /// Whose changes.
        site: SiteId,
    },
    /// Rows were deleted and forgotten that may be here, and the changeset does not name the rest.
    #[error(
        "its sender has forgotten deletions that are not known here: import a whole export of it, \
         syncline_export() without an argument; what was written here is kept"
    )]
    Collected,
    /// Its time is too far ahead of this clock.
    #[error(
        "it was written {ahead_ms} ms ahead of this device's clock: correct the clock that is \
         wrong, or import it later"
    )]
    Ahead {
        /// Who wrote it.
        site: SiteId,
        /// By how many milliseconds.
        ahead_ms: u64,
    },
    /// A change claims to be later than the changeset.
    #[error("a change of site {site} is later than the changeset says it reaches")]
    Beyond {
        /// Whose change.
        site: SiteId,
    },
    /// Its cells join, by a policy that this replica does not have for it.
    #[error(
        "cells of `{table}` join on the other device and not here: track it with the same columns' \
         policies on both, as syncline_status() tells them, or update Syncline here"
    )]
    NotHeld {
        /// The table.
        table: String,
    },
    /// Here the table's ids mean something else than there.
    #[error(
        "equal ids of `{table}` are one row on one of the devices and two on the other: untrack it \
         here, give its new rows ids of their own, and track it again with the same `ids`"
    )]
    OtherIds {
        /// The table.
        table: String,
    },
    /// A table is tracked here with other policies.
    #[error(
        "`{table}` is tracked here with other column policies: untrack it here, or there, and track \
         it again with the same `columns`"
    )]
    OtherPolicies {
        /// The table.
        table: String,
    },
    /// What was added to a cell is refused.
    #[error("what a peer added to `{column}` of `{table}` is refused")]
    Delta {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Why.
        source: DeltaError,
    },
    /// The table's name is SQLite's or ours.
    #[error(
        "it changes `{table}`, and names beginning with sqlite_, syncline_ and crsql_ are reserved"
    )]
    Reserved {
        /// The table.
        table: String,
    },
    /// A row lived more often than it can have.
    #[error("a row of `{table}` was deleted and created {lives} times, and had no time for it")]
    Leap {
        /// The table.
        table: String,
        /// The causal length that the change names.
        lives: u64,
    },
}

/// Merges the bytes that [`crate::export`]'s changeset was encoded to. Folds first.
///
/// User triggers do not fire and foreign keys are not checked while it runs: what they did at the
/// origin is part of the changes.
///
/// # Errors
///
/// [`ImportError`]; nothing is changed then.
pub fn import(
    conn: &Connection,
    bytes: &[u8],
    now_unix_ms: u64,
) -> Result<ImportReport, ImportError> {
    import_changeset(conn, &Changeset::decode(bytes)?, now_unix_ms)
}

/// Merges a changeset. See [`import`].
///
/// # Errors
///
/// [`ImportError`]; nothing is changed then.
pub fn import_changeset(
    conn: &Connection,
    changeset: &Changeset,
    now_unix_ms: u64,
) -> Result<ImportReport, ImportError> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS_COUNT);
    prepare(conn)?;
    check(conn, changeset, now_unix_ms)?;
    in_savepoint(conn, || {
        fold(conn, now_unix_ms)?;
        // Another process may have merged in between; the vector only grows, so the check holds.
        let mut report = ImportReport {
            rows_count: changeset.rows_count(),
            ..Default::default()
        };
        let before = shadow::version_vector(conn)?;
        let standing = collect::follow(conn, changeset)?;
        let mut past = Past::of(conn)?;
        if standing == Standing::Behind {
            for table in &changeset.tables {
                parked::drop_seen(conn, &table.name, &changeset.until)?;
            }
        }
        past.rejoin = (standing == Standing::Behind).then(|| Rejoin {
            until: changeset.until.clone(),
            met: BTreeMap::new(),
        });
        let mut adopted = Vec::new();
        let renamed = other_names::take_up(conn, &changeset.renames)?;
        for table in counted_first(&changeset.schemas)? {
            let name = other_names::name_of(conn, &table.name, &changeset.schemas)?;
            let table = &TableSchema {
                name,
                ..table.clone()
            };
            match take_up(conn, table)? {
                Taken::Made => report.tables_created.push(table.name.clone()),
                Taken::Adopted(table) => adopted.push(table),
                Taken::Known => {}
            }
        }
        if !changeset.schemas.is_empty() && key_references::are_outdated(conn)? {
            fold(conn, now_unix_ms)?;
        }
        constraints::renew(conn)?;
        if past.rejoin.is_none() {
            past.filled = gaps::filled(conn, changeset)?;
        }
        report.changed_count = merge_tables(conn, &changeset.tables, &mut past)?;
        // What a row counts as decides who has a unique value.
        let mut claimed = Touched::default();
        for table in adopted {
            if let Some(table) = adoption::claim(conn, table)? {
                let rows = constraints::Rows {
                    is_whole: true,
                    ..constraints::Rows::default()
                };
                claimed.add(table.id, rows);
            }
        }
        report.changed_count += constraints::settle(conn, claimed)?;
        for table in &renamed {
            parked::replay(conn, table, Past::of(conn)?)?;
        }
        if let Some(rejoin) = &past.rejoin {
            let names = changeset.schemas.iter().map(|schema| &schema.name);
            report.changed_count += merging::sweep(conn, names, rejoin)?;
            parked::drop_gone(conn)?;
        }
        let mut sites = Sites::load(conn)?;
        for (site, version) in changeset.until.iter() {
            let ordinal = sites.ordinal(conn, site)?;
            shadow::advance(conn, ordinal, version)?;
            shadow::observe(conn, version)?;
        }
        gaps::note(conn, changeset, &before)?;
        if standing != Standing::Level {
            collect::note(conn, &changeset.collected, &changeset.settled)?;
        }
        lacking::settle(conn, changeset)?;
        constraints::note_schema(conn)?;
        heal::note_checked(conn)?;
        Ok(report)
    })
}

/// How many prepared statements are kept: a few for each table and set of columns.
pub(crate) const STATEMENTS_COUNT: usize = 256;

/// Refuses what must not or cannot be merged now.
fn check(conn: &Connection, changeset: &Changeset, now_unix_ms: u64) -> Result<(), ImportError> {
    let seen = shadow::version_vector(conn)?;
    if let Some((site, _)) = changeset
        .since
        .iter()
        .find(|(site, from)| seen.version(*site) < *from)
    {
        return Err(ImportError::Gap { site });
    }
    for (site, version) in changeset.until.iter() {
        if version.is_ahead_of(now_unix_ms) {
            let ahead_ms = version.unix_ms().saturating_sub(now_unix_ms);
            return Err(ImportError::Ahead { site, ahead_ms });
        }
    }
    let names = changeset.tables.iter().map(|table| &table.name);
    if let Some(name) = names
        .chain(changeset.schemas.iter().map(|schema| &schema.name))
        .find(|name| is_reserved(name))
    {
        return Err(ImportError::Reserved {
            table: name.clone(),
        });
    }
    for table in &changeset.tables {
        // Each birth and each death takes a time of its own, so they cannot be more than the times
        // there were. A peer that could name any number would use the counter up, and the row could
        // never be created again.
        let lives = table
            .groups
            .iter()
            .find(|group| group.causal_length.get() > group.stamp.version.to_bits());
        if let Some(group) = lives {
            return Err(ImportError::Leap {
                table: table.name.clone(),
                lives: group.causal_length.get(),
            });
        }
    }
    let groups = changeset.tables.iter().flat_map(|table| &table.groups);
    let stamps = groups.map(|group| group.stamp);
    let renames = changeset.renames.iter().map(|rename| rename.stamp);
    let schemas = changeset.schemas.iter().map(|schema| schema.stamp);
    for stamp in stamps.chain(schemas).chain(renames) {
        if stamp.version > changeset.until.version(stamp.site) {
            return Err(ImportError::Beyond { site: stamp.site });
        }
    }
    Ok(())
}

/// Returns tables with those before that count their ids: what the keys of others refer to must be
/// known when these are made.
fn counted_first(schemas: &[TableSchema]) -> Result<Vec<&TableSchema>, OptionsError> {
    let mut ordered = Vec::new();
    for schema in schemas {
        let ids = TableOptions::parse(&schema.options)?.ids;
        ordered.push((ids != Ids::Counted, schema));
    }
    ordered.sort_by_key(|(is_other, _)| *is_other);
    Ok(ordered.into_iter().map(|(_, schema)| schema).collect())
}

/// What became of a table's definition that arrived.
enum Taken {
    /// The table is tracked already.
    Known,
    /// The table is here, and is tracked from now on.
    Adopted(adoption::Adopted),
    /// The table was made.
    Made,
}

/// Makes a table that arrived, or tracks the one that is here.
fn take_up(conn: &Connection, schema: &TableSchema) -> Result<Taken, ImportError> {
    let options = TableOptions::parse(&schema.options)?;
    let mut taken = Taken::Known;
    let is_here = TableInfo::read(conn, &schema.name)?.is_some();
    let untracked = untracked::id_of(conn, &schema.name)?;
    match untracked {
        Some(id) if !is_here => track::forget(conn, id)?,
        // What arrives waits until it is tracked again.
        Some(_) => return Ok(Taken::Known),
        None => {}
    }
    if is_here && track::id_of(conn, &schema.name)?.is_none() {
        taken = Taken::Adopted(adoption::adopt(conn, &schema.name, &options)?);
    }
    if let Some(id) = track::id_of(conn, &schema.name)? {
        let here = TableOptions::of(conn, id)?;
        let table = || schema.name.clone();
        if (here.ids == Ids::Counted) != (options.ids == Ids::Counted) {
            return Err(ImportError::OtherIds { table: table() });
        }
        if !other_names::are_same(conn, &schema.name, (&here.joins(), &options.joins()))? {
            return Err(ImportError::OtherPolicies { table: table() });
        }
        take_stamp(conn, schema, id)?;
        return Ok(taken);
    }
    schema::check(schema)?;
    schema::run(conn, schema)?;
    let refused = |obstacle| TrackError::Refused {
        table: schema.name.clone(),
        obstacle,
    };
    let info = TableInfo::read(conn, &schema.name)?;
    let info = info.ok_or_else(|| refused(Obstacle::Missing))?;
    if let Some(obstacle) = obstacle(conn, &info)? {
        return Err(refused(obstacle).into());
    }
    let site = Sites::load(conn)?.ordinal(conn, schema.stamp.site)?;
    let tracked = Clock {
        site,
        version: schema.stamp.version,
        causal_length: 0,
    };
    let options = TableOptions::parse(&schema.options)?;
    let known = options.of_columns_in(&info);
    known.check(&info)?;
    match constraints::check(conn, &info, &known) {
        // A rebuilt table may be without a key that it had when it was tracked.
        Err(OptionsError::NoForeignKey { .. }) => {}
        checked => checked?,
    }
    let table = track::register(conn, &info, &options, tracked)?;
    track::set_origin(conn, table.id, schema.origin)?;
    parked::replay(conn, &schema.name, Past::default())?;
    Ok(Taken::Made)
}

/// Notes when and where a table was first tracked, if that is news, and gives its ids to those who
/// keep them then.
fn take_stamp(conn: &Connection, schema: &TableSchema, id: i64) -> Result<(), ImportError> {
    let mut sites = Sites::load(conn)?;
    if track::tracked_at(conn, &sites, id)? >= schema.stamp {
        return Ok(());
    }
    let site = sites.ordinal(conn, schema.stamp.site)?;
    let set = "UPDATE syncline_tables SET site = ?2, version = ?3 WHERE id = ?1";
    let version = version_to(schema.stamp.version);
    conn.prepare_cached(set)?.execute((id, site, version))?;
    track::set_origin(conn, id, schema.origin)?;
    if let Some(table) = Table::read(conn, id, &schema.name)?.filter(Table::is_counted) {
        let _quiet = Quiet::begin(conn)?;
        let mut placing = Placing::new(conn, &table);
        placing.arrange_all()?;
        let mut renames = Renames::default();
        renames.of(id).note_all(&placing.moved);
        let mut touched = renames.apply(conn)?;
        let ids = placing.moved.iter().flat_map(|(from, to)| [*from, *to]);
        touched.add_moved(id, ids.map(RowKey::Rowid).collect());
        constraints::settle(conn, touched)?;
    }
    Ok(())
}

/// Merges the changes of all tables and returns how many rows look different now. Changes to
/// tables and columns that are not here are parked.
pub(crate) fn merge_tables(
    conn: &Connection,
    tables: &[TableChanges],
    past: &mut Past,
) -> Result<usize, ImportError> {
    let _quiet = Quiet::begin(conn)?;
    let mut merge = Merge {
        conn,
        sites: Sites::load(conn)?,
        changed_count: 0,
        touched: Touched::default(),
        renames: Renames::default(),
    };
    for given in parents_first(conn, tables)? {
        // What is settled says nothing of a table that was lacking.
        let mut nothing = Past::default();
        let past = match past.filled.contains(&given.name.to_ascii_lowercase()) {
            true => &mut nothing,
            false => &mut *past,
        };
        merge.table(given, past)?;
    }
    let mut touched = merge.touched;
    touched.join(merge.renames.apply(conn)?);
    Ok(merge.changed_count + constraints::settle(conn, touched)?)
}

/// A merge of several tables.
struct Merge<'a> {
    conn: &'a Connection,
    sites: Sites,
    changed_count: usize,
    touched: Touched,
    renames: Renames,
}

impl Merge<'_> {
    /// Merges the changes of one table.
    fn table(&mut self, given: &TableChanges, past: &mut Past) -> Result<(), ImportError> {
        let conn = self.conn;
        let table = other_names::table(conn, &given.name)?;
        let changes = match &table {
            Some(table) => other_names::local(conn, table, given)?,
            None => Cow::Borrowed(given),
        };
        // A key of other columns names other rows: they wait until the table has that key.
        let Some(table) = table.filter(|table| table.has_key(&changes.key_columns)) else {
            let mut changes = given.clone();
            // What is settled was parked before, or is of a row that is forgotten.
            changes.groups.retain(|group| !past.has(group.stamp));
            parked::park(conn, changes, past)?;
            return Ok(());
        };
        let is_born = |group: &Group| group.born != SiteId::default();
        if table.options.ids != Ids::Counted && changes.groups.iter().any(is_born) {
            return Err(ImportError::OtherIds {
                table: changes.name.clone(),
            });
        }
        watermark::settle(conn, &table)?;
        let Fitted { changes, unfit } = fit(conn, &table, &changes)?;
        let bound = match table.shape.refers() {
            true => {
                let merge = (&mut self.sites, &mut self.renames, &mut self.touched);
                Some(key_references::bind(conn, &table, &changes, merge)?)
            }
            false => None,
        };
        let groups = bound.as_ref().unwrap_or(&changes.groups);
        let mut merging = Merging::new(conn, &table, &changes, past, &mut self.renames)?;
        for (group, told) in groups.iter().zip(&changes.groups) {
            let site = self.sites.ordinal(conn, group.stamp.site)?;
            merging.group((group, told), site, &mut self.sites)?;
        }
        self.changed_count += merging.changed_count;
        // What was added here is not the user's.
        watermark::raise(conn, &table)?;
        let mut groups = merging.lacking;
        groups.extend(unfit);
        self.touched.add(table.id, merging.guard.into_touched());
        if !groups.is_empty() {
            let mut waiting = TableChanges {
                groups,
                ..given.without_groups()
            };
            parked::retain_living(conn, &table, &mut waiting)?;
            parked::park(conn, waiting, past)?;
        }
        Ok(())
    }
}

/// Returns tables after those that they refer to, as far as that is possible: a reference to a row
/// that is there needs no second look. Those whose keys refer to rows are the last, since no row of
/// theirs can be found before it is known under which ids the others are shown.
fn parents_first<'c>(
    conn: &Connection,
    tables: &'c [TableChanges],
) -> Result<Vec<&'c TableChanges>, ImportError> {
    let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
    let mut changes_of: Vec<Vec<&TableChanges>> = Vec::new();
    for changes in tables {
        let next = changes_of.len();
        let at = *nodes
            .entry(changes.name.to_ascii_lowercase())
            .or_insert(next);
        if at == next {
            changes_of.push(Vec::new());
        }
        changes_of[at].push(changes);
    }
    // For each table, what waits for it, and how many it waits for itself.
    let mut children = vec![Vec::new(); changes_of.len()];
    let mut waits_for = vec![0_usize; changes_of.len()];
    for (at, changes) in changes_of.iter().enumerate() {
        let Some(table) = Table::named(conn, &changes[0].name)? else {
            continue;
        };
        let refers = table.columns.iter().filter_map(|c| c.refers.as_ref());
        let parents: BTreeSet<_> = refers.map(|to| to.table.to_ascii_lowercase()).collect();
        let parents = parents.iter().filter_map(|name| nodes.get(name));
        for parent in parents.filter(|parent| **parent != at) {
            children[*parent].push(at);
            waits_for[at] += 1;
        }
    }
    let mut left: BTreeSet<usize> = (0..changes_of.len()).collect();
    let mut free: BTreeSet<usize> = left.clone();
    free.retain(|at| waits_for[*at] == 0);
    let mut ordered = Vec::new();
    // Of tables that refer to each other in a circle, any may be the first.
    while let Some(at) = free.pop_first().or_else(|| left.first().copied()) {
        left.remove(&at);
        ordered.append(&mut changes_of[at]);
        for child in std::mem::take(&mut children[at]) {
            waits_for[child] -= 1;
            if waits_for[child] == 0 && left.contains(&child) {
                free.insert(child);
            }
        }
    }
    let mut of_rows = Vec::new();
    for changes in ordered {
        let table = other_names::table(conn, &changes.name)?;
        of_rows.push((table.is_some_and(|table| table.shape.refers()), changes));
    }
    of_rows.sort_by_key(|(refers, _)| *refers);
    Ok(of_rows.into_iter().map(|(_, changes)| changes).collect())
}

/// The clock of a write by the site with this ordinal.
fn written(site: i64, version: Hlc) -> Clock {
    Clock {
        site,
        version,
        causal_length: 0,
    }
}
