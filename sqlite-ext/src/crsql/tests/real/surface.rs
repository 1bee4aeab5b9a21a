//! Queries, packed keys and lists in an order of their own, as in a real cr-sqlite.

use super::*;

#[test]
fn filters_find_what_they_find_in_cr_sqlite() {
    let Some(real) = Real::start() else { return };
    const FILTERS: [&str; 22] = [
        "db_version > 1",
        "db_version >= 2 AND db_version < 4",
        "db_version = 3",
        "db_version <> 2",
        "db_version IS 2",
        "db_version IS NOT 2",
        "cid = 'a'",
        "cid = '-1'",
        "cid <> 'a' AND col_version > 1",
        "cid LIKE 'A'",
        "cid IS NULL",
        "cl = 1",
        "cl > 1 AND seq = 0",
        "col_version <= 1",
        "seq BETWEEN 1 AND 2",
        "\"table\" = 't'",
        "\"table\" = 't' AND cid = 'b' AND db_version > 1",
        "pk = x'010901'",
        "val IS NULL",
        "val = 101",
        "site_id IS NULL",
        "site_id IS NOT x'00' AND db_version > 2",
    ];
    proptest!(config(), |(transactions in transactions())| {
        let real = &mut *real.borrow_mut();
        real.new_database(SCHEMA);
        let ours = peer(SCHEMA);
        for sql in numbered(&transactions) {
            ours.run(&sql);
            real.run(&sql);
        }
        for filter in FILTERS {
            let found = format!(
                "SELECT \"table\", quote(pk), cid, quote(val), col_version, db_version, cl, seq
                 FROM crsql_changes WHERE {filter} ORDER BY db_version, seq"
            );
            prop_assert_eq!(ours.rows(&found), real.rows(&found), "{}", filter);
        }
    });
}

#[test]
fn keys_are_packed_as_by_cr_sqlite() {
    let Some(real) = Real::start() else { return };
    let value = prop_oneof![
        Just("NULL".to_owned()),
        any::<i64>()
            .prop_map(|number| format!("({number})").replace("(-9223372036854775808)", "1")),
        (-300i64..70_000).prop_map(|number| number.to_string()),
        (-1i32..9_999).prop_map(|halves| format!("{:?}", f64::from(halves) / 2.0)),
        "[ -&(-~äöü]{0,300}".prop_map(|text| format!("'{text}'")),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{digits}'")
        }),
    ];
    let ours = peer("");
    proptest!(config(), |(values in prop::collection::vec(value, 1..6))| {
        let real = &mut *real.borrow_mut();
        let pack = format!("crsql_pack_columns({})", values.join(", "));
        let unpack = format!("SELECT quote(cell) FROM crsql_unpack_columns WHERE package = {pack}");
        let pack = format!("SELECT quote({pack})");
        prop_assert_eq!(ours.rows(&pack), real.rows(&pack));
        // cr-sqlite does not extend the sign of what it unpacks.
        if !values.iter().any(|value| value.contains('-')) {
            prop_assert_eq!(ours.rows(&unpack), real.rows(&unpack));
        }
    });
}

/// A statement about the list, of those that this version takes: it leaves a 1 that an UPDATE of
/// the table itself writes. `#` stands for a new row, and `%` before a number for one of those
/// that are there.
fn placing() -> impl Strategy<Value = String> {
    let row = 0u32..50;
    prop_oneof![
        2 => Just("INSERT INTO o VALUES(#, 'l', 1)".to_owned()),
        1 => Just("INSERT INTO o VALUES(#, 'l', -1)".to_owned()),
        3 => row.clone().prop_map(|row| {
            format!("INSERT INTO o_fractindex(id, list, after_id) VALUES(#, 'l', %{row});")
        }),
        2 => (row.clone(), row).prop_map(|(row, after)| {
            format!("UPDATE o_fractindex SET after_id = %{after}; WHERE id = %{row};")
        }),
    ]
}

/// Fills in the rows; `None` if a row would be placed after itself.
fn filled(statement: &str, count: &mut u32) -> Option<String> {
    let mut sql = String::new();
    let mut named = Vec::new();
    let there = *count;
    for part in statement.split_inclusive(['%', ';', '#']) {
        match part
            .strip_suffix(';')
            .and_then(|row| row.parse::<u32>().ok())
        {
            Some(row) => {
                let row = row % there + 1;
                named.push(row);
                sql.push_str(&row.to_string());
            }
            None => sql.push_str(part.trim_end_matches(['%', ';'])),
        }
    }
    if let [row, after] = named[..] {
        (row != after).then_some(())?;
    }
    if sql.contains('#') {
        *count += 1;
    }
    Some(sql.replace('#', &count.to_string()))
}

#[test]
fn lists_are_ordered_as_by_cr_sqlite() {
    let Some(real) = Real::start() else { return };
    let schema = "CREATE TABLE o(id INTEGER PRIMARY KEY NOT NULL, list DEFAULT 'l',
            place TEXT NOT NULL DEFAULT '');
        SELECT crsql_as_crr('o'); SELECT crsql_fract_as_ordered('o', 'place', 'list');
        INSERT INTO o VALUES(1, 'l', 1);";
    proptest!(config(), |(statements in prop::collection::vec(placing(), 1..20))| {
        let real = &mut *real.borrow_mut();
        real.new_database(schema);
        let ours = peer(schema);
        let mut count = 1;
        for statement in statements {
            let Some(sql) = filled(&statement, &mut count) else { continue };
            ours.run(&sql);
            real.run(&sql);
            // Not the keys: cr-sqlite gives a row that stays in its place another one.
            let rows = "SELECT id FROM o ORDER BY place, id";
            prop_assert_eq!(ours.rows(rows), real.rows(rows), "{}", sql);
        }
    });
}
