//! What a hostile peer may insert into `crsql_changes`: it is refused or merged, nothing else is
//! changed, and every cell can still be written, here and by others.
//!
//! `SYNCLINE_MUTATIONS` says how many inputs the random run tries, `SYNCLINE_MUTATIONS_SEED` begins
//! elsewhere. A failure names the seed.

use fastrand::Rng;
use rusqlite::params_from_iter;
use rusqlite::types::Value;

use super::{Peer, peer, peers};
use crate::tests::content::content;

const SCHEMA: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b TEXT NOT NULL DEFAULT 'x');
    CREATE TABLE p(k TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(n, k));
    CREATE TABLE w(k BLOB PRIMARY KEY NOT NULL, c REAL, low INT CHECK(low > 0))
        WITHOUT ROWID, STRICT;
    CREATE TABLE n(k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, a, made AS (a || '!'));
    CREATE TABLE plain(id INTEGER PRIMARY KEY, a); CREATE TABLE h(id INTEGER PRIMARY KEY, a);
    SELECT crsql_as_crr('t'); SELECT crsql_as_crr('p'); SELECT crsql_as_crr('w');
    SELECT crsql_as_crr('n'); SELECT syncline_track('h');";
const ROWS: &str = "
    INSERT INTO t VALUES(1, 'one', 'x'), (2, 2, 'y'), (3, NULL, 'z');
    INSERT INTO p VALUES('k', 1), ('', 2); INSERT INTO w VALUES(x'01', 1.5, 1), (x'', NULL, 2);
    INSERT INTO n(k, a) VALUES('ann', 1), ('bob', x'00');
    UPDATE t SET a = 'edited' WHERE id = 2; DELETE FROM t WHERE id = 3; DELETE FROM p WHERE n = 2;
    INSERT INTO t(id) VALUES(3);";

/// A change that wins, with what stands in each column.
const GOOD: [&str; 9] = [
    "'t'",
    "x'010901'",
    "'a'",
    "'new'",
    "5",
    "9",
    "x'01020304050607080910111213141516'",
    "1",
    "0",
];

fn insert(columns: &[&str]) -> String {
    format!("INSERT INTO crsql_changes VALUES({})", columns.join(", "))
}

const VERSION: &str = "integers from 0 to 2^62";
/// What is refused in each column, and a part of what is said.
const REFUSED: &[(usize, &[&str], &str)] = &[
    (
        0,
        &["'plain'", "'h'", "'absent'", "''", "'t '"],
        "schema information",
    ),
    (
        0,
        &[
            "'crsql_master'",
            "'crsql_site_id'",
            "'sqlite_master'",
            "'syncline_meta'",
            "'syncline_crsql_cells'",
            "'t__crsql_clock'",
            "'crsql_changes'",
            "'main.t'",
            "'t; DROP TABLE t'",
            "char(0)",
        ],
        "schema information",
    ),
    (
        0,
        &["NULL", "1", "1.5", "x'74'", "zeroblob(5000)"],
        "names are texts",
    ),
    (0, &["printf('%.3000c', 'x')"], "2048 bytes"),
    (1, &["NULL", "1", "'text'", "1.5"], "a pk is a blob"),
    (
        1,
        &[
            "x''",
            "x'ff'",
            "x'01'",
            "x'0109'",
            "x'01090102'",
            "x'010b05'",
            "x'010bff'",
            "x'0123ffffffff'",
            "x'011cffffffff00'",
            "x'01f9'",
            "x'0107'",
            "zeroblob(100000)",
        ],
        "pk",
    ),
    (1, &["x'00'", "x'0209010901'", "x'ff05'"], "pk"),
    (1, &["x'0105'"], "no value of a pk is NULL"),
    (
        1,
        &[
            "crsql_pack_columns('one')",
            "crsql_pack_columns(1.5)",
            "x'010c0101'",
        ],
        "mismatch",
    ),
    (2, &["NULL", "1", "x'61'"], "names are texts"),
    (
        2,
        &["'absent'", "''", "'id'", "'-2'", "'rowid'", "'a '", "'a,b'"],
        "no column",
    ),
    (2, &["printf('%.3000c', 'x')"], "2048 bytes"),
    (3, &["zeroblob(2000000000)"], "too big"),
    (
        4,
        &["NULL", "-1", "'1'", "1.0", "x'01'", "9223372036854775807"],
        VERSION,
    ),
    (
        4,
        &["-9223372036854775808", "4611686018427387905", "'max'"],
        VERSION,
    ),
    (
        5,
        &["NULL", "-1", "'1'", "9223372036854775807", "9e99"],
        VERSION,
    ),
    (
        6,
        &[
            "'a site of 16 byt'",
            "1",
            "1.5",
            "zeroblob(17)",
            "zeroblob(1000000)",
        ],
        "site_id",
    ),
    (
        7,
        &["NULL", "-1", "-3", "'1'", "1.0", "9223372036854775807"],
        VERSION,
    ),
    (
        7,
        &[
            "9007199254740991",
            "9007199254740992",
            "4611686018427387903",
        ],
        "since 2024",
    ),
    (8, &["NULL", "-1", "'1'", "9223372036854775807"], VERSION),
];

