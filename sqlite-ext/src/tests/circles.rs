//! Rows that refer to each other where ids are counted, and tables that are tracked again with their
//! foreign keys.

use super::families::families;
use super::foreign::{BOTH, KEYS, kinds, replicas, settle};
use super::*;

const CIRCLE: [&str; 2] = ["a", "b"];

fn circle(action: &str) -> String {
    format!(
        "CREATE TABLE a(id INTEGER PRIMARY KEY, tag, b INTEGER REFERENCES b(id));
         CREATE TABLE b(id INTEGER PRIMARY KEY, tag, a INTEGER REFERENCES a(id) {action})"
    )
}

/// Every row with the tag of the one that it refers to.
const LINKS: &str = "SELECT a.tag, b.tag FROM a LEFT JOIN b ON b.id = a.b
    UNION ALL SELECT b.tag, a.tag FROM b LEFT JOIN a ON a.id = b.a ORDER BY 1";

#[test]
fn rows_that_hold_each_other_keep_each_other_when_both_get_other_ids() {
    for action in ["", "ON DELETE CASCADE", "ON DELETE SET NULL"] {
        let mut all = families(&circle(action), &CIRCLE, 3);
        for (at, tag) in ["x", "y", "z"].into_iter().enumerate() {
            let pair = format!(
                "INSERT INTO a VALUES(1, 'a{tag}', 1); INSERT INTO b VALUES(1, 'b{tag}', 1)"
            );
            all[at].later(&pair);
        }
        settle(&mut all, &CIRCLE);
        let whole = ["ax|bx", "ay|by", "az|bz", "bx|ax", "by|ay", "bz|az"];
        assert_eq!(all[1].rows(LINKS), whole, "{action}");
        // Those that had the numbers go, and others get them.
        all[2].later("DELETE FROM a WHERE id = 1; DELETE FROM b WHERE id = 1");
        settle(&mut all, &CIRCLE);
        assert_eq!(
            all[0].rows(LINKS),
            ["ay|by", "az|bz", "by|ay", "bz|az"],
            "{action}"
        );
        let first = "SELECT count(*) FROM a JOIN b USING(id) WHERE id = 1";
        assert_eq!(all[0].rows(first), ["1"], "{action}");
        assert_eq!(all[0].rows(KEYS), [""; 0], "{action}");
    }
}

#[test]
fn half_of_a_circle_waits_for_the_other_under_whatever_id() {
    for action in ["", "ON DELETE CASCADE", "ON DELETE SET NULL"] {
        let is_masked = action.ends_with("NULL");
        let mut all = families(&circle(action), &CIRCLE, 3);
        for (at, tag) in [(1, "y"), (2, "z")] {
            let pair = format!(
                "INSERT INTO a VALUES(1, 'a{tag}', 1); INSERT INTO b VALUES(1, 'b{tag}', 1)"
            );
            all[at].later(&pair);
        }
        settle(&mut all, &CIRCLE);
        // Without its `a`, `bz` is parked, or shows NULL.
        all[0].later("DELETE FROM a WHERE tag = 'az'");
        all[1].later("INSERT INTO b VALUES(7, 'more', (SELECT id FROM a WHERE tag = 'az'))");
        settle(&mut all, &CIRCLE);
        let left: &[&str] = match is_masked {
            false => &["ay|by", "by|ay"],
            true => &["ay|by", "by|ay", "bz|∅", "more|∅"],
        };
        assert_eq!(all[1].rows(LINKS), left, "{action}");
        assert_eq!(all[1].rows(KEYS).len(), 2, "{action}");
        // A new row of its number is another row.
        all[1].later("INSERT INTO a VALUES((SELECT max(id) FROM a) + 1, 'other', NULL)");
        settle(&mut all, &CIRCLE);
        assert_eq!(all[0].rows(KEYS).len(), 2, "{action}");
        // The device that made it makes it again, after the other pair went.
        all[0].later("DELETE FROM a WHERE tag = 'ay'; DELETE FROM b WHERE tag = 'by'");
        settle(&mut all, &CIRCLE);
        all[2].later("INSERT INTO a VALUES(1, 'az', NULL)");
        settle(&mut all, &CIRCLE);
        let links = all[0].rows(LINKS);
        assert!(links.contains(&"bz|az".to_owned()), "{action}: {links:?}");
        assert!(links.contains(&"more|az".to_owned()), "{action}: {links:?}");
        assert_eq!(all[0].rows(KEYS), [""; 0], "{action}");
    }
}

