//! Members only.

use std::collections::HashSet;
use std::time::Duration;

use futures::AsyncWriteExt;
use libp2p_gossipsub::{self as gossipsub, IdentTopic};
use syncline_transport::{Event, PeerId, Refusal, StartError, StreamProtocol, write_frame};

use crate::harness::{Node, QUIC, TCP, TOPIC, config, guarded, nodes, pair, stranger};

const ADMIT: StreamProtocol = StreamProtocol::new("/syncline/admit/1");

async fn refusal(node: &mut Node) -> (PeerId, Refusal) {
    match node.next().await {
        Event::Refused { peer, reason } => (peer, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_members_meet_over_tcp() {
    let [a, b] = pair(TCP).await;
    assert_eq!(a.network.peers().await, Ok(vec![b.peer()]));
    assert_eq!(b.network.peers().await, Ok(vec![a.peer()]));
}

#[tokio::test]
async fn two_members_meet_over_quic() {
    let [a, b] = pair(QUIC).await;
    assert_eq!(a.network.peers().await, Ok(vec![b.peer()]));
    assert_eq!(b.network.peers().await, Ok(vec![a.peer()]));
}

#[tokio::test]
async fn a_wrong_admission_key_is_refused_and_named_on_both_sides() {
    for listen in [TCP, QUIC] {
        let mut wrong = config(listen);
        wrong.admission_key = [8; 32];
        let [mut member] = nodes(listen).await;
        let mut outsider = Node::start(wrong).await;
        outsider.dial(&member).await;
        assert_eq!(
            refusal(&mut member).await,
            (outsider.peer(), Refusal::WrongKey)
        );
        assert_eq!(
            refusal(&mut outsider).await,
            (member.peer(), Refusal::WrongKey)
        );
        assert_eq!(member.network.peers().await, Ok(Vec::new()));
        assert_eq!(outsider.network.peers().await, Ok(Vec::new()));
    }
}

#[tokio::test]
async fn garbage_on_the_admission_protocol_is_refused() {
    for listen in [TCP, QUIC] {
        for garbage in [&[0xff; 64][..], &[0, 0, 0, 3, 1, 2, 3], &[0, 0, 0, 32, 1]] {
            let [mut node] = nodes(listen).await;
            let behaviour = libp2p_stream::Behaviour::new();
            let mut control = behaviour.new_control();
            let peer = node.peer();
            let speak = async {
                let mut stream = control.open_stream(peer, ADMIT).await.unwrap();
                stream.write_all(garbage).await.unwrap();
                stream.close().await.unwrap();
                stream
            };
            let (_stream, _) = tokio::join!(speak, stranger(&node, behaviour));
            assert_eq!(
                refusal(&mut node).await.1,
                Refusal::Malformed,
                "{garbage:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_stranger_that_never_finishes_is_refused_at_the_deadline() {
    for listen in [TCP, QUIC] {
        let mut hasty = config(listen);
        hasty.admission_deadline = Duration::from_millis(200);
        let mut node = Node::start(hasty).await;
        let behaviour = libp2p_stream::Behaviour::new();
        let mut control = behaviour.new_control();
        let peer = node.peer();
        let idle = async { control.open_stream(peer, ADMIT).await.unwrap() };
        let (_stream, _) = tokio::join!(idle, stranger(&node, behaviour));
        assert_eq!(refusal(&mut node).await.1, Refusal::Deadline);
    }
}

#[tokio::test]
async fn a_stranger_learns_no_topic_and_its_gossip_is_not_delivered() {
    let topic = IdentTopic::new(blake3::Hash::from_bytes(TOPIC).to_hex().as_str());
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .build()
        .unwrap();
    let filter = gossipsub::WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
    let mut gossip =
        gossipsub::Behaviour::<gossipsub::IdentityTransform, _>::new_with_subscription_filter(
            gossipsub::MessageAuthenticity::Anonymous,
            config,
            filter,
        )
        .unwrap();
    gossip.subscribe(&topic).unwrap();

    let [mut a, b] = pair(TCP).await;
    let heard = stranger(&a, gossip).await;
    assert!(
        !heard
            .iter()
            .any(|event| matches!(event, gossipsub::Event::Subscribed { .. }))
    );
    let outcome = a.until(|event| match event {
        Event::Refused { reason, .. } => Some(reason),
        Event::Gossip { .. } | Event::PeerUp { .. } => panic!("{event:?}"),
        _ => None,
    });
    assert_eq!(outcome.await, Refusal::Malformed);
    assert_eq!(a.network.peers().await, Ok(vec![b.peer()]));
}

#[tokio::test]
async fn streams_of_a_stranger_are_closed() {
    let [mut node] = nodes(TCP).await;
    let behaviour = libp2p_stream::Behaviour::new();
    let mut control = behaviour.new_control();
    let peer = node.peer();
    let open = control.open_stream(peer, crate::harness::ECHO);
    let (opened, _) = tokio::join!(open, stranger(&node, behaviour));
    assert!(opened.is_err());
    assert_eq!(refusal(&mut node).await.1, Refusal::Malformed);
}

#[tokio::test]
async fn a_member_that_sends_a_malformed_list_is_dropped() {
    let [mut a, b] = pair(TCP).await;
    let exchange = StreamProtocol::new("/syncline/peers/1");
    let mut stream = a.network.open_stream(b.peer(), exchange).await.unwrap();
    write_frame(&mut stream, b"no list").await.unwrap();
    let [mut a_down, mut b_refused, mut b_down] = [false; 3];
    let mut b = b;
    while !(b_refused && b_down) {
        match b.next().await {
            Event::Refused { peer, reason } => {
                assert_eq!((peer, reason), (a.peer(), Refusal::BadAddresses));
                b_refused = true;
            }
            Event::PeerDown { .. } => b_down = true,
            _ => {}
        }
    }
    while !a_down {
        a_down = matches!(a.next().await, Event::PeerDown { .. });
    }
}

#[tokio::test]
async fn a_member_that_has_mended_its_key_is_admitted() {
    let [mut member] = nodes(TCP).await;
    let (mut wrong, mut right) = (config(TCP), config(TCP));
    right.secret_key = wrong.secret_key;
    wrong.admission_key = [8; 32];
    let outsider = Node::start(wrong).await;
    outsider.dial(&member).await;
    assert_eq!(refusal(&mut member).await.1, Refusal::WrongKey);
    outsider.network.shutdown().await;

    let mended = Node::start(right).await;
    mended.dial(&member).await;
    member.up(mended.peer()).await;
}

#[tokio::test]
async fn a_node_that_cannot_start_says_why() {
    let [taken] = nodes(TCP).await;
    let mut same_port = config(TCP);
    same_port.listen = taken.network.listen_addrs().await.unwrap();
    let error = guarded(syncline_transport::Network::start(same_port))
        .await
        .unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }), "{error}");

    let mut reserved = config(TCP);
    reserved.protocols.push(ADMIT);
    let error = guarded(syncline_transport::Network::start(reserved))
        .await
        .unwrap_err();
    assert!(
        matches!(error, StartError::ReservedProtocol { .. }),
        "{error}"
    );

    let mut foreign = config(TCP);
    foreign.known_peers = vec![(PeerId::random(), vec![taken.addr().await])];
    let error = guarded(syncline_transport::Network::start(foreign))
        .await
        .unwrap_err();
    assert!(
        matches!(error, StartError::ForeignAddress { .. }),
        "{error}"
    );
}
