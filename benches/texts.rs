//! What it costs that people type into one text, beside automerge alone: CPU time and bytes.

#[path = "../sqlite-ext/src/tests/histories/recording.rs"]
mod recording;
#[expect(dead_code, reason = "another bench uses the rest of it")]
mod side_by_side;
mod writers;

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use recording::{Recording, Sitting};
use side_by_side::{Comparison, Named, compare};
use writers::{Way, Writer};

const OTHERS: [Way; 3] = [Way::UpdateText, Way::Stored, Way::Tracked];
const ALL: [Way; 4] = [Way::Automerge, Way::UpdateText, Way::Stored, Way::Tracked];
const KEPT: [Way; 3] = [Way::Automerge, Way::Stored, Way::Tracked];

/// How many edits one person makes before the other sees them, at most.
const SITTING_EDITS_MAX: usize = 1_000;

/// Edits of a history that is made here, where none is given.
const EDITS_COUNT: usize = 3_000;

/// What is typed, and what came of it.
struct Story {
    name: &'static str,
    recording: Recording,
    sizes: RefCell<BTreeMap<Way, Vec<(&'static str, u64)>>>,
}

impl Story {
    fn new(name: &'static str, recording: Recording) -> Self {
        Story {
            name,
            recording,
            sizes: RefCell::default(),
        }
    }

    fn sittings(&self) -> Vec<Sitting<'_>> {
        self.recording.sittings(SITTING_EDITS_MAX)
    }
}

fn main() {
    let two = Recording::read("friendsforever");
    let one = Recording::read("automerge-paper");
    let is_given = two.is_some();
    let stories = [
        Story::new("two", two.unwrap_or_else(|| Recording::of_two(EDITS_COUNT))),
        Story::new("one", one.unwrap_or_else(|| Recording::of_one(EDITS_COUNT))),
    ];
    if !is_given {
        println!("SYNCLINE_DATA names no folder: what is typed is made here");
    }
    let cases = |comparison: &mut Comparison<'_>| {
        stories.iter().for_each(|story| cases_of(comparison, story));
    };
    compare("texts", cases, |comparison| {
        comparison.print_ratios(Way::Automerge, &OTHERS);
        stories.iter().for_each(print_sizes);
    });
}

fn cases_of(comparison: &mut Comparison<'_>, story: &Story) {
    let name = story.name;
    comparison.turns(&format!("type and merge, {name}"), &ALL, |way| {
        let (writers, took, sent) = typed(way, story);
        let mut sizes = story.sizes.borrow_mut();
        sizes.entry(way).or_insert_with(|| writers[0].sizes(sent));
        took
    });
    let typed_once: [OnceCell<Vec<u8>>; 2] = Default::default();
    let all = |way| {
        let (at, way) = match way {
            Way::Tracked => (1, way),
            _ => (0, Way::Automerge),
        };
        typed_once[at].get_or_init(|| typed(way, story).0[0].all())
    };
    comparison.turns(&format!("receive all, {name}"), &KEPT, |way| {
        Writer::received(way, all(way)).1
    });
    let text = format!("{}.", story.recording.end_content);
    comparison.turns(&format!("first key after a start, {name}"), &KEPT, |way| {
        let (writer, _) = Writer::received(way, all(way));
        // What a thread keeps in memory is as if the program had started anew on another one.
        let first_key = || writer.restarted_and_written(&text);
        thread::scope(|scope| scope.spawn(first_key).join().expect("it is written"))
    });
}

/// Prints how many bytes each way keeps and sends.
fn print_sizes(story: &Story) {
    let sizes = story.sizes.borrow();
    for (way, sizes) in sizes.iter() {
        let (name, way) = (story.name, way.name());
        for (what, bytes) in sizes {
            println!("{name}, {way}, {what}: {bytes} bytes");
        }
    }
}

/// Types a whole story; returns both people, the time they took, and the bytes that were sent.
fn typed(way: Way, story: &Story) -> ([Writer; 2], Duration, usize) {
    let mut writers = Writer::two(way);
    let mut took = Duration::ZERO;
    let mut sent: [Vec<(usize, Vec<u8>)>; 2] = [vec![], vec![]];
    let mut seen_count = [0; 2];
    let mut texts = [String::new(), String::new()];
    for sitting in story.sittings() {
        let (own, other) = (sitting.agent, 1 - sitting.agent);
        if let Some(seen) = sitting.seen {
            let is_seen = |(last, _): &&(usize, Vec<u8>)| *last <= seen;
            let news = sent[other][seen_count[own]..].iter().take_while(is_seen);
            for (_, bytes) in news {
                took += writers[own].merge(bytes);
                seen_count[own] += 1;
            }
            texts[own] = writers[own].text();
        }
        let text = sitting.typed_into(&texts[own]);
        let (bytes, writing) = writers[own].write(&sitting, &text);
        took += writing;
        sent[own].push((sitting.last, bytes));
        texts[own] = text;
    }
    for own in [0, 1] {
        for (_, bytes) in &sent[1 - own][seen_count[own]..] {
            took += writers[own].merge(bytes);
        }
        assert_eq!(writers[own].text(), story.recording.end_content);
    }
    let bytes = sent.iter().flatten().map(|(_, bytes)| bytes.len()).sum();
    (writers, took, bytes)
}
