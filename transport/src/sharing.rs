//! How members tell each other about members: one list on one stream.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::address::is_loopback;
use crate::driver::ListOutcome;
use crate::exchange::{LIST_BYTES_MAX, LIST_PEERS_MAX, ListError, Listed, decode, encode};
use crate::frame::{FrameError, read_frame, write_frame};
use crate::stream::Stream;
use crate::streams::OpenFailure;

/// How long one list may take.
const LIST_DEADLINE: Duration = Duration::from_secs(5);

/// Returns the list for one member: all others with what may be of use to it.
pub(crate) fn list_for(
    reader: PeerId,
    same_machine: bool,
    members: &[(PeerId, Vec<Multiaddr>)],
) -> Vec<u8> {
    let mut list = Vec::new();
    for (peer, addresses) in members.iter().filter(|(peer, _)| *peer != reader) {
        let wanted = |address: &&Multiaddr| same_machine || !is_loopback(address);
        let addresses: Vec<_> = addresses.iter().filter(wanted).cloned().collect();
        if !addresses.is_empty() && list.len() < LIST_PEERS_MAX {
            list.push(Listed {
                peer: *peer,
                addresses,
            });
        }
    }
    list.sort_by_key(|listed| listed.peer);
    encode(&list)
}

/// Sends a list on a stream that is being opened. A list that is lost is followed by another as
/// soon as there is news, and by all of it on the next connection.
pub(crate) async fn send(
    opened: oneshot::Receiver<Result<libp2p::Stream, OpenFailure>>,
    list: Vec<u8>,
) {
    let sending = async {
        let stream = opened.await.ok()?.ok()?;
        let mut stream = Stream::new(stream);
        write_frame(&mut stream, &list).await.ok()?;
        stream.shutdown().await.ok()
    };
    let _ = timeout(LIST_DEADLINE, sending).await;
}

/// Reads a list and hands it over: `None` if the stream broke, which breaks no rule.
pub(crate) async fn receive(
    peer: PeerId,
    stream: libp2p::Stream,
    lists: mpsc::Sender<ListOutcome>,
) {
    let mut stream = Stream::new(stream);
    let frame = timeout(LIST_DEADLINE, read_frame(&mut stream, LIST_BYTES_MAX)).await;
    let outcome = match frame {
        Ok(Ok(Some(bytes))) => Some(decode(&bytes)),
        Ok(Err(FrameError::TooLarge { .. })) => Some(Err(ListError::TooLong)),
        _ => None,
    };
    // An error means that the network was shut down.
    let _ = lists.send((peer, outcome)).await;
}
