//! Length-delimited frames over a byte stream.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The most bytes one frame may carry, without its header. A peer that announces more is cut off.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// A frame opens with its length: an unsigned 32-bit number, big-endian.
const HEADER_BYTES: usize = 4;

/// The head of a frame is sent with its header in one write, so that a small frame is one packet.
const HEAD_BYTES_MAX: usize = 16 << 10;

const _: () = assert!(FRAME_BYTES_MAX <= u32::MAX as usize);

/// Why a frame was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame, or the length it announces, is above the limit. Nothing was allocated or sent.
    #[error("frame of {frame_bytes} bytes, at most {frame_bytes_max} are allowed")]
    TooLarge {
        /// The length asked for or announced.
        frame_bytes: usize,
        /// The limit in force.
        frame_bytes_max: usize,
    },
    /// The stream ended inside a frame.
    #[error("stream ended inside a frame")]
    Truncated,
    /// The stream itself broke.
    #[error("stream broke")]
    Io(#[source] io::Error),
}

/// Writes `bytes` as one frame and flushes it.
///
/// # Errors
///
/// `TooLarge` above [`FRAME_BYTES_MAX`], before anything is sent; `Io` when the stream breaks.
pub async fn write_frame<S>(stream: &mut S, bytes: &[u8]) -> Result<(), FrameError>
where
    S: AsyncWrite + Unpin,
{
    check_length(bytes.len(), FRAME_BYTES_MAX)?;
    let length = u32::try_from(bytes.len()).expect("the limit fits in 32 bits");
    let (head, tail) = bytes.split_at(bytes.len().min(HEAD_BYTES_MAX));
    let mut first = Vec::with_capacity(HEADER_BYTES + head.len());
    first.extend_from_slice(&length.to_be_bytes());
    first.extend_from_slice(head);
    stream.write_all(&first).await.map_err(FrameError::Io)?;
    stream.write_all(tail).await.map_err(FrameError::Io)?;
    stream.flush().await.map_err(FrameError::Io)
}

/// Reads one frame of at most `frame_bytes_max` bytes, or `None` where the stream ends cleanly.
///
/// Not cancel-safe: a read that is dropped half-way leaves the stream inside a frame.
///
/// # Errors
///
/// `TooLarge` for an announced length above the limit, before memory is taken for it;
/// `Truncated` when the stream ends inside a frame; `Io` when it breaks.
///
/// # Panics
///
/// When `frame_bytes_max` is above [`FRAME_BYTES_MAX`].
pub async fn read_frame<S>(
    stream: &mut S,
    frame_bytes_max: usize,
) -> Result<Option<Vec<u8>>, FrameError>
where
    S: AsyncRead + Unpin,
{
    assert!(
        frame_bytes_max <= FRAME_BYTES_MAX,
        "a limit of {frame_bytes_max} bytes is above {FRAME_BYTES_MAX}"
    );
    let mut header = [0; HEADER_BYTES];
    if stream
        .read(&mut header[..1])
        .await
        .map_err(FrameError::Io)?
        == 0
    {
        return Ok(None);
    }
    read_exact(stream, &mut header[1..]).await?;
    let frame_bytes = u32::from_be_bytes(header) as usize;
    check_length(frame_bytes, frame_bytes_max)?;
    let mut bytes = vec![0; frame_bytes];
    read_exact(stream, &mut bytes).await?;
    Ok(Some(bytes))
}

fn check_length(frame_bytes: usize, frame_bytes_max: usize) -> Result<(), FrameError> {
    if frame_bytes > frame_bytes_max {
        return Err(FrameError::TooLarge {
            frame_bytes,
            frame_bytes_max,
        });
    }
    Ok(())
}

async fn read_exact<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut [u8],
) -> Result<(), FrameError> {
    match stream.read_exact(bytes).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(FrameError::Truncated),
        Err(error) => Err(FrameError::Io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn written(frames: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            write_frame(&mut bytes, frame).await.unwrap();
        }
        bytes
    }

    #[tokio::test]
    async fn frames_come_back_in_order_and_then_the_stream_ends() {
        let large = vec![7; HEAD_BYTES_MAX + 1];
        let bytes = written(&[b"one", b"", &large]).await;
        let mut stream = bytes.as_slice();
        for frame in [b"one".to_vec(), Vec::new(), large] {
            let read = read_frame(&mut stream, FRAME_BYTES_MAX).await.unwrap();
            assert_eq!(read, Some(frame));
        }
        assert_eq!(
            read_frame(&mut stream, FRAME_BYTES_MAX).await.unwrap(),
            None
        );
    }

    #[tokio::test]
    async fn a_header_is_four_bytes_big_endian() {
        assert_eq!(written(&[b"ab"]).await, [0, 0, 0, 2, b'a', b'b']);
    }

    #[tokio::test]
    async fn a_frame_above_the_limit_is_refused_on_its_header_alone() {
        // The body is absent: had it been waited for, the error would be `Truncated`.
        let mut stream = [0xff; HEADER_BYTES].as_slice();
        let error = read_frame(&mut stream, FRAME_BYTES_MAX).await.unwrap_err();
        assert!(matches!(
            error,
            FrameError::TooLarge {
                frame_bytes: 0xffff_ffff,
                ..
            }
        ));

        let exact = written(&[&[1; 8]]).await;
        assert!(
            read_frame(&mut exact.as_slice(), 8)
                .await
                .unwrap()
                .is_some()
        );
        let error = read_frame(&mut exact.as_slice(), 7).await.unwrap_err();
        assert!(matches!(
            error,
            FrameError::TooLarge {
                frame_bytes: 8,
                frame_bytes_max: 7
            }
        ));
    }

    #[tokio::test]
    async fn a_frame_above_the_limit_is_not_sent() {
        let mut bytes = Vec::new();
        let error = write_frame(&mut bytes, &vec![0; FRAME_BYTES_MAX + 1])
            .await
            .unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }));
        assert!(bytes.is_empty());
    }

    #[tokio::test]
    async fn a_frame_cut_anywhere_is_truncated() {
        let bytes = written(&[b"frame"]).await;
        for length in 1..bytes.len() {
            let error = read_frame(&mut &bytes[..length], 5).await.unwrap_err();
            assert!(
                matches!(error, FrameError::Truncated),
                "cut at {length}: {error}"
            );
        }
    }
}
