//! Who gets changes from a replica that dropped a table still gets the table from others.

use syncline_crdt::Part;

use super::*;
use crate::gaps::asking;

impl Replica {
    /// Takes what is new, and what it lacks of what it has seen.
    fn ask(&mut self, from: &Replica) -> Changeset {
        let seen = match is_prepared(&self.conn).expect("ours") {
            true => asking(&self.conn).expect("seen"),
            false => VersionVector::new().into(),
        };
        self.now = self.now.max(from.now);
        let changes = export_to(&from.conn, &seen, from.now).expect("export");
        let changes = Changeset::decode(&changes.encode()).expect("decode");
        import_changeset(&self.conn, &changes, self.now).expect("import");
        changes
    }

    fn gaps(&self) -> Vec<String> {
        self.rows(
            "SELECT rtrim(table_name || '.' || column_name, '.') FROM syncline_gaps ORDER BY 1",
        )
    }
}

/// A replica with two tables, and one that no longer has the first.
fn two(schema: &str, without: &str) -> [Replica; 2] {
    let mut a = replica(
        &format!("{schema}; CREATE TABLE u(id PRIMARY KEY)"),
        &["t", "u"],
    );
    a.run("INSERT INTO t VALUES('1', 'a', 'x'), ('2', 'b', 'x'); INSERT INTO u VALUES(1)")
        .run("DELETE FROM t WHERE id = '2'")
        .run("INSERT INTO t VALUES('2', 'second', 'life'), ('3', 'c', 'x')")
        .run("DELETE FROM t WHERE id = '3'");
    let mut b = replica("", &[]);
    b.ask(&a);
    b.now = a.now;
    b.run(without);
    [a, b]
}

const WAYS: [&str; 2] = ["DROP TABLE t", "SELECT syncline_untrack('t')"];

#[test]
fn a_newcomer_gets_from_others_what_the_first_one_dropped() {
    for (kind, schema) in ALL_KINDS {
        for without in WAYS {
            let [mut a, b] = two(schema, without);
            let mut c = replica("", &[]);
            assert!(c.ask(&b).lacking.contains_key(&Part::whole("t")), "{kind}");
            assert_eq!(c.rows("SELECT id FROM u"), ["1"], "{kind}");
            assert_eq!(c.gaps(), ["t"], "{kind}");
            // Who learns of it all from there knows as much.
            let mut d = replica("", &[]);
            assert!(d.ask(&c).lacking.contains_key(&Part::whole("t")), "{kind}");
            a.run("UPDATE t SET a = 'later' WHERE id = '1'");
            for replica in [&mut c, &mut d] {
                replica.ask(&a);
                assert_eq!(replica.gaps(), [""; 0], "{kind}");
                assert_eq!(
                    replica.rows("SELECT id || a FROM t ORDER BY id"),
                    ["1later", "2second"]
                );
                assert_eq!(replica.digest(), a.digest(), "{kind}, {without}");
            }
            let mut e = replica("", &[]);
            e.ask(&d);
            assert_eq!((e.gaps(), e.digest()), (vec![], a.digest()), "{kind}");
        }
    }
}

#[test]
fn a_gap_is_filled_from_where_it_begins_and_nothing_else_is_sent_again() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema, "SELECT 1");
        let mut c = replica("", &[]);
        c.ask(&a);
        a.run("INSERT INTO t VALUES('4', 'new', 'x'); DELETE FROM t WHERE id = '1'");
        b.ask(&a);
        b.run("DROP TABLE t; INSERT INTO u VALUES(2)");
        assert!(c.ask(&b).lacking.contains_key(&Part::whole("t")), "{kind}");
        assert_eq!(c.rows("SELECT id FROM t ORDER BY id"), ["1", "2"], "{kind}");
        let filling = c.ask(&a);
        assert_eq!(filling.rows_count(), 2, "{kind}");
        assert_eq!(c.gaps(), [""; 0], "{kind}");
        assert_eq!(c.rows("SELECT id FROM t ORDER BY id"), ["2", "4"], "{kind}");
        // Who has all of the table lacks nothing by what is new beside it.
        a.ask(&b);
        assert_eq!(a.gaps(), [""; 0], "{kind}");
        assert_eq!(a.digest(), c.digest(), "{kind}");
    }
}

#[test]
fn a_table_that_all_have_dropped_does_not_slow_the_rest() {
    let [a, mut b] = two(ALL_KINDS[0].1, "DROP TABLE t");
    drop(a);
    let mut c = replica("", &[]);
    c.ask(&b);
    b.run("INSERT INTO u VALUES(2)");
    assert_eq!(c.ask(&b).rows_count(), 1);
    c.run("INSERT INTO u VALUES(3)");
    assert_eq!(b.ask(&c).rows_count(), 1);
    assert_eq!(b.digest(), c.digest());
    assert_eq!(c.gaps(), ["t"]);
}

