//! Keys that put rows in an order of the user's, with room between any two of them.
//!
//! A key is a whole number and a fraction in base 95, written so that keys compare as texts do.
//! The digits are the printable characters of ASCII, from the space to `~`. The first character
//! says how many digits the whole number has: `a` to `z` one to 26 above zero, `Z` down to `A` one
//! to 26 below it. What follows the whole number is the fraction, which never ends with a space.
//! So a list that only grows at its ends has short keys, and a key between two others is theirs
//! with a digit more.

/// The most bytes a key may have: half a million moves into the same gap.
pub(super) const ORDER_KEY_BYTES_MAX: usize = 1 << 16;

/// The key of a list's first row.
pub(super) const ZERO: &str = "a ";
/// The least whole number, which is no key itself: nothing could be put before it.
pub(super) const LEAST: &str = "A                          ";

const FIRST: u8 = b' ';
const LAST: u8 = b'~';
const DIGITS: u8 = LAST - FIRST + 1;

/// Why there is no key between two others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OrderKeyError {
    #[error("an order key begins with a letter")]
    Head,
    #[error("an order key has as many digits as its first letter says")]
    Short,
    #[error("an order key has only printable characters of ASCII")]
    Digit,
    #[error("an order key does not end with a space after its whole number")]
    Trailing,
    #[error("this order key is the least one, and nothing goes before it")]
    Least,
    #[error("an order key has at most {ORDER_KEY_BYTES_MAX} bytes")]
    Long,
    #[error("the first order key must be less than the second")]
    Order,
}

/// Returns a key after `low` and before `high`, where `None` is the beginning or the end.
pub(super) fn key_between(low: Option<&str>, high: Option<&str>) -> Result<String, OrderKeyError> {
    let low = low.map(OrderKey::parse).transpose()?;
    let high = high.map(OrderKey::parse).transpose()?;
    let key = match (low, high) {
        (None, None) => ZERO.as_bytes().to_vec(),
        (Some(low), None) => after(low),
        (None, Some(high)) => before(high),
        (Some(low), Some(high)) if low < high => between(low, high),
        (Some(_), Some(_)) => return Err(OrderKeyError::Order),
    };
    if key.len() > ORDER_KEY_BYTES_MAX {
        return Err(OrderKeyError::Long);
    }
    Ok(String::from_utf8(key).expect("digits are ASCII"))
}

/// A key in its parts. The derived order is that of the texts: a whole number's length is in its
/// head, so none is the beginning of another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct OrderKey<'a> {
    whole: &'a [u8],
    fraction: &'a [u8],
}

impl<'a> OrderKey<'a> {
    fn parse(text: &'a str) -> Result<Self, OrderKeyError> {
        let bytes = text.as_bytes();
        if bytes.len() > ORDER_KEY_BYTES_MAX {
            return Err(OrderKeyError::Long);
        }
        let length = match bytes.first() {
            Some(head @ b'a'..=b'z') => head - b'a' + 2,
            Some(head @ b'A'..=b'Z') => b'Z' - head + 2,
            _ => return Err(OrderKeyError::Head),
        };
        if !bytes.iter().all(|byte| (FIRST..=LAST).contains(byte)) {
            return Err(OrderKeyError::Digit);
        }
        let parts = bytes.split_at_checked(length.into());
        let (whole, fraction) = parts.ok_or(OrderKeyError::Short)?;
        if fraction.last() == Some(&FIRST) {
            return Err(OrderKeyError::Trailing);
        }
        if text == LEAST {
            return Err(OrderKeyError::Least);
        }
        Ok(OrderKey { whole, fraction })
    }
}

fn after(low: OrderKey<'_>) -> Vec<u8> {
    increment(low.whole).unwrap_or_else(|| joined(low.whole, &midpoint(low.fraction, None)))
}

fn before(high: OrderKey<'_>) -> Vec<u8> {
    if high.whole == LEAST.as_bytes() {
        return joined(high.whole, &midpoint(&[], Some(high.fraction)));
    }
    if !high.fraction.is_empty() {
        return high.whole.to_vec();
    }
    let whole = decrement(high.whole);
    if whole == LEAST.as_bytes() {
        return joined(&whole, &midpoint(&[], None));
    }
    whole
}

fn between(low: OrderKey<'_>, high: OrderKey<'_>) -> Vec<u8> {
    if low.whole == high.whole {
        return joined(low.whole, &midpoint(low.fraction, Some(high.fraction)));
    }
    match increment(low.whole) {
        Some(whole) if whole < joined(high.whole, high.fraction) => whole,
        _ => joined(low.whole, &midpoint(low.fraction, None)),
    }
}

fn joined(whole: &[u8], fraction: &[u8]) -> Vec<u8> {
    [whole, fraction].concat()
}

/// Returns the next whole number, if there is one.
fn increment(whole: &[u8]) -> Option<Vec<u8>> {
    let mut next = whole.to_vec();
    for digit in next[1..].iter_mut().rev() {
        if *digit < LAST {
            *digit += 1;
            return Some(next);
        }
        *digit = FIRST;
    }
    match whole[0] {
        b'z' => return None,
        b'Z' => return Some(ZERO.as_bytes().to_vec()),
        b'a'.. => next.push(FIRST),
        _ => _ = next.pop(),
    }
    next[0] += 1;
    Some(next)
}

