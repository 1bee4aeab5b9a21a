//! Runs of touched rows: what was noted row by row, put together.

use std::collections::{BTreeMap, BTreeSet};

use crate::births::between;
use crate::mask::Mask;
use crate::table::RowKey;

/// Rows that follow each other, with the lanes that were written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) first: RowKey,
    pub(super) last: RowKey,
    pub(super) mask: Mask,
}

impl Run {
    pub(super) fn numbers(&self) -> (i64, i64) {
        match (&self.first, &self.last) {
            (RowKey::Rowid(first), RowKey::Rowid(last)) => (*first, *last),
            _ => unreachable!("a table whose key is the rowid has numbers as keys"),
        }
    }
}

/// Returns the runs of rows with numbers without those in `taken`, which are in order.
pub(super) fn without(runs: &[Run], taken: &[(i64, i64)]) -> Vec<Run> {
    let mut left = Vec::new();
    for run in runs {
        let parts = between(run.numbers(), taken).into_iter();
        left.extend(parts.map(|(first, last)| Run {
            first: RowKey::Rowid(first),
            last: RowKey::Rowid(last),
            mask: run.mask.clone(),
        }));
    }
    left
}

/// Has runs name rows by the ids that they moved to, one after the other.
pub(super) fn followed(runs: &[Run], moves: &[(i64, i64)]) -> Vec<Run> {
    let mut moved: BTreeMap<i64, Mask> = BTreeMap::new();
    let mut taken: BTreeSet<(i64, i64)> = BTreeSet::new();
    for (from, to) in moves {
        let after = runs.partition_point(|run| run.numbers().0 <= *from);
        let before = after.checked_sub(1).map(|at| &runs[at]);
        let written =
            before.filter(|run| run.numbers().1 >= *from && !taken.contains(&(*from, *from)));
        let mask = moved.remove(from).or(written.map(|run| run.mask.clone()));
        taken.extend([(*from, *from), (*to, *to)]);
        moved.extend(mask.map(|mask| (*to, mask)));
    }
    let taken: Vec<_> = taken.into_iter().collect();
    let mut left = without(runs, &taken);
    for (id, mask) in moved {
        push(&mut left, RowKey::Rowid(id), mask);
    }
    left.sort_by(|a, b| a.first.cmp(&b.first));
    left
}

/// Adds a row to the last run if it follows it.
pub(super) fn push(runs: &mut Vec<Run>, place: RowKey, mask: Mask) {
    if let (Some(run), RowKey::Rowid(rowid)) = (runs.last_mut(), &place)
        && let RowKey::Rowid(last) = &mut run.last
        && run.mask == mask
        && last.checked_add(1) == Some(*rowid)
    {
        *last = *rowid;
        return;
    }
    runs.push(Run {
        first: place.clone(),
        last: place,
        mask,
    });
}

/// Sorts runs and joins the masks of rows that several of them name.
pub(super) fn disjoint(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_by(|a, b| a.first.cmp(&b.first));
    if runs.is_sorted_by(|a, b| a.last < b.first) {
        return runs;
    }
    let mut masks: BTreeMap<RowKey, Mask> = BTreeMap::new();
    for run in runs {
        let mut add = |place| masks.entry(place).or_default().join(&run.mask);
        match (&run.first, &run.last) {
            (RowKey::Rowid(first), RowKey::Rowid(last)) => {
                (*first..=*last).for_each(|rowid| add(RowKey::Rowid(rowid)));
            }
            _ => add(run.first),
        }
    }
    let mut runs = Vec::new();
    for (place, mask) in masks {
        push(&mut runs, place, mask);
    }
    runs
}

/// Sorts keys and joins those that follow each other.
pub(super) fn joined(mut runs: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    runs.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (first, last) in runs {
        match joined.last_mut() {
            Some(run) if run.1.checked_add(1).is_none_or(|next| first <= next) => {
                run.1 = run.1.max(last);
            }
            _ => joined.push((first, last)),
        }
    }
    joined
}
