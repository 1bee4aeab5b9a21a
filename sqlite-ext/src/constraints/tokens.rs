//! The words of a `CREATE INDEX` statement: SQLite keeps its text and tells of an expression in it
//! only that there is one.

use std::ops::Range;

/// A word, a name, a literal or a sign, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token<'s> {
    pub(super) kind: Kind,
    pub(super) text: &'s str,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A keyword or a name.
    Word,
    /// A name in double quotes, backticks or brackets.
    Quoted,
    /// A text or blob literal.
    Literal,
    /// Anything else, one character.
    Sign,
}

impl Token<'_> {
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }

    /// Returns the name that the token is, without its quotes.
    pub(super) fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_owned()),
            Kind::Quoted => {
                let quote = &self.text[..1];
                let inner = self.text.get(1..self.text.len() - 1).unwrap_or_default();
                Some(if quote == "[" {
                    inner.to_owned()
                } else {
                    inner.replace(&quote.repeat(2), quote)
                })
            }
            Kind::Literal | Kind::Sign => None,
        }
    }
}

/// Splits SQL into tokens, without blanks and comments.
pub(crate) fn tokens(sql: &str) -> Vec<Token<'_>> {
    let bytes = sql.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let rest = &bytes[at..];
        let kind = match bytes[at] {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'-' if rest.starts_with(b"--") => {
                at = end_of(bytes, at, b"\n");
                continue;
            }
            b'/' if rest.starts_with(b"/*") => {
                at = end_of(bytes, at + 2, b"*/");
                continue;
            }
            b'\'' => {
                at = end_of_quoted(bytes, at, b'\'');
                Kind::Literal
            }
            quote @ (b'"' | b'`') => {
                at = end_of_quoted(bytes, at, quote);
                Kind::Quoted
            }
            b'[' => {
                at = end_of(bytes, at, b"]");
                Kind::Quoted
            }
            byte if is_in_word(byte) => {
                at += rest.iter().take_while(|byte| is_in_word(**byte)).count();
                Kind::Word
            }
            _ => {
                at += 1;
                Kind::Sign
            }
        };
        found.push(Token {
            kind,
            text: &sql[start..at],
            start,
            end: at,
        });
    }
    found
}

fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Returns where the first `mark` from `at` on ends.
fn end_of(bytes: &[u8], at: usize, mark: &[u8]) -> usize {
    let found = bytes[at..]
        .windows(mark.len())
        .position(|window| window == mark);
    found.map_or(bytes.len(), |offset| at + offset + mark.len())
}

/// Returns where the text in quotes that begins at `at` ends; a doubled quote is part of it.
fn end_of_quoted(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut next = at + 1;
    while let Some(byte) = bytes.get(next) {
        next += 1;
        if *byte == quote {
            if bytes.get(next) != Some(&quote) {
                return next;
            }
            next += 1;
        }
    }
    bytes.len()
}

/// Returns the name that a `CREATE INDEX` statement gives, and where it stands; `None` if it is none,
/// or names a database, too.
pub(crate) fn index_name(sql: &str) -> Option<(String, Range<usize>)> {
    let tokens = tokens(sql);
    let mut rest = tokens.iter().peekable();
    rest.next_if(|token| token.is_word("CREATE"))?;
    rest.next_if(|token| token.is_word("UNIQUE"));
    rest.next_if(|token| token.is_word("INDEX"))?;
    if rest.next_if(|token| token.is_word("IF")).is_some() {
        rest.next_if(|token| token.is_word("NOT"))?;
        rest.next_if(|token| token.is_word("EXISTS"))?;
    }
    let name = rest.next()?;
    rest.next_if(|token| token.is_word("ON"))?;
    // SQLite takes a text for a name where only a name can stand.
    let text = name
        .text
        .strip_prefix('\'')
        .and_then(|text| text.strip_suffix('\''));
    let text = text.map(|text| text.replace("''", "'"));
    Some((text.or_else(|| name.name())?, name.start..name.end))
}

