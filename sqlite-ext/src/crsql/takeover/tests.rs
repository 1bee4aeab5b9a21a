//! Databases that cr-sqlite wrote go on here as the same replicas, and a failed take-over leaves them
//! as they were.
//!
//! `tests/fixtures/cr-sqlite-0.16.sql` is such a database, as a real cr-sqlite wrote it, with this
//! replica's name replaced; `.expected` is what that said of it. `UPDATE_EXPECTED=1` with the package
//! in place writes both anew.

use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::crsql::tests::real::{self, Real};
use crate::crsql::tests::{Peer, peer, writes};
use crate::tests::content::content;

const STORY: &str = "
    CREATE TABLE item(id INTEGER PRIMARY KEY NOT NULL, name TEXT, price REAL DEFAULT 1.5);
    SELECT crsql_as_crr('item');
    INSERT INTO item VALUES(1, 'tea', 3), (2, 'milk', 1), (3, 'salt', 2);
    UPDATE item SET price = 4 WHERE id = 1;
    DELETE FROM item WHERE id = 2;
    DELETE FROM item WHERE id = 3;
    INSERT INTO item VALUES(3, 'again', 7);
    CREATE TABLE pair(a TEXT NOT NULL, b BLOB NOT NULL, c, PRIMARY KEY(b, a));
    SELECT crsql_as_crr('pair');
    INSERT INTO pair VALUES('x', x'00ff', 'v'), ('it''s', x'', NULL);
    CREATE TABLE tag(name TEXT PRIMARY KEY NOT NULL);
    SELECT crsql_as_crr('tag');
    INSERT INTO tag VALUES('one'), ('two');
    DELETE FROM tag WHERE name = 'two';
    CREATE TABLE task(id INTEGER PRIMARY KEY NOT NULL, spot TEXT);
    SELECT crsql_as_crr('task');
    SELECT crsql_fract_as_ordered('task', 'spot');
    INSERT INTO task VALUES(1, '1'), (2, '1');
    INSERT INTO crsql_changes VALUES
        ('item', x'010905', 'name', 'peer', 5, 5, x'7096e2d505314699a59c95faba14abb5', 1, 0);
    INSERT INTO crsql_changes VALUES
        ('item', x'010901', 'price', 9.0, 7, 6, x'7096e2d505314699a59c95faba14abb5', 1, 1);
    INSERT INTO crsql_changes VALUES
        ('tag', x'010b036f6e65', '-1', NULL, 2, 7, x'7096e2d505314699a59c95faba14abb5', 2, 0);
    INSERT INTO crsql_tracked_peers VALUES(x'7096e2d505314699a59c95faba14abb5', 7, 0, 0, 0);";

const SITE: &str = "0123456789ABCDEF0123456789ABCDEF";

/// What a replica says of itself.
const SAYINGS: [&str; 7] = [
    "SELECT \"table\", quote(pk), cid, quote(val), col_version, db_version, quote(site_id), cl, seq
        FROM crsql_changes ORDER BY db_version, seq, \"table\", pk, cid",
    "SELECT hex(crsql_site_id()), crsql_db_version()",
    "SELECT quote(site_id), version, seq, tag, event FROM crsql_tracked_peers",
    "SELECT id, quote(name), quote(price) FROM item ORDER BY id",
    "SELECT quote(a), quote(b), quote(c) FROM pair ORDER BY b, a",
    "SELECT name FROM tag ORDER BY name",
    "SELECT id, spot FROM task ORDER BY id",
];

/// Returns the whole database of a real cr-sqlite as SQL.
fn dump(real: &mut Real) -> String {
    let mut sql = real.rows(
        "SELECT sql || ';' FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
         ORDER BY rowid",
    );
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'
        ORDER BY rowid";
    for table in real.rows(tables) {
        let columns = real.rows(&format!("SELECT name FROM pragma_table_info('{table}')"));
        let values = columns.iter().map(|column| format!("quote(\"{column}\")"));
        let values = values.collect::<Vec<_>>().join(" || ', ' || ");
        let rows = format!(
            "SELECT 'INSERT INTO \"{table}\" VALUES(' || {values} || ');' FROM \"{table}\""
        );
        sql.extend(real.rows(&rows));
    }
    sql.extend(real.rows(
        "SELECT sql || ';' FROM sqlite_master WHERE type <> 'table' AND sql IS NOT NULL
         ORDER BY rowid",
    ));
    sql.join("\n")
}

