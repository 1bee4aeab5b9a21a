//! `syncline demo`: five devices as five processes on this machine, from the first edit to a rebuilt
//! database.

mod cluster;
mod data;
mod edits;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::screen;
use cluster::Cluster;
use edits::Edits;

/// How many devices take part.
const DEVICES: usize = 5;
/// How many writes the delay is measured with.
const DELAY_WRITES: usize = 20;

/// What was seen, for the table at the end.
struct Story {
    began: Instant,
    checks: Vec<(String, bool)>,
    figures: Vec<(&'static str, String)>,
}

impl Story {
    fn chapter(&self, title: &str) {
        println!("\n[{:5.1} s] {title}", self.began.elapsed().as_secs_f64());
    }

    fn check(&mut self, what: impl Into<String>, held: bool) {
        let what = what.into();
        println!("    {} {what}", if held { "ok  " } else { "FAIL" });
        self.checks.push((what, held));
    }

    fn figure(&mut self, what: &'static str, value: String) {
        self.figures.push((what, value));
    }
}

pub(crate) async fn run(source: Option<&Path>) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("syncline-demo-")
        .tempdir()?;
    let mut story = Story {
        began: now(),
        checks: vec![],
        figures: vec![],
    };
    let original = folder.path().join("original.db");
    data::prepare(source, &original).context("the demo's database could not be made")?;
    let mut cluster = Cluster::new(folder.path().to_owned());
    let result = tell(&mut story, &original, &mut cluster).await;
    if result.is_err() {
        cluster.print_logs();
    }
    drop(cluster);
    result?;
    summary(&story)
}

async fn tell(story: &mut Story, original: &Path, cluster: &mut Cluster) -> anyhow::Result<()> {
    share_and_join(story, original, cluster).await?;
    let mut edits = Edits::plan(&cluster.db(0))?;
    edit_apart(story, cluster, &mut edits).await?;
    measure_delay(story, cluster, &edits).await?;
    part_and_heal(story, cluster, &mut edits).await?;
    lose_and_restore(story, cluster, &edits).await
}

async fn share_and_join(
    story: &mut Story,
    original: &Path,
    cluster: &mut Cluster,
) -> anyhow::Result<()> {
    story.chapter("Device 1 shares a database, four others join with its ticket");
    let rows = data::count_rows(original)?;
    let (ticket, report) = cluster.share(original).await?;
    report.iter().for_each(|line| println!("    {line}"));
    let began = now();
    for _ in 1..DEVICES {
        cluster.join(&ticket)?;
    }
    cluster.converged(0..DEVICES, "the first sync").await?;
    let took = began.elapsed();
    let same = (1..DEVICES).map(|device| data::same_rows(&cluster.db(0), &cluster.db(device)));
    let same: Vec<bool> = same.collect::<anyhow::Result<_>>()?;
    story.check(
        format!("five devices hold the same {rows} rows"),
        same.iter().all(|same| *same),
    );
    story.check(
        "device 1's rows are those of the original",
        data::same_rows(original, &cluster.db(0))?,
    );
    story.figure(
        "first sync to four devices",
        format!("{rows} rows in {:.1} s", took.as_secs_f64()),
    );
    Ok(())
}

async fn edit_apart(
    story: &mut Story,
    cluster: &mut Cluster,
    edits: &mut Edits,
) -> anyhow::Result<()> {
    story.chapter("Edits on three devices at once, by plain SQLite, some of them in conflict");
    cluster.part(&[&[0], &[1], &[2], &[3], &[4]]).await?;
    edits.make_apart(cluster)?;
    edits.print();
    let began = now();
    cluster.heal().await?;
    cluster.converged(0..DEVICES, "the edits").await?;
    story.figure(
        "conflicting edits merged",
        format!("{:.1} s", began.elapsed().as_secs_f64()),
    );
    for device in 0..DEVICES {
        let missing = edits.missing(&cluster.db(device))?;
        story.check(
            format!("device {} has every edit that should stand", device + 1),
            missing.is_empty(),
        );
        missing
            .iter()
            .for_each(|what| println!("         missing: {what}"));
    }
    Ok(())
}

async fn measure_delay(story: &mut Story, cluster: &Cluster, edits: &Edits) -> anyhow::Result<()> {
    story.chapter("How soon a plain write on device 1 is in device 2's file");
    let mut delays = Vec::new();
    for round in 0..DELAY_WRITES {
        delays.push(edits.delay(&cluster.db(0), &cluster.db(1), round).await?);
    }
    delays.sort();
    let (middle, last) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    story.check(
        "each write arrived within a second",
        last < Duration::from_secs(1),
    );
    story.figure(
        "write on one device to file of another",
        format!(
            "median {} ms, longest {} ms",
            middle.as_millis(),
            last.as_millis()
        ),
    );
    Ok(())
}

