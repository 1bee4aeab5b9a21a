//! Which foreign keys can set NULL: where the columns that refer take it, and no other constraint
//! could keep a row from being shown for it.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::foreign::Bond;
use super::{checks, graph, unique};
use crate::options::ForeignKeyPolicy;
use crate::table::Table;

/// Lets foreign keys park that ask to set NULL and cannot.
pub(super) fn park_others(
    conn: &Connection,
    tables: &[Table],
    bonds: &mut [Bond],
) -> rusqlite::Result<()> {
    let mut others = Vec::new();
    for (at, bond) in bonds.iter().enumerate() {
        let child = tables.iter().find(|table| table.id == bond.child);
        if bond.key.policy == ForeignKeyPolicy::SetNull
            && let Some(child) = child
            && !takes_null(conn, child, (at, bonds))?
        {
            others.push(at);
        }
    }
    for at in others {
        bonds[at].key.policy = ForeignKeyPolicy::Park;
    }
    Ok(())
}

fn takes_null(
    conn: &Connection,
    child: &Table,
    (at, bonds): (usize, &[Bond]),
) -> rusqlite::Result<bool> {
    let lower = |name: &String| name.to_ascii_lowercase();
    let own: BTreeSet<String> = bonds[at].key.columns.iter().map(lower).collect();
    let names = |columns: &[String]| columns.iter().any(|column| own.contains(&lower(column)));
    // Columns of the primary key are not among these.
    let is_nullable = |name: &String| {
        let mut columns = child.columns.iter();
        columns.any(|column| lower(&column.name) == *name && !column.is_not_null)
    };
    let mut others = bonds.iter().enumerate().filter(|(other, _)| *other != at);
    let is_shared = others.any(|(_, other)| other.child == child.id && names(&other.key.columns));
    if is_shared
        || !own.iter().all(is_nullable)
        || checks::mentions(conn, &child.name, &own)?
        || has_strict_generated(conn, &child.name)?
    {
        return Ok(false);
    }
    // Whether a parent of the same circle is shown is known when all else is decided.
    let mut is_referred = bonds.iter();
    let is_referred =
        is_referred.any(|other| other.parent == child.id && names(&other.key.parent_columns));
    let indices = unique::indices(conn, &child.name)?;
    let mentioned = unique::mentioned(conn, &child.name, &indices)?;
    let is_unique = mentioned.is_none_or(|names| !names.is_disjoint(&own));
    Ok(!is_circular(&bonds[at], bonds) || !(is_referred || is_unique))
}

/// Whether the parent refers back to the child, directly or not.
fn is_circular(bond: &Bond, bonds: &[Bond]) -> bool {
    let edges = bonds.iter().map(|bond| (bond.child, bond.parent)).collect();
    let mut components = graph::components(&BTreeSet::new(), &edges).into_iter();
    components.any(|part| {
        part.members
            .is_superset(&BTreeSet::from([bond.child, bond.parent]))
    })
}

/// Whether a generated column must not be NULL: it may be made of any column.
fn has_strict_generated(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    let any = "SELECT 1 FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 0 AND \"notnull\"";
    conn.prepare_cached(any)?.exists([table])
}
