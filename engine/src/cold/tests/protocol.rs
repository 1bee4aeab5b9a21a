//! Hostile bytes on the protocol: a named error, an unchanged store, and serving goes on.

use std::time::Duration;

use syncline_parity::{BlockIndex, ReadError, Slot, SnapshotId, WriteError};
use syncline_transport::{FrameError, PeerId};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::harness::{Device, LIMIT, World, content, secret};
use crate::cold::link::{LinkError, receive, send, send_parts};
use crate::cold::manifest::{SIGNED_MANIFEST_BYTES_MAX, SignedManifest};
use crate::cold::retire::Retirement;
use crate::cold::serve::ServeFailure;
use crate::cold::shelf::Cold;
use crate::cold::wire::{ANSWER_BYTES_MAX, Answer, Listed, MessageError, Refusal, Request};

/// Serves one stream on which `speak` is said, and returns how that ended and what was answered.
async fn served<F: Future<Output = DuplexStream>>(
    cold: &Cold,
    speak: impl FnOnce(DuplexStream) -> F,
) -> (Option<ServeFailure>, Vec<Answer>) {
    let (near, far) = duplex(1 << 20);
    let hear = async {
        let mut near = speak(near).await;
        near.shutdown().await.unwrap();
        let mut answers = Vec::new();
        while let Ok(Some(frame)) = receive(&mut near, ANSWER_BYTES_MAX, LIMIT).await {
            answers.extend(Answer::decode(&frame));
        }
        answers
    };
    let (ended, answers) = tokio::join!(cold.serve_link(PeerId::random(), far), hear);
    (ended.err().map(|error| error.reason), answers)
}

/// As [`served`], with bytes that are sent as they are.
async fn served_raw(cold: &Cold, bytes: &[u8]) -> (Option<ServeFailure>, Vec<Answer>) {
    let speak = async |mut link: DuplexStream| {
        link.write_all(bytes).await.unwrap();
        link
    };
    served(cold, speak).await
}

async fn served_request(cold: &Cold, request: Request) -> (Option<ServeFailure>, Vec<Answer>) {
    let speak = async |mut link: DuplexStream| {
        send(&mut link, &request.encode(), LIMIT).await.unwrap();
        link
    };
    served(cold, speak).await
}

/// Offers a slice: the manifest, and then a run for each block.
async fn offered(
    cold: &Cold,
    manifest: &[u8],
    slot: u8,
    runs: &[Vec<u8>],
) -> (Option<ServeFailure>, Vec<Answer>) {
    let slot = Slot(slot);
    let manifest_bytes = u32::try_from(manifest.len()).unwrap();
    let offer = Request::Offer {
        slot,
        manifest_bytes,
    }
    .encode();
    let speak = async |mut link: DuplexStream| {
        send(&mut link, &offer, LIMIT).await.unwrap();
        send_parts(&mut link, manifest, LIMIT).await.unwrap();
        for run in runs {
            send_parts(&mut link, run, LIMIT).await.unwrap();
        }
        link
    };
    served(cold, speak).await
}

/// Returns a signed manifest with the runs of its slot 1.
async fn snapshot() -> (SignedManifest, Vec<Vec<u8>>) {
    let world = World::new(1);
    let cold = &world.devices[0].cold;
    let ghosts = [PeerId::random(), PeerId::random()];
    let view = world.view(0);
    let spread = cold.spread_over(&view, &ghosts, content(100_000), 1, &|_| ());
    let snapshot = spread.await.unwrap().snapshot;
    let store = &cold.shared.store;
    let (code, signed) = (
        store.manifest(snapshot).unwrap(),
        store.attachment(snapshot).unwrap(),
    );
    let encoded = [&signed[..], &code.encode()].concat();
    let manifest = SignedManifest::decode(&encoded, &secret(1, 2).id()).unwrap();
    let run = |block| store.read_run(snapshot, Slot(1), block).unwrap();
    (manifest, code.blocks().map(run).collect())
}

fn device() -> Device {
    Device::new(77, &secret(1, 2))
}

async fn still_serves(device: &Device) {
    let (ended, answers) = served_request(&device.cold, Request::List).await;
    assert!(ended.is_none(), "{ended:?}");
    assert_eq!(answers, [Answer::Listing(device.cold.listing())]);
}

