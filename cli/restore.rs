//! `syncline restore`: a lost database back from the pieces on other devices.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use syncline_engine::cold::Progress;
use syncline_engine::{Home, Multiaddr, Node, NodeError, Options};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{join, screen};

/// How long devices are waited for before it is said that too few are there.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is tried with the devices that came meanwhile.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn run(ticket: &str, db: &Path, listen: Vec<Multiaddr>) -> anyhow::Result<()> {
    let ticket = join::read_ticket(ticket)?;
    if db.exists() {
        bail!(
            "`{}` is there already; name a file that is not, nothing is overwritten",
            db.display()
        );
    }
    let home = Home::of(db);
    let not_restored = || format!("could not restore `{}`", db.display());
    let opened = home
        .create(|_| Ok(ticket.secret().clone()))
        .with_context(not_restored)?;
    let node = Node::start(opened, Options::from_ticket(&ticket, listen)).await;
    let node = node.with_context(not_restored)?;
    let result = try_restore(&node).await;
    let stopped = node.stop().await;
    if let Err(error) = result {
        // Nothing came back: the next attempt begins anew.
        home.remove()?;
        for file in ["", "-wal", "-shm"] {
            let mut path = db.as_os_str().to_owned();
            path.push(file);
            let _ = std::fs::remove_file(path);
        }
        return Err(error).with_context(not_restored);
    }
    stopped?;
    println!(
        "{} is back; `syncline serve {}` fetches what was written since",
        db.display(),
        db.display()
    );
    Ok(())
}

async fn try_restore(node: &Node) -> Result<(), NodeError> {
    let deadline = Instant::now() + PATIENCE;
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
        match timeout_at(deadline + PATIENCE * 20, node.restore(fetched)).await {
            Ok(Ok(restored)) => {
                bar.finish_and_clear();
                println!(
                    "{} devices gave {} blocks",
                    restored.blocks_from.len(),
                    bar.position()
                );
                for liar in &restored.liars {
                    eprintln!("false pieces came from {liar}; they were not used");
                }
                return Ok(());
            }
            Ok(Err(NodeError::Restore(_))) if Instant::now() < deadline => sleep(PAUSE).await,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(NodeError::Stopped),
        }
    }
}
