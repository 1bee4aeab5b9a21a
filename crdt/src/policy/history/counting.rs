//! Which of a history's known edits count: a function of which edits these are, not of the order
//! in which they came.
//!
//! An edit counts if all that it builds on counts, and it is the next of its actor. Two copies of
//! one file write as one actor: of two edits with one number the earlier counts, and the other
//! stays aside with all that builds on it.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ActorId, Change, ChangeHash, ChangeMetadata};

/// What is known of an edit beside what it does.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) hash: ChangeHash,
    actor: ActorId,
    number: u64,
    first_op: u64,
    last_op: u64,
    time: i64,
    deps: Vec<ChangeHash>,
}

impl From<&Change> for Edit {
    fn from(change: &Change) -> Self {
        Edit {
            hash: change.hash(),
            actor: change.actor_id().clone(),
            number: change.seq(),
            first_op: change.start_op().get(),
            last_op: change.max_op(),
            time: change.timestamp(),
            deps: change.deps().to_vec(),
        }
    }
}

impl From<&ChangeMetadata<'_>> for Edit {
    fn from(change: &ChangeMetadata<'_>) -> Self {
        Edit {
            hash: change.hash,
            actor: change.actor.as_ref().clone(),
            number: change.seq,
            first_op: change.start_op,
            last_op: change.max_op,
            time: change.timestamp,
            deps: change.deps.clone(),
        }
    }
}

/// The number of each actor's last edit that counts, and of its last operation.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends(BTreeMap<ActorId, (u64, u64)>);

impl Ends {
    pub(super) fn of<'a>(edits: impl IntoIterator<Item = &'a Edit>) -> Self {
        let mut ends = Ends::default();
        for edit in edits {
            ends.advance(edit);
        }
        ends
    }

    pub(super) fn advance(&mut self, edit: &Edit) {
        let end = self.0.entry(edit.actor.clone()).or_default();
        *end = (*end).max((edit.number, edit.last_op));
    }

    fn at(&self, actor: &ActorId) -> (u64, u64) {
        self.0.get(actor).copied().unwrap_or_default()
    }
}

/// Which of some edits count.
#[derive(Debug)]
pub(super) struct Counted {
    /// These, in an order in which they can be applied.
    pub(super) order: Vec<usize>,
    /// The edits that do not, although all that they build on does. Where one of them is new, an edit
    /// that counted before may not count any more.
    pub(super) contested: BTreeSet<ChangeHash>,
}

/// Returns which of `edits` count beside those that do already, up to `ends`. `last_op` tells the
/// last operation of an edit that counts already. The `invalid` edits cannot be applied, nor can
/// what their actors did after them.
pub(super) fn counted(
    edits: &[Edit],
    ends: &mut Ends,
    last_op: impl Fn(&ChangeHash) -> Option<u64>,
    invalid: &BTreeSet<ChangeHash>,
) -> Counted {
    let mut queue = Queue::new(edits, last_op);
    let mut stuck: BTreeSet<&ActorId> = BTreeSet::new();
    let mut early: BTreeMap<(&ActorId, u64), Vec<usize>> = BTreeMap::new();
    let mut found = Counted {
        order: Vec::new(),
        contested: BTreeSet::new(),
    };
    while let Some((_, hash, at)) = queue.ready.pop_first() {
        let edit = &edits[at];
        let (number, op) = ends.at(&edit.actor);
        let next = number.saturating_add(1);
        if edit.number > next {
            early
                .entry((&edit.actor, edit.number))
                .or_default()
                .push(at);
            continue;
        }
        let follows = edit.number == next && edit.first_op > op.max(queue.last_op(edit));
        if !follows || stuck.contains(&edit.actor) {
            found.contested.insert(hash);
        } else if invalid.contains(&hash) {
            found.contested.insert(hash);
            stuck.insert(&edit.actor);
        } else {
            ends.advance(edit);
            found.order.push(at);
            queue.release(edit);
            let later = early.remove(&(&edit.actor, next.saturating_add(1)));
            queue.add(later.into_iter().flatten());
        }
    }
    found
}

/// Edits in the order in which they are looked at: by time, once all that they build on counts.
struct Queue<'a> {
    edits: &'a [Edit],
    ready: BTreeSet<(i64, ChangeHash, usize)>,
    missing_counts: Vec<usize>,
    builders: BTreeMap<ChangeHash, Vec<usize>>,
    last_ops: BTreeMap<ChangeHash, u64>,
}

impl<'a> Queue<'a> {
    fn new(edits: &'a [Edit], last_op: impl Fn(&ChangeHash) -> Option<u64>) -> Self {
        let mut queue = Queue {
            edits,
            ready: BTreeSet::new(),
            missing_counts: vec![0; edits.len()],
            builders: BTreeMap::new(),
            last_ops: BTreeMap::new(),
        };
        for (at, edit) in edits.iter().enumerate() {
            for hash in &edit.deps {
                if let Some(op) = last_op(hash) {
                    queue.last_ops.insert(*hash, op);
                } else {
                    queue.missing_counts[at] += 1;
                    queue.builders.entry(*hash).or_default().push(at);
                }
            }
            if queue.missing_counts[at] == 0 {
                queue.add([at]);
            }
        }
        queue
    }

    fn add(&mut self, places: impl IntoIterator<Item = usize>) {
        for at in places {
            let edit = &self.edits[at];
            self.ready.insert((edit.time, edit.hash, at));
        }
    }

    /// Notes that an edit counts.
    fn release(&mut self, edit: &Edit) {
        self.last_ops.insert(edit.hash, edit.last_op);
        for at in self.builders.remove(&edit.hash).unwrap_or_default() {
            self.missing_counts[at] -= 1;
            if self.missing_counts[at] == 0 {
                self.add([at]);
            }
        }
    }

    /// Returns the last operation that an edit builds on.
    fn last_op(&self, edit: &Edit) -> u64 {
        let ops = edit.deps.iter().filter_map(|hash| self.last_ops.get(hash));
        ops.copied().max().unwrap_or(0)
    }
}