fn sayings(mut rows: impl FnMut(&str) -> Vec<String>) -> String {
    let said = SAYINGS.iter().map(|sql| rows(sql).join("\n"));
    said.collect::<Vec<_>>().join("\n\n") + "\n"
}

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("../tests/fixtures").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(fixture(name)).expect("the fixture is there")
}

/// Returns the fixture as a database that nobody has taken over yet.
fn untouched(conn: Connection) -> Connection {
    conn.execute_batch(&format!("BEGIN; {} COMMIT", read("cr-sqlite-0.16.sql")))
        .expect("the fixture is SQL");
    conn
}

fn in_memory() -> Connection {
    Connection::open_in_memory().expect("SQLite opens in memory")
}

fn taken_over() -> Peer {
    Peer::of(untouched(in_memory()))
}

#[test]
fn the_fixture_is_what_a_real_cr_sqlite_writes() {
    let Some(real) = Real::start() else { return };
    let real = &mut *real.borrow_mut();
    real.new_database(STORY);
    let own = real.rows("SELECT hex(crsql_site_id())").concat();
    let fixed = |text: String| {
        text.replace(&own, SITE)
            .replace(&own.to_lowercase(), &SITE.to_lowercase())
    };
    let found = [
        ("cr-sqlite-0.16.sql", fixed(dump(real)) + "\n"),
        (
            "cr-sqlite-0.16.expected",
            fixed(sayings(|sql| real.rows(sql))),
        ),
    ];
    for (name, found) in found {
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(fixture(name), &found).expect("the fixture is writable");
        }
        assert_eq!(found, read(name), "{name}");
    }
}

#[test]
fn a_database_goes_on_as_the_replica_it_was() {
    let ours = taken_over();
    assert_eq!(
        sayings(|sql| ours.rows(sql)),
        read("cr-sqlite-0.16.expected")
    );
    let left = "SELECT name FROM sqlite_master WHERE sql LIKE '%crsql_after%'
        OR type = 'table' AND name LIKE '%\\_\\_crsql\\_%' ESCAPE '\\'";
    assert!(ours.rows(left).is_empty());
    assert_eq!(
        ours.rows("SELECT * FROM item__crsql_clock WHERE col_name = '-1' ORDER BY key"),
        ["2|-1|2|3|0|0", "3|-1|3|5|0|0"]
    );
    assert_eq!(ours.one("PRAGMA integrity_check"), "ok");
}

#[test]
fn a_peer_gets_what_is_written_after_the_takeover_and_no_more() {
    let ours = taken_over();
    let seen: i64 = ours
        .one("SELECT crsql_db_version()")
        .parse()
        .expect("a number");
    let other = peer(
        "CREATE TABLE item(id INTEGER PRIMARY KEY NOT NULL, name TEXT, price REAL DEFAULT 1.5);
        CREATE TABLE pair(a TEXT NOT NULL, b BLOB NOT NULL, c, PRIMARY KEY(b, a));
        CREATE TABLE tag(name TEXT PRIMARY KEY NOT NULL);
        CREATE TABLE task(id INTEGER PRIMARY KEY NOT NULL, spot TEXT);
        SELECT crsql_as_crr('item'), crsql_as_crr('pair'), crsql_as_crr('tag'),
            crsql_as_crr('task');",
    );
    other.pull(&ours, 0);
    assert_eq!(other.rows(SAYINGS[3]), ours.rows(SAYINGS[3]));
    ours.run("UPDATE item SET name = 'rice' WHERE id = 3; INSERT INTO item(id) VALUES(2)");
    let new = format!(
        "SELECT \"table\", pk, cid, col_version, cl FROM crsql_changes
        WHERE db_version > {seen}"
    );
    assert_eq!(
        ours.rows(&new),
        [
            "item|010903|name|2|3",
            "item|010902|-1|3|3",
            "item|010902|name|1|3",
            "item|010902|price|1|3"
        ]
    );
    other.pull(&ours, seen);
    assert_eq!(other.rows(SAYINGS[3]), ours.rows(SAYINGS[3]));
    other.run("DELETE FROM tag; UPDATE item SET price = 0 WHERE id = 5; DELETE FROM pair");
    ours.pull(&other, 0);
    for table in &SAYINGS[3..] {
        assert_eq!(other.rows(table), ours.rows(table));
    }
}

