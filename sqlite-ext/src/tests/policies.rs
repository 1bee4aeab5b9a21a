//! Columns whose cells join: counters, extremes, sets, texts and documents, as a user meets them.

use super::*;

/// Two replicas of one table with these column policies, both with the other's past.
fn pair(schema: &str, columns: &str) -> [Replica; 2] {
    let a = tracked(schema, columns);
    let mut b = replica("", &[]);
    b.pull(&a);
    [a, b]
}

fn tracked(schema: &str, columns: &str) -> Replica {
    let a = replica(schema, &[]);
    let options = format!(r#"{{"columns":{columns}}}"#);
    let options = TableOptions::parse(&options).expect("these are options");
    track(&a.conn, "t", &options, NOW).expect("the table is tracked");
    a
}

#[track_caller]
fn assert_all(replicas: &mut [Replica], select: &str, rows: &[&str]) {
    converge(replicas);
    for replica in &*replicas {
        assert_eq!(replica.rows(select), rows);
    }
}

const COUNTER: &str = r#"{"n":"counter"}"#;
const KEYS: [&str; 3] = [
    "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE t(id TEXT PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0, other)",
    "CREATE TABLE t(id TEXT PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
];

#[test]
fn increments_made_apart_add_up_under_every_kind_of_key() {
    for schema in KEYS {
        let [mut a, mut b] = pair(schema, COUNTER);
        a.run("INSERT INTO t(id, n) VALUES(1, 10)");
        b.pull(&a);
        for _ in 0..3 {
            a.run("UPDATE t SET n = n + 1");
            b.run("UPDATE t SET n = n + 1");
        }
        b.run("UPDATE t SET n = n - 5");
        let mut newcomer = replica("", &[]);
        newcomer.pull(&b);
        assert_eq!(newcomer.rows("SELECT n FROM t"), ["8"]);
        assert_all(&mut [a, b, newcomer], "SELECT n FROM t", &["11"]);
    }
}

#[test]
fn a_counter_counts_what_was_there_when_it_was_tracked() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, n); INSERT INTO t VALUES(1, 5), (2, NULL)";
    let [mut a, mut b] = pair(schema, COUNTER);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|5", "2|∅"]);
    a.run("UPDATE t SET n = ifnull(n, 0) + 1");
    b.run("UPDATE t SET n = ifnull(n, 0) + 2");
    assert_all(&mut [a, b], "SELECT * FROM t", &["1|8", "2|3"]);
}

#[test]
fn a_counter_begins_anew_in_a_new_life() {
    for schema in KEYS {
        let [mut a, mut b] = pair(schema, COUNTER);
        a.run("INSERT INTO t(id, n) VALUES('7', 10)");
        b.pull(&a);
        a.run("DELETE FROM t");
        b.run("UPDATE t SET n = n + 100");
        a.run("INSERT INTO t(id, n) VALUES('7', 1)");
        a.run("UPDATE t SET n = n + 1");
        assert_all(&mut [a, b], "SELECT n FROM t", &["2"]);
    }
}

#[test]
fn a_row_replaced_or_deleted_and_inserted_at_once_counts_the_difference() {
    for schema in KEYS {
        let [mut a, mut b] = pair(schema, COUNTER);
        a.run("INSERT INTO t(id, n) VALUES('7', 10), ('8', 10)");
        b.pull(&a);
        a.run("REPLACE INTO t(id, n) VALUES('7', 12)");
        a.run("DELETE FROM t WHERE id = '8'; INSERT INTO t(id, n) VALUES('8', 13)");
        b.run("UPDATE t SET n = n + 1");
        assert_all(&mut [a, b], "SELECT n FROM t ORDER BY id", &["13", "14"]);
    }
}

#[test]
fn a_moved_row_takes_its_count_along() {
    for schema in KEYS {
        let [mut a, mut b] = pair(schema, COUNTER);
        a.run("INSERT INTO t(id, n) VALUES('7', 10)");
        b.pull(&a);
        a.run("UPDATE t SET id = '9'");
        b.run("UPDATE t SET n = n + 1");
        assert_all(&mut [a, b], "SELECT id, n FROM t", &["9|10"]);
    }
}

