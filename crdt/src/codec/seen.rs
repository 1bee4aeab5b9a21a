//! The bytes of what a replica has seen, with the tables and columns that it lacks.

use super::{DecodeError, NAME_BYTES_MAX, Reader, Writer, put_bytes};
use crate::{Part, Parts, Seen};

/// The most tables and columns that are lacking: a peer that names more wants to fill the disk.
const PARTS_COUNT_MAX: usize = 10_000;

impl Seen {
    /// Returns it as bytes, those of its vector if it lacks nothing.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.vector(&self.vector);
        if !self.gaps.is_empty() {
            writer.parts(&self.gaps);
        }
        writer.finish()
    }

    /// Reads it, or a version vector, from bytes that may come from anywhere.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::open(bytes)?;
        let vector = reader.vector()?;
        let gaps = match reader.is_at_end() {
            true => Parts::new(),
            false => reader.parts()?,
        };
        if !reader.is_at_end() {
            return Err(reader.invalid("nothing may follow the gaps"));
        }
        Ok(Seen { vector, gaps })
    }
}

impl Writer {
    pub(super) fn parts(&mut self, parts: &Parts) {
        self.length(parts.len());
        for (part, vector) in parts {
            for name in [&part.table, &part.column] {
                put_bytes(&mut self.bytes, name.as_bytes());
            }
            self.vector(vector);
        }
    }
}

impl Reader<'_> {
    pub(super) fn parts(&mut self) -> Result<Parts, DecodeError> {
        let parts = self.list(4, |reader| {
            let part = Part {
                table: reader.name()?,
                column: reader.string(NAME_BYTES_MAX)?,
            };
            Ok((part, reader.vector()?))
        })?;
        if parts.len() > PARTS_COUNT_MAX {
            return Err(self.invalid("at most 10,000 tables and columns are lacking"));
        }
        if !parts.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(self.invalid("what is lacking is named once, in order"));
        }
        Ok(parts.into_iter().collect())
    }
}
