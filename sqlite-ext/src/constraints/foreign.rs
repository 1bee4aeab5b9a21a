//! Foreign keys between tracked tables: what is declared, and what becomes of rows without a parent.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::{nullable, unique};
use crate::options::{ForeignKeyPolicy, KEY_SEPARATOR, OptionsError, TableOptions};
use crate::shape::Affinity;
use crate::table::{Table, TableError, TableInfo, list};
use crate::value::quoted;

/// A foreign key of a tracked table whose parent is a tracked table too, or the table itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct ForeignKey {
    /// What it is called where it is told: the same on every replica.
    pub(crate) label: String,
    /// The columns that refer, in the order of the parent's key.
    pub(crate) columns: Vec<String>,
    /// The columns that are referred to, in the order of the parent's key.
    pub(crate) parent_columns: Vec<String>,
    /// What the referred columns make of values.
    pub(crate) affinities: Vec<Affinity>,
    /// The label of the unique index that is referred to; `None` for the primary key.
    pub(crate) unique: Option<String>,
    pub(crate) policy: ForeignKeyPolicy,
    /// Whether an index finds the rows that refer to a given one.
    pub(crate) is_indexed: bool,
}

/// A foreign key and the tables that it joins, by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bond {
    pub(crate) child: i64,
    pub(crate) parent: i64,
    pub(crate) key: ForeignKey,
}

/// Returns the foreign keys that are held, as they were last looked at, by child and label.
pub(crate) fn all(conn: &Connection) -> rusqlite::Result<Vec<Bond>> {
    let all = "SELECT table_id, parent_id, definition FROM syncline_foreign_keys
        ORDER BY table_id, label";
    let mut statement = conn.prepare_cached(all)?;
    let bonds = statement.query_map([], |row| {
        let definition: String = row.get(2)?;
        Ok(Bond {
            child: row.get(0)?,
            parent: row.get(1)?,
            key: serde_json::from_str(&definition).expect("foreign keys were written here as JSON"),
        })
    })?;
    bonds.collect()
}

/// Whether a table is a child or a parent of any.
pub(crate) fn binds(conn: &Connection, table_id: i64) -> rusqlite::Result<bool> {
    let any = "SELECT 1 FROM syncline_foreign_keys WHERE table_id = ?1
        UNION ALL SELECT 1 FROM syncline_foreign_keys WHERE parent_id = ?1 LIMIT 1";
    conn.prepare_cached(any)?.exists([table_id])
}

/// Refuses options of foreign keys that a table does not declare, or that cannot be so.
pub(crate) fn check(
    conn: &Connection,
    info: &TableInfo,
    options: &TableOptions,
) -> Result<(), OptionsError> {
    if options.foreign_keys.is_empty() {
        return Ok(());
    }
    let declared = Declared::of(conn, &info.name)?;
    for (columns, policy) in &options.foreign_keys {
        let is_named = |key: &&Declared| {
            key.columns
                .join(KEY_SEPARATOR)
                .eq_ignore_ascii_case(columns)
        };
        let table = info.name.clone();
        let columns = columns.clone();
        let Some(key) = declared.iter().find(is_named) else {
            return Err(OptionsError::NoForeignKey { table, columns });
        };
        if *policy == ForeignKeyPolicy::SetNull && !key.takes_null(info) {
            return Err(OptionsError::NeverNull { table, columns });
        }
    }
    Ok(())
}

/// Whether the declared foreign keys are others than when they were last looked at.
pub(super) fn is_outdated(conn: &Connection) -> Result<bool, TableError> {
    Ok(declared(conn)? != all(conn)?)
}

