//! Envelopes that break one rule each: every one is refused by name.

use proptest::prelude::*;

use super::compression::CompressionError;
use super::envelope::forge;
use super::header::OVERHEAD_BYTES;
use super::*;

const DATABASE: DatabaseId = DatabaseId([5; 32]);

struct Story {
    identity: Identity,
    key: EpochKey,
    seq: u64,
}

impl Story {
    fn new() -> Story {
        let identity = Identity::from_secret(&[1; 32]);
        Story {
            identity,
            key: EpochKey::from_bytes([2; 32]),
            seq: 7,
        }
    }

    fn sealing(&self) -> Sealing<'_> {
        Sealing {
            database: DATABASE,
            key: &self.key,
            identity: &self.identity,
            position: NextPosition {
                stream: StreamId([3; 8]),
                seq: Seq::new(self.seq).unwrap(),
                prev: EnvelopeId([4; 32]),
            },
            kind: Kind::Data,
            nonce: [6; NONCE_BYTES],
        }
    }

    fn sealed(&self, payload: &[u8]) -> Vec<u8> {
        seal(&self.sealing(), payload).unwrap().into_bytes()
    }

    /// Changes header bytes of an honest envelope and signs it again, as its author could.
    fn resigned(&self, change: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, EnvelopeError> {
        let mut bytes = self.sealed(b"payload");
        change(&mut bytes);
        forge::sign(&mut bytes, &DATABASE, &self.identity);
        verify(bytes, &DATABASE)?.open(&self.key)
    }

    /// Seals and signs any plaintext, as a dishonest member could, and opens it.
    fn opened(&self, compressed: bool, plaintext: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let bytes = forge::seal_plaintext(&self.sealing(), compressed, plaintext);
        verify(bytes, &DATABASE)?.open(&self.key)
    }
}

proptest! {
    #[test]
    fn opening_undoes_sealing(
        payload in prop::collection::vec(0..4_u8, 0..5_000),
        noise in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let story = Story::new();
        for payload in [payload, noise] {
            let sealed = seal(&story.sealing(), &payload).unwrap();
            let verified = verify(sealed.bytes().to_vec(), &DATABASE).unwrap();
            prop_assert_eq!(&verified, &sealed);
            prop_assert_eq!(verified.open(&story.key).unwrap(), payload);
        }
    }

    #[test]
    fn noise_never_panics(
        mut noise in prop::collection::vec(any::<u8>(), 460..700),
        cut in 0..700_usize,
    ) {
        noise[..4].copy_from_slice(&[1, 1, 1, 0]);
        noise.truncate(cut);
        prop_assert!(verify(noise, &DATABASE).is_err());
    }
}

#[test]
fn the_layout_is_what_the_header_documents() {
    let story = Story::new();
    let sealed = seal(&story.sealing(), b"payload").unwrap();
    let bytes = sealed.bytes();
    assert_eq!(bytes.len(), 256 + OVERHEAD_BYTES);
    assert_eq!(bytes[..4], [1, 1, 1, 0]);
    assert_eq!(bytes[4..36], story.identity.public_key().0);
    assert_eq!(bytes[36..44], [3; 8]);
    assert_eq!(bytes[44..52], 7_u64.to_le_bytes());
    assert_eq!(bytes[52..84], [4; 32]);
    assert_eq!(bytes[84..100], story.key.id().0);
    assert_eq!(bytes[100..124], [6; 24]);
    assert_eq!(bytes[124..128], 272_u32.to_le_bytes());
    let id = blake3::hash(&[&DATABASE.0, &bytes[..bytes.len() - 64]].concat());
    assert_eq!(sealed.id().0, *id.as_bytes());
}

#[test]
fn one_envelope_keeps_its_bytes_from_build_to_build() {
    let sealed = Story::new().sealed(b"payload");
    let hash = blake3::hash(&sealed).to_hex();
    assert_eq!(
        &hash[..16],
        GOLDEN,
        "the format changed: it needs a new version"
    );
}

/// The first half of the BLAKE3 hash of that envelope, from the first build of format 1.
const GOLDEN: &str = "25d24e6fd541a4a1";

