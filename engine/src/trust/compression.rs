//! Compresses payloads, and refuses compressed data that grows more than a sender may claim.

use thiserror::Error;
use zstd::zstd_safe;

/// The most bytes a compressed payload may decompress to.
pub const DECOMPRESSED_BYTES_MAX: usize = 16 << 20;

/// The most times larger than itself a compressed payload may become.
///
/// 64 MiB of zeros compress to 2 KiB: without this cap a small envelope costs much memory.
/// A sender whose payload compresses better sends it uncompressed.
const RATIO_MAX: usize = 16;

/// zstd's own default: measurably better than 1 on changesets, and still far above disk speed.
const LEVEL: i32 = 3;

/// Why a compressed payload was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// The declared size is above the cap for this compressed size.
    #[error("{compressed} compressed bytes declare {declared}, more than the {allowed} allowed")]
    DeclaredTooLarge {
        /// Bytes as sent.
        compressed: usize,
        /// Bytes the sender says they decompress to.
        declared: usize,
        /// Bytes they may decompress to.
        allowed: usize,
    },
    /// The zstd frame does not hold what the envelope declares, or is followed by other bytes.
    #[error("the zstd frame does not match its declared size of {declared} bytes")]
    NotAsDeclared {
        /// Bytes the sender says it decompresses to.
        declared: usize,
    },
    /// The zstd frame needs a dictionary.
    #[error("the zstd frame asks for a dictionary")]
    Dictionary,
    /// The bytes are no valid zstd frame.
    #[error("the zstd frame is damaged")]
    Damaged(#[source] std::io::Error),
}

/// Returns `payload` compressed, or `None` where sending it as it is serves better.
pub(super) fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > DECOMPRESSED_BYTES_MAX {
        return None;
    }
    let compressed = zstd::bulk::compress(payload, LEVEL).ok()?;
    let helps = compressed.len() < payload.len();
    (helps && payload.len() <= allowed_bytes(compressed.len())).then_some(compressed)
}

/// Returns the payload that `compressed` holds, which must be exactly `declared` bytes.
pub(super) fn decompress(compressed: &[u8], declared: usize) -> Result<Vec<u8>, CompressionError> {
    let allowed = allowed_bytes(compressed.len());
    if declared > allowed {
        let compressed = compressed.len();
        return Err(CompressionError::DeclaredTooLarge {
            compressed,
            declared,
            allowed,
        });
    }
    if zstd_safe::get_dict_id_from_frame(compressed).is_some() {
        return Err(CompressionError::Dictionary);
    }
    let content = zstd_safe::get_frame_content_size(compressed).ok().flatten();
    let frame_bytes = zstd_safe::find_frame_compressed_size(compressed).ok();
    if content != Some(declared as u64) || frame_bytes != Some(compressed.len()) {
        return Err(CompressionError::NotAsDeclared { declared });
    }
    let payload =
        zstd::bulk::decompress(compressed, declared).map_err(CompressionError::Damaged)?;
    if payload.len() != declared {
        return Err(CompressionError::NotAsDeclared { declared });
    }
    Ok(payload)
}

fn allowed_bytes(compressed_bytes: usize) -> usize {
    compressed_bytes
        .saturating_mul(RATIO_MAX)
        .min(DECOMPRESSED_BYTES_MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::{CompressionError, DECOMPRESSED_BYTES_MAX, compress, decompress};

    fn text(bytes: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..bytes).map(|_| random.u8(b'a'..=b'h')).collect()
    }

    #[test]
    fn what_compresses_comes_back() {
        let payload = text(10_000);
        let compressed = compress(&payload).unwrap();
        assert!(compressed.len() < payload.len() / 2);
        assert_eq!(decompress(&compressed, payload.len()).unwrap(), payload);
    }

    #[test]
    fn payloads_beyond_the_ratio_are_sent_uncompressed() {
        assert!(compress(&vec![0; 1 << 20]).is_none());
        assert!(compress(&vec![0; DECOMPRESSED_BYTES_MAX + 1]).is_none());
    }

    #[test]
    fn payloads_that_do_not_shrink_are_sent_uncompressed() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = (0..1_000).map(|_| random.u8(..)).collect();
        assert!(compress(&noise).is_none());
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_opened() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        for declared in [64 << 20, bomb.len() * 16 + 1, usize::MAX] {
            let error = decompress(&bomb, declared).unwrap_err();
            assert!(
                matches!(error, CompressionError::DeclaredTooLarge { .. }),
                "{error}"
            );
        }
        let error = decompress(&bomb, bomb.len() * 16).unwrap_err();
        assert!(
            matches!(error, CompressionError::NotAsDeclared { .. }),
            "{error}"
        );
    }

    #[test]
    fn a_lying_size_is_refused() {
        let compressed = compress(&text(10_000)).unwrap();
        for declared in [0, 1, 9_999, 10_001] {
            let error = decompress(&compressed, declared).unwrap_err();
            assert!(
                matches!(error, CompressionError::NotAsDeclared { .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn bytes_after_the_frame_are_refused() {
        let compressed = compress(&text(10_000)).unwrap();
        let twice = [compressed.clone(), compressed.clone()].concat();
        let skippable = [&compressed[..], &[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]].concat();
        let padded = [&compressed[..], &[0]].concat();
        for bytes in [twice, skippable, padded] {
            let error = decompress(&bytes, 10_000).unwrap_err();
            assert!(
                matches!(error, CompressionError::NotAsDeclared { .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn a_frame_with_a_dictionary_is_refused() {
        // Magic, descriptor (single segment, 1-byte dictionary id), dictionary 7, content size 5.
        let frame = [
            0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 5, 0x29, 0, 0, 1, 2, 3, 4, 5,
        ];
        let error = decompress(&frame, 5).unwrap_err();
        assert!(matches!(error, CompressionError::Dictionary), "{error}");
    }

    #[test]
    fn truncations_and_flips_never_panic() {
        let payload = text(2_000);
        let compressed = compress(&payload).unwrap();
        for end in 0..compressed.len() {
            assert!(
                decompress(&compressed[..end], payload.len()).is_err(),
                "{end}"
            );
        }
        for bit in 0..compressed.len() * 8 {
            let mut bytes = compressed.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // A flip may still decode, to other bytes of the same size; the seal refuses those.
            if let Ok(other) = decompress(&bytes, payload.len()) {
                assert_eq!(other.len(), payload.len());
            }
        }
    }
}
