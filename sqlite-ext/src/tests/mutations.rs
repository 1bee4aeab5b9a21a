//! What a hostile peer may send: valid changesets, changed at random with a valid checksum.
//!
//! `SYNCLINE_MUTATIONS` says how many, `SYNCLINE_MUTATIONS_SEED` begins elsewhere. A failure names
//! the seed that repeats it alone.

mod mutator;

use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;
use syncline_crdt::DRIFT_MS_MAX;

use super::content::content;
use super::*;
use mutator::mutated;

/// How many inputs the suite tries; a long run is a command.
const INPUTS_COUNT: u64 = 600;
/// After how many inputs a long run says how far it is.
const INPUTS_PER_LINE: u64 = 50_000;
/// After how many inputs the victim begins anew, so that junk does not pile up.
const INPUTS_PER_VICTIM: u64 = 200;

/// Tables of every kind of key, with what a peer's value could break.
const SCHEMA: &str = "
    CREATE TABLE number(id INTEGER PRIMARY KEY, a, b TEXT NOT NULL, c INTEGER NOT NULL DEFAULT 7);
    CREATE TABLE word(id TEXT PRIMARY KEY, a, b TEXT NOT NULL);
    CREATE TABLE pair(x, y BLOB, a INTEGER, PRIMARY KEY(x, y)) WITHOUT ROWID;
    CREATE TABLE exact(id INTEGER PRIMARY KEY, a INT, b REAL, c ANY) STRICT;
    CREATE TABLE bare(id REAL PRIMARY KEY);
    CREATE TABLE checked(id TEXT PRIMARY KEY, low INT CHECK(low > 0), twice INT AS (low * 2));
    CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES number(id), a);
    CREATE TABLE joined(id INTEGER PRIMARY KEY, n INTEGER, m, s TEXT, t TEXT, d TEXT);
    CREATE TABLE trip(id TEXT PRIMARY KEY, n INTEGER NOT NULL, seats INTEGER NOT NULL);
    CREATE INDEX number_by_a ON number(a);
    CREATE INDEX word_by_length ON word(length(b));
";
const TABLES: [&str; 5] = ["word", "pair", "exact", "bare", "checked"];
/// The policies of the table `joined`.
const POLICIES: &str = "{\"columns\": {\"n\": \"counter\", \"m\": \"max\", \"s\": \"set\",
    \"t\": \"text\", \"d\": \"document\"}}";
/// The policies of the table `trip`.
const COUNTERS: &str =
    "{\"columns\": {\"n\": \"counter\", \"seats\": {\"bounded_counter\": {\"floor\": 0}}}}";
const ROWS: &str = "
    INSERT INTO joined VALUES(1, 1, 1, '[1, 2]', 'a text', '{\"a\": [1, \"some prose\"]}');
    INSERT INTO number(id, a, b) VALUES(1, 1, 'one'), (2, x'00', 'two'), (-9, 1.5, 'minus');
    INSERT INTO word VALUES('a', 1, 'x'), ('b', NULL, 'y'), ('c', 2, 'z');
    INSERT INTO pair VALUES('x', x'01', 1), (2, x'', 2), (2.5, x'ff', 3);
    INSERT INTO exact VALUES(1, 1, 1.5, 'any'), (2, NULL, NULL, NULL);
    INSERT INTO bare VALUES(1.0), (2.5);
    INSERT INTO checked VALUES('k', 5), ('l', 6);
    INSERT INTO trip VALUES('a', 1, 10), ('b', 2, 20);
    INSERT INTO child VALUES(10, 1, 'of one'), (11, 2, 'of two'), (12, NULL, 'of none');
";

/// Gives a replica a fixed name: a seed repeats what happened.
fn name(replica: &Replica, number: u8) {
    let set = "UPDATE syncline_sites SET site_id = ?1 WHERE ordinal = 0";
    replica.conn.execute(set, [[number; 16]]).expect("a name");
}

