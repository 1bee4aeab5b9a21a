//! The list of members and addresses that one member tells another, as bytes.
//!
//! ```text
//! version u8 = 1, peers u8,
//!   then for each peer, in ascending order:  length u8, peer id, addresses u8,
//!     then for each address:                 length u8, multiaddr
//! ```

use libp2p::{Multiaddr, PeerId};

use crate::frame::FRAME_BYTES_MAX;

/// The most peers one list may name.
pub(crate) const LIST_PEERS_MAX: usize = 64;
/// The most addresses one list may give for a peer, and the most that are told of one.
pub(crate) const LIST_ADDRESSES_MAX: usize = 8;
/// The most bytes of a list: the limits of its parts, added up.
pub(crate) const LIST_BYTES_MAX: usize =
    2 + LIST_PEERS_MAX * (2 + PEER_BYTES_MAX + LIST_ADDRESSES_MAX * (1 + ADDRESS_BYTES_MAX));

const VERSION: u8 = 1;
/// An identity hash of a small public key; longer ones are no peer ids.
const PEER_BYTES_MAX: usize = 66;
/// An IPv6 address with a port and QUIC takes 24 bytes; the rest is room for names.
const ADDRESS_BYTES_MAX: usize = 128;

const _: () = assert!(LIST_PEERS_MAX <= u8::MAX as usize);
const _: () = assert!(LIST_ADDRESSES_MAX <= u8::MAX as usize);
const _: () = assert!(ADDRESS_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(LIST_BYTES_MAX <= FRAME_BYTES_MAX);

/// A member and where it may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) peer: PeerId,
    pub(crate) addresses: Vec<Multiaddr>,
}

/// The rule that a list of addresses breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListError {
    #[error("list ends too early")]
    Truncated,
    #[error("list goes on after its end")]
    Trailing,
    #[error("list has version {0}, not {VERSION}")]
    Version(u8),
    #[error("list is above a limit")]
    TooLong,
    #[error("list holds a malformed peer id")]
    Peer,
    #[error("list holds a malformed address")]
    Address,
    #[error("list is not in ascending order")]
    Order,
}

/// Returns the bytes of a list.
///
/// # Panics
///
/// When the list is above its limits or not in strictly ascending order of peers.
pub(crate) fn encode(list: &[Listed]) -> Vec<u8> {
    assert!(
        list.len() <= LIST_PEERS_MAX,
        "{} peers in a list",
        list.len()
    );
    assert!(
        list.is_sorted_by(|a, b| a.peer < b.peer),
        "list is not in ascending order"
    );
    let mut bytes = vec![VERSION, list.len() as u8];
    for Listed { peer, addresses } in list {
        assert!(
            addresses.len() <= LIST_ADDRESSES_MAX,
            "{} addresses",
            addresses.len()
        );
        put(&mut bytes, &peer.to_bytes(), PEER_BYTES_MAX);
        bytes.push(addresses.len() as u8);
        for address in addresses {
            put(&mut bytes, address.as_ref(), ADDRESS_BYTES_MAX);
        }
    }
    bytes
}

/// Reports whether an address is short enough for a list.
pub(crate) fn fits(address: &Multiaddr) -> bool {
    address.as_ref().len() <= ADDRESS_BYTES_MAX
}

/// Reads a list, of which every byte may be hostile.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Listed>, ListError> {
    let mut rest = Reader(bytes);
    match rest.number()? {
        VERSION => {}
        other => return Err(ListError::Version(other)),
    }
    let peers_count = rest.count(LIST_PEERS_MAX)?;
    let mut list: Vec<Listed> = Vec::with_capacity(peers_count);
    for _ in 0..peers_count {
        let listed = rest.listed()?;
        if list.last().is_some_and(|last| last.peer >= listed.peer) {
            return Err(ListError::Order);
        }
        list.push(listed);
    }
    if rest.0.is_empty() {
        Ok(list)
    } else {
        Err(ListError::Trailing)
    }
}

