//! What another replica lacks of joined cells, and their part of the digest.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use syncline_crdt::{
    CausalLength, Digest, Group, GroupKind, History, Hlc, RowHasher, SiteId, Stamp, TableChanges,
    Value,
};

use super::{Cell, CellPlace, histories, unreadable};
use crate::births;
use crate::clocks;
use crate::constraints::store;
use crate::export::Window;
use crate::key_references::{KeyNames, origins};
use crate::shadow::{OWN, Sites, version_from, version_to};
use crate::table::{JoinedColumn, RowKey, Table};
use crate::whose::Whose;

/// Returns what was added to a table's joined cells in these windows.
pub(crate) fn changes(
    conn: &Connection,
    sites: &Sites,
    table: &Table,
    windows: &[Window],
) -> rusqlite::Result<Option<TableChanges>> {
    if table.joined.is_empty() {
        return Ok(None);
    }
    let mut names = Names::new(conn, sites, table)?;
    let mut groups: BTreeMap<Head, Vec<Value>> = BTreeMap::new();
    for window in windows {
        for found in entries(conn, table, window)? {
            let stamp = sites.stamp(window.ordinal, found.version.min(window.until));
            let Some(delta) = delta(conn, sites, table, (stamp, window), &found)? else {
                continue;
            };
            let name = names.of(&found.key)?;
            let head = (
                found.column,
                name.life,
                stamp,
                name.born.unwrap_or_default(),
                name.parents,
            );
            let values = groups.entry(head).or_default();
            values.extend(name.key);
            values.push(Value::Blob(delta));
        }
    }
    let group = |((column, causal_length, stamp, born, mut parents), values): (Head, _)| {
        // Joined cells refer to no rows.
        let of_cell = (!parents.is_empty()).then(SiteId::default);
        parents.extend(of_cell);
        Group {
            causal_length,
            kind: GroupKind::Deltas,
            stamp,
            born,
            columns: vec![column],
            parents,
            values,
        }
    };
    let groups: Vec<Group> = groups.into_iter().map(group).collect();
    let key_columns = table.key_columns.iter().map(|key| key.name.clone());
    let joined = table.joined.iter().map(|joined| joined.column.name.clone());
    Ok((!groups.is_empty()).then(|| TableChanges {
        name: table.name.clone(),
        key_columns: key_columns.collect(),
        columns: joined.collect(),
        groups,
    }))
}

/// What rows of one group share: the column, their causal length, when and where it was written, who
/// created them, and who created the rows that their keys refer to.
type Head = (usize, CausalLength, Stamp, SiteId, Vec<SiteId>);

/// What a site added last to a cell.
struct Entry {
    column: usize,
    key: RowKey,
    version: Hlc,
    /// Up to which version the site's edits are in the saved part of a history.
    saved_until: Hlc,
    /// The site's entry, for the policies that keep entries.
    bytes: Vec<u8>,
}

/// Returns the entries in a window. Of a history also those that go on after it, since the edits
/// within it may be anywhere before.
fn entries(conn: &Connection, table: &Table, window: &Window) -> rusqlite::Result<Vec<Entry>> {
    let find = "SELECT lane, key, version, delta FROM syncline_deltas
        WHERE site = ?1 AND version > ?2 AND (version <= ?3 OR typeof(delta) = 'integer')
        AND +table_id = ?4";
    let mut statement = conn.prepare_cached(find)?;
    let (after, until) = (version_to(window.after), version_to(window.until));
    let mut rows = statement.query(params![window.ordinal, after, until, table.id])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let lane: i64 = row.get(0)?;
        let of_lane = |joined: &JoinedColumn| joined.column.lane == lane;
        // The column of a lane may have been dropped since.
        let Some(column) = table.joined.iter().position(of_lane) else {
            continue;
        };
        let keeps_history = table.joined[column].policy.keeps_history();
        found.push(Entry {
            column,
            key: row.get(1)?,
            version: version_from(row.get(2)?)?,
            saved_until: match keeps_history {
                true => version_from(row.get(3)?)?,
                false => Hlc::ZERO,
            },
            bytes: match keeps_history {
                true => Vec::new(),
                false => row.get(3)?,
            },
        });
    }
    Ok(found)
}

