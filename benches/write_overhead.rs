//! What tracking costs: CPU time beside plain SQLite, and the size of the file.
//!
//! Every case runs on a file of its own in WAL mode. `captured` is the application's own cost,
//! `folded` that and the fold together. The table at the end holds the ratios of the medians.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, BenchmarkGroup, Criterion, SamplingMode};
use rusqlite::Connection;
use syncline_crdt::{Changeset, EPOCH_UNIX_MS, VersionVector};
use syncline_sqlite::{TableOptions, export, fold, import_changeset, track};
use tempfile::TempDir;

const ROWS: i64 = 100_000;
const NOW: u64 = EPOCH_UNIX_MS + 1_000_000_000;

/// CPU time of this process, user and system.
struct CpuTime;

impl CpuTime {
    fn now() -> Duration {
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

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Variant {
    Plain,
    Captured,
    Folded,
}

#[derive(Clone, Copy, PartialEq)]
enum Key {
    Integer,
    Uuid,
}

impl Key {
    fn name(self) -> &'static str {
        match self {
            Key::Integer => "INTEGER key",
            Key::Uuid => "UUID key",
        }
    }

    fn schema(self) -> &'static str {
        match self {
            Key::Integer => {
                "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b TEXT, c REAL, d TEXT, e INTEGER)"
            }
            Key::Uuid => {
                "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a INTEGER, b TEXT, c REAL, d TEXT, e INTEGER)"
            }
        }
    }

