//! A database's name and its secrets: the genesis record, the epoch key and what is derived.

use std::fmt;
use std::path::Path;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::identity::PublicKey;
use super::key_file::{self, KeyFileError, KeyFileKind};
use super::random::{RandomError, random_bytes};

/// Domain strings: what BLAKE3's key derivation is told a result is for. Each is used once.
const DATABASE_ID_DOMAIN: &str = "syncline/v1/database id";
const KEY_ID_DOMAIN: &str = "syncline/v1/epoch id";
const AUTHOR_KEY_DOMAIN: &str = "syncline/v1/envelope key";
const SNAPSHOT_KEY_DOMAIN: &str = "syncline/v1/snapshot key";
const TOPIC_DOMAIN: &str = "syncline/v1/topic";
const ADMISSION_DOMAIN: &str = "syncline/v1/admission";

const GENESIS_VERSION: u8 = 1;

const KEY_FILE: KeyFileKind = KeyFileKind {
    magic: *b"SYNCLDBS",
    version: 1,
    payload_bytes: Genesis::BYTES + 32,
};

/// The name of a database: the hash of its genesis record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseId(pub [u8; 32]);

impl fmt::Display for DatabaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&bs58::encode(self.0).into_string())
    }
}

impl fmt::Debug for DatabaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DatabaseId({self})")
    }
}

/// How a database began: who made it, and a random number.
///
/// Everybody who takes part has it and nobody else does, unlike the database's id, which may
/// appear in logs. So the names that strangers must not guess are derived from the record.
#[derive(Clone, PartialEq, Eq)]
pub struct Genesis {
    creator: PublicKey,
    nonce: [u8; 32],
}

impl Genesis {
    /// The size of an encoded record: version, creator, nonce.
    pub const BYTES: usize = 1 + 32 + 32;

    /// Returns the record of a database that `creator` makes; `nonce` must be random.
    pub fn new(creator: PublicKey, nonce: [u8; 32]) -> Genesis {
        Genesis { creator, nonce }
    }

    /// Returns the key of the device that made the database.
    pub fn creator(&self) -> PublicKey {
        self.creator
    }

    /// Returns the record's fixed encoding.
    pub fn encode(&self) -> [u8; Genesis::BYTES] {
        let mut bytes = [0; Genesis::BYTES];
        bytes[0] = GENESIS_VERSION;
        bytes[1..33].copy_from_slice(&self.creator.0);
        bytes[33..].copy_from_slice(&self.nonce);
        bytes
    }

    /// Returns the record in `bytes`, or `None` when its version is unknown.
    pub fn decode(bytes: &[u8; Genesis::BYTES]) -> Option<Genesis> {
        let (mut creator, mut nonce) = ([0; 32], [0; 32]);
        creator.copy_from_slice(&bytes[1..33]);
        nonce.copy_from_slice(&bytes[33..]);
        (bytes[0] == GENESIS_VERSION).then_some(Genesis {
            creator: PublicKey(creator),
            nonce,
        })
    }

    /// Returns the database's id.
    pub fn database_id(&self) -> DatabaseId {
        DatabaseId(blake3::derive_key(DATABASE_ID_DOMAIN, &self.encode()))
    }
}

impl fmt::Debug for Genesis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Genesis({})", self.database_id())
    }
}

/// The name of an epoch key, as envelopes carry it: a hash of the key.
///
/// It is signed with the envelope, so an envelope opens under one key only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);

/// The key under which one epoch's envelopes are sealed. Wiped when dropped, never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct EpochKey([u8; 32]);

impl EpochKey {
    /// Returns the key with these bytes, which must be random.
    pub fn from_bytes(bytes: [u8; 32]) -> EpochKey {
        EpochKey(bytes)
    }

    /// Makes a new key from the operating system's randomness.
    ///
    /// # Errors
    /// When there is no randomness to be had.
    pub fn generate() -> Result<EpochKey, RandomError> {
        Ok(EpochKey(random_bytes()?))
    }

