//! What survives `kill -9`: a process is killed again and again, and nothing is lost.
//!
//! A point is a phase and a moment: within the phase's work after some number of SQLite's
//! instructions, before a commit, or after the work and before anybody hears of it. One more is
//! anywhere, without the process waiting for it. `SYNCLINE_KILLS` says how many kills; the state
//! goes on from kill to kill.

mod victim;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fastrand::Rng;

use super::*;

/// How many kills the suite does; a long run is a command.
const KILLS_COUNT: u64 = 52;

const DATABASE: &str = "app.db";
/// What the process merges: a changeset of the peer's.
const INCOMING: &str = "incoming";
/// What the peer had seen, as the process is told when it collects.
const MEMBER: &str = "member";
/// What the process's own lines begin with.
const SIGN: &str = "victim:";
/// After how many steps a row is deleted again.
const STEPS_KEPT: i64 = 12;
/// After how many kills a row of the peer's is deleted again.
const ROUNDS_KEPT: u64 = 6;

/// A table for every way in which clocks name rows, and one whose rows drive each other out.
const SCHEMA: &str = "
    CREATE TABLE number(id INTEGER PRIMARY KEY, a, b);
    CREATE TABLE word(id TEXT PRIMARY KEY, a, b);
    CREATE TABLE pair(id TEXT PRIMARY KEY, a, b) WITHOUT ROWID;
    CREATE TABLE claim(id TEXT PRIMARY KEY, a UNIQUE);
    INSERT INTO number VALUES(0, 0, 0);
    INSERT INTO word VALUES('0', 0, 0);
    INSERT INTO pair VALUES('0', 0, 0);
";
const TABLES: [&str; 4] = ["number", "word", "pair", "claim"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Write,
    Fold,
    Apply,
    Collect,
}

const PHASES: [Phase; 4] = [Phase::Write, Phase::Fold, Phase::Apply, Phase::Collect];

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Write => "write",
            Phase::Fold => "fold",
            Phase::Apply => "apply",
            Phase::Collect => "collect",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// After this many instructions.
    Within(u64),
    Commit,
    After,
}

/// Where the process is killed.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// Nothing for anywhere: as soon as a number of phases are done.
    phase: Option<Phase>,
    moment: Moment,
    /// How many loops it runs before; how many phases, for anywhere.
    loops: i64,
}

impl Point {
    /// Returns the points by turns.
    fn of(kill: u64, random: &mut Rng) -> Self {
        let at = usize::try_from(kill).expect("few kills") % (PHASES.len() * 3 + 1);
        let within = 1 << random.u32(..12);
        Point {
            phase: PHASES.get(at / 3).copied(),
            moment: match at % 3 {
                0 => Moment::Within(within + random.u64(..within)),
                1 => Moment::Commit,
                _ => Moment::After,
            },
            loops: random.i64(0..3),
        }
    }

    fn to_text(self) -> String {
        let phase = self.phase.map_or("anywhere", Phase::name);
        let (moment, count) = match self.moment {
            Moment::Within(count) => ("within", count),
            Moment::Commit => ("commit", 0),
            Moment::After => ("after", 0),
        };
        format!("{phase} {moment} {count} {}", self.loops)
    }

    fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        Point {
            phase: PHASES.into_iter().find(|phase| phase.name() == words[0]),
            moment: match words[1] {
                "within" => Moment::Within(number(2)),
                "commit" => Moment::Commit,
                _ => Moment::After,
            },
            loops: number(3).cast_signed(),
        }
    }
}

/// The process's transaction number `step`: it leaves the same traces in all tables.
fn transaction(step: i64) -> String {
    // The row with the number 0 stays.
    let old = Some(step - STEPS_KEPT).filter(|old| *old > 0);
    let old = old.unwrap_or(i64::MAX);
    let mut sql = "BEGIN;".to_owned();
    for (table, key) in [("number", "i"), ("word", "'v' || i"), ("pair", "'v' || i")] {
        let last = if table == "number" { "0" } else { "'0'" };
        let key_of = |step: i64| key.replace('i', &step.to_string());
        sql += &format!(
            "INSERT INTO {table} VALUES({}, {step}, hex(zeroblob(300)));
             DELETE FROM {table} WHERE id = {};
             UPDATE {table} SET a = {step} WHERE id = {last};",
            key_of(step),
            key_of(old),
        );
    }
    sql + &format!(
        "REPLACE INTO claim VALUES('v{}', 'name {}'); DELETE FROM claim WHERE id = 'v{}'; COMMIT",
        step % 9,
        step % 5,
        step % 7,
    )
}

