//! What the library says of itself, and the call before closing that it does not need.

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, Result};

const VERSION: &str = concat!("syncline ", env!("CARGO_PKG_VERSION"));

/// Adds the functions to a connection.
///
/// | function | returns |
/// | --- | --- |
/// | `crsql_version()` | `syncline` and the version, so that a program can tell whom it loaded |
/// | `crsql_sha()` | the same: it names a build, and ours are named by their version |
/// | `crsql_finalize(…)` | `finalized`; there is nothing to end, so all goes on working |
pub(super) fn register(conn: &Connection) -> Result<()> {
    let constant = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("crsql_version", 0, constant, |_| Ok(VERSION))?;
    conn.create_scalar_function("crsql_sha", 0, constant, |_| Ok(VERSION))?;
    conn.create_scalar_function("crsql_finalize", -1, constant, |_| Ok("finalized"))
}

#[cfg(test)]
mod tests;
