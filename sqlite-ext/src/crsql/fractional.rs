//! Lists in an order of the user's: `crsql_fract_as_ordered` and what it makes.
//!
//! The triggers on the table are plain SQL, so a program without Syncline may append to a list and
//! prepend to it; the arithmetic of the keys at either end is small enough for that. A place in
//! the middle is asked for through a view, and its triggers call `crsql_fract_key_between`.

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, OptionalExtension, Result, params_from_iter};
use syncline_crdt::Value;

use super::order_key::{LEAST, OrderKeyError, ZERO, key_between};
use crate::shadow::in_savepoint;
use crate::table::{ColumnInfo, TableError, TableInfo, free_rowid_name, list};
use crate::value::{Bound, from_sqlite, quoted};

/// What the table is called where other rows of it are looked at: no table has this name.
const ALIAS: &str = "syncline_other";
/// What stands before a column of such a row.
const OTHER: &str = "syncline_other.";
/// What separates the list's columns from the key's in the arguments of
/// `crsql_fract_fix_conflict_return_old_key`.
const SEPARATOR: i64 = -1;

/// Why a table has no order of its own.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error(transparent)]
    Sqlite(#[from] Error),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Key(#[from] OrderKeyError),
    #[error("crsql_fract_as_ordered takes a table, its column for the order, and a list's columns")]
    Arguments,
    #[error("crsql_fract_key_between takes order keys: texts, or NULL for the beginning or end")]
    NoText,
    #[error("there is no table `{0}`")]
    NoTable(String),
    #[error("table `{table}` has no column `{column}` that can be written")]
    NoColumn { table: String, column: String },
    #[error("table `{0}` needs a primary key to be ordered")]
    NoKey(String),
    #[error("the order of `{table}` cannot be in `{column}`, which is part of its primary key")]
    KeyColumn { table: String, column: String },
    #[error(
        "crsql_fract_fix_conflict_return_old_key takes a table, its column for the order, the \
         list's columns, -1, and the names and the values of a row's primary key"
    )]
    RepairArguments,
    #[error("there is no such row in `{0}`")]
    NoRow(String),
}

/// Adds the functions to a connection.
///
/// | function | returns |
/// | --- | --- |
/// | `crsql_fract_as_ordered(table, order [, list…])` | NULL; `1` and `-1` in the column `order` then mean the end and the beginning of the list of rows that are equal in the columns `list`, and the view `<table>_fractindex` places a row after the one its `after_…` columns name |
/// | `crsql_fract_key_between(low, high)` | a key between two others |
/// | `crsql_fract_fix_conflict_return_old_key(…)` | a key between a row and others that had its key, after it moved that row before them; only triggers that cr-sqlite made call it |
pub(super) fn register(conn: &Connection) -> Result<()> {
    let utf8 = FunctionFlags::SQLITE_UTF8;
    let pure = utf8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("crsql_fract_key_between", 2, pure, |context| {
        between(context).map_err(user)
    })?;
    let direct = utf8 | FunctionFlags::SQLITE_DIRECTONLY;
    conn.create_scalar_function("crsql_fract_as_ordered", -1, direct, |context| {
        let names = texts(context, 0..context.len()).filter(|names| names.len() >= 2);
        let names = names.ok_or(OrderError::Arguments).map_err(user)?;
        with_connection(context, |conn| as_ordered(conn, &names))
    })?;
    let repair = "crsql_fract_fix_conflict_return_old_key";
    conn.create_scalar_function(repair, -1, utf8, |context| {
        let row = ConflictingRow::of(context).ok_or(OrderError::RepairArguments);
        let row = row.map_err(user)?;
        with_connection(context, |conn| row.repair(conn))
    })
}

fn user(error: OrderError) -> Error {
    Error::UserFunctionError(Box::new(error))
}

fn with_connection<T>(
    context: &Context<'_>,
    body: impl FnOnce(&Connection) -> Result<T, OrderError>,
) -> Result<T> {
    #[expect(
        unsafe_code,
        reason = "rusqlite cannot know how the connection is shared"
    )]
    // SAFETY: the connection is used only while this call lasts, on the thread of the call.
    let conn = unsafe { context.get_connection() }?;
    body(&conn).map_err(user)
}

/// Returns a range of arguments, if all are texts.
fn texts(context: &Context<'_>, range: std::ops::Range<usize>) -> Option<Vec<String>> {
    let text = |at| context.get_raw(at).as_str().ok().map(str::to_owned);
    range.map(text).collect()
}

