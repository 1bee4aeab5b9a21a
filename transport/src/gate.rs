//! Lets a fresh connection through to the swarm only after its peer has been admitted.
//!
//! It stands between the transports and the swarm: to gossip, streams and every other protocol
//! a peer that was not admitted does not exist, and they show it nothing, not even the topic.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};
use libp2p::core::{ConnectedPoint, Endpoint};
use multistream_select::{NegotiationError, Version};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::compat::FuturesAsyncReadCompatExt;

use crate::admission::{
    AdmissionError, AdmissionKey, NONCE_BYTES, Nonce, Parties, dialer_part, listener_part,
};
use crate::event::Refusal;

/// The stream protocol of an admission, the first stream on every connection.
pub(crate) const ADMISSION_PROTOCOL: &str = "/syncline/admit/1";

/// How long a peer is turned away after its first offence; twice as long after each further one.
const PENALTY_FIRST: Duration = Duration::from_secs(1);
/// The longest time for which a peer is turned away.
const PENALTY_MAX: Duration = Duration::from_secs(60);
/// How many offenders are remembered. Identities are free, so this only keeps the map small.
const OFFENDERS_MAX: usize = 1024;
/// How long a peer that was refused may take to read why, and one that leaves to be gone.
const FAREWELL: Duration = Duration::from_millis(500);

/// A peer that was turned away, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) peer: PeerId,
    pub(crate) reason: Refusal,
}

/// Admits peers, and remembers whom not to.
#[derive(Clone)]
pub(crate) struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    local: PeerId,
    key: AdmissionKey,
    deadline: Duration,
    list: Mutex<List>,
    /// Refusals for the owner. Full, it drops them: they are for logs only.
    refused: mpsc::Sender<Refused>,
}

/// Why a connection did not pass.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    #[error("the peer is blocked or has broken a rule a moment ago")]
    Closed,
    #[error("no random bytes for a nonce")]
    Random(#[from] getrandom::Error),
    #[error("not admitted")]
    Admission(#[from] AdmissionError),
}

impl Gate {
    pub(crate) fn new(
        local: PeerId,
        key: AdmissionKey,
        deadline: Duration,
        refused: mpsc::Sender<Refused>,
    ) -> Self {
        let list = Mutex::default();
        Self {
            shared: Arc::new(Shared {
                local,
                key,
                deadline,
                list,
                refused,
            }),
        }
    }

    /// Takes a connection whose peer is known, and returns it once that peer is admitted.
    pub(crate) async fn pass(
        self,
        (peer, mut muxer): (PeerId, StreamMuxerBox),
        point: ConnectedPoint,
    ) -> Result<(PeerId, StreamMuxerBox), GateError> {
        if self.list().is_closed(peer, Instant::now()) {
            return Err(GateError::Closed);
        }
        let nonce = nonce()?;
        let admission = self.admit(peer, &mut muxer, point.to_endpoint(), nonce);
        let mut result = timeout(self.shared.deadline, admission)
            .await
            .unwrap_or(Err(Refusal::Deadline.into()));
        if let Err(AdmissionError::Declined) = result {
            // A peer that turns us away, or has found a faster connection, closes this one.
            let left = timeout(FAREWELL, poll_fn(|cx| closed(&mut muxer, cx))).await;
            result = Err(match left {
                Ok(()) => AdmissionError::Interrupted,
                Err(_) => Refusal::Malformed.into(),
            });
        }
        if let Err(AdmissionError::Refused(reason)) = result {
            self.penalize(peer, reason);
            if point.is_listener() {
                // The listener has the last word, and closing at once could overtake it.
                let _ = timeout(FAREWELL, poll_fn(|cx| closed(&mut muxer, cx))).await;
            }
        }
        result?;
        self.list().offenders.remove(&peer);
        Ok((peer, muxer))
    }

    /// Turns a peer away for a while, and tells the owner.
    pub(crate) fn penalize(&self, peer: PeerId, reason: Refusal) {
        self.list().penalize(peer, Instant::now());
        let _ = self.shared.refused.try_send(Refused { peer, reason });
    }

    /// Turns a peer away until it is unblocked.
    pub(crate) fn block(&self, peer: PeerId) {
        self.list().blocked.insert(peer);
    }

    /// Ends a block, and any other reason to turn the peer away.
    pub(crate) fn unblock(&self, peer: PeerId) {
        let mut list = self.list();
        list.blocked.remove(&peer);
        list.offenders.remove(&peer);
    }

    /// Reports whether the owner has blocked a peer.
    pub(crate) fn is_blocked(&self, peer: PeerId) -> bool {
        self.list().blocked.contains(&peer)
    }

    async fn admit(
        &self,
        peer: PeerId,
        muxer: &mut StreamMuxerBox,
        endpoint: Endpoint,
        nonce: Nonce,
    ) -> Result<(), AdmissionError> {
        let Shared { local, key, .. } = &*self.shared;
        let protocols = [ADMISSION_PROTOCOL];
        match endpoint {
            Endpoint::Dialer => {
                let parties = Parties {
                    dialer: *local,
                    listener: peer,
                };
                let stream = poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await;
                let stream = stream.map_err(|_| AdmissionError::Interrupted)?;
                drive(muxer, async {
                    let choice =
                        multistream_select::dialer_select_proto(stream, protocols, Version::V1);
                    let (_, stream) = choice.await.map_err(negotiation)?;
                    dialer_part(&mut stream.compat(), key, parties, nonce).await
                })
                .await
            }
            Endpoint::Listener => {
                let parties = Parties {
                    dialer: peer,
                    listener: *local,
                };
                let stream = poll_fn(|cx| muxer.poll_inbound_unpin(cx)).await;
                let stream = stream.map_err(|_| AdmissionError::Interrupted)?;
                drive(muxer, async {
                    let choice = multistream_select::listener_select_proto(stream, protocols);
                    let (_, stream) = choice.await.map_err(negotiation)?;
                    listener_part(&mut stream.compat(), key, parties, nonce).await
                })
                .await
            }
        }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // A panic elsewhere cannot leave the list half-changed: each change is one call.
        self.shared
            .list
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a nonce must be unpredictable to every peer"
)]
fn nonce() -> Result<Nonce, getrandom::Error> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce)?;
    Ok(nonce)
}

