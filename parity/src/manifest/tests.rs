//! Manifests survive their bytes, and hostile bytes are refused.

use proptest::prelude::*;

use super::*;
use crate::code::{BLOCKS_COUNT_MAX, OBJECT_BYTES_MAX};
use crate::harness::{Coded, seeded, small_code};

const HEADER_BYTES: usize = 47;

fn manifest() -> Manifest {
    Coded::new(small_code(), 20_000).manifest
}

proptest! {
    #![proptest_config(seeded(200))]

    #[test]
    fn decode_undoes_encode(
        needed in 1..=8_u8,
        spare in 0..=8_u8,
        object_bytes in 0..400_000_u64,
        seed: u8,
    ) {
        let code = CodeParameters::for_object(object_bytes, needed, needed + spare)?;
        let hashes = code.blocks_count(object_bytes)? as usize * hashes_per_block(&code);
        let hash = |at: usize| blake3::hash(&[seed, at as u8]);
        let manifest =
            Manifest::new(code, object_bytes, hash(0), (1..=hashes).map(hash).collect())?;
        prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn whatever_decodes_is_its_one_encoding(
        object_bytes in 0..40_000_u64,
        tail in proptest::collection::vec(any::<u8>(), 0..1_000),
        alter in proptest::option::of((0..15_usize, any::<u8>())),
        blocks in proptest::option::of(0..5_usize),
    ) {
        let mut bytes = manifest().encode();
        bytes.truncate(7);
        bytes.extend(object_bytes.to_le_bytes());
        bytes.extend(tail);
        if let Some(blocks) = blocks {
            bytes.resize(HEADER_BYTES + blocks * 6 * 32, 0);
        }
        if let Some((at, byte)) = alter {
            bytes[at] = byte;
        }
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(manifest.encode(), bytes);
        }
    }
}

#[test]
fn every_truncation_and_every_extra_byte_is_refused() {
    let mut bytes = manifest().encode();
    for found in 0..bytes.len() {
        let error = Manifest::decode(&bytes[..found]).expect_err("cut");
        let expected = bytes.len();
        if found < HEADER_BYTES {
            assert_eq!(error, ManifestError::HeaderCut { found });
        } else {
            assert_eq!(error, ManifestError::Length { found, expected });
        }
    }
    bytes.push(0);
    let [found, expected] = [bytes.len(), bytes.len() - 1];
    assert_eq!(
        Manifest::decode(&bytes),
        Err(ManifestError::Length { found, expected })
    );
}

#[test]
fn every_flipped_byte_gives_an_error_or_another_manifest() {
    let manifest = manifest();
    let bytes = manifest.encode();
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xFF] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            if let Ok(other) = Manifest::decode(&bytes) {
                assert_ne!(other, manifest, "byte {at}");
                assert_ne!(other.id(), manifest.id(), "byte {at}");
                assert_eq!(other.encode(), bytes, "byte {at}");
            }
        }
    }
}

#[test]
fn enormous_claims_are_refused_without_room_for_them() {
    let claim = |object_bytes: u64| {
        let mut bytes = manifest().encode();
        bytes.truncate(HEADER_BYTES);
        bytes[7..15].copy_from_slice(&object_bytes.to_le_bytes());
        Manifest::decode(&bytes)
    };
    for object_bytes in [OBJECT_BYTES_MAX, 1 << 40, u64::MAX] {
        let error = CodeError::ObjectTooLarge { object_bytes };
        assert_eq!(claim(object_bytes), Err(ManifestError::Code(error)));
    }
    let blocks = u64::from(BLOCKS_COUNT_MAX);
    let expected = HEADER_BYTES + BLOCKS_COUNT_MAX as usize * 6 * 32;
    assert_eq!(
        claim(blocks * small_code().block_bytes() as u64),
        Err(ManifestError::Length {
            found: HEADER_BYTES,
            expected
        })
    );
}

#[test]
fn other_versions_are_refused() {
    let mut bytes = manifest().encode();
    for found in [0, 2, 255] {
        bytes[0] = found;
        assert_eq!(
            Manifest::decode(&bytes),
            Err(ManifestError::Version { found })
        );
    }
}

/// Peers name snapshots by this: a change here is a change of the format.
#[test]
fn the_id_is_that_of_format_1() {
    let object: Vec<u8> = (0..20_000_u32).map(|at| (at * at % 251) as u8).collect();
    let manifest = crate::encode_object(small_code(), object.as_slice(), |_| Ok(()));
    let manifest = manifest.expect("reads from memory");
    assert_eq!(
        manifest.id().to_string(),
        "ea59dce3e89bb6658c9e7fafa0f86ddb4b37eae4d29199c486d137f9c6e68b1d"
    );
    let name = manifest.id().to_string();
    assert_eq!(SnapshotId::from_hex(&name), Some(manifest.id()));
    assert_eq!(SnapshotId::from_hex(&name.to_uppercase()), None);
    assert_eq!(SnapshotId::from_hex(&name[1..]), None);
}

#[test]
fn blocks_and_slots_outside_the_object_have_no_hash() {
    let manifest = manifest();
    let last = BlockIndex(manifest.blocks_count() - 1);
    assert!(manifest.run_hash(last, Slot(4)).is_some());
    assert_eq!(manifest.run_hash(BlockIndex(0), Slot(5)), None);
    assert_eq!(manifest.run_hash(BlockIndex(last.0 + 1), Slot(0)), None);
    assert_eq!(manifest.run_hash(BlockIndex(u32::MAX), Slot(u8::MAX)), None);
    assert_eq!(manifest.block_hash(BlockIndex(last.0 + 1)), None);
    assert_eq!(manifest.block_object_bytes(last), 20_000 - 2 * 9216);
    assert_eq!(manifest.block_object_bytes(BlockIndex(last.0 + 1)), 0);
}
