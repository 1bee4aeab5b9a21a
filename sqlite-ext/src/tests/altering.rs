//! `ALTER TABLE` on tracked tables: columns are renamed and dropped while peers differ.

use super::*;

const KINDS: [&str; 4] = [
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT, c DEFAULT 'd')",
    "CREATE TABLE t(id TEXT PRIMARY KEY, a, b TEXT, c DEFAULT 'd')",
    "CREATE TABLE t(id TEXT PRIMARY KEY, a, b TEXT, c DEFAULT 'd') WITHOUT ROWID",
    "CREATE TABLE t(id TEXT, a, b TEXT, c DEFAULT 'd', more INT DEFAULT 0, PRIMARY KEY(id, more))",
];

const ROWS: &str = "INSERT INTO t(id, a, b, c) VALUES('1', 'a1', 'b1', 'c1'), ('2', 'a2', 'b2', 'c2'), ('3', 'a3', 'b3', 'c3')";

/// Two replicas that have the same three rows.
fn pair(schema: &str) -> [Replica; 2] {
    let mut a = replica(schema, &["t"]);
    a.run(ROWS);
    let mut b = replica("", &[]);
    b.pull(&a);
    b.now = a.now;
    [a, b]
}

/// Runs SQL later than all that both replicas did.
fn later(on: &mut Replica, than: &Replica, sql: &str) {
    on.now = on.now.max(than.now) + 10;
    on.run(sql);
}

/// What is new on `a` to whom has seen `seen`.
fn news(a: &Replica, seen: &VersionVector) -> Changeset {
    export(&a.conn, seen, a.now).expect("export")
}

#[test]
fn a_column_is_dropped_and_no_row_counts_as_written() {
    for schema in KINDS {
        let [mut a, mut b] = pair(schema);
        b.run("UPDATE t SET c = 'edited' WHERE id = '1'");
        a.pull(&b);
        let seen = a.seen();
        a.run("ALTER TABLE t DROP COLUMN b");
        assert!(news(&a, &seen).is_empty(), "{schema}");
        later(
            &mut b,
            &a,
            "UPDATE t SET b = 'kept', a = 'later' WHERE id = '2'",
        );
        later(
            &mut a,
            &b,
            "UPDATE t SET c = 'on' WHERE id = '3'; DELETE FROM t WHERE id = '1'",
        );
        a.pull(&b);
        b.pull(&a);
        let shown = ["2|later|c2", "3|a3|on"];
        assert_eq!(
            a.rows("SELECT id, a, c FROM t ORDER BY id"),
            shown,
            "{schema}"
        );
        assert_eq!(
            b.rows("SELECT id, a, c FROM t ORDER BY id"),
            shown,
            "{schema}"
        );
        assert_eq!(
            b.rows("SELECT b FROM t ORDER BY id"),
            ["kept", "b3"],
            "{schema}"
        );
        b.run("ALTER TABLE t DROP COLUMN b");
        converge(&mut [a, b]);
    }
}

#[test]
fn every_column_beside_the_key_can_be_dropped_at_once() {
    for schema in KINDS {
        let [mut a, mut b] = pair(schema);
        let drop = "ALTER TABLE t DROP COLUMN b; ALTER TABLE t DROP COLUMN a; UPDATE t SET c = 'x';
            ALTER TABLE t DROP COLUMN c; INSERT INTO t(id) VALUES('4'); UPDATE t SET id = '5' WHERE id = '1'";
        a.run(drop);
        b.pull(&a);
        assert_eq!(
            a.rows("SELECT id FROM t ORDER BY id"),
            ["2", "3", "4", "5"],
            "{schema}"
        );
        assert_eq!(
            b.rows("SELECT id FROM t ORDER BY id"),
            ["2", "3", "4", "5"],
            "{schema}"
        );
    }
}