fn put(bytes: &mut Vec<u8>, part: &[u8], bytes_max: usize) {
    assert!(
        part.len() <= bytes_max,
        "{} bytes, at most {bytes_max}",
        part.len()
    );
    bytes.push(part.len() as u8);
    bytes.extend_from_slice(part);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn listed(&mut self) -> Result<Listed, ListError> {
        let peer = self.part(PEER_BYTES_MAX)?;
        let peer = PeerId::from_bytes(peer).map_err(|_| ListError::Peer)?;
        let addresses_count = self.count(LIST_ADDRESSES_MAX)?;
        let mut addresses = Vec::with_capacity(addresses_count);
        for _ in 0..addresses_count {
            let address = self.part(ADDRESS_BYTES_MAX)?.to_vec();
            addresses.push(Multiaddr::try_from(address).map_err(|_| ListError::Address)?);
        }
        Ok(Listed { peer, addresses })
    }

    fn number(&mut self) -> Result<u8, ListError> {
        let (first, rest) = self.0.split_first().ok_or(ListError::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    fn count(&mut self, count_max: usize) -> Result<usize, ListError> {
        let count = usize::from(self.number()?);
        if count <= count_max {
            Ok(count)
        } else {
            Err(ListError::TooLong)
        }
    }

    fn part(&mut self, bytes_max: usize) -> Result<&'a [u8], ListError> {
        let length = self.count(bytes_max)?;
        let (part, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(ListError::Truncated)?;
        self.0 = rest;
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::multiaddr::Protocol;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = Multiaddr> {
        (any::<std::net::IpAddr>(), any::<u16>(), any::<bool>()).prop_map(|(ip, port, quic)| {
            let address = Multiaddr::from(ip);
            match quic {
                true => address.with(Protocol::Udp(port)).with(Protocol::QuicV1),
                false => address.with(Protocol::Tcp(port)),
            }
        })
    }

    fn listed() -> impl Strategy<Value = Listed> {
        let peer = any::<[u8; 32]>().prop_map(|digest| {
            let hash = libp2p::multihash::Multihash::wrap(0x12, &digest).unwrap();
            PeerId::from_multihash(hash).unwrap()
        });
        (peer, vec(address(), 0..=LIST_ADDRESSES_MAX))
            .prop_map(|(peer, addresses)| Listed { peer, addresses })
    }

    fn list() -> impl Strategy<Value = Vec<Listed>> {
        vec(listed(), 0..=LIST_PEERS_MAX).prop_map(|mut list| {
            list.sort_by_key(|listed| listed.peer);
            list.dedup_by_key(|listed| listed.peer);
            list
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_list_survives_its_encoding(list in list()) {
            let bytes = encode(&list);
            prop_assert!(bytes.len() <= LIST_BYTES_MAX);
            prop_assert_eq!(decode(&bytes), Ok(list));
        }

        #[test]
        fn a_list_cut_anywhere_is_an_error(list in list(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&list);
            prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), Err(ListError::Truncated));
        }

        #[test]
        fn a_flipped_byte_is_an_error_or_another_list(
            list in list(),
            at in any::<prop::sample::Index>(),
            mask in 1..=u8::MAX,
        ) {
            let mut bytes = encode(&list);
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
            if let Ok(other) = decode(&bytes) {
                prop_assert_ne!(other, list);
            }
        }

        #[test]
        fn hostile_bytes_never_panic(tail in vec(any::<u8>(), 0..400), count in any::<u8>()) {
            let _ = decode(&tail);
            let _ = decode(&[&[VERSION, count], tail.as_slice()].concat());
        }
    }

    #[test]
    fn counts_above_the_limit_are_refused_before_their_content() {
        let too_many = u8::try_from(LIST_PEERS_MAX + 1).unwrap();
        assert_eq!(decode(&[VERSION, too_many]), Err(ListError::TooLong));
        assert_eq!(decode(&[VERSION, 1, u8::MAX]), Err(ListError::TooLong));
    }

    #[test]
    fn a_list_has_one_form_only() {
        let peer = PeerId::random();
        let once = encode(&[Listed {
            peer,
            addresses: Vec::new(),
        }]);
        let twice = [&[VERSION, 2], &once[2..], &once[2..]].concat();
        assert_eq!(decode(&twice), Err(ListError::Order));
        assert_eq!(
            decode(&[once.as_slice(), &[0]].concat()),
            Err(ListError::Trailing)
        );
        assert_eq!(
            decode(&[VERSION + 1, 0]),
            Err(ListError::Version(VERSION + 1))
        );
    }
}
