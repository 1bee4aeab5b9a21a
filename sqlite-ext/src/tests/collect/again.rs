//! Changesets that arrive again after what they tell was forgotten.

use super::*;

#[test]
fn an_old_changeset_that_arrives_again_does_not_touch_a_row_that_began_anew() {
    for (kind, schema) in ALL_KINDS {
        let [mut a, mut b] = two(schema);
        let mut old = Vec::new();
        for step in [
            "DELETE FROM t WHERE id = '2'",
            "INSERT INTO t VALUES('2', 'second', 'life')",
            "DELETE FROM t WHERE id = '2'",
        ] {
            let seen = a.seen();
            b.now = b.now.max(a.now);
            b.run(step);
            old.push(export(&b.conn, &seen, b.now).expect("export"));
            a.pull(&b);
        }
        b.pull(&a);
        a.collect(&[b.vector()]);
        b.pull(&a);
        a.run("INSERT INTO t VALUES('2', 'anew', 'x')");
        for changes in &old {
            import_changeset(&a.conn, changes, a.now).expect("import");
        }
        b.pull(&a);
        for replica in [&a, &b] {
            assert_eq!(
                replica.rows("SELECT a FROM t WHERE id = '2'"),
                ["anew"],
                "{kind}"
            );
            assert_eq!(replica.digest(), a.digest(), "{kind}");
        }
    }
}
