//! Every shape of table goes through the same round of writes and exchanges.

use super::*;
use crate::value::quoted;

/// A shape of table: its schema, and what is written to it.
struct Shape {
    label: &'static str,
    schema: String,
    table: &'static str,
    key: Vec<&'static str>,
    /// Four keys: the first three are inserted, the fourth is what the first one becomes.
    keys: [&'static str; 4],
    /// The other columns that can be written, each with three values.
    columns: Vec<(String, [&'static str; 3])>,
}

impl Shape {
    fn new(
        label: &'static str,
        schema: &str,
        key: &[&'static str],
        keys: [&'static str; 4],
        columns: &[(&str, [&'static str; 3])],
    ) -> Self {
        let columns = columns.iter();
        Shape {
            label,
            schema: schema.to_owned(),
            table: "t",
            key: key.to_vec(),
            keys,
            columns: columns.map(|(name, v)| ((*name).to_owned(), *v)).collect(),
        }
    }

    fn named(self, table: &'static str) -> Self {
        Shape { table, ..self }
    }

    fn key_names(&self) -> String {
        let names: Vec<_> = self.key.iter().map(|name| quoted(name)).collect();
        names.join(", ")
    }

    fn insertion(&self, verb: &str, key: usize, value: usize) -> String {
        let names = self.columns.iter().map(|(name, _)| quoted(name));
        let names: Vec<_> = std::iter::once(self.key_names()).chain(names).collect();
        let values = self.columns.iter().map(|(_, values)| values[value]);
        let values: Vec<_> = std::iter::once(self.keys[key]).chain(values).collect();
        let (table, names, values) = (quoted(self.table), names.join(", "), values.join(", "));
        format!("{verb} INTO {table}({names}) VALUES({values})")
    }

    fn is(&self, key: usize) -> String {
        format!("({}) = ({})", self.key_names(), self.keys[key])
    }

    fn update(&self, column: usize, key: usize, value: usize) -> String {
        let (name, values) = &self.columns[column];
        let (table, name) = (quoted(self.table), quoted(name));
        format!(
            "UPDATE {table} SET {name} = {} WHERE {}",
            values[value],
            self.is(key)
        )
    }

    fn select(&self, of: &str) -> String {
        let (table, key) = (quoted(self.table), self.key_names());
        format!("SELECT {of} FROM {table} ORDER BY {key}")
    }

    fn count(&self, key: usize) -> String {
        format!(
            "SELECT count(*) FROM {} WHERE {}",
            quoted(self.table),
            self.is(key)
        )
    }

    /// What a row holds beside its key, generated columns included.
    fn cells(&self, replica: &Replica, key: usize) -> Vec<String> {
        let hidden = format!(
            "SELECT name FROM pragma_table_xinfo('{}') WHERE pk = 0 ORDER BY cid",
            self.table.replace('\'', "''")
        );
        let names: Vec<_> = replica
            .rows(&hidden)
            .iter()
            .map(|name| quoted(name))
            .collect();
        if names.is_empty() {
            return replica.rows(&self.count(key));
        }
        let names = names.join(", ");
        replica.rows(&format!(
            "SELECT {names} FROM {} WHERE {}",
            quoted(self.table),
            self.is(key)
        ))
    }
}

const TEXTS: [&str; 3] = ["'one'", "'zwei'", "NULL"];
const ANY: [&str; 3] = ["1", "x'00ff'", "'1'"];
const NUMBERS: [&str; 3] = ["1", "-9223372036854775808", "2.5"];

fn shapes() -> Vec<Shape> {
    let mut all = keys();
    all.extend(columns());
    all.extend(names());
    all
}

/// Keys of each kind.
fn keys() -> Vec<Shape> {
    let numbers = ["1", "2", "70000", "-5"];
    let texts = ["'a'", "''", "'ä\u{301}'", "'A'"];
    let blobs = ["x'00'", "x''", "x'ff00'", "x'41'"];
    let reals = ["0.5", "2.0", "1e300", "0.1"];
    let pairs = ["1, 'a'", "1, 'b'", "2, 'a'", "3, ''"];
    let plain = [("a", ANY), ("b", TEXTS)];
    let shape = |label, schema: &str, keys| Shape::new(label, schema, &["id"], keys, &plain);
    let both = |label, schema: &str| Shape::new(label, schema, &["k1", "k2"], pairs, &plain);
    vec![
        shape(
            "integer",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT)",
            numbers,
        ),
        shape(
            "counted",
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a, b TEXT)",
            numbers,
        ),
        shape(
            "int",
            "CREATE TABLE t(id INT PRIMARY KEY, a, b TEXT)",
            numbers,
        ),
        shape(
            "text",
            "CREATE TABLE t(id TEXT PRIMARY KEY, a, b TEXT)",
            texts,
        ),
        shape(
            "blob",
            "CREATE TABLE t(id BLOB PRIMARY KEY, a, b TEXT)",
            blobs,
        ),
        shape(
            "real",
            "CREATE TABLE t(id REAL PRIMARY KEY, a, b TEXT)",
            reals,
        ),
        shape(
            "real, packed",
            "CREATE TABLE t(id REAL PRIMARY KEY, a, b TEXT) WITHOUT ROWID",
            reals,
        ),
        shape(
            "text, packed",
            "CREATE TABLE t(id TEXT PRIMARY KEY, a, b TEXT) WITHOUT ROWID",
            texts,
        ),
        shape(
            "blob, packed",
            "CREATE TABLE t(id BLOB PRIMARY KEY, a, b TEXT) WITHOUT ROWID",
            blobs,
        ),
        shape(
            "no type",
            "CREATE TABLE t(a, id PRIMARY KEY, b TEXT)",
            ["1", "'1'", "x'31'", "1.5"],
        ),
        shape(
            "no type, packed",
            "CREATE TABLE t(a, id PRIMARY KEY, b TEXT) WITHOUT ROWID",
            ["1", "'1'", "x'31'", "1.5"],
        ),
        both(
            "two",
            "CREATE TABLE t(k2 TEXT, a, k1 INT, b TEXT, PRIMARY KEY(k1, k2))",
        ),
        both(
            "two, packed",
            "CREATE TABLE t(k2 TEXT, a, k1 INT, b TEXT, PRIMARY KEY(k2 DESC, k1)) WITHOUT ROWID",
        ),
        Shape::new(
            "key only, integer",
            "CREATE TABLE t(id INTEGER PRIMARY KEY)",
            &["id"],
            numbers,
            &[],
        ),
        Shape::new(
            "key only, text",
            "CREATE TABLE t(id TEXT PRIMARY KEY)",
            &["id"],
            texts,
            &[],
        ),
        Shape::new(
            "key only, two, packed",
            "CREATE TABLE t(k1 INT, k2 TEXT, PRIMARY KEY(k1, k2)) WITHOUT ROWID",
            &["k1", "k2"],
            pairs,
            &[],
        ),
    ]
}

/// Columns of each kind.
fn columns() -> Vec<Shape> {
    let numbers = ["1", "2", "70000", "-5"];
    let texts = ["'a'", "''", "'b'", "'A'"];
    let strict = [
        ("i", ["1", "-1", "NULL"]),
        ("r", ["1", "2.5", "NULL"]),
        ("x", ["'x'", "''", "NULL"]),
        ("y", ["x'00'", "x''", "NULL"]),
        ("z", ANY),
    ];
    let all = "i INTEGER, r REAL, x TEXT, y BLOB, z ANY";
    let generated = [("a", NUMBERS), ("b", ["'x'", "'y'", "''"])];
    let made = "a, v AS (a + 1), b TEXT NOT NULL, s TEXT AS (b || 's') STORED,
        n GENERATED ALWAYS AS (typeof(a)) VIRTUAL NOT NULL";
    let checked = [("low", ["1", "2", "0"]), ("high", ["10", "20", "30"])];
    let wide = |label, key: &str, keys| {
        let columns: Vec<_> = (0..100).map(|at| (format!("c{at}"), ANY)).collect();
        let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let schema = format!("CREATE TABLE t(id {key} PRIMARY KEY, {})", names.join(", "));
        let shape = Shape::new(label, &schema, &["id"], keys, &[]);
        Shape { columns, ..shape }
    };
    let shape = |label, schema: &str, keys, columns: &[_]| {
        Shape::new(label, schema, &["id"], keys, columns)
    };
    vec![
        shape(
            "strict",
            &format!("CREATE TABLE t(id INTEGER PRIMARY KEY, {all}) STRICT"),
            numbers,
            &strict,
        ),
        shape(
            "strict, packed",
            &format!("CREATE TABLE t(id TEXT PRIMARY KEY, {all}) STRICT, WITHOUT ROWID"),
            texts,
            &strict,
        ),
        shape(
            "generated",
            &format!("CREATE TABLE t(id INTEGER PRIMARY KEY, {made})"),
            numbers,
            &generated,
        ),
        shape(
            "generated, text",
            &format!("CREATE TABLE t({made}, id TEXT PRIMARY KEY); CREATE INDEX by_s ON t(s, v)"),
            texts,
            &generated,
        ),
        shape(
            "checked",
            "CREATE TABLE t(id TEXT PRIMARY KEY CHECK(length(id) < 9), low INT, high INT,
                CHECK(low <= high))",
            texts,
            &checked,
        ),
        shape(
            "collated",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE, b COLLATE RTRIM)",
            numbers,
            &[
                ("a", ["'a'", "'A'", "'b'"]),
                ("b", ["'x'", "'x '", "'x  '"]),
            ],
        ),
        shape(
            "not null",
            "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, a TEXT NOT NULL, b INTEGER NOT NULL,
                c BLOB NOT NULL, d NOT NULL DEFAULT 7)",
            texts,
            &[
                ("a", ["'x'", "''", "'y'"]),
                ("b", ["1", "2", "0"]),
                ("c", ["x'01'", "x''", "'t'"]),
                ("d", ANY),
            ],
        ),
        shape(
            "not null, packed",
            "CREATE TABLE t(id TEXT, a TEXT NOT NULL, b INTEGER NOT NULL, PRIMARY KEY(id)) WITHOUT ROWID",
            texts,
            &[("a", ["'x'", "''", "'y'"]), ("b", ["1", "2", "0"])],
        ),
        shape(
            "defaults",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a DEFAULT (1 + 1), b TEXT DEFAULT 'it''s')",
            numbers,
            &[("a", ANY), ("b", TEXTS)],
        ),
        wide("wide", "INTEGER", numbers),
        wide("wide, text", "TEXT", texts),
    ]
}

/// Names that need quotes, and things of the user's beside the table.
fn names() -> Vec<Shape> {
    let numbers = ["1", "2", "70000", "-5"];
    let odd = [
        ("select", ANY),
        ("a \"b\"", TEXTS),
        ("it's [so]", ANY),
        ("naïve `x`", TEXTS),
    ];
    let columns = "\"select\", \"a \"\"b\"\"\" TEXT, \"it's [so]\", \"naïve `x`\" TEXT";
    let named = |label, table: &'static str, key: &'static str, kind: &str, end: &str| {
        let (table_name, key_name) = (quoted(table), quoted(key));
        let schema =
            format!("CREATE TABLE {table_name}({key_name} {kind} PRIMARY KEY, {columns}){end}");
        Shape::new(label, &schema, &[key], numbers, &odd).named(table)
    };
    let beside = "CREATE TABLE t(id TEXT PRIMARY KEY, a, b TEXT);
        CREATE TABLE log(line);
        CREATE VIEW lines AS SELECT id || a AS line FROM t;
        CREATE TRIGGER lines_insert INSTEAD OF INSERT ON lines BEGIN
            INSERT INTO t(id) VALUES(NEW.line); END;
        CREATE TRIGGER before BEFORE INSERT ON t BEGIN INSERT INTO log VALUES('before'); END;
        CREATE TRIGGER after AFTER UPDATE OF a ON t BEGIN
            UPDATE t SET b = NEW.a WHERE id = NEW.id; END;
        CREATE TRIGGER gone AFTER DELETE ON t BEGIN INSERT INTO log VALUES(OLD.id); END;";
    vec![
        named("keyword", "order", "group", "INTEGER", ""),
        named("spaces", "a table", "the key", "INT", ""),
        named("quotes", "it's \"a\" [table]", "ke\"y'", "INTEGER", ""),
        named(
            "quotes, packed",
            "it's `a` \"table\"",
            "ke\"y'",
            "INTEGER",
            " WITHOUT ROWID",
        ),
        named("not ascii", "Straße", "Schlüssel", "INT", ""),
        named("rowid names", "rowid", "_rowid_", "INT", ""),
        named("pending names", "key", "mask", "INTEGER", ""),
        Shape::new(
            "views and triggers",
            beside,
            &["id"],
            ["'a'", "''", "'b'", "'A'"],
            &[("a", ANY), ("b", TEXTS)],
        ),
    ]
}

struct Round {
    shape: Shape,
    replicas: [Replica; 2],
}

impl Round {
    fn begin(shape: Shape) -> Self {
        let mut a = replica(&shape.schema, &[shape.table]);
        let mut b = replica("", &[]);
        a.run("SELECT 1");
        b.pull(&a);
        Round {
            shape,
            replicas: [a, b],
        }
    }

    /// Writes on one replica, and sees that both have the same afterwards.
    #[track_caller]
    fn write(&mut self, on: usize, what: &str, sql: &str) {
        let now = self.replicas[1 - on].now;
        self.replicas[on].now = self.replicas[on].now.max(now);
        self.replicas[on].run(sql);
        self.meet(what);
    }

    #[track_caller]
    fn meet(&mut self, what: &str) {
        let [a, b] = &mut self.replicas;
        b.pull(a);
        a.pull(b);
        let told = format!("{}: {what}", self.shape.label);
        let dump = self.shape.select("*");
        assert_eq!(a.rows(&dump), b.rows(&dump), "{told}");
        assert_eq!(a.digest(), b.digest(), "{told}");
        for replica in &self.replicas {
            assert_eq!(replica.rows("PRAGMA integrity_check"), ["ok"], "{told}");
        }
    }
}

#[test]
fn every_shape_of_table_takes_every_write_and_both_replicas_agree() {
    for shape in shapes() {
        let mut round = Round::begin(shape);
        insert_and_update(&mut round);
        change_the_key(&mut round);
        delete_and_write_over(&mut round);
        write_on_both(&mut round);
        let mut fresh = replica("", &[]);
        fresh.pull(&round.replicas[1]);
        let (dump, label) = (round.shape.select("*"), round.shape.label);
        assert_eq!(fresh.rows(&dump), round.replicas[0].rows(&dump), "{label}");
        assert_eq!(fresh.digest(), round.replicas[0].digest(), "{label}");
    }
}

fn insert_and_update(round: &mut Round) {
    for key in 0..3 {
        let insert = round.shape.insertion("INSERT", key, 0);
        round.write(key % 2, "insert", &insert);
        assert_eq!(round.replicas[0].rows(&round.shape.count(key)), ["1"]);
    }
    let count = round.shape.columns.len();
    for column in 0..count {
        let last = [1, 2, 0].into_iter().map(|value| {
            let on = if count > 8 { column / 8 } else { column };
            (on % 2, round.shape.update(column, column % 3, value))
        });
        for (at, (on, update)) in last.collect::<Vec<_>>().into_iter().enumerate() {
            if count > 8 && (at != 1 || column % 8 != 7) {
                round.replicas[on].run(&update);
            } else {
                round.write(on, "update", &update);
            }
        }
    }
    round.meet("updates");
}

fn change_the_key(round: &mut Round) {
    let before = round.shape.cells(&round.replicas[0], 0);
    let table = quoted(round.shape.table);
    let (names, to) = (round.shape.key_names(), round.shape.keys[3]);
    let change = format!(
        "UPDATE {table} SET ({names}) = (SELECT {to}) WHERE {}",
        round.shape.is(0)
    );
    round.write(1, "change of the key", &change);
    for replica in &round.replicas {
        assert_eq!(
            round.shape.cells(replica, 3),
            before,
            "{}",
            round.shape.label
        );
        assert_eq!(
            replica.rows(&round.shape.count(0)),
            ["0"],
            "{}",
            round.shape.label
        );
    }
}

fn delete_and_write_over(round: &mut Round) {
    let label = round.shape.label;
    let delete = format!(
        "DELETE FROM {} WHERE {}",
        quoted(round.shape.table),
        round.shape.is(1)
    );
    round.write(0, "delete", &delete);
    assert_eq!(
        round.replicas[1].rows(&round.shape.count(1)),
        ["0"],
        "{label}"
    );
    let insert = round.shape.insertion("INSERT", 1, 1);
    round.write(1, "insert again", &insert);
    assert_eq!(
        round.replicas[0].rows(&round.shape.count(1)),
        ["1"],
        "{label}"
    );
    let replace = round.shape.insertion("REPLACE", 2, 1);
    round.write(0, "replace", &replace);
    let columns = round.shape.columns.iter().map(|(name, _)| quoted(name));
    let sets: Vec<_> = columns
        .map(|name| format!("{name} = excluded.{name}"))
        .collect();
    let upsert = match &sets[..] {
        [] => "DO NOTHING".to_owned(),
        sets => format!("DO UPDATE SET {}", sets.join(", ")),
    };
    for (key, value) in [(2, 0), (0, 1)] {
        let insert = round.shape.insertion("INSERT", key, value);
        let conflict = format!("{insert} ON CONFLICT({}) {upsert}", round.shape.key_names());
        round.write(key / 2, "upsert", &conflict);
    }
    assert_eq!(
        round.replicas[1].rows(&round.shape.count(0)),
        ["1"],
        "{label}"
    );
}

fn write_on_both(round: &mut Round) {
    if let Some(last) = round.shape.columns.len().checked_sub(1) {
        let sql = [round.shape.update(0, 1, 0), round.shape.update(last, 1, 1)];
        for (replica, sql) in round.replicas.iter_mut().zip(&sql) {
            replica.run(sql);
        }
    }
    let inserts = [
        round.shape.insertion("REPLACE", 0, 0),
        round.shape.insertion("REPLACE", 0, 1),
    ];
    for (replica, sql) in round.replicas.iter_mut().zip(&inserts) {
        replica.run(sql);
    }
    round.meet("writes on both");
    let table = quoted(round.shape.table);
    round.replicas[0].run(&format!("DELETE FROM {table}"));
    round.replicas[1].run(&round.shape.insertion("REPLACE", 2, 1));
    round.meet("a deletion of everything beside a write");
    let insert = round.shape.insertion("REPLACE", 2, 0);
    round.write(1, "a row after everything was deleted", &insert);
}

#[test]
fn rows_of_a_table_that_had_nothing_but_its_key_are_passed_on_after_it_got_columns() {
    for schema in [
        "CREATE TABLE t(id INTEGER PRIMARY KEY)",
        "CREATE TABLE t(id TEXT PRIMARY KEY)",
        "CREATE TABLE t(id PRIMARY KEY) WITHOUT ROWID",
    ] {
        let mut a = replica(schema, &["t"]);
        a.run("INSERT INTO t VALUES('1'), ('2'), ('3')");
        let mut b = replica("", &[]);
        b.pull(&a);
        let add = "ALTER TABLE t ADD COLUMN a DEFAULT 'd'; ALTER TABLE t ADD COLUMN b";
        b.run(add);
        a.run("INSERT INTO t VALUES('4'); DELETE FROM t WHERE id = '3'; INSERT INTO t VALUES('3')");
        b.pull(&a);
        b.run("UPDATE t SET b = 'b' WHERE id = '2'");
        let mut c = replica("", &[]);
        c.pull(&b);
        a.run(add);
        let mut all = [a, b, c];
        converge(&mut all);
        for replica in &all {
            let rows = replica.rows("SELECT id || a || ifnull(b, '') FROM t ORDER BY id");
            assert_eq!(rows, ["1d", "2db", "3d", "4d"], "{schema}");
        }
    }
}
