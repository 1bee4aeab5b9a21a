//! Whatever rots, is cut or is lost of a store's files harms as little as it can.

use super::*;

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
