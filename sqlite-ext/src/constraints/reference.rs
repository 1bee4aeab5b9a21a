//! What rows refer to by one foreign key, and whether SQLite finds it.

use std::rc::Rc;

use rusqlite::{Connection, params_from_iter};
use syncline_crdt::{Value, pack_key};

use super::foreign::{Bond, ForeignKey};
use super::store;
use super::unique::{self, UniqueIndex};
use crate::options::ForeignKeyPolicy;
use crate::rows::{self, key_from};
use crate::table::{RowKey, Table, list};
use crate::value::{Bound, quoted};

/// A foreign key between two tables that are there.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) child: Rc<Table>,
    pub(super) parent: Rc<Table>,
    pub(super) key: ForeignKey,
    /// The unique index that is referred to; `None` for the primary key.
    pub(super) index: Option<UniqueIndex>,
    /// Whether the parent is settled together with the child.
    pub(super) is_inner: bool,
}

/// Which rows of the child are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Within<'a> {
    All,
    /// Those with rowids from the first to the last.
    Rowids(i64, i64),
    /// The one with this key.
    Key(&'a [Value]),
}

impl Reference {
    pub(super) fn new(
        conn: &Connection,
        bond: &Bond,
        (child, parent): (Rc<Table>, Rc<Table>),
        is_inner: bool,
    ) -> rusqlite::Result<Self> {
        let index = match &bond.key.unique {
            None => None,
            Some(label) => {
                let all = unique::indices(conn, &parent.name)?;
                all.into_iter().find(|index| index.label == *label)
            }
        };
        Ok(Reference {
            child,
            parent,
            key: bond.key.clone(),
            index,
            is_inner,
        })
    }

    /// Returns the lanes of the columns that refer; of a key that sets NULL none is in the primary
    /// key.
    pub(super) fn lanes(&self) -> Vec<i64> {
        let lane = |name: &String| {
            let mut columns = self.child.columns.iter();
            let found = columns.find(|column| column.name.eq_ignore_ascii_case(name));
            found.map(|column| column.lane)
        };
        self.key.columns.iter().filter_map(lane).collect()
    }

    /// Whether NULL is shown for what it refers to before the contest: where it leads out of the
    /// tables that are settled together.
    pub(super) fn is_masked_early(&self) -> bool {
        !self.hides() && !self.is_inner
    }

    /// Whether a row without its parent is kept out of sight.
    pub(super) fn hides(&self) -> bool {
        self.key.policy != ForeignKeyPolicy::SetNull
    }

    /// Returns what the row of the child with this key refers to, as it stands in the table or in a
    /// copy of it; `None` if it is not there or refers to nothing.
    pub(super) fn values(
        &self,
        conn: &Connection,
        key: &[Value],
    ) -> rusqlite::Result<Option<Vec<Value>>> {
        let cells = self.cells(conn, key)?;
        Ok(cells.filter(|values| !values.contains(&Value::Null)))
    }

    /// Returns what stands in the columns that refer; `None` if the row is not there.
    pub(super) fn cells(
        &self,
        conn: &Connection,
        key: &[Value],
    ) -> rusqlite::Result<Option<Vec<Value>>> {
        let fields = list(self.key.columns.iter().map(|column| quoted(column)), ", ");
        let (name, condition) = (self.child.quoted(), self.child.key_condition(1));
        let select = format!("SELECT {fields} FROM main.{name} WHERE {condition}");
        let mut statement = conn.prepare_cached(&select)?;
        let mut rows = statement.query(params_from_iter(key.iter().map(Bound)))?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        key_from(row, 0, self.key.columns.len()).map(Some)
    }

    /// Returns what a row refers to in one form for all that SQLite calls equal to it.
    pub(super) fn form(&self, conn: &Connection, values: &[Value]) -> rusqlite::Result<Vec<u8>> {
        let Some(index) = &self.index else {
            let key = rows::native_key(conn, &self.parent, values)?;
            let place = key.and_then(|key| self.parent.key_place(&key));
            // Nothing has such a key, and nobody will look it up.
            return Ok(place.map_or_else(|| pack_key(values), |place| store::packed(&place)));
        };
        let mut native = Vec::with_capacity(values.len());
        for (value, affinity) in values.iter().zip(&self.key.affinities) {
            native.push(rows::native(conn, value.clone(), *affinity)?);
        }
        Ok(index.form(&native))
    }

