//! The entry points that SQLite looks for in a file named `libsyncline` or `syncline`, and in one
//! named `crsqlite`.

#![expect(unsafe_code, reason = "SQLite calls extensions through a C function")]

use std::ffi::{c_char, c_int};
use std::mem::{MaybeUninit, offset_of};
use std::ptr;

use rusqlite::{Connection, ffi};

type Routines = ffi::sqlite3_api_routines;

/// Each connection loads the extension for itself.
const IS_PERSISTENT: bool = false;

/// The oldest SQLite that has what the SQL here needs: `pragma_table_list`.
const HOST_LEAST: c_int = 3_037_000;
const TOO_OLD: &[u8] = b"Syncline needs SQLite 3.37 or later\0";

/// Adds the SQL functions to the connection that loads the extension.
///
/// # Safety
///
/// SQLite calls it with an open connection and its table of routines.
#[unsafe(no_mangle)]
#[expect(unreachable_pub, reason = "SQLite finds it by its name")]
pub unsafe extern "C" fn sqlite3_syncline_init(
    db: *mut ffi::sqlite3,
    error: *mut *mut c_char,
    api: *mut Routines,
) -> c_int {
    let add = |conn: Connection| crate::register(&conn).map(|()| IS_PERSISTENT);
    // SAFETY: the arguments are SQLite's own, and are passed on unchanged.
    unsafe { load(db, error, api, add) }
}

/// The same in the place of cr-sqlite, whose tables are then there from the beginning.
///
/// # Safety
///
/// SQLite calls it with an open connection and its table of routines.
#[unsafe(no_mangle)]
#[expect(unreachable_pub, reason = "SQLite finds it by its name")]
pub unsafe extern "C" fn sqlite3_crsqlite_init(
    db: *mut ffi::sqlite3,
    error: *mut *mut c_char,
    api: *mut Routines,
) -> c_int {
    let add = |conn: Connection| crate::crsql::register_in_its_place(&conn).map(|()| IS_PERSISTENT);
    // SAFETY: the arguments are SQLite's own, and are passed on unchanged.
    unsafe { load(db, error, api, add) }
}

/// # Safety
///
/// The arguments must be those of an entry point.
unsafe fn load(
    db: *mut ffi::sqlite3,
    error: *mut *mut c_char,
    api: *mut Routines,
    add: fn(Connection) -> rusqlite::Result<bool>,
) -> c_int {
    // SAFETY: SQLite passes its own table, whose oldest members every version has.
    let version = unsafe { (*api).libversion_number.map_or(0, |version| version()) };
    if version < HOST_LEAST {
        // SAFETY: as above; the message is copied into memory that SQLite frees.
        unsafe { say_too_old(error, api) };
        return ffi::SQLITE_ERROR;
    }
    if version >= ffi::SQLITE_VERSION_NUMBER {
        // SAFETY: the arguments are SQLite's own, and are passed on unchanged.
        return unsafe { Connection::extension_init2(db, error, api, add) };
    }
    // SAFETY: `api` is the table of a SQLite of this version.
    let mut widened = unsafe { widened(api, version) };
    // SAFETY: as above, with a table that has the members this build knows; it is only read while
    // the call lasts.
    unsafe { Connection::extension_init2(db, error, &raw mut widened, add) }
}

/// Returns an older SQLite's table of routines with the size of the one this was built with.
///
/// rusqlite refuses hosts older than its bindings, although the table only ever grows at its end
/// and nothing here calls a routine that is younger than [`HOST_LEAST`]. Those it lacks are absent
/// in the copy, and the version is the one rusqlite asks for.
///
/// # Safety
///
/// `api` must be the table of a SQLite of this version, at least [`HOST_LEAST`].
unsafe fn widened(api: *const Routines, version: c_int) -> Routines {
    extern "C" fn built_with() -> c_int {
        ffi::SQLITE_VERSION_NUMBER
    }
    // The first member that came after these versions, by the comments in sqlite3ext.h.
    let known_bytes = if version >= 3_040_000 {
        offset_of!(Routines, is_interrupted)
    } else {
        offset_of!(Routines, error_offset)
    };
    let mut table = MaybeUninit::<Routines>::zeroed();
    // SAFETY: the host's table has at least these bytes, ours has more, and they do not overlap.
    // A zeroed member is a routine that is absent.
    let mut table = unsafe {
        ptr::copy_nonoverlapping(
            api.cast::<u8>(),
            table.as_mut_ptr().cast::<u8>(),
            known_bytes,
        );
        table.assume_init()
    };
    table.libversion_number = Some(built_with);
    table
}

/// # Safety
///
/// The arguments must be those of an entry point.
unsafe fn say_too_old(error: *mut *mut c_char, api: *const Routines) {
    // SAFETY: the table's oldest members are there, and `error` is null or ours to set.
    unsafe {
        let Some(malloc) = (*api).malloc else { return };
        let length = c_int::try_from(TOO_OLD.len()).expect("a short text");
        let text = malloc(length).cast::<u8>();
        if !error.is_null() && !text.is_null() {
            ptr::copy_nonoverlapping(TOO_OLD.as_ptr(), text, TOO_OLD.len());
            *error = text.cast();
        }
    }
}