/// A replica whose past has edits, deletions and second lives.
fn victim() -> Replica {
    let mut victim = replica(&format!("{SCHEMA}{ROWS}"), &[]);
    prepare(&victim.conn).expect("prepared");
    // First, since edits of texts are known by who made them.
    name(&victim, 1);
    let joining = TableOptions::parse(POLICIES).expect("options");
    let counting = TableOptions::parse(COUNTERS).expect("options");
    let plain = TABLES.map(|table| (table, TableOptions::default()));
    let counted = ["number", "child"].map(|table| (table, with_ids(Ids::Counted)));
    for (table, options) in plain
        .into_iter()
        .chain(counted)
        .chain([("joined", joining), ("trip", counting)])
    {
        track(&victim.conn, table, &options, NOW).expect("tracked");
    }
    for step in [
        "UPDATE joined SET n = n + 1, m = 2, s = '[2, 3]', t = 'a longer text', d = '{\"a\": [1]}'",
        "UPDATE number SET a = 2 WHERE id = 1; UPDATE word SET b = 'edited' WHERE id = 'b'",
        "DELETE FROM number WHERE id = -9; DELETE FROM word WHERE id = 'c'; DELETE FROM bare",
        "INSERT INTO word VALUES('c', 5, 'second life'); INSERT INTO bare VALUES(2.5)",
    ] {
        victim.run(step);
    }
    victim
}

/// Changesets that the victim would merge: all and parts of what a peer with a column and a table
/// of its own has, before and after it collected.
fn corpus() -> Vec<Changeset> {
    let victim = victim();
    let mut peer = replica("", &[]);
    prepare(&peer.conn).expect("prepared");
    name(&peer, 2);
    peer.pull(&victim);
    peer.now = victim.now;
    let known = peer.seen();
    peer.run("ALTER TABLE word ADD COLUMN late TEXT; UPDATE word SET late = 'l', a = 'p'")
        .run("CREATE TABLE extra(id TEXT PRIMARY KEY, a DEFAULT 'd'); INSERT INTO extra VALUES(1, 2)");
    track(&peer.conn, "extra", &TableOptions::default(), peer.now).expect("tracked");
    peer.run("DELETE FROM pair WHERE x = 2; INSERT INTO number(id, b) VALUES(5, 'p'), (6, 'p')")
        .run("INSERT INTO child(id, a) VALUES(13, 'p'); DELETE FROM child WHERE id = 11")
        .run("UPDATE exact SET c = 7; UPDATE child SET parent = 5; UPDATE checked SET low = 9")
        .run("UPDATE trip SET n = n - 5, seats = seats + 5; UPDATE trip SET seats = seats - 2")
        .run("UPDATE joined SET n = n - 2, m = 3, s = '[2]', t = 'my text', d = '{\"a\": [2]}'")
        .run("INSERT INTO joined VALUES(2, 1, 'x', '[]', 'new', '[]')")
        .run("ALTER TABLE pair RENAME COLUMN a TO renamed; UPDATE pair SET renamed = 'p'");
    let send = |peer: &Replica, since: &VersionVector| {
        export(&peer.conn, since, peer.now).expect("export")
    };
    let mut corpus = vec![
        send(&peer, &VersionVector::new()),
        send(&peer, &known),
        send(&victim, &VersionVector::new()),
    ];
    collect(&peer.conn, &[], peer.now).expect("collect");
    corpus.push(send(&peer, &VersionVector::new()));
    for whole in [0, 2] {
        let mut joined = corpus[whole].clone();
        joined.tables.retain(|table| table.name == "joined");
        corpus.push(joined);
    }
    let own = export_own(&peer.conn, Hlc::ZERO, 1_000).expect("export");
    corpus.extend(own);
    peer.run("DROP TABLE exact; ALTER TABLE word DROP COLUMN a");
    corpus.push(send(&peer, &VersionVector::new()));
    corpus
}

fn number(conn: &Connection, select: &str) -> i64 {
    conn.query_row(select, [], |row| row.get(0)).expect(select)
}

