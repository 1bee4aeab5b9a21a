//! Tables and columns of which a replica lacks a part of what it has seen.
//!
//! A replica that dropped or untracked a table, or dropped a column, has seen their changes and
//! cannot give them to others. So a changeset names what is lacking in it. Whoever merges it has
//! seen that too, and notes a gap: what it held before, and up to where something may be lacking.
//! It tells its gaps with what it has seen, and a replica that holds the whole table fills them.
//! What a replica dropped itself it does not ask for.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, Row, params};
use syncline_crdt::{Changeset, Hlc, Part, Parts, Seen, SiteId, VersionVector};

use crate::clocks::{Lane, Range};
use crate::shadow::{Sites, version_from, version_to, version_vector};
use crate::table::{Table, TableError};
use crate::{lacking, other_names};

/// The table of gaps; `column_name` is empty for a whole table.
pub(crate) const TABLES: &str = "
    CREATE TABLE syncline_gaps(
        table_name TEXT NOT NULL,
        column_name TEXT NOT NULL,
        after BLOB NOT NULL,
        upto BLOB NOT NULL,
        is_wanted INTEGER NOT NULL,
        PRIMARY KEY(table_name, column_name)
    ) WITHOUT ROWID;
";

/// Removes the table of gaps.
pub(crate) const DROP: &str = "DROP TABLE syncline_gaps;";

/// A table or column that is lacking in part.
struct Gap {
    part: Part,
    /// Everything up to here is held.
    after: VersionVector,
    /// Nothing is lacking behind this.
    upto: VersionVector,
    /// Whether others are asked for it.
    is_wanted: bool,
}

impl Gap {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let vector = |bytes: Vec<u8>| {
            VersionVector::decode(&bytes).expect("the vectors of gaps were encoded here")
        };
        Ok(Gap {
            part: Part {
                table: row.get("table_name")?,
                column: row.get("column_name")?,
            },
            after: vector(row.get("after")?),
            upto: vector(row.get("upto")?),
            is_wanted: row.get("is_wanted")?,
        })
    }

    fn all(conn: &Connection) -> rusqlite::Result<Vec<Self>> {
        let all = "SELECT * FROM syncline_gaps ORDER BY table_name, column_name";
        let mut statement = conn.prepare_cached(all)?;
        statement.query_map([], Gap::read)?.collect()
    }

    /// Returns up to where everything is held once all is merged that lies between two vectors: site
    /// by site, since what one of them wrote may come by itself.
    fn filled(&self, since: &VersionVector, until: &VersionVector) -> VersionVector {
        let mut after = self.after.clone();
        let joins = |(site, _): &(SiteId, Hlc)| since.version(*site) <= self.after.version(*site);
        for (site, until) in until.iter().filter(joins) {
            after.advance(site, until);
        }
        after
    }

    fn store(&self, conn: &Connection) -> rusqlite::Result<()> {
        let set =
            "INSERT OR REPLACE INTO syncline_gaps(table_name, column_name, after, upto, is_wanted)
            VALUES(?1, ?2, ?3, ?4, ?5)";
        conn.prepare_cached(set)?.execute(params![
            self.part.table,
            self.part.column,
            self.after.encode(),
            self.upto.encode(),
            self.is_wanted
        ])?;
        Ok(())
    }

    /// Whether something between two vectors may be lacking.
    fn meets(&self, since: &VersionVector, until: &VersionVector) -> bool {
        self.upto.iter().any(|(site, upto)| {
            since.version(site).max(self.after.version(site)) < upto.min(until.version(site))
        })
    }
}

/// Returns what this replica has seen, its own writes included, and what of that it lacks. Only
/// what was folded counts.
///
/// # Errors
///
/// If SQLite fails.
pub fn seen(conn: &Connection) -> rusqlite::Result<Seen> {
    let gaps = Gap::all(conn)?.into_iter().filter(|gap| gap.is_wanted);
    Ok(Seen {
        vector: version_vector(conn)?,
        gaps: gaps.map(|gap| (gap.part, gap.after)).collect(),
    })
}

/// Returns what to ask others by; everything, if something was lost here that nobody deleted.
pub(crate) fn asking(conn: &Connection) -> rusqlite::Result<Seen> {
    let vector = lacking::asking(conn)?;
    if vector.is_empty() {
        return Ok(vector.into());
    }
    seen(conn)
}

