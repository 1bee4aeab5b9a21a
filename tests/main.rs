//! All tests of the whole, in one binary: linking many costs minutes.

mod capture;
mod cli;
mod convergence;
mod cr_sqlite;
mod documents;
mod extension;
mod harness;
mod readme;
mod simulator;
mod tidy;
