//! Snapshots sealed, signed, spread, poisoned and brought back.

mod harness;
mod network;
mod peers;
mod protocol;
mod sealing;
