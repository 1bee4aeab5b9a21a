//! Texts: what the user did is told from the text before and the text after.

use std::borrow::Cow;

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ObjId, PatchAction};

use super::diff::replacements;
use super::history::Edit;
use crate::Value;

/// Returns the text that a value means.
pub(super) fn wanted(visible: &Value) -> Cow<'_, str> {
    match visible {
        Value::Null | Value::Blob(_) => Cow::Borrowed(""),
        Value::Integer(number) => Cow::Owned(number.to_string()),
        Value::Real(real) => Cow::Owned(format!("{:?}", real.get())),
        Value::Text(text) => String::from_utf8_lossy(text),
    }
}

/// Changes what is shown as a text changed, and returns whether that is possible: other things than
/// texts may be made of it elsewhere.
pub(super) fn follow(shown: &mut String, action: &PatchAction) -> bool {
    let (start, end, added) = match action {
        PatchAction::SpliceText { index, value, .. } => (*index, *index, value.make_string()),
        PatchAction::DeleteSeq { index, length } => (*index, index + length, String::new()),
        _ => return false,
    };
    let is_there = shown.is_char_boundary(start) && shown.is_char_boundary(end);
    if is_there {
        shown.replace_range(start..end, &added);
    }
    is_there
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
    let mut prefix = prefix_bytes(old.as_bytes(), new.as_bytes());
    while !old.is_char_boundary(prefix) || !new.is_char_boundary(prefix) {
        prefix -= 1;
    }
    let (old, new) = (&old[prefix..], &new[prefix..]);
    let mut suffix = suffix_bytes(old.as_bytes(), new.as_bytes());
    while !old.is_char_boundary(old.len() - suffix) || !new.is_char_boundary(new.len() - suffix) {
        suffix -= 1;
    }
    (
        start + prefix,
        &old[..old.len() - suffix],
        &new[..new.len() - suffix],
    )
}

/// How many bytes are compared at once where texts are likely to be the same.
const BLOCK_BYTES: usize = 64;

/// Returns how many bytes two texts have in common at their beginning.
fn prefix_bytes(old: &[u8], new: &[u8]) -> usize {
    let blocks = old
        .chunks_exact(BLOCK_BYTES)
        .zip(new.chunks_exact(BLOCK_BYTES));
    let start = blocks.take_while(|(old, new)| old == new).count() * BLOCK_BYTES;
    let rest = old[start..].iter().zip(&new[start..]);
    start + rest.take_while(|(old, new)| old == new).count()
}

/// Returns how many bytes two texts have in common at their end.
fn suffix_bytes(old: &[u8], new: &[u8]) -> usize {
    let blocks = old
        .rchunks_exact(BLOCK_BYTES)
        .zip(new.rchunks_exact(BLOCK_BYTES));
    let end = blocks.take_while(|(old, new)| old == new).count() * BLOCK_BYTES;
    let rest = old[..old.len() - end].iter().rev();
    let rest = rest.zip(new[..new.len() - end].iter().rev());
    end + rest.take_while(|(old, new)| old == new).count()
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