/// What a `CREATE INDEX` statement says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IndexText<'s> {
    /// The indexed columns and expressions, without their order.
    pub(super) terms: Vec<&'s str>,
    /// The condition of a partial index.
    pub(super) condition: Option<&'s str>,
}

/// Reads a `CREATE INDEX` statement that SQLite accepted; `None` if it is none.
pub(super) fn index_text(sql: &str) -> Option<IndexText<'_>> {
    let tokens = tokens(sql);
    let on = tokens.iter().position(|token| token.is_word("ON"))?;
    let open = on + tokens[on..].iter().position(|token| token.is_sign("("))?;
    let mut terms = Vec::new();
    let mut depth = 0;
    let mut first = open + 1;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.is_sign("(") {
            depth += 1;
        } else if token.is_sign(")") {
            depth -= 1;
        }
        if depth == 0 || (depth == 1 && token.is_sign(",")) {
            terms.push(term(sql, &tokens[first..at])?);
            first = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    let condition = match tokens.get(first) {
        Some(token) if token.is_word("WHERE") => {
            let last = tokens.iter().rev().find(|token| !token.is_sign(";"))?;
            Some(sql.get(token.end..last.end)?)
        }
        _ => None,
    };
    Some(IndexText { terms, condition })
}

/// Returns the text of one indexed term without `ASC` and `DESC`.
fn term<'s>(sql: &'s str, tokens: &[Token<'_>]) -> Option<&'s str> {
    let is_order = |token: &&Token<'_>| token.is_word("ASC") || token.is_word("DESC");
    let (first, mut last) = (tokens.first()?, tokens.last()?);
    if let [.., before, order] = tokens
        && is_order(&order)
    {
        last = before;
    }
    sql.get(first.start..last.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_read(sql: &str, terms: &[&str], condition: Option<&str>) {
        let read = index_text(sql).expect("a CREATE INDEX statement");
        assert_eq!(read.terms, terms, "{sql}");
        assert_eq!(read.condition.map(str::trim), condition, "{sql}");
    }

    #[test]
    fn terms_and_conditions_are_found_whatever_stands_between() {
        assert_read("CREATE UNIQUE INDEX i ON t(a)", &["a"], None);
        assert_read(
            "CREATE UNIQUE INDEX \"on\" ON [t(](lower(a, ',)') DESC, b COLLATE NOCASE asc) WHERE a>1",
            &["lower(a, ',)')", "b COLLATE NOCASE"],
            Some("a>1"),
        );
        assert_read(
            "CREATE UNIQUE INDEX i -- ON x(y)\n ON/*(*/t ( a || (b), `c``)` )\nWHERE(b IS NULL) ;",
            &["a || (b)", "`c``)`"],
            Some("(b IS NULL)"),
        );
        assert_eq!(index_text("CREATE TABLE t(a)"), None);
        assert_eq!(
            index_text("CREATE INDEX i ON t("),
            Some(IndexText {
                terms: vec![],
                condition: None,
            })
        );
    }

    #[test]
    fn names_lose_their_quotes() {
        let names = |sql| -> Vec<String> { tokens(sql).iter().filter_map(Token::name).collect() };
        assert_eq!(
            names("a \"b\"\"c\" [d e] `f` 'g' x'00' 1"),
            ["a", "b\"c", "d e", "f", "x", "1"]
        );
        assert_eq!(names("\""), [""]);
    }

    #[test]
    fn an_index_has_a_name_unless_a_database_is_named() {
        let sql = "create /* a */ Unique index if NOT exists [i \"x] ON t(a)";
        let (name, place) = index_name(sql).expect("a CREATE INDEX statement");
        assert_eq!((&*name, &sql[place]), ("i \"x", "[i \"x]"));
        assert_eq!(index_name("CREATE INDEX main.i ON t(a)"), None);
        assert_eq!(index_name("CREATE TABLE t(a)"), None);
        let (name, place) = index_name("CREATE INDEX 'i''s' ON t(a)").expect("the same");
        assert_eq!((&*name, place), ("i's", 13..19));
    }
}
