//! Notices that a file was changed behind our back in ways that no trigger sees, and mends it.
//!
//! - A table that was rebuilt (`CREATE new; INSERT; DROP old; RENAME`) has lost its triggers.
//! - One that was made anew with another key has clocks that name nothing; see [`rekey`](crate::rekey).
//! - One that cannot be tracked as it is stands aside until it can be: its changes wait, and all
//!   other tables go on.
//! - A file that was dumped and loaded has other rowids in tables whose key is not the rowid, and
//!   there the clocks would name other rows. A canary shows it: a row of such a table, with a
//!   rowid that loading a dump does not give again, and that VACUUM keeps as it keeps the user's.
//!
//! What became of the rows in between is not known. So all rows count as written: no row is lost,
//! and none keeps a clock that may be another's. They count as written right after what was seen
//! last, so that what others wrote since then wins over them.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension};

use crate::alter::{self, Altered};
use crate::candidate::obstacle;
use crate::capture::{self, DELETED, WHOLE};
use crate::clocks::{self, LIFE, Lane, ROW};
use crate::columns;
use crate::constraints;
use crate::lacking;
use crate::options::TableOptions;
use crate::policies;
use crate::references::KEYS_DEPTH_MAX;
use crate::rekey::rekey;
use crate::rows;
use crate::shadow::after_seen;
use crate::shape::Shape;
use crate::table::{KeyKind, RowKey, Table, TableError, TableInfo, list};
use crate::untracked::{self, UNTRACKED};
use crate::unwritten::{self, Initial};
use crate::watermark;
use syncline_crdt::{Hlc, Value, unpack_key};

/// The canary's rowid: far above what loading a dump gives a table's only row.
const CANARY: i64 = 1 << 40;

/// The most tables that one expression asks: SQLite nests a thousand terms at most, two for each.
const WAITING_TABLES_MAX: usize = 400;

/// Puts the canary into its place.
pub(crate) fn set_canary(conn: &Connection) -> rusqlite::Result<()> {
    let set = "INSERT OR REPLACE INTO syncline_canary(rowid, name) VALUES(?1, 'canary')";
    conn.prepare_cached(set)?.execute([CANARY])?;
    Ok(())
}

fn rowids_hold(conn: &Connection) -> rusqlite::Result<bool> {
    let canary = "SELECT rowid FROM syncline_canary WHERE name = 'canary'";
    let found: Option<i64> = conn
        .prepare_cached(canary)?
        .query_one([], |row| row.get(0))
        .optional()?;
    Ok(found == Some(CANARY))
}

/// A tracked table as it is noted.
pub(crate) struct Entry {
    pub(crate) id: i64,
    pub(crate) name: String,
    /// Its [`Shape`] when it was last read.
    pub(crate) shape: String,
    /// Why it stands aside, if it does.
    pub(crate) aside: Option<String>,
}

impl Entry {
    fn all(conn: &Connection) -> rusqlite::Result<Vec<Self>> {
        let all = "SELECT id, name, shape, aside FROM syncline_tables ORDER BY id";
        let mut statement = conn.prepare_cached(all)?;
        let entries = statement.query_map([], |row| {
            Ok(Entry {
                id: row.get(0)?,
                name: row.get(1)?,
                shape: row.get(2)?,
                aside: row.get(3)?,
            })
        })?;
        entries.collect()
    }
}

/// What has to be done about a table.
enum Care {
    /// It is as it was, or it is not there.
    Nothing,
    /// Columns were added.
    Columns(Table),
    /// Columns were renamed or dropped, and perhaps added.
    Altered(Altered),
    /// Its triggers are gone, so what became of its rows is not known.
    Triggers,
    /// It has another key.
    Key(Shape),
    /// It cannot be tracked as it is, for this reason.
    Aside(String),
}