#[test]
fn messages_come_back_from_their_encoding() {
    let snapshot = SnapshotId([3; 32]);
    let requests = [
        Request::List,
        Request::Manifest(snapshot),
        Request::Run(snapshot, Slot(4), BlockIndex(5)),
        Request::Offer {
            slot: Slot(6),
            manifest_bytes: 7,
        },
        Request::Retire(vec![8; 9]),
    ];
    for request in requests {
        let frame = request.encode();
        assert_eq!(Request::decode(&frame), Ok(request.clone()));
        let long = [&frame[..], &[0]].concat();
        assert_ne!(Request::decode(&long), Ok(request));
    }
    let (slots, signed) = (5, [6; 188]);
    let listed = Listed {
        snapshot,
        slots,
        signed,
    };
    let answers = [
        Answer::Listing(vec![listed.clone(), listed]),
        Answer::Blob { bytes: 7 },
        Answer::Accepted,
        Answer::Held,
        Answer::Stored,
        Answer::Retired,
        Answer::Refused(Refusal::UnknownSnapshot),
        Answer::Refused(Refusal::BadRetirement),
    ];
    for answer in answers {
        let frame = answer.encode();
        assert_eq!(Answer::decode(&frame), Ok(answer));
        assert!(Answer::decode(&[&frame[..], &[0]].concat()).is_err());
        (0..frame.len()).for_each(|end| assert!(Answer::decode(&frame[..end]).is_err()));
    }
    assert_eq!(
        Answer::decode(&[7, 0]),
        Err(MessageError::UnknownReason { reason: 0 })
    );
    let many = MessageError::TooManyListed { count: 0xffff };
    assert_eq!(Answer::decode(&[1, 0xff, 0xff]), Err(many));
}

#[tokio::test]
async fn frames_that_break_the_rules_end_the_stream() {
    let device = device();
    let (ended, _) = served_raw(&device.cold, &[0xff; 8]).await;
    let broken = |frame: &FrameError| matches!(frame, FrameError::TooLarge { .. });
    assert!(matches!(ended, Some(ServeFailure::Link(LinkError::Frame(ref f))) if broken(f)));
    let (ended, _) = served_raw(&device.cold, &[0, 0, 0, 9, 1]).await;
    let broken = |frame: &FrameError| matches!(frame, FrameError::Truncated);
    assert!(matches!(ended, Some(ServeFailure::Link(LinkError::Frame(ref f))) if broken(f)));
    let garbage: [(&[u8], MessageError); 4] = [
        (&[0, 0, 0, 0], MessageError::Empty),
        (&[0, 0, 0, 1, 0], MessageError::UnknownTag { tag: 0 }),
        (&[0, 0, 0, 1, 2], MessageError::Length { tag: 2, bytes: 1 }),
        (
            &[0, 0, 0, 2, 1, 1],
            MessageError::Length { tag: 1, bytes: 2 },
        ),
    ];
    for (bytes, rule) in garbage {
        let (ended, answers) = served_raw(&device.cold, bytes).await;
        assert!(
            matches!(ended, Some(ServeFailure::Message(e)) if e == rule),
            "{bytes:?}"
        );
        assert!(answers.is_empty());
    }
    assert_eq!(device.cold.usage_bytes(), 0);
    still_serves(&device).await;
}

#[tokio::test]
async fn what_is_not_here_is_refused_by_name() {
    let device = device();
    let (manifest, runs) = snapshot().await;
    let (ended, answers) = offered(&device.cold, &manifest.encode(), 1, &runs).await;
    assert!(ended.is_none(), "{ended:?}");
    assert_eq!(answers, [Answer::Accepted, Answer::Stored]);
    let id = manifest.signed().snapshot();
    let unknown = SnapshotId([0; 32]);
    let asked = [
        (Request::Manifest(unknown), Refusal::UnknownSnapshot),
        (
            Request::Run(unknown, Slot(1), BlockIndex(0)),
            Refusal::UnknownSnapshot,
        ),
        (Request::Run(id, Slot(0), BlockIndex(0)), Refusal::NotHeld),
        (Request::Run(id, Slot(3), BlockIndex(0)), Refusal::NoSuchRun),
        (
            Request::Run(id, Slot(255), BlockIndex(0)),
            Refusal::NoSuchRun,
        ),
        (
            Request::Run(id, Slot(1), BlockIndex(u32::MAX)),
            Refusal::NoSuchRun,
        ),
    ];
    for (request, refusal) in asked {
        let (ended, answers) = served_request(&device.cold, request.clone()).await;
        assert!(
            matches!(ended, Some(ServeFailure::Read(_))),
            "{request:?}: {ended:?}"
        );
        assert_eq!(answers, [Answer::Refused(refusal)], "{request:?}");
    }
    still_serves(&device).await;
}

