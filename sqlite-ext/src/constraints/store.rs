//! The rows that live and are not shown, with their cells.
//!
//! A parked row keeps its clocks in the lanes of its table, under its [`place`]: the key by which
//! its causal length is kept. Its cells lie here by lane, so a column that is added, dropped or
//! renamed changes nothing.

use std::collections::BTreeMap;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use syncline_crdt::{Value, pack_key, unpack_key};

use crate::clocks::{self, Lane, ROW};
use crate::table::{Column, KeyKind, RowKey, Table};

/// The tables and the view that hold and list parked rows and masked cells.
pub(crate) const TABLES: &str = "
    CREATE TABLE syncline_parked_rows(
        table_id INTEGER NOT NULL,
        place NOT NULL,
        key BLOB NOT NULL,
        cells BLOB NOT NULL,
        standing INTEGER NOT NULL DEFAULT 0,
        broken TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '',
        winner_table_id INTEGER,
        winner,
        since INTEGER NOT NULL DEFAULT 0,
        key_json TEXT NOT NULL DEFAULT '',
        row_json TEXT NOT NULL DEFAULT '',
        winner_json TEXT,
        PRIMARY KEY(table_id, place)
    ) WITHOUT ROWID;
    CREATE INDEX syncline_parked_rows_by_winner
        ON syncline_parked_rows(winner_table_id, winner) WHERE winner_table_id IS NOT NULL;
    CREATE TABLE syncline_parked_claims(
        table_id INTEGER NOT NULL,
        label TEXT NOT NULL,
        form BLOB NOT NULL,
        place NOT NULL,
        PRIMARY KEY(table_id, label, form, place)
    ) WITHOUT ROWID;
    CREATE INDEX syncline_parked_claims_by_place ON syncline_parked_claims(table_id, place);
    CREATE TABLE syncline_foreign_keys(
        table_id INTEGER NOT NULL,
        label TEXT NOT NULL,
        parent_id INTEGER NOT NULL,
        definition TEXT NOT NULL,
        PRIMARY KEY(table_id, label)
    ) WITHOUT ROWID;
    CREATE INDEX syncline_foreign_keys_by_parent ON syncline_foreign_keys(parent_id);
    CREATE TABLE syncline_masks(
        table_id INTEGER NOT NULL,
        place NOT NULL,
        label TEXT NOT NULL,
        form BLOB NOT NULL,
        cells BLOB NOT NULL,
        key_json TEXT NOT NULL,
        row_json TEXT NOT NULL,
        reason TEXT NOT NULL,
        since INTEGER NOT NULL,
        PRIMARY KEY(table_id, place, label)
    ) WITHOUT ROWID;
    CREATE INDEX syncline_masks_by_form ON syncline_masks(table_id, label, form);
    CREATE VIEW syncline_conflicts AS
        SELECT t.name AS table_name, p.key_json AS key, p.row_json AS row,
            p.broken AS constraint_name, p.reason, w.name AS winner_table, p.winner_json AS winner,
            strftime('%Y-%m-%dT%H:%M:%fZ', 1704067200 + (p.since >> 12) / 1000.0, 'unixepoch')
                AS since,
            'parked' AS state
        FROM syncline_parked_rows AS p
        JOIN syncline_tables AS t ON t.id = p.table_id
        LEFT JOIN syncline_tables AS w ON w.id = p.winner_table_id
        UNION ALL
        SELECT t.name, m.key_json, m.row_json, m.label, m.reason, NULL, NULL,
            strftime('%Y-%m-%dT%H:%M:%fZ', 1704067200 + (m.since >> 12) / 1000.0, 'unixepoch'),
            'masked'
        FROM syncline_masks AS m
        JOIN syncline_tables AS t ON t.id = m.table_id;
";

/// Takes them away.
pub(crate) const DROP: &str = "DROP VIEW syncline_conflicts; DROP TABLE syncline_parked_claims;
    DROP TABLE syncline_parked_rows; DROP TABLE syncline_masks; DROP TABLE syncline_foreign_keys;";

/// How far a parked row came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It takes part in the contest for unique values, and lost.
    Contends,
    /// It does not come so far: what it refers to is not there.
    Barred,
    /// It won, but a row of its own tables that it refers to lost.
    Dependent,
    /// The table does not admit it.
    Unfit,
}

impl Standing {
    const ALL: [Standing; 4] = [
        Standing::Contends,
        Standing::Barred,
        Standing::Dependent,
        Standing::Unfit,
    ];
}

