//! The fold of tables whose keys refer to rows of tables with counted ids.
//!
//! It comes after that of those tables, when it is known which rows are shown under which ids. What
//! is noted of a key names it by the ids that it had when it was written, and is brought to the ones
//! that the same rows have then. An id may also have been given to another row meanwhile: rows whose
//! keys hold it are others from then on, and those they were are gone.

use rusqlite::Connection;

use super::runs::{Run, disjoint};
use super::{FoldError, Notes};
use crate::constraints::{Touched, store};
use crate::mask::Mask;
use crate::moved_keys::{Followed, Noted, Parted};
use crate::renames::Renames;
use crate::rows;
use crate::table::{KeyKind, RowKey, Table};

/// Takes the notes of some tables, and has all of their keys follow the rows that moved.
pub(super) fn follow(
    conn: &Connection,
    tables: Vec<Table>,
    renames: &mut Renames,
    touched: &mut Touched,
) -> Result<Vec<(Table, Notes)>, FoldError> {
    let (mut keyed, mut all_notes) = (Vec::new(), Vec::new());
    for table in tables {
        let notes = Notes::take(conn, &table)?;
        let noted = notes.keys(conn, &table)?;
        keyed.push((table, noted));
        all_notes.push(notes);
    }
    if keyed.is_empty() {
        return Ok(Vec::new());
    }
    let followed = renames.follow(conn, &keyed, touched)?;
    let notes = all_notes.into_iter().zip(followed);
    let tables = keyed.into_iter().zip(notes);
    let noted = tables.map(|((table, _), (mut notes, followed))| {
        notes.follow(conn, &table, &followed)?;
        Ok((table, notes))
    });
    noted.collect()
}

impl Notes {
    /// Returns the keys that are noted.
    fn keys(&self, conn: &Connection, table: &Table) -> rusqlite::Result<Noted> {
        let mut noted = Noted::default();
        let deleted = self.deleted.iter();
        noted
            .others
            .extend(deleted.map(|(key, _)| table.life_key(key)));
        for Run { first, last, mask } in &self.written {
            match table.kind {
                KeyKind::Packed if mask.is_whole() => drop(noted.new.insert(first.clone())),
                KeyKind::Packed => drop(noted.others.insert(first.clone())),
                _ if mask.is_whole() => {
                    rows::for_each(conn, table, &[], (first, last), |_, key| {
                        noted.new.insert(table.life_key(&key));
                        Ok(())
                    })?;
                }
                _ => {}
            }
        }
        Ok(noted)
    }

    /// Names rows by the keys that they have.
    fn follow(
        &mut self,
        conn: &Connection,
        table: &Table,
        followed: &Followed,
    ) -> rusqlite::Result<()> {
        let mut deleted = Vec::new();
        for (key, rowid) in std::mem::take(&mut self.deleted) {
            let key = table.life_key(&key);
            // Nobody can have heard of a row whose key refers to one that nobody made.
            if followed.unknown.contains(&key) {
                continue;
            }
            let kept = followed.kept.get(&key).unwrap_or(&key);
            // Nobody can have deleted a row that is parked: a new one was, which leaves nothing.
            let may_be_new = followed.ambiguous.contains(&key);
            if !may_be_new || !store::contains(conn, table.id, kept)? {
                deleted.push((store::unpacked(kept), rowid));
            }
        }
        if table.kind == KeyKind::Packed {
            self.written.retain_mut(|run| run.follow(followed));
        }
        for Parted { former, place } in &followed.parted {
            let (place, rowid) = match place {
                RowKey::Rowid(rowid) => (place, Some(*rowid)),
                RowKey::Packed(_) => (followed.shown.get(place).unwrap_or(place), None),
            };
            deleted.push((store::unpacked(former), rowid));
            self.written.push(Run {
                first: place.clone(),
                last: place.clone(),
                mask: Mask::WHOLE,
            });
        }
        self.reborn = followed.reborn.iter().cloned().collect();
        deleted.sort_unstable();
        deleted.dedup();
        self.deleted = deleted;
        self.written = disjoint(std::mem::take(&mut self.written));
        Ok(())
    }
}

impl Run {
    /// Names the row of a run of one by the key that it has. Returns whether it leaves anything.
    fn follow(&mut self, followed: &Followed) -> bool {
        if followed.absent.contains(&self.first) {
            return false;
        }
        let shown = followed.shown.get(&self.first);
        if let Some(key) = shown.or_else(|| followed.kept.get(&self.first)) {
            (self.first, self.last) = (key.clone(), key.clone());
        }
        true
    }
}
