//! What a fold that finds nothing to do leaves, so that the next one is short.

use super::*;

const NOTED: &str = "SELECT value FROM syncline_meta WHERE key = 'mended'
    UNION SELECT value FROM syncline_meta WHERE key = 'schema'";

fn changed() -> Replica {
    let mut a = replica("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", &["t"]);
    a.run("INSERT INTO t VALUES(1, 'x')");
    a.digest();
    let other = "CREATE TABLE other(a)";
    a.conn.execute_batch(other).expect("the schema changes");
    a
}

#[test]
fn a_changed_schema_is_looked_at_once() {
    let a = changed();
    assert_ne!(a.rows(NOTED), a.rows("PRAGMA schema_version"));
    a.digest();
    assert_eq!(a.rows(NOTED), a.rows("PRAGMA schema_version"));
}

#[test]
fn a_changed_schema_stays_in_sight_where_nothing_may_be_written() {
    let a = changed();
    let (noted, digest) = (a.rows(NOTED), a.digest());
    let a = changed();
    for sql in ["PRAGMA query_only = 1", "BEGIN"] {
        a.conn.execute_batch(sql).expect(sql);
        assert_eq!(a.digest().len(), digest.len());
        assert_eq!(a.rows(NOTED), noted);
    }
    let end = "COMMIT; PRAGMA query_only = 0";
    a.conn.execute_batch(end).expect(end);
    a.digest();
    assert_eq!(a.rows(NOTED), a.rows("PRAGMA schema_version"));
}
