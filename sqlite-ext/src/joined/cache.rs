//! The histories that were used last on this thread: reading one costs time in proportion to all
//! its edits, and each key that a user presses would pay it.
//!
//! A history is found by its token, the hash of all that it holds. So it does not matter which
//! database it came from, or that a transaction was rolled back since: where the file names the
//! same token, the history is the same.

use std::cell::RefCell;

use syncline_crdt::{History, Policy};

/// How many histories are kept.
const HISTORIES_COUNT: usize = 8;

thread_local! {
    static RECENT: RefCell<Vec<History>> = const { RefCell::new(Vec::new()) };
}

/// Takes the history with this token, if it is kept.
pub(super) fn take(policy: Policy, token: [u8; 16]) -> Option<History> {
    RECENT.with_borrow_mut(|recent| {
        let is_it = |history: &History| history.token() == token && history.policy() == policy;
        let at = recent.iter().position(is_it)?;
        Some(recent.remove(at))
    })
}

/// Keeps a history, in place of the one that was used longest ago.
pub(super) fn put(history: History) {
    if history.token() == [0; 16] {
        return;
    }
    RECENT.with_borrow_mut(|recent| {
        if recent.len() == HISTORIES_COUNT {
            recent.remove(0);
        }
        recent.push(history);
    });
}
