//! Keys that refer to rows follow when these get other ids, with all that is kept under them.
//!
//! Rows may swap their ids, so one key can become another that is there. Then all of them step aside
//! first.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params_from_iter};
use syncline_crdt::Value;

use crate::clocks::{self, LIFE, Lane, ROW};
use crate::constraints::store::{self, ParkedRow};
use crate::constraints::{self, Touched, masks};
use crate::joined;
use crate::placing::Placing;
use crate::quiet::Quiet;
use crate::renames::{Goal, Moves, Renames};
use crate::rows::{self, key_from};
use crate::shadow::OWN;
use crate::table::{KeyKind, RowKey, Table, TableError, list};
use crate::value::{Bound, quoted};
use crate::whose::Whose;

/// Where rows wait that step aside: far below every id, and above the tokens of cells.
const ASIDE: i64 = i64::MIN / 4;

/// What is noted of a table whose keys follow in a fold, all by keys as they were written.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Rows that are there and were written as a whole.
    pub(crate) new: BTreeSet<RowKey>,
    /// Rows that were deleted or written in some other way.
    pub(crate) others: BTreeSet<RowKey>,
}

/// What became of a table's keys.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// Keys of what is kept, as they were and as they are.
    pub(crate) kept: BTreeMap<RowKey, RowKey>,
    /// The same of the rows that the table shows.
    pub(crate) shown: BTreeMap<RowKey, RowKey>,
    /// Keys of rows that were written as a whole and are not there.
    pub(crate) absent: BTreeSet<RowKey>,
    /// Noted keys that refer to rows which nobody made.
    pub(crate) unknown: BTreeSet<RowKey>,
    /// Noted keys that may be meant as those of new rows.
    pub(crate) ambiguous: BTreeSet<RowKey>,
    /// Rows that are others than before, since their keys refer to new rows.
    pub(crate) parted: Vec<Parted>,
    /// Rows that were made anew with one of those that they refer to, by the keys they have.
    pub(crate) reborn: BTreeSet<RowKey>,
}

/// A row that was known by one key and means another row.
#[derive(Debug)]
pub(crate) struct Parted {
    pub(crate) former: RowKey,
    pub(crate) place: RowKey,
}

/// Rows that moved: their table, and the ids they had and have.
pub(crate) type Moved = Vec<(i64, (i64, i64))>;

/// Has the keys of all tables follow. Returns which rows moved since an id was kept for others.
pub(crate) fn follow_all(
    conn: &Connection,
    mut moves: BTreeMap<i64, Moves>,
    touched: &mut Touched,
) -> Result<Moved, TableError> {
    moves.retain(|_, moves| !moves.is_empty());
    if moves.is_empty() {
        return Ok(Vec::new());
    }
    let mut tables = Table::all(conn)?;
    tables.retain(|table| table.shape.refers());
    let tables: Vec<_> = tables
        .into_iter()
        .map(|table| (table, Noted::default()))
        .collect();
    Ok(follow(conn, &tables, &mut moves, touched)?.1)
}

/// Has the keys of some tables follow, with what is noted of them.
pub(crate) fn follow(
    conn: &Connection,
    tables: &[(Table, Noted)],
    moves: &mut BTreeMap<i64, Moves>,
    touched: &mut Touched,
) -> Result<(Vec<Followed>, Moved), TableError> {
    let (mut all_moved, mut quiet) = (Vec::new(), None);
    loop {
        let plan = |(table, noted)| Plan::read(conn, table, noted, moves);
        let plans = tables.iter().map(|(table, noted)| plan((table, noted)));
        let plans: Vec<Plan<'_>> = plans.collect::<rusqlite::Result<_>>()?;
        let goals: BTreeSet<Part> = plans.iter().flat_map(Plan::goals).collect();
        if !goals.is_empty() && quiet.is_none() {
            quiet = Some(Quiet::begin(conn)?);
        }
        let moved_count = all_moved.len();
        let ids = keep(conn, goals, &mut all_moved)?;
        if all_moved.len() == moved_count {
            let followed = plans.into_iter();
            let followed = followed.map(|plan| plan.apply(conn, &ids, touched));
            return Ok((followed.collect::<Result<_, _>>()?, all_moved));
        }
        // Keeping an id for a row that is gone can move others, which keys refer to as well.
        for (table_id, (from, to)) in &all_moved[moved_count..] {
            moves.entry(*table_id).or_default().note(*from, *to);
            let places = [*from, *to].map(RowKey::Rowid);
            touched.add_moved(*table_id, BTreeSet::from(places));
        }
    }
}

