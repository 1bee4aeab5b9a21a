//! The content's codec, the seal, the manifest and the order to retire.

use syncline_parity::{CodeParameters, SnapshotId, encode_object};

use super::harness::{content, identity, secret};
use crate::cold::content::{Content, ContentError};
use crate::cold::header::HeaderError;
use crate::cold::manifest::{
    ManifestError, SIGNED_HEADER_BYTES, SIGNED_MANIFEST_BYTES_MAX, SignedHeader, SignedManifest,
};
use crate::cold::retire::{RetireError, Retirement};
use crate::cold::sealed::{Salts, SealedObject, Sealing, UnsealError, seal, unseal};
use crate::trust::{PublicKey, SignatureError};

fn sealed(content: &Content) -> SealedObject {
    let secret = secret(1, 2);
    let sealing = Sealing {
        secret: &secret,
        author: identity(1).public_key(),
        created_unix_ms: 1_000,
        salts: Salts::draw().unwrap(),
    };
    seal(content, sealing).unwrap()
}

fn signed(object: &SealedObject) -> SignedManifest {
    let code = CodeParameters::for_object(object.bytes.len() as u64, 2, 3).unwrap();
    let code = encode_object(code, object.bytes.as_slice(), |_| Ok(())).unwrap();
    SignedManifest::sign(
        object.header.clone(),
        code,
        &secret(1, 2).id(),
        &identity(1),
    )
}

fn encoded(content: &Content) -> Vec<u8> {
    [&content.encode_prefix().unwrap()[..], &content.changes].concat()
}

#[test]
fn a_content_comes_back_from_its_encoding() {
    for bytes in [0, 1, 1_000] {
        let content = content(bytes);
        assert_eq!(Content::decode(encoded(&content)), Ok(content));
    }
}

#[test]
fn hostile_contents_are_refused_by_rule() {
    let good = encoded(&content(10));
    for end in 0..good.len() {
        assert!(Content::decode(good[..end].to_vec()).is_err(), "{end}");
    }
    let long = [&good[..], &[0]].concat();
    let (declared, found) = (10, 11);
    assert_eq!(
        Content::decode(long),
        Err(ContentError::ChangesLength { declared, found })
    );
    let edited = |at: usize, bytes: &[u8]| {
        let mut edited = good.clone();
        edited[at..at + bytes.len()].copy_from_slice(bytes);
        Content::decode(edited).unwrap_err()
    };
    assert_eq!(edited(0, &[2]), ContentError::UnknownVersion { version: 2 });
    let streams = u32::MAX as usize;
    assert_eq!(
        edited(33, &[0xff; 4]),
        ContentError::TooManyStreams { streams }
    );
    let second = 37 + 48;
    assert_eq!(
        edited(second + 40, &[0; 8]),
        ContentError::BadStream { entry: 1 }
    );
    assert_eq!(
        edited(second + 40, &[0xff; 8]),
        ContentError::BadStream { entry: 1 }
    );
    // The first stream once more, and one that sorts before it.
    assert_eq!(
        edited(second + 32, &[2; 8]),
        ContentError::BadStream { entry: 1 }
    );
    assert_eq!(
        edited(second, &[0; 32]),
        ContentError::BadStream { entry: 1 }
    );
}

#[test]
fn what_is_sealed_opens_again() {
    // Around one chunk, and several.
    for bytes in [0, 65_000, 65_536, 300_000] {
        let content = content(bytes);
        let object = sealed(&content);
        assert_eq!(
            unseal(&object.header, &object.bytes, &secret(1, 2)).unwrap(),
            content
        );
    }
    let mut zeros = content(0);
    zeros.changes = vec![0; 1 << 20];
    let object = sealed(&zeros);
    assert!(object.bytes.len() < 10_000);
    assert_eq!(
        unseal(&object.header, &object.bytes, &secret(1, 2)).unwrap(),
        zeros
    );
}

#[test]
fn two_seals_of_one_content_share_nothing() {
    let content = content(100);
    let [first, second] = [sealed(&content), sealed(&content)];
    assert_ne!(first.header.salt, second.header.salt);
    assert_ne!(first.bytes, second.bytes);
}

#[test]
fn a_changed_object_does_not_open() {
    const SEALED_CHUNK: usize = (64 << 10) + 16;
    let object = sealed(&content(200_000));
    let open = |bytes: &[u8]| unseal(&object.header, bytes, &secret(1, 2)).unwrap_err();
    for end in [0, 1, SEALED_CHUNK, object.bytes.len() - 1] {
        let error = open(&object.bytes[..end]);
        assert!(matches!(error, UnsealError::WrongLength { .. }), "{error}");
    }
    for chunk in 0..4 {
        let mut flipped = object.bytes.clone();
        flipped[chunk * SEALED_CHUNK + 5] ^= 1;
        let error = open(&flipped);
        let named = matches!(error, UnsealError::BrokenSeal { chunk: c } if c as usize == chunk);
        assert!(named, "{error}");
    }
    let mut swapped = object.bytes.clone();
    let (first, second) = swapped.split_at_mut(SEALED_CHUNK);
    first.swap_with_slice(&mut second[..SEALED_CHUNK]);
    let error = open(&swapped);
    assert!(
        matches!(error, UnsealError::BrokenSeal { chunk: 0 }),
        "{error}"
    );
}

