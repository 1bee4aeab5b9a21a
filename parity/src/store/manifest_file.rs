//! The file that holds a manifest and its attachment, version 1. Integers are little-endian.
//!
//! | bytes | field |
//! | --- | --- |
//! | 8 | magic, `SYNMANIF` |
//! | 1 | version, 1 |
//! | 4 | bytes in the manifest, `m` |
//! | 4 | bytes in the attachment, `a` |
//! | `m` | the manifest's encoding |
//! | `a` | the attachment |
//! | 32 | blake3 of everything before it |

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::file::{FileError, at};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest, SnapshotId};

/// The most bytes a caller may attach to a manifest.
pub const ATTACHMENT_BYTES_MAX: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"SYNMANIF";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8 + 1 + 4 + 4;
const CHECKSUM_BYTES: usize = 32;
const FILE_BYTES_MAX: usize =
    HEADER_BYTES + MANIFEST_BYTES_MAX + ATTACHMENT_BYTES_MAX + CHECKSUM_BYTES;
const _: () = assert!(FILE_BYTES_MAX <= u32::MAX as usize);

/// Returns the file's bytes. The caller has checked the attachment's length.
pub(super) fn encode(manifest: &Manifest, attachment: &[u8]) -> Vec<u8> {
    assert!(
        attachment.len() <= ATTACHMENT_BYTES_MAX,
        "{} bytes",
        attachment.len()
    );
    let manifest = manifest.encode();
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    bytes.push(VERSION);
    for part in [manifest.as_slice(), attachment] {
        let length = u32::try_from(part.len()).expect("both parts are limited");
        bytes.extend_from_slice(&length.to_le_bytes());
    }
    bytes.extend_from_slice(&manifest);
    bytes.extend_from_slice(attachment);
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

/// Reads a manifest and its attachment; `None` when the file is not what was written under
/// this snapshot's name.
pub(super) fn read(
    path: &Path,
    snapshot: SnapshotId,
) -> Result<Option<(Manifest, Vec<u8>)>, FileError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(at(path))?;
    Ok(decode(&bytes).filter(|(manifest, _)| manifest.id() == snapshot))
}

fn decode(bytes: &[u8]) -> Option<(Manifest, Vec<u8>)> {
    let (fields, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if blake3::hash(fields).as_bytes() != checksum {
        return None;
    }
    let (magic, fields) = fields.split_first_chunk::<8>()?;
    let (&[version], fields) = fields.split_first_chunk::<1>()?;
    let (manifest_bytes, fields) = fields.split_first_chunk::<4>()?;
    let (attachment_bytes, parts) = fields.split_first_chunk::<4>()?;
    let (manifest, attachment) =
        parts.split_at_checked(u32::from_le_bytes(*manifest_bytes) as usize)?;
    let genuine = *magic == MAGIC
        && version == VERSION
        && attachment.len() <= ATTACHMENT_BYTES_MAX
        && attachment.len() == u32::from_le_bytes(*attachment_bytes) as usize;
    let manifest = Manifest::decode(manifest).ok()?;
    genuine.then(|| (manifest, attachment.to_vec()))
}
