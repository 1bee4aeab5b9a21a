//! Codes an object as a stream: one block in memory, one pass, a manifest at the end.

use std::io::{self, Read};

use blake3::{Hash, Hasher};

use crate::block::BlockEncoder;
use crate::code::{BLOCKS_COUNT_MAX, BlockIndex, CodeError, CodeParameters, Slot};
use crate::manifest::Manifest;

/// One slot's symbols of one block, on their way to a sink.
#[derive(Clone, Copy, Debug)]
pub struct EncodedRun<'run> {
    block: BlockIndex,
    slot: Slot,
    bytes: &'run [u8],
    hash: Hash,
}

/// Why an object could not be coded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The object could not be read.
    #[error("block {block} of the object could not be read")]
    Read {
        /// The block that was being read.
        block: BlockIndex,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The sink refused a run.
    #[error("the run of slot {slot} in block {block} could not be put away")]
    Sink {
        /// The block of the run.
        block: BlockIndex,
        /// The slot of the run.
        slot: Slot,
        /// What the sink said.
        #[source]
        source: io::Error,
    },
    /// The object goes past the most blocks there may be.
    #[error("the object does not fit its code; choose the parameters for its real length")]
    TooLarge(#[source] CodeError),
}

impl<'run> EncodedRun<'run> {
    /// Returns the block of the run.
    pub const fn block(&self) -> BlockIndex {
        self.block
    }

    /// Returns the slot of the run.
    pub const fn slot(&self) -> Slot {
        self.slot
    }

    /// Returns the symbols: [`CodeParameters::run_bytes`] bytes.
    pub const fn bytes(&self) -> &'run [u8] {
        self.bytes
    }

    /// Returns the blake3 hash of the bytes.
    pub const fn hash(&self) -> &Hash {
        &self.hash
    }
}

/// Reads an object to its end, gives every run to `sink`, and returns the manifest.
///
/// Runs come block by block and slot by slot within a block. Memory stays at about five
/// blocks and one run, however long the object; the manifest grows by 32 bytes a run. The
/// same object and parameters give the same runs and manifest on every machine, so a sink
/// may keep any part of the slots and a later pass make the others.
///
/// # Errors
///
/// Passes on what the reader or the sink says; refuses an object above the code's limit.
pub fn encode_object(
    code: CodeParameters,
    mut object: impl Read,
    mut sink: impl FnMut(EncodedRun<'_>) -> io::Result<()>,
) -> Result<Manifest, EncodeError> {
    let mut hashes = Vec::new();
    let mut object_hasher = Hasher::new();
    let mut object_bytes = 0;
    let mut block = vec![0; code.block_bytes()];
    for index in 0.. {
        let index = BlockIndex(index);
        let filled = fill(&mut object, &mut block).map_err(|source| EncodeError::Read {
            block: index,
            source,
        })?;
        if filled == 0 {
            break;
        }
        object_bytes += filled as u64;
        if index.0 == BLOCKS_COUNT_MAX {
            return Err(EncodeError::TooLarge(CodeError::ObjectTooLarge {
                object_bytes,
            }));
        }
        object_hasher.update(&block[..filled]);
        block[filled..].fill(0);
        encode_one(code, index, &block, &mut hashes, &mut sink)?;
        if filled < block.len() {
            break;
        }
    }
    Manifest::new(code, object_bytes, object_hasher.finalize(), hashes)
        .map_err(EncodeError::TooLarge)
}

fn encode_one(
    code: CodeParameters,
    index: BlockIndex,
    block: &[u8],
    hashes: &mut Vec<Hash>,
    sink: &mut impl FnMut(EncodedRun<'_>) -> io::Result<()>,
) -> Result<(), EncodeError> {
    hashes.push(blake3::hash(block));
    let mut encoder = BlockEncoder::new(code, block).expect("the buffer is one block long");
    for slot in code.slots() {
        let bytes = encoder.run(slot).expect("the slot is the code's own");
        let hash = blake3::hash(&bytes);
        hashes.push(hash);
        sink(EncodedRun {
            block: index,
            slot,
            bytes: &bytes,
            hash,
        })
        .map_err(|source| EncodeError::Sink {
            block: index,
            slot,
            source,
        })?;
    }
    Ok(())
}

/// Reads until the buffer is full or the object ends, and returns the bytes read.
fn fill(object: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match object.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
