//! Cells that are kept as the history of their edits, by automerge.
//!
//! Nothing in it depends on chance or on a clock: the actor of an edit is its site, and its time
//! is the version under which it is folded. So the edits carry their stamps themselves, and which
//! of them another replica lacks is read from the history alone.

mod counting;
mod taking;

use std::collections::{BTreeMap, BTreeSet};

use automerge::legacy::{Op, OpType};
use automerge::transaction::{CommitOptions, Transactable, Transaction};
use automerge::{
    ActorId, Automerge, Bundle, Change, ChangeHash, LoadOptions, ObjType, Patch, PatchLog, ROOT,
    ReadDoc, ScalarValue, TextEncoding,
};

use super::{DeltaError, Policy, document, text};
use crate::codec::{Reader, put_bytes};
use crate::{Hlc, SiteId, Stamp, Value};
use counting::{Edit as Made, Ends};
use taking::{Taken, Targets, guarded, targets};

/// The most bytes one piece of what a site added may have. A piece may be compressed a thousand
/// times and more, so this bounds what reading it takes only roughly.
pub const DELTA_BYTES_MAX: usize = 1 << 20;

/// From how many edits on they are sent as one compressed piece.
const BUNDLE_FROM: usize = 8;

/// Where a history's text lies in its automerge document.
const TEXT: &str = "text";

/// The edits of one text or document.
#[derive(Clone, Debug)]
pub struct History {
    policy: Policy,
    doc: Automerge,
    /// The heads of the history before its first edit.
    origin: Vec<ChangeHash>,
    /// How far the edits that count go, once that is asked for.
    ends: Option<Ends>,
    /// Edits that do not count: they came before others which they build on, or contradict others.
    aside: Vec<Change>,
    /// What the edits that are just taken in write to, so that they are not decoded twice.
    targets: BTreeMap<ChangeHash, Targets>,
    /// Those of them of which it was decided that others count in their place.
    contested: BTreeSet<ChangeHash>,
    /// Those of them that cannot be applied to what they build on.
    invalid: BTreeSet<ChangeHash>,
    shown: String,
    token: [u8; 16],
}

/// An edit that does not count.
#[derive(Clone, Debug)]
pub struct Aside {
    /// Under what it was made.
    pub stamp: Stamp,
    /// It alone, as a delta.
    pub edits: Vec<u8>,
}

impl Aside {
    fn of(change: &Change) -> Option<Self> {
        let name = change.actor_id().to_bytes();
        let version = u64::try_from(change.timestamp()).ok()?;
        let mut edits = Vec::new();
        put_bytes(&mut edits, change.raw_bytes());
        Some(Aside {
            stamp: Stamp {
                version: Hlc::from_bits(version)?,
                site: SiteId(name.get(..16)?.try_into().ok()?),
            },
            edits,
        })
    }
}

impl History {
    /// Returns a cell that nobody wrote.
    ///
    /// # Panics
    ///
    /// With a policy that keeps entries.
    pub fn new(policy: Policy) -> Self {
        assert!(policy.keeps_history(), "{policy:?} has no history");
        let mut doc = Automerge::new_with_encoding(ENCODING);
        if policy == Policy::Text {
            // Every replica begins with this same edit, so that two that begin apart write into one
            // text.
            doc.set_actor(ActorId::from([0; 16]));
            let mut tx = doc.transaction();
            tx.put_object(ROOT, TEXT, ObjType::Text)
                .expect("an empty document takes a text");
            tx.commit_with(CommitOptions::default().with_time(0));
        }
        let origin = doc.get_heads();
        History {
            policy,
            doc,
            origin,
            ends: None,
            aside: Vec::new(),
            targets: BTreeMap::new(),
            contested: BTreeSet::new(),
            invalid: BTreeSet::new(),
            shown: String::new(),
            token: [0; 16],
        }
    }