#[test]
fn what_no_replica_could_have_made_is_refused_and_changes_nothing() {
    let victim = peer(&format!("{SCHEMA}{ROWS}"));
    for (column, values, expected) in REFUSED {
        for value in *values {
            let mut change = GOOD;
            change[*column] = value;
            let before = content(&victim.conn);
            let error = victim.fails(&insert(&change));
            assert!(
                error.contains(expected),
                "column {column}, {value}: {error}"
            );
            assert!(before == content(&victim.conn), "column {column}, {value}");
            check_writable(&victim);
        }
    }
}

#[test]
fn what_a_tables_own_constraints_refuse_changes_nothing() {
    let victim = peer(&format!("{SCHEMA}{ROWS}"));
    let before = content(&victim.conn);
    for (table, pk, column, value, expected) in [
        ("'t'", "x'010901'", "'b'", "NULL", "NOT NULL"),
        ("'w'", "x'010c0101'", "'low'", "-1", "CHECK"),
        ("'w'", "x'010c0101'", "'low'", "'text'", "TEXT value in INT"),
        ("'w'", "x'010b0161'", "'c'", "1.5", "TEXT value in BLOB"),
        ("'n'", "x'010b0161'", "'made'", "1", "no column"),
    ] {
        let mut change = GOOD;
        (change[0], change[1], change[2], change[3]) = (table, pk, column, value);
        let error = victim.fails(&insert(&change));
        assert!(error.contains(expected), "{change:?}: {error}");
        assert!(before == content(&victim.conn), "{change:?}");
    }
    check_writable(&victim);
}

#[test]
fn only_whole_rows_are_inserted_and_nothing_else_is_done() {
    let victim = peer(&format!("{SCHEMA}{ROWS}"));
    let before = content(&victim.conn);
    for sql in [
        "INSERT INTO crsql_changes VALUES('t', x'010901', 'a', 1)",
        "INSERT INTO crsql_changes VALUES('t', x'010901', 'a', 1, 5, 9, NULL, 1, 0, 0)",
        "INSERT INTO crsql_changes(\"table\", pk, cid) VALUES('t', x'010901', 'a')",
        "INSERT INTO crsql_changes DEFAULT VALUES",
        "UPDATE crsql_changes SET val = 1",
        "DELETE FROM crsql_changes",
        "INSERT INTO t__crsql_clock VALUES(1, 'a', 1, 1, 0, 0)",
        "DELETE FROM t__crsql_pks",
    ] {
        victim.fails(sql);
        assert!(before == content(&victim.conn), "{sql}");
    }
    check_writable(&victim);
}

