//! Counters: each site's entry is the sum of what it added and subtracted.

use super::SiteEntries;
use super::entries::{amount, put_amount};
use crate::codec::Reader;
use crate::{DecodeError, SiteId, Value};

pub(super) fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::over(bytes);
    amount(&mut reader)?;
    reader.end()
}

fn total(bytes: &[u8]) -> i128 {
    amount(&mut Reader::over(bytes)).expect("the entry was checked when it was taken in")
}

fn wide_sum(entries: &SiteEntries) -> i128 {
    let totals = entries.iter().map(|(_, bytes)| total(bytes));
    totals.fold(0, i128::saturating_add)
}

/// Returns the sum of all sites, at the edge of 64 bits where it lies beyond.
pub(super) fn sum(entries: &SiteEntries) -> i64 {
    clamped(wide_sum(entries))
}

pub(super) fn clamped(amount: i128) -> i64 {
    let edge = if amount < 0 { i64::MIN } else { i64::MAX };
    i64::try_from(amount).unwrap_or(edge)
}

/// Returns the whole number that a value means; `None` for `NULL` and everything else.
pub(super) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::Real(real) => {
            let number = real.get();
            // Beyond 2^53 a real names no single whole number.
            let is_whole = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
            is_whole.then_some(number as i64)
        }
        Value::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        Value::Null | Value::Blob(_) => None,
    }
}

pub(super) fn edit(entries: &SiteEntries, site: SiteId, visible: &Value) -> Option<Vec<u8>> {
    let added = i128::from(whole(visible)?) - i128::from(sum(entries));
    if added == 0 && !entries.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    put_amount(
        &mut bytes,
        entries.entry(site).map_or(0, total).saturating_add(added),
    );
    Some(bytes)
}
