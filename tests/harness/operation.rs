//! What schedules do to tables: operations as data, drawn at random, written out as SQL.

use fastrand::Rng;

use super::model::{Cell, Key, Row};
use super::shape::{Kind, Shape};

/// One statement.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// Refused if the row is there.
    Insert {
        shape: Shape,
        key: Key,
        values: Row,
    },
    Replace {
        shape: Shape,
        key: Key,
        values: Row,
    },
    /// Updates the columns in `set` if the row is there.
    Upsert {
        shape: Shape,
        key: Key,
        values: Row,
        set: Vec<&'static str>,
    },
    /// Of one row, or of all.
    Update {
        shape: Shape,
        key: Option<Key>,
        set: Row,
    },
    /// Of one row, or of all.
    Delete {
        shape: Shape,
        key: Option<Key>,
    },
    /// Gives a row another key; refused if that is taken, unless it replaces.
    Move {
        shape: Shape,
        from: Key,
        to: Key,
        set: Row,
        or_replace: bool,
    },
}

/// Operations that are committed or rolled back together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) before: Vec<Operation>,
    /// What a savepoint takes back.
    pub(crate) undone: Vec<Operation>,
    pub(crate) after: Vec<Operation>,
    pub(crate) is_rolled_back: bool,
}

impl Transaction {
    /// Draws a transaction.
    pub(crate) fn draw(random: &mut Rng, shapes: &[Shape]) -> Self {
        let mut some = |most: usize| -> Vec<Operation> {
            let count = random.usize(0..=most);
            let shape = |random: &mut Rng| shapes[random.usize(..shapes.len())];
            let mut draw = || Operation::draw(random, shape);
            (0..count).map(|_| draw()).collect()
        };
        let (before, undone, after) = (some(3), some(2), some(2));
        Transaction {
            before,
            undone: if random.u8(..4) == 0 { undone } else { vec![] },
            after,
            is_rolled_back: random.u8(..8) == 0,
        }
    }
}

impl Operation {
    fn draw(random: &mut Rng, shape: impl Fn(&mut Rng) -> Shape) -> Self {
        let shape = shape(random);
        let key = key(random, &shape);
        match random.u8(..20) {
            0..5 => Operation::Insert {
                shape,
                key,
                values: values(random, &shape),
            },
            5..7 => Operation::Replace {
                shape,
                key,
                values: values(random, &shape),
            },
            7..9 => {
                let values = values(random, &shape);
                let set = some(random, shape.columns.iter().map(|column| column.name));
                Operation::Upsert {
                    shape,
                    key,
                    values,
                    set,
                }
            }
            9..15 => Operation::Update {
                shape,
                key: (random.u8(..6) > 0).then_some(key),
                set: set(random, &shape),
            },
            15..18 => Operation::Delete {
                shape,
                key: (random.u8(..6) > 0).then_some(key),
            },
            _ => Operation::Move {
                shape,
                from: key,
                to: self::key(random, &shape),
                set: set(random, &shape),
                or_replace: random.bool(),
            },
        }
    }

    fn shape(&self) -> &Shape {
        match self {
            Operation::Insert { shape, .. }
            | Operation::Replace { shape, .. }
            | Operation::Upsert { shape, .. }
            | Operation::Update { shape, .. }
            | Operation::Delete { shape, .. }
            | Operation::Move { shape, .. } => shape,
        }
    }

    pub(crate) fn table(&self) -> &'static str {
        self.shape().name
    }

    /// Writes the operation as SQL.
    pub(crate) fn sql(&self) -> String {
        let (shape, table) = (self.shape(), self.table());
        match self {
            Operation::Insert { key, values, .. } => insert("INSERT", shape, key, values),
            Operation::Replace { key, values, .. } => insert("REPLACE", shape, key, values),
            Operation::Upsert {
                key, values, set, ..
            } => {
                let keys: Vec<_> = shape.key.iter().map(|(name, _)| *name).collect();
                let set = set.iter().map(|c| format!("{c} = excluded.{c}"));
                let set: Vec<_> = set.collect();
                let update = match set.is_empty() {
                    true => "NOTHING".to_owned(),
                    false => format!("UPDATE SET {}", set.join(", ")),
                };
                let insert = insert("INSERT", shape, key, values);
                format!("{insert} ON CONFLICT({}) DO {update}", keys.join(", "))
            }
            Operation::Update { key, set, .. } => match set.is_empty() {
                // A table that is all key has nothing else to set.
                true => format!("UPDATE {table} SET {0} = {0}", shape.key[0].0),
                false => format!(
                    "UPDATE {table} SET {}{}",
                    assignments(set),
                    of(shape, key.as_ref())
                ),
            },
            Operation::Delete { key, .. } => {
                format!("DELETE FROM {table}{}", of(shape, key.as_ref()))
            }
            Operation::Move {
                from,
                to,
                set,
                or_replace,
                ..
            } => {
                let keys = shape.key.iter().map(|(name, _)| *name).zip(to.clone());
                let set = assignments(&set.clone().into_iter().chain(keys).collect());
                let or_replace = if *or_replace { " OR REPLACE" } else { "" };
                let of = of(shape, Some(from));
                format!("UPDATE{or_replace} {table} SET {set}{of}")
            }
        }
    }
}

