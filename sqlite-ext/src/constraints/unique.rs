//! The unique indices of a table, and how SQLite itself compares rows under them.

use std::collections::BTreeSet;

use rusqlite::{Connection, params_from_iter};
use syncline_crdt::{Value, pack_key};

use super::scratch::Scratch;
use super::tokens::{index_text, tokens};
use crate::rows::key_from;
use crate::shape::whole;
use crate::table::{Column, Table, list};
use crate::value::{Bound, quoted};

/// A unique index besides the primary key, or a UNIQUE constraint.
#[derive(Clone, Debug)]
pub(crate) struct UniqueIndex {
    /// What it is called where it is told: the same on every replica.
    pub(crate) label: String,
    /// Whether it is the primary key's.
    pub(super) is_key: bool,
    terms: Vec<Term>,
    /// Which rows are in it, as SQL; `None` for all.
    condition: Option<String>,
}

#[derive(Clone, Debug)]
struct Term {
    /// A column in quotes, or an expression in parentheses.
    sql: String,
    /// The column's name, if it is one.
    column: Option<String>,
    collation: String,
}

/// Where the indices are that may keep rows apart which have different keys: all unique ones, but of
/// the primary key only one whose collation calls different keys equal.
const RIVALRY: &str = "pragma_index_list(?1, 'main') AS l WHERE l.\"unique\" AND (l.origin <> 'pk'
    OR EXISTS (SELECT 1 FROM pragma_index_xinfo(l.name, 'main') AS x
        WHERE x.key AND x.coll <> 'BINARY' COLLATE NOCASE))";

/// Returns the unique indices of a table under which rows with different keys may be rivals, in the
/// order of their labels.
pub(crate) fn indices(conn: &Connection, table: &str) -> rusqlite::Result<Vec<UniqueIndex>> {
    let all = format!(
        "SELECT l.name, l.origin = 'pk', (SELECT m.sql FROM main.sqlite_master AS m
         WHERE m.type = 'index' AND m.name = l.name) FROM {RIVALRY}"
    );
    let mut statement = conn.prepare_cached(&all)?;
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let rows = statement.query_map([table], row)?;
    let rows: Vec<(String, bool, Option<String>)> = rows.collect::<Result<_, _>>()?;
    let mut found = Vec::new();
    for (name, is_key, sql) in rows {
        let mut index = index(conn, table, &name, sql.as_deref())?;
        if is_key {
            index.is_key = true;
            index.label = format!("PRIMARY KEY ({})", index.columns());
        }
        found.push(index);
    }
    found.sort_by(|a, b| a.label.cmp(&b.label));
    Ok(found)
}

/// Whether a table has a unique index under which rows with different keys may be rivals.
pub(crate) fn exists(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    let any = format!("SELECT 1 FROM {RIVALRY}");
    conn.prepare_cached(&any)?.exists([table])
}

/// Returns the columns of the first index whose rows cannot be compared away from the table, since
/// it names a function or a collation that only the application has, and whether it is that of the
/// primary key.
pub(crate) fn foreign(conn: &Connection, table: &str) -> rusqlite::Result<Option<(String, bool)>> {
    let indices = indices(conn, table)?;
    if indices.is_empty() {
        return Ok(None);
    }
    let scratch = Scratch::open(conn, table)?;
    let is_foreign = |index: &&UniqueIndex| {
        let equal =
            |term: &Term| format!("{0} = {0} COLLATE {1}", term.sql, quoted(&term.collation));
        let equal = list(index.terms.iter().map(equal), " AND ");
        let select = format!(
            "SELECT 1 FROM main.{} WHERE {}{equal}",
            quoted(table),
            index.within()
        );
        scratch.conn.prepare(&select).is_err()
    };
    let found = indices.iter().find(is_foreign);
    Ok(found.map(|index| (index.columns(), index.is_key)))
}