/// Takes up the declared foreign keys. Returns the tables that have others than before.
pub(super) fn refresh(conn: &Connection) -> Result<BTreeSet<i64>, TableError> {
    let (new, old) = (declared(conn)?, all(conn)?);
    if new == old {
        return Ok(BTreeSet::new());
    }
    let only = |some: &[Bond], others: &[Bond]| -> BTreeSet<i64> {
        let other = some.iter().filter(|bond| !others.contains(bond));
        other.map(|bond| bond.child).collect()
    };
    conn.execute("DELETE FROM syncline_foreign_keys", [])?;
    let add = "INSERT INTO syncline_foreign_keys VALUES(?1, ?2, ?3, ?4)";
    for bond in &new {
        let definition = serde_json::to_string(&bond.key).expect("a foreign key is made of names");
        let Bond { child, parent, key } = bond;
        conn.prepare_cached(add)?
            .execute(params![child, key.label, parent, definition])?;
    }
    Ok(&only(&new, &old) | &only(&old, &new))
}

/// Reads the foreign keys of all tracked tables, by child and label.
fn declared(conn: &Connection) -> Result<Vec<Bond>, TableError> {
    let tables = Table::all(conn)?;
    let mut bonds: BTreeMap<(i64, String), Bond> = BTreeMap::new();
    for child in &tables {
        for declared in Declared::of(conn, &child.name)? {
            let same = |parent: &&Table| parent.name.eq_ignore_ascii_case(&declared.parent);
            let Some(parent) = tables.iter().find(same) else {
                continue;
            };
            if let Some(key) = declared.key(conn, child, parent)? {
                let bond = Bond {
                    child: child.id,
                    parent: parent.id,
                    key,
                };
                bonds.insert((child.id, bond.key.label.clone()), bond);
            }
        }
    }
    let mut bonds: Vec<Bond> = bonds.into_values().collect();
    nullable::park_others(conn, &tables, &mut bonds)?;
    Ok(bonds)
}

/// A foreign key as SQLite tells it.
pub(crate) struct Declared {
    parent: String,
    pub(crate) columns: Vec<String>,
    /// Empty if it is the primary key.
    parent_columns: Vec<String>,
    on_delete: String,
}

