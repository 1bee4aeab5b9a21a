//! What a pulling session makes of answers that arrive damaged: lost, crowded or of no use yet.

use super::hostile::{drain, envelopes, part, pulling, send};
use super::network::fake_envelope;
use super::stream;
use crate::log::Position;
use crate::session::message::{DataIndex, Message, Part};
use crate::session::*;

fn done(round: u64, index: u64) -> Message {
    Message::Done {
        upto: DataIndex { round, index },
    }
}

/// The question that follows the first one, with nothing received.
fn asked_again() -> Output {
    let entries = vec![Position {
        stream: stream(1, 1),
        seq: Seq::NONE,
    }];
    Output::Send(Message::Want { round: 2, entries }.encode())
}

/// A large envelope in its two parts, as answers to a question, from number `index` on.
fn large(seq: u64, round: u64, index: u64) -> (Vec<u8>, [Message; 2]) {
    let bytes = fake_envelope(&stream(1, 1), seq, DATA_BYTES_MAX + 100);
    let hash = *blake3::hash(&bytes).as_bytes();
    let messages = [0, 1].map(|number| {
        let start = number as usize * DATA_BYTES_MAX;
        let bytes = bytes[start..bytes.len().min(start + DATA_BYTES_MAX)].to_vec();
        let at = DataIndex {
            round,
            index: index + u64::from(number),
        };
        Message::Part {
            at,
            part: Part {
                hash,
                part: number,
                count: 2,
                bytes,
            },
        }
    });
    (bytes, messages)
}

fn stored(outputs: &[Output]) -> Vec<&Vec<u8>> {
    let stores = outputs.iter().filter_map(|output| match output {
        Output::Store(envelopes) => Some(envelopes),
        _ => None,
    });
    stores.flatten().collect()
}

#[test]
fn a_lost_frame_is_asked_for_again_at_once() {
    // The first of two frames is lost, then the second, then both.
    for (number, told) in [(Some(1), 2), (Some(0), 2), (None, 2)] {
        let mut session = pulling();
        if let Some(index) = number {
            send(&mut session, &envelopes(1, index)).unwrap();
        }
        let outputs = send(&mut session, &done(1, told)).unwrap();
        assert_eq!(outputs, [asked_again()], "{number:?}");
    }
}

#[test]
fn what_a_whole_answer_lacks_is_left_alone_for_a_while() {
    let mut session = pulling();
    let outputs = send(&mut session, &done(1, 0)).unwrap();
    assert_eq!(outputs, [Output::PullFinished(PullEnd::Complete)]);
    session.handle(Input::Tick, BACKOFF_MS_MIN - 1).unwrap();
    assert_eq!(drain(&mut session), []);
    session.handle(Input::Tick, BACKOFF_MS_MIN).unwrap();
    assert_eq!(drain(&mut session), [Output::PullWanted]);
}

#[test]
fn a_large_envelope_that_was_of_no_use_yet_is_put_together_again() {
    let mut session = pulling();
    for round in [1, 2] {
        let (bytes, [first, second]) = large(2, round, 0);
        assert!(stored(&send(&mut session, &first).unwrap()).is_empty());
        assert_eq!(stored(&send(&mut session, &second).unwrap()), [&bytes]);
        // The log did not advance: one before it was missing.
        if round == 1 {
            let outputs = send(&mut session, &done(1, 3)).unwrap();
            assert_eq!(outputs, [asked_again()]);
        }
    }
}

#[test]
fn parts_of_two_envelopes_do_not_drive_each_other_out() {
    let mut session = pulling();
    let (bytes, [first, second]) = large(1, 1, 0);
    let (_, [crowding, _]) = large(2, 1, 2);
    send(&mut session, &first).unwrap();
    send(&mut session, &crowding).unwrap();
    assert_eq!(stored(&send(&mut session, &second).unwrap()), [&bytes]);
}

#[test]
fn an_answer_of_which_a_part_found_no_room_is_asked_for_again_at_once() {
    let mut session = pulling();
    let (_, [first, _]) = large(1, 1, 0);
    let (_, [crowding, _]) = large(2, 1, 1);
    send(&mut session, &first).unwrap();
    send(&mut session, &crowding).unwrap();
    assert_eq!(send(&mut session, &done(1, 2)).unwrap(), [asked_again()]);
}

#[test]
fn parts_that_stopped_coming_make_room_after_the_next_question() {
    let mut session = pulling();
    let (_, [first, _]) = large(1, 1, 0);
    send(&mut session, &first).unwrap();
    assert_eq!(send(&mut session, &done(1, 2)).unwrap(), [asked_again()]);
    let (bytes, [first, second]) = large(2, 2, 0);
    send(&mut session, &first).unwrap();
    assert_eq!(stored(&send(&mut session, &second).unwrap()), [&bytes]);
}

#[test]
fn a_part_that_came_twice_is_used_once() {
    let mut session = pulling();
    let (bytes, [first, second]) = large(1, 1, 0);
    for _ in 0..3 {
        send(&mut session, &first).unwrap();
    }
    assert_eq!(stored(&send(&mut session, &second).unwrap()), [&bytes]);
    for message in [&first, &second] {
        assert!(stored(&send(&mut session, message).unwrap()).is_empty());
    }
}

#[test]
fn a_turn_lasts_longer_while_parts_keep_coming() {
    let mut session = pulling();
    let count = 60;
    let mut ended_ms = None;
    for number in 0..count - 1 {
        let now_ms = u64::from(number + 1) * (WANT_TIMEOUT_MS - 1_000);
        let frame = part(u64::from(number), [9; 32], number, count, DATA_BYTES_MAX).encode();
        session.handle(Input::Frame(frame), now_ms).unwrap();
        let outputs = drain(&mut session);
        if outputs.contains(&Output::PullFinished(PullEnd::TurnOver)) {
            ended_ms = Some(now_ms);
        }
        if ended_ms.is_some() {
            break;
        }
    }
    let ended_ms = ended_ms.unwrap();
    assert!(
        (TURN_MS + 1..=LARGE_TURN_MS + WANT_TIMEOUT_MS).contains(&ended_ms),
        "{ended_ms}"
    );
    assert!(ended_ms >= LARGE_TURN_MS);
}

#[test]
fn a_turn_ends_when_nothing_is_missing_though_the_end_was_lost() {
    let mut session = pulling();
    send(&mut session, &envelopes(1, 0)).unwrap();
    let heads = [(stream(1, 1), Seq::new(1_000).unwrap())]
        .into_iter()
        .collect();
    session.handle(Input::Advanced(heads), 0).unwrap();
    assert!(drain(&mut session).contains(&Output::PullFinished(PullEnd::Complete)));
}
