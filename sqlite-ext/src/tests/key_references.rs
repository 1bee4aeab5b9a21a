//! Keys that refer to rows of tables with counted ids, as in tables that join two others.

use super::families::{assert_all, families};
use super::*;

/// Both kinds of tables that have such keys.
const KINDS: [&str; 2] = ["", " WITHOUT ROWID"];
/// What is on which list.
const ENTRIES: &str = "SELECT l.name, s.name FROM entry
    JOIN list AS l ON l.id = list_id JOIN song AS s ON s.id = song_id ORDER BY 1, 2";
/// Every row of the table that joins, with what it refers to.
const ALL: &str = "SELECT l.name, s.name, note FROM entry
    LEFT JOIN list AS l ON l.id = list_id LEFT JOIN song AS s ON s.id = song_id ORDER BY 1, 2, 3";

fn schema(kind: &str) -> String {
    format!(
        "CREATE TABLE list(id INTEGER PRIMARY KEY, name);
         CREATE TABLE song(id INTEGER PRIMARY KEY, name);
         CREATE TABLE entry(
            list_id INTEGER REFERENCES list(id) ON DELETE CASCADE,
            song_id INTEGER REFERENCES song ON DELETE CASCADE,
            note, PRIMARY KEY(list_id, song_id)){kind}"
    )
}

/// Rows whose parent is gone can be seen.
fn loose(kind: &str) -> String {
    let keys = "FOREIGN KEY(note) REFERENCES list(name), PRIMARY KEY";
    schema(kind).replace("PRIMARY KEY(", &format!("{keys}("))
}

const TABLES: [&str; 3] = ["list", "song", "entry"];

fn shops(kind: &str, count: usize) -> Vec<Replica> {
    let all = families(&schema(kind), &TABLES, count);
    for replica in &all {
        let on = "PRAGMA foreign_keys = ON";
        replica.conn.execute_batch(on).expect(on);
    }
    all
}

/// A list and a song of one name, and the song on the list.
fn add(name: &str) -> String {
    format!(
        "INSERT INTO list(name) VALUES('{name}'); INSERT INTO song(name) VALUES('{name}');
         INSERT INTO entry(list_id, song_id, note) SELECT l.id, s.id, '{name}' FROM list AS l, song AS s
            WHERE l.name = '{name}' AND s.name = '{name}'"
    )
}

#[track_caller]
fn assert_sound(all: &[Replica]) {
    assert_all(all, "PRAGMA foreign_key_check", &[]);
    assert_all(all, "PRAGMA integrity_check", &["ok"]);
    let lives = "SELECT count(*) FROM syncline_parked_rows AS p JOIN entry AS e
        ON p.key = x'' AND e.note = ''";
    assert_all(all, lives, &["0"]);
}

#[test]
fn rows_that_join_colliding_rows_follow_them() {
    for kind in KINDS {
        let mut all = shops(kind, 3);
        all[0].run(&add("a"));
        all[1].run(&add("b"));
        all[1].run("INSERT INTO song(name) VALUES('more'); INSERT INTO entry VALUES(1, 2, 'x')");
        converge(&mut all);
        assert_all(&all, ENTRIES, &["a|a", "b|b", "b|more"]);
        assert_all(&all, "SELECT count(*) FROM entry", &["3"]);
        assert_sound(&all);
        all[2].run("UPDATE entry SET note = 'edited' WHERE note = 'b'");
        all[0].run("DELETE FROM entry WHERE note = 'x'");
        converge(&mut all);
        assert_all(&all, ALL, &["a|a|a", "b|b|edited"]);
    }
}

#[test]
fn rows_follow_back_when_the_number_is_free_again() {
    for kind in KINDS {
        let mut all = shops(kind, 3);
        all[0].run(&add("a"));
        all[1].run(&add("b"));
        converge(&mut all);
        all[0].run("DELETE FROM list WHERE name = 'a'");
        converge(&mut all);
        assert_all(&all, ALL, &["b|b|b"]);
        assert_all(&all, "SELECT id FROM list", &["1"]);
        assert_all(&all, "SELECT list_id FROM entry", &["1"]);
        all[2].run("DELETE FROM song WHERE name = 'a'");
        converge(&mut all);
        assert_all(&all, "SELECT * FROM entry", &["1|1|b"]);
        assert_sound(&all);
    }
}

