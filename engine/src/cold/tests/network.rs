//! Three nodes on the loopback interface.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use syncline_transport::{Config, Event, Network, PeerId, StreamProtocol};
use tokio::sync::watch;
use tokio::time::timeout;

use super::harness::{Device, content, identity, secret};
use crate::cold::PROTOCOL;
use crate::trust::DatabaseSecret;

/// Only there so that a broken test ends: nothing that works takes nearly as long.
const GUARD: Duration = Duration::from_secs(60);

struct Node {
    device: Device,
    network: Network,
    up: watch::Receiver<BTreeSet<PeerId>>,
}

impl Node {
    async fn start(seed: u8, secret: &Arc<DatabaseSecret>) -> Node {
        let device = Device::new(seed, secret);
        let key = *identity(seed).secret();
        let mut config = Config::new(key, *secret.admission_key(), secret.topic());
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        config.protocols = vec![StreamProtocol::new(PROTOCOL)];
        let (network, mut events) = Network::start(config).await.unwrap();
        let (ups, up) = watch::channel(BTreeSet::new());
        let cold = device.cold.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                match event {
                    Event::PeerUp { peer } => {
                        ups.send_if_modified(|up| up.insert(peer));
                    }
                    Event::PeerDown { peer } => {
                        ups.send_if_modified(|up| up.remove(&peer));
                    }
                    Event::Stream { peer, stream, .. } => {
                        let cold = cold.clone();
                        tokio::spawn(async move { cold.serve(peer, stream).await });
                    }
                    _ => {}
                }
            }
        });
        Node {
            device,
            network,
            up,
        }
    }

    async fn meet(&mut self, count: usize) {
        let met = self.up.wait_for(|up| up.len() == count);
        timeout(GUARD, met).await.unwrap().unwrap();
    }

    fn peers(&self) -> Vec<PeerId> {
        self.up.borrow().iter().copied().collect()
    }
}

#[tokio::test]
async fn a_snapshot_outlives_its_author_on_a_real_network() {
    let secret = secret(1, 2);
    let mut nodes = Vec::new();
    for seed in 1..=3 {
        nodes.push(Node::start(seed, &secret).await);
    }
    for (from, to) in [(1, 0), (2, 0), (2, 1)] {
        let addr = nodes[to].network.listen_addrs().await.unwrap()[0].clone();
        let addr = addr.with_p2p(nodes[to].network.local_peer()).unwrap();
        nodes[from].network.dial(addr).await.unwrap();
    }
    for node in &mut nodes {
        node.meet(2).await;
    }
    // Several blocks, and runs of many parts.
    let content = content(5 << 20);
    let author = &nodes[0];
    let (cold, network) = (&author.device.cold, &author.network);
    let peers = author.peers();
    let spread = cold.spread(network, &peers, content.clone(), 1, |_| ());
    let spread = timeout(GUARD, spread).await.unwrap().unwrap();
    assert!(spread.failed.is_empty(), "{:?}", spread.failed);
    assert_eq!((spread.slices_needed, spread.slices_total), (2, 3));
    author.network.shutdown().await;
    drop(nodes.remove(0));

    let heir = &mut nodes[1];
    heir.meet(1).await;
    let heir = &nodes[1];
    let (cold, peers) = (&heir.device.cold, || heir.peers());
    let restored = cold.restore(&heir.network, peers, |_| ());
    let restored = timeout(GUARD, restored).await.unwrap().unwrap();
    assert_eq!(restored.content, content);
    assert_eq!(restored.author, identity(1).public_key());
    assert_eq!(restored.blocks_from.len(), 2);
}
