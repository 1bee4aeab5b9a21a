//! Tables that are untracked and tracked again go on with their rows.

use super::*;

const ROWS: &str =
    "INSERT INTO t VALUES('1', 'a', 'x'), ('2', 'b', 'x'), ('3', 'c', 'x'), ('4', 'd', 'x')";

fn two(schema: &str) -> [Replica; 2] {
    let mut a = replica(schema, &["t"]);
    a.run(ROWS)
        .run("DELETE FROM t WHERE id = '4'")
        .run("INSERT INTO t VALUES('4', 'second', 'life')");
    let mut b = replica("", &[]);
    b.pull(&a);
    b.now = a.now;
    [a, b]
}

impl Replica {
    fn untrack(&self) {
        untrack(&self.conn, "t", self.now).expect("untrack");
    }

    fn track(&mut self) {
        self.now += 10;
        track(&self.conn, "t", &TableOptions::default(), self.now).expect("track");
    }

    fn all(&self) -> Vec<String> {
        self.rows("SELECT id || a || b FROM t ORDER BY id")
    }
}

#[test]
fn what_was_deleted_and_written_while_a_table_was_untracked_counts_when_it_is_tracked_again() {
    for (kind, schema) in ALL_KINDS {
        let mut both = two(schema);
        both[1].untrack();
        assert_eq!(tracked_tables(&both[1].conn).expect("names"), [""; 0]);
        assert_eq!(both[1].aside(), []);
        both[1].run(
            "DELETE FROM t WHERE id = '1'; UPDATE t SET a = 'here' WHERE id = '2';
             INSERT INTO t VALUES('5', 'new', 'x'); DELETE FROM t WHERE id = '4';
             INSERT INTO t VALUES('4', 'third', 'x')",
        );
        assert_eq!(pending_count(&both[1].conn).expect("count"), 0, "{kind}");
        both[0].now += 5;
        both[0].run("UPDATE t SET b = 'there' WHERE id IN ('2', '3')");
        let (a, b) = both.split_at_mut(1);
        b[0].pull(&a[0]);
        a[0].pull(&b[0]);
        assert_eq!(b[0].rows("SELECT b FROM t WHERE id = '3'"), ["x"], "{kind}");
        both[1].track();
        converge(&mut both);
        for replica in &both {
            let rows = ["2herethere", "3cthere", "4thirdx", "5newx"];
            assert_eq!(replica.all(), rows, "{kind}");
        }
    }
}

#[test]
fn a_table_that_was_not_touched_while_it_was_untracked_has_nothing_new() {
    for (kind, schema) in ALL_KINDS {
        let [a, mut b] = two(schema);
        let before = (b.digest(), b.seen());
        b.untrack();
        b.conn.execute_batch("VACUUM").expect("vacuum");
        b.track();
        assert_eq!((b.digest(), b.seen()), before, "{kind}");
        assert_eq!(a.digest(), b.digest(), "{kind}");
        let left = "SELECT name FROM sqlite_master WHERE name LIKE 'syncline_untracked%'";
        assert_eq!(b.rows(left), [""; 0], "{kind}");
    }
}

#[test]
fn rows_go_on_where_columns_were_dropped_and_added_while_a_table_was_untracked() {
    for (kind, schema) in ALL_KINDS {
        let mut both = two(schema);
        for replica in &mut both {
            replica.untrack();
            replica.run("ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD COLUMN c DEFAULT 7");
            replica.track();
        }
        both[0].run("UPDATE t SET c = 8 WHERE id = '1'");
        both[1].run("DELETE FROM t WHERE id = '2'");
        converge(&mut both);
        for replica in &both {
            let rows = replica.rows("SELECT id || a || c FROM t ORDER BY id");
            assert_eq!(rows, ["1a8", "3c7", "4second7"], "{kind}");
        }
    }
}

#[test]
fn a_table_that_is_untracked_and_dropped_is_made_again_when_it_arrives_whole() {
    for (kind, schema) in ALL_KINDS {
        let [a, mut b] = two(schema);
        b.untrack();
        b.run("DROP TABLE t");
        let all = export(&a.conn, &VersionVector::new(), a.now).expect("export");
        import_changeset(&b.conn, &all, b.now).expect("import");
        assert_eq!(a.all(), b.all(), "{kind}");
        assert_eq!(a.digest(), b.digest(), "{kind}");
        leave(&b.conn).expect("leave");
        let left = "SELECT name FROM sqlite_master WHERE name LIKE '%syncline%'";
        assert_eq!(b.rows(left), [""; 0], "{kind}");
    }
}

