//! Takes rows away whose parent is gone, and lets those in whose parent came.

use std::collections::BTreeMap;

use rusqlite::Connection;
use syncline_crdt::Value;

use super::super::Rows;
use super::super::listing::{self, Ground};
use super::super::masks;
use super::super::reference::{Reference, Within};
use super::super::store::{self, Standing};
use super::{Basis, Place, Settling};
use crate::options::ForeignKeyPolicy;
use crate::rows;
use crate::table::RowKey;

/// Above this many rows that came, parked rows are all looked at rather than found one by one.
const WOKEN_ONE_BY_ONE_MAX: usize = 1_000;

impl<'a, 'c: 'a> Settling<'a, 'c> {
    /// Looks at the rows that were written themselves.
    pub(super) fn look_at_written(
        &mut self,
        touched: &BTreeMap<i64, Rows>,
    ) -> rusqlite::Result<()> {
        for (at, reference) in self.references.iter().enumerate() {
            if !reference.is_masked_early()
                && let Some(rows) = touched.get(&reference.child.id)
            {
                self.look_at_children(at, rows)?;
            }
        }
        for (child, rows) in touched {
            if !store::any(self.conn, *child)? {
                continue;
            }
            for place in &rows.places {
                if store::contains(self.conn, *child, place)? {
                    self.wake((*child, place.clone()))?;
                }
            }
        }
        Ok(())
    }

    /// Looks at the shown ones of a reference's rows that were written.
    pub(super) fn look_at_children(&mut self, at: usize, rows: &Rows) -> rusqlite::Result<()> {
        let reference = &self.references[at];
        if rows.is_whole {
            self.scans.insert(at);
        }
        let (runs, single) = rows.spans();
        for (first, last) in runs {
            let orphans = reference.orphans(self.conn, Within::Rowids(first, last))?;
            self.look(at, orphans);
        }
        for place in single {
            let key = store::unpacked(place);
            self.look(at, reference.orphans(self.conn, Within::Key(&key))?);
        }
        if !reference.hides() {
            self.look_at_masked(at, rows)?;
        }
        Ok(())
    }

    /// Looks at shown rows of a reference.
    pub(super) fn look(&mut self, at: usize, places: Vec<RowKey>) {
        let reference = &self.references[at];
        if reference.hides() {
            let child = reference.child.id;
            self.queue
                .extend(places.into_iter().map(|place| (child, place)));
        } else {
            self.unsure
                .extend(places.into_iter().map(|place| (at, place)));
        }
    }

    /// Looks at the rows that refer to rows which came, went or changed.
    pub(super) fn look_below(&mut self, at: usize, rows: &Rows) -> rusqlite::Result<()> {
        let reference = &self.references[at];
        let (child, parent) = (reference.child.id, reference.parent.id);
        // What a row was called that has another value is not known.
        let is_unknown = reference.index.is_some() && (rows.is_rewritten || !rows.gone.is_empty());
        if rows.is_whole || is_unknown {
            self.scans.insert(at);
        }
        for place in &rows.gone {
            let key = store::unpacked(place);
            if self.scans.contains(&at) {
                break;
            }
            if rows::place(self.conn, &reference.parent, &key)?.is_none() {
                self.look_at(at, &key)?;
            }
        }
        let has_masked = !reference.hides() && masks::any(self.conn, child)?;
        if !has_masked && !store::any(self.conn, child)? {
            return Ok(());
        }
        let is_many =
            rows.is_whole || !rows.runs.is_empty() || rows.places.len() > WOKEN_ONE_BY_ONE_MAX;
        if is_many || is_unknown {
            for place in store::places(self.conn, child)? {
                self.wake_for(at, place)?;
            }
            if has_masked {
                self.look(at, masks::places(self.conn, child)?);
            }
            return Ok(());
        }
        for place in &rows.places {
            let mut forms = Vec::from_iter(reference.form_of_parent(self.conn, place)?);
            if let Some(index) = &reference.index {
                forms.extend(store::forms(self.conn, parent, &index.label, place)?);
            }
            for form in forms {
                self.wake_below(at, &form)?;
            }
        }
        Ok(())
    }

    /// Looks at the shown rows that refer to a key of the parent.
    fn look_at(&mut self, at: usize, key: &[Value]) -> rusqlite::Result<()> {
        let reference = &self.references[at];
        if !reference.key.is_indexed {
            self.scans.insert(at);
            return Ok(());
        }
        self.look(at, reference.children(self.conn, key)?);
        Ok(())
    }

    /// Looks at the rows that refer to one which was parked.
    pub(super) fn look_below_hidden(
        &mut self,
        table_id: i64,
        place: &RowKey,
    ) -> rusqlite::Result<()> {
        for (at, reference) in self.references.iter().enumerate() {
            if reference.parent.id != table_id {
                continue;
            }
            match &reference.index {
                None => self.look_at(at, &store::unpacked(place))?,
                Some(_) => {
                    self.scans.insert(at);
                }
            }
        }
        Ok(())
    }

    fn wake_below(&mut self, at: usize, form: &[u8]) -> rusqlite::Result<()> {
        let reference = &self.references[at];
        let (child, named) = (reference.child.id, (&reference.key.label[..], form));
        for (place, _) in store::claimants(self.conn, child, named)? {
            self.wake_for(at, place)?;
        }
        if !reference.hides() {
            self.look(at, masks::waiting(self.conn, child, named)?);
        }
        Ok(())
    }

    /// Looks at a parked row of which a reference may have its parent, or have it no more.
    fn wake_for(&mut self, at: usize, place: RowKey) -> rusqlite::Result<()> {
        let reference = &self.references[at];
        let child = reference.child.id;
        if reference.hides() {
            return self.wake((child, place));
        }
        if reference.is_masked_early() {
            self.stale.insert((child, place));
        }
        Ok(())
    }

    /// Looks at a row again; if it was barred, as if its parents were there, and at all that waited
    /// for it.
    fn wake(&mut self, place: Place) -> rusqlite::Result<()> {
        let mut woken = vec![place];
        while let Some(place) = woken.pop() {
            let standing = store::standing(self.conn, place.0, &place.1)?;
            if standing == Some(Standing::Unfit) {
                continue;
            }
            self.queue.insert(place.clone());
            if standing != Some(Standing::Barred) || !self.raised.insert(place.clone()) {
                continue;
            }
            for reference in self.references {
                if reference.parent.id != place.0 || !reference.hides() {
                    continue;
                }
                for form in self.parked_forms(reference, &place.1)? {
                    let label = (&reference.key.label[..], &form[..]);
                    let waiting = store::claimants(self.conn, reference.child.id, label)?;
                    woken.extend(
                        waiting
                            .into_iter()
                            .map(|(place, _)| (reference.child.id, place)),
                    );
                }
            }
        }
        Ok(())
    }

    /// Returns the forms under which rows refer to a parked row.
    fn parked_forms(
        &self,
        reference: &Reference,
        place: &RowKey,
    ) -> rusqlite::Result<Vec<Vec<u8>>> {
        match &reference.index {
            None => Ok(vec![store::packed(place)]),
            Some(index) => store::forms(self.conn, reference.parent.id, &index.label, place),
        }
    }

    /// Takes away rows without their parents, and what depends on those, until none is left.
    pub(super) fn close(&mut self, basis: Basis) -> rusqlite::Result<()> {
        loop {
            while let Some(place) = self.queue.pop_first() {
                self.examine(&place, basis)?;
            }
            let references = self.references;
            let hides = |at: &&usize| references[**at].hides();
            let Some(at) = self.scans.iter().find(hides).copied() else {
                return Ok(());
            };
            self.scans.remove(&at);
            self.look(at, references[at].orphans(self.conn, Within::All)?);
        }
    }

    fn takes_part(&self, place: &Place, standing: Standing) -> bool {
        standing == Standing::Contends || self.raised.contains(place)
    }

    fn examine(&mut self, place: &Place, basis: Basis) -> rusqlite::Result<()> {
        let standing = store::standing(self.conn, place.0, &place.1)?;
        let is_in = match (standing, basis) {
            (None, _) => true,
            (Some(standing), Basis::Contest) => self.takes_part(place, standing),
            (Some(_), Basis::Outcome) => false,
        };
        if !is_in {
            return Ok(());
        }
        match self.lacking(place, basis)? {
            Some(lack) => self.bar(place, &lack, basis),
            None => Ok(()),
        }
    }

    /// Returns the first reference of a row whose parent is missing.
    fn lacking(&mut self, place: &Place, basis: Basis) -> rusqlite::Result<Option<Lack<'a>>> {
        for reference in self.references {
            if reference.child.id != place.0 || !reference.hides() {
                continue;
            }
            let Some(stage) = self.stage(place.0)? else {
                return Ok(None);
            };
            let Some(values) = stage.reference(reference, &place.1)? else {
                continue;
            };
            let form = reference.form(self.conn, &values)?;
            let lack = Lack {
                reference,
                values,
                form,
            };
            if !self.has_parent(place, &lack, basis)? {
                return Ok(Some(lack));
            }
        }
        Ok(None)
    }

    fn has_parent(
        &mut self,
        place: &Place,
        lack: &Lack<'_>,
        basis: Basis,
    ) -> rusqlite::Result<bool> {
        let reference = lack.reference;
        if reference.is_shown(self.conn, &lack.values)? {
            return Ok(true);
        }
        if basis == Basis::Outcome || !reference.is_inner {
            return Ok(false);
        }
        let parked = reference.parked_parents(self.conn, &lack.form)?;
        let parent = reference.parent.id;
        let mut parked = parked.into_iter();
        if !parked.any(|(place, standing)| self.takes_part(&(parent, place), standing)) {
            return Ok(false);
        }
        self.leaning.insert(place.clone());
        Ok(true)
    }

    /// Keeps a row out of sight, and looks at those that refer to it.
    fn bar(&mut self, place: &Place, lack: &Lack<'_>, basis: Basis) -> rusqlite::Result<()> {
        let is_shown = !store::contains(self.conn, place.0, &place.1)?;
        for (at, below) in self.references.iter().enumerate() {
            if below.parent.id == place.0 {
                self.look_below_barred(at, &place.1, is_shown)?;
            }
        }
        let standing = match basis {
            Basis::Contest => Standing::Barred,
            Basis::Outcome => Standing::Dependent,
        };
        self.raised.remove(place);
        self.note(place, lack, standing)
    }

    fn note(&mut self, place: &Place, lack: &Lack<'_>, standing: Standing) -> rusqlite::Result<()> {
        let key = &lack.reference.key;
        let ground = Ground {
            broken: &key.label,
            reason: lack.reason(self.conn)?,
            winner: None,
        };
        self.keep_still()?;
        match self.stage(place.0)? {
            Some(stage) => stage.bar(&place.1, &ground, standing, &key.columns),
            None => Ok(()),
        }
    }

    /// Notes again why rows are barred, where that may have changed with them out of sight.
    pub(super) fn explain(&mut self) -> rusqlite::Result<()> {
        for place in std::mem::take(&mut self.unexplained) {
            let standing = store::standing(self.conn, place.0, &place.1)?;
            if standing == Some(Standing::Barred)
                && !self.raised.contains(&place)
                && let Some(lack) = self.lacking(&place, Basis::Contest)?
            {
                self.note(&place, &lack, Standing::Barred)?;
            }
        }
        Ok(())
    }

    /// Looks at the rows that refer to one which is about to be barred.
    fn look_below_barred(
        &mut self,
        at: usize,
        place: &RowKey,
        is_shown: bool,
    ) -> rusqlite::Result<()> {
        let reference = &self.references[at];
        let forms = if is_shown {
            match &reference.index {
                None => self.look_at(at, &store::unpacked(place))?,
                Some(_) => {
                    self.scans.insert(at);
                }
            }
            Vec::from_iter(reference.form_of_parent(self.conn, place)?)
        } else {
            self.parked_forms(reference, place)?
        };
        let child = reference.child.id;
        for form in forms {
            let label = (&reference.key.label[..], &form[..]);
            for (place, standing) in store::claimants(self.conn, child, label)? {
                let place = (child, place);
                if self.takes_part(&place, standing) {
                    self.queue.insert(place);
                } else {
                    self.unexplained.insert(place);
                }
            }
        }
        Ok(())
    }

    /// Lets the barred rows that have their parents into the contest.
    pub(super) fn admit(&mut self) -> rusqlite::Result<()> {
        for (id, place) in std::mem::take(&mut self.raised) {
            store::set_standing(self.conn, id, &place, Standing::Contends)?;
            self.changed.entry(id).or_default().places.insert(place);
        }
        Ok(())
    }
}

/// What a row refers to.
struct Lack<'a> {
    reference: &'a Reference,
    values: Vec<Value>,
    form: Vec<u8>,
}

impl Lack<'_> {
    /// Says what the row lacks, in words that are the same on every replica.
    fn reason(&self, conn: &Connection) -> rusqlite::Result<String> {
        let Lack {
            reference,
            values,
            form,
        } = self;
        let names = reference.key.parent_columns.iter().map(String::as_str);
        let key = listing::named(names.zip(values.iter().cloned()));
        let refers = match reference.key.policy {
            ForeignKeyPolicy::Cascade => "it goes with",
            ForeignKeyPolicy::Park | ForeignKeyPolicy::SetNull => "it refers to",
        };
        let what = if reference.parked_parents(conn, form)?.is_empty() {
            "which is not there"
        } else {
            "which is parked itself"
        };
        let parent = &reference.parent.name;
        Ok(format!("{refers} the row {key} of {parent}, {what}"))
    }
}
