//! The greatest and the least value: each site's entry is the most extreme one it wrote.
//!
//! Values are ordered as SQLite's users expect: blobs before texts before numbers, and numbers by
//! size whether they are whole or not. Of equal numbers the whole one is the greater, so that
//! every replica shows the same. `NULL` is no value.

use std::cmp::Ordering;

use super::{DeltaError, SiteEntries};
use crate::codec::{Reader, put_value};
use crate::{DecodeError, Value};

fn read(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = Reader::over(bytes);
    let value = reader.value()?;
    reader.end()?;
    Ok(value)
}

pub(super) fn check(bytes: &[u8]) -> Result<(), DeltaError> {
    match read(bytes)? {
        Value::Null => Err(DeltaError::Rule {
            rule: "NULL is neither the greatest nor the least value",
        }),
        _ => Ok(()),
    }
}

fn values(entries: &SiteEntries) -> impl Iterator<Item = Value> {
    let held = |bytes| read(bytes).expect("the entry was checked when it was taken in");
    entries.iter().map(move |(_, bytes)| held(bytes))
}

pub(super) fn greatest(entries: &SiteEntries) -> Value {
    values(entries).max_by(order).unwrap_or(Value::Null)
}

pub(super) fn least(entries: &SiteEntries) -> Value {
    values(entries).min_by(order).unwrap_or(Value::Null)
}

/// Returns the entry for a value that lies beyond what is shown in the given direction.
pub(super) fn edit(entries: &SiteEntries, visible: &Value, beyond: Ordering) -> Option<Vec<u8>> {
    if *visible == Value::Null {
        return None;
    }
    let is_beyond = match entries.shown() {
        None => true,
        Some(shown) => order(visible, &shown) == beyond,
    };
    is_beyond.then(|| {
        let mut bytes = Vec::new();
        put_value(&mut bytes, visible);
        bytes
    })
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Integer(whole), Value::Real(real)) => {
            against(*whole, real.get()).then(Ordering::Greater)
        }
        (Value::Real(real), Value::Integer(whole)) => {
            against(*whole, real.get()).reverse().then(Ordering::Less)
        }
        _ => a.cmp(b),
    }
}

/// Compares a whole number with a real exactly, where converting either would round.
fn against(whole: i64, real: f64) -> Ordering {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if real >= BEYOND {
        return Ordering::Less;
    }
    if real < -BEYOND {
        return Ordering::Greater;
    }
    let below = real.floor();
    let fraction = if real > below {
        Ordering::Less
    } else {
        Ordering::Equal
    };
    whole.cmp(&(below as i64)).then(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Real;

    #[test]
    fn numbers_are_ordered_by_size_whatever_their_type() {
        let real = |number| Value::Real(Real::new(number).expect("the number is not NaN"));
        let ascending = [
            Value::Blob(vec![0xff]),
            Value::text("z"),
            real(f64::NEG_INFINITY),
            Value::Integer(i64::MIN),
            real(-1.5),
            Value::Integer(-1),
            real(2.0),
            Value::Integer(2),
            real(2.5),
            Value::Integer(9_007_199_254_740_993),
            Value::Integer(i64::MAX),
            real(9_223_372_036_854_775_808.0),
            real(f64::INFINITY),
        ];
        assert!(ascending.is_sorted_by(|a, b| order(a, b).is_lt()));
        assert!(
            ascending
                .iter()
                .rev()
                .is_sorted_by(|a, b| order(a, b).is_gt())
        );
    }
}
