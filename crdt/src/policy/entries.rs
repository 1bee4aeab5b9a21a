//! Cells that are kept as one cumulative entry for each site.

use std::collections::BTreeMap;

use super::{DeltaError, Policy, bounded, counter, extreme, set};
use crate::codec::{Reader, put_bytes, put_varint};
use crate::{DecodeError, Hlc, SiteId, Stamp, Value};

/// What each site added to one cell: for each site its latest entry, as bytes that the policy
/// reads.
///
/// The join of two cells is, for each site, the later entry; between two entries that claim to be
/// of the same time, the greater bytes. So it is commutative, associative and idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteEntries {
    policy: Policy,
    sites: BTreeMap<SiteId, (Hlc, Vec<u8>)>,
}

/// Why a right cannot be given away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    /// Only bounded counters have rights.
    #[error("only a bounded counter has rights to give")]
    NotBounded,
    /// It has what it would give itself.
    #[error("rights are granted to another replica, and this is the one that has them")]
    ToItself,
    /// It gave to as many others as it can.
    #[error("this replica granted rights in one cell to as many others as it can")]
    TooMany,
    /// It is nothing, or less.
    #[error("what is granted is a whole number above zero")]
    NotPositive,
    /// This site has fewer.
    #[error("only {rights} can be granted here: sync, or ask another replica to grant more")]
    TooFew {
        /// How many it has.
        rights: i64,
    },
}

impl SiteEntries {
    /// Returns a cell that nobody wrote.
    ///
    /// # Panics
    ///
    /// With a policy that keeps its history.
    pub fn new(policy: Policy) -> Self {
        assert!(!policy.keeps_history(), "{policy:?} has no entries");
        Self {
            policy,
            sites: BTreeMap::new(),
        }
    }

    /// Whether nobody wrote it.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// Returns a site's entry.
    pub fn entry(&self, site: SiteId) -> Option<&[u8]> {
        self.sites.get(&site).map(|(_, bytes)| bytes.as_slice())
    }

