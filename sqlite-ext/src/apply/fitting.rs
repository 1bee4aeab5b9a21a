//! Changes as this replica's table can hold them: where columns have other types or constraints
//! here than at the origin, what does not fit waits, and the rest is merged.

use std::borrow::Cow;

use rusqlite::Connection;
use syncline_crdt::{Group, GroupKind, SiteId, TableChanges, Value};

use crate::key_references;
use crate::rows::native_key;
use crate::shape::{Affinity, StrictType};
use crate::table::{KeyKind, Table};

/// A table's changes, and what of them has no place.
pub(super) struct Fitted<'c> {
    pub(super) changes: Cow<'c, TableChanges>,
    /// Changes of columns that hold no such value here, or of rows that can have no such key.
    pub(super) unfit: Vec<Group>,
}

/// Brings keys into the form that the table's columns give them, and takes out what does not fit.
pub(super) fn fit<'c>(
    conn: &Connection,
    table: &Table,
    changes: &'c TableChanges,
) -> rusqlite::Result<Fitted<'c>> {
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let column = |name: &String| table.columns.iter().find(|column| same(&column.name, name));
    let column = |name| column(name).map(|column| (column.is_not_null, column.strict));
    let fitting = Fitting {
        conn,
        table,
        columns: changes.columns.iter().map(column).collect(),
    };
    let mut fitted = Fitted {
        changes: Cow::Borrowed(changes),
        unfit: Vec::new(),
    };
    if changes.groups.iter().all(|group| fitting.is_fit(group)) {
        return Ok(fitted);
    }
    let mut groups = Vec::new();
    for group in &changes.groups {
        fitting.split(group, &mut groups, &mut fitted.unfit)?;
    }
    fitted.changes = Cow::Owned(TableChanges {
        groups,
        ..changes.without_groups()
    });
    Ok(fitted)
}

struct Fitting<'a> {
    conn: &'a Connection,
    table: &'a Table,
    /// For each column of the changes that is here, whether it refuses NULL and which type it
    /// insists on.
    columns: Vec<Option<(bool, Option<StrictType>)>>,
}

impl Fitting<'_> {
    fn width(&self, group: &Group) -> usize {
        self.table.key_columns.len() + group.columns.len()
    }

    fn is_fit(&self, group: &Group) -> bool {
        if !key_references::fit(self.table, group) {
            return false;
        }
        let key_count = self.table.key_columns.len();
        let is_free = |at: &usize| !matches!(self.columns[*at], Some((true, _) | (_, Some(_))));
        let cells_are_free = group.kind == GroupKind::Deltas || group.columns.iter().all(is_free);
        group.values.chunks(self.width(group)).all(|values| {
            let (key, cells) = values.split_at(key_count);
            let mut keys = key.iter().zip(&self.table.shape.key);
            keys.all(|(value, column)| self.is_native(value, column.affinity))
                && (cells_are_free || self.unfit_cells(group, cells).is_empty())
        })
    }

    /// Whether a key's value stays as it is in a column of this affinity.
    fn is_native(&self, value: &Value, affinity: Affinity) -> bool {
        if self.table.kind == KeyKind::Integer {
            return matches!(value, Value::Integer(_));
        }
        match affinity {
            Affinity::Blob => true,
            Affinity::Text => !matches!(value, Value::Integer(_) | Value::Real(_)),
            Affinity::Number => !matches!(value, Value::Text(_)),
        }
    }

    /// Returns the places in the group's columns whose cells the table refuses.
    fn unfit_cells(&self, group: &Group, cells: &[Value]) -> Vec<usize> {
        let is_unfit = |at: &usize| {
            let Some((is_not_null, strict)) = self.columns[group.columns[*at]] else {
                return false;
            };
            match &cells[*at] {
                Value::Null => is_not_null,
                value => strict.is_some_and(|strict| !strict.holds(value)),
            }
        };
        (0..cells.len()).filter(is_unfit).collect()
    }

    /// Sorts a group's rows into those that fit, in the form they have here, and the rest.
    fn split(
        &self,
        group: &Group,
        fit: &mut Vec<Group>,
        unfit: &mut Vec<Group>,
    ) -> rusqlite::Result<()> {
        if !key_references::fit(self.table, group) {
            unfit.push(group.clone());
            return Ok(());
        }
        let key_count = self.table.key_columns.len();
        let mut whole = Group {
            values: vec![],
            ..group.clone()
        };
        for values in group.values.chunks(self.width(group)) {
            let (origin, cells) = values.split_at(key_count);
            let Some(key) = native_key(self.conn, self.table, origin)? else {
                unfit.push(Group {
                    values: values.to_vec(),
                    ..group.clone()
                });
                continue;
            };
            let refused = match group.kind {
                GroupKind::Deltas => Vec::new(),
                GroupKind::Cells | GroupKind::Life => self.unfit_cells(group, cells),
            };
            if refused.is_empty() {
                whole.values.extend(key);
                whole.values.extend_from_slice(cells);
                continue;
            }
            let kept: Vec<usize> = (0..cells.len())
                .filter(|at| !refused.contains(at))
                .collect();
            fit.push(part(group, &key, cells, &kept));
            unfit.push(part(group, origin, cells, &refused));
        }
        if !whole.values.is_empty() {
            fit.push(whole);
        }
        Ok(())
    }
}

/// Returns one row of a group with some of its cells.
fn part(group: &Group, key: &[Value], cells: &[Value], places: &[usize]) -> Group {
    let mut values = key.to_vec();
    values.extend(places.iter().map(|at| cells[*at].clone()));
    let of_cells = places.iter().map(|at| key.len() + at);
    let parent = |at| group.parents.get(at).copied().unwrap_or(SiteId::default());
    let mut parents: Vec<SiteId> = (0..key.len()).chain(of_cells).map(parent).collect();
    if parents.iter().all(|parent| *parent == SiteId::default()) {
        parents.clear();
    }
    Group {
        columns: places.iter().map(|at| group.columns[*at]).collect(),
        parents,
        values,
        ..group.clone()
    }
}
