//! Which addresses of a peer are worth keeping or telling.

use std::net::IpAddr;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// Returns `address` without a closing `/p2p/<peer>`, or `None` if it names another peer.
pub(crate) fn without_peer(mut address: Multiaddr, peer: PeerId) -> Option<Multiaddr> {
    match address.iter().last() {
        Some(Protocol::P2p(named)) if named == peer => {
            address.pop();
            Some(address)
        }
        Some(Protocol::P2p(_)) => None,
        _ => Some(address),
    }
}

/// Returns the address in the form in which it is kept, if a stranger's word for it is enough:
/// a plain IP address and a port over TCP or QUIC, which another machine could dial.
///
/// Loopback addresses mean something on the same machine only: they pass if `same_machine`.
pub(crate) fn usable(address: Multiaddr, peer: PeerId, same_machine: bool) -> Option<Multiaddr> {
    let address = without_peer(address, peer)?;
    let ip = ip(&address)?;
    let reachable = !ip.is_unspecified() && !ip.is_multicast() && !link_local(&ip);
    (reachable && plain(&address) && (same_machine || !ip.is_loopback())).then_some(address)
}

/// Reports whether an address means this machine wherever it is read.
pub(crate) fn is_loopback(address: &Multiaddr) -> bool {
    ip(address).is_some_and(|ip| ip.is_loopback())
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(ip.to_canonical()),
        _ => None,
    }
}

/// A link-local address needs a zone, which an address in this form does not carry.
fn link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn plain(address: &Multiaddr) -> bool {
    let mut parts = address.iter().skip(1);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Protocol::Tcp(port)), None, None) => port != 0,
        (Some(Protocol::Udp(port)), Some(Protocol::QuicV1), None) => port != 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str, same_machine: bool) -> bool {
        usable(text.parse().unwrap(), PeerId::random(), same_machine).is_some()
    }

    #[test]
    fn plain_tcp_and_quic_addresses_are_usable() {
        for text in ["/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::1/udp/9/quic-v1"] {
            assert!(kept(text, false), "{text}");
        }
    }

    #[test]
    fn loopback_is_usable_on_the_same_machine_only() {
        for text in [
            "/ip4/127.0.0.1/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/::ffff:127.0.0.1/tcp/1",
        ] {
            assert!(kept(text, true) && !kept(text, false), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_dialed_is_not_usable() {
        for text in [
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/224.0.0.1/tcp/1",
            "/ip4/169.254.1.1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip4/192.0.2.1/tcp/0",
            "/ip4/192.0.2.1/udp/1",
            "/ip4/192.0.2.1/tcp/1/tcp/2",
            "/dns4/example.org/tcp/1",
            "/memory/7",
        ] {
            assert!(!kept(text, true), "{text}");
        }
    }

    #[test]
    fn an_address_that_names_another_peer_is_not_usable() {
        let [peer, other] = [PeerId::random(), PeerId::random()];
        let plain: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        let named = plain.clone().with(Protocol::P2p(peer));
        assert_eq!(usable(named.clone(), peer, false), Some(plain));
        assert_eq!(usable(named, other, false), None);
    }
}
