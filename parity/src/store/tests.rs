//! What is stored is there again, and damage stays where it happened.

use std::io::{Seek, SeekFrom, Write};

use super::slice::SLICE_HEADER_BYTES;
use super::*;
use crate::code::BlockIndex;
use crate::harness::{Coded, random_bytes, small_code};
use crate::{encode_object, restore_object};

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
fn a_flipped_byte_harms_one_run() {
    for block in 0..3 {
        for within in [0, 1_000, RUN_BYTES - 1] {
            let filled = Filled::new();
            let at = SLICE_HEADER_BYTES + block as usize * RUN_BYTES + within;
            filled.flip(&filled.slice_path(1), at);
            let store = filled.open();
            assert_eq!(filled.bad_runs(&store), [(1, block)]);
            let (slot, block) = (Slot(1), BlockIndex(block));
            let error = store
                .read_run(filled.snapshot, slot, block)
                .expect_err("damaged");
            assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
        }
    }
}

#[test]
fn a_damaged_header_harms_no_run() {
    for at in 0..SLICE_HEADER_BYTES {
        let filled = Filled::new();
        fs::remove_dir_all(filled.catalogue_path()).expect("removes");
        filled.flip(&filled.slice_path(2), at);
        let store = filled.open();
        let (snapshot, slot) = (filled.snapshot, Slot(2));
        let expected = [
            Finding::CatalogueRebuilt,
            Finding::SliceHeaderDamaged { snapshot, slot },
        ];
        assert_eq!(store.findings(), expected);
        assert_eq!(filled.bad_runs(&store), []);
    }
}

#[test]
fn the_header_of_another_slice_is_found_out() {
    let filled = Filled::new();
    fs::remove_dir_all(filled.catalogue_path()).expect("removes");
    fs::copy(filled.slice_path(1), filled.slice_path(2)).expect("copies");
    let store = filled.open();
    let (snapshot, slot) = (filled.snapshot, Slot(2));
    assert!(
        store
            .findings()
            .contains(&Finding::SliceHeaderDamaged { snapshot, slot })
    );
    assert_eq!(filled.bad_runs(&store), [(2, 0), (2, 1), (2, 2)]);
}

#[test]
fn a_cut_slice_keeps_the_runs_before_the_cut() {
    for (length, lost) in [
        (SLICE_HEADER_BYTES + 3 * RUN_BYTES - 1, 1),
        (SLICE_HEADER_BYTES + 2 * RUN_BYTES, 1),
        (SLICE_HEADER_BYTES + RUN_BYTES + 1, 2),
        (SLICE_HEADER_BYTES, 3),
    ] {
        let filled = Filled::new();
        let file = File::options()
            .write(true)
            .open(filled.slice_path(3))
            .expect("opens");
        file.set_len(length as u64).expect("cuts");
        let store = filled.open();
        let (snapshot, slot) = (filled.snapshot, Slot(3));
        assert_eq!(store.findings(), [Finding::SliceCut { snapshot, slot }]);
        assert_eq!(store.slices(snapshot)[&slot].condition, SliceCondition::Cut);
        let expected: Vec<_> = (3 - lost..3).map(|block| (3, block)).collect();
        assert_eq!(filled.bad_runs(&store), expected);
        let error = store
            .read_run(snapshot, slot, BlockIndex(2))
            .expect_err("cut");
        assert!(matches!(error, ReadError::Cut { .. }), "{error}");
    }
}

#[test]
fn slices_of_nothing_or_garbage_are_named_and_the_rest_served() {
    for garbage in [
        Vec::new(),
        vec![7],
        random_bytes(1, SLICE_HEADER_BYTES + 3 * RUN_BYTES),
    ] {
        let filled = Filled::new();
        fs::remove_dir_all(filled.catalogue_path()).expect("removes");
        fs::write(filled.slice_path(0), garbage).expect("writes");
        let store = filled.open();
        let (snapshot, slot) = (filled.snapshot, Slot(0));
        let expected = [
            Finding::CatalogueRebuilt,
            Finding::SliceHeaderDamaged { snapshot, slot },
        ];
        assert_eq!(store.findings(), expected);
        assert_eq!(filled.bad_runs(&store), [(0, 0), (0, 1), (0, 2)]);
    }
}

