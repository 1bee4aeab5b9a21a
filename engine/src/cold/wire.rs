//! The messages of `/syncline/cold/1`, one per frame. All numbers are little-endian.
//!
//! | request | bytes after the tag | the answer |
//! | --- | --- | --- |
//! | 1 list | none | 1 listing |
//! | 2 manifest | snapshot (32) | 2 blob, the code's manifest |
//! | 3 run | snapshot (32), slot (1), block (4) | 2 blob, the run |
//! | 4 offer | slot (1), bytes of the signed manifest (4); the manifest as parts | 3 or 4 |
//! | 5 retire | the signed order | 6 retired |
//!
//! | answer | bytes after the tag | what follows |
//! | --- | --- | --- |
//! | 1 listing | count (2); each: snapshot (32), slots (8, one bit each), signed header (188) | |
//! | 2 blob | bytes (4) | the blob as parts |
//! | 3 accepted | none | from the asker, all runs of the slot as parts, then 5 stored |
//! | 4 held | none | |
//! | 5 stored | none | |
//! | 6 retired | none | |
//! | 7 refused | reason (1) | the end of the stream |
//!
//! Parts are frames of nothing but bytes: all are [`PART_BYTES_MAX`] long, and the last of a
//! blob is what is left.

use thiserror::Error;

use syncline_parity::{BlockIndex, Slot, SnapshotId};
use syncline_transport::FRAME_BYTES_MAX;

use super::content::Fields;
use super::manifest::SIGNED_HEADER_BYTES;
use super::retire::RETIRED_MAX;

/// The most bytes of a part. Small, so that a slow link moves one within the idle limit.
pub(super) const PART_BYTES_MAX: usize = 64 << 10;
/// The most bytes of a request.
pub(super) const REQUEST_BYTES_MAX: usize = 64 << 10;
/// The most bytes of an answer.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The most snapshots one listing names; of more, the newest are listed.
pub const SNAPSHOTS_LISTED_MAX: usize = 1_024;

const LISTED_BYTES: usize = 32 + 8 + SIGNED_HEADER_BYTES;

const _: () = assert!(REQUEST_BYTES_MAX <= FRAME_BYTES_MAX && ANSWER_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(1 + 2 + SNAPSHOTS_LISTED_MAX * LISTED_BYTES <= ANSWER_BYTES_MAX);
const _: () = assert!(1 + 32 + 2 + RETIRED_MAX * 32 + 64 <= REQUEST_BYTES_MAX);

/// What one peer asks of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    List,
    Manifest(SnapshotId),
    Run(SnapshotId, Slot, BlockIndex),
    Offer { slot: Slot, manifest_bytes: u32 },
    Retire(Vec<u8>),
}

/// What the other says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Listing(Vec<Listed>),
    Blob { bytes: u32 },
    Accepted,
    Held,
    Stored,
    Retired,
    Refused(Refusal),
}

/// A snapshot and which of its slots are there. Nothing about it is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) snapshot: SnapshotId,
    /// Bit `j` is slot `j`.
    pub(super) slots: u64,
    pub(super) signed: [u8; SIGNED_HEADER_BYTES],
}

/// Why a peer does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It has nothing of that snapshot.
    #[error("it has nothing of that snapshot; ask another peer")]
    UnknownSnapshot,
    /// The snapshot has no such slot or block.
    #[error("the snapshot has no such slot or block; ask within its manifest")]
    NoSuchRun,
    /// It does not hold the slot.
    #[error("it does not hold that slot; ask another peer")]
    NotHeld,
    /// Its copy is damaged.
    #[error("its copy is damaged; ask another peer")]
    Damaged,
    /// The slice does not fit its quota.
    #[error("its quota has no room for the slice; raise it there, or spread to other peers")]
    QuotaExceeded,
    /// It did not accept the manifest or its signature.
    #[error("it does not accept the manifest; check that both run the same version")]
    BadManifest,
    /// It holds the snapshot under another header.
    #[error("it holds the snapshot under another author's header; make a new snapshot")]
    OtherHeader,
    /// A run was not what the manifest says.
    #[error("a run was not what the manifest says; make a new snapshot")]
    NotTheRun,
    /// Its disk failed, or the snapshot was removed meanwhile.
    #[error("it could not store or read the slice; look at its log")]
    StoreFailed,
    /// It did not accept an order to remove snapshots.
    #[error("it does not accept the order to remove snapshots")]
    BadRetirement,
}

/// Why a frame is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// An empty frame.
    #[error("an empty frame is no message")]
    Empty,
    /// A tag without a meaning.
    #[error("no message has the tag {tag}; a newer build may know it")]
    UnknownTag {
        /// The tag.
        tag: u8,
    },
    /// Fewer or more bytes than the message has.
    #[error("a message with tag {tag} does not have {bytes} bytes")]
    Length {
        /// The tag.
        tag: u8,
        /// Bytes of the frame.
        bytes: usize,
    },
    /// A refusal without a known reason.
    #[error("no refusal has the reason {reason}; a newer build may know it")]
    UnknownReason {
        /// The reason.
        reason: u8,
    },
    /// A listing of more than [`SNAPSHOTS_LISTED_MAX`] snapshots.
    #[error("a listing of {count} snapshots; at most {SNAPSHOTS_LISTED_MAX} are allowed")]
    TooManyListed {
        /// How many.
        count: usize,
    },
}

