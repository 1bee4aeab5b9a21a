//! Edits that contradict others or cannot be applied: what is shown is a function of which edits
//! are known.

use std::collections::BTreeSet;

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType, SortedVec};
use automerge::{ActorId, Change, ExpandedChange, ScalarValue};

use super::*;
use crate::codec::{Reader, put_bytes};

const SITES: [u8; 2] = [1, 2];

/// The site of each of three replicas: the first two are copies of one file.
const BY: [u8; 3] = [1, 1, 2];

type Added = Vec<(Stamp, Vec<u8>)>;

/// Plays the steps at three replicas. Returns what they came to, and all that was added.
fn played(policy: Policy, steps: &[Step]) -> (Vec<History>, Added) {
    let mut cells: Vec<History> = (0..3).map(|_| History::new(policy)).collect();
    let mut added = Added::new();
    for (turn, step) in (2..).zip(steps) {
        match step {
            Step::Write(at, value) => {
                // Copies may even write at one time.
                let stamp = stamp(turn / 2, BY[usize::from(*at)]);
                let delta = cells[usize::from(*at)].edit(stamp, value).expect("an edit");
                added.extend(delta.map(|delta| (stamp, delta)));
            }
            Step::Pull(at, from) => {
                let from = cells[usize::from(*from)].clone();
                pull(&mut cells[usize::from(*at)], &from);
            }
        }
    }
    (cells, added)
}

fn pull(cell: &mut History, from: &History) {
    let until = Hlc::MAX;
    for by in SITES {
        let lacks = from.changes_of(site(by), Hlc::ZERO, until);
        let stamp = Stamp {
            version: until,
            site: site(by),
        };
        cell.join(stamp, &lacks).expect("joined");
    }
}

fn reloaded(cell: &History) -> History {
    let (saved, tail) = stored(cell);
    History::load(cell.policy(), [1; 16], &saved, &tail).expect("it was saved")
}

proptest! {
    #[test]
    fn edits_of_two_copies_come_to_the_same_in_any_order(
        steps in steps(),
        swaps in prop::collection::vec((0usize..40, 0usize..40), 0..20),
        last in visible(),
    ) {
        for policy in HISTORY_POLICIES {
            let (mut cells, added) = played(policy, &steps);
            let mut expected = History::new(policy);
            for (stamp, delta) in &added {
                expected.join(*stamp, delta).expect("joined");
            }
            let mut shuffled = [added.clone(), added].concat();
            for (a, b) in swaps.iter().copied() {
                if a < shuffled.len() && b < shuffled.len() {
                    shuffled.swap(a, b);
                }
            }
            let mut found = History::new(policy);
            for (at, (stamp, delta)) in shuffled.iter().enumerate() {
                found.join(*stamp, delta).expect("joined");
                if at % 3 == 0 {
                    found = reloaded(&found);
                }
            }
            for cell in &mut cells {
                pull(cell, &expected);
            }
            for cell in cells.iter().chain([&found, &reloaded(&found)]) {
                prop_assert_eq!(cell.shown(), expected.shown());
                prop_assert_eq!(cell.fingerprint(), expected.fingerprint());
            }
            // What a user writes then is there for everyone, though the site has two pasts.
            for (at, cell) in cells.iter_mut().enumerate() {
                cell.edit(stamp(100, BY[at]), &last).expect("an edit");
                let mut other = History::new(policy);
                pull(&mut other, cell);
                prop_assert_eq!(other.shown(), cell.shown());
                prop_assert_eq!(other.fingerprint(), cell.fingerprint());
            }
        }
    }
}

/// The changes of a delta, as automerge writes them out.
fn expanded(delta: &[u8]) -> Vec<ExpandedChange> {
    let mut reader = Reader::over(delta);
    let mut found = Vec::new();
    while reader.end().is_err() {
        let piece = reader.bytes().expect("a piece");
        found.push(Change::try_from(piece).expect("a change").decode());
    }
    found
}

fn packed(change: &Change) -> Vec<u8> {
    let mut delta = Vec::new();
    put_bytes(&mut delta, change.raw_bytes());
    delta
}

/// An edit of the site 2 that builds on another's and writes to an object which is not there.
fn forged(upon: &ExpandedChange, version: u64) -> Vec<u8> {
    let nowhere = ActorId::from([9; 16]);
    let last_op = upon.start_op.get() + upon.operations.len() as u64;
    let change = ExpandedChange {
        operations: vec![Op {
            action: OpType::Put(ScalarValue::Str("x".into())),
            obj: ObjectId::Id(OpId(1, nowhere.clone())),
            key: Key::Seq(ElementId::Head),
            pred: SortedVec::new(),
            insert: true,
        }],
        actor_id: ActorId::from(site(2).0),
        hash: None,
        seq: 1,
        start_op: std::num::NonZeroU64::new(last_op).expect("not the first"),
        time: version.cast_signed(),
        message: None,
        author: None,
        deps: vec![upon.hash.expect("it was read")],
        extra_bytes: vec![],
    };
    packed(&Change::from(change))
}

#[test]
fn an_edit_that_cannot_be_applied_stays_aside_and_hinders_nobody() {
    for policy in HISTORY_POLICIES {
        let mut author = History::new(policy);
        let first = author.edit(stamp(1, 1), &Value::text("a b")).expect("edit");
        let first = first.expect("news");
        let second = author
            .edit(stamp(3, 1), &Value::text("a b c"))
            .expect("edit");
        let second = second.expect("news");
        let bad = forged(&expanded(&first)[0], 2);
        let deltas = [
            (stamp(1, 1), &first),
            (stamp(3, 1), &second),
            (stamp(2, 2), &bad),
        ];
        let mut fingerprints = BTreeSet::new();
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let mut cell = History::new(policy);
            for at in order {
                let (stamp, delta) = deltas[at];
                cell.join(stamp, delta).expect("joined");
                cell = reloaded(&cell);
            }
            assert_eq!(cell.shown(), author.shown());
            fingerprints.insert(cell.fingerprint());
            // Its site goes on.
            let (mine, value) = (stamp(4, 2), Value::text("a b c d"));
            cell.edit(mine, &value).expect("edit").expect("news");
            let mut other = History::new(policy);
            pull(&mut other, &cell);
            assert_eq!(other.shown(), cell.shown());
            assert_ne!(other.shown(), author.shown());
        }
        assert_eq!(fingerprints.len(), 1);
    }
}
