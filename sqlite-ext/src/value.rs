//! Values on their way between SQLite and the merge.

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};
use syncline_crdt::{Real, Value};

/// Returns the value SQLite holds. SQLite stores no NaN, so none arrives here.
pub(crate) fn from_sqlite(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Real::new(number).map_or(Value::Null, Value::Real),
        ValueRef::Text(text) => Value::Text(text.to_vec()),
        ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
    }
}

/// A value as a statement's parameter.
pub(crate) struct Bound<'a>(pub(crate) &'a Value);

impl<'a> Bound<'a> {
    /// Returns the value as SQLite takes it.
    pub(crate) fn value(&self) -> ValueRef<'a> {
        match self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Real(real) => ValueRef::Real(real.get()),
            Value::Text(text) => ValueRef::Text(text),
            Value::Blob(blob) => ValueRef::Blob(blob),
        }
    }
}

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.value()))
    }
}

/// Returns an identifier in double quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
