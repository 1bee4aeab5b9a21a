//! What a user sees of unique indices: they hold on every replica, and no row is lost to one.

use rusqlite::functions::FunctionFlags;

use super::*;

/// A schema with a table `p` of each kind of key, whose ids are texts of digits.
fn kinds(columns: &str) -> [(&'static str, String); 3] {
    [
        (
            "integer key",
            format!("CREATE TABLE p(id INTEGER PRIMARY KEY, {columns})"),
        ),
        (
            "text key",
            format!("CREATE TABLE p(id TEXT PRIMARY KEY, {columns})"),
        ),
        (
            "without rowid",
            format!("CREATE TABLE p(id TEXT PRIMARY KEY, {columns}) WITHOUT ROWID"),
        ),
    ]
}

const CONFLICTS: &str = "SELECT table_name, key, row, constraint_name, reason, winner_table,
    winner, since FROM syncline_conflicts ORDER BY table_name, key";
const KEYS: &str = "SELECT key || winner FROM syncline_conflicts ORDER BY key";

impl Replica {
    fn shown(&self) -> Vec<String> {
        self.rows("SELECT * FROM p ORDER BY id")
    }

    fn write(&mut self, sql: &str) -> &mut Self {
        self.now += 1_000;
        self.run(sql)
    }
}

/// Starts replicas from one that has run `start`.
fn replicas<const COUNT: usize>(schema: &str, start: &str) -> [Replica; COUNT] {
    // The same id is the same row, whatever the kind of the key.
    let mut first = replica_of(schema, &["p"], &with_ids(Ids::Shared));
    first.run(start);
    let mut all = Vec::new();
    for _ in 1..COUNT {
        let mut other = replica("", &[]);
        other.pull(&first);
        all.push(other);
    }
    all.insert(0, first);
    all.try_into().ok().expect("as many as were made")
}

/// Exchanges everything, and checks that all replicas show the same and keep their constraints.
#[track_caller]
fn settle(replicas: &mut [Replica]) {
    converge(replicas);
    for replica in &*replicas {
        assert_eq!(replica.shown(), replicas[0].shown());
        assert_eq!(replica.rows(CONFLICTS), replicas[0].rows(CONFLICTS));
        assert_eq!(replica.rows("PRAGMA integrity_check"), ["ok"]);
    }
}

#[test]
fn two_devices_insert_the_same_unique_value() {
    for (kind, schema) in kinds("mail TEXT UNIQUE, name TEXT") {
        let mut both: [Replica; 2] = replicas(&schema, "");
        both[0].write("INSERT INTO p VALUES('1', 'x@x', 'alice')");
        both[1].now = both[0].now + 5;
        both[1].write("INSERT INTO p VALUES('2', 'x@x', 'bob')");
        settle(&mut both);
        assert_eq!(both[0].shown(), ["1|x@x|alice"], "{kind}");
        let [listed] = &both[1].rows(CONFLICTS)[..] else {
            panic!("one row is parked: {kind}");
        };
        let id = |number: &str| match kind {
            "integer key" => number.to_owned(),
            _ => format!("\"{number}\""),
        };
        let (one, two) = (id("1"), id("2"));
        let expected = format!(
            "p|{{\"id\":{two}}}|{{\"id\":{two},\"mail\":\"x@x\",\"name\":\"bob\"}}|UNIQUE (mail)|\
             the row {{\"id\":{one}}} claimed the same values earlier|p|{{\"id\":{one}}}|20"
        );
        assert!(listed.starts_with(&expected), "{kind}: {listed}");
        // What happens to a parked row is not lost, and it comes back when it can.
        both[0].write("UPDATE p SET mail = 'y@y' WHERE id = '1'");
        settle(&mut both);
        assert_eq!(both[0].shown(), ["1|y@y|alice", "2|x@x|bob"], "{kind}");
        assert_eq!(both[1].rows(CONFLICTS), [""; 0], "{kind}");
        both[1].write("UPDATE p SET mail = 'z@z'  WHERE id = '2'");
        both[0].write("UPDATE p SET mail = 'z@z'  WHERE id = '1'");
        settle(&mut both);
        assert_eq!(both[0].shown().len(), 1, "{kind}");
        both[0].write("DELETE FROM p");
        settle(&mut both);
        assert_eq!(both[0].shown().len(), 1, "{kind}");
        assert_eq!(both[0].rows(KEYS), [""; 0], "{kind}");
    }
}

#[test]
fn a_parked_row_takes_edits_and_its_deletion() {
    for (kind, schema) in kinds("mail TEXT UNIQUE, name TEXT") {
        let mut all: [Replica; 3] = replicas(&schema, "");
        all[1].write("INSERT INTO p VALUES('2', 'x', 'bob')");
        let [a, b, c] = &mut all;
        c.pull(b);
        c.now = b.now + 10;
        a.now = b.now - 500;
        a.run("INSERT INTO p VALUES('1', 'x', 'alice')");
        b.pull(a);
        assert_eq!(b.shown(), ["1|x|alice"], "{kind}");
        // C still shows the row that is parked at B.
        c.write("UPDATE p SET name = 'robert' WHERE id = '2'");
        b.pull(c);
        assert!(b.rows(CONFLICTS)[0].contains("robert"), "{kind}");
        settle(&mut all);
        let [a, b, c] = &mut all;
        assert_eq!(c.shown(), ["1|x|alice"], "{kind}");
        // A replica that comes new gets the parked row too.
        let mut d = replica("", &[]);
        d.pull(a);
        assert_eq!(d.rows(CONFLICTS), b.rows(CONFLICTS), "{kind}");
        assert_eq!(d.digest(), a.digest(), "{kind}");
        // The same key again, here: the row that was parked is written over.
        a.write("INSERT INTO p VALUES('2', 'other', 'bobby')");
        assert_eq!(a.shown(), ["1|x|alice", "2|other|bobby"], "{kind}");
        settle(&mut all);
        assert_eq!(all[1].rows(KEYS), [""; 0], "{kind}");
        all[1].write("UPDATE p SET mail = 'x' WHERE mail = 'none'; DELETE FROM p WHERE id = '2'");
        settle(&mut all);
        assert_eq!(all[2].shown(), ["1|x|alice"], "{kind}");
    }
}

#[test]
fn a_deletion_elsewhere_ends_a_parked_row() {
    for (kind, schema) in kinds("mail TEXT UNIQUE, name TEXT") {
        let mut all: [Replica; 3] = replicas(&schema, "");
        let [a, b, c] = &mut all;
        a.write("INSERT INTO p VALUES('1', 'x', 'alice')");
        c.now = a.now + 10;
        c.write("INSERT INTO p VALUES('2', 'x', 'bob')");
        b.pull(a).pull(c);
        assert_eq!(b.rows(KEYS).len(), 1, "{kind}");
        c.write("DELETE FROM p WHERE id = '2'");
        b.pull(c);
        assert_eq!(b.rows(KEYS), [""; 0], "{kind}");
        settle(&mut all);
        assert_eq!(all[2].shown(), ["1|x|alice"], "{kind}");
        all[1].write("DELETE FROM p");
        settle(&mut all);
        assert_eq!(all[0].shown(), [""; 0], "{kind}");
    }
}

#[test]
fn rows_may_swap_their_values_and_pass_them_on() {
    for (kind, schema) in kinds("u INTEGER UNIQUE") {
        let start = "INSERT INTO p VALUES('1', 1), ('2', 2), ('3', 3), ('4', 4)";
        let mut both: [Replica; 2] = replicas(&schema, start);
        both[0].write(
            "BEGIN; UPDATE p SET u = -u; UPDATE p SET u = CASE id
             WHEN '1' THEN 2 WHEN '2' THEN 3 WHEN '3' THEN 1 ELSE 4 END; COMMIT",
        );
        let [a, b] = &mut both;
        b.pull(a);
        assert_eq!(b.shown(), ["1|2", "2|3", "3|1", "4|4"], "{kind}");
        assert_eq!(b.rows(KEYS), [""; 0], "{kind}");
        settle(&mut both);
        let [a, b] = &mut both;
        // A chain on one side, and a row that takes its place on the other.
        a.write("UPDATE p SET u = 9 WHERE id = '2'; UPDATE p SET u = 3 WHERE id = '1'");
        b.now = a.now + 7;
        b.write("UPDATE p SET u = 9 WHERE id = '4'");
        settle(&mut both);
        assert_eq!(both[0].shown(), ["1|3", "2|9", "3|1"], "{kind}");
        assert_eq!(both[0].rows(KEYS).len(), 1, "{kind}");
    }
}

#[test]
fn three_replicas_agree_in_every_order() {
    for (kind, schema) in kinds("a TEXT COLLATE NOCASE, b, UNIQUE(a), UNIQUE(b)") {
        let mut outcomes = Vec::new();
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let mut writers: [Replica; 3] = replicas(&schema, "");
            let mut reader = replica("", &[]);
            writers[0].write("INSERT INTO p VALUES('1', 'Mail', 1)");
            writers[1].now = writers[0].now;
            writers[1].write("INSERT INTO p VALUES('2', 'mAIL', 2), ('3', 'other', 3)");
            writers[2].now = writers[1].now;
            writers[2].write("INSERT INTO p VALUES('4', NULL, 2), ('5', 'OTHER', NULL)");
            for from in order {
                reader.pull(&writers[from]);
            }
            for from in order {
                reader.pull(&writers[from]);
            }
            assert_eq!(reader.rows("PRAGMA integrity_check"), ["ok"]);
            outcomes.push((reader.shown(), reader.rows(KEYS)));
        }
        let (shown, conflicts) = &outcomes[0];
        // Row 2 loses to row 1, so row 4 has its value; row 5 loses to row 3.
        assert_eq!(shown.len(), 3, "{kind}: {shown:?}");
        assert_eq!(conflicts.len(), 2, "{kind}: {conflicts:?}");
        assert!(
            outcomes.iter().all(|outcome| outcome == &outcomes[0]),
            "{kind}"
        );
    }
}

