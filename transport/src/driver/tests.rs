//! What needs a peer whose connections can be closed one by one.

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{StreamProtocol, Swarm};
use libp2p_gossipsub::IdentTopic;
use tokio::sync::{mpsc, oneshot};

use crate::admission::AdmissionKey;
use crate::behaviour::{Protocols, swarm};
use crate::gate::Gate;
use crate::{ADMISSION_DEADLINE, Config, Event, Network};

const ECHO: StreamProtocol = StreamProtocol::new("/test/echo/1");

async fn node() -> (Network, mpsc::Receiver<Event>) {
    let mut config = Config::new([1; 32], [2; 32], [3; 32]);
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    config.protocols = vec![ECHO];
    Network::start(config).await.unwrap()
}

fn bare_peer() -> Swarm<Protocols> {
    let identity = Keypair::generate_ed25519();
    let (refused, _) = mpsc::channel(1);
    let local = identity.public().to_peer_id();
    let gate = Gate::new(local, AdmissionKey([2; 32]), ADMISSION_DEADLINE, refused);
    let topic = IdentTopic::new(blake3::Hash::from_bytes([3; 32]).to_hex().as_str());
    swarm(
        &identity,
        gate,
        &topic,
        |bytes| *blake3::hash(bytes).as_bytes(),
        Vec::new(),
    )
    .unwrap()
}

/// Sends a stream and returns the next event that is not about addresses.
async fn after_a_stream(
    swarm: &mut Swarm<Protocols>,
    network: &Network,
    events: &mut mpsc::Receiver<Event>,
) -> Event {
    let (opened, _stream) = oneshot::channel();
    swarm
        .behaviour_mut()
        .streams
        .open(network.local_peer(), ECHO, opened);
    loop {
        tokio::select! {
            event = events.recv() => match event.unwrap() {
                Event::PeerKnown { .. } => {}
                event => return event,
            },
            _ = swarm.select_next_some() => {}
        }
    }
}

#[tokio::test]
async fn a_peer_is_down_only_when_its_last_connection_is_gone() {
    let (network, mut events) = node().await;
    let addrs = network.listen_addrs().await.unwrap();
    let mut swarm = bare_peer();
    for _ in 0..2 {
        let options = DialOpts::peer_id(network.local_peer()).condition(PeerCondition::Always);
        swarm
            .dial(options.addresses(addrs.clone()).allocate_new_port().build())
            .unwrap();
    }
    let mut connections = Vec::new();
    while connections.len() < 2 {
        if let SwarmEvent::ConnectionEstablished {
            connection_id,
            endpoint,
            ..
        } = swarm.select_next_some().await
        {
            assert!(matches!(endpoint, ConnectedPoint::Dialer { .. }));
            connections.push(connection_id);
        }
    }
    let up = after_a_stream(&mut swarm, &network, &mut events).await;
    assert!(matches!(up, Event::PeerUp { .. }), "{up:?}");
    swarm.close_connection(connections[0]);
    // Each stream gives the node another chance to see the loss and mistake it for the last.
    for _ in 0..20 {
        let stream = after_a_stream(&mut swarm, &network, &mut events).await;
        assert!(matches!(stream, Event::Stream { .. }), "{stream:?}");
    }
    swarm.close_connection(connections[1]);
    loop {
        tokio::select! {
            event = events.recv() => match event.unwrap() {
                Event::PeerDown { .. } => break,
                Event::PeerUp { .. } => panic!("up twice"),
                _ => {}
            },
            _ = swarm.select_next_some() => {}
        }
    }
}
