//! Who a row is where every replica counts its own ids: a number and the site that created it.

use crate::{SiteId, Value, codec};

/// The lowest id that [`rekeyed`] gives, the greatest being −1: 52 bits, so that a JavaScript
/// number holds every one exactly.
pub const REKEYED_MIN: i64 = -(1 << 52);

/// Returns the id under which the row `number` of `site` is shown where another site's row has the
/// number. It is negative, so that the next id a replica counts is not disturbed, and the same on
/// every replica.
///
/// Two of `n` such rows of a table get the same id with a probability of about `n²/2⁵³`: one in
/// nine billion for a thousand rows, one in nine thousand for a million. Then, or where the
/// application itself gave the id to a row, the row is shown under the id of the next `attempt`.
pub fn rekeyed(number: i64, site: SiteId, attempt: u32) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"syncline/v1/rekeyed\0");
    hasher.update(&number.to_le_bytes());
    hasher.update(&site.0);
    hasher.update(&attempt.to_le_bytes());
    let mut low = [0; 8];
    low.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    let bits = u64::from_le_bytes(low) & ((1 << 52) - 1);
    !bits.cast_signed()
}

/// Gives the rows that a table holds before it is tracked a common origin, from all that it holds:
/// copies of one table on two devices give the same origin, so their rows are the same rows, and
/// tables that differ in any cell give two.
#[derive(Debug)]
pub struct OriginHasher {
    hasher: blake3::Hasher,
    bytes: Vec<u8>,
}

impl OriginHasher {
    /// Begins a table with these columns.
    pub fn new<'a>(table: &str, columns: impl Iterator<Item = &'a str>) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = b"syncline/v1/origin\0".to_vec();
        codec::put_bytes(&mut bytes, table.as_bytes());
        columns.for_each(|column| codec::put_bytes(&mut bytes, column.as_bytes()));
        hasher.update(&bytes);
        OriginHasher { hasher, bytes }
    }

    /// Adds a row; rows come in the order of their keys.
    pub fn row(&mut self, values: &[Value]) {
        self.bytes.clear();
        for value in values {
            codec::put_value(&mut self.bytes, value);
        }
        self.hasher.update(&self.bytes);
    }

    /// Returns the origin, in the form of a site that no replica is.
    pub fn finish(&self) -> SiteId {
        let mut site = [0; 16];
        site.copy_from_slice(&self.hasher.finalize().as_bytes()[..16]);
        SiteId(site)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_rekeyed_id_is_negative_and_exact_in_javascript(
            number in any::<i64>(), site in any::<[u8; 16]>(), attempt in 0u32..3,
        ) {
            let id = rekeyed(number, SiteId(site), attempt);
            prop_assert!((REKEYED_MIN..0).contains(&id));
            prop_assert_eq!(id as f64 as i64, id);
        }
    }

    #[test]
    fn ids_differ_by_number_site_and_attempt_and_never_change() {
        let site = |byte| SiteId([byte; 16]);
        let ids = [
            rekeyed(1, site(1), 0),
            rekeyed(2, site(1), 0),
            rekeyed(1, site(2), 0),
            rekeyed(1, site(1), 1),
        ];
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        // Written down: ids that changed with a version would be other rows to an application.
        assert_eq!(ids[0], -2_938_694_673_516_111);
    }

    #[test]
    fn copies_have_one_origin_and_other_contents_another() {
        let origin = |rows: &[i64]| {
            let mut hasher = OriginHasher::new("t", ["id"].into_iter());
            rows.iter()
                .for_each(|number| hasher.row(&[Value::Integer(*number)]));
            hasher.finish()
        };
        assert_eq!(origin(&[1, 2]), origin(&[1, 2]));
        assert_ne!(origin(&[1, 2]), origin(&[1, 3]));
        assert_ne!(origin(&[1, 2]), origin(&[1]));
        let other = OriginHasher::new("u", ["id"].into_iter());
        assert_ne!(origin(&[]), other.finish());
    }
}
