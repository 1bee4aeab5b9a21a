//! Turns what the triggers noted into clocks: one version for all that was pending.
//!
//! Only which rows were touched is taken from the notes; what became of them is read from the
//! tables. So the order of the notes does not matter, several transactions fold into one, and a
//! crash before the fold loses nothing: the notes are part of the transactions they describe.

mod counted;
mod deletions;
mod keyed;
mod masked;
mod referring;
mod renumbered;
mod reused;
mod runs;

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use syncline_crdt::{CausalLength, Hlc, Value, unpack_key};

use crate::births::{self, between};
use crate::capture;
use crate::clocks::{self, Clock, LIFE, Lane, ROW};
use crate::collect::Past;
use crate::constraints::{self, Touched};
use crate::heal;
use crate::joined;
use crate::mask::Mask;
use crate::parked;
use crate::renames::Renames;
use crate::rows::{self, key_from};
use crate::shadow::{OWN, in_savepoint, in_snapshot, is_prepared, tick, tick_at};
use crate::table::{KeyKind, RowKey, Table};
use crate::unwritten::{self, Unwritten};
use crate::watermark;
use counted::Counted;
use referring::{Written, refer};
use runs::{Run, disjoint, push};

/// Why pending writes could not be folded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The database could not be read as ours.
    #[error(transparent)]
    Open(#[from] crate::OpenError),
    /// A table's declaration could not be read.
    #[error(transparent)]
    Table(#[from] crate::TableError),
}

/// Folds all that is pending into one version of this replica, and returns it; `None` if nothing
/// was written.
///
/// # Errors
///
/// If SQLite fails; the writes stay pending then.
pub fn fold(conn: &Connection, now_unix_ms: u64) -> Result<Option<Hlc>, FoldError> {
    if !is_prepared(conn)? {
        return Ok(None);
    }
    let looked_at = heal::schema_version(conn)?;
    if !has_work(conn)? {
        heal::note_looked_at(conn, looked_at)?;
        return Ok(None);
    }
    in_savepoint(conn, || {
        let mended = heal::heal(conn, now_unix_ms)?;
        let (mut seen, mut version) = (None, None);
        let mut touched = Touched::default();
        let (mut renames, mut written) = (Renames::default(), Vec::new());
        let mut folded =
            |table: &Table, mut notes: Notes, touched: &mut Touched, renames: &mut Renames| {
                if let Some(initial) = mended.initial.get(&table.id) {
                    notes.unwritten = unwritten::unwritten(conn, table, initial)?;
                }
                let tick_now: &Tick<'_> = &|conn| Ok(tick(conn, now_unix_ms)?.version);
                let tick_seen: &Tick<'_> = &|conn| tick_at(conn, mended.seen);
                let is_mended = mended.noted.contains(&table.id);
                let (version, tick) = match is_mended {
                    true => (&mut seen, tick_seen),
                    false => (&mut version, tick_now),
                };
                let (rows, runs) =
                    fold_noted(conn, (table, notes), (version, tick), renames, is_mended)?;
                touched.add(table.id, rows);
                written.extend((!runs.is_empty()).then(|| (table.clone(), runs)));
                Ok::<_, FoldError>(())
            };
        let all = Table::all(conn)?;
        for table in &all {
            touched.add(table.id, constraints::refresh(conn, table)?);
        }
        let refers = |table: &Table| table.shape.refers();
        let (keyed, others): (Vec<_>, Vec<_>) = all.iter().cloned().partition(refers);
        for table in &others {
            folded(table, Notes::take(conn, table)?, &mut touched, &mut renames)?;
        }
        for (table, notes) in keyed::follow(conn, keyed, &mut renames, &mut touched)? {
            folded(&table, notes, &mut touched, &mut renames)?;
        }
        touched.join(refer(conn, renames, &written)?);
        constraints::refresh_foreign(conn, &mut touched)?;
        constraints::settle(conn, touched)?;
        let widened = all
            .iter()
            .filter(|table| mended.widened.contains(&table.id));
        replay(conn, widened)?;
        constraints::note_schema(conn)?;
        heal::note_checked(conn)?;
        Ok(version.or(seen))
    })
}

/// Merges what waited for tables that may have a place for it since: when all is folded, because it
/// must meet the rows as they are.
fn replay<'t>(conn: &Connection, tables: impl Iterator<Item = &'t Table>) -> Result<(), FoldError> {
    for table in tables {
        // A row whose id was counted may wait under another key than it died under.
        let past = match table.is_counted() {
            true => Past::of_waiting(conn)?,
            false => Past::default(),
        };
        parked::replay(conn, &table.name, past)?;
    }
    Ok(())
}

