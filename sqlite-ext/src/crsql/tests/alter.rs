//! Schema changes of CRRs, in brackets and without, and what leaving takes away.

use super::{Peer, peer, peers};

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b TEXT DEFAULT 'x');
    SELECT crsql_as_crr('t');";
const ROWS: &str = "INSERT INTO t VALUES(1, 1, 'one'), (2, 2, 'two'), (3, 3, 'three');
    UPDATE t SET a = 20 WHERE id = 2; DELETE FROM t WHERE id = 3";

/// The 12 steps of SQLite's manual, with another declaration.
fn rebuilt(declaration: &str, columns: &str, from: &str) -> String {
    format!(
        "CREATE TABLE made_anew({declaration}); INSERT INTO made_anew({columns}) {from};
         DROP TABLE t; ALTER TABLE made_anew RENAME TO t"
    )
}

fn altered(peer: &Peer, sql: &str) {
    peer.run(&format!(
        "SELECT crsql_begin_alter('t'); {sql}; SELECT crsql_commit_alter('t')"
    ));
}

/// Exchanges all that each has.
fn sync(a: &Peer, b: &Peer) {
    b.pull(a, 0);
    a.pull(b, 0);
}

#[test]
fn added_columns_have_clocks_where_they_hold_something() {
    let [a, b] = peers(T);
    a.run(ROWS);
    sync(&a, &b);
    let (before, seen) = (a.changes(), a.version());
    altered(&a, "ALTER TABLE t ADD COLUMN c DEFAULT 5");
    assert_eq!(
        a.changes(),
        before,
        "defaults are made by every replica's own migration"
    );
    altered(
        &a,
        "ALTER TABLE t ADD COLUMN d DEFAULT 5; UPDATE t SET d = 6 WHERE id = 1",
    );
    let added = "SELECT hex(pk), cid, val, col_version FROM crsql_changes WHERE cid = 'd'";
    assert_eq!(a.rows(added), ["010901|d|6|1"]);
    assert_eq!(a.version(), seen, "nothing is sent again");
    a.run("UPDATE t SET c = 'c', d = 'd' WHERE id = 2");
    let more = "ALTER TABLE t ADD COLUMN c DEFAULT 5; ALTER TABLE t ADD COLUMN d DEFAULT 5";
    altered(&b, more);
    sync(&a, &b);
    for peer in [&a, &b] {
        let expected = ["1|1|one|5|6", "2|20|two|c|d"];
        assert_eq!(peer.rows("SELECT * FROM t"), expected);
    }
}

#[test]
fn dropped_columns_lose_their_clocks_and_the_others_keep_theirs() {
    let [a, b] = peers(T);
    a.run(ROWS);
    sync(&a, &b);
    altered(&a, "ALTER TABLE t DROP COLUMN b");
    let left = "SELECT hex(pk), cid, val, col_version, cl FROM crsql_changes ORDER BY pk";
    let expected = ["010901|a|1|1|1", "010902|a|20|2|1", "010903|-1|NULL|2|2"];
    assert_eq!(a.rows(left), expected);
    altered(&b, "ALTER TABLE t DROP COLUMN b");
    a.run("UPDATE t SET a = 21 WHERE id = 2; INSERT INTO t VALUES(3, 'again')");
    sync(&a, &b);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|1", "2|21", "3|again"]);
    assert_eq!(a.changes().len(), b.changes().len());
}

#[test]
fn a_renamed_column_begins_anew_in_brackets_and_without() {
    let rename = "ALTER TABLE t RENAME COLUMN a TO renamed";
    for in_brackets in [true, false] {
        let [a, b] = peers(T);
        a.run(ROWS);
        sync(&a, &b);
        for peer in [&a, &b] {
            if in_brackets {
                altered(peer, rename);
            } else {
                peer.run(rename);
            }
        }
        let column = "SELECT hex(pk), val, col_version FROM crsql_changes WHERE cid = 'renamed'
            ORDER BY pk";
        assert_eq!(
            a.rows(column),
            ["010901|1|1", "010902|20|1"],
            "{in_brackets}"
        );
        a.run("UPDATE t SET renamed = 'a' WHERE id = 1");
        b.run("UPDATE t SET b = 'b' WHERE id = 1");
        sync(&a, &b);
        for peer in [&a, &b] {
            assert_eq!(peer.rows("SELECT * FROM t"), ["1|a|b", "2|20|two"]);
        }
    }
}

