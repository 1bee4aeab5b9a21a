//! Whose the rows are that are shown under the ids of a counted table: from ids to identities.

use rusqlite::Connection;

use crate::births::{self, Births};
use crate::placing::Identity;
use crate::rekeyed;

/// Looks up who is shown under an id; neighbours cost one look-up together.
#[derive(Debug)]
pub(crate) struct Whose {
    table_id: i64,
    /// Whether any row is shown under another id than its number.
    has_rekeyed: bool,
    /// The rows that were found last.
    run: Option<Births>,
}

impl Whose {
    pub(crate) fn new(conn: &Connection, table_id: i64) -> rusqlite::Result<Self> {
        Ok(Whose {
            table_id,
            has_rekeyed: rekeyed::any(conn, table_id)?,
            run: None,
        })
    }

    /// Returns who is shown under an id, or is kept in mind under it.
    pub(crate) fn at(&mut self, conn: &Connection, id: i64) -> rusqlite::Result<Option<Identity>> {
        if self.has_rekeyed
            && id < 0
            && let Some(entry) = rekeyed::by_id(conn, self.table_id, id)?
        {
            return Ok(Some((entry.number, entry.site)));
        }
        let covers = |run: &Births| run.first <= id && id <= run.last;
        if !self.run.as_ref().is_some_and(covers) {
            self.run = births::run_at(conn, self.table_id, id)?;
        }
        Ok(self.run.map(|run| (id, run.site)))
    }
}