#[test]
fn a_note_of_a_dropped_column_says_nothing_of_the_next() {
    for schema in KINDS {
        let [mut a, mut b] = pair(schema);
        b.run("ALTER TABLE t ADD COLUMN d DEFAULT 7; UPDATE t SET d = 8 WHERE id = '1'");
        a.conn
            .execute_batch("ALTER TABLE t ADD COLUMN x; SELECT 1")
            .expect("add");
        a.run("SELECT 1");
        a.run(
            "UPDATE t SET x = 1; ALTER TABLE t DROP COLUMN x; ALTER TABLE t ADD COLUMN d DEFAULT 7",
        );
        a.pull(&b);
        assert_eq!(
            a.rows("SELECT d FROM t ORDER BY id"),
            ["8", "7", "7"],
            "{schema}"
        );
        converge(&mut [a, b]);
    }
}

#[test]
fn a_renamed_column_keeps_its_history_and_no_row_counts_as_written() {
    for schema in KINDS {
        let [mut a, mut b] = pair(schema);
        a.run("UPDATE t SET b = 'early' WHERE id = '1'");
        later(&mut b, &a, "UPDATE t SET b = 'late' WHERE id = '1'");
        let seen = a.seen();
        later(
            &mut a,
            &b,
            "ALTER TABLE t RENAME COLUMN b TO \"new \"\"b\"\"\"",
        );
        let told = news(&a, &seen);
        assert_eq!((told.tables.len(), told.renames.len()), (0, 1), "{schema}");
        // Who has renamed takes what comes under the old name, and the other way round.
        a.pull(&b);
        assert_eq!(
            a.rows("SELECT \"new \"\"b\"\"\" FROM t ORDER BY id"),
            ["late", "b2", "b3"]
        );
        later(
            &mut a,
            &b,
            "UPDATE t SET \"new \"\"b\"\"\" = 'by a' WHERE id = '2'",
        );
        b.pull(&a);
        assert_eq!(
            b.rows("SELECT b FROM t ORDER BY id"),
            ["late", "by a", "b3"],
            "{schema}"
        );
        later(
            &mut b,
            &a,
            "UPDATE t SET b = 'by b' WHERE id = '3'; INSERT INTO t(id, b) VALUES('4', 'b4')",
        );
        a.pull(&b);
        b.run("ALTER TABLE t RENAME COLUMN b TO \"new \"\"b\"\"\"");
        let mut both = [a, b];
        converge(&mut both);
        for replica in &both {
            let rows = replica.rows("SELECT id, a, \"new \"\"b\"\"\", c FROM t ORDER BY id");
            let shown = ["1|a1|late|c1", "2|a2|by a|c2", "3|a3|by b|c3", "4|∅|b4|d"];
            assert_eq!(rows, shown, "{schema}");
        }
    }
}

#[test]
fn who_comes_late_knows_the_column_by_its_former_name() {
    for schema in KINDS {
        let [mut a, mut b] = pair(schema);
        a.run("ALTER TABLE t RENAME COLUMN b TO x")
            .run("ALTER TABLE t RENAME COLUMN x TO z");
        let mut c = replica("", &[]);
        c.pull(&a);
        later(&mut b, &a, "UPDATE t SET b = 'under b' WHERE id = '1'");
        c.pull(&b);
        assert_eq!(
            c.rows("SELECT z FROM t ORDER BY id"),
            ["under b", "b2", "b3"],
            "{schema}"
        );
        b.pull(&c);
        a.pull(&c);
        b.run("ALTER TABLE t RENAME COLUMN b TO z");
        converge(&mut [a, b, c]);
    }
}