#[test]
fn of_two_keys_that_become_one_the_row_that_is_there_keeps_its_count() {
    let schema = "CREATE TABLE t(id TEXT PRIMARY KEY, n INTEGER, body TEXT)";
    let [mut a, mut b] = pair(schema, r#"{"n":"counter","body":"text"}"#);
    a.run("INSERT INTO t VALUES('1', 10, 'ten'), ('01', 5, 'five')");
    b.pull(&a);
    b.run("UPDATE t SET n = n + 1, body = body || ' more'");
    a.pull(&b);
    a.run(
        "CREATE TABLE other(id INTEGER PRIMARY KEY, n INTEGER, body TEXT);
         INSERT OR IGNORE INTO other SELECT * FROM t ORDER BY id DESC;
         DROP TABLE t; ALTER TABLE other RENAME TO t;",
    );
    assert_eq!(a.rows("SELECT * FROM t"), ["1|11|ten more"]);
    a.run("UPDATE t SET n = n + 1");
    assert_eq!(a.rows("SELECT * FROM t"), ["1|12|ten more"]);
    let mut c = replica("", &[]);
    c.pull(&a);
    assert_eq!(c.rows("SELECT * FROM t"), ["1|12|ten more"]);
}

#[test]
fn what_is_no_whole_number_is_refused_by_any_program() {
    let mut a = tracked(KEYS[0].replace(" NOT NULL DEFAULT 0", "").as_str(), COUNTER);
    a.run("INSERT INTO t VALUES(1, NULL), (2, 2.0)");
    for wrong in [
        "INSERT INTO t VALUES(3, 'three')",
        "INSERT INTO t VALUES(3, x'33')",
        "INSERT OR REPLACE INTO t VALUES(2, 2.5)",
        "UPDATE OR IGNORE t SET n = 1e300",
        "UPDATE t SET n = NULL",
    ] {
        let error = a.conn.execute_batch(wrong).expect_err(wrong).to_string();
        assert!(error.contains("n: it counts whole numbers"), "{error}");
    }
    a.run("REPLACE INTO t VALUES(2, NULL)");
    assert_eq!(a.rows("SELECT * FROM t"), ["1|∅", "2|2"]);
}

#[test]
fn a_counter_stops_at_the_edge_of_64_bits() {
    let [mut a, mut b] = pair(KEYS[0], COUNTER);
    a.run(&format!("INSERT INTO t VALUES(1, {})", i64::MAX - 1));
    b.pull(&a);
    a.run("UPDATE t SET n = n + 1");
    b.run("UPDATE t SET n = n + 1");
    let mut both = [a, b];
    assert_all(&mut both, "SELECT n FROM t", &["9223372036854775807"]);
    // What lies beyond the edge is counted as well.
    both[0].run("UPDATE t SET n = n - 1");
    assert_all(&mut both, "SELECT n FROM t", &["9223372036854775807"]);
    both[0].run("UPDATE t SET n = n - 1");
    assert_all(&mut both, "SELECT n FROM t", &["9223372036854775806"]);
}

#[test]
fn the_greatest_and_the_least_value_win_whenever_they_were_written() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, high, low REAL, other)";
    let [mut a, mut b] = pair(schema, r#"{"high":"max","low":"min"}"#);
    a.run("INSERT INTO t VALUES(1, 5, 5, 5)");
    b.pull(&a);
    a.run("UPDATE t SET high = 9, low = 4");
    b.now = a.now + 1;
    b.run("UPDATE t SET high = 7, low = 2.5, other = 6");
    let mut both = [a, b];
    assert_all(&mut both, "SELECT * FROM t", &["1|9|2.5|6"]);
    // A value that is not beyond what is shown does not stay.
    both[1].run("UPDATE t SET high = 8, low = NULL");
    assert_eq!(both[1].rows("SELECT high, low FROM t"), ["9|2.5"]);
    both[1].run("UPDATE t SET high = 'texts are above blobs and below numbers'");
    assert_all(&mut both, "SELECT high, low FROM t", &["9|2.5"]);
}

#[test]
fn a_policy_column_may_be_written_by_a_program_without_syncline() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.db");
    let mut a = replica("", &[]);
    a.conn = Connection::open(&path).expect("open");
    a.conn.execute_batch(KEYS[0]).expect("schema");
    let options = TableOptions::parse(&format!(r#"{{"columns":{COUNTER}}}"#)).expect("options");
    track(&a.conn, "t", &options, NOW).expect("track");
    a.run("INSERT INTO t VALUES(1, 1)");
    let mut b = replica("", &[]);
    b.pull(&a);
    let plain = Connection::open(&path).expect("open");
    let twice = "UPDATE t SET n = n + 1; BEGIN; UPDATE t SET n = n + 1; COMMIT";
    plain.execute_batch(twice).expect("a plain program writes");
    let wrong = plain.execute_batch("UPDATE t SET n = 'x'");
    wrong.expect_err("it is refused there too");
    b.run("UPDATE t SET n = n + 10");
    assert_all(&mut [a, b], "SELECT n FROM t", &["13"]);
}

#[test]
fn a_parked_row_goes_on_counting() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE, n INTEGER NOT NULL)";
    let [mut a, mut b] = pair(schema, COUNTER);
    a.run("INSERT INTO t VALUES(1, 'x', 1)");
    b.now = a.now + 1;
    b.run("INSERT INTO t VALUES(2, 'x', 5)");
    a.pull(&b);
    b.run("UPDATE t SET n = n + 1");
    let mut both = [a, b];
    assert_all(&mut both, "SELECT * FROM t", &["1|x|1"]);
    both[0].run("UPDATE t SET name = 'y' WHERE id = 1");
    assert_all(&mut both, "SELECT * FROM t", &["1|y|1", "2|x|6"]);
}

