//! What comes to a replica whose tables, columns or rows are not those of the sender's.

use super::*;

#[test]
fn columns_that_only_one_side_has_are_parked_and_replayed() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &["t"]);
    a.run("INSERT INTO t VALUES(1, 'x')");
    let mut b = replica("", &[]);
    b.pull(&a);
    a.run("ALTER TABLE t ADD COLUMN done INTEGER NOT NULL DEFAULT 0; UPDATE t SET done = 1");
    a.run("INSERT INTO t VALUES(2, 'y', 5)");
    b.pull(&a);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|x", "2|y"]);
    // A third replica that learns of it from the second alone gets the column too.
    let mut c = replica(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, done INTEGER NOT NULL DEFAULT 0)",
        &["t"],
    );
    c.pull(&b);
    assert_eq!(c.rows("SELECT * FROM t"), ["1|x|1", "2|y|5"]);
    b.run("ALTER TABLE t ADD COLUMN done INTEGER NOT NULL DEFAULT 0");
    assert_eq!(b.rows("SELECT * FROM t"), ["1|x|1", "2|y|5"]);
    converge(&mut [a, b, c]);
}

/// Also where this replica has written to other tables, and so has a time of its own.
#[test]
fn rows_that_were_there_lose_to_what_was_shared_whatever_else_was_written_here() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, n INTEGER)";
    let counts = TableOptions::parse(r#"{"columns":{"n":"counter"}}"#).expect("options");
    for options in [TableOptions::default(), counts] {
        let mut a = replica_of(schema, &["t"], &options);
        a.run("INSERT INTO t VALUES(1, 'shared', 1)");
        let other = "CREATE TABLE u(id INTEGER PRIMARY KEY)";
        let mut b = replica(&format!("{schema}; {other}"), &["u"]);
        b.now += 10_000;
        b.run("INSERT INTO u VALUES(1); INSERT INTO t VALUES(1, 'stale', 7), (3, 'only here', 3)");
        b.seen();
        b.pull(&a);
        let rows = ["1|shared|1", "3|only here|3"];
        assert_eq!(b.rows("SELECT * FROM t ORDER BY id"), rows);
        a.pull(&b);
        assert_eq!(a.rows("SELECT * FROM t ORDER BY id"), rows);
        converge(&mut [a, b]);
    }
}

/// A unique value goes to who claimed it first, as everybody knows the claims.
#[test]
fn unique_values_of_rows_that_were_there_are_shown_as_elsewhere() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, mail TEXT UNIQUE, name TEXT);
        CREATE TABLE c(id INTEGER PRIMARY KEY, t INTEGER REFERENCES t(id))";
    for has_written in [false, true] {
        let mut a = replica(schema, &["t", "c"]);
        let schema = format!("{schema}; CREATE TABLE u(id INTEGER PRIMARY KEY)");
        let mut b = replica(&schema, if has_written { &["u"] } else { &[] });
        b.now += 20;
        if has_written {
            b.run("INSERT INTO u VALUES(1)").seen();
        }
        b.run("INSERT INTO t VALUES(2, 'x@x', 'bob'), (3, 'y', 'c')");
        b.run("INSERT INTO c VALUES(1, 2)");
        for tag in 0..3 {
            a.run(&format!(
                "INSERT OR REPLACE INTO t VALUES(1, 'x@x', 'alice{tag}')"
            ));
        }
        b.pull(&a);
        a.pull(&b);
        let [shown, other] = [&a, &b].map(|replica| {
            let all = "SELECT t.name, c.id FROM t LEFT JOIN c ON c.t = t.id ORDER BY 1";
            let waits =
                "SELECT table_name, key, constraint_name FROM syncline_conflicts ORDER BY 1";
            (replica.rows(all), replica.rows(waits))
        });
        assert_eq!(shown, other);
        assert!(!shown.1.is_empty(), "{shown:?}");
        converge(&mut [a, b]);
    }
}

#[test]
fn rows_that_were_there_before_a_table_arrived_lose_to_what_was_shared() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a)";
    let mut a = replica_of(schema, &["t"], &with_ids(Ids::Shared));
    a.run("INSERT INTO t VALUES(1, 'shared'), (2, 'shared')");
    let mut b = replica(schema, &[]);
    b.now += 10_000;
    b.run("INSERT INTO t VALUES(1, 'stale'), (3, 'only here')");
    let mut c = replica("", &[]);
    c.pull(&a);
    let mut all = [b, a, c];
    all[0].now += 1_000;
    let (left, right) = all.split_at_mut(1);
    left[0].pull(&right[0]);
    converge(&mut all);
    for replica in &all {
        assert_eq!(
            replica.rows("SELECT * FROM t"),
            ["1|shared", "2|shared", "3|only here"]
        );
    }
    all[0].run("UPDATE t SET a = 'after' WHERE id = 1");
    converge(&mut all);
    assert_eq!(all[2].rows("SELECT a FROM t WHERE id = 1"), ["after"]);
}

