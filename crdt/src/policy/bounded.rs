//! Bounded counters: what may be subtracted is escrow (Balegas et al., *Extending Eventually
//! Consistent Cloud Databases for Enforcing Numeric Invariants*, 2015).
//!
//! Who adds has the right to subtract as much; rights are given to other sites, never taken. No
//! site subtracts beyond its rights, so the sum of all stays at or above the floor, however the
//! sites part. A site's entry is what it added, what it used, and what it gave to whom.
//!
//! The value is the floor and what all sites may still subtract. A site that used more than it was
//! given, as far as is known, may subtract nothing: so it neither shows a value below the floor nor
//! touches what others have.

use std::collections::BTreeMap;

use super::SiteEntries;
use super::counter::{clamped, whole};
use super::entries::{amount, put_amount};
use crate::codec::{Reader, put_varint};
use crate::{DecodeError, SiteId, Value};

/// To how many others one site may give rights in one cell.
const GRANTS_COUNT_MAX: usize = 10_000;

#[derive(Debug, Default, PartialEq)]
struct Escrow {
    added: i128,
    used: i128,
    granted: BTreeMap<SiteId, i128>,
}

impl Escrow {
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::over(bytes);
        let (added, used) = (amount(&mut reader)?, amount(&mut reader)?);
        let granted = reader.list(18, |reader| Ok((SiteId(reader.array()?), amount(reader)?)))?;
        if granted.len() > GRANTS_COUNT_MAX {
            return Err(reader.invalid("an entry grants rights to at most 10,000 sites"));
        }
        if !granted.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(reader.invalid("rights name each site once, in order"));
        }
        if added < 0 || used < 0 || granted.iter().any(|(_, amount)| *amount <= 0) {
            return Err(reader.invalid("rights only grow"));
        }
        reader.end()?;
        Ok(Escrow {
            added,
            used,
            granted: granted.into_iter().collect(),
        })
    }

    fn held(bytes: &[u8]) -> Self {
        Escrow::read(bytes).expect("the entry was checked when it was taken in")
    }

    fn of(entries: &SiteEntries, site: SiteId) -> Self {
        entries.entry(site).map(Escrow::held).unwrap_or_default()
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_amount(&mut bytes, self.added);
        put_amount(&mut bytes, self.used);
        put_varint(&mut bytes, self.granted.len() as u64);
        for (site, amount) in &self.granted {
            bytes.extend_from_slice(&site.0);
            put_amount(&mut bytes, *amount);
        }
        bytes
    }
}

pub(super) fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    Escrow::read(bytes).map(|_| ())
}

/// Returns how much each site may subtract. Below zero it has used what nobody gave it, as far as is
/// known here: the entry that did has not arrived yet, or the site lies.
fn shares(entries: &SiteEntries) -> BTreeMap<SiteId, i128> {
    let mut shares: BTreeMap<SiteId, i128> = BTreeMap::new();
    for (site, bytes) in entries.iter() {
        let escrow = Escrow::held(bytes);
        // What a site grants itself it has already.
        let granted = escrow.granted.iter().filter(|(to, _)| **to != site);
        let mut own = escrow.added - escrow.used;
        for (to, amount) in granted {
            own = own.saturating_sub(*amount);
            let other = shares.entry(*to).or_default();
            *other = other.saturating_add(*amount);
        }
        let share = shares.entry(site).or_default();
        *share = share.saturating_add(own);
    }
    shares
}

/// Returns the value: what all sites may still subtract, above the floor. A site that used more
/// than it had takes nothing from the others.
pub(super) fn shown(entries: &SiteEntries, floor: i64) -> i64 {
    let left = shares(entries).into_values().filter(|share| *share > 0);
    clamped(left.fold(i128::from(floor), i128::saturating_add))
}

/// Returns how much a site may subtract.
pub(super) fn rights(entries: &SiteEntries, site: SiteId) -> i128 {
    let share = shares(entries).get(&site).copied();
    share.unwrap_or(0).max(0)
}

/// Returns the sites that may subtract anything, with how much.
pub(super) fn holders(entries: &SiteEntries) -> BTreeMap<SiteId, i64> {
    let shares = shares(entries).into_iter();
    let held = shares.filter(|(_, share)| *share > 0);
    held.map(|(site, share)| (site, clamped(share))).collect()
}

/// Returns the least value that a site may leave in the cell.
pub(super) fn least(entries: &SiteEntries, floor: i64, site: SiteId) -> i64 {
    let least = i128::from(shown(entries, floor)).saturating_sub(rights(entries, site));
    clamped(least.max(i128::from(floor)))
}

pub(super) fn edit(
    entries: &SiteEntries,
    floor: i64,
    site: SiteId,
    visible: &Value,
) -> Option<Vec<u8>> {
    let added = i128::from(whole(visible)?) - i128::from(shown(entries, floor));
    let mut own = Escrow::of(entries, site);
    if added >= 0 {
        own.added = own.added.saturating_add(added);
    } else {
        // A write that no trigger stopped: as much of it as the rights allow.
        own.used += (-added).min(rights(entries, site));
    }
    let is_news = entries.is_empty() || own != Escrow::of(entries, site);
    is_news.then(|| own.write())
}

/// Returns a site's next entry after it gave some of its rights away; `None` if it gave to as many
/// others already as an entry holds.
pub(super) fn grant(
    entries: &SiteEntries,
    from: SiteId,
    to: SiteId,
    amount: i64,
) -> Option<Vec<u8>> {
    let mut own = Escrow::of(entries, from);
    let granted = own.granted.entry(to).or_default();
    *granted = granted.saturating_add(i128::from(amount));
    (own.granted.len() <= GRANTS_COUNT_MAX).then(|| own.write())
}
