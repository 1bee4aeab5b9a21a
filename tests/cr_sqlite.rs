//! Nodes whose CRR layer is a loaded cr-sqlite: this project's own extension under that name, and
//! the one that the environment variable `CRSQLITE_PATH` names, as `.ci/run` does.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::harness::program::{extension, left_out};
use crate::harness::room::{Room, Running, until_in_sync};

const ROWS: &str = "SELECT id || ' ' || ifnull(what, '-') || ' ' || done FROM todo ORDER BY id";

/// One user's device with a cr-sqlite.
struct Device {
    room: Room,
    file: PathBuf,
}

impl Device {
    fn new(file: &Path) -> Self {
        Device {
            room: Room::new(),
            file: file.to_owned(),
        }
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let file = self.file.to_str().expect("a path of the tests is text");
        let arguments = [arguments, &["--crr-extension", file]].concat();
        self.room.start(&arguments)
    }

    /// Writes as a program does that has loaded its cr-sqlite.
    fn write(&self, sql: &str) {
        let conn = self.room.sqlite("app.db");
        syncline_sqlite::load_extension(&conn, &self.file).expect("it loads");
        conn.execute_batch(sql).expect(sql);
        conn.query_row("SELECT crsql_finalize()", [], |_| Ok(()))
            .expect("it ends");
    }

    fn rows(&self) -> Vec<String> {
        self.room.query("app.db", ROWS)
    }
}

/// Returns this project's extension in a file of cr-sqlite's name, and the folder it lies in.
fn ours() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let name = format!("crsqlite{}", std::env::consts::DLL_SUFFIX);
    let file = folder.path().join(name);
    std::fs::copy(extension(), &file).expect("the extension is copied");
    (folder, file)
}

fn real() -> Option<PathBuf> {
    let file = std::env::var_os("CRSQLITE_PATH").map(PathBuf::from);
    if file.is_none() {
        left_out("cr-sqlite", "CRSQLITE_PATH names none");
    }
    file
}

/// Two devices with these files share a table that one of them has.
fn exchange(one: &Path, two: &Path) {
    let [laptop, phone] = [one, two].map(Device::new);
    laptop.room.execute(
        "app.db",
        "CREATE TABLE todo(id TEXT PRIMARY KEY NOT NULL, what TEXT, done INTEGER DEFAULT 0);
         CREATE INDEX todo_by_what ON todo(what);
         INSERT INTO todo(id, what) VALUES('a', 'buy bread'), ('b', 'call mum');",
    );
    let mut sharing = laptop.start(&["share", "app.db"]);
    let ticket = sharing.line();
    let mut joined = phone.start(&["join", &ticket, "app.db"]);
    joined.says("Keep this running");
    let devices = [(&laptop.room, "app.db"), (&phone.room, "app.db")];
    until_in_sync(&devices);
    assert_eq!(phone.rows(), ["a buy bread 0", "b call mum 0"]);

    laptop.write("UPDATE todo SET done = 1 WHERE id = 'a'; DELETE FROM todo WHERE id = 'b'");
    phone.write(
        "UPDATE todo SET what = 'late' WHERE id = 'b'; INSERT INTO todo VALUES('c', 'sing', 0)",
    );
    until_in_sync(&devices);
    assert_eq!(laptop.rows(), ["a buy bread 1", "c sing 0"]);
    assert_eq!(phone.rows(), laptop.rows());

    // What is written while nothing runs is sent when it runs again, and a deleted row comes back.
    assert_eq!(joined.interrupt().0, Some(0));
    phone.write("INSERT INTO todo(id, what) VALUES('b', 'again')");
    laptop.write("UPDATE todo SET what = 'dance' WHERE id = 'c'");
    let mut served = phone.start(&["serve", "app.db"]);
    until_in_sync(&devices);
    assert_eq!(phone.rows(), ["a buy bread 1", "b again 0", "c dance 0"]);
    assert_eq!(phone.rows(), laptop.rows());
    for running in [&mut sharing, &mut served] {
        assert_eq!(running.interrupt().0, Some(0));
    }
    for device in [&laptop, &phone] {
        let file = device.file.to_str().expect("a path of the tests is text");
        device
            .room
            .done(&["leave", "app.db", "--crr-extension", file]);
        device
            .room
            .execute("app.db", "INSERT INTO todo(id) VALUES('z')");
        assert_eq!(device.rows().len(), 4);
    }
}

#[test]
fn nodes_exchange_rows_by_this_extension_in_the_place_of_cr_sqlite() {
    let (_folder, ours) = ours();
    exchange(&ours, &ours);
}

#[test]
fn nodes_exchange_rows_by_a_real_cr_sqlite() {
    let Some(real) = real() else { return };
    exchange(&real, &real);
}

#[test]
fn a_real_cr_sqlite_and_this_extension_exchange_rows() {
    let Some(real) = real() else { return };
    let (_folder, ours) = ours();
    exchange(&ours, &real);
    exchange(&real, &ours);
}

#[test]
fn a_database_of_cr_sqlite_is_not_shared_by_mistake() {
    let room = Room::new();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cr-sqlite-0.16.sql");
    let fixture = std::fs::read_to_string(fixture).expect("the fixture is readable");
    room.execute("app.db", &fixture);
    let said = room.run(&["share", "app.db", "--table", "item"]);
    assert_eq!(said.code, Some(1));
    let reason = "cannot track `item`: crsql_as_crr made it a crr: call crsql_as_table first";
    assert!(said.stderr.contains(reason), "{}", said.stderr);
}