    /// Reads what [`History::save`] returned, with the deltas that were joined since, one after
    /// the other, and the history's token.
    ///
    /// # Errors
    ///
    /// [`DeltaError`] if it is something else.
    pub fn load(
        policy: Policy,
        token: [u8; 16],
        saved: &[u8],
        tail: &[u8],
    ) -> Result<Self, DeltaError> {
        let mut history = History::new(policy);
        history.token = token;
        guarded(|| {
            if !saved.is_empty() {
                let options = LoadOptions::new().text_encoding(ENCODING);
                history.doc = Automerge::load_with_options(saved, options).map_err(edits)?;
            }
            history.ends = None;
            history.take_in(changes(tail)?, &mut PatchLog::inactive())?;
            history.render();
            Ok(history)
        })
    }

    /// Returns the edits that count in few bytes.
    pub fn save(&self) -> Vec<u8> {
        self.doc.save()
    }

    /// Whether every known edit counts.
    pub fn is_whole(&self) -> bool {
        self.aside.is_empty()
    }

    /// Returns the edits that do not count and are in none of these deltas, which lie one after the
    /// other: what is to be kept beside these and what is saved.
    ///
    /// # Errors
    ///
    /// [`DeltaError`] if these are no deltas.
    pub fn aside(&self, deltas: &[u8]) -> Result<Vec<Aside>, DeltaError> {
        let kept: BTreeSet<ChangeHash> = changes(deltas)?.iter().map(Change::hash).collect();
        let aside = self.aside.iter();
        let lost = aside.filter(|change| !kept.contains(&change.hash()));
        Ok(lost.filter_map(Aside::of).collect())
    }

    /// Whether all of a delta's edits count.
    ///
    /// # Errors
    ///
    /// [`DeltaError`] if this is no delta.
    pub fn has_applied(&self, delta: &[u8]) -> Result<bool, DeltaError> {
        let edits = changes(delta)?;
        Ok(edits
            .iter()
            .all(|edit| self.last_op(&edit.hash()).is_some()))
    }

    /// Returns a name for what the history holds here: the hash of all that was joined to it, in
    /// order. Where two are equal, one history may stand for the other.
    pub fn token(&self) -> [u8; 16] {
        self.token
    }

    fn advance(&mut self, delta: &[u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.token).update(delta);
        self.token
            .copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    }

    /// Returns a site's edits after one version and up to another from deltas alone, as
    /// [`History::changes_of`] does from a whole history.
    ///
    /// # Errors
    ///
    /// [`DeltaError`] if these are no deltas.
    pub fn changes_in(
        deltas: &[u8],
        site: SiteId,
        after: Hlc,
        until: Hlc,
    ) -> Result<Vec<u8>, DeltaError> {
        let span = span(after, until);
        let mut pieces = Vec::new();
        for change in changes(deltas)? {
            if is_of(change.actor_id(), site) && span.contains(&change.timestamp()) {
                put_bytes(&mut pieces, change.raw_bytes());
            }
        }
        Ok(pieces)
    }

    /// Returns what the cell is.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Whether nobody wrote it.
    pub fn is_empty(&self) -> bool {
        self.doc.get_heads() == self.origin
    }

    /// Returns what the cell shows, or `None` if nobody wrote it.
    pub fn shown(&self) -> Option<Value> {
        (!self.is_empty()).then(|| Value::text(&self.shown))
    }

    /// Takes in that a site's user changed the cell to `visible`. Returns the site's delta, or
    /// `None` if that changes nothing.
    ///
    /// # Errors
    ///
    /// If automerge refuses the edit.
    pub fn edit(&mut self, stamp: Stamp, visible: &Value) -> Result<Option<Vec<u8>>, DeltaError> {
        if matches!(visible, Value::Blob(_)) || (self.is_empty() && *visible == Value::Null) {
            return Ok(None);
        }
        self.doc.set_actor(self.actor(stamp.site));
        let time = stamp.version.to_bits().cast_signed();
        let options = || CommitOptions::default().with_time(time);
        let mut tx = self.doc.transaction();
        let mut shown = None;
        match self.policy {
            Policy::Text => {
                let (_, text) = tx
                    .get(ROOT, TEXT)
                    .map_err(edits)?
                    .ok_or(DeltaError::Rule { rule: NO_TEXT })?;
                let wanted = text::wanted(visible);
                text::change(&mut tx, &text, &self.shown, &wanted).map_err(edits)?;
                // Of what was made elsewhere and is longer than a character, a part cannot go.
                shown = (tx.length(&text) == wanted.len()).then_some(wanted);
            }
            _ => document::change(&mut tx, visible).map_err(edits)?,
        }
        let (hash, _) = tx.commit_with(options());
        let hash = match hash {
            Some(hash) => hash,
            // The first write is one even if it leaves the cell as empty as it was.
            None if self.is_empty() => self.doc.empty_commit(options()),
            None => return Ok(None),
        };
        match shown {
            Some(shown) => self.shown = shown.into_owned(),
            None => self.render(),
        }
        let change = self.doc.get_change_by_hash(&hash);
        let change = change.expect("the edit was just made");
        self.ends().advance(&Made::from(&change));
        let mut delta = Vec::new();
        put_bytes(&mut delta, change.raw_bytes());
        self.advance(&delta);
        Ok(Some(delta))
    }

