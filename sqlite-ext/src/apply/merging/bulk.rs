//! Merges the rows of a group together: first all that is here of them is looked up, then every
//! cell is decided, then rows and clocks are written in the order in which they lie in the file.
//!
//! One row after the other would descend the trees at random for each of them, and write a clock
//! for each cell. The outcome is the same; what needs more care than this is left to the caller.

use std::collections::BTreeMap;

use rusqlite::{CachedStatement, Connection, Error, ErrorCode, params_from_iter};
use syncline_crdt::{CausalLength, GroupKind, Value};

use super::{Cells, Merging};
use crate::apply::ImportError;
use crate::births::{self, Births, life_lane};
use crate::clocks::{self, Clock, ROW, runs};
use crate::constraints::is_met;
use crate::rekeyed;
use crate::rows;
use crate::shadow::Sites;
use crate::table::{KeyKind, RowKey, list};
use crate::value::{Bound, quoted};

/// Fewer rows than this are merged one by one.
const ROWS_COUNT_MIN: usize = 4;
/// How many different `UPDATE` statements are kept at once, one for each set of columns.
const UPDATES_COUNT_MAX: usize = 32;

/// A row that is here.
struct Here<'g> {
    place: RowKey,
    values: &'g [Value],
}

/// What is known here of rows that are here, in their order.
struct Known {
    whole: Vec<Option<Clock>>,
    /// For each column of the table whose lane is used, its own clocks.
    own: Vec<Option<Vec<Option<Clock>>>>,
}

impl Known {
    fn own(&self, column: usize, row: usize) -> Option<Clock> {
        self.own[column].as_ref()?[row]
    }
}

/// Where clocks change, in order of place.
#[derive(Default)]
struct Changed {
    /// Rows for which the group's clock holds as a whole.
    whole: Vec<RowKey>,
    /// For each column, rows for which it holds there alone.
    set: BTreeMap<usize, Vec<RowKey>>,
    /// For each column, rows whose own clock gives way to the row's.
    cleared: BTreeMap<usize, Vec<RowKey>>,
}

/// A row's cells that the group wins, as indices into [`Cells::columns`].
enum Decision {
    Wins(Vec<usize>),
    /// Two writes at one time: their values decide.
    Tie,
}