#[test]
fn counters_at_their_end_leave_every_cell_writable_everywhere() {
    let [victim, other] = peers::<2>(&format!("{SCHEMA}{ROWS}"));
    let end = "4611686018427387904";
    let with = |places: &[(usize, &'static str)]| {
        let mut change = GOOD;
        places.iter().for_each(|(at, value)| change[*at] = value);
        insert(&change)
    };
    for change in [
        with(&[(4, end)]),
        with(&[(4, end), (5, end), (8, end), (3, "NULL"), (1, "x'010902'")]),
        with(&[(4, end), (6, "NULL"), (1, "x'010902'")]),
        with(&[(4, end), (6, "x''"), (2, "'b'")]),
        with(&[(4, end), (6, "crsql_site_id()"), (1, "x'010907'")]),
        with(&[(7, "1048577"), (4, "0"), (1, "x'010907'")]),
        with(&[(7, "0")]),
        with(&[(0, "'n'"), (4, end), (1, "crsql_pack_columns('ANN')")]),
    ] {
        victim.run(&change);
        check_writable(&victim);
    }
    victim.run("UPDATE t SET a = 'mine', b = 'mine'; REPLACE INTO t VALUES(7, 7, 7)");
    victim.run("UPDATE t SET id = 70 WHERE id = 7; UPDATE n SET a = 'mine'");
    assert!(victim.version() < 1 << 42, "{}", victim.version());
    let late = peer(SCHEMA);
    other.pull(&victim, 0);
    late.pull(&victim, 0);
    for table in ["t", "n", "p", "w"] {
        let all = format!("SELECT * FROM {table} ORDER BY 1, 2");
        assert_eq!(other.rows(&all), victim.rows(&all));
        assert_eq!(late.rows(&all), victim.rows(&all));
    }
}

#[test]
fn a_row_of_as_many_lives_as_there_were_times_goes_on() {
    let [victim, other] = peers::<2>(&format!("{SCHEMA}{ROWS}"));
    let times = syncline_crdt::Hlc::at_unix_ms(crate::functions::now_unix_ms()).to_bits();
    let dead = (times & !1).to_string();
    let mut change = GOOD;
    (change[2], change[7]) = ("'-1'", &dead);
    victim.run(&insert(&change));
    assert_eq!(victim.one("SELECT count(*) FROM t WHERE id = 1"), "0");
    victim.run(
        "INSERT INTO t(id) VALUES(1); DELETE FROM t WHERE id = 1; INSERT INTO t(id) VALUES(1)",
    );
    victim.run("UPDATE t SET a = 'goes on' WHERE id IN (1, 2)");
    other.pull(&victim, 0);
    let all = "SELECT a FROM t WHERE id IN (1, 2)";
    assert_eq!(other.rows(all), ["goes on", "goes on"]);
    assert_eq!(other.rows(all), victim.rows(all));
}

#[test]
fn a_key_in_another_spelling_than_the_tables_is_the_same_row() {
    let [a, b] = peers::<2>(SCHEMA);
    let keys = ["x'010901'", "x'010b0131'", "x'01023ff0000000000000'"];
    for (peer, order) in [(&a, [0, 1, 2]), (&b, [2, 0, 1])] {
        for at in order {
            let mut change = GOOD;
            let (version, life) = ((at + 1).to_string(), ["1", "1", "2"][at]);
            (change[1], change[4], change[7]) = (keys[at], &version, life);
            peer.run(&insert(&change));
        }
    }
    for peer in [&a, &b] {
        assert_eq!(peer.rows("SELECT * FROM t"), [""; 0]);
        assert_eq!(peer.rows("SELECT hex(pk), cl FROM crsql_changes").len(), 1);
    }
    // As text where the column holds texts.
    for (peer, pk) in [
        (&a, "crsql_pack_columns(1, 7)"),
        (&b, "crsql_pack_columns(1, '7')"),
    ] {
        let change = ["'p'", pk, "'-1'", "NULL", "1", "1", "x'01'", "1", "0"];
        peer.run(&insert(&change));
    }
    a.pull(&b, 0);
    assert_eq!(a.rows("SELECT quote(k), n FROM p"), ["'7'|1"]);
    assert_eq!(
        a.rows("SELECT cl FROM crsql_changes WHERE \"table\" = 'p'")
            .len(),
        1
    );
}

/// Every table can be written, and what was written wins elsewhere.
fn check_writable(victim: &Peer) {
    victim.run(
        "SAVEPOINT health; UPDATE t SET a = 'h', b = 'h'; REPLACE INTO t VALUES(1, 'health', 'h');
         DELETE FROM p; INSERT INTO p VALUES('k', 1); UPDATE w SET c = 7.5;
         UPDATE n SET a = 'h'; INSERT INTO n(k) VALUES('healthy')",
    );
    let healthy = peer(SCHEMA);
    healthy.pull(victim, 0);
    for table in ["t", "p", "w", "n"] {
        let all = format!("SELECT * FROM {table} ORDER BY 1, 2");
        assert_eq!(healthy.rows(&all), victim.rows(&all), "{table}");
    }
    victim.run("ROLLBACK TO health; RELEASE health");
}

/// How many inputs the suite tries; a long run is a command.
const INPUTS_COUNT: u64 = 2_000;
/// After how many inputs the victim begins anew, so that junk does not pile up.
const INPUTS_PER_VICTIM: u64 = 200;

const TEXTS: [&str; 20] = [
    "t",
    "T",
    "p",
    "w",
    "n",
    "h",
    "plain",
    "a",
    "b",
    "c",
    "low",
    "made",
    "id",
    "k",
    "-1",
    "",
    "crsql_master",
    "sqlite_master",
    "syncline_crsql_rows",
    "\0",
];
const NUMBERS: [i64; 14] = [
    0,
    1,
    2,
    3,
    5,
    7,
    -1,
    1 << 20,
    (1 << 52) - 1,
    1 << 52,
    1 << 53,
    1 << 62,
    i64::MAX,
    i64::MIN,
];

/// Returns what an honest peer says, as rows to be changed.
fn corpus() -> Vec<Vec<Value>> {
    let honest = peer(&format!("{SCHEMA}{ROWS}"));
    let read = |row: &rusqlite::Row<'_>| (0..9).map(|at| row.get(at)).collect();
    let mut statement = honest
        .conn
        .prepare("SELECT * FROM crsql_changes")
        .expect("it is there");
    let rows = statement.query_map([], read).expect("it is read");
    rows.collect::<Result<_, _>>().expect("it is read")
}

fn mutate(value: &mut Value, random: &mut Rng) {
    match (value, random.u8(0..4)) {
        (Value::Blob(bytes), 0 | 1) if !bytes.is_empty() => {
            let at = random.usize(0..bytes.len());
            bytes[at] = random.u8(..);
        }
        (Value::Blob(bytes), 2) => bytes.truncate(random.usize(0..=bytes.len())),
        (Value::Integer(number), 0 | 1) => *number = number.wrapping_add(random.i64(-2..3)),
        (Value::Integer(number), 2) => *number = NUMBERS[random.usize(0..NUMBERS.len())],
        (Value::Text(text), 0..=2) => {
            TEXTS[random.usize(0..TEXTS.len())].clone_into(text);
        }
        (value, _) => {
            *value = match random.u8(0..6) {
                0 => Value::Null,
                1 => Value::Integer(NUMBERS[random.usize(0..NUMBERS.len())]),
                2 => Value::Real(random.f64()),
                3 => Value::Text(TEXTS[random.usize(0..TEXTS.len())].to_owned()),
                _ => {
                    let mut bytes = vec![0; random.usize(0..20)];
                    random.fill(&mut bytes);
                    Value::Blob(bytes)
                }
            }
        }
    }
}

/// Gives the victim one input; returns whether it was merged.
fn attack(victim: &Peer, change: &[Value], thorough: bool) -> Result<bool, String> {
    let before = thorough.then(|| content(&victim.conn));
    let sql = "INSERT INTO crsql_changes VALUES(?,?,?,?,?,?,?,?,?)";
    let merged = victim.conn.execute(sql, params_from_iter(change));
    match (&merged, before) {
        (Err(error), _) if error.to_string().contains("bug") => return Err(error.to_string()),
        (Err(error), Some(before)) if before != content(&victim.conn) => {
            return Err(format!("it was refused and changed something: {error}"));
        }
        _ => {}
    }
    Ok(merged.is_ok())
}

#[test]
fn mutations_of_changes_are_merged_or_refused() {
    let setting = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let inputs_count = setting("SYNCLINE_MUTATIONS").unwrap_or(INPUTS_COUNT);
    let first: u64 = setting("SYNCLINE_MUTATIONS_SEED").unwrap_or(0);
    let corpus = corpus();
    let (mut merged_count, mut refused_count) = (0u64, 0u64);
    let mut prey = peer(&format!("{SCHEMA}{ROWS}"));
    for seed in first..first + inputs_count {
        let begun = seed - seed % INPUTS_PER_VICTIM;
        if seed == begun {
            prey = peer(&format!("{SCHEMA}{ROWS}"));
        }
        let mut random = Rng::with_seed(seed);
        let mut change = corpus[random.usize(0..corpus.len())].clone();
        for _ in 0..random.u8(1..4) {
            mutate(&mut change[random.usize(0..9)], &mut random);
        }
        let thorough = random.u8(..) < 8;
        match attack(&prey, &change, thorough) {
            Ok(true) => merged_count += 1,
            Ok(false) => refused_count += 1,
            Err(why) => panic!("repeat with SYNCLINE_MUTATIONS_SEED={begun}: {seed}: {why}"),
        }
        if thorough {
            println!("SYNCLINE_MUTATIONS_SEED={begun}: {seed}: {change:?}");
            check_writable(&prey);
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
