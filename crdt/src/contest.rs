//! Which rows are shown where a constraint admits only some of them.
//!
//! Rows that hold an equal value under a unique constraint are rivals. A row is shown unless a
//! rival with an earlier claim is shown. Claims are totally ordered, so this says of every row
//! whether it is shown, whatever the order in which rows came to be known.

use std::collections::BTreeSet;

use crate::{Hlc, Stamp};

/// A row's claim to the values that constraints admit once. The lesser claim goes before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    // What stands in for a value that has not arrived yet yields to every value that was written.
    is_placeholder: bool,
    stamp: Stamp,
    key: Vec<u8>,
}

impl Claim {
    /// Returns the claim of the row with this packed key, whose constrained columns were last
    /// written at `stamp`.
    pub fn new(stamp: Stamp, key: Vec<u8>) -> Self {
        Claim {
            is_placeholder: stamp.version == Hlc::ZERO,
            stamp,
            key,
        }
    }

    /// Returns when and where it was made.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Returns the packed key of the row that makes it.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

/// The rows of one table: those that are shown, none of which are rivals, and those that are parked.
pub trait Arena {
    /// Why a row could not be read, shown or parked.
    type Error;

    /// Returns the claims of the shown rows that are rivals of a row.
    fn shown_rivals(&mut self, claim: &Claim) -> Result<Vec<Claim>, Self::Error>;

    /// Returns the claims of the parked rows that are rivals of a row; some that are not may be
    /// among them.
    fn parked_rivals(&mut self, claim: &Claim) -> Result<Vec<Claim>, Self::Error>;

    /// Shows a parked row. None of its rivals is shown at that moment.
    fn show(&mut self, claim: &Claim) -> Result<(), Self::Error>;

