//! Columns with a policy and a default: what a cell shows is a function of what was written to it,
//! whichever part of its row arrives first.

use super::*;

/// Makes a replica whose column `n` has a policy.
fn with(declaration: &str, policy: &str, rows: &str) -> Replica {
    let schema = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, name, n {declaration}); {rows}");
    let a = replica(&schema, &[]);
    track_with(&a, policy);
    a
}

fn track_with(replica: &Replica, policy: &str) {
    let options = format!(r#"{{"columns":{{"n":{policy}}}}}"#);
    let options = TableOptions::parse(&options).expect("these are options");
    track(&replica.conn, "t", &options, replica.now).expect("the table is tracked");
}

/// Imports what another replica wrote itself.
fn pull_own(into: &mut Replica, from: &Replica) {
    let site = site_id(&from.conn).expect("a site");
    let after = into.seen().version(site);
    let own = export_own(&from.conn, after, u64::MAX).expect("export");
    if let Some(own) = own {
        import_changeset(&into.conn, &own, into.now.max(from.now)).expect("import");
    }
}

const SHOWN: &str = "SELECT name, n FROM t";

#[test]
fn a_default_counts_once_in_every_order_of_arrival() {
    let counters = [r#""counter""#, r#"{"bounded_counter":{"floor":0}}"#];
    let declarations = ["INTEGER DEFAULT 5", "INTEGER NOT NULL DEFAULT 5"];
    let insertions = [
        ("INSERT INTO t(id, name) VALUES(1, 'x')", "8"),
        ("INSERT INTO t VALUES(1, 'x', 7)", "10"),
    ];
    for (policy, declaration) in counters
        .iter()
        .flat_map(|policy| declarations.map(|d| (policy, d)))
    {
        for (insertion, shown) in insertions {
            // The row first, the counter first, both together.
            for order in 0..3 {
                let mut a = with(declaration, policy, "");
                let (mut b, mut c) = (replica("", &[]), replica("", &[]));
                b.pull(&a);
                c.pull(&a);
                a.run(insertion);
                b.pull(&a);
                b.run("UPDATE t SET name = 'y'");
                match order {
                    0 => pull_own(&mut c, &b),
                    1 => pull_own(&mut c, &a),
                    _ => drop(c.pull(&b)),
                }
                c.now = b.now;
                c.run("UPDATE t SET n = ifnull(n, 0) + 3");
                let mut all = [a, b, c];
                converge(&mut all);
                for replica in all {
                    let expected = [format!("y|{shown}")];
                    assert_eq!(
                        replica.rows(SHOWN),
                        expected,
                        "{policy} {declaration} {order}"
                    );
                }
            }
        }
    }
}

#[test]
fn null_that_was_written_in_place_of_a_default_is_null_everywhere() {
    for (policy, default) in [
        (r#""counter""#, "5"),
        (r#"{"bounded_counter":{"floor":0}}"#, "5"),
        (r#""max""#, "5"),
        (r#""min""#, "5"),
        (r#""set""#, "'[5]'"),
        (r#""text""#, "'five'"),
        (r#""document""#, r#"'{"five":5}'"#),
    ] {
        let mut a = with(&format!("DEFAULT {default}"), policy, "");
        let mut b = replica("", &[]);
        b.pull(&a);
        a.run("INSERT INTO t VALUES(1, 'x', NULL)");
        let mut all = [a, b];
        converge(&mut all);
        for replica in all {
            assert_eq!(replica.rows(SHOWN), ["x|∅"], "{policy}");
        }
    }
}

#[test]
fn a_cell_of_which_nothing_has_arrived_shows_what_nothing_comes_to() {
    for (policy, declaration, default, shown) in [
        (r#""counter""#, "INTEGER NOT NULL", "5", "0"),
        (r#""counter""#, "INTEGER", "5", "∅"),
        (r#""counter""#, "NOT NULL", "5", "0"),
        (r#""max""#, "NOT NULL", "5", "5"),
        (r#""set""#, "NOT NULL", "'[5]'", "[]"),
        (r#""text""#, "TEXT NOT NULL", "'five'", ""),
        (r#""text""#, "TEXT", "'five'", "∅"),
        (r#""document""#, "TEXT NOT NULL", r#"'{"five":5}'"#, "{}"),
    ] {
        let declaration = format!("{declaration} DEFAULT {default}");
        let mut a = with(&declaration, policy, "");
        let (mut b, mut c) = (replica("", &[]), replica("", &[]));
        b.pull(&a);
        c.pull(&a);
        a.run("INSERT INTO t(id, name) VALUES(1, 'x')");
        b.pull(&a);
        b.run("UPDATE t SET name = 'y'");
        pull_own(&mut c, &b);
        assert_eq!(c.rows(SHOWN), [format!("y|{shown}")], "{policy}");
        let expected = a.rows("SELECT n FROM t");
        let mut all = [a, b, c];
        converge(&mut all);
        for replica in all {
            assert_eq!(replica.rows("SELECT n FROM t"), expected, "{policy}");
        }
    }
}

#[test]
fn rows_on_both_sides_keep_what_the_table_came_with() {
    let rows = "INSERT INTO t(id, name) VALUES(1, 'x'); INSERT INTO t VALUES(2, 'y', 9)";
    for declaration in ["INTEGER DEFAULT 5", "INTEGER NOT NULL DEFAULT 5"] {
        let a = with(declaration, r#""counter""#, rows);
        let schema =
            format!("CREATE TABLE t(id INTEGER PRIMARY KEY, name, n {declaration}); {rows}");
        let mut b = replica(&schema, &[]);
        b.run("INSERT INTO t(id, name) VALUES(3, 'z')");
        b.pull(&a);
        let mut all = [a, b];
        converge(&mut all);
        for replica in all {
            assert_eq!(replica.rows(SHOWN), ["x|5", "y|9", "z|5"], "{declaration}");
        }
    }
}

#[test]
fn a_column_that_is_dropped_and_added_again_does_not_count_its_default() {
    for (policy, declaration, default, nothing) in [
        (r#""counter""#, "INTEGER", "5", "∅"),
        (r#""counter""#, "INTEGER NOT NULL", "5", "0"),
        (r#""text""#, "TEXT", "'five'", "∅"),
    ] {
        let is_text = policy.contains("text");
        let mut a = with(&format!("{declaration} DEFAULT {default}"), policy, "");
        let mut b = replica("", &[]);
        b.pull(&a);
        a.run("INSERT INTO t(id, name) VALUES(1, 'x'), (2, 'y'), (3, 'z')");
        b.pull(&a);
        b.run("ALTER TABLE t DROP COLUMN n");
        let write = if is_text { "'more'" } else { "2" };
        b.run(&format!(
            "ALTER TABLE t ADD COLUMN n {declaration} DEFAULT {default};
             UPDATE t SET n = {write} WHERE id = 3"
        ));
        let written = write.trim_matches('\'');
        assert_eq!(
            b.rows("SELECT n FROM t"),
            [nothing, nothing, written],
            "{policy}"
        );
        b.run(&match is_text {
            true => "UPDATE t SET n = ifnull(n, '') || 'one ' WHERE id = 1".to_owned(),
            false => "UPDATE t SET n = ifnull(n, 0) + 1 WHERE id = 1".to_owned(),
        });
        let all = export(&a.conn, &VersionVector::new(), a.now).expect("export");
        import_changeset(&b.conn, &all, b.now).expect("import");
        let mut both = [a, b];
        converge(&mut both);
        for replica in &both {
            let rows = replica.rows("SELECT n FROM t");
            match is_text {
                true => assert_eq!((rows[1].as_str(), rows[0].len()), ("five", 8), "{rows:?}"),
                false => assert_eq!(rows, ["6", "5", "7"], "{declaration}"),
            }
            assert_eq!(rows, both[0].rows("SELECT n FROM t"));
        }
    }
}