#[test]
fn a_key_column_is_renamed_and_rows_stay_the_same_rows() {
    for schema in KINDS {
        let [mut a, mut b] = pair(schema);
        a.run("DELETE FROM t WHERE id = '3'");
        let seen = a.seen();
        a.run("ALTER TABLE t RENAME COLUMN id TO \"the key\"");
        assert!(news(&a, &seen).tables.is_empty(), "{schema}");
        later(
            &mut b,
            &a,
            "UPDATE t SET a = 'by b' WHERE id = '1'; INSERT INTO t(id) VALUES('4')",
        );
        a.pull(&b);
        let shown = ["1|by b", "2|a2", "4|∅"];
        assert_eq!(
            a.rows("SELECT \"the key\", a FROM t ORDER BY 1"),
            shown,
            "{schema}"
        );
        later(
            &mut a,
            &b,
            "DELETE FROM t WHERE \"the key\" = '4'; UPDATE t SET a = 'by a' WHERE \"the key\" = '2'",
        );
        b.pull(&a);
        assert_eq!(
            b.rows("SELECT id, a FROM t ORDER BY 1"),
            ["1|by b", "2|by a"],
            "{schema}"
        );
        b.run("ALTER TABLE t RENAME COLUMN id TO \"the key\"");
        converge(&mut [a, b]);
    }
}

#[test]
fn columns_are_renamed_added_and_dropped_before_anybody_looks() {
    for schema in KINDS {
        let [mut a, mut b] = pair(schema);
        let steps = "ALTER TABLE t RENAME COLUMN a TO was_a; ALTER TABLE t DROP COLUMN c;
            ALTER TABLE t ADD COLUMN more_text TEXT; UPDATE t SET was_a = 'x', more_text = 'm' WHERE id = '1';
            ALTER TABLE t RENAME COLUMN b TO B; UPDATE t SET b = 'y' WHERE id = '2'";
        a.run(steps);
        b.pull(&a);
        assert_eq!(
            b.rows("SELECT id, a, b FROM t ORDER BY id"),
            ["1|x|b1", "2|a2|y", "3|a3|b3"]
        );
        b.run(
            "ALTER TABLE t RENAME COLUMN a TO was_a; ALTER TABLE t DROP COLUMN c;
            ALTER TABLE t ADD COLUMN more_text TEXT; ALTER TABLE t RENAME COLUMN b TO B",
        );
        let mut both = [a, b];
        converge(&mut both);
        for replica in &both {
            let rows = replica.rows("SELECT id, was_a, b, more_text FROM t ORDER BY id");
            assert_eq!(rows, ["1|x|b1|m", "2|a2|y|∅", "3|a3|b3|∅"], "{schema}");
        }
    }
}

#[test]
fn who_has_both_names_keeps_two_columns() {
    for schema in KINDS {
        let [mut a, mut b] = pair(schema);
        a.run("ALTER TABLE t RENAME COLUMN b TO x; UPDATE t SET x = 'by a' WHERE id = '1'");
        later(
            &mut b,
            &a,
            "ALTER TABLE t ADD COLUMN x; UPDATE t SET b = 'by b', x = 'new' WHERE id = '2'",
        );
        b.pull(&a);
        a.pull(&b);
        assert_eq!(
            b.rows("SELECT b, x FROM t ORDER BY id"),
            ["b1|by a", "by b|new", "b3|∅"]
        );
        // What B writes to its column of the same name is that column on A.
        assert_eq!(
            a.rows("SELECT x FROM t ORDER BY id"),
            ["by a", "new", "b3"],
            "{schema}"
        );
        assert_eq!(
            a.rows("SELECT count(*) FROM syncline_parked"),
            ["1"],
            "{schema}"
        );
        a.run("ALTER TABLE t ADD COLUMN b TEXT");
        assert_eq!(
            a.rows("SELECT b FROM t WHERE id = '2'"),
            ["by b"],
            "{schema}"
        );
    }
}

#[test]
fn two_columns_change_their_names() {
    for schema in KINDS {
        let [mut a, mut b] = pair(schema);
        let swap = "ALTER TABLE t RENAME COLUMN a TO tmp; ALTER TABLE t RENAME COLUMN c TO a;
            ALTER TABLE t RENAME COLUMN tmp TO c";
        a.run(swap);
        assert_eq!(
            a.rows("SELECT a, c FROM t WHERE id = '1'"),
            ["c1|a1"],
            "{schema}"
        );
        b.run(swap);
        b.pull(&a);
        later(&mut b, &a, "UPDATE t SET a = 'new' WHERE id = '1'");
        let mut both = [a, b];
        converge(&mut both);
        assert_eq!(
            both[0].rows("SELECT a, c FROM t WHERE id = '1'"),
            ["new|a1"],
            "{schema}"
        );
    }
}

