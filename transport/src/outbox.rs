//! Events on their way to the owner, who may be slow.
//!
//! The channel holds [`EVENTS_MAX`] events. When it is full, gossip is dropped, streams are
//! refused and refusals go untold; what the owner must not miss waits here, where `PeerUp` and
//! `PeerDown` of a peer cancel out and a newer `PeerKnown` replaces an older one, so that at most
//! three events wait for each peer.

use std::collections::VecDeque;

use libp2p::PeerId;
use tokio::sync::mpsc::{self, OwnedPermit};

use crate::event::Event;

/// How many events wait for the owner before gossip and streams are turned away.
/// With the largest messages that is 16 MiB.
pub const EVENTS_MAX: usize = 256;

pub(crate) struct Outbox {
    owner: mpsc::Sender<Event>,
    waiting: VecDeque<Event>,
}

impl Outbox {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Event>) {
        let (owner, events) = mpsc::channel(EVENTS_MAX);
        (
            Self {
                owner,
                waiting: VecDeque::new(),
            },
            events,
        )
    }

    /// Sends an event, or drops it and returns `false` when the owner is too slow.
    pub(crate) fn offer(&mut self, event: Event) -> bool {
        // Nothing may overtake what waits: a stream before its `PeerUp` would be no use.
        self.waiting.is_empty() && self.owner.try_send(event).is_ok()
    }

    /// Sends an event now or later.
    pub(crate) fn push(&mut self, event: Event) {
        let event = match self.waiting.is_empty() {
            true => match self.owner.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(event)) => event,
            },
            false => event,
        };
        match &event {
            Event::PeerDown { peer } => {
                let up =
                    |waiting: &Event| matches!(waiting, Event::PeerUp { peer: up } if up == peer);
                if self.forget(up) {
                    return;
                }
            }
            Event::PeerKnown { peer, .. } => {
                self.forget(|waiting| known_of(waiting) == Some(*peer));
            }
            _ => {}
        }
        self.waiting.push_back(event);
    }

    /// Reports whether events wait for room in the channel.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Waits for room in the channel, or returns `None` when the owner is gone.
    pub(crate) fn room(&self) -> impl Future<Output = Option<OwnedPermit<Event>>> + use<> {
        let owner = self.owner.clone();
        async move { owner.reserve_owned().await.ok() }
    }

    /// Uses room for what has waited longest.
    pub(crate) fn fill(&mut self, room: Option<OwnedPermit<Event>>) {
        match room {
            Some(room) => {
                if let Some(event) = self.waiting.pop_front() {
                    room.send(event);
                }
            }
            None => self.waiting.clear(),
        }
    }

    /// Removes the last waiting event of a kind, if there is one.
    fn forget(&mut self, kind: impl Fn(&Event) -> bool) -> bool {
        let found = self.waiting.iter().rposition(kind);
        found.and_then(|index| self.waiting.remove(index)).is_some()
    }
}

fn known_of(event: &Event) -> Option<PeerId> {
    match event {
        Event::PeerKnown { peer, .. } => Some(*peer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Refusal;

    fn full() -> (Outbox, mpsc::Receiver<Event>) {
        let (mut outbox, events) = Outbox::new();
        let refused = || Event::Refused {
            peer: PeerId::random(),
            reason: Refusal::Deadline,
        };
        while outbox.offer(refused()) {}
        (outbox, events)
    }

    async fn drained((mut outbox, mut events): (Outbox, mpsc::Receiver<Event>)) -> Vec<Event> {
        let mut all = Vec::new();
        while let Ok(event) = events.try_recv() {
            all.push(event);
        }
        while outbox.is_waiting() {
            let room = outbox.room().await;
            outbox.fill(room);
            all.push(events.try_recv().unwrap());
        }
        all.split_off(EVENTS_MAX)
    }

    #[tokio::test]
    async fn peers_that_come_and_go_are_told_to_a_slow_owner_in_order() {
        let peer = PeerId::random();
        let (mut outbox, events) = full();
        outbox.push(Event::PeerDown { peer });
        outbox.push(Event::PeerUp { peer });
        let all = drained((outbox, events)).await;
        assert!(
            matches!(all[..], [Event::PeerDown { .. }, Event::PeerUp { .. }]),
            "{all:?}"
        );
    }

    #[tokio::test]
    async fn what_waits_for_one_peer_is_bounded_and_alternates() {
        let peer = PeerId::random();
        let (mut outbox, events) = full();
        for _ in 0..100 {
            outbox.push(Event::PeerDown { peer });
            outbox.push(Event::PeerUp { peer });
            outbox.push(Event::PeerKnown {
                peer,
                addrs: Vec::new(),
            });
        }
        let all = drained((outbox, events)).await;
        assert!(
            matches!(
                all[..],
                [
                    Event::PeerDown { .. },
                    Event::PeerUp { .. },
                    Event::PeerKnown { .. }
                ]
            ),
            "{all:?}"
        );
    }

    #[tokio::test]
    async fn nothing_overtakes_what_waits() {
        let peer = PeerId::random();
        let (mut outbox, mut events) = full();
        outbox.push(Event::PeerUp { peer });
        events.try_recv().unwrap();
        assert!(!outbox.offer(Event::Refused {
            peer,
            reason: Refusal::Deadline
        }));
        assert!(outbox.is_waiting());
    }
}