/// What a part of a key refers to: a table, and a row of it.
type Part = (i64, Goal);

/// The parts of a key that become others, by their places.
type Parts = Vec<(usize, Part)>;

/// Returns the ids of what parts refer to, and keeps some where they have none.
fn keep(
    conn: &Connection,
    goals: BTreeSet<Part>,
    moved: &mut Moved,
) -> Result<BTreeMap<Part, i64>, TableError> {
    let mut ids = BTreeMap::new();
    let parents: BTreeSet<i64> = goals.iter().map(|(parent, _)| *parent).collect();
    for parent_id in parents {
        let Some(parent) = Table::by_id(conn, parent_id)? else {
            continue;
        };
        let mut placing = Placing::new(conn, &parent);
        for (_, goal) in goals.iter().filter(|(parent, _)| *parent == parent_id) {
            let id = match goal {
                Goal::Id(id) => *id,
                Goal::Row(identity) => placing.keep(*identity)?,
            };
            ids.insert((parent_id, *goal), id);
        }
        moved.extend(placing.moved.iter().map(|ids| (parent_id, *ids)));
    }
    Ok(ids)
}

/// What has to become of one table's keys.
struct Plan<'a> {
    table: &'a Table,
    kept: BTreeMap<RowKey, Parts>,
    shown: BTreeMap<RowKey, Shown>,
    /// What is handed on as it is.
    followed: Followed,
    reborn: BTreeSet<RowKey>,
}

/// A row whose key becomes another.
struct Shown {
    place: RowKey,
    parts: Parts,
    /// Whether it refers to a row that was given the id of another.
    is_other: bool,
}

impl<'a> Plan<'a> {
    fn read(
        conn: &Connection,
        table: &'a Table,
        noted: &Noted,
        moves: &BTreeMap<i64, Moves>,
    ) -> rusqlite::Result<Self> {
        let mut plan = Plan {
            table,
            kept: BTreeMap::new(),
            shown: BTreeMap::new(),
            followed: Followed::default(),
            reborn: BTreeSet::new(),
        };
        let mut reading = Reading::new(conn, table, moves)?;
        if reading.has_moves() {
            let lane = Lane {
                table_id: table.id,
                lane: LIFE,
            };
            let lives = clocks::all(conn, lane)?
                .into_iter()
                .map(|range| range.first);
            let kept = lives.chain(store::places(conn, table.id)?);
            for key in kept.chain(noted.others.iter().chain(&noted.new).cloned()) {
                plan.add_kept(&reading, key);
            }
            for (place, key) in reading.shown()? {
                let is_new = noted.new.contains(&key);
                let (parts, is_other) = reading.parts_of_written(&key, is_new);
                plan.add_shown(key.clone(), place, parts, is_other);
                plan.add_kept(&reading, key);
            }
        }
        for key in &noted.new {
            plan.add_new(&mut reading, key, noted.others.contains(key))?;
        }
        for key in &noted.others {
            if reading.parts_of_written(key, true).1 {
                plan.followed.ambiguous.insert(key.clone());
            }
            let parts = reading.parts(key);
            if !reading.strays(key, &parts)?.is_empty() {
                plan.followed.unknown.insert(key.clone());
            }
        }
        Ok(plan)
    }

    fn add_kept(&mut self, reading: &Reading<'_>, key: RowKey) {
        let parts = reading.parts(&key);
        if !parts.is_empty() {
            self.kept.insert(key, parts);
        }
    }

    fn add_shown(&mut self, key: RowKey, place: RowKey, parts: Parts, is_other: bool) {
        if !parts.is_empty() {
            let shown = Shown {
                place,
                parts,
                is_other,
            };
            self.shown.insert(key, shown);
        }
    }