#[test]
fn one_of_a_hundred_columns_is_renamed_and_another_dropped() {
    let names: Vec<_> = (0..100).map(|at| format!("\"c {at}\"")).collect();
    let schema = format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, {})",
        names.join(", ")
    );
    let mut a = replica(&schema, &["t"]);
    a.run("INSERT INTO t(id, \"c 70\", \"c 5\", \"c 99\") VALUES(1, 70, 5, 99)");
    let mut b = replica("", &[]);
    b.pull(&a);
    let seen = a.seen();
    a.run("ALTER TABLE t RENAME COLUMN \"c 70\" TO c70; ALTER TABLE t DROP COLUMN \"c 5\"");
    assert!(news(&a, &seen).tables.is_empty());
    later(&mut a, &b, "UPDATE t SET c70 = 71, \"c 99\" = 100");
    b.pull(&a);
    assert_eq!(
        b.rows("SELECT \"c 70\", \"c 5\", \"c 99\" FROM t"),
        ["71|5|100"]
    );
    b.run("ALTER TABLE t RENAME COLUMN \"c 70\" TO c70; ALTER TABLE t DROP COLUMN \"c 5\"");
    converge(&mut [a, b]);
}

#[test]
fn a_unique_column_is_renamed_under_a_parked_row() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, mail TEXT UNIQUE, name TEXT)";
    let mut a = replica(schema, &["t"]);
    let mut b = replica(schema, &["t"]);
    a.run("INSERT INTO t VALUES(1, 'x@x', 'alice')");
    later(&mut b, &a, "INSERT INTO t VALUES(2, 'x@x', 'bob')");
    a.pull(&b);
    b.pull(&a);
    later(&mut a, &b, "ALTER TABLE t RENAME COLUMN mail TO address");
    assert_eq!(
        a.rows("SELECT constraint_name FROM syncline_conflicts"),
        ["UNIQUE (address)"]
    );
    later(&mut b, &a, "UPDATE t SET mail = 'a@x' WHERE id = 1");
    a.pull(&b);
    assert_eq!(a.rows("SELECT * FROM t"), ["1|a@x|alice", "2|x@x|bob"]);
    b.run("ALTER TABLE t RENAME COLUMN mail TO address");
    converge(&mut [a, b]);
}

#[test]
fn a_rebuild_that_leaves_a_column_out_drops_it() {
    for schema in KINDS {
        let [mut a, mut b] = pair(schema);
        let copy = schema
            .replace("TABLE t(", "TABLE copy(")
            .replace(" b TEXT,", "");
        a.run(&format!(
            "{copy}; INSERT INTO copy(id, a, c) SELECT id, a, c FROM t; DROP TABLE t;
            ALTER TABLE copy RENAME TO t"
        ));
        later(&mut b, &a, "UPDATE t SET b = 'kept' WHERE id = '1'");
        a.pull(&b);
        a.run("ALTER TABLE t ADD COLUMN b TEXT");
        assert_eq!(
            a.rows("SELECT b FROM t ORDER BY id"),
            ["kept", "∅", "∅"],
            "{schema}"
        );
        b.pull(&a);
        assert_eq!(
            b.rows("SELECT b FROM t ORDER BY id"),
            ["kept", "b2", "b3"],
            "{schema}"
        );
        // What was dropped here comes back with a whole export of somebody who has it.
        let all = export(&b.conn, &VersionVector::new(), b.now).expect("export");
        import_changeset(&a.conn, &all, b.now).expect("import");
        assert_eq!(
            a.rows("SELECT b FROM t ORDER BY id"),
            ["kept", "b2", "b3"],
            "{schema}"
        );
        converge(&mut [a, b]);
    }
}