    /// Takes in a site's delta and returns whether anything changed.
    ///
    /// # Errors
    ///
    /// [`DeltaError`]; drop the history then, since part of the delta may be in it.
    pub fn join(&mut self, stamp: Stamp, delta: &[u8]) -> Result<bool, DeltaError> {
        guarded(|| {
            let changes = changes(delta)?;
            for change in &changes {
                let operations = change.decode().operations;
                if change.author().is_some() || !operations.iter().all(is_ours) {
                    let rule = "an edit makes, sets and deletes, and nothing else";
                    return Err(DeltaError::Rule { rule });
                }
                let version = u64::try_from(change.timestamp())
                    .ok()
                    .and_then(Hlc::from_bits);
                let is_before =
                    version.is_some_and(|version| version > Hlc::ZERO && version <= stamp.version);
                if !is_of(change.actor_id(), stamp.site) || !is_before {
                    let rule = "an edit is of the site and the time that it is sent under";
                    return Err(DeltaError::Rule { rule });
                }
                self.targets.insert(change.hash(), targets(&operations));
            }
            // What is shown of something new is read from it as a whole.
            let follows = !self.is_empty();
            let mut log = match follows {
                true => PatchLog::active(),
                false => PatchLog::inactive(),
            };
            let taken = self.take_in(changes, &mut log)?;
            self.targets.clear();
            match taken {
                Taken::Nothing => {}
                Taken::Added if follows => self.follow(log),
                Taken::Added | Taken::Anew => self.render(),
            }
            if taken != Taken::Nothing {
                self.advance(delta);
            }
            Ok(taken != Taken::Nothing)
        })
    }

    /// Returns a site's edits after one version and up to another, in pieces; empty if there are
    /// none.
    pub fn changes_of(&self, site: SiteId, after: Hlc, until: Hlc) -> Vec<u8> {
        let span = span(after, until);
        let all = self.doc.get_changes_meta(&[]);
        let chosen = all
            .iter()
            .filter(|change| is_of(&change.actor, site) && span.contains(&change.timestamp))
            .map(|change| change.hash);
        let mut pieces = Vec::new();
        self.put_pieces(&mut pieces, &chosen.collect::<Vec<_>>());
        for change in &self.aside {
            if is_of(change.actor_id(), site) && span.contains(&change.timestamp()) {
                put_bytes(&mut pieces, change.raw_bytes());
            }
        }
        pieces
    }

    fn put_pieces(&self, pieces: &mut Vec<u8>, hashes: &[ChangeHash]) {
        if hashes.len() < BUNDLE_FROM {
            for hash in hashes {
                let change = self.doc.get_change_by_hash(hash);
                let change = change.expect("its hash was just read from the history");
                put_bytes(pieces, change.raw_bytes());
            }
            return;
        }
        match self.doc.bundle(hashes.iter().copied()) {
            Ok(bundle) if bundle.bytes().len() <= DELTA_BYTES_MAX => {
                put_bytes(pieces, bundle.bytes());
            }
            _ => {
                let (first, second) = hashes.split_at(hashes.len() / 2);
                self.put_pieces(pieces, first);
                self.put_pieces(pieces, second);
            }
        }
    }

    /// Returns bytes that are equal for equal histories.
    pub fn fingerprint(&self) -> Vec<u8> {
        let heads: BTreeSet<ChangeHash> = self.doc.get_heads().into_iter().collect();
        let aside: BTreeSet<ChangeHash> = self.aside.iter().map(Change::hash).collect();
        let hashes = heads.into_iter().chain(aside);
        hashes.flat_map(|hash| hash.0).collect()
    }

