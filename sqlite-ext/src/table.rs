//! A tracked table as it stands: its key, its columns and the SQL fragments made of them.

mod default;

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};
use syncline_crdt::{Policy, Value, pack_key};

use crate::options::{Ids, OptionsError, TableOptions};
use crate::references;
pub(crate) use crate::shape::KeyKind;
use crate::shape::{Affinity, KeyColumn, Shape, StrictType, whole};
use crate::value::quoted;
use default::default_expression;

/// A column of a tracked table.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The lane of its clocks; stable while the table is tracked. Unused for key columns.
    pub(crate) lane: i64,
    /// What stands in the cell until a value arrives, as SQL; `None` where SQLite knows a default.
    pub(crate) placeholder: Option<String>,
    /// Whether `1` and `1.0` are different values in it.
    pub(crate) keeps_number_types: bool,
    /// Whether it refuses NULL.
    pub(crate) is_not_null: bool,
    /// The type it insists on.
    pub(crate) strict: Option<StrictType>,
    /// What it is declared to refer to.
    pub(crate) refers: Option<Refers>,
}

/// A table, and one of its columns where one is named.
#[derive(Clone, Debug)]
pub(crate) struct Refers {
    pub(crate) table: String,
    pub(crate) column: Option<String>,
    /// Its place in the foreign key, from 0: that in the table's primary key where no column is
    /// named.
    pub(crate) position: u16,
}

/// A column whose cells join instead of replacing each other.
#[derive(Clone, Debug)]
pub(crate) struct JoinedColumn {
    pub(crate) column: Column,
    pub(crate) policy: Policy,
}

/// A tracked table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) kind: KeyKind,
    /// The primary key's columns, in the key's order.
    pub(crate) key_columns: Vec<Column>,
    /// The other columns that are stored and hold what was written last, in the table's order.
    pub(crate) columns: Vec<Column>,
    /// The columns whose cells join, in the table's order.
    pub(crate) joined: Vec<JoinedColumn>,
    /// The name under which the rowid can be read, where there is one.
    pub(crate) rowid: String,
    /// What its clocks rely on.
    pub(crate) shape: Shape,
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
    pub(crate) is_strict: bool,
    pub(crate) columns: Vec<ColumnInfo>,
}

