//! Primary keys as one blob: `crsql_pack_columns` and the table `crsql_unpack_columns`.

use std::borrow::Cow;
use std::ffi::{CStr, c_int};

use rusqlite::functions::{Context as FunctionContext, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexInfo, Module, VTab, VTabConfig, VTabConnection,
    VTabCursor, sqlite3_vtab, sqlite3_vtab_cursor,
};
use rusqlite::{Connection, Error, Result};
use syncline_crdt::{DecodeError, Value, pack_key, unpack_key};

use crate::value::{Bound, from_sqlite};

/// The most values one package holds: their count is one byte.
const VALUES_COUNT_MAX: usize = 255;

/// The column of [`SHAPE`] that holds the package.
const PACKAGE: c_int = 1;
const SHAPE: &CStr = c"CREATE TABLE x(cell ANY, package BLOB HIDDEN)";

#[derive(Debug, thiserror::Error)]
enum PackageError {
    #[error("crsql_pack_columns takes at most {VALUES_COUNT_MAX} values, and there are {0}")]
    TooMany(usize),
    #[error("crsql_unpack_columns needs its package: write `WHERE package = …`")]
    Missing,
    #[error("a package is a blob that crsql_pack_columns() made")]
    NoBlob,
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Adds `crsql_pack_columns(…)` and `crsql_unpack_columns` to a connection.
pub(super) fn register(conn: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("crsql_pack_columns", -1, flags, |context| {
        pack(context).map_err(function_error)
    })?;
    const MODULE: &Module<'_, Packages> = &Module::eponymous_only_module();
    conn.create_module(c"crsql_unpack_columns", MODULE, None)
}

fn function_error(error: PackageError) -> Error {
    Error::UserFunctionError(Box::new(error))
}

fn table_error(error: PackageError) -> Error {
    Error::ModuleError(error.to_string())
}

fn pack(context: &FunctionContext<'_>) -> std::result::Result<Vec<u8>, PackageError> {
    if context.len() > VALUES_COUNT_MAX {
        return Err(PackageError::TooMany(context.len()));
    }
    let values = (0..context.len()).map(|at| from_sqlite(context.get_raw(at)));
    Ok(pack_key(&values.collect::<Vec<_>>()))
}

fn unpack(package: ValueRef<'_>) -> std::result::Result<Vec<Value>, PackageError> {
    match package {
        // No value equals NULL, so no package does.
        ValueRef::Null => Ok(Vec::new()),
        ValueRef::Blob(package) => Ok(unpack_key(package)?),
        _ => Err(PackageError::NoBlob),
    }
}

/// The table-valued function `crsql_unpack_columns`.
#[repr(C)]
struct Packages {
    /// SQLite's part; it has to be the first.
    base: sqlite3_vtab,
}

#[expect(unsafe_code, reason = "SQLite reads the first field of a table")]
// SAFETY: the struct is `repr(C)` and begins with `sqlite3_vtab`.
unsafe impl<'vtab> VTab<'vtab> for Packages {
    type Aux = ();
    type Cursor = Cells;

    fn connect(
        db: &mut VTabConnection,
        _aux: Option<&()>,
        _module: &[u8],
        _database: &[u8],
        _table: &[u8],
        _arguments: &[&[u8]],
    ) -> Result<(Cow<'static, CStr>, Self)> {
        db.config(VTabConfig::Innocuous)?;
        let base = sqlite3_vtab::default();
        Ok((Cow::Borrowed(SHAPE), Packages { base }))
    }

    fn best_index(&self, info: &mut IndexInfo) -> Result<bool> {
        let mut is_wanted = false;
        for (constraint, mut usage) in info.constraints_and_usages() {
            let is_package = constraint.column() == PACKAGE
                && constraint.operator() == IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_EQ;
            if !is_package {
                continue;
            }
            is_wanted = true;
            if constraint.is_usable() {
                usage.set_argv_index(1);
                usage.set_omit(true);
                info.set_estimated_cost(1.0);
                info.set_estimated_rows(2);
                return Ok(true);
            }
        }
        // Where another order of the join gives the package, SQLite has to take that one.
        Ok(!is_wanted)
    }

    fn open(&mut self) -> Result<Cells> {
        Ok(Cells::default())
    }
}

/// The values of one package, one a row.
#[repr(C)]
#[derive(Default)]
struct Cells {
    /// SQLite's part; it has to be the first.
    base: sqlite3_vtab_cursor,
    package: Vec<u8>,
    values: Vec<Value>,
    at: usize,
}

#[expect(unsafe_code, reason = "SQLite reads the first field of a cursor")]
// SAFETY: the struct is `repr(C)` and begins with `sqlite3_vtab_cursor`.
unsafe impl VTabCursor for Cells {
    fn filter(&mut self, _plan: c_int, _name: Option<&str>, args: &Filters<'_>) -> Result<()> {
        let package = args.iter().next().ok_or(PackageError::Missing);
        let package = package.map_err(table_error)?;
        self.at = 0;
        self.values = unpack(package).map_err(table_error)?;
        self.package = package.as_blob_or_null()?.unwrap_or_default().to_vec();
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.at += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.at >= self.values.len()
    }

    fn column(&self, context: &mut Context, column: c_int) -> Result<()> {
        if column == PACKAGE {
            return context.set_result(&self.package);
        }
        context.set_result(Bound(&self.values[self.at]))
    }

    fn rowid(&self) -> Result<i64> {
        Ok(i64::try_from(self.at).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests;
