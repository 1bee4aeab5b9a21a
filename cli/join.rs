//! `syncline join`: every further device.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use syncline_engine::trust::{TICKET_CHARS_MAX, Ticket};
use syncline_engine::{Home, Node, Options};

use crate::failure::Obstructed;
use crate::interrupt::Interrupt;
use crate::{node, screen};

/// How often the bar looks how far the sync is.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) async fn run(
    ticket: &str,
    db: &Path,
    once: bool,
    options: Options,
) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let ticket = read_ticket(ticket)?;
    let home = Home::of(db);
    let is_new = !db.exists();
    let not_joined = || format!("could not join with `{}`", db.display());
    node::check_file(&home).with_context(not_joined)?;
    let opened = home
        .create(|_| Ok(ticket.secret().clone()))
        .with_context(not_joined)?;
    let node = match Node::start(opened, options.dialing(&ticket)).await {
        Ok(node) => node,
        Err(error) => {
            undo(&home, is_new)?;
            return Err(error).with_context(not_joined);
        }
    };
    eprintln!("joining {} as {}", ticket.name(), node.peer_id());
    if let Err(error) = catch_up(&node, &mut interrupt).await {
        let is_alone = node.progress().is_none();
        node.stop().await?;
        drop(node);
        // Without another device's address nothing could go on from here.
        if is_alone {
            undo(&home, is_new)?;
        }
        return Err(error).with_context(not_joined);
    }
    let waiting = node.status().await?.waiting;
    if waiting.is_empty() {
        eprintln!("{} is up to date", db.display());
    } else {
        eprintln!(
            "everything is received, but some changes wait and are not in {}:",
            db.display()
        );
        waiting.iter().for_each(|what| eprintln!("  {what}"));
    }
    if once {
        node.stop().await?;
        return Ok(());
    }
    eprintln!("Keep this running to stay in sync; Ctrl-C ends it, `syncline serve` goes on.");
    node::run(&home, node, &mut interrupt).await
}

/// Reads a ticket from the command line, or from standard input, where other users cannot see it.
pub(crate) fn read_ticket(text: &str) -> anyhow::Result<Ticket> {
    if text != "-" {
        return Ticket::parse(text).context("this is not a usable ticket");
    }
    let mut pasted = String::new();
    std::io::stdin()
        .take(TICKET_CHARS_MAX as u64)
        .read_to_string(&mut pasted)?;
    Ticket::parse(&pasted).context("standard input holds no usable ticket")
}

/// Takes back what a command began that ends without success: the folder, and the file if it is new.
/// Not while a node runs on them.
pub(crate) fn undo(home: &Home, is_new: bool) -> anyhow::Result<()> {
    home.remove()?;
    if is_new {
        for ending in ["", "-wal", "-shm"] {
            let mut path = home.database().as_os_str().to_owned();
            path.push(ending);
            // It may never have been made.
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
}

/// Waits until everything that the connected devices have is here; Ctrl-C ends the wait.
async fn catch_up(node: &Node, interrupt: &mut Interrupt) -> anyhow::Result<()> {
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
        () = interrupt.wait() => Err(interrupted_error(node.progress().is_none())),
    }
}

fn interrupted_error(is_alone: bool) -> anyhow::Error {
    let error = if is_alone {
        Obstructed {
            what: "interrupted before another device was reached".into(),
            hint: "see that syncline runs on the device the ticket is from, then join again",
        }
    } else {
        Obstructed {
            what: "interrupted before everything was here".into(),
            hint: "`syncline serve <db>` goes on where it stopped",
        }
    };
    error.into()
}