/// Gives the version of what is folded.
type Tick<'a> = dyn Fn(&Connection) -> rusqlite::Result<Hlc> + 'a;

/// Folds what is noted of one table into `version`, which `tick` gives if there is none yet. Returns
/// what was touched, as far as constraints ask for it, and the rows whose references are to be
/// looked at.
fn fold_noted(
    conn: &Connection,
    (table, mut notes): (&Table, Notes),
    (version, tick): (&mut Option<Hlc>, &Tick<'_>),
    renames: &mut Renames,
    is_mended: bool,
) -> Result<(constraints::Rows, Written), FoldError> {
    // Before rows move: they are noted by the ids under which they were written.
    let unmasked = notes.unmask(conn, table, is_mended)?;
    if notes.is_empty() {
        return Ok((constraints::Rows::default(), Vec::new()));
    }
    let version = match *version {
        Some(version) => version,
        None => *version.insert(tick(conn)?),
    };
    let folding = Folding {
        conn,
        table,
        version,
    };
    let moved = folding.fold(&mut notes, renames)?;
    let runs = match table.columns.iter().any(|column| column.refers.is_some()) {
        true => notes.runs(),
        false => Vec::new(),
    };
    if !constraints::store::any(conn, table.id)? && !constraints::binds(conn, table.id)? {
        let rows = constraints::Rows {
            places: moved,
            ..constraints::Rows::default()
        };
        return Ok((rows, runs));
    }
    let mut touched = notes.touched(table);
    touched.places.extend(unmasked);
    if constraints::store::any(conn, table.id)? {
        let places = notes.rows(conn, table)?;
        // Where ids are counted, what was put over a parked row is another row.
        if !table.is_counted() {
            // What this fold parked nobody put a row over.
            let before = places.difference(&moved).cloned().collect();
            constraints::take_over(conn, table, &before)?;
        }
        touched.places.extend(places);
    }
    touched.gone.extend(moved.iter().cloned());
    touched.places.extend(moved);
    Ok((touched, runs))
}

/// Folds, then reads one state of the database in which nothing is pending: what others write
/// meanwhile is not seen, so that no value is read under the stamp of an earlier write, and no
/// transaction in part.
pub(crate) fn read_folded<T, E: From<FoldError> + From<rusqlite::Error>>(
    conn: &Connection,
    now_unix_ms: u64,
    read: impl Fn() -> Result<T, E>,
) -> Result<T, E> {
    loop {
        fold(conn, now_unix_ms)?;
        let found = in_snapshot(conn, || {
            let is_folded = !is_prepared(conn).map_err(FoldError::from)? || !has_work(conn)?;
            is_folded.then(&read).transpose()
        })?;
        if let Some(found) = found {
            return Ok(found);
        }
    }
}

/// Whether anything is pending, or a table has to be mended: looked up without taking the lock for
/// writing.
fn has_work(conn: &Connection) -> Result<bool, FoldError> {
    if heal::is_needed(conn)? || constraints::is_outdated(conn)? {
        return Ok(true);
    }
    if let Some(is_waiting) = heal::is_anything_waiting(conn)? {
        return Ok(is_waiting);
    }
    for table in Table::all(conn)? {
        let any = format!("SELECT 1 FROM {} LIMIT 1", table.pending());
        if conn.prepare_cached(&any)?.exists([])? || watermark::is_passed(conn, &table)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What was touched in one table.
#[derive(Debug, Default)]
struct Notes {
    /// Runs of touched rows with the lanes that were written; in order, never overlapping.
    written: Vec<Run>,
    /// Keys of which a deletion was noted, whether or not the row came back, with their rowid; of
    /// tables whose key is not the rowid.
    deleted: Vec<(Vec<Value>, Option<i64>)>,
    /// The same for a table whose key is the rowid: first and last keys, in order.
    deleted_runs: Vec<(i64, i64)>,
    /// Rows that are there and live anew, since one that their key refers to was deleted and made again.
    reborn: Vec<RowKey>,
    /// Whether rows that were there before may have been written.
    is_rewritten: bool,
    /// Cells of the written rows that nobody wrote.
    unwritten: Unwritten,
}

impl Notes {
    /// Reads and removes a table's notes.
    fn take(conn: &Connection, table: &Table) -> rusqlite::Result<Self> {
        let pending = table.pending();
        let mut notes = Notes::default();
        let mut written: Vec<Run> = Vec::new();
        let key_count = table.key_columns.len();
        let masks = capture::masks(table);
        let fields = format!("{}, {}", masks.join(", "), capture::keys(table));
        let key_at = masks.len();
        let mut statement = conn.prepare_cached(&format!("SELECT {fields} FROM {pending}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let place = match table.kind {
                KeyKind::Packed => table.life_key(&key_from(row, key_at, key_count)?),
                KeyKind::Integer | KeyKind::Rowid => RowKey::Rowid(row.get(key_at)?),
            };
            let mask = Mask::read(row, 0, key_at)?;
            if mask.is_deletion() {
                match (table.kind, &place) {
                    (KeyKind::Integer, RowKey::Rowid(key)) => notes.deleted_runs.push((*key, *key)),
                    (KeyKind::Rowid, RowKey::Rowid(rowid)) => {
                        let key = key_from(row, key_at + 1, key_count)?;
                        notes.deleted.push((key, Some(*rowid)));
                    }
                    _ => {
                        let key = key_from(row, key_at, key_count)?;
                        notes.deleted.push((key, None));
                    }
                }
            } else if !mask.is_empty() {
                push(&mut written, place, mask);
            }
        }
        drop(rows);
        drop(statement);
        notes.is_rewritten = !written.is_empty();
        watermark::for_each(conn, table, |rowid| {
            push(&mut written, RowKey::Rowid(rowid), Mask::WHOLE)
        })?;
        watermark::raise(conn, table)?;
        notes.written = disjoint(written);
        notes.deleted_runs = runs::joined(notes.deleted_runs);
        notes.deleted.sort_unstable();
        notes.deleted.dedup();
        conn.prepare_cached(&format!("DELETE FROM {pending}"))?
            .execute([])?;
        Ok(notes)
    }

    /// Returns every row that is noted, by the key of its causal length.
    fn rows(&self, conn: &Connection, table: &Table) -> rusqlite::Result<BTreeSet<RowKey>> {
        let mut found = BTreeSet::new();
        let deleted = self.deleted.iter();
        found.extend(deleted.map(|(key, _)| table.life_key(key)));
        for (first, last) in &self.deleted_runs {
            found.extend((*first..=*last).map(RowKey::Rowid));
        }
        for Run { first, last, .. } in &self.written {
            match (table.kind, first, last) {
                (KeyKind::Integer, RowKey::Rowid(first), RowKey::Rowid(last)) => {
                    found.extend((*first..=*last).map(RowKey::Rowid));
                }
                (KeyKind::Packed, first, _) => {
                    found.insert(first.clone());
                }
                (_, first, last) => rows::for_each(conn, table, &[], (first, last), |_, key| {
                    found.insert(table.life_key(&key));
                    Ok(())
                })?,
            }
        }
        Ok(found)
    }

    /// Returns what is noted, with written rows by rowid where they have one.
    fn touched(&self, table: &Table) -> constraints::Rows {
        let deleted = self.deleted.iter();
        let deleted_runs = self.deleted_runs.iter();
        let mut touched = constraints::Rows {
            gone: deleted
                .map(|(key, _)| table.life_key(key))
                .chain(deleted_runs.flat_map(|(first, last)| (*first..=*last).map(RowKey::Rowid)))
                .collect(),
            is_rewritten: self.is_rewritten,
            ..constraints::Rows::default()
        };
        touched.places.clone_from(&touched.gone);
        for Run { first, last, .. } in &self.written {
            match (first, last) {
                (RowKey::Rowid(first), RowKey::Rowid(last)) => touched.runs.push((*first, *last)),
                (place, _) => {
                    touched.places.insert(place.clone());
                }
            }
        }
        touched
    }

    fn is_empty(&self) -> bool {
        self.written.is_empty() && self.deleted.is_empty() && self.deleted_runs.is_empty()
    }
}

/// One table's fold.
struct Folding<'a> {
    conn: &'a Connection,
    table: &'a Table,
    version: Hlc,
}

impl Folding<'_> {
    /// Folds the notes and returns the rows that are shown under another id then, or are parked.
    fn fold(&self, notes: &mut Notes, renames: &mut Renames) -> rusqlite::Result<BTreeSet<RowKey>> {
        let mut gone = self.gone(notes)?;
        if self.table.is_counted() {
            gone = counted::without_parked(self.conn, self.table, gone)?;
            return self.fold_counted(notes, &gone, renames);
        }
        self.end_lives(&gone)?;
        self.deletions(notes)?;
        self.writes(&notes.written, None)?;
        unwritten::spare(self.conn, self.table, &notes.unwritten)?;
        let parked = self.join(&notes.written)?;
        // Rows that were written and then deleted before the fold have no clocks.
        gone.iter().try_for_each(|run| self.forget_runs(run))?;
        self.drop_phantoms(notes)?;
        Ok(parked)
    }

    fn lane(&self, lane: i64) -> Lane {
        Lane {
            table_id: self.table.id,
            lane,
        }
    }

    /// Returns the keys that were deleted and are not there, of a table whose key is the rowid.
    fn gone(&self, notes: &Notes) -> rusqlite::Result<Vec<(i64, i64)>> {
        let mut gone = Vec::new();
        for run in &notes.deleted_runs {
            let mut left = Vec::new();
            let (first, last) = (RowKey::Rowid(run.0), RowKey::Rowid(run.1));
            rows::for_each(self.conn, self.table, &[], (&first, &last), |rowid, _| {
                left.extend(rowid.map(|rowid| (rowid, rowid)));
                Ok(())
            })?;
            gone.extend(between(*run, &left));
        }
        Ok(gone)
    }

    /// Ends the lives of rows that are gone, run by run.
    fn end_lives(&self, gone: &[(i64, i64)]) -> rusqlite::Result<()> {
        for run in gone {
            let (first, last) = (RowKey::Rowid(run.0), RowKey::Rowid(run.1));
            let lives = clocks::ranges(self.conn, self.lane(LIFE), &first, &last)?;
            let rows = clocks::ranges(self.conn, self.lane(ROW), &first, &last)?;
            self.forget_runs(run)?;
            for life in &lives {
                let length = length(&life.clock);
                if length.is_alive() {
                    self.set_lives(&life.first, &life.last, length.dead())?;
                }
            }
            // A row that was made and deleted before anybody heard of it leaves nothing.
            let taken: Vec<_> = lives.iter().map(numbers).collect();
            for known in rows.iter().map(numbers) {
                for (from, to) in between(known, &taken) {
                    let (from, to) = (RowKey::Rowid(from), RowKey::Rowid(to));
                    self.set_lives(&from, &to, CausalLength::FIRST.dead())?;
                }
            }
        }
        Ok(())
    }

    fn forget_runs(&self, run: &(i64, i64)) -> rusqlite::Result<()> {
        let (first, last) = (RowKey::Rowid(run.0), RowKey::Rowid(run.1));
        joined::forget(self.conn, self.table, &first, &last)?;
        self.forget(&first, &last)
    }

    fn forget(&self, first: &RowKey, last: &RowKey) -> rusqlite::Result<()> {
        clocks::clear(self.conn, self.lane(ROW), first, last)?;
        if self.table.is_counted() {
            clocks::clear(self.conn, self.lane(births::BORN), first, last)?;
        }
        for lane in self.table.column_lanes() {
            clocks::clear(self.conn, self.lane(lane), first, last)?;
        }
        Ok(())
    }

    fn set_life(&self, key: &RowKey, length: CausalLength) -> rusqlite::Result<()> {
        self.set_lives(key, key, length)
    }

    fn set_lives(
        &self,
        first: &RowKey,
        last: &RowKey,
        length: CausalLength,
    ) -> rusqlite::Result<()> {
        let causal_length = length.get();
        let clock = Clock {
            site: OWN,
            version: self.version,
            causal_length,
        };
        clocks::set(self.conn, self.lane(LIFE), first, last, clock)
    }

    /// Stamps what was written.
    fn writes(
        &self,
        written: &[Run],
        mut counted: Option<&mut Counted<'_>>,
    ) -> rusqlite::Result<()> {
        let used = |column: &&crate::table::Column| {
            clocks::is_used(self.conn, self.lane(column.lane))
                .map(|used| used.then_some(column.lane))
        };
        let used: Vec<Option<i64>> = self
            .table
            .columns
            .iter()
            .map(|c| used(&c))
            .collect::<Result<_, _>>()?;
        let used: Vec<i64> = used.into_iter().flatten().collect();
        let lives = clocks::is_used(self.conn, self.lane(LIFE))?;
        let clock = Clock {
            site: OWN,
            version: self.version,
            causal_length: 0,
        };
        let literals = self.literals()?;
        // Columns that were written without the rest of their rows.
        let mut apart: BTreeMap<i64, Vec<(RowKey, RowKey)>> = BTreeMap::new();
        for run @ Run { first, last, mask } in written {
            let columns = &self.table.columns;
            let all_written =
                !columns.is_empty() && columns.iter().all(|column| mask.has(column.lane));
            let is_whole = mask.is_whole() || all_written;
            if is_whole {
                match &mut counted {
                    Some(counted) => counted.write(run.numbers(), clock)?,
                    None => clocks::set(self.conn, self.lane(ROW), first, last, clock)?,
                }
            }
            // Not before a parked row that had the id made way, with what is noted of its cells.
            for (lane, literals) in &literals {
                if mask.has(*lane) {
                    clocks::clear(self.conn, *literals, first, last)?;
                }
            }
            if is_whole {
                for lane in &used {
                    clocks::clear(self.conn, self.lane(*lane), first, last)?;
                }
                if lives {
                    self.revive(first, last)?;
                }
                continue;
            }
            for column in &self.table.columns {
                if mask.has(column.lane) {
                    clocks::join(apart.entry(column.lane).or_default(), first, last);
                }
            }
        }
        for (lane, runs) in apart {
            let runs: Vec<_> = runs.iter().map(|(first, last)| (first, last)).collect();
            clocks::set_all(self.conn, self.lane(lane), &runs, clock)?;
        }
        Ok(())
    }

    /// Takes in what was written to the columns whose cells join, and returns the rows that are
    /// parked then.
    fn join(&self, written: &[Run]) -> rusqlite::Result<BTreeSet<RowKey>> {
        let mut parked = BTreeSet::new();
        if self.table.joined.is_empty() {
            return Ok(parked);
        }
        let joining = joined::Folding::new(self.conn, self.table)?;
        for run in written {
            parked.extend(joining.rows((&run.first, &run.last), &run.mask, self.version)?);
        }
        Ok(parked)
    }

    /// Begins another life for rows that were deleted before they were written.
    fn revive(&self, first: &RowKey, last: &RowKey) -> rusqlite::Result<()> {
        let mut keys = Vec::new();
        if self.table.kind == KeyKind::Rowid {
            rows::for_each(self.conn, self.table, &[], (first, last), |_, key| {
                keys.push(self.table.life_key(&key));
                Ok(())
            })?;
        } else {
            for range in clocks::ranges(self.conn, self.lane(LIFE), first, last)? {
                match (range.first, range.last) {
                    (RowKey::Rowid(first), RowKey::Rowid(last)) => {
                        keys.extend((first..=last).map(RowKey::Rowid));
                    }
                    (packed, _) => keys.push(packed),
                }
            }
        }
        for key in keys {
            let life = clocks::at(self.conn, self.lane(LIFE), &key)?;
            if let Some(dead) = life
                .map(|clock| length(&clock))
                .filter(|life| !life.is_alive())
                && self.lives(&key)?
            {
                self.set_life(&key, dead.born())?;
            }
        }
        Ok(())
    }

    /// Whether the row whose causal length is kept under `life_key` is in the table.
    fn lives(&self, life_key: &RowKey) -> rusqlite::Result<bool> {
        let key = match life_key {
            RowKey::Rowid(key) => vec![Value::Integer(*key)],
            RowKey::Packed(packed) => {
                unpack_key(packed).expect("keys in the clocks were packed here")
            }
        };
        Ok(rows::place(self.conn, self.table, &key)?.is_some())
    }
}

/// Returns the keys of a range of a table whose keys are numbers.
fn numbers(range: &clocks::Range) -> (i64, i64) {
    match (&range.first, &range.last) {
        (RowKey::Rowid(first), RowKey::Rowid(last)) => (*first, *last),
        _ => unreachable!("a table whose key is the rowid has numbers as keys"),
    }
}

fn length(clock: &Clock) -> CausalLength {
    CausalLength::new(clock.causal_length)
        .expect("the causal length was checked when it was stored")
}
