//! Databases that differ only in how they are tracked, run in turn and compared by CPU time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkGroup, Criterion, SamplingMode};
use rusqlite::Connection;
use rusqlite::types::Value;
use syncline_crdt::EPOCH_UNIX_MS;
use syncline_sqlite::{TableOptions, fold, load_extension, track};
use tempfile::TempDir;

/// Rows of a table, unless a case says otherwise.
pub(crate) const ROWS: i64 = 100_000;
/// Columns beside the key.
pub(crate) const COLUMNS: i64 = 5;
/// When everything happens, for the clocks.
pub(crate) const NOW: u64 = EPOCH_UNIX_MS + 1_000_000_000;

/// CPU time of this process, user and system.
pub(crate) struct CpuTime;

impl CpuTime {
    pub(crate) fn now() -> Duration {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        #[expect(unsafe_code, reason = "the standard library has no clock for CPU time")]
        // SAFETY: the pointer is to a local that outlives the call.
        let code = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
        assert_eq!(code, 0, "the system has a clock for CPU time");
        Duration::new(
            time.tv_sec.unsigned_abs(),
            u32::try_from(time.tv_nsec).expect("below 10^9"),
        )
    }
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        CpuTime::now()
    }

    fn end(&self, start: Duration) -> Duration {
        CpuTime::now() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// How a database is tracked, and what of that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Variant {
    /// Not at all.
    Plain,
    /// By a trigger for inserts that does nothing: what capture by trigger costs at least.
    Trigger,
    /// By Syncline.
    Captured,
    /// By Syncline, with the fold.
    Folded,
    /// By the extension that `CRSQLITE_PATH` names.
    CrSqlite,
}

/// What is compared.
pub(crate) trait Named: Copy {
    fn name(self) -> &'static str;
}

impl Named for Variant {
    fn name(self) -> &'static str {
        match self {
            Variant::Plain => "plain",
            Variant::Trigger => "trigger",
            Variant::Captured => "captured",
            Variant::Folded => "folded",
            Variant::CrSqlite => "cr-sqlite",
        }
    }
}

/// The extension to compare with.
pub(crate) fn cr_sqlite() -> Option<PathBuf> {
    std::env::var_os("CRSQLITE_PATH").map(PathBuf::from)
}

/// Returns `variants`, and cr-sqlite where it is given.
pub(crate) fn with_cr_sqlite(variants: &[Variant]) -> Vec<Variant> {
    let other = cr_sqlite().map(|_| Variant::CrSqlite);
    variants.iter().copied().chain(other).collect()
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Key {
    Integer,
    Uuid,
}

impl Key {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Key::Integer => "INTEGER key",
            Key::Uuid => "UUID key",
        }
    }

    fn schema(self) -> &'static str {
        match self {
            Key::Integer => {
                "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL,
                    a INTEGER, b TEXT, c REAL, d TEXT, e INTEGER)"
            }
            Key::Uuid => {
                "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL,
                    a INTEGER, b TEXT, c REAL, d TEXT, e INTEGER)"
            }
        }
    }

    /// Version 4 in shape, from a fixed sequence: random order, the same in every run.
    pub(crate) fn of(self, row: i64) -> Value {
        match self {
            Key::Integer => row.into(),
            Key::Uuid => {
                let mixed = row.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let more = mixed.rotate_left(29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                let (a, b, c) = (mixed >> 32, (mixed >> 16) & 0xffff, mixed & 0xfff);
                let (d, e) = (more >> 50, more & 0xffff_ffff_ffff);
                format!("{a:08x}-{b:04x}-4{c:03x}-{d:04x}-{e:012x}").into()
            }
        }
    }
}

pub(crate) struct Database {
    pub(crate) conn: Connection,
    pub(crate) variant: Variant,
    folder: TempDir,
}

impl Database {
    /// Makes a table with a key of this sort in a new file and inserts `rows` rows.
    pub(crate) fn new(key: Key, variant: Variant, rows: i64) -> Self {
        let database = Database::with(key.schema(), "t", variant);
        if rows > 0 {
            insert(&database.conn, key, rows, rows);
        }
        if matches!(variant, Variant::Captured | Variant::Folded) {
            fold(&database.conn, NOW).expect("fold");
        }
        database
    }

    pub(crate) fn with(schema: &str, table: &str, variant: Variant) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the file");
        let conn = open(folder.path());
        conn.execute_batch(schema).expect("the schema runs");
        match variant {
            Variant::Plain => {}
            Variant::Trigger => {
                let empty = format!("CREATE TRIGGER e AFTER INSERT ON {table} BEGIN SELECT 1; END");
                conn.execute_batch(&empty).expect("the trigger is made");
            }
            Variant::Captured | Variant::Folded => {
                track(&conn, table, &TableOptions::default(), NOW).expect("the table is tracked");
            }
            Variant::CrSqlite => {
                let file = cr_sqlite().expect("the variant runs only where it is given");
                load_extension(&conn, &file).expect("cr-sqlite is loaded");
                let track = "SELECT crsql_as_crr(?1)";
                conn.query_row(track, [table], |_| Ok(()))
                    .expect("the table is tracked");
            }
        }
        Database {
            conn,
            variant,
            folder,
        }
    }

    /// Returns the size of the file when nothing is left in its log.
    pub(crate) fn bytes(&self) -> u64 {
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        self.conn
            .query_row(checkpoint, [], |_| Ok(()))
            .expect("checkpoint");
        let file = self.folder.path().join("bench.db");
        std::fs::metadata(file).expect("the file is there").len()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.variant == Variant::CrSqlite {
            let finalize = "SELECT crsql_finalize()";
            self.conn
                .query_row(finalize, [], |_| Ok(()))
                .expect("cr-sqlite lets go of its statements");
        }
    }
}

