//! Renamed columns and tables as bytes.

use super::{DecodeError, NAME_BYTES_MAX, Reader, Writer, put_bytes};
use crate::Rename;

/// The most renames in one changeset: a peer that sends more wants to fill the disk.
const RENAMES_COUNT_MAX: usize = 10_000;

impl Writer {
    pub(super) fn renames(&mut self, renames: &[Rename]) {
        self.length(renames.len());
        for rename in renames {
            for name in [&rename.table, &rename.former, &rename.name] {
                put_bytes(&mut self.bytes, name.as_bytes());
            }
            self.stamp(rename.stamp);
        }
    }
}

impl Reader<'_> {
    pub(super) fn renames(&mut self) -> Result<Vec<Rename>, DecodeError> {
        let renames = self.list(5, |reader| {
            let table = reader.string(NAME_BYTES_MAX)?;
            let name = match table.is_empty() {
                true => Reader::name,
                false => Reader::column_name,
            };
            Ok(Rename {
                former: name(reader)?,
                name: name(reader)?,
                stamp: reader.stamp()?,
                table,
            })
        })?;
        if renames.len() > RENAMES_COUNT_MAX {
            return Err(self.invalid("a changeset has at most 10,000 renames"));
        }
        Ok(renames)
    }
}
