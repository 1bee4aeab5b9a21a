//! Devices whose streams are pipes in memory, some of which lie or vanish.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use syncline_parity::SnapshotId;
use syncline_transport::{OpenStreamError, PeerId};
use tempfile::TempDir;
use tokio::io::{DuplexStream, duplex};

use crate::cold::content::Content;
use crate::cold::link::{receive, send, send_parts};
use crate::cold::progress::Progress;
use crate::cold::remote::Dial;
use crate::cold::shelf::Cold;
use crate::cold::spread::Spread;
use crate::cold::wire::{Answer, REQUEST_BYTES_MAX, Request};
use crate::log::{Heads, StreamRef};
use crate::trust::{DatabaseSecret, EpochKey, Genesis, Identity, PublicKey, Seq, StreamId};

pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn identity(seed: u8) -> Arc<Identity> {
    Arc::new(Identity::from_secret(&[seed; 32]))
}

pub(super) fn secret(nonce: u8, key: u8) -> Arc<DatabaseSecret> {
    let genesis = Genesis::new(PublicKey([1; 32]), [nonce; 32]);
    Arc::new(DatabaseSecret::new(
        genesis,
        EpochKey::from_bytes([key; 32]),
    ))
}

/// Returns the name that the network gives a device: its key behind a fixed prefix.
fn peer_of(device: &PublicKey) -> PeerId {
    let prefix = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    PeerId::from_bytes(&[&prefix[..], &device.0].concat()).unwrap()
}

/// A content of random changes, which do not compress.
pub(super) fn content(bytes: usize) -> Content {
    let mut random = fastrand::Rng::with_seed(bytes as u64);
    let stream = |author: u8, stream: u8| StreamRef {
        author: PublicKey([author; 32]),
        stream: StreamId([stream; 8]),
    };
    let heads = [
        (stream(1, 2), 7),
        (stream(1, 3), 1),
        (stream(2, 1), 1 << 40),
    ];
    Content {
        digest: [9; 32],
        heads: heads
            .into_iter()
            .map(|(stream, seq)| (stream, Seq::new(seq).unwrap()))
            .collect::<Heads>(),
        changes: std::iter::repeat_with(|| random.u8(..))
            .take(bytes)
            .collect(),
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Mood {
    Honest,
    /// Flips a bit in every run it sends.
    Lying,
    /// Sends the listing and then nothing more.
    Vanishing,
    Absent,
}

/// One device of a [`World`].
pub(super) struct Device {
    pub(super) cold: Cold,
    pub(super) peer: PeerId,
    seed: u8,
    secret: Arc<DatabaseSecret>,
    directory: TempDir,
}

/// Devices of one database that all reach each other.
pub(super) struct World {
    pub(super) devices: Vec<Device>,
    moods: Mutex<BTreeMap<PeerId, Mood>>,
}

/// The world as one device sees it.
pub(super) struct View<'a> {
    world: &'a World,
    from: PeerId,
}

impl Device {
    pub(super) fn new(seed: u8, secret: &Arc<DatabaseSecret>) -> Device {
        Device::idle(seed, secret, LIMIT)
    }

    pub(super) fn idle(seed: u8, secret: &Arc<DatabaseSecret>, limit: Duration) -> Device {
        let directory = tempfile::tempdir().unwrap();
        let identity = identity(seed);
        let peer = peer_of(&identity.public_key());
        let cold = Cold::open_idle(directory.path(), identity, secret.clone(), limit).unwrap();
        Device {
            cold,
            peer,
            seed,
            secret: secret.clone(),
            directory,
        }
    }

    pub(super) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Closes the storage and opens it again.
    pub(super) fn reopened(self) -> Device {
        let Device {
            cold,
            peer,
            seed,
            secret,
            directory,
        } = self;
        drop(cold);
        let cold = Cold::open(directory.path(), identity(seed), secret.clone()).unwrap();
        Device {
            cold,
            peer,
            seed,
            secret,
            directory,
        }
    }
}

impl World {
    pub(super) fn new(count: u8) -> World {
        let secret = secret(1, 2);
        World {
            devices: (1..=count).map(|seed| Device::new(seed, &secret)).collect(),
            moods: Mutex::default(),
        }
    }

    pub(super) fn turn(&self, device: usize, mood: Mood) {
        let peer = self.devices[device].peer;
        self.moods.lock().unwrap().insert(peer, mood);
    }

    pub(super) fn view(&self, device: usize) -> View<'_> {
        let from = self.devices[device].peer;
        View { world: self, from }
    }

    /// Returns the peers of a device.
    pub(super) fn peers(&self, device: usize) -> Vec<PeerId> {
        let own = self.devices[device].peer;
        let peers = self.devices.iter().map(|device| device.peer);
        peers.filter(|peer| *peer != own).collect()
    }

    /// Spreads a content from a device over all others.
    pub(super) async fn spread(&self, device: usize, content: Content, now: u64) -> Spread {
        let (view, peers) = (self.view(device), self.peers(device));
        let cold = &self.devices[device].cold;
        let spread = cold.spread_over(&view, &peers, content, now, &|_: Progress| ());
        spread.await.unwrap()
    }

    /// Restores on a device from all others.
    pub(super) async fn restore(
        &self,
        device: usize,
    ) -> Result<crate::cold::Restored, crate::cold::RestoreError> {
        let view = self.view(device);
        let peers = || self.peers(device);
        let cold = &self.devices[device].cold;
        cold.restore_over(&view, &peers, &|_: Progress| ()).await
    }

    /// Returns how many slots of a snapshot each device holds.
    pub(super) fn slots(&self, snapshot: SnapshotId) -> Vec<usize> {
        let held = |device: &Device| {
            let held = device.cold.snapshots().into_iter();
            let held = held.filter(|held| held.snapshot == snapshot);
            held.map(|held| held.slots.len()).sum()
        };
        self.devices.iter().map(held).collect()
    }
}

