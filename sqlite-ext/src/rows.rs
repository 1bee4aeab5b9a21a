//! Rows of a tracked table, read by their place in the clocks.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, Statement, params_from_iter};
use syncline_crdt::{Value, unpack_key};

use crate::shape::{Affinity, number};
use crate::table::{Column, KeyKind, RowKey, Table, canonical, list};
use crate::value::{Bound, from_sqlite, quoted};

/// Reads `count` values of a row from column `first` on.
pub(crate) fn key_from(row: &Row<'_>, first: usize, count: usize) -> rusqlite::Result<Vec<Value>> {
    (first..first + count)
        .map(|at| row.get_ref(at).map(from_sqlite))
        .collect()
}

/// Calls `each` with the rowid (if any), the key and the chosen columns of every row whose place
/// lies between `first` and `last`, in order of place.
pub(crate) fn for_each(
    conn: &Connection,
    table: &Table,
    columns: &[usize],
    (first, last): (&RowKey, &RowKey),
    mut each: impl FnMut(Option<i64>, Vec<Value>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let chosen = columns.iter().map(|at| &*table.columns[*at].name);
    for_each_named(
        conn,
        table,
        &chosen.collect::<Vec<_>>(),
        (first, last),
        &mut each,
    )
}

/// Calls `each` as [`for_each`] does, with the columns of these names.
pub(crate) fn for_each_named(
    conn: &Connection,
    table: &Table,
    columns: &[&str],
    (first, last): (&RowKey, &RowKey),
    mut each: impl FnMut(Option<i64>, Vec<Value>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let chosen = columns.iter().map(|name| quoted(name));
    let fields = list(std::iter::once(table.key_list()).chain(chosen), ", ");
    let width = table.key_columns.len() + columns.len();
    let name = table.quoted();
    if table.kind == KeyKind::Packed {
        let RowKey::Packed(packed) = first else {
            return Ok(());
        };
        let key = unpack_key(packed).expect("keys in the clocks were packed here");
        let condition = table.key_condition(1);
        let select = format!("SELECT {fields} FROM main.{name} WHERE {condition}");
        let mut statement = conn.prepare_cached(&select)?;
        let mut rows = statement.query(params_from_iter(key.iter().map(Bound)))?;
        while let Some(row) = rows.next()? {
            each(None, key_from(row, 0, width)?)?;
        }
        return Ok(());
    }
    let rowid = &table.rowid;
    // An integer key is the rowid: no other table could have SQLite's 2,000 columns beside it.
    let (fields, values_at) = match table.kind {
        KeyKind::Integer => (fields, 0),
        KeyKind::Rowid | KeyKind::Packed => (format!("{rowid}, {fields}"), 1),
    };
    let select = format!(
        "SELECT {fields} FROM main.{name} WHERE {rowid} BETWEEN ?1 AND ?2 ORDER BY {rowid}"
    );
    let mut statement = conn.prepare_cached(&select)?;
    let mut rows = statement.query((first, last))?;
    while let Some(row) = rows.next()? {
        each(Some(row.get(0)?), key_from(row, values_at, width)?)?;
    }
    Ok(())
}

/// Returns the statement that inserts a row with a key and some columns, in this order. Columns that
/// nobody wrote yet get their default, and one without a default that must not be NULL gets an
/// empty value; its clock says it is older than anything that arrives.
pub(crate) fn insertion(table: &Table, columns: &[&Column]) -> String {
    let given = table.key_columns.iter().chain(columns.iter().copied());
    let mut names: Vec<String> = given.map(|column| quoted(&column.name)).collect();
    let mut fields: Vec<String> = (1..=names.len()).map(|at| format!("?{at}")).collect();
    if columns.len() < table.columns.len() + table.joined.len() {
        for column in table.captured() {
            if let Some(placeholder) = &column.placeholder
                && !columns.iter().any(|given| given.lane == column.lane)
            {
                names.push(quoted(&column.name));
                fields.push(placeholder.clone());
            }
        }
    }
    let (name, names, fields) = (table.quoted(), names.join(", "), fields.join(", "));
    // Stronger than an `ON CONFLICT` clause of the table, which could delete another row.
    format!("INSERT OR ABORT INTO main.{name}({names}) VALUES({fields})")
}

/// Looks up the places of rows, best in order of their keys.
pub(crate) struct Lookup<'a> {
    table: &'a Table,
    /// Unset where the table is empty.
    statement: Option<CachedStatement<'a>>,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(conn: &'a Connection, table: &'a Table) -> rusqlite::Result<Self> {
        let name = table.quoted();
        let any = format!("SELECT 1 FROM main.{name} LIMIT 1");
        let is_empty = !conn.prepare_cached(&any)?.exists([])?;
        let statement = (!is_empty).then(|| conn.prepare_cached(&placing(table)));
        Ok(Lookup {
            table,
            statement: statement.transpose()?,
        })
    }

    /// Returns the place of the living row with this key.
    pub(crate) fn place(&mut self, key: &[Value]) -> rusqlite::Result<Option<RowKey>> {
        let Some(statement) = &mut self.statement else {
            return Ok(None);
        };
        place_by(statement, self.table, key)
    }
}

/// Returns the place of the living row with this key.
pub(crate) fn place(
    conn: &Connection,
    table: &Table,
    key: &[Value],
) -> rusqlite::Result<Option<RowKey>> {
    let mut statement = conn.prepare_cached(&placing(table))?;
    place_by(&mut statement, table, key)
}

/// Returns the query of the place of one row by its key.
fn placing(table: &Table) -> String {
    let place = if table.kind == KeyKind::Packed {
        "1"
    } else {
        &table.rowid
    };
    let (name, condition) = (table.quoted(), table.key_condition(1));
    format!("SELECT {place} FROM main.{name} WHERE {condition}")
}

fn place_by(
    statement: &mut Statement<'_>,
    table: &Table,
    key: &[Value],
) -> rusqlite::Result<Option<RowKey>> {
    let found = statement.query_one(params_from_iter(key.iter().map(Bound)), |row| row.get(0));
    let found: Option<i64> = found.optional()?;
    Ok(found.map(|rowid| match table.kind {
        KeyKind::Packed => table.life_key(key),
        KeyKind::Integer | KeyKind::Rowid => RowKey::Rowid(rowid),
    }))
}

/// Returns a key as the table's columns hold it, which may have other types here than where it
/// comes from; `None` if no row here can have it.
pub(crate) fn native_key(
    conn: &Connection,
    table: &Table,
    key: &[Value],
) -> rusqlite::Result<Option<Vec<Value>>> {
    let mut native = Vec::with_capacity(key.len());
    for (value, column) in key.iter().zip(&table.shape.key) {
        native.push(self::native(conn, value.clone(), column.affinity)?);
    }
    if table.kind == KeyKind::Integer {
        native = canonical(&native);
    }
    Ok(table.key_place(&native).map(|_| native))
}

/// Returns a value as a column of this affinity holds it.
pub(crate) fn native(
    conn: &Connection,
    value: Value,
    affinity: Affinity,
) -> rusqlite::Result<Value> {
    Ok(match (affinity, &value) {
        (Affinity::Text, Value::Integer(_) | Value::Real(_)) => {
            let mut cast = conn.prepare_cached("SELECT CAST(?1 AS TEXT)")?;
            cast.query_one([Bound(&value)], |row| row.get_ref(0).map(from_sqlite))?
        }
        (Affinity::Number, Value::Text(text)) => number(text).unwrap_or(value),
        _ => value,
    })
}
