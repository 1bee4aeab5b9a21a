//! A loaded cr-sqlite as the CRR layer: its `crsql_changes` rows travel in changesets.
//!
//! A changeset of it has one table of the name [`CHANGES`], whose rows are `crsql_changes` rows and
//! whose stamps are (`db_version`, `site_id`). What counts as new is what this site wrote; which
//! write wins is cr-sqlite's own rule. The definitions of the tables that changed go with it, so that
//! a device which lacks one has it made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, params};
use syncline_crdt::{
    CausalLength, Changeset, Digest, Group, GroupKind, Hlc, Real, RowHasher, SiteId, Stamp,
    TableChanges, TableSchema, Value, VersionVector,
};
use syncline_sqlite::{self as sqlite, SchemaError};

use super::Unmerged;
use crate::replica::ReplicaError;

/// The table that changes travel as.
const CHANGES: &str = "crsql_changes";
const KEY: [&str; 3] = ["table", "pk", "cid"];
const COLUMNS: [&str; 4] = ["val", "col_version", "cl", "seq"];

const READ: &str = "SELECT \"table\", pk, cid, val, col_version, cl, seq, db_version,
    ifnull(site_id, crsql_site_id()) FROM crsql_changes";

/// Loads a cr-sqlite from its file.
pub(super) fn load(conn: &Connection, file: &Path) -> Result<(), ReplicaError> {
    let not_loaded = |source| ReplicaError::Extension {
        path: file.to_owned(),
        source,
    };
    sqlite::load_extension(conn, file).map_err(not_loaded)?;
    site_id(conn).map_err(not_loaded)?;
    Ok(())
}

pub(super) fn site_id(conn: &Connection) -> rusqlite::Result<SiteId> {
    conn.prepare_cached("SELECT crsql_site_id()")?
        .query_one([], |row| row.get(0).map(SiteId))
}

/// Returns how far this site wrote. What it merged is not told by site.
pub(super) fn version_vector(conn: &Connection) -> rusqlite::Result<VersionVector> {
    Ok(VersionVector::of(site_id(conn)?, stored_version(conn)?))
}

/// Returns the latest version that is stored.
///
/// cr-sqlite counts an `UPDATE` that changed nothing, in that connection alone: then
/// `crsql_db_version()` is above what another program writes next, which would count as sealed
/// already.
fn stored_version(conn: &Connection) -> rusqlite::Result<Hlc> {
    let clocks = "SELECT name FROM sqlite_master WHERE type = 'table'
        AND name LIKE '_%\\_\\_crsql\\_clock' ESCAPE '\\' ORDER BY name";
    let mut statement = conn.prepare_cached(clocks)?;
    let clocks = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut newest = Vec::new();
    for clock in clocks {
        let clock = clock?.replace('"', "\"\"");
        newest.push(format!(
            "SELECT max(db_version) AS version FROM \"{clock}\""
        ));
    }
    let version = if newest.is_empty() {
        // Nothing is a CRR, or the clocks are kept in another way.
        "SELECT crsql_db_version()".to_owned()
    } else {
        // Noted where clocks were removed.
        let noted = "SELECT CAST(value AS INTEGER) FROM crsql_master
            WHERE key = 'pre_compact_dbversion'";
        newest.push(noted.to_owned());
        let newest = newest.join(" UNION ALL ");
        format!("SELECT ifnull(max(version), 0) FROM ({newest})")
    };
    conn.prepare_cached(&version)?
        .query_one([], |row| self::version(row.get(0)?))
}

pub(super) fn is_all_own(conn: &Connection) -> rusqlite::Result<bool> {
    let others = "SELECT 1 FROM crsql_changes WHERE site_id IS NOT NULL
        AND site_id IS NOT crsql_site_id() LIMIT 1";
    Ok(!conn.prepare_cached(others)?.exists([])?)
}

pub(super) fn export_own(
    conn: &Connection,
    after: Hlc,
    rows_max: u64,
) -> rusqlite::Result<Option<Changeset>> {
    let own = site_id(conn)?;
    let newest = version_vector(conn)?.version(own);
    if newest <= after {
        return Ok(None);
    }
    let select = format!("{READ} WHERE db_version > ?1 ORDER BY db_version, seq");
    let mut statement = conn.prepare_cached(&select)?;
    let mut rows = statement.query([after.to_bits().cast_signed()])?;
    let mut changes = Changes::default();
    let mut until = newest;
    while let Some(row) = rows.next()? {
        let stamp = stamp(row)?;
        if stamp.site != own {
            continue;
        }
        // Whole transactions, at least one.
        let last = changes.groups.keys().next_back().copied();
        if let Some(last) = last.filter(|last| *last != stamp)
            && changes.rows_count >= rows_max
        {
            until = last.version;
            break;
        }
        changes.add(stamp, row)?;
    }
    Ok(Some(Changeset {
        since: VersionVector::of(own, after),
        until: VersionVector::of(own, until),
        schemas: changes.schemas(conn, own, until)?,
        tables: changes.finish(),
        ..Changeset::default()
    }))
}

