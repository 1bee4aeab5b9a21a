//! What is written on the devices, and what must be left of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use rusqlite::Connection;
use rusqlite::types::Value;
use tokio::time::sleep;

use super::cluster::Cluster;
use super::data::{count_table, count_waiting, open, quoted, tables};
use super::now;

/// How many rows each device adds.
const ADDED: i64 = 20;

/// A table that can be edited without knowing what it means.
struct Target {
    table: String,
    key: String,
    /// Columns of text that are no part of a key.
    texts: Vec<String>,
    /// Keys of rows, one for each part of the story.
    rows: Vec<Value>,
    key_is_number: bool,
}

/// Edits and what must be true when all of them are merged.
pub(super) struct Edits {
    target: Target,
    /// Statements of a truth each, with what they mean.
    expected: Vec<(String, String)>,
    counts: BTreeMap<String, i64>,
}

impl Edits {
    /// Chooses what to edit in a database.
    pub(super) fn plan(db: &Path) -> anyhow::Result<Self> {
        let conn = open(db)?;
        let mut counts = BTreeMap::new();
        for table in tables(&conn)? {
            counts.insert(table.clone(), count_table(&conn, &table)?);
        }
        let mut best: Option<Target> = None;
        for table in counts.keys() {
            let target = target(&conn, table)?;
            let better = |target: &Target| {
                best.as_ref()
                    .is_none_or(|best| target.texts.len() > best.texts.len())
            };
            if let Some(target) = target.filter(better) {
                best = Some(target);
            }
        }
        let target = best.context(
            "the demo needs a table with a one-column key, two columns of text and ten rows",
        )?;
        Ok(Edits {
            target,
            expected: vec![],
            counts,
        })
    }

    /// Writes on devices 1 to 3 while none of them hears of the others.
    pub(super) fn make_apart(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let [one, two, three] = [0, 1, 2].map(|device| cluster.db(device));
        self.update(&one, 0, 0, "edited on device 1")?;
        self.update(&two, 0, 1, "edited on device 2")?;
        self.expect(
            0,
            0,
            "edited on device 1",
            "two columns of one row, on two devices: both stay",
        )?;
        self.expect(
            0,
            1,
            "edited on device 2",
            "two columns of one row, on two devices: both stay",
        )?;
        // Two edits of one cell before the last one, so that counting edits would choose wrongly.
        self.update(&one, 1, 0, "first")?;
        self.update(&one, 1, 0, "second")?;
        // A later millisecond, whatever the clock's resolution.
        std::thread::sleep(Duration::from_millis(200));
        self.update(&three, 1, 0, "last on device 3")?;
        self.expect(
            1,
            0,
            "last on device 3",
            "one cell on two devices: the latest wins",
        )?;
        self.delete(&two, 2)?;
        self.update(&three, 2, 0, "edited, but deleted elsewhere")?;
        self.expect_gone(
            2,
            "deleted on device 2, edited on device 3: the deletion wins",
        )?;
        for (device, db) in [(1, &one), (2, &two), (3, &three)] {
            self.add(db, device)?;
        }
        Ok(())
    }

    /// Writes on both sides of a partition.
    pub(super) fn make_parted(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        self.update(&cluster.db(0), 3, 0, "here")?;
        self.expect(3, 0, "here", "written on this side of the partition")?;
        self.update(&cluster.db(3), 4, 1, "there")?;
        self.expect(4, 1, "there", "written on the other side of the partition")?;
        self.add(&cluster.db(4), 5)
    }

    /// Prints what was done and what must come of it.
    pub(super) fn print(&self) {
        let mut told = Vec::new();
        for (what, _) in &self.expected {
            if !told.contains(&what) {
                println!("    {what}");
                told.push(what);
            }
        }
    }

    /// Returns what should stand in a file and does not.
    pub(super) fn missing(&self, db: &Path) -> anyhow::Result<Vec<String>> {
        let conn = open(db)?;
        let mut missing = Vec::new();
        for (what, truth) in &self.expected {
            if !conn.query_row(truth, [], |row| row.get::<_, bool>(0))? {
                missing.push(what.clone());
            }
        }
        Ok(missing)
    }

    /// Returns the tables of a file that do not have the rows they should; those that wait for a row
    /// they refer to are there.
    pub(super) fn lost_rows(&self, db: &Path) -> anyhow::Result<Vec<String>> {
        let conn = open(db)?;
        let mut lost = Vec::new();
        for (table, expected) in &self.counts {
            let found = count_table(&conn, table)? + count_waiting(&conn, table)?;
            if found != *expected {
                lost.push(format!(
                    "{table} has {found} rows and should have {expected}"
                ));
            }
        }
        Ok(lost)
    }

