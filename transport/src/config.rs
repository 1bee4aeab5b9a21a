//! What a node needs to know to start.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol};

/// How long a stranger has to prove that it is a member, unless configured otherwise.
pub const ADMISSION_DEADLINE: Duration = Duration::from_secs(10);

/// What a node needs to know to start. It holds secrets, so it cannot be printed.
pub struct Config {
    /// The Ed25519 secret key whose public half is this node's [`PeerId`].
    pub secret_key: [u8; 32],
    /// The secret that all members of one database share, and nobody else.
    pub admission_key: [u8; 32],
    /// The gossip topic of the database. Only members learn it.
    pub topic: [u8; 32],
    /// Where to listen. An unspecified IPv6 address that is not available is passed over.
    pub listen: Vec<Multiaddr>,
    /// Peers to dial until they answer, and again whenever they are gone, with their addresses.
    pub known_peers: Vec<(PeerId, Vec<Multiaddr>)>,
    /// The protocols of the streams to accept.
    pub protocols: Vec<StreamProtocol>,
    /// Names a gossip message: two messages with one name count as one. It is given whatever a
    /// member sends, before anybody has looked at it.
    pub message_id: fn(&[u8]) -> [u8; 32],
    /// How long a stranger has to prove that it is a member.
    pub admission_deadline: Duration,
}

impl Config {
    /// Returns a configuration that listens on a free port of every interface, over QUIC and TCP,
    /// knows nobody, accepts no streams and names gossip by its BLAKE3 hash.
    pub fn new(secret_key: [u8; 32], admission_key: [u8; 32], topic: [u8; 32]) -> Self {
        let hosts = [
            Protocol::Ip4(Ipv4Addr::UNSPECIFIED),
            Protocol::Ip6(Ipv6Addr::UNSPECIFIED),
        ];
        let listen = hosts.into_iter().flat_map(|host| {
            let host = Multiaddr::empty().with(host);
            let quic = host.clone().with(Protocol::Udp(0)).with(Protocol::QuicV1);
            [quic, host.with(Protocol::Tcp(0))]
        });
        Self {
            secret_key,
            admission_key,
            topic,
            listen: listen.collect(),
            known_peers: Vec::new(),
            protocols: Vec::new(),
            message_id: |bytes| *blake3::hash(bytes).as_bytes(),
            admission_deadline: ADMISSION_DEADLINE,
        }
    }
}
