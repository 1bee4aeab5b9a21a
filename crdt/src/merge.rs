//! The merge: which of two writes a replica keeps. Total, and the same on every replica.

use crate::{CausalLength, Stamp, Value};

/// What a change's causal length means for the row here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeOutcome {
    /// The change belongs to a life that has ended here: nothing of it counts.
    Past,
    /// Both mean the same life or the same death: cells are compared one by one.
    Same,
    /// The row begins a new life: whatever it held before is gone, and the change's cells win.
    Begins,
    /// The row is deleted.
    Ends,
}

/// Decides what a change with causal length `incoming` does to a row at `local`.
pub fn merge_life(local: CausalLength, incoming: CausalLength) -> LifeOutcome {
    if incoming < local {
        LifeOutcome::Past
    } else if incoming == local {
        LifeOutcome::Same
    } else if incoming.is_alive() {
        LifeOutcome::Begins
    } else {
        LifeOutcome::Ends
    }
}

/// Which of two writes to one cell is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellOutcome {
    /// The write that is here already.
    Local,
    /// The write that arrived.
    Incoming,
}

/// Decides between two writes to one cell in the same life of its row: the later one wins, then the
/// greater value, then the greater site.
///
/// `local_value` is asked for only in a tie of versions, because it has to be read from the table.
///
/// # Errors
///
/// Whatever `local_value` returns.
pub fn merge_cell<E>(
    local: Stamp,
    incoming: Stamp,
    incoming_value: &Value,
    local_value: impl FnOnce() -> Result<Value, E>,
) -> Result<CellOutcome, E> {
    let order = match incoming.version.cmp(&local.version) {
        std::cmp::Ordering::Equal if incoming.site != local.site => incoming_value
            .cmp(&local_value()?)
            .then(incoming.site.cmp(&local.site)),
        order => order,
    };
    Ok(if order.is_gt() {
        CellOutcome::Incoming
    } else {
        CellOutcome::Local
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::{Hlc, SiteId};

    /// A row as the merge sees it, built from the two decisions alone.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Row {
        life: CausalLength,
        cells: BTreeMap<u8, (Stamp, Value)>,
    }

    #[derive(Clone, Debug)]
    struct Change {
        life: CausalLength,
        cells: BTreeMap<u8, (Stamp, Value)>,
    }

    impl Row {
        fn merge(&mut self, change: &Change) {
            match merge_life(self.life, change.life) {
                LifeOutcome::Past => return,
                LifeOutcome::Same => {}
                LifeOutcome::Begins | LifeOutcome::Ends => self.cells.clear(),
            }
            self.life = change.life;
            if !self.life.is_alive() {
                return;
            }
            for (column, (stamp, value)) in &change.cells {
                let wins = match self.cells.get(column) {
                    None => CellOutcome::Incoming,
                    Some((local, held)) => {
                        let Ok(outcome) =
                            merge_cell(*local, *stamp, value, || Ok::<_, Infallible>(held.clone()));
                        outcome
                    }
                };
                if wins == CellOutcome::Incoming {
                    self.cells.insert(*column, (*stamp, value.clone()));
                }
            }
        }

        fn after(changes: &[Change]) -> Row {
            let mut row = Row::default();
            changes.iter().for_each(|change| row.merge(change));
            row
        }
    }

    fn change() -> impl Strategy<Value = Change> {
        // What a site wrote at one time is one value; sites 1 and 2 write equal ones.
        let cell = (0u64..4, 0u8..3).prop_map(|(version, site)| {
            let version = Hlc::from_bits(version).expect("small");
            (
                Stamp {
                    version,
                    site: SiteId([site; 16]),
                },
                Value::Integer(i64::from(site.min(1))),
            )
        });
        let cells = prop::collection::btree_map(0u8..3, cell, 0..3);
        (1u64..5, cells).prop_map(|(life, cells)| {
            let life = CausalLength::new(life).expect("small");
            Change { life, cells }
        })
    }

    proptest! {
        #[test]
        fn any_order_and_any_repetition_give_the_same_row(
            changes in prop::collection::vec(change(), 0..8),
            swaps in prop::collection::vec((0usize..16, 0usize..16), 0..16),
        ) {
            let expected = Row::after(&changes);
            let mut shuffled = [changes.clone(), changes].concat();
            for (a, b) in swaps {
                if a < shuffled.len() && b < shuffled.len() {
                    shuffled.swap(a, b);
                }
            }
            prop_assert_eq!(Row::after(&shuffled), expected);
        }
    }

    #[test]
    fn the_later_write_wins_then_the_greater_value_then_the_greater_site() {
        let stamp = |version, site| Stamp {
            version: Hlc::from_bits(version).expect("small"),
            site: SiteId([site; 16]),
        };
        let decide = |local, incoming, held: i64, value: i64| {
            let held = || Ok::<_, Infallible>(Value::Integer(held));
            let Ok(outcome) = merge_cell(local, incoming, &Value::Integer(value), held);
            outcome
        };
        assert_eq!(
            decide(stamp(5, 9), stamp(6, 1), 100, 1),
            CellOutcome::Incoming
        );
        assert_eq!(decide(stamp(6, 1), stamp(5, 9), 1, 100), CellOutcome::Local);
        assert_eq!(
            decide(stamp(5, 9), stamp(5, 1), 1, 100),
            CellOutcome::Incoming
        );
        assert_eq!(
            decide(stamp(5, 1), stamp(5, 9), 7, 7),
            CellOutcome::Incoming
        );
        assert_eq!(decide(stamp(5, 9), stamp(5, 1), 7, 7), CellOutcome::Local);
        assert_eq!(decide(stamp(5, 1), stamp(5, 1), 7, 7), CellOutcome::Local);
    }

    #[test]
    fn a_deletion_wins_over_an_edit_of_the_life_it_ended() {
        let length = |n| CausalLength::new(n).expect("small");
        assert_eq!(merge_life(length(2), length(1)), LifeOutcome::Past);
        assert_eq!(merge_life(length(1), length(2)), LifeOutcome::Ends);
        assert_eq!(merge_life(length(2), length(3)), LifeOutcome::Begins);
        assert_eq!(merge_life(length(0), length(1)), LifeOutcome::Begins);
        assert_eq!(merge_life(length(3), length(3)), LifeOutcome::Same);
    }
}
