//! Decides which rows of some tables are shown: those whose parents are, less what loses against
//! earlier claims, less what depended on that.
//!
//! Where tables are each other's parents, or a table its own, the parents of a row are first looked
//! for among all rows that take part, then among those that won: [`Basis`].

mod closure;
mod masking;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rusqlite::Connection;

use super::Rows;
use super::graph::Component;
use super::reference::Reference;
use super::stage::Stage;
use super::store::{self, Standing};
use crate::quiet::Quiet;
use crate::shadow::Sites;
use crate::table::{RowKey, Table};
use crate::watermark;

/// Where the parents of rows are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basis {
    /// Among the rows that take part in the contest, where they are of the component.
    Contest,
    /// Among the shown rows.
    Outcome,
}

/// A row by its table and place.
type Place = (i64, RowKey);

/// One component of tables, while it is settled.
pub(super) struct Settling<'a, 'c: 'a> {
    conn: &'c Connection,
    sites: &'a Sites,
    component: &'a Component,
    tables: &'a BTreeMap<i64, Rc<Table>>,
    /// Of the rows of the component, by child and label.
    references: &'a [Rc<Reference>],
    stages: BTreeMap<i64, Stage<'a>>,
    /// Keeps the tables still while rows are moved.
    quiet: &'a mut Option<Quiet<'c>>,
    /// What was written, and what came and went since.
    changed: BTreeMap<i64, Rows>,
    /// Rows to look at.
    queue: BTreeSet<Place>,
    /// References of which all rows have to be looked at.
    scans: BTreeSet<usize>,
    /// Barred rows that take part unless their parents turn out to be missing.
    raised: BTreeSet<Place>,
    /// Shown rows with a parent that takes part and is not shown.
    leaning: BTreeSet<Place>,
    /// Barred rows of which a parent was barred.
    unexplained: BTreeSet<Place>,
    /// Shown rows of which a reference may have to show NULL, or its value again.
    unsure: BTreeSet<(usize, RowKey)>,
    /// Parked rows that would show something else in such a reference.
    stale: BTreeSet<Place>,
}

/// What became of a component.
pub(super) struct Settled {
    pub(super) changed: BTreeMap<i64, Rows>,
    pub(super) moved_count: usize,
}

