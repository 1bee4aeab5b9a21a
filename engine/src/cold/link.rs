//! Frames and parts over a stream, none of which may take longer than a limit.

use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use syncline_transport::{FrameError, read_frame, write_frame};

use super::wire::PART_BYTES_MAX;

/// A stream to one peer.
pub(super) trait Link: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Link for S {}

/// Why a stream is of no more use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// A frame is too long, cut, or the stream broke.
    #[error("the stream is of no more use")]
    Frame(#[from] FrameError),
    /// Nothing came, or nothing could be sent, for too long.
    #[error("the stream was idle for {} ms", limit.as_millis())]
    Idle {
        /// How long was waited.
        limit: Duration,
    },
    /// The stream ended where a message or a part had to follow.
    #[error("the stream ended in the middle of an exchange")]
    Ended,
    /// A part of a blob has another length than it must have.
    #[error("a part of {found} bytes where {expected} had to follow")]
    PartLength {
        /// Bytes that had to follow.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
}

/// Sends one message.
pub(super) async fn send(
    link: &mut impl Link,
    frame: &[u8],
    limit: Duration,
) -> Result<(), LinkError> {
    match timeout(limit, write_frame(link, frame)).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(LinkError::Idle { limit }),
    }
}

/// Receives one message of at most `bytes_max` bytes, or `None` where the stream ends.
pub(super) async fn receive(
    link: &mut impl Link,
    bytes_max: usize,
    limit: Duration,
) -> Result<Option<Vec<u8>>, LinkError> {
    match timeout(limit, read_frame(link, bytes_max)).await {
        Ok(frame) => Ok(frame?),
        Err(_) => Err(LinkError::Idle { limit }),
    }
}

/// Sends a blob whose length the other side knows.
pub(super) async fn send_parts(
    link: &mut impl Link,
    blob: &[u8],
    limit: Duration,
) -> Result<(), LinkError> {
    for part in blob.chunks(PART_BYTES_MAX) {
        send(link, part, limit).await?;
    }
    Ok(())
}

/// Receives a blob of exactly `total` bytes, which the caller has checked against its limit.
///
/// Memory grows with what comes, so that an announced length costs nothing.
pub(super) async fn receive_parts(
    link: &mut impl Link,
    total: usize,
    limit: Duration,
) -> Result<Vec<u8>, LinkError> {
    let mut blob = Vec::new();
    while blob.len() < total {
        let expected = (total - blob.len()).min(PART_BYTES_MAX);
        let part = receive(link, PART_BYTES_MAX, limit).await?;
        let part = part.ok_or(LinkError::Ended)?;
        if part.len() != expected {
            let found = part.len();
            return Err(LinkError::PartLength { expected, found });
        }
        blob.extend_from_slice(&part);
    }
    Ok(blob)
}
