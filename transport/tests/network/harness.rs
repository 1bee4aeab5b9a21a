//! Nodes on the loopback interface, and a stranger that speaks libp2p but is no member.

use std::time::Duration;

use futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{SwarmBuilder, noise, tcp, yamux};
use syncline_transport::{Config, Event, Multiaddr, Network, PeerId, StreamProtocol};
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(crate) const ADMISSION_KEY: [u8; 32] = [7; 32];
pub(crate) const TOPIC: [u8; 32] = [9; 32];
pub(crate) const ECHO: StreamProtocol = StreamProtocol::new("/test/echo/1");
pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Only there so that a broken test ends: nothing that works takes nearly as long.
const GUARD: Duration = Duration::from_secs(60);

/// A node and the events it has not looked at.
pub(crate) struct Node {
    pub(crate) network: Network,
    pub(crate) events: mpsc::Receiver<Event>,
}

/// A configuration of a member that listens on one loopback address.
pub(crate) fn config(listen: &str) -> Config {
    let mut config = Config::new(fresh_key(), ADMISSION_KEY, TOPIC);
    config.listen = vec![listen.parse().unwrap()];
    config.protocols = vec![ECHO];
    config
}

/// Starts some members that do not know each other.
pub(crate) async fn nodes<const COUNT: usize>(listen: &str) -> [Node; COUNT] {
    let starting = (0..COUNT).map(|_| Node::start(config(listen)));
    let nodes = futures::future::join_all(starting).await;
    nodes.try_into().ok().unwrap()
}

/// Starts two members that are connected.
pub(crate) async fn pair(listen: &str) -> [Node; 2] {
    let [mut a, mut b] = nodes(listen).await;
    a.dial(&b).await;
    a.up(b.peer()).await;
    b.up(a.peer()).await;
    [a, b]
}

pub(crate) async fn guarded<T>(future: impl Future<Output = T>) -> T {
    timeout(GUARD, future)
        .await
        .expect("the awaited never happened")
}

impl Node {
    pub(crate) async fn start(config: Config) -> Self {
        let (network, events) = Network::start(config).await.unwrap();
        Self { network, events }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.network.local_peer()
    }

    pub(crate) async fn addr(&self) -> Multiaddr {
        let addrs = self.network.listen_addrs().await.unwrap();
        addrs[0].clone().with(Protocol::P2p(self.peer()))
    }

    pub(crate) async fn dial(&self, other: &Node) {
        self.network.dial(other.addr().await).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Event {
        guarded(self.events.recv())
            .await
            .expect("the node has stopped")
    }

    /// Passes over events up to the first that `wanted` takes.
    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    pub(crate) async fn up(&mut self, other: PeerId) {
        self.until(|event| matches!(event, Event::PeerUp { peer } if peer == other).then_some(()))
            .await;
    }

    pub(crate) async fn down(&mut self, other: PeerId) {
        self.until(|event| {
            matches!(event, Event::PeerDown { peer } if peer == other).then_some(())
        })
        .await;
    }
}

/// Runs a stranger with `behaviour` that dials `node`, until the connection closes. Returns what
/// its behaviour reported.
pub(crate) async fn stranger<B>(node: &Node, behaviour: B) -> Vec<B::ToSwarm>
where
    B: NetworkBehaviour,
{
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_quic()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::MAX))
        .build();
    swarm.dial(node.addr().await).unwrap();
    let mut reported = Vec::new();
    guarded(async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(event) => reported.push(event),
                SwarmEvent::ConnectionClosed { .. } => break,
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    })
    .await;
    reported
}

fn fresh_key() -> [u8; 32] {
    let key = libp2p::identity::ed25519::SecretKey::generate();
    key.as_ref().try_into().unwrap()
}
