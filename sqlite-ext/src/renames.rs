//! Rows that get other ids while a fold or a merge runs, and the cells that refer to them.
//!
//! Cells are not touched while rows move: each holds what it held before the first move, in *old
//! ids*, and all are renamed once, at the end. A cell that is written meanwhile holds the old id of
//! the row that it means, or a *token* where that row had none: because it was made meanwhile, is
//! gone, or has not arrived.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params_from_iter};
use syncline_crdt::{Hlc, Value};

use crate::births::{self, Births};
use crate::clocks::{self, Clock, Lane, ROW};
use crate::constraints::{self, Touched, masks, store};
use crate::moved_keys::{self, Followed, Noted};
use crate::placing::{Identity, Placing};
use crate::quiet::Quiet;
use crate::references::{children, literals};
use crate::rows::{self, key_from};
use crate::shadow::OWN;
use crate::table::{KeyKind, RowKey, Table, TableError};
use crate::value::{Bound, quoted};

/// The first token: far below every id that rows are given apart.
const TOKENS: i64 = i64::MIN / 2;

/// The moves of one fold or merge, by table.
#[derive(Debug, Default)]
pub(crate) struct Renames {
    tables: BTreeMap<i64, Moves>,
    /// Whether the keys that refer to rows follow all of this already.
    keys_followed: bool,
}

/// The moves of one table's rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moves {
    /// Old ids and tokens, and what they mean.
    forward: BTreeMap<i64, Goal>,
    /// The old ids of rows that moved, by the ids they have.
    backward: BTreeMap<i64, i64>,
    tokens: BTreeMap<Identity, i64>,
    /// Rows that are gone, under their numbers.
    gone: Runs,
    /// Ids that were given to new rows while another row had them, or one that was just deleted.
    reused: BTreeMap<i64, Reuse>,
    /// Rows that were deleted and whose ids were given to new rows, under their numbers.
    former: Runs,
    /// Rows of ours that were deleted and made again.
    reborn: Runs,
    /// How often anything was noted.
    generation: u64,
}

/// Rows of one table by runs of numbers, which never overlap.
#[derive(Clone, Debug, Default)]
struct Runs(BTreeMap<i64, Births>);

impl Runs {
    fn add(&mut self, run: Births) {
        debug_assert!(
            self.at(run.first).is_none() && self.at(run.last).is_none(),
            "{run:?} is among {self:?}"
        );
        self.0.insert(run.first, run);
    }

    fn at(&self, number: i64) -> Option<&Births> {
        let (_, run) = self.0.range(..=number).next_back()?;
        (number <= run.last).then_some(run)
    }
}

/// What an id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Goal {
    /// The row that is shown under this id.
    Id(i64),
    /// This row, which may not be shown.
    Row(Identity),
}

/// An id that means a new row in cells of one version, and in others that row or a parked one.
#[derive(Clone, Copy, Debug)]
struct Reuse {
    version: Hlc,
    /// The number of the new row, which is ours.
    number: i64,
    /// Whether cells of other versions mean the new row as well, as written then.
    takes_all: bool,
}

impl Moves {
    /// Notes that a row moved.
    pub(crate) fn note(&mut self, from: i64, to: i64) {
        self.generation += 1;
        let old = self.backward.remove(&from);
        // Where another row had the id before, cells name the one that moves by a token.
        if let Some(old) = old.or_else(|| (!self.means_another(from)).then_some(from)) {
            self.forward.insert(old, Goal::Id(to));
            self.backward.insert(to, old);
        }
    }

    pub(crate) fn note_all(&mut self, moved: &[(i64, i64)]) {
        moved.iter().for_each(|(from, to)| self.note(*from, *to));
    }

    /// Notes that the row which is shown under an id is gone.
    pub(crate) fn note_gone(&mut self, id: i64, identity: Identity) {
        self.generation += 1;
        let old = self.backward.remove(&id);
        if let Some(old) = old.or_else(|| (!self.means_another(id)).then_some(id)) {
            self.forward.insert(old, Goal::Row(identity));
        }
    }