/// Reads one index; `sql` is `None` for a constraint of the table.
fn index(
    conn: &Connection,
    table: &str,
    name: &str,
    sql: Option<&str>,
) -> rusqlite::Result<UniqueIndex> {
    let text = sql.and_then(index_text);
    // A column with the number -1 is the rowid, under the name of the key that stands for it.
    let terms = "SELECT x.seqno, CASE x.cid WHEN -1 THEN k.name ELSE x.name END, x.coll
        FROM pragma_index_xinfo(?1, 'main') AS x
        LEFT JOIN pragma_table_info(?2, 'main') AS k ON k.pk = 1
        WHERE x.key ORDER BY x.seqno";
    let mut statement = conn.prepare_cached(terms)?;
    let terms = statement.query_map([name, table], |row| {
        let at = usize::try_from(row.get::<_, i64>(0)?).unwrap_or(usize::MAX);
        let column: Option<String> = row.get(1)?;
        let expression = text.as_ref().and_then(|text| text.terms.get(at));
        Ok(Term {
            sql: match &column {
                Some(column) => quoted(column),
                None => format!("({})", expression.copied().unwrap_or("NULL")),
            },
            column,
            collation: row.get(2)?,
        })
    })?;
    let terms: Vec<Term> = terms.collect::<Result<_, _>>()?;
    let condition = text.and_then(|text| text.condition);
    let suffix = condition.map_or(String::new(), |text| format!(" WHERE {}", text.trim()));
    let mut index = UniqueIndex {
        label: String::new(),
        is_key: false,
        terms,
        condition: condition.map(str::to_owned),
    };
    let columns = index.columns();
    index.label = match sql {
        Some(_) => format!("{name} ({columns}){suffix}"),
        None => format!("UNIQUE ({columns})"),
    };
    Ok(index)
}

/// Returns the names that any of the indices mentions, columns among them; `None` if a generated
/// column is one, since that may depend on every other.
pub(crate) fn mentioned(
    conn: &Connection,
    table: &str,
    indices: &[UniqueIndex],
) -> rusqlite::Result<Option<BTreeSet<String>>> {
    let mut names = BTreeSet::new();
    for index in indices {
        names.extend(index.terms.iter().filter_map(|term| term.column.clone()));
        let expressions = index.terms.iter().filter(|term| term.column.is_none());
        let texts = expressions.map(|term| &term.sql).chain(&index.condition);
        names.extend(texts.flat_map(|sql| tokens(sql)).filter_map(|t| t.name()));
    }
    let names: BTreeSet<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let generated = generated(conn, table)?;
    let mut generated = generated.iter().map(|name| name.to_ascii_lowercase());
    Ok((!generated.any(|name| names.contains(&name))).then_some(names))
}

/// Returns the names of a table's generated columns.
pub(crate) fn generated(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let generated = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 0";
    let mut statement = conn.prepare_cached(generated)?;
    let names = statement.query_map([table], |row| row.get(0))?;
    names.collect()
}

/// What makes a row's claim.
#[derive(Clone, Debug)]
pub(crate) enum Claiming {
    /// The latest write in these lanes: to a column that any of the indices mentions, or to any
    /// column if that cannot be told.
    Latest(Vec<i64>),
    /// The earliest write in these lanes, since the indices mention only the key, which stays.
    Earliest(Vec<i64>),
}

/// Returns what makes the claims of a table's rows.
pub(crate) fn claiming(
    conn: &Connection,
    table: &Table,
    indices: &[UniqueIndex],
) -> rusqlite::Result<Claiming> {
    let names = mentioned(conn, &table.name, indices)?;
    let is_named = |column: &&Column| {
        let name = column.name.to_ascii_lowercase();
        names.as_ref().is_some_and(|names| names.contains(&name))
    };
    let lane = |column: &Column| column.lane;
    let named: Vec<i64> = table.columns.iter().filter(is_named).map(lane).collect();
    let all = table.columns.iter().map(lane).collect();
    Ok(match names {
        Some(_) if named.is_empty() && !indices.is_empty() => Claiming::Earliest(all),
        _ if named.is_empty() => Claiming::Latest(all),
        _ => Claiming::Latest(named),
    })
}

impl UniqueIndex {
    /// Returns the indexed columns; `None` if there is more to it than columns.
    pub(super) fn plain_columns(&self) -> Option<Vec<&str>> {
        let columns = self.terms.iter().map(|term| term.column.as_deref());
        columns
            .collect::<Option<_>>()
            .filter(|_| self.condition.is_none())
    }

    /// Returns the indexed columns and expressions, with commas.
    fn columns(&self) -> String {
        let told = |term: &Term| match &term.column {
            Some(column) => column.clone(),
            None => term.sql[1..term.sql.len() - 1].to_owned(),
        };
        list(self.terms.iter().map(told), ", ")
    }