#[test]
fn a_deletion_that_waits_while_a_table_is_untracked_may_be_forgotten_meanwhile() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema);
        b.untrack();
        b.run("UPDATE t SET a = 'here' WHERE id IN ('2', '3')");
        a.run("DELETE FROM t WHERE id IN ('1', '2', '4'); INSERT INTO t VALUES('5', 'e', 'x')");
        b.pull(&a);
        collect(&a.conn, &[b.seen()], a.now).expect("collect");
        a.run("INSERT INTO t VALUES('4', 'anew', 'x')");
        b.pull(&a);
        b.now = a.now;
        b.track();
        let mut both = [a, b];
        converge(&mut both);
        for replica in &both {
            assert_eq!(replica.all(), ["3herex", "4anewx", "5ex"], "{kind}");
        }
    }
}

#[test]
fn a_table_that_was_dropped_and_made_anew_while_it_was_untracked_deletes_no_row() {
    for (kind, schema) in ALL_KINDS {
        let mut both = two(schema);
        let [a, b] = &mut both;
        b.untrack();
        b.run(&format!(
            "DROP TABLE t; {schema}; INSERT INTO t VALUES('5', 'new', 'x'), ('2', 'here', 'x')"
        ));
        a.run("UPDATE t SET a = 'there' WHERE id = '3'");
        b.pull(a);
        b.now = a.now + 10;
        b.track();
        a.pull(b);
        let rows = ["1ax", "2herex", "3therex", "4secondlife", "5newx"];
        assert_eq!(a.all(), rows, "{kind}");
        let seen = crate::gaps::asking(&b.conn).expect("seen");
        let missing = export_to(&a.conn, &seen, a.now).expect("export");
        import_changeset(&b.conn, &missing, b.now).expect("import");
        assert_eq!(b.all(), rows, "{kind}");
        converge(&mut both);
    }
}

/// Also from a whole export, as from somebody who has lost something.
#[test]
fn a_table_that_was_untracked_is_not_tracked_by_what_arrives() {
    let mut both = two(ALL_KINDS[0].1);
    both[1].untrack();
    both[1].run("INSERT INTO t VALUES('9', 'private', 'x')");
    both[0].run("INSERT INTO t VALUES('7', 'shared', 'x')");
    let whole = export(&both[0].conn, &VersionVector::new(), both[0].now).expect("export");
    import_changeset(&both[1].conn, &whole, both[0].now).expect("import");
    assert_eq!(tracked_tables(&both[1].conn).expect("names"), [""; 0]);
    let (a, b) = both.split_at_mut(1);
    a[0].pull(&b[0]);
    assert_eq!(a[0].rows("SELECT count(*) FROM t WHERE id = '9'"), ["0"]);
    both[1].track();
    converge(&mut both);
    for replica in &both {
        assert_eq!(
            replica.rows("SELECT a FROM t WHERE id > '6' ORDER BY id"),
            ["shared", "private"]
        );
    }
}

#[test]
fn a_table_that_was_untracked_is_the_same_when_it_is_renamed_elsewhere() {
    for is_known in [false, true] {
        let mut both = two(ALL_KINDS[0].1);
        let rename = |both: &mut [Replica]| {
            both[0].run("ALTER TABLE t RENAME TO tasks");
        };
        if is_known {
            rename(&mut both);
            let (a, b) = both.split_at_mut(1);
            b[0].pull(&a[0]);
        }
        both[1].untrack();
        if !is_known {
            rename(&mut both);
        }
        both[0].run("INSERT INTO tasks VALUES('7', 'shared', 'x')");
        both[1].run("INSERT INTO t VALUES('9', 'private', 'x')");
        let whole = export(&both[0].conn, &VersionVector::new(), both[0].now).expect("export");
        import_changeset(&both[1].conn, &whole, both[0].now).expect("import");
        let made = "SELECT count(*) FROM sqlite_master WHERE name = 'tasks'";
        assert_eq!(both[1].rows(made), ["0"]);
        both[1].now = both[0].now;
        both[1].track();
        let (a, b) = both.split_at_mut(1);
        b[0].pull(&a[0]);
        a[0].pull(&b[0]);
        let late = "WHERE id > '6' ORDER BY id";
        assert_eq!(
            b[0].rows(&format!("SELECT a FROM t {late}")),
            ["shared", "private"]
        );
        assert_eq!(
            a[0].rows(&format!("SELECT a FROM tasks {late}")),
            ["shared", "private"]
        );
    }
}
