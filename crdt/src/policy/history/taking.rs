//! Takes edits into a history, so that what it shows is a function of which edits are known.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::legacy::{Key, ObjectId, Op};
use automerge::{Change, ChangeHash, ObjType, PatchLog};

use super::counting::{Edit, Ends, counted};
use super::{DeltaError, History, edits};

/// What taking edits in did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// They were known.
    Nothing,
    /// They were added to what counts, as the log says, or wait for others.
    Added,
    /// What counts was put together anew.
    Anew,
}

impl History {
    /// Takes in the edits that are new.
    pub(super) fn take_in(
        &mut self,
        changes: Vec<Change>,
        log: &mut PatchLog,
    ) -> Result<Taken, DeltaError> {
        let mut known: BTreeSet<ChangeHash> = self.aside.iter().map(Change::hash).collect();
        let known_count = known.len();
        for change in changes {
            let hash = change.hash();
            if self.last_op(&hash).is_none() && known.insert(hash) {
                self.aside.push(change);
            }
        }
        if known.len() == known_count {
            return Ok(Taken::Nothing);
        }
        let edits: Vec<Edit> = self.aside.iter().map(Edit::from).collect();
        let mut ends = self.ends().clone();
        let found = counted(&edits, &mut ends, |hash| self.last_op(hash), &self.invalid);
        // What new edits add changes nothing between those that were there before.
        if found.contested.is_subset(&self.contested) {
            let hashes: Vec<ChangeHash> = found.order.iter().map(|at| edits[*at].hash).collect();
            // All at once, since applying costs time in proportion to the whole text.
            if self.try_to_apply(&hashes, log)? {
                self.ends = Some(ends);
                return Ok(Taken::Added);
            }
        }
        self.arrange()?;
        Ok(Taken::Anew)
    }

    /// Returns how far the edits that count go.
    pub(super) fn ends(&mut self) -> &mut Ends {
        self.ends.get_or_insert_with(|| {
            let all = self.doc.get_changes_meta(&[]);
            Ends::of(&all.iter().map(Edit::from).collect::<Vec<_>>())
        })
    }

    /// Returns the last operation of an edit that counts.
    pub(super) fn last_op(&self, hash: &ChangeHash) -> Option<u64> {
        Some(self.doc.get_change_meta_by_hash(hash)?.max_op)
    }

    /// Lets those edits count that should by all that is known.
    fn arrange(&mut self) -> Result<(), DeltaError> {
        loop {
            let applied = self.doc.get_changes_meta(&[]);
            let mut edits: Vec<Edit> = applied.iter().map(Edit::from).collect();
            let applied: BTreeSet<ChangeHash> = edits.iter().map(|edit| edit.hash).collect();
            edits.extend(self.aside.iter().map(Edit::from));
            let mut ends = Ends::default();
            let found = counted(&edits, &mut ends, |_| None, &self.invalid);
            let mut hashes: Vec<ChangeHash> =
                found.order.iter().map(|at| edits[*at].hash).collect();
            let counting: BTreeSet<ChangeHash> = hashes.iter().copied().collect();
            if applied.is_subset(&counting) {
                hashes.retain(|hash| !applied.contains(hash));
            } else {
                self.begin_anew();
                hashes.retain(|hash| !self.origin.contains(hash));
            }
            if self.try_to_apply(&hashes, &mut PatchLog::inactive())? {
                self.ends = Some(ends);
                self.contested = found.contested;
                return Ok(());
            }
            self.ends = None;
            self.find_invalid(&hashes)?;
        }
    }

    /// Puts all edits aside.
    fn begin_anew(&mut self) {
        let mut changes = self.doc.get_changes(&[]);
        changes.retain(|change| !self.origin.contains(&change.hash()));
        self.aside.append(&mut changes);
        self.doc = History::new(self.policy).doc;
    }

