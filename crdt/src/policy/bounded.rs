//! Bounded counters: what may be subtracted is escrow (Balegas et al., *Extending Eventually
//! Consistent Cloud Databases for Enforcing Numeric Invariants*, 2015).
//!
//! Who adds has the right to subtract as much; rights are given to other sites, never taken. No
//! site subtracts beyond its rights, so the sum of all stays at or above the floor, however the
//! sites part. A site's entry is what it added, what it used, and what it gave to whom.

use std::collections::BTreeMap;

use super::SiteEntries;
use super::counter::{clamped, whole};
use super::entries::{amount, put_amount};
use crate::codec::{Reader, put_varint};
use crate::{DecodeError, SiteId, Value};

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

    fn of(entries: &SiteEntries, site: SiteId) -> Self {
        let held = |bytes| Escrow::read(bytes).expect("the entry was checked when it was taken in");
        entries.entry(site).map(held).unwrap_or_default()
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

/// Returns the value: never below the floor, even where the entry that allowed a subtraction has
/// not arrived yet.
pub(super) fn shown(entries: &SiteEntries, floor: i64) -> i64 {
    let balance = entries.iter().fold(0_i128, |sum, (site, _)| {
        let escrow = Escrow::of(entries, site);
        sum.saturating_add(escrow.added - escrow.used)
    });
    clamped(balance.max(0).saturating_add(i128::from(floor)))
}

/// Returns how much a site may subtract.
pub(super) fn rights(entries: &SiteEntries, site: SiteId) -> i128 {
    let own = Escrow::of(entries, site);
    let given = own
        .granted
        .values()
        .fold(0, |sum, amount| amount.saturating_add(sum));
    let others = entries.iter().filter(|(other, _)| *other != site);
    let got = others.fold(0_i128, |sum, (other, _)| {
        let granted = Escrow::of(entries, other).granted;
        sum.saturating_add(granted.get(&site).copied().unwrap_or(0))
    });
    // What was granted to oneself is given and got, so it cancels out by being neither.
    let given = given - own.granted.get(&site).copied().unwrap_or(0);
    (own.added - own.used - given).saturating_add(got).max(0)
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

pub(super) fn grant(entries: &SiteEntries, from: SiteId, to: SiteId, amount: i64) -> Vec<u8> {
    let mut own = Escrow::of(entries, from);
    let granted = own.granted.entry(to).or_default();
    *granted = granted.saturating_add(i128::from(amount));
    own.write()
}