/// Returns what is held for certain of every table of which something is held: deletions behind it
/// may still have to be told.
pub(crate) fn held(seen: &Seen) -> VersionVector {
    let gaps = seen.gaps.iter();
    let gaps = gaps.filter(|(part, after)| part.is_whole() && !after.is_empty());
    gaps.fold(seen.vector.clone(), |held, (_, after)| held.meet(after))
}

/// Returns what is lacking here of the changes between two vectors, for a reader that has gaps of
/// its own, each with the latest of what is lacking.
pub(crate) fn lacking(
    conn: &Connection,
    (since, until): (&VersionVector, &VersionVector),
    reader: &Parts,
) -> Result<Parts, TableError> {
    // Of a table of which the reader lacks something it is given all from there on.
    let since = |table: &str| earliest(reader, table).map_or(since.clone(), |e| since.meet(&e));
    let gaps = Gap::all(conn)?.into_iter();
    let gaps = gaps.filter(|gap| gap.meets(&since(&gap.part.table), until));
    let mut lacking: Parts = gaps.map(|gap| (gap.part, gap.upto.meet(until))).collect();
    let readable: BTreeSet<i64> = Table::all(conn)?.iter().map(|table| table.id).collect();
    let mut tables = conn.prepare_cached("SELECT id, name FROM syncline_tables")?;
    let tables = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let tables: Vec<(i64, String)> = tables.collect::<Result<_, _>>()?;
    for (id, name) in tables.into_iter().filter(|(id, _)| !readable.contains(id)) {
        let lost = written(conn, id, (&since(&name), until))?;
        if !lost.is_empty() {
            lacking.entry(Part::whole(&name)).or_default().join(&lost);
        }
    }
    Ok(lacking)
}

/// Returns from where on a table is given, where something of it is.
fn earliest(parts: &Parts, table: &str) -> Option<VersionVector> {
    let of_table = parts.iter().filter(|(part, _)| part.table == table);
    let vectors = of_table.map(|(_, after)| after.clone());
    vectors.reduce(|earliest, after| earliest.meet(&after))
}

/// Returns the latest of what a table's clocks name between two vectors.
fn written(
    conn: &Connection,
    table_id: i64,
    (since, until): (&VersionVector, &VersionVector),
) -> rusqlite::Result<VersionVector> {
    let latest = "SELECT ifnull(max(version), 0) FROM (
        SELECT version FROM syncline_clocks
        WHERE site = ?1 AND version > ?2 AND version <= ?3 AND table_id = ?4
        UNION ALL SELECT version FROM syncline_deltas
        WHERE site = ?1 AND version > ?2 AND version <= ?3 AND table_id = ?4)";
    let mut latest = conn.prepare_cached(latest)?;
    let mut written = VersionVector::new();
    for (ordinal, site, _) in Sites::load(conn)?.iter() {
        let after = version_to(since.version(site));
        let window = (ordinal, after, version_to(until.version(site)), table_id);
        let version = latest.query_one(window, |row| version_from(row.get(0)?))?;
        written.advance(site, version);
    }
    Ok(written)
}

/// What fills a reader's gaps.
#[derive(Default)]
pub(crate) struct Filling {
    /// The gaps that are filled.
    pub(crate) parts: Parts,
    /// From where on tables are given, by all their names in lower case.
    from: BTreeMap<String, VersionVector>,
    /// The same by the tables' ids.
    tables: BTreeMap<i64, VersionVector>,
}

impl Filling {
    /// Returns what fills gaps here: whole tables from there on, of those that are all here.
    pub(crate) fn of(conn: &Connection, gaps: Parts, lacking: &Parts) -> Result<Self, TableError> {
        let mut filling = Filling::default();
        for (part, after) in gaps {
            let is_lacking =
                lacking.contains_key(&part) || lacking.contains_key(&Part::whole(&part.table));
            let Some(table) = other_names::table(conn, &part.table)?.filter(|_| !is_lacking) else {
                continue;
            };
            let earliest = match filling.tables.get(&table.id) {
                Some(known) => known.meet(&after),
                None => after.clone(),
            };
            for name in other_names::names(conn, &table.name)? {
                filling.from.insert(name, earliest.clone());
            }
            filling.tables.insert(table.id, earliest);
            filling.parts.insert(part, after);
        }
        Ok(filling)
    }

    /// Returns from where on a table is given, if that is not where the reader's vector ends.
    pub(crate) fn from(&self, table: &str) -> Option<&VersionVector> {
        self.from.get(&table.to_ascii_lowercase())
    }

