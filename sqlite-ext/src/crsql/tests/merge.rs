//! Changes that other replicas made: which write wins, and what refuses.

use proptest::prelude::*;

use super::writes::{CLOCKS, SCHEMA, TABLES, config, numbered, statement};
use super::{Peer, peers};

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b TEXT DEFAULT 'x');
    SELECT crsql_as_crr('t');";

#[test]
fn two_replicas_converge() {
    let [a, b] = peers(T);
    a.run("INSERT INTO t VALUES(1, 1, 'one'), (2, 2, 'two')");
    b.pull(&a, 0);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|1|one", "2|2|two"]);
    a.run("UPDATE t SET a = 10 WHERE id = 1")
        .run("DELETE FROM t WHERE id = 2");
    b.run("UPDATE t SET b = 'uno' WHERE id = 1")
        .run("UPDATE t SET a = 22 WHERE id = 2");
    a.pull(&b, 0);
    b.pull(&a, 0);
    for peer in [&a, &b] {
        assert_eq!(peer.rows("SELECT * FROM t"), ["1|10|uno"]);
    }
    b.run("INSERT INTO t VALUES(2, 'again', 'new')");
    a.pull(&b, 0);
    assert_eq!(a.rows("SELECT * FROM t"), ["1|10|uno", "2|again|new"]);
}

/// Inserts a change of the cell `a` of row 1, in its first life unless `life` says more.
fn change(peer: &Peer, value: &str, (version, life): (i64, i64), site: u8) {
    peer.run(&format!(
        "INSERT INTO crsql_changes VALUES('t', x'010901', 'a', {value}, {version}, 1,
         x'{site:032x}', {life}, 0)"
    ));
}

/// Inserts the change that begins or ends a life of row 1.
fn life(peer: &Peer, life: i64) {
    peer.run(&format!(
        "INSERT INTO crsql_changes VALUES('t', x'010901', '-1', NULL, {life}, 1, x'01', {life}, 0)"
    ));
}

#[test]
fn the_higher_version_wins_and_then_the_greater_value() {
    let ascending = [
        ("NULL", 1),
        ("x''", 1),
        ("x'ff'", 1),
        ("''", 1),
        ("'a'", 1),
        ("'ab'", 1),
        ("-1.5", 1),
        ("2.5", 1),
        ("-7", 1),
        ("3", 1),
        ("NULL", 2),
    ];
    for pair in ascending.windows(2) {
        let [(lesser, first), (greater, second)] = [pair[0], pair[1]];
        let [a, b] = peers(T);
        change(&a, lesser, (first, 1), 9);
        change(&a, greater, (second, 1), 1);
        change(&b, greater, (second, 1), 1);
        change(&b, lesser, (first, 1), 9);
        for peer in [&a, &b] {
            let held = format!("SELECT a IS {greater}, typeof(a) = typeof({greater}) FROM t");
            assert_eq!(peer.one(&held), "1|1", "{lesser} and {greater}");
        }
    }
}

#[test]
fn equal_values_go_to_the_greater_site_only_where_that_is_asked_for() {
    let site = "SELECT hex(site_id) FROM crsql_changes WHERE cid = 'a'";
    for (setting, expected) in [(0, 1), (1, 2)] {
        let [a] = peers(T);
        a.run(&format!(
            "SELECT crsql_config_set('merge-equal-values', {setting})"
        ));
        change(&a, "'same'", (1, 1), 1);
        let before = a.version();
        change(&a, "'same'", (1, 1), 2);
        change(&a, "'same'", (1, 1), 1);
        assert_eq!(a.one(site), format!("{expected:032}"));
        assert_eq!(a.version(), before + setting);
    }
}

#[test]
fn a_life_ends_whatever_was_written_in_it_and_a_later_one_begins_anew() {
    let [a] = peers(T);
    change(&a, "'first life'", (50, 1), 1);
    life(&a, 2);
    assert_eq!(a.rows("SELECT * FROM t"), [""; 0]);
    change(&a, "'late edit'", (99, 1), 1);
    assert_eq!(a.rows("SELECT * FROM t"), [""; 0]);
    // A cell may come before the change that says the life began.
    change(&a, "'third'", (1, 3), 1);
    life(&a, 3);
    life(&a, 2);
    change(&a, "'older'", (98, 1), 1);
    assert_eq!(a.rows("SELECT * FROM t"), ["1|third|x"]);
    let clocks = "SELECT cid, col_version, cl FROM crsql_changes ORDER BY cid";
    assert_eq!(a.rows(clocks), ["-1|3|3", "a|1|3"]);
}

