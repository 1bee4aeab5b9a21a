//! What the tests share.

pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod model;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod operation;
pub(crate) mod program;
pub(crate) mod replica;
pub(crate) mod room;
pub(crate) mod shape;
pub(crate) mod simulation;
pub(crate) mod world;
