//! Laws of the joins: any order, any repetition, any path give one cell; hostile bytes give errors.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Hlc, Real, SiteId, Stamp, Value};

mod bounded;
mod contested;

const ENTRY_POLICIES: [Policy; 5] = [
    Policy::Counter,
    Policy::BoundedCounter { floor: 0 },
    Policy::Max,
    Policy::Min,
    Policy::Set,
];
const HISTORY_POLICIES: [Policy; 2] = [Policy::Text, Policy::Document];

fn site(number: u8) -> SiteId {
    SiteId([number; 16])
}

fn stamp(version: u64, by: u8) -> Stamp {
    Stamp {
        version: Hlc::from_bits(version).expect("small"),
        site: site(by),
    }
}

/// What a user may leave in a cell.
fn visible() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        (-5i64..20).prop_map(Value::Integer),
        (-5i64..20).prop_map(|n| Value::Real(Real::new(n as f64 / 2.0).expect("no NaN"))),
        "[a-c ]{0,6}".prop_map(|text| Value::text(&text)),
        prop::collection::vec(0u8..4, 0..4).prop_map(|items| Value::text(&format!("{items:?}"))),
        ("[xyz]", "[a-c ]{0,4}", 0u8..3).prop_map(|(key, text, n)| Value::text(&format!(
            r#"{{"{key}":"{text}","list":[{n},"{text}"],"in":{{"n":{n}}}}}"#
        ))),
        prop::collection::vec(any::<u8>(), 0..3).prop_map(Value::Blob),
    ]
}

/// Returns a history as it is stored: what is saved, and what lies beside it.
fn stored(cell: &History) -> (Vec<u8>, Vec<u8>) {
    let aside = cell.aside(&[]).expect("nothing is read");
    let aside = aside.into_iter().flat_map(|aside| aside.edits);
    (cell.save(), aside.collect())
}

/// One step at one of three sites: write, or take over what another has.
#[derive(Clone, Debug)]
enum Step {
    Write(u8, Value),
    Pull(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u8..3, visible()).prop_map(|(at, value)| Step::Write(at, value)),
        (0u8..3, 0u8..3).prop_map(|(at, from)| Step::Pull(at, from)),
    ];
    prop::collection::vec(step, 0..20)
}

/// Runs steps and returns all that was ever added, in order, with each site's cell.
fn run_entries(policy: Policy, steps: &[Step]) -> (Vec<(Stamp, Vec<u8>)>, Vec<SiteEntries>) {
    let mut cells = vec![SiteEntries::new(policy); 3];
    let mut added: Vec<(Stamp, Vec<u8>)> = Vec::new();
    let mut seen = vec![vec![]; 3];
    for (version, step) in (1..).zip(steps) {
        match step {
            Step::Write(at, value) => {
                let cell = &mut cells[usize::from(*at)];
                if let Some(entry) = cell.edit(site(*at), value) {
                    let stamp = stamp(version, *at);
                    cell.join(stamp, &entry).expect("an own entry is taken in");
                    seen[usize::from(*at)].push(added.len());
                    added.push((stamp, entry));
                }
            }
            Step::Pull(at, from) => {
                for index in seen[usize::from(*from)].clone() {
                    let (stamp, entry) = &added[index];
                    let cell = &mut cells[usize::from(*at)];
                    cell.join(*stamp, entry)
                        .expect("another's entry is taken in");
                    seen[usize::from(*at)].push(index);
                }
            }
        }
    }
    (added, cells)
}

fn joined(policy: Policy, added: &[(Stamp, Vec<u8>)]) -> SiteEntries {
    let mut cell = SiteEntries::new(policy);
    for (stamp, entry) in added {
        cell.join(*stamp, entry).expect("an entry is taken in");
    }
    cell
}

