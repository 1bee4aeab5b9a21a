//! What a node can say of itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use syncline_transport::{Multiaddr, PeerId};

use super::{Node, NodeError};
use crate::clock::now_unix_ms;
use crate::cold::{self, Cold};
use crate::layer::KeptBack;
use crate::log::{BlockedStream, Heads, LogStatus};
use crate::peer::peer_of;
use crate::replica::{Replica, ReplicaError};

/// A node's state, for people and programs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The database's name.
    pub name: String,
    /// This node's name in the network.
    pub peer: String,
    /// Where it listens.
    pub listening: Vec<String>,
    /// The tracked tables.
    pub tables: Vec<String>,
    /// Tables that stand aside, each with the reason.
    pub aside: Vec<String>,
    /// What waits for a constraint: the entries of `syncline_conflicts`.
    pub conflicts_count: u64,
    /// How many changesets wait for a table, by its name: for the table itself, or for a key or
    /// columns that other devices have.
    pub parked: BTreeMap<String, u64>,
    /// Writes that are captured and not folded yet.
    pub pending_count: u64,
    /// The hash of the replicated state: equal on converged devices.
    pub digest: String,
    /// Members that are connected.
    pub peers: Vec<PeerStatus>,
    /// Envelopes in the log.
    pub envelopes_count: u64,
    /// Their bytes.
    pub envelope_bytes: u64,
    /// Streams that wait, and for what.
    pub waiting: Vec<String>,
    /// Envelopes that no replica can merge.
    pub refused_count: u64,
    /// Envelopes that were signed twice for one place.
    pub forks_count: u64,
    /// Snapshots of which something lies here.
    pub snapshots: Vec<SnapshotStatus>,
}

/// A connected member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name in the network.
    pub peer: String,
    /// Envelopes it lacks that are here.
    pub lacks_count: u64,
    /// Envelopes it has that are missing here.
    pub ahead_count: u64,
}

/// A snapshot, as far as it lies here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// Its id in hexadecimal.
    pub id: String,
    /// When it was taken, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// How many slices bring it back.
    pub slices_needed: u8,
    /// How many were made.
    pub slices_total: u8,
    /// How many lie here.
    pub slices_here: usize,
    /// The bytes of the sealed object.
    pub bytes: u64,
}

impl Node {
    /// Returns the node's state.
    ///
    /// # Errors
    ///
    /// If the replica fails or the node was stopped.
    pub async fn status(&self) -> Result<Status, NodeError> {
        let shared = &self.shared;
        let listening = shared
            .network
            .listen_addrs()
            .await
            .map_err(|_| NodeError::Stopped)?;
        let local = shared.store.run(Local::of).await?;
        let heads = shared.heads.borrow().clone();
        let missing = |from: &Heads, of: &Heads| -> u64 {
            of.iter()
                .map(|(s, seq)| seq.number().saturating_sub(from.seq(&s).number()))
                .sum()
        };
        let lacking = |peer: &PeerId, theirs: &Heads| PeerStatus {
            peer: peer.to_string(),
            lacks_count: missing(theirs, &heads),
            ahead_count: missing(&heads, theirs),
        };
        let known = shared.peers();
        let peers = known
            .iter()
            .map(|(peer, state)| lacking(peer, &state.heads))
            .collect();
        drop(known);
        Ok(Status {
            peer: self.peer_id().to_string(),
            listening: listening.iter().map(Multiaddr::to_string).collect(),
            peers,
            ..local.status(&self.home.home, &shared.cold)
        })
    }
}

/// Returns the state of a database that no process serves.
///
/// # Errors
///
/// [`crate::HomeError::InUse`] if one does; or if the replica fails.
pub fn offline_status(
    home: &crate::Home,
    crr_extension: Option<&Path>,
) -> Result<Status, NodeError> {
    let home = home.open()?;
    let mut replica = Replica::open(&home, crr_extension)?;
    let (identity, secret) = (Arc::clone(&home.identity), Arc::clone(&home.secret));
    let cold = Cold::open(home.home.path("symbols"), identity, secret)?;
    let peer = peer_of(&home.identity.public_key()).to_string();
    Ok(Status {
        peer,
        ..Local::of(&mut replica)?.status(&home.home, &cold)
    })
}

/// What the replica alone knows.
struct Local {
    digest: String,
    tables: Vec<String>,
    kept_back: KeptBack,
    pending_count: u64,
    log: LogStatus,
}

impl Local {
    fn of(replica: &mut Replica) -> Result<Self, ReplicaError> {
        // Counted first: the digest folds what is pending.
        let pending_count = replica.pending_count()?;
        let digest = replica.digest(now_unix_ms())?.to_string();
        let tables = replica.tables()?;
        Ok(Local {
            digest,
            tables,
            kept_back: replica.kept_back()?,
            pending_count,
            log: replica.log().status()?,
        })
    }

    fn status(self, home: &crate::Home, cold: &Cold) -> Status {
        let waits = |blocked: &BlockedStream| {
            let position = &blocked.position;
            format!(
                "seq {} of {}: {}",
                position.seq, position.stream, blocked.reason
            )
        };
        let snapshot = |held: cold::HeldSnapshot| SnapshotStatus {
            id: held.snapshot.to_string(),
            created_unix_ms: held.created_unix_ms,
            slices_needed: held.slices_needed,
            slices_total: held.slices_total,
            slices_here: held.slots.len(),
            bytes: held.object_bytes,
        };
        Status {
            name: home.name(),
            peer: String::new(),
            listening: vec![],
            tables: self.tables,
            aside: self.kept_back.aside,
            conflicts_count: self.kept_back.conflicts_count,
            parked: self.kept_back.parked,
            pending_count: self.pending_count,
            digest: self.digest,
            peers: vec![],
            envelopes_count: self.log.envelopes_count,
            envelope_bytes: self.log.envelope_bytes,
            waiting: self.log.blocked.iter().map(waits).collect(),
            refused_count: self.log.refused_count,
            forks_count: self.log.forks_count,
            snapshots: cold.snapshots().into_iter().map(snapshot).collect(),
        }
    }
}
