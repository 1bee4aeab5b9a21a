//! Which columns of a row were written: a bit for each lane, in words of 62.

use rusqlite::Row;

use crate::capture::{DELETED, WHOLE};

/// The lanes in one word: a word is an integer of SQLite's, and its negative values mean something
/// else.
const WORD_LANES: i64 = 62;

/// The lanes that were written. Most tables have one word, which costs no allocation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mask {
    first: i64,
    /// The further words, without zeros at the end.
    rest: Vec<i64>,
}

/// Returns the word that holds a lane, and the lane's bit in it.
pub(crate) fn place(lane: i64) -> (usize, i64) {
    let word = usize::try_from(lane / WORD_LANES).expect("the lanes of columns count from 0");
    (word, lane % WORD_LANES)
}

impl Mask {
    /// The mask of a row that was written as a whole.
    pub(crate) const WHOLE: Mask = Mask {
        first: WHOLE,
        rest: Vec::new(),
    };

    /// Reads a mask of `words_count` words from column `first` on.
    pub(crate) fn read(row: &Row<'_>, first: usize, words_count: usize) -> rusqlite::Result<Self> {
        // A note says something of one word only.
        let word: Option<i64> = row.get(first)?;
        let mut mask = Mask {
            first: word.unwrap_or(0),
            rest: Vec::new(),
        };
        for at in 1..words_count {
            let word: Option<i64> = row.get(first + at)?;
            if let Some(word @ 1..) = word {
                mask.rest.resize(at, 0);
                mask.rest[at - 1] = word;
            }
        }
        Ok(mask)
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.first == WHOLE
    }

    pub(crate) fn is_deletion(&self) -> bool {
        self.first == DELETED
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first == 0 && self.rest.is_empty()
    }

    /// Whether a lane was written.
    pub(crate) fn has(&self, lane: i64) -> bool {
        let (word, bit) = place(lane);
        let word = match word {
            0 => self.first,
            _ => self.rest.get(word - 1).copied().unwrap_or(0),
        };
        self.is_whole() || word & (1 << bit) != 0
    }

    /// Adds what another write of the row wrote.
    pub(crate) fn join(&mut self, other: &Mask) {
        self.first |= other.first;
        if self.is_whole() {
            self.rest.clear();
            return;
        }
        if self.rest.len() < other.rest.len() {
            self.rest.resize(other.rest.len(), 0);
        }
        for (word, other) in self.rest.iter_mut().zip(&other.rest) {
            *word |= other;
        }
    }
}
