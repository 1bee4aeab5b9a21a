//! The handle by which the owner speaks to the network.

use std::io;

use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol, noise};
use libp2p_gossipsub::IdentTopic;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::address::without_peer;
use crate::admission::AdmissionKey;
use crate::behaviour::{GOSSIP_BYTES_MAX, swarm};
use crate::book::Book;
use crate::config::Config;
use crate::driver::{Command, Driver, EXCHANGE_PROTOCOL};
use crate::event::{Event, Ticket, Verdict};
use crate::gate::{ADMISSION_PROTOCOL, Gate};
use crate::outbox::Outbox;
use crate::stream::Stream;
use crate::streams::OpenFailure;

/// How many commands wait for the network before their senders do.
pub const COMMANDS_MAX: usize = 256;
/// How many refusals wait to be told; more go untold.
const REFUSED_WAITING_MAX: usize = 64;

/// A running node. Clones speak to the same node, which stops when the last is dropped.
#[derive(Debug, Clone)]
pub struct Network {
    local: PeerId,
    commands: mpsc::Sender<Command>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The operating system gave no random bytes.
    #[error("no random bytes")]
    Random(#[source] getrandom::Error),
    /// The identity key is no use.
    #[error("identity key does not sign")]
    Identity(#[source] noise::Error),
    /// A known peer comes with the address of another.
    #[error("address {addr} does not belong to peer {peer}")]
    ForeignAddress {
        /// The known peer.
        peer: PeerId,
        /// The address that names another.
        addr: Multiaddr,
    },
    /// One of the protocols is the transport's own.
    #[error("protocol {protocol} is reserved")]
    ReservedProtocol {
        /// The protocol.
        protocol: StreamProtocol,
    },
    /// The node cannot listen on an address.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: Multiaddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    Stopped,
}

/// Why a message was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The message is above the limit for gossip.
    #[error("message of {message_bytes} bytes, at most {GOSSIP_BYTES_MAX} go by gossip")]
    TooLarge {
        /// The length of the message.
        message_bytes: usize,
    },
    /// The network was shut down.
    #[error("the network was shut down")]
    Stopped,
}

/// Why a stream was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenStreamError {
    /// The peer is not connected, or was lost meanwhile.
    #[error("peer {peer} is not connected")]
    NotConnected {
        /// The peer.
        peer: PeerId,
    },
    /// Too many streams to that peer wait to be opened.
    #[error("too many streams to peer {peer} are being opened")]
    Busy {
        /// The peer.
        peer: PeerId,
    },
    /// The peer does not speak the protocol.
    #[error("peer {peer} does not speak {protocol}")]
    Unsupported {
        /// The peer.
        peer: PeerId,
        /// The protocol.
        protocol: StreamProtocol,
    },
    /// The connection broke or did not answer within 10 s.
    #[error("connection to peer {peer} broke")]
    Io {
        /// The peer.
        peer: PeerId,
        /// What broke.
        source: io::Error,
    },
    /// The network was shut down.
    #[error("the network was shut down")]
    Stopped,
}

/// Why a peer will not be dialed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address does not end in `/p2p/<peer>`, so whoever answers could be anybody.
    #[error("address {addr} names no peer")]
    NoPeer {
        /// The address.
        addr: Multiaddr,
    },
    /// The network was shut down.
    #[error("the network was shut down")]
    Stopped,
}

/// The network was shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the network was shut down")]
pub struct Stopped;

impl Network {
    /// Starts a node on the current tokio runtime, and returns once it listens.
    ///
    /// The receiver must be read: with [`EVENTS_MAX`](crate::EVENTS_MAX) events unread, gossip is
    /// dropped and streams are refused until there is room. Nothing else stops.
    ///
    /// # Errors
    ///
    /// When a key, an address or a protocol in `config` is no use; see [`StartError`].
    pub async fn start(config: Config) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        let identity = Keypair::ed25519_from_bytes(config.secret_key)
            .expect("every 32 bytes are an Ed25519 secret key");
        let local = identity.public().to_peer_id();
        let exchange = StreamProtocol::new(EXCHANGE_PROTOCOL);
        let mut protocols = config.protocols;
        let reserved = [EXCHANGE_PROTOCOL, ADMISSION_PROTOCOL];
        if let Some(at) = protocols
            .iter()
            .position(|name| reserved.contains(&name.as_ref()))
        {
            return Err(StartError::ReservedProtocol {
                protocol: protocols.swap_remove(at),
            });
        }
        protocols.push(exchange);

