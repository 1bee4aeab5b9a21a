//! A tracked table as it stands: its key, its columns and the SQL fragments made of them.

use rusqlite::{Connection, OptionalExtension};
use syncline_crdt::{Value, pack_key};

use crate::options::{OptionsError, TableOptions};
use crate::value::quoted;

/// How a table's rows are named in the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// `INTEGER PRIMARY KEY`: by the key, which is the rowid.
    Integer,
    /// A rowid table with another primary key: by rowid while a row lives, by the packed key for
    /// its causal length. A rowid is never sent.
    Rowid,
    /// `WITHOUT ROWID`: by the packed key.
    Packed,
}

/// A column of a tracked table.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The lane of its clocks; stable while the table is tracked. Unused for key columns.
    pub(crate) lane: i64,
    /// What stands in the cell until a value arrives, as SQL; `None` where SQLite knows a default.
    pub(crate) placeholder: Option<&'static str>,
    /// Whether `1` and `1.0` are different values in it.
    pub(crate) keeps_number_types: bool,
    pub(crate) is_not_null: bool,
}

/// A tracked table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) kind: KeyKind,
    /// The primary key's columns, in the key's order.
    pub(crate) key_columns: Vec<Column>,
    /// The other columns that are stored, in the table's order.
    pub(crate) columns: Vec<Column>,
    /// The name under which the rowid can be read, where there is one.
    pub(crate) rowid: String,
    /// How it is tracked.
    pub(crate) options: TableOptions,
}

/// Why a table cannot be read as a tracked one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// What is stored of how it is tracked cannot be read.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Every name of the rowid is taken by a column.
    #[error("table `{table}` has columns named rowid, oid and _rowid_: rename one of them")]
    NoRowidName {
        /// The table.
        table: String,
    },
}

/// What `PRAGMA table_xinfo` says of one column.
pub(crate) struct ColumnInfo {
    pub(crate) name: String,
    pub(crate) declared: String,
    pub(crate) is_not_null: bool,
    /// The expression of its default value.
    pub(crate) default: Option<String>,
    /// Its place in the primary key, from 1; 0 outside.
    pub(crate) key_position: i64,
    pub(crate) is_generated: bool,
}

/// What SQLite says of one table.
pub(crate) struct TableInfo {
    pub(crate) name: String,
    pub(crate) is_without_rowid: bool,
    pub(crate) columns: Vec<ColumnInfo>,
}

impl TableInfo {
    /// Reads what SQLite knows; `None` if there is no such ordinary table.
    pub(crate) fn read(conn: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        let list = "SELECT name, wr FROM pragma_table_list
            WHERE schema = 'main' AND type = 'table' AND name = ?1 COLLATE NOCASE";
        let found = conn
            .prepare_cached(list)?
            .query_one([name], |row| Ok((row.get(0)?, row.get(1)?)));
        let Some((name, is_without_rowid)) = found.optional()? else {
            return Ok(None);
        };
        let name: String = name;
        let xinfo = "SELECT name, type, \"notnull\", dflt_value, pk, hidden
            FROM pragma_table_xinfo(?1, 'main') ORDER BY cid";
        let mut statement = conn.prepare_cached(xinfo)?;
        let columns = statement.query_map([&name], |row| {
            Ok(ColumnInfo {
                name: row.get(0)?,
                declared: row.get(1)?,
                is_not_null: row.get(2)?,
                default: row.get(3)?,
                key_position: row.get(4)?,
                is_generated: row.get::<_, i64>(5)? != 0,
            })
        })?;
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(Some(TableInfo {
            name,
            is_without_rowid,
            columns,
        }))
    }

    /// Returns the primary key's columns in the key's order.
    pub(crate) fn key_columns(&self) -> Vec<&ColumnInfo> {
        let mut key: Vec<_> = self
            .columns
            .iter()
            .filter(|column| column.key_position > 0)
            .collect();
        key.sort_by_key(|column| column.key_position);
        key
    }

    /// Returns how the table's rows are named.
    pub(crate) fn key_kind(&self, conn: &Connection) -> rusqlite::Result<KeyKind> {
        if self.is_without_rowid {
            return Ok(KeyKind::Packed);
        }
        let key = self.key_columns();
        if key.len() != 1 || !key[0].declared.eq_ignore_ascii_case("INTEGER") {
            return Ok(KeyKind::Rowid);
        }
        // `INTEGER PRIMARY KEY DESC` is no alias of the rowid, for historical reasons: it has an
        // index of its own, and that tells them apart.
        let index = "SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk'";
        let has_index = conn.prepare_cached(index)?.exists([&self.name])?;
        Ok(if has_index {
            KeyKind::Rowid
        } else {
            KeyKind::Integer
        })
    }
}

impl Table {
    /// Reads a tracked table; `None` if it was dropped.
    pub(crate) fn read(conn: &Connection, id: i64, name: &str) -> Result<Option<Self>, TableError> {
        let Some(info) = TableInfo::read(conn, name)? else {
            return Ok(None);
        };
        let kind = info.key_kind(conn)?;
        let lane_of = "SELECT lane FROM syncline_columns WHERE table_id = ?1 AND name = ?2";
        let mut lane_of = conn.prepare_cached(lane_of)?;
        let mut columns = Vec::new();
        for column in &info.columns {
            if column.key_position > 0 || column.is_generated {
                continue;
            }
            // A column without a lane was added after the table was tracked; see `track::refresh`.
            let lane = lane_of
                .query_one((id, &column.name), |row| row.get(0))
                .optional()?;
            columns.extend(lane.map(|lane| column.tracked(lane)));
        }
        let key_columns = info
            .key_columns()
            .into_iter()
            .map(|column| column.tracked(0))
            .collect();
        let rowid = match kind {
            KeyKind::Integer => quoted(&info.key_columns()[0].name),
            KeyKind::Rowid => free_rowid_name(&info)?,
            KeyKind::Packed => String::new(),
        };
        Ok(Some(Table {
            id,
            name: info.name,
            kind,
            key_columns,
            columns,
            rowid,
            options: TableOptions::of(conn, id)?,
        }))
    }

