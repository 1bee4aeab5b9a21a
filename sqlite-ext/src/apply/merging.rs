//! The merge of one table's changes: fetch what is here, let `crdt` decide, write.

mod bulk;
mod counted;
mod fresh;
mod joining;
mod referring;
mod rejoin;

pub(super) use rejoin::sweep;

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension, ToSql, params_from_iter};
use syncline_crdt::{
    CausalLength, CellOutcome, Group, GroupKind, LifeOutcome, TableChanges, Value, merge_cell,
    merge_life,
};

use super::{ImportError, written};
use crate::births::{self, life_lane};
use crate::clocks::{self, Clock, Lane, ROW};
use crate::collect::Past;
use crate::constraints::Guard;
use crate::rekeyed;
use crate::renames::Renames;
use crate::rows;
use crate::shadow::Sites;
use crate::table::{KeyKind, RowKey, Table, list};
use crate::value::{Bound, from_sqlite, quoted};
use fresh::Fresh;
use referring::Referring;

/// One table's merge.
pub(super) struct Merging<'a> {
    conn: &'a Connection,
    table: &'a Table,
    /// For each column of the changes, which column of the table it is.
    columns: Vec<Option<usize>>,
    /// The names of the columns of the changes.
    names: Vec<String>,
    /// Whether a column lane has entries, so that most lookups can be left out.
    used: Vec<bool>,
    lives: bool,
    /// What is known of rows that are not here.
    past: &'a mut Past,
    /// Whether a row is shown under another id than its number.
    has_rekeyed: bool,
    /// Whether the lane [`births::BORN`] has entries.
    has_born: bool,
    /// Rows that were made and share a clock that is not stored yet.
    fresh: Option<Fresh>,
    /// What becomes of rows that a constraint does not admit.
    pub(super) guard: Guard<'a>,
    /// Rows that look different.
    pub(super) changed_count: usize,
    /// Changes that name a column which is not here.
    pub(super) lacking: Vec<Group>,
    /// What the table's columns refer to.
    referring: Referring<'a>,
}

/// A group's columns that exist here.
struct Cells<'g> {
    /// Pairs of a place in a row of the group's values and a column of the table.
    columns: Vec<(usize, usize)>,
    group: &'g Group,
    clock: Clock,
    /// The site that created the rows, where ids are counted.
    born: i64,
}

/// One row of a group, and the same row here.
struct Met<'v> {
    /// The key under which it is shown here.
    key: Cow<'v, [Value]>,
    values: &'v [Value],
    life_key: RowKey,
    place: Option<RowKey>,
    /// Whether the place is among the parked rows.
    is_parked: bool,
    life: Option<Clock>,
}

/// The key under which a row is shown here, and where it is shown or parked.
type Placed<'v> = (Cow<'v, [Value]>, Option<RowKey>, Option<RowKey>);

impl Cells<'_> {
    /// Whether the rows come from a table that has nothing but its key.
    fn are_none(&self) -> bool {
        self.group.columns.is_empty() && self.group.kind == GroupKind::Cells
    }
}

