//! The loadable extension in the programs that load it: the shell, Python, Node.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;

use crate::harness::program::{Desk, extension, feed, left_out, text};

#[test]
fn the_shell_gives_the_expected_transcripts() {
    if !Desk::new().has_shell() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql");
    let mut scripts_count = 0;
    for entry in fs::read_dir(&folder).expect("the scripts are there") {
        let script = entry.expect("the folder is readable").path();
        if script
            .extension()
            .is_none_or(|extension| extension != "sql")
        {
            continue;
        }
        let sql = fs::read_to_string(&script).expect("the script is readable");
        let (output, complaints) = Desk::new().shell(&format!(".echo on\n{sql}"));
        let transcript = format!("{output}\n{}", errors(&complaints));
        expect(&script.with_extension("expected"), &transcript);
        scripts_count += 1;
    }
    assert_eq!(scripts_count, 2);
}

/// Compares with a file, or writes it if `UPDATE_EXPECTED` is set.
#[track_caller]
fn expect(file: &Path, found: &str) {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(file, found).expect("the file is writable");
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    for (at, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{}:{}", file.display(), at + 1);
    }
    assert_eq!(found, expected, "{}", file.display());
}

/// Returns the shell's complaints without what differs between its versions.
fn errors(complaints: &str) -> String {
    let mut errors = String::new();
    for line in complaints.lines() {
        let Some((kind, message)) = line.split_once(": ") else {
            continue;
        };
        if kind.contains("rror") {
            let message = message.trim_start_matches("stepping, ");
            errors.push_str(&format!("error: {message}\n"));
        }
    }
    errors
}

#[test]
fn a_file_named_as_the_package_loads_too() {
    let desk = Desk::new();
    if !desk.has_shell() {
        return;
    }
    let file = format!("syncline{}", std::env::consts::DLL_SUFFIX);
    fs::copy(extension(), desk.path(&file)).expect("the extension is copied");
    let (output, complaints) = desk.shell(".load ./syncline\nSELECT syncline_version();");
    assert_eq!((output.trim(), &*complaints), ("0.1.0", ""));
}

#[test]
fn a_killed_shell_leaves_nothing_behind_but_its_commits() {
    let desk = Desk::new();
    if !desk.has_shell() {
        return;
    }
    let mut shell = desk
        .program("sqlite3")
        .args(["-batch", "a.db"])
        .spawn()
        .expect("it starts");
    let mut input = shell.stdin.take().expect("its input is a pipe");
    let script = "
        .load ./libsyncline
        PRAGMA journal_mode = WAL;
        CREATE TABLE t(id INTEGER PRIMARY KEY, a);
        SELECT syncline_track('t');
        INSERT INTO t VALUES(1, 'folded');
        SELECT length(syncline_digest());
        INSERT INTO t VALUES(2, 'committed');
        BEGIN; INSERT INTO t VALUES(3, 'not committed');
        .print ready\n";
    // The shell reads a dot-command only at the beginning of a line.
    let script = script.replace("\n        ", "\n");
    input.write_all(script.as_bytes()).expect("the shell reads");
    input.flush().expect("the shell reads");
    let output = BufReader::new(shell.stdout.take().expect("its output is a pipe"));
    // The shell may hold its output back; more input makes it write.
    let feeding = std::thread::spawn(move || while input.write_all(b".print more\n").is_ok() {});
    let ready = output
        .lines()
        .map_while(Result::ok)
        .find(|line| line == "ready");
    assert!(ready.is_some(), "the shell got through its script");
    shell.kill().expect("the shell is killed");
    shell.wait().expect("the shell ends");
    feeding.join().expect("its input is closed");

    let (output, complaints) = desk.shell(
        ".open a.db\n.load ./libsyncline\nSELECT writefile('changes', syncline_export()) > 0;
        SELECT writefile('digest', syncline_digest()) > 0;
        .open b.db\n.load ./libsyncline\nSELECT syncline_import(readfile('changes'));
        SELECT a FROM t ORDER BY id;
        SELECT 'equal', syncline_digest() = CAST(readfile('digest') AS TEXT);"
            .replace("\n        ", "\n")
            .as_str(),
    );
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(complaints, "");
    assert_eq!(lines, ["1", "1", "2", "folded", "committed", "equal|1"]);
}

#[test]
fn python_loads_it() {
    let desk = Desk::new();
    let can = "import sqlite3, sys
sys.exit(0 if hasattr(sqlite3.Connection, 'enable_load_extension')
    and sqlite3.sqlite_version_info >= (3, 37) else 'its sqlite3 loads no extensions')";
    let python = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        match desk.program(python).args(["-c", can]).output() {
            Ok(output) if output.status.success() => true,
            Ok(output) => left_out(python, &text(&output.stderr)),
            Err(error) => left_out(python, &error.to_string()),
        }
    });
    if let Some(python) = python {
        tells_the_story(desk.program(python).arg("-"), PYTHON);
    }
}