    /// Returns the name for a site's next edit: another than that of its edits which do not count,
    /// since they may have the number that the next one would have.
    fn actor(&self, site: SiteId) -> ActorId {
        let is_free = |turn: &u8| {
            let actor = actor(site, *turn);
            self.aside.iter().all(|change| *change.actor_id() != actor)
        };
        actor(site, (0..=u8::MAX).find(is_free).unwrap_or(u8::MAX))
    }

    /// Changes what is shown as the document changed. What is new costs its own size then, and not
    /// that of the whole text.
    fn follow(&mut self, mut log: PatchLog) {
        let Some((_, text)) = self.doc.get(ROOT, TEXT).ok().flatten() else {
            return self.render();
        };
        let patches = match self.policy {
            Policy::Text => self.doc.make_patches(&mut log),
            _ => return self.render(),
        };
        let mut shown = std::mem::take(&mut self.shown);
        let is_followed =
            |patch: &Patch| patch.obj == text && text::follow(&mut shown, &patch.action);
        if patches.iter().all(is_followed) {
            self.shown = shown;
        } else {
            self.render();
        }
    }

    fn render(&mut self) {
        self.shown = match self.policy {
            Policy::Text => match self.doc.get(ROOT, TEXT) {
                Ok(Some((_, text))) => self.doc.text(&text).unwrap_or_default(),
                _ => String::new(),
            },
            _ => document::render(&self.doc),
        };
    }
}

/// Places in a text are counted in bytes, as Rust counts them.
pub(super) const ENCODING: TextEncoding = TextEncoding::Utf8CodeUnit;

pub(super) type Edit<'a> = Transaction<'a>;

const NO_TEXT: &str = "a text's history begins with a text";

/// Returns the times of the edits after one version and up to another.
fn span(after: Hlc, until: Hlc) -> std::ops::RangeInclusive<i64> {
    after.to_bits().cast_signed() + 1..=until.to_bits().cast_signed()
}

/// Returns one of the names under which a site makes edits: its id, and but for the first a byte.
fn actor(site: SiteId, turn: u8) -> ActorId {
    let mut name = site.0.to_vec();
    name.extend((turn > 0).then_some(turn));
    ActorId::from(name)
}

fn is_of(actor: &ActorId, site: SiteId) -> bool {
    let name = actor.to_bytes();
    name.len() <= site.0.len() + 1 && name.starts_with(&site.0)
}

fn edits(error: impl std::error::Error + Send + Sync + 'static) -> DeltaError {
    DeltaError::Edits(Box::new(error))
}

/// Whether an operation is of a kind that edits here consist of. Automerge has others, such as
/// marks, with rules of their own.
fn is_ours(operation: &Op) -> bool {
    match &operation.action {
        OpType::Make(kind) => *kind != ObjType::Table,
        OpType::Put(value) => !matches!(value, ScalarValue::Unknown { .. }),
        OpType::Delete => true,
        OpType::Increment(_) | OpType::MarkBegin(..) | OpType::MarkEnd(_) => false,
    }
}

/// Reads the pieces of a delta.
fn changes(delta: &[u8]) -> Result<Vec<Change>, DeltaError> {
    const KIND_AT: usize = 8;
    const KIND_CHANGE: u8 = 1;
    const KIND_BUNDLE: u8 = 3;
    let mut reader = Reader::over(delta);
    let mut changes = Vec::new();
    while reader.end().is_err() {
        let piece = reader.bytes()?;
        match piece.get(KIND_AT) {
            Some(&KIND_CHANGE) => changes.push(Change::try_from(piece).map_err(edits)?),
            Some(&KIND_BUNDLE) if piece.len() <= DELTA_BYTES_MAX => {
                let bundle = Bundle::try_from(piece).map_err(edits)?;
                changes.extend(bundle.to_changes().map_err(edits)?);
            }
            _ => {
                let rule = "edits come as plain changes or as bundles of at most 1 MiB";
                return Err(DeltaError::Rule { rule });
            }
        }
    }
    Ok(changes)
}