/// Returns what is sent of an entry under a stamp; `None` if nothing of it is in the window.
fn delta(
    conn: &Connection,
    sites: &Sites,
    table: &Table,
    (stamp, window): (Stamp, &Window),
    entry: &Entry,
) -> rusqlite::Result<Option<Vec<u8>>> {
    let column = &table.joined[entry.column];
    if !column.policy.keeps_history() {
        return Ok(Some(entry.bytes.clone()));
    }
    let at = CellPlace::new(table, column, &entry.key);
    let (site, after, until) = (stamp.site, window.after, stamp.version);
    let delta = if after >= entry.saved_until {
        let added = histories::added(conn, at, window.ordinal, after)?;
        History::changes_in(&added, site, after, until).map_err(unreadable)?
    } else {
        let cell = Cell::read(conn, sites, at, column.policy)?;
        let delta = match &cell {
            Cell::History(history) => history.changes_of(site, after, until),
            Cell::Entries(_) => Vec::new(),
        };
        cell.keep();
        delta
    };
    Ok((!delta.is_empty()).then_some(delta))
}

/// How a row is told to others.
struct Name {
    key: Vec<Value>,
    life: CausalLength,
    /// The site that created it, where equal keys of two sites are two rows.
    born: Option<SiteId>,
    /// The sites that created the rows which its key refers to, if it does.
    parents: Vec<SiteId>,
}

impl Name {
    /// Returns the sites that tell who the row is, beside its key.
    fn origins(&self) -> Vec<SiteId> {
        let born = self.born.iter();
        born.chain(&self.parents).copied().collect()
    }
}

/// Looks up how the rows of a table are told to others.
struct Names<'a> {
    conn: &'a Connection,
    sites: &'a Sites,
    table: &'a Table,
    whose: Option<Whose>,
    key_names: Option<KeyNames>,
}

impl<'a> Names<'a> {
    fn new(conn: &'a Connection, sites: &'a Sites, table: &'a Table) -> rusqlite::Result<Self> {
        Ok(Names {
            conn,
            sites,
            table,
            whose: match table.is_counted() {
                true => Some(Whose::new(conn, table.id)?),
                false => None,
            },
            key_names: KeyNames::new(conn, table)?,
        })
    }

    fn of(&mut self, place: &RowKey) -> rusqlite::Result<Name> {
        let (place, site) = match (&mut self.whose, place) {
            (Some(whose), RowKey::Rowid(id)) => {
                let (number, site) = whose.at(self.conn, *id)?.unwrap_or((*id, OWN));
                (RowKey::Rowid(number), Some(site))
            }
            _ => (place.clone(), None),
        };
        let lane = births::life_lane(self.table, site.unwrap_or(OWN));
        let life = clocks::at(self.conn, lane, &place)?;
        let life = life.and_then(|clock| CausalLength::new(clock.causal_length));
        let mut key = store::unpacked(&place);
        let parents = match &mut self.key_names {
            Some(names) => origins(self.sites, &names.tell(self.conn, &mut key)?),
            None => Vec::new(),
        };
        Ok(Name {
            key,
            parents,
            life: life.unwrap_or(CausalLength::FIRST),
            born: site.map(|site| self.sites.site(site)),
        })
    }
}

/// Adds the states of a table's joined cells to the digest: each site's entry, and each history.
pub(crate) fn add_to_digest(
    conn: &Connection,
    sites: &Sites,
    table: &Table,
    digest: &mut Digest,
) -> rusqlite::Result<()> {
    let entries = "SELECT key, site, version, delta FROM syncline_deltas
        WHERE table_id = ?1 AND lane = ?2";
    let histories = "SELECT key, NULL, NULL, fingerprint FROM syncline_histories
        WHERE table_id = ?1 AND lane = ?2";
    let mut hasher = RowHasher::default();
    let mut names = Names::new(conn, sites, table)?;
    for joined in &table.joined {
        let keeps_history = joined.policy.keeps_history();
        let lane = joined.column.lane;
        let mut statement = conn.prepare_cached(if keeps_history { histories } else { entries })?;
        let mut rows = statement.query(params![table.id, lane])?;
        while let Some(row) = rows.next()? {
            let key: RowKey = row.get(0)?;
            let stamp = match keeps_history {
                true => Stamp::default(),
                false => sites.stamp(row.get(1)?, version_from(row.get(2)?)?),
            };
            let state = Value::Blob(row.get(3)?);
            let name = names.of(&key)?;
            hasher.begin(&table.name, name.life, &name.key, &name.origins());
            hasher.cell(&joined.column.name, stamp, &state, SiteId::default());
            digest.add(hasher.finish());
        }
    }
    Ok(())
}