fn between(context: &Context<'_>) -> Result<String, OrderError> {
    let key = |at| match context.get_raw(at) {
        ValueRef::Null => Ok(None),
        value => value.as_str().map(Some).map_err(|_| OrderError::NoText),
    };
    Ok(key_between(key(0)?, key(1)?)?)
}

/// Gives a table an order: the triggers at the table, the view, and the view's triggers. What an
/// earlier call made is replaced.
pub(super) fn as_ordered(conn: &Connection, names: &[String]) -> Result<Option<i64>, OrderError> {
    in_savepoint(conn, || {
        let ordered = Ordered::read(conn, names)?;
        conn.execute_batch(&drop_order(&ordered.info.name))?;
        conn.execute_batch(&ordered.base_triggers()?)?;
        conn.execute_batch(&ordered.view())?;
        Ok(None)
    })
}

/// Returns the statements that take a table's order away, with the keys left as they are.
pub(super) fn drop_order(table: &str) -> String {
    let trigger = |name: &str| quoted(&format!("__crsql_{table}_fractindex_{name}"));
    format!(
        "DROP TRIGGER IF EXISTS main.{}; DROP TRIGGER IF EXISTS main.{};
         DROP VIEW IF EXISTS main.{};",
        trigger("pend_trig"),
        trigger("ezmove"),
        quoted(&format!("{table}_fractindex")),
    )
}

/// Returns the arguments that gave a table its order, if it has one.
pub(super) fn order_of(conn: &Connection, table: &str) -> Result<Option<Vec<String>>> {
    let view = "SELECT sql FROM main.sqlite_master WHERE type = 'view' AND name = ?1";
    let sql: Option<String> = conn
        .query_row(view, [format!("{table}_fractindex")], |row| row.get(0))
        .optional()?;
    let names = |sql: String| {
        let (_, rest) = sql.split_once("/* ")?;
        let (json, _) = rest.split_once(" */")?;
        serde_json::from_str(json).ok()
    };
    Ok(sql.and_then(names))
}

/// A table with the columns that order it.
struct Ordered {
    info: TableInfo,
    /// The column that holds the keys.
    order: String,
    /// The columns whose values name a list.
    lists: Vec<String>,
}

impl Ordered {
    fn read(conn: &Connection, names: &[String]) -> Result<Self, OrderError> {
        let [table, columns @ ..] = names else {
            return Err(OrderError::Arguments);
        };
        let info = TableInfo::read(conn, table)?.ok_or(OrderError::NoTable(table.clone()))?;
        let declared = |column: &String| {
            let mut stored = info.columns.iter().filter(|c| !c.is_generated);
            let found = stored.find(|c| c.name.eq_ignore_ascii_case(column));
            let found = found.map(|c| c.name.clone());
            found.ok_or_else(|| OrderError::NoColumn {
                table: table.clone(),
                column: column.clone(),
            })
        };
        let mut lists = columns
            .iter()
            .map(declared)
            .collect::<Result<Vec<_>, _>>()?;
        if lists.is_empty() {
            return Err(OrderError::Arguments);
        }
        if info.key_columns().is_empty() {
            return Err(OrderError::NoKey(table.clone()));
        }
        let order = lists.remove(0);
        if info.key_columns().iter().any(|key| key.name == order) {
            let (table, column) = (info.name, order);
            return Err(OrderError::KeyColumn { table, column });
        }
        Ok(Ordered { info, order, lists })
    }

    /// The triggers that replace `1` and `-1` by keys after the last and before the first. A column
    /// of texts has them as texts, and in a trigger SQLite does not compare such with a number.
    fn base_triggers(&self) -> Result<String, TableError> {
        let (table, order) = (quoted(&self.info.name), quoted(&self.order));
        let row = if self.info.is_without_rowid {
            self.key_is("", "NEW.")
        } else {
            let rowid = free_rowid_name(&self.info)?;
            format!("{rowid} = NEW.{rowid}")
        };
        let (first, last) = (self.prepended(), self.appended());
        let trigger = |name: &str, event: &str| {
            let name = quoted(&format!("__crsql_{}_fractindex_{name}", self.info.name));
            format!(
                "CREATE TRIGGER main.{name} AFTER {event} ON {table}
                 WHEN NEW.{order} IN (1, -1, '1', '-1') BEGIN
                   UPDATE {table} SET {order} = CASE WHEN NEW.{order} IN (1, '1') THEN {last} ELSE {first} END
                   WHERE {row};
                 END;\n"
            )
        };
        let moved = format!("UPDATE OF {order}");
        Ok(trigger("pend_trig", "INSERT") + &trigger("ezmove", &moved))
    }