#[test]
fn partial_expression_and_generated_indices_hold() {
    for (kind, schema) in
        kinds("a TEXT, live INTEGER NOT NULL DEFAULT 1, g TEXT AS (substr(a, 1, 2)) VIRTUAL")
    {
        let schema = format!(
            "{schema}; CREATE UNIQUE INDEX by_a ON p(lower(a) /* as, typed */ DESC) WHERE live = 1;
             CREATE UNIQUE INDEX by_g ON p(g, live) WHERE live > 1"
        );
        let mut both: [Replica; 2] = replicas(&schema, "");
        both[0].write(
            "INSERT INTO p(id, a, live) VALUES('1', 'ABC', 1), ('2', 'abx', 2), ('6', 'q', 5)",
        );
        both[1].now = both[0].now;
        both[1].write(
            "INSERT INTO p(id, a, live)
             VALUES('3', 'abc', 1), ('4', 'abC', 0), ('5', 'aby', 2), ('7', 'q', 6)",
        );
        settle(&mut both);
        assert_eq!(
            both[0].rows("SELECT id FROM p ORDER BY id"),
            ["1", "2", "4", "6", "7"]
        );
        let listed = both[0].rows("SELECT constraint_name FROM syncline_conflicts ORDER BY key");
        assert_eq!(
            listed,
            [
                "by_a (lower(a)) WHERE live = 1",
                "by_g (g, live) WHERE live > 1"
            ],
            "{kind}"
        );
        both[1].write("UPDATE p SET live = 0 WHERE id = '1'; DELETE FROM p WHERE id = '2'");
        settle(&mut both);
        assert_eq!(both[0].rows(KEYS), [""; 0], "{kind}");
        assert_eq!(both[0].shown().len(), 6, "{kind}");
    }
}