/// The victim is as good as before: it can be read, written, and its changes sent on.
fn check_health(victim: &Replica) {
    let conn = &victim.conn;
    // CHECKs of several columns may be broken by a merge; nothing else may.
    let mut statement = conn.prepare("PRAGMA integrity_check").expect("check");
    let problems = statement
        .query_map([], |row| row.get::<_, String>(0))
        .expect("check");
    for problem in problems {
        let problem = problem.expect("check");
        assert!(
            problem == "ok" || problem.starts_with("CHECK constraint failed"),
            "{problem}"
        );
    }
    conn.execute_batch(
        "SAVEPOINT health;
         REPLACE INTO number(id, a, b) VALUES(1, 'h', 'h'); UPDATE word SET a = 'h', b = 'h';
         UPDATE child SET a = 'h'; DELETE FROM child WHERE id = 10;
         DELETE FROM pair; UPDATE exact SET a = 8; REPLACE INTO bare VALUES(2.5);
         UPDATE joined SET n = n + 1, m = 'zz', s = '[9]', t = t || ' and more', d = '{}';
         UPDATE trip SET n = n - 1 WHERE n > -9223372036854775808;
         UPDATE trip SET seats = seats + 1 WHERE seats < 9223372036854775807;
         UPDATE checked SET low = 8; INSERT INTO word(id, b) VALUES('healthy', 'h')",
    )
    .expect("the victim is written to");
    fold(conn, victim.now).expect("fold");
    let healthy = replica("", &[]);
    let all = export(conn, &VersionVector::new(), victim.now).expect("export");
    let taken = import(&healthy.conn, &all.encode(), victim.now + DRIFT_MS_MAX);
    taken.expect("what the victim has can be merged elsewhere");
    if victim.digest() != healthy.digest() {
        let taken = export(&healthy.conn, &VersionVector::new(), victim.now).expect("export");
        let mut tables = all.tables.iter().zip(&taken.tables);
        panic!(
            "another replica has something else: {:?}",
            tables
                .find(|(here, there)| here != there)
                .map_or_else(|| format!("{all:?}\n{taken:?}"), |pair| format!("{pair:?}"))
        );
    }
    conn.execute_batch("ROLLBACK TO health; RELEASE health")
        .expect("the victim is as before");
}

/// Gives one input to the victim; returns whether it was merged.
fn attack(victim: &Replica, bytes: &[u8], thorough: bool) -> bool {
    let conn = &victim.conn;
    let before = thorough.then(|| content(conn));
    let merged = import(conn, bytes, victim.now);
    assert!(conn.is_autocommit(), "no transaction stays open");
    assert!(
        !format!("{:?}", merged.as_ref().err()).contains("locked"),
        "no lock stays"
    );
    let clock = number(conn, "SELECT value FROM syncline_meta WHERE key = 'clock'");
    let latest = Hlc::at_unix_ms(victim.now + DRIFT_MS_MAX + 1);
    assert!(
        clock.cast_unsigned() < latest.to_bits(),
        "the clock was driven to {clock}"
    );
    if let (Some(before), Err(error)) = (before, &merged) {
        assert!(
            before == content(conn),
            "it was refused and changed something: {error}"
        );
    }
    let below = "SELECT count(*) FROM trip WHERE seats < 0";
    assert_eq!(number(conn, below), 0, "a counter is below its floor");
    if thorough {
        check_health(victim);
    }
    merged.is_ok()
}

#[test]
fn mutations_of_changesets_are_merged_or_refused() {
    let setting = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let inputs_count = setting("SYNCLINE_MUTATIONS").unwrap_or(INPUTS_COUNT);
    let first = setting("SYNCLINE_MUTATIONS_SEED").unwrap_or(0);
    let corpus = corpus();
    let (mut merged_count, mut refused_count) = (0u64, 0u64);
    let mut prey = victim();
    for seed in first..first + inputs_count {
        if seed % INPUTS_PER_VICTIM == 0 {
            prey = victim();
        }
        if seed % INPUTS_PER_LINE == 0 {
            println!("{merged_count} merged, {refused_count} refused up to input {seed}");
        }
        let mut random = Rng::with_seed(seed);
        let bytes = mutated(&corpus, &mut random, &prey);
        let thorough = random.u8(..) < 8;
        let attacked = catch_unwind(AssertUnwindSafe(|| attack(&prey, &bytes, thorough)));
        match attacked {
            Ok(true) => merged_count += 1,
            Ok(false) => refused_count += 1,
            Err(_) => panic!(
                "input {seed} after those from {} on; repeat with SYNCLINE_MUTATIONS_SEED={}: {:?}",
                seed - seed % INPUTS_PER_VICTIM,
                seed - seed % INPUTS_PER_VICTIM,
                Changeset::decode(&bytes),
            ),
        }
    }
    println!("{merged_count} merged, {refused_count} refused");
    // Neither everything nor nothing is refused, or the changes try only one side.
    let least = inputs_count / 20;
    assert!(
        merged_count >= least && refused_count >= least,
        "{merged_count} merged, {refused_count} refused"
    );
}
