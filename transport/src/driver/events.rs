//! What the driver does when the swarm reports something.

use libp2p::core::ConnectedPoint;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify};
use libp2p_gossipsub::{self as gossipsub, MessageAcceptance};
use tokio::time::Instant;

use super::{Driver, EXCHANGE_PROTOCOL, LISTS_READING_MAX, Link, SETTLE};
use crate::address::{is_loopback, usable, without_peer};
use crate::behaviour::ProtocolsEvent;
use crate::event::{Event, Ticket};
use crate::sharing;
use crate::stream::Stream;
use crate::streams::Arrival;

impl Driver {
    pub(super) fn on_swarm(&mut self, event: SwarmEvent<ProtocolsEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established: 0,
                ..
            } => {
                self.on_disconnected(peer_id);
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error,
                ..
            } => {
                tracing::debug!(%peer, %error, "no connection");
                self.book.failed(peer, Instant::now());
            }
            SwarmEvent::Behaviour(event) => self.on_protocol(event),
            SwarmEvent::ListenerClosed {
                addresses,
                reason: Err(error),
                ..
            } => {
                tracing::warn!(?addresses, %error, "listener closed");
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        if self.gate.is_blocked(peer) {
            // It was admitted a moment before the block.
            self.swarm.close_connection(connection);
            return;
        }
        let same_machine = is_loopback(endpoint.get_remote_address());
        let link = self.links.entry(peer).or_insert_with(|| Link {
            up: false,
            dropped: false,
            settled: Instant::now() + SETTLE,
            same_machine,
            lists_reading: 0,
            told: None,
        });
        link.same_machine |= same_machine;
        link.dropped = false;
        let dialed = match endpoint {
            ConnectedPoint::Dialer { address, .. } => without_peer(address.clone(), peer),
            ConnectedPoint::Listener { .. } => None,
        };
        if self.book.connected(peer, dialed) {
            self.know(peer);
        }
    }

    fn on_disconnected(&mut self, peer: PeerId) {
        if self.links.remove(&peer).is_some_and(|link| link.up) {
            self.outbox.push(Event::PeerDown { peer });
        }
        if self.gate.is_blocked(peer) {
            self.book.rest(peer);
        } else {
            self.book.disconnected(peer, Instant::now());
        }
    }

    fn on_protocol(&mut self, event: ProtocolsEvent) {
        match event {
            ProtocolsEvent::Gossip(gossipsub::Event::Message {
                propagation_source: from,
                message_id: id,
                message,
            }) => self.on_gossip(Ticket { id, from }, message.data),
            ProtocolsEvent::Gossip(gossipsub::Event::Subscribed { peer_id, .. }) => {
                self.raise(peer_id);
            }
            ProtocolsEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(peer_id, info.listen_addrs);
            }
            ProtocolsEvent::Ping(pong) => {
                if let Err(error) = pong.result {
                    tracing::debug!(peer = %pong.peer, %error, "no answer");
                    self.swarm.close_connection(pong.connection);
                }
            }
            ProtocolsEvent::Streams(arrival) => self.on_arrival(arrival),
            _ => {}
        }
    }

    fn on_gossip(&mut self, ticket: Ticket, bytes: Vec<u8>) {
        if !self.is_member(ticket.from) {
            return self.verdict(&ticket, MessageAcceptance::Reject);
        }
        self.raise(ticket.from);
        let event = Event::Gossip {
            from: ticket.from,
            bytes,
            ticket: ticket.clone(),
        };
        if !self.outbox.offer(event) {
            tracing::debug!("gossip dropped: the owner is slow");
            self.verdict(&ticket, MessageAcceptance::Ignore);
        }
    }

    fn on_arrival(
        &mut self,
        Arrival {
            peer,
            protocol,
            stream,
        }: Arrival,
    ) {
        let member = self.is_member(peer);
        let Some(link) = self.links.get_mut(&peer).filter(|_| member) else {
            return;
        };
        if protocol.as_ref() == EXCHANGE_PROTOCOL {
            if link.lists_reading < LISTS_READING_MAX {
                link.lists_reading += 1;
                tokio::spawn(sharing::receive(peer, stream, self.lists_sender.clone()));
            }
            return;
        }
        self.raise(peer);
        let stream = Stream::new(stream);
        if !self.outbox.offer(Event::Stream {
            peer,
            protocol,
            stream,
        }) {
            tracing::debug!(%peer, "stream refused: the owner is slow");
        }
    }

    fn on_identified(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let Some(link) = self.links.get(&peer) else {
            return;
        };
        let usable = |address| usable(address, peer, link.same_machine);
        let addresses = addresses.into_iter().filter_map(usable).collect();
        if self.book.report(peer, addresses) {
            self.know(peer);
        }
    }
}
