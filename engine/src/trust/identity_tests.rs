//! Key files that others can reach, are links, cut short or damaged; signatures of two meanings.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use tempfile::TempDir;

use super::key_file::{check_private, effective_user};
use super::*;

fn stored() -> (TempDir, PathBuf, Identity) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys/device");
    let identity = Identity::create(&path).unwrap();
    (directory, path, identity)
}

fn set_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_identity_comes_back_from_its_file() {
    let (_directory, path, identity) = stored();
    assert_eq!(
        Identity::load(&path).unwrap().public_key(),
        identity.public_key()
    );
    assert_eq!(
        Identity::load_or_create(&path).unwrap().public_key(),
        identity.public_key()
    );
}

#[test]
fn file_and_directory_are_closed_to_others_and_nothing_else_is_left() {
    let (_directory, path, _) = stored();
    let folder = path.parent().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(folder).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
}

#[test]
fn an_existing_identity_is_never_replaced() {
    let (_directory, path, identity) = stored();
    let refused = Identity::create(&path);
    assert!(
        matches!(refused, Err(KeyFileError::Exists { .. })),
        "{refused:?}"
    );
    assert_eq!(
        Identity::load(&path).unwrap().public_key(),
        identity.public_key()
    );
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_missing_identity_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device");
    let refused = Identity::load(&path);
    assert!(
        matches!(refused, Err(KeyFileError::Missing { .. })),
        "{refused:?}"
    );
    let made = Identity::load_or_create(&path).unwrap();
    assert_eq!(
        Identity::load(&path).unwrap().public_key(),
        made.public_key()
    );
}

#[test]
fn a_file_that_others_can_reach_is_refused() {
    let (_directory, path, _) = stored();
    for mode in [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601] {
        set_mode(&path, mode);
        let refused = Identity::load(&path);
        let found = match &refused {
            Err(KeyFileError::OpenToOthers { mode, .. }) => Some(*mode),
            _ => None,
        };
        let named = found == Some(mode);
        assert!(named, "{mode:o}: {refused:?}");
    }
    set_mode(&path, 0o400);
    assert!(Identity::load(&path).is_ok());
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    set_mode(directory.path(), 0o777);
    let refused = Identity::create(&directory.path().join("device"));
    assert!(
        matches!(refused, Err(KeyFileError::DirectoryOpenToOthers { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_link_is_refused() {
    let (directory, path, _) = stored();
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    let refused = Identity::load(&link);
    assert!(
        matches!(refused, Err(KeyFileError::Symlink { .. })),
        "{refused:?}"
    );
    let refused = Identity::create(&link);
    assert!(
        matches!(refused, Err(KeyFileError::Exists { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_directory_in_the_place_of_the_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = Identity::load(directory.path());
    assert!(
        matches!(refused, Err(KeyFileError::NotAFile { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_foreign_owner_is_refused() {
    let (_directory, path, _) = stored();
    let metadata = fs::metadata(&path).unwrap();
    let user = effective_user().unwrap();
    assert_eq!(metadata.uid(), user);
    assert!(check_private(&path, &metadata, user).is_ok());
    let refused = check_private(&path, &metadata, user + 1);
    assert!(
        matches!(refused, Err(KeyFileError::ForeignOwner { .. })),
        "{refused:?}"
    );
}

#[test]
fn every_truncation_is_refused() {
    let (_directory, path, _) = stored();
    let bytes = fs::read(&path).unwrap();
    for end in 0..bytes.len() {
        fs::write(&path, &bytes[..end]).unwrap();
        let refused = Identity::load(&path);
        assert!(
            matches!(refused, Err(KeyFileError::WrongLength { .. })),
            "{end}: {refused:?}"
        );
    }
    fs::write(&path, [&bytes[..], &[0; 100]].concat()).unwrap();
    let refused = Identity::load(&path);
    assert!(
        matches!(refused, Err(KeyFileError::WrongLength { .. })),
        "{refused:?}"
    );
}

#[test]
fn every_flipped_bit_is_refused() {
    let (_directory, path, _) = stored();
    let bytes = fs::read(&path).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, flipped).unwrap();
        let refused = Identity::load(&path);
        let named = match bit / 8 {
            0..8 => matches!(refused, Err(KeyFileError::WrongKind { .. })),
            8 => matches!(
                refused,
                Err(KeyFileError::NewerVersion { .. } | KeyFileError::Damaged { .. })
            ),
            _ => matches!(refused, Err(KeyFileError::Damaged { .. })),
        };
        assert!(named, "{bit}: {refused:?}");
    }
}

#[test]
fn a_database_secret_comes_back_from_its_file_and_is_no_identity() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let secret = DatabaseSecret::generate(PublicKey([1; 32])).unwrap();
    secret.save(&path).unwrap();
    let loaded = DatabaseSecret::load(&path).unwrap();
    assert_eq!(loaded.id(), secret.id());
    assert_eq!(loaded.current_key().expose(), secret.current_key().expose());
    assert_eq!(loaded.topic(), secret.topic());
    assert!(loaded.key(&secret.current_key().id()).is_some());
    assert!(loaded.key(&KeyId([0; 16])).is_none());
    let refused = Identity::load(&path);
    assert!(
        matches!(refused, Err(KeyFileError::WrongKind { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_signature_that_only_lenient_checks_accept_is_refused() {
    // R is the neutral element and S = k * a (RFC 8032, section 5.1.6, with r = 0): the equation
    // holds, and the same R and S would be accepted by `verify` of most libraries.
    let signature = [
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0x95, 0xc0, 0xfd, 0xcc, 0x54, 0xfc, 0xca, 0xd1, 0xf2, 0xb8, 0xbc, 0x9b, 0x96, 0xaa,
        0x68, 0x37, 0xc8, 0x2f, 0x86, 0x34, 0x9e, 0x65, 0x76, 0xad, 0x29, 0xca, 0x3e, 0xce, 0x7b,
        0x7e, 0xa9, 0x05,
    ];
    let signer = Identity::from_secret(&[1; 32]).public_key();
    let lenient = ed25519_dalek::VerifyingKey::from_bytes(&signer.0).unwrap();
    let form = ed25519_dalek::Signature::from_bytes(&signature);
    assert!(ed25519_dalek::Verifier::verify(&lenient, b"message", &form).is_ok());
    let refused = signer.verify(b"message", &signature);
    assert_eq!(refused, Err(SignatureError::Mismatch { signer }));
}