    /// Version 4 in shape, from a fixed sequence: random order, the same in every run.
    fn of(self, row: i64) -> rusqlite::types::Value {
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

struct Database {
    conn: Connection,
    folder: TempDir,
}

fn open(folder: &Path) -> Connection {
    let conn = Connection::open(folder.join("bench.db")).expect("a file in a new folder opens");
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
        .expect("pragmas");
    conn.set_prepared_statement_cache_capacity(64);
    conn
}

fn database(key: Key, variant: Variant, rows: i64) -> Database {
    let folder = tempfile::tempdir().expect("a folder for the file");
    let conn = open(folder.path());
    conn.execute_batch(key.schema()).expect("the schema runs");
    if variant != Variant::Plain {
        track(&conn, "t", &TableOptions::default(), NOW).expect("the table is tracked");
    }
    let database = Database { conn, folder };
    if rows > 0 {
        insert(&database.conn, key, rows, rows);
        fold(&database.conn, NOW).expect("fold");
    }
    database
}

fn insert(conn: &Connection, key: Key, rows: i64, per_transaction: i64) {
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

/// Medians by case and variant.
#[derive(Default)]
struct Table {
    seconds: BTreeMap<String, BTreeMap<Variant, Vec<Duration>>>,
    lines: Vec<String>,
}

impl Table {
    fn median(&self, case: &str, variant: Variant) -> Option<f64> {
        let mut times = self.seconds.get(case)?.get(&variant)?.clone();
        times.sort();
        // A filter on the command line leaves cases out.
        Some(times.get(times.len() / 2)?.as_secs_f64())
    }

    fn print(&self) {
        println!(
            "\n{:<44} {:>8} {:>9} {:>8}",
            "CPU time, ratio to plain SQLite", "plain", "captured", "folded"
        );
        for case in self.seconds.keys() {
            let Some(plain) = self.median(case, Variant::Plain) else {
                continue;
            };
            let ratio = |variant| match self.median(case, variant) {
                Some(seconds) => format!("{:.2}", seconds / plain),
                None => "-".to_owned(),
            };
            let (captured, folded) = (ratio(Variant::Captured), ratio(Variant::Folded));
            println!(
                "{case:<44} {:>5.0} ms {captured:>9} {folded:>8}",
                plain * 1e3
            );
        }
        self.lines.iter().for_each(|line| println!("{line}"));
    }
}

/// Runs one case in its variants.
fn case(
    group: &mut BenchmarkGroup<'_, CpuTime>,
    table: &mut Table,
    name: &str,
    variants: &[Variant],
    setup: impl Fn(Variant) -> Database,
    run: impl Fn(&Connection),
) {
    for variant in variants {
        let title = match variant {
            Variant::Plain => "plain",
            Variant::Captured => "captured",
            Variant::Folded => "folded",
        };
        let times = table
            .seconds
            .entry(name.to_owned())
            .or_default()
            .entry(*variant)
            .or_default();
        group.bench_function(format!("{name}/{title}"), |bencher| {
            let routine = |database: Database| {
                let start = CpuTime::now();
                run(&database.conn);
                if *variant == Variant::Folded {
                    fold(&database.conn, NOW + 1_000).expect("fold");
                }
                times.push(CpuTime::now() - start);
                database
            };
            bencher.iter_batched(|| setup(*variant), routine, BatchSize::PerIteration);
        });
    }
}

const ALL: [Variant; 3] = [Variant::Plain, Variant::Captured, Variant::Folded];

fn writes(group: &mut BenchmarkGroup<'_, CpuTime>, table: &mut Table, key: Key) {
    let name = key.name();
    let empty = |variant| database(key, variant, 0);
    let full = |variant| database(key, variant, ROWS);
    if key == Key::Integer {
        case(
            group,
            table,
            &format!("insert, one statement, {name}"),
            &ALL,
            empty,
            |conn| {
                let insert =
                    "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                INSERT INTO t SELECT i, i * 7, 'some text of a row', i / 3.0, 'more', i % 5 FROM n";
                conn.execute(insert, [ROWS - 1])
                    .expect("the rows are inserted");
            },
        );
    }
    case(
        group,
        table,
        &format!("insert, one transaction, {name}"),
        &ALL,
        empty,
        |conn| {
            insert(conn, key, ROWS, ROWS);
        },
    );
    case(
        group,
        table,
        &format!("insert, 100 rows a transaction, {name}"),
        &ALL,
        empty,
        |conn| {
            insert(conn, key, ROWS, 100);
        },
    );
    case(
        group,
        table,
        &format!("insert, 1 row a transaction, {name}"),
        &ALL,
        empty,
        |conn| {
            insert(conn, key, ROWS / 10, 1);
        },
    );
    case(
        group,
        table,
        &format!("update one column by key, {name}"),
        &ALL,
        full,
        |conn| {
            conn.execute_batch("BEGIN").expect("begin");
            let mut update = conn
                .prepare("UPDATE t SET a = a + 1 WHERE id = ?1")
                .expect("prepared");
            for row in 0..ROWS {
                update.execute([key.of(row)]).expect("a row is updated");
            }
            conn.execute_batch("COMMIT").expect("commit");
        },
    );
    case(
        group,
        table,
        &format!("delete by key, {name}"),
        &ALL,
        full,
        |conn| {
            conn.execute_batch("BEGIN").expect("begin");
            let mut delete = conn
                .prepare("DELETE FROM t WHERE id = ?1")
                .expect("prepared");
            for row in 0..ROWS {
                delete.execute([key.of(row)]).expect("a row is deleted");
            }
            conn.execute_batch("COMMIT").expect("commit");
        },
    );
}

/// Export, apply and sizes, with plain SQL that moves the same rows beside them.
fn changes(group: &mut BenchmarkGroup<'_, CpuTime>, table: &mut Table, key: Key) {
    let name = key.name();
    let source = database(key, Variant::Captured, ROWS);
    let whole = export(&source.conn, &VersionVector::new(), NOW).expect("export");
    let bytes = whole.encode();
    let per_row = bytes.len() as f64 / ROWS as f64;
    table.lines.push(format!(
        "{:<44} {per_row:.1}",
        format!("bytes a row in a changeset, {name}")
    ));

    let plain_and_ours = [Variant::Plain, Variant::Captured];
    let full = |variant| database(key, variant, ROWS);
    case(
        group,
        table,
        &format!("export all beside SELECT *, {name}"),
        &plain_and_ours,
        full,
        |conn| {
            if is_tracked(conn) {
                let changes = export(conn, &VersionVector::new(), NOW).expect("export");
                assert_eq!(changes.encode().len(), bytes.len());
            } else {
                let mut select = conn.prepare("SELECT * FROM t").expect("prepared");
                let mut rows = select.query([]).expect("query");
                let mut length = 0;
                while let Some(row) = rows.next().expect("row") {
                    length += row.get_ref(2).expect("text").as_str().map_or(0, str::len);
                }
                assert!(length > 0);
            }
        },
    );
    let empty = |variant| database(key, variant, 0);
    case(
        group,
        table,
        &format!("apply to empty beside INSERT, {name}"),
        &plain_and_ours,
        empty,
        |conn| {
            if is_tracked(conn) {
                let changes = Changeset::decode(&bytes).expect("decode");
                import_changeset(conn, &changes, NOW).expect("import");
            } else {
                insert(conn, key, ROWS, ROWS);
            }
        },
    );
    sizes(table, key);
}

fn is_tracked(conn: &Connection) -> bool {
    let tracked = "SELECT 1 FROM sqlite_master WHERE name = 'syncline_meta'";
    conn.prepare(tracked)
        .and_then(|mut tracked| tracked.exists([]))
        .expect("the schema is read")
}

fn sizes(table: &mut Table, key: Key) {
    let size = |variant| {
        let database = database(key, variant, ROWS);
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        database
            .conn
            .query_row(checkpoint, [], |_| Ok(()))
            .expect("checkpoint");
        let file = database.folder.path().join("bench.db");
        std::fs::metadata(file).expect("the file is there").len() as f64
    };
    let ratio = size(Variant::Captured) / size(Variant::Plain);
    let name = key.name();
    table.lines.push(format!(
        "{:<44} {ratio:.2}",
        format!("file size, ratio to plain, {name}")
    ));
}

fn main() {
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut table = Table::default();
    let mut group = criterion.benchmark_group("write_overhead");
    group.sampling_mode(SamplingMode::Flat);
    for key in [Key::Integer, Key::Uuid] {
        writes(&mut group, &mut table, key);
        changes(&mut group, &mut table, key);
    }
    group.finish();
    criterion.final_summary();
    table.print();
}