impl ToSql for Standing {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl FromSql for Standing {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = usize::try_from(value.as_i64()?).ok();
        let found = number.and_then(|number| Standing::ALL.get(number));
        found.copied().ok_or(FromSqlError::InvalidType)
    }
}

/// A row that lives and is not shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParkedRow {
    /// The key as it was spelled where the row was written.
    pub(crate) key: Vec<Value>,
    /// The cells by lane.
    pub(crate) cells: BTreeMap<i64, Value>,
}

impl ParkedRow {
    /// Returns what a cell holds.
    pub(crate) fn cell(&self, column: &Column) -> Value {
        self.cells.get(&column.lane).cloned().unwrap_or(Value::Null)
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let unpack = |bytes: Vec<u8>| unpack_key(&bytes).expect("parked rows were packed here");
        let packed: Vec<u8> = row.get("cells")?;
        Ok(ParkedRow {
            key: unpack(row.get("key")?),
            cells: unpacked_cells(&packed),
        })
    }
}

/// How many values lie in one pack: an even number that a byte can count.
const PACK_VALUES: usize = 254;

/// Returns cells by lane as they are stored: lane and value by turns, in packs of what a pack can
/// count, each after its length.
pub(super) fn packed_cells(cells: &BTreeMap<i64, Value>) -> Vec<u8> {
    let pairs = cells.iter();
    let flat = pairs.flat_map(|(lane, value)| [Value::Integer(*lane), value.clone()]);
    let flat: Vec<Value> = flat.collect();
    let mut bytes = Vec::new();
    for pack in flat.chunks(PACK_VALUES) {
        let pack = pack_key(pack);
        bytes.extend_from_slice(&(pack.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&pack);
    }
    bytes
}

/// Returns the cells that [`packed_cells`] stored.
pub(super) fn unpacked_cells(bytes: &[u8]) -> BTreeMap<i64, Value> {
    let mut cells = BTreeMap::new();
    let mut pairs = unpacked_values(bytes).into_iter();
    while let (Some(lane), Some(value)) = (pairs.next(), pairs.next()) {
        if let Value::Integer(lane) = lane {
            cells.insert(lane, value);
        }
    }
    cells
}

fn unpacked_values(bytes: &[u8]) -> Vec<Value> {
    let mut values = Vec::new();
    let mut rest = bytes;
    while let Some((length, packs)) = rest.split_first_chunk::<8>() {
        let length = usize::try_from(u64::from_le_bytes(*length)).expect("a pack fits in memory");
        let (pack, after) = packs.split_at(length);
        values.extend(unpack_key(pack).expect("parked rows were packed here"));
        rest = after;
    }
    values
}

/// Returns where a row is kept while it is parked, and under which its clocks lie then.
pub(crate) fn place(table: &Table, key: &[Value]) -> RowKey {
    table.life_key(key)
}

/// Returns the place of the row with a packed key.
pub(crate) fn place_of(table: &Table, packed: &[u8]) -> RowKey {
    let key = unpack_key(packed).expect("claims name rows by keys that were packed here");
    place(table, &key)
}

/// Returns the packed key of the row that is kept at a place.
pub(crate) fn packed(place: &RowKey) -> Vec<u8> {
    match place {
        RowKey::Rowid(number) => pack_key(&[Value::Integer(*number)]),
        RowKey::Packed(packed) => packed.clone(),
    }
}

/// Returns the key of the row that is kept at a place.
pub(crate) fn unpacked(place: &RowKey) -> Vec<Value> {
    match place {
        RowKey::Rowid(number) => vec![Value::Integer(*number)],
        RowKey::Packed(packed) => unpack_key(packed).expect("keys in the clocks were packed here"),
    }
}

/// Whether any row of a table is parked.
pub(crate) fn any(conn: &Connection, table_id: i64) -> rusqlite::Result<bool> {
    let any = "SELECT 1 FROM syncline_parked_rows WHERE table_id = ?1 LIMIT 1";
    conn.prepare_cached(any)?.exists([table_id])
}

/// Whether the row that is kept at a place is parked.
pub(crate) fn contains(conn: &Connection, table_id: i64, place: &RowKey) -> rusqlite::Result<bool> {
    let find = "SELECT 1 FROM syncline_parked_rows WHERE table_id = ?1 AND place = ?2";
    conn.prepare_cached(find)?.exists(params![table_id, place])
}

/// Returns how far the parked row at a place came; `None` if none is parked there.
pub(crate) fn standing(
    conn: &Connection,
    table_id: i64,
    place: &RowKey,
) -> rusqlite::Result<Option<Standing>> {
    let find = "SELECT standing FROM syncline_parked_rows WHERE table_id = ?1 AND place = ?2";
    conn.prepare_cached(find)?
        .query_one(params![table_id, place], |row| row.get(0))
        .optional()
}

/// Returns the places of a table's parked rows that came so far, in order.
pub(crate) fn standing_as(
    conn: &Connection,
    table_id: i64,
    standing: Standing,
) -> rusqlite::Result<Vec<RowKey>> {
    let find = "SELECT place FROM syncline_parked_rows
        WHERE table_id = ?1 AND standing = ?2 ORDER BY place";
    let mut statement = conn.prepare_cached(find)?;
    let places = statement.query_map(params![table_id, standing], |row| row.get(0))?;
    places.collect()
}

/// Notes how far a parked row came.
pub(crate) fn set_standing(
    conn: &Connection,
    table_id: i64,
    place: &RowKey,
    standing: Standing,
) -> rusqlite::Result<()> {
    let set = "UPDATE syncline_parked_rows SET standing = ?3 WHERE table_id = ?1 AND place = ?2";
    conn.prepare_cached(set)?
        .execute(params![table_id, place, standing])?;
    Ok(())
}

/// Returns the parked row at a place.
pub(crate) fn at(
    conn: &Connection,
    table_id: i64,
    place: &RowKey,
) -> rusqlite::Result<Option<ParkedRow>> {
    let find = "SELECT key, cells FROM syncline_parked_rows WHERE table_id = ?1 AND place = ?2";
    conn.prepare_cached(find)?
        .query_one(params![table_id, place], ParkedRow::read)
        .optional()
}

/// Returns the places of a table's parked rows, in order.
pub(crate) fn places(conn: &Connection, table_id: i64) -> rusqlite::Result<Vec<RowKey>> {
    let all = "SELECT place FROM syncline_parked_rows WHERE table_id = ?1 ORDER BY place";
    let mut statement = conn.prepare_cached(all)?;
    let places = statement.query_map([table_id], |row| row.get(0))?;
    places.collect()
}

/// Returns the parked rows whose places are these numbers, in order.
pub(crate) fn numbers(
    conn: &Connection,
    table_id: i64,
    (first, last): (i64, i64),
) -> rusqlite::Result<Vec<i64>> {
    let within = "SELECT place FROM syncline_parked_rows
        WHERE table_id = ?1 AND place BETWEEN ?2 AND ?3 ORDER BY place";
    let mut statement = conn.prepare_cached(within)?;
    let places = statement.query_map([table_id, first, last], |row| row.get(0))?;
    places.collect()
}

/// Calls `each` with every parked row whose place lies between `first` and `last`, in order.
pub(crate) fn for_each(
    conn: &Connection,
    table_id: i64,
    (first, last): (&RowKey, &RowKey),
    mut each: impl FnMut(RowKey, ParkedRow) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let within = "SELECT place, key, cells FROM syncline_parked_rows
        WHERE table_id = ?1 AND place BETWEEN ?2 AND ?3 ORDER BY place";
    let mut statement = conn.prepare_cached(within)?;
    let mut rows = statement.query(params![table_id, first, last])?;
    while let Some(row) = rows.next()? {
        each(row.get("place")?, ParkedRow::read(row)?)?;
    }
    Ok(())
}

/// Keeps a row's key and cells. Why it is parked stays as it was.
pub(crate) fn put(conn: &Connection, table: &Table, row: &ParkedRow) -> rusqlite::Result<RowKey> {
    let place = place(table, &row.key);
    let put = "INSERT INTO syncline_parked_rows(table_id, place, key, cells) VALUES(?1, ?2, ?3, ?4)
        ON CONFLICT DO UPDATE SET key = excluded.key, cells = excluded.cells";
    conn.prepare_cached(put)?.execute(params![
        table.id,
        place,
        pack_key(&row.key),
        packed_cells(&row.cells)
    ])?;
    Ok(place)
}

/// Keeps a row under another place that is also its key, where it is parked, and names it so to the
/// rows that it stands against. Returns whether it is parked.
pub(crate) fn rekey(
    conn: &Connection,
    table_id: i64,
    from: &RowKey,
    to: &RowKey,
) -> rusqlite::Result<bool> {
    let winner = "UPDATE syncline_parked_rows SET winner = ?3
        WHERE winner_table_id = ?1 AND winner = ?2";
    conn.prepare_cached(winner)?
        .execute(params![table_id, from, to])?;
    let row = "UPDATE syncline_parked_rows SET place = ?3, key = ?4
        WHERE table_id = ?1 AND place = ?2";
    let count = conn
        .prepare_cached(row)?
        .execute(params![table_id, from, to, packed(to)])?;
    let claims = "UPDATE syncline_parked_claims SET place = ?3 WHERE table_id = ?1 AND place = ?2";
    conn.prepare_cached(claims)?
        .execute(params![table_id, from, to])?;
    Ok(count > 0)
}

/// Drops a row and its claims; its clocks stay.
pub(crate) fn remove(conn: &Connection, table_id: i64, place: &RowKey) -> rusqlite::Result<()> {
    drop_claims(conn, table_id, place)?;
    let remove = "DELETE FROM syncline_parked_rows WHERE table_id = ?1 AND place = ?2";
    conn.prepare_cached(remove)?
        .execute(params![table_id, place])?;
    Ok(())
}

/// Takes back what a row claims.
pub(crate) fn drop_claims(
    conn: &Connection,
    table_id: i64,
    place: &RowKey,
) -> rusqlite::Result<()> {
    let claims = "DELETE FROM syncline_parked_claims WHERE table_id = ?1 AND place = ?2";
    conn.prepare_cached(claims)?
        .execute(params![table_id, place])?;
    Ok(())
}

/// Notes that a parked row claims a tuple, given in the form of the index with this label.
pub(crate) fn add_claim(
    conn: &Connection,
    table_id: i64,
    (label, form): (&str, &[u8]),
    place: &RowKey,
) -> rusqlite::Result<()> {
    let add = "INSERT OR IGNORE INTO syncline_parked_claims VALUES(?1, ?2, ?3, ?4)";
    conn.prepare_cached(add)?
        .execute(params![table_id, label, form, place])?;
    Ok(())
}

/// Returns the parked rows that claim a tuple, and how far they came.
pub(crate) fn claimants(
    conn: &Connection,
    table_id: i64,
    (label, form): (&str, &[u8]),
) -> rusqlite::Result<Vec<(RowKey, Standing)>> {
    let find = "SELECT place, standing FROM syncline_parked_claims
        JOIN syncline_parked_rows USING(table_id, place)
        WHERE table_id = ?1 AND label = ?2 AND form = ?3";
    let mut statement = conn.prepare_cached(find)?;
    let places = statement.query_map(params![table_id, label, form], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    places.collect()
}

/// Returns the forms of what a parked row claims under a label.
pub(crate) fn forms(
    conn: &Connection,
    table_id: i64,
    label: &str,
    place: &RowKey,
) -> rusqlite::Result<Vec<Vec<u8>>> {
    let find = "SELECT form FROM syncline_parked_claims
        WHERE table_id = ?1 AND place = ?3 AND label = ?2";
    let mut statement = conn.prepare_cached(find)?;
    let forms = statement.query_map(params![table_id, label, place], |row| row.get(0))?;
    forms.collect()
}

/// Returns the places of the table's parked rows whose winner is the row of the table
/// `winner_table_id` that would be kept at `winner`.
pub(crate) fn losers(
    conn: &Connection,
    table_id: i64,
    (winner_table_id, winner): (i64, &RowKey),
) -> rusqlite::Result<Vec<RowKey>> {
    let find = "SELECT place FROM syncline_parked_rows
        WHERE winner_table_id = ?1 AND winner = ?2 AND table_id = ?3";
    let mut statement = conn.prepare_cached(find)?;
    let places =
        statement.query_map(params![winner_table_id, winner, table_id], |row| row.get(0))?;
    places.collect()
}

/// Moves the clocks of one row. They stay where they are if its table has no rowids of its own.
pub(crate) fn move_clocks(
    conn: &Connection,
    table: &Table,
    from: &RowKey,
    to: &RowKey,
) -> rusqlite::Result<()> {
    if table.kind != KeyKind::Rowid || from == to {
        return Ok(());
    }
    for lane in std::iter::once(ROW).chain(table.column_lanes()) {
        let lane = Lane {
            table_id: table.id,
            lane,
        };
        clocks::clear(conn, lane, to, to)?;
        if let Some(clock) = clocks::at(conn, lane, from)? {
            clocks::clear(conn, lane, from, from)?;
            clocks::set(conn, lane, to, to, clock)?;
        }
    }
    Ok(())
}