#[test]
fn columns_that_cannot_join_are_refused() {
    for (schema, columns, words) in [
        (
            "id INTEGER PRIMARY KEY, n",
            r#"{"id":"counter"}"#,
            "no such column",
        ),
        ("id INTEGER PRIMARY KEY, n UNIQUE", COUNTER, "unique index"),
        (
            "id INTEGER PRIMARY KEY, n TEXT",
            COUNTER,
            "declare it INTEGER",
        ),
        (
            "id INTEGER PRIMARY KEY, n INTEGER",
            r#"{"n":"text"}"#,
            "declare it TEXT",
        ),
        (
            "id INTEGER PRIMARY KEY, n REFERENCES t",
            r#"{"n":"max"}"#,
            "references",
        ),
    ] {
        let a = replica(&format!("CREATE TABLE t({schema})"), &[]);
        let options = TableOptions::parse(&format!(r#"{{"columns":{columns}}}"#)).expect("options");
        let error = track(&a.conn, "t", &options, NOW).expect_err(schema);
        assert!(error.to_string().contains(words), "{error}");
        assert!(tracked_tables(&a.conn).expect("tables").is_empty());
    }
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, n); INSERT INTO t VALUES(1, 'three')";
    let a = replica(schema, &[]);
    let options = TableOptions::parse(&format!(r#"{{"columns":{COUNTER}}}"#)).expect("options");
    let error = track(&a.conn, "t", &options, NOW).expect_err("a text is no number");
    assert!(error.to_string().contains("whole numbers"), "{error}");
}

#[test]
fn a_unique_index_on_a_policy_column_puts_the_table_aside_until_it_is_gone() {
    let [mut a, mut b] = pair(KEYS[0], COUNTER);
    a.run("INSERT INTO t VALUES(1, 1), (2, 2)");
    b.pull(&a);
    b.run("CREATE UNIQUE INDEX i ON t(n)");
    assert_eq!(b.aside().len(), 1);
    a.run("UPDATE t SET n = 2 WHERE id = 1");
    b.pull(&a);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|1", "2|2"]);
    b.run("DROP INDEX i");
    assert_all(&mut [a, b], "SELECT * FROM t", &["1|2", "2|2"]);
}

#[test]
fn replicas_that_track_a_table_in_two_ways_say_so() {
    let a = tracked(KEYS[0], COUNTER);
    let b = replica(KEYS[0], &["t"]);
    let changes = export(&a.conn, &VersionVector::new(), NOW).expect("export");
    let error = import_changeset(&b.conn, &changes, NOW).expect_err("other policies");
    assert!(
        matches!(error, ImportError::OtherPolicies { .. }),
        "{error}"
    );
    untrack(&b.conn, "t", NOW).expect("untrack");
    import_changeset(&b.conn, &changes, NOW).expect("the table is taken up");
}

#[test]
fn what_others_have_comes_before_what_a_table_held_that_was_not_tracked() {
    let mut a = tracked(KEYS[0], COUNTER);
    a.run("INSERT INTO t VALUES(1, 5)");
    let mut b = replica(KEYS[0], &[]);
    b.conn
        .execute_batch("INSERT INTO t VALUES(1, 5), (2, 7)")
        .expect("rows");
    b.pull(&a);
    assert_all(&mut [a, b], "SELECT * FROM t", &["1|5", "2|7"]);
}

#[test]
fn untracking_leaves_the_values_and_nothing_else() {
    let [mut a, _] = pair(KEYS[0], COUNTER);
    a.run("INSERT INTO t VALUES(1, 5)");
    untrack(&a.conn, "t", a.now).expect("untrack");
    leave(&a.conn).expect("leave");
    assert_eq!(a.rows("SELECT * FROM t"), ["1|5"]);
    let left = "SELECT name FROM sqlite_master WHERE name LIKE 'syncline%'";
    assert!(a.rows(left).is_empty());
}

#[test]
fn a_table_that_is_tracked_again_counts_what_was_done_meanwhile() {
    for schema in KEYS {
        let [mut a, mut b] = pair(schema, COUNTER);
        a.run("INSERT INTO t(id, n) VALUES(1, 5), (2, 5)");
        b.pull(&a);
        untrack(&a.conn, "t", a.now).expect("untrack");
        a.run("UPDATE t SET n = n + 1 WHERE id = 1; DELETE FROM t WHERE id = 2");
        b.run("UPDATE t SET n = n + 10");
        let options = TableOptions::parse(&format!(r#"{{"columns":{COUNTER}}}"#));
        track(&a.conn, "t", &options.expect("options"), a.now).expect("track");
        assert_all(&mut [a, b], "SELECT id, n FROM t", &["1|16"]);
    }
}

#[test]
fn policies_are_listed() {
    let a = tracked(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, title TEXT)",
        r#"{"N":"counter"}"#,
    );
    let listed = a.rows("SELECT * FROM syncline_policies ORDER BY column_name");
    assert_eq!(listed, ["t|n|counter", "t|title|lww"]);
}

#[test]
fn collected_deletions_take_no_count_away() {
    let [mut a, mut b] = pair(KEYS[0], COUNTER);
    a.run("INSERT INTO t VALUES(1, 5), (2, 5)");
    b.pull(&a);
    a.run("DELETE FROM t WHERE id = 1");
    b.run("UPDATE t SET n = n + 1");
    let mut both = [a, b];
    converge(&mut both);
    let seen = both[1].seen();
    let digest = both[0].digest();
    let count = crate::collect(&both[0].conn, &[seen], both[0].now).expect("collect");
    assert_eq!((count, both[0].digest()), (1, digest));
    both[0].run("INSERT INTO t VALUES(1, 1)");
    assert_all(&mut both, "SELECT * FROM t", &["1|1", "2|6"]);
}

#[test]
fn texts_that_two_edit_at_once_keep_both_edits() {
    for key in ["id INTEGER PRIMARY KEY", "id TEXT PRIMARY KEY"] {
        let schema = format!("CREATE TABLE t({key}, body TEXT NOT NULL DEFAULT '')");
        let [mut a, mut b] = pair(&schema, r#"{"body":"text"}"#);
        a.run("INSERT INTO t VALUES(1, 'the quick fox jumps')");
        b.pull(&a);
        a.run("UPDATE t SET body = replace(body, 'quick', 'quick brown')");
        b.run("UPDATE t SET body = body || ' over the lazy dog'");
        let story = "the quick brown fox jumps over the lazy dog";
        let mut newcomer = replica("", &[]);
        newcomer.pull(&b).pull(&a);
        let mut all = [a, b, newcomer];
        assert_all(&mut all, "SELECT body FROM t", &[story]);
        all[0].run("DELETE FROM t; INSERT INTO t VALUES(1, 'the second life')");
        all[1].run("UPDATE t SET body = 'The' || substr(body, 4)");
        assert_all(&mut all, "SELECT body FROM t", &["The second life"]);
        all[0].run("DELETE FROM t");
        all[0].run("INSERT INTO t VALUES(1, 'a third')");
        all[1].run("UPDATE t SET body = 'lost'");
        assert_all(&mut all, "SELECT body FROM t", &["a third"]);
    }
}

#[test]
fn a_text_without_a_word_is_empty_and_takes_no_bytes() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT)";
    let [mut a, mut b] = pair(schema, r#"{"body":"text"}"#);
    a.run("INSERT INTO t VALUES(1, NULL), (2, 'x')");
    let blob = "UPDATE t SET body = x'00'";
    let error = a.conn.execute_batch(blob).expect_err("a blob is no text");
    assert!(error.to_string().contains("body: it holds text"), "{error}");
    b.pull(&a);
    b.run("UPDATE t SET body = NULL WHERE id = 2");
    let mut both = [a, b];
    assert_all(&mut both, "SELECT * FROM t", &["1|∅", "2|"]);
    both[0].run("UPDATE t SET body = 'from a' WHERE id = 1");
    both[1].run("UPDATE t SET body = 7 WHERE id = 2");
    assert_all(&mut both, "SELECT * FROM t", &["1|from a", "2|7"]);
}

#[test]
fn sets_and_documents_merge_their_parts() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, tags TEXT, about TEXT)";
    let [mut a, mut b] = pair(schema, r#"{"tags":"set","about":"document"}"#);
    a.run("INSERT INTO t VALUES(1, '[\"b\",\"a\"]', '{\"name\": \"x\", \"n\": 1}')");
    b.pull(&a);
    a.run("UPDATE t SET tags = '[\"b\",\"a\",\"c\"]', about = json_set(about, '$.n', 2)");
    b.run("UPDATE t SET tags = '[\"b\"]', about = json_set(about, '$.more', json('[1]'))");
    assert_all(
        &mut [a, b],
        "SELECT tags, about FROM t",
        &[r#"["b","c"]|{"more":[1],"n":2,"name":"x"}"#],
    );
}

#[test]
fn a_text_is_sent_in_pieces_of_its_history() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT)";
    let mut a = tracked(schema, r#"{"body":"text"}"#);
    a.run("INSERT INTO t VALUES(1, '')");
    let word = "a word and another word that are written again and again; ";
    let mut middle = None;
    // Often enough that the history is saved and added to again.
    for number in 0..400 {
        a.run(&format!("UPDATE t SET body = body || '{number} {word}'"));
        if number == 250 {
            middle = Some(a.seen());
        }
    }
    let own = site_id(&a.conn).expect("site");
    let middle = middle.expect("it was reached").version(own);
    let mut b = replica("", &[]);
    let mut after = Hlc::ZERO;
    while let Some(piece) = export_own(&a.conn, after, 50).expect("export") {
        after = piece.until.version(own);
        import_changeset(&b.conn, &piece, a.now).expect("import");
    }
    let window = VersionVector::of(own, middle);
    let mut c = replica("", &[]);
    c.pull(&a);
    let rest = export(&a.conn, &window, a.now)
        .expect("export")
        .encode()
        .len();
    let whole = export(&a.conn, &VersionVector::new(), a.now).expect("export");
    assert!(rest < whole.encode().len(), "{rest}");
    let text = a.rows("SELECT body FROM t");
    b.now = a.now;
    assert_all(&mut [a, b, c], "SELECT body FROM t", &[&text[0]]);
}

#[test]
fn a_row_whose_counter_breaks_a_check_waits_until_it_holds() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER NOT NULL CHECK(n > 0))";
    let [mut a, mut b] = pair(schema, COUNTER);
    a.run("INSERT INTO t VALUES(1, 10)");
    b.pull(&a);
    a.run("UPDATE t SET n = n - 8");
    b.run("UPDATE t SET n = n - 7");
    let mut both = [a, b];
    assert_all(&mut both, "SELECT n FROM t", &[]);
    let conflicts = both[0].rows("SELECT row FROM syncline_conflicts");
    assert_eq!(conflicts, [r#"{"id":1,"n":-5}"#]);
    both[0].run("INSERT INTO t VALUES(1, 5)");
    assert_all(&mut both, "SELECT n FROM t", &["5"]);
}

#[test]
fn rows_with_counted_ids_keep_their_own_counts_when_they_move() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, name, n INTEGER NOT NULL DEFAULT 0)";
    let a = replica(schema, &[]);
    let options = r#"{"columns":{"n":"counter"},"ids":"counted"}"#;
    let options = TableOptions::parse(options).expect("these are options");
    track(&a.conn, "t", &options, NOW).expect("the table is tracked");
    let (mut a, mut b, mut c) = (a, replica("", &[]), replica("", &[]));
    b.pull(&a);
    c.pull(&a);
    a.run("INSERT INTO t(name, n) VALUES('a', 1)");
    b.run("INSERT INTO t(name, n) VALUES('b', 10)");
    c.run("INSERT INTO t(name, n) VALUES('c', 100)");
    c.pull(&b).pull(&a);
    c.run("UPDATE t SET n = n + 5");
    b.run("UPDATE t SET n = n + 1");
    a.pull(&c);
    a.run("UPDATE t SET n = n + 2 WHERE name <> 'b'");
    let select = "SELECT name, n FROM t ORDER BY name";
    let mut all = [a, b, c];
    assert_all(&mut all, select, &["a|8", "b|16", "c|107"]);
    let ids = all[0].rows("SELECT id FROM t ORDER BY id");
    let lost = format!("DELETE FROM t WHERE id = {}", ids[0]);
    all[1].run(&lost);
    all[2].run("UPDATE t SET n = n + 1");
    converge(&mut all);
    for replica in &all[1..] {
        assert_eq!(replica.rows(select), all[0].rows(select));
    }
    assert_eq!(all[0].rows("SELECT count(*) FROM t"), ["2"]);
}
