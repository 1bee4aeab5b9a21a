//! Capture by whole files and processes: writers at the same time, crashes, VACUUM, dumps, copies.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use syncline_crdt::VersionVector;
use syncline_sqlite::TableOptions;
use tempfile::TempDir;

use crate::harness::program::Desk;
use crate::harness::replica::NOON;

const JOURNALS: [&str; 2] = ["WAL", "DELETE"];

/// A table for every way in which clocks name rows.
const TABLES: [(&str, &str); 3] = [
    ("number", "CREATE TABLE number(id INTEGER PRIMARY KEY, a)"),
    ("word", "CREATE TABLE word(id TEXT PRIMARY KEY, a)"),
    (
        "pair",
        "CREATE TABLE pair(id TEXT, a, PRIMARY KEY(id)) WITHOUT ROWID",
    ),
];

/// A tracked database in a folder of its own.
struct File {
    folder: TempDir,
    conn: Connection,
}

impl File {
    /// Makes a file with these tables, tracked.
    fn new(journal: &str, tables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let conn = open(&folder.path().join("app.db"));
        let mode = format!("PRAGMA journal_mode = {journal}");
        conn.query_row(&mode, [], |_| Ok(()))
            .expect("a journal mode");
        for (name, create) in tables {
            conn.execute_batch(create).expect(create);
            syncline_sqlite::track(&conn, name, &TableOptions::default(), NOON).expect(name);
        }
        File { folder, conn }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    fn run(&self, sql: &str) -> &Self {
        self.conn.execute_batch(sql).expect(sql);
        self
    }

    /// Opens the file as another program would that never heard of Syncline.
    fn plain(&self) -> Connection {
        open(&self.path())
    }
}

fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).expect("the file opens");
    // Under load a writer may wait for its turn far longer than the default five seconds.
    conn.busy_timeout(Duration::from_secs(120))
        .expect("a timeout");
    // A killed program's writes survive in the system's cache; only a power cut needs more.
    conn.pragma_update(None, "synchronous", "OFF")
        .expect("a setting");
    conn
}

fn digest(conn: &Connection) -> String {
    let digest = syncline_sqlite::digest(conn, NOON).expect("digest");
    digest.to_string()
}

/// Brings all that a file has to a replica.
fn pull(into: &Connection, from: &Connection) {
    syncline_sqlite::prepare(into).expect("the replica is prepared");
    let seen = syncline_sqlite::version_vector(into).expect("version vector");
    let changes = syncline_sqlite::export(from, &seen, NOON).expect("export");
    syncline_sqlite::import_changeset(into, &changes, NOON).expect("import");
}

fn rows(conn: &Connection, select: &str) -> Vec<String> {
    let mut statement = conn.prepare(select).expect(select);
    let rows = statement.query_map([], |row| row.get(0)).expect(select);
    rows.collect::<Result<_, _>>().expect(select)
}

#[track_caller]
fn assert_same_rows(a: &Connection, b: &Connection, tables: &[(&str, &str)]) {
    for (table, _) in tables {
        let select = format!("SELECT quote(id) || '|' || quote(a) FROM {table} ORDER BY id");
        assert_eq!(rows(a, &select), rows(b, &select), "{table}");
    }
    assert_eq!(digest(a), digest(b));
}

