//! Which references show NULL, since their rows are not shown.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Rows;
use super::super::masks;
use super::super::reference::{Reference, Within};
use super::super::store;
use super::Settling;
use crate::table::RowKey;

impl Settling<'_, '_> {
    /// Shows all that is kept in tables whose foreign keys are others than before.
    pub(super) fn unmask_whole(&mut self) -> rusqlite::Result<()> {
        for id in &self.component.members {
            let is_whole = |rows: &Rows| rows.is_whole;
            if !self.changed.get(id).is_some_and(is_whole) {
                continue;
            }
            for place in masks::places(self.conn, *id)? {
                self.keep_still()?;
                if let Some(stage) = self.stage(*id)? {
                    stage.unmask(&place)?;
                    self.note_changed(*id, place);
                }
            }
        }
        Ok(())
    }

    /// Shows NULL or values in the references that lead to tables which are settled already, before
    /// rows are looked at by their values. `changed` is what became of those tables.
    pub(super) fn mask_early(&mut self, changed: &BTreeMap<i64, Rows>) -> rusqlite::Result<()> {
        let written = self.changed.clone();
        for (at, reference) in self.references.iter().enumerate() {
            if !reference.is_masked_early() {
                continue;
            }
            if let Some(rows) = written.get(&reference.child.id) {
                self.look_at_children(at, rows)?;
            }
            if let Some(rows) = changed.get(&reference.parent.id) {
                self.look_below(at, rows)?;
            }
        }
        self.mask(Reference::is_masked_early)?;
        for (id, place) in std::mem::take(&mut self.stale) {
            let places = BTreeSet::from([place.clone()]);
            if let Some(stage) = self.stage(id)? {
                stage.enter(&places)?;
            }
            self.note_changed(id, place);
        }
        Ok(())
    }

    /// Looks at the rows that refer to those which were parked so far.
    pub(super) fn look_below_all_hidden(&mut self) -> rusqlite::Result<()> {
        let hidden = self.stages.iter().flat_map(|(id, stage)| {
            let hidden = stage.hidden.iter();
            hidden.map(|place| (*id, place.clone()))
        });
        let hidden: Vec<_> = hidden.collect();
        let mut hidden = hidden.into_iter();
        hidden.try_for_each(|(id, place)| self.look_below_hidden(id, &place))
    }

    /// Shows NULL or values in the references that are asked for and were looked at.
    pub(super) fn mask(&mut self, is_asked: impl Fn(&Reference) -> bool) -> rusqlite::Result<()> {
        let references = self.references;
        for at in self.scans.clone() {
            if is_asked(&references[at]) {
                self.scans.remove(&at);
                self.look(at, references[at].orphans(self.conn, Within::All)?);
            }
        }
        let (asked, rest) = std::mem::take(&mut self.unsure)
            .into_iter()
            .partition(|(at, _)| is_asked(&references[*at]));
        self.unsure = rest;
        let asked: BTreeSet<(usize, RowKey)> = asked;
        for (at, place) in asked {
            let child = references[at].child.id;
            if store::contains(self.conn, child, &place)? {
                continue;
            }
            self.keep_still()?;
            if let Some(stage) = self.stage(child)?
                && stage.mask(&references[at], &place)?
            {
                self.note_changed(child, place);
            }
        }
        Ok(())
    }

    fn note_changed(&mut self, table_id: i64, place: RowKey) {
        let rows = self.changed.entry(table_id).or_default();
        rows.places.insert(place);
        rows.is_rewritten = true;
    }

    /// Looks at the written ones of a reference's rows that keep values.
    pub(super) fn look_at_masked(&mut self, at: usize, rows: &Rows) -> rusqlite::Result<()> {
        let child = self.references[at].child.id;
        if !masks::any(self.conn, child)? {
            return Ok(());
        }
        for place in &rows.places {
            if !masks::at(self.conn, child, place)?.is_empty() {
                self.unsure.insert((at, place.clone()));
            }
        }
        Ok(())
    }

    /// Looks at the references of a row that came to be shown, and at the rows that show NULL for
    /// want of it.
    pub(super) fn look_around_shown(
        &mut self,
        table_id: i64,
        place: &RowKey,
    ) -> rusqlite::Result<()> {
        for (at, reference) in self.references.iter().enumerate() {
            if reference.hides() || !reference.is_inner {
                continue;
            }
            if reference.child.id == table_id {
                self.unsure.insert((at, place.clone()));
            }
            if reference.parent.id == table_id
                && let Some(form) = reference.form_of_parent(self.conn, place)?
            {
                let named = (&reference.key.label[..], &form[..]);
                self.look(at, masks::waiting(self.conn, reference.child.id, named)?);
            }
        }
        Ok(())
    }
}