    /// Parks a row that may be shown or parked already, since `winner` goes before it.
    fn park(&mut self, claim: &Claim, winner: &Claim) -> Result<(), Self::Error>;
}

/// Decides again about parked rows, and about every row that depends on them. Of several rivals
/// that go before a row, the first is its winner.
///
/// `parked` are the parked rows that were written, and those that may depend on a row that was
/// written: the parked rivals of the rows as they are, and the parked rows whose winner was
/// written or is gone.
///
/// # Errors
///
/// Whatever the arena returns.
pub fn settle_claims<A: Arena>(arena: &mut A, parked: BTreeSet<Claim>) -> Result<(), A::Error> {
    let mut queue = parked;
    // Only rows that come after the one at hand depend on it, so each is decided once all that
    // goes before it is.
    while let Some(claim) = queue.pop_first() {
        let rivals = arena.shown_rivals(&claim)?;
        if let Some(winner) = rivals.iter().filter(|rival| **rival < claim).min() {
            arena.park(&claim, winner)?;
            continue;
        }
        let mut dependent = Vec::new();
        for rival in rivals {
            dependent.extend(arena.parked_rivals(&rival)?);
            arena.park(&rival, &claim)?;
        }
        arena.show(&claim)?;
        dependent.extend(arena.parked_rivals(&claim)?);
        queue.extend(dependent.into_iter().filter(|other| *other > claim));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::SiteId;

    /// What a row holds under each of two constraints, and when that was written.
    #[derive(Clone, Debug, PartialEq)]
    struct Row {
        time: u64,
        values: [Option<u8>; 2],
    }

    /// Rows in memory; the parked ones by their winner.
    #[derive(Clone, Debug, Default)]
    struct Memory {
        rows: BTreeMap<u8, Row>,
        parked: BTreeMap<u8, Option<u8>>,
    }

    impl Memory {
        fn claim(&self, key: u8) -> Claim {
            let version = Hlc::from_bits(self.rows[&key].time).expect("small");
            let site = SiteId([key % 2; 16]);
            Claim::new(Stamp { version, site }, vec![key])
        }

        fn are_rivals(&self, a: u8, b: u8) -> bool {
            let (a_values, b_values) = (self.rows[&a].values, self.rows[&b].values);
            let mut pairs = a_values.iter().zip(b_values);
            a != b && pairs.any(|(held, other)| held.is_some() && *held == other)
        }

        fn rivals(&self, claim: &Claim, parked: bool) -> Vec<Claim> {
            let key = claim.key()[0];
            let keys = self.rows.keys().copied();
            keys.filter(|other| self.parked.contains_key(other) == parked)
                .filter(|other| self.are_rivals(key, *other))
                .map(|other| self.claim(other))
                .collect()
        }

        /// Writes or deletes a row as a merge does: it is parked if a shown row stands against it.
        fn write(&mut self, key: u8, row: Option<Row>) {
            self.parked.remove(&key);
            match row {
                None => {
                    self.rows.remove(&key);
                }
                Some(row) => {
                    self.rows.insert(key, row);
                    if !self.rivals(&self.claim(key), false).is_empty() {
                        self.parked.insert(key, None);
                    }
                }
            }
        }

        fn settle(&mut self, written: &BTreeSet<u8>) {
            let mut queue = BTreeSet::new();
            for (key, winner) in &self.parked {
                let depends = winner.is_none_or(|winner| written.contains(&winner));
                let meets =
                    |other: &u8| self.rows.contains_key(other) && self.are_rivals(*key, *other);
                if depends || written.contains(key) || written.iter().any(meets) {
                    queue.insert(self.claim(*key));
                }
            }
            let Ok(()) = settle_claims(self, queue);
        }

        /// The rule itself: every row in order, unless one that is shown stands against it.
        fn expected(&self) -> BTreeMap<u8, Option<u8>> {
            let mut order: Vec<u8> = self.rows.keys().copied().collect();
            order.sort_by_key(|key| self.claim(*key));
            let mut shown: Vec<u8> = Vec::new();
            let mut parked = BTreeMap::new();
            for key in order {
                match shown.iter().find(|other| self.are_rivals(key, **other)) {
                    Some(winner) => {
                        parked.insert(key, Some(*winner));
                    }
                    None => shown.push(key),
                }
            }
            parked
        }
    }

    impl Arena for Memory {
        type Error = Infallible;

        fn shown_rivals(&mut self, claim: &Claim) -> Result<Vec<Claim>, Infallible> {
            Ok(self.rivals(claim, false))
        }

        fn parked_rivals(&mut self, claim: &Claim) -> Result<Vec<Claim>, Infallible> {
            Ok(self.rivals(claim, true))
        }

        fn show(&mut self, claim: &Claim) -> Result<(), Infallible> {
            assert!(self.rivals(claim, false).is_empty(), "{claim:?}");
            let was_parked = self.parked.remove(&claim.key()[0]);
            assert!(was_parked.is_some(), "{claim:?}");
            Ok(())
        }

        fn park(&mut self, claim: &Claim, winner: &Claim) -> Result<(), Infallible> {
            assert!(winner < claim);
            self.parked.insert(claim.key()[0], Some(winner.key()[0]));
            Ok(())
        }
    }

    fn step() -> impl Strategy<Value = (u8, Option<Row>)> {
        let value = || prop::option::weighted(0.8, 0u8..4);
        let row = (0u64..12, value(), value()).prop_map(|(time, a, b)| Row {
            time,
            values: [a, b],
        });
        (0u8..9, prop::option::weighted(0.85, row))
    }

    proptest! {
        /// Whatever was written in whatever batches, what is shown follows from the rows alone.
        #[test]
        fn the_outcome_depends_on_the_rows_alone(
            batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..12),
        ) {
            let mut memory = Memory::default();
            for batch in batches {
                let written = batch.iter().map(|(key, _)| *key).collect();
                for (key, row) in batch {
                    memory.write(key, row);
                }
                memory.settle(&written);
                prop_assert_eq!(&memory.parked, &memory.expected());
            }
        }
    }

    #[test]
    fn the_earlier_claim_goes_first_and_a_placeholder_last() {
        let claim = |version, site, key| {
            let version = Hlc::from_bits(version).expect("small");
            let site = SiteId([site; 16]);
            Claim::new(Stamp { version, site }, vec![key])
        };
        let ascending = [
            claim(1, 9, 9),
            claim(2, 1, 9),
            claim(2, 2, 1),
            claim(2, 2, 2),
            claim(0, 0, 0),
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_row_whose_winner_loses_comes_back() {
        let row = |time, a, b| Row {
            time,
            values: [a, b],
        };
        let mut memory = Memory::default();
        memory.write(1, Some(row(2, Some(1), Some(1))));
        memory.write(2, Some(row(3, None, Some(1))));
        memory.settle(&BTreeSet::from([1, 2]));
        assert_eq!(memory.parked, BTreeMap::from([(2, Some(1))]));
        memory.write(3, Some(row(1, Some(1), None)));
        memory.settle(&BTreeSet::from([3]));
        assert_eq!(memory.parked, BTreeMap::from([(1, Some(3))]));
    }
}