#[test]
fn a_renamed_table_goes_on_under_both_names() {
    for schema in KINDS {
        let [mut a, mut b] = pair(schema);
        let seen = a.seen();
        later(&mut a, &b, "ALTER TABLE t RENAME TO \"the \"\"table\"\"\"");
        assert!(news(&a, &seen).tables.is_empty(), "{schema}");
        later(
            &mut a,
            &b,
            "UPDATE \"the \"\"table\"\"\" SET a = 'by a' WHERE id = '1'",
        );
        later(
            &mut b,
            &a,
            "UPDATE t SET a = 'by b' WHERE id = '2'; DELETE FROM t WHERE id = '3'",
        );
        let mut c = replica("", &[]);
        c.pull(&a);
        c.pull(&b);
        b.pull(&a);
        a.pull(&b);
        let shown = ["1|by a|b1", "2|by b|b2"];
        assert_eq!(
            b.rows("SELECT id, a, b FROM t ORDER BY id"),
            shown,
            "{schema}"
        );
        let tables =
            b.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'the%'");
        assert_eq!(tables, [""; 0], "{schema}");
        for replica in [&a, &c] {
            let rows = replica.rows("SELECT id, a, b FROM \"the \"\"table\"\"\" ORDER BY id");
            assert_eq!(rows, shown, "{schema}");
        }
        later(
            &mut b,
            &a,
            "ALTER TABLE t RENAME COLUMN b TO z; UPDATE t SET z = 'later' WHERE id = '1'",
        );
        a.pull(&b);
        assert_eq!(
            a.rows("SELECT b FROM \"the \"\"table\"\"\" WHERE id = '1'"),
            ["later"]
        );
        let rename = "ALTER TABLE \"the \"\"table\"\"\" RENAME COLUMN b TO z";
        a.run(rename);
        c.run(rename);
        b.run("ALTER TABLE t RENAME TO \"the \"\"table\"\"\"");
        converge(&mut [a, b, c]);
    }
}

#[test]
fn a_newcomer_keeps_a_renamed_table_and_a_new_one_of_its_former_name_apart() {
    for schema in KINDS {
        let [mut a, _] = pair(schema);
        a.run("ALTER TABLE t RENAME TO z").run(schema);
        track(&a.conn, "t", &TableOptions::default(), a.now).expect("tracked");
        a.run("INSERT INTO t(id, a) VALUES('1', 'another')");
        let mut c = replica("", &[]);
        c.pull(&a);
        for table in ["t", "z"] {
            let all = format!("SELECT * FROM {table} ORDER BY id");
            assert_eq!(c.rows(&all), a.rows(&all), "{schema}");
        }
        assert_eq!(c.digest(), a.digest(), "{schema}");
    }
}

#[test]
fn what_waits_for_a_table_is_merged_when_it_turns_out_to_be_another_name_of_one() {
    let [mut a, mut b] = pair(KINDS[0]);
    let mut c = replica("", &[]);
    a.run("ALTER TABLE t RENAME TO u; UPDATE u SET a = 'by a' WHERE id = 1");
    let seen = b.seen();
    let mut changes = news(&a, &seen);
    // As from somebody who heard of the rows and not of the rename.
    changes.renames.clear();
    import_changeset(&b.conn, &changes, a.now).expect("import");
    assert_eq!(b.rows("SELECT a FROM t WHERE id = 1"), ["a1"]);
    b.run("ALTER TABLE t RENAME TO u");
    assert_eq!(b.rows("SELECT a FROM u WHERE id = 1"), ["by a"]);
    c.pull(&b);
    converge(&mut [a, b, c]);
}

