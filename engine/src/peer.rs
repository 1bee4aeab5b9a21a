//! One device, two names: the key that signs, and the peer the network knows.

use syncline_transport::PeerId;

use crate::trust::PublicKey;

/// A PeerId of an Ed25519 key is the key itself: the identity multihash (code 0, 36 bytes) of its
/// protobuf (type 1, 32 bytes of data), by the libp2p specification *Peer Ids and Keys*.
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Returns the peer whose device key this is.
pub fn peer_of(device: &PublicKey) -> PeerId {
    let bytes = [&PREFIX[..], &device.0].concat();
    PeerId::from_bytes(&bytes).expect("the bytes are those of an Ed25519 peer id")
}

/// Returns the device key of a peer, or `None` if it is no Ed25519 peer.
pub fn device_of(peer: &PeerId) -> Option<PublicKey> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&PREFIX)?;
    key.try_into().ok().map(PublicKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_and_its_key_name_each_other() {
        // The identity multihash in base58, as libp2p prints it.
        let key = PublicKey([7; 32]);
        let peer = peer_of(&key);
        assert!(peer.to_base58().starts_with("12D3KooW"), "{peer}");
        assert_eq!(device_of(&peer), Some(key));
    }
}