#[test]
fn every_truncation_is_refused() {
    let sealed = Story::new().sealed(&[9; 400]);
    for end in 0..sealed.len() {
        let refused = verify(sealed[..end].to_vec(), &DATABASE);
        let named = match end < ENVELOPE_BYTES_MIN {
            true => matches!(refused, Err(EnvelopeError::TooShort { bytes }) if bytes == end),
            false => matches!(refused, Err(EnvelopeError::WrongLength { .. })),
        };
        assert!(named, "{end}: {refused:?}");
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let story = Story::new();
    let sealed = story.sealed(b"payload");
    for bit in 0..sealed.len() * 8 {
        let mut bytes = sealed.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(bytes, &DATABASE).is_err(), "bit {bit}");
    }
}

#[test]
fn unknown_version_suite_and_kind_are_refused() {
    let story = Story::new();
    for value in [0, 2, 255] {
        let refused = story.resigned(|bytes| bytes[0] = value);
        assert!(
            matches!(refused, Err(EnvelopeError::UnknownVersion { version }) if version == value)
        );
        let refused = story.resigned(|bytes| bytes[1] = value);
        assert!(matches!(refused, Err(EnvelopeError::UnknownSuite { suite }) if suite == value));
    }
    for value in [0, 4, 255] {
        let refused = story.resigned(|bytes| bytes[2] = value);
        assert!(matches!(refused, Err(EnvelopeError::UnknownKind { kind }) if kind == value));
    }
}

