//! The changes of one or more whole transactions, as they travel between replicas.

use crate::{CausalLength, Parts, SiteId, Stamp, Value, VersionVector};

/// All that is new to a replica that has seen `since`, up to `until`.
///
/// Merging it is safe in any order and any number of times; only `until` may not be noted by a
/// replica that does not cover `since`, because then something between them could be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changeset {
    /// What the reader must have seen before.
    pub since: VersionVector,
    /// What the reader has seen afterwards.
    pub until: VersionVector,
    /// Up to where the sender has forgotten which rows were deleted; empty if it never did. Whoever
    /// merges the changeset forgets them too, because a key that is used again begins at its first
    /// life where its death is forgotten.
    pub collected: VersionVector,
    /// What the sender had seen when it forgot them: everything that could bring such a row back.
    /// It covers `collected`.
    pub settled: VersionVector,
    /// What the reader lacks of what it has seen, each with the vector from which on everything of
    /// its table is given.
    pub filled: Parts,
    /// What the sender lacks of what lies between `since` and `until`, each with the latest of it.
    pub lacking: Parts,
    /// Tables that were tracked in between.
    pub schemas: Vec<TableSchema>,
    /// Columns and tables that were renamed in between.
    pub renames: Vec<Rename>,
    /// The changes, table by table.
    pub tables: Vec<TableChanges>,
}

/// A tracked table's definition, so that a new replica can make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// The table's name.
    pub name: String,
    /// When and where it was first tracked.
    pub stamp: Stamp,
    /// The origin of the rows that it held then, see [`crate::OriginHasher`]; all zero if it held
    /// none, or if its ids are not counted on each replica.
    pub origin: SiteId,
    /// How it is tracked, as the JSON object that was given when it was; empty for the defaults.
    pub options: String,
    /// Its `CREATE TABLE` and `CREATE INDEX` statements, in this order. They come from a peer:
    /// whoever runs them must allow nothing else in them.
    pub statements: Vec<String>,
}

/// A column or a table that was renamed somewhere. Changes to it go by either name from then on: a
/// replica that has one of them takes the other for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// The column's table; empty if it is a table that was renamed.
    pub table: String,
    /// The name before.
    pub former: String,
    /// The name afterwards.
    pub name: String,
    /// When and where it was renamed.
    pub stamp: Stamp,
}

/// One table's changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChanges {
    /// The table's name.
    pub name: String,
    /// The columns of its primary key, in the key's order.
    pub key_columns: Vec<String>,
    /// The other columns that occur in the groups.
    pub columns: Vec<String>,
    /// The changes, in groups of rows that share everything but their values.
    pub groups: Vec<Group>,
}

/// What a group tells of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupKind {
    /// The values of some columns.
    Cells,
    /// The causal length itself: the rows were deleted or begin another life. Such a group has no
    /// columns.
    Life,
    /// What one site added to cells that are joined instead of replaced: one column, whose values
    /// are blobs that its policy reads.
    Deltas,
}

/// Rows of one table that were written at the same time, by the same site, in the same columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The causal length of the rows.
    pub causal_length: CausalLength,
    /// What the group tells.
    pub kind: GroupKind,
    /// When and where the rows were written.
    pub stamp: Stamp,
    /// The site that first created the rows, in a table whose ids are counted on each replica:
    /// there, equal keys from two sites name two rows. All zero where the key alone names a row.
    pub born: SiteId,
    /// Which of the table's columns, as indices into [`TableChanges::columns`].
    pub columns: Vec<usize>,
    /// For each column of the key, then for each of these columns: the site that created the rows
    /// referred to, if the column refers to a table of counted ids; all zero for the others. Empty
    /// if it is all zero for all.
    pub parents: Vec<SiteId>,
    /// Row after row, the key's values and then the columns' values.
    pub values: Vec<Value>,
}

impl TableChanges {
    /// Returns the same table's names, without changes.
    pub fn without_groups(&self) -> Self {
        TableChanges {
            name: self.name.clone(),
            key_columns: self.key_columns.clone(),
            columns: self.columns.clone(),
            groups: vec![],
        }
    }
}

impl Changeset {
    /// Whether it tells nothing new.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.schemas.is_empty() && self.renames.is_empty()
    }

    /// Returns the number of rows that the groups name; a row written at several times counts
    /// several times.
    pub fn rows_count(&self) -> usize {
        let width =
            |table: &TableChanges, group: &Group| table.key_columns.len() + group.columns.len();
        let rows = |table: &TableChanges| -> usize {
            table
                .groups
                .iter()
                .map(|group| group.values.len() / width(table, group).max(1))
                .sum()
        };
        self.tables.iter().map(rows).sum()
    }
}