#[test]
fn what_somebody_lacks_of_a_table_is_not_forgotten_meanwhile() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema, "SELECT 1");
        let mut c = replica("", &[]);
        c.ask(&a);
        a.run("DELETE FROM t WHERE id = '1'");
        b.ask(&a);
        b.run("DROP TABLE t");
        c.ask(&b);
        let vectors = [&b, &c].map(|replica| {
            let vector = replica
                .conn
                .query_row("SELECT syncline_version_vector()", [], |row| row.get(0));
            let vector: Vec<u8> = vector.expect("a vector");
            vector
        });
        let collect = "SELECT syncline_collect(?1, ?2)";
        a.conn
            .query_row(collect, vectors, |_| Ok(()))
            .expect(collect);
        c.ask(&a);
        assert_eq!(c.rows("SELECT id FROM t"), ["2"], "{kind}");
        assert_eq!(c.digest(), a.digest(), "{kind}");
    }
}

const DROPPED: [&str; 2] = [
    "ALTER TABLE t DROP COLUMN b",
    "SELECT syncline_untrack('t'); ALTER TABLE t DROP COLUMN b; SELECT syncline_track('t')",
];

#[test]
fn a_newcomer_gets_from_others_the_column_that_the_first_one_dropped() {
    for (kind, schema) in ALL_KINDS {
        for dropped in DROPPED {
            let [mut a, mut b] = two(schema, dropped);
            let mut c = replica("", &[]);
            assert_eq!(c.ask(&b).lacking.len(), 1, "{kind}");
            let rows = ["1|a", "2|second"];
            assert_eq!(c.rows("SELECT * FROM t ORDER BY id"), rows, "{kind}");
            assert_eq!(c.gaps(), ["t.b"], "{kind}");
            c.ask(&a);
            assert_eq!(c.gaps(), [""; 0], "{kind}");
            // Who dropped it does not ask for it, until it has such a column again.
            a.run("UPDATE t SET b = 'later' WHERE id = '2'");
            assert_eq!(b.ask(&a).rows_count(), 1, "{kind}");
            c.ask(&a);
            assert_eq!(b.gaps(), ["t.b"], "{kind}");
            for replica in [&mut c, &mut b] {
                replica.run("ALTER TABLE t ADD COLUMN b TEXT DEFAULT 'd'");
                replica.ask(&a);
                let rows = ["1|a|x", "2|second|later"];
                assert_eq!(replica.rows("SELECT * FROM t ORDER BY id"), rows, "{kind}");
                assert_eq!(replica.digest(), a.digest(), "{kind}, {dropped}");
                assert_eq!(replica.gaps(), [""; 0], "{kind}");
            }
        }
    }
}

#[test]
fn a_table_is_had_from_who_dropped_a_column_of_it() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, b] = two(schema, "DROP TABLE t");
        a.run("ALTER TABLE t DROP COLUMN b");
        let mut c = replica("", &[]);
        c.ask(&b);
        c.ask(&a);
        assert_eq!(c.gaps(), ["t.b"], "{kind}");
        assert_eq!(c.rows("SELECT * FROM t"), ["1|a", "2|second"], "{kind}");
        assert_eq!(c.digest(), a.digest(), "{kind}");
        // Nobody has the column any more, and nothing is sent again for it.
        a.run("INSERT INTO t VALUES('5', 'new')");
        assert_eq!(c.ask(&a).rows_count(), 1, "{kind}");
        assert_eq!(c.digest(), a.digest(), "{kind}");
    }
}

#[test]
fn a_table_is_had_under_another_name_than_that_of_who_dropped_it() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, b] = two(schema, "DROP TABLE t");
        a.run("ALTER TABLE t RENAME TO renamed");
        let mut c = replica("", &[]);
        c.ask(&b);
        c.ask(&a);
        assert_eq!(c.gaps(), [""; 0], "{kind}");
        let rows = c.rows("SELECT id || a FROM renamed ORDER BY id");
        assert_eq!(rows, ["1a", "2second"], "{kind}");
        assert_eq!(c.digest(), a.digest(), "{kind}");
    }
}

#[test]
fn a_table_with_counted_ids_or_policies_is_had_from_another_too() {
    let options = [
        with_ids(Ids::Counted),
        TableOptions::parse("{\"columns\": {\"a\": \"counter\"}}").expect("options"),
    ];
    for options in options {
        let schema =
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER); CREATE TABLE u(id PRIMARY KEY)";
        let mut a = replica_of(schema, &["t"], &options);
        track(&a.conn, "u", &TableOptions::default(), a.now).expect("tracked");
        a.run("INSERT INTO t VALUES(1, 1), (2, 1); INSERT INTO u VALUES(1)");
        let mut b = replica("", &[]);
        b.ask(&a);
        let mut late = replica("", &[]);
        late.ask(&a);
        a.run("UPDATE t SET a = a + 1 WHERE id = 1");
        b.ask(&a);
        b.run("SELECT syncline_untrack('t')");
        let mut c = replica("", &[]);
        for replica in [&mut c, &mut late] {
            replica.ask(&b);
            assert_eq!(replica.gaps(), ["t"], "{options:?}");
            replica.ask(&a);
            assert_eq!(replica.rows("SELECT * FROM t"), ["1|2", "2|1"]);
            assert_eq!(replica.digest(), a.digest(), "{options:?}");
        }
    }
}

