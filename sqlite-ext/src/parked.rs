//! Changes to tables and columns that are not here yet: kept until they are, and passed on.

mod known;

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use syncline_crdt::{
    CausalLength, Changeset, Group, GroupKind, SiteId, Stamp, TableChanges, Value, VersionVector,
    pack_key,
};

use crate::apply::{ImportError, merge_tables};
use crate::births::life_lane;
use crate::clocks::{self, LIFE, Lane};
use crate::collect::Past;
use crate::constraints::store as stored;
use crate::placing::Placing;
use crate::shadow::{OWN, Sites, in_savepoint};
use crate::table::{RowKey, Table, TableError, canonical};
use crate::{key_references, other_names, rows, untracked};

/// Keeps a table's changes for later, as far as they do not wait already. What has waited is no
/// second time among them.
pub(crate) fn park(
    conn: &Connection,
    mut table: TableChanges,
    past: &Past,
) -> rusqlite::Result<()> {
    if !past.was_parked {
        known::drop_known(conn, &mut table)?;
    }
    if table.groups.is_empty() {
        return Ok(());
    }
    let name = table.name.clone();
    let changes = Changeset {
        tables: vec![table],
        ..Changeset::default()
    };
    let insert = "INSERT INTO syncline_parked(name, changes) VALUES(?1, ?2)";
    conn.prepare_cached(insert)?
        .execute(params![name, changes.encode()])?;
    Ok(())
}

/// Merges what waited for a table; `past` is empty if no row of the table was here before. What of
/// it still has no place waits on; merging the rest a second time changes nothing.
pub(crate) fn replay(conn: &Connection, name: &str, mut past: Past) -> rusqlite::Result<()> {
    let sql = "SELECT id, changes FROM syncline_parked WHERE name = ?1 COLLATE NOCASE";
    let mut statement = conn.prepare_cached(sql)?;
    let mut waiting: Vec<(i64, Vec<u8>)> = Vec::new();
    for name in other_names::names(conn, name)? {
        let found = statement.query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        waiting.extend(found.collect::<Result<Vec<_>, _>>()?);
    }
    waiting.sort_unstable_by_key(|(id, _)| *id);
    past.was_parked = true;
    for (id, bytes) in waiting {
        let merged = in_savepoint(conn, || {
            // First, because what has no place is parked again.
            let take = "DELETE FROM syncline_parked WHERE id = ?1";
            conn.prepare_cached(take)?.execute([id])?;
            let changeset = Changeset::decode(&bytes)?;
            merge_tables(conn, &changeset.tables, &mut past)
        });
        // Whatever else is wrong with it must not keep the rest from going on.
        if let Err(ImportError::Sqlite(error)) = merged {
            return Err(error);
        }
    }
    Ok(())
}

/// Returns the parked changes whose table and stamp pass `is_new`, so that they are passed on
/// although this replica cannot show them.
pub(crate) fn changes(
    conn: &Connection,
    is_new: impl Fn(&str, Stamp) -> bool,
) -> rusqlite::Result<Vec<TableChanges>> {
    let mut found = Vec::new();
    for (_, parked) in all(conn)? {
        for mut table in parked.tables {
            let name = &table.name;
            table.groups.retain(|group| is_new(name, group.stamp));
            if !table.groups.is_empty() {
                found.push(table);
            }
        }
    }
    Ok(found)
}

/// Takes from changes that wait for a column of `table` what is of rows that do not live here, or
/// of lives that did not begin here: it could only undo elsewhere what was decided here.
pub(crate) fn retain_living(
    conn: &Connection,
    table: &Table,
    changes: &mut TableChanges,
) -> Result<(), TableError> {
    let sites = Sites::load(conn)?;
    let key_count = changes.key_columns.len();
    for group in &mut changes.groups {
        let fits = key_references::fit(table, group);
        let values = std::mem::take(&mut group.values);
        let mut known = sites.iter().filter(|(_, site, _)| *site == group.born);
        let born = known.next().map(|(ordinal, _, _)| ordinal);
        for row in values.chunks(key_count + group.columns.len()) {
            // A key that no row here can have waits for another table, and is gone in no sense.
            let stays = match rows::native_key(conn, table, &row[..key_count])? {
                Some(mut key) if fits => {
                    let life = match key_references::find(conn, table, (group, &mut key), &sites)? {
                        true => life(conn, table, &key, born)?,
                        false => CausalLength::UNKNOWN,
                    };
                    life >= group.causal_length
                }
                _ => true,
            };
            if stays {
                group.values.extend_from_slice(row);
            }
        }
    }
    changes.groups.retain(|group| !group.values.is_empty());
    Ok(())
}

