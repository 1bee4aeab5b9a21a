//! Schemas drawn at random: tables with unique columns and references, and statements on them.

use proptest::prelude::*;

/// Three tables that refer to each other, with what varies between cases.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    /// What album's reference to artist says.
    album: Action,
    /// What track's reference to album says.
    track: Action,
    /// What a row's reference to its own table says.
    node: Action,
    /// Whether artists have unique names.
    names_are_unique: bool,
    /// Whether titles are unique among the albums of one artist, or only those that are listed.
    titles: Titles,
    /// Whether tracks are keyed by a text in place of a counted id.
    has_text_key: bool,
    /// Whether the application lets SQLite enforce foreign keys.
    pub(crate) enforces_keys: bool,
    /// Whether references are checked at the end of a transaction.
    is_deferred: bool,
    /// Whether SQLite gives no id twice.
    is_counted_on: bool,
    /// What becomes of `likes` when two devices write it.
    likes: Likes,
}

/// How the column `likes` merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Likes {
    Last,
    Counter,
    Max,
    Min,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    None,
    Cascade,
    SetNull,
}

#[derive(Clone, Copy, Debug)]
enum Titles {
    Free,
    Unique,
    UniqueWhereListed,
}

impl Action {
    fn any() -> impl Strategy<Value = Action> {
        prop_oneof![
            Just(Action::None),
            Just(Action::Cascade),
            Just(Action::SetNull)
        ]
    }

    fn sql(self) -> &'static str {
        match self {
            Action::None => "",
            Action::Cascade => "ON DELETE CASCADE",
            Action::SetNull => "ON DELETE SET NULL",
        }
    }
}

impl Schema {
    pub(crate) fn any(enforces_keys: bool) -> impl Strategy<Value = Schema> {
        let titles = prop_oneof![
            Just(Titles::Free),
            Just(Titles::Unique),
            Just(Titles::UniqueWhereListed)
        ];
        let likes = prop_oneof![
            Just(Likes::Last),
            Just(Likes::Counter),
            Just(Likes::Max),
            Just(Likes::Min),
        ];
        let actions = (Action::any(), Action::any(), Action::any());
        let all = (actions, titles, likes, any::<[bool; 4]>());
        all.prop_map(move |(actions, titles, likes, flags)| Schema {
            album: actions.0,
            track: actions.1,
            node: actions.2,
            titles,
            names_are_unique: flags[0],
            has_text_key: flags[1],
            enforces_keys,
            is_deferred: flags[2],
            is_counted_on: flags[3],
            likes,
        })
    }

