//! Keys that SQLite checks at the end of a transaction, and calls of Syncline's within one.

use super::*;

const SCHEMA: &str = "PRAGMA foreign_keys = ON; CREATE TABLE p(id INTEGER PRIMARY KEY);
    CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p DEFERRABLE INITIALLY DEFERRED, n)";
const ROWS: &str = "SELECT c.id, c.p, p.id FROM c LEFT JOIN p ON p.id = c.p ORDER BY 1";

fn two() -> [Replica; 2] {
    let mut a = replica(SCHEMA, &["p", "c"]);
    a.run("INSERT INTO p VALUES(1); INSERT INTO c VALUES(1, 1, 'first')");
    let mut b = replica("PRAGMA foreign_keys = ON", &[]);
    b.pull(&a);
    b.now = a.now + 1;
    [a, b]
}

/// Everything that folds or merges, as an application calls it.
fn calls(replica: &Replica, changes: &Changeset) -> Vec<Result<(), String>> {
    let (conn, now) = (&replica.conn, replica.now);
    let said = |error: &dyn std::fmt::Display| error.to_string();
    vec![
        fold(conn, now).map(drop).map_err(|error| said(&error)),
        digest(conn, now).map(drop).map_err(|error| said(&error)),
        export(conn, &VersionVector::new(), now)
            .map(drop)
            .map_err(|error| said(&error)),
        import_changeset(conn, changes, now)
            .map(drop)
            .map_err(|error| said(&error)),
    ]
}

#[track_caller]
fn assert_refused(replica: &Replica, changes: &Changeset) {
    for called in calls(replica, changes) {
        let error = called.expect_err("a row refers to nothing");
        assert!(error.contains("call this after the commit"), "{error}");
    }
}

#[test]
fn a_transaction_that_owes_a_parent_is_left_alone_and_can_be_committed() {
    for begin in ["BEGIN", "SAVEPOINT app"] {
        let commit = if begin == "BEGIN" {
            "COMMIT"
        } else {
            "RELEASE app"
        };
        let [mut a, mut b] = two();
        a.now += 5;
        a.run("INSERT INTO p VALUES(9); INSERT INTO c VALUES(9, 9, 'theirs')");
        let changes = export(&a.conn, &b.seen(), a.now).expect("export");
        b.now = a.now + 5;
        let run = |b: &Replica, sql: &str| b.conn.execute_batch(sql).expect(sql);
        // A child comes before its parent.
        run(&b, begin);
        run(&b, "INSERT INTO c VALUES(2, 7, 'early')");
        assert_refused(&b, &changes);
        assert_eq!(b.rows(ROWS), ["1|1|1", "2|7|∅"]);
        run(&b, "INSERT INTO p VALUES(7)");
        for called in calls(&b, &changes) {
            called.expect("nothing is owed");
        }
        run(&b, commit);
        assert_eq!(b.rows(ROWS), ["1|1|1", "2|7|7", "9|9|9"]);
        // A parent is taken away and put back, or its child follows it.
        run(&b, begin);
        run(&b, "DELETE FROM p WHERE id <> 7");
        assert_refused(&b, &changes);
        run(
            &b,
            "INSERT INTO p VALUES(1); UPDATE c SET n = 'x' WHERE id = 1",
        );
        assert_refused(&b, &changes);
        run(&b, "DELETE FROM c WHERE id = 9");
        run(&b, commit);
        let mut both = [a, b];
        converge(&mut both);
        for replica in &both {
            assert_eq!(replica.rows(ROWS), ["1|1|1", "2|7|7"]);
            assert_eq!(replica.rows("SELECT * FROM syncline_conflicts"), [""; 0]);
        }
    }
}

#[test]
fn a_transaction_that_owes_a_parent_in_the_end_is_refused_by_sqlite_and_can_be_rolled_back() {
    let [a, mut b] = two();
    let before = b.digest();
    let nothing = export(&a.conn, &a.seen(), a.now).expect("export");
    b.conn
        .execute_batch("BEGIN; DELETE FROM p; INSERT INTO c VALUES(2, 7, 'early')")
        .expect("deferred");
    assert_refused(&b, &nothing);
    b.conn
        .execute_batch("COMMIT")
        .expect_err("a row refers to nothing");
    b.conn.execute_batch("ROLLBACK").expect("rollback");
    assert_eq!(b.digest(), before);
    b.now += 5;
    b.run("INSERT INTO c VALUES(2, 1, 'late')");
    assert_eq!(b.rows(ROWS), ["1|1|1", "2|1|1"]);
}

#[test]
fn what_is_owed_between_tables_that_nobody_tracks_hinders_nothing() {
    let [_, b] = two();
    let schema = "CREATE TABLE x(id INTEGER PRIMARY KEY, x REFERENCES x
        DEFERRABLE INITIALLY DEFERRED); BEGIN; INSERT INTO x VALUES(1, 2);
        INSERT INTO p VALUES(2); INSERT INTO c VALUES(2, 2, 'new')";
    b.conn.execute_batch(schema).expect(schema);
    let inside = b.digest();
    let end = "INSERT INTO x VALUES(2, 2); COMMIT";
    b.conn.execute_batch(end).expect(end);
    assert_eq!(b.digest(), inside);
    assert_eq!(b.rows(ROWS), ["1|1|1", "2|2|2"]);
}