    /// Returns the key after the last of the new row's list, as plain SQL: `order_key::after`.
    fn appended(&self) -> String {
        format!(
            "(SELECT CASE WHEN k IS NULL THEN '{ZERO}'
              WHEN r <> '' THEN head || substr(r, 1, length(r) - 1) ||
                char(unicode(substr(r, -1)) + 1) || substr('{SPACES}', 1, length(d) - length(r))
              WHEN head = 'Z' THEN '{ZERO}'
              WHEN head = 'z' THEN k || 'P'
              ELSE char(unicode(head) + 1) ||
                substr('{SPACES}', 1, length(d) + iif(unicode(head) > 96, 1, -1)) END
             FROM (SELECT k, substr(k, 1, 1) AS head, d, rtrim(d, '~') AS r FROM
              (SELECT k, substr(k, 2, {whole} - 1) AS d FROM ({last}))))",
            whole = whole_length("k"),
            last = self.end_of_list("max"),
        )
    }

    /// Returns the key before the first of the new row's list: `order_key::before`.
    fn prepended(&self) -> String {
        format!(
            "(SELECT CASE WHEN k IS NULL THEN '{ZERO}'
              WHEN i = '{LEAST}' THEN
                substr(k, 1, length(k) - length(ltrim(substr(k, {after_least})))) || ' P'
              WHEN k <> i THEN i
              WHEN i = '{ABOVE_LEAST}' THEN '{LEAST}P'
              WHEN r <> '' THEN head || substr(r, 1, length(r) - 1) ||
                char(unicode(substr(r, -1)) - 1) || substr('{TILDES}', 1, length(d) - length(r))
              WHEN head = 'a' THEN 'Z~'
              ELSE char(unicode(head) - 1) ||
                substr('{TILDES}', 1, length(d) + iif(unicode(head) > 96, -1, 1)) END
             FROM (SELECT k, i, substr(i, 1, 1) AS head, substr(i, 2) AS d,
               rtrim(substr(i, 2)) AS r FROM
              (SELECT k, substr(k, 1, {whole}) AS i FROM ({first}))))",
            after_least = LEAST.len() + 1,
            whole = whole_length("k"),
            first = self.end_of_list("min"),
        )
    }

    /// Returns the greatest or the least key of the new row's list, as `k`. An aggregate, because
    /// SQLite computes such a subquery once, and not wherever `k` is used.
    fn end_of_list(&self, end: &str) -> String {
        let (table, order) = (quoted(&self.info.name), quoted(&self.order));
        let in_list = self.in_list(OTHER);
        format!(
            "SELECT {end}({OTHER}{order} COLLATE BINARY) AS k
             FROM {table} AS {ALIAS} WHERE {in_list}"
        )
    }

    /// The condition that a row has a key and is in the new row's list. What is no key, because a
    /// program wrote something else, takes no part in the order.
    fn in_list(&self, row: &str) -> String {
        let equal = |column: &String| format!("{row}{0} IS NEW.{0}", quoted(column));
        let lists = self.lists.iter().map(equal);
        let key = format!("{row}{}", quoted(&self.order));
        let whole = whole_length(&key);
        let is_key = format!(
            "typeof({key}) = 'text' AND {key} GLOB '[A-Za-z]*' AND {key} NOT GLOB '*[^ -~]*'
             AND length({key}) >= {whole} AND (length({key}) = {whole} OR substr({key}, -1) <> ' ')
             AND {key} <> '{LEAST}' COLLATE BINARY"
        );
        list(lists.chain([is_key]), " AND ")
    }

    /// The view and its triggers.
    fn view(&self) -> String {
        let names = std::iter::once(&self.info.name).chain([&self.order]);
        let names: Vec<&String> = names.chain(&self.lists).collect();
        let names = serde_json::to_string(&names).expect("names are JSON");
        // The end of a comment may be part of a name, and a slash may be escaped.
        let names = names.replace('/', "\\/");
        let (view, table) = (self.view_name(), quoted(&self.info.name));
        let after = |key: &ColumnInfo| format!("NULL AS {}", after_column(key));
        let after = list(self.key_columns().map(after), ", ");
        format!(
            "CREATE VIEW main.{view} AS /* {names} */ SELECT *, {after} FROM {table};\n{}{}{}",
            self.insert_trigger(),
            self.place_trigger(),
            self.update_trigger(),
        )
    }

    fn insert_trigger(&self) -> String {
        let body = format!(
            "{repair}
             INSERT INTO {table}({order}, {columns}) VALUES({place}, {values});",
            repair = self.repair(""),
            table = quoted(&self.info.name),
            order = quoted(&self.order),
            columns = self.other_columns(|column| quoted(&column.name)),
            place = self.place(""),
            values = self.other_columns(inserted),
        );
        self.view_trigger("insert_trig", "INSERT", &body)
    }

    /// Moves a row when one of the `after_…` columns is set. The other columns go first, because
    /// the key may be among them.
    fn place_trigger(&self) -> String {
        let not_itself = format!("AND NOT ({})", self.key_is(OTHER, "NEW."));
        let body = format!(
            "UPDATE {table} SET {columns} WHERE {old};
             {repair}
             UPDATE {table} SET {order} = {place} WHERE {new};",
            table = quoted(&self.info.name),
            columns = self.other_columns(|column| format!("{0} = NEW.{0}", quoted(&column.name))),
            old = self.key_is("", "OLD."),
            repair = self.repair(&not_itself),
            order = quoted(&self.order),
            place = self.place(&not_itself),
            new = self.key_is("", "NEW."),
        );
        let after = list(self.key_columns().map(after_column), ", ");
        self.view_trigger("update_trig", &format!("UPDATE OF {after}"), &body)
    }

    /// Writes a row through when other columns are set; its place stays.
    fn update_trigger(&self) -> String {
        let order = quoted(&self.order);
        let body = format!(
            "UPDATE {table} SET {columns}, {order} =
               CASE WHEN NEW.{order} IS OLD.{order} THEN {order} ELSE NEW.{order} END
             WHERE {old};",
            table = quoted(&self.info.name),
            columns = self.other_columns(|column| format!("{0} = NEW.{0}", quoted(&column.name))),
            old = self.key_is("", "OLD."),
        );
        let columns = self.other_columns(|column| quoted(&column.name));
        self.view_trigger(
            "write_trig",
            &format!("UPDATE OF {columns}, {order}"),
            &body,
        )
    }

    fn view_trigger(&self, name: &str, event: &str, body: &str) -> String {
        let name = quoted(&format!("{}_fractindex_{name}", self.info.name));
        let view = self.view_name();
        format!("CREATE TRIGGER main.{name} INSTEAD OF {event} ON {view} BEGIN {body} END;\n")
    }

    /// Returns the statement that moves the row before the place a little towards the beginning,
    /// if others have its key: between equal keys is no place.
    fn repair(&self, not_itself: &str) -> String {
        let (table, order) = (quoted(&self.info.name), quoted(&self.order));
        let (others, own) = (self.in_list(OTHER), self.in_list(&format!("{table}.")));
        let before_place = self.before_place(&format!("{table}."));
        format!(
            "UPDATE {table} SET {order} = crsql_fract_key_between(
               (SELECT max({OTHER}{order} COLLATE BINARY) FROM {table} AS {ALIAS}
                WHERE {others} {not_itself} AND {OTHER}{order} < {table}.{order} COLLATE BINARY),
               {order})
             WHERE {before_place} AND {own} AND 1 < (SELECT count(*) FROM {table} AS {ALIAS}
               WHERE {others} {not_itself} AND {OTHER}{order} = {table}.{order} COLLATE BINARY);"
        )
    }

    /// Returns the key of the place: between the row before it and the next one, or before the
    /// first one where the `after_…` columns name no row of the list.
    fn place(&self, not_itself: &str) -> String {
        let (table, order) = (quoted(&self.info.name), quoted(&self.order));
        let (in_list, before_place) = (self.in_list(OTHER), self.before_place(OTHER));
        let low = format!(
            "(SELECT max({OTHER}{order} COLLATE BINARY) FROM {table} AS {ALIAS}
              WHERE {before_place} AND {in_list})"
        );
        format!(
            "crsql_fract_key_between({low}, (SELECT min({OTHER}{order} COLLATE BINARY)
               FROM {table} AS {ALIAS} WHERE {in_list} {not_itself}
               AND ({low} IS NULL OR {OTHER}{order} > {low} COLLATE BINARY)))"
        )
    }

    fn before_place(&self, row: &str) -> String {
        let named = |key: &ColumnInfo| {
            let column = quoted(&key.name);
            format!("{row}{column} = NEW.{}", after_column(key))
        };
        list(self.key_columns().map(named), " AND ")
    }

    fn view_name(&self) -> String {
        quoted(&format!("{}_fractindex", self.info.name))
    }

    fn key_columns(&self) -> impl Iterator<Item = &ColumnInfo> {
        self.info.key_columns().into_iter()
    }

    fn key_is(&self, row: &str, other: &str) -> String {
        let equal = |key: &ColumnInfo| format!("{row}{0} IS {other}{0}", quoted(&key.name));
        list(self.key_columns().map(equal), " AND ")
    }

    fn other_columns(&self, form: impl Fn(&ColumnInfo) -> String) -> String {
        let columns = self.info.columns.iter();
        let stored = columns.filter(|c| !c.is_generated && c.name != self.order);
        list(stored.map(form), ", ")
    }
}