#[test]
fn an_index_that_is_added_later_parks_and_one_that_is_dropped_brings_back() {
    for (kind, schema) in kinds("a TEXT, b TEXT") {
        let mut both: [Replica; 2] = replicas(&schema, "INSERT INTO p VALUES('1', 'x', 'one')");
        let index = "CREATE UNIQUE INDEX by_a ON p(a)";
        both[0].run(index);
        both[1].write("INSERT INTO p VALUES('2', 'x', 'two')");
        let [a, b] = &mut both;
        a.pull(b);
        assert_eq!(a.shown(), ["1|x|one"], "{kind}");
        b.pull(a);
        assert_eq!(a.digest(), b.digest(), "{kind}");
        // The row that is parked at A is written over the same key by nobody: B edits it.
        b.write("UPDATE p SET b = 'zwei' WHERE id = '2'");
        a.pull(b);
        assert_eq!(a.digest(), b.digest(), "{kind}");
        a.run("ALTER TABLE p ADD COLUMN c DEFAULT 'new'");
        b.run("ALTER TABLE p ADD COLUMN c DEFAULT 'new'");
        assert_eq!(a.digest(), b.digest(), "{kind}");
        a.write("REPLACE INTO p VALUES('3', 'x', 'three', 'c')");
        assert_eq!(a.shown(), ["2|x|zwei|new"], "{kind}");
        b.pull(a);
        assert_eq!(a.digest(), b.digest(), "{kind}");
        a.run("DROP INDEX by_a");
        settle(&mut both);
        assert_eq!(both[1].shown(), ["2|x|zwei|new", "3|x|three|c"], "{kind}");
    }
}

