//! What the tests share.

pub(crate) mod model;
pub(crate) mod operation;
pub(crate) mod program;
pub(crate) mod replica;
pub(crate) mod shape;
pub(crate) mod world;
