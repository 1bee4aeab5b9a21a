//! People who type into one text and send each other what they typed, by automerge alone or in a
//! tracked table.

use std::time::Duration;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{
    ActorId, Automerge, AutomergeError, Change, LoadOptions, ObjId, ObjType, ROOT, ReadDoc,
};
use automerge::{TextEncoding, transaction::Transaction};
use rusqlite::Connection;
use syncline_crdt::{Changeset, Hlc, SiteId, VersionVector};
use syncline_sqlite::{TableOptions, collect, export, export_own, fold, import_changeset, prepare};
use syncline_sqlite::{track, version_vector};

use crate::recording::Sitting;
use crate::side_by_side::{CpuTime, Database, NOW, Named, Variant};

/// Who merges the texts, and how they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// Automerge, in memory, told each place and what changed there.
    Automerge,
    /// The same, told the text after each sitting.
    UpdateText,
    /// Automerge, with the text and each edit in tables of SQLite, as an application would keep it.
    Stored,
    /// Syncline, told the text after each sitting by an `UPDATE`.
    Tracked,
}

impl Named for Way {
    fn name(self) -> &'static str {
        match self {
            Way::Automerge => "automerge",
            Way::UpdateText => "update_text",
            Way::Stored => "stored",
            Way::Tracked => "Syncline",
        }
    }
}

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT NOT NULL DEFAULT '')";
const TEXT: &str = "text";

/// One person's copy of the text.
pub(crate) enum Writer {
    Alone(Box<Alone>),
    Tracked(Tracked),
}

impl Writer {
    /// Returns two people who begin with the same empty text. Of what both write at one place, the
    /// words of the first come first.
    pub(crate) fn two(way: Way) -> [Self; 2] {
        match way {
            Way::Tracked => Tracked::two().map(Writer::Tracked),
            _ => [2, 1].map(|number| Writer::Alone(Box::new(Alone::new(way, number)))),
        }
    }

    /// Leaves `text` after a sitting; returns what is sent of it, and the time it took.
    pub(crate) fn write(&mut self, sitting: &Sitting<'_>, text: &str) -> (Vec<u8>, Duration) {
        let start = CpuTime::now();
        let sent = match self {
            Writer::Alone(alone) => alone.write(sitting, text),
            Writer::Tracked(tracked) => tracked.write(text),
        };
        (sent, CpuTime::now() - start)
    }

    /// Takes in what the other sent, and returns the time it took.
    pub(crate) fn merge(&mut self, sent: &[u8]) -> Duration {
        let start = CpuTime::now();
        match self {
            Writer::Alone(alone) => alone.merge(sent),
            Writer::Tracked(tracked) => tracked.merge(sent),
        }
        CpuTime::now() - start
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Writer::Alone(alone) => alone.doc.text(&alone.text).expect("it has a text"),
            Writer::Tracked(tracked) => {
                let text = "SELECT body FROM t";
                let read = tracked.conn().query_row(text, [], |row| row.get(0));
                read.expect("the row is there")
            }
        }
    }

    /// Takes what lies in memory anew from where it is kept, and types a last full stop. Returns the
    /// time it took.
    pub(crate) fn restarted_and_written(self, text: &str) -> Duration {
        match self {
            Writer::Alone(mut alone) => {
                let kept = alone.kept();
                let start = CpuTime::now();
                alone.doc = load(&kept);
                let at = alone.doc.length(&alone.text);
                let sent = alone.commit(|tx, place| tx.splice_text(place, at, 0, "."));
                alone.keep(&sent);
                CpuTime::now() - start
            }
            Writer::Tracked(mut tracked) => {
                let start = CpuTime::now();
                tracked.write(text);
                CpuTime::now() - start
            }
        }
    }

    /// Returns how many bytes are kept, and how many are sent: `sent` to the other, and to somebody
    /// who has nothing.
    pub(crate) fn sizes(&self, sent: usize) -> Vec<(&'static str, u64)> {
        let all = ("sent to somebody new", self.all().len() as u64);
        let mut sizes = vec![("sent to the other", sent as u64), all];
        match self {
            Writer::Alone(alone) => {
                let plain = alone.doc.save_nocompress().len();
                sizes.push(("the same, not deflated", plain as u64));
                if let Some(database) = &alone.database {
                    sizes.push(("file", database.bytes()));
                }
            }
            Writer::Tracked(tracked) => {
                sizes.push(("history", tracked.history_bytes()));
                sizes.push(("file", tracked.database.bytes()));
                collect(tracked.conn(), &[], tracked.now).expect("it is collected");
                sizes.push(("history when collected", tracked.history_bytes()));
            }
        }
        sizes
    }

    /// Returns all that was written, to be sent to somebody who has nothing.
    pub(crate) fn all(&self) -> Vec<u8> {
        match self {
            Writer::Alone(alone) => alone.doc.save(),
            Writer::Tracked(tracked) => {
                let nothing = VersionVector::new();
                let changes = export(tracked.conn(), &nothing, tracked.now).expect("export");
                changes.encode()
            }
        }
    }

    /// Makes a copy of what [`Writer::all`] returned, and returns the time it took.
    pub(crate) fn received(way: Way, all: &[u8]) -> (Self, Duration) {
        if way == Way::Tracked {
            let mut tracked = Tracked::new(3);
            let start = CpuTime::now();
            tracked.merge(all);
            let took = CpuTime::now() - start;
            return (Writer::Tracked(tracked), took);
        }
        let mut alone = Alone::new(way, 3);
        let start = CpuTime::now();
        alone.doc = load(all);
        alone.doc.set_actor(ActorId::from([3; 16]));
        alone.keep(all);
        let took = CpuTime::now() - start;
        (Writer::Alone(Box::new(alone)), took)
    }
}