#[test]
fn a_row_that_replace_deletes_through_an_index_is_deleted_everywhere() {
    for (kind, schema) in kinds("a TEXT UNIQUE, b INTEGER, c TEXT") {
        for (recursive, index) in [
            ("OFF", "CREATE UNIQUE INDEX i ON p(b, lower(c)) WHERE b > 0"),
            ("ON", "CREATE UNIQUE INDEX i ON p(b, lower(c)) WHERE b > 0"),
            ("OFF", "CREATE UNIQUE INDEX i ON p(b, c COLLATE NOCASE)"),
            (
                "OFF",
                "ALTER TABLE p ADD COLUMN g TEXT AS (lower(c)); CREATE UNIQUE INDEX i ON p(g, b)",
            ),
        ] {
            let schema = format!("{schema}; {index}");
            let mut both: [Replica; 2] = replicas(&schema, "");
            both[0].run(&format!("PRAGMA recursive_triggers = {recursive}"));
            for step in [
                "INSERT INTO p VALUES('1', 'x', 1, 'k'), ('2', 'y', 2, 'k'), ('3', 'z', 3, 'k')",
                "REPLACE INTO p VALUES('4', 'x', 4, 'k')",
                "REPLACE INTO p VALUES('5', 'new', 2, 'K')",
                "UPDATE OR REPLACE p SET a = 'z', b = 4, c = 'K' WHERE id = '5'",
                "INSERT INTO p VALUES('6', 's', 6, 't'), ('7', 't', 7, 't'), ('8', 'u', 8, 't')",
                "REPLACE INTO p VALUES('9', 's', 7, 'T')",
                "INSERT OR IGNORE INTO p VALUES('10', 's', 10, 't')",
                "INSERT INTO p VALUES('11', 's', 11, 't') ON CONFLICT DO NOTHING",
                "INSERT INTO p VALUES('12', 's', 12, 't') ON CONFLICT(a) DO UPDATE SET b = 12",
                "UPDATE p SET a = a || '!', c = upper(c)",
                "UPDATE OR IGNORE p SET a = 's!!'",
                "BEGIN; REPLACE INTO p VALUES('20', 's!!', 20, 'r'); ROLLBACK",
                "UPDATE OR REPLACE p SET id = '30', a = 'u!' WHERE id = '9'",
            ] {
                both[0].run(step);
                let [a, b] = &mut both;
                b.pull(a);
                assert_eq!(a.shown(), b.shown(), "{kind}, {recursive}: {step}");
                assert_eq!(a.digest(), b.digest(), "{kind}, {recursive}: {step}");
            }
            assert_eq!(both[1].rows(KEYS), [""; 0], "{kind}");
        }
    }
}