/// Returns which life a row is in; [`CausalLength::UNKNOWN`] if it does not live here.
/// `born` is the site that created it.
fn life(
    conn: &Connection,
    table: &Table,
    key: &[Value],
    born: Option<i64>,
) -> rusqlite::Result<CausalLength> {
    let place = stored::place(table, key);
    let is_here = match (&place, born) {
        (RowKey::Rowid(number), Some(born)) if table.is_counted() => {
            Placing::new(conn, table).find((*number, born))?.is_some()
        }
        _ if table.is_counted() => false,
        _ => rows::place(conn, table, key)?.is_some() || stored::contains(conn, table.id, &place)?,
    };
    if !is_here {
        return Ok(CausalLength::UNKNOWN);
    }
    let lane = life_lane(table, born.unwrap_or(OWN));
    let life = clocks::at(conn, lane, &place)?;
    let life = life.and_then(|clock| CausalLength::new(clock.causal_length));
    Ok(life.unwrap_or(CausalLength::FIRST))
}

/// Removes what waits for columns of rows that do not live here, after deletions were forgotten.
pub(crate) fn drop_gone(conn: &Connection) -> Result<(), TableError> {
    for (id, mut parked) in all(conn)? {
        let before = parked.rows_count();
        for changes in &mut parked.tables {
            let table = Table::named(conn, &changes.name)?;
            if let Some(table) = table.filter(|table| table.has_key(&changes.key_columns)) {
                retain_living(conn, &table, changes)?;
            }
        }
        if parked.rows_count() < before {
            store(conn, id, parked)?;
        }
    }
    Ok(())
}

/// Removes a table's parked changes up to `until`, before all that a replica has which has seen
/// them is merged: it passes on what still counts.
pub(crate) fn drop_seen(
    conn: &Connection,
    name: &str,
    until: &VersionVector,
) -> rusqlite::Result<()> {
    for (id, mut changes) in all(conn)? {
        for table in changes.tables.iter_mut().filter(|table| table.name == name) {
            table
                .groups
                .retain(|group| group.stamp.version > until.version(group.stamp.site));
        }
        store(conn, id, changes)?;
    }
    Ok(())
}

/// A row among parked changes: its table, which site made it, its key, and which sites made the rows
/// that the key refers to.
type Name = (String, SiteId, Vec<Value>, Vec<SiteId>);

/// Removes the deletions up to `below` and, of the rows they name, all that is settled. Returns how
/// many deletions there were, and notes the latest of each site in `collected`.
pub(crate) fn forget(
    conn: &Connection,
    below: &VersionVector,
    settled: &VersionVector,
    collected: &mut VersionVector,
) -> rusqlite::Result<usize> {
    let parked = all(conn)?;
    let mut dead: BTreeMap<Name, CausalLength> = BTreeMap::new();
    for table in parked.iter().flat_map(|(_, changes)| &changes.tables) {
        let is_stable = |group: &&Group| {
            group.kind == GroupKind::Life
                && !group.causal_length.is_alive()
                && group.stamp.version <= below.version(group.stamp.site)
        };
        for group in table.groups.iter().filter(is_stable) {
            collected.advance(group.stamp.site, group.stamp.version);
            for row in group.values.chunks(table.key_columns.len()) {
                let length = dead.entry(name(table, group, row)).or_default();
                *length = group.causal_length.max(*length);
            }
        }
    }
    if dead.is_empty() {
        return Ok(0);
    }
    for (name, _, key, parents) in dead.keys() {
        // Where keys refer to rows, a table that stood aside begins anew.
        if parents.is_empty()
            && let Some(id) = untracked::id_of_aside(conn, name)?
        {
            untracked::note_gone(conn, id, key)?;
        }
    }
    for (id, mut changes) in parked {
        for table in &mut changes.tables {
            drop_rows(table, &dead, settled);
        }
        store(conn, id, changes)?;
    }
    Ok(dead.len())
}

