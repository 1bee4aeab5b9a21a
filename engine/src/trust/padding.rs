//! Pads plaintexts to few distinct lengths, so that a length says little about its contents.

/// The least number of bytes a padded plaintext has.
///
/// A transaction that touches one small row stays below it, so all of those look alike.
pub(super) const PADDED_BYTES_MIN: usize = 256;

/// Returns the length to which `bytes` bytes are padded: PADMÉ with a floor.
///
/// PADMÉ (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with
/// PURBs", PETS 2019, section 4) keeps only the upper bits of a length: it costs at most 12 % and
/// reveals O(log log n) bits.
pub(super) const fn padded_bytes(bytes: usize) -> usize {
    if bytes <= PADDED_BYTES_MIN {
        return PADDED_BYTES_MIN;
    }
    let exponent = bytes.ilog2();
    let low_bits = exponent - (exponent.ilog2() + 1);
    let mask = (1 << low_bits) - 1;
    (bytes + mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::{PADDED_BYTES_MIN, padded_bytes};

    #[test]
    fn padding_grows_little_and_reaches_few_lengths() {
        let mut lengths = 0;
        let mut last = 0;
        for bytes in 0..200_000 {
            let padded = padded_bytes(bytes);
            assert!(padded >= bytes && padded >= PADDED_BYTES_MIN);
            assert!(
                bytes <= PADDED_BYTES_MIN || padded * 100 <= bytes * 112,
                "{bytes}"
            );
            assert_eq!(
                padded_bytes(padded),
                padded,
                "a padded length is its own padding"
            );
            lengths += usize::from(padded != last);
            assert!(padded >= last);
            last = padded;
        }
        assert!(lengths < 200, "{lengths}");
    }

    #[test]
    fn padding_matches_the_paper() {
        assert_eq!(padded_bytes(257), 272);
        assert_eq!(padded_bytes(1_000), 1_024);
        assert_eq!(padded_bytes(1_025), 1_088);
        assert_eq!(padded_bytes(32 << 20), 32 << 20);
    }
}