    /// Writes on one file and returns how long it took until another file had it.
    pub(super) async fn delay(
        &self,
        from: &Path,
        to: &Path,
        round: usize,
    ) -> anyhow::Result<Duration> {
        let value = format!("delay {round}");
        let reader = open(to)?;
        let (row, column) = (5, 0);
        let arrived = self.truth(row, column, &value)?;
        let began = now();
        self.update(from, row, column, &value)?;
        while !reader.query_row(&arrived, [], |row| row.get::<_, bool>(0))? {
            if began.elapsed() > Duration::from_secs(10) {
                bail!("a write did not arrive within 10 s");
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(began.elapsed())
    }

    fn update(&self, db: &Path, row: usize, column: usize, value: &str) -> anyhow::Result<()> {
        let Target {
            table,
            key,
            texts,
            rows,
            ..
        } = &self.target;
        let (table, key, column) = (quoted(table), quoted(key), quoted(&texts[column]));
        let update = format!("UPDATE {table} SET {column} = ?1 WHERE {key} = ?2");
        open(db)?.execute(&update, (value, &rows[row]))?;
        Ok(())
    }

    fn delete(&mut self, db: &Path, row: usize) -> anyhow::Result<()> {
        let Target {
            table, key, rows, ..
        } = &self.target;
        let delete = format!("DELETE FROM {} WHERE {} = ?1", quoted(table), quoted(key));
        let conn = open(db)?;
        // What refers to it waits from then on.
        conn.pragma_update(None, "foreign_keys", false)?;
        conn.execute(&delete, [&rows[row]])?;
        self.counts
            .entry(table.clone())
            .and_modify(|count| *count -= 1);
        Ok(())
    }

    /// Adds rows like the first one, with keys that no other device gives out.
    fn add(&mut self, db: &Path, device: i64) -> anyhow::Result<()> {
        let conn = open(db)?;
        let Target {
            table,
            key,
            rows,
            key_is_number,
            ..
        } = &self.target;
        let (name, id) = (quoted(table), quoted(key));
        let columns = "SELECT group_concat('\"' || replace(name, '\"', '\"\"') || '\"', ', ')
            FROM pragma_table_info(?1) WHERE pk = 0";
        let columns: String = conn.query_row(columns, [table], |row| row.get(0))?;
        let insert = format!(
            "INSERT INTO {name}({id}, {columns}) SELECT ?1, {columns} FROM {name} WHERE {id} = ?2"
        );
        let first = 1_000_000 * device;
        for number in first..first + ADDED {
            let new: Value = if *key_is_number {
                number.into()
            } else {
                format!("device-{number}").into()
            };
            conn.execute(&insert, (&new, &rows[6]))?;
        }
        let added = if *key_is_number {
            format!("{id} BETWEEN {first} AND {}", first + ADDED - 1)
        } else {
            format!(
                "{id} BETWEEN 'device-{first}' AND 'device-{}'",
                first + ADDED - 1
            )
        };
        let truth = format!("SELECT count(*) = {ADDED} FROM {name} WHERE {added}");
        self.expected.push((
            format!("{ADDED} rows added on device {device}: all are there"),
            truth,
        ));
        self.counts
            .entry(table.clone())
            .and_modify(|count| *count += ADDED);
        Ok(())
    }

    fn expect(&mut self, row: usize, column: usize, value: &str, what: &str) -> anyhow::Result<()> {
        let truth = self.truth(row, column, value)?;
        self.expected.push((what.to_owned(), truth));
        Ok(())
    }

    fn expect_gone(&mut self, row: usize, what: &str) -> anyhow::Result<()> {
        let Target {
            table, key, rows, ..
        } = &self.target;
        let (table, key, id) = (quoted(table), quoted(key), literal(&rows[row])?);
        let truth = format!("SELECT NOT EXISTS (SELECT 1 FROM {table} WHERE {key} = {id})");
        self.expected.push((what.to_owned(), truth));
        Ok(())
    }

    fn truth(&self, row: usize, column: usize, value: &str) -> anyhow::Result<String> {
        let Target {
            table,
            key,
            texts,
            rows,
            ..
        } = &self.target;
        let (table, key, id) = (quoted(table), quoted(key), literal(&rows[row])?);
        let column = quoted(&texts[column]);
        Ok(format!(
            "SELECT EXISTS (SELECT 1 FROM {table} WHERE {key} = {id} AND {column} = '{value}')"
        ))
    }
}

fn literal(value: &Value) -> anyhow::Result<String> {
    Ok(match value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        _ => bail!("the demo's keys are numbers or texts"),
    })
}

/// Reads whether a table can be edited: a tracked one with a key of one column, at least two columns
/// of text that refer to nothing, and enough rows.
fn target(conn: &Connection, table: &str) -> anyhow::Result<Option<Target>> {
    let tracked = "SELECT EXISTS (SELECT 1 FROM syncline_tables WHERE name = ?1)";
    if !conn.query_row(tracked, [table], |row| row.get(0))? {
        return Ok(None);
    }
    let columns = "SELECT name, type, pk FROM pragma_table_info(?1) WHERE name NOT IN
        (SELECT \"from\" FROM pragma_foreign_key_list(?1))";
    let mut statement = conn.prepare(columns)?;
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let columns: Vec<(String, String, i64)> = statement
        .query_map([table], read)?
        .collect::<Result<_, _>>()?;
    let keys: Vec<_> = columns
        .iter()
        .filter(|(_, _, position)| *position > 0)
        .collect();
    let [(key, key_type, _)] = keys[..] else {
        return Ok(None);
    };
    let is_text = |declared: &str| {
        let declared = declared.to_ascii_uppercase();
        declared.contains("CHAR") || declared.contains("TEXT")
    };
    let texts = columns
        .iter()
        .filter(|(_, declared, position)| *position == 0 && is_text(declared));
    let texts: Vec<String> = texts.map(|(name, _, _)| name.clone()).collect();
    let rows = format!(
        "SELECT {0} FROM {1} ORDER BY {0} LIMIT 7",
        quoted(key),
        quoted(table)
    );
    let rows: Vec<Value> = conn
        .prepare(&rows)?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if texts.len() < 2 || rows.len() < 7 {
        return Ok(None);
    }
    let key_is_number = key_type.to_ascii_uppercase().contains("INT");
    Ok(Some(Target {
        table: table.to_owned(),
        key: key.clone(),
        texts,
        rows,
        key_is_number,
    }))
}
