//! The log: every envelope of a database, append-only, per author and stream, in a SQLite file.
//!
//! **Invariant:** for each (author, stream) the log holds the envelopes 1 to head without a gap,
//! each naming the one before it in `prev`; and of these, a prefix is settled (applied or refused).
//! Every call that writes is one transaction, so the invariant survives `kill -9` at any point.
//!
//! The file is in WAL mode with `synchronous = NORMAL`, for own envelopes too: a power failure may
//! lose the last transactions whole, and that costs nothing. Received envelopes are fetched again.
//! An own envelope that is lost takes the cursor set in its transaction with it, so its changes are
//! sealed again, under a stream drawn at the next start, which no peer has seen; applying a change
//! twice is harmless. [`Log::flush`] makes everything durable where somebody must rely on it.
//!
//! **Forks:** two envelopes signed for one place (or naming different predecessors) are the mark of
//! a cloned machine or a dishonest author. The first one stays, the second is kept aside as
//! evidence and is neither applied nor sent, so replicas that met them in different order differ
//! in that stream, and say so in [`LogStatus::forks_count`].

mod append;
mod apply;
mod error;
mod heads;
mod peers;
mod read;
mod schema;
mod store;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests;

pub use append::{Cursor, FORK_BYTES_MAX, FORKS_PER_AUTHOR_MAX, Fork, Received};
pub use apply::{BlockedStream, Logged};
pub use error::LogError;
pub use heads::{Heads, Position, StreamRef};
pub use peers::{PEER_BYTES_MAX, PEERS_MAX, PeerRecord};
pub use store::{CURSOR_BYTES_MAX, Log, LogStatus};
