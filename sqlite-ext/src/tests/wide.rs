//! Tables of many columns.

use super::*;

fn wide(count: usize, rest: &str) -> String {
    let columns: Vec<String> = (0..count).map(|at| format!("c{at}")).collect();
    format!("CREATE TABLE t(id {rest}, {})", columns.join(", "))
}

#[test]
fn any_number_of_columns_is_captured_cell_by_cell() {
    for (count, rest) in [
        (62, "INTEGER PRIMARY KEY"),
        (63, "INTEGER PRIMARY KEY"),
        (100, "TEXT PRIMARY KEY"),
        (125, "INTEGER PRIMARY KEY"),
    ] {
        let mut a = replica(&wide(count, rest), &["t"]);
        a.run("INSERT INTO t(id, c0) VALUES(1, 'x'), (2, 'y')");
        let mut b = replica("", &[]);
        b.pull(&a);
        let last = count - 1;
        a.run(&format!(
            "UPDATE t SET c{last} = 'last', c30 = 61 WHERE id = '1'"
        ));
        b.now += 1_000;
        b.run(&format!(
            "UPDATE t SET c0 = 'first', c{} = 'b' WHERE id = '1'",
            last - 1
        ));
        let mut both = [a, b];
        converge(&mut both);
        let select = format!("SELECT c0, c{}, c{last} FROM t WHERE id = '1'", last - 1);
        assert_eq!(both[0].rows(&select), ["first|b|last"], "{count}");
        let all = (0..count).map(|at| format!("c{at} = {at}"));
        let all = all.collect::<Vec<_>>().join(", ");
        both[0].run(&format!(
            "UPDATE t SET {all} WHERE id = '2'; DELETE FROM t WHERE id = '1'"
        ));
        converge(&mut both);
        let select = format!("SELECT id, c{last} FROM t");
        assert_eq!(both[1].rows(&select), [format!("2|{last}")], "{count}");
    }
}

#[test]
fn the_widest_table_of_all_is_exchanged() {
    let mut a = replica(&wide(1_999, "INTEGER PRIMARY KEY"), &["t"]);
    let mut b = replica("", &[]);
    a.run("INSERT INTO t(id, c0) VALUES(1, 'x')");
    b.pull(&a);
    a.run("UPDATE t SET c1998 = 'last'");
    b.pull(&a);
    assert_eq!(b.rows("SELECT c0, c1998 FROM t"), ["x|last"]);
}

#[test]
fn a_column_beyond_a_word_of_the_mask_is_taken_up() {
    let mut a = replica(&wide(62, "TEXT PRIMARY KEY"), &["t"]);
    a.run("INSERT INTO t(id, c0) VALUES('k', 'x')");
    let mut b = replica("", &[]);
    b.pull(&a);
    for replica in [&mut a, &mut b] {
        // Noted by triggers that do not know the new column.
        replica.run("UPDATE t SET c1 = 1; ALTER TABLE t ADD COLUMN c62 TEXT DEFAULT 'd'");
    }
    a.run("UPDATE t SET c62 = 'a'");
    b.run("UPDATE t SET c61 = 'b'");
    let mut both = [a, b];
    converge(&mut both);
    assert_eq!(both[0].rows("SELECT c0, c1, c61, c62 FROM t"), ["x|1|b|a"]);
}

#[test]
fn a_table_too_wide_for_its_rowid_to_be_read_beside_stands_aside() {
    let a = replica(&wide(1_999, "TEXT PRIMARY KEY"), &[]);
    let error = track(&a.conn, "t", &TableOptions::default(), NOW).expect_err("too wide");
    assert!(error.to_string().contains("2000 columns"), "{error}");
    let mut b = replica(&wide(1_998, "TEXT PRIMARY KEY"), &["t"]);
    b.run("ALTER TABLE t ADD COLUMN one_more; INSERT INTO t(id) VALUES('k')");
    let aside = b.aside();
    assert!(aside[0].1.contains("2000 columns"), "{aside:?}");
}
