//! Changes a valid changeset at random: its structure, then sometimes its bytes.

use fastrand::Rng;
use syncline_crdt::{
    CAUSAL_LENGTH_MAX, CausalLength, Changeset, Group, GroupKind, Hlc, Part, Real, Rename, SiteId,
    Stamp, TableChanges, TableSchema, Value, VersionVector,
};

use super::super::{NOW, Replica};
use crate::site_id;

const NAMES: [&str; 24] = [
    "joined",
    "exact",
    "number",
    "NUMBER",
    "word",
    "pair",
    "extra",
    "child",
    "",
    "\0",
    "a\0b",
    "a",
    "b",
    "c",
    "id",
    "sqlite_master",
    "sqlite_sequence",
    "syncline_meta",
    "Syncline_Clocks",
    "main.number",
    "temp",
    "\"; DROP TABLE number; --",
    "rowid",
    "ü",
];

const STATEMENTS: [&str; 26] = [
    "CREATE TABLE extra(id INTEGER PRIMARY KEY, a)",
    "CREATE TABLE extra(id INTEGER PRIMARY KEY); DROP TABLE number",
    "CREATE TABLE extra AS SELECT * FROM number",
    "CREATE TEMP TABLE extra(id INTEGER PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS number(id INTEGER PRIMARY KEY)",
    "CREATE VIRTUAL TABLE extra USING fts5(a)",
    "CREATE VIEW extra AS SELECT 1",
    "CREATE TRIGGER x AFTER INSERT ON extra BEGIN DELETE FROM number; END",
    "CREATE INDEX by_a ON extra(a)",
    "CREATE UNIQUE INDEX by_a ON extra(a)",
    "CREATE INDEX by_a ON number(a)",
    "CREATE INDEX evil ON extra(load_extension('x'))",
    "CREATE TABLE extra(id PRIMARY KEY, a DEFAULT (load_extension('x')))",
    "CREATE TABLE extra(id PRIMARY KEY, a DEFAULT (syncline_leave()))",
    "CREATE TABLE extra(id PRIMARY KEY, a AS (syncline_leave()))",
    "CREATE TABLE extra(id PRIMARY KEY, a CHECK(syncline_leave() = 1))",
    "CREATE TABLE extra(id PRIMARY KEY, a UNIQUE, b REFERENCES number(id) ON DELETE CASCADE)",
    "CREATE TABLE extra(id TEXT PRIMARY KEY COLLATE NOCASE)",
    "CREATE TABLE extra(a, b)",
    "CREATE TABLE extra(rowid PRIMARY KEY, oid, _rowid_)",
    "ATTACH '/nowhere/x' AS y",
    "PRAGMA writable_schema = ON",
    "DELETE FROM number",
    "VACUUM",
    "-- nothing",
    "",
];

const OPTIONS: [&str; 12] = [
    "{}",
    "null",
    "[[[[[[[[[[[[",
    "{\"columns\":{\"a\":\"counter\"}}",
    "{\"columns\":{\"a\":\"text\",\"b\":\"max\"}}",
    "{\"columns\":{\"a\":{\"bounded_counter\":{\"floor\":-9223372036854775808}}}}",
    "{\"columns\":{\"nowhere\":\"min\"}}",
    "{\"columns\":{\"id\":\"set\"}}",
    "{\"ids\":\"shared\"}",
    "{\"ids\":\"counted\",\"foreign_keys\":{\"parent\":\"cascade\"}}",
    "{\"foreign_keys\":{\"\":\"park\",\"a, b\":\"set_null\"}}",
    "{\"ids\":\"counted\"}",
];

/// Returns a changeset of the corpus with a few changes, as bytes with a valid checksum.
pub(super) fn mutated(corpus: &[Changeset], random: &mut Rng, prey: &Replica) -> Vec<u8> {
    let mut changeset = corpus[random.usize(..corpus.len())].clone();
    let own = site_id(&prey.conn).expect("the victim has a name");
    let sites = sites(&changeset, own);
    for _ in 0..random.usize(1..4) {
        change(&mut changeset, random, &sites);
    }
    // Some of the tables are enough half of the time: that is more inputs in the same time.
    if random.bool() {
        changeset.tables.retain(|_| random.u8(..) < 80);
    }
    // Most rules behind the first ones are reached only if the vectors allow what is named.
    if random.u8(..) < 200 {
        let stamps = changeset.tables.iter().flat_map(|table| &table.groups);
        for stamp in stamps.map(|group| group.stamp).collect::<Vec<_>>() {
            changeset.until.advance(stamp.site, stamp.version);
        }
    }
    let mut bytes = changeset.encode();
    if random.u8(..) < 40 {
        change_bytes(&mut bytes, random);
    }
    bytes
}

/// The sites that a changeset names, the victim, and one that nobody is.
fn sites(changeset: &Changeset, own: SiteId) -> Vec<SiteId> {
    let named = changeset.until.iter().map(|(site, _)| site);
    named
        .chain([own, SiteId::default(), SiteId([0xee; 16])])
        .collect()
}

