//! Random schedules of devices that join rows which each of them counts for itself.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Every entry with the names of what it joins, and the names it was made with.
const ENTRIES: &str = "SELECT l.name || '+' || s.name, made FROM entry
    JOIN list AS l ON l.id = list_id JOIN song AS s ON s.id = song_id ORDER BY 1";

/// One write of a user's, to rows that are chosen among those that are seen.
#[derive(Clone, Debug)]
enum Step {
    AddList(Option<i64>),
    AddSong,
    AddEntry(usize, usize),
    EditEntry(usize, Option<i64>),
    RemoveEntry(usize),
    RemoveList(usize),
    RemoveSong(usize),
    MoveList(usize, i64),
    Swap(usize, usize),
}

/// What one device does before anybody looks, or from whom it pulls.
#[derive(Clone, Debug)]
enum Turn {
    Write(Vec<Step>),
    Pull(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0usize..8;
    let place = || prop::option::of(0i64..3);
    prop_oneof![
        3 => place().prop_map(Step::AddList),
        2 => Just(Step::AddSong),
        6 => (at(), at()).prop_map(|(list, song)| Step::AddEntry(list, song)),
        2 => (at(), place()).prop_map(|(entry, place)| Step::EditEntry(entry, place)),
        2 => at().prop_map(Step::RemoveEntry),
        2 => at().prop_map(Step::RemoveList),
        1 => at().prop_map(Step::RemoveSong),
        1 => (at(), 1i64..6).prop_map(|(list, id)| Step::MoveList(list, id)),
        1 => (at(), at()).prop_map(|(one, other)| Step::Swap(one, other)),
    ]
}

fn turns() -> impl Strategy<Value = Vec<(usize, Turn)>> {
    let turn = prop_oneof![
        3 => prop::collection::vec(step(), 1..6).prop_map(Turn::Write),
        2 => (0usize..3).prop_map(Turn::Pull),
    ];
    prop::collection::vec((0usize..3, turn), 1..20)
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Whether SQLite never gives an id twice.
    counts_on: bool,
    without_rowid: bool,
    /// Whether SQLite holds references.
    enforced: bool,
    /// Whether what is played is summed up.
    counts: bool,
    /// Whether each place is a list's only, and on a list an entry's only.
    unique: bool,
}

impl Kind {
    fn schema(self) -> String {
        let count = if self.counts_on { "AUTOINCREMENT" } else { "" };
        let rowid = if self.without_rowid {
            "WITHOUT ROWID"
        } else {
            ""
        };
        let unique = if self.unique { "UNIQUE" } else { "" };
        let places = if self.unique {
            ", UNIQUE(place, list_id)"
        } else {
            ""
        };
        format!(
            "CREATE TABLE list(id INTEGER PRIMARY KEY {count}, name TEXT, place {unique});
             CREATE TABLE song(id INTEGER PRIMARY KEY {count}, name TEXT);
             CREATE TABLE entry(
                list_id INTEGER REFERENCES list(id) ON DELETE CASCADE ON UPDATE CASCADE,
                song_id INTEGER REFERENCES song ON DELETE CASCADE ON UPDATE CASCADE,
                made TEXT, edited, place, played INTEGER NOT NULL DEFAULT 0,
                PRIMARY KEY(song_id, list_id) {places}) {rowid}"
        )
    }

