//! What reading `crsql_changes` costs: as much as there is new, whatever else there is.

#![expect(
    unsafe_code,
    reason = "SQLite counts its instructions for callers in C"
)]

use std::ffi::{c_char, c_int, c_void};

use rusqlite::ffi;

use super::{Peer, peer};

/// Counts what one connection does.
#[derive(Debug, Default, PartialEq)]
struct Work {
    /// Instructions of SQLite's virtual machine.
    steps: u64,
    /// Names looked up while statements were prepared; 0 if none was.
    prepared: u64,
}

extern "C" fn step(work: *mut c_void) -> c_int {
    // SAFETY: `counted` gives a `Work` that outlives the callback.
    unsafe { (*work.cast::<Work>()).steps += 1 };
    0
}

extern "C" fn prepare(
    work: *mut c_void,
    _action: c_int,
    _first: *const c_char,
    _second: *const c_char,
    _database: *const c_char,
    _trigger: *const c_char,
) -> c_int {
    // SAFETY: as above.
    unsafe { (*work.cast::<Work>()).prepared += 1 };
    ffi::SQLITE_OK
}

/// Returns what a query costs that is prepared already, and how many rows it has.
fn counted(peer: &Peer, sql: &str) -> (Work, usize) {
    let mut work = Work::default();
    let context = std::ptr::from_mut(&mut work).cast::<c_void>();
    // SAFETY: the connection is open, and both callbacks are removed before `work` goes.
    let db = unsafe {
        let db = peer.conn.handle();
        ffi::sqlite3_set_authorizer(db, Some(prepare), context);
        ffi::sqlite3_progress_handler(db, 1, Some(step), context);
        db
    };
    let mut statement = peer.conn.prepare(sql).expect(sql);
    let mut count = 0;
    // The first time everything is prepared, since there is somebody to ask.
    for _ in 0..2 {
        // SAFETY: nothing runs in between, and the context is the same.
        unsafe { *context.cast::<Work>() = Work::default() };
        count = 0;
        let mut rows = statement.query([]).expect(sql);
        while let Some(row) = rows.next().expect(sql) {
            for at in 0..9 {
                row.get_ref(at).expect("a value");
            }
            count += 1;
        }
    }
    drop(statement);
    // SAFETY: the connection is still open.
    unsafe {
        ffi::sqlite3_progress_handler(db, 0, None, std::ptr::null_mut());
        ffi::sqlite3_set_authorizer(db, None, std::ptr::null_mut());
    }
    (work, count)
}

/// A replica with two CRRs, so many rows in one of them, and ten changes after them.
fn replica(rows_count: u32) -> Peer {
    let peer = peer(&format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b);
         CREATE TABLE other(id INTEGER PRIMARY KEY NOT NULL, a);
         WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows_count})
         INSERT INTO t SELECT i, i, 'text' FROM n;
         SELECT crsql_as_crr('t'); SELECT crsql_as_crr('other');"
    ));
    peer.run("UPDATE t SET a = -a WHERE id % (SELECT count(*) / 10 FROM t) = 0");
    peer
}

#[test]
fn a_delta_costs_what_is_in_it_and_nothing_is_prepared() {
    let (small, large) = (replica(200), replica(10_000));
    for (filter, expected) in [
        ("db_version > 1", 10),
        ("db_version > 2", 0),
        ("db_version = 2", 10),
        ("db_version >= 2 AND db_version < 3", 10),
        ("db_version > 1 AND site_id IS NOT x'00'", 10),
        ("db_version > 1 AND \"table\" = 'other'", 0),
        ("db_version > 1 AND cid = 'a' ORDER BY db_version, seq", 10),
        ("db_version > 1 ORDER BY db_version, seq LIMIT 3", 3),
    ] {
        let sql = format!("SELECT * FROM crsql_changes WHERE {filter}");
        let (work, rows_count) = counted(&large, &sql);
        assert_eq!(rows_count, expected, "{filter}");
        assert_eq!(work.prepared, 0, "{filter}");
        let (less, _) = counted(&small, &sql);
        assert!(
            work.steps <= less.steps + 20,
            "{filter}: {work:?}, {less:?}"
        );
        assert!(work.steps < 2_000, "{filter}: {work:?}");
    }
}

#[test]
fn a_filter_by_the_own_site_asks_for_it_once() {
    let (few, many) = (replica(20), replica(2_000));
    many.run("UPDATE t SET b = 'all'");
    let sql = "SELECT * FROM crsql_changes WHERE db_version > 1 AND site_id IS crsql_site_id()";
    let ((few, ten), (many, more)) = (counted(&few, sql), counted(&many, sql));
    assert_eq!((ten, more), (10, 2_010));
    assert_eq!(few.prepared, many.prepared);
}

#[test]
fn the_clocks_are_read_by_their_index() {
    let peer = replica(10);
    for (filter, plan) in [
        ("db_version > 1", "syncline_crsql_cells_by_version"),
        (
            "db_version > 1 AND site_id IS NOT x'00'",
            "syncline_crsql_cells_by_version",
        ),
    ] {
        let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM crsql_changes WHERE {filter}");
        let text = peer.one(&sql);
        let (_, query) = text
            .split_once("INDEX 0:")
            .expect("the virtual table's plan");
        let inner = peer.rows(&format!("EXPLAIN QUERY PLAN {query}").replace('?', "0"));
        assert!(inner[0].contains(plan), "{inner:?}");
        let searches = |step: &String| step.contains("SEARCH");
        assert!(inner.iter().all(searches), "{inner:?}");
    }
}