#[test]
fn a_list_keeps_its_order_and_gets_new_rows() {
    let ours = taken_over();
    ours.run("INSERT INTO task VALUES(3, '1'), (4, '-1')");
    ours.run("INSERT INTO task_fractindex(id, after_id) VALUES(5, 1)");
    assert_eq!(
        ours.rows("SELECT id FROM task ORDER BY spot"),
        ["4", "1", "5", "2", "3"]
    );
}

#[test]
fn what_was_written_past_the_triggers_is_sent() {
    let conn = untouched(in_memory());
    conn.execute_batch(
        "DROP TRIGGER item__crsql_itrig; INSERT INTO item VALUES(8, 'past', 1);
        INSERT INTO item VALUES(2, 'back', 1)",
    )
    .expect("no trigger needs the extension");
    let ours = Peer::of(conn);
    assert_eq!(
        ours.rows("SELECT pk, cid, cl FROM crsql_changes WHERE db_version > 12"),
        [
            "010902|-1|3",
            "010902|name|3",
            "010902|price|3",
            "010908|name|1",
            "010908|price|1",
        ]
    );
}

#[test]
fn nothing_is_changed_where_it_is_not_understood() {
    let cases = [
        (
            "UPDATE crsql_master SET value = 170000 WHERE key = 'crsqlite_version'",
            "its crsqlite_version is 170000, and from 150000 to 169999 can be read",
        ),
        (
            "UPDATE crsql_master SET value = 140000 WHERE key = 'crsqlite_version'",
            "its crsqlite_version is 140000, and from 150000 to 169999 can be read",
        ),
        (
            "DELETE FROM crsql_master",
            "crsql_master names no crsqlite_version",
        ),
        ("DROP TABLE crsql_master", "there is no crsql_master"),
        (
            "CREATE TABLE crsql_db_versions(site_id, db_version)",
            "another cr-sqlite than vlcn-io's wrote it",
        ),
        (
            "ALTER TABLE tag__crsql_clock ADD COLUMN ts TEXT",
            "the columns of `tag__crsql_clock` or `tag__crsql_pks` are not those of cr-sqlite 0.15 \
             or 0.16",
        ),
        (
            "DROP TABLE tag__crsql_pks",
            "the columns of `tag__crsql_clock` or `tag__crsql_pks` are not those of cr-sqlite 0.15 \
             or 0.16",
        ),
        (
            "UPDATE tag__crsql_clock SET site_id = 9",
            "a clock names a site that crsql_site_id lacks",
        ),
        (
            "UPDATE tag__crsql_clock SET col_version = -1",
            "a clock has a version that no write can have",
        ),
        (
            "UPDATE tag__crsql_clock SET col_version = 1 << 60",
            "a row has a causal length that no row can have",
        ),
        (
            "UPDATE tag__crsql_clock SET db_version = 9223372036854775807",
            "a clock has a version that no write can have",
        ),
        (
            "CREATE UNIQUE INDEX one ON tag(name)",
            "`tag` cannot be a crr: it has a UNIQUE index besides its primary key, which two \
             replicas could break together: drop it, or use syncline_track, which keeps it \
             everywhere",
        ),
    ];
    for (change, reason) in cases {
        let conn = untouched(in_memory());
        conn.execute_batch(change).expect(change);
        let before = content(&conn);
        let error = crate::register(&conn).expect_err(change).to_string();
        let said = format!("cannot take this database over from cr-sqlite: {reason}");
        assert_eq!(error, said, "{change}");
        assert!(content(&conn) == before, "{change}");
    }
}

