//! The merge where every replica counts its own ids: from numbers and sites to the ids shown here.

use std::borrow::Cow;

use syncline_crdt::Value;

use super::super::ImportError;
use super::{Merging, Met, Placed};
use crate::births;
use crate::placing::Placing;
use crate::table::RowKey;

impl<'a> Merging<'a> {
    /// Finds a row by its number and the site that created it.
    pub(super) fn find<'v>(
        &mut self,
        number: i64,
        key: &'v [Value],
        born: i64,
    ) -> Result<Placed<'v>, ImportError> {
        if self.has_rekeyed {
            self.store_fresh()?;
            let found = Placing::new(self.conn, self.table).find((number, born))?;
            let Some(id) = found else {
                return Ok((Cow::from(key), None, None));
            };
            let key = [Value::Integer(id)];
            let (_, shown, parked) = self.place(&key)?;
            return Ok((key.to_vec().into(), shown, parked));
        }
        let placed = self.place(key)?;
        if placed.1.is_some() || placed.2.is_some() {
            self.store_fresh()?;
            if births::at(self.conn, self.table, number)? != Some(born) {
                return Ok((Cow::from(key), None, None));
            }
        }
        Ok(placed)
    }

    /// Finds the id for a row that begins to live.
    pub(super) fn claim(&mut self, met: &mut Met<'_>, born: i64) -> Result<(), ImportError> {
        let RowKey::Rowid(number) = met.life_key else {
            return Ok(());
        };
        let (_, shown, parked) = self.place(&met.key)?;
        if !self.has_rekeyed && shown.is_none() && parked.is_none() {
            return Ok(());
        }
        self.store_fresh()?;
        let mut placing = Placing::new(self.conn, self.table);
        let id = placing.claim((number, born))?;
        self.take_moves(placing)?;
        met.key = vec![Value::Integer(id)].into();
        Ok(())
    }

    /// Lets the row that wants the id of one that is gone have it.
    pub(super) fn vacate(&mut self, met: &Met<'_>) -> Result<(), ImportError> {
        if let Some(RowKey::Rowid(id)) = met.place
            && self.table.is_counted()
            && self.has_rekeyed
        {
            self.store_fresh()?;
            let mut placing = Placing::new(self.conn, self.table);
            placing.vacate(id)?;
            self.take_moves(placing)?;
        }
        Ok(())
    }

    /// Notes that a row is about to go.
    pub(super) fn note_gone(&mut self, met: &Met<'_>, born: i64) {
        if let (true, RowKey::Rowid(number)) = (self.table.is_counted(), &met.life_key)
            && met.place.as_ref() == Some(&met.life_key)
        {
            let moves = self.referring.renames.of(self.table.id);
            moves.note_gone(*number, (*number, born));
        }
    }

    /// Notes which rows moved.
    fn take_moves(&mut self, placing: Placing<'_>) -> Result<(), ImportError> {
        self.has_rekeyed = true;
        self.guard.note_moves(&placing.moved);
        let renames = &mut self.referring.renames;
        renames.of(self.table.id).note_all(&placing.moved);
        Ok(())
    }
}
