//! The task that drives the swarm: the only place where its events, the owner's commands and the
//! clock meet. It never waits for the owner or for a peer.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm};
use libp2p_gossipsub::{IdentTopic, MessageAcceptance, PublishError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::behaviour::Protocols;
use crate::book::Book;
use crate::event::{Event, Ticket, Verdict};
use crate::exchange::{ListError, Listed};
use crate::gate::{Gate, Refused};
use crate::outbox::Outbox;
use crate::port;
use crate::streams::{OpenFailure, Opened};

mod events;
mod listening;
mod members;

/// The stream protocol on which members tell each other about members.
pub(crate) const EXCHANGE_PROTOCOL: &str = "/syncline/peers/1";

/// How long to wait for a member to join the gossip before it counts as up all the same.
const SETTLE: Duration = Duration::from_secs(5);
/// News about members is gathered for so long before it is told.
const SHARE_DELAY: Duration = Duration::from_millis(50);
/// How many lists of one member are read at once. More are refused.
const LISTS_READING_MAX: usize = 8;
/// How many lists that were read wait to be looked at.
const LISTS_WAITING_MAX: usize = 64;
/// How long connections may take to close at the end, and ports to become free.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// What the owner asks for.
pub(crate) enum Command {
    Publish(Vec<u8>),
    Validate(Ticket, Verdict),
    OpenStream(PeerId, StreamProtocol, Opened),
    Dial(PeerId, Multiaddr),
    ListenAddrs(oneshot::Sender<Vec<Multiaddr>>),
    Peers(oneshot::Sender<Vec<PeerId>>),
    Block(PeerId, oneshot::Sender<()>),
    Unblock(PeerId, oneshot::Sender<()>),
    Shutdown(oneshot::Sender<()>),
}

/// An admitted peer.
struct Link {
    /// Whether the owner was told.
    up: bool,
    /// Whether it was dropped, and its connections are about to close.
    dropped: bool,
    /// When it counts as up even without gossip.
    settled: Instant,
    /// Whether its loopback addresses are ours too.
    same_machine: bool,
    /// How many of its lists are being read.
    lists_reading: usize,
    /// The list it was told last.
    told: Option<blake3::Hash>,
}

impl Link {
    /// When the owner is told of the peer at the latest.
    fn settling(&self) -> Option<Instant> {
        (!self.up && !self.dropped).then_some(self.settled)
    }
}

/// A list of members that one of them has sent, or why it is none.
pub(crate) type ListOutcome = (PeerId, Option<Result<Vec<Listed>, ListError>>);

pub(crate) struct Driver {
    swarm: Swarm<Protocols>,
    topic: IdentTopic,
    gate: Gate,
    book: Book,
    outbox: Outbox,
    commands: mpsc::Receiver<Command>,
    refused: mpsc::Receiver<Refused>,
    lists: mpsc::Receiver<ListOutcome>,
    lists_sender: mpsc::Sender<ListOutcome>,
    links: BTreeMap<PeerId, Link>,
    listeners: Vec<ListenerId>,
    /// When to tell the members what is new.
    share: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(
        swarm: Swarm<Protocols>,
        topic: IdentTopic,
        gate: Gate,
        book: Book,
        outbox: Outbox,
        (commands, refused): (mpsc::Receiver<Command>, mpsc::Receiver<Refused>),
    ) -> Self {
        let (lists_sender, lists) = mpsc::channel(LISTS_WAITING_MAX);
        let (links, listeners, share) = Default::default();
        Self {
            swarm,
            topic,
            gate,
            book,
            outbox,
            commands,
            refused,
            lists,
            lists_sender,
            links,
            listeners,
            share,
        }
    }

    async fn run(mut self) {
        let stopped = loop {
            self.on_time(Instant::now());
            let alarm = self.alarm();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown(stopped)) => break Some(stopped),
                    Some(command) => self.on_command(command),
                    None => break None,
                },
                Some(Refused { peer, reason }) = self.refused.recv() => {
                    self.outbox.offer(Event::Refused { peer, reason });
                }
                Some(outcome) = self.lists.recv() => self.on_list(outcome),
                room = self.outbox.room(), if self.outbox.is_waiting() => self.outbox.fill(room),
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {}
            }
        };
        let addrs = self.swarm.listeners().cloned().collect();
        self.close().await;
        drop(self);
        let _ = timeout(CLOSE_DEADLINE, port::freed(addrs)).await;
        if let Some(stopped) = stopped {
            let _ = stopped.send(());
        }
    }

    async fn close(&mut self) {
        for id in std::mem::take(&mut self.listeners) {
            self.swarm.remove_listener(id);
        }
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let _ = timeout(CLOSE_DEADLINE, async {
            while self.swarm.connected_peers().next().is_some() {
                let event = self.swarm.select_next_some().await;
                self.on_swarm(event);
            }
        })
        .await;
    }

    /// The next moment at which something is due without a reason from outside.
    fn alarm(&self) -> Option<Instant> {
        let settling = self.links.values().filter_map(Link::settling);
        settling.chain(self.book.next_due()).chain(self.share).min()
    }

    fn on_time(&mut self, now: Instant) {
        let is_late = |link: &Link| link.settling().is_some_and(|until| until <= now);
        let late = self.links.iter().filter(|(_, link)| is_late(link));
        let late: Vec<PeerId> = late.map(|(&peer, _)| peer).collect();
        for peer in late {
            self.raise(peer);
        }
        if self.share.is_some_and(|share| share <= now) {
            self.share = None;
            self.tell_members();
        }
        for (peer, addresses) in self.book.due(now) {
            let options = DialOpts::peer_id(peer)
                .addresses(addresses)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                // From the listening port, two dials that cross could become one TCP connection
                // with two dialers, and a redial could meet the last connection's remains.
                .allocate_new_port()
                .build();
            if let Err(error) = self.swarm.dial(options) {
                tracing::debug!(%peer, %error, "not dialed");
                self.book.failed(peer, now);
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish(bytes) => self.publish(bytes),
            Command::Validate(ticket, verdict) => self.verdict(
                &ticket,
                match verdict {
                    Verdict::Accept => MessageAcceptance::Accept,
                    Verdict::Reject => MessageAcceptance::Reject,
                    Verdict::Ignore => MessageAcceptance::Ignore,
                },
            ),
            Command::OpenStream(peer, protocol, opened) => {
                if self.is_member(peer) {
                    self.swarm
                        .behaviour_mut()
                        .streams
                        .open(peer, protocol, opened);
                } else {
                    let _ = opened.send(Err(OpenFailure::NotConnected));
                }
            }
            Command::Dial(peer, address) => {
                self.book.configure(peer, address, Instant::now());
                if self.gate.is_blocked(peer) {
                    self.book.rest(peer);
                }
            }
            Command::ListenAddrs(reply) => {
                let _ = reply.send(self.swarm.listeners().cloned().collect());
            }
            Command::Peers(reply) => {
                let up = self.links.iter().filter(|(_, link)| link.up);
                let _ = reply.send(up.map(|(&peer, _)| peer).collect());
            }
            Command::Block(peer, done) => {
                self.gate.block(peer);
                self.book.rest(peer);
                self.drop_peer(peer);
                let _ = done.send(());
            }
            Command::Unblock(peer, done) => {
                self.gate.unblock(peer);
                self.book.wake(peer, Instant::now());
                let _ = done.send(());
            }
            Command::Shutdown(_) => unreachable!("the loop itself ends on a shutdown"),
        }
    }

    fn publish(&mut self, bytes: Vec<u8>) {
        match self
            .swarm
            .behaviour_mut()
            .gossip
            .publish(self.topic.hash(), bytes)
        {
            // Nobody is there, or it was said already: both are daily life.
            Ok(_) | Err(PublishError::NoPeersSubscribedToTopic | PublishError::Duplicate) => {}
            Err(error) => tracing::debug!(%error, "gossip dropped"),
        }
    }

    fn verdict(&mut self, ticket: &Ticket, acceptance: MessageAcceptance) {
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(&ticket.id, &ticket.from, acceptance);
    }
}

#[cfg(test)]
mod tests;