    /// Returns all entries, by site.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SiteId, &[u8])> {
        self.sites
            .iter()
            .map(|(site, (_, bytes))| (*site, bytes.as_slice()))
    }

    /// Takes in a site's entry and returns whether anything changed.
    ///
    /// # Errors
    ///
    /// [`DeltaError`] if the bytes are no entry of this policy.
    pub fn join(&mut self, stamp: Stamp, bytes: &[u8]) -> Result<bool, DeltaError> {
        let is_later =
            |(version, held): &(Hlc, Vec<u8>)| (stamp.version, bytes) > (*version, held.as_slice());
        if !self.sites.get(&stamp.site).is_none_or(is_later) {
            return Ok(false);
        }
        match self.policy {
            Policy::Counter => counter::check(bytes)?,
            Policy::BoundedCounter { .. } => bounded::check(bytes)?,
            Policy::Max | Policy::Min => extreme::check(bytes)?,
            Policy::Set => set::check(stamp.version, bytes)?,
            Policy::Text | Policy::Document => unreachable!("a new cell was checked"),
        }
        self.sites
            .insert(stamp.site, (stamp.version, bytes.to_vec()));
        Ok(true)
    }

    /// Returns what the cell shows, or `None` if nobody wrote it.
    pub fn shown(&self) -> Option<Value> {
        if self.is_empty() {
            return None;
        }
        Some(match self.policy {
            Policy::Counter => Value::Integer(counter::sum(self)),
            Policy::BoundedCounter { floor } => Value::Integer(bounded::shown(self, floor)),
            Policy::Max => extreme::greatest(self),
            Policy::Min => extreme::least(self),
            Policy::Set => set::shown(self),
            Policy::Text | Policy::Document => unreachable!("a new cell was checked"),
        })
    }

    /// Returns a site's next entry after its user changed the cell to `visible`, or `None` if that
    /// adds nothing: then the cell goes on to show what it did.
    pub fn edit(&self, site: SiteId, visible: &Value) -> Option<Vec<u8>> {
        match self.policy {
            Policy::Counter => counter::edit(self, site, visible),
            Policy::BoundedCounter { floor } => bounded::edit(self, floor, site, visible),
            Policy::Max => extreme::edit(self, visible, std::cmp::Ordering::Greater),
            Policy::Min => extreme::edit(self, visible, std::cmp::Ordering::Less),
            Policy::Set => set::edit(self, site, visible),
            Policy::Text | Policy::Document => unreachable!("a new cell was checked"),
        }
    }

    /// Returns how much a site may subtract from a bounded counter; `None` for another policy.
    pub fn rights(&self, site: SiteId) -> Option<i64> {
        matches!(self.policy, Policy::BoundedCounter { .. })
            .then(|| counter::clamped(bounded::rights(self, site)))
    }

    /// Returns the sites that may subtract anything from a bounded counter, with how much; none for
    /// another policy.
    pub fn holders(&self) -> BTreeMap<SiteId, i64> {
        match self.policy {
            Policy::BoundedCounter { .. } => bounded::holders(self),
            _ => BTreeMap::new(),
        }
    }

    /// Returns the least value that a site may leave in a bounded counter; `None` for another
    /// policy.
    pub fn least(&self, site: SiteId) -> Option<i64> {
        match self.policy {
            Policy::BoundedCounter { floor } => Some(bounded::least(self, floor, site)),
            _ => None,
        }
    }

    /// Returns a site's next entry after it gave some of its rights to another site.
    ///
    /// # Errors
    ///
    /// [`GrantError`] says why it cannot.
    pub fn grant(&self, from: SiteId, to: SiteId, amount: i64) -> Result<Vec<u8>, GrantError> {
        let rights = self.rights(from).ok_or(GrantError::NotBounded)?;
        if amount <= 0 {
            return Err(GrantError::NotPositive);
        }
        if from == to {
            return Err(GrantError::ToItself);
        }
        if amount > rights {
            return Err(GrantError::TooFew { rights });
        }
        bounded::grant(self, from, to, amount).ok_or(GrantError::TooMany)
    }

    /// Returns bytes that are equal for equal cells.
    pub fn fingerprint(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (site, (version, entry)) in &self.sites {
            bytes.extend_from_slice(&site.0);
            put_varint(&mut bytes, version.to_bits());
            put_bytes(&mut bytes, entry);
        }
        bytes
    }
}

/// The most a site may have added or subtracted in one cell, as a power of two: above what 64 bits
/// count, and far from where 2^20 sites' sums would leave 128 bits.
const AMOUNT_BITS_MAX: u32 = 96;
/// The same as a number.
const AMOUNT_MAX: i128 = 1 << AMOUNT_BITS_MAX;

/// Appends a number as its little-endian bytes in two's complement, as few as it needs. One beyond
/// what is taken in is written as the last that is.
pub(super) fn put_amount(bytes: &mut Vec<u8>, amount: i128) {
    let amount = amount.clamp(-AMOUNT_MAX, AMOUNT_MAX);
    let wide = amount.to_le_bytes();
    let fill = if amount < 0 { 0xff } else { 0 };
    let mut length = wide.len();
    while length > 1 && wide[length - 1] == fill && (wide[length - 2] ^ fill) & 0x80 == 0 {
        length -= 1;
    }
    put_bytes(bytes, &wide[..length]);
}

/// Reads what [`put_amount`] wrote.
pub(super) fn amount(reader: &mut Reader<'_>) -> Result<i128, DecodeError> {
    let bytes = reader.bytes()?;
    let Some(last) = bytes.last().filter(|_| bytes.len() <= 16) else {
        return Err(reader.invalid("an amount has 1 to 16 bytes"));
    };
    let mut wide = [if last & 0x80 == 0 { 0 } else { 0xff }; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    let amount = i128::from_le_bytes(wide);
    if !(-AMOUNT_MAX..=AMOUNT_MAX).contains(&amount) {
        return Err(reader.invalid("an amount has at most 96 bits"));
    }
    let mut shortest = Vec::new();
    put_amount(&mut shortest, amount);
    if shortest[1..] != *bytes {
        return Err(reader.invalid("an amount is written in as few bytes as it needs"));
    }
    Ok(amount)
}
