//! Table shapes that schedules write to, as SQL and as the model needs to know them.

use syncline_sqlite::{Ids, TableOptions};

use super::model::Cell;

/// A table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) create: &'static str,
    pub(crate) key: &'static [(&'static str, Kind)],
    pub(crate) columns: &'static [Column],
    /// Whether REPLACE gives a row another rowid, by which its clocks are kept.
    pub(crate) rows_move: bool,
}

impl Shape {
    /// How it is tracked: the model names rows by their keys alone.
    pub(crate) fn options(&self) -> TableOptions {
        TableOptions {
            ids: Ids::Shared,
            ..TableOptions::default()
        }
    }
}

/// A column beside the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// What stands there while nobody wrote it.
    pub(crate) absent: Absent,
    /// Whether an INSERT must name it.
    pub(crate) is_required: bool,
}

/// Which values a column takes, so that SQLite stores them as they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Any,
    Text,
    Integer,
    Real,
}

/// A default value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Absent {
    Null,
    Text(&'static str),
    Integer(i64),
}

impl Absent {
    pub(crate) fn cell(self) -> Cell {
        match self {
            Absent::Null => Cell::Null,
            Absent::Text(text) => Cell::Text(text.to_owned()),
            Absent::Integer(number) => Cell::Integer(number),
        }
    }
}

const fn column(name: &'static str, kind: Kind, absent: Absent) -> Column {
    Column {
        name,
        kind,
        absent,
        is_required: false,
    }
}

const fn required(name: &'static str, kind: Kind, absent: Absent) -> Column {
    Column {
        is_required: true,
        ..column(name, kind, absent)
    }
}

/// All shapes.
pub(crate) const SHAPES: [Shape; 7] = [
    Shape {
        name: "note",
        create: "CREATE TABLE note(id INTEGER PRIMARY KEY, a, b TEXT DEFAULT 'd',
            c INTEGER NOT NULL DEFAULT 7)",
        key: &[("id", Kind::Integer)],
        columns: &[
            column("a", Kind::Any, Absent::Null),
            column("b", Kind::Text, Absent::Text("d")),
            column("c", Kind::Integer, Absent::Integer(7)),
        ],
        rows_move: false,
    },
    Shape {
        name: "tag",
        create: "CREATE TABLE tag(id TEXT PRIMARY KEY, a, b TEXT DEFAULT 'd', r REAL)",
        key: &[("id", Kind::Text)],
        columns: &[
            column("a", Kind::Any, Absent::Null),
            column("b", Kind::Text, Absent::Text("d")),
            column("r", Kind::Real, Absent::Null),
        ],
        rows_move: true,
    },
    Shape {
        name: "link",
        create: "CREATE TABLE link(x INTEGER, w TEXT NOT NULL, y TEXT, v, PRIMARY KEY(y, x))
            WITHOUT ROWID",
        key: &[("y", Kind::Text), ("x", Kind::Integer)],
        columns: &[
            required("w", Kind::Text, Absent::Text("")),
            column("v", Kind::Any, Absent::Null),
        ],
        rows_move: false,
    },
    Shape {
        name: "member",
        create: "CREATE TABLE member(a TEXT, b INTEGER, PRIMARY KEY(a, b))",
        key: &[("a", Kind::Text), ("b", Kind::Integer)],
        columns: &[],
        rows_move: true,
    },
    Shape {
        name: "mark",
        create: "CREATE TABLE mark(id TEXT PRIMARY KEY) WITHOUT ROWID",
        key: &[("id", Kind::Text)],
        columns: &[],
        rows_move: false,
    },
    Shape {
        name: "number",
        create: "CREATE TABLE number(id INTEGER PRIMARY KEY)",
        key: &[("id", Kind::Integer)],
        columns: &[],
        rows_move: false,
    },
    Shape {
        name: "reading",
        create: "CREATE TABLE reading(t TEXT NOT NULL, i INT NOT NULL, r REAL,
            id INTEGER PRIMARY KEY, x ANY NOT NULL DEFAULT 'x') STRICT",
        key: &[("id", Kind::Integer)],
        columns: &[
            required("t", Kind::Text, Absent::Text("")),
            required("i", Kind::Integer, Absent::Integer(0)),
            column("r", Kind::Real, Absent::Null),
            column("x", Kind::Integer, Absent::Text("x")),
        ],
        rows_move: false,
    },
];