    /// Adds a row that was written as a whole, if it is there. What it refers to and nobody made is
    /// a row of ours that is yet to come.
    fn add_new(
        &mut self,
        reading: &mut Reading<'_>,
        key: &RowKey,
        was_deleted: bool,
    ) -> rusqlite::Result<()> {
        let (mut parts, is_other) = reading.parts_of_written(key, true);
        let strays = reading.strays(key, &parts)?;
        let is_reborn = reading.is_reborn(key);
        if strays.is_empty() && parts.is_empty() && !is_reborn {
            return Ok(());
        }
        let unpacked = store::unpacked(key);
        let Some(place) = rows::place(reading.conn, self.table, &unpacked)? else {
            self.followed.absent.insert(key.clone());
            return Ok(());
        };
        // One that was deleted may have come back under another rowid.
        if is_reborn && !is_other && (was_deleted || self.is_known(reading.conn, &place)?) {
            self.reborn.insert(key.clone());
        }
        parts.extend(strays);
        self.add_shown(key.clone(), place, parts, is_other);
        Ok(())
    }

    fn goals(&self) -> impl Iterator<Item = Part> {
        let shown = self.shown.values().map(|shown| &shown.parts);
        let parts = self.kept.values().chain(shown);
        parts.flatten().map(|(_, part)| *part)
    }

    fn apply(
        mut self,
        conn: &Connection,
        ids: &BTreeMap<Part, i64>,
        touched: &mut Touched,
    ) -> Result<Followed, TableError> {
        let mut followed = std::mem::take(&mut self.followed);
        for (key, parts) in &self.kept {
            followed
                .kept
                .insert(key.clone(), self.with(key, parts, ids));
        }
        let shown = |key| self.shown.get(key).map(|shown| &shown.parts);
        let reborn = self.reborn.iter();
        let reborn = reborn.map(|key| self.with(key, shown(key).unwrap_or(&Parts::new()), ids));
        followed.reborn = reborn.collect();
        for (key, shown) in &self.shown {
            let to = self.with(key, &shown.parts, ids);
            let former = followed.kept.get(key).unwrap_or(key);
            if shown.is_other && *former != to && self.is_known(conn, &shown.place)? {
                let (former, place) = (former.clone(), shown.place.clone());
                followed.parted.push(Parted { former, place });
            }
            followed.shown.insert(key.clone(), to);
        }
        let pairs = followed.kept.iter().chain(&followed.shown);
        let places: BTreeSet<RowKey> = pairs.flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
        if !places.is_empty() {
            touched.add_moved(self.table.id, places);
        }
        let hidden = show(conn, self.table, &followed.shown)?;
        let mut kept = followed.kept.clone();
        kept.extend(hidden);
        rename_kept(conn, self.table, &kept)?;
        Ok(followed)
    }

    /// Returns a key with other parts.
    fn with(&self, key: &RowKey, parts: &Parts, ids: &BTreeMap<Part, i64>) -> RowKey {
        let mut values = store::unpacked(key);
        for (at, part) in parts {
            if let Some(id) = ids.get(part) {
                values[*at] = Value::Integer(*id);
            }
        }
        self.table.life_key(&values)
    }

    fn is_known(&self, conn: &Connection, place: &RowKey) -> rusqlite::Result<bool> {
        let lane = Lane {
            table_id: self.table.id,
            lane: ROW,
        };
        Ok(clocks::at(conn, lane, place)?.is_some())
    }
}

/// Reads what the parts of one table's keys stand for.
struct Reading<'a> {
    conn: &'a Connection,
    table: &'a Table,
    /// For each part that refers: its place, its table, where that table's rows moved, and whose
    /// they are.
    columns: Vec<(usize, i64, Option<&'a Moves>, Whose)>,
}

impl<'a> Reading<'a> {
    fn new(
        conn: &'a Connection,
        table: &'a Table,
        moves: &'a BTreeMap<i64, Moves>,
    ) -> rusqlite::Result<Self> {
        let columns = table
            .key_references()
            .map(|(at, parent)| Ok((at, parent, moves.get(&parent), Whose::new(conn, parent)?)));
        Ok(Reading {
            conn,
            table,
            columns: columns.collect::<rusqlite::Result<_>>()?,
        })
    }

    fn has_moves(&self) -> bool {
        let mut moves = self.columns.iter().filter_map(|(_, _, moves, _)| *moves);
        moves.any(|moves| !moves.is_empty())
    }