pub(super) fn export_all(conn: &Connection) -> rusqlite::Result<Changeset> {
    let mut statement = conn.prepare_cached(READ)?;
    let mut rows = statement.query([])?;
    let mut changes = Changes::default();
    while let Some(row) = rows.next()? {
        changes.add(stamp(row)?, row)?;
    }
    let (own, until) = (site_id(conn)?, stored_version(conn)?);
    Ok(Changeset {
        since: VersionVector::new(),
        until: VersionVector::of(own, until),
        schemas: changes.schemas(conn, own, until)?,
        tables: changes.finish(),
        ..Changeset::default()
    })
}

/// Rows of `crsql_changes`, by when and where they were written.
#[derive(Default)]
struct Changes {
    groups: BTreeMap<Stamp, Vec<Value>>,
    rows_count: u64,
    tables: BTreeSet<String>,
}

impl Changes {
    fn add(&mut self, stamp: Stamp, row: &Row<'_>) -> rusqlite::Result<()> {
        let values = self.groups.entry(stamp).or_default();
        for at in 0..KEY.len() + COLUMNS.len() {
            values.push(value(row.get_ref(at)?));
        }
        self.rows_count += 1;
        let table: &str = row.get_ref(0)?.as_str()?;
        if !self.tables.contains(table) {
            self.tables.insert(table.to_owned());
        }
        Ok(())
    }

    /// Returns the definitions of the tables that changed, as of this site at a version.
    fn schemas(
        &self,
        conn: &Connection,
        site: SiteId,
        version: Hlc,
    ) -> rusqlite::Result<Vec<TableSchema>> {
        let schema = |name: &String| {
            Ok(TableSchema {
                name: name.clone(),
                stamp: Stamp { version, site },
                origin: SiteId::default(),
                options: String::new(),
                statements: sqlite::table_statements(conn, name)?,
            })
        };
        self.tables.iter().map(schema).collect()
    }

    fn finish(self) -> Vec<TableChanges> {
        let group = |(stamp, values)| Group {
            causal_length: CausalLength::FIRST,
            kind: GroupKind::Cells,
            stamp,
            born: SiteId::default(),
            columns: (0..COLUMNS.len()).collect(),
            parents: vec![],
            values,
        };
        let groups: Vec<Group> = self.groups.into_iter().map(group).collect();
        if groups.is_empty() {
            return vec![];
        }
        vec![TableChanges {
            name: CHANGES.to_owned(),
            key_columns: KEY.map(str::to_owned).to_vec(),
            columns: COLUMNS.map(str::to_owned).to_vec(),
            groups,
        }]
    }
}

/// Merges changes as cr-sqlite does, in one transaction.
pub(super) fn import(conn: &Connection, changes: &Changeset) -> Result<(), Unmerged> {
    let fits = |table: &TableChanges| {
        table.name == CHANGES
            && table.key_columns == KEY
            && table.columns == COLUMNS
            && table
                .groups
                .iter()
                .all(|group| group.kind == GroupKind::Cells && group.columns.len() == COLUMNS.len())
    };
    if !changes.tables.iter().all(fits) {
        let reason = "its author's tables are tracked by Syncline, and here they are cr-sqlite's: \
            serve both with --crr-extension or both without";
        return Err(Unmerged::NotYet(reason.into()));
    }
    // Each in a transaction of its own: cr-sqlite cannot write to a CRR in the one that made it, and
    // rolls the whole of it back where it cannot make one.
    for schema in &changes.schemas {
        in_transaction(conn, || take_up(conn, schema))?;
    }
    in_transaction(conn, || Ok(insert(conn, &changes.tables)?))
}

/// Why something of a changeset was not done.
#[derive(Debug, thiserror::Error)]
enum NotDone {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("a table cannot be named `{0}`: such names are cr-sqlite's")]
    Reserved(String),
}

fn in_transaction(
    conn: &Connection,
    body: impl FnOnce() -> Result<(), NotDone>,
) -> Result<(), Unmerged> {
    let done = conn
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(NotDone::from)
        .and_then(|()| body())
        .and_then(|()| Ok(conn.execute_batch("COMMIT")?));
    let Err(error) = done else { return Ok(()) };
    if !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK")
            .map_err(|error| Unmerged::Failed(error.into()))?;
    }
    match error {
        NotDone::Sqlite(error) if super::is_busy(&error) => Err(Unmerged::Failed(error.into())),
        // A table or column that is not here may still come.
        error => Err(Unmerged::NotYet(error.to_string())),
    }
}