    fn replicas(self) -> Vec<Replica> {
        let counted = with_ids(Ids::Counted);
        let first = replica_of(&self.schema(), &["list", "song"], &counted);
        let options = match self.counts {
            true => r#"{"columns":{"played":"counter"}}"#,
            false => "{}",
        };
        let options = TableOptions::parse(options).expect("options");
        track(&first.conn, "entry", &options, NOW).expect("track");
        let mut all = vec![first];
        for _ in 1..3 {
            let mut next = replica("", &[]);
            next.pull(&all[0]);
            all.push(next);
        }
        for replica in &all {
            let conn = &replica.conn;
            let pragma = conn.pragma_update(None, "foreign_keys", self.enforced);
            pragma.expect("pragma");
        }
        all
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    let any = any::<(bool, bool, bool, bool, bool)>();
    any.prop_map(
        |(counts_on, without_rowid, enforced, counts, unique)| Kind {
            unique,
            counts_on,
            without_rowid,
            enforced,
            counts,
        },
    )
}

/// What was ever done to entries, by the names of what they join.
#[derive(Default)]
struct Done {
    added: BTreeMap<String, usize>,
    removed: BTreeSet<String>,
    /// Lists that were ever given another id: they are other rows since.
    moved: BTreeSet<String>,
    names: usize,
}

impl Done {
    fn write(&mut self, replica: &Replica, kind: Kind, step: &Step) {
        let entries = replica.rows("SELECT list_id || ' AND song_id = ' || song_id FROM entry");
        let lists = replica.rows("SELECT id FROM list ORDER BY name");
        let songs = replica.rows("SELECT id FROM song ORDER BY name");
        let names = replica.rows("SELECT name FROM list ORDER BY name");
        let rows_count = names.len().max(1);
        let of = |rows: &[String], at: usize| {
            let count = rows.len().max(1);
            rows.get(at % count)
                .cloned()
                .unwrap_or_else(|| "-1".to_owned())
        };
        self.names += 1;
        let name = self.names;
        let sql = match step {
            Step::AddList(place) => {
                let place = place.map_or("NULL".to_owned(), |place| place.to_string());
                format!("INSERT OR IGNORE INTO list(name, place) VALUES('l{name}', {place})")
            }
            Step::AddSong => format!("INSERT INTO song(name) VALUES('s{name}')"),
            Step::AddEntry(list, song) => format!(
                "INSERT INTO entry(list_id, song_id, made) SELECT l.id, s.id, l.name || '+' || s.name
                 FROM list AS l, song AS s WHERE l.id = {} AND s.id = {} AND true
                 ON CONFLICT DO UPDATE SET edited = {name}",
                of(&lists, *list),
                of(&songs, *song)
            ),
            Step::EditEntry(at, place) => {
                let place = place.map_or("NULL".to_owned(), |place| place.to_string());
                let entry = of(&entries, *at);
                format!(
                    "UPDATE OR IGNORE entry SET edited = {name}, played = played + 1, place = {place}
                     WHERE list_id = {entry}"
                )
            }
            Step::RemoveEntry(at) => {
                format!("DELETE FROM entry WHERE list_id = {}", of(&entries, *at))
            }
            Step::RemoveList(at) => format!("DELETE FROM list WHERE id = {}", of(&lists, *at)),
            Step::RemoveSong(at) => format!("DELETE FROM song WHERE id = {}", of(&songs, *at)),
            Step::MoveList(at, id) => format!(
                "UPDATE OR IGNORE list SET id = {id} WHERE id = {}",
                of(&lists, *at)
            ),
            Step::Swap(one, other) => {
                let (one, other) = (of(&lists, *one), of(&lists, *other));
                format!(
                    "UPDATE list SET id = 1000 WHERE id = {one};
                     UPDATE list SET id = {one} WHERE id = {other};
                     UPDATE list SET id = {other} WHERE id = 1000"
                )
            }
        };
        // What nothing carries along refers to another row by the same id, as it does in SQL.
        if matches!(step, Step::MoveList(..) | Step::Swap(..)) && !kind.enforced {
            return;
        }
        let before: BTreeSet<String> = replica.rows(ENTRIES).into_iter().collect();
        let lists = "SELECT name, id FROM list ORDER BY name";
        let ids = replica.rows(lists);
        replica.conn.execute_batch(&sql).expect(&sql);
        let after: BTreeSet<String> = replica.rows(ENTRIES).into_iter().collect();
        for gone in before.difference(&after) {
            self.removed.insert(gone.clone());
        }
        for added in after.difference(&before) {
            *self.added.entry(added.clone()).or_default() += 1;
        }
        if let Step::MoveList(..) | Step::Swap(..) = step {
            let ids = ids.into_iter().zip(replica.rows(lists));
            let moved = ids.filter(|(before, after)| before != after);
            let name = |(row, _): (String, _)| row.split('|').next().map(str::to_owned);
            self.moved.extend(moved.filter_map(name));
            // Also what was given its own id again is another row.
            if let Step::Swap(one, other) = step
                && one % rows_count == other % rows_count
            {
                self.moved.extend(names.get(one % rows_count).cloned());
            }
        }
    }
}

#[track_caller]
fn assert_names(replica: &Replica, kind: Kind) {
    if kind.counts_on {
        for row in replica.rows(ENTRIES) {
            let (names, made) = row.split_once('|').expect("two columns");
            assert_eq!(names, made);
        }
    }
    assert_eq!(replica.rows("PRAGMA foreign_key_check"), [""; 0]);
    assert_eq!(replica.rows("PRAGMA integrity_check"), ["ok"]);
    // What is kept of a row that is shown lies under its key.
    let strays = "SELECT list_id FROM entry WHERE list_id < -4611686018427387904";
    assert_eq!(replica.rows(strays), [""; 0]);
}

fn run(kind: Kind, turns: &[(usize, Turn)]) {
    let mut all = kind.replicas();
    let mut done = Done::default();
    for (at, turn) in turns {
        match turn {
            Turn::Write(steps) => {
                for step in steps {
                    done.write(&all[*at], kind, step);
                }
                all[*at].run("");
                assert_names(&all[*at], kind);
            }
            Turn::Pull(from) if from != at => {
                let [into, from] = all.get_disjoint_mut([*at, *from]).expect("two replicas");
                into.pull(from);
                assert_names(into, kind);
            }
            Turn::Pull(_) => {}
        }
    }
    converge(&mut all);
    let mut newcomer = replica("", &[]);
    newcomer.pull(&all[2]);
    all.push(newcomer);
    for replica in &all {
        assert_names(replica, kind);
        assert_eq!(replica.digest(), all[0].digest());
        assert_eq!(replica.rows(ENTRIES), all[0].rows(ENTRIES));
        let rows = "SELECT * FROM entry ORDER BY list_id, song_id";
        assert_eq!(replica.rows(rows), all[0].rows(rows));
    }
    let shown: BTreeSet<String> = all[0].rows(ENTRIES).into_iter().collect();
    let waiting = "SELECT row ->> 'made' FROM syncline_conflicts WHERE table_name = 'entry'";
    let waiting = all[0].rows(waiting);
    if kind.counts_on && kind.enforced {
        for (entry, count) in &done.added {
            let names: Vec<&str> = entry.split(['+', '|']).collect();
            let lists = format!("SELECT count(*) FROM list WHERE name = '{}'", names[0]);
            let songs = format!("SELECT count(*) FROM song WHERE name = '{}'", names[1]);
            let has_both = all[0].rows(&lists) == ["1"] && all[0].rows(&songs) == ["1"];
            if done.moved.contains(names[0]) {
                continue;
            }
            if !done.removed.contains(entry) && has_both {
                let made = format!("{}+{}", names[0], names[1]);
                let is_waiting = waiting.contains(&made);
                assert!(shown.contains(entry) || is_waiting, "{entry} is lost");
            }
            if done.removed.contains(entry) && *count == 1 {
                assert!(!shown.contains(entry), "{entry} is there again");
            }
        }
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn rows_join_what_they_were_made_to_join(kind in kind(), turns in turns()) {
        run(kind, &turns);
    }
}
