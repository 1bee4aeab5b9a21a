//! What it costs to move changes between replicas: export, merge, deltas, and bytes on the wire.

#[expect(dead_code, reason = "another bench uses the rest of it")]
mod side_by_side;

use rusqlite::Connection;
use rusqlite::types::Value;
use side_by_side::{COLUMNS, Comparison, Database, Key, NOW, ROWS, Variant, compare, each, insert};
use side_by_side::{cr_sqlite, say_what_is_left_out, with_cr_sqlite};
use syncline_crdt::{Changeset, VersionVector};
use syncline_sqlite::{export, fold, import_changeset, version_vector};

const VARIANTS: [Variant; 2] = [Variant::Plain, Variant::Folded];
/// When the peer that is merged with wrote, and when the merge takes place.
const LATER: u64 = NOW + 60_000;
/// Rows of the databases from which one small change is read.
const DELTA_FROM: [i64; 2] = [100_000, 1_000_000];
const DELTA_ROWS: i64 = 10;

fn main() {
    say_what_is_left_out();
    compare("exchange", cases, |comparison| {
        comparison.print_ratios(Variant::Plain, &with_cr_sqlite(&VARIANTS[1..]));
        print_speeds(comparison);
        [Key::Integer, Key::Uuid].into_iter().for_each(print_bytes);
        print_small_rows();
    });
}

fn cases(comparison: &mut Comparison<'_>) {
    for key in [Key::Integer, Key::Uuid] {
        exports(comparison, key);
        merges(comparison, key);
        for rows in DELTA_FROM {
            deltas(comparison, key, rows);
        }
    }
}

/// What a peer sends.
enum Sent {
    Ours(Vec<u8>),
    CrSqlite(Vec<Vec<Value>>),
}

/// Reads all changes as they would be sent.
fn all_changes(database: &Database) -> Sent {
    match database.variant {
        Variant::CrSqlite => Sent::CrSqlite(cr_sqlite_changes(&database.conn)),
        _ => {
            let changes = export(&database.conn, &VersionVector::new(), LATER).expect("export");
            Sent::Ours(changes.encode())
        }
    }
}

fn cr_sqlite_changes(conn: &Connection) -> Vec<Vec<Value>> {
    let mut select = conn
        .prepare("SELECT * FROM crsql_changes")
        .expect("prepared");
    let width = select.column_count();
    let row = |row: &rusqlite::Row<'_>| (0..width).map(|at| row.get(at)).collect();
    let rows = select.query_map([], row).expect("query");
    rows.collect::<Result<_, _>>().expect("changes are read")
}

fn merge(database: &Database, sent: &Sent) {
    match sent {
        Sent::Ours(bytes) => {
            let changes = Changeset::decode(bytes).expect("decode");
            import_changeset(&database.conn, &changes, LATER).expect("import");
        }
        Sent::CrSqlite(rows) => {
            let conn = &database.conn;
            let fields = vec!["?"; rows[0].len()].join(", ");
            let insert = format!("INSERT INTO crsql_changes VALUES({fields})");
            conn.execute_batch("BEGIN").expect("begin");
            let mut statement = conn.prepare(&insert).expect("prepared");
            for row in rows {
                statement
                    .execute(rusqlite::params_from_iter(row))
                    .expect("a change is merged");
            }
            drop(statement);
            conn.execute_batch("COMMIT").expect("commit");
        }
    }
}

fn exports(comparison: &mut Comparison<'_>, key: Key) {
    let full = |variant| Database::new(key, variant, ROWS);
    let title = format!("export all beside SELECT *, {}", key.name());
    comparison.case(&title, &with_cr_sqlite(&VARIANTS), full, |database| {
        if database.variant != Variant::Plain {
            all_changes(database);
            return;
        }
        let mut select = database.conn.prepare("SELECT * FROM t").expect("prepared");
        let mut rows = select.query([]).expect("query");
        let mut length = 0;
        while let Some(row) = rows.next().expect("row") {
            length += row.get_ref(2).expect("text").as_str().map_or(0, str::len);
        }
        assert!(length > 0);
    });
}