    /// Notes that rows which are shown under their numbers are gone, before any row moves.
    pub(crate) fn note_run_gone(&mut self, run: Births) {
        self.generation += 1;
        self.gone.add(run);
    }

    /// Notes that cells of this version mean a new row of ours by an id, and what its number is.
    pub(crate) fn note_reused(&mut self, id: i64, version: Hlc, number: i64) {
        self.generation += 1;
        let reuse = self.reused.entry(id).or_insert(Reuse {
            version,
            number,
            takes_all: false,
        });
        reuse.number = number;
    }

    /// Notes that all cells mean new rows of ours by these ids: the rows that had them are deleted.
    pub(crate) fn note_inherited(&mut self, run: Births, version: Hlc) {
        self.generation += 1;
        for id in run.first..=run.last {
            let reuse = Reuse {
                version,
                number: id,
                takes_all: true,
            };
            self.reused.insert(id, reuse);
        }
        self.former.add(run);
    }

    /// Notes rows of ours that begin another life under the ids they had.
    pub(crate) fn note_reborn(&mut self, run: Births) {
        self.reborn.add(run);
    }

    /// Whether the row with an id began another life.
    pub(crate) fn is_reborn(&self, id: i64) -> bool {
        self.reborn.at(id).is_some()
    }

    /// Whether cells that hold an id mean another row than the one that has it.
    fn means_another(&self, id: i64) -> bool {
        self.forward.contains_key(&id) || self.goal_of_gone(id).is_some()
    }

    fn goal_of_gone(&self, id: i64) -> Option<Goal> {
        Some(Goal::Row((id, self.gone.at(id)?.site)))
    }

    /// Returns what an old id stands for, unless that is the row which has it.
    pub(crate) fn goal(&self, old: i64) -> Option<Goal> {
        let goal = self.forward.get(&old).copied();
        goal.or_else(|| self.goal_of_gone(old))
    }

    /// Returns what an old id stood for before it was given to a new row, or else what it stands for.
    pub(crate) fn goal_of_former(&self, id: i64) -> Option<Goal> {
        let former = self.former.at(id);
        let former = former.map(|run| Goal::Row((id, run.site)));
        former.or_else(|| self.goal(id))
    }

    /// Returns what stands for a new row, where an id was given to one: all that holds the id means
    /// it, or only what `is_new`.
    pub(crate) fn goal_of_new(&self, id: i64, is_new: bool) -> Option<Goal> {
        let reuse = self.reused.get(&id)?;
        (reuse.takes_all || is_new).then_some(Goal::Row((reuse.number, OWN)))
    }

    /// Returns what a cell holds that refers to a row which is shown under an id, if it is.
    fn code(&mut self, id: Option<i64>, identity: Identity) -> i64 {
        if let Some(id) = id {
            if let Some(old) = self.backward.get(&id) {
                return *old;
            }
            if !self.means_another(id) {
                return id;
            }
        }
        let next = TOKENS + self.tokens.len() as i64;
        let token = *self.tokens.entry(identity).or_insert(next);
        self.forward.insert(token, Goal::Row(identity));
        token
    }

    /// Returns all that cells may hold and has to be renamed, as a JSON array.
    pub(crate) fn olds(&self) -> String {
        let gone = self.gone.0.values().flat_map(|run| run.first..=run.last);
        let olds = self.forward.keys().chain(self.reused.keys());
        let olds = olds.copied().chain(gone);
        let olds: Vec<String> = olds.map(|old| old.to_string()).collect();
        format!("[{}]", olds.join(","))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.forward.is_empty() && self.gone.0.is_empty() && self.reused.is_empty()
    }
}

/// A table that cells of another refer to, while these are merged.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) table: Table,
    /// The rows that were found last.
    run: Option<Births>,
    generation: u64,
}

impl Parent {
    pub(crate) fn new(table: Table) -> Self {
        Parent {
            table,
            run: None,
            generation: 0,
        }
    }