    /// Returns the parts of a kept key that become others.
    fn parts(&self, key: &RowKey) -> Parts {
        self.goals(key, |moves, id| moves.goal_of_former(id))
    }

    /// Returns the parts of a shown key that become others, and whether one of them refers to
    /// another row than before.
    fn parts_of_written(&self, key: &RowKey, is_new: bool) -> (Parts, bool) {
        let mut is_other = false;
        let parts = self.goals(key, |moves, id| {
            let new = moves.goal_of_new(id, is_new);
            is_other |= new.is_some();
            new.or_else(|| moves.goal(id))
        });
        (parts, is_other)
    }

    fn goals(&self, key: &RowKey, mut goal: impl FnMut(&Moves, i64) -> Option<Goal>) -> Parts {
        let values = store::unpacked(key);
        let mut parts = Vec::new();
        for (at, parent, moves, _) in &self.columns {
            if let (Some(moves), Value::Integer(id)) = (moves, &values[*at])
                && let Some(goal) = goal(moves, *id)
            {
                parts.push((*at, (*parent, goal)));
            }
        }
        parts
    }

    /// Whether a row that a key refers to was made anew.
    fn is_reborn(&self, key: &RowKey) -> bool {
        let values = store::unpacked(key);
        self.columns.iter().any(|(at, _, moves, _)| {
            let moves = moves.as_ref();
            matches!(values[*at], Value::Integer(id) if moves.is_some_and(|m| m.is_reborn(id)))
        })
    }

    /// Returns the parts of a key that refer to rows which nobody made, as those of ours that are
    /// yet to come; `known` are those that stand for others.
    fn strays(&mut self, key: &RowKey, known: &Parts) -> rusqlite::Result<Parts> {
        let values = store::unpacked(key);
        let mut parts = Vec::new();
        for (at, parent, _, whose) in &mut self.columns {
            if let Value::Integer(id) = values[*at]
                && known.iter().all(|(known, _)| known != at)
                && whose.at(self.conn, id)?.is_none()
            {
                parts.push((*at, (*parent, Goal::Row((id, OWN)))));
            }
        }
        Ok(parts)
    }

    /// Returns the places and the keys of the rows that hold an id which stands for another.
    fn shown(&self) -> rusqlite::Result<BTreeMap<RowKey, RowKey>> {
        let (name, keys) = (self.table.quoted(), self.table.key_list());
        let rowid = match self.table.kind {
            KeyKind::Packed => "NULL",
            KeyKind::Integer | KeyKind::Rowid => &self.table.rowid,
        };
        let mut found = BTreeMap::new();
        for (at, _, moves, _) in &self.columns {
            let Some(moves) = moves else { continue };
            let part = quoted(&self.table.key_columns[*at].name);
            let select = format!(
                "SELECT {rowid}, {keys} FROM main.{name}
                 WHERE {part} IN (SELECT value FROM json_each(?1)) AND typeof({part}) = 'integer'"
            );
            let mut statement = self.conn.prepare_cached(&select)?;
            let mut rows = statement.query([moves.olds()])?;
            while let Some(row) = rows.next()? {
                let key = self
                    .table
                    .life_key(&key_from(row, 1, self.table.key_columns.len())?);
                let rowid: Option<i64> = row.get(0)?;
                found.insert(rowid.map_or_else(|| key.clone(), RowKey::Rowid), key);
            }
        }
        Ok(found)
    }
}

/// Returns the steps from one key to another, in order, that never meet a key which is still there.
fn steps(table: &Table, keys: &BTreeMap<RowKey, RowKey>) -> Vec<(RowKey, RowKey)> {
    let changed = || keys.iter().filter(|(from, to)| from != to);
    let pair = |(from, to): (&RowKey, &RowKey)| (from.clone(), to.clone());
    if !changed().any(|(_, to)| keys.contains_key(to)) {
        return changed().map(pair).collect();
    }
    let first = table.key_references().next().map_or(0, |(at, _)| at);
    let (mut away, mut there) = (Vec::new(), Vec::new());
    for ((from, to), n) in changed().map(pair).zip(0..) {
        let mut aside = store::unpacked(&from);
        aside[first] = Value::Integer(ASIDE + n);
        let aside = table.life_key(&aside);
        away.push((from, aside.clone()));
        there.push((aside, to));
    }
    away.append(&mut there);
    away
}

