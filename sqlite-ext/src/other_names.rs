//! Columns and tables that were renamed, here and elsewhere: changes under either name mean the one
//! that is here.
//!
//! A device that renames a column goes on to send it under the new name, and others under the old
//! one, until they rename it too. So a rename travels, and every replica takes the names that any
//! rename connects for one column, as long as it has just one of them. The same goes for tables.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use syncline_crdt::{Hlc, Rename, Stamp, TableChanges, TableSchema};

use crate::shadow::{OWN, Sites, version_from, version_to};
use crate::table::{Column, Table, TableError, TableInfo};
use crate::track;

/// Where a rename names the column's table, if it is a table that was renamed.
pub(crate) const TABLES: &str = "";

/// Notes a rename of this replica's own.
pub(crate) fn note_own(
    conn: &Connection,
    table: &str,
    former: &str,
    name: &str,
    version: Hlc,
) -> rusqlite::Result<()> {
    put(conn, [table, former, name], OWN, version)
}

fn put(conn: &Connection, names: [&str; 3], site: i64, version: Hlc) -> rusqlite::Result<()> {
    let put = "INSERT OR REPLACE INTO syncline_renames(table_name, former, name, site, version)
        VALUES(?1, ?2, ?3, ?4, ?5)";
    let [table, former, name] = names;
    let values = (table, former, name, site, version_to(version));
    conn.prepare_cached(put)?.execute(values)?;
    Ok(())
}

/// Notes renames that arrived. Returns the tables, by any of their names, of those that were not
/// known.
pub(crate) fn take_up(conn: &Connection, renames: &[Rename]) -> rusqlite::Result<BTreeSet<String>> {
    let mut tables = BTreeSet::new();
    if renames.is_empty() {
        return Ok(tables);
    }
    let mut sites = Sites::load(conn)?;
    let names = |rename: &Rename| {
        [&rename.table, &rename.former, &rename.name].map(|name| name.to_ascii_lowercase())
    };
    let known = all(conn, &sites)?;
    let mut known: BTreeMap<_, _> = known.iter().map(|r| (names(r), r.stamp)).collect();
    for rename in renames {
        let stamp = known.get(&names(rename)).copied();
        if stamp.is_none() {
            let table = if rename.table == TABLES {
                &rename.name
            } else {
                &rename.table
            };
            tables.insert(table.clone());
        }
        // The later stamp stays: whoever has seen it knows the rename.
        if stamp.is_none_or(|stamp| stamp < rename.stamp) {
            known.insert(names(rename), rename.stamp);
            let site = sites.ordinal(conn, rename.stamp.site)?;
            let all = [&rename.table[..], &rename.former, &rename.name];
            put(conn, all, site, rename.stamp.version)?;
        }
    }
    Ok(tables)
}

/// Returns the renames whose stamp passes `is_new`.
pub(crate) fn changes(
    conn: &Connection,
    sites: &Sites,
    is_new: impl Fn(Stamp) -> bool,
) -> rusqlite::Result<Vec<Rename>> {
    let mut renames = all(conn, sites)?;
    renames.retain(|rename| is_new(rename.stamp));
    Ok(renames)
}

fn all(conn: &Connection, sites: &Sites) -> rusqlite::Result<Vec<Rename>> {
    let all = "SELECT table_name, former, name, site, version FROM syncline_renames
        ORDER BY table_name, former, name";
    let mut statement = conn.prepare_cached(all)?;
    let renames = statement.query_map([], |row| {
        Ok(Rename {
            table: row.get(0)?,
            former: row.get(1)?,
            name: row.get(2)?,
            stamp: sites.stamp(row.get(3)?, version_from(row.get(4)?)?),
        })
    })?;
    renames.collect()
}

/// For each name in lower case, the names that a rename connects with it.
type Pairs = BTreeMap<String, BTreeSet<String>>;

/// Returns the pairs of names that renames connect, of tables or of the columns of a table by any of
/// its names.
fn pairs(conn: &Connection, tables: &BTreeSet<String>) -> rusqlite::Result<Pairs> {
    let pairs = "SELECT lower(former), lower(name), lower(table_name) FROM syncline_renames";
    let mut statement = conn.prepare_cached(pairs)?;
    let mut rows = statement.query([])?;
    let mut pairs = Pairs::new();
    while let Some(row) = rows.next()? {
        if tables.contains(&row.get::<_, String>(2)?) {
            let (former, name): (String, String) = (row.get(0)?, row.get(1)?);
            pairs
                .entry(former.clone())
                .or_default()
                .insert(name.clone());
            pairs.entry(name).or_default().insert(former);
        }
    }
    Ok(pairs)
}

/// Returns all names of a table, in lower case, the given one among them.
pub(crate) fn names(conn: &Connection, table: &str) -> rusqlite::Result<BTreeSet<String>> {
    let pairs = pairs(conn, &BTreeSet::from([TABLES.to_owned()]))?;
    Ok(connected(table, &pairs))
}

