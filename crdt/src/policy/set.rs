//! Sets: each element has a causal length of its own, odd while it is in the set.
//!
//! A site's entry holds the elements it ever added or removed, with the length it gave them; the
//! greatest length of all sites counts. An element is its canonical JSON text.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::json::{self, canonical, order};
use super::{DeltaError, SiteEntries};
use crate::codec::{Reader, put_bytes, put_varint};
use crate::{CausalLength, DecodeError, Hlc, SiteId, Value};

type Elements = BTreeMap<String, CausalLength>;

fn read(bytes: &[u8]) -> Result<Elements, DecodeError> {
    let mut reader = Reader::over(bytes);
    let elements = reader.list(2, |reader| {
        let text = reader.string(usize::MAX)?;
        let length = CausalLength::new(reader.varint()?);
        let length = length.filter(|length| *length > CausalLength::UNKNOWN);
        let length = length.ok_or(reader.invalid("a causal length is from 1 to 2^52"))?;
        Ok((text, length))
    })?;
    if !elements.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(reader.invalid("a set names each element once, in order"));
    }
    reader.end()?;
    Ok(elements.into_iter().collect())
}

fn write(elements: &Elements) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_varint(&mut bytes, elements.len() as u64);
    for (text, length) in elements {
        put_bytes(&mut bytes, text.as_bytes());
        put_varint(&mut bytes, length.get());
    }
    bytes
}

/// Checks an entry that a site wrote at `version`.
pub(super) fn check(version: Hlc, bytes: &[u8]) -> Result<(), DeltaError> {
    for (text, length) in read(bytes)? {
        let is_canonical = |json: Json| canonical(&json) == text;
        if !json::parse(text.as_bytes()).is_some_and(is_canonical) {
            let rule = "an element of a set is canonical JSON";
            return Err(DeltaError::Rule { rule });
        }
        // As with rows, each time it was added or removed took a time of its own; a peer that could
        // name any number would use the counter up, and the element could never be changed again.
        if length.get() > version.to_bits() {
            let rule = "an element was added and removed more often than there were times";
            return Err(DeltaError::Rule { rule });
        }
    }
    Ok(())
}

fn held(bytes: &[u8]) -> Elements {
    read(bytes).expect("the entry was checked when it was taken in")
}

/// Returns every element that anybody named.
fn joined(entries: &SiteEntries) -> Elements {
    let mut all = Elements::new();
    for (text, length) in entries.iter().flat_map(|(_, bytes)| held(bytes)) {
        let known = all.entry(text).or_default();
        *known = length.max(*known);
    }
    all
}

/// Returns the JSON array of the elements that are in the set, in order.
pub(super) fn shown(entries: &SiteEntries) -> Value {
    let all = joined(entries).into_iter();
    let living = all.filter(|(_, length)| length.is_alive());
    let mut living: Vec<Json> = living
        .map(|(text, _)| serde_json::from_str(&text).expect("an element is JSON"))
        .collect();
    living.sort_by(order);
    Value::text(&canonical(&Json::Array(living)))
}

/// Returns the elements that a value means; `None` for a blob, which means nothing.
///
/// What is no array is a set of one element, and what is no JSON is the text itself, so nothing
/// that was written is lost.
fn wanted(visible: &Value) -> Option<BTreeSet<String>> {
    let json = match visible {
        Value::Null => Json::Array(vec![]),
        Value::Integer(number) => Json::from(*number),
        Value::Real(real) => Json::from(real.get()),
        Value::Text(text) if text.trim_ascii().is_empty() => Json::Array(vec![]),
        Value::Text(text) => json::read(text),
        Value::Blob(_) => return None,
    };
    Some(match json {
        Json::Array(items) => items.iter().map(canonical).collect(),
        single => BTreeSet::from([canonical(&single)]),
    })
}

pub(super) fn edit(entries: &SiteEntries, site: SiteId, visible: &Value) -> Option<Vec<u8>> {
    if entries.is_empty() && *visible == Value::Null {
        return None;
    }
    let wanted = wanted(visible)?;
    let mut own = entries.entry(site).map(held).unwrap_or_default();
    let all = joined(entries);
    let mut is_news = entries.is_empty();
    for (text, length) in &all {
        if length.is_alive() && !wanted.contains(text) {
            own.insert(text.clone(), length.dead());
            is_news = true;
        }
    }
    for text in wanted {
        let length = all.get(&text).copied().unwrap_or(CausalLength::UNKNOWN);
        if !length.is_alive() {
            own.insert(text, length.born());
            is_news = true;
        }
    }
    is_news.then(|| write(&own))
}
