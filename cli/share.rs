//! `syncline share`: the first device.

use std::path::Path;

use anyhow::{Context, bail};
use syncline_engine::trust::DatabaseSecret;
use syncline_engine::{Chosen, Home, Node, Options, TableReport, Tracked, track_tables};

use crate::interrupt::Interrupt;
use crate::{node, screen};

pub(crate) async fn run(db: &Path, tables: &[Chosen], options: Options) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let not_shared = || format!("could not share `{}`", db.display());
    let home = Home::of(db);
    // The lock first: where a node runs, nothing is changed.
    let opened = if db.exists() && home.exists() {
        Some(home.open().with_context(not_shared)?)
    } else {
        None
    };
    let reports =
        track_tables(db, tables, options.crr_extension.as_deref()).with_context(not_shared)?;
    report(&reports);
    if reports.iter().all(|report| report.tracked.is_none()) {
        bail!(
            "`{}` has no table that can be tracked, so there is nothing to share",
            db.display()
        );
    }
    let make = || home.create(|identity| Ok(DatabaseSecret::generate(identity.public_key())?));
    let opened = opened.map_or_else(make, Ok).with_context(not_shared)?;
    let node = Node::start(opened, options).await;
    let node = node.with_context(not_shared)?;
    let ticket = node.ticket().await?.to_text();
    eprintln!("\nOn the other device:\n");
    // The ticket alone goes to standard output, so that a script can take it.
    println!("{}", *ticket);
    eprintln!("\n    syncline join <the line above> {}\n", name(db));
    eprintln!(
        "Whoever has this line can read and write the database. Keep this running; Ctrl-C ends it."
    );
    node::run(&home, node, &mut interrupt).await
}

/// Says what becomes of each table.
pub(crate) fn report(reports: &[TableReport]) {
    for report in reports {
        let name = &report.candidate.name;
        match (&report.tracked, &report.candidate.obstacle) {
            (Some(Tracked::Begun { rows_count }), _) => {
                eprintln!(
                    "  {name}: tracked, {}",
                    screen::count(*rows_count as u64, "row")
                )
            }
            (Some(Tracked::Already), _) => eprintln!("  {name}: tracked already"),
            (None, Some(obstacle)) => eprintln!("  {name}: stays local: {obstacle}"),
            (None, None) => {
                if let Some(reason) = &report.refused {
                    eprintln!("  {name}: stays local: {reason}");
                }
            }
        }
        for limit in &report.candidate.limits {
            eprintln!("      until later: {limit}");
        }
    }
}

fn name(db: &Path) -> String {
    db.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