/// Gives rows that are shown other keys. Returns those that the table does not admit so, which are
/// parked, with the keys that they are parked under and are to have.
fn show(
    conn: &Connection,
    table: &Table,
    keys: &BTreeMap<RowKey, RowKey>,
) -> Result<BTreeMap<RowKey, RowKey>, TableError> {
    let mut hidden = BTreeMap::new();
    let parts: Vec<usize> = table.key_references().map(|(at, _)| at).collect();
    let set = parts.iter().enumerate();
    let set = set.map(|(n, at)| format!("{} = ?{}", quoted(&table.key_columns[*at].name), n + 1));
    let (name, set) = (table.quoted(), list(set, ", "));
    let condition = table.key_condition(parts.len() + 1);
    let update = format!("UPDATE OR ABORT main.{name} SET {set} WHERE {condition}");
    for (from, to) in steps(table, keys) {
        let (key, new) = (store::unpacked(&from), store::unpacked(&to));
        let values = parts.iter().map(|at| &new[*at]).chain(&key);
        let mut statement = conn.prepare_cached(&update)?;
        match statement.execute(params_from_iter(values.map(Bound))) {
            Err(error) if constraints::is_met(conn, &error) => {
                constraints::hide(conn, table, &key)?;
                let last = keys.get(&from).unwrap_or(&to);
                hidden.insert(from, last.clone());
            }
            done => drop(done?),
        }
    }
    Ok(hidden)
}

/// Has all that is kept under keys be kept under others.
fn rename_kept(
    conn: &Connection,
    table: &Table,
    keys: &BTreeMap<RowKey, RowKey>,
) -> Result<(), TableError> {
    let lanes = [LIFE, ROW].into_iter().chain(table.column_lanes());
    let table_id = table.id;
    let lanes: Vec<Lane> = lanes.map(|lane| Lane { table_id, lane }).collect();
    let changed = || keys.iter().filter(|(from, to)| from != to);
    let mut moved = Vec::new();
    for (from, to) in changed() {
        for lane in &lanes {
            if let Some(clock) = clocks::at(conn, *lane, from)? {
                clocks::clear(conn, *lane, from, from)?;
                moved.push((*lane, to, clock));
            }
        }
    }
    for (lane, to, clock) in moved {
        clocks::set(conn, lane, to, to, clock)?;
    }
    for (from, to) in steps(table, keys) {
        if let Some(row) = store::at(conn, table.id, &from)? {
            let mut key = row.key;
            let new = store::unpacked(&to);
            for (at, _) in table.key_references() {
                key[at].clone_from(&new[at]);
            }
            store::rekey(conn, table.id, &from, &to)?;
            let cells = row.cells;
            store::put(conn, table, &ParkedRow { key, cells })?;
        } else {
            store::rekey(conn, table.id, &from, &to)?;
        }
        masks::rekey(conn, table.id, &from, &to)?;
        if !table.joined.is_empty() {
            joined::rename(conn, table, &from, &to)?;
        }
    }
    Ok(())
}

/// Has the keys of a table that is about to be tracked name rows: those that refer to a row which
/// nobody made are told from those that will.
pub(crate) fn begin(conn: &Connection, table: &Table) -> Result<(), TableError> {
    if !table.shape.refers() {
        return Ok(());
    }
    let mut noted = Noted::default();
    let (keys, name) = (table.key_list(), table.quoted());
    let mut statement = conn.prepare(&format!("SELECT {keys} FROM main.{name}"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = key_from(row, 0, table.key_columns.len())?;
        noted.new.insert(table.life_key(&key));
    }
    drop(rows);
    drop(statement);
    let (mut renames, mut touched) = (Renames::default(), Touched::default());
    let mut tables = vec![(table.clone(), noted)];
    let others = Table::all(conn)?.into_iter();
    let others = others.filter(|other| other.shape.refers() && other.id != table.id);
    tables.extend(others.map(|other| (other, Noted::default())));
    renames.follow(conn, &tables, &mut touched)?;
    touched.join(renames.apply(conn)?);
    constraints::settle(conn, touched)?;
    Ok(())
}