fn care(conn: &Connection, entry: &Entry) -> Result<Care, TableError> {
    if entry.aside.as_deref() == Some(UNTRACKED) {
        return Ok(Care::Nothing);
    }
    let Some(info) = TableInfo::read(conn, &entry.name)? else {
        return Ok(Care::Nothing);
    };
    let shape = info.shape(conn)?;
    let has_shape = shape.to_text() == entry.shape;
    if entry.aside.is_none()
        && has_shape
        && let Some(table) = Table::read(conn, entry.id, &entry.name)?
        && capture::is_complete(conn, &table)?
    {
        let has_policies = policies::refusal(conn, &info, &table.options)?.is_none();
        if columns::are_all_known(&table, &info) && has_policies {
            return Ok(Care::Nothing);
        }
        if has_policies && obstacle(conn, &info)?.is_none() {
            return Ok(Care::Columns(table));
        }
    }
    let options = TableOptions::of(conn, entry.id)?;
    let obstacle = obstacle(conn, &info)?.map(|obstacle| obstacle.to_string());
    if entry.aside.is_none()
        && obstacle.is_none()
        && let Some(altered) = alter::altered(conn, entry, &info)?
    {
        return Ok(Care::Altered(altered));
    }
    let obstacle = match obstacle {
        Some(obstacle) => Some(obstacle),
        None => policies::refusal(conn, &info, &options)?.map(|refusal| refusal.to_string()),
    };
    Ok(match obstacle {
        Some(_) if obstacle == entry.aside => Care::Nothing,
        Some(reason) => Care::Aside(reason),
        // Nothing followed the rows that its key refers to meanwhile.
        None if has_shape && entry.aside.is_some() && shape.refers() => Care::Key(shape),
        None if has_shape => Care::Triggers,
        None => Care::Key(shape),
    })
}