#[test]
fn mending_makes_a_slice_whole() {
    let filled = Filled::new();
    let file = File::options()
        .write(true)
        .open(filled.slice_path(3))
        .expect("opens");
    file.set_len(10).expect("cuts");
    let store = filled.open();
    let (snapshot, slot) = (filled.snapshot, Slot(3));
    let error = store.mend_run(snapshot, slot, BlockIndex(1), filled.coded.run(3, 0));
    assert!(
        matches!(error, Err(WriteError::NotTheRun { .. })),
        "{error:?}"
    );
    for (block, left) in [(0, vec![(3, 1), (3, 2)]), (2, vec![(3, 1)]), (1, vec![])] {
        let run = filled.coded.run(3, block);
        store
            .mend_run(snapshot, slot, BlockIndex(block), run)
            .expect("mends");
        assert_eq!(filled.bad_runs(&store), left);
        let file_bytes = store.slices(snapshot)[&slot].file_bytes;
        let on_disk = fs::metadata(filled.slice_path(3)).expect("there").len();
        assert_eq!(file_bytes, on_disk);
    }
    assert_eq!(filled.bad_runs(&store), []);
    drop(store);
    fs::remove_dir_all(filled.catalogue_path()).expect("removes");
    assert_eq!(filled.open().findings(), [Finding::CatalogueRebuilt]);
}

#[test]
fn foreign_files_are_named_and_left_alone() {
    let filled = Filled::new();
    let shouted = filled.snapshot.to_string().to_uppercase() + ".manifest";
    let foreign = [
        "01.unfinished".to_owned(),
        shouted,
        "notes.txt".to_owned(),
        format!("{}.64.slice", filled.snapshot),
        format!("{}.7.slice", filled.snapshot),
    ];
    for name in &foreign {
        fs::write(filled.directory.path().join(name), b"mine").expect("writes");
    }
    fs::create_dir(filled.directory.path().join("5.unfinished")).expect("makes");
    let store = filled.open();
    let mut expected: Vec<_> = foreign
        .iter()
        .map(String::as_str)
        .chain(["5.unfinished"])
        .map(|name| Finding::Foreign { name: name.into() })
        .collect();
    for finding in store.findings() {
        let at = expected.iter().position(|foreign| foreign == finding);
        expected.remove(at.expect("each foreign file once, and nothing else"));
    }
    assert_eq!(expected, []);
    for name in &foreign {
        assert_eq!(
            fs::read(filled.directory.path().join(name)).expect("reads"),
            b"mine"
        );
    }
    assert_eq!(filled.bad_runs(&store), []);
}

#[test]
fn what_a_crash_left_unfinished_is_swept() {
    let filled = Filled::new();
    for name in ["0.unfinished", "17.unfinished"] {
        fs::write(filled.directory.path().join(name), b"half").expect("writes");
    }
    let store = filled.open();
    assert_eq!(
        store.findings(),
        [Finding::UnfinishedRemoved, Finding::UnfinishedRemoved]
    );
    assert!(
        names(filled.directory.path())
            .iter()
            .all(|name| !name.contains("unfinished"))
    );
    write_slice(&store, &filled.coded, Slot(0));
    assert_eq!(filled.bad_runs(&store), []);
}

#[test]
fn a_deleted_catalogue_is_rebuilt_and_nothing_lost() {
    let filled = Filled::new();
    let slices = filled.open().slices(filled.snapshot);
    fs::remove_dir_all(filled.catalogue_path()).expect("removes");
    let store = filled.open();
    assert_eq!(store.findings(), [Finding::CatalogueRebuilt]);
    assert_eq!(store.slices(filled.snapshot), slices);
    assert_eq!(filled.bad_runs(&store), []);
    drop(store);
    assert_eq!(filled.open().findings(), []);
}

#[test]
fn no_flipped_byte_in_the_catalogue_loses_a_slice() {
    let filled = Filled::new();
    let slices = filled.open().slices(filled.snapshot);
    let mut random = fastrand::Rng::with_seed(9);
    for _ in 0..60 {
        let files: Vec<_> = names(&filled.catalogue_path())
            .into_iter()
            .map(|name| filled.catalogue_path().join(name))
            .filter(|path| fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() > 0))
            .collect();
        let path = &files[random.usize(..files.len())];
        // A fresh database writes near its start; the rest of its file is zeros.
        let length = fs::metadata(path).expect("there").len().min(1024);
        filled.flip(path, random.usize(..length as usize));
        let store = filled.open();
        assert_eq!(store.slices(filled.snapshot), slices);
        assert_eq!(filled.bad_runs(&store), []);
    }
}

