//! Writes that are not the user's: nothing of theirs acts on them, and nothing captures them.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Error, ffi};

use crate::value::quoted;

/// Keeps triggers and foreign keys from acting on what is written here, has CHECKs evaluated, and
/// puts the connection back as it was.
pub(crate) struct Quiet<'a> {
    conn: &'a Connection,
    triggers: bool,
    foreign_keys: bool,
    ignores_checks: bool,
    /// The statements that make the application's temporary triggers.
    temporary: Vec<String>,
}

impl<'a> Quiet<'a> {
    pub(crate) fn begin(conn: &'a Connection) -> rusqlite::Result<Self> {
        refuse_owing(conn)?;
        let quiet = Quiet {
            conn,
            triggers: conn.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)?,
            foreign_keys: conn.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY)?,
            ignores_checks: conn.pragma_query_value(None, CHECKS, |row| row.get(0))?,
            temporary: take_temporary(conn)?,
        };
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
        quiet.ignore_checks(false)?;
        Ok(quiet)
    }

    fn end(&self) -> rusqlite::Result<()> {
        let conn = self.conn;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, self.triggers)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, self.foreign_keys)?;
        for sql in &self.temporary {
            conn.execute_batch(sql)?;
        }
        self.ignore_checks(self.ignores_checks)
    }

    fn ignore_checks(&self, ignores: bool) -> rusqlite::Result<()> {
        // Every statement is prepared anew after this pragma, whatever it was before.
        if self.ignores_checks {
            self.conn.pragma_update(None, CHECKS, ignores)?;
        }
        Ok(())
    }
}

/// Takes away the temporary triggers, and returns the statements that make them again. SQLite has no
/// switch for these: it leaves them on when triggers are switched off.
fn take_temporary(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let all = "SELECT name, sql FROM temp.sqlite_master WHERE type = 'trigger' ORDER BY rowid";
    let mut statement = conn.prepare_cached(all)?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let found: Vec<(String, String)> = found.collect::<Result<_, _>>()?;
    drop(statement);
    let mut made = Vec::new();
    for (name, sql) in found {
        conn.execute_batch(&format!("DROP TRIGGER temp.{}", quoted(&name)))?;
        // SQLite keeps the statement from the trigger's name on.
        made.push(sql.replacen("CREATE TRIGGER", "CREATE TEMP TRIGGER", 1));
    }
    Ok(made)
}

/// Refuses a transaction in which rows refer to nothing by a deferred key. SQLite counts them, and
/// would go on counting those that are hidden here when what they refer to is added: then the
/// transaction could not be committed.
fn refuse_owing(conn: &Connection) -> rusqlite::Result<()> {
    let (mut owing, mut unused) = (0, 0);
    #[expect(
        unsafe_code,
        reason = "rusqlite does not tell the status of a connection"
    )]
    // SAFETY: the handle is open as long as `conn` is, and both numbers outlive the call.
    let code = unsafe {
        ffi::sqlite3_db_status(
            conn.handle(),
            ffi::SQLITE_DBSTATUS_DEFERRED_FKS,
            &raw mut owing,
            &raw mut unused,
            0,
        )
    };
    if code != ffi::SQLITE_OK {
        return Err(Error::SqliteFailure(ffi::Error::new(code), None));
    }
    if owing == 0 {
        return Ok(());
    }
    let error = ffi::Error::new(ffi::SQLITE_CONSTRAINT_FOREIGNKEY);
    Err(Error::SqliteFailure(error, Some(OWING.to_owned())))
}

const OWING: &str = "rows of this transaction refer to rows that are not there: \
    add what they refer to, or call this after the commit";

const CHECKS: &str = "ignore_check_constraints";

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.end()
            .expect("a flag that could be set can be set back");
    }
}
