//! Two people typing into one text at once, key by key, as they were recorded.
//!
//! With `SYNCLINE_DATA` set to a folder that has `friendsforever.json.gz` (of the public editing
//! traces of josephg), the recorded history of two people is typed; without it, one made here.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::*;

/// A history of edits: each is by one of two people, who had seen all edits before `parents`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recording {
    end_content: String,
    txns: Vec<Edit>,
}

#[derive(Deserialize)]
struct Edit {
    parents: Vec<usize>,
    agent: usize,
    /// Where, how many characters went, and what came.
    patches: Vec<(usize, usize, String)>,
}

fn recorded() -> Option<Recording> {
    let folder = std::env::var_os("SYNCLINE_DATA")?;
    let file = Path::new(&folder).join("friendsforever.json.gz");
    let unpacked = Command::new("gzip").arg("-dc").arg(&file).output();
    let unpacked = unpacked.expect("gzip runs");
    assert!(unpacked.status.success(), "{} is there", file.display());
    Some(serde_json::from_slice(&unpacked.stdout).expect("it is a recording"))
}

/// Two people who write at both ends of a text, and see of each other now and then.
fn made() -> Recording {
    let mut txns: Vec<Edit> = Vec::new();
    let mut last = [None; 2];
    let mut texts = [String::new(), String::new()];
    let mut seen = [0; 2];
    for number in 0..120 {
        let agent = number % 3 % 2;
        let mut parents: Vec<usize> = last[agent].into_iter().collect();
        if number % 10 == 0 {
            parents.extend(last[1 - agent]);
            seen[agent] = texts[1 - agent].len();
        }
        let word = format!("{number} ");
        let at = if agent == 0 {
            texts[0].len()
        } else {
            seen[1] + texts[1].len()
        };
        txns.push(Edit {
            parents,
            agent,
            patches: vec![(at, 0, word.clone())],
        });
        texts[agent].push_str(&word);
        last[agent] = Some(txns.len() - 1);
    }
    Recording {
        end_content: texts.concat(),
        txns,
    }
}

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

    fn write(&mut self, number: usize, edits: &[&Edit]) {
        let mut text: Vec<char> = self.text().chars().collect();
        for (at, gone, came) in edits.iter().flat_map(|edit| &edit.patches) {
            text.splice(*at..at + gone, came.chars());
        }
        let text: String = text.into_iter().collect();
        let update = "UPDATE t SET body = ?1 WHERE id = 1";
        self.replica.conn.execute(update, [text]).expect("write");
        self.replica.now += 1;
        fold(&self.replica.conn, self.replica.now).expect("fold");
        let changes = export_own(&self.replica.conn, self.after, u64::MAX).expect("export");
        if let Some(changes) = changes {
            let own = site_id(&self.replica.conn).expect("site");
            self.after = changes.until.version(own);
            self.written.push((number, changes));
        }
    }
}

/// Returns the edits that one person made in one go, and that nobody saw in part: the number of the
/// last, and all of them.
fn sittings(edits: &[Edit]) -> Vec<(usize, Vec<&Edit>)> {
    let mut is_seen = vec![false; edits.len()];
    for edit in edits {
        let others = edit
            .parents
            .iter()
            .filter(|at| edits[**at].agent != edit.agent);
        others.for_each(|at| is_seen[*at] = true);
    }
    let mut sittings: Vec<(usize, Vec<&Edit>)> = Vec::new();
    for (number, edit) in edits.iter().enumerate() {
        match sittings.last_mut() {
            Some((last, going)) if edit.parents == [*last] && !is_seen[*last] => {
                if going[0].agent == edit.agent {
                    going.push(edit);
                    *last = number;
                    continue;
                }
                sittings.push((number, vec![edit]));
            }
            _ => sittings.push((number, vec![edit])),
        }
    }
    sittings
}

#[test]
fn two_people_who_type_at_once_have_the_recorded_text_in_the_end() {
    let recording = recorded().unwrap_or_else(made);
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT NOT NULL DEFAULT '')";
    let first = person(schema, 2);
    let options = TableOptions::parse(r#"{"columns":{"body":"text"}}"#).expect("options");
    track(&first.conn, "t", &options, NOW).expect("track");
    let mut first = first;
    first.run("INSERT INTO t VALUES(1, '')");
    let mut second = person("", 1);
    second.pull(&first);
    second.now = first.now;
    let mut writers = [Writer::new(first), Writer::new(second)];
    for (last, edits) in sittings(&recording.txns) {
        let agent = edits[0].agent;
        let (low, high) = writers.split_at_mut(1);
        let (writer, other) = match agent {
            0 => (&mut low[0], &high[0]),
            _ => (&mut high[0], &low[0]),
        };
        writer.replica.now = writer.replica.now.max(other.replica.now);
        let seen = edits[0].parents.iter();
        let seen = seen.filter(|at| recording.txns[**at].agent != agent).max();
        if let Some(seen) = seen {
            writer.see(other, *seen);
        }
        writer.write(last, &edits);
    }
    let [mut first, mut second] = writers;
    first.see(&second, usize::MAX);
    second.see(&first, usize::MAX);
    assert_eq!(first.text(), second.text());
    assert_eq!(first.text(), recording.end_content);
    assert_eq!(first.replica.digest(), second.replica.digest());
    let kept = "SELECT sum(length(edits)) FROM syncline_histories";
    println!(
        "{} edits in {} sittings, kept in {} bytes for a text of {}",
        recording.txns.len(),
        first.written.len() + second.written.len(),
        first.replica.rows(kept)[0],
        recording.end_content.len(),
    );
}
