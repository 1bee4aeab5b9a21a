//! The bytes of a changeset, of a version vector and of a packed primary key.
//!
//! `docs/storage.md` describes the format. Integers are LEB128 varints, strings and blobs carry
//! their length, sites and names are written once and then named by index. A changeset ends with
//! eight bytes of its BLAKE3 hash, so that damage on the way is told from a different meaning.

use std::collections::BTreeMap;

use crate::{
    CausalLength, Changeset, Group, GroupKind, Hlc, SiteId, Stamp, TableChanges, TableSchema,
    Value, VersionVector,
};

mod key;
mod rename;
mod seen;
mod value;

pub use key::{pack_key, unpack_key};
pub(crate) use value::put_value;

/// The most bytes a changeset may have: SQLite's default limit for one value, 10^9, is just above.
pub const CHANGESET_BYTES_MAX: usize = 900_000_000;
/// The most bytes a table's or column's name may have.
pub const NAME_BYTES_MAX: usize = 1024;
/// The most columns a table may have: SQLite's default limit.
pub const COLUMNS_COUNT_MAX: usize = 2000;
/// The most bytes all values of one row may have together: SQLite's default limit.
pub const ROW_BYTES_MAX: usize = 1_000_000_000;
const _: () = assert!(CHANGESET_BYTES_MAX < ROW_BYTES_MAX);

/// The most bytes a table's options may have.
pub const OPTIONS_BYTES_MAX: usize = 1 << 20;
/// The most sites that a changeset or a version vector may name: whoever takes them in keeps them.
pub const SITES_COUNT_MAX: usize = 1 << 16;

const MAGIC: &[u8; 4] = b"SYNC";
const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

/// Why bytes are not a changeset, a version vector or a packed key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first bytes are not ours.
    #[error("these bytes are not a Syncline changeset or version vector")]
    Foreign,
    /// A later program wrote it.
    #[error("it has format {found}, and this program reads up to {known}: update Syncline here")]
    Newer {
        /// The format it has.
        found: u8,
        /// The latest this program reads.
        known: u8,
    },
    /// It ends in the middle.
    #[error("it is cut short at byte {at}: transfer it again")]
    Truncated {
        /// Where more was expected.
        at: usize,
    },
    /// Its checksum is another one.
    #[error("it was damaged on the way (its checksum differs): transfer it again")]
    Damaged,
    /// More bytes than one may have.
    #[error("it has {bytes} bytes and may have {limit}")]
    TooLarge {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A part breaks a rule of the format.
    #[error("it breaks a rule at byte {at}: {rule}")]
    Invalid {
        /// Where.
        at: usize,
        /// The rule.
        rule: &'static str,
    },
}

impl Changeset {
    /// Returns the changeset as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.vector(&self.since);
        writer.vector(&self.until);
        writer.vector(&self.collected);
        writer.vector(&self.settled);
        writer.parts(&self.filled);
        writer.parts(&self.lacking);
        writer.length(self.schemas.len());
        for schema in &self.schemas {
            put_bytes(&mut writer.bytes, schema.name.as_bytes());
            writer.stamp(schema.stamp);
            writer.site(schema.origin);
            put_bytes(&mut writer.bytes, schema.options.as_bytes());
            writer.names(&schema.statements);
        }
        writer.renames(&self.renames);
        writer.length(self.tables.len());
        for table in &self.tables {
            put_bytes(&mut writer.bytes, table.name.as_bytes());
            writer.names(&table.key_columns);
            writer.names(&table.columns);
            writer.length(table.groups.len());
            table.groups.iter().for_each(|group| writer.group(group));
        }
        writer.finish()
    }

    /// Reads a changeset from bytes that may come from anywhere.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says what is wrong. What it does not check, because only a database knows,
    /// is whether the tables and columns exist.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(bytes)?;
        let since = reader.vector()?;
        let until = reader.vector()?;
        let collected = reader.vector()?;
        let settled = reader.vector()?;
        if !settled.covers(&collected) {
            return Err(reader.invalid("deletions are seen before they are forgotten"));
        }
        let filled = reader.parts()?;
        let lacking = reader.parts()?;
        if !lacking.values().all(|latest| until.covers(latest)) {
            return Err(reader.invalid("what is lacking was seen"));
        }
        let schemas = reader.list(5, |reader| {
            let name = reader.name()?;
            let stamp = reader.stamp()?;
            let origin = reader.site()?;
            let options = reader.string(OPTIONS_BYTES_MAX)?;
            let statements = reader.list(1, |reader| reader.string(usize::MAX))?;
            Ok(TableSchema {
                name,
                stamp,
                origin,
                options,
                statements,
            })
        })?;
        let renames = reader.renames()?;
        let tables = reader.list(4, Reader::table)?;
        reader.end()?;
        Ok(Changeset {
            since,
            until,
            collected,
            settled,
            filled,
            lacking,
            schemas,
            renames,
            tables,
        })
    }
}

