//! Messages come back as they were; every other frame is refused by name.

use proptest::prelude::*;

use super::message::*;
use crate::log::{Position, StreamRef};
use crate::trust::{ENVELOPE_BYTES_MIN, PublicKey, SEQ_MAX, Seq, StreamId};

fn entries() -> impl Strategy<Value = Vec<(StreamRef, Seq)>> {
    let entry = (any::<[u8; 32]>(), any::<[u8; 8]>(), 1..=SEQ_MAX);
    prop::collection::btree_map(
        entry.prop_map(|(author, stream, seq)| {
            (
                StreamRef {
                    author: PublicKey(author),
                    stream: StreamId(stream),
                },
                seq,
            )
        }),
        Just(()),
        0..20,
    )
    .prop_map(|map| {
        let mut entries: Vec<_> = map
            .into_keys()
            .map(|(stream, seq)| (stream, Seq::new(seq).unwrap()))
            .collect();
        entries.dedup_by_key(|(stream, _)| *stream);
        entries
    })
}

fn message() -> impl Strategy<Value = Message> {
    let at = (any::<u64>(), any::<u64>()).prop_map(|(round, index)| DataIndex { round, index });
    let sizes = prop::collection::vec(ENVELOPE_BYTES_MIN..2_000, 1..5);
    prop_oneof![
        (any::<[u8; 16]>(), entries())
            .prop_map(|(digest, entries)| Message::Heads { digest, entries }),
        Just(Message::ResendHeads),
        (any::<u64>(), entries()).prop_map(|(round, entries)| {
            let entries = entries.into_iter();
            let entries = entries
                .map(|(stream, seq)| Position { stream, seq })
                .collect();
            Message::Want { round, entries }
        }),
        (at.clone(), sizes).prop_map(|(at, sizes)| {
            let envelopes = sizes.into_iter().map(|bytes| vec![7; bytes]).collect();
            Message::Envelopes { at, envelopes }
        }),
        (
            at.clone(),
            2..=PARTS_MAX - 1,
            any::<[u8; 32]>(),
            1..100_usize
        )
            .prop_map(|(at, count, hash, bytes)| {
                let part = Part {
                    hash,
                    part: count - 1,
                    count,
                    bytes: vec![3; bytes],
                };
                Message::Part { at, part }
            }),
        at.clone().prop_map(|upto| Message::Ack { upto }),
        at.prop_map(|upto| Message::Done { upto }),
    ]
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(message in message()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn every_truncation_is_refused(message in message()) {
        let frame = message.encode();
        for end in 0..frame.len() {
            prop_assert!(Message::decode(&frame[..end]).is_err());
        }
    }

    #[test]
    fn what_decodes_has_one_encoding(message in message(), bit in any::<prop::sample::Index>()) {
        let mut frame = message.encode();
        let bit = bit.index(frame.len() * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = Message::decode(&frame) {
            prop_assert_eq!(other.encode(), frame);
        }
    }

    #[test]
    fn noise_never_panics(mut noise in prop::collection::vec(any::<u8>(), 2..300)) {
        let _ = Message::decode(&noise);
        noise[0] = 1;
        noise[1] %= 9;
        let _ = Message::decode(&noise);
    }
}

#[test]
fn a_frame_above_the_limit_is_refused() {
    let frame = vec![1; FRAME_BYTES_MAX + 1];
    let bytes = frame.len();
    assert_eq!(
        Message::decode(&frame),
        Err(MessageError::TooLarge { bytes })
    );
}

#[test]
fn bytes_after_the_message_are_refused() {
    let mut frame = Message::ResendHeads.encode();
    frame.push(0);
    assert_eq!(
        Message::decode(&frame),
        Err(MessageError::TrailingBytes { bytes: 1 })
    );
}

#[test]
fn unknown_versions_and_types_are_refused() {
    assert_eq!(
        Message::decode(&[2, 1]),
        Err(MessageError::UnknownVersion { version: 2 })
    );
    for kind in [0, 8, 255] {
        assert_eq!(
            Message::decode(&[1, kind]),
            Err(MessageError::UnknownType { kind })
        );
    }
}

fn entry(author: u8, seq: u64) -> Vec<u8> {
    [&[author; 32][..], &[0; 8], &seq.to_le_bytes()].concat()
}

fn want(entries: &[Vec<u8>]) -> Vec<u8> {
    let count = (entries.len() as u32).to_le_bytes();
    [&[1, 3], &1_u64.to_le_bytes()[..], &count, &entries.concat()].concat()
}

#[test]
fn entries_out_of_order_or_twice_are_refused() {
    assert!(Message::decode(&want(&[entry(1, 0), entry(2, 5)])).is_ok());
    for pair in [[entry(2, 1), entry(1, 1)], [entry(1, 1), entry(1, 2)]] {
        assert_eq!(Message::decode(&want(&pair)), Err(MessageError::Unordered));
    }
}

#[test]
fn a_place_above_the_cap_is_refused() {
    for seq in [SEQ_MAX + 1, u64::MAX] {
        let refused = Err(MessageError::SeqOutOfRange { seq });
        assert_eq!(Message::decode(&want(&[entry(1, seq)])), refused);
    }
}

#[test]
fn a_head_of_zero_is_refused() {
    let digest = [0; 16];
    let frame = [&[1, 1], &digest[..], &[1, 0, 0, 0], &entry(1, 0)].concat();
    assert_eq!(Message::decode(&frame), Err(MessageError::Empty));
}

#[test]
fn a_million_streams_are_refused_before_they_are_read() {
    let frame = [&[1, 1], &[0; 16][..], &1_000_000_u32.to_le_bytes()].concat();
    let refused = MessageError::TooMany {
        count: 1_000_000,
        count_max: HEADS_PER_FRAME_MAX,
    };
    assert_eq!(Message::decode(&frame), Err(refused));
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let at = [0; 16];
    for (part, count, bytes) in [
        (0, 1, 10),
        (0, 0, 10),
        (2, 2, 10),
        (0, 2, 10),
        (1, 2, 0),
        (1, 2, DATA_BYTES_MAX + 1),
        (PARTS_MAX, PARTS_MAX + 1, 10),
        (PARTS_MAX - 1, PARTS_MAX, DATA_BYTES_MAX),
        (u32::MAX, 0, 10),
        (0, u32::MAX, DATA_BYTES_MAX),
    ] {
        let frame = [
            &[1, 5],
            &at[..],
            &[0; 32],
            &u32::to_le_bytes(part),
            &u32::to_le_bytes(count),
            &(bytes as u32).to_le_bytes(),
            &vec![0; bytes],
        ]
        .concat();
        let refused = Err(MessageError::WrongPart { part, count, bytes });
        assert_eq!(Message::decode(&frame), refused);
    }
}

#[test]
fn envelopes_of_impossible_sizes_are_refused() {
    let at = [0; 16];
    for bytes in [0, 1, ENVELOPE_BYTES_MIN - 1, DATA_BYTES_MAX + 1] {
        let envelope = [&(bytes as u32).to_le_bytes()[..], &vec![0; bytes]].concat();
        let frame = [&[1, 4], &at[..], &[1, 0, 0, 0], &envelope].concat();
        assert_eq!(
            Message::decode(&frame),
            Err(MessageError::EnvelopeSize { bytes })
        );
    }
    let frame = [&[1, 4], &at[..], &[0; 4]].concat();
    assert_eq!(Message::decode(&frame), Err(MessageError::Empty));
}