/// Refusals by their code, counted from 1.
const REFUSALS: [Refusal; 10] = [
    Refusal::UnknownSnapshot,
    Refusal::NoSuchRun,
    Refusal::NotHeld,
    Refusal::Damaged,
    Refusal::QuotaExceeded,
    Refusal::BadManifest,
    Refusal::OtherHeader,
    Refusal::NotTheRun,
    Refusal::StoreFailed,
    Refusal::BadRetirement,
];

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Request::List => vec![1],
            Request::Manifest(snapshot) => [&[2][..], &snapshot.0].concat(),
            Request::Run(snapshot, slot, block) => {
                [&[3][..], &snapshot.0, &[slot.0], &block.0.to_le_bytes()].concat()
            }
            Request::Offer {
                slot,
                manifest_bytes,
            } => [&[4, slot.0][..], &manifest_bytes.to_le_bytes()].concat(),
            Request::Retire(order) => [&[5][..], order].concat(),
        }
    }

    pub(super) fn decode(frame: &[u8]) -> Result<Request, MessageError> {
        let (tag, mut rest, wrong) = open(frame)?;
        let request = match tag {
            1 => Request::List,
            2 => Request::Manifest(SnapshotId(*rest.take().ok_or(wrong)?)),
            3 => {
                let snapshot = SnapshotId(*rest.take().ok_or(wrong)?);
                let [slot] = *rest.take().ok_or(wrong)?;
                let block = u32::from_le_bytes(*rest.take().ok_or(wrong)?);
                Request::Run(snapshot, Slot(slot), BlockIndex(block))
            }
            4 => {
                let [slot] = *rest.take().ok_or(wrong)?;
                let manifest_bytes = u32::from_le_bytes(*rest.take().ok_or(wrong)?);
                Request::Offer {
                    slot: Slot(slot),
                    manifest_bytes,
                }
            }
            5 => Request::Retire(std::mem::take(&mut rest.0).to_vec()),
            tag => return Err(MessageError::UnknownTag { tag }),
        };
        rest.0.is_empty().then_some(request).ok_or(wrong)
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Answer::Listing(listed) => encode_listing(listed),
            Answer::Blob { bytes } => [&[2][..], &bytes.to_le_bytes()].concat(),
            Answer::Accepted => vec![3],
            Answer::Held => vec![4],
            Answer::Stored => vec![5],
            Answer::Retired => vec![6],
            Answer::Refused(refusal) => {
                let place = REFUSALS.iter().position(|known| known == refusal);
                let place = place.expect("every refusal has a code");
                vec![7, u8::try_from(place + 1).expect("there are few refusals")]
            }
        }
    }

    pub(super) fn decode(frame: &[u8]) -> Result<Answer, MessageError> {
        let (tag, mut rest, wrong) = open(frame)?;
        let answer = match tag {
            1 => Answer::Listing(decode_listing(&mut rest, wrong)?),
            2 => Answer::Blob {
                bytes: u32::from_le_bytes(*rest.take().ok_or(wrong)?),
            },
            3 => Answer::Accepted,
            4 => Answer::Held,
            5 => Answer::Stored,
            6 => Answer::Retired,
            7 => {
                let [reason] = *rest.take().ok_or(wrong)?;
                let known = REFUSALS.get(usize::from(reason).wrapping_sub(1));
                Answer::Refused(*known.ok_or(MessageError::UnknownReason { reason })?)
            }
            tag => return Err(MessageError::UnknownTag { tag }),
        };
        rest.0.is_empty().then_some(answer).ok_or(wrong)
    }
}

fn open(frame: &[u8]) -> Result<(u8, Fields<'_>, MessageError), MessageError> {
    let (&tag, rest) = frame.split_first().ok_or(MessageError::Empty)?;
    let bytes = frame.len();
    Ok((tag, Fields(rest), MessageError::Length { tag, bytes }))
}

fn encode_listing(listed: &[Listed]) -> Vec<u8> {
    assert!(
        listed.len() <= SNAPSHOTS_LISTED_MAX,
        "{} snapshots",
        listed.len()
    );
    let count = u16::try_from(listed.len()).expect("at most SNAPSHOTS_LISTED_MAX");
    let mut frame = vec![1];
    frame.extend_from_slice(&count.to_le_bytes());
    for entry in listed {
        frame.extend_from_slice(&entry.snapshot.0);
        frame.extend_from_slice(&entry.slots.to_le_bytes());
        frame.extend_from_slice(&entry.signed);
    }
    frame
}

fn decode_listing(rest: &mut Fields<'_>, wrong: MessageError) -> Result<Vec<Listed>, MessageError> {
    let count = usize::from(u16::from_le_bytes(*rest.take().ok_or(wrong)?));
    if count > SNAPSHOTS_LISTED_MAX {
        return Err(MessageError::TooManyListed { count });
    }
    let entry = |_| {
        Ok(Listed {
            snapshot: SnapshotId(*rest.take().ok_or(wrong)?),
            slots: u64::from_le_bytes(*rest.take().ok_or(wrong)?),
            signed: *rest.take().ok_or(wrong)?,
        })
    };
    (0..count).map(entry).collect()
}
