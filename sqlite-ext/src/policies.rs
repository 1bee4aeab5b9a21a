//! Which columns may have which policy, what may be written to them, and how policies are listed.
//!
//! What a column cannot hold is refused by triggers in plain SQL, so that any program hears of it
//! when it writes.

use rusqlite::Connection;
use syncline_crdt::Policy;

use crate::capture::{ROWID_NAMES, differs, outlasting, trigger};
use crate::constraints::unique;
use crate::options::{ColumnPolicy, OptionsError, TableOptions};
use crate::rights;
use crate::shape::{Affinity, StrictType};
use crate::table::{Column, ColumnInfo, JoinedColumn, KeyKind, Table, TableInfo, list};
use crate::value::quoted;

/// The view that lists the policies of all columns beside the keys.
pub(crate) const VIEW: &str = "
    CREATE VIEW syncline_policies AS
        SELECT t.name AS table_name, c.name AS column_name, ifnull(
            (SELECT p.value FROM json_each(CASE t.options WHEN '' THEN '{}' ELSE t.options END,
                '$.columns') AS p WHERE p.key = c.name COLLATE NOCASE), 'lww') AS policy
        FROM syncline_tables AS t JOIN syncline_columns AS c ON c.table_id = t.id;
";

/// Takes it away.
pub(crate) const DROP: &str = "DROP VIEW syncline_policies;";

/// Refuses policies that do not fit a table, or what its cells hold.
pub(crate) fn check(
    conn: &Connection,
    info: &TableInfo,
    options: &TableOptions,
) -> Result<(), OptionsError> {
    if let Some(refusal) = refusal(conn, info, options)? {
        return Err(refusal);
    }
    for column in info.stored_columns() {
        let Some(policy) = options.policy(&column.name).joins() else {
            continue;
        };
        let (table, name) = (quoted(&info.name), quoted(&column.name));
        let value = format!("main.{table}.{name}");
        let below = match policy {
            Policy::BoundedCounter { floor } => {
                Some(("it holds less than its floor", format!("{value} < {floor}")))
            }
            _ => None,
        };
        for (reason, condition) in unfit_value(policy, &value).into_iter().chain(below) {
            let find = format!("SELECT 1 FROM main.{table} WHERE {condition} LIMIT 1");
            if conn.prepare(&find)?.exists([])? {
                return Err(unfit(info, column, reason));
            }
        }
    }
    Ok(())
}

/// Returns why a table as it is declared cannot have these policies.
pub(crate) fn refusal(
    conn: &Connection,
    info: &TableInfo,
    options: &TableOptions,
) -> rusqlite::Result<Option<OptionsError>> {
    let joins = |column: &&ColumnInfo| options.policy(&column.name).joins().is_some();
    let joined: Vec<&ColumnInfo> = info.stored_columns().filter(joins).collect();
    if joined.is_empty() {
        return Ok(None);
    }
    let indices = unique::indices(conn, &info.name)?;
    let indexed = unique::mentioned(conn, &info.name, &indices)?;
    let refers = "SELECT 1 FROM pragma_foreign_key_list(?1, 'main')
        WHERE \"from\" = ?2 COLLATE NOCASE";
    for column in joined {
        let policy = options.policy(&column.name);
        let name = column.name.to_ascii_lowercase();
        let is_indexed = indexed.as_ref().is_none_or(|names| names.contains(&name));
        let reason = if let Some(reason) = unfit_type(info, column, policy) {
            reason
        } else if !indices.is_empty() && is_indexed {
            "a unique index names it, or a generated column, and values that join cannot be claimed"
        } else if conn
            .prepare_cached(refers)?
            .exists((&info.name, &column.name))?
        {
            "it refers to another table, and references do not join"
        } else if is_default_below(conn, column, policy)? {
            "its default is below its floor"
        } else {
            continue;
        };
        return Ok(Some(unfit(info, column, reason)));
    }
    Ok(None)
}

fn is_default_below(
    conn: &Connection,
    column: &ColumnInfo,
    policy: ColumnPolicy,
) -> rusqlite::Result<bool> {
    match (policy, &column.default) {
        (ColumnPolicy::BoundedCounter { floor }, Some(default)) => {
            let below = format!("SELECT ifnull(({default}) < {floor}, FALSE)");
            conn.query_row(&below, [], |row| row.get(0))
        }
        _ => Ok(false),
    }
}

fn unfit(info: &TableInfo, column: &ColumnInfo, reason: &'static str) -> OptionsError {
    OptionsError::Unfit {
        table: info.name.clone(),
        column: column.name.clone(),
        reason,
    }
}

fn unfit_type(info: &TableInfo, column: &ColumnInfo, policy: ColumnPolicy) -> Option<&'static str> {
    let affinity = Affinity::of(&column.declared);
    let strict = StrictType::of(&column.declared).filter(|_| info.is_strict);
    match policy {
        ColumnPolicy::Counter | ColumnPolicy::BoundedCounter { .. } => {
            let counts = affinity != Affinity::Text
                && !matches!(strict, Some(StrictType::Text | StrictType::Blob));
            (!counts).then_some("a counter is a column of numbers: declare it INTEGER")
        }
        ColumnPolicy::Set | ColumnPolicy::Text | ColumnPolicy::Document => {
            let is_text = affinity != Affinity::Number && !matches!(strict, Some(StrictType::Blob));
            (!is_text).then_some("a text, a set and a document are text: declare it TEXT")
        }
        ColumnPolicy::Lww | ColumnPolicy::Max | ColumnPolicy::Min => None,
    }
}

