//! How the cells of a column join where one write does not replace another.
//!
//! A cell of such a column is shown as one value, and is kept as what each site added to it:
//! - [`SiteEntries`] holds one entry for each site, cumulative: a site's later entry replaces its
//!   earlier one. Counters, greatest and least values and sets are kept so.
//! - [`History`] holds every edit of a text or a document, with automerge.
//!
//! Both join in any order and any number of times, and both tell from the value that a user left
//! behind what the user did.

mod bounded;
mod counter;
mod diff;
mod document;
mod entries;
mod extreme;
mod history;
mod json;
mod set;
mod text;

#[cfg(test)]
mod tests;

pub use entries::{GrantError, SiteEntries};
pub use history::{Aside, DELTA_BYTES_MAX, History};

use crate::DecodeError;

/// What a joined column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// What is added and subtracted adds up.
    Counter,
    /// A counter that never goes below `floor`: each site subtracts from its own share only.
    BoundedCounter {
        /// The least value.
        floor: i64,
    },
    /// The greatest value that was written.
    Max,
    /// The least value that was written.
    Min,
    /// A JSON array whose elements are added and removed one by one.
    Set,
    /// A text whose edits merge.
    Text,
    /// A JSON document whose edits merge.
    Document,
}

impl Policy {
    /// Whether a cell keeps its [`History`]; if not, it keeps [`SiteEntries`].
    pub fn keeps_history(self) -> bool {
        matches!(self, Policy::Text | Policy::Document)
    }
}

/// Why what a site added to a cell is not taken in; the cell is as before then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// Its bytes are no entry of this policy.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Its bytes are no edits of a text or document.
    #[error("these are no edits of a text or document")]
    Edits(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It breaks a rule.
    #[error("what was added to a cell breaks a rule: {rule}")]
    Rule {
        /// The rule.
        rule: &'static str,
    },
}