    /// Returns the key's bytes, to hand it to a new reader.
    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the name under which envelopes refer to the key.
    pub fn id(&self) -> KeyId {
        let hash = blake3::derive_key(KEY_ID_DOMAIN, &self.0);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        KeyId(id)
    }

    /// Returns the key for one author's envelopes.
    ///
    /// Nobody can pass another's ciphertext off as their own: it does not open under their key.
    pub(super) fn author_key(&self, author: &PublicKey) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(AUTHOR_KEY_DOMAIN);
        hasher.update(&self.0).update(&author.0);
        Zeroizing::new(*hasher.finalize().as_bytes())
    }

    /// Returns the key for one snapshot; `salt` is random and drawn for that snapshot.
    pub(crate) fn snapshot_key(&self, salt: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(SNAPSHOT_KEY_DOMAIN);
        hasher.update(&self.0).update(salt);
        Zeroizing::new(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EpochKey(..)")
    }
}

/// All that a reader of a database must know to take part.
#[derive(Clone, Debug)]
pub struct DatabaseSecret {
    genesis: Genesis,
    id: DatabaseId,
    epoch_key: EpochKey,
}

impl DatabaseSecret {
    /// Returns the secret of the database that began with `genesis`.
    pub fn new(genesis: Genesis, epoch_key: EpochKey) -> DatabaseSecret {
        DatabaseSecret {
            id: genesis.database_id(),
            genesis,
            epoch_key,
        }
    }

    /// Makes the secret of a new database.
    ///
    /// # Errors
    /// When there is no randomness to be had.
    pub fn generate(creator: PublicKey) -> Result<DatabaseSecret, RandomError> {
        Ok(DatabaseSecret::new(
            Genesis::new(creator, random_bytes()?),
            EpochKey::generate()?,
        ))
    }

    /// Stores the secret at `path` (mode 0600), which must not exist.
    ///
    /// # Errors
    /// See [`KeyFileError`]; then no file was left at `path`.
    pub fn save(&self, path: &Path) -> Result<(), KeyFileError> {
        // Growing a vector would leave an unwiped copy behind.
        let mut payload = Zeroizing::new(Vec::with_capacity(KEY_FILE.payload_bytes));
        payload.extend_from_slice(&self.genesis.encode());
        payload.extend_from_slice(self.epoch_key.expose());
        key_file::create(path, &KEY_FILE, &payload)
    }

    /// Loads the secret stored at `path`.
    ///
    /// # Errors
    /// Refuses a file that others may read, that is a link, belongs to somebody else or is damaged.
    pub fn load(path: &Path) -> Result<DatabaseSecret, KeyFileError> {
        let payload = key_file::load(path, &KEY_FILE)?;
        let (genesis, key) = payload
            .split_first_chunk::<{ Genesis::BYTES }>()
            .expect("the key file's payload has a fixed size");
        let genesis = Genesis::decode(genesis).ok_or_else(|| KeyFileError::Damaged {
            path: path.to_owned(),
        })?;
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(key);
        Ok(DatabaseSecret::new(genesis, EpochKey(*bytes)))
    }

    /// Returns the database's id.
    pub fn id(&self) -> DatabaseId {
        self.id
    }

    /// Returns the database's genesis record.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Returns the key under which new envelopes are sealed.
    pub fn current_key(&self) -> &EpochKey {
        &self.epoch_key
    }

    /// Returns the key an envelope names, or `None` when this device does not hold it (yet).
    pub fn key(&self, id: &KeyId) -> Option<&EpochKey> {
        (self.epoch_key.id() == *id).then_some(&self.epoch_key)
    }

    /// Returns the gossip topic, which strangers cannot guess and no new epoch changes.
    pub fn topic(&self) -> [u8; 32] {
        blake3::derive_key(TOPIC_DOMAIN, &self.genesis.encode())
    }

    /// Returns the key with which peers show each other that they were let in.
    pub fn admission_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(ADMISSION_DOMAIN, &self.genesis.encode()))
    }
}