impl VersionVector {
    /// Returns the vector as bytes, equal for equal vectors.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.vector(self);
        writer.finish()
    }

    /// Reads a vector from bytes that may come from anywhere.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(bytes)?;
        let vector = reader.vector()?;
        if !reader.is_at_end() {
            return Err(reader.invalid("nothing may follow the vector"));
        }
        Ok(vector)
    }
}

/// Checks what surrounds the body, and returns it with its magic.
fn open(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    if bytes.len() > CHANGESET_BYTES_MAX {
        return Err(DecodeError::TooLarge {
            bytes: bytes.len(),
            limit: CHANGESET_BYTES_MAX,
        });
    }
    let Some(after_magic) = bytes.strip_prefix(MAGIC) else {
        return Err(DecodeError::Foreign);
    };
    match after_magic.first() {
        None => return Err(DecodeError::Truncated { at: bytes.len() }),
        Some(&found) if found != FORMAT => {
            return Err(DecodeError::Newer {
                found,
                known: FORMAT,
            });
        }
        Some(_) => {}
    }
    let Some((body, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(DecodeError::Truncated { at: bytes.len() });
    };
    if body.len() <= MAGIC.len() {
        return Err(DecodeError::Truncated { at: bytes.len() });
    }
    if blake3::hash(body).as_bytes()[..CHECKSUM_BYTES] != checksum[..] {
        return Err(DecodeError::Damaged);
    }
    Ok(body)
}

pub(crate) fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

pub(crate) fn put_bytes(bytes: &mut Vec<u8>, payload: &[u8]) {
    put_varint(bytes, payload.len() as u64);
    bytes.extend_from_slice(payload);
}

// The low three bits of a group's head; the causal length is above them.
const HEAD_CELLS: u64 = 0;
const HEAD_LIFE: u64 = 1;
const HEAD_DELTAS: u64 = 2;

struct Writer {
    bytes: Vec<u8>,
    sites: Vec<SiteId>,
    site_indices: BTreeMap<SiteId, u64>,
}

impl Writer {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            sites: Vec::new(),
            site_indices: BTreeMap::new(),
        }
    }

    fn length(&mut self, length: usize) {
        put_varint(&mut self.bytes, length as u64);
    }

    fn site(&mut self, site: SiteId) {
        let next = self.sites.len() as u64;
        let index = *self.site_indices.entry(site).or_insert_with(|| {
            self.sites.push(site);
            next
        });
        put_varint(&mut self.bytes, index);
    }

    fn stamp(&mut self, stamp: Stamp) {
        self.site(stamp.site);
        put_varint(&mut self.bytes, stamp.version.to_bits());
    }

    fn vector(&mut self, vector: &VersionVector) {
        self.length(vector.sites_count());
        for (site, version) in vector.iter() {
            self.stamp(Stamp { version, site });
        }
    }

    fn names(&mut self, names: &[String]) {
        self.length(names.len());
        names
            .iter()
            .for_each(|name| put_bytes(&mut self.bytes, name.as_bytes()));
    }

    fn group(&mut self, group: &Group) {
        let kind = match group.kind {
            GroupKind::Cells => HEAD_CELLS,
            GroupKind::Life => HEAD_LIFE,
            GroupKind::Deltas => HEAD_DELTAS,
        };
        let has_origins = group.born != SiteId::default() || !group.parents.is_empty();
        let head = group.causal_length.get() << 3 | u64::from(has_origins) << 2 | kind;
        put_varint(&mut self.bytes, head);
        self.stamp(group.stamp);
        self.length(group.columns.len());
        for column in &group.columns {
            self.length(*column);
        }
        if has_origins {
            self.site(group.born);
            self.length(group.parents.len());
            group.parents.iter().for_each(|site| self.site(*site));
        }
        self.length(group.values.len());
        group
            .values
            .iter()
            .for_each(|value| put_value(&mut self.bytes, value));
    }

    /// The sites are known only at the end, and stand at the beginning.
    fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes.len() + self.sites.len() * 16 + 32);
        bytes.extend_from_slice(MAGIC);
        bytes.push(FORMAT);
        put_varint(&mut bytes, self.sites.len() as u64);
        self.sites
            .iter()
            .for_each(|site| bytes.extend_from_slice(&site.0));
        bytes.extend_from_slice(&self.bytes);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
        bytes
    }
}