        let mut book = Book::new(local, seed().map_err(StartError::Random)?);
        for (peer, addrs) in config.known_peers {
            for addr in addrs {
                let kept = without_peer(addr.clone(), peer);
                let kept = kept.ok_or(StartError::ForeignAddress { peer, addr })?;
                book.configure(peer, kept, Instant::now());
            }
        }
        let (refused_sender, refused) = mpsc::channel(REFUSED_WAITING_MAX);
        let key = AdmissionKey(config.admission_key);
        let gate = Gate::new(local, key, config.admission_deadline, refused_sender);
        let topic = IdentTopic::new(blake3::Hash::from_bytes(config.topic).to_hex().as_str());
        let swarm = swarm(
            &identity,
            gate.clone(),
            &topic,
            config.message_id,
            protocols,
        )
        .map_err(|error| StartError::Identity(error.0))?;
        let (outbox, events) = Outbox::new();
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let driver = Driver::new(swarm, topic, gate, book, outbox, (inbox, refused));
        driver.listen(config.listen).await?;
        Ok((Self { local, commands }, events))
    }

    /// Returns this node's identity.
    pub fn local_peer(&self) -> PeerId {
        self.local
    }

    /// Sends a message to all members that are connected, directly or through others.
    ///
    /// Gossip may be lost: it is an accelerator. To have no peers is not an error.
    ///
    /// # Errors
    ///
    /// `TooLarge` above [`GOSSIP_BYTES_MAX`]; `Stopped`.
    pub async fn publish(&self, bytes: Vec<u8>) -> Result<(), PublishError> {
        if bytes.len() > GOSSIP_BYTES_MAX {
            return Err(PublishError::TooLarge {
                message_bytes: bytes.len(),
            });
        }
        self.send(Command::Publish(bytes))
            .await
            .map_err(|Stopped| PublishError::Stopped)
    }

    /// Says what becomes of a gossip message. It is passed on only if it is accepted, within
    /// about 5 s; a later verdict has no effect.
    ///
    /// # Errors
    ///
    /// When the network was shut down.
    pub async fn validate(&self, ticket: Ticket, verdict: Verdict) -> Result<(), Stopped> {
        self.send(Command::Validate(ticket, verdict)).await
    }

    /// Opens a stream to a connected member.
    ///
    /// # Errors
    ///
    /// See [`OpenStreamError`]. A peer that is too busy to take the stream resets it.
    pub async fn open_stream(
        &self,
        peer: PeerId,
        protocol: StreamProtocol,
    ) -> Result<Stream, OpenStreamError> {
        let (opened, outcome) = oneshot::channel();
        let command = Command::OpenStream(peer, protocol.clone(), opened);
        self.send(command)
            .await
            .map_err(|Stopped| OpenStreamError::Stopped)?;
        match outcome.await {
            Ok(Ok(stream)) => Ok(Stream::new(stream)),
            Ok(Err(OpenFailure::Busy)) => Err(OpenStreamError::Busy { peer }),
            Ok(Err(OpenFailure::Unsupported)) => {
                Err(OpenStreamError::Unsupported { peer, protocol })
            }
            Ok(Err(OpenFailure::Io(source))) => Err(OpenStreamError::Io { peer, source }),
            // The connection that was asked is gone.
            Ok(Err(OpenFailure::NotConnected)) | Err(_) => {
                Err(OpenStreamError::NotConnected { peer })
            }
        }
    }

    /// Adds an address that ends in `/p2p/<peer>` to the address book, dials it at once, and
    /// keeps dialing until the peer is connected, and again whenever it is lost.
    ///
    /// Returns before the peer has answered: `Event::PeerUp` says so.
    ///
    /// # Errors
    ///
    /// When the address names no peer, or the network was shut down.
    pub async fn dial(&self, addr: Multiaddr) -> Result<(), DialError> {
        let Some(Protocol::P2p(peer)) = addr.iter().last() else {
            return Err(DialError::NoPeer { addr });
        };
        let addr = without_peer(addr, peer).expect("the address names this peer");
        self.send(Command::Dial(peer, addr))
            .await
            .map_err(|Stopped| DialError::Stopped)
    }

    /// Returns the addresses on which this node listens, without `/p2p`.
    ///
    /// # Errors
    ///
    /// When the network was shut down.
    pub async fn listen_addrs(&self) -> Result<Vec<Multiaddr>, Stopped> {
        self.ask(Command::ListenAddrs).await
    }

    /// Returns the members that are up, in ascending order.
    ///
    /// # Errors
    ///
    /// When the network was shut down.
    pub async fn peers(&self) -> Result<Vec<PeerId>, Stopped> {
        self.ask(Command::Peers).await
    }

    /// Drops a peer, and neither dials nor admits it until it is unblocked.
    ///
    /// # Errors
    ///
    /// When the network was shut down.
    pub async fn block(&self, peer: PeerId) -> Result<(), Stopped> {
        self.ask(|done| Command::Block(peer, done)).await
    }

    /// Ends a block, and dials the peer at once.
    ///
    /// # Errors
    ///
    /// When the network was shut down.
    pub async fn unblock(&self, peer: PeerId) -> Result<(), Stopped> {
        self.ask(|done| Command::Unblock(peer, done)).await
    }

    /// Closes all connections and listeners, and returns when that is done and the ports are free,
    /// or after 2 s. The channel of events ends.
    pub async fn shutdown(&self) {
        // An error means that somebody else was faster.
        let _ = self.ask(Command::Shutdown).await;
    }

    async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "jitter that two nodes share would be no jitter"
)]
fn seed() -> Result<u64, getrandom::Error> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)?;
    Ok(u64::from_le_bytes(seed))
}
