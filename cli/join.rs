//! `syncline join`: every further device.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use syncline_engine::trust::{TICKET_CHARS_MAX, Ticket};
use syncline_engine::{Home, Multiaddr, Node, Options};

use crate::{node, screen};

/// How often the bar looks how far the sync is.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) async fn run(
    ticket: &str,
    db: &Path,
    once: bool,
    listen: Vec<Multiaddr>,
) -> anyhow::Result<()> {
    let ticket = read_ticket(ticket)?;
    let home = Home::of(db);
    let not_joined = || format!("could not join with `{}`", db.display());
    let opened = home
        .create(|_| Ok(ticket.secret().clone()))
        .with_context(not_joined)?;
    let node = Node::start(opened, Options::from_ticket(&ticket, listen)).await;
    let node = node.with_context(not_joined)?;
    eprintln!("joining {} as {}", ticket.name(), node.peer_id());
    catch_up(&node).await?;
    eprintln!("{} is up to date", db.display());
    if once {
        node.stop().await?;
        return Ok(());
    }
    eprintln!("Keep this running to stay in sync; Ctrl-C ends it, `syncline serve` goes on.");
    node::run(&home, node).await
}

/// Reads a ticket from the command line, or from standard input, where other users cannot see it.
pub(crate) fn read_ticket(text: &str) -> anyhow::Result<Ticket> {
    if text != "-" {
        return Ok(Ticket::parse(text).context("this is not a usable ticket")?);
    }
    let mut pasted = String::new();
    std::io::stdin()
        .take(TICKET_CHARS_MAX as u64)
        .read_to_string(&mut pasted)?;
    Ok(Ticket::parse(&pasted).context("standard input holds no usable ticket")?)
}

/// Waits until everything that the connected devices have is here; Ctrl-C ends the wait.
async fn catch_up(node: &Node) -> anyhow::Result<()> {
    let spinner = screen::spinner("looking for the other device");
    let wait = async {
        while node.progress().is_none() {
            tokio::time::sleep(LOOK).await;
        }
        spinner.finish_and_clear();
        let bar = screen::bar(0, "syncing");
        loop {
            let (here, everywhere) = node.progress().unwrap_or_default();
            bar.set_length(everywhere);
            bar.set_position(here);
            if here >= everywhere && everywhere > 0 {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        bar.finish_and_clear();
    };
    tokio::select! {
        () = wait => Ok(()),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted; `syncline serve <db>` goes on where it stopped")
        }
    }
}
