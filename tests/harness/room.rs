//! A folder where the `syncline` program is run as a user runs it: to its end, or in the background.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use super::program::{feed, text};

/// The commands that open the network; here they stay on the loopback.
const NETWORKED: [&str; 4] = ["share", "join", "serve", "restore"];
const LISTEN: [&str; 2] = ["--listen", "/ip4/127.0.0.1/tcp/0"];
/// How long a line is waited for before the test fails. It never decides what is right.
const GUARD: Duration = Duration::from_secs(60);
/// How often something is looked for, each time with a process, before the test fails.
const LOOKS_MAX: usize = 10_000;

/// A folder of one user.
pub(crate) struct Room {
    folder: TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A process in the background; it is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Receiver<String>,
    pub(crate) said: String,
}

impl Room {
    pub(crate) fn new() -> Self {
        Room {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Opens a file as any program would, without a function of ours.
    pub(crate) fn sqlite(&self, file: &str) -> Connection {
        let conn = Connection::open(self.path(file)).expect("the file opens");
        conn.busy_timeout(GUARD).expect("a timeout is set");
        conn
    }

    pub(crate) fn execute(&self, file: &str, sql: &str) {
        self.sqlite(file).execute_batch(sql).expect(sql);
    }

    /// Returns the rows of a query of one text column.
    pub(crate) fn query(&self, file: &str, sql: &str) -> Vec<String> {
        let conn = self.sqlite(file);
        let mut statement = conn.prepare(sql).expect(sql);
        let rows = statement.query_map([], |row| row.get(0)).expect(sql);
        rows.collect::<Result<_, _>>().expect(sql)
    }

    /// Returns the program with these arguments, in this folder.
    pub(crate) fn syncline(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_remove("SYNCLINE_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if NETWORKED.contains(&arguments[0]) && !arguments.contains(&LISTEN[0]) {
            command.args(LISTEN);
        }
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        let output = feed(&mut self.syncline(arguments), "");
        Said {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Runs the program, which must succeed, and returns its output.
    #[track_caller]
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        said.stdout
    }

    /// Runs the program, which must refuse with this code and these words.
    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str], code: i32, words: &str) {
        let said = self.run(arguments);
        assert_eq!(said.stderr, words, "{arguments:?}");
        assert_eq!(
            (said.code, &*said.stdout),
            (Some(code), ""),
            "{arguments:?}"
        );
    }

    /// Starts the program in the background.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self.syncline(arguments).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let said = BufReader::new(child.stderr.take().expect("its complaints are a pipe"));
        let (lines, stderr) = mpsc::channel();
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                // A test that ended reads no more.
                let _ = lines.send(line);
            }
        });
        Running {
            child,
            stdout,
            stderr,
            said: String::new(),
        }
    }

    /// Shares a file, and returns the process and its ticket.
    pub(crate) fn share(&self, file: &str) -> (Running, String) {
        let mut running = self.start(&["share", file]);
        let ticket = running.line();
        running.says("Ctrl-C ends it");
        (running, ticket)
    }

    /// Joins with a file, and returns when everything is here.
    pub(crate) fn join(&self, ticket: &str, file: &str) -> Running {
        let mut running = self.start(&["join", ticket, file]);
        running.says("Keep this running");
        running
    }

    /// Serves a file again.
    pub(crate) fn serve(&self, file: &str) -> Running {
        let mut running = self.start(&["serve", file]);
        running.says("serving");
        running
    }

    /// Returns what `status --json` says; `None` while the node cannot answer.
    pub(crate) fn status(&self, file: &str) -> Option<Value> {
        let said = self.run(&["status", file, "--json"]);
        serde_json::from_str(&said.stdout).ok()
    }
}

impl Running {
    /// Returns the next line of its output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it is text");
        line.trim_end().to_owned()
    }

    /// Waits until it says this.
    #[track_caller]
    pub(crate) fn says(&mut self, words: &str) {
        while !self.said.contains(words) {
            match self.stderr.recv_timeout(GUARD) {
                Ok(line) => self.said.push_str(&format!("{line}\n")),
                Err(error) => panic!("it never said `{words}` ({error}), but:\n{}", self.said),
            }
        }
    }

    /// Ends it as Ctrl-C does, and returns its code and the rest of its output.
    pub(crate) fn interrupt(&mut self) -> (Option<i32>, String) {
        self.signal("INT")
    }

    /// Ends it as the system does when it shuts down.
    pub(crate) fn terminate(&mut self) -> (Option<i32>, String) {
        self.signal("TERM")
    }

    fn signal(&mut self, signal: &str) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.expect("there is a kill").success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("it is text");
        let ended = self.child.wait().expect("it ends");
        self.said.extend(self.stderr.iter().map(|line| line + "\n"));
        (ended.code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until it holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let looks = (0..LOOKS_MAX).any(|_| holds());
    assert!(looks, "never: {what}");
}

/// Waits until these served files, and only they, hold the same and know that they do.
#[track_caller]
pub(crate) fn until_in_sync(devices: &[(&Room, &str)]) {
    let mut last = Vec::new();
    let agree = || {
        let statuses = devices.iter().map(|(room, file)| room.status(file));
        last = statuses.collect();
        let is_level = |status: &Value| {
            let peers = status["peers"].as_array().expect("a list");
            peers.len() + 1 == devices.len()
                && peers
                    .iter()
                    .all(|peer| peer["lacks_count"] == 0 && peer["ahead_count"] == 0)
        };
        let first = last[0].as_ref().map(|status| status["digest"].clone());
        last.iter().all(|status| {
            let status = status.as_ref();
            status.is_some_and(is_level) && status.map(|s| s["digest"].clone()) == first
        })
    };
    let mut agree = agree;
    let is_done = (0..LOOKS_MAX).any(|_| agree());
    assert!(is_done, "never in sync: {last:#?}");
}
