//! cr-sqlite's SQL surface, so that a program written for it can load Syncline in its place.

use rusqlite::{Connection, Result};

mod automigrate;
mod fractional;
mod identity;
mod order_key;
mod pack;

/// Adds the functions and modules to a connection.
pub(crate) fn register(conn: &Connection) -> Result<()> {
    automigrate::register(conn)?;
    identity::register(conn)?;
    pack::register(conn)?;
    fractional::register(conn)
}