const PYTHON: &str = r#"
import sqlite3

def connect(file, extension=True):
    db = sqlite3.connect(file)
    if extension:
        db.enable_load_extension(True)
        db.load_extension("./libsyncline")
    return db

def one(db, sql, *values):
    return db.execute(sql, values).fetchone()[0]

a, b = connect("a.db"), connect("b.db")
with a:
    a.execute("CREATE TABLE t(id TEXT PRIMARY KEY, a)")
    a.execute("INSERT INTO t VALUES('x', 1)")
print(one(a, "SELECT syncline_track('t')"))
a.commit()
print(one(b, "SELECT syncline_import(?)", one(a, "SELECT syncline_export()")))
b.commit()
a.close()
with connect("a.db", extension=False) as plain:
    plain.execute("INSERT INTO t VALUES('plain', 2)")
with b:
    b.execute("UPDATE t SET a = 'from b'")
a = connect("a.db")
for _ in range(2):
    since = one(b, "SELECT syncline_version_vector()")
    one(b, "SELECT syncline_import(?)", one(a, "SELECT syncline_export(?)", since))
    a, b = b, a
print(one(a, "SELECT syncline_digest()") == one(b, "SELECT syncline_digest()"))
print(sorted(a.execute("SELECT * FROM t")) == sorted(b.execute("SELECT * FROM t")))
print(one(a, "SELECT group_concat(a, ',') FROM (SELECT a FROM t ORDER BY id)"))
try:
    one(a, "SELECT syncline_import(x'00')")
except sqlite3.Error as error:
    print(error)
"#;

#[test]
fn node_loads_it() {
    let desk = Desk::new();
    let can = "require('node:sqlite').DatabaseSync.prototype.loadExtension.call";
    match desk.program("node").args(["-e", can]).output() {
        Ok(output) if output.status.success() => {
            tells_the_story(desk.program("node").arg("-"), NODE);
        }
        Ok(_) => {
            left_out("node", "its node:sqlite is missing or loads no extensions");
        }
        Err(error) => {
            left_out("node", &error.to_string());
        }
    }
}

const NODE: &str = r#"
const { DatabaseSync } = require("node:sqlite");

function connect(file, extension = true) {
  const db = new DatabaseSync(file, { allowExtension: extension });
  if (extension) db.loadExtension("./libsyncline");
  return db;
}

const one = (db, sql, ...values) => Object.values(db.prepare(sql).get(...values))[0];
const rows = (db) => JSON.stringify(db.prepare("SELECT * FROM t ORDER BY id").all());

let a = connect("a.db");
let b = connect("b.db");
a.exec("CREATE TABLE t(id TEXT PRIMARY KEY, a); INSERT INTO t VALUES('x', 1)");
console.log(one(a, "SELECT syncline_track('t')"));
console.log(one(b, "SELECT syncline_import(?)", one(a, "SELECT syncline_export()")));
a.close();
const plain = connect("a.db", false);
plain.exec("INSERT INTO t VALUES('plain', 2)");
plain.close();
b.exec("UPDATE t SET a = 'from b'");
a = connect("a.db");
for (const [to, from] of [[b, a], [a, b]]) {
  const since = one(to, "SELECT syncline_version_vector()");
  one(to, "SELECT syncline_import(?)", one(from, "SELECT syncline_export(?)", since));
}
console.log(one(a, "SELECT syncline_digest()") === one(b, "SELECT syncline_digest()") ? "True" : "False");
console.log(rows(a) === rows(b) ? "True" : "False");
console.log(one(a, "SELECT group_concat(a, ',') FROM (SELECT a FROM t ORDER BY id)"));
try {
  one(a, "SELECT syncline_import(x'00')");
} catch (error) {
  console.log(error.message);
}
"#;

/// Runs a program that syncs two files in its own language, and compares what it says.
#[track_caller]
fn tells_the_story(program: &mut Command, source: &str) {
    let output = feed(program, source);
    let says = text(&output.stdout);
    assert!(output.status.success(), "{says}{}", text(&output.stderr));
    let lines: Vec<&str> = says.lines().collect();
    assert_eq!(
        lines,
        [
            "tracking t with 1 rows",
            "1",
            "True",
            "True",
            "2,from b",
            "these bytes are not a Syncline changeset or version vector",
        ]
    );
}

#[test]
fn the_entry_point_is_all_that_is_exported() {
    let defined = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(extension())
        .output();
    let Ok(defined) = defined else {
        left_out("nm", "not installed");
        return;
    };
    let defined = text(&defined.stdout);
    let names = defined
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    assert_eq!(names.collect::<Vec<_>>(), ["sqlite3_syncline_init"]);
}
