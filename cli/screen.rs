//! Progress bars and the words for what a node tells.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use syncline_engine::NodeEvent;

/// Returns a bar that counts to `length`; shown only where a person looks.
pub(crate) fn bar(length: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed}");
    let style = style
        .expect("the template is well-formed")
        .progress_chars("=> ");
    ProgressBar::new(length)
        .with_style(style)
        .with_message(what)
}

/// Returns a spinner; shown only where a person looks.
pub(crate) fn spinner(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
    let spinner = ProgressBar::new_spinner()
        .with_style(style.expect("the template is well-formed"))
        .with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

/// Returns what a node's event is called; `None` for one that is only of use to programs.
pub(crate) fn words(event: &NodeEvent) -> Option<String> {
    match event {
        NodeEvent::PeerUp(peer) => Some(format!("connected: {peer}")),
        NodeEvent::PeerDown(peer) => Some(format!("gone: {peer}")),
        NodeEvent::Refused { peer, reason } => Some(format!("turned away: {peer}: {reason}")),
        NodeEvent::Trouble(text) => Some(format!("trouble: {text}")),
        _ => None,
    }
}

/// Returns a number with its noun.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// Returns a size for people.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