#[test]
fn a_catalogue_of_garbage_is_rebuilt() {
    let filled = Filled::new();
    for name in names(&filled.catalogue_path()) {
        let path = filled.catalogue_path().join(name);
        if path.is_file() {
            let length = fs::metadata(&path).expect("there").len() as usize;
            fs::write(&path, random_bytes(3, length)).expect("writes");
        }
    }
    let store = filled.open();
    assert_eq!(store.findings(), [Finding::CatalogueRebuilt]);
    assert_eq!(filled.bad_runs(&store), []);
    drop(store);

    fs::remove_dir_all(filled.catalogue_path()).expect("removes");
    fs::write(filled.catalogue_path(), b"a file").expect("writes");
    let store = filled.open();
    assert_eq!(store.findings(), [Finding::CatalogueRebuilt]);
    assert_eq!(filled.bad_runs(&store), []);
    drop(store);
    assert_eq!(filled.open().findings(), []);
}

#[test]
fn a_catalogue_of_another_day_is_brought_up_to_date() {
    let filled = Filled::new();
    fs::remove_file(filled.slice_path(4)).expect("removes");
    let store = filled.open();
    assert_eq!(store.findings(), []);
    let slots = store.slices(filled.snapshot);
    assert!(slots.into_keys().eq((0..4).map(Slot)));
    let error = store
        .read_run(filled.snapshot, Slot(4), BlockIndex(0))
        .expect_err("gone");
    assert!(matches!(error, ReadError::NotHeld { .. }), "{error}");
    drop(store);
    let (_, entries, deleted) = Catalogue::open(filled.catalogue_path());
    assert_eq!((entries.len(), deleted), (4, false));
}

#[test]
fn a_damaged_manifest_is_named_and_can_be_put_again() {
    let filled = Filled::new();
    let length = fs::metadata(filled.manifest_path()).expect("there").len() as usize;
    for at in (0..length).step_by(13) {
        filled.flip(&filled.manifest_path(), at);
        let store = filled.open();
        let error = store.manifest(filled.snapshot).expect_err("damaged");
        assert!(
            matches!(error, ManifestReadError::Damaged { .. }),
            "{error}"
        );
        let error = store
            .read_run(filled.snapshot, Slot(0), BlockIndex(0))
            .expect_err("no proof");
        assert!(
            matches!(
                error,
                ReadError::Manifest(ManifestReadError::Damaged { .. })
            ),
            "{error}"
        );
        store
            .put_manifest(&filled.coded.manifest, b"signed")
            .expect("puts");
        assert_eq!(filled.bad_runs(&store), []);
    }
}

#[test]
fn the_manifest_of_another_snapshot_is_found_out() {
    let filled = Filled::new();
    let store = filled.open();
    let other = Coded::new(small_code(), 5_000);
    let snapshot = store.put_manifest(&other.manifest, b"").expect("puts");
    let path = FileName::Manifest(snapshot).path(filled.directory.path());
    fs::copy(path, filled.manifest_path()).expect("copies");
    let error = store.manifest(filled.snapshot).expect_err("another's");
    assert!(
        matches!(error, ManifestReadError::Damaged { .. }),
        "{error}"
    );
}

#[test]
fn slices_wait_for_a_lost_manifest() {
    let filled = Filled::new();
    fs::remove_file(filled.manifest_path()).expect("removes");
    let store = filled.open();
    let snapshot = filled.snapshot;
    assert_eq!(store.findings(), [Finding::ManifestMissing { snapshot }]);
    assert_eq!(store.slices(snapshot).len(), 5);
    let error = store.manifest(snapshot).expect_err("missing");
    assert!(
        matches!(error, ManifestReadError::NotHeld { .. }),
        "{error}"
    );
    store
        .put_manifest(&filled.coded.manifest, b"")
        .expect("puts");
    assert_eq!(filled.bad_runs(&store), []);
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

#[test]
fn bytes_rotting_under_an_open_store_are_noticed() {
    let filled = Filled::new();
    let store = filled.open();
    assert_eq!(filled.bad_runs(&store), []);
    let mut file = File::options()
        .write(true)
        .open(filled.slice_path(0))
        .expect("opens");
    file.seek(SeekFrom::Start((SLICE_HEADER_BYTES + RUN_BYTES) as u64))
        .expect("seeks");
    file.write_all(b"rotten").expect("writes");
    assert_eq!(filled.bad_runs(&store), [(0, 1)]);
    fs::remove_file(filled.slice_path(1)).expect("removes");
    assert_eq!(filled.bad_runs(&store), [(0, 1), (1, 0), (1, 1), (1, 2)]);
}