    /// Returns the same form of what refers to a row of the parent; `None` if nothing can, or the
    /// row is not shown and that is not known of it.
    pub(super) fn form_of_parent(
        &self,
        conn: &Connection,
        place: &RowKey,
    ) -> rusqlite::Result<Option<Vec<u8>>> {
        match &self.index {
            None => Ok(Some(store::packed(place))),
            Some(index) => {
                let tuple = index.tuple(conn, &self.parent, &store::unpacked(place))?;
                Ok(tuple.map(|tuple| index.form(&tuple)))
            }
        }
    }

    /// Whether the row that is referred to is shown. The parent's columns decide what is equal.
    pub(super) fn is_shown(&self, conn: &Connection, values: &[Value]) -> rusqlite::Result<bool> {
        let term = |(at, column): (usize, &String)| format!("{} = ?{}", quoted(column), at + 1);
        let condition = list(
            self.key.parent_columns.iter().enumerate().map(term),
            " AND ",
        );
        let select = format!(
            "SELECT 1 FROM main.{} WHERE {condition}",
            self.parent.quoted()
        );
        conn.prepare_cached(&select)?
            .exists(params_from_iter(values.iter().map(Bound)))
    }

    /// Returns the places of the parked rows that are referred to.
    pub(super) fn parked_parents(
        &self,
        conn: &Connection,
        form: &[u8],
    ) -> rusqlite::Result<Vec<(RowKey, store::Standing)>> {
        match &self.index {
            Some(index) => store::claimants(conn, self.parent.id, (&index.label, form)),
            None => {
                let place = store::place_of(&self.parent, form);
                let standing = store::standing(conn, self.parent.id, &place)?;
                Ok(standing
                    .map(|standing| (place, standing))
                    .into_iter()
                    .collect())
            }
        }
    }

    /// Returns the places of the shown rows that refer to these values of the parent.
    pub(super) fn children(
        &self,
        conn: &Connection,
        values: &[Value],
    ) -> rusqlite::Result<Vec<RowKey>> {
        let term = |(at, column): (usize, &String)| format!("{} = ?{}", quoted(column), at + 1);
        let condition = list(self.key.columns.iter().enumerate().map(term), " AND ");
        self.places(conn, &condition, values)
    }

    /// Returns the places of the shown rows whose parent is not shown.
    pub(super) fn orphans(
        &self,
        conn: &Connection,
        within: Within<'_>,
    ) -> rusqlite::Result<Vec<RowKey>> {
        let rowid = &self.child.rowid;
        let orphan = self.orphan();
        match within {
            Within::All => self.places(conn, &orphan, &[]),
            Within::Rowids(first, last) => {
                let condition = format!("{rowid} BETWEEN ?1 AND ?2 AND {orphan}");
                let span = [Value::Integer(first), Value::Integer(last)];
                self.places(conn, &condition, &span)
            }
            Within::Key(key) => {
                let condition = format!("{} AND {orphan}", self.child.key_condition(1));
                self.places(conn, &condition, key)
            }
        }
    }

    /// Returns the condition that a row of the child, named `c`, refers to a row that is not shown.
    fn orphan(&self) -> String {
        let columns = self.key.columns.iter().map(|column| quoted(column));
        let parents = self.key.parent_columns.iter().map(|column| quoted(column));
        let refers = list(
            columns
                .clone()
                .map(|column| format!("c.{column} IS NOT NULL")),
            " AND ",
        );
        // The sign takes the type of its column from the value, so that the parent's counts alone.
        let equal = columns.zip(parents);
        let equal = list(
            equal.map(|(own, parent)| format!("p.{parent} = +c.{own}")),
            " AND ",
        );
        let parent = self.parent.quoted();
        format!("{refers} AND NOT EXISTS (SELECT 1 FROM main.{parent} AS p WHERE {equal})")
    }

    fn places(
        &self,
        conn: &Connection,
        condition: &str,
        values: &[Value],
    ) -> rusqlite::Result<Vec<RowKey>> {
        let (name, keys) = (self.child.quoted(), self.child.key_list());
        let select = format!("SELECT {keys} FROM main.{name} AS c WHERE {condition}");
        let mut statement = conn.prepare_cached(&select)?;
        let mut rows = statement.query(params_from_iter(values.iter().map(Bound)))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let key = key_from(row, 0, self.child.key_columns.len())?;
            found.push(store::place(&self.child, &key));
        }
        Ok(found)
    }
}