fn open(folder: &Path) -> Connection {
    let conn = Connection::open(folder.join("bench.db")).expect("a file in a new folder opens");
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
        .expect("pragmas");
    conn.set_prepared_statement_cache_capacity(64);
    conn
}

pub(crate) fn insert(conn: &Connection, key: Key, rows: i64, per_transaction: i64) {
    let sql = "INSERT INTO t VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
    let mut statement = conn.prepare(sql).expect("the insert is prepared");
    for row in 0..rows {
        if row % per_transaction == 0 {
            conn.execute_batch("BEGIN").expect("begin");
        }
        let values = (
            key.of(row),
            row * 7,
            "some text of a row",
            row as f64 / 3.0,
            "more",
            row % 5,
        );
        statement.execute(values).expect("a row is inserted");
        if (row + 1) % per_transaction == 0 {
            conn.execute_batch("COMMIT").expect("commit");
        }
    }
}

/// Runs a statement with one parameter, the key, for each of the rows, in one transaction.
pub(crate) fn each(conn: &Connection, key: Key, rows: impl Iterator<Item = i64>, sql: &str) {
    conn.execute_batch("BEGIN").expect("begin");
    let mut statement = conn.prepare(sql).expect("the statement is prepared");
    for row in rows {
        statement.execute([key.of(row)]).expect("a row is written");
    }
    drop(statement);
    conn.execute_batch("COMMIT").expect("commit");
}

/// What was measured, case by case.
pub(crate) struct Comparison<'c> {
    group: BenchmarkGroup<'c, CpuTime>,
    times: BTreeMap<String, BTreeMap<&'static str, Vec<Duration>>>,
}

impl Comparison<'_> {
    /// Runs one case: in each round all variants in turn, each on a database of its own.
    pub(crate) fn case(
        &mut self,
        name: &str,
        variants: &[Variant],
        setup: impl Fn(Variant) -> Database,
        run: impl Fn(&Database),
    ) {
        self.turns(name, variants, |variant| {
            let database = setup(variant);
            let start = CpuTime::now();
            run(&database);
            if variant == Variant::Folded {
                fold(&database.conn, NOW + 1_000).expect("fold");
            }
            CpuTime::now() - start
        });
    }

    /// Runs one case: in each round all variants in turn. `run` returns how long one took.
    pub(crate) fn turns<V: Named>(
        &mut self,
        name: &str,
        variants: &[V],
        run: impl Fn(V) -> Duration,
    ) {
        let times = self.times.entry(name.to_owned()).or_default();
        self.group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let turns = (0..rounds).flat_map(|_| variants);
                turns
                    .map(|variant| {
                        let took = run(*variant);
                        times.entry(variant.name()).or_default().push(took);
                        took
                    })
                    .sum()
            });
        });
    }

    /// Runs `run` again and again on what `prepare` gives it, which is not timed.
    pub(crate) fn repeat<T>(&mut self, name: &str, prepare: impl Fn() -> T, run: impl Fn(T)) {
        let times = self.times.entry(name.to_owned()).or_default();
        let times = times.entry(Variant::Folded.name()).or_default();
        self.group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let round = |_| {
                    let input = prepare();
                    let start = CpuTime::now();
                    run(input);
                    let took = CpuTime::now() - start;
                    times.push(took);
                    took
                };
                (0..rounds).map(round).sum()
            });
        });
    }

    /// Returns the median in seconds; `None` where a filter on the command line leaves the case
    /// out.
    pub(crate) fn median(&self, case: &str, variant: impl Named) -> Option<f64> {
        let mut times = self.times.get(case)?.get(variant.name())?.clone();
        times.sort();
        Some(times.get(times.len() / 2)?.as_secs_f64())
    }

    /// Prints a line for each case: what `first` takes, and how many times as much the others.
    pub(crate) fn print_ratios<V: Named>(&self, first: V, others: &[V]) {
        let title = format!("CPU time, ratio to {}", first.name());
        print!("\n{title:<52} {:>11}", first.name());
        others
            .iter()
            .for_each(|other| print!(" {:>11}", other.name()));
        println!();
        for case in self.times.keys() {
            let Some(seconds) = self.median(case, first) else {
                continue;
            };
            print!("{case:<52} {:>8.2} ms", seconds * 1e3);
            for other in others {
                match self.median(case, *other) {
                    Some(other) => print!(" {:>11.2}", other / seconds),
                    None => print!(" {:>11}", "-"),
                }
            }
            println!();
        }
    }
}

/// Says that cr-sqlite is not measured, where no file is given.
pub(crate) fn say_what_is_left_out() {
    if cr_sqlite().is_none() {
        println!("CRSQLITE_PATH names no file: cr-sqlite is left out");
    }
}

/// Runs `cases` and then `print`, with criterion's options on the command line.
pub(crate) fn compare(
    name: &str,
    cases: impl FnOnce(&mut Comparison<'_>),
    print: impl FnOnce(&Comparison<'_>),
) {
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut comparison = Comparison {
        group: criterion.benchmark_group(name),
        times: BTreeMap::new(),
    };
    comparison.group.sampling_mode(SamplingMode::Flat);
    cases(&mut comparison);
    print(&comparison);
}
