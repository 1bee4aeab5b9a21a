//! What a program written for cr-sqlite sees.

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};

mod alter;
mod capture;
mod defects;
mod delta;
mod hostile;
mod merge;
pub(crate) mod real;
pub(crate) mod writes;

/// A database with the functions of the extension.
pub(crate) struct Peer {
    pub(crate) conn: Connection,
}

/// Returns databases in memory in which the schema was run.
pub(crate) fn peers<const N: usize>(schema: &str) -> [Peer; N] {
    std::array::from_fn(|_| {
        let peer = Peer::of(Connection::open_in_memory().expect("SQLite opens in memory"));
        peer.run(schema);
        peer
    })
}

pub(crate) fn peer(schema: &str) -> Peer {
    let [peer] = peers(schema);
    peer
}

const CHANGES: &str = "\"table\", pk, cid, val, col_version, db_version, site_id, cl, seq";

impl Peer {
    pub(crate) fn of(conn: Connection) -> Self {
        crate::register(&conn).expect("the functions register");
        Peer { conn }
    }

    #[track_caller]
    pub(crate) fn run(&self, sql: &str) -> &Self {
        let mut batch = rusqlite::Batch::new(&self.conn, sql);
        while let Some(mut statement) = batch.next().expect(sql) {
            let mut rows = statement.query([]).expect(sql);
            while rows.next().expect(sql).is_some() {}
        }
        self
    }

    /// Returns the error of a statement.
    #[track_caller]
    pub(crate) fn fails(&self, sql: &str) -> String {
        let mut statement = match self.conn.prepare(sql) {
            Ok(statement) => statement,
            Err(error) => return error.to_string(),
        };
        let mut rows = statement.query([]).expect("no parameters");
        loop {
            match rows.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{sql} works"),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Returns the rows of a query, as SQLite writes literals, with bars.
    #[track_caller]
    pub(crate) fn rows(&self, sql: &str) -> Vec<String> {
        let mut statement = self.conn.prepare(sql).expect(sql);
        let count = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let cells = (0..count).map(|at| literal(row.get_ref(at).expect("a value")));
            Ok(cells.collect::<Vec<_>>().join("|"))
        };
        let rows = statement.query_map([], row).expect(sql);
        rows.collect::<Result<_, _>>().expect(sql)
    }

    #[track_caller]
    pub(crate) fn one(&self, sql: &str) -> String {
        let rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        rows[0].clone()
    }

    /// Returns the version of the last committed transaction.
    #[track_caller]
    pub(crate) fn version(&self) -> i64 {
        let version = self.one("SELECT crsql_db_version()");
        version.parse().expect("a number")
    }

    /// Returns what `crsql_changes` says, without the site.
    #[track_caller]
    pub(crate) fn changes(&self) -> Vec<String> {
        self.rows(
            "SELECT \"table\", hex(pk), cid, val, col_version, db_version, cl, seq
             FROM crsql_changes",
        )
    }

    /// Takes in what another peer has above a version, as cr-sqlite's programs do.
    #[track_caller]
    pub(crate) fn pull(&self, from: &Peer, above: i64) -> &Self {
        let select = format!("SELECT {CHANGES} FROM crsql_changes WHERE db_version > {above}");
        let mut statement = from.conn.prepare(&select).expect("crsql_changes is there");
        let mut rows = statement.query([]).expect("it is read");
        let insert = format!("INSERT INTO crsql_changes({CHANGES}) VALUES(?,?,?,?,?,?,?,?,?)");
        self.run("BEGIN");
        while let Some(row) = rows.next().expect("it is read") {
            let value = |at| ToSqlOutput::Borrowed(row.get_ref(at).expect("a value"));
            let values = (0..9).map(value);
            self.conn
                .execute(&insert, params_from_iter(values))
                .expect("it merges");
        }
        self.run("COMMIT")
    }
}

fn literal(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(blob) => blob.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
