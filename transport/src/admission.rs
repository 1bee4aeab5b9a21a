//! How two peers prove to each other that they know the admission key.
//!
//! ```text
//! dialer                                   listener
//!   │ ── nonce of the dialer ────────────────▶ │
//!   │ ◀── nonce and proof of the listener ──── │
//!   │ ── proof of the dialer ────────────────▶ │
//!   │ ◀── verdict ─────────────────────────────│
//! ```
//!
//! A proof is a keyed hash over the role of its author, both identities and both nonces. The key
//! is never sent; a proof shown to one peer is worth nothing to another, nor is it when sent back.

use libp2p::PeerId;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::event::Refusal;
use crate::frame::{FrameError, read_frame, write_frame};

/// Bytes of a nonce: two of them make every proof unique.
pub(crate) const NONCE_BYTES: usize = 32;
const PROOF_BYTES: usize = blake3::OUT_LEN;
const VERDICT_BYTES: usize = 1;
const TURNED_AWAY: u8 = 0;
const WELCOME: u8 = 1;
const DOMAIN: &[u8] = b"syncline/v1/admit\0";

/// A number that is used once.
pub(crate) type Nonce = [u8; NONCE_BYTES];

/// A secret that all members share.
#[derive(Clone)]
pub(crate) struct AdmissionKey(pub(crate) [u8; 32]);

/// The two ends of a connection, whose identities the connection itself has proved.
#[derive(Clone, Copy)]
pub(crate) struct Parties {
    pub(crate) dialer: PeerId,
    pub(crate) listener: PeerId,
}

/// Why an admission came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmissionError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The peer went away; half of all simultaneous dials end like this, so it is no offence.
    #[error("the connection closed before admission was complete")]
    Interrupted,
    /// The peer ended the stream before it had agreed to speak the protocol: it went away, or it
    /// does not know it.
    #[error("the peer did not agree to the admission protocol")]
    Declined,
}

#[derive(Clone, Copy)]
enum Role {
    Dialer = 1,
    Listener = 2,
}

/// Speaks the dialer's part, and returns once the listener has welcomed us.
pub(crate) async fn dialer_part<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &AdmissionKey,
    parties: Parties,
    ours: Nonce,
) -> Result<(), AdmissionError> {
    send(stream, &ours).await?;
    let reply: [u8; NONCE_BYTES + PROOF_BYTES] = receive(stream).await?;
    let (theirs, proof) = reply.split_at(NONCE_BYTES);
    let theirs: Nonce = theirs.try_into().expect("the split is at a nonce's length");
    let proved = matches(
        &proof_of(key, Role::Listener, parties, &ours, &theirs),
        proof,
    );
    // Sent even to a peer that proved nothing, so that both ends can name what is wrong.
    send(
        stream,
        proof_of(key, Role::Dialer, parties, &ours, &theirs).as_bytes(),
    )
    .await?;
    stream
        .shutdown()
        .await
        .map_err(|_| AdmissionError::Interrupted)?;
    let verdict = receive::<_, VERDICT_BYTES>(stream).await;
    if !proved {
        return Err(Refusal::WrongKey.into());
    }
    match verdict? {
        [WELCOME] => Ok(()),
        [TURNED_AWAY] => Err(Refusal::TurnedAway.into()),
        _ => Err(Refusal::Malformed.into()),
    }
}

/// Speaks the listener's part, and returns once the dialer is welcome.
pub(crate) async fn listener_part<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &AdmissionKey,
    parties: Parties,
    ours: Nonce,
) -> Result<(), AdmissionError> {
    let theirs: Nonce = receive(stream).await?;
    let mut reply = Vec::with_capacity(NONCE_BYTES + PROOF_BYTES);
    reply.extend_from_slice(&ours);
    reply.extend_from_slice(proof_of(key, Role::Listener, parties, &theirs, &ours).as_bytes());
    send(stream, &reply).await?;
    let proof: [u8; PROOF_BYTES] = receive(stream).await?;
    let proved = matches(
        &proof_of(key, Role::Dialer, parties, &theirs, &ours),
        &proof,
    );
    send(stream, &[if proved { WELCOME } else { TURNED_AWAY }]).await?;
    stream
        .shutdown()
        .await
        .map_err(|_| AdmissionError::Interrupted)?;
    if proved {
        Ok(())
    } else {
        Err(Refusal::WrongKey.into())
    }
}

fn proof_of(
    key: &AdmissionKey,
    role: Role,
    parties: Parties,
    nonce_of_dialer: &Nonce,
    nonce_of_listener: &Nonce,
) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(DOMAIN).update(&[role as u8]);
    for peer in [parties.dialer, parties.listener] {
        let bytes = peer.to_bytes();
        let length = u8::try_from(bytes.len()).expect("a peer id has at most 66 bytes");
        hasher.update(&[length]).update(&bytes);
    }
    hasher
        .update(nonce_of_dialer)
        .update(nonce_of_listener)
        .finalize()
}