#[test]
fn a_rebuilt_table_keeps_the_clocks_of_what_it_keeps() {
    let columns = "id INTEGER PRIMARY KEY NOT NULL, b TEXT DEFAULT 'x', a, c DEFAULT 'new'";
    let rebuild = rebuilt(columns, "id, a, b", "SELECT id, a, b FROM t WHERE id > 1");
    for in_brackets in [true, false] {
        let [a, b] = peers(T);
        a.run(ROWS);
        sync(&a, &b);
        let clocks = "SELECT hex(pk), cid, val, col_version, db_version, cl FROM crsql_changes
            WHERE pk <> x'010901' ORDER BY pk, cid";
        let before = a.rows(clocks);
        for peer in [&a, &b] {
            if in_brackets {
                altered(peer, &rebuild);
            } else {
                peer.run(&rebuild);
            }
        }
        assert_eq!(a.rows(clocks), before, "{in_brackets}");
        let lost = "SELECT count(*) FROM crsql_changes WHERE pk = x'010901'";
        assert_eq!(a.one(lost), "0", "{in_brackets}");
        a.run("UPDATE t SET c = 'c', a = 'a'");
        b.run("INSERT INTO t(id, a) VALUES(3, 'third life')");
        sync(&a, &b);
        for peer in [&a, &b] {
            let expected = ["2|two|a|c", "3|x|third life|new"];
            assert_eq!(peer.rows("SELECT * FROM t"), expected, "{in_brackets}");
        }
    }
}

#[test]
fn another_key_makes_all_clocks_anew() {
    let [a, b] = peers(T);
    a.run(ROWS);
    sync(&a, &b);
    let columns = "id INTEGER NOT NULL, a NOT NULL DEFAULT 0, b TEXT NOT NULL DEFAULT 'x',
        PRIMARY KEY(b, id)";
    for peer in [&a, &b] {
        altered(
            peer,
            &rebuilt(columns, "id, a, b", "SELECT id, a, b FROM t"),
        );
    }
    let expected = [
        "t|020B036F6E650901|a|1|1|3|1|0",
        "t|020B0374776F0902|a|20|1|3|1|1",
    ];
    assert_eq!(a.changes(), expected);
    let seen = a.version();
    a.run("UPDATE t SET a = 'new' WHERE id = 2");
    assert_eq!(a.version(), seen + 1, "the version never goes back");
    sync(&a, &b);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|1|one", "2|new|two"]);
}

#[test]
fn a_bracket_is_rolled_back_as_a_whole() {
    let a = peer(T);
    a.run(ROWS);
    let before = a.changes();
    a.run("BEGIN; SELECT crsql_begin_alter('t'); ALTER TABLE t DROP COLUMN b; ROLLBACK");
    assert_eq!(a.changes(), before);
    a.run("BEGIN; SELECT crsql_begin_alter('t'); ALTER TABLE t DROP COLUMN b");
    a.run("SELECT crsql_commit_alter('t'); ROLLBACK; UPDATE t SET b = 'captured' WHERE id = 1");
    assert_eq!(
        a.one("SELECT col_version FROM crsql_changes WHERE val = 'captured'"),
        "2"
    );
    a.run("SELECT crsql_begin_alter('t')");
    let error = a.fails("SELECT crsql_begin_alter('t')");
    assert!(error.contains("crsql_commit_alter"), "{error}");
    // The application may end the transaction itself.
    a.run("COMMIT; SELECT crsql_commit_alter('t'); UPDATE t SET b = 'twice' WHERE id = 1");
    assert!(a.conn.is_autocommit());
    assert_eq!(
        a.one("SELECT col_version FROM crsql_changes WHERE val = 'twice'"),
        "3"
    );
}

#[test]
fn a_renamed_table_goes_on_under_its_name() {
    let rename = "ALTER TABLE t RENAME TO \"a new name\"";
    for in_brackets in ["", "t", "a new name"] {
        let [a, b] = peers(T);
        a.run(ROWS);
        let written = "UPDATE \"a new name\" SET a = 'after' WHERE id = 1";
        if in_brackets.is_empty() {
            a.run(rename).run(written);
        } else {
            let commit = format!("SELECT crsql_commit_alter('{in_brackets}')");
            a.run("SELECT crsql_begin_alter('t')").run(rename);
            a.run(&commit).run(written);
        }
        let clocks = "SELECT \"table\", hex(pk), cid, val, col_version, cl FROM crsql_changes
            WHERE pk = x'010901' ORDER BY cid";
        let expected = [
            "a new name|010901|a|after|2|1",
            "a new name|010901|b|one|1|1",
        ];
        assert_eq!(a.rows(clocks), expected, "{in_brackets}");
        assert_eq!(
            a.one("SELECT count(*) FROM \"a new name__crsql_clock\""),
            "5"
        );
        a.fails("SELECT * FROM t__crsql_clock");
        b.run(rename).pull(&a, 0);
        let all = "SELECT * FROM \"a new name\"";
        assert_eq!(b.rows(all), ["1|after|one", "2|20|two"]);
        b.run("DELETE FROM \"a new name\" WHERE id = 2");
        a.pull(&b, 0);
        assert_eq!(a.rows(all), ["1|after|one"]);
    }
}