#[test]
fn a_deletion_is_of_the_row_whatever_its_key_is_meanwhile() {
    for kind in KINDS {
        let mut all = shops(kind, 3);
        all[1].run(&add("b"));
        let (first, rest) = all.split_at_mut(2);
        rest[0].pull(&first[1]);
        // The third deletes it under 1|1, and the second is told of the other's rows meanwhile.
        all[2].run("DELETE FROM entry");
        all[0].run(&add("a"));
        let (first, rest) = all.split_at_mut(1);
        rest[0].pull(&first[0]);
        converge(&mut all);
        assert_all(&all, ALL, &["a|a|a"]);
        all[2].run(
            "INSERT INTO entry SELECT l.id, s.id, 'again' FROM list AS l, song AS s
            WHERE l.name = 'b' AND s.name = 'b'",
        );
        converge(&mut all);
        assert_all(&all, ALL, &["a|a|a", "b|b|again"]);
        assert_sound(&all);
    }
}

#[test]
fn two_rows_swap_their_keys() {
    for kind in KINDS {
        // The one that tracked the tables keeps its numbers, so those of the other move.
        let mut all = shops(kind, 3);
        all[1].run(&add("b"));
        all[2].run(&add("c"));
        let (first, rest) = all.split_at_mut(2);
        first[1].pull(&rest[0]);
        assert_eq!(first[1].rows(ENTRIES), ["b|b", "c|c"]);
        all[0].run(&add("a"));
        all[1].run("DELETE FROM list WHERE id = 1; UPDATE list SET name = 'left'");
        converge(&mut all);
        assert_sound(&all);
        let left = all[0].rows(ENTRIES);
        assert_all(
            &all,
            ENTRIES,
            &left.iter().map(|s| &**s).collect::<Vec<_>>(),
        );
        assert_eq!(left.len(), 2, "{left:?}");
    }
}

/// Without AUTOINCREMENT SQLite gives the greatest id again.
#[test]
fn an_id_that_is_given_again_before_anybody_looked_is_another_row() {
    for kind in KINDS {
        for at in [0, 1] {
            let mut all = shops(kind, 3);
            all[0].run(&add("old"));
            converge(&mut all);
            let again = format!("DELETE FROM list; {}", add("new"));
            let again = again.replace("INSERT INTO song(name) VALUES('new');", "");
            let again = again.replace("s.name = 'new'", "s.name = 'old'");
            all[at].run(&again);
            all[2].run("DELETE FROM entry");
            converge(&mut all);
            // Where the deleted list was one's own, the new one is the same row in its next life.
            assert_all(&all, ENTRIES, &["new|old"]);
            assert_sound(&all);
        }
    }
}

#[test]
fn a_row_that_is_made_again_under_another_id_is_not_the_one_of_its_number() {
    for kind in KINDS {
        let mut all = shops(kind, 2);
        all[0].run("INSERT INTO list(name) VALUES('0'); INSERT INTO song(name) VALUES('s')");
        all[1].run("INSERT INTO list(name) VALUES('1')");
        converge(&mut all);
        let own: usize = all[0].rows("SELECT name FROM list WHERE id < 0")[0]
            .parse()
            .expect("a place");
        all[1 - own].run("INSERT INTO entry VALUES(1, 1, 'of the number')");
        converge(&mut all);
        let id = all[own].rows("SELECT id FROM list WHERE id < 0").remove(0);
        all[own].run(&format!("INSERT INTO entry VALUES({id}, 1, 'of the id')"));
        converge(&mut all);
        all[own].run(&format!(
            "DELETE FROM list WHERE id = {id}; INSERT INTO list VALUES({id}, 'again');
             REPLACE INTO entry VALUES(1, 1, 'written'), ({id}, 1, 'anew')"
        ));
        let other = &mut all[1 - own];
        other.now += 60_000;
        other.run("UPDATE entry SET note = 'edited'");
        converge(&mut all);
        // What refers to the row in its next life lives anew, and the edit was of its former one.
        let rows = format!("SELECT list_id = {id}, note FROM entry ORDER BY 1");
        assert_all(&all, &rows, &["0|edited", "1|anew"]);
        assert_sound(&all);
    }
}

