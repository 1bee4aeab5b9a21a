//! How a table is tracked: what its columns are, how its ids are meant, what a lost parent does.
//!
//! The options are given once, when a table is first tracked, and travel with its definition, so
//! every replica has the same.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use syncline_crdt::Policy;

use crate::constraints::tokens::tokens;
use crate::table::TableInfo;

/// A table's options, as JSON in SQL:
/// `{"columns": {"stock": "counter"}, "ids": "shared", "foreign_keys": {"artist": "cascade"}}`.
/// What is left out has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableOptions {
    /// What the columns are, by name; [`ColumnPolicy::Lww`] where nothing is said.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, ColumnPolicy>,
    /// What equal ids from two replicas mean; [`Ids::Declared`] where nothing is said.
    #[serde(skip_serializing_if = "is_default")]
    pub ids: Ids,
    /// What becomes of a row whose parent is gone, by the foreign key's columns, joined with `, `;
    /// what the table's `ON DELETE` says where nothing is said.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub foreign_keys: BTreeMap<String, ForeignKeyPolicy>,
}

/// Which of two writes to one cell counts, or how both do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ColumnPolicy {
    /// The last write wins.
    #[default]
    Lww,
    /// What is added and subtracted adds up.
    Counter,
    /// A counter that never goes below `floor`: what each replica may subtract is its own share.
    BoundedCounter {
        /// The least value.
        floor: i64,
    },
    /// The greatest value that was ever written.
    Max,
    /// The least value that was ever written.
    Min,
    /// A JSON array whose elements are added and removed one by one.
    Set,
    /// A text whose edits merge.
    Text,
    /// A JSON document whose edits merge.
    Document,
}

/// What equal ids from two replicas mean, in a table with an `INTEGER PRIMARY KEY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ids {
    /// Two rows: each replica counts its own ids, and the later row gets another one.
    Counted,
    /// One row: the id means something.
    Shared,
    /// As the table is declared when it is tracked first: with `AUTOINCREMENT` they are counted.
    #[default]
    Declared,
}

/// What becomes of a row whose parent is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ForeignKeyPolicy {
    /// It is parked until the parent is back.
    Park,
    /// It goes with its parent.
    Cascade,
    /// It refers to nothing until the parent is back.
    SetNull,
}

/// What stands between the columns of a foreign key that options name.
pub(crate) const KEY_SEPARATOR: &str = ", ";

/// Why options are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// They are not the JSON that is expected.
    #[error(
        "these are no options of a table: {0}; they are JSON such as {example}",
        example = r#"{"ids": "counted", "columns": {"stock": "counter", "seats": {"bounded_counter": {"floor": 0}}}}"#
    )]
    Json(#[from] serde_json::Error),
    /// A bounded counter needs a number below which it never goes.
    #[error(
        "`{column}` is to be a bounded counter, and its floor is missing or no whole number: say \
         how low it may go, as in {{\"bounded_counter\": {{\"floor\": 0}}}}"
    )]
    NoFloor {
        /// The column.
        column: String,
    },
    /// A column cannot have its policy.
    #[error("`{column}` of `{table}` cannot have its policy: {reason}")]
    Unfit {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Why not.
        reason: &'static str,
    },
    /// They name a foreign key that is not declared.
    #[error("the options name a foreign key ({columns}), and `{table}` declares none")]
    NoForeignKey {
        /// The table.
        table: String,
        /// The columns that refer.
        columns: String,
    },
    /// They ask for NULL in columns that do not take it.
    #[error(
        "the foreign key ({columns}) of `{table}` cannot be set to NULL: choose another policy"
    )]
    NeverNull {
        /// The table.
        table: String,
        /// The columns that refer.
        columns: String,
    },
    /// They name a column that is not there, or is part of the primary key.
    #[error("the options name `{column}`, and `{table}` has no such column outside its key")]
    NoColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
}

impl ColumnPolicy {
    /// Returns how the cells of such a column join; `None` if the last write wins.
    pub(crate) fn joins(self) -> Option<Policy> {
        Some(match self {
            ColumnPolicy::Lww => return None,
            ColumnPolicy::Counter => Policy::Counter,
            ColumnPolicy::BoundedCounter { floor } => Policy::BoundedCounter { floor },
            ColumnPolicy::Max => Policy::Max,
            ColumnPolicy::Min => Policy::Min,
            ColumnPolicy::Set => Policy::Set,
            ColumnPolicy::Text => Policy::Text,
            ColumnPolicy::Document => Policy::Document,
        })
    }
}

