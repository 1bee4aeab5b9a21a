//! The node's one loop, and what it does with each event.

use std::sync::Arc;
use std::time::Duration;

use syncline_transport::{Event, GOSSIP_BYTES_MAX, Multiaddr, PeerId, Verdict};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::{NodeEvent, Peer, Shared};
use crate::clock::now_unix_ms;
use crate::link;
use crate::log::Received;
use crate::replica::{Replica, ReplicaError};
use crate::trust::ADDRESSES_MAX;

/// How often the node looks whether another program wrote: a change is noticed within twice this.
const WATCH_INTERVAL: Duration = Duration::from_millis(25);
/// How often envelopes that wait for something are tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a broken session the next one with the same peer begins.
const RELINK_PAUSE: Duration = Duration::from_millis(500);

/// Runs until the network stops.
pub(super) async fn drive(shared: Arc<Shared>, mut events: mpsc::Receiver<Event>) {
    let mut watch = tokio::time::interval(WATCH_INTERVAL);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut retry = tokio::time::interval(RETRY_INTERVAL);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => take(&shared, event).await,
                None => return,
            },
            _ = watch.tick() => publish_own(&shared).await,
            _ = retry.tick() => {
                if let Err(error) = shared.store.run(|replica| replica.retry(now_unix_ms())).await {
                    shared.trouble("what waits could not be tried again", &error);
                }
            }
        }
    }
}

/// Sends what was written here: small envelopes by gossip, the rest is announced by the sessions.
async fn publish_own(shared: &Shared) {
    let sealed = shared.store.run(|replica| {
        let sealed = replica.watch(now_unix_ms())?;
        let heads = if sealed.is_empty() {
            None
        } else {
            Some(replica.heads()?)
        };
        Ok::<_, ReplicaError>((sealed, heads))
    });
    match sealed.await {
        Ok((sealed, heads)) => {
            for envelope in sealed
                .into_iter()
                .filter(|bytes| bytes.len() <= GOSSIP_BYTES_MAX)
            {
                if let Err(error) = shared.network.publish(envelope).await {
                    shared.trouble("an envelope was not published", &error);
                }
            }
            heads.iter().for_each(|heads| shared.advance(heads));
        }
        Err(error) => shared.trouble("what was written here cannot be sent yet", &error),
    }
}

async fn take(shared: &Arc<Shared>, event: Event) {
    match event {
        Event::PeerUp { peer } => {
            shared.peers().insert(peer, Peer::default());
            shared.tell(NodeEvent::PeerUp(peer));
            // One of the two opens the stream, and both know which.
            if shared.syncs && shared.network.local_peer() < peer {
                tokio::spawn(keep_link(Arc::clone(shared), peer));
            }
        }
        Event::PeerDown { peer } => {
            shared.peers().remove(&peer);
            shared.tell(NodeEvent::PeerDown(peer));
        }
        Event::PeerKnown { peer, addrs } => remember(shared, peer, &addrs).await,
        Event::Refused { peer, reason } => {
            tracing::info!(%peer, %reason, "a peer was turned away");
            shared.tell(NodeEvent::Refused {
                peer,
                reason: reason.to_string(),
            });
        }
        Event::Gossip { bytes, ticket, .. } => {
            let verdict = if shared.syncs {
                judge(shared, bytes).await
            } else {
                Verdict::Ignore
            };
            // A network that stopped needs no verdict.
            let _ = shared.network.validate(ticket, verdict).await;
        }
        Event::Stream {
            peer,
            protocol,
            stream,
        } if protocol == link::PROTOCOL => {
            // The peer tries again; the other node answers when it serves.
            if !shared.syncs {
                return;
            }
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                if let Err(error) = link::run(Arc::clone(&shared), peer, stream).await {
                    tracing::info!(%peer, %error, "a session ended");
                }
            });
        }
        Event::Stream { peer, stream, .. } => {
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                if let Err(error) = shared.cold.serve(peer, stream).await {
                    tracing::info!(%peer, %error, "a request for symbols ended");
                }
            });
        }
        event => tracing::debug!(?event, "an event that needs no answer"),
    }
}

/// Keeps a session with a peer for as long as it is up.
async fn keep_link(shared: Arc<Shared>, peer: PeerId) {
    while shared.peers().contains_key(&peer) {
        match shared.network.open_stream(peer, link::PROTOCOL).await {
            Ok(stream) => {
                if let Err(error) = link::run(Arc::clone(&shared), peer, stream).await {
                    tracing::info!(%peer, %error, "a session ended");
                }
            }
            Err(error) => tracing::info!(%peer, %error, "no session"),
        }
        tokio::time::sleep(RELINK_PAUSE).await;
    }
}

/// Takes in an envelope that came by gossip.
async fn judge(shared: &Shared, bytes: Vec<u8>) -> Verdict {
    let received = shared.store.run(move |replica| {
        let received = replica.receive(vec![bytes], now_unix_ms())?;
        Ok::<_, ReplicaError>((received, replica.heads()?))
    });
    match received.await {
        Ok((received, heads)) => {
            shared.advance(&heads);
            match received[..] {
                // Behind a gap it is good and of no use here yet; the sessions close the gap.
                [Received::Stored | Received::Duplicate | Received::Gap { .. }] => Verdict::Accept,
                _ => Verdict::Ignore,
            }
        }
        Err(ReplicaError::Refused(error)) => {
            tracing::info!(%error, "gossip was refused");
            Verdict::Reject
        }
        Err(error) => {
            shared.trouble("gossip could not be stored", &error);
            Verdict::Ignore
        }
    }
}

async fn remember(shared: &Shared, peer: PeerId, addrs: &[Multiaddr]) {
    let addresses: Vec<String> = addrs
        .iter()
        .map(Multiaddr::to_string)
        .take(ADDRESSES_MAX)
        .collect();
    let put = move |replica: &mut Replica| replica.log().put_peer(&peer.to_bytes(), &addresses);
    if let Err(error) = shared.store.run(put).await {
        shared.trouble("a peer's addresses were not kept", &error);
    }
}