impl<'a> Merging<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        table: &'a Table,
        changes: &TableChanges,
        past: &'a mut Past,
        renames: &'a mut Renames,
    ) -> Result<Self, ImportError> {
        let same = |a: &String, b: &String| a.eq_ignore_ascii_case(b);
        let find = |name: &String| {
            table
                .columns
                .iter()
                .position(|column| same(&column.name, name))
        };
        let lane = |lane| Lane {
            table_id: table.id,
            lane,
        };
        let used = |column: &crate::table::Column| clocks::is_used(conn, lane(column.lane));
        Ok(Merging {
            conn,
            table,
            columns: changes.columns.iter().map(find).collect(),
            names: changes.columns.clone(),
            used: table.columns.iter().map(used).collect::<Result<_, _>>()?,
            lives: births::has_lives(conn, table)?,
            past,
            has_rekeyed: table.is_counted() && rekeyed::any(conn, table.id)?,
            has_born: clocks::is_used(conn, lane(births::BORN))?,
            fresh: None,
            guard: Guard::new(conn, table)?,
            changed_count: 0,
            lacking: Vec::new(),
            referring: Referring::new(conn, table, renames)?,
        })
    }

    fn lane(&self, lane: i64) -> Lane {
        Lane {
            table_id: self.table.id,
            lane,
        }
    }

    fn column_lane(&self, column: usize) -> Lane {
        self.lane(self.table.columns[column].lane)
    }

    /// Merges the rows of a group that the site with ordinal `site` wrote; `told` is the group with the
    /// keys that others know it by.
    pub(super) fn group(
        &mut self,
        (group, told): (&Group, &Group),
        site: i64,
        sites: &mut Sites,
    ) -> Result<(), ImportError> {
        let key_count = self.table.key_columns.len();
        if let (GroupKind::Deltas, [column]) = (group.kind, &group.columns[..]) {
            let name = self.names[*column].clone();
            return self.deltas((group, told), (&name, site), sites);
        }
        let known = |(at, column): (usize, &usize)| Some((key_count + at, self.columns[*column]?));
        let columns: Vec<_> = group.columns.iter().enumerate().filter_map(known).collect();
        if columns.len() < group.columns.len() {
            self.lacking.push(told.clone());
        }
        let bound = self.referring.bind(self.conn, group, &columns, sites)?;
        let group = &*bound;
        let cells = Cells {
            columns,
            group,
            clock: written(site, group.stamp.version),
            born: match self.table.is_counted() {
                true => sites.ordinal(self.conn, group.born)?,
                false => site,
            },
        };
        for values in self.in_bulk(&cells, sites)? {
            self.referring
                .look(&cells.group.parents, (values, &cells.columns));
            let mut met = self.meet(&values[..key_count], values, cells.born)?;
            if self.past.rejoin.is_some() {
                self.rejoin(&mut met, (group, cells.born), sites)?;
            }
            let Some(outcome) = self.outcome(&met, group) else {
                continue;
            };
            match outcome {
                LifeOutcome::Past => {}
                LifeOutcome::Ends => self.end(&met, &cells)?,
                LifeOutcome::Begins => self.begin(&mut met, &cells)?,
                LifeOutcome::Same if group.kind == GroupKind::Life => {
                    self.meet_life(&met, &cells, sites)?
                }
                LifeOutcome::Same => self.merge_cells(&met, &cells, sites)?,
            }
        }
        self.store_fresh()?;
        Ok(())
    }

    /// Returns what a group's causal length means for a row; `None` if the row is forgotten.
    fn outcome(&self, met: &Met<'_>, group: &Group) -> Option<LifeOutcome> {
        let local = match (&met.life, &met.place) {
            (Some(life), _) => length(life),
            (None, Some(_)) => CausalLength::FIRST,
            (None, None) => CausalLength::UNKNOWN,
        };
        if self.past.is_over(group, local) {
            return None;
        }
        Some(merge_life(local, group.causal_length))
    }

    fn meet<'v>(
        &mut self,
        key: &'v [Value],
        values: &'v [Value],
        born: i64,
    ) -> Result<Met<'v>, ImportError> {
        let life_key = self.table.life_key(key);
        let (key, shown, parked) = match (self.table.is_counted(), &life_key) {
            (true, RowKey::Rowid(number)) => self.find(*number, key, born)?,
            _ => self.place(key)?,
        };
        let life = if self.lives {
            clocks::at(self.conn, life_lane(self.table, born), &life_key)?
        } else {
            None
        };
        Ok(Met {
            key,
            values,
            life_key,
            is_parked: parked.is_some(),
            place: shown.or(parked),
            life,
        })
    }

    /// Returns where a key is shown or parked.
    fn place<'v>(&self, key: &'v [Value]) -> rusqlite::Result<Placed<'v>> {
        let shown = rows::place(self.conn, self.table, key)?;
        let parked = match shown {
            Some(_) => None,
            None => self.guard.place(key)?,
        };
        Ok((Cow::from(key), shown, parked))
    }

    /// Deletes a row.
    fn end(&mut self, met: &Met<'_>, cells: &Cells<'_>) -> Result<(), ImportError> {
        self.note_gone(met, cells.born);
        self.guard.touch(&self.table.life_key(&met.key));
        self.remove(met)?;
        self.set_life(met, cells.group.causal_length, (cells.clock, cells.born))?;
        self.vacate(met)
    }

    /// Makes a row, or makes it anew: nothing of a former life stays.
    fn begin(&mut self, met: &mut Met<'_>, cells: &Cells<'_>) -> Result<(), ImportError> {
        self.remove(met)?;
        if self.table.is_counted() && met.place.is_none() {
            self.claim(met, cells.born)?;
        }
        self.guard.touch(&self.table.life_key(&met.key));
        let place = self.insert(met, cells)?;
        let is_whole =
            cells.columns.len() == self.table.columns.len() && cells.group.kind == GroupKind::Cells;
        self.make_fresh(
            place.clone(),
            if is_whole || cells.are_none() {
                cells.clock
            } else {
                Clock::UNWRITTEN
            },
            cells.born,
        )?;
        if !is_whole && cells.are_none() {
            self.store_fresh()?;
            self.leave_unwritten((&place, &place))?;
        }
        self.referring.mark(self.conn, &place, |_| true)?;
        if !is_whole && !cells.columns.is_empty() {
            self.store_fresh()?;
            for (_, column) in &cells.columns {
                clocks::set(
                    self.conn,
                    self.column_lane(*column),
                    &place,
                    &place,
                    cells.clock,
                )?;
                self.used[*column] = true;
            }
        }
        let length = cells.group.causal_length;
        if length > CausalLength::FIRST {
            // A cell's stamp is not the life's: that one arrives by itself.
            let clock = if cells.group.kind == GroupKind::Life {
                cells.clock
            } else {
                Clock::UNWRITTEN
            };
            self.set_life(met, length, (clock, cells.born))?;
        }
        self.changed_count += 1;
        Ok(())
    }

    fn set_life(
        &mut self,
        met: &Met<'_>,
        length: CausalLength,
        (clock, born): (Clock, i64),
    ) -> Result<(), ImportError> {
        let clock = Clock {
            causal_length: length.get(),
            ..clock
        };
        self.lives = true;
        let lane = life_lane(self.table, born);
        clocks::set(self.conn, lane, &met.life_key, &met.life_key, clock)?;
        Ok(())
    }

    /// Both mean the same life or death: keeps the greater stamp, so that it is passed on alike.
    fn meet_life(
        &mut self,
        met: &Met<'_>,
        cells: &Cells<'_>,
        sites: &Sites,
    ) -> Result<(), ImportError> {
        let Some(life) = &met.life else { return Ok(()) };
        if cells.group.stamp > sites.stamp(life.site, life.version)
            || life.version == Clock::UNWRITTEN.version
        {
            self.set_life(met, cells.group.causal_length, (cells.clock, cells.born))?;
        }
        Ok(())
    }

    /// Merges cell by cell.
    fn merge_cells(
        &mut self,
        met: &Met<'_>,
        cells: &Cells<'_>,
        sites: &Sites,
    ) -> Result<(), ImportError> {
        // The same life, so it lives here too.
        let Some(place) = &met.place else {
            return Ok(());
        };
        self.store_fresh()?;
        let whole = clocks::at(self.conn, self.lane(ROW), place)?.unwrap_or(Clock::UNWRITTEN);
        let incoming = cells.group.stamp;
        if self.table.columns.is_empty() {
            if incoming > sites.stamp(whole.site, whole.version) {
                self.set_whole((place, place), cells.clock, cells.born)?;
            }
            return Ok(());
        }
        let mut winners = Vec::new();
        for (at, column) in &cells.columns {
            let own = if self.used[*column] {
                clocks::at(self.conn, self.column_lane(*column), place)?
            } else {
                None
            };
            let local = own.unwrap_or(whole);
            let local = sites.stamp(local.site, local.version);
            // In a tie the greater value wins, but the ids that cells refer by are each replica's own:
            // between them the site decides.
            let outcome = if self.referring.has(*column) {
                let none = || Ok::<_, rusqlite::Error>(Value::Null);
                merge_cell(local, incoming, &Value::Null, none)?
            } else {
                let value = &met.values[*at];
                merge_cell(local, incoming, value, || self.value(met, *column))?
            };
            if outcome == CellOutcome::Incoming {
                winners.push((*at, *column));
            }
        }
        if winners.is_empty() {
            return Ok(());
        }
        self.guard.rewrite_key(&met.key);
        let place = &self.update(met, place, &winners)?;
        let is_written = |column| winners.iter().any(|(_, winner)| *winner == column);
        self.referring.mark(self.conn, place, is_written)?;
        self.changed_count += 1;
        if winners.len() == self.table.columns.len() {
            return Ok(self.set_whole((place, place), cells.clock, cells.born)?);
        }
        for (_, column) in winners {
            clocks::set(
                self.conn,
                self.column_lane(column),
                place,
                place,
                cells.clock,
            )?;
            self.used[column] = true;
        }
        Ok(())
    }

    /// Notes that nobody wrote the cells of some rows, which are known by their keys alone: the
    /// clock of a row as a whole, by which it is passed on, is not theirs.
    fn leave_unwritten(&mut self, (first, last): (&RowKey, &RowKey)) -> rusqlite::Result<()> {
        for column in 0..self.table.columns.len() {
            let lane = self.column_lane(column);
            clocks::set(self.conn, lane, first, last, Clock::UNWRITTEN)?;
            self.used[column] = true;
        }
        Ok(())
    }

    /// Returns what a cell holds here.
    fn value(&self, met: &Met<'_>, column: usize) -> rusqlite::Result<Value> {
        if let (true, Some(place)) = (met.is_parked, &met.place) {
            return self.guard.value(place, &self.table.columns[column]);
        }
        if let Some(kept) = self.guard.kept(&met.key, &self.table.columns[column])? {
            return Ok(kept);
        }
        let name = quoted(&self.table.columns[column].name);
        let (table, condition) = (self.table.quoted(), self.table.key_condition(1));
        let select = format!("SELECT {name} FROM main.{table} WHERE {condition}");
        let mut statement = self.conn.prepare_cached(&select)?;
        let key = params_from_iter(met.key.iter().map(Bound));
        let value = statement
            .query_one(key, |row| row.get_ref(0).map(from_sqlite))
            .optional()?;
        Ok(value.unwrap_or(Value::Null))
    }

    /// Writes cells and returns the row's place: it is parked if a unique index stands against it.
    fn update(
        &mut self,
        met: &Met<'_>,
        place: &RowKey,
        winners: &[(usize, usize)],
    ) -> rusqlite::Result<RowKey> {
        let cells = winners
            .iter()
            .map(|(at, column)| (&self.table.columns[*column], &met.values[*at]));
        if met.is_parked {
            self.guard.update(place, cells)?;
            return Ok(place.clone());
        }
        match self.update_shown(met, winners) {
            Ok(()) => {
                let columns = winners.iter().map(|(_, column)| *column);
                self.guard.overwrite(&met.key, columns)?;
                Ok(place.clone())
            }
            Err(error) if self.guard.is_met(&error) => {
                let place = self.guard.hide(&met.key)?.ok_or(error)?;
                self.guard.update(&place, cells)?;
                Ok(place)
            }
            Err(error) => Err(error),
        }
    }

    fn update_shown(&self, met: &Met<'_>, winners: &[(usize, usize)]) -> rusqlite::Result<()> {
        let set = |(at, (_, column)): (usize, &(usize, usize))| {
            format!(
                "{} = ?{}",
                quoted(&self.table.columns[*column].name),
                at + 1
            )
        };
        let set = list(winners.iter().enumerate().map(set), ", ");
        let (table, condition) = (
            self.table.quoted(),
            self.table.key_condition(winners.len() + 1),
        );
        let update = format!("UPDATE OR ABORT main.{table} SET {set} WHERE {condition}");
        let values = winners.iter().map(|(at, _)| &met.values[*at]);
        let mut statement = self.conn.prepare_cached(&update)?;
        statement.execute(params_from_iter(values.chain(met.key.iter()).map(Bound)))?;
        Ok(())
    }

    /// Inserts a row and returns its place: it is parked if a unique index stands against it.
    fn insert(&mut self, met: &Met<'_>, cells: &Cells<'_>) -> rusqlite::Result<RowKey> {
        let columns = &self.table.columns;
        let known = cells.columns.iter().map(|(_, column)| &columns[*column]);
        let known: Vec<_> = known.collect();
        let insert = rows::insertion(self.table, &known);
        let given = cells.columns.iter().map(|(at, _)| &met.values[*at]);
        let mut statement = self.conn.prepare_cached(&insert)?;
        match statement.execute(params_from_iter(met.key.iter().chain(given).map(Bound))) {
            Err(error) if self.guard.is_met(&error) => {
                let cells = cells.columns.iter();
                let cells = cells.map(|(at, column)| (*column, &met.values[*at]));
                return self.guard.insert(&met.key, cells);
            }
            done => done?,
        };
        Ok(match self.table.kind {
            KeyKind::Rowid => RowKey::Rowid(self.conn.last_insert_rowid()),
            KeyKind::Integer | KeyKind::Packed => self.table.life_key(&met.key),
        })
    }

    fn remove(&mut self, met: &Met<'_>) -> rusqlite::Result<()> {
        let Some(place) = &met.place else {
            return Ok(());
        };
        self.store_fresh()?;
        self.forget_joined(met)?;
        if met.is_parked {
            self.guard.remove(place)?;
        } else {
            self.guard.take_out(&met.key)?;
            let (name, condition) = (self.table.quoted(), self.table.key_condition(1));
            let delete = format!("DELETE FROM main.{name} WHERE {condition}");
            let key: Vec<_> = met.key.iter().map(Bound).collect();
            let key = key.iter().map(|value| value as &dyn ToSql);
            self.conn
                .prepare_cached(&delete)?
                .execute(params_from_iter(key))?;
        }
        clocks::clear(self.conn, self.lane(ROW), place, place)?;
        if self.has_born {
            clocks::clear(self.conn, self.lane(births::BORN), place, place)?;
        }
        for column in 0..self.table.columns.len() {
            if self.used[column] {
                clocks::clear(self.conn, self.column_lane(column), place, place)?;
            }
        }
        self.referring.clear(self.conn, place)?;
        self.changed_count += 1;
        Ok(())
    }
}

fn length(clock: &Clock) -> CausalLength {
    CausalLength::new(clock.causal_length)
        .expect("the causal length was checked when it was stored")
}