#[test]
fn a_conflict_clause_of_the_table_does_not_act_on_merged_rows() {
    for clause in ["REPLACE", "IGNORE", "ROLLBACK", "FAIL"] {
        for (kind, schema) in kinds(&format!("a TEXT UNIQUE ON CONFLICT {clause}, b")) {
            let mut both: [Replica; 2] = replicas(&schema, "");
            both[0].write("INSERT INTO p VALUES('1', 'x', 1), ('3', 'y', 3)");
            both[1].now = both[0].now;
            both[1].write("INSERT INTO p VALUES('2', 'x', 2)");
            settle(&mut both);
            assert_eq!(both[0].shown(), ["1|x|1", "3|y|3"], "{kind}, {clause}");
            assert_eq!(both[0].rows(KEYS).len(), 1, "{kind}, {clause}");
            both[0].write("INSERT INTO p VALUES('4', 'new', 4)");
            settle(&mut both);
            assert_eq!(both[1].shown().len(), 3, "{kind}, {clause}");
        }
    }
}

#[test]
fn values_are_equal_as_the_index_says() {
    for (column, first, second, is_equal) in [
        ("a UNIQUE", "1", "1.0", true),
        ("a UNIQUE", "1", "'1'", false),
        ("a INTEGER UNIQUE", "1", "'1'", true),
        ("a TEXT UNIQUE", "1", "'1'", true),
        ("a UNIQUE", "x'61'", "'a'", false),
        ("a UNIQUE", "NULL", "NULL", false),
        ("a COLLATE NOCASE UNIQUE", "'É'", "'é'", false),
        ("a COLLATE NOCASE UNIQUE", "'É'", "'É'", true),
        ("a COLLATE RTRIM UNIQUE", "'a'", "'a  '", true),
        ("a UNIQUE", "9007199254740993", "9007199254740992.0", false),
        (
            "a UNIQUE",
            "1152921504606846976",
            "1152921504606846976.0",
            true,
        ),
    ] {
        for (kind, schema) in kinds(column) {
            let mut both: [Replica; 2] = replicas(&schema, "");
            both[0].write(&format!("INSERT INTO p VALUES('1', {first})"));
            both[1].now = both[0].now;
            both[1].write(&format!("INSERT INTO p VALUES('2', {second})"));
            settle(&mut both);
            let parked = both[0].rows(KEYS).len();
            assert_eq!(
                parked,
                usize::from(is_equal),
                "{kind}: {column}: {first}, {second}"
            );
            // A third row that is equal to the second waits for both.
            both[1].write(&format!("INSERT OR IGNORE INTO p VALUES('3', {second})"));
            both[0].write("DELETE FROM p WHERE id = '1'");
            settle(&mut both);
            let shown = if second == "NULL" { 2 } else { 1 };
            assert_eq!(both[1].shown().len(), shown, "{kind}: {column}");
        }
    }
}

#[test]
fn a_second_import_changes_nothing_and_a_rebuilt_table_keeps_its_parked_rows() {
    for (kind, schema) in kinds("a TEXT UNIQUE, b") {
        let mut both: [Replica; 2] = replicas(&schema, "");
        both[0].write("INSERT INTO p VALUES('1', 'x', 1)");
        both[1].now = both[0].now;
        both[1].write("INSERT INTO p VALUES('2', 'x', 2)");
        settle(&mut both);
        let (digest, clocks) = (both[0].digest(), both[0].clock_entries());
        let everything = export(&both[1].conn, &VersionVector::new(), both[1].now).expect("export");
        let now = both[1].now;
        let report = import_changeset(&both[0].conn, &everything, now).expect("import");
        assert_eq!(report.changed_count, 0, "{kind}");
        assert_eq!(
            (both[0].digest(), both[0].clock_entries()),
            (digest, clocks),
            "{kind}"
        );
        let copy = schema.replace("TABLE p(", "TABLE copy(");
        both[0].write(&format!(
            "{copy}; INSERT INTO copy SELECT * FROM p; DROP TABLE p; ALTER TABLE copy RENAME TO p"
        ));
        settle(&mut both);
        assert_eq!(both[0].rows(KEYS).len(), 1, "{kind}");
        // Rows of a table that was rebuilt count as written then, so the other claim is earlier.
        assert_eq!(both[1].shown(), ["2|x|2"], "{kind}");
        both[0].write("DELETE FROM p");
        settle(&mut both);
        assert_eq!(both[1].shown(), ["1|x|1"], "{kind}");
    }
}