#[test]
fn reserved_flags_are_refused() {
    for bit in 1..8 {
        let refused = Story::new().resigned(|bytes| bytes[3] = 1 << bit);
        assert!(
            matches!(refused, Err(EnvelopeError::ReservedFlags { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn a_ciphertext_length_other_than_the_carried_one_is_refused() {
    for declared in [0, 1, 271, 273, 1 << 20, u32::MAX] {
        let refused =
            Story::new().resigned(|bytes| bytes[124..128].copy_from_slice(&declared.to_le_bytes()));
        assert!(
            matches!(refused, Err(EnvelopeError::WrongLength { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn an_envelope_above_the_limit_is_refused_before_it_is_read() {
    for bytes in [ENVELOPE_BYTES_MAX + 1, 100 << 20] {
        let refused = Header::parse(&vec![0; bytes]);
        assert!(
            matches!(refused, Err(EnvelopeError::TooLarge { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn a_length_that_padding_never_gives_is_refused() {
    let story = Story::new();
    let refused = story.opened(false, &[0; 257]);
    assert!(
        matches!(refused, Err(EnvelopeError::UnpaddedLength { bytes: 257 })),
        "{refused:?}"
    );
}

#[test]
fn a_wrong_signature_is_refused() {
    let mut bytes = Story::new().sealed(b"payload");
    let end = bytes.len();
    let other = Identity::from_secret(&[9; 32]);
    forge::sign(&mut bytes, &DATABASE, &other);
    let refused = verify(bytes.clone(), &DATABASE);
    assert!(
        matches!(refused, Err(EnvelopeError::BadSignature { .. })),
        "{refused:?}"
    );
    bytes[end - 64..].fill(0);
    let refused = verify(bytes, &DATABASE);
    assert!(
        matches!(refused, Err(EnvelopeError::BadSignature { .. })),
        "{refused:?}"
    );
}

#[test]
fn whoever_lacks_the_epoch_key_cannot_make_data() {
    let story = Story::new();
    let stranger = Story {
        key: EpochKey::from_bytes([8; 32]),
        ..Story::new()
    };
    let verified = verify(stranger.sealed(b"payload"), &DATABASE).unwrap();
    let refused = verified.open(&story.key);
    assert!(
        matches!(refused, Err(EnvelopeError::OtherKey { .. })),
        "{refused:?}"
    );
    // Naming the right key does not help: the seal is not made with it.
    let mut bytes = stranger.sealed(b"payload");
    bytes[84..100].copy_from_slice(&story.key.id().0);
    forge::sign(&mut bytes, &DATABASE, &stranger.identity);
    let refused = verify(bytes, &DATABASE).unwrap().open(&story.key);
    assert!(
        matches!(refused, Err(EnvelopeError::BrokenSeal { .. })),
        "{refused:?}"
    );
}

#[test]
fn an_envelope_of_another_database_is_refused() {
    let refused = verify(Story::new().sealed(b"payload"), &DatabaseId([6; 32]));
    assert!(
        matches!(refused, Err(EnvelopeError::BadSignature { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_ciphertext_taken_over_from_another_database_is_refused() {
    let story = Story::new();
    let mut bytes = story.sealed(b"payload");
    forge::sign(&mut bytes, &DatabaseId([6; 32]), &story.identity);
    let refused = verify(bytes, &DatabaseId([6; 32]))
        .unwrap()
        .open(&story.key);
    assert!(
        matches!(refused, Err(EnvelopeError::BrokenSeal { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_ciphertext_taken_over_by_another_author_is_refused() {
    let story = Story::new();
    let thief = Identity::from_secret(&[9; 32]);
    let mut bytes = story.sealed(b"payload");
    bytes[4..36].copy_from_slice(&thief.public_key().0);
    forge::sign(&mut bytes, &DATABASE, &thief);
    let refused = verify(bytes, &DATABASE).unwrap().open(&story.key);
    assert!(
        matches!(refused, Err(EnvelopeError::BrokenSeal { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_ciphertext_moved_to_another_place_is_refused() {
    let story = Story::new();
    for at in [36, 44, 52, 100] {
        let refused = story.resigned(|bytes| bytes[at] ^= 1);
        assert!(
            matches!(refused, Err(EnvelopeError::BrokenSeal { .. })),
            "{at}: {refused:?}"
        );
    }
}

#[test]
fn keys_of_small_order_are_refused() {
    // All eight points of small order, and those of them that have a second encoding.
    let keys = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for key in keys {
        let mut bytes = Story::new().sealed(b"payload");
        let end = bytes.len();
        for (index, byte) in bytes[4..36].iter_mut().enumerate() {
            *byte = u8::from_str_radix(&key[index * 2..index * 2 + 2], 16).unwrap();
        }
        // R = the neutral element and S = 0: for the key that is the neutral element, the equation
        // of RFC 8032 holds for every message.
        bytes[end - 64..].fill(0);
        bytes[end - 64] = 1;
        let refused = verify(bytes, &DATABASE);
        let named = matches!(
            refused,
            Err(EnvelopeError::WeakAuthor { .. } | EnvelopeError::InvalidAuthor { .. })
        );
        assert!(named, "{key}: {refused:?}");
    }
}

#[test]
fn an_author_that_is_no_point_is_refused() {
    let mut bytes = Story::new().sealed(b"payload");
    bytes[4..36].fill(0);
    bytes[4] = 2;
    let refused = verify(bytes, &DATABASE);
    assert!(
        matches!(refused, Err(EnvelopeError::InvalidAuthor { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_second_form_of_a_good_signature_is_refused() {
    // S + L, where L is the order of the group (RFC 8032, section 5.1): the same equation holds.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut bytes = Story::new().sealed(b"payload");
    let start = bytes.len() - 32;
    let mut carry = 0;
    for (byte, add) in bytes[start..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    let refused = verify(bytes, &DATABASE);
    assert!(
        matches!(refused, Err(EnvelopeError::BadSignature { .. })),
        "{refused:?}"
    );
}

#[test]
fn seq_zero_and_beyond_the_cap_are_refused() {
    for number in [0, SEQ_MAX + 1, u64::MAX] {
        let refused =
            Story::new().resigned(|bytes| bytes[44..52].copy_from_slice(&number.to_le_bytes()));
        assert!(matches!(refused, Err(EnvelopeError::SeqOutOfRange { seq }) if seq == number));
    }
    let last = Story {
        seq: SEQ_MAX,
        ..Story::new()
    };
    assert!(verify(last.sealed(b"payload"), &DATABASE).is_ok());
}

#[test]
fn an_inner_place_other_than_the_outer_is_refused() {
    let story = Story::new();
    let honest = forge::plaintext(&story.sealing(), b"payload", 7);
    assert_eq!(story.opened(false, &honest).unwrap(), b"payload");
    for at in [0, 31, 32, 39, 40, 47] {
        let mut plaintext = honest.clone();
        plaintext[at] ^= 1;
        let refused = story.opened(false, &plaintext);
        assert!(
            matches!(refused, Err(EnvelopeError::InnerMismatch)),
            "{at}: {refused:?}"
        );
    }
}

#[test]
fn padding_that_is_not_zero_is_refused() {
    let story = Story::new();
    let honest = forge::plaintext(&story.sealing(), b"payload", 7);
    for at in [honest.len() - 1, 63] {
        let mut plaintext = honest.clone();
        plaintext[at] = 1;
        let refused = story.opened(false, &plaintext);
        assert!(
            matches!(refused, Err(EnvelopeError::NonZeroPadding)),
            "{at}: {refused:?}"
        );
    }
}

#[test]
fn inner_lengths_that_do_not_fit_are_refused() {
    let story = Story::new();
    let honest = forge::plaintext(&story.sealing(), b"payload", 7);
    for (stored, original) in [(201, 201), (u32::MAX, u32::MAX), (7, 8), (0, 7)] {
        let mut plaintext = honest.clone();
        plaintext[48..52].copy_from_slice(&u32::to_le_bytes(stored));
        plaintext[52..56].copy_from_slice(&u32::to_le_bytes(original));
        let refused = story.opened(false, &plaintext);
        assert!(
            matches!(refused, Err(EnvelopeError::WrongInnerLength { .. })),
            "{refused:?}"
        );
    }
    // More padding than the payload needs would be a second form of the same contents.
    let mut roomy = honest;
    roomy.resize(512, 0);
    let refused = story.opened(false, &roomy);
    assert!(
        matches!(refused, Err(EnvelopeError::WrongInnerLength { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_bomb_inside_a_valid_seal_is_refused() {
    let story = Story::new();
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
    let refused = story.opened(true, &forge::plaintext(&story.sealing(), &bomb, 64 << 20));
    let named = matches!(
        refused,
        Err(EnvelopeError::Compression(
            CompressionError::DeclaredTooLarge { .. }
        ))
    );
    assert!(named, "{refused:?}");
}

#[test]
fn a_compressed_payload_that_is_no_frame_is_refused() {
    let story = Story::new();
    let refused = story.opened(true, &forge::plaintext(&story.sealing(), b"payload", 7));
    assert!(
        matches!(refused, Err(EnvelopeError::Compression(_))),
        "{refused:?}"
    );
}

#[test]
fn what_compresses_well_takes_less_room() {
    let story = Story::new();
    let text = "local first ".repeat(20) + &"and synced ".repeat(20);
    let noise: Vec<u8> = (0..20_000_u32)
        .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..4].to_vec())
        .collect();
    let mixed = [noise[..2_000].to_vec(), text.into_bytes()].concat();
    let sealed = seal(&story.sealing(), &mixed).unwrap();
    assert!(sealed.header().compressed);
    assert!(sealed.bytes().len() < mixed.len());
    assert_eq!(sealed.open(&story.key).unwrap(), mixed);
}

#[test]
fn the_largest_payload_passes_and_one_byte_more_does_not() {
    let story = Story::new();
    let payload = vec![0; PAYLOAD_BYTES_MAX + 1];
    let refused = seal(&story.sealing(), &payload);
    assert!(matches!(
        refused,
        Err(EnvelopeError::PayloadTooLarge { .. })
    ));
    let sealed = seal(&story.sealing(), &payload[1..]).unwrap();
    assert_eq!(sealed.bytes().len(), ENVELOPE_BYTES_MAX);
    assert!(verify(sealed.into_bytes(), &DATABASE).is_ok());
}

#[test]
fn secrets_are_not_shown_when_formatted() {
    let key = EpochKey::from_bytes([0xab; 32]);
    let identity = Identity::from_secret(&[0xcd; 32]);
    let genesis = Genesis::new(identity.public_key(), [0xef; 32]);
    let secret = DatabaseSecret::new(genesis, key.clone());
    let ticket = Ticket::new(
        secret.clone(),
        identity.public_key(),
        String::new(),
        Vec::new(),
    )
    .unwrap();
    let shown = format!("{key:?} {key:#?} {identity:?} {secret:?} {secret:#?} {ticket:?}");
    for byte in ["171", "205", "239", "ab, ab", "abab", "cdcd", "efef"] {
        assert!(!shown.to_lowercase().contains(byte), "{byte} in {shown}");
    }
}

#[test]
fn keys_derived_for_different_uses_differ() {
    let identity = Identity::from_secret(&[1; 32]);
    let other = Identity::from_secret(&[2; 32]);
    let key = EpochKey::from_bytes([3; 32]);
    let secret = DatabaseSecret::new(Genesis::new(identity.public_key(), [4; 32]), key.clone());
    let derived = [
        *key.author_key(&identity.public_key()),
        *key.author_key(&other.public_key()),
        secret.topic(),
        *secret.admission_key(),
        secret.id().0,
        *key.expose(),
    ];
    for (index, one) in derived.iter().enumerate() {
        assert!(!derived[..index].contains(one), "{index}");
        assert_ne!(one[..16], key.id().0);
    }
}
