//! Moves bytes between the members of one database, over QUIC and TCP.
//!
//! It proves who a peer is and that it is a member, keeps the members connected, passes gossip on
//! and opens streams. What the bytes mean, and which key they are sealed with, it never learns.
//!
//! ```text
//!              encrypted, identity proved            knows the admission key
//!   stranger ─────────────────────────▶ connected ───────────────────────▶ admitted
//!       ▲                                   │                                  │
//!       │      wrong key, nonsense, late    │             last connection gone │
//!       └────────── Event::Refused ─────────┘                                  ▼
//!       └───────────────────────────────────────────────────────────────── down, redialed
//! ```
//!
//! A connection shows nothing of the node until its peer is admitted: no topic, no address, no
//! protocol but the admission itself. `Event::PeerUp` follows as soon as gossip reaches the peer,
//! `Event::PeerDown` when its last connection is gone.
//!
//! Members tell each other where members are, so one address is enough to join, and everyone
//! dials everyone, up to [`MEMBERS_DIALED_MAX`]. A member that is lost is dialed again, at first
//! after [`REDIAL_FIRST`] and in the end every [`REDIAL_MAX`], for ever.
//!
//! Everything a peer can choose has a limit, and everything that can fill up says what happens
//! then: gossip is dropped, streams are refused, and the node goes on.

#![cfg_attr(
    test,
    expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")
)]

mod address;
mod admission;
mod behaviour;
mod book;
mod config;
mod driver;
mod event;
mod exchange;
mod frame;
mod gate;
mod network;
mod outbox;
mod port;
mod sharing;
mod stream;
mod streams;

pub use behaviour::{
    CONNECTIONS_MAX, CONNECTIONS_PENDING_MAX, CONNECTIONS_PER_PEER_MAX, GOSSIP_BYTES_MAX,
    STREAMS_PER_CONNECTION_MAX, TRANSMIT_BYTES_MAX,
};
pub use book::{MEMBERS_DIALED_MAX, PEERS_KNOWN_MAX, REDIAL_FIRST, REDIAL_MAX};
pub use config::{ADMISSION_DEADLINE, Config};
pub use event::{Event, Refusal, Ticket, Verdict};
pub use frame::{FRAME_BYTES_MAX, FrameError, read_frame, write_frame};
pub use libp2p::{Multiaddr, PeerId, StreamProtocol};
pub use network::{
    COMMANDS_MAX, DialError, Network, OpenStreamError, PublishError, StartError, Stopped,
};
pub use outbox::EVENTS_MAX;
pub use stream::Stream;
