//! `syncline leave`: back to an ordinary file.

use std::path::Path;

use anyhow::Context;
use syncline_engine::{Home, leave};

pub(crate) fn run(db: &Path, crr_extension: Option<&Path>) -> anyhow::Result<()> {
    leave(&Home::of(db), crr_extension)
        .with_context(|| format!("could not leave with `{}`", db.display()))?;
    println!(
        "{} is an ordinary SQLite file again; its rows stay",
        db.display()
    );
    Ok(())
}
