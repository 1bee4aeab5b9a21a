//! All that a database holds, to be compared.

use rusqlite::Connection;

/// Returns every cell of every table, the definitions among them.
pub(crate) fn content(conn: &Connection) -> Vec<u8> {
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
    let mut statement = conn.prepare(tables).expect("tables");
    let names = statement.query_map([], |row| row.get::<_, String>(0));
    let names: Result<Vec<_>, _> = names.expect("tables").collect();
    let mut bytes = Vec::new();
    for name in names
        .expect("tables")
        .iter()
        .chain([&"sqlite_master".to_owned()])
    {
        let name = name.replace('"', "\"\"");
        let all = format!("SELECT * FROM \"{name}\"");
        let mut statement = conn.prepare(&all).expect("a table is read");
        let width = statement.column_count();
        let mut rows = statement.query([]).expect("a table is read");
        while let Some(row) = rows.next().expect("a table is read") {
            for at in 0..width {
                let cell = row.get_ref(at).expect("a cell");
                bytes.extend_from_slice(format!("{cell:?}").as_bytes());
            }
        }
    }
    bytes
}
