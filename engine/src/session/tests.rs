//! Sessions against each other and against hostile peers: one seeded clock, no threads, no sleep.

mod hostile;
mod network;
mod pulling;

use std::collections::BTreeSet;

use fastrand::Rng;

use self::network::{Network, Weather, fake_envelope};
use super::*;
use crate::trust::{PublicKey, StreamId};

fn stream(author: u8, stream: u8) -> StreamRef {
    StreamRef {
        author: PublicKey([author; 32]),
        stream: StreamId([stream; 8]),
    }
}

#[test]
fn two_logs_become_equal() {
    let mut network = Network::new(2, 1, Weather::CALM);
    network.write(0, stream(1, 1), 100);
    network.write(1, stream(2, 1), 50);
    network.run_until_equal(10_000);
    assert_eq!(network.logs[0].values().map(Vec::len).sum::<usize>(), 150);
    let took_ms = network.now_ms - network::START_MS;
    assert!(took_ms < 100, "calm weather needs no timeout: {took_ms} ms");
}

#[test]
fn a_write_reaches_a_peer_that_was_level_before() {
    let mut network = Network::new(2, 1, Weather::CALM);
    network.run_for(20_000);
    let before_ms = network.now_ms;
    network.write(0, stream(1, 1), 1);
    network.run_until_equal(1_000);
    assert!(
        network.now_ms - before_ms < 100,
        "{} ms",
        network.now_ms - before_ms
    );
}

#[test]
fn a_burst_of_writes_costs_few_frames() {
    let mut network = Network::new(2, 1, Weather::CALM);
    network.run_for(1_000);
    let before = network.frames_sent;
    for _ in 0..1_000 {
        network.write(0, stream(1, 1), 1);
    }
    network.run_until_equal(1_000);
    let frames = network.frames_sent - before;
    assert!(frames < 30, "{frames}");
}

#[test]
fn an_idle_pair_says_little() {
    let mut network = Network::new(2, 1, Weather::CALM);
    network.write(0, stream(1, 1), 10);
    network.run_for(1_000);
    let before = network.frames_sent;
    network.run_for(HEADS_INTERVAL_MS * 10);
    assert!(
        network.frames_sent - before <= 22,
        "{}",
        network.frames_sent - before
    );
}

#[test]
fn envelopes_larger_than_a_frame_arrive() {
    for weather in [
        Weather::CALM,
        Weather {
            reorder_ms: 50,
            ..Weather::CALM
        },
    ] {
        let mut network = Network::new(2, 3, weather);
        network.append(0, stream(1, 1), DATA_BYTES_MAX);
        network.append(0, stream(1, 1), DATA_BYTES_MAX + 1);
        network.append(0, stream(1, 1), 5 * DATA_BYTES_MAX + 17);
        network.append(0, stream(1, 1), 500);
        network.append(0, stream(2, 1), 3 * DATA_BYTES_MAX);
        network.run_until_equal(600_000);
    }
}

#[test]
fn the_largest_envelope_arrives_within_the_memory_limit() {
    let mut network = Network::new(2, 3, Weather::CALM);
    network.append(0, stream(1, 1), ENVELOPE_BYTES_MAX);
    network.append(0, stream(1, 1), ENVELOPE_BYTES_MAX);
    network.run_until_equal(600_000);
}

#[test]
fn a_slow_reader_bounds_what_is_under_way() {
    let mut network = Network::new(2, 3, Weather::CALM);
    for _ in 0..200 {
        network.append(0, stream(1, 1), DATA_BYTES_MAX);
    }
    let mut under_way_max = 0;
    while !network.equal() {
        network.step();
        under_way_max = under_way_max.max(network.bytes_under_way());
    }
    let limit = CREDIT_FRAMES as usize * (DATA_BYTES_MAX + 1_000);
    assert!(under_way_max <= limit, "{under_way_max} > {limit}");
    assert!(
        under_way_max > 4 * DATA_BYTES_MAX,
        "the sender does not wait for each frame"
    );
}

#[test]
fn both_directions_stream_at_once() {
    let mut network = Network::new(2, 3, Weather::CALM);
    for _ in 0..100 {
        network.append(0, stream(1, 1), DATA_BYTES_MAX);
        network.append(1, stream(2, 1), DATA_BYTES_MAX);
    }
    network.run_until_equal(60_000);
}

#[test]
fn thousands_of_streams_arrive() {
    let mut network = Network::new(2, 3, Weather::CALM);
    for index in 0..10_000_u32 {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&index.to_be_bytes());
        let stream = StreamRef {
            author: PublicKey(bytes),
            stream: StreamId([1; 8]),
        };
        network.logs[0].insert(stream, vec![fake_envelope(&stream, 1, 500)]);
    }
    network.restart(0);
    network.run_until_equal(60_000);
}

#[test]
fn logs_become_equal_whatever_the_weather() {
    for seed in 0..1_000 {
        let mut random = Rng::with_seed(seed);
        let mut network = Network::new(2 + random.usize(0..3), seed, Weather::foul(&mut random));
        let nodes = network.logs.len();
        for _ in 0..random.usize(1..12) {
            let node = random.usize(0..nodes);
            match random.u8(0..10) {
                0 => network.partition(node, random.bool()),
                1 => network.restart(node),
                2 => network.append(node, stream(node as u8, 9), random.usize(500..3 << 18)),
                _ => {
                    let stream = stream(node as u8, random.u8(0..4));
                    network.write(node, stream, random.usize(1..30));
                }
            }
            network.run_for(random.u64(0..5_000));
        }
        network.heal();
        network.run_until_equal(7_200_000);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut random = Rng::with_seed(42);
        let mut network = Network::new(4, 42, Weather::foul(&mut random));
        for node in 0..4 {
            network.write(node, stream(node as u8, 1), 40);
        }
        network.run_until_equal(7_200_000);
        (network.now_ms, network.frames_sent)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_liar_does_not_keep_an_honest_peer_waiting() {
    let mut network = Network::new(3, 5, Weather::CALM);
    // Node 2 claims a stream of node 1 that it has not got.
    network.lie(2, stream(1, 1), 1_000_000);
    network.run_for(10_000);
    network.write(1, stream(1, 1), 40);
    let before_ms = network.now_ms;
    while network.logs[0] != network.logs[1] {
        network.step();
    }
    assert!(
        network.now_ms - before_ms < 2 * WANT_TIMEOUT_MS,
        "{}",
        network.now_ms - before_ms
    );
}

#[test]
fn questions_to_a_liar_become_rare() {
    let mut network = Network::new(2, 5, Weather::CALM);
    network.lie(1, stream(9, 9), 7);
    network.run_for(600_000);
    let turns = network.turns_count(0);
    assert!((8..=20).contains(&turns), "{turns}");
}

#[test]
fn fetched_envelopes_are_not_fetched_again_from_others() {
    let mut network = Network::new(4, 5, Weather::CALM);
    for node in 1..4 {
        network.write(node, stream(1, 1), 0);
    }
    for node in [1, 2, 3] {
        for seq in 1..=200 {
            let envelope = fake_envelope(&stream(1, 1), seq, 900);
            network.logs[node]
                .entry(stream(1, 1))
                .or_default()
                .push(envelope);
        }
        network.restart(node);
    }
    network.run_until_equal(60_000);
    assert_eq!(network.duplicates_count, 0);
    let ids: BTreeSet<_> = network.logs[0].values().flatten().collect();
    assert_eq!(ids.len(), 200);
}