#[test]
fn a_row_that_nobody_wrote_goes_with_the_id_that_it_holds() {
    for kind in KINDS {
        let mut all = families(&loose(kind), &TABLES, 3);
        all[0].run(&add("old"));
        converge(&mut all);
        all[1].run("DELETE FROM list; INSERT INTO list(name) VALUES('new')");
        assert_eq!(all[1].rows(ENTRIES), ["new|old"]);
        converge(&mut all);
        assert_all(&all, ENTRIES, &["new|old"]);
        // The row that it was is gone, also when the list that it was on comes back.
        all[1].run("UPDATE list SET id = 2");
        converge(&mut all);
        all[0].run("INSERT INTO list VALUES(1, 'old again')");
        converge(&mut all);
        let lists = "SELECT name FROM list ORDER BY 1";
        assert_all(&all, lists, &["new", "old again"]);
        assert_all(&all, ENTRIES, &[]);
    }
}

#[test]
fn a_row_waits_for_those_it_refers_to() {
    for kind in KINDS {
        let mut all = shops(kind, 3);
        all[2].run(&add("own"));
        all[0].run(&add("a"));
        let mut changes = export(&all[0].conn, &all[2].seen(), all[0].now).expect("export");
        let whole = changes.clone();
        changes.tables.retain(|table| table.name == "entry");
        let now = all[0].now;
        import_changeset(&all[2].conn, &changes, now).expect("import");
        assert_eq!(all[2].rows(ENTRIES), ["own|own"]);
        let waiting = "SELECT row ->> 'note' FROM syncline_conflicts";
        assert_eq!(all[2].rows(waiting), ["a"]);
        import_changeset(&all[2].conn, &whole, now).expect("import");
        assert_eq!(all[2].rows(ENTRIES), ["a|a", "own|own"]);
        converge(&mut all);
        assert_all(&all, ENTRIES, &["a|a", "own|own"]);
        assert_all(&all, "SELECT count(*) FROM syncline_conflicts", &["0"]);
        assert_sound(&all);
    }
}

#[test]
fn a_row_added_to_what_another_deletes_waits_and_comes_back_with_it() {
    for kind in KINDS {
        let mut all = shops(kind, 3);
        all[0].run(&add("a"));
        all[1].run(&add("b"));
        converge(&mut all);
        all[0].run("DELETE FROM list WHERE name = 'b'");
        all[1].run(
            "INSERT INTO song(name) VALUES('late');
             INSERT INTO entry SELECT l.id, s.id, 'late' FROM list AS l, song AS s
             WHERE l.name = 'b' AND s.name = 'late'",
        );
        converge(&mut all);
        assert_all(&all, ENTRIES, &["a|a"]);
        let waiting = "SELECT row ->> 'note' FROM syncline_conflicts";
        assert_all(&all, waiting, &["late"]);
        // Another list of the first device with the number does not get what waits.
        all[0].run("DELETE FROM list; INSERT INTO list VALUES(1, 'a again')");
        converge(&mut all);
        assert_all(&all, ENTRIES, &[]);
        all[1].run("DELETE FROM list");
        all[1].run("INSERT INTO list VALUES(1, 'b again')");
        converge(&mut all);
        assert_all(&all, ENTRIES, &["b again|late"]);
        assert_sound(&all);
    }
}

#[test]
fn a_newcomer_gets_the_same_rows() {
    for kind in KINDS {
        let mut all = shops(kind, 2);
        all[0].run(&add("a"));
        all[1].run(&add("b"));
        converge(&mut all);
        all[0].run("DELETE FROM entry WHERE note = 'b'");
        converge(&mut all);
        let mut next = replica("", &[]);
        next.pull(&all[1]);
        assert_eq!(next.digest(), all[0].digest());
        assert_eq!(next.rows(ALL), ["a|a|a"]);
        all.push(next);
        all[2].run(&add("c"));
        converge(&mut all);
        assert_all(&all, ENTRIES, &["a|a", "c|c"]);
        assert_sound(&all);
    }
}

