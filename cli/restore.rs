//! `syncline restore`: a lost database back from the pieces on other devices.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use syncline_engine::cold::Progress;
use syncline_engine::{Home, Node, NodeError, Options};
use tokio::time::{Instant, sleep, timeout_at};

use crate::failure::Obstructed;
use crate::interrupt::Interrupt;
use crate::{join, node, screen};

/// How long fetching may take, once enough devices are there.
const FETCHING_MAX: Duration = Duration::from_secs(600);
/// How often it is tried with the devices that came meanwhile.
const PAUSE: Duration = Duration::from_millis(500);

/// Restores a database; for `patience`, devices that are not there yet are waited for.
pub(crate) async fn run(
    ticket: &str,
    db: &Path,
    patience: Duration,
    options: Options,
) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let ticket = join::read_ticket(ticket)?;
    let home = Home::of(db);
    let not_restored = || format!("could not restore `{}`", db.display());
    if db.exists() {
        let what = format!("there is a file `{}` already", db.display());
        let hint = "name a file that is not there; nothing is overwritten";
        return Err(Obstructed { what, hint }).with_context(not_restored);
    }
    node::check_file(&home).with_context(not_restored)?;
    let opened = home
        .create(|_| Ok(ticket.secret().clone()))
        .with_context(not_restored)?;
    let options = Options {
        is_for_restore: true,
        ..options.dialing(&ticket)
    };
    let restored = match Node::start(opened, options).await {
        Ok(node) => {
            let restored = try_restore(&node, patience, &mut interrupt).await;
            let stopped = node.stop().await;
            restored.and(stopped.map_err(anyhow::Error::from))
        }
        Err(error) => Err(error.into()),
    };
    if let Err(error) = restored {
        // Nothing came back: the next attempt begins anew.
        join::undo(&home, true)?;
        return Err(error).with_context(not_restored);
    }
    println!(
        "{} is back; `syncline serve {}` fetches what was written since",
        db.display(),
        db.display()
    );
    Ok(())
}

async fn try_restore(
    node: &Node,
    patience: Duration,
    interrupt: &mut Interrupt,
) -> anyhow::Result<()> {
    tokio::select! {
        restored = fetch(node, patience) => Ok(restored?),
        () = interrupt.wait() => anyhow::bail!("interrupted"),
    }
}

async fn fetch(node: &Node, patience: Duration) -> Result<(), NodeError> {
    let deadline = Instant::now() + patience;
    let bar = screen::bar(0, "fetching pieces");
    loop {
        let fetched = |progress: Progress| {
            if let Progress::Fetched {
                blocks_done,
                blocks_total,
            } = progress
            {
                bar.set_length(blocks_total.into());
                bar.set_position(blocks_done.into());
            }
        };
        match timeout_at(deadline + FETCHING_MAX, node.restore(fetched)).await {
            Ok(Ok(restored)) => {
                bar.finish_and_clear();
                println!(
                    "{} gave {}",
                    screen::count(restored.blocks_from.len() as u64, "device"),
                    screen::count(bar.position(), "block")
                );
                for liar in &restored.liars {
                    eprintln!("false pieces came from {liar}; they were not used");
                }
                for part in &restored.lacking {
                    let what = match part.is_whole() {
                        true => format!("the table `{}`", part.table),
                        false => format!("the column `{}` of `{}`", part.column, part.table),
                    };
                    eprintln!(
                        "{what} was dropped on the device that made the snapshot; `syncline serve` \
                         brings the rest of it from devices that have it"
                    );
                }
                return Ok(());
            }
            Ok(Err(NodeError::Restore(_))) if Instant::now() < deadline => sleep(PAUSE).await,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(NodeError::Stopped),
        }
    }
}