#[test]
fn a_deletion_before_the_column_was_taken_up_is_not_lost() {
    let mut a = replica(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, what TEXT NOT NULL)",
        &["t"],
    );
    a.run("INSERT INTO t VALUES(1, 'bread')");
    let mut b = replica("", &[]);
    b.pull(&a);
    b.run("ALTER TABLE t ADD COLUMN due TEXT; UPDATE t SET due = 'today'");
    a.pull(&b);
    a.run("ALTER TABLE t ADD COLUMN due TEXT; DELETE FROM t WHERE id = 1");
    let mut both = [a, b];
    converge(&mut both);
    assert_eq!(both[1].rows("SELECT * FROM t"), [""; 0]);
}

#[test]
fn what_waits_does_not_grow_when_it_arrives_again() {
    let mut c = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &["t"]);
    c.run("INSERT INTO t VALUES(1, 'x')");
    let mut both = [replica("", &[]), replica("", &[])];
    for replica in &mut both {
        replica.pull(&c);
    }
    c.run("ALTER TABLE t ADD COLUMN n; UPDATE t SET n = 1");
    both[1].pull(&c);
    for _ in 0..4 {
        for (from, to) in [(0, 1), (1, 0)] {
            let all = export(&both[from].conn, &VersionVector::new(), c.now).expect("export");
            import_changeset(&both[to].conn, &all, c.now).expect("import");
        }
    }
    for replica in &both {
        assert_eq!(replica.rows("SELECT count(*) FROM syncline_parked"), ["1"]);
    }
}

#[test]
fn own_rows_are_not_lost_among_those_that_waited_for_a_column() {
    for schema in [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
        "CREATE TABLE t(id TEXT PRIMARY KEY, a)",
    ] {
        let mut a = replica(schema, &["t"]);
        a.run("INSERT INTO t VALUES('1', 'x')");
        let mut b = replica("", &[]);
        b.pull(&a);
        a.run("ALTER TABLE t ADD COLUMN n; INSERT INTO t VALUES('90', 'y', 5)");
        b.pull(&a);
        // What waits is merged by the same fold that finds the new rows.
        b.run("ALTER TABLE t ADD COLUMN n; INSERT INTO t VALUES('20', 'own', 7), ('95', 'own', 8)");
        let mut both = [a, b];
        converge(&mut both);
        let select = "SELECT id || a || n FROM t WHERE n IS NOT NULL ORDER BY id";
        assert_eq!(both[0].rows(select), ["20own7", "90y5", "95own8"]);
    }
}

#[test]
fn tables_that_one_side_does_not_track_wait_for_it() {
    let mut a = replica(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE u(id PRIMARY KEY)",
        &["t", "u"],
    );
    let mut b = replica("", &[]);
    b.pull(&a);
    untrack(&b.conn, "t", b.now).expect("untrack");
    a.run("INSERT INTO t VALUES(1, 'x'); INSERT INTO u VALUES('u')");
    b.pull(&a);
    assert_eq!(b.rows("SELECT count(*) FROM t"), ["0"]);
    assert_eq!(b.rows("SELECT id FROM u"), ["u"]);
    track(&b.conn, "t", &TableOptions::default(), b.now).expect("track");
    assert_eq!(b.rows("SELECT * FROM t"), ["1|x"]);
    converge(&mut [a, b]);
}

