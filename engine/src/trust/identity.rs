//! A device's signing key, and the file that keeps it.

use std::fmt;
use std::path::Path;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use thiserror::Error;
use zeroize::Zeroizing;

use super::key_file::{self, KeyFileError, KeyFileKind};
use super::random::{RandomError, random_bytes};

const KEY_FILE: KeyFileKind = KeyFileKind {
    magic: *b"SYNCLDEV",
    version: 1,
    payload_bytes: 32,
};

/// A device's public Ed25519 key (RFC 8032), as it stands in envelopes: the author's name.
///
/// Any 32 bytes fit; whether they are a usable key shows when a signature is verified.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&bs58::encode(self.0).into_string())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({self})")
    }
}

/// Why a signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The signer is no point on the curve.
    #[error("{signer} is no Ed25519 key")]
    InvalidKey {
        /// What stands in its place.
        signer: PublicKey,
    },
    /// The signer's key is of small order: anybody can sign for it.
    #[error("{signer} is a weak key, for which anybody can sign")]
    WeakKey {
        /// The key.
        signer: PublicKey,
    },
    /// The signature is not the signer's over this message.
    #[error("the signature of {signer} does not fit")]
    Mismatch {
        /// Who is claimed to have signed.
        signer: PublicKey,
    },
}

impl PublicKey {
    /// Checks, by the strict rules, that this key signed `message`.
    ///
    /// The message must start with its kind's domain string.
    ///
    /// # Errors
    /// Says whether the key or the signature is at fault.
    pub(crate) fn verify(
        &self,
        message: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), SignatureError> {
        let signer = *self;
        let key =
            VerifyingKey::from_bytes(&self.0).map_err(|_| SignatureError::InvalidKey { signer })?;
        if key.is_weak() {
            return Err(SignatureError::WeakKey { signer });
        }
        // The strict check, one by one: the lenient and the batched one accept some signatures that
        // others refuse, and then replicas would disagree (Chalkias, Garillot, Nikolaenko, "Taming
        // the Many EdDSAs", 2020).
        key.verify_strict(message, &Signature::from_bytes(signature))
            .map_err(|_| SignatureError::Mismatch { signer })
    }
}

/// A device's secret key: it signs what the device writes and authenticates it to peers.
///
/// The secret is wiped from memory when dropped, and no formatting shows it.
pub struct Identity {
    signing: SigningKey,
}

impl Identity {
    /// Makes a new identity from the operating system's randomness.
    ///
    /// # Errors
    /// When there is no randomness to be had.
    pub fn generate() -> Result<Identity, RandomError> {
        let secret = Zeroizing::new(random_bytes::<32>()?);
        Ok(Identity::from_secret(&secret))
    }

    /// Returns the identity whose Ed25519 seed is `secret`.
    pub fn from_secret(secret: &[u8; 32]) -> Identity {
        Identity {
            signing: SigningKey::from_bytes(secret),
        }
    }

    /// Makes a new identity and stores it at `path` (mode 0600), which must not exist.
    ///
    /// # Errors
    /// See [`KeyFileError`]; then no file was left at `path`.
    pub fn create(path: &Path) -> Result<Identity, KeyFileError> {
        let identity = Identity::generate()?;
        key_file::create(path, &KEY_FILE, identity.signing.as_bytes())?;
        Ok(identity)
    }

    /// Loads the identity stored at `path`.
    ///
    /// # Errors
    /// Refuses a file that others may read, that is a link, belongs to somebody else or is damaged.
    pub fn load(path: &Path) -> Result<Identity, KeyFileError> {
        let payload = key_file::load(path, &KEY_FILE)?;
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(&payload);
        Ok(Identity::from_secret(&secret))
    }

    /// Loads the identity at `path`, or makes one where there is none.
    ///
    /// # Errors
    /// As [`Identity::load`] and [`Identity::create`].
    pub fn load_or_create(path: &Path) -> Result<Identity, KeyFileError> {
        match Identity::load(path) {
            Err(KeyFileError::Missing { .. }) => match Identity::create(path) {
                // Another process made it in between; that one counts.
                Err(KeyFileError::Exists { .. }) => Identity::load(path),
                created => created,
            },
            loaded => loaded,
        }
    }

    /// Returns the public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.signing.verifying_key().to_bytes())
    }

    /// Returns a copy of the secret seed, for the transport that must authenticate with it.
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.signing.to_bytes())
    }

    /// Signs `message`, which must start with its kind's domain string.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({})", self.public_key())
    }
}