#[test]
fn a_counted_tree_keeps_its_shape() {
    for action in ["", "ON DELETE CASCADE", "ON DELETE SET NULL"] {
        let schema = format!(
            "CREATE TABLE n(id INTEGER PRIMARY KEY, tag, up INTEGER REFERENCES n {action})"
        );
        let mut all = families(&schema, &["n"], 3);
        for (at, tag) in ["x", "y", "z"].into_iter().enumerate() {
            let tree = format!(
                "INSERT INTO n VALUES(1, '{tag}1', NULL), (2, '{tag}2', 1), (3, '{tag}3', 2),
                    (4, '{tag}4', 4)"
            );
            all[at].later(&tree);
        }
        settle(&mut all, &["n"]);
        let ups = "SELECT c.tag, p.tag FROM n AS c LEFT JOIN n AS p ON p.id = c.up ORDER BY 1";
        let tree = |tag: &str| {
            let [one, two, three, four] = [1, 2, 3, 4].map(|n| format!("{tag}{n}"));
            let none = format!("{one}|∅");
            vec![
                none,
                format!("{two}|{one}"),
                format!("{three}|{two}"),
                format!("{four}|{four}"),
            ]
        };
        let whole: Vec<String> = ["x", "y", "z"].into_iter().flat_map(tree).collect();
        assert_eq!(all[2].rows(ups), whole, "{action}");
        all[0].later("DELETE FROM n WHERE tag = 'y2'");
        all[1].later("DELETE FROM n WHERE tag IN ('x1', 'x2', 'x3', 'x4')");
        settle(&mut all, &["n"]);
        let shown = all[0].rows(ups);
        assert!(shown.contains(&"y1|∅".to_owned()), "{action}: {shown:?}");
        let is_masked = action.ends_with("NULL");
        assert_eq!(
            shown.contains(&"y3|∅".to_owned()),
            is_masked,
            "{action}: {shown:?}"
        );
        assert_eq!(
            shown.iter().filter(|row| row.starts_with('z')).count(),
            4,
            "{action}"
        );
    }
}

fn again(replica: &mut Replica, table: &str) {
    replica.now += 10;
    track(&replica.conn, table, &TableOptions::default(), replica.now).expect("track");
}

#[test]
fn rows_that_wait_go_on_waiting_while_their_table_is_untracked() {
    for (kind, schema) in kinds("REFERENCES album(id)") {
        let start = "INSERT INTO album VALUES('1', 'one'), ('2', 'two');
            INSERT INTO track VALUES('7', '1', 'a'), ('8', '2', 'b')";
        let mut both: [Replica; 2] = replicas(&schema, &BOTH, start);
        both[0].later("DELETE FROM album WHERE id = '1'");
        settle(&mut both, &BOTH);
        let [a, b] = &mut both;
        untrack(&b.conn, "track", b.now).expect("untrack");
        assert_eq!(b.rows(KEYS).len(), 1, "{kind}");
        a.later("INSERT INTO album VALUES('1', 'again'); DELETE FROM album WHERE id = '2'");
        b.pull(a);
        assert_eq!(b.rows("SELECT id FROM track"), ["8"], "{kind}");
        again(b, "track");
        assert_eq!(b.rows("SELECT id FROM track"), ["7"], "{kind}");
        settle(&mut both, &BOTH);
        // A parent that nobody tracks is this device's own affair; what became of it counts after.
        let [a, b] = &mut both;
        untrack(&b.conn, "album", b.now).expect("untrack");
        assert_eq!(
            b.rows("SELECT id FROM track ORDER BY id"),
            ["7", "8"],
            "{kind}"
        );
        b.run("DELETE FROM album; INSERT INTO album VALUES('2', 'anew')");
        a.now = b.now;
        a.later("INSERT INTO track VALUES('9', '1', 'c')");
        b.pull(a);
        assert_eq!(b.rows("SELECT count(*) FROM track"), ["3"], "{kind}");
        b.now = a.now;
        again(b, "album");
        assert_eq!(b.rows("SELECT id FROM track"), ["8"], "{kind}");
        settle(&mut both, &BOTH);
        assert_eq!(both[0].rows("SELECT id FROM track"), ["8"], "{kind}");
        assert_eq!(both[0].rows(KEYS).len(), 2, "{kind}");
    }
}

