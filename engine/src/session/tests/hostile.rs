//! Peers that break the rules: each is refused by name, and nothing reaches the log.

use fastrand::Rng;

use super::network::fake_envelope;
use super::stream;
use crate::log::{Heads, Position};
use crate::session::message::{DataIndex, HEADS_PER_FRAME_MAX, Message, Part};
use crate::session::*;
use crate::trust::{PublicKey, StreamId};

/// Drives a session until it waits; returns what it wanted done.
pub(super) fn drain(session: &mut Session) -> Vec<Output> {
    let mut outputs = Vec::new();
    loop {
        match session.poll() {
            Output::Wait(_) => return outputs,
            Output::Read { .. } => {
                session.handle(Input::Read(Vec::new()), 0).unwrap();
            }
            output => outputs.push(output),
        }
    }
}

pub(super) fn send(session: &mut Session, message: &Message) -> Result<Vec<Output>, SessionError> {
    session.handle(Input::Frame(message.encode()), 0)?;
    Ok(drain(session))
}

pub(super) fn heads(entries: &[(StreamRef, u64)]) -> Heads {
    entries
        .iter()
        .map(|(stream, seq)| (*stream, Seq::new(*seq).unwrap()))
        .collect()
}

/// A session with a turn, whose question 1 asks for stream (1, 1) from the start.
pub(super) fn pulling() -> Session {
    let mut session = Session::new(Heads::default(), 0);
    drain(&mut session);
    let claimed = heads(&[(stream(1, 1), 1_000)]);
    let outputs = send(&mut session, &Message::all_heads(&claimed)[0]).unwrap();
    assert_eq!(outputs, [Output::PullWanted]);
    session.handle(Input::Grant, 0).unwrap();
    let want = Message::Want {
        round: 1,
        entries: vec![Position {
            stream: stream(1, 1),
            seq: Seq::NONE,
        }],
    };
    assert_eq!(drain(&mut session), [Output::Send(want.encode())]);
    session
}

pub(super) fn envelopes(round: u64, index: u64) -> Message {
    let envelopes = vec![fake_envelope(&stream(1, 1), 1, 500)];
    Message::Envelopes {
        at: DataIndex { round, index },
        envelopes,
    }
}

pub(super) fn part(index: u64, hash: [u8; 32], part: u32, count: u32, bytes: usize) -> Message {
    let part = Part {
        hash,
        part,
        count,
        bytes: vec![1; bytes],
    };
    Message::Part {
        at: DataIndex { round: 1, index },
        part,
    }
}

#[test]
fn envelopes_that_were_not_asked_for_are_refused() {
    let mut session = Session::new(Heads::default(), 0);
    drain(&mut session);
    assert_eq!(
        send(&mut session, &envelopes(1, 0)),
        Err(SessionError::Unasked { round: 1 })
    );
    for round in [0, 2, u64::MAX] {
        let refused = Err(SessionError::Unasked { round });
        assert_eq!(send(&mut pulling(), &envelopes(round, 0)), refused);
        let done = Message::Done {
            upto: DataIndex { round, index: 0 },
        };
        assert_eq!(send(&mut pulling(), &done), refused);
    }
}

#[test]
fn a_peer_that_runs_ahead_of_its_credit_is_refused() {
    let mut session = pulling();
    assert!(send(&mut session, &envelopes(1, CREDIT_FRAMES - 1)).is_ok());
    let index = 2 * CREDIT_FRAMES;
    let refused = Err(SessionError::Overrun {
        index,
        allowed: index,
    });
    assert_eq!(send(&mut session, &envelopes(1, index)), refused);
    let index = u64::MAX;
    let refused = Err(SessionError::Overrun {
        index,
        allowed: CREDIT_FRAMES,
    });
    assert_eq!(send(&mut pulling(), &envelopes(1, index)), refused);
}

