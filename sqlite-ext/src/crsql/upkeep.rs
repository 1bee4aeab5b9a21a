//! Looks after CRRs whose tables were changed by programs that told nobody: dropped, renamed,
//! rebuilt, with columns added.

use super::alter;
use super::capture;
use super::convert;
use super::crr::Crr;
use super::error::Result;
use super::session::{Session, schema_version};
use super::{storage, takeover, views};

/// Sees that all is in order with the CRRs, and mends what is not, as far as the file can be
/// written; takes over those of cr-sqlite. Costs nothing while the schema stays the same. Returns
/// whether there may be any.
pub(crate) fn look(session: Session<'_>) -> Result<bool> {
    let versions = versions(session)?;
    if let Some(has_tables) = session.state.seen(versions) {
        return Ok(has_tables);
    }
    if takeover::is_due(session.conn)? {
        takeover::run(session)?;
    }
    let has_tables = storage::is_present(session.conn)?;
    let mut is_in_order = true;
    let mut note = |result: Result<()>| match result {
        Err(error) if error.is_not_writable() => {
            is_in_order = false;
            Ok(())
        }
        result => result,
    };
    if has_tables {
        note(follow(session))?;
        for noted in Noted::all(session)? {
            note(noted.mend(session))?;
        }
    }
    if is_in_order {
        session.state.set_seen(self::versions(session)?, has_tables);
    }
    Ok(has_tables)
}

fn versions(session: Session<'_>) -> Result<(i64, i64)> {
    let main = schema_version(session.conn, "main")?;
    Ok((main, schema_version(session.conn, "temp")?))
}

/// Makes this connection hear of the transactions that write to a CRR, and shows its keys.
pub(crate) fn attach(session: Session<'_>, crr: &Crr) -> Result<()> {
    // Where another connection renamed the table, ours are on one that is not there.
    let joined = "SELECT 1 FROM temp.sqlite_master
        WHERE name = ?1 AND tbl_name = ?2 COLLATE NOCASE";
    let name = format!("{}_insert", capture::name(crr.id, "join"));
    if !session
        .conn
        .prepare_cached(joined)?
        .exists([&name, &crr.name])?
    {
        session.conn.execute_batch(&capture::part(crr.id))?;
        session.conn.execute_batch(&capture::join(crr))?;
        session.conn.execute_batch(&views::pks(crr))?;
    }
    Ok(())
}

/// A CRR as it was noted.
struct Noted {
    id: i64,
    name: String,
    is_altering: bool,
}

impl Noted {
    fn all(session: Session<'_>) -> Result<Vec<Self>> {
        let all = "SELECT id, name, is_altering FROM syncline_crsql_tables ORDER BY id";
        let mut statement = session.conn.prepare_cached(all)?;
        let rows = statement.query_map([], |row| {
            Ok(Noted {
                id: row.get(0)?,
                name: row.get(1)?,
                is_altering: row.get(2)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn mend(&self, session: Session<'_>) -> Result<()> {
        if self.is_altering {
            return Ok(());
        }
        let captured = capture::table_of(session.conn, self.id, "insert")?;
        let Some(crr) = Crr::read(session.conn, self.id)? else {
            return session.write(|| {
                session.join()?;
                convert::forget(session, self.id, &self.name)
            });
        };
        let lost = crr.columns.iter().any(|column| column.column.is_none());
        if captured.is_none() || lost || !crr.unnumbered.is_empty() {
            session.write(|| alter::renew(session, self.id, alter::Writes::Count))?;
        }
        match Crr::read(session.conn, self.id)? {
            Some(crr) => attach(session, &crr),
            None => Ok(()),
        }
    }
}

/// Notes the names of tables that were renamed. They took their triggers with them, so nothing was
/// missed.
fn follow(session: Session<'_>) -> Result<()> {
    let mut renamed = Vec::new();
    for noted in Noted::all(session)? {
        let name = capture::table_of(session.conn, noted.id, "insert")?;
        let other = |name: &String| !name.eq_ignore_ascii_case(&noted.name);
        renamed.extend(name.filter(other).map(|name| (noted, name)));
    }
    if renamed.is_empty() {
        return Ok(());
    }
    session.write(|| {
        session.join()?;
        // Tables may have changed names with each other.
        for (noted, _) in &renamed {
            views::remove(session.conn, &noted.name)?;
            set_name(session, noted.id, &format!("syncline_crsql_{}", noted.id))?;
        }
        for (noted, name) in &renamed {
            // Another CRR of that name was dropped before.
            if let Some(dropped) = storage::id_of(session.conn, name)? {
                convert::forget(session, dropped, name)?;
            }
            rename(session, noted.id, name)?;
        }
        Ok(())
    })
}

fn set_name(session: Session<'_>, id: i64, name: &str) -> Result<()> {
    let set = "UPDATE syncline_crsql_tables SET name = ?2 WHERE id = ?1";
    session.conn.execute(set, (id, name))?;
    Ok(())
}

/// Notes that a CRR's table has another name.
pub(crate) fn rename(session: Session<'_>, id: i64, name: &str) -> Result<()> {
    set_name(session, id, name)?;
    if let Some(crr) = Crr::read(session.conn, id)? {
        session.conn.execute_batch(&views::clock(&crr))?;
        session.conn.execute_batch(&views::pks(&crr))?;
    }
    session.forget_tables();
    Ok(())
}
