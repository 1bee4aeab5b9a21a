//! Local writes and what `crsql_changes` tells of them: versions, sequence, causal length.

use super::{Peer, peer};

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b TEXT DEFAULT 'x');
    SELECT crsql_as_crr('t');";

#[test]
fn rows_that_are_there_become_changes_of_the_next_version() {
    let peer = peer(
        "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b);
        INSERT INTO t VALUES(1, 'one', NULL), (2, 2, 2.5);",
    );
    assert_eq!(peer.one("SELECT crsql_db_version()"), "0");
    assert_eq!(peer.one("SELECT crsql_as_crr('main', 't')"), "OK");
    assert_eq!(peer.one("SELECT crsql_as_crr('t')"), "OK");
    assert_eq!(peer.one("SELECT crsql_db_version()"), "1");
    let expected = [
        "t|010901|a|one|1|1|1|0",
        "t|010901|b|NULL|1|1|1|1",
        "t|010902|a|2|1|1|1|2",
        "t|010902|b|2.5|1|1|1|3",
    ];
    assert_eq!(peer.changes(), expected);
    assert_eq!(peer.one("SELECT length(crsql_site_id())"), "16");
    let own = "SELECT count(*) FROM crsql_changes WHERE site_id = crsql_site_id()";
    assert_eq!(peer.one(own), "4");
}

#[test]
fn each_transaction_has_its_version_and_counts_its_writes() {
    let peer = peer(T);
    peer.run("INSERT INTO t(id, a) VALUES(1, 'one')");
    peer.run(
        "BEGIN; INSERT INTO t VALUES(2, 'two', NULL); UPDATE t SET a = 1 WHERE id = 1; COMMIT",
    );
    peer.run("UPDATE t SET a = 1, b = 'y' WHERE id = 1");
    let expected = [
        "t|010902|a|two|1|2|1|0",
        "t|010902|b|NULL|1|2|1|1",
        "t|010901|a|1|2|2|1|2",
        "t|010901|b|y|2|3|1|0",
    ];
    assert_eq!(peer.changes(), expected);
    assert_eq!(peer.one("SELECT crsql_db_version()"), "3");
}

#[test]
fn an_open_transaction_is_seen_under_the_next_version_and_given_back_by_a_rollback() {
    let peer = peer(T);
    peer.run("INSERT INTO t(id, a) VALUES(1, 'one'); BEGIN; UPDATE t SET a = 2");
    let seen = "SELECT cid, val, db_version, seq FROM crsql_changes WHERE db_version > 1";
    assert_eq!(peer.rows(seen), ["a|2|2|0"]);
    assert_eq!(peer.one("SELECT crsql_db_version()"), "1");
    assert_eq!(peer.one("SELECT crsql_next_db_version()"), "2");
    peer.run("SAVEPOINT s; UPDATE t SET b = 'z'; ROLLBACK TO s");
    peer.run("UPDATE t SET b = 'zz'");
    assert_eq!(peer.rows(seen), ["a|2|2|0", "b|zz|2|1"]);
    peer.run("ROLLBACK");
    assert_eq!(peer.rows(seen), [""; 0]);
    peer.run("UPDATE t SET a = 3");
    assert_eq!(peer.rows(seen), ["a|3|2|0"]);
    assert_eq!(peer.one("SELECT crsql_db_version()"), "2");
}

#[test]
fn lives_and_deaths_are_told_by_sentinels() {
    let peer = peer(T);
    peer.run("INSERT INTO t(id, a) VALUES(1, 'one')")
        .run("DELETE FROM t");
    assert_eq!(peer.changes(), ["t|010901|-1|NULL|2|2|2|0"]);
    peer.run("INSERT INTO t(id, a) VALUES(1, 'again')");
    let reborn = [
        "t|010901|-1|NULL|3|3|3|0",
        "t|010901|a|again|1|3|3|1",
        "t|010901|b|x|1|3|3|2",
    ];
    assert_eq!(peer.changes(), reborn);
    peer.run("INSERT OR REPLACE INTO t(id, a) VALUES(1, 'replaced')");
    let replaced = [
        "t|010901|-1|NULL|5|4|5|0",
        "t|010901|a|replaced|2|4|5|1",
        "t|010901|b|x|2|4|5|2",
    ];
    assert_eq!(peer.changes(), replaced);
}

#[test]
fn a_row_that_is_replaced_alive_uses_up_one_number() {
    let peer = peer(T);
    peer.run("INSERT INTO t(id, a) VALUES(1, 1)");
    peer.run("INSERT OR REPLACE INTO t(id, a) VALUES(1, 2)");
    let expected = ["t|010901|a|2|2|2|1|1", "t|010901|b|x|2|2|1|2"];
    assert_eq!(peer.changes(), expected);
    peer.run("PRAGMA recursive_triggers = ON; REPLACE INTO t(id, a) VALUES(1, 3)");
    assert_eq!(peer.rows("SELECT DISTINCT cl FROM crsql_changes"), ["3"]);
}

