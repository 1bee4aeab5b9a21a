//! Tables that were untracked: what is needed to go on with their rows when they are tracked again.
//!
//! The clocks stay, and so do the rows that are parked. A copy of the table says how its rows were,
//! in an ordinary table `syncline_untracked_<id>` with the columns `place` (the rowid, where rows are
//! named by one of SQLite's own), `k0`, `k1`, … (the key) and `c<lane>`. When the table is tracked
//! again it is compared with the copy, and what differs counts as written then: rows that are gone
//! are deleted everywhere, and all others go on with the life and the clocks they had.

use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use syncline_crdt::{Part, Value, pack_key, unpack_key};

use crate::capture::{self, DELETED, WHOLE};
use crate::clocks::{self, LIFE, Lane, ROW};
use crate::collect::Past;
use crate::columns;
use crate::constraints::{self, masks};
use crate::fold::{FoldError, fold};
use crate::gaps;
use crate::joined;
use crate::mask;
use crate::parked;
use crate::quiet::Quiet;
use crate::rights;
use crate::rows;
use crate::table::{Column, KeyKind, RowKey, Table, TableError, TableInfo, list};
use crate::value::{Bound, quoted};

/// Why a table that was untracked stands aside, in `syncline_tables`.
pub(crate) const UNTRACKED: &str = "untracked";

/// The end of the name of the trigger that marks a table which was untracked.
const MARK: &str = "kept";

/// Returns the id of a table that was untracked, and whose rows can go on.
pub(crate) fn id_of(conn: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    let id = "SELECT id FROM syncline_tables WHERE name = ?1 AND aside = ?2";
    conn.prepare_cached(id)?
        .query_one((name, UNTRACKED), |row| row.get(0))
        .optional()
}

/// Ends the capture of a table whose writes are folded, and keeps how it is.
pub(crate) fn keep(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    capture::end(conn, table.id)?;
    let (copy, name) = (copy(table.id), table.quoted());
    let place = (table.kind == KeyKind::Rowid).then(|| format!("{} AS place", table.rowid));
    let keys = table.key_columns.iter().enumerate();
    let keys = keys.map(|(at, column)| format!("{} AS k{at}", quoted(&column.name)));
    let cells = table.captured();
    let cells = cells.map(|column| format!("{} AS c{}", quoted(&column.name), column.lane));
    let fields = list(place.into_iter().chain(keys).chain(cells), ", ");
    conn.execute_batch(&format!(
        "CREATE TABLE main.{copy} AS SELECT {fields} FROM main.{name}"
    ))?;
    let set = "UPDATE syncline_tables SET aside = ?2 WHERE id = ?1";
    conn.execute(set, (table.id, UNTRACKED))?;
    // It goes with the table, so that one which is made anew is known as such.
    let when = format!("BEFORE UPDATE OF {}", quoted(&table.key_columns[0].name));
    let mark = capture::trigger(table, MARK, &when, "WHEN FALSE", "SELECT 1;");
    conn.execute_batch(&mark)?;
    Ok(())
}

/// Whether the table is the one that was untracked.
fn is_same(conn: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let mark = format!("syncline_{}_{MARK}", table.id);
    let found = capture::found(conn, table)?;
    Ok(found.iter().any(|(name, _)| *name == mark))
}

/// Drops what was kept of a table.
pub(crate) fn forget(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    conn.execute_batch(&format!("DROP TABLE IF EXISTS main.{};", copy(id)))
}

/// Begins to capture a table's writes again, and takes up what was written to it meanwhile, here and
/// elsewhere. Returns whether it can: a table with another key begins anew.
pub(crate) fn resume(
    conn: &Connection,
    (id, name): (i64, &str),
    now_unix_ms: u64,
) -> Result<bool, FoldError> {
    let shape = "SELECT shape FROM syncline_tables WHERE id = ?1";
    let shape: String = conn.query_row(shape, [id], |row| row.get(0))?;
    let table = Table::read(conn, id, name)?;
    let Some(table) = table.filter(|table| table.shape.to_text() == shape) else {
        return Ok(false);
    };
    let set = "UPDATE syncline_tables SET aside = NULL WHERE id = ?1";
    conn.execute(set, [id])?;
    if let Some(info) = TableInfo::read(conn, name)? {
        columns::forget_missing(conn, id, &info)?;
    }
    let is_same = is_same(conn, &table)?;
    capture::drop_triggers(conn, id)?;
    capture::begin(conn, &table)?;
    let table = columns::take_up(conn, &table, now_unix_ms)?;
    capture::renew(conn, &table)?;
    rights::fill(conn, &table)?;
    constraints::capture(conn, &table)?;
    let was = (0..table.key_columns.len()).map(|at| format!("k{at} = ?{}", at + 1));
    let was = list(was, " AND ");
    for key in drop_gone(conn, &table)? {
        let drop = format!("DELETE FROM main.{} WHERE {was}", copy(id));
        conn.execute(&drop, params_from_iter(key.iter().map(Bound)))?;
    }
    if !is_same {
        forget_missing(conn, &table)?;
    }
    note_differences(conn, &table)?;
    forget(conn, id)?;
    fold(conn, now_unix_ms)?;
    parked::replay(conn, &table.name, Past::default())?;
    constraints::note_schema(conn)?;
    Ok(true)
}

