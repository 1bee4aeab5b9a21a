//! The log's rules: no gaps, no second copy, forks set aside, order of application, damage.

use std::path::PathBuf;

use tempfile::TempDir;

use super::CURSOR_BYTES_MAX;
use super::*;
use crate::trust::*;

mod files;

const DATABASE: DatabaseId = DatabaseId([5; 32]);

struct Author {
    identity: Identity,
    position: NextPosition,
}

impl Author {
    fn new(seed: u8) -> Author {
        let position = NextPosition {
            stream: StreamId([seed; 8]),
            seq: Seq::FIRST,
            prev: EnvelopeId::NONE,
        };
        Author {
            identity: Identity::from_secret(&[seed; 32]),
            position,
        }
    }

    fn key(&self) -> PublicKey {
        self.identity.public_key()
    }

    fn stream(&self) -> StreamRef {
        StreamRef {
            author: self.key(),
            stream: self.position.stream,
        }
    }

    fn seal_at(&self, position: NextPosition, text: &str) -> VerifiedEnvelope {
        let sealing = Sealing {
            database: DATABASE,
            key: &EpochKey::from_bytes([2; 32]),
            identity: &self.identity,
            position,
            kind: Kind::Data,
            nonce: [0; NONCE_BYTES],
        };
        seal(&sealing, text.as_bytes()).unwrap()
    }

    fn write(&mut self, count: usize) -> Vec<VerifiedEnvelope> {
        (0..count)
            .map(|index| {
                let envelope = self.seal_at(self.position, &format!("change {index}"));
                self.position = self.position.following(envelope.id()).unwrap();
                envelope
            })
            .collect()
    }

    /// Begins another stream, as a new start of the process does.
    fn restart(&mut self, stream: u8) {
        let stream = StreamId([stream; 8]);
        self.position = NextPosition {
            stream,
            seq: Seq::FIRST,
            ..self.position
        };
    }
}

fn new_log() -> (TempDir, PathBuf, Log) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = open(&path).unwrap();
    (directory, path, log)
}

fn open(path: &std::path::Path) -> Result<Log, LogError> {
    Log::open(path, &DATABASE, StreamId([1; 8]))
}

fn seq(number: u64) -> Seq {
    Seq::new(number).unwrap()
}

fn at(envelope: &VerifiedEnvelope) -> Position {
    let header = envelope.header();
    let stream = StreamRef {
        author: header.author,
        stream: header.stream,
    };
    Position {
        stream,
        seq: header.seq,
    }
}

#[test]
fn own_envelopes_and_their_cursor_are_stored_together() {
    let (_directory, path, mut log) = new_log();
    let mut author = Author::new(1);
    assert_eq!(log.next_position(&author.key()).unwrap(), author.position);
    let envelopes = author.write(3);
    log.append_own(
        &envelopes,
        &[Cursor {
            name: "sealed",
            value: b"17",
        }],
    )
    .unwrap();
    drop(log);
    let mut log = open(&path).unwrap();
    assert_eq!(log.cursor("sealed").unwrap().unwrap(), b"17");
    assert_eq!(log.heads().unwrap().seq(&author.stream()), seq(3));
    assert_eq!(log.next_position(&author.key()).unwrap(), author.position);
    assert_eq!(log.unapplied(usize::MAX).unwrap(), []);
    // One that does not continue stores nothing, and leaves the cursor alone.
    let mut two = author.write(2);
    two.remove(0);
    let refused = log.append_own(
        &two,
        &[Cursor {
            name: "sealed",
            value: b"19",
        }],
    );
    assert!(
        matches!(refused, Err(LogError::NotNext { .. })),
        "{refused:?}"
    );
    assert_eq!(log.cursor("sealed").unwrap().unwrap(), b"17");
    assert_eq!(log.heads().unwrap().seq(&author.stream()), seq(3));
}

#[test]
fn an_own_envelope_counts_as_applied_from_the_first_one_on() {
    let (_directory, _path, mut log) = new_log();
    let mut author = Author::new(1);
    log.append_own(&author.write(1), &[]).unwrap();
    assert_eq!(log.unapplied(usize::MAX).unwrap(), []);
    assert_eq!(log.settled_heads().unwrap(), log.heads().unwrap());
}

#[test]
fn a_batch_of_own_envelopes_is_stored_whole_or_not_at_all() {
    let (_directory, _path, mut log) = new_log();
    let mut author = Author::new(1);
    let mut envelopes = author.write(3);
    envelopes.swap(1, 2);
    let refused = log.append_own(&envelopes, &[]);
    assert!(
        matches!(refused, Err(LogError::NotNext { .. })),
        "{refused:?}"
    );
    assert!(log.heads().unwrap().is_empty());
    assert_eq!(log.status().unwrap(), LogStatus::default());
}