pub(crate) struct Alone {
    way: Way,
    doc: Automerge,
    text: ObjId,
    /// Where the text and its edits are kept.
    database: Option<Database>,
}

impl Alone {
    fn new(way: Way, number: u8) -> Self {
        let mut doc = Automerge::new_with_encoding(TextEncoding::UnicodeCodePoint);
        doc.set_actor(ActorId::from([0; 16]));
        let mut tx = doc.transaction();
        let text = tx.put_object(ROOT, TEXT, ObjType::Text).expect("a text");
        tx.commit_with(CommitOptions::default().with_time(0));
        doc.set_actor(ActorId::from([number; 16]));
        let database = (way == Way::Stored).then(|| {
            let database = Database::with(SCHEMA, "t", Variant::Plain);
            let more = "INSERT INTO t VALUES(1, ''); CREATE TABLE edits(bytes BLOB NOT NULL)";
            database.conn.execute_batch(more).expect("tables");
            database
        });
        Alone {
            way,
            doc,
            text,
            database,
        }
    }

    fn write(&mut self, sitting: &Sitting<'_>, wanted: &str) -> Vec<u8> {
        let way = self.way;
        let sent = self.commit(|tx, text| match way {
            Way::UpdateText => tx.update_text(text, wanted),
            _ => splice(tx, text, sitting),
        });
        self.keep(&sent);
        sent
    }

