//! What can be granted, and what is refused with which words.

use super::*;

#[test]
fn a_grant_is_refused_that_gives_what_is_not_there() {
    let [mut a, mut b] = pair(ONE, "1");
    let (to, one) = (site(&b), [Value::Integer(1)]);
    let digest = a.digest();
    let mut says = |key: &[Value], amount, to, words: &str| {
        let error = give(&mut a, key, amount, to).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    };
    says(&one, 11, to, "only 10 can be granted here");
    says(&one, 0, to, "a whole number above zero");
    says(&one, i64::MIN, to, "a whole number above zero");
    says(&[Value::Integer(2)], 1, to, "no row with this key");
    says(&[Value::text("x")], 1, to, "no row with this key");
    says(&[], 1, to, "no row with this key of 0 values");
    says(
        &[Value::Integer(1), Value::Null],
        1,
        to,
        "no row with this key of 2 values",
    );
    let own = site(&a);
    assert!(give(&mut a, &one, 1, own).is_err());
    assert_eq!(a.digest(), digest);
    let none = give(&mut b, &one, 1, own)
        .expect_err("b has nothing")
        .to_string();
    assert!(none.contains("only 0 can be granted here"), "{none}");
    for (table, column) in [
        ("t", "id"),
        ("t", "no"),
        ("no", "n"),
        ("sqlite_master", "name"),
    ] {
        let counter = CounterCell {
            table,
            key: &one,
            column,
        };
        let error = grant(&a.conn, counter, (1, to), a.now).expect_err(column);
        assert!(matches!(error, RightsError::NoCounter { .. }), "{error}");
    }
    let plain = replica("", &[]);
    let counter = CounterCell {
        table: "t",
        key: &one,
        column: "n",
    };
    grant(&plain.conn, counter, (1, to), NOW).expect_err("nothing is tracked there");
}

#[test]
fn the_sql_function_grants_and_says_what_it_takes() {
    let mut a = with(
        "CREATE TABLE t(id INT, part TEXT, n, PRIMARY KEY(id, part))",
        BOUNDED,
    );
    a.run("INSERT INTO t VALUES(1, 'x', 10)");
    let mut b = replica("", &[]);
    b.pull(&a);
    let grant = format!(
        "SELECT syncline_grant('t', 1, 'x', 'n', 4, x'{}')",
        site(&b)
    );
    // Nobody can say yet that there is such a replica.
    let error = a
        .conn
        .query_row(&grant, [], |_| Ok(()))
        .expect_err("unknown")
        .to_string();
    assert!(
        error.contains("a device is known by what it wrote"),
        "{error}"
    );
    meet(&mut a, &mut b);
    assert_eq!(a.rows(&grant), ["6"]);
    assert_eq!(a.rows(&grant), ["2"]);
    for wrong in [
        "SELECT syncline_grant()",
        "SELECT syncline_grant('t', 'n', 4, zeroblob(16))",
        "SELECT syncline_grant('t', 1, 'x', 'n', 1, zeroblob(15))",
        "SELECT syncline_grant('t', 1, 'x', 'n', 1, '0123456789abcdef')",
        "SELECT syncline_grant('t', 1, 'x', 'n', 1.5, zeroblob(16))",
        "SELECT syncline_grant('t', 1, 'x', NULL, 1, zeroblob(16))",
        "SELECT syncline_grant(NULL, 1, 'x', 'n', 1, zeroblob(16))",
        "SELECT syncline_grant('t', 1, 'x', 'n', 3, zeroblob(16))",
        "SELECT syncline_grant('t', 1, 'y', 'n', 1, zeroblob(16))",
    ] {
        let wrong = wrong.replace("zeroblob(16)", &format!("x'{}'", site(&b)));
        a.conn.query_row(&wrong, [], |_| Ok(())).expect_err(&wrong);
    }
    assert_eq!(a.rows(&grant.replace("4,", "2,")), ["0"]);
}