#[test]
fn what_a_cascade_did_while_tables_were_untracked_counts_after() {
    for (kind, schema) in kinds("REFERENCES album(id) ON DELETE CASCADE ON UPDATE CASCADE") {
        for order in [["album", "track"], ["track", "album"]] {
            let start = "INSERT INTO album VALUES('1', 'one'), ('2', 'two');
                INSERT INTO track VALUES('7', '1', 'a'), ('8', '2', 'b')";
            let mut both: [Replica; 2] = replicas(&schema, &BOTH, start);
            let [a, b] = &mut both;
            for table in order {
                untrack(&b.conn, table, b.now).expect("untrack");
            }
            b.run(
                "PRAGMA foreign_keys = ON; DELETE FROM album WHERE id = '1';
                 UPDATE album SET id = '3' WHERE id = '2'; PRAGMA foreign_keys = OFF",
            );
            a.later("INSERT INTO track VALUES('9', '1', 'late'), ('5', '2', 'late')");
            b.pull(a);
            b.now = a.now;
            order.iter().for_each(|table| again(b, table));
            settle(&mut both, &BOTH);
            let tracks = "SELECT id, album FROM track ORDER BY id";
            assert_eq!(both[0].rows(tracks), ["8|3"], "{kind}");
            assert_eq!(both[0].rows(KEYS).len(), 2, "{kind}");
            both[1].later("INSERT INTO album VALUES('1', 'x'), ('2', 'y')");
            settle(&mut both, &BOTH);
            assert_eq!(both[0].rows(tracks), ["5|2", "8|3", "9|1"], "{kind}");
        }
    }
}

#[test]
fn a_circle_is_tracked_again_table_by_table() {
    let schema = circle("ON DELETE SET NULL");
    let start = "INSERT INTO a VALUES(1, 'a1', 1), (2, 'a2', 2);
        INSERT INTO b VALUES(1, 'b1', 1), (2, 'b2', 2), (3, 'b3', 9)";
    for order in [["a", "b"], ["b", "a"]] {
        let mut both: [Replica; 2] = replicas(&schema, &CIRCLE, start);
        let [a, b] = &mut both;
        for table in order {
            untrack(&b.conn, table, b.now).expect("untrack");
        }
        b.run("DELETE FROM a WHERE id = 1; INSERT INTO b VALUES(4, 'b4', 1)");
        a.later("DELETE FROM b WHERE id = 2; INSERT INTO a VALUES(9, 'a9', 3)");
        b.pull(a);
        b.now = a.now;
        for table in order {
            again(b, table);
        }
        settle(&mut both, &CIRCLE);
        let links = ["a9|b3", "b1|∅", "b3|a9", "b4|∅"];
        assert_eq!(both[0].rows(LINKS), links, "{order:?}");
        both[0].later("INSERT INTO a VALUES(1, 'back', 4); INSERT INTO b VALUES(2, 'b2', 2)");
        settle(&mut both, &CIRCLE);
        let links = [
            "a2|b2", "a9|b3", "b1|back", "b2|a2", "b3|a9", "b4|back", "back|b4",
        ];
        assert_eq!(both[1].rows(LINKS), links, "{order:?}");
        assert_eq!(both[1].rows(KEYS), [""; 0], "{order:?}");
    }
}
