//! The running node: the one loop that joins replica, network and sessions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use syncline_transport::{Config, Multiaddr, Network, PeerId, StartError, StreamProtocol};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinHandle;

use crate::clock::now_unix_ms;
use crate::cold::{self, Cold};
use crate::home::OpenHome;
use crate::link;
use crate::log::{Heads, PeerRecord};
use crate::peer::peer_of;
use crate::replica::{Replica, ReplicaError};
use crate::store::Store;
use crate::trust::{ADDRESSES_MAX, Ticket, TicketError};

mod driver;
mod status;

pub use status::{PeerStatus, SnapshotStatus, Status, offline_status};

/// Names the ports on which the node listened last.
const PORTS: &str = "ports";
/// How many events wait for a slow listener before it misses some.
const EVENTS_MAX: usize = 256;

/// How a node runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where to listen; empty for a free port of every interface, over QUIC and TCP.
    pub listen: Vec<Multiaddr>,
    /// Where to find other members, besides those known from before.
    pub dial: Vec<Multiaddr>,
    /// Only takes and gives symbols, and syncs nothing: what a snapshot brings back must not be
    /// mixed with what was written since.
    pub is_for_restore: bool,
    /// The file of a cr-sqlite extension that is the database's CRR layer, in place of Syncline's
    /// own.
    pub crr_extension: Option<PathBuf>,
}

/// What a running node tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// A member is connected.
    PeerUp(PeerId),
    /// A member is gone.
    PeerDown(PeerId),
    /// Somebody was turned away.
    Refused {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: String,
    },
    /// The log grew: by own changes or by others'.
    Advanced,
    /// Something failed that will be tried again.
    Trouble(String),
}

