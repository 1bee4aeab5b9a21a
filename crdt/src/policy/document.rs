//! Documents: a JSON object whose fields, items and texts merge each for itself.
//!
//! A text with a space or a line break in it is prose, whose edits merge; another one is a word,
//! which is replaced as a whole, so that two choices from a list do not become a mixture of both.

use automerge::transaction::Transactable;
use automerge::{
    Automerge, AutomergeError, ObjId, ObjType, Prop, ROOT, ReadDoc, ScalarValue, Value as Held,
};
use serde_json::{Map, Number, Value as Json};

use super::diff::replacements;
use super::history::Edit;
use super::json::{self, canonical};
use super::text;
use crate::Value;

/// How deep a document is shown: as deep as JSON is read, so only a peer can make it deeper.
const DEPTH_MAX: usize = 126;

/// Returns the JSON text of a document, its fields in order.
pub(super) fn render(doc: &Automerge) -> String {
    canonical(&object(doc, &ROOT, 0))
}

/// Changes a document to what a value means.
pub(super) fn change(tx: &mut Edit<'_>, visible: &Value) -> Result<(), AutomergeError> {
    change_fields(tx, &ROOT, &wanted(visible))
}

/// Returns the fields that a value means. What is no object is the field without a name, so nothing
/// that was written is lost.
fn wanted(visible: &Value) -> Map<String, Json> {
    let json = match visible {
        Value::Null | Value::Blob(_) => return Map::new(),
        Value::Integer(number) => Json::from(*number),
        Value::Real(real) => Json::from(real.get()),
        Value::Text(text) if text.trim_ascii().is_empty() => return Map::new(),
        Value::Text(text) => match serde_json::from_slice(text) {
            Ok(Json::Object(fields)) => return fields,
            _ => json::read(text),
        },
    };
    Map::from_iter([(String::new(), json)])
}

fn change_fields(
    tx: &mut Edit<'_>,
    map: &ObjId,
    wanted: &Map<String, Json>,
) -> Result<(), AutomergeError> {
    let held: Vec<String> = tx.keys(map).collect();
    for key in held {
        if !wanted.contains_key(&key) {
            tx.delete(map, key)?;
        }
    }
    let mut keys: Vec<&String> = wanted.keys().collect();
    keys.sort_unstable();
    for key in keys {
        change_value(tx, map, Prop::Map(key.clone()), &wanted[key])?;
    }
    Ok(())
}

/// Changes what stands at a place, keeping the object that is there if it is of the same kind.
fn change_value(
    tx: &mut Edit<'_>,
    parent: &ObjId,
    place: Prop,
    wanted: &Json,
) -> Result<(), AutomergeError> {
    let held = tx.get(parent, place.clone())?;
    let held = held.map(|(held, id)| (held.to_objtype(), id));
    match (held, wanted) {
        (Some((Some(ObjType::Map), id)), Json::Object(fields)) => change_fields(tx, &id, fields),
        (Some((Some(ObjType::List), id)), Json::Array(items)) => change_items(tx, &id, items),
        (Some((Some(ObjType::Text), id)), Json::String(wanted)) => {
            let shown = tx.text(&id)?;
            text::change(tx, &id, &shown, wanted)
        }
        (Some((None, _)), _)
            if scalar(wanted).is_some_and(|wanted| holds(tx, parent, &place, &wanted)) =>
        {
            Ok(())
        }
        _ => match (scalar(wanted), kind(wanted)) {
            (Some(scalar), _) => tx.put(parent, place, scalar),
            (None, kind) => {
                let id = tx.put_object(parent, place, kind)?;
                fill(tx, &id, wanted)
            }
        },
    }
}

fn holds(tx: &Edit<'_>, parent: &ObjId, place: &Prop, wanted: &ScalarValue) -> bool {
    match tx.get(parent, place.clone()) {
        Ok(Some((Held::Scalar(held), _))) => held.as_ref() == wanted,
        _ => false,
    }
}

