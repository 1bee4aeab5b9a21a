//! `syncline status`: what a database, served or not, can say of itself.

use std::path::Path;

use syncline_engine::control::{Answer, AskError, Request, ask};
use syncline_engine::{Home, Status, offline_status};

use crate::{node, screen};

pub(crate) async fn run(db: &Path, json: bool, crr_extension: Option<&Path>) -> anyhow::Result<()> {
    let home = Home::of(db);
    node::check_file(&home)?;
    let (status, is_running) = match ask(&home, &Request::Status).await {
        Ok(Answer::Status(status)) => (*status, true),
        Ok(answer) => return node::unexpected(answer, "the state is not known"),
        Err(AskError::NotRunning { .. }) => (offline_status(&home, crr_extension)?, false),
        Err(error) => return Err(error.into()),
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
    print(db, &status, is_running);
    Ok(())
}

fn print(db: &Path, status: &Status, is_running: bool) {
    let running = if is_running {
        "served"
    } else {
        "not served; `syncline serve` starts it"
    };
    println!("{} ({running})", db.display());
    println!("  device     {}", status.peer);
    println!(
        "  tables     {}",
        if status.tables.is_empty() {
            "none".into()
        } else {
            status.tables.join(", ")
        }
    );
    println!("  digest     {}", status.digest);
    println!(
        "  unsealed   {}",
        screen::count(status.pending_count, "captured write")
    );
    println!(
        "  log        {}, {}",
        screen::count(status.envelopes_count, "envelope"),
        screen::size(status.envelope_bytes)
    );
    for aside in &status.aside {
        println!("  aside      {aside}");
    }
    if status.conflicts_count > 0 {
        println!(
            "  conflicts  {}: syncline_conflicts lists them with their reasons",
            screen::count(status.conflicts_count, "parked row")
        );
    }
    for (table, count) in &status.parked {
        println!(
            "  parked     {} for {table}: here it lacks a column that others have, has another key, or is not there",
            screen::count(*count, "changeset")
        );
    }
    for waiting in &status.waiting {
        println!("  waiting    {waiting}");
    }
    if status.refused_count > 0 {
        println!(
            "  refused    {} envelopes that no device can merge",
            status.refused_count
        );
    }
    if status.forks_count > 0 {
        println!(
            "  forks      {} envelopes signed twice for one place: is a device cloned?",
            status.forks_count
        );
    }
    for address in &status.listening {
        println!("  listening  {address}");
    }
    if is_running && status.peers.is_empty() {
        println!("  peers      none connected");
    }
    for peer in &status.peers {
        let state = match (peer.lacks_count, peer.ahead_count) {
            (0, 0) if status.waiting.is_empty() => "in sync".to_owned(),
            (0, 0) => "has the same envelopes; some of them wait here, see above".to_owned(),
            (lacks, 0) => format!("lacks {}", screen::count(lacks, "envelope")),
            (0, ahead) => format!("has {} more", screen::count(ahead, "envelope")),
            (lacks, ahead) => format!(
                "lacks {}, has {ahead} others",
                screen::count(lacks, "envelope")
            ),
        };
        println!("  peer       {} {state}", peer.peer);
    }
    for snapshot in &status.snapshots {
        println!(
            "  snapshot   {} {}: {} of {} slices here, any {} bring it back",
            &snapshot.id[..16],
            screen::size(snapshot.bytes),
            snapshot.slices_here,
            snapshot.slices_total,
            snapshot.slices_needed
        );
    }
}