#[test]
fn acknowledging_more_than_was_sent_is_refused() {
    let mut session = Session::new(Heads::default(), 0);
    drain(&mut session);
    let ack = |round, index| Message::Ack {
        upto: DataIndex { round, index },
    };
    assert_eq!(
        send(&mut session, &ack(3, 0)),
        Err(SessionError::Unasked { round: 3 })
    );
    let refused = Err(SessionError::AckBeyond { acked: 9, sent: 0 });
    let mut session = Session::new(Heads::default(), 0);
    drain(&mut session);
    send(
        &mut session,
        &Message::Want {
            round: 1,
            entries: Vec::new(),
        },
    )
    .unwrap();
    assert_eq!(send(&mut session, &ack(1, 9)), refused);
}

#[test]
fn more_streams_than_the_limit_are_refused() {
    let mut session = Session::new(Heads::default(), 0);
    drain(&mut session);
    let mut refused = None;
    for frame in 0..=(STREAMS_MAX / HEADS_PER_FRAME_MAX) as u32 {
        let entries = (0..HEADS_PER_FRAME_MAX as u32)
            .map(|index| {
                let mut author = [0; 32];
                author[..4].copy_from_slice(&frame.to_be_bytes());
                author[4..8].copy_from_slice(&index.to_be_bytes());
                let author = PublicKey(author);
                (
                    StreamRef {
                        author,
                        stream: StreamId([0; 8]),
                    },
                    Seq::FIRST,
                )
            })
            .collect();
        let message = Message::Heads {
            digest: [0; 16],
            entries,
        };
        refused = session.handle(Input::Frame(message.encode()), 0).err();
        if refused.is_some() {
            assert_eq!(frame as usize, STREAMS_MAX / HEADS_PER_FRAME_MAX);
            break;
        }
        drain(&mut session);
    }
    assert_eq!(refused, Some(SessionError::TooManyStreams));
}

#[test]
fn parts_that_do_not_make_up_their_hash_are_refused() {
    let mut session = pulling();
    send(&mut session, &part(0, [9; 32], 0, 2, DATA_BYTES_MAX)).unwrap();
    let refused = Err(SessionError::WrongParts);
    assert_eq!(send(&mut session, &part(1, [9; 32], 1, 2, 100)), refused);
    let mut session = pulling();
    send(&mut session, &part(0, [9; 32], 0, 2, DATA_BYTES_MAX)).unwrap();
    assert_eq!(send(&mut session, &part(1, [9; 32], 2, 3, 100)), refused);
}

#[test]
fn parts_of_many_envelopes_do_not_pile_up() {
    let mut session = pulling();
    for index in 0..1_000 {
        let hash = [(index % 250) as u8; 32];
        let outputs = send(&mut session, &part(index, hash, 0, 2, DATA_BYTES_MAX)).unwrap();
        assert!(
            !outputs
                .iter()
                .any(|output| matches!(output, Output::Store(_)))
        );
    }
    assert!(
        session.memory_bytes() <= DATA_BYTES_MAX,
        "{}",
        session.memory_bytes()
    );
}

#[test]
fn replayed_frames_do_not_prolong_a_turn() {
    let mut session = pulling();
    let mut now_ms = 0;
    let mut ended = false;
    while !ended {
        now_ms += 1_000;
        assert!(
            now_ms <= u64::from(TRIES_MAX) * WANT_TIMEOUT_MS + 5_000,
            "it never ends"
        );
        let frame = envelopes(1, 0).encode();
        session.handle(Input::Frame(frame), now_ms).unwrap();
        ended = drain(&mut session).contains(&Output::PullFinished(PullEnd::TimedOut));
    }
}

#[test]
fn a_peer_that_never_answers_is_given_up_and_asked_again_later() {
    let mut session = pulling();
    let mut turns = vec![0];
    let mut wanted = false;
    while turns.len() < 9 {
        match session.poll() {
            Output::Wait(_) if wanted => {
                wanted = false;
                turns.push(session.now_ms);
                session.handle(Input::Grant, session.now_ms).unwrap();
            }
            Output::Wait(deadline_ms) => session.handle(Input::Tick, deadline_ms).unwrap(),
            Output::PullWanted => wanted = true,
            _ => {}
        }
    }
    let pauses: Vec<u64> = turns.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let asking_ms = u64::from(TRIES_MAX) * WANT_TIMEOUT_MS;
    assert_eq!(pauses[0], asking_ms + BACKOFF_MS_MIN, "{pauses:?}");
    assert_eq!(pauses[7], asking_ms + BACKOFF_MS_MAX, "{pauses:?}");
}