/// The last of the process's transactions that is there.
fn last_step(conn: &Connection) -> i64 {
    let last = "SELECT a FROM number WHERE id = 0";
    conn.query_row(last, [], |row| row.get(0)).expect(last)
}

/// When a step happens.
fn time(step: i64) -> u64 {
    NOW + 10 * step.cast_unsigned()
}

fn open(path: &Path) -> Connection {
    let conn = Connection::open(path).expect("the file opens");
    conn.busy_timeout(Duration::from_secs(120))
        .expect("a timeout");
    // A killed program's writes survive in the system's cache; only a power cut needs more.
    conn.execute_batch("PRAGMA synchronous = OFF")
        .expect("a setting");
    conn
}

/// A file whose processes are killed, and a peer it exchanges changes with.
struct Scene {
    folder: tempfile::TempDir,
    journal: &'static str,
    peer: Replica,
    /// Numbers what the peer writes.
    round: u64,
}

/// What a process said before it was killed.
#[derive(Debug, Default)]
struct Heard {
    /// The last result of each phase.
    done: BTreeMap<String, u64>,
    /// Where it waited, if it did.
    reached: Option<String>,
}

impl Heard {
    /// Takes a line of the process's output; returns whether a phase is done.
    fn hear(&mut self, line: &str) -> bool {
        let Some((_, words)) = line.split_once(SIGN) else {
            return false;
        };
        let Some((what, result)) = words.trim().split_once(' ') else {
            return false;
        };
        if what == "reached" {
            self.reached = Some(result.to_owned());
            return false;
        }
        let result = result.parse().expect("a number");
        self.done.insert(what.to_owned(), result);
        true
    }
}