#[test]
fn a_table_of_keys_alone_has_sentinels_alone() {
    let peer = peer(
        "CREATE TABLE p(a TEXT NOT NULL, b REAL NOT NULL, PRIMARY KEY(b, a));
        SELECT crsql_as_crr('p'); INSERT INTO p VALUES('x', 1.5);",
    );
    assert_eq!(
        peer.changes(),
        ["p|02023FF80000000000000B0178|-1|NULL|1|1|1|0"]
    );
    peer.run("DELETE FROM p")
        .run("INSERT INTO p VALUES('x', 1.5)");
    assert_eq!(
        peer.changes(),
        ["p|02023FF80000000000000B0178|-1|NULL|3|3|3|0"]
    );
}

#[test]
fn filters_and_orders_are_those_of_the_query() {
    let peer = peer(T);
    peer.run("INSERT INTO t(id, a) VALUES(1, 1)")
        .run("INSERT INTO t(id, a) VALUES(2, 2)");
    peer.run("UPDATE t SET a = 7 WHERE id = 1; DELETE FROM t WHERE id = 2");
    let all = peer.changes();
    assert_eq!(all.len(), 3, "{all:?}");
    for (filter, count) in [
        ("db_version > 2", 2),
        ("db_version = 1", 1),
        ("db_version BETWEEN 1 AND 3", 2),
        ("cid = 'a'", 1),
        ("cid = '-1'", 1),
        ("cid <> 'a'", 2),
        ("cid LIKE 'A'", 1),
        ("col_version >= 2", 2),
        ("cl = 2", 1),
        ("cl IS 1", 2),
        ("seq = 0", 2),
        ("site_id IS NOT NULL", 3),
        ("site_id IS NULL", 0),
        ("site_id IS NOT x'00'", 3),
        ("site_id IS NOT crsql_site_id()", 0),
        ("\"table\" = 't'", 3),
        ("\"table\" = 'T'", 0),
        ("pk = x'010901'", 2),
        ("val = 7", 1),
        ("db_version IN (1, 3)", 2),
    ] {
        let sql = format!("SELECT count(*) FROM crsql_changes WHERE {filter}");
        assert_eq!(peer.one(&sql), count.to_string(), "{filter}");
    }
    for (order, expected) in [
        ("db_version DESC, seq", ["4", "3", "1"]),
        ("cid DESC, db_version", ["1", "3", "4"]),
        ("pk DESC, cid", ["4", "3", "1"]),
        ("cl DESC, db_version DESC", ["4", "3", "1"]),
        ("val IS NULL, val", ["3", "1", "4"]),
    ] {
        let sql = format!("SELECT db_version FROM crsql_changes ORDER BY {order}");
        assert_eq!(peer.rows(&sql), expected, "{order}");
    }
    let rowids = "SELECT count(DISTINCT rowid) FROM crsql_changes";
    assert_eq!(peer.one(rowids), "3");
    let columns = "SELECT group_concat(name, ' ') FROM pragma_table_info('crsql_changes')";
    let expected = "table pk cid val col_version db_version site_id cl seq";
    assert_eq!(peer.one(columns), expected);
}

#[test]
fn a_program_without_the_extension_writes_and_is_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("db");
    let open = || rusqlite::Connection::open(&file).expect("the file opens");
    let peer = Peer::of(open());
    peer.run("PRAGMA journal_mode = WAL").run(T);
    let plain = open();
    plain
        .execute_batch("INSERT INTO t(id, a) VALUES(1, 1); UPDATE t SET a = 2;")
        .expect("plain SQL writes");
    let reader = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let reader = rusqlite::Connection::open_with_flags(&file, reader).expect("it opens");
    let reader = Peer::of(reader);
    assert_eq!(reader.one("SELECT count(*) FROM crsql_changes"), "0");
    assert_eq!(reader.one("SELECT crsql_db_version()"), "0");
    assert_eq!(peer.one("SELECT crsql_db_version()"), "1");
    let expected = ["t|010901|b|x|1|1|1|1", "t|010901|a|2|2|1|1|2"];
    assert_eq!(peer.changes(), expected);
    assert_eq!(reader.changes(), expected);
    assert_eq!(reader.one("SELECT crsql_db_version()"), "1");
    // A connection that has the extension tells its transactions apart without being asked.
    let other = Peer::of(open());
    other.run("UPDATE t SET a = 3").run("UPDATE t SET a = 4");
    assert_eq!(reader.one("SELECT crsql_db_version()"), "3");
}

#[test]
fn columns_by_the_hundred_have_their_bits() {
    let columns: Vec<String> = (0..130).map(|at| format!("c{at}")).collect();
    let peer = peer(&format!(
        "CREATE TABLE wide(id TEXT PRIMARY KEY NOT NULL, {});
         SELECT crsql_as_crr('wide'); INSERT INTO wide(id) VALUES('a');",
        columns.join(", ")
    ));
    peer.run("UPDATE wide SET c0 = 1, c61 = 2, c62 = 3, c129 = 4");
    let changed = "SELECT cid, val FROM crsql_changes WHERE db_version = 2";
    assert_eq!(peer.rows(changed), ["c0|1", "c61|2", "c62|3", "c129|4"]);
}