/// The most digits a whole number has, as fillers.
const SPACES: &str = "                          ";
const TILDES: &str = "~~~~~~~~~~~~~~~~~~~~~~~~~~";
/// The least whole number that is a key.
const ABOVE_LEAST: &str = "A                         !";
const _: () = assert!(SPACES.len() + 1 == LEAST.len() && TILDES.len() == SPACES.len());
const _: () = assert!(ABOVE_LEAST.len() == LEAST.len());

/// Returns the length of a key's whole number, head included.
fn whole_length(key: &str) -> String {
    format!("iif(unicode({key}) > 96, unicode({key}) - 95, 92 - unicode({key}))")
}

/// Returns what is inserted for a column. A view has no defaults, so what is left out is NULL.
fn inserted(column: &ColumnInfo) -> String {
    let value = format!("NEW.{}", quoted(&column.name));
    match &column.default {
        Some(default) if column.is_not_null => format!("ifnull({value}, {default})"),
        _ => value,
    }
}

fn after_column(key: &ColumnInfo) -> String {
    quoted(&format!("after_{}", key.name))
}

/// A row whose key others have too, as cr-sqlite's triggers name it.
struct ConflictingRow {
    table: String,
    order: String,
    lists: Vec<String>,
    key_columns: Vec<String>,
    key: Vec<Value>,
}