    /// Reads the tracked table with this id; `None` if it was dropped.
    pub(crate) fn by_id(conn: &Connection, id: i64) -> Result<Option<Self>, TableError> {
        let name = "SELECT name FROM syncline_tables WHERE id = ?1";
        let name: Option<String> = conn
            .prepare_cached(name)?
            .query_one([id], |row| row.get(0))
            .optional()?;
        name.map_or(Ok(None), |name| Table::read(conn, id, &name))
    }

    /// Returns all tracked tables that are still there, by name.
    pub(crate) fn all(conn: &Connection) -> Result<Vec<Self>, TableError> {
        let all = "SELECT id, name FROM syncline_tables ORDER BY name COLLATE BINARY";
        let mut statement = conn.prepare_cached(all)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let rows: Vec<(i64, String)> = rows.collect::<Result<_, _>>()?;
        let read = |(id, name): (i64, String)| Table::read(conn, id, &name).transpose();
        rows.into_iter().filter_map(read).collect()
    }

    /// Returns the name of the table that takes up what the triggers see.
    pub(crate) fn pending(&self) -> String {
        format!("syncline_pending_{}", self.id)
    }

    /// Returns the table's name in quotes.
    pub(crate) fn quoted(&self) -> String {
        quoted(&self.name)
    }

    /// Returns the key's columns, quoted, with commas.
    pub(crate) fn key_list(&self) -> String {
        list(
            self.key_columns.iter().map(|column| quoted(&column.name)),
            ", ",
        )
    }

    /// Returns the condition that names one row by its key, from parameter `first` on.
    pub(crate) fn key_condition(&self, first: usize) -> String {
        let term =
            |(at, column): (usize, &Column)| format!("{} = ?{}", quoted(&column.name), first + at);
        list(self.key_columns.iter().enumerate().map(term), " AND ")
    }

    /// Returns where the row with this key keeps its causal length.
    pub(crate) fn life_key(&self, key: &[Value]) -> RowKey {
        match (self.kind, key) {
            (KeyKind::Integer, [Value::Integer(number)]) => RowKey::Rowid(*number),
            _ => RowKey::Packed(pack_key(&canonical(key))),
        }
    }
}

/// Returns a key in the one form of all that SQLite calls equal to it: a whole number in a column
/// without a type may be an integer on one replica and a real on another.
pub(crate) fn canonical(key: &[Value]) -> Vec<Value> {
    let whole = |real: f64| {
        let is_whole = real.fract() == 0.0 && real.abs() < 9_007_199_254_740_992.0;
        is_whole.then_some(Value::Integer(real as i64))
    };
    let form = |value: &Value| match value {
        Value::Real(real) => whole(real.get()).unwrap_or_else(|| value.clone()),
        _ => value.clone(),
    };
    key.iter().map(form).collect()
}

/// A row as the clocks name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RowKey {
    Rowid(i64),
    Packed(Vec<u8>),
}

impl rusqlite::ToSql for RowKey {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            RowKey::Rowid(number) => number.to_sql(),
            RowKey::Packed(bytes) => bytes.to_sql(),
        }
    }
}

impl rusqlite::types::FromSql for RowKey {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
        match value {
            rusqlite::types::ValueRef::Integer(number) => Ok(RowKey::Rowid(number)),
            rusqlite::types::ValueRef::Blob(bytes) => Ok(RowKey::Packed(bytes.to_vec())),
            _ => Err(rusqlite::types::FromSqlError::InvalidType),
        }
    }
}

impl ColumnInfo {
    pub(crate) fn tracked(&self, lane: i64) -> Column {
        let needs_placeholder = self.is_not_null && self.default.is_none();
        let affinity = Affinity::of(&self.declared);
        Column {
            name: self.name.clone(),
            lane,
            placeholder: needs_placeholder.then_some(affinity.placeholder()),
            keeps_number_types: affinity == Affinity::Blob,
            is_not_null: self.is_not_null,
        }
    }
}

#[derive(PartialEq)]
enum Affinity {
    Text,
    Blob,
    Number,
}

impl Affinity {
    /// SQLite's rules, *Datatypes In SQLite* section 3.1, with the numeric ones as one.
    fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |word| declared.contains(word);
        if has("INT") {
            Affinity::Number
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Affinity::Text
        } else if has("BLOB") || declared.is_empty() || declared == "ANY" {
            Affinity::Blob
        } else {
            Affinity::Number
        }
    }

    fn placeholder(&self) -> &'static str {
        match self {
            Affinity::Text => "''",
            Affinity::Blob => "x''",
            Affinity::Number => "0",
        }
    }
}

pub(crate) fn list(items: impl Iterator<Item = String>, separator: &str) -> String {
    items.collect::<Vec<_>>().join(separator)
}

pub(crate) fn free_rowid_name(info: &TableInfo) -> Result<String, TableError> {
    let is_taken = |name: &str| {
        info.columns
            .iter()
            .any(|column| column.name.eq_ignore_ascii_case(name))
    };
    let free = ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !is_taken(name));
    free.map(str::to_owned)
        .ok_or_else(|| TableError::NoRowidName {
            table: info.name.clone(),
        })
}
