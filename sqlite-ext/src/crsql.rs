//! cr-sqlite's SQL surface, so that a program written for it can load Syncline in its place.
//!
//! A table made a CRR by `crsql_as_crr` keeps cr-sqlite's own counters, so a real cr-sqlite
//! replica and this one exchange rows of `crsql_changes`. Capture stays plain SQL: triggers note
//! what was touched, in order, and [`fold`] turns the notes into clocks. With the extension loaded
//! that happens as each transaction commits, see [`transaction`].

use rusqlite::{Connection, Result};

mod alter;
mod automigrate;
mod capture;
mod cells;
mod changes;
mod clset;
mod convert;
mod crr;
mod error;
mod fold;
mod fractional;
mod functions;
mod identity;
mod leave;
mod merge;
mod order_key;
mod pack;
mod plan;
mod scan;
mod session;
mod storage;
mod transaction;
mod upkeep;
mod views;

pub(crate) use leave::leave;
pub(crate) use storage::is_crr;

/// Adds the functions and modules to a connection.
pub(crate) fn register(conn: &Connection) -> Result<()> {
    automigrate::register(conn)?;
    clset::register(conn)?;
    identity::register(conn)?;
    pack::register(conn)?;
    fractional::register(conn)?;
    functions::register(conn)
}

#[cfg(test)]
mod tests;