/// Makes a table that is not here, and a CRR of one that is none.
fn take_up(conn: &Connection, schema: &TableSchema) -> Result<(), NotDone> {
    let name = schema.name.to_ascii_lowercase();
    let reserved = ["sqlite_", "syncline_", "crsql_"];
    if reserved.iter().any(|prefix| name.starts_with(prefix)) || name.contains("__crsql_") {
        return Err(NotDone::Reserved(schema.name.clone()));
    }
    sqlite::create_table(conn, schema)?;
    let is_crr = tables(conn)?
        .iter()
        .any(|table| table.eq_ignore_ascii_case(&name));
    if !is_crr {
        track(conn, &schema.name)?;
    }
    Ok(())
}

fn insert(conn: &Connection, tables: &[TableChanges]) -> rusqlite::Result<()> {
    let insert = "INSERT INTO crsql_changes
        (\"table\", pk, cid, val, col_version, cl, seq, db_version, site_id)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let mut statement = conn.prepare_cached(insert)?;
    for group in tables.iter().flat_map(|table| &table.groups) {
        let (version, site) = (
            group.stamp.version.to_bits().cast_signed(),
            group.stamp.site.0,
        );
        for row in group.values.chunks(KEY.len() + COLUMNS.len()) {
            let [table, pk, cid, val, col_version, cl, seq] = row else {
                unreachable!("the shape was checked before");
            };
            statement.execute(params![
                bound(table),
                bound(pk),
                bound(cid),
                bound(val),
                bound(col_version),
                bound(cl),
                bound(seq),
                version,
                site
            ])?;
        }
    }
    Ok(())
}

/// Returns the hash of everything that replicas of a cr-sqlite agree on: not who wrote an equal
/// value last, nor when it arrived.
pub(super) fn digest(conn: &Connection) -> rusqlite::Result<Digest> {
    let mut statement = conn.prepare_cached(READ)?;
    let mut rows = statement.query([])?;
    let (mut digest, mut hasher) = (Digest::default(), RowHasher::default());
    while let Some(row) = rows.next()? {
        let table: String = row.get(0)?;
        let lives = row.get::<_, i64>(5)?;
        let length = CausalLength::new(lives.cast_unsigned());
        let length = length.ok_or(rusqlite::Error::IntegralValueOutOfRange(5, lives))?;
        hasher.begin(&table, length, &[value(row.get_ref(1)?)], &[]);
        let stamp = Stamp {
            version: version(row.get(4)?)?,
            site: SiteId::default(),
        };
        let column: String = row.get(2)?;
        hasher.cell(&column, stamp, &value(row.get_ref(3)?), SiteId::default());
        digest.add(hasher.finish());
    }
    Ok(digest)
}

/// Returns the names of the tables that are CRRs.
pub(super) fn tables(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let clocks = "SELECT substr(name, 1, length(name) - length('__crsql_clock'))
        FROM sqlite_master WHERE type IN ('table', 'view')
        AND name LIKE '%\\_\\_crsql\\_clock' ESCAPE '\\' ORDER BY 1";
    conn.prepare_cached(clocks)?
        .query_map([], |row| row.get(0))?
        .collect()
}

pub(super) fn track(conn: &Connection, table: &str) -> rusqlite::Result<()> {
    conn.query_row("SELECT crsql_as_crr(?1)", [table], |_| Ok(()))
}

pub(super) fn leave(conn: &Connection) -> rusqlite::Result<()> {
    for table in tables(conn)? {
        conn.query_row("SELECT crsql_as_table(?1)", [table], |_| Ok(()))?;
    }
    Ok(())
}

/// Lets cr-sqlite drop its statements; without it, its releases keep the connection open.
pub(super) fn finalize(conn: &Connection) {
    // Closing goes on whatever it answers.
    let _ = conn.query_row("SELECT crsql_finalize()", [], |_| Ok(()));
}

fn stamp(row: &Row<'_>) -> rusqlite::Result<Stamp> {
    Ok(Stamp {
        version: version(row.get(7)?)?,
        site: SiteId(row.get(8)?),
    })
}

fn version(number: i64) -> rusqlite::Result<Hlc> {
    let version = u64::try_from(number).ok().and_then(Hlc::from_bits);
    version.ok_or(rusqlite::Error::IntegralValueOutOfRange(0, number))
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        // SQLite stores no NaN.
        ValueRef::Real(number) => Real::new(number).map_or(Value::Null, Value::Real),
        ValueRef::Text(text) => Value::Text(text.to_vec()),
        ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
    }
}

fn bound(value: &Value) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match value {
        Value::Null => ValueRef::Null,
        Value::Integer(number) => ValueRef::Integer(*number),
        Value::Real(real) => ValueRef::Real(real.get()),
        Value::Text(text) => ValueRef::Text(text),
        Value::Blob(blob) => ValueRef::Blob(blob),
    })
}

#[cfg(test)]
mod tests;
