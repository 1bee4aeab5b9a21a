//! The part of the swarm that opens streams to members and accepts theirs.
//!
//! A stream is opened on the latest connection to its peer, which is the one most likely to be
//! alive. Whatever a peer can pile up is bounded by [`OPENS_WAITING_MAX`] and by the swarm's own
//! buffer for each connection, behind which a peer is no longer read from.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, InboundUpgrade, UpgradeInfo};
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId,
    FromSwarm, NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use tokio::sync::oneshot;

/// How many streams may wait on one connection to be opened, by us. More are refused.
const OPENS_WAITING_MAX: usize = 64;

/// Why a stream was not opened.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    NotConnected,
    Busy,
    Unsupported,
    Io(io::Error),
}

/// Where the outcome of opening a stream goes.
pub(crate) type Opened = oneshot::Sender<Result<Stream, OpenFailure>>;

/// A stream that a peer has opened.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) peer: PeerId,
    pub(crate) protocol: StreamProtocol,
    pub(crate) stream: Stream,
}

/// Opens and accepts streams of a fixed set of protocols.
pub(crate) struct Streams {
    protocols: Arc<[StreamProtocol]>,
    connections: BTreeMap<PeerId, Vec<ConnectionId>>,
    waiting: VecDeque<ToSwarm<Arrival, Open>>,
}

impl Streams {
    /// Accepts streams of `protocols`.
    pub(crate) fn new(protocols: Vec<StreamProtocol>) -> Self {
        let (connections, waiting) = Default::default();
        Self {
            protocols: protocols.into(),
            connections,
            waiting,
        }
    }

    /// Opens a stream. The caller polls the swarm afterwards, which sends it on its way.
    pub(crate) fn open(&mut self, peer: PeerId, protocol: StreamProtocol, opened: Opened) {
        match self.connections.get(&peer).and_then(|known| known.last()) {
            Some(&connection) => self.waiting.push_back(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(connection),
                event: Open { protocol, opened },
            }),
            None => drop(opened.send(Err(OpenFailure::NotConnected))),
        }
    }

    fn handler(&self) -> Handler {
        let (opens, arrivals) = Default::default();
        Handler {
            protocols: self.protocols.clone(),
            opens,
            arrivals,
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Arrival;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            }) => self
                .connections
                .entry(peer_id)
                .or_default()
                .push(connection_id),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                if let Some(known) = self.connections.get_mut(&peer_id) {
                    known.retain(|&id| id != connection_id);
                    if known.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        (protocol, stream): THandlerOutEvent<Self>,
    ) {
        self.waiting.push_back(ToSwarm::GenerateEvent(Arrival {
            peer,
            protocol,
            stream,
        }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Arrival, THandlerInEvent<Self>>> {
        self.waiting.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Asks a connection for a stream.
#[derive(Debug)]
pub(crate) struct Open {
    protocol: StreamProtocol,
    opened: Opened,
}

/// Opens and accepts streams on one connection.
pub(crate) struct Handler {
    protocols: Arc<[StreamProtocol]>,
    opens: VecDeque<Open>,
    arrivals: VecDeque<(StreamProtocol, Stream)>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = (StreamProtocol, Stream);
    type InboundProtocol = Offer;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opened;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer(self.protocols.clone()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Opened, Self::ToBehaviour>> {
        if let Some(arrival) = self.arrivals.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(arrival));
        }
        let Some(Open { protocol, opened }) = self.opens.pop_front() else {
            return Poll::Pending;
        };
        let protocol = SubstreamProtocol::new(ReadyUpgrade::new(protocol), opened);
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    fn on_behaviour_event(&mut self, open: Open) {
        if self.opens.len() < OPENS_WAITING_MAX {
            self.opens.push_back(open);
        } else {
            let _ = open.opened.send(Err(OpenFailure::Busy));
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Offer, Self::OutboundProtocol, (), Opened>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: arrival,
                ..
            }) => self.arrivals.push_back(arrival),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: opened,
            }) => drop(opened.send(Ok(stream))),
            ConnectionEvent::DialUpgradeError(DialUpgradeError {
                info: opened,
                error,
            }) => {
                let failure = match error {
                    StreamUpgradeError::Timeout => OpenFailure::Io(io::ErrorKind::TimedOut.into()),
                    StreamUpgradeError::NegotiationFailed => OpenFailure::Unsupported,
                    StreamUpgradeError::Io(error) => OpenFailure::Io(error),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = opened.send(Err(failure));
            }
            _ => {}
        }
    }
}

/// Offers the accepted protocols to a peer, and keeps the name of the one it chose.
pub(crate) struct Offer(Arc<[StreamProtocol]>);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.to_vec()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}
