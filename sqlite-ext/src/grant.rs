//! Gives some of this replica's rights in a bounded counter to another replica.

use rusqlite::Connection;
use syncline_crdt::{GrantError, Hlc, SiteId, Stamp, Value};

use crate::fold::{FoldError, fold};
use crate::joined::{Cell, CellPlace};
use crate::rights;
use crate::rows;
use crate::shadow::{OWN, Sites, in_savepoint, is_prepared, tick};
use crate::table::{Table, TableError};

/// The bounded counter of one row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CounterCell<'a> {
    pub(crate) table: &'a str,
    /// The values of the row's primary key.
    pub(crate) key: &'a [Value],
    pub(crate) column: &'a str,
}

/// Why rights are not granted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RightsError {
    /// SQLite's own error.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// What was written before could not be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The table's declaration could not be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// There is no such bounded counter.
    #[error("`{table}` is not tracked with a bounded counter `{column}`")]
    NoCounter { table: String, column: String },
    /// There is no row with this key.
    #[error("`{table}` shows no row with this key of {given} values")]
    NoRow { table: String, given: usize },
    /// Nothing of the site ever arrived, so it may be nobody's, and what it is given would be lost.
    #[error(
        "site {site} is unknown here: a device is known by what it wrote, so import something of it \
         first, and see that these are the 16 bytes of its syncline_site_id()"
    )]
    Unknown { site: SiteId },
    /// What this replica holds does not allow it.
    #[error(transparent)]
    Refused(#[from] GrantError),
}

/// Gives the right to take an amount from a bounded counter to another site, after folding what was
/// written. Returns how much this replica may still take.
///
/// # Errors
///
/// [`RightsError`]; nothing is granted then.
pub(crate) fn grant(
    conn: &Connection,
    counter: CounterCell<'_>,
    (amount, to): (i64, SiteId),
    now_unix_ms: u64,
) -> Result<i64, RightsError> {
    let no_counter = || RightsError::NoCounter {
        table: counter.table.to_owned(),
        column: counter.column.to_owned(),
    };
    if !is_prepared(conn).map_err(FoldError::from)? {
        return Err(no_counter());
    }
    in_savepoint(conn, || {
        fold(conn, now_unix_ms)?;
        let table = Table::named(conn, counter.table)?.ok_or_else(no_counter)?;
        let mut columns = rights::bounded(&table).map(|(column, _)| column);
        let column = columns
            .find(|column| column.column.name.eq_ignore_ascii_case(counter.column))
            .ok_or_else(no_counter)?;
        let key = shown_key(conn, &table, counter.key)?;
        let place = table.life_key(&key);
        let at = CellPlace::new(&table, column, &place);
        let sites = Sites::load(conn)?;
        let own = sites.site(OWN);
        let wrote = |(_, site, version): (i64, SiteId, Hlc)| site == to && version > Hlc::ZERO;
        if to != own && !sites.iter().any(wrote) {
            return Err(RightsError::Unknown { site: to });
        }
        let mut cell = Cell::read(conn, &sites, at, column.policy)?;
        let Cell::Entries(entries) = &mut cell else {
            return Err(GrantError::NotBounded.into());
        };
        let entry = entries.grant(own, to, amount)?;
        let Stamp { version, .. } = tick(conn, now_unix_ms)?;
        entries
            .join(Stamp { version, site: own }, &entry)
            .expect("an entry made here is taken in");
        let left = entries.rights(own).unwrap_or(0);
        rights::note(conn, &table, column, &key, (&cell, &sites))?;
        cell.write(conn, at, (OWN, version), &entry)?;
        Ok(left)
    })
}

/// Returns a row's key as the table holds it.
fn shown_key(conn: &Connection, table: &Table, key: &[Value]) -> Result<Vec<Value>, RightsError> {
    let no_row = || RightsError::NoRow {
        table: table.name.clone(),
        given: key.len(),
    };
    if key.len() != table.key_columns.len() {
        return Err(no_row());
    }
    let key = rows::native_key(conn, table, key)?.ok_or_else(no_row)?;
    rows::place(conn, table, &key)?.ok_or_else(no_row)?;
    Ok(key)
}