impl Dial for View<'_> {
    type Link = DuplexStream;

    fn local(&self) -> PeerId {
        self.from
    }

    async fn open(&self, peer: PeerId) -> Result<DuplexStream, OpenStreamError> {
        let moods = self.world.moods.lock().unwrap();
        let mood = moods.get(&peer).copied().unwrap_or(Mood::Honest);
        drop(moods);
        let mut devices = self.world.devices.iter();
        let device = devices.find(|device| device.peer == peer);
        let device = device.filter(|_| mood != Mood::Absent);
        let cold = device
            .ok_or(OpenStreamError::NotConnected { peer })?
            .cold
            .clone();
        let (near, far) = duplex(1 << 20);
        let from = self.from;
        tokio::spawn(async move {
            match mood {
                Mood::Honest => drop(cold.serve_link(from, far).await),
                _ => misbehave(cold, far, mood).await,
            }
        });
        Ok(near)
    }
}

async fn misbehave(cold: Cold, mut link: DuplexStream, mood: Mood) {
    while let Ok(Some(frame)) = receive(&mut link, REQUEST_BYTES_MAX, LIMIT).await {
        let store = &cold.shared.store;
        let blob = match Request::decode(&frame).unwrap() {
            Request::List => {
                let listing = Answer::Listing(cold.listing()).encode();
                send(&mut link, &listing, LIMIT).await.unwrap();
                continue;
            }
            _ if mood == Mood::Vanishing => return,
            Request::Manifest(snapshot) => store.manifest(snapshot).unwrap().encode(),
            Request::Run(snapshot, slot, block) => {
                let mut run = store.read_run(snapshot, slot, block).unwrap();
                run[100] ^= 1;
                run
            }
            _ => return,
        };
        let bytes = u32::try_from(blob.len()).unwrap();
        send(&mut link, &Answer::Blob { bytes }.encode(), LIMIT)
            .await
            .unwrap();
        send_parts(&mut link, &blob, LIMIT).await.unwrap();
    }
}

/// Returns every way to choose `count` of `total`.
pub(super) fn choices(total: usize, count: u32) -> Vec<BTreeSet<usize>> {
    let masks = (0..1_u32 << total).filter(|mask| mask.count_ones() == count);
    masks
        .map(|mask| (0..total).filter(|place| mask >> place & 1 == 1).collect())
        .collect()
}
