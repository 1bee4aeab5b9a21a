//! Streams carry bytes both ways, and frames keep their limits.

use syncline_transport::{
    Event, FRAME_BYTES_MAX, FrameError, OpenStreamError, PeerId, Stream, StreamProtocol,
    read_frame, write_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};

use crate::harness::{ECHO, Node, QUIC, TCP, guarded, nodes, pair};

async fn accepted(node: &mut Node) -> (PeerId, StreamProtocol, Stream) {
    node.until(|event| match event {
        Event::Stream {
            peer,
            protocol,
            stream,
        } => Some((peer, protocol, stream)),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_stream_echoes_several_mebibytes() {
    for listen in [TCP, QUIC] {
        let [a, mut b] = pair(listen).await;
        let echo = async {
            let (peer, protocol, stream) = accepted(&mut b).await;
            let (mut read, mut write) = split(stream);
            copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
            (peer, protocol)
        };
        let speak = async {
            let stream = a.network.open_stream(b_peer(&a).await, ECHO).await.unwrap();
            let (mut read, mut write) = split(stream);
            let send = async {
                for fill in 0..4 {
                    write_frame(&mut write, &vec![fill; FRAME_BYTES_MAX])
                        .await
                        .unwrap();
                }
                write.shutdown().await.unwrap();
            };
            let receive = async {
                for fill in 0..4 {
                    let frame = read_frame(&mut read, FRAME_BYTES_MAX)
                        .await
                        .unwrap()
                        .unwrap();
                    assert!(frame.len() == FRAME_BYTES_MAX && frame.iter().all(|&b| b == fill));
                }
                assert_eq!(read_frame(&mut read, FRAME_BYTES_MAX).await.unwrap(), None);
            };
            tokio::join!(send, receive);
        };
        let ((peer, protocol), ()) = guarded(async { tokio::join!(echo, speak) }).await;
        assert_eq!((peer, protocol), (a.peer(), ECHO));
    }
}

async fn b_peer(a: &Node) -> PeerId {
    a.network.peers().await.unwrap()[0]
}

#[tokio::test]
async fn many_streams_at_once_all_arrive() {
    let [a, mut b] = pair(TCP).await;
    let peer = b.peer();
    let open = (0..32u8).map(|number| {
        let network = a.network.clone();
        async move {
            let mut stream = network.open_stream(peer, ECHO).await.unwrap();
            stream.write_all(&[number]).await.unwrap();
            stream.shutdown().await.unwrap();
            stream
        }
    });
    let receive = async {
        let mut numbers = Vec::new();
        for _ in 0..32 {
            let (_, _, mut stream) = accepted(&mut b).await;
            numbers.push(stream.read_u8().await.unwrap());
        }
        numbers.sort();
        numbers
    };
    let (_streams, numbers) =
        guarded(async { tokio::join!(futures::future::join_all(open), receive) }).await;
    assert_eq!(numbers, (0..32).collect::<Vec<u8>>());
}

#[tokio::test]
async fn an_oversize_frame_is_an_error_before_its_body() {
    let [a, mut b] = pair(TCP).await;
    let mut stream = a.network.open_stream(b.peer(), ECHO).await.unwrap();
    let length = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
    stream.write_all(&length.to_be_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let (_, _, mut received) = accepted(&mut b).await;
    let error = guarded(read_frame(&mut received, FRAME_BYTES_MAX))
        .await
        .unwrap_err();
    assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_frame_that_ends_early_is_truncated() {
    for listen in [TCP, QUIC] {
        let [a, mut b] = pair(listen).await;
        let mut stream = a.network.open_stream(b.peer(), ECHO).await.unwrap();
        stream.write_all(&[0, 0, 0, 9, 1, 2, 3]).await.unwrap();
        stream.shutdown().await.unwrap();
        let (_, _, mut received) = accepted(&mut b).await;
        let error = guarded(read_frame(&mut received, FRAME_BYTES_MAX))
            .await
            .unwrap_err();
        assert!(matches!(error, FrameError::Truncated), "{error}");
    }
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_says_why() {
    let [a, b] = pair(TCP).await;
    let unknown = StreamProtocol::new("/test/unknown/1");
    let error = guarded(a.network.open_stream(b.peer(), unknown))
        .await
        .unwrap_err();
    assert!(
        matches!(error, OpenStreamError::Unsupported { .. }),
        "{error}"
    );

    let [stranger] = nodes(TCP).await;
    let error = guarded(a.network.open_stream(stranger.peer(), ECHO))
        .await
        .unwrap_err();
    assert!(
        matches!(error, OpenStreamError::NotConnected { .. }),
        "{error}"
    );

    a.network.shutdown().await;
    let error = guarded(a.network.open_stream(b.peer(), ECHO))
        .await
        .unwrap_err();
    assert!(matches!(error, OpenStreamError::Stopped), "{error}");
}