    pub(crate) fn create(&self) -> String {
        let unique = if self.names_are_unique { "UNIQUE" } else { "" };
        let titles = match self.titles {
            Titles::Free => "",
            Titles::Unique => "CREATE UNIQUE INDEX titles ON album(artist, title);",
            Titles::UniqueWhereListed => {
                "CREATE UNIQUE INDEX titles ON album(title COLLATE NOCASE) WHERE listed;"
            }
        };
        // Without it SQLite gives ids again, also those of rows that wait.
        let counts = if self.is_counted_on {
            "AUTOINCREMENT"
        } else {
            ""
        };
        let key = if self.has_text_key { "TEXT" } else { "INTEGER" };
        let deferred = if self.is_deferred {
            "DEFERRABLE INITIALLY DEFERRED"
        } else {
            ""
        };
        let [album, track, node] = [self.album, self.track, self.node].map(Action::sql);
        format!(
            "CREATE TABLE artist(id INTEGER PRIMARY KEY {counts}, token TEXT,
                name TEXT {unique}, low INTEGER NOT NULL DEFAULT 0, high INTEGER NOT NULL DEFAULT 5,
                CHECK(low <= high));
             CREATE TABLE album(id INTEGER PRIMARY KEY {counts}, token TEXT, title TEXT,
                listed INTEGER, artist INTEGER REFERENCES artist(id) {album} {deferred});
             CREATE TABLE track(id {key} PRIMARY KEY NOT NULL, token TEXT, likes INTEGER,
                album INTEGER REFERENCES album {track} {deferred});
             CREATE TABLE node(id INTEGER PRIMARY KEY {counts}, token TEXT, note TEXT,
                parent INTEGER REFERENCES node(id) {node} {deferred});
             {titles}"
        )
    }

    /// The tables and how they are tracked.
    pub(crate) fn options(&self) -> Vec<(&'static str, String)> {
        let counted = r#"{"ids": "counted"}"#;
        let likes = match self.likes {
            Likes::Last => "lww",
            Likes::Counter => "counter",
            Likes::Max => "max",
            Likes::Min => "min",
        };
        let ids = if self.has_text_key {
            "shared"
        } else {
            "counted"
        };
        vec![
            ("artist", counted.to_owned()),
            ("album", counted.to_owned()),
            (
                "track",
                format!(r#"{{"ids": "{ids}", "columns": {{"likes": "{likes}"}}}}"#),
            ),
            ("node", counted.to_owned()),
        ]
    }

    pub(crate) fn tables(&self) -> Vec<&'static str> {
        vec!["artist", "album", "track", "node"]
    }

    /// How `track.likes` merges.
    pub(crate) fn likes(&self) -> Likes {
        self.likes
    }

    /// A change of the schema that replicas make at different times. Making it twice does nothing.
    pub(crate) fn change(which: bool) -> &'static str {
        if which {
            "DROP INDEX IF EXISTS titles"
        } else {
            "ALTER TABLE node ADD COLUMN extra TEXT DEFAULT 'plain'"
        }
    }

    /// Returns a statement: `kind` says which, `a` and `b` choose its rows and values.
    pub(crate) fn statement(&self, kind: u8, (a, b): (u8, u8), token: &str) -> String {
        let some = |table: &str, n: u8| {
            format!(
                "(SELECT id FROM {table} ORDER BY token
                  LIMIT 1 OFFSET {n} % max(1, (SELECT count(*) FROM {table})))"
            )
        };
        let track = if self.has_text_key {
            format!("'{token}'")
        } else {
            "NULL".to_owned()
        };
        let track = if self.has_text_key {
            track
        } else {
            // Not AUTOINCREMENT: a number that nobody had here yet.
            format!("(SELECT ifnull(max(id), 0) + 1 + {a} FROM track)")
        };
        match kind % 19 {
            0 | 1 => format!("INSERT INTO artist(token, name) VALUES('{token}', 'name {a}')"),
            2 | 3 => format!(
                "INSERT INTO album(token, title, listed, artist)
                 VALUES('{token}', 'Title {a}', {b} % 2, {})",
                some("artist", b)
            ),
            4 | 5 => format!(
                "INSERT INTO track(id, token, likes, album) VALUES({track}, '{token}', {b}, {})",
                some("album", b)
            ),
            6 => format!(
                "INSERT INTO node(token, note, parent) VALUES('{token}', 'n', {})",
                if a == 0 {
                    "NULL".to_owned()
                } else {
                    some("node", b)
                }
            ),
            7 => format!(
                "UPDATE artist SET name = 'name {a}' WHERE id = {}",
                some("artist", b)
            ),
            8 => format!(
                "UPDATE album SET artist = {} WHERE id = {}",
                some("artist", a),
                some("album", b)
            ),
            9 => format!(
                "UPDATE track SET likes = ifnull(likes, 0) + {a} - 2 WHERE id = {}",
                some("track", b)
            ),
            10 => format!(
                "UPDATE node SET parent = {} WHERE id = {}",
                some("node", a),
                some("node", b)
            ),
            11 => format!("DELETE FROM artist WHERE id = {}", some("artist", b)),
            12 => format!("DELETE FROM album WHERE id = {}", some("album", b)),
            13 => format!("DELETE FROM track WHERE id = {}", some("track", b)),
            14 => format!("DELETE FROM node WHERE id = {}", some("node", b)),
            15 => format!(
                "UPDATE artist SET low = {a} WHERE id = {}",
                some("artist", b)
            ),
            16 => format!(
                "UPDATE artist SET high = {a} WHERE id = {}",
                some("artist", b)
            ),
            // Fails where the column has not been added.
            17 => format!(
                "UPDATE node SET extra = 'e{a}' WHERE id = {}",
                some("node", b)
            ),
            _ => format!(
                "UPDATE album SET title = 'title {a}', listed = {b} % 2 WHERE id = {}",
                some("album", b)
            ),
        }
    }
}
