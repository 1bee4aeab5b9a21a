//! Keys that refer to rows of tables with counted ids, such as those of a table that joins two
//! others: from ids to the rows that are meant, and back.
//!
//! Such a key holds the ids that these rows have here, and so does all that is kept under it: clocks,
//! lives, parked rows, masks. It follows when the rows move, see [`crate::moved_keys`]. Only what is
//! told to others and what they tell is translated: there a row is known by numbers and the sites
//! that created the rows which it refers to.
//!
//! An id that names no row means the row of this replica that has that number and is yet to come, so
//! every integer in such a key has a site.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use syncline_crdt::{Group, SiteId, TableChanges, Value, pack_key};

use crate::constraints::{Touched, store};
use crate::placing::{Identity, Placing};
use crate::rekeyed;
use crate::renames::Renames;
use crate::rows::key_from;
use crate::shadow::{OWN, Sites};
use crate::table::{KeyKind, RowKey, Table, TableError};
use crate::whose::Whose;

/// Looks up which rows the keys of one table mean.
#[derive(Debug)]
pub(crate) struct KeyNames {
    columns: Vec<(usize, Whose)>,
    key_count: usize,
}

impl KeyNames {
    /// Returns `None` for a table whose key refers to no rows.
    pub(crate) fn new(conn: &Connection, table: &Table) -> rusqlite::Result<Option<Self>> {
        let columns = table.key_references();
        let columns = columns.map(|(at, parent)| Ok((at, Whose::new(conn, parent)?)));
        let columns: Vec<_> = columns.collect::<rusqlite::Result<_>>()?;
        let key_count = table.key_columns.len();
        Ok((!columns.is_empty()).then_some(KeyNames { columns, key_count }))
    }

    /// Puts numbers in the place of the ids in a key, and returns the sites that created the rows
    /// which it refers to: one for each column of the key.
    pub(crate) fn tell(
        &mut self,
        conn: &Connection,
        key: &mut [Value],
    ) -> rusqlite::Result<Vec<Option<i64>>> {
        let mut sites = vec![None; self.key_count];
        for (at, whose) in &mut self.columns {
            if let Value::Integer(id) = key[*at] {
                let (number, site) = whose.at(conn, id)?.unwrap_or((id, OWN));
                key[*at] = Value::Integer(number);
                sites[*at] = Some(site);
            }
        }
        Ok(sites)
    }

    /// Returns what names the row with a key whatever ids others have here: as a packed key, with the
    /// ordinals of sites behind it.
    pub(crate) fn name(&mut self, conn: &Connection, key: &RowKey) -> rusqlite::Result<RowKey> {
        let mut key = store::unpacked(key);
        let sites = self.tell(conn, &mut key)?;
        key.extend(sites.into_iter().flatten().map(Value::Integer));
        Ok(RowKey::Packed(pack_key(&key)))
    }
}

/// Returns the rows of a table whose key refers to others, shown and parked: where they are, and what
/// names them.
pub(crate) fn named(
    conn: &Connection,
    table: &Table,
) -> rusqlite::Result<BTreeMap<RowKey, RowKey>> {
    let mut named = BTreeMap::new();
    let Some(mut names) = KeyNames::new(conn, table)? else {
        return Ok(named);
    };
    let rowid = match table.kind {
        KeyKind::Packed => "NULL",
        KeyKind::Integer | KeyKind::Rowid => &table.rowid,
    };
    let select = format!(
        "SELECT {rowid}, {} FROM main.{}",
        table.key_list(),
        table.quoted()
    );
    let mut statement = conn.prepare(&select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = table.life_key(&key_from(row, 1, table.key_columns.len())?);
        let name = names.name(conn, &key)?;
        let rowid: Option<i64> = row.get(0)?;
        named.insert(rowid.map_or(key, RowKey::Rowid), name);
    }
    for place in store::places(conn, table.id)? {
        let name = names.name(conn, &place)?;
        named.insert(place, name);
    }
    Ok(named)
}

/// Returns sites by which a key is told, as far as there are any.
pub(crate) fn origins(sites: &Sites, told: &[Option<i64>]) -> Vec<SiteId> {
    let site = |site: &Option<i64>| site.map_or(SiteId::default(), |site| sites.site(site));
    told.iter().map(site).collect()
}

/// Whether a group's keys name rows as the keys of this table do.
pub(crate) fn fit(table: &Table, group: &Group) -> bool {
    let key_count = table.key_columns.len();
    let has_parent = |at: usize| {
        let parent = group.parents.get(at).copied().unwrap_or_default();
        parent != SiteId::default()
    };
    let refers: BTreeSet<usize> = table.key_references().map(|(at, _)| at).collect();
    let width = key_count + group.columns.len();
    (0..key_count).all(|at| {
        let of_rows = group.values.iter().skip(at).step_by(width);
        match refers.contains(&at) {
            true => of_rows
                .map(|value| matches!(value, Value::Integer(_)))
                .all(|is_number| is_number == has_parent(at)),
            false => !has_parent(at),
        }
    })
}

/// Whether a group's keys refer to rows.
pub(crate) fn refer(group: &Group, key_count: usize) -> bool {
    let mut parents = group.parents.iter().take(key_count);
    parents.any(|parent| *parent != SiteId::default())
}

