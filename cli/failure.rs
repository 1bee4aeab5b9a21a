//! How an error looks on the screen, and which exit code it has.

use std::fmt;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::process::ExitCode;

use rusqlite::ffi;
use syncline_engine::cold::RestoreError;
use syncline_engine::control::AskError;
use syncline_engine::trust::TicketError;
use syncline_engine::{HomeError, NodeError, Obstacle, ReplicaError, TablesError};

/// The exit code of a mistake of ours.
pub(crate) const BUG: u8 = 70;
/// The exit code of something that could not be done.
const NOT_DONE: u8 = 1;

/// An error as a person reads it: what, why, and what to do.
pub(crate) struct Failure {
    what: String,
    causes: Vec<String>,
    hint: Option<&'static str>,
    is_closed_pipe: bool,
}

impl Failure {
    /// Reads an error's chain.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for cause in error.chain() {
            let text = cause.to_string();
            // Transparent errors say what their cause says, and SQLite's number says it again.
            let is_said = texts.last() == Some(&text) || cause.is::<ffi::Error>();
            if !is_said || texts.is_empty() {
                texts.push(text);
            }
        }
        let is_closed_pipe = error.chain().any(|cause| {
            let io = cause.downcast_ref::<io::Error>();
            io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
        });
        let what = texts.remove(0);
        Failure {
            what,
            causes: texts,
            hint: error.chain().find_map(hint),
            is_closed_pipe,
        }
    }

    /// Prints it to standard error and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        // Whoever read our output has seen enough.
        if self.is_closed_pipe {
            return ExitCode::SUCCESS;
        }
        let mut out = io::stderr().lock();
        // With standard error gone there is nobody to tell.
        let _ = writeln!(out, "error: {}", self.what);
        for cause in &self.causes {
            let _ = writeln!(out, "  caused by: {cause}");
        }
        if let Some(hint) = self.hint {
            let _ = writeln!(out, "hint: {hint}");
        }
        ExitCode::from(NOT_DONE)
    }
}

/// What the program itself stopped at, with what to do about it.
#[derive(Debug)]
pub(crate) struct Obstructed {
    pub(crate) what: String,
    pub(crate) hint: &'static str,
}

impl fmt::Display for Obstructed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Obstructed {}

fn hint(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if let Some(error) = cause.downcast_ref::<HomeError>() {
        return home_hint(error);
    }
    match cause.downcast_ref::<AskError>() {
        Some(AskError::NotRunning { .. }) => {
            return Some("start it with `syncline serve <db>` in another terminal");
        }
        Some(AskError::Home(error)) => return home_hint(error),
        _ => {}
    }
    if let Some(error) = cause.downcast_ref::<Obstructed>() {
        return Some(error.hint);
    }
    if cause.is::<TicketError>() {
        return Some(
            "copy the whole ticket, from `syncline1` to its end, as `syncline ticket <db>` prints it",
        );
    }
    if let Some(error) = cause.downcast_ref::<TablesError>() {
        return match error {
            TablesError::Missing(_) => {
                Some("name an existing SQLite file, or join one with a ticket")
            }
            TablesError::NoTable { .. } => {
                Some("leave --table out to track every table that can be")
            }
            TablesError::Obstacle {
                obstacle: Obstacle::NoPrimaryKey,
                ..
            } => Some("give the table a primary key, or leave it out: it stays local"),
            TablesError::Obstacle { .. } => {
                Some("leave that table out: it stays local, and the others sync")
            }
            TablesError::Refused { .. } => {
                Some("leave that table out, or change it to what cr-sqlite takes")
            }
            TablesError::Home(error) => home_hint(error),
            TablesError::Replica(error) => replica_hint(error),
            _ => None,
        };
    }
    match cause.downcast_ref::<NodeError>() {
        Some(NodeError::Network(_)) => {
            return Some("name a free address with --listen, or leave it out");
        }
        Some(NodeError::Home(error)) => return home_hint(error),
        Some(NodeError::Replica(error)) => return replica_hint(error),
        _ => {}
    }
    cause.downcast_ref::<RestoreError>().map(restore_hint)
}

fn restore_hint(error: &RestoreError) -> &'static str {
    match error {
        RestoreError::NoPeer => {
            "a ticket leads to the device that printed it: take one from a device that is left, \
             with `syncline ticket <db>` while that serves it"
        }
        _ => "start `syncline serve <db>` on more of the devices that are left, then try again",
    }
}

fn replica_hint(error: &ReplicaError) -> Option<&'static str> {
    match error {
        ReplicaError::Extension { .. } => {
            Some("name the file of a cr-sqlite extension that this system can load")
        }
        ReplicaError::OtherLayer { .. } => {
            Some("use the same --crr-extension as before, or `syncline leave <db>` first")
        }
        _ => None,
    }
}

fn home_hint(error: &HomeError) -> Option<&'static str> {
    match error {
        HomeError::Absent { .. } => {
            Some("begin with `syncline share <db>`, or with `syncline join <ticket> <db>`")
        }
        HomeError::Present { .. } => {
            Some("`syncline serve <db>` goes on; `syncline leave <db>` ends it first")
        }
        HomeError::InUse { .. } => Some("stop that process first (Ctrl-C there)"),
        HomeError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Some("make the folder that the file is to lie in")
        }
        _ => None,
    }
}

/// Says that a panic is our mistake.
pub(crate) fn report_bug(panic: &PanicHookInfo<'_>) {
    // Panics with a closed standard output come from `println!` into a pipe that ended.
    let message = panic
        .payload()
        .downcast_ref::<String>()
        .map_or("", String::as_str);
    if message.contains("Broken pipe") {
        std::process::exit(0);
    }
    let mut out = io::stderr().lock();
    let _ = writeln!(out, "error: this is a mistake in syncline: {panic}");
    let _ = writeln!(
        out,
        "hint: your data is safe; please report it with the line above"
    );
}