/// Returns the id of a table that stands aside, untracked or because it cannot be tracked.
pub(crate) fn id_of_aside(conn: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    let id = "SELECT id FROM syncline_tables WHERE name = ?1 AND aside IS NOT NULL";
    conn.prepare_cached(id)?
        .query_one([name], |row| row.get(0))
        .optional()
}

/// Notes that the deletion of a row is forgotten before the table, which stands aside, has it.
pub(crate) fn note_gone(conn: &Connection, id: i64, key: &[Value]) -> rusqlite::Result<()> {
    let add = "INSERT OR IGNORE INTO syncline_gone(table_id, key) VALUES(?1, ?2)";
    conn.prepare_cached(add)?
        .execute(params![id, pack_key(key)])?;
    Ok(())
}

/// Removes the rows whose deletion was forgotten while the table stood aside, and that they ever
/// were: nobody else remembers them. Returns their keys.
pub(crate) fn drop_gone(conn: &Connection, table: &Table) -> rusqlite::Result<Vec<Vec<Value>>> {
    let take = "DELETE FROM syncline_gone WHERE table_id = ?1 RETURNING key";
    let mut statement = conn.prepare(take)?;
    let keys = statement.query_map([table.id], |row| row.get(0))?;
    let keys: Vec<Vec<u8>> = keys.collect::<Result<_, _>>()?;
    let _quiet = Quiet::begin(conn)?;
    let mut gone = Vec::new();
    let (name, condition) = (table.quoted(), table.key_condition(1));
    let delete = format!("DELETE FROM main.{name} WHERE {condition}");
    for packed in keys {
        let key = unpack_key(&packed).expect("it was packed here");
        let Some(key) = rows::native_key(conn, table, &key)? else {
            continue;
        };
        let place = rows::place(conn, table, &key)?;
        conn.execute(&delete, params_from_iter(key.iter().map(Bound)))?;
        forget_row(conn, table, &table.life_key(&key), place.as_ref())?;
        gone.push(key);
    }
    Ok(gone)
}

/// Forgets a row's life, its cells' histories, what they keep, and, if it has a place, its clocks.
fn forget_row(
    conn: &Connection,
    table: &Table,
    life_key: &RowKey,
    place: Option<&RowKey>,
) -> rusqlite::Result<()> {
    joined::forget(conn, table, life_key, life_key)?;
    masks::remove(conn, table.id, life_key)?;
    let lanes = table.columns.iter().map(|column| column.lane);
    for lane in [LIFE, ROW].into_iter().chain(lanes) {
        let at = if lane == LIFE { Some(life_key) } else { place };
        let table_id = table.id;
        if let Some(at) = at {
            clocks::clear(conn, Lane { table_id, lane }, at, at)?;
        }
    }
    Ok(())
}

/// Forgets the rows that are not in a table which was made anew: nobody deleted them, so others are
/// asked for them.
fn forget_missing(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    let (copy, name) = (copy(table.id), table.quoted());
    let keys = (0..table.key_columns.len()).map(|at| format!("b.k{at}"));
    let same = table.key_columns.iter().enumerate();
    let same = same.map(|(at, key)| same_part(key, at));
    let place = match table.kind {
        KeyKind::Rowid => ", b.place",
        KeyKind::Integer | KeyKind::Packed => "",
    };
    let missing = format!(
        "FROM main.{copy} AS b WHERE NOT EXISTS (SELECT 1 FROM main.{name} AS t WHERE {})",
        list(same, " AND ")
    );
    let select = format!("SELECT {}{place} {missing}", list(keys, ", "));
    let key_count = table.key_columns.len();
    let mut statement = conn.prepare(&select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let life_key = table.life_key(&rows::key_from(row, 0, key_count)?);
        let place = match table.kind {
            KeyKind::Rowid => RowKey::Rowid(row.get(key_count)?),
            KeyKind::Integer | KeyKind::Packed => life_key.clone(),
        };
        forget_row(conn, table, &life_key, Some(&place))?;
    }
    drop(rows);
    drop(statement);
    conn.execute_batch(&format!("DELETE {missing}"))?;
    gaps::lose(conn, &Part::whole(&table.name))?;
    gaps::want(conn, &table.name)
}

