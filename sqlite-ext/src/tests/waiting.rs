//! Changes that wait for a table or a column lie in the database once, however often they arrive.

use super::*;

impl Replica {
    /// Takes everything that another replica has.
    fn pull_all(&mut self, from: &Replica) {
        let all = export(&from.conn, &VersionVector::new(), from.now).expect("export");
        let all = Changeset::decode(&all.encode()).expect("decode");
        self.now = self.now.max(from.now);
        import_changeset(&self.conn, &all, self.now).expect("import");
    }

    /// How many rows wait, and in how many entries.
    fn waiting(&self) -> (usize, usize) {
        let mut statement = self.conn.prepare("SELECT changes FROM syncline_parked");
        let statement = statement.as_mut().expect("the table is there");
        let all = statement.query_map([], |row| row.get(0)).expect("entries");
        let all: Vec<Vec<u8>> = all.collect::<Result<_, _>>().expect("entries");
        let decoded = all
            .iter()
            .map(|bytes| Changeset::decode(bytes).expect("ours"));
        (decoded.map(|changes| changes.rows_count()).sum(), all.len())
    }
}

const WAYS: [&str; 3] = [
    "ALTER TABLE t DROP COLUMN b",
    "DROP TABLE t",
    "SELECT syncline_untrack('t')",
];

#[test]
fn what_arrives_again_and_again_waits_once() {
    for (kind, schema) in ALL_KINDS {
        for way in WAYS {
            let mut a = replica(schema, &["t"]);
            a.run("INSERT INTO t VALUES('1', 'a', 'x'), ('2', 'b', 'y'), ('3', 'c', 'z')")
                .run("DELETE FROM t WHERE id = '3'")
                .run("INSERT INTO t VALUES('3', 'again', 'z')");
            let mut b = replica("", &[]);
            b.pull(&a);
            b.now = a.now;
            b.run(way);
            b.pull_all(&a);
            let waiting = b.waiting();
            assert!(waiting.1 > 0, "{kind}, {way}");
            for _ in 0..5 {
                b.pull_all(&a);
            }
            assert_eq!(b.waiting(), waiting, "{kind}, {way}");
            // A write to another column leaves the cell that waits in another group.
            let more = if way.starts_with("ALTER") { 0 } else { 1 };
            for at in 1..=3 {
                a.run(&format!("UPDATE t SET a = 'more {at}' WHERE id = '2'"));
                b.pull_all(&a);
                b.pull_all(&a);
                let (rows_count, _) = b.waiting();
                assert_eq!(rows_count, waiting.0 + at * more, "{kind}, {way}");
            }
            a.run("UPDATE t SET b = 'new' WHERE id = '1'");
            for _ in 0..3 {
                b.pull_all(&a);
            }
            let (rows_count, _) = b.waiting();
            assert_eq!(rows_count, waiting.0 + 3 * more + 1, "{kind}, {way}");
            // Nothing of it is lost; a table that is made anew would say which rows it leaves out.
            match way {
                "DROP TABLE t" => continue,
                "SELECT syncline_untrack('t')" => b.run("SELECT syncline_track('t')"),
                _ => b.run("ALTER TABLE t ADD COLUMN b TEXT"),
            };
            b.pull_all(&a);
            let all = "SELECT id, a, b FROM t ORDER BY id";
            assert_eq!(b.rows(all), a.rows(all), "{kind}, {way}");
        }
    }
}
