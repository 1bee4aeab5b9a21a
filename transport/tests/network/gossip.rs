//! Gossip reaches members, and goes on only when it is accepted.

use syncline_transport::{
    EVENTS_MAX, Event, GOSSIP_BYTES_MAX, PeerId, PublishError, Ticket, Verdict,
};

use crate::harness::{Node, QUIC, TCP, nodes, pair};

pub(crate) async fn heard(node: &mut Node) -> (PeerId, Vec<u8>, Ticket) {
    node.until(|event| match event {
        Event::Gossip {
            from,
            bytes,
            ticket,
        } => Some((from, bytes, ticket)),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_message_reaches_a_member_that_is_up() {
    for listen in [TCP, QUIC] {
        let [a, mut b] = pair(listen).await;
        for bytes in [vec![1], vec![2; GOSSIP_BYTES_MAX]] {
            a.network.publish(bytes.clone()).await.unwrap();
            let (from, received, _) = heard(&mut b).await;
            assert_eq!((from, received), (a.peer(), bytes));
        }
    }
}

#[tokio::test]
async fn a_message_goes_on_only_when_it_is_accepted() {
    let [a, mut relay, mut c] = nodes(TCP).await;
    a.network.block(c.peer()).await.unwrap();
    c.network.block(a.peer()).await.unwrap();
    for end in [&a, &c] {
        end.dial(&relay).await;
        relay.up(end.peer()).await;
    }
    c.up(relay.peer()).await;
    for (bytes, verdict) in [
        (b"rejected", Verdict::Reject),
        (b"ignored.", Verdict::Ignore),
        (b"accepted", Verdict::Accept),
    ] {
        a.network.publish(bytes.to_vec()).await.unwrap();
        let (_, received, ticket) = heard(&mut relay).await;
        assert_eq!(received, bytes);
        relay.network.validate(ticket, verdict).await.unwrap();
    }
    let (from, received, _) = heard(&mut c).await;
    assert_eq!((from, received), (relay.peer(), b"accepted".to_vec()));
}

#[tokio::test]
async fn the_owner_chooses_which_messages_count_as_one() {
    let mut by_first_byte = [crate::harness::config(TCP), crate::harness::config(TCP)];
    by_first_byte
        .iter_mut()
        .for_each(|config| config.message_id = |bytes| [bytes[0]; 32]);
    let [a, b] = by_first_byte.map(Node::start);
    let (a, mut b) = (a.await, b.await);
    a.dial(&b).await;
    b.up(a.peer()).await;
    let mut a = a;
    a.up(b.peer()).await;
    for bytes in [[1, 1], [1, 2], [2, 1]] {
        a.network.publish(bytes.to_vec()).await.unwrap();
    }
    assert_eq!(heard(&mut b).await.1, [1, 1]);
    assert_eq!(heard(&mut b).await.1, [2, 1]);
}

#[tokio::test]
async fn a_message_without_peers_is_no_error_and_one_above_the_limit_is() {
    let [a] = nodes(TCP).await;
    a.network.publish(vec![1]).await.unwrap();
    let error = a
        .network
        .publish(vec![1; GOSSIP_BYTES_MAX + 1])
        .await
        .unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_slow_owner_loses_gossip_but_the_node_goes_on() {
    let [a, mut b] = pair(TCP).await;
    for number in 0..4 * EVENTS_MAX as u32 {
        a.network
            .publish(number.to_be_bytes().to_vec())
            .await
            .unwrap();
        // Keeps the sender's own queue short, so that only the reader's can overflow.
        if number % 64 == 0 {
            assert_eq!(b.network.peers().await, Ok(vec![a.peer()]));
        }
    }
    a.network.shutdown().await;
    // Even so, the owner hears in the end that the peer is gone.
    b.down(a.peer()).await;
}
