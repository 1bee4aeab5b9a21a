//! Nodes that meet on the loopback interface, and strangers that try to.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod admission;
mod gossip;
mod harness;
mod mesh;
mod streams;
