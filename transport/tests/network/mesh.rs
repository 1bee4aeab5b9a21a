//! Members find each other, and find each other again.

use std::collections::BTreeSet;

use syncline_transport::{Config, Event, PeerId, Verdict};

use crate::gossip::heard;
use crate::harness::{ECHO, Node, QUIC, TCP, config, guarded, nodes, pair};

async fn meet_all(node: &mut Node, others: impl IntoIterator<Item = PeerId>) {
    let mut missing: BTreeSet<PeerId> = others.into_iter().collect();
    missing.remove(&node.peer());
    while !missing.is_empty() {
        match node.next().await {
            Event::PeerUp { peer } => {
                missing.remove(&peer);
            }
            Event::PeerDown { peer } => {
                missing.insert(peer);
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_members_form_a_full_mesh_from_one_address_and_outlive_it() {
    for listen in [TCP, QUIC] {
        let mut nodes: [Node; 5] = nodes(listen).await;
        let peers = nodes.each_ref().map(Node::peer);
        let [bootstrap, others @ ..] = &mut nodes;
        for node in &*others {
            node.dial(bootstrap).await;
        }
        for node in others.iter_mut() {
            meet_all(node, peers).await;
        }
        bootstrap.network.shutdown().await;
        for node in others.iter_mut() {
            node.down(peers[0]).await;
        }
        for author in 0..others.len() {
            let message = vec![author as u8; 3];
            others[author]
                .network
                .publish(message.clone())
                .await
                .unwrap();
            for (at, reader) in others
                .iter_mut()
                .enumerate()
                .filter(|(at, _)| *at != author)
            {
                let (_, bytes, ticket) = heard(reader).await;
                assert_eq!(bytes, message, "reader {at}");
                reader
                    .network
                    .validate(ticket, Verdict::Accept)
                    .await
                    .unwrap();
            }
        }
    }
}

#[tokio::test]
async fn addresses_of_a_member_are_told_to_the_owner_and_lead_back_to_it() {
    for listen in [TCP, QUIC] {
        let [mut a, b] = nodes(listen).await;
        b.dial(&a).await;
        let addrs = a.until(|event| match event {
            Event::PeerKnown { peer, addrs } => Some((peer, addrs)),
            _ => None,
        });
        let known = addrs.await;
        assert_eq!(known, (b.peer(), b.network.listen_addrs().await.unwrap()));

        let mut later = config(listen);
        later.known_peers = vec![known];
        let mut c = Node::start(later).await;
        c.up(b.peer()).await;
    }
}

#[tokio::test]
async fn a_member_that_restarts_on_its_port_is_found_again() {
    for listen in [TCP, QUIC] {
        let first = config(listen);
        let secret_key = first.secret_key;
        let [mut a] = nodes(listen).await;
        let b = Node::start(first).await;
        a.dial(&b).await;
        a.up(b.peer()).await;
        let listen = b.network.listen_addrs().await.unwrap();
        b.network.shutdown().await;
        a.down(b.peer()).await;

        let mut b = Node::start(Config {
            secret_key,
            listen,
            ..config(TCP)
        })
        .await;
        a.up(b.peer()).await;
        b.up(a.peer()).await;
    }
}

#[tokio::test]
async fn a_blocked_peer_is_dropped_and_refused_both_ways_until_it_is_unblocked() {
    for listen in [TCP, QUIC] {
        let [mut a, mut b] = pair(listen).await;
        a.network.block(b.peer()).await.unwrap();
        a.down(b.peer()).await;
        b.down(a.peer()).await;
        // Both are asked to dial, by their owners and by a third member that knows both.
        a.dial(&b).await;
        b.dial(&a).await;
        let [mut c] = nodes(listen).await;
        c.dial(&a).await;
        c.up(a.peer()).await;
        c.dial(&b).await;
        c.up(b.peer()).await;
        assert_eq!(a.network.peers().await, Ok(vec![c.peer()]));
        let error = guarded(a.network.open_stream(b.peer(), ECHO)).await;
        assert!(error.is_err());

        a.network.unblock(b.peer()).await.unwrap();
        let peers = [a.peer(), b.peer()];
        for (node, other) in [(&mut a, peers[1]), (&mut b, peers[0])] {
            node.until(|event| match event {
                // To be turned away is no offence of either.
                Event::Refused { .. } => panic!("{event:?}"),
                Event::PeerUp { peer } => (peer == other).then_some(()),
                _ => None,
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_dial_each_other_at_once_come_up_once() {
    for listen in [TCP, QUIC].repeat(4) {
        let [mut a, mut b] = nodes(listen).await;
        tokio::join!(a.dial(&b), b.dial(&a));
        let peers = [a.peer(), b.peer()];
        for (node, other) in [(&mut a, peers[1]), (&mut b, peers[0])] {
            node.until(|event| match event {
                Event::PeerUp { peer } => (peer == other).then_some(()),
                Event::PeerDown { .. } => panic!("down before up"),
                _ => None,
            })
            .await;
        }
        guarded(a.network.open_stream(b.peer(), ECHO))
            .await
            .unwrap();
        guarded(b.network.open_stream(a.peer(), ECHO))
            .await
            .unwrap();
        a.network.shutdown().await;
        b.until(|event| match event {
            Event::PeerUp { .. } => panic!("up twice"),
            Event::PeerDown { .. } => Some(()),
            _ => None,
        })
        .await;
    }
}

#[tokio::test]
async fn the_events_end_when_the_network_is_shut_down() {
    let [mut a, mut b] = pair(TCP).await;
    a.network.shutdown().await;
    a.down(b.peer()).await;
    assert!(guarded(a.events.recv()).await.is_none());
    assert!(a.network.peers().await.is_err());

    // The last handle is as good as a shutdown.
    let peer = a.peer();
    b.down(peer).await;
    drop(b.network);
    while guarded(b.events.recv()).await.is_some() {}
}