/// Whether something has to be mended.
pub(crate) fn is_needed(conn: &Connection) -> Result<bool, TableError> {
    if !rowids_hold(conn)? {
        return Ok(true);
    }
    if is_checked(conn)? {
        return Ok(false);
    }
    for entry in Entry::all(conn)? {
        let is_moved = alter::moved(conn, &entry)?.is_some();
        if is_moved || !matches!(care(conn, &entry)?, Care::Nothing) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The tables that were mended, by id.
#[derive(Debug, Default)]
pub(crate) struct Mended {
    /// All rows of these are noted as written.
    pub(crate) noted: BTreeSet<i64>,
    /// These may have a place for what waited for them.
    pub(crate) widened: BTreeSet<i64>,
    /// What cells that nobody wrote held in those that were rebuilt.
    pub(crate) initial: BTreeMap<i64, Initial>,
    /// The time right after what was seen last, for the rows that are noted.
    pub(crate) seen: Hlc,
}

/// Mends what has to be; the notes it leaves are folded next.
pub(crate) fn heal(conn: &Connection, now_unix_ms: u64) -> Result<Mended, TableError> {
    let mut mended = Mended::default();
    let rowids_hold = rowids_hold(conn)?;
    if rowids_hold && is_checked(conn)? {
        return Ok(mended);
    }
    // Before anything is written as of this moment.
    mended.seen = after_seen(conn)?;
    // First, because the keys of others may refer to their rows.
    for entry in Entry::all(conn)? {
        if let Some(name) = alter::moved(conn, &entry)? {
            alter::follow(conn, &entry, &name, now_unix_ms)?;
            mended.widened.insert(entry.id);
        }
    }
    // What a key refers to depends on whether the other table stands aside.
    for _ in 0..=KEYS_DEPTH_MAX {
        let mut is_done = true;
        for entry in Entry::all(conn)? {
            let care = care(conn, &entry)?;
            is_done &= matches!(care, Care::Nothing);
            take_care(conn, &entry, care, (now_unix_ms, &mut mended))?;
        }
        if is_done {
            break;
        }
    }
    mended.widened.extend(&mended.noted);
    if !rowids_hold {
        for table in Table::all(conn)? {
            if table.kind == KeyKind::Rowid && mended.noted.insert(table.id) {
                note_everything(conn, &table)?;
            }
        }
        set_canary(conn)?;
    }
    note_checked(conn)?;
    Ok(mended)
}

fn take_care(
    conn: &Connection,
    entry: &Entry,
    care: Care,
    (now_unix_ms, mended): (u64, &mut Mended),
) -> Result<(), TableError> {
    let id = entry.id;
    match care {
        Care::Nothing => {}
        Care::Columns(table) => {
            columns::take_up(conn, &table, now_unix_ms)?;
            mended.widened.insert(id);
        }
        Care::Altered(altered) => {
            alter::take_up(conn, entry, &altered, now_unix_ms)?;
            mended.widened.insert(id);
        }
        Care::Triggers => {
            set_aside(conn, id, None)?;
            mend(conn, entry, now_unix_ms, |conn, table| {
                mended.initial.insert(id, unwritten::initial(conn, table)?);
                if table.kind == KeyKind::Rowid {
                    // Rows may have been left out whose keys nobody knows here.
                    lacking::note(conn)?;
                }
                capture::renew(conn, table)?;
                constraints::capture(conn, table)?;
                untracked::drop_gone(conn, table)?;
                note_everything(conn, table)
            })?;
            mended.noted.insert(id);
        }
        Care::Key(shape) => {
            set_aside(conn, id, None)?;
            lacking::note(conn)?;
            rekey(conn, entry, &shape)?;
            mend(conn, entry, now_unix_ms, |conn, table| {
                untracked::drop_gone(conn, table)?;
                note_rows(conn, table)
            })?;
            mended.noted.insert(id);
        }
        Care::Aside(reason) => {
            // Its triggers could stop the user's writes.
            capture::drop_triggers(conn, id)?;
            set_aside(conn, id, Some(&reason))?;
        }
    }
    Ok(())
}

/// Whether all tables were looked at since the schema changed.
pub(crate) fn is_checked(conn: &Connection) -> rusqlite::Result<bool> {
    Ok(schema_version(conn)? == checked_schema_version(conn)?)
}

/// Notes that all tables are as they should be: they were when a transaction began that changed the
/// schema only as Syncline does.
pub(crate) fn note_checked(conn: &Connection) -> Result<(), TableError> {
    if !is_checked(conn)? {
        let checked = "INSERT OR REPLACE INTO syncline_meta(key, value)
            VALUES('mended', ?1), ('waiting', ?2)";
        conn.prepare_cached(checked)?
            .execute((schema_version(conn)?, waiting(conn)?))?;
    }
    Ok(())
}

/// Returns the expression that says whether any table has writes to fold; `None` where it would be
/// longer than SQLite takes.
fn waiting(conn: &Connection) -> Result<Option<String>, TableError> {
    let tables = Table::all(conn)?;
    let waiting = tables.iter().map(|table| {
        let noted = format!("EXISTS(SELECT 1 FROM main.{})", table.pending());
        let passed = watermark::above(table, "1");
        passed.map_or(noted.clone(), |passed| {
            format!("{noted} OR EXISTS({passed})")
        })
    });
    let waiting = list(waiting.chain(["0".to_owned()]), " OR ");
    Ok((tables.len() < WAITING_TABLES_MAX).then_some(waiting))
}

/// Whether any table has writes to fold, as far as that is known without reading the definitions of
/// all tables: where these are as they were checked.
pub(crate) fn is_anything_waiting(conn: &Connection) -> rusqlite::Result<Option<bool>> {
    let waiting = "SELECT value FROM syncline_meta WHERE key = 'waiting'";
    let waiting: Option<Option<String>> = conn
        .prepare_cached(waiting)?
        .query_one([], |row| row.get(0))
        .optional()?;
    match waiting.flatten() {
        Some(waiting) if is_checked(conn)? => {
            let select = format!("SELECT {waiting}");
            let mut statement = conn.prepare_cached(&select)?;
            Ok(Some(statement.query_one([], |row| row.get(0))?))
        }
        _ => Ok(None),
    }
}

/// Runs `how` on a table that is as it should be, with all its columns.
fn mend(
    conn: &Connection,
    entry: &Entry,
    now_unix_ms: u64,
    how: impl FnOnce(&Connection, &Table) -> rusqlite::Result<()>,
) -> Result<(), TableError> {
    if let Some(info) = TableInfo::read(conn, &entry.name)? {
        columns::forget_missing(conn, entry.id, &info)?;
    }
    if let Some(table) = Table::read(conn, entry.id, &entry.name)? {
        let table = columns::take_up(conn, &table, now_unix_ms)?;
        how(conn, &table)?;
    }
    Ok(())
}

/// SQLite's counter of changes to the schema, by whomever.
pub(crate) fn schema_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("PRAGMA main.schema_version")?
        .query_one([], |row| row.get(0))
}

/// Notes that nothing had to be done at this version of the schema, so that looking again costs
/// nothing while it stays. Where that cannot be written, looking again is all it costs.
pub(crate) fn note_looked_at(conn: &Connection, version: i64) -> Result<(), TableError> {
    if checked_schema_version(conn)? == version || !conn.is_autocommit() {
        return Ok(());
    }
    let note = "INSERT OR REPLACE INTO syncline_meta(key, value)
        VALUES('mended', ?1), ('schema', ?1), ('waiting', ?2)";
    let waiting = waiting(conn)?;
    match conn.prepare_cached(note)?.execute((version, waiting)) {
        Err(error) if is_hindered(&error) => Ok(()),
        done => Ok(done.map(|_| ())?),
    }
}

/// Whether others write, or nobody may.
fn is_hindered(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, ReadOnly};
    let code = error.sqlite_error_code();
    matches!(code, Some(DatabaseBusy | DatabaseLocked | ReadOnly))
}