/// Returns the tracked table that a name means here, if there is just one.
pub(crate) fn table(conn: &Connection, name: &str) -> Result<Option<Table>, TableError> {
    if let Some(table) = Table::named(conn, name)? {
        return Ok(Some(table));
    }
    let mut found = Vec::new();
    for name in names(conn, name)? {
        found.extend(Table::named(conn, &name)?);
    }
    Ok(if found.len() == 1 { found.pop() } else { None })
}

/// Returns the name that a table has here, if it is or was tracked under another one; else the given
/// name.
pub(crate) fn name_here(conn: &Connection, name: &str) -> Result<String, TableError> {
    let is_free = track::id_of(conn, name)?.is_none() && TableInfo::read(conn, name)?.is_none();
    let table = if is_free { table(conn, name)? } else { None };
    if !is_free || table.is_some() {
        return Ok(table.map_or_else(|| name.to_owned(), |table| table.name));
    }
    // One that was untracked, or stands aside, is the same table still.
    let mut found = Vec::new();
    for other in names(conn, name)? {
        let is_known = track::id_of(conn, &other)?.is_some();
        found.extend(TableInfo::read(conn, &other)?.filter(|_| is_known));
    }
    let only = if found.len() == 1 { found.pop() } else { None };
    Ok(only.map_or_else(|| name.to_owned(), |info| info.name))
}

/// Returns the name that a table which arrives has here. Tables that arrive together are several,
/// also where one of them has a name that another one had before.
pub(crate) fn name_of(
    conn: &Connection,
    name: &str,
    together: &[TableSchema],
) -> Result<String, TableError> {
    let here = name_here(conn, name)?;
    let is_another = together.iter().any(|table| is(&table.name, &here));
    Ok(if is_another { name.to_owned() } else { here })
}

/// Returns a table's changes under the names that its columns have here.
pub(crate) fn local<'c>(
    conn: &Connection,
    table: &Table,
    changes: &'c TableChanges,
) -> rusqlite::Result<Cow<'c, TableChanges>> {
    let columns: Vec<&Column> = table.captured().collect();
    let key_columns: Vec<&Column> = table.key_columns.iter().collect();
    let is_here = |names: &[String], columns: &[&Column]| {
        names
            .iter()
            .all(|name| columns.iter().any(|column| is(name, &column.name)))
    };
    if is_here(&changes.key_columns, &key_columns) && is_here(&changes.columns, &columns) {
        return Ok(Cow::Borrowed(changes));
    }
    let pairs = pairs(conn, &names(conn, &table.name)?)?;
    if pairs.is_empty() {
        return Ok(Cow::Borrowed(changes));
    }
    Ok(Cow::Owned(TableChanges {
        key_columns: mapped(&changes.key_columns, &key_columns, &pairs),
        columns: mapped(&changes.columns, &columns, &pairs),
        ..changes.clone()
    }))
}

/// Whether what two replicas say of a table's columns is the same, under whatever names.
pub(crate) fn are_same<T: PartialEq>(
    conn: &Connection,
    table: &str,
    (here, there): (&BTreeMap<String, T>, &BTreeMap<String, T>),
) -> rusqlite::Result<bool> {
    if here == there {
        return Ok(true);
    }
    let pairs = pairs(conn, &names(conn, table)?)?;
    let has = |(name, said): (&String, &T)| {
        let names = connected(name, &pairs);
        let mut found = there.iter().filter(|(name, _)| names.contains(*name));
        found.next().is_some_and(|(_, other)| other == said) && found.next().is_none()
    };
    Ok(here.len() == there.len() && here.iter().all(has))
}

fn is(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// Returns names with those that are not here replaced by those that are. A name that the sender
/// has too means its own column, on both sides.
fn mapped(given: &[String], here: &[&Column], pairs: &Pairs) -> Vec<String> {
    let mut names: Vec<String> = given.to_vec();
    for at in 0..names.len() {
        if here.iter().any(|column| is(&column.name, &names[at])) {
            continue;
        }
        let connected = connected(&names[at], pairs);
        let mut candidates = here.iter().map(|column| &column.name).filter(|name| {
            connected.contains(&name.to_ascii_lowercase()) && !names.iter().any(|n| is(n, name))
        });
        let only = match (candidates.next(), candidates.next()) {
            (Some(only), None) => Some(only.clone()),
            _ => None,
        };
        if let Some(only) = only {
            names[at] = only;
        }
    }
    names
}

/// Returns all names that renames connect with one, itself among them.
fn connected(name: &str, pairs: &Pairs) -> BTreeSet<String> {
    let mut found = BTreeSet::from([name.to_ascii_lowercase()]);
    let mut left: Vec<String> = found.iter().cloned().collect();
    while let Some(name) = left.pop() {
        for other in pairs.get(&name).into_iter().flatten() {
            if found.insert(other.clone()) {
                left.push(other.clone());
            }
        }
    }
    found
}
