//! What the driver tells the owner, and the members each other, about members.

use libp2p::{PeerId, StreamProtocol};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Driver, EXCHANGE_PROTOCOL, ListOutcome, SHARE_DELAY};
use crate::address::usable;
use crate::event::{Event, Refusal};
use crate::exchange::Listed;
use crate::sharing;

impl Driver {
    /// Tells the owner of a member, once.
    pub(super) fn raise(&mut self, peer: PeerId) {
        let member = self.is_member(peer);
        let Some(link) = self.links.get_mut(&peer).filter(|link| member && !link.up) else {
            return;
        };
        link.up = true;
        self.outbox.push(Event::PeerUp { peer });
        self.tell_soon();
    }

    /// Closes all connections of a peer, which is gone at once as far as the owner can tell.
    pub(super) fn drop_peer(&mut self, peer: PeerId) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.dropped = true;
            if std::mem::take(&mut link.up) {
                self.outbox.push(Event::PeerDown { peer });
            }
        }
        // An error means that it has no connection.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    /// Tells the owner and the members where a member is.
    pub(super) fn know(&mut self, peer: PeerId) {
        let addrs = self.book.first_hand(peer);
        self.outbox.push(Event::PeerKnown { peer, addrs });
        self.tell_soon();
    }

    pub(super) fn tell_soon(&mut self) {
        self.share
            .get_or_insert_with(|| Instant::now() + SHARE_DELAY);
    }

    /// Tells each member about the others, unless that is what it was told last.
    pub(super) fn tell_members(&mut self) {
        let members = self.book.members();
        for (&peer, link) in self.links.iter_mut().filter(|(_, link)| link.up) {
            let told = sharing::list_for(peer, link.same_machine, &members);
            let hash = blake3::hash(&told);
            if link.told.replace(hash) == Some(hash) {
                continue;
            }
            let (opened, stream) = oneshot::channel();
            let protocol = StreamProtocol::new(EXCHANGE_PROTOCOL);
            self.swarm
                .behaviour_mut()
                .streams
                .open(peer, protocol, opened);
            tokio::spawn(sharing::send(stream, told));
        }
    }

    pub(super) fn on_list(&mut self, (peer, outcome): ListOutcome) {
        let Some(link) = self.links.get_mut(&peer) else {
            return;
        };
        link.lists_reading = link.lists_reading.saturating_sub(1);
        let same_machine = link.same_machine;
        match outcome {
            None => {}
            Some(Ok(list)) => {
                for Listed { peer, addresses } in list {
                    let usable = |address| usable(address, peer, same_machine);
                    let addresses = addresses.into_iter().filter_map(usable).collect();
                    if !self.gate.is_blocked(peer) {
                        self.book.hear(peer, addresses, Instant::now());
                    }
                }
            }
            Some(Err(error)) => {
                tracing::debug!(%peer, %error, "malformed list of addresses");
                self.gate.penalize(peer, Refusal::BadAddresses);
                self.drop_peer(peer);
            }
        }
    }

    /// Reports whether a peer is connected, and not about to be dropped.
    pub(super) fn is_member(&self, peer: PeerId) -> bool {
        self.links.get(&peer).is_some_and(|link| !link.dropped)
    }
}