    /// Makes one edit of what `body` does, and returns its bytes.
    fn commit(
        &mut self,
        body: impl FnOnce(&mut Transaction<'_>, &ObjId) -> Result<(), AutomergeError>,
    ) -> Vec<u8> {
        let mut tx = self.doc.transaction();
        body(&mut tx, &self.text).expect("an edit");
        let Some(hash) = tx.commit().0 else {
            return Vec::new();
        };
        let change = self.doc.get_change_by_hash(&hash).expect("it is there");
        change.raw_bytes().to_vec()
    }

    /// Returns what a program finds of the history when it starts.
    fn kept(&self) -> Vec<u8> {
        let Some(Database { conn, .. }) = &self.database else {
            return self.doc.save();
        };
        let kept = "SELECT bytes FROM edits";
        conn.query_row(kept, [], |row| row.get(0))
            .expect("edits are kept")
    }

    fn merge(&mut self, sent: &[u8]) {
        if sent.is_empty() {
            return;
        }
        let change = Change::from_bytes(sent.to_vec()).expect("a change");
        self.doc.apply_changes([change]).expect("it is merged");
        self.keep(sent);
    }

    fn keep(&self, edits: &[u8]) {
        let Some(Database { conn, .. }) = &self.database else {
            return;
        };
        let text = self.doc.text(&self.text).expect("it has a text");
        conn.execute_batch("BEGIN").expect("begin");
        for (sql, value) in [
            ("UPDATE t SET body = ?1", Some(text.as_str())),
            ("INSERT INTO edits VALUES(?1)", None),
        ] {
            let mut statement = conn.prepare_cached(sql).expect("prepared");
            let done = match value {
                Some(text) => statement.execute([text]),
                None => statement.execute([edits]),
            };
            done.expect("it is written");
        }
        conn.execute_batch("COMMIT").expect("commit");
    }
}

fn load(saved: &[u8]) -> Automerge {
    let options = LoadOptions::new().text_encoding(TextEncoding::UnicodeCodePoint);
    Automerge::load_with_options(saved, options).expect("it was saved")
}

fn splice(
    tx: &mut Transaction<'_>,
    text: &ObjId,
    sitting: &Sitting<'_>,
) -> Result<(), AutomergeError> {
    let mut patches = sitting.edits.iter().flat_map(|edit| &edit.patches);
    patches.try_for_each(|(at, gone, came)| {
        let gone = isize::try_from(*gone).expect("few characters");
        tx.splice_text(text, *at, gone, came)
    })
}

pub(crate) struct Tracked {
    database: Database,
    site: SiteId,
    now: u64,
    /// Up to which own version it was sent.
    sent: Hlc,
}

impl Tracked {
    fn new(number: u8) -> Self {
        let database = Database::with("", "", Variant::Plain);
        prepare(&database.conn).expect("prepared");
        let name = "UPDATE syncline_sites SET site_id = ?1 WHERE ordinal = 0";
        let site = SiteId([number; 16]);
        database.conn.execute(name, [site.0]).expect("a name");
        Tracked {
            database,
            site,
            now: NOW,
            sent: Hlc::ZERO,
        }
    }

    fn two() -> [Self; 2] {
        let [mut first, mut second] = [2, 1].map(Tracked::new);
        let options = TableOptions::parse(r#"{"columns": {"body": "text"}}"#).expect("options");
        first.conn().execute_batch(SCHEMA).expect("schema");
        track(first.conn(), "t", &options, NOW).expect("tracked");
        let empty = first.conn().execute("INSERT INTO t VALUES(1, '')", []);
        empty.expect("a row");
        fold(first.conn(), NOW).expect("fold");
        let changes = export(first.conn(), &VersionVector::new(), NOW).expect("export");
        second.merge(&changes.encode());
        first.sent = first.own_version();
        second.sent = second.own_version();
        [first, second]
    }

    pub(crate) fn conn(&self) -> &Connection {
        &self.database.conn
    }

    fn history_bytes(&self) -> u64 {
        let kept = "SELECT sum(length(edits)) FROM syncline_edits";
        let kept = self.conn().query_row(kept, [], |row| row.get::<_, i64>(0));
        kept.expect("it has edits").unsigned_abs()
    }

    fn own_version(&self) -> Hlc {
        let seen = version_vector(self.conn()).expect("vector");
        seen.version(self.site)
    }

    fn write(&mut self, text: &str) -> Vec<u8> {
        self.now += 1;
        let conn = &self.database.conn;
        let update = "UPDATE t SET body = ?1 WHERE id = 1";
        let mut update = conn.prepare_cached(update).expect("prepared");
        update.execute([text]).expect("it is written");
        fold(conn, self.now).expect("fold");
        let Some(changes) = export_own(conn, self.sent, u64::MAX).expect("export") else {
            return Vec::new();
        };
        self.sent = changes.until.version(self.site);
        changes.encode()
    }

    fn merge(&mut self, sent: &[u8]) {
        if sent.is_empty() {
            return;
        }
        self.now += 1;
        let changes = Changeset::decode(sent).expect("a changeset");
        import_changeset(&self.database.conn, &changes, self.now).expect("import");
    }
}
