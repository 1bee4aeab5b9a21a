//! Which query of the clocks answers a query of `crsql_changes`.

use rusqlite::vtab::{IndexConstraintOp, IndexInfo};
use rusqlite::{Error, Result};
use syncline_crdt::CAUSAL_LENGTH_MAX;

/// The columns of `crsql_changes`, in their order.
pub(crate) const DECLARATION: &std::ffi::CStr = c"CREATE TABLE x(
    [table] TEXT NOT NULL, [pk] BLOB NOT NULL, [cid] TEXT NOT NULL, [val] ANY,
    [col_version] INTEGER NOT NULL, [db_version] INTEGER NOT NULL, [site_id] BLOB,
    [cl] INTEGER NOT NULL, [seq] INTEGER NOT NULL)";

pub(crate) const TABLE: i32 = 0;
pub(crate) const PK: i32 = 1;
pub(crate) const CID: i32 = 2;
pub(crate) const VAL: i32 = 3;
pub(crate) const COL_VERSION: i32 = 4;
pub(crate) const DB_VERSION: i32 = 5;
pub(crate) const SITE_ID: i32 = 6;
pub(crate) const CL: i32 = 7;
pub(crate) const SEQ: i32 = 8;

/// What the query returns of each cell.
const FIELDS: &str = "c.row_id, c.column_id, r.table_id, ifnull(r.pk, r.key), c.col_version,
    c.db_version, s.site_id, max(r.causal_length, 1), c.seq";
// The first table of a CROSS JOIN is the outer one.
const BY_VERSION: &str = "syncline_crsql_cells AS c
    CROSS JOIN syncline_crsql_rows AS r ON r.id = c.row_id
    CROSS JOIN syncline_crsql_tables AS t ON t.id = r.table_id
    CROSS JOIN crsql_site_id AS s ON s.ordinal = c.site";
const BY_ROW: &str = "syncline_crsql_tables AS t
    CROSS JOIN syncline_crsql_rows AS r ON r.table_id = t.id
    CROSS JOIN syncline_crsql_cells AS c ON c.row_id = r.id
    CROSS JOIN crsql_site_id AS s ON s.ordinal = c.site";

/// Chooses the query, tells SQLite what it does, and leaves its text for the scan.
pub(crate) fn choose(info: &mut IndexInfo) -> Result<()> {
    let mut terms: Vec<String> = Vec::new();
    let mut names_table = false;
    let mut bounds_version = false;
    for (constraint, mut usage) in info.constraints_and_usages() {
        if !constraint.is_usable() {
            continue;
        }
        let operator = constraint.operator();
        let Some(symbol) = symbol(&operator) else {
            continue;
        };
        let place = terms.len() + 1;
        let Some(term) = term(constraint.column(), symbol, place) else {
            continue;
        };
        names_table |= constraint.column() == TABLE;
        bounds_version |= constraint.column() == DB_VERSION && symbol.starts_with(['=', '>']);
        usage.set_argv_index(i32::try_from(place).map_err(|_| Error::InvalidQuery)?);
        // SQLite checks again: what is returned here only has to be enough.
        terms.push(term);
    }
    let order: Option<Vec<(i32, bool)>> = info
        .order_bys()
        .map(|by| expression(by.column()).map(|_| (by.column(), by.is_order_by_desc())))
        .collect();
    let from = if names_table && !bounds_version {
        BY_ROW
    } else {
        BY_VERSION
    };
    let mut sql = format!("SELECT {FIELDS} FROM {from}");
    // A row that a replica drove beyond could not be taken in by any other: it stays here.
    sql.push_str(&format!(" WHERE r.causal_length <= {CAUSAL_LENGTH_MAX}"));
    for term in &terms {
        sql.push_str(" AND ");
        sql.push_str(term);
    }
    sql.push_str(&order_clause(order.as_deref()));
    info.set_order_by_consumed(order.is_some_and(|order| !order.is_empty()));
    info.set_idx_str(&sql);
    let (cost, rows) = match (bounds_version, names_table) {
        (true, _) => (1_000.0, 100),
        (false, true) => (100_000.0, 10_000),
        (false, false) => (10_000_000.0, 1_000_000),
    };
    info.set_estimated_cost(cost);
    info.set_estimated_rows(rows);
    Ok(())
}

fn symbol(operator: &IndexConstraintOp) -> Option<&'static str> {
    use IndexConstraintOp::*;
    Some(match operator {
        SQLITE_INDEX_CONSTRAINT_EQ => "=",
        SQLITE_INDEX_CONSTRAINT_GT => ">",
        SQLITE_INDEX_CONSTRAINT_LE => "<=",
        SQLITE_INDEX_CONSTRAINT_LT => "<",
        SQLITE_INDEX_CONSTRAINT_GE => ">=",
        SQLITE_INDEX_CONSTRAINT_NE => "<>",
        SQLITE_INDEX_CONSTRAINT_ISNOT => "IS NOT",
        SQLITE_INDEX_CONSTRAINT_IS => "IS",
        _ => return None,
    })
}

/// Returns the condition that a constraint means; `None` where SQLite is left to look itself.
fn term(column: i32, symbol: &str, place: usize) -> Option<String> {
    // The `+` keeps SQLite from planning by the value, for which it would compile each time anew.
    Some(match column {
        // The name may be compared by another collation, and then SQLite asks for less than this.
        TABLE if symbol == "=" => format!("t.name = +?{place}"),
        COL_VERSION | DB_VERSION | SITE_ID | CL | SEQ => {
            let expression = expression(column)?;
            format!("{expression} {symbol} +?{place}")
        }
        _ => return None,
    })
}

/// Returns what a column is in the query; `None` for values, which are read later.
fn expression(column: i32) -> Option<&'static str> {
    Some(match column {
        TABLE => "t.name COLLATE BINARY",
        PK => "ifnull(r.pk, r.key)",
        CID => {
            "ifnull((SELECT n.name FROM syncline_crsql_columns AS n
             WHERE n.table_id = r.table_id AND n.id = c.column_id), '-1') COLLATE BINARY"
        }
        COL_VERSION => "c.col_version",
        DB_VERSION => "c.db_version",
        SITE_ID => "s.site_id",
        CL => "max(r.causal_length, 1)",
        SEQ => "c.seq",
        _ => return None,
    })
}

fn order_clause(order: Option<&[(i32, bool)]>) -> String {
    let terms: Vec<String> = match order {
        None | Some([] | [(DB_VERSION, false)]) => vec!["c.db_version".into(), "c.seq".into()],
        Some(order) => order
            .iter()
            .filter_map(|(column, descends)| {
                let direction = if *descends { " DESC" } else { "" };
                Some(format!("{}{direction}", expression(*column)?))
            })
            .collect(),
    };
    format!(" ORDER BY {}", terms.join(", "))
}