#[test]
fn a_peer_that_never_acknowledges_is_sent_a_bounded_amount() {
    let mut session = Session::new(heads(&[(stream(1, 1), 1_000_000)]), 0);
    drain(&mut session);
    let entries = vec![Position {
        stream: stream(1, 1),
        seq: Seq::NONE,
    }];
    let want = Message::Want { round: 1, entries };
    session.handle(Input::Frame(want.encode()), 0).unwrap();
    let mut sent = 0;
    loop {
        match session.poll() {
            Output::Wait(_) => break,
            Output::Read { .. } => {
                let batch = vec![fake_envelope(&stream(1, 1), 1, DATA_BYTES_MAX)];
                session.handle(Input::Read(batch), 0).unwrap();
            }
            Output::Send(_) => sent += 1,
            _ => {}
        }
    }
    assert_eq!(sent, CREDIT_FRAMES);
    session.handle(Input::Tick, SERVE_TIMEOUT_MS).unwrap();
    drain(&mut session);
    assert_eq!(
        session.memory_bytes(),
        0,
        "nothing is kept for a peer that is gone"
    );
}

#[test]
fn old_and_repeated_questions_are_answered_once() {
    let mut session = Session::new(Heads::default(), 0);
    drain(&mut session);
    let entries = vec![Position {
        stream: stream(1, 1),
        seq: Seq::NONE,
    }];
    let want = |round| Message::Want {
        round,
        entries: entries.clone(),
    };
    let done = Message::Done {
        upto: DataIndex { round: 5, index: 0 },
    };
    assert_eq!(
        send(&mut session, &want(5)).unwrap(),
        [Output::Send(done.encode())]
    );
    for round in [5, 4, 0] {
        assert_eq!(send(&mut session, &want(round)).unwrap(), []);
    }
}

#[test]
fn flipped_and_cut_frames_never_panic_and_store_nothing_that_was_not_asked_for() {
    let frames = [
        Message::all_heads(&heads(&[(stream(1, 1), 5), (stream(2, 2), 7)]))[0].encode(),
        Message::Want {
            round: 7,
            entries: Vec::new(),
        }
        .encode(),
        envelopes(1, 0).encode(),
        part(0, [9; 32], 0, 2, DATA_BYTES_MAX).encode(),
        Message::Ack {
            upto: DataIndex { round: 0, index: 0 },
        }
        .encode(),
        Message::Done {
            upto: DataIndex { round: 1, index: 0 },
        }
        .encode(),
        Message::ResendHeads.encode(),
    ];
    let mut random = Rng::with_seed(11);
    for _ in 0..20_000 {
        let mut session = match random.bool() {
            true => pulling(),
            false => {
                let mut session = Session::new(Heads::default(), 0);
                drain(&mut session);
                session
            }
        };
        let asked = session.pull_is_asking();
        for _ in 0..random.usize(1..4) {
            let mut frame = frames[random.usize(0..frames.len())].clone();
            for _ in 0..random.usize(0..4) {
                let at = random.usize(0..frame.len().min(200));
                frame[at] ^= 1 << random.u8(0..8);
            }
            if random.u8(0..4) == 0 {
                frame.truncate(random.usize(0..frame.len()));
            }
            if session.handle(Input::Frame(frame), 0).is_err() {
                break;
            }
            let stores = drain(&mut session);
            let stored = stores
                .iter()
                .any(|output| matches!(output, Output::Store(_)));
            assert!(asked || !stored);
            assert!(session.memory_bytes() <= MEMORY_BYTES_MAX);
        }
    }
}

impl Session {
    fn pull_is_asking(&self) -> bool {
        self.pull.deadline_ms() < u64::MAX
    }
}