async fn part_and_heal(
    story: &mut Story,
    cluster: &mut Cluster,
    edits: &mut Edits,
) -> anyhow::Result<()> {
    story
        .chapter("The network parts: devices 1 to 3 here, 4 and 5 there; both sides go on writing");
    cluster.part(&[&[0, 1, 2], &[3, 4]]).await?;
    edits.make_parted(cluster)?;
    cluster
        .converged(0..3, "the edits of devices 1 to 3")
        .await?;
    cluster
        .converged(3..5, "the edits of devices 4 and 5")
        .await?;
    let differ = !data::same_rows(&cluster.db(0), &cluster.db(3))?;
    story.check("the two sides differ while they are parted", differ);
    let began = now();
    cluster.heal().await?;
    cluster.converged(0..DEVICES, "both sides").await?;
    story.figure(
        "partition healed",
        format!("{:.1} s", began.elapsed().as_secs_f64()),
    );
    let mut missing = Vec::new();
    for device in 0..DEVICES {
        missing.extend(edits.missing(&cluster.db(device))?);
        let counts = edits.lost_rows(&cluster.db(device))?;
        missing.extend(counts);
    }
    missing
        .iter()
        .for_each(|what| println!("         missing: {what}"));
    story.check(
        "all five hold both sides' edits, and no row is lost",
        missing.is_empty(),
    );
    let digests = cluster.digests().await?;
    println!("         digest {}", digests[0]);
    story.check(
        "all five digests are equal",
        digests.iter().all(|digest| *digest == digests[0]),
    );
    Ok(())
}

async fn lose_and_restore(
    story: &mut Story,
    cluster: &mut Cluster,
    edits: &Edits,
) -> anyhow::Result<()> {
    story.chapter("A snapshot is cut into pieces and spread over the five devices");
    let snapshot = cluster.snapshot(0).await?;
    println!(
        "    {} sealed, {} slices, any {} bring it back",
        screen::size(snapshot.bytes),
        snapshot.slices_total,
        snapshot.slices_needed
    );
    story.check("two of the five may be lost", snapshot.losses_survived >= 2);
    let stored = cluster.symbol_bytes(0..DEVICES)?;
    story.figure(
        "snapshot, sealed, and what all devices store of it",
        format!(
            "{} and {}",
            screen::size(snapshot.bytes),
            screen::size(stored)
        ),
    );
    story.chapter("Devices 1 and 4 are killed and their files deleted");
    let reference = cluster.keep_copy(0)?;
    cluster.lose(0)?;
    cluster.lose(3)?;
    println!("    what is left of the snapshot lies on devices 2, 3 and 5");
    story.chapter("The database is rebuilt from the pieces on the three that are left");
    let ticket = cluster.ticket(1).await?;
    let began = now();
    let rebuilt = cluster.restore(&ticket).await?;
    let took = began.elapsed();
    ensure!(rebuilt.exists(), "the rebuilt file is missing");
    story.check(
        "every row is back as device 1 had it",
        data::same_rows(&reference, &rebuilt)?,
    );
    story.check(
        "every row is as on a device that is left",
        data::same_rows(&cluster.db(1), &rebuilt)?,
    );
    story.check("every edit is in it", edits.missing(&rebuilt)?.is_empty());
    story.check(
        "SQLite's integrity check passes",
        data::integrity(&rebuilt)?,
    );
    story.figure(
        "rebuilt from three of five devices",
        format!(
            "{} rows in {:.1} s",
            data::count_rows(&rebuilt)?,
            took.as_secs_f64()
        ),
    );
    Ok(())
}

fn summary(story: &Story) -> anyhow::Result<()> {
    println!("\n{:<52} seen", "what");
    println!("{:-<52} {:-<34}", "", "");
    for (what, value) in &story.figures {
        println!("{what:<52} {value}");
    }
    let failed = story.checks.iter().filter(|(_, held)| !held).count();
    let total = story.checks.len();
    println!("{:<52} {} of {total}", "checks that held", total - failed);
    println!(
        "{:<52} {:.1} s",
        "all of it",
        story.began.elapsed().as_secs_f64()
    );
    ensure!(failed == 0, "{failed} of {total} checks failed");
    println!("\nAll of it held.");
    Ok(())
}

fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "the demo says how long things took"
    )]
    Instant::now()
}