/// Reads bytes that may come from anywhere.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    sites: Vec<SiteId>,
}

impl<'a> Reader<'a> {
    /// Begins to read bytes that name no site by index.
    pub(crate) fn over(bytes: &'a [u8]) -> Self {
        Reader {
            bytes,
            at: 0,
            sites: Vec::new(),
        }
    }

    /// Begins to read bytes with a beginning, a checksum and their sites.
    fn open(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader {
            bytes: open(bytes)?,
            at: MAGIC.len() + 1,
            sites: Vec::new(),
        };
        reader.sites()?;
        Ok(reader)
    }

    fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Checks that all was read.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.is_at_end() {
            return Ok(());
        }
        Err(self.invalid("nothing may follow the last value"))
    }

    /// Reads a length and as many bytes.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.varint()?;
        self.take_u64(length)
    }

    pub(crate) fn invalid(&self, rule: &'static str) -> DecodeError {
        DecodeError::Invalid { at: self.at, rule }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        if length > rest.len() {
            return Err(DecodeError::Truncated {
                at: self.bytes.len(),
            });
        }
        self.at += length;
        Ok(&rest[..length])
    }

    fn take_u64(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(self.invalid("a number is written in as few bytes as it needs"));
                }
                return Ok(number);
            }
        }
        Err(self.invalid("a number has at most 64 bits"))
    }

    /// Reads a count of things that take at least `least_bytes` each, so that a lie about it
    /// cannot make us reserve more memory than the bytes are long.
    fn count(&mut self, least_bytes: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > (self.bytes.len() - self.at) / least_bytes {
            return Err(DecodeError::Truncated {
                at: self.bytes.len(),
            });
        }
        Ok(count)
    }

    pub(crate) fn list<T>(
        &mut self,
        least_bytes: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(least_bytes)?;
        (0..count).map(|_| read(self)).collect()
    }

    pub(crate) fn string(&mut self, bytes_max: usize) -> Result<String, DecodeError> {
        let length = self.count(1)?;
        if length > bytes_max {
            return Err(self.invalid("a name has at most 1024 bytes, and options 1 MiB"));
        }
        let text = self.take(length)?;
        match std::str::from_utf8(text) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.invalid("names and statements are UTF-8")),
        }
    }

    fn name(&mut self) -> Result<String, DecodeError> {
        let name = self.column_name()?;
        if name.is_empty() {
            return Err(self.invalid("a table's name is not empty"));
        }
        Ok(name)
    }

    /// SQLite takes a column without a name, too.
    fn column_name(&mut self) -> Result<String, DecodeError> {
        let name = self.string(NAME_BYTES_MAX)?;
        if name.contains('\0') {
            return Err(self.invalid("a name has no NUL"));
        }
        Ok(name)
    }

    fn names(&mut self) -> Result<Vec<String>, DecodeError> {
        let names = self.list(1, Reader::column_name)?;
        if names.len() > COLUMNS_COUNT_MAX {
            return Err(self.invalid("a table has at most 2000 columns"));
        }
        Ok(names)
    }

    fn sites(&mut self) -> Result<(), DecodeError> {
        self.sites = self.list(16, |reader| Ok(SiteId(reader.array()?)))?;
        if self.sites.len() > SITES_COUNT_MAX {
            return Err(self.invalid("a changeset names at most 65,536 sites"));
        }
        Ok(())
    }

    fn site(&mut self) -> Result<SiteId, DecodeError> {
        let index = self.varint()?;
        let site = usize::try_from(index)
            .ok()
            .and_then(|index| self.sites.get(index).copied());
        site.ok_or(self.invalid("a site index stays inside the list of sites"))
    }

    fn stamp(&mut self) -> Result<Stamp, DecodeError> {
        let site = self.site()?;
        match Hlc::from_bits(self.varint()?) {
            Some(version) if version > Hlc::ZERO => Ok(Stamp { version, site }),
            _ => Err(self.invalid("a version is above zero and has at most 53 bits")),
        }
    }

    fn vector(&mut self) -> Result<VersionVector, DecodeError> {
        let stamps = self.list(2, Reader::stamp)?;
        let ascending = stamps.is_sorted_by(|a, b| a.site < b.site);
        if !ascending {
            return Err(self.invalid("a version vector names each site once, in order"));
        }
        Ok(stamps
            .into_iter()
            .map(|stamp| (stamp.site, stamp.version))
            .collect())
    }

    fn table(&mut self) -> Result<TableChanges, DecodeError> {
        let name = self.name()?;
        let key_columns = self.names()?;
        let columns = self.names()?;
        if key_columns.is_empty() || key_columns.len() > usize::from(u8::MAX) {
            return Err(self.invalid("a primary key has 1 to 255 columns"));
        }
        let groups = self.list(5, |reader| reader.group(key_columns.len(), columns.len()))?;
        Ok(TableChanges {
            name,
            key_columns,
            columns,
            groups,
        })
    }

    fn group(&mut self, key_count: usize, columns_count: usize) -> Result<Group, DecodeError> {
        let head = self.varint()?;
        let kind = match head & 3 {
            HEAD_CELLS => GroupKind::Cells,
            HEAD_LIFE => GroupKind::Life,
            HEAD_DELTAS => GroupKind::Deltas,
            _ => return Err(self.invalid("a group tells cells, lives or deltas")),
        };
        let causal_length = match CausalLength::new(head >> 3) {
            Some(length) if length > CausalLength::UNKNOWN => length,
            _ => return Err(self.invalid("a causal length is above zero and below 2^53")),
        };
        let stamp = self.stamp()?;
        let columns = self.list(1, |reader| {
            let column = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
            let in_range = column < columns_count;
            in_range
                .then_some(column)
                .ok_or(reader.invalid("a column index stays in its table"))
        })?;
        if !columns.is_sorted_by(|a, b| a < b) {
            return Err(self.invalid("a group names each column once, in order"));
        }
        if kind == GroupKind::Life && !columns.is_empty() {
            return Err(self.invalid("a group about lives has no columns"));
        }
        if kind == GroupKind::Deltas && columns.len() != 1 {
            return Err(self.invalid("a group of deltas has one column"));
        }
        if kind != GroupKind::Life && !causal_length.is_alive() {
            return Err(self.invalid("a deleted row has no cells"));
        }
        let (born, parents) = if head & 4 == 0 {
            (SiteId::default(), Vec::new())
        } else {
            (self.site()?, self.list(1, Reader::site)?)
        };
        let width = key_count + columns.len();
        if !parents.is_empty() && parents.len() != width {
            return Err(self.invalid("a group names the parents of all its columns or of none"));
        }
        let values = self.list(1, Reader::value)?;
        if values.is_empty() || values.len() % width != 0 {
            return Err(self.invalid("a group has whole rows, at least one"));
        }
        if values
            .chunks(width)
            .any(|row| row[..key_count].contains(&Value::Null))
        {
            return Err(self.invalid("a primary key has no NULL"));
        }
        let is_delta = |row: &[Value]| matches!(row.last(), Some(Value::Blob(_)));
        if kind == GroupKind::Deltas && !values.chunks(width).all(is_delta) {
            return Err(self.invalid("a delta is a blob"));
        }
        Ok(Group {
            causal_length,
            kind,
            stamp,
            born,
            columns,
            parents,
            values,
        })
    }
}

#[cfg(test)]
mod tests;