#[test]
fn values_are_compared_by_type_and_bytes() {
    let peer = peer(
        "CREATE TABLE v(id INTEGER PRIMARY KEY NOT NULL, a, b TEXT COLLATE NOCASE);
         SELECT crsql_as_crr('v'); INSERT INTO v VALUES(1, 1, 'x');",
    );
    peer.run("UPDATE v SET a = 1.0").run("UPDATE v SET b = 'X'");
    peer.run("UPDATE v SET a = 1.0, b = 'X'");
    let expected = ["v|010901|a|1.0|2|2|1|0", "v|010901|b|X|2|3|1|0"];
    assert_eq!(peer.changes(), expected);
}

#[test]
fn tables_that_cannot_be_crrs_say_why() {
    let peer = peer(
        "CREATE TABLE none(a); CREATE TABLE nullable(a TEXT PRIMARY KEY);
         CREATE TABLE uniq(a INTEGER PRIMARY KEY NOT NULL, b UNIQUE);
         CREATE TABLE child(a INTEGER PRIMARY KEY NOT NULL, b REFERENCES uniq(a));
         CREATE VIEW v AS SELECT 1; CREATE TABLE h(a INTEGER PRIMARY KEY, b);
         SELECT syncline_track('h');",
    );
    for (table, why) in [
        ("none", "no primary key"),
        ("nullable", "NOT NULL"),
        ("uniq", "syncline_track"),
        ("child", "syncline_track"),
        ("v", "no such table"),
        ("absent", "no such table"),
        ("h", "syncline_track"),
        ("crsql_master", "reserved"),
        ("syncline_meta", "reserved"),
    ] {
        let error = peer.fails(&format!("SELECT crsql_as_crr('{table}')"));
        assert!(error.contains(why), "{table}: {error}");
    }
    peer.run("CREATE TABLE t(a INTEGER PRIMARY KEY NOT NULL, b); SELECT crsql_as_crr('t')");
    let error = peer.fails("SELECT syncline_track('t')");
    assert!(error.contains("crsql_as_table"), "{error}");
    peer.run("SELECT crsql_as_table('t')");
    assert_eq!(peer.one("SELECT crsql_as_table('t')"), "NULL");
    peer.run("SELECT syncline_track('t')");
}

#[test]
fn shapes_and_names_of_tables() {
    let peer = peer(
        "CREATE TABLE \"it's a \"\"table\"\"\"(\"a key\" BLOB PRIMARY KEY NOT NULL, \"a 'b'\",
             autoincrement_not, made AS (\"a 'b'\" || '!')) WITHOUT ROWID, STRICT_not;"
            .replace(", STRICT_not", "")
            .as_str(),
    );
    peer.run("SELECT crsql_as_crr('it''s a \"table\"')");
    peer.run("INSERT INTO \"it's a \"\"table\"\"\" VALUES(x'00ff', 1, 2)");
    let expected = [
        "it's a \"table\"|010C0200FF|a 'b'|1|1|1|1|0",
        "it's a \"table\"|010C0200FF|autoincrement_not|2|1|1|1|1",
    ];
    assert_eq!(peer.changes(), expected);
    let keys = "SELECT * FROM \"it's a \"\"table\"\"__crsql_pks\"";
    assert_eq!(peer.rows(keys), ["1|00ff"]);
    let clocks = "SELECT * FROM \"it's a \"\"table\"\"__crsql_clock\"";
    assert_eq!(peer.rows(clocks).len(), 2);
    assert!(
        peer.fails("DELETE FROM \"it's a \"\"table\"\"__crsql_clock\"")
            .contains("view")
    );
}

#[test]
fn sequence_numbers_can_be_taken() {
    let peer = peer(T);
    peer.run("BEGIN; INSERT INTO t(id) VALUES(1)");
    assert_eq!(peer.one("SELECT crsql_get_seq()"), "2");
    assert_eq!(peer.one("SELECT crsql_increment_and_get_seq()"), "2");
    peer.run("INSERT INTO t(id) VALUES(2); COMMIT");
    let seqs = "SELECT seq FROM crsql_changes";
    assert_eq!(peer.rows(seqs), ["0", "1", "3", "4"]);
    assert_eq!(peer.one("SELECT crsql_get_seq()"), "0");
    peer.run("BEGIN; SELECT crsql_next_db_version(9); INSERT INTO t(id) VALUES(3); COMMIT");
    assert_eq!(peer.one("SELECT crsql_db_version()"), "9");
    peer.run("BEGIN; SELECT crsql_next_db_version(20); ROLLBACK");
    assert_eq!(peer.one("SELECT crsql_next_db_version()"), "10");
}
