//! The transports and protocols of a node, with their limits.

use std::collections::HashSet;
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{PeerId, StreamProtocol, Swarm, Transport, identify, noise, ping, quic, swarm};
use libp2p::{tcp, yamux};
use libp2p_connection_limits::{self as connection_limits, ConnectionLimits};
use libp2p_gossipsub::{
    self as gossipsub, ConfigBuilder, IdentTopic, Message, MessageAuthenticity, MessageId,
    ValidationMode, WhitelistSubscriptionFilter,
};

use crate::gate::Gate;
use crate::streams::Streams;

/// The most bytes of one gossip message as it is sent, with its envelope.
pub const TRANSMIT_BYTES_MAX: usize = 64 << 10;
/// The most bytes one gossip message may carry: the rest is for the topic and framing.
pub const GOSSIP_BYTES_MAX: usize = TRANSMIT_BYTES_MAX - 1024;
/// The most connections to one peer: two peers that dial each other at once keep both.
pub const CONNECTIONS_PER_PEER_MAX: u32 = 2;
/// The most connections in all.
pub const CONNECTIONS_MAX: u32 = 128;
/// The most connections, each way, whose peers have yet to prove themselves.
pub const CONNECTIONS_PENDING_MAX: u32 = 32;
/// The most streams a peer may have open on one connection.
pub const STREAMS_PER_CONNECTION_MAX: usize = 128;

/// The name by which nodes identify themselves to each other.
const IDENTIFY_PROTOCOL: &str = "/syncline/1";
/// The longest a connection may take from the first packet to the end of its encryption.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How often each connection is tried, and how long the answer may take. A TCP connection whose
/// other end has vanished shows no other sign; QUIC has a similar clock of its own.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_DEADLINE: Duration = Duration::from_secs(10);
/// Gossip for one slow peer that waits to be sent; more is dropped. At most 16 MiB.
const GOSSIP_WAITING_MAX: usize = 256;

// Networks are small, 2 to 10 nodes, and each copy of a message costs: with four neighbours
// each, up to five nodes are one hop apart and ten are two.
const MESH: usize = 4;
const MESH_LOW: usize = 3;
const MESH_HIGH: usize = 8;
const MESH_OUTBOUND_MIN: usize = 1;

const _: () = assert!(GOSSIP_BYTES_MAX < TRANSMIT_BYTES_MAX);
const _: () = assert!(MESH_OUTBOUND_MIN * 2 <= MESH && MESH_LOW <= MESH && MESH <= MESH_HIGH);
const _: () = assert!(CONNECTIONS_PENDING_MAX < CONNECTIONS_MAX);

pub(crate) type Gossip =
    gossipsub::Behaviour<gossipsub::IdentityTransform, WhitelistSubscriptionFilter>;

/// All that runs on an admitted connection.
#[derive(NetworkBehaviour)]
pub(crate) struct Protocols {
    limits: connection_limits::Behaviour,
    pub(crate) gossip: Gossip,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(crate) streams: Streams,
}

/// Why the protocols could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the identity key does not sign")]
pub(crate) struct SetUpError(#[from] pub(crate) noise::Error);

/// Makes a node that does not listen yet.
///
/// # Errors
///
/// When the identity key cannot sign for the encryption of a connection.
pub(crate) fn swarm(
    identity: &Keypair,
    gate: Gate,
    topic: &IdentTopic,
    message_id: fn(&[u8]) -> [u8; 32],
    protocols: Vec<StreamProtocol>,
) -> Result<Swarm<Protocols>, SetUpError> {
    let transport = transport(identity, gate)?;
    let identify = identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), identity.public())
        .with_push_listen_addr_updates(true);
    let behaviour = Protocols {
        limits: connection_limits::Behaviour::new(limits()),
        gossip: gossip(topic, message_id),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(
            ping::Config::new()
                .with_interval(PING_INTERVAL)
                .with_timeout(PING_DEADLINE),
        ),
        streams: Streams::new(protocols),
    };
    let config = swarm::Config::with_tokio_executor()
        // QUIC before TCP with a head start, rather than all at once: a race that TCP loses
        // late would show up on the other side as a member that comes and goes.
        .with_smart_dial()
        // Members stay connected whether or not they have something to say.
        .with_idle_connection_timeout(Duration::MAX);
    Ok(Swarm::new(
        transport,
        behaviour,
        identity.public().to_peer_id(),
        config,
    ))
}

fn transport(
    identity: &Keypair,
    gate: Gate,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, SetUpError> {
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS_PER_CONNECTION_MAX);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default())
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(identity)?)
        .multiplex(yamux)
        .timeout(HANDSHAKE_DEADLINE)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let mut quic = quic::Config::new(identity);
    quic.handshake_timeout = HANDSHAKE_DEADLINE;
    quic.max_concurrent_stream_limit =
        u32::try_from(STREAMS_PER_CONNECTION_MAX).expect("the limit is small");
    let quic = quic::tokio::Transport::new(quic)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let both = quic.or_transport(tcp).map(|either, _| either.into_inner());
    Ok(both
        .and_then(move |connection, point| gate.clone().pass(connection, point))
        .boxed())
}

fn limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
        .with_max_established(Some(CONNECTIONS_MAX))
        .with_max_pending_incoming(Some(CONNECTIONS_PENDING_MAX))
        .with_max_pending_outgoing(Some(CONNECTIONS_PENDING_MAX))
}

fn gossip(topic: &IdentTopic, message_id: fn(&[u8]) -> [u8; 32]) -> Gossip {
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(move |message: &Message| MessageId::from(message_id(&message.data).to_vec()))
        .max_transmit_size(TRANSMIT_BYTES_MAX)
        // Every peer would get a copy from the author on top of those from its neighbours:
        // no help in a network that is one or two hops wide.
        .flood_publish(false)
        .mesh_n(MESH)
        .mesh_n_low(MESH_LOW)
        .mesh_n_high(MESH_HIGH)
        .mesh_outbound_min(MESH_OUTBOUND_MIN)
        .gossip_lazy(MESH)
        .heartbeat_initial_delay(Duration::from_secs(1))
        .connection_handler_queue_len(GOSSIP_WAITING_MAX)
        .build()
        .expect("the parameters are constants and were checked above");
    let filter = WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
    let authenticity = MessageAuthenticity::Anonymous;
    let mut gossip = Gossip::new_with_subscription_filter(authenticity, config, filter)
        .expect("anonymous messages go with anonymous validation");
    gossip
        .subscribe(topic)
        .expect("the filter allows the topic");
    gossip
}