#[test]
fn rows_that_arrive_in_parts_obey_not_null_until_the_rest_is_there() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT NOT NULL, b INT NOT NULL, c)";
    let mut a = replica(schema, &["t"]);
    a.run("INSERT INTO t VALUES(1, 'a', 2, 3)");
    let mut b = replica("", &[]);
    b.pull(&a);
    let before = b.seen();
    b.now += 50;
    b.run("UPDATE t SET c = 'b wrote'");
    // Only what b wrote, to one that has not heard of the row.
    let own = export_own(
        &b.conn,
        before.version(site_id(&b.conn).expect("site")),
        1_000,
    );
    let own = own.expect("export").expect("something new");
    let mut c = replica("", &[]);
    for schema in export(&a.conn, &VersionVector::new(), a.now)
        .expect("export")
        .schemas
    {
        c.run(&schema.statements.join(";"));
    }
    track(&c.conn, "t", &TableOptions::default(), c.now).expect("track");
    import_changeset(&c.conn, &own, b.now).expect("import");
    assert_eq!(c.rows("SELECT * FROM t"), ["1||0|b wrote"]);
    c.pull(&a);
    assert_eq!(c.rows("SELECT * FROM t"), ["1|a|2|b wrote"]);
    converge(&mut [a, b, c]);
}

#[test]
fn a_table_that_was_rebuilt_is_captured_again() {
    for (kind, schema) in ALL_KINDS {
        let mut a = replica(schema, &["t"]);
        a.run("INSERT INTO t VALUES('1', 'x', 'y'), ('2', 'x', 'y'), ('3', 'x', 'y')");
        let mut b = replica("", &[]);
        b.pull(&a);
        let copy = schema.replace("TABLE t(", "TABLE copy(");
        a.run(&format!(
            "{copy}; INSERT INTO copy SELECT * FROM t WHERE id <> '3';
             DROP TABLE t; ALTER TABLE copy RENAME TO t; UPDATE t SET a = 'unseen' WHERE id = '2'"
        ));
        a.run("INSERT INTO t VALUES('4', 'after', 'y')");
        b.pull(&a);
        let select = "SELECT * FROM t WHERE id <> '3' ORDER BY id";
        assert_eq!(
            b.rows(select),
            ["1|x|y", "2|unseen|y", "4|after|y"],
            "{kind}"
        );
        a.run("DELETE FROM t WHERE id = '4'");
        b.pull(&a);
        assert_eq!(b.rows(select), ["1|x|y", "2|unseen|y"], "{kind}");
    }
}

#[test]
fn a_column_added_on_both_sides_leaves_equal_digests() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &["t"]);
    a.run("INSERT INTO t VALUES(1, 'x'), (2, 'y')");
    let mut b = replica("", &[]);
    b.pull(&a);
    for replica in [&mut a, &mut b] {
        replica.run("ALTER TABLE t ADD COLUMN done INTEGER NOT NULL DEFAULT 0");
    }
    converge(&mut [a, b]);
}

/// SQLite calls a whole real and the integer equal as far as integers go.
#[test]
fn a_key_is_one_row_as_a_number_of_either_kind() {
    for number in [
        "1",
        "9007199254740992",
        "1152921504606846976",
        "-9223372036854775808",
    ] {
        let schema = "CREATE TABLE t(id PRIMARY KEY, n)";
        let options = TableOptions::parse(r#"{"columns":{"n":"counter"}}"#).expect("options");
        let mut a = replica_of(schema, &["t"], &options);
        let mut b = replica("", &[]);
        b.pull(&a);
        a.run(&format!("INSERT INTO t VALUES({number}, 1)"));
        b.run(&format!("INSERT INTO t VALUES({number}.0, 2)"));
        let mut all = [a, b];
        converge(&mut all);
        for replica in &all {
            assert_eq!(replica.rows("SELECT n FROM t"), ["3"], "{number}");
        }
        all[0].run(&format!("DELETE FROM t WHERE id = {number}.0"));
        converge(&mut all);
        assert_eq!(all[1].rows("SELECT * FROM t"), [""; 0], "{number}");
    }
}

#[test]
fn a_panic_in_the_middle_leaves_no_transaction() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY)", &["t"]);
    for begin in ["", "BEGIN; INSERT INTO t VALUES(1);"] {
        a.conn.execute_batch(begin).expect(begin);
        let before = a.conn.is_autocommit();
        let attempt = std::panic::AssertUnwindSafe(|| {
            crate::shadow::in_savepoint(&a.conn, || -> rusqlite::Result<()> {
                a.conn.execute_batch("INSERT INTO t VALUES(2)")?;
                panic!("as a defect would");
            })
        });
        assert!(std::panic::catch_unwind(attempt).is_err());
        assert_eq!(a.conn.is_autocommit(), before);
        assert_eq!(a.rows("SELECT id FROM t WHERE id = 2"), [""; 0]);
    }
    a.run("COMMIT");
    assert_eq!(a.rows("SELECT id FROM t"), ["1"]);
}

