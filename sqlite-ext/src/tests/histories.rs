//! Two people typing into one text at once, key by key, as they were recorded.
//!
//! With `SYNCLINE_DATA` set to a folder that has `friendsforever.json.gz` (of the public editing
//! traces of josephg), the recorded history of two people is typed; without it, one made here.

mod recording;

use recording::{Recording, Sitting};

use super::*;

/// A device with a fixed name: whose words come first, where both write at one place, depends on it.
fn person(schema: &str, number: u8) -> Replica {
    let replica = replica(schema, &[]);
    prepare(&replica.conn).expect("prepared");
    let name = "UPDATE syncline_sites SET site_id = ?1 WHERE ordinal = 0";
    let named = replica.conn.execute(name, [[number; 16]]);
    named.expect("a name");
    replica
}

/// One of the two, with what was written on this side: up to which edit, and the changes.
struct Writer {
    replica: Replica,
    written: Vec<(usize, Changeset)>,
    /// How many of the other's changesets were merged.
    merged_count: usize,
    after: Hlc,
}

impl Writer {
    fn new(replica: Replica) -> Self {
        let own = site_id(&replica.conn).expect("site");
        let after = replica.seen().version(own);
        Writer {
            replica,
            written: vec![],
            merged_count: 0,
            after,
        }
    }

    /// Merges what the other wrote up to an edit.
    fn see(&mut self, other: &Writer, last: usize) {
        while let Some((edit, changes)) = other.written.get(self.merged_count) {
            if *edit > last {
                return;
            }
            import_changeset(&self.replica.conn, changes, self.replica.now).expect("import");
            self.merged_count += 1;
        }
    }

    fn text(&self) -> String {
        let text = "SELECT body FROM t WHERE id = 1";
        let read = self.replica.conn.query_row(text, [], |row| row.get(0));
        read.expect("the row is there")
    }

    fn write(&mut self, sitting: &Sitting<'_>) {
        let text = sitting.typed_into(&self.text());
        let update = "UPDATE t SET body = ?1 WHERE id = 1";
        self.replica.conn.execute(update, [text]).expect("write");
        self.replica.now += 1;
        fold(&self.replica.conn, self.replica.now).expect("fold");
        let changes = export_own(&self.replica.conn, self.after, u64::MAX).expect("export");
        if let Some(changes) = changes {
            let own = site_id(&self.replica.conn).expect("site");
            self.after = changes.until.version(own);
            self.written.push((sitting.last, changes));
        }
    }
}

/// The device of somebody who began a text.
fn beginning() -> Replica {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT NOT NULL DEFAULT '')";
    let mut first = person(schema, 2);
    let options = TableOptions::parse(r#"{"columns":{"body":"text"}}"#).expect("options");
    track(&first.conn, "t", &options, NOW).expect("track");
    first.run("INSERT INTO t VALUES(1, '')");
    first
}

/// A device that has what another one has.
fn following(other: &Replica, number: u8) -> Replica {
    let mut replica = person("", number);
    replica.pull(other);
    replica.now = other.now;
    replica
}

/// Returns how many bytes of edits are kept, and how many edits lie beside what is saved as a whole.
fn kept(replica: &Replica) -> (i64, i64) {
    let all = "SELECT sum(length(edits)), count(*) FILTER (WHERE version > 0) FROM syncline_edits";
    let found = replica
        .conn
        .query_row(all, [], |row| Ok((row.get(0)?, row.get(1)?)));
    found.expect("edits are kept")
}

#[test]
fn two_people_who_type_at_once_have_the_recorded_text_in_the_end() {
    let recording = Recording::read("friendsforever").unwrap_or_else(|| Recording::of_two(120));
    let first = beginning();
    let second = following(&first, 1);
    let mut writers = [first, second].map(Writer::new);
    for sitting in recording.sittings(usize::MAX) {
        let (low, high) = writers.split_at_mut(1);
        let (writer, other) = match sitting.agent {
            0 => (&mut low[0], &high[0]),
            _ => (&mut high[0], &low[0]),
        };
        writer.replica.now = writer.replica.now.max(other.replica.now);
        if let Some(seen) = sitting.seen {
            writer.see(other, seen);
        }
        writer.write(&sitting);
    }
    let [mut first, mut second] = writers;
    first.see(&second, usize::MAX);
    second.see(&first, usize::MAX);
    assert_eq!(first.text(), second.text());
    assert_eq!(first.text(), recording.end_content);
    assert_eq!(first.replica.digest(), second.replica.digest());
    println!(
        "{} edits in {} sittings, kept in {} bytes for a text of {}",
        recording.edits.len(),
        first.written.len() + second.written.len(),
        kept(&first.replica).0,
        recording.end_content.len(),
    );
}

#[test]
fn what_is_kept_of_a_text_grows_by_less_than_what_was_sent() {
    let recording = Recording::of_one(400);
    let mut writer = Writer::new(beginning());
    for sitting in recording.sittings(1) {
        writer.write(&sitting);
    }
    assert_eq!(writer.text(), recording.end_content);
    let sent = writer
        .written
        .iter()
        .map(|(_, changes)| changes.encode().len());
    let (bytes, beside) = kept(&writer.replica);
    let sent: usize = sent.sum();
    assert!(bytes < 24 << 10 && sent > 48 << 10, "{bytes} of {sent}");
    assert!(beside < 200, "{beside} of 400 edits lie beside the whole");
}

