//! A CRR as it stands: its key, its columns, and the SQL that reads and writes its rows.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use syncline_crdt::{Value, pack_key, unpack_key};

use super::capture;
use super::error::{CrsqlError, Result};
use super::storage::SENTINEL_NAME;
use crate::rows::{key_from, native};
use crate::shape::Affinity;
use crate::table::{Column, TableInfo, canonical, list};
use crate::value::{Bound, quoted};

/// A column beside the key, by the number under which its clocks are kept.
#[derive(Clone, Debug)]
pub(crate) struct Numbered {
    pub(crate) id: i64,
    /// The column as the table has it; `None` if the table has none of this name any more.
    pub(crate) column: Option<Column>,
}

/// How a key's column tells texts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collation {
    Binary,
    NoCase,
    TrimmedRight,
}

/// A table that `crsql_as_crr` made conflict-free.
#[derive(Clone, Debug)]
pub(crate) struct Crr {
    pub(crate) id: i64,
    pub(crate) name: String,
    /// The primary key's columns, in the key's order.
    pub(crate) key_columns: Vec<Column>,
    collations: Vec<Collation>,
    /// What the key's columns make of the values they are given.
    affinities: Vec<Affinity>,
    /// The columns whose clocks are kept, by number. The capture's mask has a bit for each.
    pub(crate) columns: Vec<Numbered>,
    /// Columns of the table that have no number yet.
    pub(crate) unnumbered: Vec<Column>,
    /// Reads the columns of one row, those that are there.
    select: String,
}

impl Crr {
    /// Reads a CRR; `None` if its table is gone.
    pub(crate) fn read(conn: &Connection, id: i64) -> Result<Option<Self>> {
        let name = "SELECT name FROM syncline_crsql_tables WHERE id = ?1";
        let name: Option<String> = conn
            .prepare_cached(name)?
            .query_one([id], |row| row.get(0))
            .optional()?;
        let Some(noted) = name else {
            return Ok(None);
        };
        // Its triggers go with a table that is renamed, before anybody notes it.
        let name = capture::table_of(conn, id, "insert")?.unwrap_or(noted);
        let Some(info) = TableInfo::read(conn, &name)? else {
            return Ok(None);
        };
        if info.key_columns().is_empty() {
            return Ok(None);
        }
        Ok(Some(Crr::of(conn, id, &info)?))
    }

    /// Describes a CRR whose table is as `info` says.
    pub(crate) fn of(conn: &Connection, id: i64, info: &TableInfo) -> Result<Self> {
        let numbered =
            "SELECT id, name FROM syncline_crsql_columns WHERE table_id = ?1 ORDER BY id";
        let mut statement = conn.prepare_cached(numbered)?;
        let numbered = statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let numbered: Vec<(i64, String)> = numbered.collect::<rusqlite::Result<_>>()?;
        let stored = info
            .columns
            .iter()
            .filter(|column| column.key_position == 0 && !column.is_generated);
        let mut stored: Vec<Column> = stored
            .map(|column| column.tracked(0, info.is_strict))
            .collect();
        let columns: Vec<Numbered> = numbered
            .into_iter()
            .map(|(id, name)| {
                let at = stored.iter().position(|column| column.name == name);
                let column = at.map(|at| stored.remove(at));
                Numbered { id, column }
            })
            .collect();
        let key_columns: Vec<Column> = info
            .key_columns()
            .into_iter()
            .map(|column| column.tracked(0, info.is_strict))
            .collect();
        let affinities = info.key_columns().into_iter();
        let affinities = affinities.map(|column| Affinity::of(&column.declared));
        let mut crr = Crr {
            id,
            name: info.name.clone(),
            collations: collations(conn, info)?,
            affinities: affinities.collect(),
            key_columns,
            columns,
            unnumbered: stored,
            select: String::new(),
        };
        let fields = crr.present().map(|(_, column)| quoted(&column.name));
        let fields = list(std::iter::once("1".to_owned()).chain(fields), ", ");
        crr.select = format!(
            "SELECT {fields} FROM main.{} WHERE {}",
            crr.quoted(),
            crr.key_condition()
        );
        Ok(crr)
    }