#[test]
fn rows_that_are_parked_when_a_table_is_untracked_stay_listed() {
    for (kind, schema) in kinds("a TEXT UNIQUE, b") {
        let mut both: [Replica; 2] = replicas(&schema, "");
        both[0].write("INSERT INTO p VALUES('1', 'x', 1)");
        both[1].now = both[0].now;
        both[1].write("INSERT INTO p VALUES('2', 'x', 2)");
        settle(&mut both);
        let (listed, keys) = (both[0].rows(CONFLICTS), both[0].rows(KEYS));
        untrack(&both[0].conn, "p", both[0].now).expect("untrack");
        assert_eq!(both[0].rows(CONFLICTS), listed, "{kind}");
        leave(&both[1].conn).expect("leave");
        let left = CONFLICTS.replace("syncline_conflicts", "syncline_left_behind");
        assert_eq!(both[1].rows(&left), listed, "{kind}");
        let ours = "SELECT name FROM sqlite_master WHERE name LIKE '%syncline_parked%'";
        assert_eq!(both[1].rows(ours), [""; 0], "{kind}");
        track(&both[0].conn, "p", &TableOptions::default(), both[0].now).expect("track");
        assert_eq!(both[0].rows(KEYS), keys, "{kind}");
        both[0].write("DELETE FROM p WHERE id = '1'");
        assert_eq!(both[0].rows("SELECT id FROM p"), ["2"], "{kind}");
    }
}

#[test]
fn an_index_that_only_the_application_can_read_is_an_obstacle() {
    let conn = Connection::open_in_memory().expect("SQLite opens in memory");
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    conn.create_scalar_function("mine", 1, flags, |context| context.get::<i64>(0))
        .expect("a function");
    conn.execute_batch(
        "CREATE TABLE p(id INTEGER PRIMARY KEY, a); CREATE UNIQUE INDEX p_a ON p(mine(a));
         CREATE TABLE q(id INTEGER PRIMARY KEY, a, b UNIQUE); CREATE INDEX q_a ON q(mine(a));",
    )
    .expect("the schema runs");
    let error = track(&conn, "p", &TableOptions::default(), NOW).expect_err("refused");
    assert!(
        error.to_string().contains("unique index on (mine(a))"),
        "{error}"
    );
    track(&conn, "q", &TableOptions::default(), NOW).expect("the other index admits all rows");
}

#[test]
fn a_replica_that_joins_again_drops_parked_rows_that_are_forgotten() {
    for (kind, schema) in kinds("a TEXT UNIQUE, b") {
        let mut all: [Replica; 3] = replicas(&schema, "");
        let [a, b, c] = &mut all;
        a.write("INSERT INTO p VALUES('1', 'x', 1), ('5', 'y', 5)");
        b.now = a.now;
        b.write("INSERT INTO p VALUES('2', 'x', 2), ('3', 'y', 3)");
        b.pull(a);
        c.pull(b);
        a.pull(b);
        assert_eq!(c.rows(KEYS).len(), 2, "{kind}");
        a.write("DELETE FROM p WHERE id = '5'");
        b.pull(a);
        // Row 2 was never shown at C; row 5 stands against row 3 there.
        b.now = a.now;
        b.write("DELETE FROM p WHERE id = '1'");
        b.write("DELETE FROM p WHERE id = '2'");
        a.pull(b);
        let seen = [b.seen()];
        let forgotten = collect(&a.conn, &seen, a.now).expect("collect");
        assert!(forgotten > 0, "{kind}");
        c.write("INSERT INTO p VALUES('9', 'own', 9)");
        let everything = export(&a.conn, &VersionVector::new(), a.now).expect("export");
        import_changeset(&c.conn, &everything, a.now.max(c.now)).expect("import");
        assert_eq!(c.shown(), ["3|y|3", "9|own|9"], "{kind}");
        assert_eq!(c.rows(KEYS), [""; 0], "{kind}");
        settle(&mut all);
    }
}