/// Compares in constant time, which `blake3::Hash` promises of its `==`.
fn matches(expected: &blake3::Hash, received: &[u8]) -> bool {
    blake3::Hash::from_slice(received).is_ok_and(|received| received == *expected)
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), AdmissionError> {
    write_frame(stream, bytes)
        .await
        .map_err(|_| AdmissionError::Interrupted)
}

async fn receive<S: AsyncRead + Unpin, const LENGTH: usize>(
    stream: &mut S,
) -> Result<[u8; LENGTH], AdmissionError> {
    match read_frame(stream, LENGTH).await {
        Ok(Some(bytes)) => bytes.try_into().map_err(|_| Refusal::Malformed.into()),
        Err(FrameError::TooLarge { .. } | FrameError::Truncated) => Err(Refusal::Malformed.into()),
        Ok(None) | Err(FrameError::Io(_)) => Err(AdmissionError::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const KEY: AdmissionKey = AdmissionKey([1; 32]);
    const OTHER_KEY: AdmissionKey = AdmissionKey([2; 32]);

    fn parties() -> Parties {
        Parties {
            dialer: PeerId::random(),
            listener: PeerId::random(),
        }
    }

    async fn meet(
        [dialer_key, listener_key]: [&AdmissionKey; 2],
        [dialer_view, listener_view]: [Parties; 2],
    ) -> [Result<(), AdmissionError>; 2] {
        let (mut near, mut far): (DuplexStream, DuplexStream) = duplex(1024);
        let (dialer, listener) = tokio::join!(
            dialer_part(&mut near, dialer_key, dialer_view, [3; NONCE_BYTES]),
            listener_part(&mut far, listener_key, listener_view, [4; NONCE_BYTES]),
        );
        [dialer, listener]
    }

    fn refused_for(result: &Result<(), AdmissionError>, refusal: Refusal) -> bool {
        matches!(result, Err(AdmissionError::Refused(reason)) if *reason == refusal)
    }

    #[tokio::test]
    async fn two_members_admit_each_other() {
        let views = [parties(); 2];
        assert!(matches!(meet([&KEY, &KEY], views).await, [Ok(()), Ok(())]));
    }

    #[tokio::test]
    async fn both_ends_name_a_wrong_key() {
        let views = [parties(); 2];
        for result in meet([&KEY, &OTHER_KEY], views).await {
            assert!(refused_for(&result, Refusal::WrongKey), "{result:?}");
        }
    }

    #[tokio::test]
    async fn a_proof_made_for_one_pair_is_worth_nothing_to_another() {
        let honest = parties();
        for (dialer, listener) in [
            (honest.dialer, PeerId::random()),
            (PeerId::random(), honest.listener),
        ] {
            for result in meet([&KEY, &KEY], [honest, Parties { dialer, listener }]).await {
                assert!(refused_for(&result, Refusal::WrongKey), "{result:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_proof_sent_back_to_its_author_is_refused() {
        let parties = parties();
        let (mut near, mut far) = duplex(1024);
        let reflection = async {
            // The same nonces on both sides, so that only the role tells the proofs apart.
            send(&mut near, &[4; NONCE_BYTES]).await.unwrap();
            let reply: [u8; NONCE_BYTES + PROOF_BYTES] = receive(&mut near).await.unwrap();
            send(&mut near, &reply[NONCE_BYTES..]).await.unwrap();
            receive::<_, VERDICT_BYTES>(&mut near).await.unwrap()
        };
        let (verdict, result) = tokio::join!(
            reflection,
            listener_part(&mut far, &KEY, parties, [4; NONCE_BYTES])
        );
        assert_eq!(verdict, [TURNED_AWAY]);
        assert!(refused_for(&result, Refusal::WrongKey), "{result:?}");
    }

    #[tokio::test]
    async fn frames_of_a_wrong_length_are_malformed() {
        for length in [0, NONCE_BYTES - 1, NONCE_BYTES + 1] {
            let (mut near, mut far) = duplex(1024);
            write_frame(&mut near, &vec![0; length]).await.unwrap();
            let result = listener_part(&mut far, &KEY, parties(), [4; NONCE_BYTES]).await;
            assert!(
                refused_for(&result, Refusal::Malformed),
                "{length}: {result:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_peer_that_leaves_is_not_to_blame() {
        let (near, mut far) = duplex(1024);
        drop(near);
        let result = listener_part(&mut far, &KEY, parties(), [4; NONCE_BYTES]).await;
        assert!(
            matches!(result, Err(AdmissionError::Interrupted)),
            "{result:?}"
        );
    }
}