/// Returns at which schema all tables were as they should be.
fn checked_schema_version(conn: &Connection) -> rusqlite::Result<i64> {
    let checked = "SELECT value FROM syncline_meta WHERE key = 'mended'";
    let checked = conn
        .prepare_cached(checked)?
        .query_one([], |row| row.get(0));
    Ok(checked.optional()?.unwrap_or(-1))
}

fn set_aside(conn: &Connection, id: i64, reason: Option<&str>) -> rusqlite::Result<()> {
    let set = "UPDATE syncline_tables SET aside = ?2 WHERE id = ?1";
    conn.prepare_cached(set)?.execute((id, reason))?;
    Ok(())
}

/// Notes all rows as written, and those that are gone as deleted.
fn note_everything(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    let pending = table.pending();
    if table.kind == KeyKind::Rowid {
        // The rowids name nothing any more. Which rows are gone is known from notes only: all
        // others stay elsewhere. Parked rows are named by their keys.
        conn.execute(
            &format!("DELETE FROM {pending} WHERE mask <> {DELETED}"),
            [],
        )?;
        let rest = "DELETE FROM syncline_clocks
            WHERE table_id = ?1 AND lane <> ?2 AND typeof(key) = 'integer'";
        conn.execute(rest, (table.id, LIFE))?;
    } else {
        conn.execute(&format!("DELETE FROM {pending}"), [])?;
        note_all_gone(conn, table)?;
    }
    note_rows(conn, table)
}

/// Notes all rows as written.
fn note_rows(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    let (pending, name) = (table.pending(), table.quoted());
    let (into, fields) = match table.kind {
        KeyKind::Packed => {
            let keys = (0..table.key_columns.len()).map(|at| format!("k{at}"));
            (
                format!("mask, {}", list(keys, ", ")),
                format!("{WHOLE}, {}", table.key_list()),
            )
        }
        KeyKind::Integer | KeyKind::Rowid => {
            ("key, mask".to_owned(), format!("{}, {WHOLE}", table.rowid))
        }
    };
    conn.execute(
        &format!("INSERT INTO {pending}({into}) SELECT {fields} FROM main.{name}"),
        [],
    )?;
    Ok(())
}

/// Notes the rows that have clocks and are neither in the table nor parked. Where rows are named by
/// a rowid of SQLite's own, the key of such a row is not known: others have to tell it.
pub(crate) fn note_all_gone(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    let rows = Lane {
        table_id: table.id,
        lane: ROW,
    };
    if table.kind == KeyKind::Rowid {
        return if lacking::has_all(conn, table)? {
            Ok(())
        } else {
            lacking::note(conn)
        };
    }
    for range in clocks::all(conn, rows)? {
        note_gone(conn, table, &range)?;
    }
    Ok(())
}

/// Notes the rows of a range that are neither in the table nor parked.
fn note_gone(conn: &Connection, table: &Table, range: &clocks::Range) -> rusqlite::Result<()> {
    let pending = table.pending();
    match (&range.first, &range.last) {
        (RowKey::Rowid(first), RowKey::Rowid(last)) => {
            let (name, rowid) = (table.quoted(), &table.rowid);
            let gone = format!(
                "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
                 INSERT INTO {pending}(key, mask) SELECT i, {DELETED} FROM n
                 WHERE NOT EXISTS (SELECT 1 FROM main.{name} WHERE {rowid} = i)
                 AND NOT EXISTS
                    (SELECT 1 FROM syncline_parked_rows WHERE table_id = ?3 AND place = i)"
            );
            conn.execute(&gone, (first, last, table.id))?;
        }
        (packed @ RowKey::Packed(bytes), _) => {
            let key: Vec<Value> = unpack_key(bytes).expect("keys in the clocks were packed here");
            let mut is_there = constraints::store::contains(conn, table.id, packed)?;
            rows::for_each(conn, table, &[], (packed, packed), |_, _| {
                is_there = true;
                Ok(())
            })?;
            if !is_there {
                capture::note_deletion(conn, table, &key)?;
            }
        }
        (RowKey::Rowid(_), RowKey::Packed(_)) => unreachable!("a range has keys of one kind"),
    }
    Ok(())
}
