//! A hash of the replicated state, independent of the order in which it came about.

use std::fmt;

use crate::{CausalLength, SiteId, Stamp, Value, codec};

/// The sum of all live rows' hashes. Equal on replicas that hold the same rows with the same
/// clocks, whatever the order in which the changes arrived.
///
/// Row hashes are added as 256-bit numbers, so rows need no common order. That is a check against
/// mistakes, not against an attacker who can choose rows at will.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u64; 4]);

impl Digest {
    /// Adds one row's hash.
    pub fn add(&mut self, row: [u8; 32]) {
        let mut carry = false;
        for (limb, bytes) in self.0.iter_mut().zip(row.as_chunks::<8>().0) {
            let (sum, first) = limb.overflowing_add(u64::from_le_bytes(*bytes));
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
    }

    /// Returns the 32 bytes, least significant first.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *chunk = limb.to_le_bytes();
        }
        bytes
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Hashes one row: its table, key, causal length, and each cell with its stamp.
#[derive(Debug, Default)]
pub struct RowHasher {
    bytes: Vec<u8>,
}

impl RowHasher {
    /// Begins a row; `origins` are the sites that tell who the row is, beside its key: the one that
    /// created it or those of the rows its key refers to, and all zero or none where the key alone
    /// names it.
    pub fn begin(
        &mut self,
        table: &str,
        causal_length: CausalLength,
        key: &[Value],
        origins: &[SiteId],
    ) {
        self.bytes.clear();
        codec::put_bytes(&mut self.bytes, table.as_bytes());
        codec::put_varint(&mut self.bytes, causal_length.get());
        codec::put_varint(&mut self.bytes, key.len() as u64);
        key.iter()
            .for_each(|value| codec::put_value(&mut self.bytes, value));
        origins
            .iter()
            .filter(|site| **site != SiteId::default())
            .for_each(|site| self.bytes.extend_from_slice(&site.0));
    }

    /// Adds a cell; cells come in the order of their column names on every replica. `parent` is the
    /// site that created the row which the value refers to, all zero if it refers to none.
    pub fn cell(&mut self, column: &str, stamp: Stamp, value: &Value, parent: SiteId) {
        codec::put_bytes(&mut self.bytes, column.as_bytes());
        codec::put_varint(&mut self.bytes, stamp.version.to_bits());
        self.bytes.extend_from_slice(&stamp.site.0);
        codec::put_value(&mut self.bytes, value);
        if parent != SiteId::default() {
            self.bytes.extend_from_slice(&parent.0);
        }
    }

    /// Returns the row's hash.
    pub fn finish(&self) -> [u8; 32] {
        *blake3::hash(&self.bytes).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: i64) -> [u8; 32] {
        let mut hasher = RowHasher::default();
        hasher.begin("t", CausalLength::FIRST, &[Value::Integer(number)], &[]);
        let value = Value::Integer(number * 2);
        hasher.cell("a", Stamp::default(), &value, SiteId::default());
        hasher.finish()
    }

    #[test]
    fn the_order_of_rows_does_not_matter_and_each_row_does() {
        let sum = |rows: &[i64]| {
            let mut digest = Digest::default();
            rows.iter().for_each(|number| digest.add(row(*number)));
            digest
        };
        assert_eq!(sum(&[1, 2, 3]), sum(&[3, 1, 2]));
        assert_ne!(sum(&[1, 2, 3]), sum(&[1, 2]));
        assert_ne!(sum(&[1, 2, 3]), sum(&[1, 2, 4]));
    }

    #[test]
    fn carries_run_through_all_limbs() {
        let mut digest = Digest::default();
        digest.add([0xff; 32]);
        let mut one = [0; 32];
        one[0] = 1;
        digest.add(one);
        assert_eq!(digest, Digest::default());
    }
}
