//! Replicas that share tables with counted ids, for tests of what refers to their rows.

use super::*;

/// Replicas that share these tables with counted ids, which the first of them tracked.
pub(super) fn families(schema: &str, tables: &[&str], count: usize) -> Vec<Replica> {
    let mut all = vec![replica_of(schema, tables, &with_ids(Ids::Counted))];
    for _ in 1..count {
        let mut next = replica("", &[]);
        next.pull(&all[0]);
        all.push(next);
    }
    // Most programs do not ask SQLite to hold references, so they can write what it would refuse.
    for replica in &all {
        let off = "PRAGMA foreign_keys = OFF";
        replica.conn.execute_batch(off).expect(off);
    }
    all
}

#[track_caller]
pub(super) fn assert_all(all: &[Replica], select: &str, expected: &[&str]) {
    for replica in all {
        assert_eq!(replica.rows(select), expected);
    }
}