#[test]
fn collection_saves_a_text_as_a_whole_and_changes_nothing_that_can_be_seen() {
    let recording = Recording::of_one(120);
    let mut writer = Writer::new(beginning());
    let mut early = following(&writer.replica, 3);
    let mut member = following(&writer.replica, 4);
    for (number, sitting) in recording.sittings(1).iter().enumerate() {
        writer.write(sitting);
        match number {
            40 => drop(early.pull(&writer.replica)),
            100 => drop(member.pull(&writer.replica)),
            _ => {}
        }
    }
    let replica = &mut writer.replica;
    let (before, digest) = (kept(replica).0, replica.digest());
    collect(&replica.conn, &[member.seen()], replica.now).expect("collect");
    let (after, beside) = kept(replica);
    assert!(after * 3 < before, "{after} of {before} bytes are left");
    assert_eq!(beside, 19, "the member lacks these");
    collect(&replica.conn, &[member.seen()], replica.now).expect("collect");
    assert_eq!(
        kept(replica),
        (after, beside),
        "there is nothing more to save"
    );
    assert_eq!(replica.digest(), digest);
    let mut late = following(replica, 5);
    for other in [&mut early, &mut member, &mut late] {
        other.pull(replica);
        assert_eq!(other.digest(), digest);
        assert_eq!(
            other.rows("SELECT body FROM t"),
            replica.rows("SELECT body FROM t")
        );
    }
    // What lies in memory is of one thread: another one reads what was saved.
    let goes_on = || {
        replica.run("UPDATE t SET body = body || '.'");
        late.pull(replica);
        late.rows("SELECT body FROM t")
    };
    let body = std::thread::scope(|scope| scope.spawn(goes_on).join().expect("it goes on"));
    assert_eq!(body, [format!("{}.", recording.end_content)]);
}

#[test]
fn edits_that_wait_for_others_are_kept_when_a_text_is_saved_as_a_whole() {
    let mut first = beginning();
    let mut second = following(&first, 3);
    let mut third = following(&first, 4);
    let long: String = (0..600)
        .map(|number| format!("{} ", number * 7919 % 1000))
        .collect();
    first.run(&format!("UPDATE t SET body = '{long}'"));
    second.pull(&first);
    second.run(&format!("UPDATE t SET body = '{long}{long}'"));
    fold(&second.conn, second.now).expect("fold");
    let own = export_own(&second.conn, Hlc::ZERO, u64::MAX).expect("export");
    let own = own.expect("something was written");
    import_changeset(&third.conn, &own, third.now).expect("import");
    collect(&third.conn, &[], third.now).expect("collect");
    assert_eq!(
        third.rows("SELECT body FROM t"),
        [""],
        "what it builds on is missing"
    );
    assert_eq!(kept(&third).1, 1, "it waits");
    third.pull(&first);
    assert_eq!(
        third.rows("SELECT body FROM t"),
        second.rows("SELECT body FROM t")
    );
    assert_eq!(third.digest(), second.digest());
}

#[test]
fn edits_that_contradict_a_saved_text_take_nothing_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = beginning();
    let mut third = following(&first, 3);
    let file = folder.path().join("copy.db");
    let copy = format!("VACUUM INTO '{}'", file.display());
    first.conn.execute_batch(&copy).expect("copied");
    let mut copy = Replica {
        conn: Connection::open(&file).expect("the copy opens"),
        now: first.now,
    };
    let words = |factor: u32| -> String {
        let words = (0..600).map(|number| format!("{} ", number * factor % 1000));
        words.collect()
    };
    let earlier = words(7_907);
    copy.run(&format!("UPDATE t SET body = '{earlier}'"));
    first.now += 1_000;
    first.run(&format!("UPDATE t SET body = '{}'", words(7_919)));
    third.pull(&first);
    collect(&third.conn, &[], third.now).expect("collect");
    assert_eq!(kept(&third).1, 0, "all lies in the whole");
    let fourth = following(&first, 4);
    let early = export_own(&copy.conn, Hlc::ZERO, u64::MAX).expect("export");
    let early = early.expect("something was written");
    for replica in [&third, &fourth] {
        import_changeset(&replica.conn, &early, replica.now).expect("import");
        collect(&replica.conn, &[], replica.now).expect("collect");
        collect(&replica.conn, &[], replica.now).expect("collect");
        assert_eq!(replica.rows("SELECT body FROM t"), [earlier.as_str()]);
        assert_eq!(kept(replica).1, 1, "what does not count lies beside it");
    }
    assert_eq!(third.digest(), fourth.digest());
    // What lies in memory is of one thread: another one reads what was saved.
    let newcomer = move || {
        let newcomer = following(&third, 5);
        (newcomer.digest(), newcomer.rows("SELECT body FROM t"))
    };
    let digest = fourth.digest();
    let found = std::thread::spawn(newcomer).join().expect("it reads");
    assert_eq!(found, (digest, vec![earlier]));
}
