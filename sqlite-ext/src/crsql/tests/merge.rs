//! Changes that other replicas made: which write wins, and what refuses.

use super::peers;

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY NOT NULL, a, b TEXT DEFAULT 'x');
    SELECT crsql_as_crr('t');";

#[test]
fn two_replicas_converge() {
    let [a, b] = peers(T);
    a.run("INSERT INTO t VALUES(1, 1, 'one'), (2, 2, 'two')");
    b.pull(&a, 0);
    assert_eq!(b.rows("SELECT * FROM t"), ["1|1|one", "2|2|two"]);
    a.run("UPDATE t SET a = 10 WHERE id = 1")
        .run("DELETE FROM t WHERE id = 2");
    b.run("UPDATE t SET b = 'uno' WHERE id = 1")
        .run("UPDATE t SET a = 22 WHERE id = 2");
    a.pull(&b, 0);
    b.pull(&a, 0);
    for peer in [&a, &b] {
        assert_eq!(peer.rows("SELECT * FROM t"), ["1|10|uno"]);
    }
    b.run("INSERT INTO t VALUES(2, 'again', 'new')");
    a.pull(&b, 0);
    assert_eq!(a.rows("SELECT * FROM t"), ["1|10|uno", "2|again|new"]);
}
