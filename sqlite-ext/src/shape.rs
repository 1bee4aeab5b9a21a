//! What a table's clocks rely on: how its rows are named, and by which columns.
//!
//! The shape is stored when a table is tracked. A table of the same name that has another one was
//! made anew behind our back, and its clocks name nothing any more.

use serde::{Deserialize, Serialize};
use syncline_crdt::{Real, Value};

/// How a table's rows are named in the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyKind {
    /// `INTEGER PRIMARY KEY`: by the key, which is the rowid.
    Integer,
    /// A rowid table with another primary key: by rowid while a row lives, by the packed key for
    /// its causal length. A rowid is never sent.
    Rowid,
    /// `WITHOUT ROWID`: by the packed key.
    Packed,
}

/// What a column makes of the values it is given: SQLite's affinities, with the numeric ones as
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Affinity {
    Text,
    Blob,
    Number,
}

/// A table's key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Shape {
    pub(crate) kind: KeyKind,
    /// The primary key's columns, in the key's order.
    pub(crate) key: Vec<KeyColumn>,
}

/// A column of a primary key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct KeyColumn {
    pub(crate) name: String,
    pub(crate) affinity: Affinity,
    /// The id of the table with counted ids to whose rows it refers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refers: Option<i64>,
}

impl Shape {
    /// Reads a shape that was stored; `None` if it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Returns it as it is stored: equal for equal shapes.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a shape is made of names")
    }

    /// Whether both have the same columns as their key, so that their rows can be told to be the
    /// same. Those of keys that refer to rows cannot: nothing tells which ids these had.
    pub(crate) fn has_key_of(&self, other: &Shape) -> bool {
        let same = |(a, b): (&KeyColumn, &KeyColumn)| a.name.eq_ignore_ascii_case(&b.name);
        let refers = self.refers() || other.refers();
        !refers && self.key.len() == other.key.len() && self.key.iter().zip(&other.key).all(same)
    }

    /// Whether the key refers to rows of tables with counted ids.
    pub(crate) fn refers(&self) -> bool {
        self.key.iter().any(|column| column.refers.is_some())
    }
}

impl Affinity {
    /// SQLite's rules, *Datatypes In SQLite* section 3.1.
    pub(crate) fn of(declared: &str) -> Self {
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

    /// Returns what stands in a cell that must not be NULL until a value arrives, as SQL.
    pub(crate) fn placeholder(self) -> &'static str {
        match self {
            Affinity::Text => "''",
            Affinity::Blob => "x''",
            Affinity::Number => "0",
        }
    }
}

/// The type that a column of a STRICT table insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StrictType {
    Integer,
    Real,
    Text,
    Blob,
}

impl StrictType {
    /// Returns the type that a STRICT table's column declares; `None` for `ANY`.
    pub(crate) fn of(declared: &str) -> Option<Self> {
        match declared.to_ascii_uppercase().as_str() {
            "INT" | "INTEGER" => Some(StrictType::Integer),
            "REAL" => Some(StrictType::Real),
            "TEXT" => Some(StrictType::Text),
            "BLOB" => Some(StrictType::Blob),
            _ => None,
        }
    }

    /// Whether such a column takes a value, after the conversions that SQLite makes.
    pub(crate) fn holds(self, value: &Value) -> bool {
        let number = || match value {
            Value::Text(text) => number(text),
            other => Some(other.clone()),
        };
        match self {
            StrictType::Integer => {
                number().is_some_and(|number| matches!(whole(&number), Value::Integer(_)))
            }
            StrictType::Real => {
                number().is_some_and(|number| matches!(number, Value::Integer(_) | Value::Real(_)))
            }
            StrictType::Text => !matches!(value, Value::Blob(_)),
            StrictType::Blob => matches!(value, Value::Blob(_)),
        }
    }
}

/// Returns a whole real as the integer that SQLite calls equal to it.
pub(crate) fn whole(value: &Value) -> Value {
    const END: f64 = 9_223_372_036_854_775_808.0;
    match value {
        Value::Real(real) if real.get().fract() == 0.0 && (-END..END).contains(&real.get()) => {
            Value::Integer(real.get() as i64)
        }
        _ => value.clone(),
    }
}

/// Returns the number that a column of numbers makes of a text.
pub(crate) fn number(text: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(text).ok()?.trim_ascii();
    if let Ok(whole) = text.parse() {
        return Some(Value::Integer(whole));
    }
    let is_decimal = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
    let real: f64 = text.chars().all(is_decimal).then(|| text.parse().ok())??;
    Real::new(real).map(Value::Real)
}