impl ConflictingRow {
    fn of(context: &Context<'_>) -> Option<Self> {
        let separates = |at: &usize| context.get_raw(*at) == ValueRef::Integer(SEPARATOR);
        let at = (2..context.len()).find(separates)?;
        let rest = context.len() - at - 1;
        if rest == 0 || !rest.is_multiple_of(2) {
            return None;
        }
        let values_at = at + 1 + rest / 2;
        Some(ConflictingRow {
            table: context.get_raw(0).as_str().ok()?.to_owned(),
            order: context.get_raw(1).as_str().ok()?.to_owned(),
            lists: texts(context, 2..at)?,
            key_columns: texts(context, at + 1..values_at)?,
            key: (values_at..context.len())
                .map(|at| from_sqlite(context.get_raw(at)))
                .collect(),
        })
    }

    fn repair(&self, conn: &Connection) -> Result<String, OrderError> {
        let (table, order) = (quoted(&self.table), quoted(&self.order));
        let is_key = |(at, column): (usize, &String)| format!("{} = ?{}", quoted(column), at + 1);
        let row = list(self.key_columns.iter().enumerate().map(is_key), " AND ");
        let key = || params_from_iter(self.key.iter().map(Bound));
        let old = format!("SELECT {order} FROM main.{table} WHERE {row}");
        let old: Option<String> = conn.query_row(&old, key(), |row| row.get(0)).optional()?;
        let old = old.ok_or_else(|| OrderError::NoRow(self.table.clone()))?;
        let in_list = |column: &String| {
            let column = quoted(column);
            format!("{column} IS (SELECT {column} FROM main.{table} WHERE {row}) AND ")
        };
        let in_list = list(self.lists.iter().map(in_list), "");
        let old_at = self.key.len() + 1;
        let before = format!(
            "SELECT max({order} COLLATE BINARY) FROM main.{table}
             WHERE {in_list} {order} < ?{old_at} COLLATE BINARY"
        );
        let text = Value::text(&old);
        let with = |value| params_from_iter(self.key.iter().chain([value]).map(Bound));
        let before: Option<String> = conn.query_row(&before, with(&text), |row| row.get(0))?;
        let new = key_between(before.as_deref(), Some(&old))?;
        let set = format!("UPDATE main.{table} SET {order} = ?{old_at} WHERE {row}");
        conn.execute(&set, with(&Value::text(&new)))?;
        Ok(key_between(Some(&new), Some(&old))?)
    }
}

#[cfg(test)]
mod tests;