#[tokio::test]
async fn a_slice_that_is_held_is_not_taken_twice() {
    let device = device();
    let (manifest, runs) = snapshot().await;
    offered(&device.cold, &manifest.encode(), 1, &runs).await;
    let (ended, answers) = offered(&device.cold, &manifest.encode(), 1, &[]).await;
    assert!(ended.is_none(), "{ended:?}");
    assert_eq!(answers, [Answer::Held]);
}

#[tokio::test]
async fn bad_slices_are_refused_and_leave_nothing() {
    let device = device();
    let (manifest, runs) = snapshot().await;
    let encoded = manifest.encode();
    let cold = &device.cold;

    let mut flipped = encoded.clone();
    flipped[150] ^= 1;
    let (ended, answers) = offered(cold, &flipped, 1, &runs).await;
    assert!(
        matches!(ended, Some(ServeFailure::Manifest(_))),
        "{ended:?}"
    );
    assert_eq!(answers, [Answer::Refused(Refusal::BadManifest)]);

    let (ended, answers) = offered(cold, &encoded, 3, &runs).await;
    let no_slot = |error: &WriteError| matches!(error, WriteError::NoSuchSlot { .. });
    assert!(
        matches!(ended, Some(ServeFailure::Write(ref e)) if no_slot(e)),
        "{ended:?}"
    );
    assert_eq!(answers, [Answer::Refused(Refusal::NoSuchRun)]);

    let mut poisoned = runs.clone();
    poisoned[0][0] ^= 1;
    let (ended, answers) = offered(cold, &encoded, 1, &poisoned).await;
    let not_the_run = |error: &WriteError| matches!(error, WriteError::NotTheRun { .. });
    assert!(
        matches!(ended, Some(ServeFailure::Write(ref e)) if not_the_run(e)),
        "{ended:?}"
    );
    assert_eq!(
        answers,
        [Answer::Accepted, Answer::Refused(Refusal::NotTheRun)]
    );

    let (ended, _) = offered(cold, &encoded, 1, &[]).await;
    assert!(
        matches!(ended, Some(ServeFailure::Link(LinkError::Ended))),
        "{ended:?}"
    );
    let short = vec![vec![0; 9]];
    let (ended, _) = offered(cold, &encoded, 1, &short).await;
    let part = |error: &LinkError| matches!(error, LinkError::PartLength { found: 9, .. });
    assert!(
        matches!(ended, Some(ServeFailure::Link(ref e)) if part(e)),
        "{ended:?}"
    );

    let manifest_bytes = u32::try_from(SIGNED_MANIFEST_BYTES_MAX + 1).unwrap();
    let offer = Request::Offer {
        slot: Slot(1),
        manifest_bytes,
    };
    let (ended, answers) = served_request(cold, offer).await;
    assert!(
        matches!(ended, Some(ServeFailure::ManifestLength { .. })),
        "{ended:?}"
    );
    assert_eq!(answers, [Answer::Refused(Refusal::BadManifest)]);

    assert_eq!(cold.usage_bytes(), 0);
    assert!(cold.shared.store.snapshots().is_empty() && cold.snapshots().is_empty());
    still_serves(&device).await;
}

#[tokio::test]
async fn the_quota_holds_and_room_comes_back() {
    let device = device();
    let (manifest, runs) = snapshot().await;
    let slice_bytes = manifest.code().slice_bytes();
    device.cold.set_quota(slice_bytes);
    let (ended, answers) = offered(&device.cold, &manifest.encode(), 1, &runs).await;
    let full = Refusal::QuotaExceeded;
    let named = matches!(ended, Some(ServeFailure::Refused { refusal, .. }) if refusal == full);
    assert!(named, "{ended:?}");
    assert_eq!(answers, [Answer::Refused(full)]);
    assert_eq!(device.cold.usage_bytes(), 0);
    device.cold.set_quota(slice_bytes + 10_000);
    offered(&device.cold, &manifest.encode(), 1, &[]).await;
    let (ended, _) = offered(&device.cold, &manifest.encode(), 1, &runs).await;
    assert!(ended.is_none(), "{ended:?}");
}