/// The ids of rows that keys refer to: by the place in the key, and by number and site.
type Ids = BTreeMap<(usize, Identity), i64>;

/// Returns a table's groups, all of which fit, with the ids that the rows which their keys refer to
/// have here, or are kept for them. Cells and keys that follow rows which moved for this do so at
/// once.
pub(crate) fn bind(
    conn: &Connection,
    table: &Table,
    changes: &TableChanges,
    (sites, renames, touched): (&mut Sites, &mut Renames, &mut Touched),
) -> Result<Vec<Group>, TableError> {
    let wanted = wanted(conn, table, changes, sites)?;
    loop {
        touched.join(std::mem::take(renames).apply(conn)?);
        let mut ids = Ids::new();
        let mut is_stable = true;
        for (at, parent) in table.key_references() {
            let Some(parent) = Table::by_id(conn, parent)? else {
                continue;
            };
            let mut placing = Placing::new(conn, &parent);
            let of_column = (at, (i64::MIN, i64::MIN))..=(at, (i64::MAX, i64::MAX));
            for (_, identity) in wanted.range(of_column) {
                ids.insert((at, *identity), placing.keep(*identity)?);
            }
            if !placing.moved.is_empty() {
                is_stable = false;
                let places = placing.moved.iter().flat_map(|(from, to)| [*from, *to]);
                touched.add_moved(parent.id, places.map(RowKey::Rowid).collect());
                renames.of(parent.id).note_all(&placing.moved);
            }
        }
        if is_stable {
            return Ok(bound(conn, table, changes, (sites, &ids))?);
        }
    }
}

/// Returns the rows that the keys of some changes refer to.
fn wanted(
    conn: &Connection,
    table: &Table,
    changes: &TableChanges,
    sites: &mut Sites,
) -> rusqlite::Result<BTreeSet<(usize, Identity)>> {
    let key_count = table.key_columns.len();
    let mut wanted = BTreeSet::new();
    for group in &changes.groups {
        for (at, _) in table.key_references() {
            let Some(site) = parent(conn, group, at, sites)? else {
                continue;
            };
            let width = key_count + group.columns.len();
            for value in group.values.iter().skip(at).step_by(width) {
                if let Value::Integer(number) = value {
                    wanted.insert((at, (*number, site)));
                }
            }
        }
    }
    Ok(wanted)
}

fn bound(
    conn: &Connection,
    table: &Table,
    changes: &TableChanges,
    (sites, ids): (&mut Sites, &Ids),
) -> rusqlite::Result<Vec<Group>> {
    let mut groups = changes.groups.clone();
    for group in &mut groups {
        let width = table.key_columns.len() + group.columns.len();
        for (at, _) in table.key_references() {
            let Some(site) = parent(conn, group, at, sites)? else {
                continue;
            };
            for value in group.values.iter_mut().skip(at).step_by(width) {
                if let Value::Integer(number) = value
                    && let Some(id) = ids.get(&(at, (*number, site)))
                {
                    *number = *id;
                }
            }
        }
    }
    Ok(groups)
}

/// Returns the ordinal of the site that created the rows which a group's keys refer to.
fn parent(
    conn: &Connection,
    group: &Group,
    at: usize,
    sites: &mut Sites,
) -> rusqlite::Result<Option<i64>> {
    match group.parents.get(at) {
        Some(site) if *site != SiteId::default() => sites.ordinal(conn, *site).map(Some),
        _ => Ok(None),
    }
}

/// Puts the ids that rows have here in the place of their numbers in a key of a group. Returns
/// whether all of them have one.
pub(crate) fn find(
    conn: &Connection,
    table: &Table,
    (group, key): (&Group, &mut [Value]),
    sites: &Sites,
) -> Result<bool, TableError> {
    for (at, parent) in table.key_references() {
        let site = group.parents.get(at).copied().unwrap_or_default();
        let mut known = sites.iter().filter(|(_, id, _)| *id == site);
        let Value::Integer(number) = key[at] else {
            continue;
        };
        let (Some((site, _, _)), Some(parent)) = (known.next(), Table::by_id(conn, parent)?) else {
            return Ok(false);
        };
        let id = match Placing::new(conn, &parent).find((number, site))? {
            Some(id) => Some(id),
            None => rekeyed::of(conn, parent.id, (number, site))?.map(|entry| entry.id),
        };
        let Some(id) = id else {
            return Ok(false);
        };
        key[at] = Value::Integer(id);
    }
    Ok(true)
}

/// Whether the key of a tracked table refers to other rows than it did when it was noted: what it is
/// declared to refer to was tracked or untracked since.
pub(crate) fn are_outdated(conn: &Connection) -> Result<bool, TableError> {
    let all = "SELECT id, name, shape FROM syncline_tables WHERE aside IS NULL";
    let mut statement = conn.prepare_cached(all)?;
    let all = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let all: Vec<(i64, String, String)> = all.collect::<Result<_, _>>()?;
    for (id, name, shape) in all {
        if let Some(table) = Table::read(conn, id, &name)?
            && table.shape.to_text() != shape
        {
            return Ok(true);
        }
    }
    Ok(false)
}