impl<'a> Merging<'a> {
    /// Merges what rows of a group it can and returns the others.
    pub(super) fn in_bulk<'g>(
        &mut self,
        cells: &Cells<'g>,
        sites: &Sites,
    ) -> Result<Vec<&'g [Value]>, ImportError> {
        let key_count = self.table.key_columns.len();
        let width = key_count + cells.group.columns.len();
        let mut rows: Vec<&[Value]> = cells.group.values.chunks(width).collect();
        if rows.len() < ROWS_COUNT_MIN || !self.is_plain(cells) {
            return Ok(rows);
        }
        sort_by_key(&mut rows, key_count);
        let same = |rows: &[&[Value]]| rows[0][..key_count] == rows[1][..key_count];
        if rows.windows(2).any(same) {
            return Ok(rows);
        }
        let mut rest = Vec::new();
        let rows = self.known_by_number(rows, cells.born, &mut rest)?;
        let (new, here) = self.look_up(rows, cells.born, &mut rest)?;
        if !self.past.has(cells.group.stamp) {
            self.insert_all(&new, cells, &mut rest)?;
        }
        self.update_all(here, cells, sites, &mut rest)?;
        Ok(rest)
    }

    /// Whether a group is of rows in their first life whose cells replace each other.
    fn is_plain(&self, cells: &Cells<'_>) -> bool {
        let group = cells.group;
        group.kind == GroupKind::Cells
            && group.causal_length == CausalLength::FIRST
            && self.past.rejoin.is_none()
            && self.table.options.columns.is_empty()
            && self.referring.is_plain(group, &cells.columns)
    }

    /// Tells the rows that are new from those that are here, in order of place; `rest` takes those
    /// that are parked or had another life.
    fn look_up<'g>(
        &self,
        rows: Vec<&'g [Value]>,
        born: i64,
        rest: &mut Vec<&'g [Value]>,
    ) -> rusqlite::Result<(Vec<&'g [Value]>, Vec<Here<'g>>)> {
        let key_count = self.table.key_columns.len();
        let (mut new, mut here) = (Vec::new(), Vec::new());
        let mut lookup = rows::Lookup::new(self.conn, self.table)?;
        let mut run = None;
        for values in rows {
            let key = &values[..key_count];
            if self.lives {
                let life_key = self.table.life_key(key);
                if clocks::at(self.conn, life_lane(self.table, born), &life_key)?.is_some() {
                    rest.push(values);
                    continue;
                }
            }
            match lookup.place(key)? {
                Some(place) if self.is_of(&mut run, &place, born)? => {
                    here.push(Here { place, values });
                }
                Some(_) => rest.push(values),
                None if self.guard.place(key)?.is_some() => rest.push(values),
                None => new.push(values),
            }
        }
        if !here.is_sorted_by(|a, b| a.place <= b.place) {
            here.sort_unstable_by(|a, b| a.place.cmp(&b.place));
        }
        Ok((new, here))
    }

    /// Leaves out, where ids are counted, the rows that may be shown under another id than their
    /// number.
    fn known_by_number<'g>(
        &self,
        rows: Vec<&'g [Value]>,
        born: i64,
        rest: &mut Vec<&'g [Value]>,
    ) -> rusqlite::Result<Vec<&'g [Value]>> {
        if !self.has_rekeyed {
            return Ok(rows);
        }
        let apart = rekeyed::numbers_of(self.conn, self.table.id, born)?;
        let (known, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| {
            // A negative number may be the id of another row.
            matches!(&row[0], Value::Integer(number) if *number >= 0 && !apart.contains(number))
        });
        rest.extend(others);
        Ok(known)
    }

    /// Whether the row that is shown at a place is the one that a site created, where ids are
    /// counted. `run` holds the rows that were found last.
    fn is_of(&self, run: &mut Option<Births>, place: &RowKey, born: i64) -> rusqlite::Result<bool> {
        let (true, RowKey::Rowid(id)) = (self.table.is_counted(), place) else {
            return Ok(true);
        };
        let covers = |run: &Births| (run.first..=run.last).contains(id);
        if !run.as_ref().is_some_and(covers) {
            *run = births::run_at(self.conn, self.table.id, *id)?;
        }
        Ok(run.is_some_and(|run| run.site == born))
    }

    fn insert_all<'g>(
        &mut self,
        new: &[&'g [Value]],
        cells: &Cells<'g>,
        rest: &mut Vec<&'g [Value]>,
    ) -> Result<(), ImportError> {
        let key_count = self.table.key_columns.len();
        let known: Vec<usize> = cells.columns.iter().map(|(_, column)| *column).collect();
        let columns = &self.table.columns;
        let named: Vec<_> = known.iter().map(|column| &columns[*column]).collect();
        let insert = rows::insertion(self.table, &named);
        let mut statement = self.conn.prepare_cached(&insert)?;
        let mut places = Vec::with_capacity(new.len());
        for values in new {
            let key = &values[..key_count];
            let given = cells.columns.iter().map(|(at, _)| &values[*at]);
            let fields = key.iter().chain(given).map(Bound);
            match statement.execute(params_from_iter(fields)) {
                Err(error) if is_refused(self.conn, &error) => rest.push(values),
                done => {
                    done?;
                    self.guard.touch_key(key);
                    places.push(match self.table.kind {
                        KeyKind::Rowid => RowKey::Rowid(self.conn.last_insert_rowid()),
                        KeyKind::Integer | KeyKind::Packed => self.table.life_key(key),
                    });
                }
            }
        }
        drop(statement);
        places.sort_unstable();
        self.changed_count += places.len();
        let is_whole = known.len() == self.table.columns.len();
        for (first, last) in runs(&places) {
            if is_whole {
                self.set_whole((first, last), cells.clock, cells.born)?;
                continue;
            }
            if cells.are_none() {
                self.set_whole((first, last), cells.clock, cells.born)?;
                self.leave_unwritten((first, last))?;
                continue;
            }
            self.set_whole((first, last), Clock::UNWRITTEN, cells.born)?;
            for column in &known {
                clocks::set(
                    self.conn,
                    self.column_lane(*column),
                    first,
                    last,
                    cells.clock,
                )?;
            }
        }
        if !is_whole && !places.is_empty() {
            known.iter().for_each(|column| self.used[*column] = true);
        }
        Ok(())
    }

    fn update_all<'g>(
        &mut self,
        here: Vec<Here<'g>>,
        cells: &Cells<'g>,
        sites: &Sites,
        rest: &mut Vec<&'g [Value]>,
    ) -> Result<(), ImportError> {
        if here.is_empty() {
            return Ok(());
        }
        let key_count = self.table.key_columns.len();
        let places: Vec<RowKey> = here.iter().map(|row| row.place.clone()).collect();
        let known = self.known(&places)?;
        let mut updates = Updates::default();
        let mut changed = Changed::default();
        for (at, Here { place, values }) in here.into_iter().enumerate() {
            let Decision::Wins(winners) = decide(&known, at, cells, sites) else {
                rest.push(values);
                continue;
            };
            let stands_alone = self.table.columns.is_empty();
            if winners.is_empty() && !stands_alone {
                continue;
            }
            if stands_alone {
                let whole = known.whole[at].unwrap_or(Clock::UNWRITTEN);
                if cells.group.stamp > sites.stamp(whole.site, whole.version) {
                    changed.whole.push(place);
                }
                continue;
            }
            let update = updates.of(self, cells, &winners)?;
            let rowid;
            let named = match &place {
                RowKey::Packed(_) => &values[..key_count],
                RowKey::Rowid(number) => {
                    rowid = [Value::Integer(*number)];
                    &rowid
                }
            };
            let given = winners.iter().map(|at| &values[cells.columns[*at].0]);
            match update.execute(params_from_iter(given.chain(named).map(Bound))) {
                Err(error) if is_refused(self.conn, &error) => {
                    rest.push(values);
                    continue;
                }
                done => done?,
            };
            self.changed_count += 1;
            let columns: Vec<usize> = winners.iter().map(|at| cells.columns[*at].1).collect();
            self.guard
                .overwrite(&values[..key_count], columns.iter().copied())?;
            changed.note(&known, at, place, &columns);
        }
        drop(updates);
        self.store(&changed, cells)
    }

    /// Reads the clocks of rows, whose places are in order.
    fn known(&self, places: &[RowKey]) -> rusqlite::Result<Known> {
        let at = |lane| clocks::at_all(self.conn, lane, places);
        let own = |column: usize| {
            let is_used = self.used[column];
            is_used.then(|| at(self.column_lane(column))).transpose()
        };
        Ok(Known {
            whole: at(self.lane(ROW))?,
            own: (0..self.used.len()).map(own).collect::<Result<_, _>>()?,
        })
    }

    fn store(&mut self, changed: &Changed, cells: &Cells<'_>) -> Result<(), ImportError> {
        let clock = cells.clock;
        for (first, last) in runs(&changed.whole) {
            self.set_rows((first, last), clock, cells.born)?;
        }
        for (column, places) in &changed.cleared {
            for (first, last) in runs(places) {
                clocks::clear(self.conn, self.column_lane(*column), first, last)?;
            }
        }
        for (column, places) in &changed.set {
            clocks::set_all(self.conn, self.column_lane(*column), &runs(places), clock)?;
            self.used[*column] = true;
        }
        Ok(())
    }
}