#[test]
fn what_refers_to_a_row_that_is_yet_to_come_finds_it() {
    for kind in KINDS {
        let mut all = families(&loose(kind), &TABLES, 2);
        all[0].run("INSERT INTO entry VALUES(7, 8, 'early')");
        converge(&mut all);
        all[1].run("INSERT INTO list VALUES(7, 'of b'); INSERT INTO song VALUES(8, 'of b')");
        assert_eq!(all[1].rows(ENTRIES), [""; 0]);
        all[0].run("INSERT INTO list VALUES(7, 'of a')");
        all[0].run("INSERT INTO song VALUES(8, 'of a')");
        converge(&mut all);
        assert_all(&all, ENTRIES, &["of a|of a"]);
    }
}

#[test]
fn tables_may_be_tracked_in_any_order_with_rows_in_them() {
    for kind in KINDS {
        for order in [["list", "song", "entry"], ["entry", "song", "list"]] {
            let schema = format!("{}; {}", schema(kind), add("a"));
            let mut all = families(&schema, &order, 3);
            all[1].run(&add("b"));
            all[2].run(&add("c"));
            converge(&mut all);
            assert_all(&all, ENTRIES, &["a|a", "b|b", "c|c"]);
            assert_sound(&all);
        }
    }
}

/// A device may have the tables before it hears of them, as copies or with other rows.
#[test]
fn tables_that_are_there_join_with_their_rows() {
    for kind in KINDS {
        for (own, expected) in [
            ("", ["a|a", "a|more"].as_slice()),
            (
                "UPDATE list SET name = 'x'; UPDATE song SET name = 'x'",
                &["a|a", "x|more", "x|x"],
            ),
        ] {
            let rows = format!(
                "{}; {}; INSERT INTO song(name) VALUES('more')",
                schema(kind),
                add("a")
            );
            let mut other = replica(&rows, &[]);
            let own = own.replace("song SET name = 'x'", "song SET name = 'x' WHERE id = 1");
            let own = format!("{own}; INSERT INTO entry VALUES(1, 2, 'x')");
            other.conn.execute_batch(&own).expect("rows");
            let mut all = families(&rows, &TABLES, 1);
            other.pull(&all[0]);
            all.push(other);
            converge(&mut all);
            assert_all(&all, ENTRIES, expected);
            let mut next = replica("", &[]);
            next.pull(&all[0]);
            assert_eq!(next.digest(), all[1].digest());
            all.push(next);
            assert_sound(&all);
        }
    }
}

#[test]
fn a_parent_that_is_untracked_leaves_plain_values() {
    for kind in KINDS {
        let mut all = shops(kind, 2);
        all[0].run(&add("a"));
        converge(&mut all);
        for replica in &mut all {
            untrack(&replica.conn, "list", replica.now).expect("untrack");
            replica.run("");
        }
        converge(&mut all);
        assert_all(&all, ALL, &["a|a|a"]);
        let counted = with_ids(Ids::Counted);
        track(&all[0].conn, "list", &counted, all[0].now).expect("track");
        converge(&mut all);
        assert_all(&all, ALL, &["a|a|a"]);
        all[0].run(&add("c"));
        all[1].run(&add("d"));
        converge(&mut all);
        assert_all(&all, ENTRIES, &["a|a", "c|c", "d|d"]);
        assert_sound(&all);
    }
}