proptest! {
    #[test]
    fn entries_join_in_any_order_and_any_number_of_times(
        steps in steps(),
        swaps in prop::collection::vec((0usize..40, 0usize..40), 0..20),
    ) {
        for policy in ENTRY_POLICIES {
            let (added, _) = run_entries(policy, &steps);
            let expected = joined(policy, &added);
            let mut shuffled = [added.clone(), added].concat();
            for (a, b) in swaps.iter().copied() {
                if a < shuffled.len() && b < shuffled.len() {
                    shuffled.swap(a, b);
                }
            }
            let found = joined(policy, &shuffled);
            prop_assert_eq!(found.shown(), expected.shown());
            prop_assert_eq!(found.fingerprint(), expected.fingerprint());
        }
    }

    #[test]
    fn a_cell_that_shows_what_it_shows_was_not_edited(steps in steps()) {
        for policy in ENTRY_POLICIES {
            for cell in run_entries(policy, &steps).1 {
                let Some(shown) = cell.shown() else { continue };
                prop_assert_eq!(cell.edit(site(0), &shown), None);
            }
        }
    }

    #[test]
    fn a_bounded_counter_stays_at_or_above_its_floor_everywhere(
        steps in steps(),
        grants in prop::collection::vec((0u8..3, 0u8..3, 1i64..9), 0..5),
    ) {
        let policy = Policy::BoundedCounter { floor: 0 };
        let (mut added, mut cells) = run_entries(policy, &steps);
        for (version, (from, to, amount)) in (100..).zip(grants) {
            let cell = &mut cells[usize::from(from)];
            if let Ok(entry) = cell.grant(site(from), site(to), amount) {
                let stamp = stamp(version, from);
                cell.join(stamp, &entry).expect("a grant is taken in");
                added.push((stamp, entry));
            }
        }
        // All that anybody may still subtract is all there is.
        let all = joined(policy, &added);
        let rights: i64 = (0..3).filter_map(|number| all.rights(site(number))).sum();
        let Some(Value::Integer(shown)) = all.shown() else { return Ok(()) };
        prop_assert!(shown >= 0);
        prop_assert_eq!(shown, rights);
    }

    #[test]
    fn histories_join_in_any_order_and_say_what_another_lacks(
        steps in steps(),
        swaps in prop::collection::vec((0usize..40, 0usize..40), 0..20),
    ) {
        for policy in HISTORY_POLICIES {
            let mut cells: Vec<History> = (0..3).map(|_| History::new(policy)).collect();
            let mut added: Vec<(Stamp, Vec<u8>)> = Vec::new();
            for (version, step) in (1..).zip(&steps) {
                match step {
                    Step::Write(at, value) => {
                        let stamp = stamp(version, *at);
                        let cell = &mut cells[usize::from(*at)];
                        let delta = cell.edit(stamp, value).expect("an edit is made");
                        added.extend(delta.map(|delta| (stamp, delta)));
                    }
                    Step::Pull(at, from) => {
                        for by in 0..3 {
                            let from = &cells[usize::from(*from)];
                            let lacks = from.changes_of(site(by), Hlc::ZERO, Hlc::MAX);
                            let stamp = stamp(version, by);
                            cells[usize::from(*at)].join(stamp, &lacks).expect("joined");
                        }
                    }
                }
            }
            let mut expected = History::new(policy);
            for (stamp, delta) in &added {
                expected.join(*stamp, delta).expect("joined");
            }
            let mut shuffled = [added.clone(), added.clone()].concat();
            for (a, b) in swaps.iter().copied() {
                if a < shuffled.len() && b < shuffled.len() {
                    shuffled.swap(a, b);
                }
            }
            let mut found = History::new(policy);
            let mut tail = Vec::new();
            for (at, (stamp, delta)) in shuffled.iter().enumerate() {
                if found.join(*stamp, delta).expect("joined") {
                    tail.extend_from_slice(delta);
                }
                // Stored and read again in the middle, with what waits.
                if at == shuffled.len() / 2 {
                    let saved;
                    (saved, tail) = stored(&found);
                    found = History::load(policy, [1; 16], &saved, &tail).expect("it was saved");
                }
            }
            prop_assert_eq!(found.shown(), expected.shown());
            prop_assert_eq!(found.fingerprint(), expected.fingerprint());
            // What was shown step by step is what the whole history shows.
            for cell in cells.iter().chain([&expected]) {
                let (saved, tail) = stored(cell);
                let again = History::load(policy, [1; 16], &saved, &tail).expect("it was saved");
                prop_assert_eq!(cell.shown(), again.shown());
            }
            // What another lacks, from the middle on and all at once.
            let middle = Hlc::from_bits(steps.len() as u64 / 2).expect("small");
            let mut other = History::new(policy);
            for by in 0..3 {
                for (after, until) in [(middle, Hlc::MAX), (Hlc::ZERO, middle)] {
                    let lacks = found.changes_of(site(by), after, until);
                    let stamp = Stamp { version: until, site: site(by) };
                    other.join(stamp, &lacks).expect("joined");
                }
            }
            prop_assert_eq!(other.shown(), expected.shown());
            prop_assert_eq!(other.fingerprint(), expected.fingerprint());
        }
    }

    #[test]
    fn a_history_shows_what_was_written_last_where_nobody_else_writes(
        values in prop::collection::vec("[a-d \\n]{0,40}", 1..8),
        depth in 1usize..127,
    ) {
        let mut text = History::new(Policy::Text);
        let mut document = History::new(Policy::Document);
        for (version, value) in (1..).zip(&values) {
            text.edit(stamp(version, 1), &Value::text(value)).expect("an edit");
            prop_assert_eq!(text.shown(), Some(Value::text(value)));
            let deep = format!("{}{}{}", "[".repeat(depth), version, "]".repeat(depth));
            let value = serde_json::Value::from(value.as_str());
            let json = format!(r#"{{"a":{value},"b":{deep},"c":[{version},{value}]}}"#);
            document.edit(stamp(version, 1), &Value::text(&json)).expect("an edit");
            prop_assert_eq!(document.shown(), Some(Value::text(&json)));
        }
    }

    #[test]
    fn hostile_bytes_are_refused_and_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        for policy in ENTRY_POLICIES {
            let mut cell = SiteEntries::new(policy);
            if cell.join(stamp(1, 1), &bytes).is_err() {
                prop_assert!(cell.is_empty());
            } else if let Some(shown) = cell.shown() {
                prop_assert_eq!(cell.edit(site(2), &shown), None);
            }
        }
        for policy in HISTORY_POLICIES {
            let joined = History::new(policy).join(stamp(1, 1), &bytes);
            prop_assert!(bytes.is_empty() || joined.is_err());
        }
    }

    #[test]
    fn damaged_edits_are_refused_or_mean_something(
        at in 0usize..200,
        with in any::<u8>(),
    ) {
        for policy in HISTORY_POLICIES {
            let mut history = History::new(policy);
            let text = Value::text(r#"{"a":"some prose","b":[1,2]}"#);
            let mut delta = history.edit(stamp(1, 1), &text).expect("edit").expect("news");
            let at = at % delta.len();
            delta[at] = with;
            // Whatever it is now, it is taken in or refused, and what is taken in can be stored.
            let mut other = History::new(policy);
            if other.join(stamp(1, 1), &delta).is_ok() {
                let (saved, tail) = stored(&other);
                let again = History::load(policy, [1; 16], &saved, &tail).expect("it was saved");
                prop_assert_eq!(again.shown(), other.shown());
            }
        }
    }
}

#[test]
fn concurrent_increments_add_up() {
    let mut a = SiteEntries::new(Policy::Counter);
    let first = a.edit(site(1), &Value::Integer(100)).expect("news");
    a.join(stamp(1, 1), &first).expect("joined");
    let mut b = a.clone();
    let plus = a.edit(site(1), &Value::Integer(103)).expect("news");
    a.join(stamp(2, 1), &plus).expect("joined");
    let minus = b.edit(site(2), &Value::Integer(90)).expect("news");
    b.join(stamp(3, 2), &minus).expect("joined");
    a.join(stamp(3, 2), &minus).expect("joined");
    b.join(stamp(2, 1), &plus).expect("joined");
    assert_eq!(a.shown(), Some(Value::Integer(93)));
    assert_eq!(a, b);
}

#[test]
fn counters_end_at_the_edge_of_64_bits_and_come_back() {
    let mut cell = SiteEntries::new(Policy::Counter);
    for by in 1..4 {
        let mut own = SiteEntries::new(Policy::Counter);
        let entry = own.edit(site(by), &Value::Integer(i64::MAX)).expect("news");
        own.join(stamp(1, by), &entry).expect("joined");
        cell.join(stamp(1, by), &entry).expect("joined");
    }
    assert_eq!(cell.shown(), Some(Value::Integer(i64::MAX)));
    let entry = cell
        .edit(site(9), &Value::Integer(i64::MAX - 1))
        .expect("news");
    cell.join(stamp(2, 9), &entry).expect("joined");
    assert_eq!(cell.shown(), Some(Value::Integer(i64::MAX)));
}

/// A peer may name a site's own entry, too.
#[test]
fn a_counter_at_the_edge_of_what_is_taken_in_can_be_written() {
    for (edge, wanted) in [(-(1_i128 << 96), i64::MIN), (1 << 96, i64::MAX)] {
        let mut cell = SiteEntries::new(Policy::Counter);
        let mut bytes = Vec::new();
        entries::put_amount(&mut bytes, edge);
        cell.join(stamp(1, 1), &bytes).expect("at the edge");
        assert_eq!(cell.shown(), Some(Value::Integer(wanted)));
        for (version, value) in [(2, 5), (3, i64::MIN), (4, i64::MAX), (5, -5)] {
            if let Some(entry) = cell.edit(site(1), &Value::Integer(value)) {
                cell.join(stamp(version, 1), &entry).expect("its own entry");
            }
        }
    }
    let mut beyond = Vec::new();
    crate::codec::put_bytes(&mut beyond, &((1_i128 << 96) + 1).to_le_bytes()[..13]);
    let refused = SiteEntries::new(Policy::Counter).join(stamp(1, 1), &beyond);
    assert!(refused.is_err());
}

/// Whether an element is taken in must not depend on what came before it.
#[test]
fn an_element_is_added_and_removed_as_often_as_there_were_times_at_most() {
    let entry = |length: u64| {
        let mut bytes = Vec::new();
        crate::codec::put_varint(&mut bytes, 1);
        crate::codec::put_bytes(&mut bytes, b"1");
        crate::codec::put_varint(&mut bytes, length);
        bytes
    };
    let mut cell = SiteEntries::new(Policy::Set);
    assert!(cell.join(stamp(1_000_000, 1), &entry(1_000_001)).is_err());
    cell.join(stamp(1_000_000, 1), &entry(999_999))
        .expect("as many");
    cell.join(stamp(9_000_000, 2), &entry(8_999_999))
        .expect("many more");
    let mut other = SiteEntries::new(Policy::Set);
    other
        .join(stamp(9_000_000, 2), &entry(8_999_999))
        .expect("alone");
    other
        .join(stamp(1_000_000, 1), &entry(999_999))
        .expect("late");
    assert_eq!(cell, other);
    let removed = cell.edit(site(3), &Value::text("[]")).expect("news");
    cell.join(stamp(9_000_001, 3), &removed)
        .expect("its own entry");
    assert_eq!(cell.shown(), Some(Value::text("[]")));
}

#[test]
fn what_counters_cannot_count_adds_nothing() {
    let mut cell = SiteEntries::new(Policy::Counter);
    assert_eq!(cell.edit(site(1), &Value::Null), None);
    let entry = cell
        .edit(site(1), &Value::Integer(0))
        .expect("a first write is news");
    cell.join(stamp(1, 1), &entry).expect("joined");
    let half = Value::Real(Real::new(0.5).expect("no NaN"));
    for value in [Value::Null, half, Value::text("many"), Value::Blob(vec![1])] {
        assert_eq!(cell.edit(site(1), &value), None, "{value:?}");
    }
    let three = cell.edit(site(1), &Value::text("3")).expect("news");
    cell.join(stamp(2, 1), &three).expect("joined");
    assert_eq!(cell.shown(), Some(Value::Integer(3)));
}

#[test]
fn sets_keep_what_one_added_and_drop_what_another_removed() {
    let write = |cell: &mut SiteEntries, version, by, value: &str| {
        let entry = cell.edit(site(by), &Value::text(value)).expect("news");
        cell.join(stamp(version, by), &entry).expect("joined");
        (stamp(version, by), entry)
    };
    let mut a = SiteEntries::new(Policy::Set);
    write(&mut a, 1, 1, r#"["red", 10, 9, {"b":1, "a":2}]"#);
    assert_eq!(
        a.shown(),
        Some(Value::text(r#"[9,10,"red",{"a":2,"b":1}]"#))
    );
    let mut b = a.clone();
    let (at, added) = write(&mut a, 2, 1, r#"["red", 10, 9, "blue"]"#);
    let (bt, removed) = write(&mut b, 3, 2, r#"[10, "green", "green"]"#);
    a.join(bt, &removed).expect("joined");
    b.join(at, &added).expect("joined");
    assert_eq!(a.shown(), Some(Value::text(r#"[10,"blue","green"]"#)));
    assert_eq!(a.shown(), b.shown());
    write(&mut a, 4, 1, "plain words");
    assert_eq!(a.shown(), Some(Value::text(r#"["plain words"]"#)));
    write(&mut a, 5, 1, "");
    assert_eq!(a.shown(), Some(Value::text("[]")));
}

#[test]
fn an_element_cannot_be_used_up() {
    let mut hostile = vec![1, 3];
    hostile.extend_from_slice(br#""a""#);
    crate::codec::put_varint(&mut hostile, 1 << 52);
    let mut cell = SiteEntries::new(Policy::Set);
    assert!(cell.join(stamp(1, 1), &hostile).is_err());
    assert!(cell.edit(site(2), &Value::text(r#"["a"]"#)).is_some());
}

#[test]
fn texts_that_begin_apart_are_one_text() {
    let mut made = BTreeMap::new();
    for (by, text) in [(1, "one"), (2, "two")] {
        let mut cell = History::new(Policy::Text);
        let delta = cell.edit(stamp(1, by), &Value::text(text)).expect("edit");
        made.insert(by, delta.expect("news"));
    }
    let mut cell = History::new(Policy::Text);
    for (by, delta) in &made {
        cell.join(stamp(1, *by), delta).expect("joined");
    }
    let Some(Value::Text(shown)) = cell.shown() else {
        panic!("both wrote");
    };
    let shown = String::from_utf8(shown).expect("UTF-8");
    assert!(shown.contains("one") && shown.contains("two"), "{shown}");
}

#[test]
fn an_edit_under_another_name_or_from_the_future_is_refused() {
    let mut a = History::new(Policy::Text);
    let delta = a
        .edit(stamp(5, 1), &Value::text("mine"))
        .expect("edit")
        .expect("news");
    let mut b = History::new(Policy::Text);
    assert!(b.join(stamp(5, 2), &delta).is_err());
    assert!(b.join(stamp(4, 1), &delta).is_err());
    assert!(b.is_empty());
    assert!(b.join(stamp(5, 1), &delta).expect("joined"));
}

#[test]
fn fields_of_a_document_merge_and_words_are_replaced_whole() {
    let start = r#"{"items":[{"n":1},{"n":2}],"note":"buy some bread","state":"open"}"#;
    let mut a = History::new(Policy::Document);
    let first = a
        .edit(stamp(1, 1), &Value::text(start))
        .expect("edit")
        .expect("news");
    let mut b = History::new(Policy::Document);
    b.join(stamp(1, 1), &first).expect("joined");
    let left =
        r#"{"items":[{"n":1},{"n":7},{"n":2}],"note":"buy some fresh bread","state":"closed"}"#;
    let right =
        r#"{"items":[{"n":1,"k":true},{"n":2}],"note":"please buy some bread","state":"done"}"#;
    let left = a
        .edit(stamp(2, 1), &Value::text(left))
        .expect("edit")
        .expect("news");
    let right = b
        .edit(stamp(3, 2), &Value::text(right))
        .expect("edit")
        .expect("news");
    a.join(stamp(3, 2), &right).expect("joined");
    b.join(stamp(2, 1), &left).expect("joined");
    assert_eq!(a.shown(), b.shown());
    let Some(Value::Text(shown)) = a.shown() else {
        panic!("both wrote");
    };
    let shown = String::from_utf8(shown).expect("UTF-8");
    assert!(
        shown.contains(r#""note":"please buy some fresh bread""#),
        "{shown}"
    );
    assert!(
        shown.contains(r#"[{"k":true,"n":1},{"n":7},{"n":2}]"#),
        "{shown}"
    );
    assert!(
        shown.contains("closed") || shown.contains("done"),
        "{shown}"
    );
}

#[test]
fn deltas_alone_say_what_a_site_added_in_a_span() {
    let mut a = History::new(Policy::Text);
    let mut deltas = Vec::new();
    for (version, text) in [(1, "a"), (2, "ab"), (3, "abc")] {
        let delta = a.edit(stamp(version, 1), &Value::text(text)).expect("edit");
        deltas.extend(delta.expect("news"));
    }
    let (after, until) = (stamp(1, 1).version, stamp(2, 1).version);
    let found = History::changes_in(&deltas, site(1), after, until).expect("deltas");
    assert_eq!(found, a.changes_of(site(1), after, until));
    assert!(!found.is_empty() && found.len() < deltas.len());
    let none = History::changes_in(&deltas, site(2), Hlc::ZERO, Hlc::MAX).expect("deltas");
    assert!(none.is_empty());
}

#[test]
fn a_token_names_what_a_history_holds() {
    let mut a = History::new(Policy::Text);
    let before = a.token();
    let delta = a.edit(stamp(1, 1), &Value::text("one")).expect("edit");
    let delta = delta.expect("news");
    assert_ne!(a.token(), before);
    let mut b = History::new(Policy::Text);
    b.join(stamp(1, 1), &delta).expect("joined");
    assert_eq!(a.token(), b.token());
    b.join(stamp(1, 1), &delta).expect("joined");
    assert_eq!(a.token(), b.token());
}
