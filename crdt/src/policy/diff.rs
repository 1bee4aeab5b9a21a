//! What changed between two sequences: the shortest edit (Myers, *An O(ND) Difference Algorithm*,
//! 1986), up to a limit.

use std::ops::Range;

/// A part of the old sequence and what stands there in the new one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Replacement {
    pub(super) old: Range<usize>,
    pub(super) new: Range<usize>,
}

/// The most single edits that are looked for one by one. Beyond it, memory and time would grow with
/// the square, and what differs so much is one replacement.
const EDITS_MAX: usize = 400;

/// Returns the replacements that turn `old` into `new`, in order.
pub(super) fn replacements<T: PartialEq>(old: &[T], new: &[T]) -> Vec<Replacement> {
    let prefix = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[prefix..], &new[prefix..]);
    let pairs = old_rest.iter().rev().zip(new_rest.iter().rev());
    let suffix = pairs.take_while(|(a, b)| a == b).count();
    let old_rest = &old_rest[..old_rest.len() - suffix];
    let new_rest = &new_rest[..new_rest.len() - suffix];
    let whole = Replacement {
        old: prefix..prefix + old_rest.len(),
        new: prefix..prefix + new_rest.len(),
    };
    if old_rest.is_empty() && new_rest.is_empty() {
        return vec![];
    }
    if old_rest.is_empty() || new_rest.is_empty() {
        return vec![whole];
    }
    let Some(trace) = trace(old_rest, new_rest) else {
        return vec![whole];
    };
    let mut found: Vec<Replacement> = Vec::new();
    for (old_at, new_at, is_insertion) in steps(&trace, old_rest.len(), new_rest.len()) {
        let (old_at, new_at) = (prefix + old_at, prefix + new_at);
        let (old_end, new_end) = if is_insertion {
            (old_at, new_at + 1)
        } else {
            (old_at + 1, new_at)
        };
        match found.last_mut() {
            Some(last) if last.old.end == old_at && last.new.end == new_at => {
                (last.old.end, last.new.end) = (old_end, new_end);
            }
            _ => found.push(Replacement {
                old: old_at..old_end,
                new: new_at..new_end,
            }),
        }
    }
    found
}

/// For each number of edits, how far in `old` each diagonal reaches; `None` beyond the limit.
fn trace<T: PartialEq>(old: &[T], new: &[T]) -> Option<Vec<Vec<isize>>> {
    let (old_len, new_len) = (old.len() as isize, new.len() as isize);
    let most = (old.len() + new.len()).min(EDITS_MAX) as isize;
    let mut trace: Vec<Vec<isize>> = Vec::new();
    for edits in 0..=most {
        let mut reach = vec![0; 2 * edits as usize + 1];
        for diagonal in (-edits..=edits).step_by(2) {
            let mut old_at = match trace.last() {
                None => 0,
                Some(before) if goes_down(before, edits, diagonal) => {
                    reached(before, edits - 1, diagonal + 1)
                }
                Some(before) => reached(before, edits - 1, diagonal - 1) + 1,
            };
            while old_at < old_len
                && old_at - diagonal < new_len
                && old_at - diagonal >= 0
                && old[old_at as usize] == new[(old_at - diagonal) as usize]
            {
                old_at += 1;
            }
            reach[(diagonal + edits) as usize] = old_at;
            if old_at >= old_len && old_at - diagonal >= new_len {
                trace.push(reach);
                return Some(trace);
            }
        }
        trace.push(reach);
    }
    None
}

fn reached(reach: &[isize], edits: isize, diagonal: isize) -> isize {
    reach[(diagonal + edits) as usize]
}

/// Whether the last edit on a diagonal is an insertion.
fn goes_down(before: &[isize], edits: isize, diagonal: isize) -> bool {
    diagonal == -edits
        || (diagonal != edits
            && reached(before, edits - 1, diagonal - 1) < reached(before, edits - 1, diagonal + 1))
}

/// Returns the single edits in order: places in both sequences, and whether it inserts.
fn steps(trace: &[Vec<isize>], old_len: usize, new_len: usize) -> Vec<(usize, usize, bool)> {
    let (mut old_at, mut new_at) = (old_len as isize, new_len as isize);
    let mut steps = Vec::new();
    for edits in (1..trace.len() as isize).rev() {
        let before = &trace[edits as usize - 1];
        let diagonal = old_at - new_at;
        let is_insertion = goes_down(before, edits, diagonal);
        let from = if is_insertion {
            diagonal + 1
        } else {
            diagonal - 1
        };
        old_at = reached(before, edits - 1, from);
        new_at = old_at - from;
        steps.push((old_at as usize, new_at as usize, is_insertion));
    }
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn replacements_turn_the_old_into_the_new(
            old in prop::collection::vec(0u8..4, 0..30),
            new in prop::collection::vec(0u8..4, 0..30),
        ) {
            let mut made = old.clone();
            let found = replacements(&old, &new);
            prop_assert!(found.is_sorted_by(|a, b| a.old.end <= b.old.start));
            for Replacement { old, new: by } in found.into_iter().rev() {
                made.splice(old, new[by].iter().copied());
            }
            prop_assert_eq!(made, new);
        }
    }

    #[test]
    fn two_edits_far_apart_are_two_and_what_differs_too_much_is_one() {
        let old: Vec<u32> = (0..100).collect();
        let mut new = old.clone();
        new[10] = 1_000;
        new.insert(90, 1_001);
        assert_eq!(replacements(&old, &new).len(), 2);
        let other: Vec<u32> = (5_000..5_300).collect();
        assert_eq!(replacements(&old, &other).len(), 1);
        assert!(replacements(&old, &old).is_empty());
    }
}
