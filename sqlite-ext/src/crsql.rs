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
mod no_rows;
mod order_key;
mod pack;
mod plan;
mod scan;
mod session;
mod storage;
mod takeover;
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

/// Does what [`crate::register`] does, and makes the tables that a program finds once it has loaded
/// cr-sqlite.
#[cfg(feature = "loadable")]
pub(crate) fn register_in_its_place(conn: &Connection) -> Result<()> {
    crate::register(conn)?;
    match storage::prepare(conn) {
        Err(error) if !conn.is_readonly("main")? => Err(error.into_sqlite()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