/// Returns the whole number before one that is not the least.
fn decrement(whole: &[u8]) -> Vec<u8> {
    let mut next = whole.to_vec();
    for digit in next[1..].iter_mut().rev() {
        if *digit > FIRST {
            *digit -= 1;
            return next;
        }
        *digit = LAST;
    }
    match whole[0] {
        b'a' => return vec![b'Z', LAST],
        b'b'.. => _ = next.pop(),
        _ => next.push(LAST),
    }
    next[0] -= 1;
    next
}

/// Returns a fraction between two others, of which the lower may be empty and the higher absent.
/// It never ends with the least digit, so there is always room below it.
fn midpoint(mut low: &[u8], mut high: Option<&[u8]>) -> Vec<u8> {
    let mut middle = Vec::new();
    loop {
        if let Some(above) = high {
            let padded = low.iter().copied().chain(std::iter::repeat(FIRST));
            let same = padded.zip(above).take_while(|(low, high)| low == *high);
            let same = same.count();
            middle.extend_from_slice(&above[..same]);
            low = low.get(same..).unwrap_or_default();
            high = Some(&above[same..]);
        }
        let digit = low.first().map_or(0, |digit| digit - FIRST);
        let limit = match high {
            Some(high) => high.first().map_or(0, |digit| digit - FIRST),
            None => DIGITS,
        };
        if limit > digit + 1 {
            middle.push(FIRST + (digit + limit).div_ceil(2));
            return middle;
        }
        if let Some([first, _, ..]) = high {
            middle.push(*first);
            return middle;
        }
        middle.push(FIRST + digit);
        (low, high) = (low.get(1..).unwrap_or_default(), None);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(low: &str, high: &str) -> Result<String, OrderKeyError> {
        let end = |key| (!str::is_empty(key)).then_some(key);
        key_between(end(low), end(high))
    }

    #[test]
    fn keys_between_others() {
        for (low, high, expected) in [
            ("", "", "a "),
            ("a ", "", "a!"),
            ("a!", "", "a\""),
            ("", "a ", "Z~"),
            ("", "Z~", "Z}"),
            ("a ", "a!", "a P"),
            ("a ", "a P", "a 8"),
            ("a P", "a!", "a h"),
            ("Z~", "a!", "a "),
            ("Z~", "a ", "Z~P"),
            ("a~", "", "b  "),
            ("", "b  ", "a~"),
            ("Z ", "Z!", "Z P"),
            ("", "Z ", "Y~~"),
            ("Y~~", "", "Z "),
            ("", "a P", "a "),
            ("a !", "a !!", "a ! P"),
            ("a !", "a \"!", "a \""),
            ("a P", "a Q", "a PP"),
            ("a  ~", "a !", "a  ~P"),
        ] {
            assert_eq!(text(low, high).as_deref(), Ok(expected), "{low:?} {high:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        use OrderKeyError::*;
        let long = format!("a {}", "P".repeat(ORDER_KEY_BYTES_MAX));
        for (low, high, error) in [
            ("1", "", Head),
            ("", "\u{e4}", Head),
            ("b ", "", Short),
            ("a \u{e4}", "", Digit),
            ("a\n", "", Digit),
            ("a  ", "", Trailing),
            ("", LEAST, Least),
            ("a!", "a ", Order),
            ("a ", "a ", Order),
            (&long, "", Long),
        ] {
            assert_eq!(text(low, high), Err(error), "{low:?} {high:?}");
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_ends_of_the_list() {
        let most = format!("z{}", "~".repeat(26));
        let beyond = text(&most, "").expect("there is a key");
        assert!(beyond > most);
        assert!(text(&beyond, "").expect("and another") > beyond);
        let mut low = format!("A{}!", " ".repeat(25));
        for _ in 0..100 {
            let lower = text("", &low).expect("there is a key");
            assert!(lower < low, "{lower:?} {low:?}");
            low = lower;
        }
    }

    #[test]
    fn a_list_that_grows_at_its_ends_has_short_keys() {
        let (mut low, mut high) = (ZERO.to_owned(), ZERO.to_owned());
        for _ in 0..20_000 {
            low = text("", &low).expect("there is a key");
            high = text(&high, "").expect("there is a key");
        }
        assert_eq!((low.len(), high.len()), (4, 4));
    }

    proptest! {
        #[test]
        fn a_key_lies_strictly_between(places in prop::collection::vec(any::<u16>(), 1..200)) {
            let mut keys: Vec<String> = Vec::new();
            for place in places {
                let at = usize::from(place) % (keys.len() + 1);
                let low = at.checked_sub(1).map(|at| keys[at].as_str());
                let key = key_between(low, keys.get(at).map(String::as_str));
                keys.insert(at, key.expect("our own keys are keys"));
            }
            prop_assert!(keys.is_sorted_by(|a, b| a < b));
            prop_assert!(keys.iter().all(|key| key.len() <= 40), "{keys:?}");
        }

        #[test]
        fn any_texts_give_a_key_between_them_or_an_error(low in "[A-Za-z][ -~]{0,40}", high in "\\PC{0,9}|[A-Za-z][ -~]{0,40}") {
            for (low, high) in [(&low, &high), (&high, &low)] {
                if let Ok(key) = key_between(Some(low), Some(high)) {
                    prop_assert!(*low < key && key < *high);
                    prop_assert!(key_between(Some(&key), Some(high)).is_ok());
                }
                if let Ok(key) = key_between(Some(low), None) {
                    prop_assert!(*low < key && key_between(Some(&key), None).is_ok());
                }
                if let Ok(key) = key_between(None, Some(high)) {
                    prop_assert!(key < *high && key_between(None, Some(&key)).is_ok());
                }
            }
        }
    }
}