#[test]
fn a_name_is_found_through_a_thousand_renames() {
    let [mut a, mut b] =
        [(); 2].map(|()| replica("CREATE TABLE t(id INTEGER PRIMARY KEY, c0)", &["t"]));
    for at in 0..1_000 {
        let rename = format!("ALTER TABLE t RENAME COLUMN c{at} TO c{}", at + 1);
        a.conn.execute_batch(&rename).expect("it is renamed");
        a.now += 1;
        fold(&a.conn, a.now).expect("fold");
    }
    a.run("INSERT INTO t VALUES(1, 'x')");
    b.now = a.now;
    b.pull(&a);
    assert_eq!(b.rows("SELECT c0 FROM t"), ["x"]);
}

#[test]
fn a_column_without_a_name_is_a_column() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, \"\")", &["t"]);
    let mut b = replica("", &[]);
    a.run("INSERT INTO t VALUES(1, 'x')");
    b.pull(&a).run("UPDATE t SET \"\" = 'y'");
    a.pull(&b);
    assert_eq!(a.rows("SELECT * FROM t"), ["1|y"]);
    a.run("ALTER TABLE t RENAME COLUMN \"\" TO named; UPDATE t SET named = 'z'");
    b.pull(&a);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|z"]);
    b.run("ALTER TABLE t RENAME COLUMN \"\" TO named");
    converge(&mut [a, b]);
}

/// They are the application's own, of one connection, and SQLite has no switch for them.
#[test]
fn temporary_triggers_do_not_act_on_merged_rows_and_stay() {
    let schema =
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE audit(id TEXT PRIMARY KEY, n)";
    let mut a = replica(schema, &["t", "audit"]);
    let mut b = replica("", &[]);
    a.run("INSERT INTO audit VALUES('n', 0)");
    b.pull(&a).run(
        "CREATE TEMP TRIGGER \"count \"\"them\"\"\" AFTER INSERT ON t BEGIN
            UPDATE audit SET n = n + 1; END;
        CREATE TEMP TRIGGER refuse BEFORE INSERT ON main.t WHEN NEW.v = 'no' BEGIN
            SELECT RAISE(IGNORE); END",
    );
    a.run("INSERT INTO t VALUES(1, 'one'), (2, 'no')");
    b.pull(&a);
    assert_eq!(b.rows("SELECT id FROM t"), ["1", "2"]);
    assert_eq!(b.rows("SELECT n FROM audit"), ["0"]);
    b.run("INSERT INTO t VALUES(3, 'three'), (4, 'no')");
    assert_eq!(b.rows("SELECT id FROM t"), ["1", "2", "3"]);
    assert_eq!(b.rows("SELECT n FROM audit"), ["1"]);
    converge(&mut [a, b]);
}

#[test]
fn an_index_whose_name_is_taken_is_made_under_another() {
    let schema = "CREATE TABLE t(id TEXT PRIMARY KEY, a);
        CREATE INDEX 'found' ON t(id); CREATE UNIQUE INDEX \"an \"\"index\" ON t(a) WHERE a > 0";
    let mut a = replica(schema, &["t"]);
    a.run("INSERT INTO t VALUES('1', 2)");
    for (taken, names) in [
        ("CREATE TABLE found(z)", ["an \"index", "t_found"]),
        ("CREATE VIEW FOUND AS SELECT 1", ["an \"index", "t_found"]),
        (
            "CREATE TABLE x(z); CREATE INDEX found ON x(z); CREATE TABLE t_found(z)",
            ["an \"index", "t_found_2"],
        ),
        (
            "CREATE TABLE x(z); CREATE INDEX \"An \"\"Index\" ON x(z)",
            ["found", "t_an \"index"],
        ),
    ] {
        let mut b = replica(taken, &[]);
        b.pull(&a);
        let names_of = "SELECT name FROM pragma_index_list('t') WHERE origin = 'c' ORDER BY name";
        assert_eq!(b.rows(names_of), names);
        b.now = a.now + 10;
        b.run("INSERT INTO t VALUES('2', 3)");
        assert!(b.conn.execute("INSERT INTO t VALUES('3', 3)", []).is_err());
        // A third one gets it from there.
        let mut c = replica("", &[]);
        c.pull(&b);
        assert_eq!(c.digest(), b.digest());
        assert_eq!(c.rows(names_of), names);
        a.pull(&b);
        assert_eq!(a.digest(), b.digest());
        a.run("DELETE FROM t WHERE id = '2'");
    }
}