impl TableInfo {
    /// Reads what SQLite knows; `None` if there is no such ordinary table.
    pub(crate) fn read(conn: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        let list = "SELECT name, wr, strict FROM pragma_table_list
            WHERE schema = 'main' AND type = 'table' AND name = ?1 COLLATE NOCASE";
        let found = conn
            .prepare_cached(list)?
            .query_one([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let Some((name, is_without_rowid, is_strict)) = found.optional()? else {
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
                default: row
                    .get::<_, Option<String>>(3)?
                    .map(|d| default_expression(&d)),
                key_position: row.get(4)?,
                is_generated: row.get::<_, i64>(5)? != 0,
            })
        })?;
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(Some(TableInfo {
            name,
            is_without_rowid,
            is_strict,
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

    /// Returns the columns beside the key that are stored.
    pub(crate) fn stored_columns(&self) -> impl Iterator<Item = &ColumnInfo> {
        let is_stored = |column: &&ColumnInfo| column.key_position == 0 && !column.is_generated;
        self.columns.iter().filter(is_stored)
    }

    /// Returns the id of the table with counted ids whose rows a column of the key refers to, if
    /// there is one. `depth` counts the keys that were followed to get here. One column is followed
    /// and not the whole key: each step could lead to many more.
    pub(crate) fn key_refers(
        &self,
        conn: &Connection,
        at: usize,
        depth: usize,
    ) -> Result<Option<i64>, TableError> {
        let key = self.key_columns();
        // A column of another type may not hold an id as it is.
        let Some(column) = key.get(at).filter(|column| holds_ids(&column.declared)) else {
            return Ok(None);
        };
        let keys = foreign_keys(conn, &self.name)?.into_iter();
        let mut of_column = keys.filter(|(name, _)| column.name.eq_ignore_ascii_case(name));
        match of_column.next_back() {
            Some((_, refers)) => references::counted(conn, &refers, depth),
            None => Ok(None),
        }
    }

    /// Returns what the table's clocks rely on.
    pub(crate) fn shape(&self, conn: &Connection) -> Result<Shape, TableError> {
        let key_column = |column: &ColumnInfo| KeyColumn {
            name: column.name.clone(),
            affinity: Affinity::of(&column.declared),
            refers: None,
        };
        let kind = self.key_kind(conn)?;
        let mut key: Vec<_> = self.key_columns().into_iter().map(key_column).collect();
        if kind != KeyKind::Integer {
            for (at, column) in key.iter_mut().enumerate() {
                column.refers = self.key_refers(conn, at, 0)?;
            }
        }
        Ok(Shape { kind, key })
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
    /// Reads a tracked table; `None` if it was dropped or its rows cannot be named.
    pub(crate) fn read(conn: &Connection, id: i64, name: &str) -> Result<Option<Self>, TableError> {
        let Some(info) = TableInfo::read(conn, name)? else {
            return Ok(None);
        };
        let shape = info.shape(conn)?;
        let kind = shape.kind;
        let lanes = "SELECT lower(name), lane FROM syncline_columns
            WHERE table_id = ?1 AND NOT is_gone";
        let mut lanes = conn.prepare_cached(lanes)?;
        let lanes = lanes.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let lanes: BTreeMap<String, i64> = lanes.collect::<Result<_, _>>()?;
        let options = TableOptions::of(conn, id)?;
        let (mut columns, mut joined) = (Vec::new(), Vec::new());
        for column in info.stored_columns() {
            // A column without a lane was added after the table was tracked; see `columns`.
            let Some(lane) = lanes.get(&column.name.to_ascii_lowercase()) else {
                continue;
            };
            match options.policy(&column.name).joins() {
                Some(policy) => joined.push(column.joined(*lane, info.is_strict, policy)),
                None => columns.push(column.tracked(*lane, info.is_strict)),
            }
        }
        for (name, refers) in foreign_keys(conn, &info.name)? {
            let mut columns = columns.iter_mut();
            let found: Option<&mut Column> =
                columns.find(|column: &&mut Column| column.name.eq_ignore_ascii_case(&name));
            if let Some(column) = found {
                column.refers = Some(refers);
            }
        }
        let key_columns = info
            .key_columns()
            .into_iter()
            .map(|column| column.tracked(0, info.is_strict))
            .collect();
        let rowid = match kind {
            KeyKind::Integer => quoted(&info.key_columns()[0].name),
            KeyKind::Rowid => match free_rowid_name(&info) {
                Ok(name) => name,
                Err(_) => return Ok(None),
            },
            KeyKind::Packed => String::new(),
        };
        Ok(Some(Table {
            id,
            name: info.name,
            kind,
            key_columns,
            columns,
            joined,
            rowid,
            shape,
            options,
        }))
    }

    /// Reads the tracked table with this id, if it is as it was tracked.
    pub(crate) fn by_id(conn: &Connection, id: i64) -> Result<Option<Self>, TableError> {
        let name = "SELECT name FROM syncline_tables WHERE id = ?1";
        let name: Option<String> = conn
            .prepare_cached(name)?
            .query_one([id], |row| row.get(0))
            .optional()?;
        name.map_or(Ok(None), |name| Table::named(conn, &name))
    }

    /// Returns all tracked tables that are as they were tracked, by name. The others were dropped,
    /// stand aside, or are mended by the next fold.
    pub(crate) fn all(conn: &Connection) -> Result<Vec<Self>, TableError> {
        let all = "SELECT id, name, shape FROM syncline_tables WHERE aside IS NULL
            ORDER BY name COLLATE BINARY";
        let mut statement = conn.prepare_cached(all)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let rows: Vec<(i64, String, String)> = rows.collect::<Result<_, _>>()?;
        let mut tables = Vec::new();
        for (id, name, shape) in rows {
            let table = Table::read(conn, id, &name)?;
            tables.extend(table.filter(|table| table.shape.to_text() == shape));
        }
        Ok(tables)
    }

    /// Returns a tracked table by name, if it is as it was tracked.
    pub(crate) fn named(conn: &Connection, name: &str) -> Result<Option<Self>, TableError> {
        let find = "SELECT id, shape FROM syncline_tables WHERE name = ?1 AND aside IS NULL";
        let mut statement = conn.prepare_cached(find)?;
        let found = statement.query_one([name], |row| Ok((row.get(0)?, row.get(1)?)));
        let Some((id, shape)) = found.optional()? else {
            return Ok(None);
        };
        let shape: String = shape;
        let table = Table::read(conn, id, name)?;
        Ok(table.filter(|table| table.shape.to_text() == shape))
    }

    /// Whether the primary key has these columns, in this order.
    pub(crate) fn has_key(&self, columns: &[String]) -> bool {
        let same = |(a, b): (&Column, &String)| a.name.eq_ignore_ascii_case(b);
        self.key_columns.len() == columns.len() && self.key_columns.iter().zip(columns).all(same)
    }

    /// Returns all columns beside the key whose writes are captured.
    pub(crate) fn captured(&self) -> impl Iterator<Item = &Column> {
        let joined = self.joined.iter().map(|joined| &joined.column);
        self.columns.iter().chain(joined)
    }

    /// Returns the name of the table that takes up what the triggers see.
    pub(crate) fn pending(&self) -> String {
        format!("syncline_pending_{}", self.id)
    }

    /// Returns the lanes that keep something of a column's cells.
    pub(crate) fn column_lanes(&self) -> impl Iterator<Item = i64> {
        self.columns.iter().flat_map(|column| {
            let literals = references::literals(self.id, column).lane;
            let literals = column.refers.as_ref().map(|_| literals);
            std::iter::once(column.lane).chain(literals)
        })
    }

    /// Returns the places in the key of the columns that refer to rows of tables with counted ids,
    /// with the ids of those tables.
    pub(crate) fn key_references(&self) -> impl Iterator<Item = (usize, i64)> {
        let key = self.shape.key.iter().enumerate();
        key.filter_map(|(at, column)| Some((at, column.refers?)))
    }

    /// Whether equal ids from two replicas are two rows.
    pub(crate) fn is_counted(&self) -> bool {
        self.kind == KeyKind::Integer && self.options.ids == Ids::Counted
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

    /// Returns the condition that names one row by its key, from parameter `first` on: the very
    /// same key, also where the column's collation calls others equal to it.
    pub(crate) fn key_condition(&self, first: usize) -> String {
        let term = |(at, column): (usize, &Column)| {
            let equal = format!("{} = ?{}", quoted(&column.name), first + at);
            match self.kind {
                KeyKind::Integer => equal,
                // The first finds it, in an index that may have the collation.
                KeyKind::Rowid | KeyKind::Packed => format!("{equal} AND {equal} COLLATE BINARY"),
            }
        };
        list(self.key_columns.iter().enumerate().map(term), " AND ")
    }

    /// Returns where the row with this key keeps its causal length; `None` if no row can have it.
    pub(crate) fn key_place(&self, key: &[Value]) -> Option<RowKey> {
        let fits = self.kind != KeyKind::Integer || matches!(key, [Value::Integer(_)]);
        fits.then(|| self.life_key(key))
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
    key.iter().map(whole).collect()
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

/// Returns the columns of a table that refer to others, the one that counts last.
fn foreign_keys(conn: &Connection, table: &str) -> rusqlite::Result<Vec<(String, Refers)>> {
    let all = "SELECT \"from\", \"table\", \"to\", seq FROM pragma_foreign_key_list(?1, 'main')
        ORDER BY 2 DESC, 3 DESC";
    let mut statement = conn.prepare_cached(all)?;
    let keys = statement.query_map([table], |row| {
        let refers = Refers {
            table: row.get(1)?,
            column: row.get(2)?,
            position: row.get(3)?,
        };
        Ok((row.get(0)?, refers))
    })?;
    keys.collect()
}

impl ColumnInfo {
    pub(crate) fn tracked(&self, lane: i64, is_strict: bool) -> Column {
        let needs_placeholder = self.is_not_null && self.default.is_none();
        let affinity = Affinity::of(&self.declared);
        Column {
            name: self.name.clone(),
            lane,
            placeholder: needs_placeholder.then(|| affinity.placeholder().to_owned()),
            keeps_number_types: affinity == Affinity::Blob,
            is_not_null: self.is_not_null,
            strict: StrictType::of(&self.declared).filter(|_| is_strict),
            refers: None,
        }
    }
}

impl ColumnInfo {
    fn joined(&self, lane: i64, is_strict: bool, policy: Policy) -> JoinedColumn {
        let mut column = self.tracked(lane, is_strict);
        // Where nobody is known to have written anything the cell comes to nothing. The default is
        // somebody's to write, with the row, and arrives from there.
        column.placeholder = match (self.is_not_null, policy) {
            (false, _) => self.default.as_ref().map(|_| "NULL".to_owned()),
            (true, Policy::Counter) => Some("0".to_owned()),
            (true, Policy::BoundedCounter { floor }) => Some(floor.to_string()),
            (true, Policy::Text) => Some("''".to_owned()),
            (true, Policy::Set) => Some("'[]'".to_owned()),
            (true, Policy::Document) => Some("'{}'".to_owned()),
            (true, Policy::Max | Policy::Min) => column.placeholder,
        };
        JoinedColumn { column, policy }
    }
}

/// Whether a column of this type keeps every integer as one.
fn holds_ids(declared: &str) -> bool {
    declared.to_ascii_uppercase().contains("INT")
}

pub(crate) fn list(items: impl Iterator<Item = String>, separator: &str) -> String {
    items.collect::<Vec<_>>().join(separator)
}

/// Returns the name under which a table's rowid can be read.
///
/// # Errors
///
/// [`TableError::NoRowidName`] if columns have all its names.
pub(crate) fn free_rowid_name(info: &TableInfo) -> Result<String, TableError> {
    let is_taken = |name: &str| {
        let mut columns = info.columns.iter();
        columns.any(|column| column.name.eq_ignore_ascii_case(name))
    };
    // The first is the one that a column added later is least likely to take.
    let mut names = ["_rowid_", "oid", "rowid"].into_iter();
    let free = names.find(|name| !is_taken(name)).map(str::to_owned);
    free.ok_or_else(|| TableError::NoRowidName {
        table: info.name.clone(),
    })
}