    /// Returns the columns that the table has, with their numbers.
    pub(crate) fn present(&self) -> impl Iterator<Item = (i64, &Column)> {
        let present = |column: &Numbered| column.column.is_some();
        self.columns
            .iter()
            .filter(move |column| present(column))
            .map(|numbered| {
                let column = numbered
                    .column
                    .as_ref()
                    .expect("those without are left out");
                (numbered.id, column)
            })
    }

    /// Whether the table has no columns beside its key.
    pub(crate) fn is_key_only(&self) -> bool {
        self.present().next().is_none()
    }

    /// Returns the table's name in quotes.
    pub(crate) fn quoted(&self) -> String {
        quoted(&self.name)
    }

    /// Returns the key's columns, quoted, with commas.
    pub(crate) fn key_list(&self) -> String {
        let names = self.key_columns.iter().map(|column| quoted(&column.name));
        list(names, ", ")
    }

    fn key_condition(&self) -> String {
        let term =
            |(at, column): (usize, &Column)| format!("{} = ?{}", quoted(&column.name), at + 1);
        list(self.key_columns.iter().enumerate().map(term), " AND ")
    }

    /// Returns the key's form by which a row is found: one for all spellings that the table's
    /// declaration calls equal.
    pub(crate) fn lookup_key(&self, key: &[Value]) -> Vec<u8> {
        let mut form = canonical(key);
        for (value, collation) in form.iter_mut().zip(&self.collations) {
            if let Value::Text(text) = value {
                match collation {
                    Collation::Binary => {}
                    Collation::NoCase => text.make_ascii_lowercase(),
                    Collation::TrimmedRight => {
                        let length = text.iter().rposition(|byte| *byte != b' ');
                        text.truncate(length.map_or(0, |last| last + 1));
                    }
                }
            }
        }
        pack_key(&form)
    }

    /// Reads a key that another replica packed, and returns it as the table's columns hold it.
    pub(crate) fn unpack(&self, conn: &Connection, packed: &[u8]) -> Result<Vec<Value>> {
        let key = unpack_key(packed).map_err(CrsqlError::Key)?;
        if key.len() != self.key_columns.len() {
            let rule = "its pk has as many values as the table's key has columns";
            return Err(CrsqlError::Invalid { rule });
        }
        if key.contains(&Value::Null) {
            let rule = "no value of a pk is NULL";
            return Err(CrsqlError::Invalid { rule });
        }
        let native = |(value, affinity)| native(conn, value, affinity);
        let key = key.into_iter().zip(self.affinities.iter().copied());
        Ok(key.map(native).collect::<rusqlite::Result<_>>()?)
    }

    /// Returns the number of a column by its name in `crsql_changes`.
    pub(crate) fn column_id(&self, name: &str) -> Result<i64> {
        if name == SENTINEL_NAME {
            return Ok(super::storage::SENTINEL);
        }
        let found = self
            .present()
            .find(|(_, column)| column.name.eq_ignore_ascii_case(name));
        found
            .map(|(id, _)| id)
            .ok_or_else(|| CrsqlError::UnknownColumn {
                table: self.name.clone(),
                column: name.to_owned(),
            })
    }

    /// Returns the name of a column by its number, if the table has it.
    pub(crate) fn column_name(&self, id: i64) -> Option<&str> {
        let found = self.present().find(|(numbered, _)| *numbered == id);
        found.map(|(_, column)| &*column.name)
    }

    /// Reads the columns of a row, with their numbers; `None` if there is no such row.
    pub(crate) fn row(
        &self,
        conn: &Connection,
        key: &[Value],
    ) -> Result<Option<Vec<(i64, Value)>>> {
        let mut statement = conn.prepare_cached(&self.select)?;
        let count = self.present().count();
        let read = |row: &rusqlite::Row<'_>| key_from(row, 1, count);
        let values = statement
            .query_one(params_from_iter(key.iter().map(Bound)), read)
            .optional()?;
        let ids = self.present().map(|(id, _)| id);
        Ok(values.map(|values| ids.zip(values).collect()))
    }