    /// Applies edits one by one up to the first that cannot be.
    fn find_invalid(&mut self, hashes: &[ChangeHash]) -> Result<(), DeltaError> {
        for hash in hashes {
            if !self.try_to_apply(&[*hash], &mut PatchLog::inactive())? {
                self.invalid.insert(*hash);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Applies edits that lie aside, all or none.
    fn try_to_apply(
        &mut self,
        hashes: &[ChangeHash],
        log: &mut PatchLog,
    ) -> Result<bool, DeltaError> {
        if hashes.is_empty() {
            return Ok(true);
        }
        let aside = self.aside.iter().map(|change| (change.hash(), change));
        let aside: BTreeMap<ChangeHash, &Change> = aside.collect();
        let chosen = hashes.iter().filter_map(|hash| aside.get(hash));
        let changes: Vec<Change> = chosen.map(|change| (*change).clone()).collect();
        let before = self.doc.get_heads();
        if guarded(|| self.apply(changes, log)).is_err() {
            self.take_back(&before)?;
            return Ok(false);
        }
        let applied: BTreeSet<&ChangeHash> = hashes.iter().collect();
        self.aside
            .retain(|change| !applied.contains(&change.hash()));
        Ok(true)
    }

    fn apply(&mut self, changes: Vec<Change>, log: &mut PatchLog) -> Result<(), DeltaError> {
        let before = self.doc.get_heads();
        let mut hashes: BTreeSet<ChangeHash> = changes.iter().map(Change::hash).collect();
        let applied = self.doc.apply_changes_log_patches(changes.clone(), log);
        applied.map_err(edits)?;
        // A history keeps what the edits mean and makes their bytes anew. Bytes that say the same
        // in another way would have another hash then, and the history could not be read again.
        for change in self.doc.get_changes(&before) {
            hashes.remove(&change.hash());
        }
        if !hashes.is_empty() {
            let rule = "an edit is written as automerge writes it";
            return Err(DeltaError::Rule { rule });
        }
        self.check_objects(&changes)
    }

    /// Checks that fields are written to maps only, and items to lists and texts: automerge takes
    /// in either and then shows it one way or another.
    fn check_objects(&self, changes: &[Change]) -> Result<(), DeltaError> {
        let mut kinds: BTreeMap<ObjectId, ObjType> = BTreeMap::new();
        for change in changes {
            let known = self.targets.get(&change.hash()).cloned();
            let targets = known.unwrap_or_else(|| targets(&change.decode().operations));
            for (object, has_fields) in targets {
                let kind = match kinds.get(&object) {
                    Some(kind) => *kind,
                    None => {
                        let (_, kind) = self.doc.import(&object.to_string()).map_err(edits)?;
                        *kinds.entry(object).or_insert(kind)
                    }
                };
                if has_fields != (kind == ObjType::Map) {
                    let rule = "a map has fields, a list and a text have items";
                    return Err(DeltaError::Rule { rule });
                }
            }
        }
        Ok(())
    }

    /// Goes back to what the history was, after applying something to it failed half-way.
    fn take_back(&mut self, before: &[ChangeHash]) -> Result<(), DeltaError> {
        let doc = match before == self.origin {
            true => History::new(self.policy).doc,
            false => guarded(|| self.doc.fork_at(before).map_err(edits))?,
        };
        let heads = |heads: &[ChangeHash]| heads.iter().copied().collect::<BTreeSet<_>>();
        if heads(&doc.get_heads()) != heads(before) {
            let rule = "edits keep automerge's own rules";
            return Err(DeltaError::Rule { rule });
        }
        self.doc = doc;
        Ok(())
    }
}

/// The objects that an edit writes to, and whether to a field or to an item of theirs.
pub(super) type Targets = Vec<(ObjectId, bool)>;

/// Returns what operations write to; those that follow each other on one object count once.
pub(super) fn targets(operations: &[Op]) -> Targets {
    let mut targets = Targets::new();
    for operation in operations {
        let has_fields = matches!(operation.key, Key::Map(_));
        let last = targets.last();
        if last.is_none_or(|(object, fields)| (object, *fields) != (&operation.obj, has_fields)) {
            targets.push((operation.obj.clone(), has_fields));
        }
    }
    targets
}

/// Automerge checks what it reads, and asserts that it did: an assertion that foreign bytes break
/// is their fault, not ours.
pub(super) fn guarded<T>(body: impl FnOnce() -> Result<T, DeltaError>) -> Result<T, DeltaError> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(DeltaError::Rule {
        rule: "edits keep automerge's own rules",
    }))
}
