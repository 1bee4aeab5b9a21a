//! What is stored is there again, and damage stays where it happened.

use std::io::{Seek, SeekFrom, Write};

use super::slice::SLICE_HEADER_BYTES;
use super::*;
use crate::code::BlockIndex;
use crate::harness::{Coded, random_bytes, small_code};
use crate::{encode_object, restore_object};

mod damage;

/// Three blocks, so that a slice file has runs before and behind a damaged one.
const OBJECT_BYTES: usize = 3 * 9 * 1024 - 100;
const RUN_BYTES: usize = 4 * 1024;

/// A store that holds every slot of one snapshot.
struct Filled {
    directory: tempfile::TempDir,
    coded: Coded,
    snapshot: SnapshotId,
}

impl Filled {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let coded = Coded::new(small_code(), OBJECT_BYTES);
        let store = SymbolStore::open(directory.path()).expect("opens");
        let snapshot = store
            .put_manifest(&coded.manifest, b"signed")
            .expect("puts");
        for slot in small_code().slots() {
            write_slice(&store, &coded, slot);
        }
        Self {
            directory,
            coded,
            snapshot,
        }
    }

    fn open(&self) -> SymbolStore {
        SymbolStore::open(self.directory.path()).expect("opens")
    }

    fn slice_path(&self, slot: u8) -> PathBuf {
        FileName::Slice(self.snapshot, Slot(slot)).path(self.directory.path())
    }

    fn manifest_path(&self) -> PathBuf {
        FileName::Manifest(self.snapshot).path(self.directory.path())
    }

    fn catalogue_path(&self) -> PathBuf {
        FileName::Catalogue.path(self.directory.path())
    }

    fn flip(&self, path: &Path, at: usize) {
        let mut bytes = fs::read(path).expect("reads");
        bytes[at] ^= 0x10;
        fs::write(path, bytes).expect("writes");
    }

    /// Returns the (slot, block) pairs whose run does not come back.
    fn bad_runs(&self, store: &SymbolStore) -> Vec<(u8, u32)> {
        let mut bad = Vec::new();
        for (slot, block) in self.coded.runs.keys() {
            match store.read_run(self.snapshot, *slot, *block) {
                Ok(run) => assert!(run == self.coded.runs[&(*slot, *block)]),
                Err(_) => bad.push((slot.0, block.0)),
            }
        }
        bad
    }
}

fn write_slice(store: &SymbolStore, coded: &Coded, slot: Slot) {
    let mut writer = store
        .slice_writer(coded.manifest.id(), slot)
        .expect("starts");
    while let Some(block) = writer.block_wanted() {
        writer
            .write_run(block, coded.run(slot.0, block.0))
            .expect("writes");
    }
    writer.finish().expect("finishes");
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("lists");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry.expect("an entry")))
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let filled = Filled::new();
    let store = filled.open();
    assert_eq!(store.findings(), []);
    assert_eq!(store.snapshots(), BTreeSet::from([filled.snapshot]));
    let slice = HeldSlice {
        file_bytes: (SLICE_HEADER_BYTES + 3 * RUN_BYTES) as u64,
        condition: SliceCondition::Complete,
    };
    let all: BTreeMap<_, _> = small_code().slots().map(|slot| (slot, slice)).collect();
    assert_eq!(store.slices(filled.snapshot), all);
    assert_eq!(
        *store.manifest(filled.snapshot).expect("held"),
        filled.coded.manifest
    );
    assert_eq!(store.attachment(filled.snapshot).expect("held"), b"signed");
    assert_eq!(filled.bad_runs(&store), []);

    let manifest_bytes = fs::metadata(filled.manifest_path()).expect("there").len();
    assert_eq!(store.usage_bytes(), 5 * slice.file_bytes + manifest_bytes);
}

#[test]
fn slices_restore_the_object() {
    let filled = Filled::new();
    let store = filled.open();
    let mut object = Vec::new();
    let source = |slot: Slot, block| {
        (slot.0 >= 2).then(|| store.read_run(filled.snapshot, slot, block).expect("good"))
    };
    restore_object(filled.coded.manifest.clone(), source, &mut object).expect("three slots");
    assert!(object == filled.coded.object);
}

#[test]
fn a_store_is_open_once() {
    let filled = Filled::new();
    let store = filled.open();
    let error = SymbolStore::open(filled.directory.path()).expect_err("in use");
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(store);
    assert_eq!(filled.open().findings(), []);
}

