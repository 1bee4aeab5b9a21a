//! Writes that are not the user's: nothing of theirs acts on them, and nothing captures them.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// Keeps triggers and foreign keys from acting on what is written here, has CHECKs evaluated, and
/// puts the connection back as it was.
pub(crate) struct Quiet<'a> {
    conn: &'a Connection,
    triggers: bool,
    foreign_keys: bool,
    ignores_checks: bool,
}

impl<'a> Quiet<'a> {
    pub(crate) fn begin(conn: &'a Connection) -> rusqlite::Result<Self> {
        let quiet = Quiet {
            conn,
            triggers: conn.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)?,
            foreign_keys: conn.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY)?,
            ignores_checks: conn.pragma_query_value(None, CHECKS, |row| row.get(0))?,
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

const CHECKS: &str = "ignore_check_constraints";

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.end()
            .expect("a flag that could be set can be set back");
    }
}
