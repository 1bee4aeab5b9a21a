//! Makes objects and coded objects for the crate's tests.

use std::collections::BTreeMap;

use crate::{BlockIndex, CodeParameters, Manifest, Slot, encode_object};

/// A coded object with all its runs.
pub(crate) struct Coded {
    pub(crate) object: Vec<u8>,
    pub(crate) manifest: Manifest,
    pub(crate) runs: BTreeMap<(Slot, BlockIndex), Vec<u8>>,
}

impl Coded {
    pub(crate) fn new(code: CodeParameters, object_bytes: usize) -> Self {
        let object = random_bytes(object_bytes as u64, object_bytes);
        let mut runs = BTreeMap::new();
        let manifest = encode_object(code, object.as_slice(), |run| {
            runs.insert((run.slot(), run.block()), run.bytes().to_vec());
            Ok(())
        });
        Self {
            object,
            manifest: manifest.expect("reads from memory"),
            runs,
        }
    }

    pub(crate) fn run(&self, slot: u8, block: u32) -> &[u8] {
        &self.runs[&(Slot(slot), BlockIndex(block))]
    }
}

/// Three of five slots, blocks of nine symbols of 1 KiB.
pub(crate) fn small_code() -> CodeParameters {
    CodeParameters::new(3, 5, 4, 1024).expect("within the limits")
}

pub(crate) fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(length)
        .collect()
}

/// Returns every way to choose `count` of `total` slots.
pub(crate) fn choices(total: u8, count: u8) -> Vec<Vec<Slot>> {
    (0..1_u32 << total)
        .filter(|mask| mask.count_ones() == u32::from(count))
        .map(|mask| {
            (0..total)
                .filter(|slot| mask >> slot & 1 == 1)
                .map(Slot)
                .collect()
        })
        .collect()
}

/// Properties with as many cases as suit each, and no files of failed ones.
pub(crate) fn seeded(cases: u32) -> proptest::test_runner::Config {
    proptest::test_runner::Config {
        cases,
        failure_persistence: None,
        ..proptest::test_runner::Config::default()
    }
}