#[test]
fn a_writer_takes_the_right_runs_only() {
    let filled = Filled::new();
    let store = filled.open();
    store
        .remove_slice(filled.snapshot, Slot(2))
        .expect("removes");
    let mut writer = store
        .slice_writer(filled.snapshot, Slot(2))
        .expect("starts");
    let good = filled.coded.run(2, 1);
    for (block, run) in [
        (0, good),
        (1, filled.coded.run(3, 1)),
        (1, &good[1..]),
        (3, good),
    ] {
        let error = writer.write_run(BlockIndex(block), run);
        assert!(
            matches!(error, Err(WriteError::NotTheRun { .. })),
            "{error:?}"
        );
    }
    writer.write_run(BlockIndex(1), good).expect("good");
    let error = writer.finish().expect_err("two blocks are missing");
    assert!(
        matches!(
            error,
            WriteError::Incomplete {
                block: BlockIndex(0),
                slot: Slot(2)
            }
        ),
        "{error}"
    );
    assert!(!store.slices(filled.snapshot).contains_key(&Slot(2)));
    assert!(
        names(filled.directory.path())
            .iter()
            .all(|name| !name.contains("unfinished"))
    );

    let error = store
        .slice_writer(filled.snapshot, Slot(5))
        .expect_err("no such slot");
    assert!(matches!(error, WriteError::NoSuchSlot { .. }), "{error}");
    let error = store
        .slice_writer(SnapshotId([0; 32]), Slot(0))
        .expect_err("no manifest");
    assert!(matches!(error, WriteError::Manifest(_)), "{error}");
}

#[test]
fn a_slice_whose_snapshot_was_removed_is_not_finished() {
    let filled = Filled::new();
    let store = filled.open();
    let mut writer = store
        .slice_writer(filled.snapshot, Slot(2))
        .expect("starts");
    for block in 0..3 {
        writer
            .write_run(BlockIndex(block), filled.coded.run(2, block))
            .expect("good");
    }
    store.remove(filled.snapshot).expect("removes");
    let error = writer.finish().expect_err("removed");
    assert!(matches!(error, WriteError::NotHeld { .. }), "{error}");
    assert_eq!(names(filled.directory.path()), ["catalogue", "lock"]);
}

#[test]
fn removing_a_snapshot_gives_its_bytes_back_and_spares_the_others() {
    let filled = Filled::new();
    let store = filled.open();
    let before = store.usage_bytes();
    let other = Coded::new(small_code(), 5_000);
    store.put_manifest(&other.manifest, b"").expect("puts");
    write_slice(&store, &other, Slot(1));
    assert!(store.slices(other.manifest.id()).into_keys().eq([Slot(1)]));
    assert!(
        store
            .slices(filled.snapshot)
            .into_keys()
            .eq(small_code().slots())
    );
    store.remove(other.manifest.id()).expect("removes");
    store.remove(other.manifest.id()).expect("removes nothing");
    assert_eq!(store.usage_bytes(), before);
    assert_eq!(store.snapshots(), BTreeSet::from([filled.snapshot]));
    assert!(store.manifest(other.manifest.id()).is_err());
    assert_eq!(filled.bad_runs(&store), []);
}

#[test]
fn a_draft_keeps_what_the_encoder_makes_in_one_pass() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = SymbolStore::open(directory.path()).expect("opens");
    for object_bytes in [0, 1, OBJECT_BYTES] {
        let coded = Coded::new(small_code(), object_bytes);
        let mut draft = store
            .draft(small_code(), [Slot(1), Slot(4), Slot(9)])
            .expect("starts");
        let object = coded.object.as_slice();
        let manifest = encode_object(small_code(), object, |run| draft.write_run(run));
        let manifest = manifest.expect("reads from memory");
        let snapshot = draft.finish(&manifest, b"").expect("finishes");
        assert_eq!(snapshot, coded.manifest.id());
        assert!(store.slices(snapshot).into_keys().eq([Slot(1), Slot(4)]));
        for block in manifest.blocks() {
            let run = store.read_run(snapshot, Slot(4), block).expect("good");
            assert!(run == coded.run(4, block.0));
        }
    }
    drop(store);
    let store = SymbolStore::open(directory.path()).expect("opens");
    assert_eq!(
        (store.findings(), store.snapshots().len()),
        ([].as_slice(), 3)
    );
}

#[test]
fn a_draft_refuses_another_manifest_and_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = SymbolStore::open(directory.path()).expect("opens");
    let others = [
        Coded::new(small_code(), 5_000),
        Coded::new(small_code(), OBJECT_BYTES),
    ];
    for other in others {
        let mut draft = store
            .draft(small_code(), small_code().slots())
            .expect("starts");
        let object = random_bytes(7, OBJECT_BYTES);
        encode_object(small_code(), object.as_slice(), |run| draft.write_run(run)).expect("runs");
        let error = draft
            .finish(&other.manifest, b"")
            .expect_err("another manifest");
        assert!(
            matches!(error, DraftError::OtherManifest { slot: Slot(0) }),
            "{error}"
        );
    }
    assert_eq!(names(directory.path()), ["catalogue", "lock"]);
    assert_eq!(store.usage_bytes(), 0);
}

#[test]
fn attachments_have_a_limit() {
    let filled = Filled::new();
    let store = filled.open();
    let longest = vec![1; ATTACHMENT_BYTES_MAX];
    store
        .put_manifest(&filled.coded.manifest, &longest)
        .expect("puts");
    assert!(store.attachment(filled.snapshot).expect("held") == longest);
    let error = store.put_manifest(&filled.coded.manifest, &vec![1; ATTACHMENT_BYTES_MAX + 1]);
    assert!(
        matches!(error, Err(PutError::AttachmentTooLong { .. })),
        "{error:?}"
    );
}
