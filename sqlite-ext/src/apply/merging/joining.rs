//! The merge of what sites added to cells that join.

use syncline_crdt::{Group, LifeOutcome, Stamp, Value};

use super::{Cells, Merging, Met};
use crate::apply::{ImportError, written};
use crate::joined::{Cell, CellPlace, forget, show};
use crate::rights;
use crate::shadow::Sites;
use crate::table::JoinedColumn;

impl<'a> Merging<'a> {
    /// Merges a group of deltas that the site with ordinal `site` wrote.
    pub(super) fn deltas(
        &mut self,
        (group, told): (&Group, &Group),
        (name, site): (&str, i64),
        sites: &mut Sites,
    ) -> Result<(), ImportError> {
        let table = self.table;
        let is_named = |column: &str| column.eq_ignore_ascii_case(name);
        let mut joined = table.joined.iter();
        let Some(column) = joined.find(|joined| is_named(&joined.column.name)) else {
            if table.columns.iter().any(|column| is_named(&column.name)) {
                return Err(ImportError::NotHeld {
                    table: table.name.clone(),
                });
            }
            self.lacking.push(told.clone());
            return Ok(());
        };
        let cells = Cells {
            columns: vec![],
            group,
            clock: written(site, group.stamp.version),
            born: match table.is_counted() {
                true => sites.ordinal(self.conn, group.born)?,
                false => site,
            },
        };
        for values in group.values.chunks(table.key_columns.len() + 1) {
            let [key @ .., Value::Blob(delta)] = values else {
                continue;
            };
            let mut met = self.meet(key, values, cells.born)?;
            if self.past.rejoin.is_some() {
                self.rejoin(&mut met, (group, cells.born), sites)?;
            }
            let Some(outcome) = self.outcome(&met, group) else {
                continue;
            };
            match outcome {
                LifeOutcome::Same if met.place.is_some() => {}
                LifeOutcome::Begins => {
                    self.begin(&mut met, &cells)?;
                    self.store_fresh()?;
                    met = self.meet(key, values, cells.born)?;
                }
                // Nothing is added to a row that is dead.
                LifeOutcome::Past | LifeOutcome::Ends | LifeOutcome::Same => continue,
            }
            self.join(&met, column, (group.stamp, site), delta, sites)?;
        }
        self.store_fresh()?;
        Ok(())
    }

    /// Takes one delta into its cell and shows what that comes to.
    fn join(
        &mut self,
        met: &Met<'_>,
        column: &JoinedColumn,
        (stamp, site): (Stamp, i64),
        delta: &[u8],
        sites: &Sites,
    ) -> Result<(), ImportError> {
        let key = self.table.life_key(&met.key);
        let at = CellPlace::new(self.table, column, &key);
        let mut cell = Cell::read(self.conn, sites, at, column.policy)?;
        let refused = |source| ImportError::Delta {
            table: self.table.name.clone(),
            column: column.column.name.clone(),
            source,
        };
        if !cell.join(stamp, delta).map_err(refused)? {
            cell.keep();
            return Ok(());
        }
        let shown = cell.shown();
        rights::note(self.conn, self.table, column, &met.key, (&cell, sites))?;
        cell.write(self.conn, at, (site, stamp.version), delta)?;
        if let Some(shown) = shown {
            self.show(met, column, &shown)?;
        }
        Ok(())
    }

    /// Shows what a cell comes to; its row is parked if a constraint stands against that.
    fn show(
        &mut self,
        met: &Met<'_>,
        column: &JoinedColumn,
        value: &Value,
    ) -> Result<(), ImportError> {
        self.guard.touch(&self.table.life_key(&met.key));
        self.changed_count += 1;
        let cell = || std::iter::once((&column.column, value));
        if let (true, Some(place)) = (met.is_parked, &met.place) {
            return Ok(self.guard.update(place, cell())?);
        }
        match show(self.conn, self.table, column, &met.key, value) {
            Err(error) if self.guard.is_met(&error) => {
                let place = self.guard.hide(&met.key)?.ok_or(error)?;
                Ok(self.guard.update(&place, cell())?)
            }
            done => Ok(done.map(drop)?),
        }
    }

    /// Drops what was added to the cells of a row whose life ends.
    pub(super) fn forget_joined(&self, met: &Met<'_>) -> rusqlite::Result<()> {
        let key = self.table.life_key(&met.key);
        forget(self.conn, self.table, &key, &key)
    }
}
