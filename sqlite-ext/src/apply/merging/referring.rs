//! The merge of cells that refer to rows of tables with counted ids.

use std::borrow::Cow;

use rusqlite::Connection;
use syncline_crdt::{Group, SiteId, Value};

use super::super::ImportError;
use crate::clocks::{self, Lane};
use crate::references;
use crate::renames::{Parent, Renames};
use crate::shadow::Sites;
use crate::table::{RowKey, Table};

/// What a table's columns refer to, while it is merged.
pub(super) struct Referring<'a> {
    pub(super) renames: &'a mut Renames,
    columns: Vec<Option<Column>>,
    /// The columns that the row at hand brings, and whether each refers to no row.
    bound: Vec<(usize, bool)>,
}

struct Column {
    parent: Parent,
    literals: Lane,
    has_literals: bool,
}

impl<'a> Referring<'a> {
    pub(super) fn new(
        conn: &Connection,
        table: &Table,
        renames: &'a mut Renames,
    ) -> Result<Self, ImportError> {
        let mut columns = Vec::new();
        for column in &table.columns {
            let parent = references::parent(conn, column)?;
            let literals = references::literals(table.id, column);
            let column = parent.map(|parent| {
                Ok::<_, rusqlite::Error>(Column {
                    parent: Parent::new(parent),
                    literals,
                    has_literals: clocks::is_used(conn, literals)?,
                })
            });
            columns.push(column.transpose()?);
        }
        Ok(Referring {
            renames,
            columns,
            bound: Vec::new(),
        })
    }

    /// Whether a column refers to rows of a table with counted ids.
    pub(super) fn has(&self, column: usize) -> bool {
        self.columns[column].is_some()
    }

    /// Puts what cells hold here in the place of the numbers of the rows that they refer to.
    /// `columns` are pairs of a place in each row and a column of the table.
    pub(super) fn bind<'g>(
        &mut self,
        conn: &Connection,
        group: &'g Group,
        columns: &[(usize, usize)],
        sites: &mut Sites,
    ) -> rusqlite::Result<Cow<'g, Group>> {
        let mut group = Cow::Borrowed(group);
        for (at, column) in columns {
            let Some(referring) = &mut self.columns[*column] else {
                continue;
            };
            let site = group.parents.get(*at).copied().unwrap_or_default();
            if site == SiteId::default() {
                continue;
            }
            let site = sites.ordinal(conn, site)?;
            // A group names the parents of all its columns or of none.
            let width = group.parents.len();
            for cell in (*at..group.values.len()).step_by(width) {
                if let Value::Integer(number) = group.values[cell] {
                    let code = referring.parent.code(conn, (number, site), self.renames)?;
                    if code != number {
                        group.to_mut().values[cell] = Value::Integer(code);
                    }
                }
            }
        }
        Ok(group)
    }

    /// Whether no cell of these columns is in a group, or is here, that refers to no row.
    pub(super) fn is_plain(&self, group: &Group, columns: &[(usize, usize)]) -> bool {
        let width = group.parents.len();
        columns.iter().all(|(at, column)| {
            let Some(referring) = &self.columns[*column] else {
                return true;
            };
            let has_parent = |at: &usize| group.parents[*at] != SiteId::default();
            !referring.has_literals && width > 0 && has_parent(at)
        })
    }

    /// Looks at the row at hand: which columns it brings, and whether each refers to no row.
    pub(super) fn look(
        &mut self,
        parents: &[SiteId],
        (values, columns): (&[Value], &[(usize, usize)]),
    ) {
        self.bound.clear();
        for (at, column) in columns {
            if self.columns[*column].is_some() {
                let site = parents.get(*at).copied().unwrap_or_default();
                let is_number = matches!(values[*at], Value::Integer(_));
                let is_literal = is_number && site == SiteId::default();
                self.bound.push((*column, is_literal));
            }
        }
    }

    /// Notes which of the row's cells refer to no row, after some of them were written.
    pub(super) fn mark(
        &mut self,
        conn: &Connection,
        place: &RowKey,
        is_written: impl Fn(usize) -> bool,
    ) -> rusqlite::Result<()> {
        for (column, is_literal) in &self.bound {
            if let Some(referring) = &mut self.columns[*column]
                && is_written(*column)
                && (*is_literal || referring.has_literals)
            {
                referring.has_literals = true;
                references::mark(conn, referring.literals, place, *is_literal)?;
            }
        }
        Ok(())
    }

    /// Forgets which cells of a row refer to no row.
    pub(super) fn clear(&self, conn: &Connection, place: &RowKey) -> rusqlite::Result<()> {
        let used = self.columns.iter().flatten();
        used.filter(|column| column.has_literals)
            .try_for_each(|column| references::mark(conn, column.literals, place, false))
    }
}
