//! What a column's declaration says of its default, as an expression for other statements.

/// Returns a column's default, as SQLite gives it, as an expression: what was declared without
/// quotes, or in those of a name, is a text.
pub(super) fn default_expression(declared: &str) -> String {
    const OTHERS: [&str; 6] = [
        "null",
        "true",
        "false",
        "current_time",
        "current_date",
        "current_timestamp",
    ];
    let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
    let begins = declared.starts_with(|c: char| is_part(c) && !c.is_ascii_digit() && c != '$');
    if begins && declared.chars().all(is_part) {
        let is_other = OTHERS.contains(&&*declared.to_ascii_lowercase());
        return if is_other {
            declared.to_owned()
        } else {
            text(declared)
        };
    }
    for (open, close) in [("\"", "\""), ("`", "`"), ("[", "]")] {
        let inner = declared.strip_prefix(open);
        let doubled = close.repeat(2);
        // Else it is an expression that begins and ends with names.
        if let Some(inner) = inner.and_then(|inner| inner.strip_suffix(close))
            && !inner.replace(&doubled, "").contains(close)
        {
            return text(&inner.replace(&doubled, close));
        }
    }
    // A comment may end it.
    match declared.contains("--") {
        true => format!("{declared}\n"),
        false => declared.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use crate::table::TableInfo;

    #[test]
    fn a_default_is_an_expression_however_it_is_declared() {
        let all = [
            "shut",
            "\"x y\"",
            "\"a\"\"b\"",
            "[a b]",
            "`it's`",
            "'it''s'",
            "héllo",
            "_a$1",
            "nul",
            "NULL",
            "True",
            "5",
            "-5",
            "1e3",
            "x'00'",
            "(1 + 1 -- two\n)",
            "('a' || 'b' /* c */)",
            "(\"abs\"(-5) COLLATE \"nocase\")",
        ];
        let conn = Connection::open_in_memory().expect("open");
        for declared in all {
            let create = format!("DROP TABLE IF EXISTS t; CREATE TABLE t(a, b DEFAULT {declared})");
            conn.execute_batch(&create).expect(declared);
            conn.execute_batch("INSERT INTO t(a) VALUES(1)")
                .expect(declared);
            let info = TableInfo::read(&conn, "t")
                .expect("read")
                .expect("it is there");
            let default = info.columns[1].default.as_deref().expect("a default");
            let same = format!("SELECT b IS ({default}) AND typeof(b) = typeof({default}) FROM t");
            let same: bool = conn.query_row(&same, [], |row| row.get(0)).expect(declared);
            assert!(same, "{declared}: {default}");
        }
    }
}