fn insert(verb: &str, shape: &Shape, key: &Key, values: &Row) -> String {
    let keys = shape.key.iter().map(|(name, _)| *name).zip(key);
    let values = values.iter().map(|(name, value)| (*name, value));
    let (names, values): (Vec<_>, Vec<_>) = keys
        .chain(values)
        .map(|(name, value)| (name, value.sql()))
        .unzip();
    let (names, values) = (names.join(", "), values.join(", "));
    format!("{verb} INTO {}({names}) VALUES({values})", shape.name)
}

fn assignments(set: &Row) -> String {
    let set = set
        .iter()
        .map(|(name, value)| format!("{name} = {}", value.sql()));
    set.collect::<Vec<_>>().join(", ")
}

fn of(shape: &Shape, key: Option<&Key>) -> String {
    let Some(key) = key else {
        return String::new();
    };
    let terms = shape.key.iter().zip(key);
    let terms = terms.map(|((name, _), value)| format!("{name} = {}", value.sql()));
    format!(" WHERE {}", terms.collect::<Vec<_>>().join(" AND "))
}

impl Cell {
    /// Writes the value as SQL.
    fn sql(&self) -> String {
        match self {
            Cell::Null => "NULL".to_owned(),
            Cell::Blob(bytes) => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("x'{digits}'")
            }
            Cell::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Cell::Real(number) => format!("{number:?}"),
            Cell::Integer(number) => number.to_string(),
        }
    }
}

/// Few keys, so that replicas meet in the same rows; neighbours, so that ranges join and split.
fn key(random: &mut Rng, shape: &Shape) -> Key {
    let mut cell = |kind: &Kind| match kind {
        Kind::Text => Cell::Text(["", "k", "kk", "it's"][random.usize(..4)].to_owned()),
        _ => Cell::Integer([-1, 0, 1, 2, 3, 4, i64::MAX][random.usize(..7)]),
    };
    shape.key.iter().map(|(_, kind)| cell(kind)).collect()
}

/// Draws values for an INSERT, all that it must name and some others.
fn values(random: &mut Rng, shape: &Shape) -> Row {
    let mut row = Row::new();
    for column in shape.columns {
        if column.is_required || random.u8(..4) > 0 {
            row.insert(column.name, value(random, column.kind));
        }
    }
    row
}

/// Draws what an UPDATE sets: at least one column, if there is one.
fn set(random: &mut Rng, shape: &Shape) -> Row {
    let Some(surely) = (!shape.columns.is_empty()).then(|| random.usize(..shape.columns.len()))
    else {
        return Row::new();
    };
    let mut row = Row::new();
    for (at, column) in shape.columns.iter().enumerate() {
        if at == surely || random.u8(..4) == 0 {
            row.insert(column.name, value(random, column.kind));
        }
    }
    row
}

fn some<T>(random: &mut Rng, all: impl Iterator<Item = T>) -> Vec<T> {
    all.filter(|_| random.bool()).collect()
}

/// Few values, so that writes at one time are equal now and then.
fn value(random: &mut Rng, kind: Kind) -> Cell {
    match kind {
        Kind::Integer => Cell::Integer(random.i64(-1..4)),
        Kind::Text => Cell::Text(["", "a", "ab", "b"][random.usize(..4)].to_owned()),
        Kind::Real => Cell::Real([-1.5, 0.0, 2.0, 1e300][random.usize(..4)]),
        Kind::Any => match random.u8(..7) {
            0 => Cell::Null,
            1 => Cell::Blob(vec![0x31; random.usize(..3)]),
            2 => value(random, Kind::Text),
            3 => value(random, Kind::Real),
            4 => Cell::Text("1".to_owned()),
            5 => Cell::Real(1.0),
            _ => value(random, Kind::Integer),
        },
    }
}
