//! What the network tells its owner.

use libp2p::{Multiaddr, PeerId, StreamProtocol};
use libp2p_gossipsub::MessageId;

use crate::stream::Stream;

/// What the network tells its owner, in the order in which it happened.
///
/// `PeerUp` and `PeerDown` alternate for each peer, starting with `PeerUp`. `Gossip` and `Stream`
/// come only from a peer that is up.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer has proved that it is a member, and gossip and streams reach it.
    PeerUp {
        /// The member.
        peer: PeerId,
    },
    /// The last connection to a member is gone.
    PeerDown {
        /// The member.
        peer: PeerId,
    },
    /// The addresses at which a member says it listens, or was reached, have changed.
    ///
    /// Worth keeping for the next start. Never hearsay: they come from the member itself.
    PeerKnown {
        /// The member.
        peer: PeerId,
        /// All its addresses, the one that last worked first, without `/p2p`; at most 8.
        addrs: Vec<Multiaddr>,
    },
    /// A peer was turned away, and will be for a while.
    Refused {
        /// The peer, whose identity is proved.
        peer: PeerId,
        /// The rule it broke.
        reason: Refusal,
    },
    /// A neighbour passed a gossip message on.
    Gossip {
        /// The neighbour it came through, which need not be its author.
        from: PeerId,
        /// The message, at most [`GOSSIP_BYTES_MAX`](crate::GOSSIP_BYTES_MAX) bytes.
        bytes: Vec<u8>,
        /// To be given to [`Network::validate`](crate::Network::validate), or the message goes
        /// no further.
        ticket: Ticket,
    },
    /// A member has opened a stream.
    Stream {
        /// The member.
        peer: PeerId,
        /// One of the protocols that were configured.
        protocol: StreamProtocol,
        /// The stream.
        stream: Stream,
    },
}

/// Why a peer was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It does not know the admission key.
    #[error("it does not know the admission key")]
    WrongKey,
    /// It says that we do not know the admission key, although it does.
    #[error("it turned us away")]
    TurnedAway,
    /// It did not speak the admission protocol.
    #[error("it does not speak the admission protocol")]
    Malformed,
    /// It did not finish in time.
    #[error("it did not finish its admission in time")]
    Deadline,
    /// A member sent a list of addresses that breaks the rules of that list.
    #[error("it sent a malformed list of addresses")]
    BadAddresses,
}

/// Names one gossip message that awaits a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) id: MessageId,
    pub(crate) from: PeerId,
}

/// What becomes of a gossip message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is good: pass it on.
    Accept,
    /// It breaks a rule: do not pass it on.
    Reject,
    /// It cannot be judged here: do not pass it on, and blame nobody.
    Ignore,
}