fn change_bytes(bytes: &mut Vec<u8>, random: &mut Rng) {
    const CHECKSUM_BYTES: usize = 8;
    let mut body = bytes[..bytes.len() - CHECKSUM_BYTES].to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..body.len());
        match random.u8(..4) {
            0 => body[at] = random.u8(..),
            1 => body[at] ^= 1 << random.u8(..8),
            2 => body.truncate(at.max(8)),
            _ => body.insert(at, random.choice([0, 1, 0x7f, 0x80, 0xff]).unwrap_or(0)),
        }
    }
    let checksum = blake3::hash(&body);
    body.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
    *bytes = body;
}

fn pick<T: Clone>(random: &mut Rng, from: &[T]) -> T {
    from[random.usize(..from.len())].clone()
}

fn version(random: &mut Rng) -> Hlc {
    let now = Hlc::at_unix_ms(NOW).to_bits();
    let bits = match random.u8(..6) {
        0 => 1,
        1 => Hlc::MAX.to_bits(),
        2 => now + (1 << 30),
        3 => Hlc::at_unix_ms(NOW + 5 * 60 * 1000).to_bits(),
        4 => random.u64(1..now),
        _ => now + random.u64(..1 << 18),
    };
    Hlc::from_bits(bits).expect("below the last version")
}

fn value(random: &mut Rng) -> Value {
    let real = |number| Real::new(number).map_or(Value::Null, Value::Real);
    match random.u8(..16) {
        0 => Value::Null,
        1 => Value::Integer(i64::MIN),
        2 => Value::Integer(i64::MAX),
        3 => Value::Integer(random.i64(-3..12)),
        4 => Value::Integer(random.i64(..)),
        5 => real(f64::INFINITY),
        6 => real(1.0),
        7 => real(random.f64() * 1e300),
        8 => real(9_007_199_254_740_993.0),
        9 => Value::Text(vec![]),
        10 => Value::Text(vec![0xff, 0xfe, 0]),
        11 => Value::Text(vec![b'x'; random.usize(..5_000)]),
        12 => Value::text(&random.i64(..12).to_string()),
        13 => Value::text("a"),
        14 => Value::Blob(vec![]),
        _ => Value::Blob(random.u64(..).to_le_bytes().to_vec()),
    }
}

fn name(random: &mut Rng) -> String {
    match random.u8(..20) {
        0 => "n".repeat(2_000),
        _ => pick(random, &NAMES).to_owned(),
    }
}

fn change(changeset: &mut Changeset, random: &mut Rng, sites: &[SiteId]) {
    match random.u8(..14) {
        12 => change_parts(changeset, random, sites),
        13 => changeset.renames.push(Rename {
            table: pick(random, &["", "pair", "word", "number", "joined"]).to_owned(),
            former: name(random),
            name: name(random),
            stamp: Stamp {
                version: version(random),
                site: pick(random, sites),
            },
        }),
        0 | 1 => change_vectors(changeset, random, sites),
        2 => change_schemas(changeset, random, sites),
        3 | 4 => {
            if let Some(table) = any(&mut changeset.tables, random) {
                change_table(table, random);
            }
        }
        5 => {
            if let Some(table) = any(&mut changeset.tables, random) {
                let copy = table.clone();
                changeset.tables.push(copy);
            }
        }
        _ => {
            if let Some(table) = any(&mut changeset.tables, random) {
                let key_count = table.key_columns.len();
                match (random.u8(..8), any(&mut table.groups, random)) {
                    (0, Some(group)) => {
                        let copy = group.clone();
                        table.groups.push(copy);
                    }
                    (1, Some(_)) => table.groups.reverse(),
                    (_, Some(group)) => change_group(group, key_count, random, sites),
                    (_, None) => {}
                }
            }
        }
    }
}

fn any<'a, T>(list: &'a mut [T], random: &mut Rng) -> Option<&'a mut T> {
    let length = list.len();
    (length > 0).then(|| &mut list[random.usize(..length)])
}

fn change_vectors(changeset: &mut Changeset, random: &mut Rng, sites: &[SiteId]) {
    let (site, version) = (pick(random, sites), version(random));
    let (until, settled) = (changeset.until.clone(), changeset.settled.clone());
    match random.u8(..10) {
        0 => changeset.since.advance(site, version),
        1 => changeset.since = VersionVector::new(),
        2 => changeset.until.advance(site, version),
        3 => changeset.until = VersionVector::of(site, version),
        4 => changeset.collected.advance(site, version),
        5 => {
            changeset.collected.advance(site, version);
            changeset.settled.advance(site, version);
        }
        6 => changeset.settled = until,
        7 => (changeset.collected, changeset.settled) = (until.clone(), until),
        8 => changeset.collected = settled,
        _ => changeset.since = until,
    }
}