    /// Returns the values that a row of the table holds under the index; `None` if it holds none:
    /// it is not there, not in the index, or a NULL keeps it from being anybody's rival.
    pub(crate) fn tuple(
        &self,
        conn: &Connection,
        table: &Table,
        key: &[Value],
    ) -> rusqlite::Result<Option<Vec<Value>>> {
        let fields = list(self.terms.iter().map(|term| term.sql.clone()), ", ");
        let (name, condition) = (table.quoted(), table.key_condition(1));
        let within = self.within();
        let select = format!("SELECT {fields} FROM main.{name} WHERE {within}{condition}");
        let mut statement = conn.prepare_cached(&select)?;
        let mut rows = statement.query(params_from_iter(key.iter().map(Bound)))?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let values = key_from(row, 0, self.terms.len())?;
        Ok((!values.contains(&Value::Null)).then_some(values))
    }

    /// Calls `each` with the rowid (if any) and the key of every row that holds these values.
    pub(crate) fn holders(
        &self,
        conn: &Connection,
        table: &Table,
        tuple: &[Value],
        mut each: impl FnMut(Option<i64>, Vec<Value>),
    ) -> rusqlite::Result<()> {
        let place = if table.rowid.is_empty() {
            "NULL"
        } else {
            &table.rowid
        };
        let equal = |(at, term): (usize, &Term)| {
            format!(
                "{} = ?{} COLLATE {}",
                term.sql,
                at + 1,
                quoted(&term.collation)
            )
        };
        let equal = list(self.terms.iter().enumerate().map(equal), " AND ");
        let (name, keys, within) = (table.quoted(), table.key_list(), self.within());
        // The condition goes first: for other rows the expressions may have no value.
        let select = format!("SELECT {place}, {keys} FROM main.{name} WHERE {within}{equal}");
        let mut statement = conn.prepare_cached(&select)?;
        let mut rows = statement.query(params_from_iter(tuple.iter().map(Bound)))?;
        while let Some(row) = rows.next()? {
            each(row.get(0)?, key_from(row, 1, table.key_columns.len())?);
        }
        Ok(())
    }

    fn within(&self) -> String {
        let condition = self.condition.as_ref();
        condition.map_or(String::new(), |condition| format!("({condition}) AND "))
    }

    /// Returns the condition that a row of the table would be a rival of the row `NEW` of a
    /// trigger, or more rows than that.
    pub(crate) fn rivals_of_new(&self, table: &Table, generated: &[String]) -> String {
        let stored = table.key_columns.iter().chain(&table.columns);
        let names = stored.map(|column| &column.name).chain(generated);
        let fields = list(
            names.map(|name| format!("NEW.{0} AS {0}", quoted(name))),
            ", ",
        );
        // A row that comes and is not in the index is nobody's rival, and the index's expressions may
        // have no value for it.
        let in_index = self.condition.as_ref();
        let in_index = in_index.map_or(String::new(), |condition| format!(" WHERE {condition}"));
        let equal = |term: &Term| {
            let collation = quoted(&term.collation);
            match &term.column {
                Some(_) => format!("{0} = NEW.{0} COLLATE {collation}", term.sql),
                // The expression means the columns of the row that is there; in the inner query
                // the same names are those of the row that comes.
                None => format!(
                    "{0} = (SELECT {0} FROM (SELECT {fields}){in_index}) COLLATE {collation}",
                    term.sql
                ),
            }
        };
        let equal = list(self.terms.iter().map(equal), " AND ");
        format!("{}{equal}", self.within())
    }

    /// Returns the tuple in one form for all that SQLite calls equal to it under this index. A term
    /// under a collation of the application's is left out: then unequal tuples may share a form.
    pub(crate) fn form(&self, tuple: &[Value]) -> Vec<u8> {
        let mut form = Vec::new();
        for (term, value) in self.terms.iter().zip(tuple) {
            for value in folded(value, &term.collation) {
                form.extend(pack_key(&[value]));
            }
        }
        form
    }
}

/// Returns what stands for a value in the form of its tuple.
fn folded(value: &Value, collation: &str) -> Vec<Value> {
    match value {
        Value::Real(_) => vec![whole(value)],
        Value::Text(text) if collation.eq_ignore_ascii_case("NOCASE") => {
            // SQLite compares such texts up to a NUL, and then their lengths.
            let compared = text.split(|byte| *byte == 0).next().unwrap_or_default();
            let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
            vec![
                Value::Text(compared.to_ascii_lowercase()),
                Value::Integer(length),
            ]
        }
        Value::Text(text) if collation.eq_ignore_ascii_case("RTRIM") => {
            let length = text.iter().rposition(|byte| *byte != b' ');
            vec![Value::Text(text[..length.map_or(0, |at| at + 1)].to_vec())]
        }
        Value::Text(_) if !collation.eq_ignore_ascii_case("BINARY") => vec![],
        _ => vec![value.clone()],
    }
}
