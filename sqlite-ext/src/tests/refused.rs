//! Changesets that no honest peer makes, or that come too early, are refused by name.

use super::*;

#[test]
fn a_changeset_from_too_far_on_is_refused_with_the_way_out() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &["t"]);
    a.run("INSERT INTO t VALUES(1, 'x')");
    let middle = a.seen();
    a.run("INSERT INTO t VALUES(2, 'y')");
    let late = export(&a.conn, &middle, a.now).expect("export");
    let b = replica("", &[]);
    let error = import_changeset(&b.conn, &late, b.now).expect_err("a gap");
    assert!(matches!(error, ImportError::Gap { .. }), "{error}");
    assert!(
        error.to_string().contains("syncline_version_vector()"),
        "{error}"
    );
}

#[test]
fn a_changeset_from_the_future_waits() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &["t"]);
    a.now += syncline_crdt::DRIFT_MS_MAX + 60_000;
    a.run("INSERT INTO t VALUES(1, 'x')");
    let changes = export(&a.conn, &VersionVector::new(), a.now).expect("export");
    let b = replica("", &[]);
    let error = import_changeset(&b.conn, &changes, NOW).expect_err("ahead");
    assert!(matches!(error, ImportError::Ahead { .. }), "{error}");
    import_changeset(&b.conn, &changes, NOW + 120_000).expect("due");
}

#[test]
fn what_cannot_be_tracked_is_named() {
    let schema = "CREATE TABLE ok(id INTEGER PRIMARY KEY, a);
        CREATE TABLE nokey(a); 
        CREATE TABLE nulls(id TEXT PRIMARY KEY); INSERT INTO nulls VALUES(NULL);
        CREATE VIEW v AS SELECT 1;";
    let a = replica(schema, &["ok"]);
    for (table, says) in [
        ("nokey", "no primary key"),
        ("nulls", "NULL in their primary key"),
        ("v", "no such table"),
        ("missing", "no such table"),
        ("syncline_meta", "reserved"),
    ] {
        let error = track(&a.conn, table, &TableOptions::default(), NOW)
            .expect_err(table)
            .to_string();
        assert!(error.contains(says), "{table}: {error}");
    }
    assert_eq!(tracked_tables(&a.conn).expect("tables"), ["ok"]);
    let insert_null = "CREATE TABLE k(id TEXT PRIMARY KEY)";
    let b = replica(insert_null, &["k"]);
    b.conn
        .execute_batch("INSERT INTO k VALUES('k')")
        .expect("a good key");
    for write in ["INSERT INTO k VALUES(NULL)", "UPDATE k SET id = NULL"] {
        let error = b.conn.execute(write, []).expect_err(write);
        assert!(error.to_string().contains("needs a primary key"), "{error}");
    }
}

#[test]
fn a_definition_that_does_more_than_make_its_table_is_refused() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY)", &["t"]);
    a.run("INSERT INTO t VALUES(1)");
    let good = export(&a.conn, &VersionVector::new(), a.now).expect("export");
    for evil in [
        "CREATE TABLE t(id INTEGER PRIMARY KEY); DROP TABLE own",
        "CREATE TABLE other(id INTEGER PRIMARY KEY)",
        "CREATE TABLE t AS SELECT 1 AS id",
        "CREATE TEMP TABLE t(id INTEGER PRIMARY KEY)",
        "CREATE VIEW t AS SELECT 1 AS id",
        "CREATE TRIGGER t AFTER INSERT ON own BEGIN DELETE FROM own; END",
        "DROP TABLE own",
        "ATTACH 'x.db' AS x",
        "PRAGMA user_version = 5",
        "not sql",
        "",
    ] {
        let b = replica(
            "CREATE TABLE own(id INTEGER PRIMARY KEY); INSERT INTO own VALUES(1)",
            &[],
        );
        let mut bad = good.clone();
        bad.schemas[0].statements = vec![evil.to_owned()];
        let error = import_changeset(&b.conn, &bad, a.now).expect_err(evil);
        assert!(matches!(error, ImportError::Schema(_)), "{evil}: {error}");
        assert_eq!(b.rows("SELECT * FROM own"), ["1"], "{evil}");
        assert_eq!(
            b.rows("SELECT count(*) FROM sqlite_master WHERE name = 't'"),
            ["0"],
            "{evil}"
        );
    }
}

#[test]
fn hostile_changesets_are_refused_by_name_and_change_nothing() {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &["t"]);
    a.run("INSERT INTO t VALUES(1, 'x')");
    let good = export(&a.conn, &VersionVector::new(), a.now).expect("export");
    type Spoil = fn(&mut Changeset);
    let spoiled: [(&str, Spoil); 9] = [
        ("reserved", |c| c.tables[0].name = "syncline_meta".into()),
        ("reserved", |c| c.tables[0].name = "SQLITE_schema".into()),
        ("reserved", |c| c.schemas[0].name = "syncline_x".into()),
        ("reserved", |c| c.schemas[0].name = "crsql_master".into()),
        ("reserved", |c| c.tables[0].name = "t__crsql_clock".into()),
        ("later than the changeset", |c| {
            c.tables[0].groups[0].stamp.version = Hlc::MAX;
        }),
        ("deleted and created", |c| {
            let most = CausalLength::new(CAUSAL_LENGTH_MAX).expect("the most");
            c.tables[0].groups[0].causal_length = most;
            c.tables[0].groups[0].kind = GroupKind::Life;
            c.tables[0].groups[0].columns.clear();
            c.tables[0].groups[0].values.truncate(1);
        }),
        ("join on the other device", |c| {
            c.tables[0].groups[0].kind = GroupKind::Deltas;
            c.tables[0].groups[0].values[1] = Value::Blob(vec![1]);
        }),
        ("are one row on one of the devices", |c| {
            c.tables[0].groups[0].born = SiteId([7; 16]);
        }),
    ];
    for (says, spoil) in spoiled {
        let mut b = replica("CREATE TABLE own(id INTEGER PRIMARY KEY)", &["own"]);
        b.run("INSERT INTO own VALUES(7)");
        let before = (b.digest(), b.seen());
        let mut bad = good.clone();
        spoil(&mut bad);
        let error = import_changeset(&b.conn, &bad, a.now)
            .expect_err(says)
            .to_string();
        assert!(error.contains(says), "{says}: {error}");
        assert_eq!((b.digest(), b.seen()), before, "{says}");
        // The good one still goes in, and the row can be written.
        b.now = a.now;
        b.pull(&a)
            .run("UPDATE t SET a = 'mine'; DELETE FROM t; INSERT INTO t VALUES(1, 'again')");
        assert_eq!(b.rows("SELECT * FROM t"), ["1|again"]);
    }
}
