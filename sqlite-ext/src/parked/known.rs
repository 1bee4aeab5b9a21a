//! Which of the changes that have to wait do so already: whoever exports everything sends them again
//! and again, in groups that differ by what was written meanwhile.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_crdt::{CausalLength, Group, GroupKind, SiteId, Stamp, TableChanges, Value};

use super::all;
use crate::shadow::version_vector;

/// What a change of one cell has in common with those of its group.
type Head = (GroupKind, CausalLength, Stamp, SiteId);

/// A change of one cell: its head, its row, and its column with what it holds and refers to. There
/// is no column where the row itself was born or died.
type Cell<'c> = (
    Head,
    &'c [Value],
    &'c [SiteId],
    Option<(&'c str, &'c Value, SiteId)>,
);

/// Takes from changes the rows of which every cell waits here already.
pub(super) fn drop_known(conn: &Connection, changes: &mut TableChanges) -> rusqlite::Result<()> {
    let seen = version_vector(conn)?;
    // What is new to this replica waits nowhere.
    let is_old = |group: &Group| group.stamp.version <= seen.version(group.stamp.site);
    if !changes.groups.iter().any(is_old) {
        return Ok(());
    }
    let parked = all(conn)?;
    let parked = parked.iter().flat_map(|(_, parked)| &parked.tables);
    let is_same = |table: &&TableChanges| {
        table.name == changes.name && table.key_columns == changes.key_columns
    };
    let mut known: BTreeSet<Cell<'_>> = BTreeSet::new();
    for table in parked.filter(is_same) {
        for group in &table.groups {
            let rows = group.values.chunks(width(table, group));
            rows.for_each(|row| known.extend(cells(table, group, row)));
        }
    }
    let names = changes.without_groups();
    for group in changes.groups.iter_mut().filter(|group| is_old(group)) {
        let values = std::mem::take(&mut group.values);
        for row in values.chunks(width(&names, group)) {
            if !cells(&names, group, row).all(|cell| known.contains(&cell)) {
                group.values.extend_from_slice(row);
            }
        }
    }
    changes.groups.retain(|group| !group.values.is_empty());
    Ok(())
}

fn width(table: &TableChanges, group: &Group) -> usize {
    table.key_columns.len() + group.columns.len()
}

/// Returns the changes of one row's cells.
fn cells<'c>(
    table: &'c TableChanges,
    group: &'c Group,
    row: &'c [Value],
) -> impl Iterator<Item = Cell<'c>> {
    let key_count = table.key_columns.len();
    let head = (group.kind, group.causal_length, group.stamp, group.born);
    let (key, values) = row.split_at(key_count);
    let parents = group.parents.get(..key_count).unwrap_or_default();
    let cell = move |(at, value): (usize, &'c Value)| {
        let name = table.columns[group.columns[at]].as_str();
        let parent = group.parents.get(key_count + at).copied();
        (
            head,
            key,
            parents,
            Some((name, value, parent.unwrap_or_default())),
        )
    };
    let alone = values.is_empty().then_some((head, key, parents, None));
    values.iter().enumerate().map(cell).chain(alone)
}