/// Why a node did not start, or could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The replica failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The folder cannot be used.
    #[error(transparent)]
    Home(#[from] crate::HomeError),
    /// The network did not start.
    #[error("the network did not start")]
    Network(#[from] StartError),
    /// An address to dial names no peer.
    #[error("`{0}` does not end in /p2p/<peer>")]
    Address(Multiaddr),
    /// The symbol store could not be opened.
    #[error("the symbol store cannot be opened")]
    Cold(#[from] cold::OpenError),
    /// The snapshot was not spread.
    #[error("the snapshot was not spread")]
    Spread(#[from] cold::SpreadError),
    /// The snapshot did not come back.
    #[error("the database cannot be restored")]
    Restore(#[from] cold::RestoreError),
    /// What came back is not what was stored.
    #[error("the restored rows have digest {found}, and the snapshot says {expected}")]
    Digest {
        /// What was computed.
        found: String,
        /// What the snapshot says.
        expected: String,
    },
    /// A ticket could not be made.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The node was stopped.
    #[error("the node was stopped")]
    Stopped,
}

/// A running node. It stops when it is dropped, or at [`Node::stop`].
pub struct Node {
    shared: Arc<Shared>,
    driver: JoinHandle<()>,
    home: OpenHome,
}

/// What the node's tasks share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) network: Network,
    pub(crate) cold: Cold,
    /// What the log has; links pass it on.
    pub(crate) heads: watch::Sender<Heads>,
    /// One permit: one session pulls at a time.
    pub(crate) turns: Arc<Semaphore>,
    /// Where the sessions' clock begins.
    pub(crate) started: Instant,
    /// Whether it takes part in the sync, and not only in the symbols.
    syncs: bool,
    peers: Mutex<BTreeMap<PeerId, Peer>>,
    events: broadcast::Sender<NodeEvent>,
}

/// A member that is connected.
#[derive(Default)]
struct Peer {
    /// What it has, as far as it told.
    heads: Heads,
    /// Whether it told.
    is_heard: bool,
}

impl Node {
    /// Starts a node on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// See [`NodeError`].
    pub async fn start(home: OpenHome, options: Options) -> Result<Self, NodeError> {
        let mut replica = Replica::open(&home, options.crr_extension.as_deref())?;
        let heads = replica.heads()?;
        let known = replica.log().peers().map_err(ReplicaError::from)?;
        let ports = replica.log().cursor(PORTS).map_err(ReplicaError::from)?;
        let store = Store::start(replica);
        let folder = home.home.path("symbols");
        let cold = Cold::open(
            &folder,
            Arc::clone(&home.identity),
            Arc::clone(&home.secret),
        )?;

        let remembered = ports.as_deref().and_then(Ports::decode);
        let wanted = match options.listen.is_empty() {
            true => config(&home, &known).listen,
            false => options.listen,
        };
        let again: Vec<_> = wanted
            .iter()
            .map(|addr| with_ports(addr, remembered))
            .collect();
        // A device that comes back at its former place is found by those who know it.
        let first = Network::start(Config {
            listen: again.clone(),
            ..config(&home, &known)
        })
        .await;
        let (network, events) = match first {
            Err(StartError::Listen { .. }) if again != wanted => {
                Network::start(Config {
                    listen: wanted,
                    ..config(&home, &known)
                })
                .await?
            }
            started => started?,
        };
        let listening = network
            .listen_addrs()
            .await
            .map_err(|_| NodeError::Stopped)?;
        let ports = Ports::of(&listening).encode();
        let stored = store
            .run(move |replica| replica.log().set_cursor(PORTS, &ports))
            .await;
        stored.map_err(ReplicaError::from)?;
        for address in options.dial {
            let named = network.dial(address.clone()).await;
            named.map_err(|_| NodeError::Address(address))?;
        }
        let shared = Arc::new(Shared {
            store,
            network,
            cold,
            heads: watch::Sender::new(heads),
            turns: Arc::new(Semaphore::new(1)),
            started: started(),
            syncs: !options.is_for_restore,
            peers: Mutex::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
        });
        let driver = tokio::spawn(driver::drive(Arc::clone(&shared), events));
        Ok(Node {
            shared,
            driver,
            home,
        })
    }

    /// Returns this node's name in the network.
    pub fn peer_id(&self) -> PeerId {
        self.shared.network.local_peer()
    }

    /// Returns what the node tells from now on.
    pub fn events(&self) -> broadcast::Receiver<NodeEvent> {
        self.shared.events.subscribe()
    }

    /// Returns the folder the node runs on.
    pub fn home(&self) -> &crate::Home {
        &self.home.home
    }

    /// Returns how many envelopes this node has, and how many there are as far as its peers told;
    /// `None` until a peer did.
    pub fn progress(&self) -> Option<(u64, u64)> {
        let ours = self.shared.heads.borrow().clone();
        let peers = self.shared.peers();
        let mut all = ours.clone();
        for peer in peers.values() {
            peer.heads.iter().for_each(|(stream, seq)| {
                all.advance(&stream, seq);
            });
        }
        let sum = |heads: &Heads| heads.iter().map(|(_, seq)| seq.number()).sum();
        peers
            .values()
            .any(|peer| peer.is_heard)
            .then(|| (sum(&ours), sum(&all)))
    }

    /// Returns a ticket for further devices: with this node's addresses first, then those of other
    /// members, so that it is of use when this device is gone.
    ///
    /// # Errors
    ///
    /// [`NodeError::Stopped`], or a name that is too long.
    pub async fn ticket(&self) -> Result<Ticket, NodeError> {
        let listening = self
            .shared
            .network
            .listen_addrs()
            .await
            .map_err(|_| NodeError::Stopped)?;
        let mut own: Vec<_> = listening.iter().filter(|addr| is_reachable(addr)).collect();
        // Addresses other devices can reach come before the loopback.
        own.sort_by_key(|addr| is_loopback(addr));
        let mut addresses: Vec<String> = own
            .into_iter()
            .take(ADDRESSES_MAX / 2)
            .map(Multiaddr::to_string)
            .collect();
        let known = self.shared.store.run(|replica| replica.log().peers()).await;
        for record in known.map_err(ReplicaError::from)? {
            if let (Ok(peer), Some(address)) =
                (PeerId::from_bytes(&record.peer), record.addresses.first())
                && addresses.len() < ADDRESSES_MAX
            {
                addresses.push(format!("{address}/p2p/{peer}"));
            }
        }
        let (secret, device) = ((*self.home.secret).clone(), self.home.identity.public_key());
        Ok(Ticket::new(
            secret,
            device,
            self.home.home.name(),
            addresses,
        )?)
    }

    /// Returns the hash of the replicated state.
    ///
    /// # Errors
    ///
    /// If the replica fails.
    pub async fn digest(&self) -> Result<String, NodeError> {
        let digest = self
            .shared
            .store
            .run(|replica| replica.digest(now_unix_ms()))
            .await?;
        Ok(digest.to_string())
    }

    /// Takes a snapshot of everything replicated and spreads it over the members that are
    /// connected.
    ///
    /// # Errors
    ///
    /// If the replica fails, or there is nobody and nothing to spread.
    pub async fn snapshot(
        &self,
        progress: impl Fn(cold::Progress) + Send + Sync,
    ) -> Result<cold::Spread, NodeError> {
        let whole = self
            .shared
            .store
            .run(|replica| replica.whole(now_unix_ms()))
            .await?;
        let content = cold::Content {
            digest: whole.digest.to_bytes(),
            heads: whole.heads,
            changes: whole.changes,
        };
        let peers = self
            .shared
            .network
            .peers()
            .await
            .map_err(|_| NodeError::Stopped)?;
        let cold = &self.shared.cold;
        Ok(cold
            .spread(
                &self.shared.network,
                &peers,
                content,
                now_unix_ms(),
                progress,
            )
            .await?)
    }

    /// Brings the newest snapshot's rows back from the symbols of the members that are connected.
    ///
    /// # Errors
    ///
    /// If too few symbols are left, or what comes back is not what was stored.
    pub async fn restore(
        &self,
        progress: impl Fn(cold::Progress) + Send + Sync,
    ) -> Result<cold::Restored, NodeError> {
        let peers = self
            .shared
            .network
            .peers()
            .await
            .map_err(|_| NodeError::Stopped)?;
        let network = &self.shared.network;
        let mut restored = self
            .shared
            .cold
            .restore(network, || peers.clone(), progress)
            .await?;
        let changes = restored.content.changes.clone();
        let found = self.shared.store.run(move |replica| {
            let lacking = replica.take_whole(&changes, now_unix_ms())?;
            Ok::<_, ReplicaError>((lacking, replica.digest(now_unix_ms())?))
        });
        let (lacking, found) = found.await?;
        restored.lacking = lacking;
        let found = found.to_bytes();
        if found != restored.content.digest {
            let hex = |bytes: [u8; 32]| blake3::Hash::from_bytes(bytes).to_hex().to_string();
            let (found, expected) = (hex(found), hex(restored.content.digest));
            return Err(NodeError::Digest { found, expected });
        }
        Ok(restored)
    }

    /// Drops a member's connection and refuses it until [`Node::unblock`].
    ///
    /// # Errors
    ///
    /// [`NodeError::Stopped`].
    pub async fn block(&self, peer: PeerId) -> Result<(), NodeError> {
        self.shared
            .network
            .block(peer)
            .await
            .map_err(|_| NodeError::Stopped)
    }

    /// Takes a member back that was blocked.
    ///
    /// # Errors
    ///
    /// [`NodeError::Stopped`].
    pub async fn unblock(&self, peer: PeerId) -> Result<(), NodeError> {
        self.shared
            .network
            .unblock(peer)
            .await
            .map_err(|_| NodeError::Stopped)
    }

    /// Seals what was written last, closes all connections and stops.
    ///
    /// # Errors
    ///
    /// If the last writes could not be sealed; they stay in the database for the next start.
    pub async fn stop(&self) -> Result<(), NodeError> {
        let sealed = self
            .shared
            .store
            .run(|replica| replica.watch(now_unix_ms()))
            .await;
        self.shared.network.shutdown().await;
        self.driver.abort();
        sealed?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Returns how a node appears in the network.
fn config(home: &OpenHome, known: &[PeerRecord]) -> Config {
    let admission = home.secret.admission_key();
    let mut config = Config::new(*home.identity.secret(), *admission, home.secret.topic());
    config.protocols = vec![link::PROTOCOL, StreamProtocol::new(cold::PROTOCOL)];
    for record in known {
        let addresses = record
            .addresses
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        let peer = PeerId::from_bytes(&record.peer).ok();
        config
            .known_peers
            .extend(peer.map(|peer| (peer, addresses)));
    }
    config
}

/// The ports on which a node listened last, over UDP and over TCP; 0 for none.
#[derive(Clone, Copy, Default)]
struct Ports {
    udp: u16,
    tcp: u16,
}

impl Ports {
    fn of(listening: &[Multiaddr]) -> Self {
        let after = |name: &str| {
            let port = |addr: &Multiaddr| {
                let text = addr.to_string();
                let (_, rest) = text.split_once(name)?;
                rest.split('/').next()?.parse().ok()
            };
            listening.iter().find_map(port).unwrap_or_default()
        };
        Ports {
            udp: after("/udp/"),
            tcp: after("/tcp/"),
        }
    }

    fn encode(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.udp.to_be_bytes(), self.tcp.to_be_bytes());
        [a, b, c, d]
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, d] = *bytes else { return None };
        Some(Ports {
            udp: u16::from_be_bytes([a, b]),
            tcp: u16::from_be_bytes([c, d]),
        })
    }
}

/// Returns an address with the former port where it asks for any.
fn with_ports(addr: &Multiaddr, ports: Option<Ports>) -> Multiaddr {
    let Ports { udp, tcp } = ports.unwrap_or_default();
    let named = |text: &str, name: &str, port: u16| -> String {
        let text = text.replace(&format!("/{name}/0/"), &format!("/{name}/{port}/"));
        match text.strip_suffix(&format!("/{name}/0")) {
            Some(host) => format!("{host}/{name}/{port}"),
            None => text,
        }
    };
    let text = named(&named(&addr.to_string(), "udp", udp), "tcp", tcp);
    text.parse().unwrap_or_else(|_| addr.clone())
}

/// Addresses of a ticket, each with the peer that listens there.
pub(crate) fn ticket_addresses(ticket: &Ticket) -> Vec<Multiaddr> {
    let inviter = peer_of(&ticket.inviter());
    let named = |text: &String| {
        let text = if text.contains("/p2p/") {
            text.clone()
        } else {
            format!("{text}/p2p/{inviter}")
        };
        text.parse().ok()
    };
    ticket.addresses().iter().filter_map(named).collect()
}

impl Options {
    /// Returns the same options, dialing a ticket's members too.
    pub fn dialing(mut self, ticket: &Ticket) -> Self {
        self.dial.extend(ticket_addresses(ticket));
        self
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    let text = address.to_string();
    text.starts_with("/ip4/127.") || text.starts_with("/ip6/::1/")
}

/// Link-local IPv6 addresses need a scope that a ticket cannot carry.
fn is_reachable(address: &Multiaddr) -> bool {
    !address.to_string().starts_with("/ip6/fe80:")
}

fn started() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "sessions measure time from the node's start"
    )]
    Instant::now()
}

impl Shared {
    /// Returns the milliseconds since the node started.
    pub(crate) fn steady_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Tells everybody that the log grew.
    pub(crate) fn advance(&self, heads: &Heads) {
        let advanced = self.heads.send_if_modified(|known| {
            let mut grew = false;
            heads
                .iter()
                .for_each(|(stream, seq)| grew |= known.advance(&stream, seq));
            grew
        });
        if advanced {
            self.tell(NodeEvent::Advanced);
        }
    }

    /// Notes what a peer has.
    pub(crate) fn peer_has(&self, peer: PeerId, heads: &Heads) {
        if let Some(known) = self.peers().get_mut(&peer) {
            known.is_heard |= !heads.is_empty();
            if known.heads != *heads {
                known.heads = heads.clone();
            }
        }
    }

    fn tell(&self, event: NodeEvent) {
        // Nobody need be listening.
        let _ = self.events.send(event);
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<PeerId, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self, what: &str, error: &dyn std::error::Error) {
        let mut text = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        tracing::warn!("{text}");
        self.tell(NodeEvent::Trouble(text));
    }
}
