//! Tables that are rebuilt in steps, made anew and filled from before: what counts as written then.

use super::*;

/// The key of a table, and what follows its columns, where rows keep their clocks.
const KEYS: [(&str, &str); 2] = [
    ("id INTEGER PRIMARY KEY", ""),
    ("id INT PRIMARY KEY", " WITHOUT ROWID"),
];

/// A replica with one row, and a column `n` that was added to it.
fn added((key, kind): (&str, &str), n: &str) -> Replica {
    let mut replica = replica(&format!("CREATE TABLE t({key}, a){kind}"), &["t"]);
    replica.run("INSERT INTO t VALUES(1, 'x')");
    replica.run(&format!("ALTER TABLE t ADD COLUMN {n}"));
    replica
}

/// Rebuilds the table with another column `n`, and fills it with `filled`.
fn rebuild(key: (&str, &str), n: &str, filled: &str) -> String {
    rebuild_with(key, &format!("a, {n}"), &format!("a, {filled}"))
}

fn rebuild_with((key, kind): (&str, &str), columns: &str, filled: &str) -> String {
    format!(
        "CREATE TABLE copy({key}, {columns}){kind};
         INSERT INTO copy SELECT id, {filled} FROM t; DROP TABLE t;
         ALTER TABLE copy RENAME TO t"
    )
}

#[test]
fn what_a_rebuild_writes_is_told() {
    let rebuilds = [
        ("n DEFAULT 0", "n DEFAULT 1", "1"),
        ("n DEFAULT 0", "n DEFAULT 1", "n"),
        ("n INTEGER", "n INTEGER NOT NULL", "coalesce(n, 0)"),
        ("n DEFAULT 5", "n DEFAULT 5", "5.0"),
        ("n TEXT DEFAULT shut", "n TEXT DEFAULT \"open\"", "'open'"),
        (
            "n INT NOT NULL DEFAULT 0",
            "n TEXT NOT NULL DEFAULT ''",
            "'none'",
        ),
    ];
    for key in KEYS {
        for (before, after, filled) in rebuilds {
            let a = added(key, before);
            let mut b = replica("", &[]);
            b.pull(&a);
            b.run(&rebuild(key, after, filled));
            let shown = b.rows("SELECT quote(n) FROM t");
            let mut newcomer = replica("", &[]);
            newcomer.pull(&b);
            let mut all = [a, b, newcomer];
            converge(&mut all);
            for replica in &all {
                let rows = replica.rows("SELECT quote(n) FROM t");
                assert_eq!(rows, shown, "{key:?}: {before} -> {after}");
            }
        }
    }
}

#[test]
fn what_a_rebuild_copies_is_not_written() {
    let rebuilds = [
        ("n DEFAULT 0", "n DEFAULT 0", "n"),
        ("n TEXT NOT NULL DEFAULT ''", "n BLOB DEFAULT ('')", "n"),
        ("n TEXT DEFAULT shut", "n TEXT DEFAULT 'shut'", "n"),
        ("n INT NOT NULL DEFAULT 0", "n TEXT NOT NULL DEFAULT 0", "n"),
        ("N DEFAULT 0", "n DEFAULT 0, m DEFAULT 7", "n, 8"),
    ];
    for key in KEYS {
        for (before, after, filled) in rebuilds {
            let mut a = added(key, before);
            let mut b = replica("", &[]);
            b.pull(&a);
            a.run("UPDATE t SET n = 'mine'");
            // The rebuild comes later than what it has not seen.
            b.now += 60_000;
            b.run("UPDATE t SET a = 'later'");
            for _ in 0..2 {
                b.run(&rebuild(key, after, filled));
            }
            a.run(&rebuild(key, after, filled));
            let mut newcomer = replica("", &[]);
            newcomer.pull(&b);
            let mut all = [a, b, newcomer];
            converge(&mut all);
            let rows = all[2].rows("SELECT a, n FROM t");
            assert_eq!(rows, ["later|mine"], "{key:?}: {before} -> {after}");
        }
    }
}

#[test]
fn a_rebuild_has_a_time_of_its_own() {
    for (key, kind) in KEYS {
        let u = format!("CREATE TABLE u({key}, a){kind}");
        let t = "CREATE TABLE t(id INTEGER PRIMARY KEY)";
        let mut a = replica(
            &format!("{u}; {t}; INSERT INTO u VALUES(1, 'local')"),
            &["t"],
        );
        let mut b = replica(&u, &["u"]);
        a.now += 60_000;
        a.run("INSERT INTO t VALUES(1)");
        // Takes its own rows of the other's table over, as of before all that others wrote.
        a.pull(&b);
        b.pull(&a);
        assert_eq!(b.rows("SELECT a FROM u"), ["local"], "{key}");
        let rebuild = rebuild_with((key, kind), "a", "upper(a)");
        a.run(&rebuild.replace(" t;", " u;").replace("TO t", "TO u"));
        b.pull(&a);
        assert_eq!(b.rows("SELECT a FROM u"), ["LOCAL"], "{key}");
        converge(&mut [a, b]);
    }
}

