//! What a cell holds, with the total order that settles ties.

/// A value as SQLite stores it.
///
/// The derived order is the tie-breaker of the merge: by type first, `NULL < BLOB < TEXT < REAL <
/// INTEGER`, then numbers by size and text and blobs by bytes without collation. It is the order
/// of cr-sqlite, so that both settle a tie alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// SQL `NULL`.
    Null,
    /// Bytes.
    Blob(Vec<u8>),
    /// Text as bytes: SQLite does not check that text is UTF-8, and what an application stored
    /// must arrive unchanged.
    Text(Vec<u8>),
    /// A number that is not NaN.
    Real(Real),
    /// A whole number.
    Integer(i64),
}

impl Value {
    /// Returns a text value.
    pub fn text(text: &str) -> Self {
        Value::Text(text.as_bytes().to_vec())
    }
}

/// A floating-point number with a total order: never NaN, and `-0.0` is `0.0`.
///
/// SQLite turns NaN into `NULL` and compares both zeros as equal; a replica that kept either apart
/// could differ from its peers in its digest alone.
#[derive(Clone, Copy, Debug)]
pub struct Real(f64);

impl Real {
    /// Returns the number, or `None` for NaN.
    pub fn new(number: f64) -> Option<Self> {
        if number.is_nan() {
            return None;
        }
        Some(Real(if number == 0.0 { 0.0 } else { number }))
    }

    /// Returns the number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Real {}

impl PartialOrd for Real {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Real {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_ordered_by_type_first() {
        let real = |number| Value::Real(Real::new(number).expect("the number is not NaN"));
        let ascending = [
            Value::Null,
            Value::Blob(vec![]),
            Value::Blob(vec![0xff]),
            Value::text(""),
            Value::text("a"),
            Value::text("ab"),
            real(-1.5),
            real(2.5),
            Value::Integer(-7),
            Value::Integer(3),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn zeros_are_one_value_and_nan_is_none() {
        assert_eq!(Real::new(-0.0), Real::new(0.0));
        assert_eq!(Real::new(-0.0).map(|zero| zero.get().to_bits()), Some(0));
        assert_eq!(Real::new(f64::NAN), None);
    }
}