fn negotiation(error: NegotiationError) -> AdmissionError {
    match error {
        NegotiationError::ProtocolError(multistream_select::ProtocolError::IoError(_)) => {
            AdmissionError::Interrupted
        }
        NegotiationError::Failed => AdmissionError::Declined,
        _ => Refusal::Malformed.into(),
    }
}

/// Runs `conversation` on a stream of `muxer`, which moves bytes only while it is polled.
async fn drive<T>(
    muxer: &mut StreamMuxerBox,
    conversation: impl Future<Output = Result<T, AdmissionError>>,
) -> Result<T, AdmissionError> {
    let mut conversation = pin!(conversation);
    poll_fn(|cx| {
        let muxed = idle(muxer, cx);
        // Asked even when the connection is broken: what arrived before is still there to read.
        match conversation.as_mut().poll(cx) {
            Poll::Pending if muxed.is_ready() => Poll::Ready(Err(AdmissionError::Interrupted)),
            outcome => outcome,
        }
    })
    .await
}

/// Is ready once the connection has broken.
fn idle(muxer: &mut StreamMuxerBox, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        match muxer.poll_unpin(cx) {
            Poll::Ready(Ok(_address_change)) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Is ready once the peer has closed the connection. New streams on it are dropped.
fn closed(muxer: &mut StreamMuxerBox, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        match muxer.poll_inbound_unpin(cx) {
            Poll::Ready(Ok(_stream)) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => return idle(muxer, cx),
        }
    }
}

/// Whom not to admit.
#[derive(Default)]
struct List {
    blocked: BTreeSet<PeerId>,
    offenders: BTreeMap<PeerId, Offender>,
}

#[derive(Clone, Copy)]
struct Offender {
    offences_count: u32,
    until: Instant,
}

impl List {
    fn is_closed(&self, peer: PeerId, now: Instant) -> bool {
        let serving = |offender: &Offender| now < offender.until;
        self.blocked.contains(&peer) || self.offenders.get(&peer).is_some_and(serving)
    }

    fn penalize(&mut self, peer: PeerId, now: Instant) {
        let offences_count = self
            .offenders
            .get(&peer)
            .map_or(0, |known| known.offences_count);
        let doubled = PENALTY_FIRST.saturating_mul(1 << offences_count.min(16));
        let until = now + doubled.min(PENALTY_MAX);
        let offender = Offender {
            offences_count: offences_count.saturating_add(1),
            until,
        };
        self.offenders.insert(peer, offender);
        if self.offenders.len() > OFFENDERS_MAX {
            let soonest = self.offenders.iter().min_by_key(|(_, known)| known.until);
            let soonest = *soonest.expect("the map is above its limit, so not empty").0;
            self.offenders.remove(&soonest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_penalty_ends_and_the_next_is_twice_as_long() {
        let (peer, now) = (PeerId::random(), Instant::now());
        let mut list = List::default();
        list.penalize(peer, now);
        assert!(list.is_closed(peer, now));
        assert!(!list.is_closed(peer, now + PENALTY_FIRST));
        list.penalize(peer, now);
        assert!(list.is_closed(peer, now + PENALTY_FIRST));
        assert!(!list.is_closed(peer, now + PENALTY_FIRST * 2));
        (0..100).for_each(|_| list.penalize(peer, now));
        assert!(!list.is_closed(peer, now + PENALTY_MAX));
    }

    #[tokio::test]
    async fn a_blocked_peer_stays_out_until_it_is_unblocked() {
        let (refused, _events) = mpsc::channel(1);
        let gate = Gate::new(
            PeerId::random(),
            AdmissionKey([0; 32]),
            PENALTY_MAX,
            refused,
        );
        let (peer, now) = (PeerId::random(), Instant::now());
        gate.block(peer);
        gate.penalize(peer, Refusal::Malformed);
        assert!(gate.list().is_closed(peer, now + PENALTY_MAX * 2));
        gate.unblock(peer);
        assert!(!gate.list().is_closed(peer, now));
    }

    #[tokio::test]
    async fn the_list_of_offenders_is_bounded_and_keeps_the_latest() {
        let now = Instant::now();
        let mut list = List::default();
        let last = PeerId::random();
        for second in 0..OFFENDERS_MAX as u64 {
            list.penalize(PeerId::random(), now + Duration::from_secs(second));
        }
        list.penalize(last, now + Duration::from_secs(OFFENDERS_MAX as u64));
        assert_eq!(list.offenders.len(), OFFENDERS_MAX);
        assert!(list.offenders.contains_key(&last));
    }
}
