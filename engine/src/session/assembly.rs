//! Puts one large envelope together from its parts, in any order.

use super::SessionError;
use super::message::Part;

/// The envelope being put together; never more than one.
#[derive(Default)]
pub(super) struct Assembly {
    current: Option<Parts>,
    completed: Option<[u8; 32]>,
}

struct Parts {
    hash: [u8; 32],
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
    /// Whether no part has come since the last question.
    stale: bool,
}

/// What became of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It was kept.
    Kept,
    /// It was there already, or belongs to the envelope completed last.
    Known,
    /// Another envelope is being put together; this one has to be asked for again.
    Crowded,
    /// It was the last one missing: the whole envelope.
    Complete(Vec<u8>),
}

impl Assembly {
    /// Notes that a new question was asked: an envelope whose parts have stopped makes room.
    pub(super) fn question_asked(&mut self) {
        // If it is asked for again, the log could not use it yet: one before it was missing.
        self.completed = None;
        if let Some(current) = &mut self.current {
            current.stale = true;
        }
    }

    /// Returns whether parts have come since the last question.
    pub(super) fn grows(&self) -> bool {
        self.current.as_ref().is_some_and(|current| !current.stale)
    }

    pub(super) fn add(&mut self, part: Part) -> Result<Added, SessionError> {
        if self.completed == Some(part.hash) {
            return Ok(Added::Known);
        }
        let count = part.count as usize;
        let replaces = match &self.current {
            Some(current) if current.hash == part.hash => false,
            Some(current) if !current.stale => return Ok(Added::Crowded),
            _ => true,
        };
        if replaces {
            let parts = vec![None; count];
            self.current = Some(Parts {
                hash: part.hash,
                parts,
                missing: count,
                stale: false,
            });
        }
        let current = self
            .current
            .as_mut()
            .expect("it was there or was made above");
        if current.parts.len() != count {
            return Err(SessionError::WrongParts);
        }
        current.stale = false;
        let place = &mut current.parts[part.part as usize];
        if place.is_some() {
            return Ok(Added::Known);
        }
        *place = Some(part.bytes);
        current.missing -= 1;
        if current.missing > 0 {
            return Ok(Added::Kept);
        }
        let whole = self.current.take().expect("it was there above");
        let bytes: Vec<u8> = whole.parts.into_iter().flatten().flatten().collect();
        if *blake3::hash(&bytes).as_bytes() != whole.hash {
            return Err(SessionError::WrongParts);
        }
        self.completed = Some(whole.hash);
        Ok(Added::Complete(bytes))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let parts = self
            .current
            .iter()
            .flat_map(|current| current.parts.iter().flatten());
        parts.map(Vec::len).sum()
    }
}