#[test]
fn a_table_that_is_gone_takes_its_clocks_with_it() {
    let conn = untouched(in_memory());
    conn.execute_batch("DROP TABLE item").expect("it goes");
    let ours = Peer::of(conn);
    assert!(
        ours.rows("SELECT 1 FROM crsql_changes WHERE \"table\" = 'item'")
            .is_empty()
    );
    assert_eq!(ours.rows(SAYINGS[6]).len(), 2);
    let version = ours.one("SELECT crsql_db_version()");
    let all = read("cr-sqlite-0.16.expected");
    assert!(all.contains(&format!("{SITE}|{version}\n")), "{version}");
}

#[test]
fn keys_that_are_equal_here_keep_the_newer_clocks() {
    let conn = in_memory();
    let schema = read("cr-sqlite-0.16.sql");
    let schema = schema.replace(
        "name TEXT PRIMARY KEY NOT NULL",
        "name TEXT COLLATE NOCASE PRIMARY KEY NOT NULL",
    );
    conn.execute_batch(&schema).expect("the fixture is SQL");
    conn.execute_batch(
        "INSERT INTO tag__crsql_pks VALUES(9, 'TWO');
        INSERT INTO tag__crsql_clock VALUES(9, '-1', 4, 18, 0, 0)",
    )
    .expect("the clocks are tables");
    let ours = Peer::of(conn);
    assert_eq!(
        ours.rows("SELECT pk, col_version FROM crsql_changes WHERE \"table\" = 'tag' ORDER BY pk"),
        ["010b036f6e65|2", "010b0374776f|4"]
    );
}

#[test]
fn a_file_that_cannot_be_written_is_read_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.db");
    drop(untouched(Connection::open(&file).expect("it opens")));
    let before = std::fs::read(&file).expect("it is there");
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let ours = Peer::of(Connection::open_with_flags(&file, read_only).expect("it opens"));
    assert_eq!(ours.rows("SELECT name FROM item WHERE id = 1"), ["tea"]);
    assert_eq!(
        ours.fails("SELECT * FROM crsql_changes"),
        "cannot take this database over from cr-sqlite: it cannot be written: load the extension \
         once where it can"
    );
    drop(ours);
    assert_eq!(std::fs::read(&file).expect("it is there"), before);
    // Once taken over, it can be read.
    drop(Peer::of(Connection::open(&file).expect("it opens")));
    let ours = Peer::of(Connection::open_with_flags(&file, read_only).expect("it opens"));
    assert_eq!(
        sayings(|sql| ours.rows(sql)),
        read("cr-sqlite-0.16.expected")
    );
}

#[test]
fn another_writer_is_told_apart_from_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.db");
    let writer = untouched(Connection::open(&file).expect("it opens"));
    writer
        .execute_batch("BEGIN IMMEDIATE")
        .expect("nobody else writes");
    let conn = Connection::open(&file).expect("it opens");
    conn.busy_timeout(std::time::Duration::ZERO)
        .expect("it is set");
    let error = crate::register(&conn).expect_err("another writes");
    assert!(
        error
            .to_string()
            .ends_with("another program uses it: load the extension again")
    );
    writer.execute_batch("ROLLBACK").expect("it ends");
    let ours = Peer::of(conn);
    assert_eq!(ours.one(SAYINGS[1]), format!("{SITE}|{}", version()));
}

fn version() -> String {
    let all = read("cr-sqlite-0.16.expected");
    let line = all
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{SITE}|")));
    line.expect("it is said").to_owned()
}