#[test]
fn a_wrong_key_database_author_or_header_does_not_open() {
    let object = sealed(&content(1_000));
    let error = unseal(&object.header, &object.bytes, &secret(1, 3)).unwrap_err();
    assert!(matches!(error, UnsealError::OtherKey { .. }), "{error}");
    let error = unseal(&object.header, &object.bytes, &secret(9, 2)).unwrap_err();
    assert!(
        matches!(error, UnsealError::BrokenSeal { chunk: 0 }),
        "{error}"
    );
    let changes: [fn(&mut SealedObject); 5] = [
        |object| object.header.author = identity(2).public_key(),
        |object| object.header.created_unix_ms += 1,
        |object| object.header.salt[0] ^= 1,
        |object| object.header.nonce[0] ^= 1,
        |object| object.header.content_bytes += 1,
    ];
    for change in changes {
        let mut changed = object.clone();
        change(&mut changed);
        let error = unseal(&changed.header, &changed.bytes, &secret(1, 2)).unwrap_err();
        assert!(
            matches!(error, UnsealError::BrokenSeal { chunk: 0 }),
            "{error}"
        );
    }
}

#[test]
fn a_manifest_comes_back_from_its_encoding() {
    let manifest = signed(&sealed(&content(1_000)));
    let decoded = SignedManifest::decode(&manifest.encode(), &secret(1, 2).id());
    assert_eq!(decoded, Ok(manifest));
}

#[test]
fn every_flip_and_cut_of_a_manifest_is_refused() {
    let database = secret(1, 2).id();
    let good = signed(&sealed(&content(100))).encode();
    for end in 0..good.len() {
        assert!(
            SignedManifest::decode(&good[..end], &database).is_err(),
            "{end}"
        );
    }
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        assert!(SignedManifest::decode(&flipped, &database).is_err(), "{at}");
    }
    let bytes = SIGNED_MANIFEST_BYTES_MAX + 1;
    let decoded = SignedManifest::decode(&vec![0; bytes], &database);
    assert_eq!(decoded, Err(ManifestError::Length { bytes }));
}

#[test]
fn a_manifest_is_refused_by_rule() {
    let object = sealed(&content(1_000));
    let good = signed(&object);
    let database = secret(1, 2).id();
    let refused = |bytes: Vec<u8>| SignedManifest::decode(&bytes, &database).unwrap_err();
    let edited = |at: usize, with: &[u8]| {
        let mut bytes = good.encode();
        bytes[at..at + with.len()].copy_from_slice(with);
        refused(bytes)
    };
    let signer = identity(1).public_key();
    let mismatch = ManifestError::Signature(SignatureError::Mismatch { signer });
    let version = HeaderError::UnknownVersion { version: 9 };
    assert_eq!(edited(0, &[9]), ManifestError::Header(version));
    assert_eq!(edited(SIGNED_HEADER_BYTES - 64, &[0; 64]), mismatch);
    assert_eq!(
        SignedManifest::decode(&good.encode(), &secret(9, 2).id()),
        Err(mismatch)
    );
    let other = identity(2).public_key();
    let named = ManifestError::Signature(SignatureError::Mismatch { signer: other });
    assert_eq!(edited(1, &other.0), named);
    // The neutral element of the curve: every message has a signature under it.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let signer = PublicKey(neutral);
    let weak = ManifestError::Signature(SignatureError::WeakKey { signer });
    assert_eq!(edited(1, &neutral), weak);
    let error = edited(SIGNED_HEADER_BYTES - 64 - 8, &[0xff; 8]);
    assert!(
        matches!(error, ManifestError::Header(HeaderError::Sizes { .. })),
        "{error}"
    );
    let larger = signed(&sealed(&content(2_000)));
    let mixed = [
        &good.encode()[..SIGNED_HEADER_BYTES],
        &larger.code().encode(),
    ]
    .concat();
    assert_eq!(refused(mixed), mismatch);
}

#[test]
fn a_signed_header_of_an_object_of_another_size_is_refused() {
    let header = sealed(&content(1_000)).header;
    let code = signed(&sealed(&content(2_000))).code().clone();
    let (sealed, coded) = (header.sealed_bytes(), code.object_bytes());
    let database = secret(1, 2).id();
    let signed = SignedHeader::sign(header, code.id(), &database, &identity(1));
    let encoded = [&signed.encode()[..], &code.encode()].concat();
    assert_eq!(
        SignedManifest::decode(&encoded, &database),
        Err(ManifestError::OtherObject { sealed, coded })
    );
}

#[test]
fn an_order_to_retire_is_refused_by_rule() {
    let database = secret(1, 2).id();
    let ids = [SnapshotId([1; 32]), SnapshotId([2; 32])];
    let good = Retirement::sign(&ids, &database, &identity(1));
    let order = Retirement::verify(&good, &database).unwrap();
    assert_eq!(
        (order.author, &order.snapshots[..]),
        (identity(1).public_key(), &ids[..])
    );
    for end in 0..good.len() {
        assert!(
            Retirement::verify(&good[..end], &database).is_err(),
            "{end}"
        );
    }
    for at in 0..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        assert!(Retirement::verify(&flipped, &database).is_err(), "{at}");
    }
    assert!(Retirement::verify(&good, &secret(9, 2).id()).is_err());
    let mut many = good;
    many[32..34].copy_from_slice(&[0xff; 2]);
    let snapshots = 0xffff;
    assert_eq!(
        Retirement::verify(&many, &database),
        Err(RetireError::TooMany { snapshots })
    );
}