/// Returns the condition that a part of a key is the very same in the table and in its copy.
fn same_part(key: &Column, at: usize) -> String {
    let equal = format!("t.{} = b.k{at}", quoted(&key.name));
    format!("{equal} AND {equal} COLLATE BINARY")
}

fn copy(id: i64) -> String {
    format!("syncline_untracked_{id}")
}

/// Notes the rows that are not as they were.
fn note_differences(conn: &Connection, table: &Table) -> Result<(), TableError> {
    let (copy, name, pending) = (copy(table.id), table.quoted(), table.pending());
    let was = |prefix: &str| {
        let keys = (0..table.key_columns.len()).map(|at| format!("{prefix}k{at}"));
        list(keys, ", ")
    };
    let index = format!("{copy}_by_key");
    conn.execute_batch(&format!("CREATE INDEX main.{index} ON {copy}({})", was("")))?;
    let same_key = table.key_columns.iter().enumerate();
    let same_key = same_key.map(|(at, key)| same_part(key, at));
    let same_place = (table.kind == KeyKind::Rowid).then(|| format!("t.{} = b.place", table.rowid));
    let same = list(same_key.chain(same_place), " AND ");
    // Where a row is named by its rowid, one that has another since is noted at both.
    let fields = capture::keys(table);
    let gone = match table.kind {
        KeyKind::Rowid => format!("b.place, {}", was("b.")),
        KeyKind::Integer | KeyKind::Packed => was("b."),
    };
    conn.execute_batch(&format!(
        "INSERT INTO main.{pending}(mask, {fields}) SELECT {DELETED}, {gone} FROM main.{copy} AS b
         WHERE NOT EXISTS (SELECT 1 FROM main.{name} AS t WHERE {same})"
    ))?;
    let (fields, here) = match table.kind {
        KeyKind::Packed => {
            let keys = table.key_columns.iter();
            let keys = keys.map(|key| format!("t.{}", quoted(&key.name)));
            (fields, list(keys, ", "))
        }
        KeyKind::Integer | KeyKind::Rowid => ("key".to_owned(), format!("t.{}", table.rowid)),
    };
    conn.execute_batch(&format!(
        "INSERT INTO main.{pending}(mask, {fields}) SELECT {WHOLE}, {here} FROM main.{name} AS t
         WHERE NOT EXISTS (SELECT 1 FROM main.{copy} AS b WHERE {same})"
    ))?;
    let kept = "SELECT 1 FROM pragma_table_xinfo(?1, 'main') WHERE name = ?2";
    let mut kept = conn.prepare(kept)?;
    for (word, mask) in capture::masks(table).iter().enumerate() {
        let mut bits = Vec::new();
        for column in table.captured() {
            let (of_word, bit) = mask::place(column.lane);
            if of_word == word && kept.exists((&copy, format!("c{}", column.lane)))? {
                bits.push(format!(
                    "CASE WHEN {} THEN {} ELSE 0 END",
                    differs(column),
                    1i64 << bit
                ));
            }
        }
        if bits.is_empty() {
            continue;
        }
        let bits = list(bits.into_iter(), " | ");
        conn.execute_batch(&format!(
            "INSERT INTO main.{pending}({fields}, {mask})
             SELECT {here}, {bits} AS bits FROM main.{copy} AS b CROSS JOIN main.{name} AS t
             WHERE {same} AND bits <> 0"
        ))?;
    }
    Ok(())
}

/// Returns the condition that a column's value is another than it was, byte for byte and type for
/// type.
fn differs(column: &Column) -> String {
    let (was, is) = (
        format!("b.c{}", column.lane),
        format!("t.{}", quoted(&column.name)),
    );
    format!("({was} IS NOT {is} COLLATE BINARY OR typeof({was}) <> typeof({is}))")
}