impl Changed {
    /// Notes that a row's columns have the group's clock. Where every other column has a clock of
    /// its own, that is one entry, which neighbours share; else it is one for each column.
    fn note(&mut self, known: &Known, at: usize, place: RowKey, columns: &[usize]) {
        let holds = |column: usize| columns.contains(&column) || known.own(column, at).is_some();
        if (0..known.own.len()).all(holds) {
            for column in columns {
                if known.own(*column, at).is_some() {
                    self.cleared.entry(*column).or_default().push(place.clone());
                }
            }
            self.whole.push(place);
            return;
        }
        for column in columns {
            self.set.entry(*column).or_default().push(place.clone());
        }
    }
}

/// Decides each cell of a row that is here.
fn decide(known: &Known, row: usize, cells: &Cells<'_>, sites: &Sites) -> Decision {
    let stamp = |clock: Clock| sites.stamp(clock.site, clock.version);
    let whole = stamp(known.whole[row].unwrap_or(Clock::UNWRITTEN));
    let incoming = cells.group.stamp;
    let mut winners = Vec::with_capacity(cells.columns.len());
    for (at, (_, column)) in cells.columns.iter().enumerate() {
        let local = known.own(*column, row).map_or(whole, stamp);
        if local.version == incoming.version && local.site != incoming.site {
            return Decision::Tie;
        }
        if incoming.version > local.version {
            winners.push(at);
        }
    }
    Decision::Wins(winners)
}

