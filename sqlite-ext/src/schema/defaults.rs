//! The default values that a peer's table definition may have.
//!
//! SQLite looks at a default only when a row needs it, and then runs it in the application's
//! connection, with whatever functions the application put there. So what a peer sends may name
//! functions that only compute, and each default is worked out once, within limits, before the
//! definition is used.

use std::ffi::{CStr, c_char, c_int, c_void};

use rusqlite::{Connection, ffi};

use super::authorize;
use crate::table::TableInfo;

/// The most bytes that a default may have.
const DEFAULT_BYTES_MAX: c_int = 1 << 20;
const _: () = assert!(DEFAULT_BYTES_MAX > 0);

/// SQLite's functions that only compute: they read no file, load nothing and change nothing.
const HARMLESS: [&str; 53] = [
    "abs",
    "ceil",
    "ceiling",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "floor",
    "format",
    "glob",
    "hex",
    "ifnull",
    "iif",
    "instr",
    "json",
    "json_array",
    "json_object",
    "json_quote",
    "jsonb",
    "julianday",
    "length",
    "like",
    "lower",
    "ltrim",
    "max",
    "min",
    "mod",
    "nullif",
    "octet_length",
    "printf",
    "quote",
    "random",
    "randomblob",
    "replace",
    "round",
    "rtrim",
    "sign",
    "strftime",
    "substr",
    "substring",
    "time",
    "timediff",
    "trim",
    "typeof",
    "unhex",
    "unicode",
    "unixepoch",
    "upper",
];

/// Works the defaults of a table in the scratch database out.
pub(super) fn check(scratch: &Connection, table: &str) -> rusqlite::Result<()> {
    let Some(info) = TableInfo::read(scratch, table)? else {
        return Ok(());
    };
    #[expect(
        unsafe_code,
        reason = "rusqlite has limits with features that older hosts lack"
    )]
    // SAFETY: the handle is open as long as `scratch` is.
    unsafe {
        ffi::sqlite3_limit(
            scratch.handle(),
            ffi::SQLITE_LIMIT_LENGTH,
            DEFAULT_BYTES_MAX,
        )
    };
    authorize(scratch, Some(allow_computing))?;
    let defaults = info
        .columns
        .iter()
        .filter_map(|column| column.default.as_deref());
    for default in defaults {
        scratch
            .prepare(&format!("SELECT ({default})"))?
            .query_row([], |_| Ok(()))?;
    }
    authorize(scratch, None)
}

/// Allows expressions of harmless functions, and no table.
///
/// # Safety
///
/// `name` is null or a C string, as SQLite promises.
#[expect(unsafe_code, reason = "SQLite calls it")]
unsafe extern "C" fn allow_computing(
    _user_data: *mut c_void,
    action: c_int,
    _object: *const c_char,
    name: *const c_char,
    _database: *const c_char,
    _trigger: *const c_char,
) -> c_int {
    let is_allowed = match action {
        ffi::SQLITE_SELECT => true,
        ffi::SQLITE_FUNCTION if !name.is_null() => {
            // SAFETY: checked above not to be null.
            let name = unsafe { CStr::from_ptr(name) };
            let name = name.to_string_lossy().to_ascii_lowercase();
            HARMLESS.contains(&name.as_str())
        }
        _ => false,
    };
    if is_allowed {
        ffi::SQLITE_OK
    } else {
        ffi::SQLITE_DENY
    }
}