#[test]
fn what_is_exported_while_others_write_is_whole_transactions() {
    const TRANSACTIONS_COUNT: usize = 150;
    for journal in JOURNALS {
        let file = File::new(journal, &TABLES);
        file.run("INSERT INTO number VALUES(1, 0); INSERT INTO word VALUES('less', 0)");
        let replica = Connection::open_in_memory().expect("SQLite opens in memory");
        let writing = AtomicUsize::new(2);
        std::thread::scope(|threads| {
            for writer in 0..2 {
                let (plain, writing) = (file.plain(), &writing);
                threads.spawn(move || {
                    for n in 0..TRANSACTIONS_COUNT {
                        let transaction = format!(
                            "BEGIN IMMEDIATE;
                            INSERT INTO word VALUES('{writer}-{n}', 'half');
                            UPDATE number SET a = a + 1;
                            UPDATE word SET a = a - 1 WHERE id = 'less';
                            INSERT INTO pair VALUES('{writer}-{n}', 'half');
                            COMMIT"
                        );
                        plain.execute_batch(&transaction).expect("a write");
                    }
                    writing.fetch_sub(1, Ordering::SeqCst);
                });
            }
            let is_whole =
                "SELECT (SELECT a FROM number) + (SELECT a FROM word WHERE id = 'less') = 0
                AND (SELECT count(*) FROM word) - 1 = (SELECT count(*) FROM pair)";
            while writing.load(Ordering::SeqCst) > 0 {
                pull(&replica, &file.conn);
                let is_whole = replica.query_row(is_whole, [], |row| row.get(0));
                assert_eq!(
                    is_whole,
                    Ok(true),
                    "{journal}: a part of a transaction arrived"
                );
            }
        });
        pull(&replica, &file.conn);
        assert_same_rows(&replica, &file.conn, &TABLES);
        let count = "SELECT CAST(count(*) AS TEXT) FROM word";
        assert_eq!(rows(&replica, count), ["301"]);
    }
}

#[test]
fn many_may_fold_and_merge_at_once() {
    for journal in JOURNALS {
        let file = File::new(journal, &TABLES);
        std::thread::scope(|threads| {
            for worker in 0..3 {
                let (conn, peer) = (file.plain(), File::new(journal, &TABLES));
                threads.spawn(move || {
                    for n in 0..20 {
                        let write = format!("INSERT INTO word VALUES('{worker}-{n}', {n})");
                        peer.run(&write);
                        pull(&conn, &peer.conn);
                        digest(&conn);
                        let edit = format!("UPDATE word SET a = a + 1 WHERE id = '{worker}-{n}'");
                        conn.execute_batch(&edit).expect("a write");
                        pull(&peer.conn, &conn);
                    }
                    let select = format!("SELECT id FROM word WHERE id LIKE '{worker}-%'");
                    assert_eq!(rows(&peer.conn, &select).len(), 20);
                });
            }
        });
        let replica = Connection::open_in_memory().expect("SQLite opens in memory");
        pull(&replica, &file.conn);
        assert_same_rows(&replica, &file.conn, &TABLES);
        assert_eq!(rows(&replica, "SELECT id FROM word").len(), 60);
    }
}

/// Names the file that [`a_plain_program_writes_until_it_is_killed`] writes to.
const VICTIM: &str = "SYNCLINE_TEST_VICTIM";

/// Not a test of its own: what the next one starts in another process, and kills.
#[test]
fn a_plain_program_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(VICTIM) else {
        return;
    };
    let conn = open(Path::new(&path));
    for n in 0.. {
        let transaction = format!(
            "BEGIN; INSERT INTO number VALUES({n}, 'x'); INSERT INTO word VALUES('{n}', {n});
            UPDATE pair SET a = {n}; COMMIT"
        );
        conn.execute_batch(&transaction).expect("a write");
        writeln!(std::io::stdout(), "committed {n}").expect("somebody listens");
    }
}