/// Removes what waits for tables that stand aside of rows whose deletion, up to `below`, is known
/// here: before that is forgotten.
pub(crate) fn drop_ended(
    conn: &Connection,
    sites: &Sites,
    below: &VersionVector,
) -> rusqlite::Result<()> {
    for (id, mut parked) in all(conn)? {
        let before = parked.rows_count();
        for changes in &mut parked.tables {
            let Some(table_id) = untracked::id_of_aside(conn, &changes.name)? else {
                continue;
            };
            let lane = Lane {
                table_id,
                lane: LIFE,
            };
            let key_count = changes.key_columns.len();
            let of_keys = changes.groups.iter_mut();
            for group in of_keys.filter(|group| !key_references::refer(group, key_count)) {
                let values = std::mem::take(&mut group.values);
                for row in values.chunks(key_count + group.columns.len()) {
                    let life = clocks::at(conn, lane, &place(&row[..key_count]))?;
                    let has_ended = life.is_some_and(|life| {
                        let stamp = sites.stamp(life.site, life.version);
                        life.causal_length % 2 == 0
                            && life.causal_length >= group.causal_length.get()
                            && stamp.version <= below.version(stamp.site)
                    });
                    if !has_ended {
                        group.values.extend_from_slice(row);
                    }
                }
            }
            changes.groups.retain(|group| !group.values.is_empty());
        }
        if parked.rows_count() < before {
            store(conn, id, parked)?;
        }
    }
    Ok(())
}

/// Returns where a row keeps its causal length, of a table that cannot be read as it is.
fn place(key: &[Value]) -> RowKey {
    match key {
        [Value::Integer(number)] => RowKey::Rowid(*number),
        key => RowKey::Packed(pack_key(&canonical(key))),
    }
}

fn all(conn: &Connection) -> rusqlite::Result<Vec<(i64, Changeset)>> {
    let all = "SELECT id, changes FROM syncline_parked ORDER BY id";
    let mut statement = conn.prepare_cached(all)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let decode = |row: rusqlite::Result<(i64, Vec<u8>)>| {
        let (id, bytes) = row?;
        let changes = Changeset::decode(&bytes).expect("parked changes were encoded here");
        Ok((id, changes))
    };
    rows.map(decode).collect()
}

/// Stores what is left of parked changes.
fn store(conn: &Connection, id: i64, mut changes: Changeset) -> rusqlite::Result<()> {
    changes.tables.retain(|table| !table.groups.is_empty());
    if changes.tables.is_empty() {
        let delete = "DELETE FROM syncline_parked WHERE id = ?1";
        conn.prepare_cached(delete)?.execute([id])?;
    } else {
        let update = "UPDATE syncline_parked SET changes = ?2 WHERE id = ?1";
        conn.prepare_cached(update)?
            .execute(params![id, changes.encode()])?;
    }
    Ok(())
}

fn name(table: &TableChanges, group: &Group, row: &[Value]) -> Name {
    let key_count = table.key_columns.len();
    let key = canonical(&row[..key_count]);
    let parents = match key_references::refer(group, key_count) {
        true => group.parents[..key_count].to_vec(),
        false => Vec::new(),
    };
    (table.name.clone(), group.born, key, parents)
}

/// Takes from a table's changes what belongs to rows that are dead, up to the life that ended.
fn drop_rows(
    table: &mut TableChanges,
    dead: &BTreeMap<Name, CausalLength>,
    settled: &VersionVector,
) {
    let mut groups = std::mem::take(&mut table.groups);
    for group in &mut groups {
        if settled.version(group.stamp.site) < group.stamp.version {
            continue;
        }
        let width = table.key_columns.len() + group.columns.len();
        let stays = |row: &&[Value]| {
            let ended = dead.get(&name(table, group, row));
            ended.is_none_or(|ended| group.causal_length > *ended)
        };
        let values = group.values.chunks(width).filter(stays);
        group.values = values.flatten().cloned().collect();
    }
    groups.retain(|group| !group.values.is_empty());
    table.groups = groups;
}