#[test]
fn each_start_writes_a_stream_of_its_own_that_follows_the_former() {
    let (_directory, path, mut log) = new_log();
    let mut author = Author::new(1);
    log.append_own(&author.write(2), &[]).unwrap();
    let last = author.position.prev;
    drop(log);
    // Two starts without a write leave nothing behind.
    drop(Log::open(&path, &DATABASE, StreamId([2; 8])).unwrap());
    let mut log = Log::open(&path, &DATABASE, StreamId([3; 8])).unwrap();
    assert_eq!(log.heads().unwrap().len(), 1);
    let next = log.next_position(&author.key()).unwrap();
    let expected = NextPosition {
        stream: StreamId([3; 8]),
        seq: Seq::FIRST,
        prev: last,
    };
    assert_eq!(next, expected);
    author.restart(3);
    assert_eq!(author.position, expected);
    log.append_own(&author.write(1), &[]).unwrap();
    log.renew_stream(StreamId([4; 8]));
    let next = log.next_position(&author.key()).unwrap();
    assert_eq!(
        (next.stream, next.prev),
        (StreamId([4; 8]), author.position.prev)
    );
}

#[test]
fn received_envelopes_are_stored_once_and_without_gaps() {
    let (_directory, _path, mut log) = new_log();
    let mut author = Author::new(2);
    let envelopes = author.write(5);
    let mut receive = |index: usize| log.append_received(&envelopes[index..=index]).unwrap()[0];
    assert_eq!(receive(1), Received::Gap { expected: seq(1) });
    assert_eq!(receive(0), Received::Stored);
    assert_eq!(receive(2), Received::Gap { expected: seq(2) });
    assert_eq!(receive(1), Received::Stored);
    for _ in 0..1_000 {
        assert_eq!(receive(0), Received::Duplicate);
        assert_eq!(receive(1), Received::Duplicate);
    }
    assert_eq!(receive(4), Received::Gap { expected: seq(3) });
    let rest = log.append_received(&envelopes).unwrap();
    let (again, new) = (Received::Duplicate, Received::Stored);
    assert_eq!(rest, [again, again, new, new, new]);
    assert_eq!(log.status().unwrap().envelopes_count, 5);
    assert!(log.forks().unwrap().is_empty());
}

#[test]
fn own_envelopes_lost_in_a_restored_backup_come_back() {
    let (_directory, _path, mut log) = new_log();
    let mut author = Author::new(1);
    let envelopes = author.write(4);
    log.append_own(&envelopes[..2], &[]).unwrap();
    let received = log.append_received(&envelopes).unwrap();
    let (again, new) = (Received::Duplicate, Received::Stored);
    assert_eq!(received, [again, again, new, new]);
    assert_eq!(log.unapplied(usize::MAX).unwrap().len(), 2);
}

#[test]
fn a_fork_is_set_aside_and_named() {
    let (_directory, _path, mut log) = new_log();
    let mut author = Author::new(2);
    let before = author.position;
    let envelopes = author.write(3);
    log.append_received(&envelopes).unwrap();
    // Another first envelope, and another fourth that names a third nobody has seen.
    let other = author.seal_at(before, "other");
    let strange = NextPosition {
        prev: EnvelopeId([9; 32]),
        ..author.position
    };
    let strange = author.seal_at(strange, "strange");
    let received = log
        .append_received(&[other.clone(), strange.clone()])
        .unwrap();
    let kept = [envelopes[0].id(), envelopes[2].id()].map(|kept| Received::Fork { kept });
    assert_eq!(received, kept);
    let forks = log.forks().unwrap();
    assert_eq!(forks.len(), 2);
    assert_eq!(
        (forks[0].id, &forks[0].bytes[..]),
        (other.id(), other.bytes())
    );
    assert_eq!(forks[1].position, at(&strange));
    assert!(verify(forks[0].bytes.clone(), &DATABASE).is_ok());
    assert_eq!(log.heads().unwrap().seq(&author.stream()), seq(3));
    let sent = log.read(&author.stream(), Seq::NONE, usize::MAX).unwrap();
    assert_eq!(sent[0], envelopes[0].bytes());
    assert_eq!(
        log.append_received(&author.write(1)).unwrap(),
        [Received::Stored]
    );
}