    /// Returns what a cell holds that refers to a row.
    pub(crate) fn code(
        &mut self,
        conn: &Connection,
        identity: Identity,
        renames: &mut Renames,
    ) -> rusqlite::Result<i64> {
        let moves = renames.of(self.table.id);
        if self.generation != moves.generation {
            (self.run, self.generation) = (None, moves.generation);
        }
        let (number, site) = identity;
        let covers = |run: &Births| run.site == site && run.first <= number && number <= run.last;
        // A negative number may be the id of another row.
        if number >= 0 && self.run.as_ref().is_some_and(covers) {
            return Ok(moves.code(Some(number), identity));
        }
        let id = Placing::new(conn, &self.table).find(identity)?;
        if id == Some(number) {
            self.run = births::run_at(conn, self.table.id, number)?;
        }
        Ok(moves.code(id, identity))
    }
}

/// A cell that has to be renamed.
struct Cell {
    /// Which of the tables, and which of its columns.
    at: (usize, usize),
    /// The key under which the row is parked or its life is kept.
    place: RowKey,
    key: Vec<Value>,
    old: i64,
    goal: Option<Goal>,
    /// When it counts as written, where it came to mean another row.
    version: Option<Hlc>,
}

impl Renames {
    /// Returns the moves of a table.
    pub(crate) fn of(&mut self, table_id: i64) -> &mut Moves {
        self.tables.entry(table_id).or_default()
    }

    /// Has the keys of these tables follow, which are all whose keys refer to rows, with what is noted
    /// of them. Returns what became of each table's keys.
    pub(crate) fn follow(
        &mut self,
        conn: &Connection,
        tables: &[(Table, Noted)],
        touched: &mut Touched,
    ) -> Result<Vec<Followed>, TableError> {
        self.keys_followed = true;
        let (followed, _) = moved_keys::follow(conn, tables, &mut self.tables, touched)?;
        Ok(followed)
    }

    /// Renames the cells and the keys, and returns the rows they are in.
    pub(crate) fn apply(self, conn: &Connection) -> Result<Touched, TableError> {
        let mut touched = Touched::default();
        let mut of_cells = self.tables;
        of_cells.retain(|_, moves| !moves.is_empty());
        let mut of_keys = match self.keys_followed {
            true => BTreeMap::new(),
            false => of_cells.clone(),
        };
        // Keeping an id for what one of them refers to can move a row that others refer to.
        while !of_cells.is_empty() || !of_keys.is_empty() {
            let mut moved = Vec::new();
            for (table_id, moves) in std::mem::take(&mut of_cells) {
                let ids = rename_cells(conn, table_id, moves, &mut touched)?;
                moved.extend(ids.into_iter().map(|ids| (table_id, ids)));
            }
            note(&mut of_keys, moved);
            let moved = moved_keys::follow_all(conn, std::mem::take(&mut of_keys), &mut touched)?;
            note(&mut of_cells, moved);
        }
        Ok(touched)
    }
}

/// Notes where rows moved, by table.
fn note(tables: &mut BTreeMap<i64, Moves>, moved: Vec<(i64, (i64, i64))>) {
    for (table_id, (from, to)) in moved {
        tables.entry(table_id).or_default().note(from, to);
    }
}

/// Renames the cells that refer to rows of one table. Returns which of these moved for it.
fn rename_cells(
    conn: &Connection,
    table_id: i64,
    moves: Moves,
    touched: &mut Touched,
) -> Result<Vec<(i64, i64)>, TableError> {
    let Some(parent) = Table::by_id(conn, table_id)? else {
        return Ok(Vec::new());
    };
    let children = children(conn, &parent)?;
    if children.is_empty() {
        return Ok(Vec::new());
    }
    let _quiet = Quiet::begin(conn)?;
    Ok(rename(conn, &parent, &children, moves, touched)?)
}

