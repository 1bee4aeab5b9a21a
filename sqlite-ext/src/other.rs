//! Loads another extension, such as a cr-sqlite, in place of what this crate does.

use std::path::Path;

use rusqlite::{Connection, Result};

/// Loads the extension in a file into a connection; its entry point is the one SQLite derives from
/// the file's name.
///
/// The file's code runs with all rights of this process: it is only loaded where a person named it.
///
/// # Errors
///
/// If SQLite cannot load it.
pub fn load_extension(conn: &Connection, file: &Path) -> Result<()> {
    #[expect(unsafe_code, reason = "foreign code comes into the process")]
    // SAFETY: whoever names the file trusts it as they trust this program; loading is allowed for
    // this one call.
    unsafe {
        conn.load_extension_enable()?;
        let loaded = conn.load_extension(file, None::<&str>);
        conn.load_extension_disable()?;
        loaded
    }
}
