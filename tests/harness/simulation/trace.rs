//! What happened last in a simulation, told when its schedule fails.

use std::collections::VecDeque;

use super::super::operation::{Operation, Transaction};
use super::Simulation;

/// How many lines of a schedule are told when it fails.
const LINES_MAX: usize = 60;

/// What happened last; told when a schedule fails.
pub(super) struct Trace {
    pub(super) name: String,
    pub(super) lines: VecDeque<String>,
}

impl Simulation {
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        let now_ms = self.network.now_ms;
        self.trace
            .lines
            .push_back(format!("{now_ms:>8} {}", text()));
        if self.trace.lines.len() > LINES_MAX {
            self.trace.lines.pop_front();
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.lines.make_contiguous().join("\n");
            eprintln!(
                "{} failed. What happened last, by milliseconds:\n{lines}",
                self.name
            );
        }
    }
}

/// Returns a transaction as SQL, each statement by its beginning.
pub(super) fn brief(transaction: &Transaction) -> String {
    let Transaction {
        before,
        undone,
        after,
        is_rolled_back,
    } = transaction;
    let sql = |operations: &[Operation]| {
        let sql = operations.iter().map(|operation| {
            let sql = operation.sql();
            sql.char_indices()
                .nth(120)
                .map_or(sql.clone(), |(end, _)| format!("{}…", &sql[..end]))
        });
        sql.collect::<Vec<_>>().join("; ")
    };
    let mut text = sql(before);
    if !undone.is_empty() {
        text += &format!(" (undone: {})", sql(undone));
    }
    text += &format!("; {}", sql(after));
    if *is_rolled_back {
        format!("{text}, rolled back")
    } else {
        text
    }
}