#[test]
fn what_a_killed_program_committed_is_folded_and_no_more() {
    const COMMITS_COUNT: usize = 100;
    for journal in JOURNALS {
        let file = File::new(journal, &TABLES);
        file.run("INSERT INTO pair VALUES('last', -1)");
        let this = std::env::current_exe().expect("the test binary");
        let mut victim = Command::new(this)
            .args([
                "--exact",
                "capture::a_plain_program_writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(VICTIM, file.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary starts");
        let output = BufReader::new(victim.stdout.take().expect("its output is a pipe"));
        let lines = output.lines().map_while(Result::ok);
        let committed = lines.filter(|line| line.contains("committed"));
        assert_eq!(committed.take(COMMITS_COUNT).count(), COMMITS_COUNT);
        victim.kill().expect("it is killed");
        victim.wait().expect("it ends");

        let conn = file.plain();
        assert_eq!(rows(&conn, "PRAGMA integrity_check"), ["ok"]);
        let replica = Connection::open_in_memory().expect("SQLite opens in memory");
        pull(&replica, &conn);
        assert_same_rows(&replica, &conn, &TABLES);
        let words = rows(&replica, "SELECT id FROM word");
        assert!(
            words.len() >= COMMITS_COUNT,
            "{journal}: {} arrived",
            words.len()
        );
        let last = format!("{}", words.len() - 1);
        assert_eq!(rows(&replica, "SELECT CAST(a AS TEXT) FROM pair"), [last]);
    }
}

/// Makes a file whose rowids have gaps and whose rows were written at different times.
fn with_gaps(tables: &[(&str, &str)]) -> File {
    let file = File::new("DELETE", tables);
    for (table, _) in tables {
        let is_number = *table == "number";
        let key = |letter: &'static str, number: &'static str| match is_number {
            true => number.to_owned(),
            false => format!("'{letter}'"),
        };
        let [a, b, c, d, e] = [
            key("a", "1"),
            key("b", "2"),
            key("c", "3"),
            key("d", "4"),
            key("e", "5"),
        ];
        for step in [
            format!("INSERT INTO {table} VALUES({a}, 1), ({b}, 2), ({c}, 3), ({d}, 4), ({e}, 5)"),
            format!("DELETE FROM {table} WHERE id IN ({a}, {c})"),
            format!("UPDATE {table} SET a = 'edited' WHERE id = {d}"),
        ] {
            file.run(&step);
            digest(&file.conn);
        }
    }
    file
}

#[test]
fn vacuum_leaves_every_clock_with_its_row() {
    let file = with_gaps(&TABLES);
    let before = digest(&file.conn);
    file.run("VACUUM");
    assert_eq!(digest(&file.conn), before);
    file.run("UPDATE word SET a = 'after' WHERE id = 'e'; DELETE FROM word WHERE id = 'b'");
    file.run("VACUUM");
    let replica = Connection::open_in_memory().expect("SQLite opens in memory");
    pull(&replica, &file.conn);
    assert_same_rows(&replica, &file.conn, &TABLES);
}

/// Dumps a file with the shell and runs the dump into another; `None` without a shell.
fn restored(file: &File) -> Option<(Desk, Connection)> {
    let desk = Desk::new();
    if !desk.has_shell() {
        return None;
    }
    let script = format!(".open '{}'\n.dump", file.path().display());
    let (dump, complaints) = desk.shell(&script);
    assert_eq!(complaints, "");
    let restored = open(&desk.path("restored.db"));
    restored.execute_batch(&dump).expect("the dump runs");
    Some((desk, restored))
}

#[test]
fn a_restored_dump_keeps_the_clocks_of_tables_named_by_their_key() {
    let tables = [TABLES[0], TABLES[2]];
    let file = with_gaps(&tables);
    let replica = Connection::open_in_memory().expect("SQLite opens in memory");
    pull(&replica, &file.conn);
    file.run("UPDATE number SET a = 'pending' WHERE id = 5");
    let Some((_desk, restored)) = restored(&file) else {
        return;
    };
    assert_same_rows(&restored, &file.conn, &tables);
    restored
        .execute_batch(
            "UPDATE number SET a = 'after' WHERE id = 2; DELETE FROM pair WHERE id = 'b'",
        )
        .expect("a write");
    pull(&replica, &restored);
    assert_same_rows(&replica, &restored, &tables);
}

/// The shell's `.dump` gives rows without an integer key other rowids, and the clocks name those.
#[test]
fn a_restored_dump_of_a_text_keyed_table_is_noticed_and_healed() {
    let tables = [TABLES[1]];
    let file = with_gaps(&tables);
    let replica = Connection::open_in_memory().expect("SQLite opens in memory");
    pull(&replica, &file.conn);
    let Some((_desk, restored)) = restored(&file) else {
        return;
    };
    restored
        .execute_batch("UPDATE word SET a = 'after' WHERE id = 'e'")
        .expect("a write");
    pull(&replica, &restored);
    assert_same_rows(&replica, &restored, &tables);
    let newcomer = Connection::open_in_memory().expect("SQLite opens in memory");
    pull(&newcomer, &restored);
    let select = "SELECT id || ':' || a FROM word ORDER BY id";
    assert_eq!(rows(&newcomer, select), ["b:2", "d:edited", "e:after"]);
    assert_eq!(digest(&newcomer), digest(&restored));
}

#[test]
fn writes_through_an_attached_name_are_captured() {
    let file = File::new("DELETE", &TABLES);
    let other = Connection::open_in_memory().expect("SQLite opens in memory");
    other
        .execute("ATTACH ?1 AS app", [file.path().to_string_lossy()])
        .expect("attach");
    other
        .execute_batch("INSERT INTO app.word VALUES('x', 1); UPDATE app.word SET a = 2")
        .expect("a write");
    // The connection's own database is not tracked, and stays so.
    assert!(syncline_sqlite::export(&other, &VersionVector::new(), NOON).is_err());
    assert_eq!(syncline_sqlite::fold(&other, NOON).expect("fold"), None);
    let replica = Connection::open_in_memory().expect("SQLite opens in memory");
    pull(&replica, &file.conn);
    assert_eq!(rows(&replica, "SELECT id || a FROM word"), ["x2"]);
}

#[test]
fn a_tracked_file_ignores_what_is_attached_beside_it() {
    let (file, beside) = (File::new("DELETE", &TABLES), File::new("DELETE", &TABLES));
    beside.run("INSERT INTO word VALUES('beside', 1)");
    let path = beside.path();
    file.conn
        .execute("ATTACH ?1 AS beside", [path.to_string_lossy()])
        .expect("attach");
    file.run("INSERT INTO main.word VALUES('here', 1); INSERT INTO beside.word VALUES('too', 1)");
    for file in [&file, &beside] {
        let replica = Connection::open_in_memory().expect("SQLite opens in memory");
        pull(&replica, &file.conn);
        assert_same_rows(&replica, &file.conn, &TABLES);
    }
}

#[test]
fn a_reader_exports_what_was_folded_and_says_why_not_otherwise() {
    for journal in JOURNALS {
        let file = File::new(journal, &TABLES);
        file.run("INSERT INTO word VALUES('x', 1)");
        digest(&file.conn);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let reader = Connection::open_with_flags(file.path(), flags).expect("the file opens");
        let replica = Connection::open_in_memory().expect("SQLite opens in memory");
        pull(&replica, &reader);
        assert_same_rows(&replica, &reader, &TABLES);
        file.run("INSERT INTO word VALUES('y', 1)");
        let error = syncline_sqlite::export(&reader, &VersionVector::new(), NOON);
        let error = error.expect_err("nothing can be folded here").to_string();
        assert!(error.contains("readonly"), "{error}");
    }
}

#[test]
fn a_file_that_left_has_no_trace_of_it() {
    for journal in JOURNALS {
        let file = with_gaps(&TABLES);
        let mode = format!("PRAGMA journal_mode = {journal}");
        assert_eq!(rows(&file.conn, &mode), [journal.to_lowercase()]);
        pull(&file.conn, &with_gaps(&TABLES).conn);
        file.run("ALTER TABLE word ADD COLUMN late DEFAULT 'x'; UPDATE word SET late = 'y'");
        syncline_sqlite::leave(&file.conn).expect("leave");
        let left = "SELECT name FROM sqlite_master WHERE sql LIKE '%syncline%'
            OR name LIKE '%syncline%'";
        assert_eq!(rows(&file.conn, left), [""; 0]);
        file.run("VACUUM; DELETE FROM word; PRAGMA wal_checkpoint(TRUNCATE)");
        let File { folder, conn } = file;
        drop(conn);
        for entry in fs::read_dir(folder.path()).expect("the folder is readable") {
            let path = entry.expect("the folder is readable").path();
            let bytes = fs::read(&path).expect("the file is readable");
            let has = |word: &[u8]| bytes.windows(word.len()).any(|bytes| bytes == word);
            assert!(!has(b"syncline"), "{journal}: {}", path.display());
        }
    }
}
