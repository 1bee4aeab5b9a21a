//! How far spreading or restoring a snapshot has come.

/// How far spreading or restoring a snapshot has come. Counts only grow while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The content was sealed and coded, and lies here as slices.
    Coded {
        /// Bytes of the sealed object.
        object_bytes: u64,
    },
    /// A slice reached its holder.
    Sent {
        /// Slices that are with their holders; the one that stays here is not counted.
        slices_done: usize,
        /// Slices to be sent.
        slices_total: usize,
    },
    /// A block of the object is here, checked. Starts again when another snapshot is tried.
    Fetched {
        /// Blocks that are here.
        blocks_done: u32,
        /// Blocks of the object.
        blocks_total: u32,
    },
}