#[test]
fn rows_whose_columns_were_all_dropped_are_told() {
    for schema in KINDS {
        let mut a = replica(schema, &["t"]);
        let rows: Vec<_> = (10..30).map(|id| format!("('{id}', 1)")).collect();
        a.run(&format!("INSERT INTO t(id, a) VALUES {}", rows.join(", ")));
        let mut c = replica("", &[]);
        c.pull(&a);
        for replica in [&mut a, &mut c] {
            replica.run("ALTER TABLE t ADD COLUMN d DEFAULT 5");
            for dropped in ["a", "b", "c"] {
                replica.run(&format!("ALTER TABLE t DROP COLUMN {dropped}"));
            }
        }
        let mut b = replica("", &[]);
        b.pull(&a);
        let mut d = replica("", &[]);
        d.pull(&b);
        assert_eq!(
            d.rows("SELECT count(*), sum(d) FROM t"),
            ["20|100"],
            "{schema}"
        );
        converge(&mut [a, b, c, d]);
    }
}

/// Pulls as a program does that uses the SQL functions.
fn pull_by_sql(into: &mut Replica, from: &Replica) {
    let seen = "SELECT syncline_version_vector()";
    let seen: Vec<u8> = into
        .conn
        .query_row(seen, [], |row| row.get(0))
        .expect("vector");
    let seen = VersionVector::decode(&seen).expect("decode");
    let changes = export(&from.conn, &seen, from.now).expect("export");
    import_changeset(&into.conn, &changes, into.now.max(from.now)).expect("import");
}

#[test]
fn what_a_schema_change_lost_comes_back_from_who_has_it() {
    let rebuild = |schema: &str| {
        let copy = schema.replace("TABLE t(", "TABLE copy(");
        format!(
            "{copy}; INSERT INTO copy SELECT * FROM t WHERE id <> '2'; DROP TABLE t;
            ALTER TABLE copy RENAME TO t"
        )
    };
    let unique = "UPDATE t SET a = id; CREATE UNIQUE INDEX i ON t(a); DELETE FROM t WHERE id = '3';
        REPLACE INTO t(id, a, b, c) VALUES('9', '2', 'b9', 'c9'); DROP INDEX i; DELETE FROM t WHERE id = '9'";
    let [by_rowid, by_rowids] = [KINDS[1], KINDS[3]];
    for (schema, change, shown) in [
        (
            by_rowid,
            rebuild(by_rowid),
            ["1|b1|c1", "2|b2|c2", "3|b3|c3"].as_slice(),
        ),
        (
            by_rowids,
            rebuild(by_rowids),
            &["1|b1|c1", "2|b2|c2", "3|b3|c3"],
        ),
        (
            by_rowid,
            "ALTER TABLE t DROP COLUMN c; SELECT 1".into(),
            &["1|b1|c1", "2|b2|c2", "3|b3|c3"],
        ),
        (
            by_rowid,
            unique.replace("DROP INDEX i;", "SELECT 1;"),
            &["1|b1|c1", "2|b2|c2"],
        ),
    ] {
        let [mut a, mut b] = pair(schema);
        a.run(&change);
        if change.contains("DROP COLUMN") {
            a.run("ALTER TABLE t ADD COLUMN c DEFAULT 'd'");
        }
        if change.contains("REPLACE") {
            a.run("DROP INDEX i");
        }
        later(&mut b, &a, "UPDATE t SET a = 'by b' WHERE id = '2'");
        for _ in 0..2 {
            pull_by_sql(&mut a, &b);
            pull_by_sql(&mut b, &a);
        }
        for replica in [&a, &b] {
            let rows = replica.rows("SELECT id, b, c FROM t ORDER BY id");
            assert_eq!(rows, shown, "{schema}: {change}");
            assert_eq!(replica.digest(), b.digest(), "{schema}: {change}");
        }
        // Once is enough.
        let seen: Vec<u8> = a
            .conn
            .query_row("SELECT syncline_version_vector()", [], |row| row.get(0))
            .expect("vector");
        assert!(!VersionVector::decode(&seen).expect("decode").is_empty());
    }
}
