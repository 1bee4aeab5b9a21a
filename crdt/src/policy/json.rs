//! JSON in one form: keys in order, no spaces, so that equal values are equal texts.

use std::cmp::Ordering;

use serde_json::Value as Json;

/// Reads a JSON value that may stand inside an array or an object and still be read: JSON is read
/// 127 levels deep.
pub(super) fn parse(text: &[u8]) -> Option<Json> {
    let json: Json = serde_json::from_slice(text).ok()?;
    if matches!(json, Json::Array(_) | Json::Object(_)) {
        let inside = [b"[", text, b"]"].concat();
        serde_json::from_slice::<Json>(&inside).ok()?;
    }
    Some(json)
}

/// Returns the JSON value that a text is; one that is no JSON is a text.
pub(super) fn read(text: &[u8]) -> Json {
    parse(text).unwrap_or_else(|| Json::String(String::from_utf8_lossy(text).into_owned()))
}

/// Returns a value's one text.
pub(super) fn canonical(json: &Json) -> String {
    let mut text = String::new();
    put(&mut text, json);
    text
}

fn put(text: &mut String, json: &Json) {
    match json {
        Json::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                put(text, item);
            }
            text.push(']');
        }
        Json::Object(fields) => {
            // The order of the map depends on a feature that any crate may switch on.
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_unstable();
            text.push('{');
            for (at, key) in keys.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                put(text, &Json::String(key.clone()));
                text.push(':');
                put(text, &fields[key]);
            }
            text.push('}');
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            text.push_str(&json.to_string());
        }
    }
}

/// Compares two values: null, then booleans, numbers by size, texts, arrays, objects.
pub(super) fn order(a: &Json, b: &Json) -> Ordering {
    let rank = |json: &Json| match json {
        Json::Null => 0,
        Json::Bool(_) => 1,
        Json::Number(_) => 2,
        Json::String(_) => 3,
        Json::Array(_) => 4,
        Json::Object(_) => 5,
    };
    let size = |json: &Json| json.as_f64().unwrap_or(0.0);
    rank(a)
        .cmp(&rank(b))
        .then_with(|| size(a).total_cmp(&size(b)))
        .then_with(|| match (a, b) {
            (Json::String(a), Json::String(b)) => a.cmp(b),
            _ => canonical(a).cmp(&canonical(b)),
        })
}