/// Stops the take-over after ever more steps, and there copies the files as a crash would leave them.
#[test]
fn a_crash_in_between_leaves_the_old_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("a.db"), folder.path().join("b.db"));
    drop(untouched(Connection::open(&from).expect("it opens")));
    let old = content(&Connection::open(&from).expect("it opens"));
    let mut crashes = [0, 0];
    for steps in (1..).step_by(41) {
        let conn = Connection::open(&from).expect("it opens");
        // So that pages reach the file long before the commit.
        conn.execute_batch("PRAGMA cache_size = 2; PRAGMA cache_spill = 2")
            .expect("they are set");
        let mut stop = Stop {
            steps,
            from: from.clone(),
            to: to.clone(),
            is_stopped: false,
        };
        stop.during(&conn, || {
            // An interrupted take-over says so later, where the clocks are asked for.
            let _ = crate::register(&conn);
        });
        drop(conn);
        if !stop.is_stopped {
            break;
        }
        // What comes after the commit can be stopped too.
        let left = content(&Connection::open(&from).expect("it opens"));
        let is_done = left != old;
        crashes[usize::from(journal(&to).exists())] += 1;
        let crashed = Connection::open(&to).expect("it opens");
        assert!(is_done || content(&crashed) == old, "after {steps} steps");
        let ours = Peer::of(crashed);
        assert_eq!(
            sayings(|sql| ours.rows(sql)),
            read("cr-sqlite-0.16.expected")
        );
        if is_done {
            break;
        }
    }
    assert!(crashes.iter().all(|count| *count > 0), "{crashes:?}");
    let ours = Peer::of(Connection::open(&from).expect("it opens"));
    assert_eq!(
        sayings(|sql| ours.rows(sql)),
        read("cr-sqlite-0.16.expected")
    );
}

/// Interrupts what a connection does after some steps, and copies its files.
struct Stop {
    steps: u32,
    from: PathBuf,
    to: PathBuf,
    is_stopped: bool,
}

impl Stop {
    #[expect(
        unsafe_code,
        reason = "rusqlite has progress handlers among its hooks only"
    )]
    fn during(&mut self, conn: &Connection, body: impl FnOnce()) {
        // SAFETY: `self` lives until the handler is taken away again below, and nothing else uses it
        // until then; `body` cannot reach it.
        unsafe {
            let context = std::ptr::from_mut(self).cast();
            ffi::sqlite3_progress_handler(conn.handle(), 20, Some(step), context);
            body();
            ffi::sqlite3_progress_handler(conn.handle(), 0, None, std::ptr::null_mut());
        }
    }

    fn step(&mut self) -> bool {
        self.steps = self.steps.saturating_sub(1);
        if self.steps == 0 && !self.is_stopped {
            self.is_stopped = true;
            crash(&self.from, &self.to);
        }
        self.is_stopped
    }
}

#[expect(unsafe_code, reason = "SQLite calls a C function")]
unsafe extern "C" fn step(context: *mut c_void) -> c_int {
    // SAFETY: the context is the one that `during` passed, and it lives as long as the handler.
    let stop = unsafe { &mut *context.cast::<Stop>() };
    c_int::from(stop.step())
}

/// Returns the rollback journal of a database.
fn journal(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-journal");
    PathBuf::from(name)
}

/// Copies a database and its journal as they are.
fn crash(from: &Path, to: &Path) {
    std::fs::copy(from, to).expect("it is copied");
    match journal(from).exists() {
        true => drop(std::fs::copy(journal(from), journal(to)).expect("it is copied")),
        false => drop(std::fs::remove_file(journal(to))),
    }
}

#[test]
fn any_history_of_a_real_cr_sqlite_goes_on_here() {
    let Some(real) = Real::start() else { return };
    let before_and_after = (writes::transactions(), writes::transactions());
    proptest!(writes::config(), |((before, after) in before_and_after)| {
        let real = &mut *real.borrow_mut();
        real.new_database(writes::SCHEMA);
        // Numbered as one: a version is counted here for what was changed only, and there also for
        // a value that was written again.
        let all = writes::numbered(&[before.clone(), after].concat());
        let (before, after) = all.split_at(before.len());
        for sql in before {
            real.run(sql);
        }
        let conn = in_memory();
        conn.execute_batch(&dump(real)).expect("a dump is SQL");
        let ours = Peer::of(conn);
        real::same(&ours, real)?;
        for sql in after {
            ours.run(sql);
            real.run(sql);
            real::same(&ours, real)?;
        }
    });
}