/// Returns what a column holds, and the condition that a value is something else.
fn unfit_value(policy: Policy, value: &str) -> Option<(&'static str, String)> {
    // Beyond 2^53 a real names no single whole number.
    let no_number = || {
        format!(
            "typeof({value}) NOT IN ('integer', 'null') AND NOT (typeof({value}) = 'real' AND \
             {value} = CAST({value} AS INTEGER) AND abs({value}) <= 9007199254740992)"
        )
    };
    match policy {
        Policy::Counter | Policy::BoundedCounter { .. } => {
            Some(("it counts whole numbers", no_number()))
        }
        Policy::Set | Policy::Text | Policy::Document => {
            Some(("it holds text", format!("typeof({value}) = 'blob'")))
        }
        Policy::Max | Policy::Min => None,
    }
}

/// Returns the statements that make the triggers which refuse what a table's columns cannot hold.
pub(crate) fn triggers(table: &Table) -> Vec<String> {
    let refusals = |is_update| {
        let refusal = |joined: &JoinedColumn| refusals(joined, is_update);
        list(table.joined.iter().filter_map(refusal), " ")
    };
    let beyond = |is_update| {
        let refusal = |bounded| refusals_beyond(table, bounded, is_update);
        list(rights::bounded(table).flat_map(refusal), " ")
    };
    let mut all = Vec::new();
    let body = refusals(false);
    if !body.is_empty() {
        all.push(trigger(table, "refuse_insert", "AFTER INSERT", "", &body));
        let names = table
            .joined
            .iter()
            .map(|joined| quoted(&joined.column.name));
        let when = format!("AFTER UPDATE OF {}", list(names, ", "));
        all.push(trigger(table, "refuse_update", &when, "", &refusals(true)));
    }
    let body = beyond(false);
    if !body.is_empty() {
        all.push(trigger(table, "refuse_beyond", "AFTER INSERT", "", &body));
        // A row that is moved may take the place of one that others hold rights in.
        let keys = table.key_columns.iter();
        let bounded = rights::bounded(table).map(|(joined, _)| &joined.column);
        let names = bounded.chain(keys).map(|column| quoted(&column.name));
        let rowids = ROWID_NAMES.map(str::to_owned).into_iter();
        let rowids = rowids.filter(|_| table.kind == KeyKind::Integer);
        let when = format!("AFTER UPDATE OF {}", list(names.chain(rowids), ", "));
        all.push(trigger(table, "refuse_lowered", &when, "", &beyond(true)));
    }
    all
}

/// Returns the statements that refuse a value in a row that is inserted or updated.
fn refusals(joined: &JoinedColumn, is_update: bool) -> Option<String> {
    let name = quoted(&joined.column.name);
    let (reason, condition) = unfit_value(joined.policy, &format!("NEW.{name}"))?;
    let counts = matches!(
        joined.policy,
        Policy::Counter | Policy::BoundedCounter { .. }
    );
    let unset = if is_update && counts {
        format!(" OR NEW.{name} IS NULL AND OLD.{name} IS NOT NULL")
    } else {
        String::new()
    };
    let condition = format!("{condition}{unset}");
    Some(refuse(&joined.column, reason, &condition, is_update))
}

/// Returns the statements that refuse a value of a bounded counter below its floor, and below what
/// this replica's rights in it allow.
fn refusals_beyond(
    table: &Table,
    (joined, floor): (&JoinedColumn, i64),
    is_update: bool,
) -> [String; 2] {
    let name = quoted(&joined.column.name);
    let least = rights::least(table, (joined, floor));
    let lowered = if is_update {
        let moved = list(table.key_columns.iter().map(differs), " OR ");
        format!(" AND (NOT ifnull(NEW.{name} >= OLD.{name}, FALSE) OR {moved})")
    } else {
        String::new()
    };
    let below = format!("NEW.{name} < {floor}{lowered}");
    let beyond = format!("NEW.{name} >= {floor} AND NEW.{name} < {least}{lowered}");
    let column = &joined.column;
    let floor = format!("it never goes below {floor}");
    [
        refuse(column, &floor, &below, is_update),
        refuse(column, HELD_ELSEWHERE, &beyond, is_update),
    ]
}

/// What a program is told that takes more than is left to this replica. SQLite before 3.47 takes no
/// number here that it would have to look up.
const HELD_ELSEWHERE: &str = "other replicas hold what would be taken: the view syncline_rights \
    tells how low it may go here, and syncline_grant() on one of them gives more";

/// Returns the statement of a trigger that refuses a row under a condition on one column.
fn refuse(column: &Column, reason: &str, condition: &str, is_update: bool) -> String {
    let said = format!("{}: {reason}", column.name).replace('\'', "''");
    let rows: &[&str] = if is_update { &["OLD", "NEW"] } else { &["NEW"] };
    let condition = outlasting(&[column], rows, condition);
    format!("SELECT RAISE(ABORT, '{said}') WHERE {condition};")
}
