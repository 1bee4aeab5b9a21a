//! The same done here and in a real cr-sqlite, from the npm registry, with the same result.
//!
//! Needs `node`, and the package in `target/peers`: `npm install --prefix target/peers
//! @vlcn.io/crsqlite-wasm@0.16.0`. Where either is missing the tests say so and show nothing. Where
//! the environment variable `SYNCLINE_PEERS` is set, as by `.ci/run`, they fail.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use proptest::prelude::*;
use serde_json::Value;

use super::writes::{CLOCKS, SCHEMA, TABLES, config, numbered, statement, transactions};
use super::{Peer, peer};

mod surface;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A real cr-sqlite replica.
pub(crate) struct Real {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Real {
    /// Starts one, if it is installed.
    pub(crate) fn start() -> Option<RefCell<Self>> {
        let packages = Path::new(ROOT).join("target/peers");
        if !packages
            .join("node_modules/@vlcn.io/crsqlite-wasm")
            .exists()
        {
            return left_out("target/peers has no @vlcn.io/crsqlite-wasm");
        }
        let child = Command::new("node")
            .arg(Path::new(ROOT).join("tests/peers/crsqlite.mjs"))
            .arg(packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => return left_out(&format!("node does not start: {error}")),
        };
        let input = child.stdin.take().expect("its input is a pipe");
        let output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Some(RefCell::new(Real {
            child,
            input,
            output,
        }))
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.input, "{question}").expect("the peer reads");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the peer writes");
        serde_json::from_str(&answer).expect("the peer answers in JSON")
    }

    pub(crate) fn new_database(&mut self, schema: &str) {
        self.ask(&Value::Null);
        self.run(schema);
    }

    #[track_caller]
    pub(crate) fn run(&mut self, sql: &str) {
        self.rows(sql);
    }

