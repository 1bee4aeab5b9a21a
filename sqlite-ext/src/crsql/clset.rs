//! CRRs declared by one statement: `CREATE VIRTUAL TABLE foo_schema USING clset(…)` makes `foo`.
//!
//! The virtual table holds nothing. It stands for the definition: to drop it drops the CRR, with
//! its rows and clocks, on this device.

use std::borrow::Cow;
use std::ffi::CStr;

use rusqlite::vtab::{CreateVTab, IndexInfo, Module, VTab, VTabConnection, VTabKind, sqlite3_vtab};
use rusqlite::{Connection, Error, Result, ffi};

use super::automigrate::{call, drop_table};
use super::no_rows::NoRows;
use crate::shadow::inside_statement;
use crate::value::quoted;

const SUFFIX: &str = "_schema";
const SHAPE: &CStr = c"CREATE TABLE x(alteration TEXT HIDDEN, schema TEXT HIDDEN)";

/// Why no CRR is made.
#[derive(Debug, thiserror::Error)]
enum ClsetError {
    #[error(
        "`{0}` must end with {SUFFIX}: the table without that is made, and `{0}` stands for its \
         definition"
    )]
    Name(String),
    #[error("a table of `{0}` cannot be a crr: only those of the main database can")]
    Database(String),
    #[error("a table's definition is a text")]
    NoText,
    #[error("`{table}` cannot be made a crr: {source}")]
    Refused {
        table: String,
        #[source]
        source: Error,
    },
}

/// Adds the module `clset` to a connection.
pub(super) fn register(conn: &Connection) -> Result<()> {
    const MODULE: &Module<'_, Clset> = &Module::read_only_module();
    conn.create_module(c"clset", MODULE, None)
}

/// A virtual table that stands for a CRR's definition.
#[repr(C)]
struct Clset {
    /// SQLite's part; it has to be the first.
    base: sqlite3_vtab,
    db: *mut ffi::sqlite3,
    /// The CRR; `None` if the virtual table was renamed to something else.
    table: Option<String>,
}

impl Clset {
    fn new(db: &mut VTabConnection, name: &[u8]) -> Self {
        let name = std::str::from_utf8(name).ok();
        #[expect(unsafe_code, reason = "rusqlite gives the handle only so")]
        // SAFETY: it is used only in calls of SQLite's for this table.
        let db = unsafe { db.handle() };
        Clset {
            base: sqlite3_vtab::default(),
            db,
            table: name.and_then(crr_name).map(str::to_owned),
        }
    }

    fn connection(&self) -> Result<Connection> {
        #[expect(unsafe_code, reason = "SQLite calls with its own handle")]
        // SAFETY: the connection is open while SQLite calls for its table, and is used only while
        // the call lasts, on its thread.
        unsafe {
            Connection::from_handle(self.db)
        }
    }
}

fn crr_name(name: &str) -> Option<&str> {
    name.strip_suffix(SUFFIX).filter(|table| !table.is_empty())
}

fn module_error(error: ClsetError) -> Error {
    Error::ModuleError(error.to_string())
}

/// Makes the table and the CRR. There is no savepoint inside the statement that creates a virtual
/// table, so both are tried in an empty database first, and nothing is left behind by a refusal.
fn make(conn: &Connection, table: &str, columns: &str) -> Result<(), ClsetError> {
    let refused = |source| ClsetError::Refused {
        table: table.to_owned(),
        source,
    };
    let create = format!("CREATE TABLE main.{}({columns})", quoted(table));
    let scratch = Connection::open_in_memory().map_err(refused)?;
    crate::register(&scratch).map_err(refused)?;
    for conn in [&scratch, conn] {
        conn.execute(&create, []).map_err(refused)?;
        inside_statement(|| call(conn, "crsql_as_crr", table)).map_err(refused)?;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "SQLite reads the first field of a table")]
// SAFETY: the struct is `repr(C)` and begins with `sqlite3_vtab`.
unsafe impl VTab<'_> for Clset {
    type Aux = ();
    type Cursor = NoRows;

    fn connect(
        db: &mut VTabConnection,
        _aux: Option<&()>,
        _module: &[u8],
        _database: &[u8],
        name: &[u8],
        _arguments: &[&[u8]],
    ) -> Result<(Cow<'static, CStr>, Self)> {
        Ok((Cow::Borrowed(SHAPE), Clset::new(db, name)))
    }

    fn best_index(&self, _info: &mut IndexInfo) -> Result<bool> {
        Ok(true)
    }

    fn open(&mut self) -> Result<NoRows> {
        Ok(NoRows::default())
    }
}

impl CreateVTab<'_> for Clset {
    const KIND: VTabKind = VTabKind::Default;

    fn create(
        db: &mut VTabConnection,
        _aux: Option<&()>,
        _module: &[u8],
        database: &[u8],
        name: &[u8],
        arguments: &[&[u8]],
    ) -> Result<(Cow<'static, CStr>, Self)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !database.eq_ignore_ascii_case(b"main") {
            return Err(module_error(ClsetError::Database(text(database))));
        }
        let clset = Clset::new(db, name);
        let table = clset.table.as_ref();
        let table = table.ok_or_else(|| module_error(ClsetError::Name(text(name))))?;
        let columns = std::str::from_utf8(&arguments.join(&b","[..])).map(str::to_owned);
        let columns = columns.map_err(|_| module_error(ClsetError::NoText))?;
        make(&clset.connection()?, table, &columns).map_err(module_error)?;
        Ok((Cow::Borrowed(SHAPE), clset))
    }

    fn destroy(&self) -> Result<()> {
        match &self.table {
            Some(table) => {
                let conn = self.connection()?;
                inside_statement(|| drop_table(&conn, table))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