/// A table that refers to a table that joins refers to the rows that this one joins.
#[test]
fn what_refers_to_such_a_key_follows_with_it() {
    let more = "CREATE TABLE remark(id INTEGER PRIMARY KEY, text, list INTEGER, song INTEGER,
            FOREIGN KEY(list, song) REFERENCES entry ON DELETE CASCADE);
         CREATE TABLE vote(list INTEGER, song INTEGER, voter TEXT, PRIMARY KEY(voter, song, list),
            FOREIGN KEY(song, list) REFERENCES entry(song_id, list_id) ON DELETE CASCADE)";
    let votes = "SELECT l.name, s.name, text, voter FROM remark AS r
        JOIN vote AS v USING(list, song) JOIN list AS l ON l.id = list
        JOIN song AS s ON s.id = song ORDER BY 3";
    for kind in KINDS {
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]] {
            let names = ["list", "song", "entry", "remark", "vote"];
            let names = order.map(|at| names[at]);
            let schema = format!("{}; {more}{kind}", schema(kind));
            let mut all = families(&schema, &names, 3);
            for (replica, name) in all.iter_mut().zip(["a", "b", "c"]) {
                replica.run(&add(name));
                replica.run(&format!(
                    "INSERT INTO remark(text, list, song) SELECT '{name}', list_id, song_id FROM entry;
                     INSERT INTO vote SELECT list_id, song_id, 'by {name}' FROM entry"
                ));
            }
            converge(&mut all);
            assert_all(&all, votes, &["a|a|a|by a", "b|b|b|by b", "c|c|c|by c"]);
            assert_sound(&all);
            all[2].run("DELETE FROM list WHERE name = 'a'");
            all[0].run("DELETE FROM song WHERE name = 'b'; DELETE FROM vote WHERE voter = 'by b'");
            converge(&mut all);
            assert_all(&all, votes, &["c|c|c|by c"]);
            assert_sound(&all);
        }
    }
}

#[test]
fn a_device_that_was_left_out_joins_again() {
    for kind in KINDS {
        let mut all = shops(kind, 3);
        all[1].run(&add("b"));
        all[0].run(&add("a"));
        all[0].run("INSERT INTO song(name) VALUES('more'); INSERT INTO entry VALUES(1, 2, 'x')");
        converge(&mut all);
        // The third stays away while both of these rows are deleted, one with what it refers to.
        all[0].run("DELETE FROM entry WHERE note = 'x'");
        all[1].run("DELETE FROM list WHERE name = 'a'");
        let mut third = all.pop().expect("the third");
        converge(&mut all);
        third.run(
            "INSERT INTO song(name) VALUES('late');
             INSERT INTO entry SELECT l.id, s.id, 'late' FROM list AS l, song AS s
             WHERE l.name = 'b' AND s.name = 'late'",
        );
        let seen = [all[1].seen()];
        collect(&all[0].conn, &seen, all[0].now).expect("collect");
        let (first, rest) = all.split_at_mut(1);
        rest[0].pull(&first[0]);
        let whole = export(&all[0].conn, &VersionVector::new(), all[0].now).expect("export");
        import_changeset(&third.conn, &whole, all[0].now).expect("import");
        all.push(third);
        converge(&mut all);
        assert_all(&all, ALL, &["b|b|b", "b|late|late"]);
        assert_sound(&all);
    }
}

#[test]
fn what_waits_for_a_column_names_the_row_that_was_meant() {
    for kind in KINDS {
        let mut all = shops(kind, 2);
        all[1].run("ALTER TABLE entry ADD COLUMN rating");
        all[1].run(&add("b"));
        all[1].run("UPDATE entry SET rating = 5");
        all[0].run(&add("a"));
        let (first, rest) = all.split_at_mut(1);
        first[0].pull(&rest[0]);
        rest[0].pull(&first[0]);
        all[0].run("ALTER TABLE entry ADD COLUMN rating");
        converge(&mut all);
        let ratings =
            "SELECT l.name, rating FROM entry JOIN list AS l ON l.id = list_id ORDER BY 1";
        assert_all(&all, ratings, &["a|∅", "b|5"]);
    }
}

#[test]
fn tables_and_columns_may_be_renamed() {
    for kind in KINDS {
        let mut all = shops(kind, 2);
        all[0].run(&add("a"));
        all[1].run(&add("b"));
        all[0].run("ALTER TABLE song RENAME TO track; ALTER TABLE entry RENAME list_id TO list");
        let (first, rest) = all.split_at_mut(1);
        first[0].pull(&rest[0]);
        rest[0].pull(&first[0]);
        all[1].run("ALTER TABLE song RENAME TO track; ALTER TABLE entry RENAME list_id TO list");
        converge(&mut all);
        all[1].run(
            "INSERT INTO track(name) VALUES('more'); INSERT INTO entry SELECT l.id, t.id, 'x'
            FROM list AS l, track AS t WHERE l.name = 'b' AND t.name = 'more'",
        );
        converge(&mut all);
        let entries = "SELECT l.name, t.name FROM entry JOIN list AS l ON l.id = list
            JOIN track AS t ON t.id = song_id ORDER BY 1, 2";
        assert_all(&all, entries, &["a|a", "b|b", "b|more"]);
        assert_sound(&all);
    }
}