    /// Adds the changes of tables that a reader lacks of what it has seen.
    pub(crate) fn add_ranges(
        &self,
        conn: &Connection,
        sites: &Sites,
        (since, until): (&VersionVector, &VersionVector),
        ranges: &mut BTreeMap<Lane, Vec<Range>>,
    ) -> rusqlite::Result<()> {
        let find = "SELECT table_id, lane, key, key_end, site, version, causal_length
            FROM syncline_clocks
            WHERE site = ?1 AND version > ?2 AND version <= ?3 AND table_id = ?4";
        let mut statement = conn.prepare_cached(find)?;
        for (table_id, after) in &self.tables {
            let table_id = *table_id;
            for (ordinal, site, _) in sites.iter() {
                let last = since.version(site).min(until.version(site));
                let after = version_to(after.version(site));
                let mut rows = statement.query((ordinal, after, version_to(last), table_id))?;
                while let Some(row) = rows.next()? {
                    let lane = row.get(1)?;
                    let lane = Lane { table_id, lane };
                    ranges.entry(lane).or_default().push(Range::read(row)?);
                }
            }
        }
        Ok(())
    }
}

/// Returns the tables, by all their names in lower case, that were lacking here and of which a
/// changeset gives what was.
pub(crate) fn filled(
    conn: &Connection,
    changeset: &Changeset,
) -> rusqlite::Result<BTreeSet<String>> {
    let mut tables = BTreeSet::new();
    for gap in Gap::all(conn)? {
        let is_given = changeset.filled.contains_key(&gap.part)
            || gap.meets(&changeset.since, &changeset.until);
        if gap.part.is_whole() && is_given {
            tables.extend(other_names::names(conn, &gap.part.table)?);
        }
    }
    Ok(tables)
}

/// Notes which gaps a changeset filled and made, after it was merged into a replica that had seen
/// `before`.
pub(crate) fn note(
    conn: &Connection,
    changeset: &Changeset,
    before: &VersionVector,
) -> rusqlite::Result<()> {
    let mut filled = Parts::new();
    for gap in Gap::all(conn)? {
        let since = changeset.filled.get(&gap.part).unwrap_or(&changeset.since);
        let is_lacking = changeset.lacking.contains_key(&gap.part)
            || changeset
                .lacking
                .contains_key(&Part::whole(&gap.part.table));
        if is_lacking {
            continue;
        }
        let after = gap.filled(since, &changeset.until);
        if after.covers(&gap.upto) {
            let fill = "DELETE FROM syncline_gaps WHERE table_name = ?1 AND column_name = ?2";
            let names = [&gap.part.table, &gap.part.column];
            conn.prepare_cached(fill)?.execute(names)?;
            filled.insert(gap.part, gap.after);
        } else if after != gap.after {
            Gap { after, ..gap }.store(conn)?;
        }
    }
    for (part, latest) in &changeset.lacking {
        // Where the whole table was lacking, its columns were too.
        let held = filled.get(&Part::whole(&part.table)).unwrap_or(before);
        if !held.covers(latest) {
            widen(conn, part, (held, latest), true)?;
        }
    }
    Ok(())
}

/// Notes that something between two vectors may be lacking.
fn widen(
    conn: &Connection,
    part: &Part,
    (after, upto): (&VersionVector, &VersionVector),
    is_wanted: bool,
) -> rusqlite::Result<()> {
    let find = "SELECT * FROM syncline_gaps WHERE table_name = ?1 AND column_name = ?2";
    let names = [&part.table, &part.column];
    let found = conn.prepare_cached(find)?.query_one(names, Gap::read);
    let mut gap = found.optional()?.unwrap_or_else(|| Gap {
        part: part.clone(),
        after: after.clone(),
        upto: VersionVector::new(),
        is_wanted,
    });
    gap.after = gap.after.meet(after);
    gap.upto.join(upto);
    gap.store(conn)
}

/// Notes that what was here of a table, or of a column, is not any more.
pub(crate) fn lose(conn: &Connection, part: &Part) -> rusqlite::Result<()> {
    widen(
        conn,
        part,
        (&VersionVector::new(), &version_vector(conn)?),
        false,
    )
}

/// Asks others for what is lacking of a table from here on.
pub(crate) fn want(conn: &Connection, table: &str) -> rusqlite::Result<()> {
    let want = "UPDATE syncline_gaps SET is_wanted = TRUE WHERE table_name = ?1 COLLATE NOCASE";
    conn.prepare_cached(want)?.execute([table])?;
    Ok(())
}