/// A replica that has no rows yet, and one that wrote all of them too and later every other row's
/// column `a`.
fn merges(comparison: &mut Comparison<'_>, key: Key) {
    let variants = with_cr_sqlite(&VARIANTS);
    let sent = |variant| {
        let source = Database::new(key, variant, 0);
        insert(&source.conn, key, ROWS, ROWS);
        if variant != Variant::CrSqlite {
            fold(&source.conn, NOW + 10_000).expect("fold");
        }
        all_changes(&source)
    };
    let ours = sent(Variant::Folded);
    let theirs = cr_sqlite().map(|_| sent(Variant::CrSqlite));
    let run = |database: &Database| match database.variant {
        Variant::Plain => insert(&database.conn, key, ROWS, ROWS),
        Variant::CrSqlite => merge(database, theirs.as_ref().expect("it is given")),
        _ => merge(database, &ours),
    };
    let title = format!("apply to an empty replica beside INSERT, {}", key.name());
    let empty = |variant| Database::new(key, variant, 0);
    comparison.case(&title, &variants, empty, run);

    let conflicting = |variant| {
        if variant == Variant::Plain {
            return Database::new(key, variant, 0);
        }
        let database = Database::new(key, variant, ROWS);
        let later = "UPDATE t SET a = a + 1 WHERE id = ?1";
        each(&database.conn, key, (0..ROWS).step_by(2), later);
        if variant != Variant::CrSqlite {
            fold(&database.conn, NOW + 20_000).expect("fold");
        }
        database
    };
    let title = format!("merge into a conflicting one beside INSERT, {}", key.name());
    comparison.case(&title, &variants, conflicting, run);
}

/// One change of a few rows, folded and read, from databases of different sizes.
fn deltas(comparison: &mut Comparison<'_>, key: Key, rows: i64) {
    let database = Database::new(key, Variant::Folded, rows);
    let step = usize::try_from(rows / DELTA_ROWS).expect("above zero");
    let change = || {
        let seen = version_vector(&database.conn).expect("vector");
        let changed = (0..rows).step_by(step);
        let update = "UPDATE t SET a = a + 1 WHERE id = ?1";
        each(&database.conn, key, changed, update);
        seen
    };
    comparison.repeat(&delta_title(key, rows), change, |seen| {
        let changes = export(&database.conn, &seen, LATER).expect("export");
        assert_eq!(changes.rows_count() as i64, DELTA_ROWS);
        changes.encode();
    });
}

fn delta_title(key: Key, rows: i64) -> String {
    let name = key.name();
    format!("fold and export {DELTA_ROWS} changed rows of {rows}, {name}")
}

fn print_speeds(comparison: &Comparison<'_>) {
    let cells = (ROWS * COLUMNS) as f64;
    for key in [Key::Integer, Key::Uuid] {
        let name = key.name();
        for case in [
            format!("export all beside SELECT *, {name}"),
            format!("apply to an empty replica beside INSERT, {name}"),
            format!("merge into a conflicting one beside INSERT, {name}"),
        ] {
            for variant in with_cr_sqlite(&[Variant::Folded]) {
                if let Some(seconds) = comparison.median(&case, variant) {
                    let speed = cells / seconds / 1e6;
                    println!("{case}, {variant:?}: {speed:.2} M cells a CPU-second");
                }
            }
        }
        for rows in DELTA_FROM {
            let case = delta_title(key, rows);
            if let Some(seconds) = comparison.median(&case, Variant::Folded) {
                println!("{case}: {:.3} ms", seconds * 1e3);
            }
        }
    }
}

/// Bytes of a changeset with all rows of the wide table.
fn print_bytes(key: Key) {
    let database = Database::new(key, Variant::Folded, 0);
    insert(&database.conn, key, ROWS, ROWS);
    let bytes = changeset_bytes(&database.conn);
    println!(
        "bytes a row of 6 columns in a changeset, {}: {bytes:.1}",
        key.name()
    );
}

/// Bytes of a changeset with rows of four small columns beside the key.
fn print_small_rows() {
    let schema = "CREATE TABLE s(id INTEGER PRIMARY KEY NOT NULL,
        quantity INTEGER, label TEXT, price REAL, state INTEGER)";
    let database = Database::with(schema, "s", Variant::Folded);
    let insert = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        INSERT INTO s SELECT i, i * 7919 % 1000, 'item ' || i, (i * 31 % 9999) / 100.0, i % 5
        FROM n";
    let inserted = database.conn.execute(insert, [ROWS]);
    inserted.expect("the rows are inserted");
    let bytes = changeset_bytes(&database.conn);
    println!("bytes a row of a key and 4 small columns in a changeset: {bytes:.1}");
}

fn changeset_bytes(conn: &Connection) -> f64 {
    let changes = export(conn, &VersionVector::new(), LATER).expect("export");
    changes.encode().len() as f64 / ROWS as f64
}