/// The statements that write some columns of one row.
#[derive(Default)]
struct Updates<'a> {
    statements: BTreeMap<Vec<usize>, CachedStatement<'a>>,
}

impl<'a> Updates<'a> {
    /// Returns the statement for these columns, with the row's place or key as last parameters.
    fn of(
        &mut self,
        merging: &Merging<'a>,
        cells: &Cells<'_>,
        winners: &[usize],
    ) -> rusqlite::Result<&mut CachedStatement<'a>> {
        if !self.statements.contains_key(winners) {
            if self.statements.len() >= UPDATES_COUNT_MAX {
                self.statements.clear();
            }
            let table = merging.table;
            let name = |at: usize| quoted(&table.columns[cells.columns[at].1].name);
            let set = winners.iter().enumerate();
            let set = list(
                set.map(|(n, at)| format!("{} = ?{}", name(*at), n + 1)),
                ", ",
            );
            let condition = match table.kind {
                KeyKind::Packed => table.key_condition(winners.len() + 1),
                KeyKind::Integer | KeyKind::Rowid => {
                    format!("{} = ?{}", table.rowid, winners.len() + 1)
                }
            };
            let table = table.quoted();
            let update = format!("UPDATE OR ABORT main.{table} SET {set} WHERE {condition}");
            let statement = merging.conn.prepare_cached(&update)?;
            self.statements.insert(winners.to_vec(), statement);
        }
        let found = self.statements.get_mut(winners);
        Ok(found.expect("it was put there above"))
    }
}

/// Whether a table does not admit a row; the statement changed nothing then.
fn is_refused(conn: &Connection, error: &Error) -> bool {
    is_met(conn, error) || error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

/// Sorts rows as SQLite's tree of keys has them, or nearly so: it is for speed alone.
fn sort_by_key(rows: &mut [&[Value]], key_count: usize) {
    if rows.is_sorted_by(|a, b| a[..key_count] <= b[..key_count]) {
        return;
    }
    let keyed = rows.iter().map(|row| (prefix(&row[0]), *row));
    let mut keyed: Vec<(u64, &[Value])> = keyed.collect();
    keyed.sort_unstable_by(|(a, row), (b, other)| {
        a.cmp(b)
            .then_with(|| row[..key_count].cmp(&other[..key_count]))
    });
    for (row, (_, sorted)) in rows.iter_mut().zip(keyed) {
        *row = sorted;
    }
}

/// Returns a number that orders most values of one type as they are ordered themselves.
fn prefix(value: &Value) -> u64 {
    match value {
        Value::Integer(number) => number.cast_unsigned() ^ (1 << 63),
        Value::Text(bytes) | Value::Blob(bytes) => {
            let mut first = [0; 8];
            let count = bytes.len().min(first.len());
            first[..count].copy_from_slice(&bytes[..count]);
            u64::from_be_bytes(first)
        }
        Value::Real(_) | Value::Null => 0,
    }
}
