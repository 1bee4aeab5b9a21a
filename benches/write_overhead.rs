//! What tracking costs an application's writes: CPU time and file size beside plain SQLite.

#[expect(dead_code, reason = "another bench uses the rest of it")]
mod side_by_side;

use side_by_side::{Comparison, Database, Key, ROWS, Variant, compare, each, insert};
use side_by_side::{cr_sqlite, say_what_is_left_out, with_cr_sqlite};

const VARIANTS: [Variant; 3] = [Variant::Plain, Variant::Captured, Variant::Folded];
const INSERTED: [Variant; 4] = [
    Variant::Plain,
    Variant::Trigger,
    Variant::Captured,
    Variant::Folded,
];

fn main() {
    say_what_is_left_out();
    compare("write_overhead", cases, |comparison| {
        comparison.print_ratios(Variant::Plain, &with_cr_sqlite(&INSERTED[1..]));
        [Key::Integer, Key::Uuid].into_iter().for_each(print_sizes);
    });
}

fn cases(comparison: &mut Comparison<'_>) {
    for key in [Key::Integer, Key::Uuid] {
        inserts(comparison, key);
        changes(comparison, key);
    }
}

fn inserts(comparison: &mut Comparison<'_>, key: Key) {
    let (name, variants) = (key.name(), with_cr_sqlite(&INSERTED));
    let empty = |variant| Database::new(key, variant, 0);
    if key == Key::Integer {
        let title = format!("insert, one statement, {name}");
        comparison.case(&title, &variants, empty, |database| {
            let insert = "WITH RECURSIVE n(i) AS
                    (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                INSERT INTO t
                SELECT i, i * 7, 'some text of a row', i / 3.0, 'more', i % 5 FROM n";
            let inserted = database.conn.execute(insert, [ROWS - 1]);
            inserted.expect("the rows are inserted");
        });
    }
    for (title, rows, per_transaction) in [
        ("insert, one transaction", ROWS, ROWS),
        ("insert, 100 rows a transaction", ROWS, 100),
        ("insert, 1 row a transaction", ROWS / 10, 1),
    ] {
        comparison.case(&format!("{title}, {name}"), &variants, empty, |database| {
            insert(&database.conn, key, rows, per_transaction);
        });
    }
}

fn changes(comparison: &mut Comparison<'_>, key: Key) {
    let (name, variants) = (key.name(), with_cr_sqlite(&VARIANTS));
    let full = |variant| Database::new(key, variant, ROWS);
    for (title, sql) in [
        (
            "update one column by key",
            "UPDATE t SET a = a + 1 WHERE id = ?1",
        ),
        (
            "update all columns by key",
            "UPDATE t SET a = a + 1, b = b || 'x', c = c + 1, d = d || 'y', e = e + 1 WHERE id = ?1",
        ),
        ("delete by key", "DELETE FROM t WHERE id = ?1"),
    ] {
        comparison.case(&format!("{title}, {name}"), &variants, full, |database| {
            each(&database.conn, key, 0..ROWS, sql);
        });
    }
    let title = format!("update one column of every tenth row, {name}");
    comparison.case(&title, &variants, full, |database| {
        let rows = (0..ROWS).step_by(10);
        each(
            &database.conn,
            key,
            rows,
            "UPDATE t SET a = a + 1 WHERE id = ?1",
        );
    });
}

fn print_sizes(key: Key) {
    let size = |variant| Database::new(key, variant, ROWS).bytes() as f64;
    let plain = size(Variant::Plain);
    let mut line = format!("{:.2}", size(Variant::Folded) / plain);
    if cr_sqlite().is_some() {
        line += &format!(", cr-sqlite {:.2}", size(Variant::CrSqlite) / plain);
    }
    println!("file size, ratio to plain, {}: {line}", key.name());
}