impl Declared {
    /// Returns the foreign keys that a table declares; none if SQLite finds no key for one of them
    /// and so refuses every write while it enforces them.
    pub(crate) fn of(conn: &Connection, table: &str) -> rusqlite::Result<Vec<Self>> {
        let all = "SELECT id, \"table\", \"from\", \"to\", on_delete
            FROM pragma_foreign_key_list(?1, 'main') ORDER BY id, seq";
        let mut statement = conn.prepare_cached(all)?;
        let mut rows = statement.query([table])?;
        let mut found: BTreeMap<i64, Declared> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let key = found.entry(row.get(0)?).or_insert(Declared {
                parent: row.get(1)?,
                columns: vec![],
                parent_columns: vec![],
                on_delete: row.get(4)?,
            });
            key.columns.push(row.get(2)?);
            key.parent_columns.extend(row.get::<_, Option<String>>(3)?);
        }
        let check = format!("PRAGMA main.foreign_key_check({})", quoted(table));
        if found.is_empty() || conn.prepare(&check).is_err() {
            return Ok(vec![]);
        }
        Ok(found.into_values().collect())
    }

    /// Whether all columns that refer may be NULL.
    fn takes_null(&self, info: &TableInfo) -> bool {
        let takes_null = |name: &String| {
            let mut stored = info.stored_columns();
            let found = stored.find(|column| column.name.eq_ignore_ascii_case(name));
            found.is_some_and(|column| !column.is_not_null)
        };
        self.columns.iter().all(takes_null)
    }

    /// Returns what it means between two tracked tables; `None` if the parent has no such key.
    fn key(
        &self,
        conn: &Connection,
        child: &Table,
        parent: &Table,
    ) -> rusqlite::Result<Option<ForeignKey>> {
        let primary: Vec<&str> = parent.key_columns.iter().map(|c| c.name.as_str()).collect();
        let named = match &self.parent_columns[..] {
            [] => primary.clone(),
            named => named.iter().map(String::as_str).collect(),
        };
        let mut found = None;
        let indices = unique::indices(conn, &parent.name)?;
        let is_plain = !indices.iter().any(|index| index.is_key);
        if let Some(columns) = self.in_order_of(&named, &primary).filter(|_| is_plain) {
            found = Some((None, columns, primary));
        } else {
            for index in &indices {
                if let Some(key) = index.plain_columns()
                    && let Some(columns) = self.in_order_of(&named, &key)
                {
                    let key = parent_names(&named, &key);
                    found = Some((Some(index.label.clone()), columns, key));
                    break;
                }
            }
        }
        let Some((unique, columns, parent_columns)) = found else {
            return Ok(None);
        };
        let parent_columns: Vec<String> = parent_columns.into_iter().map(str::to_owned).collect();
        let affinities = affinities(conn, &parent.name, &parent_columns)?;
        let alike = affinities == self::affinities(conn, &child.name, &columns)?;
        let label = format!(
            "FOREIGN KEY ({}) REFERENCES {} ({})",
            self.columns.join(", "),
            parent.name,
            named.join(", ")
        );
        Ok(Some(ForeignKey {
            label,
            is_indexed: unique.is_none() && alike && has_index(conn, child, &columns)?,
            policy: self.policy(child),
            columns,
            parent_columns,
            affinities,
            unique,
        }))
    }

    /// Returns the columns that refer in the order of a key of the parent; `None` if the columns
    /// `named` are not those of that key.
    fn in_order_of(&self, named: &[&str], key: &[&str]) -> Option<Vec<String>> {
        let find = |column: &&str| {
            let at = named
                .iter()
                .position(|name| name.eq_ignore_ascii_case(column))?;
            self.columns.get(at).cloned()
        };
        let columns: Option<Vec<String>> = key.iter().map(find).collect();
        columns.filter(|_| named.len() == key.len() && named.len() == self.columns.len())
    }

    fn policy(&self, child: &Table) -> ForeignKeyPolicy {
        let name = self.columns.join(", ");
        let mut chosen = child.options.foreign_keys.iter();
        let chosen = chosen.find(|(columns, _)| columns.eq_ignore_ascii_case(&name));
        match (chosen, &self.on_delete[..]) {
            (Some((_, policy)), _) => *policy,
            (None, "CASCADE") => ForeignKeyPolicy::Cascade,
            (None, "SET NULL") => ForeignKeyPolicy::SetNull,
            (None, _) => ForeignKeyPolicy::Park,
        }
    }
}

fn parent_names<'n>(named: &[&'n str], key: &[&str]) -> Vec<&'n str> {
    let find = |column: &&str| {
        let mut named = named.iter();
        named
            .find(|name| name.eq_ignore_ascii_case(column))
            .copied()
    };
    key.iter().filter_map(find).collect()
}

/// Returns the affinities of some columns of a table.
fn affinities(
    conn: &Connection,
    table: &str,
    columns: &[String],
) -> rusqlite::Result<Vec<Affinity>> {
    let info = TableInfo::read(conn, table)?;
    let affinity = |name: &String| {
        let mut all = info.iter().flat_map(|info| &info.columns);
        let found = all.find(|column| column.name.eq_ignore_ascii_case(name));
        found.map_or(Affinity::Blob, |column| Affinity::of(&column.declared))
    };
    Ok(columns.iter().map(affinity).collect())
}

/// Whether SQLite finds rows by these columns without reading the whole table.
fn has_index(conn: &Connection, table: &Table, columns: &[String]) -> rusqlite::Result<bool> {
    let term = |(at, column): (usize, &String)| format!("{} = ?{}", quoted(column), at + 1);
    let condition = list(columns.iter().enumerate().map(term), " AND ");
    let name = table.quoted();
    let plan = format!("EXPLAIN QUERY PLAN SELECT 1 FROM main.{name} WHERE {condition}");
    let mut statement = conn.prepare(&plan)?;
    let values = columns.iter().map(|_| rusqlite::types::Null);
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let Some(row) = rows.next()? else {
        return Ok(false);
    };
    let detail: String = row.get("detail")?;
    Ok(detail.starts_with("SEARCH"))
}
