//! How long replicas need to agree, in time and traffic of a calm simulated network.
//!
//! Nothing here reads a clock: the same load gives the same figures on every machine.

use fastrand::Rng;

use super::model::{Cell, Row};
use super::network::{Traffic, Weather, mesh};
use super::operation::{Operation, Transaction};
use super::shape::SHAPES;
use super::simulation::{Plan, Simulation};

/// Longer than any of the sessions' timeouts.
const CONVERGENCE_MS_MAX: u64 = 600_000;

/// What it took until all replicas were equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Convergence {
    /// Milliseconds on a network that takes one for each frame.
    pub(crate) virtual_ms: u64,
    pub(crate) traffic: Traffic,
}

/// What replicas write all at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) nodes_count: usize,
    /// By each of them.
    pub(crate) transactions_count: usize,
    /// Whether small envelopes are told to everybody at once, beside the sessions.
    pub(crate) has_gossip: bool,
}

/// Measures how long replicas, each linked with each, need to agree on what all of them wrote.
pub(crate) fn converge(load: Load) -> Convergence {
    let Load {
        nodes_count,
        transactions_count,
        has_gossip,
    } = load;
    let gossip_lost_percent = if has_gossip { 0 } else { 100 };
    let weather = Weather {
        gossip_lost_percent,
        ..Weather::calm(1)
    };
    let shape = SHAPES[0];
    let plan = Plan {
        name: format!("{load:?}"),
        nodes_count,
        tracking_count: 1,
        shapes: &[shape],
        pairs: mesh(nodes_count),
        weather,
    };
    let mut simulation = Simulation::new(Rng::with_seed(0), plan);
    simulation.settle(CONVERGENCE_MS_MAX);
    simulation.network.weather = weather;
    simulation.network.traffic = Traffic::default();
    let began_ms = simulation.network.now_ms;
    for number in 0..transactions_count {
        for at in 0..nodes_count {
            // Everybody has rows of its own, and one that all of them write.
            let own = number * nodes_count + at + 1;
            let replace = |id: usize| Operation::Replace {
                shape,
                key: vec![Cell::Integer(id as i64)],
                values: Row::from([("c", Cell::Integer(own as i64))]),
            };
            let after = [own, 0].map(replace).to_vec();
            let transaction = Transaction {
                after,
                ..Transaction::default()
            };
            simulation.write(at, &transaction);
            simulation.watch(at);
        }
    }
    while !simulation.is_quiet() {
        let is_stuck = !simulation.step(began_ms + CONVERGENCE_MS_MAX);
        assert!(!is_stuck, "not equal after {CONVERGENCE_MS_MAX} ms");
    }
    simulation.check();
    let virtual_ms = simulation.network.now_ms - began_ms;
    Convergence {
        virtual_ms,
        traffic: simulation.network.traffic,
    }
}
