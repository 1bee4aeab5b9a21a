//! A node: log, sync session, trust, snapshots, and the door to them.
//!
//! ```text
//!        other programs ──▶ app.db ◀──▶ replica ◀──▶ log
//!                                          │
//!   control socket ──▶ node ◀── watch ─────┤ sealed envelopes
//!                       │                  │
//!                       ├── link ◀──▶ session (pure) ──▶ streams ─┐
//!                       ├── gossip ───────────────────────────────┤ transport
//!                       └── cold ◀──▶ parity ──▶ streams ─────────┘
//! ```
//!
//! [`Home`] is the folder beside the database; [`Node`] runs on it; [`control`] talks to a running
//! node. [`session`], [`log`], [`trust`] and [`cold`] stand on their own and say what they promise.

mod clock;
mod home;
mod layer;
mod link;
mod node;
mod peer;
mod replica;
mod store;
mod tables;

pub mod cold;
pub mod control;
pub mod log;
pub mod session;
pub mod trust;

pub use home::{Home, HomeError, OpenHome};
pub use layer::KeptBack;
pub use node::{
    Node, NodeError, NodeEvent, Options, PeerStatus, SnapshotStatus, Status, offline_status,
};
pub use peer::{device_of, peer_of};
pub use replica::{Replica, ReplicaError, Whole};
pub use syncline_transport::{Multiaddr, PeerId};
pub use tables::{
    Candidate, Chosen, Limit, Obstacle, OptionsError, TableOptions, TableReport, TablesError,
    Tracked, leave, track_tables,
};
