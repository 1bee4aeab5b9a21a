//! Whether the operating system's ports are free.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::time::sleep;

/// How often to look whether a port is free.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Fails if somebody else listens on an address.
///
/// The TCP transport shares its ports with every process that agrees to, so that of two nodes
/// started by mistake on one port, each would get some of the other's peers.
pub(crate) fn check(addr: &Multiaddr) -> io::Result<()> {
    match socket(addr) {
        Some((Kind::Tcp, socket)) => TcpListener::bind(socket).map(drop),
        Some((Kind::Udp, socket)) => UdpSocket::bind(socket).map(drop),
        None => Ok(()),
    }
}

/// Waits until the UDP ports among `addrs` are free: QUIC holds on to one for a moment after its
/// last connection, so that a late packet finds somebody who knows that it is late.
pub(crate) async fn freed(addrs: Vec<Multiaddr>) {
    for addr in addrs {
        while matches!(socket(&addr), Some((Kind::Udp, socket)) if UdpSocket::bind(socket).is_err())
        {
            sleep(LOOK_INTERVAL).await;
        }
    }
}

enum Kind {
    Tcp,
    Udp,
}

fn socket(addr: &Multiaddr) -> Option<(Kind, SocketAddr)> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((Kind::Tcp, SocketAddr::new(ip, port))),
        Protocol::Udp(port) => Some((Kind::Udp, SocketAddr::new(ip, port))),
        _ => None,
    }
}
