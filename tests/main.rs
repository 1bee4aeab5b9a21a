//! All tests of the whole, in one binary: linking many costs minutes.

mod capture;
mod convergence;
mod extension;
mod harness;
mod simulator;
mod tidy;
