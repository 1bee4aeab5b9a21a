//! The demo's database: made, copied, compared.

use std::path::Path;

use anyhow::{Context, bail};
use rusqlite::{Connection, OpenFlags};

/// Where the demo runs without a database of the user's.
const MADE: &str = "
    CREATE TABLE person(id TEXT PRIMARY KEY, name TEXT NOT NULL, city TEXT);
    CREATE TABLE task(id INTEGER PRIMARY KEY, title TEXT NOT NULL, note TEXT,
        owner TEXT REFERENCES person(id), done INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE tag(task INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY(task, name))
        WITHOUT ROWID;
    CREATE INDEX task_by_owner ON task(owner);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
    INSERT INTO person SELECT printf('p-%05d', i * 7919 % 65536), 'Person ' || i,
        CASE i % 3 WHEN 0 THEN 'Bergen' WHEN 1 THEN 'Porto' END FROM n;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO task SELECT i, 'Task ' || i, NULL, (SELECT id FROM person WHERE rowid = 1 + i % 500),
        i % 4 = 0 FROM n;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
    INSERT INTO tag SELECT i, CASE i % 2 WHEN 0 THEN 'home' ELSE 'work' END FROM n;
";

/// Makes the database the first device shares: a copy of the user's, or one made here.
pub(super) fn prepare(source: Option<&Path>, target: &Path) -> anyhow::Result<()> {
    let Some(source) = source else {
        return Ok(Connection::open(target)?.execute_batch(MADE)?);
    };
    if !source.exists() {
        bail!("there is no file `{}`", source.display());
    }
    copy(source, target).with_context(|| format!("`{}` cannot be copied", source.display()))
}

/// Copies a database as SQLite sees it, whatever its journal holds.
pub(super) fn copy(source: &Path, target: &Path) -> anyhow::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(source, flags)?;
    source.backup("main", target, None::<fn(rusqlite::backup::Progress)>)?;
    Ok(())
}

/// Opens a database as any program would.
pub(super) fn open(db: &Path) -> anyhow::Result<Connection> {
    let conn = Connection::open(db)?;
    conn.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(conn)
}

/// Returns the user's tables.
pub(super) fn tables(conn: &Connection) -> anyhow::Result<Vec<String>> {
    let tables =
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%'
        ESCAPE '\\' AND name NOT LIKE 'syncline\\_%' ESCAPE '\\' ORDER BY name";
    let mut statement = conn.prepare(tables)?;
    let tables = statement.query_map([], |row| row.get(0))?;
    Ok(tables.collect::<Result<_, _>>()?)
}

/// Returns the number of rows of all tables.
pub(super) fn count_rows(db: &Path) -> anyhow::Result<i64> {
    let conn = open(db)?;
    let mut count = 0;
    for table in tables(&conn)? {
        count += count_table(&conn, &table)?;
    }
    Ok(count)
}

/// Returns the number of rows of one table.
pub(super) fn count_table(conn: &Connection, table: &str) -> anyhow::Result<i64> {
    let count = format!("SELECT count(*) FROM {}", quoted(table));
    Ok(conn.query_row(&count, [], |row| row.get(0))?)
}

/// Returns how many rows of a table wait, since a constraint stands against showing them.
pub(super) fn count_waiting(conn: &Connection, table: &str) -> anyhow::Result<i64> {
    let count = "SELECT count(*) FROM syncline_conflicts WHERE table_name = ?1";
    Ok(conn.query_row(count, [table], |row| row.get(0))?)
}

/// Whether two databases have the same tables with the same rows, value for value and type for type.
pub(super) fn same_rows(a: &Path, b: &Path) -> anyhow::Result<bool> {
    Ok(contents(a)? == contents(b)?)
}

fn contents(db: &Path) -> anyhow::Result<Vec<(String, Vec<String>)>> {
    let conn = open(db)?;
    let mut contents = Vec::new();
    for table in tables(&conn)? {
        let columns =
            "SELECT group_concat('quote(' || '\"' || replace(name, '\"', '\"\"') || '\")',
            ' || '','' || ') FROM pragma_table_info(?1)";
        let columns: String = conn.query_row(columns, [&table], |row| row.get(0))?;
        let rows = format!("SELECT {columns} FROM {} ORDER BY 1", quoted(&table));
        let mut statement = conn.prepare(&rows)?;
        let rows = statement
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        contents.push((table, rows));
    }
    Ok(contents)
}

/// Whether SQLite finds the file whole.
pub(super) fn integrity(db: &Path) -> anyhow::Result<bool> {
    let verdict: String = open(db)?.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    Ok(verdict == "ok")
}

/// Returns a name in quotes.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