    /// Returns the rows of a query, with bars.
    #[track_caller]
    pub(crate) fn rows(&mut self, sql: &str) -> Vec<String> {
        let answer = self.ask(&Value::from(sql));
        let rows = answer["rows"].as_array();
        let rows = rows.unwrap_or_else(|| panic!("{sql}: {answer}"));
        let cell = |cell: &Value| match cell {
            Value::Null => "NULL".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let row = |row: &Value| {
            let cells = row.as_array().expect("a row is a list").iter().map(cell);
            cells.collect::<Vec<_>>().join("|")
        };
        rows.iter().map(row).collect()
    }
}

/// Says that nothing is shown, past the test runner, which keeps what passing tests print.
#[track_caller]
fn left_out<T>(why: &str) -> Option<T> {
    let is_wanted = std::env::var_os("SYNCLINE_PEERS").is_some();
    assert!(!is_wanted, "SYNCLINE_PEERS asks for cr-sqlite: {why}");
    let said = writeln!(std::io::stderr(), "not held against cr-sqlite: {why}");
    said.expect("standard error can be written to");
    None
}

impl Drop for Real {
    fn drop(&mut self) {
        // It ends by itself when its input does; this only makes sure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All of `crsql_changes` but whose site it is, and the version.
const STATE: &str = "SELECT \"table\", quote(pk), cid, quote(val), col_version, db_version, cl, seq
    FROM crsql_changes ORDER BY db_version, seq, \"table\", pk, cid";
const VERSION: &str = "SELECT crsql_db_version()";

#[track_caller]
pub(crate) fn same(ours: &Peer, real: &mut Real) -> Result<(), TestCaseError> {
    for sql in [STATE, VERSION, TABLES[0], TABLES[1], TABLES[2]] {
        prop_assert_eq!(ours.rows(sql), real.rows(sql), "{}", sql);
    }
    Ok(())
}

#[test]
fn local_writes_are_counted_as_by_cr_sqlite() {
    let Some(real) = Real::start() else { return };
    proptest!(config(), |(transactions in transactions())| {
        let real = &mut *real.borrow_mut();
        real.new_database(SCHEMA);
        let ours = peer(SCHEMA);
        for sql in numbered(&transactions) {
            ours.run(&sql);
            real.run(&sql);
            same(&ours, real)?;
        }
    });
}

/// A row for `crsql_changes`, as SQL, such as some replica could have made.
fn change() -> impl Strategy<Value = String> {
    let value = prop_oneof!["NULL", "[1-3]", "'[a-b]'", "x'0[1-2]'", "[1-2]\\.5"];
    let place = (1i64..3, 0u8..6, 1i64..6);
    (place, 1i64..4, 1i64..9, 1u8..4, value, 0i64..3).prop_map(
        |((id, place, cl), version, db_version, site, value, seq)| {
            let (table, pk, cid) = match place {
                0 | 1 => ("t", format!("x'01090{id}'"), "a"),
                2 => ("t", format!("x'01090{id}'"), "b"),
                3 => ("t", format!("x'01090{id}'"), "-1"),
                4 => ("p", format!("x'02090{id}0b016b'"), "-1"),
                _ => ("w", format!("x'010c010{id}'"), "c"),
            };
            let is_sentinel = cl % 2 == 0 || cid == "-1";
            let (cid, value, version) = match is_sentinel {
                true => ("-1", "NULL".to_owned(), cl),
                false => (cid, value, version),
            };
            format!(
                "INSERT INTO crsql_changes VALUES('{table}', {pk}, '{cid}', {value}, {version}, \
                 {db_version}, x'0{site}{:030}', {cl}, {seq})",
                0
            )
        },
    )
}

#[test]
fn changes_are_merged_as_by_cr_sqlite() {
    let Some(real) = Real::start() else { return };
    let steps = prop::collection::vec(
        prop_oneof![
            5 => prop::collection::vec(change(), 1..5),
            1 => prop::collection::vec(statement(), 1..3),
        ],
        1..10,
    );
    proptest!(config(), |(steps in steps)| {
        let real = &mut *real.borrow_mut();
        real.new_database(SCHEMA);
        let ours = peer(SCHEMA);
        let steps: Vec<_> = steps.into_iter().map(|step| (step, true)).collect();
        for sql in numbered(&steps) {
            ours.run(&sql);
            real.run(&sql);
            same(&ours, real)?;
            prop_assert_eq!(
                ours.rows("SELECT quote(site_id), \"table\", quote(pk), cid FROM crsql_changes
                    WHERE site_id <> crsql_site_id() ORDER BY 1, 2, 3, 4"),
                real.rows("SELECT quote(site_id), \"table\", quote(pk), cid FROM crsql_changes
                    WHERE site_id <> crsql_site_id() ORDER BY 1, 2, 3, 4")
            );
        }
    });
}

/// Writes each change as an INSERT that merges it.
const INSERTS: &str = "SELECT 'INSERT INTO crsql_changes VALUES(' || quote(\"table\") || ',' ||
    quote(pk) || ',' || quote(cid) || ',' || quote(val) || ',' || col_version || ',' ||
    db_version || ',' || quote(site_id) || ',' || cl || ',' || seq || ')' FROM crsql_changes";

#[test]
fn a_real_replica_and_this_one_converge() {
    let Some(real) = Real::start() else { return };
    let step = (
        any::<bool>(),
        prop::collection::vec(statement(), 1..4),
        any::<bool>(),
    );
    let steps = prop::collection::vec(step, 1..12);
    proptest!(config(), |(steps in steps)| {
        let real = &mut *real.borrow_mut();
        real.new_database(SCHEMA);
        let ours = peer(SCHEMA);
        let (mut seen_ours, mut seen_real) = (0, 0);
        let transactions: Vec<_> = steps.iter().map(|(_, sql, _)| (sql.clone(), true)).collect();
        for ((is_ours, _, exchange), sql) in steps.iter().zip(numbered(&transactions)) {
            if *is_ours { ours.run(&sql); } else { real.run(&sql) }
            if *exchange {
                (seen_ours, seen_real) = exchanged(&ours, real, (seen_ours, seen_real));
            }
        }
        exchanged(&ours, real, (seen_ours, seen_real));
        // Who made a deletion that both made is bookkeeping, in which replicas may differ.
        for sql in [TABLES[0], TABLES[1], TABLES[2], CLOCKS] {
            prop_assert_eq!(ours.rows(sql), real.rows(sql), "{}", sql);
        }
    });
}

/// Brings each what the other has since it was last asked; returns up to where that is.
fn exchanged(ours: &Peer, real: &mut Real, (since_ours, since_real): (i64, i64)) -> (i64, i64) {
    let version = |rows: Vec<String>| rows[0].parse().expect("a number");
    for change in ours.rows(&format!("{INSERTS} WHERE db_version > {since_ours}")) {
        real.run(&change);
    }
    for change in real.rows(&format!("{INSERTS} WHERE db_version > {since_real}")) {
        ours.run(&change);
    }
    (version(ours.rows(VERSION)), version(real.rows(VERSION)))
}

#[test]
fn a_changed_key_reaches_a_real_replica_with_the_rows_data() {
    let Some(real) = Real::start() else { return };
    let real = &mut *real.borrow_mut();
    real.new_database(SCHEMA);
    let ours = peer(SCHEMA);
    ours.run("INSERT INTO t VALUES(1, 'kept', 'too')");
    let seen = exchanged(&ours, real, (0, 0));
    ours.run("UPDATE t SET id = 9");
    exchanged(&ours, real, seen);
    assert_eq!(real.rows(TABLES[0]), ["9|'kept'|'too'"]);
    real.run("DELETE FROM t");
    exchanged(&ours, real, (0, 0));
    assert_eq!(ours.rows(TABLES[0]), [""; 0]);
    real.run("INSERT INTO t VALUES(9, 'back', NULL)");
    exchanged(&ours, real, (0, 0));
    assert_eq!(ours.rows(TABLES[0]), ["9|'back'|NULL"]);
}

#[test]
fn schema_changes_in_brackets_are_counted_as_by_cr_sqlite() {
    let Some(real) = Real::start() else { return };
    let real = &mut *real.borrow_mut();
    let rebuilt = "CREATE TABLE made_anew(id INTEGER PRIMARY KEY NOT NULL, a, b TEXT, c);
        INSERT INTO made_anew SELECT id, a, b, a FROM t WHERE id > 1; DROP TABLE t;
        ALTER TABLE made_anew RENAME TO t";
    for change in [
        "ALTER TABLE t ADD COLUMN c DEFAULT 5",
        "ALTER TABLE t ADD COLUMN c DEFAULT 5; UPDATE t SET c = 6 WHERE id = 2",
        "ALTER TABLE t DROP COLUMN b",
        "ALTER TABLE t RENAME COLUMN b TO c",
        "DELETE FROM t WHERE id = 1; INSERT INTO t(id, a) VALUES(8, 'in the bracket')",
        rebuilt,
    ] {
        let bracket =
            format!("SELECT crsql_begin_alter('t'); {change}; SELECT crsql_commit_alter('t');");
        real.new_database(SCHEMA);
        let ours = peer(SCHEMA);
        for sql in [
            "INSERT INTO t VALUES(1, 1, 'one'), (2, 2, NULL), (3, 3, 'three')",
            "UPDATE t SET a = 'edited' WHERE id = 2; DELETE FROM t WHERE id = 3",
            "INSERT INTO t(id, a) VALUES(3, 'again')",
            &bracket,
            "UPDATE t SET a = 'after'; INSERT INTO t(id) VALUES(9)",
        ] {
            ours.run(sql);
            real.run(sql);
            for sql in [STATE, VERSION, "SELECT * FROM t ORDER BY id"] {
                assert_eq!(ours.rows(sql), real.rows(sql), "{change}: {sql}");
            }
        }
    }
}
