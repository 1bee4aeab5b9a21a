//! The address book: where peers were last reached.

use super::error::LogError;
use super::store::Log;
use crate::trust::{ADDRESSES_MAX, address_is_plain};

/// The most bytes of a peer's name.
pub const PEER_BYTES_MAX: usize = 128;

/// The most peers kept; the one that was put longest ago makes room.
pub const PEERS_MAX: u32 = 1_024;

/// A peer and where it was last reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// Its name in the network, as bytes.
    pub peer: Vec<u8>,
    /// Its addresses, best first.
    pub addresses: Vec<String>,
}

impl Log {
    /// Stores a peer's addresses in place of those known before.
    ///
    /// # Errors
    /// When a limit is broken, or the log cannot be written.
    pub fn put_peer(&mut self, peer: &[u8], addresses: &[String]) -> Result<(), LogError> {
        let (bytes, bytes_max) = (peer.len(), PEER_BYTES_MAX);
        if bytes > bytes_max {
            return Err(LogError::TooLarge {
                what: "a peer's name",
                bytes,
                bytes_max,
            });
        }
        if addresses.len() > ADDRESSES_MAX || !addresses.iter().all(|text| address_is_plain(text)) {
            return Err(LogError::Address);
        }
        let path = self.path.clone();
        let at = |source| super::store::sqlite_error(&path, source);
        let tx = self.connection.transaction().map_err(at)?;
        tx.execute(
            "INSERT OR REPLACE INTO peers(peer, addresses) VALUES (?1, ?2)",
            (peer, addresses.join("\n")),
        )
        .map_err(at)?;
        tx.execute(
            "DELETE FROM peers WHERE peer_key NOT IN
                 (SELECT peer_key FROM peers ORDER BY peer_key DESC LIMIT ?1)",
            [PEERS_MAX],
        )
        .map_err(at)?;
        tx.commit().map_err(at)
    }

    /// Returns all peers, the one put last first.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn peers(&self) -> Result<Vec<PeerRecord>, LogError> {
        self.connection
            .prepare_cached("SELECT peer, addresses FROM peers ORDER BY peer_key DESC")
            .and_then(|mut select| {
                select
                    .query_map([], |row| {
                        let text: String = row.get(1)?;
                        let addresses = text.lines().map(str::to_owned).collect();
                        Ok(PeerRecord {
                            peer: row.get(0)?,
                            addresses,
                        })
                    })?
                    .collect()
            })
            .map_err(|source| self.error(source))
    }
}