    /// Deletes a row of the table.
    pub(crate) fn delete_row(&self, conn: &Connection, key: &[Value]) -> Result<()> {
        let delete = format!(
            "DELETE FROM main.{} WHERE {}",
            self.quoted(),
            self.key_condition()
        );
        conn.prepare_cached(&delete)?
            .execute(params_from_iter(key.iter().map(Bound)))?;
        Ok(())
    }

    /// Inserts a row that has only its key, if it is not there and nothing stands against it.
    pub(crate) fn insert_row(&self, conn: &Connection, key: &[Value]) -> Result<()> {
        let (names, values) = self.insertion(None);
        let insert = format!(
            "INSERT OR IGNORE INTO main.{}({names}) VALUES({values})",
            self.quoted()
        );
        conn.prepare_cached(&insert)?
            .execute(params_from_iter(key.iter().map(Bound)))?;
        Ok(())
    }

    /// Writes one cell of a row, which is inserted if it is not there.
    pub(crate) fn write_cell(
        &self,
        conn: &Connection,
        key: &[Value],
        column_id: i64,
        value: ValueRef<'_>,
    ) -> Result<()> {
        let found = self.present().find(|(id, _)| *id == column_id);
        let (_, column) = found.expect("the column was looked up in this table");
        let (names, values) = self.insertion(Some(column));
        let (keys, name) = (self.key_list(), quoted(&column.name));
        let upsert = format!(
            "INSERT INTO main.{}({names}) VALUES({values})
             ON CONFLICT({keys}) DO UPDATE SET {name} = excluded.{name}",
            self.quoted()
        );
        let mut statement = conn.prepare_cached(&upsert)?;
        for (at, value) in key.iter().enumerate() {
            statement.raw_bind_parameter(at + 1, Bound(value))?;
        }
        let value = rusqlite::types::ToSqlOutput::Borrowed(value);
        statement.raw_bind_parameter(key.len() + 1, value)?;
        statement.raw_execute()?;
        Ok(())
    }

    /// Returns the columns and values of an insertion of a key and one more cell, whose value comes
    /// after the key's; columns that need a value have a placeholder.
    fn insertion(&self, written: Option<&Column>) -> (String, String) {
        let mut names: Vec<String> = Vec::new();
        let mut values: Vec<String> = Vec::new();
        for (at, column) in self.key_columns.iter().chain(written).enumerate() {
            names.push(quoted(&column.name));
            values.push(format!("?{}", at + 1));
        }
        for (_, column) in self.present() {
            if let Some(placeholder) = &column.placeholder
                && written.is_none_or(|written| written.name != column.name)
            {
                names.push(quoted(&column.name));
                values.push(placeholder.clone());
            }
        }
        (names.join(", "), values.join(", "))
    }
}

/// Returns the collations of a key's columns. An `INTEGER PRIMARY KEY` holds no texts.
fn collations(conn: &Connection, info: &TableInfo) -> Result<Vec<Collation>> {
    let index = "SELECT x.coll FROM pragma_index_list(?1, 'main') AS l,
        pragma_index_xinfo(l.name, 'main') AS x WHERE l.origin = 'pk' AND x.key ORDER BY x.seqno";
    let mut statement = conn.prepare_cached(index)?;
    let names = statement.query_map([&info.name], |row| row.get::<_, String>(0))?;
    let mut collations = Vec::new();
    for name in names {
        let name = name?;
        collations.push(match &*name.to_ascii_uppercase() {
            "BINARY" => Collation::Binary,
            "NOCASE" => Collation::NoCase,
            "RTRIM" => Collation::TrimmedRight,
            _ => {
                return Err(CrsqlError::Refused {
                    table: info.name.clone(),
                    obstacle: format!(
                        "replicas cannot compare its key by the collation {name}: \
                         declare it BINARY, NOCASE or RTRIM"
                    ),
                });
            }
        });
    }
    if collations.is_empty() {
        collations.push(Collation::Binary);
    }
    Ok(collations)
}
