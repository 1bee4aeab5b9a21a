//! Files that are damaged, or are no log of this database.

use std::fs;

use super::*;

#[test]
fn files_that_are_no_log_of_this_database_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    fs::write(&text, "just some text, and quite a bit of it".repeat(100)).unwrap();
    assert!(matches!(
        open(&text).map(drop),
        Err(LogError::NotALog { .. })
    ));
    let other = directory.path().join("other");
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection.execute_batch("CREATE TABLE todo(id)").unwrap();
    drop(connection);
    assert!(matches!(
        open(&other).map(drop),
        Err(LogError::NotALog { .. })
    ));
    let path = directory.path().join("log");
    drop(open(&path).unwrap());
    let refused = Log::open(&path, &DatabaseId([6; 32]), StreamId([1; 8])).map(drop);
    assert!(
        matches!(refused, Err(LogError::OtherDatabase { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_log_of_a_newer_version_is_refused() {
    let (_directory, path, log) = new_log();
    log.connection
        .execute_batch("PRAGMA user_version = 2")
        .unwrap();
    drop(log);
    let refused = open(&path).map(drop);
    let named = matches!(
        refused,
        Err(LogError::NewerVersion {
            found: 2,
            supported: 1,
            ..
        })
    );
    assert!(named, "{refused:?}");
}

#[test]
fn damage_is_named_and_never_panics() {
    let (_directory, path, mut log) = new_log();
    let mut author = Author::new(2);
    log.append_received(&author.write(100)).unwrap();
    log.flush().unwrap();
    drop(log);
    let whole = fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    let mut found = 0;
    for _ in 0..300 {
        let mut damaged = whole.clone();
        for _ in 0..random.usize(1..20) {
            let at = random.usize(0..damaged.len());
            damaged[at] = random.u8(..);
        }
        if random.u8(0..4) == 0 {
            damaged.truncate(random.usize(0..damaged.len()));
        }
        fs::write(&path, damaged).unwrap();
        let _ = fs::remove_file(path.with_extension("-wal"));
        found += usize::from(use_all(&path, &author.stream()).is_err());
    }
    assert!(found > 250, "{found} of 300");
}

fn use_all(path: &std::path::Path, stream: &StreamRef) -> Result<(), LogError> {
    let mut log = open(path)?;
    log.heads()?;
    log.status()?;
    log.unapplied(usize::MAX)?;
    log.read(stream, Seq::NONE, usize::MAX)?;
    log.append_received(&Author::new(9).write(1))?;
    log.check()
}

#[test]
fn an_envelope_that_rotted_is_neither_sent_nor_applied() {
    let (_directory, _path, mut log) = new_log();
    let mut author = Author::new(2);
    let envelopes = author.write(2);
    log.append_received(&envelopes).unwrap();
    log.check().unwrap();
    let mut bytes = envelopes[1].bytes().to_vec();
    bytes[200] ^= 1;
    log.connection
        .execute("UPDATE envelopes SET bytes = ?1 WHERE seq = 2", [bytes])
        .unwrap();
    for refused in [
        log.read(&author.stream(), Seq::NONE, usize::MAX).map(drop),
        log.unapplied(usize::MAX).map(drop),
        log.check(),
    ] {
        let named =
            matches!(&refused, Err(LogError::Rotten { position }) if position.seq == seq(2));
        assert!(named, "{refused:?}");
    }
}