#[test]
fn a_gap_that_is_filled_twice_brings_no_forgotten_row_back() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema, "DROP TABLE t");
        let mut c = replica("", &[]);
        c.ask(&b);
        let gaps = asking(&c.conn).expect("seen");
        let stale = export_to(&a.conn, &gaps, a.now).expect("export");
        c.ask(&a);
        a.run("DELETE FROM t WHERE id = '1'");
        b.ask(&a);
        c.ask(&a);
        collect(&a.conn, &[b.seen(), c.seen()], a.now).expect("collect");
        c.ask(&a);
        import_changeset(&c.conn, &stale, c.now).expect("import");
        assert_eq!(c.rows("SELECT id FROM t"), ["2"], "{kind}");
        assert_eq!(c.digest(), a.digest(), "{kind}");
    }
}

/// Takes what others wrote themselves, as from their logs, in two parts where there are two.
fn from_logs(into: &mut Replica, from: &[&Replica]) {
    for replica in from {
        let site = site_id(&replica.conn).expect("a site");
        let mut after = Hlc::ZERO;
        while let Some(own) = export_own(&replica.conn, after, 1).expect("export") {
            after = own.until.version(site);
            into.now = into.now.max(replica.now);
            import_changeset(&into.conn, &own, into.now).expect("import");
        }
    }
}

#[test]
fn a_gap_is_filled_by_what_each_of_the_others_wrote_itself() {
    for (kind, schema) in ALL_KINDS {
        for is_collected in [false, true] {
            let [mut a, mut b] = two(schema, "SELECT 1");
            b.run("INSERT INTO t VALUES('6', 'from b', 'x'); UPDATE t SET a = 'b' WHERE id = '1'");
            let mut d = replica("", &[]);
            d.ask(&b);
            a.ask(&b);
            if is_collected {
                collect(&d.conn, &[a.seen(), b.seen()], a.now).expect("collect");
            }
            d.run("DROP TABLE t");
            let mut c = replica("", &[]);
            c.ask(&d);
            assert_eq!(c.gaps(), ["t"], "{kind}");
            from_logs(&mut c, &[&b]);
            assert_eq!(c.gaps(), ["t"], "{kind}: what a wrote is lacking");
            from_logs(&mut c, &[&a]);
            assert_eq!(c.gaps(), [""; 0], "{kind}");
            let rows = ["1b", "2second", "6from b"];
            assert_eq!(c.rows("SELECT id || a FROM t ORDER BY id"), rows, "{kind}");
            assert_eq!(c.digest(), a.digest(), "{kind}, {is_collected}");
        }
    }
}

/// A table that is made anew with another key.
const REKEYED: &str = "CREATE TABLE other(a TEXT PRIMARY KEY, id, b);
    INSERT INTO other SELECT a, id, b FROM t; DROP TABLE t; ALTER TABLE other RENAME TO t";

#[test]
fn what_was_written_under_a_former_key_is_had_from_others() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema, "SELECT 1");
        let (mut c, mut d) = (replica("", &[]), replica("", &[]));
        c.ask(&a);
        d.ask(&a);
        c.run("INSERT INTO t VALUES('6', 'of c', 'x'); UPDATE t SET b = 'c' WHERE id = '1'");
        b.ask(&c);
        a.ask(&c);
        b.run(REKEYED);
        // Both who has the former key and who has the new one from there are told of what lacks.
        let mut newcomer = replica("", &[]);
        for (replica, rows_count) in [(&mut d, 2), (&mut newcomer, 3)] {
            let lacking = replica.ask(&b).lacking;
            assert!(lacking.contains_key(&Part::whole("t")), "{kind}");
            assert_eq!(replica.gaps(), ["t"], "{kind}");
            let rows = replica.rows("SELECT id FROM t");
            assert_eq!(rows.len(), rows_count, "{kind}");
            replica.ask(&a);
            assert_eq!(replica.gaps(), [""; 0], "{kind}");
        }
        let all = "SELECT id, a, b FROM t ORDER BY id";
        assert_eq!(d.rows(all), a.rows(all), "{kind}");
        // What waits there is passed on.
        let mut e = replica(schema, &["t"]);
        e.ask(&newcomer);
        assert_eq!(e.rows(all), a.rows(all), "{kind}");
        // Who has the table under the new key lacks nothing of what was written since.
        b.run("INSERT INTO t VALUES('later', 7, 'x')");
        newcomer.ask(&b);
        assert_eq!(newcomer.rows(all), b.rows(all), "{kind}");
    }
}

#[test]
fn a_log_that_is_begun_anew_says_what_its_replica_had_dropped() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, b] = two(schema, "DROP TABLE t");
        a.ask(&b);
        let mut c = replica("", &[]);
        c.ask(&b);
        a.run("DROP TABLE t");
        from_logs(&mut c, &[&a]);
        assert_eq!(c.gaps(), ["t"], "{kind}");
    }
}