#[tokio::test]
async fn another_header_does_not_replace_the_first() {
    let device = device();
    let (manifest, runs) = snapshot().await;
    offered(&device.cold, &manifest.encode(), 1, &runs).await;
    let thief = super::harness::identity(50);
    let mut header = manifest.signed().header().clone();
    header.author = thief.public_key();
    let code = manifest.code().clone();
    let stolen = SignedManifest::sign(header, code, &secret(1, 2).id(), &thief);
    let (_, answers) = offered(&device.cold, &stolen.encode(), 2, &runs).await;
    assert_eq!(answers, [Answer::Refused(Refusal::OtherHeader)]);
    assert_eq!(
        device.cold.snapshots()[0].author,
        manifest.signed().header().author()
    );
}

#[tokio::test]
async fn only_the_author_retires_a_snapshot() {
    let device = device();
    let (manifest, runs) = snapshot().await;
    offered(&device.cold, &manifest.encode(), 1, &runs).await;
    let (ids, database) = ([manifest.signed().snapshot()], secret(1, 2).id());
    let [author, stranger] = [1, 50].map(super::harness::identity);
    let foreign = Retirement::sign(&ids, &database, &stranger);
    let (ended, _) = served_request(&device.cold, Request::Retire(foreign)).await;
    assert!(ended.is_none(), "{ended:?}");
    assert_eq!(device.cold.snapshots().len(), 1);
    let (ended, answers) = served_request(&device.cold, Request::Retire(vec![0; 200])).await;
    assert!(matches!(ended, Some(ServeFailure::Retire(_))), "{ended:?}");
    assert_eq!(answers, [Answer::Refused(Refusal::BadRetirement)]);
    let order = Retirement::sign(&ids, &database, &author);
    let (_, answers) = served_request(&device.cold, Request::Retire(order)).await;
    assert_eq!(answers, [Answer::Retired]);
    assert_eq!(device.cold.usage_bytes(), 0);
}

#[tokio::test]
async fn a_damaged_run_is_refused_and_not_sent() {
    let device = device();
    let (manifest, runs) = snapshot().await;
    offered(&device.cold, &manifest.encode(), 1, &runs).await;
    let id = manifest.signed().snapshot();
    let files = std::fs::read_dir(device.directory()).unwrap();
    let paths = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.is_file());
    let slice = paths
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&slice).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&slice, bytes).unwrap();
    let last = BlockIndex(manifest.code().blocks_count() - 1);
    let (ended, answers) = served_request(&device.cold, Request::Run(id, Slot(1), last)).await;
    let damaged = |error: &ReadError| matches!(error, ReadError::Damaged { .. });
    assert!(
        matches!(ended, Some(ServeFailure::Read(ref e)) if damaged(e)),
        "{ended:?}"
    );
    assert_eq!(answers, [Answer::Refused(Refusal::Damaged)]);
}

#[tokio::test]
async fn a_silent_peer_is_given_up() {
    let device = Device::idle(77, &secret(1, 2), Duration::from_millis(20));
    let (_near, far) = duplex(100);
    let error = device
        .cold
        .serve_link(PeerId::random(), far)
        .await
        .unwrap_err();
    let idle = matches!(error.reason, ServeFailure::Link(LinkError::Idle { .. }));
    assert!(idle, "{error}");
}

#[tokio::test]
async fn what_is_held_is_known_again_after_a_restart() {
    let mut device = device();
    let (manifest, runs) = snapshot().await;
    offered(&device.cold, &manifest.encode(), 1, &runs).await;
    let (before, listing) = (device.cold.snapshots(), device.cold.listing());
    assert_eq!(before[0].slots, [Slot(1)]);
    assert_eq!(before[0].held_bytes, manifest.code().slice_bytes());
    device = device.reopened();
    assert_eq!(device.cold.snapshots(), before);
    assert_eq!(device.cold.listing(), listing);
}
