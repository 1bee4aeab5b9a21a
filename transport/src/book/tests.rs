//! The dial plan, without a network.

use super::*;

fn book() -> (Book, PeerId, Instant) {
    (
        Book::new(PeerId::random(), 7),
        PeerId::random(),
        Instant::now(),
    )
}

fn address(port: u16) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
}

fn peers(due: Vec<(PeerId, Vec<Multiaddr>)>) -> Vec<PeerId> {
    due.into_iter().map(|(peer, _)| peer).collect()
}

#[tokio::test]
async fn a_configured_peer_is_dialed_at_once_and_for_ever() {
    let (mut book, peer, mut now) = book();
    book.configure(peer, address(1), now);
    let mut waits = Vec::new();
    for _ in 0..40 {
        assert_eq!(peers(book.due(now)), [peer]);
        assert_eq!(book.next_due(), None);
        book.failed(peer, now);
        let next = book.next_due().unwrap();
        waits.push(next - now);
        now = next;
    }
    assert!(
        waits[0] <= REDIAL_FIRST && waits[0] >= REDIAL_FIRST / 2,
        "{:?}",
        waits[0]
    );
    assert!(waits.iter().all(|wait| *wait <= REDIAL_MAX));
    assert!(waits[20..].iter().all(|wait| *wait >= REDIAL_MAX / 2));
    assert!(
        waits[20..].windows(2).any(|pair| pair[0] != pair[1]),
        "no jitter"
    );
}

#[tokio::test]
async fn a_connected_peer_is_not_dialed_until_it_is_gone() {
    let (mut book, peer, now) = book();
    book.configure(peer, address(1), now);
    book.due(now);
    book.connected(peer, Some(address(1)));
    book.hear(peer, vec![address(2)], now);
    assert_eq!(book.next_due(), None);
    book.disconnected(peer, now);
    let next = book.next_due().unwrap();
    assert!(next <= now + REDIAL_FIRST + COURTESY);
    assert_eq!(peers(book.due(next)), [peer]);
}

#[tokio::test]
async fn of_two_peers_that_hear_of_each_other_one_dials_first() {
    let (mut one, other, now) = book();
    let mut two = Book::new(other, 7);
    one.hear(other, vec![address(1)], now);
    two.hear(one.local, vec![address(2)], now);
    let [first, second] = [one.next_due().unwrap(), two.next_due().unwrap()];
    let (early, late) = if one.local < other {
        (first, second)
    } else {
        (second, first)
    };
    assert!(late >= early + COURTESY - REDIAL_FIRST);
}

#[tokio::test]
async fn a_blocked_peer_rests_until_it_is_woken() {
    let (mut book, peer, now) = book();
    book.configure(peer, address(1), now);
    book.rest(peer);
    assert!(book.due(now + REDIAL_MAX).is_empty());
    book.wake(peer, now);
    assert_eq!(peers(book.due(now)), [peer]);
}

#[tokio::test]
async fn hearsay_is_dialed_but_not_vouched_for() {
    let (mut book, peer, now) = book();
    book.hear(peer, vec![address(1), address(1)], now);
    assert_eq!(book.due(now + COURTESY * 2), [(peer, vec![address(1)])]);
    assert!(book.members().is_empty());
    assert!(book.connected(peer, Some(address(1))));
    assert!(book.report(peer, vec![address(2)]));
    assert!(!book.report(peer, vec![address(2)]));
    assert_eq!(book.members(), [(peer, vec![address(1), address(2)])]);
}

#[tokio::test]
async fn dead_hearsay_neither_fills_the_book_nor_keeps_us_from_configured_peers() {
    let (mut book, peer, now) = book();
    for port in 1..=2 * PEERS_KNOWN_MAX as u16 {
        book.hear(PeerId::random(), vec![address(port)], now);
    }
    assert_eq!(book.entries.len(), PEERS_KNOWN_MAX);
    let later = now + COURTESY * 2;
    assert_eq!(book.due(later).len(), DIALS_MAX);
    assert_eq!(
        book.next_due(),
        None,
        "no room, so no dial and no busy waiting"
    );
    book.configure(peer, address(1), later);
    assert_eq!(peers(book.due(later)), [peer]);
}

#[tokio::test]
async fn a_peer_that_never_answers_gives_way_to_a_new_one() {
    let (mut book, newcomer, mut now) = book();
    for port in 1..=PEERS_KNOWN_MAX as u16 {
        book.hear(PeerId::random(), vec![address(port)], now);
    }
    book.hear(newcomer, vec![address(1)], now);
    assert!(!book.entries.contains_key(&newcomer));
    for _ in 0..=ATTEMPTS_BEFORE_EVICTION {
        now += REDIAL_MAX;
        for (peer, _) in book.due(now) {
            book.failed(peer, now);
        }
    }
    book.hear(newcomer, vec![address(1)], now);
    assert!(book.entries.contains_key(&newcomer));
    assert_eq!(book.entries.len(), PEERS_KNOWN_MAX);
}