impl<'a, 'c: 'a> Settling<'a, 'c> {
    pub(super) fn new(
        (conn, sites): (&'c Connection, &'a Sites),
        component: &'a Component,
        tables: &'a BTreeMap<i64, Rc<Table>>,
        references: &'a [Rc<Reference>],
        quiet: &'a mut Option<Quiet<'c>>,
    ) -> Self {
        Settling {
            conn,
            sites,
            component,
            tables,
            references,
            stages: BTreeMap::new(),
            quiet,
            changed: BTreeMap::new(),
            queue: BTreeSet::new(),
            scans: BTreeSet::new(),
            raised: BTreeSet::new(),
            leaning: BTreeSet::new(),
            unexplained: BTreeSet::new(),
            unsure: BTreeSet::new(),
            stale: BTreeSet::new(),
        }
    }

    /// Settles the component; `changed` is what became of all tables so far.
    pub(super) fn run(mut self, changed: &BTreeMap<i64, Rows>) -> rusqlite::Result<Settled> {
        for id in &self.component.members {
            let rows = changed.get(id).cloned().unwrap_or_default();
            self.changed.insert(*id, rows);
        }
        self.recall()?;
        self.enter()?;
        self.unmask_whole()?;
        self.mask_early(changed)?;
        self.look_below_all_hidden()?;
        let touched = self.changed.clone();
        self.look_at_written(&touched)?;
        for (at, reference) in self.references.iter().enumerate() {
            let parent = reference.parent.id;
            if !reference.is_masked_early()
                && let Some(rows) = touched.get(&parent).or_else(|| changed.get(&parent))
            {
                self.look_below(at, rows)?;
            }
        }
        self.close(Basis::Contest)?;
        self.explain()?;
        self.admit()?;
        self.contest()?;
        if self.component.is_cyclic {
            self.close_outcome()?;
            self.mask(|reference| !reference.hides())?;
        }
        Ok(self.finish())
    }

    /// Lets rows that won, and whose parents lost, into the contest again.
    fn recall(&mut self) -> rusqlite::Result<()> {
        if !self.component.is_cyclic {
            return Ok(());
        }
        for (id, rows) in &mut self.changed {
            for place in store::standing_as(self.conn, *id, Standing::Dependent)? {
                store::set_standing(self.conn, *id, &place, Standing::Contends)?;
                rows.places.insert(place);
            }
        }
        Ok(())
    }

    /// Completes the parked rows that were written.
    fn enter(&mut self) -> rusqlite::Result<()> {
        for id in &self.component.members {
            if !store::any(self.conn, *id)? {
                continue;
            }
            let rows = self.changed.entry(*id).or_default();
            if rows.is_whole {
                rows.places.extend(store::places(self.conn, *id)?);
            }
            let places = rows.places.clone();
            if let Some(stage) = self.stage(*id)? {
                stage.enter(&places)?;
            }
        }
        Ok(())
    }

    fn stage(&mut self, table_id: i64) -> rusqlite::Result<Option<&mut Stage<'a>>> {
        let Some(table) = self.tables.get(&table_id) else {
            return Ok(None);
        };
        if !self.stages.contains_key(&table_id) {
            let own = |reference: &&Rc<Reference>| reference.child.id == table_id;
            let own = self.references.iter().filter(own).cloned().collect();
            let stage = Stage::new(self.conn, table, self.sites, own)?;
            self.stages.insert(table_id, stage);
        }
        Ok(self.stages.get_mut(&table_id))
    }

    fn contest(&mut self) -> rusqlite::Result<()> {
        for id in &self.component.members {
            let Some(table) = self.tables.get(id) else {
                continue;
            };
            // Shown rows alone cannot break an index: SQLite keeps it.
            if !store::any(self.conn, *id)? {
                continue;
            }
            let mut touched = self.changed.get(id).cloned().unwrap_or_default().places;
            let Some(stage) = self.stage(*id)? else {
                continue;
            };
            touched.extend(stage.hidden.iter().cloned());
            if touched.is_empty() {
                continue;
            }
            self.keep_still()?;
            watermark::settle(self.conn, table)?;
            if let Some(stage) = self.stage(*id)? {
                stage.contest(&touched)?;
            }
            // What was shown here is not the user's.
            watermark::raise(self.conn, table)?;
        }
        Ok(())
    }

    /// Takes away the rows whose parents lost.
    fn close_outcome(&mut self) -> rusqlite::Result<()> {
        self.queue.append(&mut self.leaning);
        let moved = |(id, stage): (&i64, &Stage<'_>)| {
            let hidden = stage.hidden.iter().map(|place| (*id, place.clone()));
            let shown = stage.shown.iter().map(|place| (*id, place.clone()));
            (hidden.collect::<Vec<_>>(), shown.collect::<Vec<_>>())
        };
        let moved: Vec<_> = self.stages.iter().map(moved).collect();
        for (hidden, shown) in moved {
            for (id, place) in hidden {
                self.look_below_hidden(id, &place)?;
            }
            for (id, place) in shown {
                self.look_around_shown(id, &place)?;
                self.queue.insert((id, place));
            }
        }
        self.close(Basis::Outcome)
    }

    /// Keeps triggers and constraints from acting on rows that are moved.
    fn keep_still(&mut self) -> rusqlite::Result<()> {
        if self.quiet.is_none() {
            *self.quiet = Some(Quiet::begin(self.conn)?);
        }
        Ok(())
    }

    fn finish(self) -> Settled {
        let mut changed = self.changed;
        let mut moved_count = 0;
        for (id, stage) in self.stages {
            moved_count += stage.shown.len() + stage.hidden.len();
            let rows = changed.entry(id).or_default();
            rows.places.extend(stage.shown);
            rows.places.extend(stage.hidden.iter().cloned());
            rows.gone.extend(stage.hidden);
        }
        Settled {
            changed,
            moved_count,
        }
    }
}