fn rename(
    conn: &Connection,
    parent: &Table,
    children: &[(Table, Vec<usize>)],
    mut moves: Moves,
    touched: &mut Touched,
) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut placing = Placing::new(conn, parent);
    let mut all_moved = Vec::new();
    loop {
        let cells = cells(conn, children, &moves)?;
        let mut ids: BTreeMap<Option<Goal>, i64> = BTreeMap::new();
        for goal in cells.iter().map(|cell| cell.goal).collect::<BTreeSet<_>>() {
            match goal {
                Some(Goal::Id(id)) => drop(ids.insert(goal, id)),
                Some(Goal::Row(identity)) => drop(ids.insert(goal, placing.keep(identity)?)),
                None => {}
            }
        }
        if placing.moved.is_empty() {
            for cell in &cells {
                if let Some(id) = ids.get(&cell.goal) {
                    let (table, _) = &children[cell.at.0];
                    // First, because a row that is parked takes its clocks along.
                    stamp(conn, table, cell)?;
                    set(conn, table, cell, *id)?;
                    touched.add_moved(table.id, BTreeSet::from([table.life_key(&cell.key)]));
                }
            }
            return Ok(all_moved);
        }
        // Keeping an id for a row that is gone can move others, whose cells are sought as well.
        let moved = std::mem::take(&mut placing.moved);
        moves.note_all(&moved);
        all_moved.extend(&moved);
        for (table, _) in children.iter().filter(|(table, _)| table.id == parent.id) {
            let ids = moved.iter().flat_map(|(from, to)| [*from, *to]);
            touched.add_moved(table.id, ids.map(RowKey::Rowid).collect());
        }
    }
}

/// Returns the cells that hold what has to be renamed.
fn cells(
    conn: &Connection,
    children: &[(Table, Vec<usize>)],
    moves: &Moves,
) -> rusqlite::Result<Vec<Cell>> {
    let olds = moves.olds();
    let mut found = Vec::new();
    for (child, (table, columns)) in children.iter().enumerate() {
        for column in columns {
            let begin = found.len();
            let mut take = |place, key, old| {
                found.push(Cell {
                    at: (child, *column),
                    place,
                    key,
                    old,
                    goal: moves.goal(old),
                    version: None,
                });
            };
            shown(conn, (table, *column), &olds, &mut take)?;
            let is_old = |old| moves.goal(old).is_some() || moves.reused.contains_key(&old);
            for place in store::places(conn, table.id)? {
                let Some(row) = store::at(conn, table.id, &place)? else {
                    continue;
                };
                if let Value::Integer(old) = row.cell(&table.columns[*column])
                    && is_old(old)
                {
                    take(place, row.key, old);
                }
            }
            masked(conn, (table, *column), |place, key, old| {
                if is_old(old) {
                    take(place, key, old);
                }
            })?;
            let mut kept = found.split_off(begin);
            retain_meant(conn, (table, *column), moves, &mut kept)?;
            found.extend(kept);
        }
    }
    Ok(found)
}

/// Calls `each` with the place, the key and the cell of the shown rows that hold one of `olds`.
fn shown(
    conn: &Connection,
    (table, column): (&Table, usize),
    olds: &str,
    mut each: impl FnMut(RowKey, Vec<Value>, i64),
) -> rusqlite::Result<()> {
    let (name, keys) = (table.quoted(), table.key_list());
    let cell = quoted(&table.columns[column].name);
    let rowid = match table.kind {
        KeyKind::Packed => "NULL",
        KeyKind::Integer | KeyKind::Rowid => &table.rowid,
    };
    let select = format!(
        "SELECT {rowid}, {cell}, {keys} FROM main.{name}
         WHERE {cell} IN (SELECT value FROM json_each(?1)) AND typeof({cell}) = 'integer'"
    );
    let mut statement = conn.prepare_cached(&select)?;
    let mut rows = statement.query([olds])?;
    while let Some(row) = rows.next()? {
        let key = key_from(row, 2, table.key_columns.len())?;
        let rowid: Option<i64> = row.get(0)?;
        let place = rowid.map_or_else(|| table.life_key(&key), RowKey::Rowid);
        each(place, key, row.get(1)?);
    }
    Ok(())
}