#[test]
fn a_death_that_comes_first_is_remembered() {
    let [a, b] = peers(T);
    life(&a, 2);
    change(&a, "'unheard of'", (1, 1), 1);
    assert_eq!(a.rows("SELECT * FROM t"), [""; 0]);
    b.run("INSERT INTO t(id, a) VALUES(1, 'there')").pull(&a, 0);
    assert_eq!(b.rows("SELECT * FROM t"), [""; 0]);
}

#[test]
fn all_is_taken_in_by_one_statement() {
    let folder = tempfile::tempdir().expect("a folder");
    let wire = folder.path().join("wire").display().to_string();
    let [a, b] = peers(T);
    a.run("INSERT INTO t VALUES(1, 1, 'one'), (2, 2, 'two'); DELETE FROM t WHERE id = 2");
    a.run(&format!("ATTACH '{wire}' AS wire"));
    a.run("CREATE TABLE wire.changes AS SELECT * FROM crsql_changes; DETACH wire");
    b.run("INSERT INTO t VALUES(1, 0, 'zero')");
    b.run(&format!("ATTACH '{wire}' AS wire"));
    b.run("INSERT INTO crsql_changes SELECT * FROM wire.changes");
    assert_eq!(b.rows("SELECT * FROM t"), ["1|1|zero"]);
    let own = b.changes();
    b.run("INSERT INTO crsql_changes SELECT * FROM crsql_changes");
    assert_eq!(b.changes(), own);
    b.run(
        "INSERT INTO crsql_changes SELECT \"table\", pk, cid, val, col_version + 1, db_version,
         site_id, cl, seq FROM crsql_changes WHERE cid = 'a'",
    );
    assert_eq!(
        b.one("SELECT col_version FROM crsql_changes WHERE cid = 'a'"),
        "2"
    );
}

#[test]
fn a_refused_change_leaves_the_transaction_its_writes() {
    let [a] = peers(T);
    a.run("BEGIN; INSERT INTO t(id, a) VALUES(1, 'written')");
    for refused in [
        "'absent', x'010901', 'a'",
        "'t', x'0105', 'a'",
        "'t', x'010901', 'z'",
    ] {
        a.fails(&format!(
            "INSERT INTO crsql_changes VALUES({refused}, 1, 1, 1, NULL, 1, 0)"
        ));
    }
    change(&a, "'merged'", (5, 1), 1);
    a.run("UPDATE t SET b = 'after'; COMMIT");
    let cells = "SELECT cid, val, col_version, db_version FROM crsql_changes ORDER BY cid";
    assert_eq!(a.rows(cells), ["a|merged|5|1", "b|after|2|1"]);
}

/// One step of three replicas: who writes what, and who then takes in whose changes.
fn step() -> impl Strategy<Value = (usize, Vec<String>, Option<(usize, usize)>)> {
    let moved = (1..4, 1..4).prop_map(|(old, new)| {
        format!("UPDATE OR IGNORE t SET id = {new}, a = # WHERE id = {old}")
    });
    let statements = prop::collection::vec(prop_oneof![5 => statement(), 1 => moved], 1..4);
    (
        0usize..3,
        statements,
        prop::option::of((0usize..3, 0usize..3)),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..config() })]

    #[test]
    fn replicas_that_have_each_others_changes_are_equal(
        steps in prop::collection::vec(step(), 1..16),
    ) {
        let replicas: [Peer; 3] = peers(SCHEMA);
        let mut seen = [[0; 3]; 3];
        let mut pull = |from: usize, to: usize| {
            let version = replicas[from].version();
            replicas[to].pull(&replicas[from], seen[from][to]);
            seen[from][to] = version;
        };
        let transactions: Vec<_> = steps.iter().map(|(_, sql, _)| (sql.clone(), true)).collect();
        for ((who, _, exchange), sql) in steps.iter().zip(numbered(&transactions)) {
            replicas[*who].run(&sql);
            if let Some((from, to)) = exchange.filter(|(from, to)| from != to) {
                pull(from, to);
            }
        }
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1), (1, 2), (2, 1), (1, 0)] {
            pull(from, to);
        }
        for sql in [TABLES[0], TABLES[1], TABLES[2], CLOCKS] {
            let [a, b, c] = [0, 1, 2].map(|at| replicas[at].rows(sql));
            prop_assert_eq!(&a, &b, "{}", sql);
            prop_assert_eq!(&b, &c, "{}", sql);
        }
    }
}