/// Says that something is lacking, or filled.
fn change_parts(changeset: &mut Changeset, random: &mut Rng, sites: &[SiteId]) {
    let part = Part {
        table: name(random),
        column: pick(random, &["", "", "a", "b", "c", "n", "\0"]).to_owned(),
    };
    let mut vector = match random.u8(..3) {
        0 => VersionVector::new(),
        1 => changeset.since.clone(),
        _ => changeset.until.clone(),
    };
    if random.u8(..) < 64 {
        vector.advance(pick(random, sites), version(random));
    }
    match random.bool() {
        true => changeset.filled.insert(part, vector),
        false => changeset.lacking.insert(part, vector),
    };
}

fn change_schemas(changeset: &mut Changeset, random: &mut Rng, sites: &[SiteId]) {
    let stamp = Stamp {
        version: version(random),
        site: pick(random, sites),
    };
    let Some(schema) = any(&mut changeset.schemas, random) else {
        let name = "extra".to_owned();
        changeset.schemas.push(TableSchema {
            name,
            stamp,
            origin: SiteId::default(),
            options: pick(random, &OPTIONS).to_owned(),
            statements: vec![pick(random, &STATEMENTS).to_owned()],
        });
        return;
    };
    match random.u8(..8) {
        0 => schema.name = name(random),
        1 => schema.stamp = stamp,
        2 => schema.origin = pick(random, sites),
        3 => schema.options = pick(random, &OPTIONS).to_owned(),
        4 => schema.statements.clear(),
        5 => schema.statements.push(pick(random, &STATEMENTS).to_owned()),
        // Rarely: every fold from here on looks at all of its columns.
        6 if random.u8(..) < 16 => {
            let columns: Vec<String> = (0..random.usize(1..2_500))
                .map(|n| format!("c{n}"))
                .collect();
            let columns = columns.join(", ");
            schema.name = "wide".to_owned();
            schema.statements = vec![format!("CREATE TABLE wide(id PRIMARY KEY, {columns})")];
        }
        _ => {
            schema.name = "extra".to_owned();
            schema.statements = (0..random.usize(1..3))
                .map(|_| pick(random, &STATEMENTS).to_owned())
                .collect();
        }
    }
}

fn change_table(table: &mut TableChanges, random: &mut Rng) {
    match random.u8(..9) {
        0 | 1 => table.name = name(random),
        2 => table.key_columns = vec![name(random)],
        3 => table.key_columns.reverse(),
        4 => {
            if let Some(column) = any(&mut table.columns, random) {
                *column = name(random);
            }
        }
        5 => {
            let copy = table.columns.first().cloned();
            if let (Some(column), Some(copy)) = (table.columns.last_mut(), copy) {
                *column = copy.to_uppercase();
            }
        }
        6 => table.columns.reverse(),
        7 => table.columns.extend(table.key_columns.first().cloned()),
        _ => table.groups.clear(),
    }
}

fn change_group(group: &mut Group, key_count: usize, random: &mut Rng, sites: &[SiteId]) {
    let width = key_count + group.columns.len();
    match random.u8(..14) {
        0 => group.stamp.version = version(random),
        1 => group.stamp.site = pick(random, sites),
        2 => {
            let far = (1 << 20) + random.u64(..3);
            let lengths = [1, 2, 3, 4, 5, far, CAUSAL_LENGTH_MAX, CAUSAL_LENGTH_MAX - 1];
            let length = CausalLength::new(pick(random, &lengths));
            group.causal_length = length.expect("within the limit");
        }
        3 => {
            let kinds = [GroupKind::Cells, GroupKind::Life, GroupKind::Deltas];
            group.kind = pick(random, &kinds);
        }
        4..=6 => {
            if let Some(cell) = any(&mut group.values, random) {
                *cell = value(random);
            }
        }
        7 => {
            let last = group.values.len().saturating_sub(width);
            let copy = group.values[last..].to_vec();
            group.values.extend(copy);
        }
        8 => group
            .values
            .truncate(random.usize(..group.values.len() + 1)),
        9 => {
            let dead = CausalLength::new(2).expect("small");
            let rows = group.values.chunks(width);
            group.values = rows
                .flat_map(|row| row[..key_count.min(row.len())].to_vec())
                .collect();
            (group.kind, group.causal_length) = (GroupKind::Life, dead);
            group.columns.clear();
            group.parents.clear();
        }
        10 => group.born = pick(random, sites),
        11 => group.parents = vec![pick(random, sites); group.columns.len()],
        12 if random.bool() => group.columns = vec![random.usize(..4); random.usize(..3)],
        _ => {
            if let Some(cell) = any(&mut group.values, random) {
                change_blob(cell, random);
            }
        }
    }
}

/// Changes a blob a little, as deltas are some.
fn change_blob(cell: &mut Value, random: &mut Rng) {
    match cell {
        Value::Blob(bytes) if !bytes.is_empty() && random.u8(..) < 224 => {
            let at = random.usize(..bytes.len());
            match random.u8(..6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, random.u8(..)),
                2 => bytes.extend(bytes[at..].to_vec()),
                3 => bytes[at] = random.u8(..),
                _ => bytes[at] ^= 1 << random.u8(..8),
            }
        }
        cell => *cell = Value::Blob(vec![random.u8(..); random.usize(..40)]),
    }
}