impl Scene {
    fn new(journal: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let conn = open(&folder.path().join(DATABASE));
        conn.query_row(&format!("PRAGMA journal_mode = {journal}"), [], |_| Ok(()))
            .expect("a journal mode");
        conn.execute_batch(SCHEMA).expect("the schema runs");
        for table in TABLES {
            track(&conn, table, &TableOptions::default(), NOW).expect(table);
        }
        let file = Replica { conn, now: NOW };
        let mut peer = replica("", &[]);
        peer.pull(&file);
        Scene {
            folder,
            journal,
            peer,
            round: ROUNDS_KEPT,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Opens the file as the next program would.
    fn reopen(&self) -> Replica {
        let conn = open(&self.path(DATABASE));
        let now = time(last_step(&conn));
        Replica { conn, now }
    }

    /// The peer writes what the process will merge.
    fn prepare(&mut self, random: &mut Rng) {
        let file = self.reopen();
        self.round += 1;
        let (round, old) = (self.round, self.round - ROUNDS_KEPT);
        self.peer.now = file.now;
        self.peer.run(&format!(
            "INSERT INTO number VALUES(-{round}, {round}, 'p'); DELETE FROM number WHERE id = -{old};
             INSERT INTO word VALUES('p{round}', {round}, 'p'); DELETE FROM word WHERE id = 'p{old}';
             INSERT INTO pair VALUES('p{round}', {round}, 'p'); DELETE FROM pair WHERE id = 'p{old}';
             UPDATE word SET b = {round} WHERE id = '0'; UPDATE pair SET b = {round};
             REPLACE INTO claim VALUES('p{}', 'name {}')",
            round % 3,
            random.u8(..5),
        ));
        let incoming = export(&self.peer.conn, &file.seen(), self.peer.now).expect("export");
        std::fs::write(self.path(INCOMING), incoming.encode()).expect("a file");
        std::fs::write(self.path(MEMBER), self.peer.seen().encode()).expect("a file");
    }

    /// Starts the process, kills it at its point, and returns what it said.
    fn kill(&self, point: Point) -> Heard {
        let mut process = victim::start(self.folder.path(), point);
        let output = BufReader::new(process.stdout.take().expect("its output is a pipe"));
        let mut heard = Heard::default();
        let mut phases_left = point.phase.is_none().then_some(point.loops * 4 + 1);
        let mut lines = output.lines().map_while(Result::ok);
        for line in lines.by_ref() {
            if heard.hear(&line) {
                phases_left = phases_left.map(|left| left - 1);
            }
            if heard.reached.is_some() || phases_left == Some(0) {
                break;
            }
        }
        process.kill().expect("it is killed");
        // What it said until then is in the pipe.
        lines.for_each(|line| _ = heard.hear(&line));
        let ended = process.wait().expect("it ends");
        assert_eq!(
            ended.code(),
            None,
            "it ended by itself: {ended:?}, {heard:?}"
        );
        heard
    }

    /// Opens the file again: all that was said to be done is there, and the rest is whole.
    fn check(&mut self, heard: &Heard) {
        let mut file = self.reopen();
        assert_eq!(file.rows("PRAGMA integrity_check"), ["ok"]);
        self.check_writes(&file, heard);
        self.check_clocks(&file, heard);
        let mut rebuilt = replica("", &[]);
        rebuilt.pull(&file);
        assert_eq!(rebuilt.digest(), file.digest(), "rebuilt from an export");
        for table in TABLES {
            let select = format!("SELECT * FROM {table} ORDER BY id");
            assert_eq!(rebuilt.rows(&select), file.rows(&select), "{table}");
        }
        self.peer.now = file.now;
        self.peer.pull(&file);
        file.pull(&self.peer);
        assert_eq!(self.peer.digest(), file.digest(), "after an exchange");
        rebuilt.pull(&file);
        assert_eq!(rebuilt.digest(), file.digest(), "after an exchange");
    }

    /// Each transaction is there wholly or not at all, in their order, and those that were said to
    /// be committed are.
    fn check_writes(&self, file: &Replica, heard: &Heard) {
        let last = last_step(&file.conn);
        if let Some(written) = heard.done.get("write") {
            let written = written.cast_signed();
            assert!(
                last == written || last == written + 1,
                "{last} of {written}"
            );
        }
        let mut steps: Vec<i64> = ((last - STEPS_KEPT + 1).max(1)..=last).collect();
        steps.sort_unstable_by_key(i64::to_string);
        let steps: Vec<String> = steps.iter().map(i64::to_string).collect();
        for (table, own) in [
            ("number", "id > 0"),
            ("word", "id >= 'v'"),
            ("pair", "id >= 'v'"),
        ] {
            let select = format!("SELECT a FROM {table} WHERE id = '0'");
            assert_eq!(file.rows(&select), [last.to_string()], "{table}");
            let rows = format!("SELECT a FROM {table} WHERE {own} ORDER BY CAST(a AS TEXT)");
            assert_eq!(file.rows(&rows), steps, "{table}");
        }
    }

    /// What was said to be folded, merged and forgotten is.
    fn check_clocks(&self, file: &Replica, heard: &Heard) {
        let conn = &file.conn;
        let seen = version_vector(conn).expect("version vector");
        let own = seen.version(site_id(conn).expect("its name")).to_bits();
        assert!(own >= heard.done.get("fold").copied().unwrap_or(0));
        if heard.done.contains_key("apply") {
            let incoming = std::fs::read(self.path(INCOMING)).expect("a file");
            let incoming = Changeset::decode(&incoming).expect("a changeset");
            assert!(seen.covers(&incoming.until), "what was merged is there");
        }
        if heard.done.contains_key("collect") {
            let member = std::fs::read(self.path(MEMBER)).expect("a file");
            let member = VersionVector::decode(&member).expect("a version vector");
            let deletions = "SELECT s.site_id, c.version FROM syncline_clocks AS c
                JOIN syncline_sites AS s ON s.ordinal = c.site
                WHERE c.lane = -2 AND c.causal_length % 2 = 0";
            let mut statement = conn.prepare(deletions).expect("deletions");
            let mut rows = statement.query([]).expect("deletions");
            while let Some(row) = rows.next().expect("deletions") {
                let site = SiteId(row.get(0).expect("a site"));
                let version: i64 = row.get(1).expect("a version");
                let known = member.version(site).to_bits().cast_signed();
                assert!(version > known, "a deletion that all have seen is kept");
            }
        }
    }
}

#[test]
fn a_process_may_be_killed_anywhere_and_nothing_is_lost() {
    let setting = std::env::var("SYNCLINE_KILLS").ok();
    let kills_count = setting
        .and_then(|text| text.parse().ok())
        .unwrap_or(KILLS_COUNT);
    let mut scenes = ["WAL", "DELETE"].map(Scene::new);
    let mut points: BTreeMap<String, u64> = BTreeMap::new();
    for kill in 0..kills_count {
        let mut random = Rng::with_seed(kill);
        let scene = &mut scenes[usize::from(kill % 2 == 1)];
        let point = Point::of(kill / 2, &mut random);
        scene.prepare(&mut random);
        let heard = scene.kill(point);
        let place = match (point.phase, &heard.reached) {
            (Some(phase), Some(place)) => format!("{} {place}", phase.name()),
            _ => "anywhere".to_owned(),
        };
        println!("kill {kill}, {}: {place} ({point:?})", scene.journal);
        *points
            .entry(format!("{} {place}", scene.journal))
            .or_default() += 1;
        scene.check(&heard);
    }
    println!("{kills_count} kills: {points:#?}");
    // Each point was met: a process that never gets anywhere loses nothing either.
    assert!(
        kills_count < KILLS_COUNT || points.len() >= 18,
        "{points:?}"
    );
}
