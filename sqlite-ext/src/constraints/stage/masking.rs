//! Shows NULL in the columns that refer to a row which is not shown, and what they keep when it is.

use rusqlite::params_from_iter;
use syncline_crdt::Value;

use super::super::is_met;
use super::super::listing;
use super::super::masks::{self, Mask, Told};
use super::super::reference::Reference;
use super::super::store::{self, ParkedRow};
use super::Stage;
use crate::rows;
use crate::table::{RowKey, list};
use crate::value::{Bound, quoted};

impl Stage<'_> {
    /// Sets the references of a parked row to NULL that it would show so, as far as that is decided
    /// before the contest. Returns what it keeps then.
    pub(super) fn mask_row(&self, row: &mut ParkedRow) -> rusqlite::Result<Vec<Mask>> {
        let mut masks = Vec::new();
        for reference in &self.references {
            if !reference.is_masked_early() {
                continue;
            }
            let lanes = reference.lanes();
            let cell = |lane| row.cells.get(lane).cloned().unwrap_or(Value::Null);
            let values: Vec<Value> = lanes.iter().map(cell).collect();
            if values.contains(&Value::Null) || reference.is_shown(self.conn, &values)? {
                continue;
            }
            let nulls = lanes.iter().map(|lane| (*lane, Value::Null));
            row.cells.extend(nulls);
            masks.push(self.mask_of(reference, &row.key, values)?);
        }
        Ok(masks)
    }

    /// Returns what a row keeps that refers to these values.
    fn mask_of(
        &self,
        reference: &Reference,
        key: &[Value],
        values: Vec<Value>,
    ) -> rusqlite::Result<Mask> {
        let foreign = &reference.key;
        let named = |names: &[String]| {
            let names = names.iter().map(String::as_str);
            listing::named(names.zip(values.iter().cloned()))
        };
        let (refers, keeps) = (named(&foreign.parent_columns), named(&foreign.columns));
        let parent = &reference.parent.name;
        let told = Told {
            key: listing::key_json(self.table, key),
            row: keeps,
            reason: format!("it refers to the row {refers} of {parent}, which is not shown"),
        };
        Ok(Mask {
            label: foreign.label.clone(),
            form: reference.form(self.conn, &values)?,
            cells: reference.lanes().into_iter().zip(values).collect(),
            told,
        })
    }

    /// Keeps what a shown row does not show.
    pub(super) fn keep(&self, place: &RowKey, masks: &[Mask]) -> rusqlite::Result<()> {
        for mask in masks {
            let shown_at = rows::place(self.conn, self.table, &store::unpacked(place))?;
            let lanes: Vec<i64> = mask.cells.keys().copied().collect();
            let since = self.latest(&lanes, shown_at.as_ref().unwrap_or(place))?;
            masks::keep(self.conn, (self.table.id, place), mask, since.version)?;
        }
        Ok(())
    }

    /// Shows NULL in the columns by which a shown row refers while the parent is not shown, and what
    /// they keep when it is. Returns whether the row looks different.
    pub(in crate::constraints) fn mask(
        &mut self,
        reference: &Reference,
        place: &RowKey,
    ) -> rusqlite::Result<bool> {
        let (conn, table) = (self.conn, self.table);
        let key = store::unpacked(place);
        let Some(shown) = reference.cells(conn, &key)? else {
            return Ok(false);
        };
        let lanes = reference.lanes();
        let kept = masks::at(conn, table.id, place)?;
        let merged = lanes.iter().zip(&shown);
        let merged = merged.map(|(lane, shown)| kept.get(lane).unwrap_or(shown).clone());
        let merged: Vec<Value> = merged.collect();
        let is_held = merged.contains(&Value::Null) || reference.is_shown(conn, &merged)?;
        let asked = match is_held {
            true => merged.clone(),
            false => vec![Value::Null; merged.len()],
        };
        let cells = reference.key.columns.iter().zip(&asked);
        if asked != shown && !self.overwrite(cells, place)? {
            return Ok(true);
        }
        masks::end(conn, (table.id, place), |lane| lanes.contains(&lane))?;
        if !is_held {
            let mask = self.mask_of(reference, &key, merged)?;
            self.keep(place, &[mask])?;
        }
        Ok(asked != shown)
    }

    /// Writes cells of a shown row. Returns false if a constraint stands against it: then the row is
    /// parked, and the contest decides.
    fn overwrite<'v>(
        &mut self,
        cells: impl Iterator<Item = (&'v String, &'v Value)>,
        place: &RowKey,
    ) -> rusqlite::Result<bool> {
        let (names, values): (Vec<&String>, Vec<&Value>) = cells.unzip();
        let set = names.iter().enumerate();
        let set = set.map(|(at, column)| format!("{} = ?{}", quoted(column), at + 1));
        let set = list(set, ", ");
        let (name, condition) = (
            self.table.quoted(),
            self.table.key_condition(values.len() + 1),
        );
        let update = format!("UPDATE OR ABORT main.{name} SET {set} WHERE {condition}");
        let key = store::unpacked(place);
        let values = values.into_iter().chain(&key).map(Bound);
        let mut statement = self.conn.prepare_cached(&update)?;
        match statement.execute(params_from_iter(values)) {
            Err(error) if is_met(self.conn, &error) => {
                self.hide(place)?;
                Ok(false)
            }
            done => done.map(|_| true),
        }
    }

    /// Shows all that a row keeps, by whichever foreign key.
    pub(in crate::constraints) fn unmask(&mut self, place: &RowKey) -> rusqlite::Result<()> {
        let kept = masks::at(self.conn, self.table.id, place)?;
        let columns = self.table.columns.iter();
        let cells: Vec<(&String, &Value)> = columns
            .filter_map(|column| Some((&column.name, kept.get(&column.lane)?)))
            .collect();
        if cells.is_empty() || self.overwrite(cells.into_iter(), place)? {
            masks::remove(self.conn, self.table.id, place)?;
        }
        Ok(())
    }
}