#[test]
fn a_default_that_needs_what_only_one_application_had_hinders_no_rebuild() {
    use rusqlite::functions::FunctionFlags;
    for key in KEYS {
        let mut a = replica(&format!("CREATE TABLE t({}, x){}", key.0, key.1), &["t"]);
        let mut b = replica("", &[]);
        b.pull(&a);
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
        let one = |_: &rusqlite::functions::Context<'_>| Ok(1);
        b.conn
            .create_scalar_function("app", 0, flags, one)
            .expect("a function");
        b.run(&rebuild_with(key, "x, u DEFAULT (app())", "x, app()"));
        a.run("INSERT INTO t VALUES(1, 'x')");
        b.pull(&a);
        b.conn.remove_function("app", 0).expect("it was there");
        b.run(&rebuild_with(key, "x, u TEXT", "x, u"));
        assert_eq!(b.rows("SELECT id, x, u FROM t"), ["1|x|1"], "{key:?}");
    }
}

#[test]
fn a_rebuild_comes_right_after_what_was_seen_whatever_else_is_written() {
    let others = [
        "CREATE TABLE aa(id INTEGER PRIMARY KEY)",
        "CREATE TABLE zz(id INTEGER PRIMARY KEY)",
    ];
    for key in KEYS.into_iter().chain([("id TEXT PRIMARY KEY", "")]) {
        let mut a = added(key, "n");
        a.run(&others.join("; "));
        for other in ["aa", "zz"] {
            track(&a.conn, other, &TableOptions::default(), a.now).expect("track");
        }
        let mut b = replica("", &[]);
        b.pull(&a);
        b.now += 1_000;
        b.run("UPDATE t SET a = 'edited'");
        a.now += 60_000;
        a.conn
            .execute_batch(&rebuild(key, "n, m", "n, length(a)"))
            .expect("rebuild");
        a.run("INSERT INTO aa VALUES(1); INSERT INTO zz VALUES(1)");
        b.run("ALTER TABLE t ADD COLUMN m");
        let mut both = [a, b];
        converge(&mut both);
        for replica in &both {
            assert_eq!(replica.rows("SELECT a FROM t"), ["edited"], "{key:?}");
        }
    }
}

#[test]
fn what_has_not_arrived_is_not_written_by_a_rebuild() {
    // Of rows that are named by SQLite's own rowids nothing is known after a rebuild.
    let by_rowid = ["text key", "descending integer"];
    let by_key = ALL_KINDS
        .iter()
        .filter(|(kind, _)| !by_rowid.contains(kind));
    for (kind, schema) in by_key {
        for ids in [Ids::Shared, Ids::Counted] {
            if ids == Ids::Counted && *kind != "integer key" {
                continue;
            }
            let schema = schema.replace("b TEXT", "c NOT NULL, b TEXT");
            let mut a = replica_of(&schema, &["t"], &with_ids(ids));
            let mut c = replica("", &[]);
            c.pull(&a);
            a.run("INSERT INTO t VALUES('1', 'given', 'needed', 'own'), ('2', 'x', 'y', 'z')");
            let mut b = replica("", &[]);
            b.pull(&a);
            b.now += 60_000;
            b.run("UPDATE t SET a = 'edited' WHERE id = '1'");
            // The edit arrives before the row that it edits.
            let own = export_own(&b.conn, Hlc::ZERO, b.now).expect("export");
            c.now = b.now;
            import_changeset(&c.conn, &own.expect("the edit"), c.now).expect("import");
            c.run("ALTER TABLE t ADD COLUMN more DEFAULT 'usual'");
            let incomplete = ["1|edited|[]|d|usual"];
            assert_eq!(c.rows("SELECT * FROM t"), incomplete, "{kind}, {ids:?}");
            let copy = schema.replace("TABLE t(", "TABLE copy(");
            c.run(&format!(
                "{copy}; ALTER TABLE copy ADD COLUMN more DEFAULT 'usual';
                 INSERT INTO copy SELECT * FROM t; DROP TABLE t; ALTER TABLE copy RENAME TO t"
            ));
            assert_eq!(c.rows("SELECT * FROM t"), incomplete, "{kind}, {ids:?}");
            a.run("ALTER TABLE t ADD COLUMN more DEFAULT 'usual'")
                .run("UPDATE t SET more = 'mine' WHERE id = '1'");
            assert!(a.now < c.now, "the rebuild is later");
            b.run("ALTER TABLE t ADD COLUMN more DEFAULT 'usual'");
            let mut all = [a, b, c];
            converge(&mut all);
            for replica in &all {
                let rows = replica.rows("SELECT * FROM t ORDER BY id");
                let whole = ["1|edited|needed|own|mine", "2|x|y|z|usual"];
                assert_eq!(rows, whole, "{kind}, {ids:?}");
            }
        }
    }
}
