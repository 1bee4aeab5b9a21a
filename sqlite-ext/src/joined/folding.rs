//! What a fold does with joined cells: it compares what a cell shows with its state, and the
//! difference is what was written.

use std::collections::BTreeSet;

use rusqlite::Connection;
use syncline_crdt::{Hlc, SiteId, Stamp, Value};

use super::{Cell, CellPlace, show};
use crate::clocks::{self, Lane, ROW};
use crate::constraints::{Guard, is_met};
use crate::mask::Mask;
use crate::quiet::Quiet;
use crate::rights;
use crate::rows;
use crate::shadow::{OWN, Sites, site_id, tick_oldest};
use crate::shape::whole;
use crate::table::{JoinedColumn, RowKey, Table};
use crate::value::quoted;

/// One table's fold.
pub(crate) struct Folding<'a> {
    conn: &'a Connection,
    table: &'a Table,
    sites: Sites,
    own: SiteId,
}

/// A row's key and a value that it has to show.
type Correction<'a> = (Vec<Value>, &'a JoinedColumn, Value);

impl<'a> Folding<'a> {
    pub(crate) fn new(conn: &'a Connection, table: &'a Table) -> rusqlite::Result<Self> {
        Ok(Folding {
            conn,
            table,
            sites: Sites::load(conn)?,
            own: site_id(conn)?,
        })
    }

    /// Folds the rows from `first` to `last`, of which the lanes in `mask` were written, into
    /// `version`. Returns those that are parked then, since the table does not admit what they come
    /// to.
    pub(crate) fn rows(
        &self,
        (first, last): (&RowKey, &RowKey),
        mask: &Mask,
        version: Hlc,
    ) -> rusqlite::Result<BTreeSet<RowKey>> {
        let (conn, table) = (self.conn, self.table);
        let is_written = |column: &&JoinedColumn| mask.has(column.column.lane);
        let columns: Vec<&JoinedColumn> = table.joined.iter().filter(is_written).collect();
        if columns.is_empty() {
            return Ok(BTreeSet::new());
        }
        let names: Vec<&str> = columns.iter().map(|column| &*column.column.name).collect();
        let key_count = table.key_columns.len();
        let mut corrections = Vec::new();
        rows::for_each_named(conn, table, &names, (first, last), |_, values| {
            let (key, cells) = values.split_at(key_count);
            let life_key = table.life_key(key);
            for (column, visible) in columns.iter().copied().zip(cells) {
                let at = CellPlace::new(table, column, &life_key);
                let shown = self.cell(at, column, (key, visible), version)?;
                corrections.extend(shown.map(|shown| (key.to_vec(), column, shown)));
            }
            Ok(())
        })?;
        self.correct(&corrections)
    }

    /// Folds one cell, and returns what it has to show if it shows something else.
    fn cell(
        &self,
        at: CellPlace<'_>,
        column: &JoinedColumn,
        (key, visible): (&[Value], &Value),
        version: Hlc,
    ) -> rusqlite::Result<Option<Value>> {
        let mut cell = Cell::read(self.conn, &self.sites, at, column.policy)?;
        let site = self.own;
        let delta = cell.edit(Stamp { version, site }, visible)?;
        let shown = cell.shown();
        match delta {
            Some(delta) => {
                rights::note(self.conn, self.table, column, key, (&cell, &self.sites))?;
                cell.write(self.conn, at, (OWN, version), &delta)?;
            }
            None => cell.keep(),
        }
        Ok(shown.filter(|shown| !is_same(shown, visible)))
    }

    /// Shows what the cells come to, where that is not what was written.
    fn correct(&self, corrections: &[Correction<'_>]) -> rusqlite::Result<BTreeSet<RowKey>> {
        let mut parked = BTreeSet::new();
        if corrections.is_empty() {
            return Ok(parked);
        }
        let _quiet = Quiet::begin(self.conn)?;
        let mut guard = Guard::new(self.conn, self.table)?;
        for (key, column, shown) in corrections {
            let cell = || std::iter::once((&column.column, shown));
            // Another cell of the row may have parked it.
            if let Some(place) = guard.place(key)? {
                guard.update(&place, cell())?;
                continue;
            }
            match show(self.conn, self.table, column, key, shown) {
                Err(error) if is_met(self.conn, &error) => {
                    let place = guard.hide(key)?.ok_or(error)?;
                    guard.update(&place, cell())?;
                    parked.insert(self.table.life_key(key));
                }
                done => done.map(drop)?,
            }
        }
        Ok(parked)
    }
}

/// Whether a column that may make reals of whole numbers shows a value.
fn is_same(shown: &Value, visible: &Value) -> bool {
    shown == visible || whole(shown) == whole(visible)
}

/// Tells the joined cells of all rows, as this replica's, where nobody wrote them yet.
pub(crate) fn fill(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    if table.joined.is_empty() {
        return Ok(());
    }
    let rows = Lane {
        table_id: table.id,
        lane: ROW,
    };
    let folding = Folding::new(conn, table)?;
    let mut oldest = None;
    for range in clocks::all(conn, rows)? {
        let version = match (range.clock.site, range.clock.version) {
            (OWN, version) if version > Hlc::ZERO => version,
            _ => match oldest {
                Some(version) => version,
                None => *oldest.insert(tick_oldest(conn)?),
            },
        };
        folding.rows((&range.first, &range.last), &Mask::WHOLE, version)?;
    }
    Ok(())
}

/// Takes in what was written to the joined cells of some rows, by their places, into `version`.
pub(crate) fn fold_rows(
    conn: &Connection,
    table: &Table,
    places: &[RowKey],
    version: Hlc,
) -> rusqlite::Result<()> {
    let folding = Folding::new(conn, table)?;
    for place in places {
        folding.rows((place, place), &Mask::WHOLE, version)?;
    }
    Ok(())
}

/// Shows the cells of a column that was added anew as those that nobody wrote, where they hold its
/// default: else the next write would count that as somebody's.
pub(crate) fn leave_unwritten(
    conn: &Connection,
    table: &Table,
    column: &JoinedColumn,
    default: &str,
) -> rusqlite::Result<()> {
    let Some(placeholder) = &column.column.placeholder else {
        return Ok(());
    };
    let (name, column) = (table.quoted(), quoted(&column.column.name));
    let _quiet = Quiet::begin(conn)?;
    // Where a CHECK is against it, the default stays.
    let update = format!(
        "UPDATE OR IGNORE main.{name} SET {column} = {placeholder} WHERE {column} IS ({default})"
    );
    conn.execute(&update, [])?;
    Ok(())
}
