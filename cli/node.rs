//! Runs a node in the foreground, and speaks to one that runs elsewhere.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use syncline_engine::control::{self, Answer, Control, Request};
use syncline_engine::{Home, Node, Options};

use crate::failure::Obstructed;
use crate::interrupt::Interrupt;
use crate::screen;

/// `syncline serve`
pub(crate) async fn serve(db: &Path, options: Options) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let home = Home::of(db);
    check_file(&home)?;
    let node = Node::start(home.open()?, options).await;
    let node = node.with_context(|| format!("could not serve `{}`", db.display()))?;
    eprintln!(
        "serving {} as {}; Ctrl-C ends it",
        db.display(),
        node.peer_id()
    );
    run(&home, node, &mut interrupt).await
}

/// Refuses a folder whose database is gone: a new empty file would count as having everything.
pub(crate) fn check_file(home: &Home) -> anyhow::Result<()> {
    if home.database().exists() || !home.exists() {
        return Ok(());
    }
    let (database, folder) = (home.database().display(), home.folder().display());
    let what = format!("`{database}` is gone, and its folder `{folder}` is still there");
    let hint =
        "move the folder away; then `syncline join` or `syncline restore` brings the rows back";
    Err(Obstructed { what, hint }.into())
}

/// Serves until Ctrl-C, a termination signal or a request to stop.
pub(crate) async fn run(home: &Home, node: Node, interrupt: &mut Interrupt) -> anyhow::Result<()> {
    let control = Control::bind(home)?;
    let node = Arc::new(node);
    let mut events = node.events();
    let told = tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) => screen::words(&event)
                    .iter()
                    .for_each(|words| eprintln!("{words}")),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    });
    tokio::select! {
        () = control.serve(Arc::clone(&node)) => {}
        () = interrupt.wait() => {}
    }
    drop(control);
    told.abort();
    node.stop().await?;
    Ok(())
}

/// `syncline ticket`
pub(crate) async fn ticket(db: &Path) -> anyhow::Result<()> {
    match ask(db, &Request::Ticket).await? {
        Answer::Ticket { text } => println!("{text}"),
        answer => return unexpected(answer, "no ticket could be made"),
    }
    Ok(())
}

/// `syncline snapshot`
pub(crate) async fn snapshot(db: &Path) -> anyhow::Result<()> {
    let spinner = screen::spinner("taking a snapshot");
    let answer = ask(db, &Request::Snapshot).await;
    spinner.finish_and_clear();
    let snapshot = match answer? {
        Answer::Snapshot(snapshot) => snapshot,
        answer => return unexpected(answer, "no snapshot was taken"),
    };
    println!(
        "snapshot {}: {} sealed, {}, any {} bring it back",
        &snapshot.id[..16],
        screen::size(snapshot.bytes),
        screen::count(snapshot.slices_total.into(), "slice"),
        snapshot.slices_needed
    );
    for (slot, holder) in snapshot.holders.iter().enumerate() {
        println!("  slice {slot}: {holder}");
    }
    for failed in &snapshot.failed {
        eprintln!("not placed: {failed}");
    }
    match snapshot.losses_survived {
        0 => println!("no device may be lost: connect more of them and take it again"),
        1 => println!("any one of the devices may be lost"),
        losses => println!("any {losses} of the devices may be lost"),
    }
    Ok(())
}

/// Asks the process that serves a database.
pub(crate) async fn ask(db: &Path, request: &Request) -> anyhow::Result<Answer> {
    Ok(control::ask(&Home::of(db), request).await?)
}

/// Turns an answer that was not hoped for into an error.
pub(crate) fn unexpected(answer: Answer, what: &str) -> anyhow::Result<()> {
    match answer {
        Answer::Failed { reasons } => {
            let error =
                reasons
                    .into_iter()
                    .rev()
                    .fold(None, |inner: Option<anyhow::Error>, text| {
                        Some(match inner {
                            None => anyhow::anyhow!(text),
                            Some(inner) => inner.context(text),
                        })
                    });
            Err(error
                .unwrap_or_else(|| anyhow::anyhow!("it gave no reason"))
                .context(what.to_owned()))
        }
        _ => bail!("{what}: the running process answered something else"),
    }
}