/// Calls `each` with the place, the key and the kept value of the cells that show NULL in its place.
fn masked(
    conn: &Connection,
    (table, column): (&Table, usize),
    mut each: impl FnMut(RowKey, Vec<Value>, i64),
) -> rusqlite::Result<()> {
    for place in masks::places(conn, table.id)? {
        let kept = masks::at(conn, table.id, &place)?;
        let key = store::unpacked(&place);
        if let Some(Value::Integer(old)) = kept.get(&table.columns[column].lane)
            && let Some(shown_at) = rows::place(conn, table, &key)?
        {
            each(shown_at, key, *old);
        }
    }
    Ok(())
}

/// Leaves out cells that refer to no row, and those whose row kept the id that they hold. Where an
/// id was reused, cells that were written since mean the new row by it.
fn retain_meant(
    conn: &Connection,
    (table, column): (&Table, usize),
    moves: &Moves,
    cells: &mut Vec<Cell>,
) -> rusqlite::Result<()> {
    let column = &table.columns[column];
    let literals = literals(table.id, column);
    let has_literals = clocks::is_used(conn, literals)?;
    let clock = |lane, place: &RowKey| {
        let table_id = table.id;
        clocks::at(conn, Lane { table_id, lane }, place)
    };
    let mut kept = Vec::new();
    for mut cell in cells.drain(..) {
        if has_literals && clocks::at(conn, literals, &cell.place)?.is_some() {
            continue;
        }
        if let Some(reuse) = moves.reused.get(&cell.old) {
            let written = match clock(column.lane, &cell.place)? {
                Some(written) => Some(written),
                None => clock(ROW, &cell.place)?,
            };
            let is_new =
                written.is_some_and(|clock| clock.site == OWN && clock.version == reuse.version);
            if is_new || reuse.takes_all {
                cell.goal = Some(Goal::Row((reuse.number, OWN)));
                // A placeholder is nobody's write.
                let is_written = written.is_some_and(|clock| clock.version > Hlc::ZERO);
                cell.version = (!is_new && is_written).then_some(reuse.version);
            }
        }
        kept.extend(cell.goal.is_some().then_some(cell));
    }
    *cells = kept;
    Ok(())
}

/// Has a cell that came to mean another row count as written.
fn stamp(conn: &Connection, table: &Table, cell: &Cell) -> rusqlite::Result<()> {
    let Some(version) = cell.version else {
        return Ok(());
    };
    let lane = Lane {
        table_id: table.id,
        lane: table.columns[cell.at.1].lane,
    };
    let clock = Clock {
        site: OWN,
        version,
        causal_length: 0,
    };
    clocks::set(conn, lane, &cell.place, &cell.place, clock)
}

/// Writes one cell. A row that meets a unique index meanwhile is parked, and settled with the rest.
fn set(conn: &Connection, table: &Table, cell: &Cell, id: i64) -> rusqlite::Result<()> {
    let column = &table.columns[cell.at.1];
    let value = Value::Integer(id);
    let masked = (table.id, &store::place(table, &cell.key));
    if masks::set(conn, masked, column.lane, &value)? {
        return Ok(());
    }
    let (name, condition) = (table.quoted(), table.key_condition(2));
    let update = format!(
        "UPDATE OR ABORT main.{name} SET {} = ?1 WHERE {condition}",
        quoted(&column.name)
    );
    let values = std::iter::once(&value).chain(&cell.key);
    let mut statement = conn.prepare_cached(&update)?;
    let place = match statement.execute(params_from_iter(values.map(Bound))) {
        Ok(0) => Some(store::place(table, &cell.key)),
        Ok(_) => None,
        Err(error) if constraints::is_met(conn, &error) => {
            constraints::hide(conn, table, &cell.key)?
        }
        Err(error) => return Err(error),
    };
    if let Some(place) = place
        && let Some(mut row) = store::at(conn, table.id, &place)?
    {
        row.cells.insert(column.lane, value);
        store::put(conn, table, &row)?;
    }
    Ok(())
}