#[test]
fn tables_that_change_names_keep_their_clocks() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a);
        CREATE TABLE u(id INTEGER PRIMARY KEY NOT NULL, a);
        SELECT crsql_as_crr('t'); SELECT crsql_as_crr('u');
        INSERT INTO t VALUES(1, 'of t'); INSERT INTO u VALUES(1, 'of u');";
    let a = peer(schema);
    a.run(
        "ALTER TABLE t RENAME TO x; ALTER TABLE u RENAME TO t; ALTER TABLE x RENAME TO u;
         UPDATE u SET a = 'of t, edited'",
    );
    let expected = ["t|of u|1", "u|of t, edited|2"];
    let cells = "SELECT \"table\", val, col_version FROM crsql_changes ORDER BY 1";
    assert_eq!(a.rows(cells), expected);
    assert_eq!(a.one("SELECT col_version FROM u__crsql_clock"), "2");
    assert_eq!(a.one("SELECT col_version FROM t__crsql_clock"), "1");
    // Over one that was dropped.
    a.run("DROP TABLE t; ALTER TABLE u RENAME TO t; UPDATE t SET a = 'again'");
    assert_eq!(a.rows(cells), ["t|again|3"]);
    assert_eq!(a.one("SELECT col_version FROM t__crsql_clock"), "3");
}

#[test]
fn another_connection_follows_a_renamed_table() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || Peer::of(rusqlite::Connection::open(folder.path().join("db")).expect("it opens"));
    let a = open();
    a.run(T).run(ROWS);
    let b = open();
    b.run("UPDATE t SET a = 'b' WHERE id = 1");
    a.run("ALTER TABLE t RENAME TO s");
    let seen = b.version();
    b.run("UPDATE s SET a = 'c' WHERE id = 1")
        .run("UPDATE s SET a = 'd' WHERE id = 1");
    assert_eq!(b.version(), seen + 2, "each transaction has its version");
    assert_eq!(
        a.one("SELECT \"table\" FROM crsql_changes WHERE val = 'd'"),
        "s"
    );
}

#[test]
fn a_table_dropped_in_a_bracket_is_forgotten() {
    let a = peer(&format!(
        "{T} CREATE TABLE u(id INTEGER PRIMARY KEY NOT NULL, c);"
    ));
    a.run("SELECT crsql_as_crr('u'); INSERT INTO u VALUES(1, 'kept')")
        .run(ROWS);
    let seen = a.version();
    altered(&a, "DROP TABLE t");
    assert!(a.conn.is_autocommit());
    assert_eq!(a.changes(), ["u|010901|c|kept|1|1|1|0"]);
    assert_eq!(a.version(), seen, "the version never goes back");
    a.fails("SELECT * FROM t__crsql_clock");
}

#[test]
fn leaving_keeps_what_a_statement_declared() {
    let a = peer("CREATE VIRTUAL TABLE c_schema USING clset(id INTEGER PRIMARY KEY NOT NULL, a)");
    a.run("INSERT INTO c VALUES(1, 'kept')")
        .run("SELECT syncline_leave()");
    assert_eq!(a.rows("SELECT name FROM sqlite_master"), ["c"]);
    assert_eq!(a.rows("SELECT * FROM c"), ["1|kept"]);
}

#[test]
fn leaving_takes_away_all_that_was_made() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b TEXT DEFAULT 'x');
        CREATE TABLE h(id INTEGER PRIMARY KEY, a);
        CREATE TABLE l(id INTEGER PRIMARY KEY NOT NULL, list, place);
        CREATE INDEX t_a ON t(a); CREATE VIEW v AS SELECT a FROM t;
        CREATE TRIGGER own AFTER DELETE ON t BEGIN DELETE FROM h; END;";
    let all = "SELECT type, name, sql FROM sqlite_master ORDER BY name";
    let a = peer(schema);
    let before = a.rows(all);
    a.run("SELECT crsql_as_crr('t'); SELECT syncline_track('h'); SELECT crsql_as_crr('l')")
        .run("SELECT crsql_fract_as_ordered('l', 'place', 'list')")
        .run("SELECT crsql_config_set('merge-equal-values', 1)")
        .run(ROWS)
        .run("INSERT INTO l VALUES(1, 'x', 1), (2, 'x', 1)");
    let rows = (a.rows("SELECT * FROM t"), a.rows("SELECT * FROM l"));
    a.run("SELECT syncline_leave()");
    assert_eq!(a.rows(all), before);
    let temporary = "SELECT name FROM temp.sqlite_master";
    assert_eq!(a.rows(temporary), [""; 0]);
    assert_eq!((a.rows("SELECT * FROM t"), a.rows("SELECT * FROM l")), rows);
    a.run("UPDATE t SET a = 'plain'; ALTER TABLE t RENAME TO s");
    assert_eq!(a.changes(), [""; 0]);
    assert_eq!(a.version(), 0);
    a.run("SELECT crsql_as_crr('s')");
    assert_eq!(a.changes().len(), 4);
}