fn change_items(tx: &mut Edit<'_>, list: &ObjId, wanted: &[Json]) -> Result<(), AutomergeError> {
    let held: Vec<String> = (0..tx.length(list))
        .map(|at| canonical(&item(tx, list, at.into(), 0)))
        .collect();
    let texts: Vec<String> = wanted.iter().map(canonical).collect();
    // From the back, so that the places before stay what they are.
    for replacement in replacements(&held, &texts).into_iter().rev() {
        let (old, new) = (replacement.old, replacement.new);
        let both = old.len().min(new.len());
        for at in (old.start + both..old.end).rev() {
            tx.delete(list, at)?;
        }
        for at in (new.start + both..new.end).rev() {
            insert(tx, list, old.start + both, &wanted[at])?;
        }
        for at in (0..both).rev() {
            change_value(tx, list, Prop::Seq(old.start + at), &wanted[new.start + at])?;
        }
    }
    Ok(())
}

fn insert(tx: &mut Edit<'_>, list: &ObjId, at: usize, wanted: &Json) -> Result<(), AutomergeError> {
    match scalar(wanted) {
        Some(scalar) => tx.insert(list, at, scalar),
        None => {
            let id = tx.insert_object(list, at, kind(wanted))?;
            fill(tx, &id, wanted)
        }
    }
}

fn fill(tx: &mut Edit<'_>, id: &ObjId, wanted: &Json) -> Result<(), AutomergeError> {
    match wanted {
        Json::Object(fields) => change_fields(tx, id, fields),
        Json::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(at, item)| insert(tx, id, at, item)),
        Json::String(prose) => tx.splice_text(id, 0, 0, prose),
        Json::Null | Json::Bool(_) | Json::Number(_) => Ok(()),
    }
}

fn kind(wanted: &Json) -> ObjType {
    match wanted {
        Json::Object(_) => ObjType::Map,
        Json::Array(_) => ObjType::List,
        _ => ObjType::Text,
    }
}

/// Returns what is replaced as a whole; `None` for what has parts.
fn scalar(json: &Json) -> Option<ScalarValue> {
    match json {
        Json::Null => Some(ScalarValue::Null),
        Json::Bool(is) => Some(ScalarValue::Boolean(*is)),
        Json::Number(number) => Some(match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => ScalarValue::Int(whole),
            (None, Some(whole)) => ScalarValue::Uint(whole),
            (None, None) => ScalarValue::F64(number.as_f64().unwrap_or_default()),
        }),
        Json::String(text) if !text.contains(char::is_whitespace) => {
            Some(ScalarValue::Str(text.as_str().into()))
        }
        Json::String(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

fn object(doc: &impl ReadDoc, map: &ObjId, depth: usize) -> Json {
    let field = |key: String| {
        let held = item(doc, map, Prop::Map(key.clone()), depth);
        (key, held)
    };
    Json::Object(doc.keys(map).map(field).collect())
}

fn item(doc: &impl ReadDoc, parent: &ObjId, place: Prop, depth: usize) -> Json {
    let Ok(Some((held, id))) = doc.get(parent, place) else {
        return Json::Null;
    };
    let depth = depth + 1;
    match held {
        Held::Object(_) if depth > DEPTH_MAX => Json::Null,
        Held::Object(ObjType::Map | ObjType::Table) => object(doc, &id, depth),
        Held::Object(ObjType::List) => (0..doc.length(&id))
            .map(|at| item(doc, &id, at.into(), depth))
            .collect(),
        Held::Object(ObjType::Text) => Json::String(doc.text(&id).unwrap_or_default()),
        Held::Scalar(scalar) => match scalar.as_ref() {
            ScalarValue::Str(text) => Json::String(text.to_string()),
            ScalarValue::Int(number) | ScalarValue::Timestamp(number) => Json::from(*number),
            ScalarValue::Uint(number) => Json::from(*number),
            ScalarValue::F64(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
            ScalarValue::Counter(counter) => Json::from(i64::from(counter)),
            ScalarValue::Boolean(is) => Json::from(*is),
            // No replica writes these.
            ScalarValue::Bytes(_) | ScalarValue::Unknown { .. } | ScalarValue::Null => Json::Null,
        },
    }
}
