//! What a table admits: a row that several writes made together may break a CHECK, or give an
//! expression no value, and waits then.

use std::collections::BTreeSet;

use rusqlite::{Connection, Error, ErrorCode};

use super::scratch::Scratch;
use super::tokens::{Kind, tokens};
use super::unique;

/// What SQLite's error says before the name or the expression of a CHECK.
const BROKEN: &str = "CHECK constraint failed: ";

/// Whether a row that several writes made together may be one that a table does not admit, besides
/// the unique indices: it has a CHECK, a generated column, or an index on more than columns.
pub(super) fn may_refuse(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    let computed = "SELECT 1 FROM pragma_index_list(?1, 'main') AS l WHERE l.partial
        OR EXISTS (SELECT 1 FROM pragma_index_xinfo(l.name, 'main') AS x WHERE x.cid = -2)
        UNION ALL SELECT 1 FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 0";
    Ok(conn.prepare_cached(computed)?.exists([table])? || exists(conn, table)?)
}

/// Whether a table has a CHECK constraint, or a definition that names one.
fn exists(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT sql FROM main.sqlite_master
        WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    let sql: String = conn
        .prepare_cached(sql)?
        .query_one([table], |row| row.get(0))?;
    let is_check = |word: &str| word.eq_ignore_ascii_case("CHECK");
    let mut tokens = tokens(&sql).into_iter();
    Ok(tokens.any(|token| token.kind == Kind::Word && is_check(token.text)))
}

/// Whether a CHECK constraint of a table may mention one of these names, in lower case: one that
/// reads a generated column may read any.
pub(super) fn mentions(
    conn: &Connection,
    table: &str,
    names: &BTreeSet<String>,
) -> rusqlite::Result<bool> {
    if !exists(conn, table)? {
        return Ok(false);
    }
    let sql = "SELECT sql FROM main.sqlite_master
        WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    let sql: String = conn
        .prepare_cached(sql)?
        .query_one([table], |row| row.get(0))?;
    let has_generated = !unique::generated(conn, table)?.is_empty();
    let mut depth = None;
    let mut is_check = false;
    for token in tokens(&sql) {
        match (token.kind, token.text) {
            (Kind::Sign, "(") if is_check || depth.is_some() => {
                depth = Some(depth.unwrap_or(0) + 1);
            }
            (Kind::Sign, ")") => depth = depth.map(|depth| depth - 1).filter(|depth| *depth > 0),
            _ => {}
        }
        let name = token.name().map(|name| name.to_ascii_lowercase());
        if depth.is_some() && name.is_some_and(|name| has_generated || names.contains(&name)) {
            return Ok(true);
        }
        is_check = token.kind == Kind::Word && token.text.eq_ignore_ascii_case("CHECK");
    }
    Ok(false)
}

/// Returns why the CHECK constraints of a table cannot be evaluated by other programs, if they
/// cannot: one names a function or a collation that only the application has.
pub(crate) fn foreign(conn: &Connection, table: &str) -> rusqlite::Result<Option<String>> {
    if !exists(conn, table)? {
        return Ok(None);
    }
    match Scratch::open(conn, table) {
        Ok(_) => Ok(None),
        Err(Error::SqliteFailure(error, message)) if error.code == ErrorCode::Unknown => {
            Ok(Some(message.unwrap_or_else(|| error.to_string())))
        }
        Err(error) => Err(error),
    }
}

/// Returns the CHECK constraint that a statement broke, as it is told to users.
pub(super) fn broken(error: &Error) -> Option<String> {
    let Error::SqliteFailure(_, Some(message)) = error else {
        return None;
    };
    let name = message.strip_prefix(BROKEN)?;
    Some(format!("CHECK ({name})"))
}