impl TableOptions {
    /// Reads options from JSON; an empty text is the defaults.
    ///
    /// # Errors
    ///
    /// [`OptionsError::Json`] names what is not understood and where, [`OptionsError::NoFloor`] a
    /// column whose floor is not.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        if text.is_empty() {
            return Ok(TableOptions::default());
        }
        serde_json::from_str(text).map_err(|error| match column_without_floor(text) {
            Some(column) => OptionsError::NoFloor { column },
            None => error.into(),
        })
    }

    /// Returns them as JSON, equal for equal options; empty for the defaults.
    pub fn to_json(&self) -> String {
        if *self == TableOptions::default() {
            return String::new();
        }
        serde_json::to_string(self).expect("maps with string keys are JSON")
    }

    /// Returns what a column is.
    pub fn policy(&self, column: &str) -> ColumnPolicy {
        let named = |(name, policy): (&String, &ColumnPolicy)| {
            name.eq_ignore_ascii_case(column).then_some(*policy)
        };
        self.columns.iter().find_map(named).unwrap_or_default()
    }

    /// Returns how the columns join of which the last write does not win, by name in lower case.
    pub(crate) fn joins(&self) -> BTreeMap<String, Policy> {
        let joins = |(name, policy): (&String, &ColumnPolicy)| {
            Some((name.to_ascii_lowercase(), policy.joins()?))
        };
        self.columns.iter().filter_map(joins).collect()
    }

    /// Reads a tracked table's options.
    pub(crate) fn of(conn: &Connection, table_id: i64) -> Result<Self, OptionsError> {
        let options = "SELECT options FROM syncline_tables WHERE id = ?1";
        let text: String = conn
            .prepare_cached(options)?
            .query_one([table_id], |row| row.get(0))?;
        TableOptions::parse(&text)
    }

    /// Returns the options with what the table's declaration says, for a table that is tracked
    /// first.
    pub(crate) fn settled(mut self, conn: &Connection, info: &TableInfo) -> rusqlite::Result<Self> {
        let counts = has_autoincrement(conn, &info.name)?;
        self.ids = match (self.ids, counts) {
            (Ids::Declared, true) => Ids::Counted,
            // The same options are the same text.
            (Ids::Shared, false) => Ids::Declared,
            (ids, _) => ids,
        };
        Ok(self)
    }

    /// Returns what concerns a table as it is: a column that a peer's options name may have been
    /// dropped there, or not be here yet.
    pub(crate) fn of_columns_in(&self, info: &TableInfo) -> TableOptions {
        let mut options = self.clone();
        options.columns.retain(|name, _| is_in(info, name));
        options
    }

    /// Refuses options that do not fit a table.
    pub(crate) fn check(&self, info: &TableInfo) -> Result<(), OptionsError> {
        if let Some(column) = self.columns.keys().find(|name| !is_in(info, name)) {
            return Err(OptionsError::NoColumn {
                table: info.name.clone(),
                column: column.clone(),
            });
        }
        Ok(())
    }
}

/// Returns the first column that is to be a bounded counter and has no whole number as its floor.
fn column_without_floor(text: &str) -> Option<String> {
    let options: serde_json::Value = serde_json::from_str(text).ok()?;
    let columns = options.get("columns")?.as_object()?;
    let has_none = |policy: &serde_json::Value| match policy.get("bounded_counter") {
        Some(bounded) => bounded
            .get("floor")
            .and_then(|floor| floor.as_i64())
            .is_none(),
        None => policy == "bounded_counter",
    };
    let mut columns = columns.iter();
    let found = columns.find(|(_, policy)| has_none(policy));
    found.map(|(column, _)| column.clone())
}

/// Whether SQLite gives no number of the table again: its declaration has the keyword, which can
/// mean nothing else.
pub(crate) fn has_autoincrement(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT sql FROM main.sqlite_master
        WHERE type = 'table' AND name = ?1 COLLATE NOCASE AND sql IS NOT NULL";
    let sql = conn
        .prepare_cached(sql)?
        .query_one([table], |row| row.get(0));
    let sql: Option<String> = sql.optional()?;
    let sql = sql.unwrap_or_default();
    Ok(tokens(&sql)
        .iter()
        .any(|token| token.is_word("AUTOINCREMENT")))
}

/// Whether a table has a column of this name that may have a policy.
fn is_in(info: &TableInfo, name: &str) -> bool {
    let mut columns = info.stored_columns();
    columns.any(|column| column.name.eq_ignore_ascii_case(name))
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_their_json_and_nonsense_is_named() {
        for text in [
            r#"{"columns":{"stock":{"bounded_counter":{"floor":0}},"title":"text"}}"#,
            r#"{"ids":"counted","foreign_keys":{"artist":"set_null"}}"#,
            "",
        ] {
            let options = TableOptions::parse(text).expect("these are options");
            assert_eq!(options.to_json(), text);
        }
        assert_eq!(
            TableOptions::parse("{}").expect("none").to_json(),
            String::new()
        );
        let conn = Connection::open_in_memory().expect("SQLite opens in memory");
        conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a)")
            .expect("a table");
        let info = TableInfo::read(&conn, "t").expect("a table");
        let info = info.expect("the table is there");
        let options = TableOptions::parse(r#"{"columns":{"b":"lww"}}"#).expect("options");
        let error = options.check(&info).expect_err("no column b").to_string();
        assert!(error.contains("no such column"), "{error}");
        let kept = TableOptions::parse(r#"{"columns":{"a":"lww"},"ids":"counted"}"#);
        kept.expect("options").check(&info).expect("they are held");
        for policy in [
            r#""bounded_counter""#,
            r#"{"bounded_counter":{}}"#,
            r#"{"bounded_counter":null}"#,
            r#"{"bounded_counter":{"floor":"0"}}"#,
            r#"{"bounded_counter":{"floor":0.5}}"#,
        ] {
            let text = format!(r#"{{"columns":{{"a":"lww","b":{policy}}}}}"#);
            let error = TableOptions::parse(&text)
                .expect_err("no floor")
                .to_string();
            let words = "`b` is to be a bounded counter, and its floor is missing";
            assert!(error.starts_with(words), "{error}");
            assert!(
                error.ends_with(r#"{"bounded_counter": {"floor": 0}}"#),
                "{error}"
            );
        }
        let error = TableOptions::parse(r#"{"columns":{"a":"sum"}}"#).expect_err("no policy");
        assert!(
            error.to_string().contains("unknown variant `sum`"),
            "{error}"
        );
    }
}
