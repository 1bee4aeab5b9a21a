//! The start of a node: it runs once it listens.

use std::io;
use std::net::Ipv6Addr;

use futures::StreamExt;
use libp2p::Multiaddr;
use libp2p::core::transport::TransportError;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;

use super::Driver;
use crate::network::StartError;
use crate::port;

impl Driver {
    /// Waits until every address is listened on, and then lets the node run.
    pub(crate) async fn listen(mut self, addrs: Vec<Multiaddr>) -> Result<(), StartError> {
        let mut waiting = Vec::new();
        for addr in addrs {
            let listening =
                port::check(&addr).and_then(|()| self.swarm.listen_on(addr.clone()).map_err(plain));
            match listening {
                Ok(id) => {
                    self.listeners.push(id);
                    waiting.push((id, addr));
                }
                Err(error) => excuse(addr, error)?,
            }
        }
        while !waiting.is_empty() {
            match self.swarm.select_next_some().await {
                SwarmEvent::ListenerClosed {
                    listener_id,
                    reason,
                    ..
                } => {
                    if let Some(at) = waiting.iter().position(|(id, _)| *id == listener_id) {
                        let closed = || io::ErrorKind::ConnectionAborted.into();
                        let reason = reason.err().unwrap_or_else(closed);
                        excuse(waiting.swap_remove(at).1, reason)?;
                    }
                }
                event => {
                    if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                        waiting.retain(|(id, _)| id != listener_id);
                    }
                    self.on_swarm(event);
                }
            }
        }
        tokio::spawn(self.run());
        Ok(())
    }
}

fn plain(error: TransportError<io::Error>) -> io::Error {
    match error {
        TransportError::MultiaddrNotSupported(_) => io::ErrorKind::Unsupported.into(),
        TransportError::Other(error) => error,
    }
}

/// Passes over an address that is optional: every IPv6 interface, on a machine that has none.
fn excuse(addr: Multiaddr, source: io::Error) -> Result<(), StartError> {
    if addr.iter().next() == Some(Protocol::Ip6(Ipv6Addr::UNSPECIFIED)) {
        tracing::warn!(%addr, error = %source, "not listening");
        return Ok(());
    }
    Err(StartError::Listen { addr, source })
}