/// A device whose key refers to nothing names other rows by it: what it writes waits there.
#[test]
fn a_key_that_refers_and_one_that_does_not_name_other_rows() {
    for kind in KINDS {
        let mut all = shops(kind, 2);
        all[0].run(&add("a"));
        converge(&mut all);
        untrack(&all[1].conn, "list", all[1].now).expect("untrack");
        all[1].run("UPDATE entry SET note = 'plain'");
        let (first, rest) = all.split_at_mut(1);
        first[0].pull(&rest[0]);
        assert_eq!(first[0].rows(ALL), ["a|a|a"]);
        rest[0].pull(&first[0]);
        assert_eq!(rest[0].rows("SELECT note FROM entry"), ["plain"]);
    }
}

#[test]
fn keys_that_refer_to_each_other_as_a_whole_are_followed_column_by_column() {
    let columns: Vec<String> = (0..20).map(|number| format!("a{number}")).collect();
    let (names, typed) = (columns.join(", "), columns.join(" INT, "));
    let table = |name: &str, other: &str| {
        format!(
            "CREATE TABLE {name}({typed} INT, PRIMARY KEY({names}),
             FOREIGN KEY({names}) REFERENCES {other}({names}));"
        )
    };
    let schema = [table("x", "x"), table("y", "z"), table("z", "y")].concat();
    let a = replica(&schema, &["x", "y", "z"]);
    let mut b = replica("", &[]);
    b.pull(&a);
    assert_eq!(b.digest(), a.digest());
}

#[test]
fn a_key_is_followed_when_what_it_refers_to_stands_aside_and_comes_back() {
    let counted = with_ids(Ids::Counted);
    let counting = r#"{"ids": "counted", "columns": {"plays": "counter"}}"#;
    let counting = TableOptions::parse(counting).expect("options");
    let mut a = replica(
        "CREATE TABLE playlist(id INTEGER PRIMARY KEY, name);
         CREATE TABLE playlist_track(playlist_id INT REFERENCES playlist(id),
            track_id INT REFERENCES track(id), note, PRIMARY KEY(playlist_id, track_id));
         CREATE TABLE track(id INTEGER PRIMARY KEY, name, plays INTEGER NOT NULL DEFAULT 0)",
        &[],
    );
    let plain = TableOptions::default();
    for (table, options) in [
        ("playlist", &counted),
        ("playlist_track", &plain),
        ("track", &counting),
    ] {
        track(&a.conn, table, options, NOW).expect("tracked");
    }
    a.run(
        "INSERT INTO playlist VALUES(1, 'p'); INSERT INTO track VALUES(1, 't', 1), (2, 'u', 2);
         INSERT INTO playlist_track VALUES(1, 1, 'n'), (1, 2, 'n')",
    );
    let mut b = replica("", &[]);
    b.pull(&a);
    b.now = a.now + 10;
    a.run("CREATE UNIQUE INDEX u ON track(plays)");
    assert_eq!(a.aside().len(), 1);
    // The table that joins goes on by itself, with its keys as numbers.
    a.run("UPDATE playlist_track SET note = 'while aside' WHERE track_id = 1");
    let pending: i64 = a
        .conn
        .query_row("SELECT count(*) FROM syncline_pending_2", [], |row| {
            row.get(0)
        })
        .expect("count");
    assert_eq!(pending, 0, "it is folded");
    a.run("DROP INDEX u");
    assert!(a.aside().is_empty());
    a.run("DELETE FROM playlist_track WHERE track_id = 2");
    let mut both = [a, b];
    converge(&mut both);
    assert_eq!(
        both[1].rows("SELECT track_id, note FROM playlist_track"),
        ["1|while aside"]
    );
}