#[test]
fn forks_take_bounded_room() {
    let (_directory, _path, mut log) = new_log();
    let mut author = Author::new(2);
    let before = author.position;
    log.append_received(&author.write(1)).unwrap();
    for index in 0..100 {
        let fork = author.seal_at(before, &format!("fork {index}"));
        let received = log.append_received(&[fork.clone(), fork]).unwrap();
        assert!(matches!(
            received[..],
            [Received::Fork { .. }, Received::Fork { .. }]
        ));
    }
    assert_eq!(log.status().unwrap().forks_count, FORKS_PER_AUTHOR_MAX);
}

#[test]
fn an_envelope_of_another_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let other = DatabaseId([6; 32]);
    let mut log = Log::open(&directory.path().join("log"), &other, StreamId([1; 8])).unwrap();
    let refused = log.append_received(&Author::new(1).write(1));
    assert!(
        matches!(refused, Err(LogError::ForeignEnvelope { .. })),
        "{refused:?}"
    );
    let refused = log.append_own(&Author::new(1).write(1), &[]);
    assert!(
        matches!(refused, Err(LogError::ForeignEnvelope { .. })),
        "{refused:?}"
    );
}

#[test]
fn reading_stops_at_the_limit_but_gives_at_least_one() {
    let (_directory, _path, mut log) = new_log();
    let mut author = Author::new(2);
    let envelopes = author.write(10);
    log.append_received(&envelopes).unwrap();
    let bytes = envelopes[0].bytes().len();
    let read = |after, bytes_max| log.read(&author.stream(), seq(after), bytes_max).unwrap();
    assert_eq!(read(0, usize::MAX).len(), 10);
    assert_eq!(read(0, 0).len(), 1);
    assert_eq!(read(0, bytes * 3).len(), 3);
    assert_eq!(read(0, bytes * 3 - 1).len(), 2);
    assert_eq!(
        read(8, usize::MAX),
        [envelopes[8].bytes(), envelopes[9].bytes()]
    );
    assert!(read(10, usize::MAX).is_empty());
    assert!(read(SEQ_MAX, usize::MAX).is_empty());
    let unknown = StreamRef {
        stream: StreamId([99; 8]),
        ..author.stream()
    };
    assert!(
        log.read(&unknown, Seq::NONE, usize::MAX)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn envelopes_are_handed_out_after_the_one_they_follow() {
    let (_directory, _path, mut log) = new_log();
    let mut author = Author::new(2);
    let first = author.write(3);
    author.restart(9);
    let second = author.write(2);
    author.restart(1);
    let third = author.write(1);
    let mut other = Author::new(3);
    let elsewhere = other.write(1);
    // They arrive in the opposite order.
    for batch in [&third, &second, &elsewhere, &first] {
        log.append_received(batch).unwrap();
    }
    let order: Vec<EnvelopeId> = log
        .unapplied(usize::MAX)
        .unwrap()
        .iter()
        .map(|logged| logged.envelope.id())
        .filter(|id| *id != elsewhere[0].id())
        .collect();
    let written: Vec<EnvelopeId> = [first, second, third]
        .concat()
        .iter()
        .map(VerifiedEnvelope::id)
        .collect();
    assert_eq!(order, written);
    // The same order comes out one by one.
    let mut one_by_one = Vec::new();
    while let Some(logged) = log.unapplied(1).unwrap().first() {
        log.mark_applied(&logged.position).unwrap();
        one_by_one.push(logged.envelope.id());
    }
    one_by_one.retain(|id| *id != elsewhere[0].id());
    assert_eq!(one_by_one, written);
    assert_eq!(log.settled_heads().unwrap(), log.heads().unwrap());
    assert_eq!(log.status().unwrap().unapplied_count, 0);
}

#[test]
fn a_stream_does_not_wait_for_one_that_is_not_in_the_log() {
    let (_directory, _path, mut log) = new_log();
    let mut author = Author::new(2);
    author.write(3);
    author.restart(9);
    log.append_received(&author.write(2)).unwrap();
    assert_eq!(log.unapplied(usize::MAX).unwrap().len(), 2);
}

#[test]
fn a_blocked_envelope_holds_back_its_successors_until_unblocked() {
    let (_directory, path, mut log) = new_log();
    let mut author = Author::new(2);
    let first = author.write(3);
    author.restart(9);
    let second = author.write(1);
    let mut other = Author::new(3);
    let elsewhere = other.write(1);
    for batch in [&first, &second, &elsewhere] {
        log.append_received(batch).unwrap();
    }
    log.mark_applied(&at(&first[0])).unwrap();
    let refused = log.mark_blocked(&at(&first[2]), "no");
    assert!(
        matches!(refused, Err(LogError::NotUnsettled { .. })),
        "{refused:?}"
    );
    log.mark_blocked(&at(&first[1]), "table `todo` is unknown")
        .unwrap();
    drop(log);
    let mut log = open(&path).unwrap();
    let ids = |log: &Log| -> Vec<Position> {
        log.unapplied(usize::MAX)
            .unwrap()
            .iter()
            .map(|logged| logged.position)
            .collect()
    };
    assert_eq!(ids(&log), [at(&elsewhere[0])]);
    let blocked = log.status().unwrap().blocked;
    assert_eq!(blocked.len(), 1);
    assert_eq!(blocked[0].position, at(&first[1]));
    assert_eq!(blocked[0].reason, "table `todo` is unknown");
    log.unblock().unwrap();
    assert_eq!(ids(&log).len(), 4);
    assert!(log.blocked().unwrap().is_empty());
}

#[test]
fn a_refused_envelope_does_not_hold_back_its_successors() {
    let (_directory, _path, mut log) = new_log();
    let mut author = Author::new(2);
    let envelopes = author.write(3);
    log.append_received(&envelopes).unwrap();
    log.mark_refused(&at(&envelopes[0]), "no changeset")
        .unwrap();
    let refused = log.mark_refused(&at(&envelopes[0]), "no changeset");
    assert!(
        matches!(refused, Err(LogError::NotUnsettled { .. })),
        "{refused:?}"
    );
    let refused = log.mark_applied(&at(&envelopes[0]));
    assert!(
        matches!(refused, Err(LogError::NotUnsettled { .. })),
        "{refused:?}"
    );
    assert_eq!(log.unapplied(usize::MAX).unwrap().len(), 2);
    log.mark_applied(&at(&envelopes[2])).unwrap();
    let status = log.status().unwrap();
    assert_eq!((status.refused_count, status.unapplied_count), (1, 0));
}

#[test]
fn status_counts_what_is_there() {
    let (_directory, _path, mut log) = new_log();
    let (mut one, mut two) = (Author::new(2), Author::new(3));
    let mut envelopes = one.write(3);
    one.restart(9);
    envelopes.extend(one.write(1));
    envelopes.extend(two.write(2));
    log.append_received(&envelopes).unwrap();
    let status = log.status().unwrap();
    assert_eq!((status.authors_count, status.streams_count), (2, 3));
    assert_eq!((status.envelopes_count, status.unapplied_count), (6, 6));
    let bytes: usize = envelopes
        .iter()
        .map(|envelope| envelope.bytes().len())
        .sum();
    assert_eq!(status.envelope_bytes, bytes as u64);
}

#[test]
fn cursors_and_peers_are_kept_within_their_limits() {
    let (_directory, path, mut log) = new_log();
    assert_eq!(log.cursor("x").unwrap(), None);
    log.set_cursor("x", b"1").unwrap();
    log.set_cursor("x", b"2").unwrap();
    let refused = log.set_cursor("x", &[0; CURSOR_BYTES_MAX + 1]);
    assert!(
        matches!(refused, Err(LogError::TooLarge { .. })),
        "{refused:?}"
    );
    let text = |text: &str| vec![text.to_owned()];
    log.put_peer(b"a", &text("/ip4/1.2.3.4/tcp/1")).unwrap();
    log.put_peer(b"b", &[]).unwrap();
    log.put_peer(
        b"a",
        &["/ip4/1.2.3.4/tcp/2".to_owned(), "/dns/x".to_owned()],
    )
    .unwrap();
    for addresses in [
        text("a b"),
        text("a\nb"),
        text(""),
        vec!["/x".to_owned(); 9],
    ] {
        let refused = log.put_peer(b"c", &addresses);
        assert!(matches!(refused, Err(LogError::Address)), "{refused:?}");
    }
    let refused = log.put_peer(&[0; 129], &[]);
    assert!(
        matches!(refused, Err(LogError::TooLarge { .. })),
        "{refused:?}"
    );
    drop(log);
    let mut log = open(&path).unwrap();
    assert_eq!(log.cursor("x").unwrap().unwrap(), b"2");
    let peers = log.peers().unwrap();
    assert_eq!(peers.len(), 2);
    assert_eq!(peers[0].peer, b"a");
    assert_eq!(peers[0].addresses, ["/ip4/1.2.3.4/tcp/2", "/dns/x"]);
    assert!(peers[1].addresses.is_empty());
    for index in 0..PEERS_MAX {
        log.put_peer(&index.to_be_bytes(), &[]).unwrap();
    }
    assert_eq!(log.peers().unwrap().len(), PEERS_MAX as usize);
}
