//! Texts: what the user did is told from the text before and the text after.

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ObjId};

use super::diff::replacements;
use super::history::Edit;
use crate::Value;

/// Returns the text that a value means.
pub(super) fn wanted(visible: &Value) -> String {
    match visible {
        Value::Null | Value::Blob(_) => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Real(real) => format!("{:?}", real.get()),
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
    }
}

/// Changes a text from what it shows to what is wanted, in few and small steps: one where one part
/// changed, and otherwise word by word, so that edits elsewhere keep their places.
pub(super) fn change(
    tx: &mut Edit<'_>,
    text: &ObjId,
    shown: &str,
    wanted: &str,
) -> Result<(), AutomergeError> {
    let (start, shown, wanted) = trimmed(0, shown, wanted);
    if shown.is_empty() || wanted.is_empty() {
        return splice(tx, text, start, shown, wanted);
    }
    let (old, new) = (words(shown), words(wanted));
    let bytes = |words: &[&str]| words.iter().map(|word| word.len()).sum::<usize>();
    // From the back, so that the places before stay what they are.
    for replacement in replacements(&old, &new).into_iter().rev() {
        let before = bytes(&old[..replacement.old.start]);
        let removed = bytes(&old[replacement.old.clone()]);
        let new_before = bytes(&new[..replacement.new.start]);
        let added = bytes(&new[replacement.new.clone()]);
        let (at, removed, added) = trimmed(
            start + before,
            &shown[before..before + removed],
            &wanted[new_before..new_before + added],
        );
        splice(tx, text, at, removed, added)?;
    }
    Ok(())
}

fn splice(
    tx: &mut Edit<'_>,
    text: &ObjId,
    at: usize,
    removed: &str,
    added: &str,
) -> Result<(), AutomergeError> {
    if removed.is_empty() && added.is_empty() {
        return Ok(());
    }
    tx.splice_text(text, at, removed.len() as isize, added)
}

/// Takes from two texts what they have in common at both ends.
fn trimmed<'a>(start: usize, old: &'a str, new: &'a str) -> (usize, &'a str, &'a str) {
    let same = |(a, b): &(u8, u8)| a == b;
    let mut prefix = old.bytes().zip(new.bytes()).take_while(same).count();
    while !old.is_char_boundary(prefix) || !new.is_char_boundary(prefix) {
        prefix -= 1;
    }
    let (old, new) = (&old[prefix..], &new[prefix..]);
    let pairs = old.bytes().rev().zip(new.bytes().rev());
    let mut suffix = pairs.take_while(same).count();
    while !old.is_char_boundary(old.len() - suffix) || !new.is_char_boundary(new.len() - suffix) {
        suffix -= 1;
    }
    (
        start + prefix,
        &old[..old.len() - suffix],
        &new[..new.len() - suffix],
    )
}

/// Cuts a text into words, runs of spaces, and single other characters.
fn words(text: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        c if c.is_alphanumeric() => 1,
        ' ' | '\t' => 2,
        _ => 0,
    };
    let mut words = Vec::new();
    let mut start = 0;
    let mut before = 0;
    for (at, c) in text.char_indices() {
        if at > start && (kind(c) == 0 || kind(c) != before) {
            words.push(&text[start..at]);
            start = at;
        }
        before = kind(c);
    }
    if start < text.len() {
        words.push(&text[start..]);
    }
    words
}
