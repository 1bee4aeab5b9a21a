//! The devices: processes of this program, each with its own file.

use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use syncline_engine::control::{Answer, Request, Snapshot, ask};
use syncline_engine::{Home, Status};
use tokio::time::sleep;

use super::{data, now};

const LISTEN: [&str; 4] = [
    "--listen",
    "/ip4/127.0.0.1/udp/0/quic-v1",
    "--listen",
    "/ip4/127.0.0.1/tcp/0",
];
/// How long anything may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

pub(super) struct Cluster {
    folder: PathBuf,
    devices: Vec<Device>,
}

struct Device {
    /// `None` once it is lost.
    process: Option<Child>,
    db: PathBuf,
    log: PathBuf,
}

impl Cluster {
    pub(super) fn new(folder: PathBuf) -> Self {
        Cluster {
            folder,
            devices: vec![],
        }
    }

    pub(super) fn db(&self, device: usize) -> PathBuf {
        self.devices[device].db.clone()
    }

    /// Starts the first device and returns its ticket and what it says of the tables.
    pub(super) async fn share(&mut self, original: &Path) -> anyhow::Result<(String, Vec<String>)> {
        let db = self.folder.join("device1.db");
        std::fs::copy(original, &db)?;
        self.start("share", &[], db)?;
        let process = self.devices[0].process.as_mut();
        let stdout = process.and_then(|process| process.stdout.take());
        let stdout = stdout.context("the first device has no output")?;
        let mut ticket = String::new();
        BufReader::new(stdout).read_line(&mut ticket)?;
        if !ticket.starts_with("syncline1") {
            bail!("device 1 printed no ticket");
        }
        let report = std::fs::read_to_string(&self.devices[0].log)?;
        let report = report
            .lines()
            .take_while(|line| !line.is_empty())
            .map(str::to_owned);
        Ok((ticket.trim().to_owned(), report.collect()))
    }

    /// Starts a further device.
    pub(super) fn join(&mut self, ticket: &str) -> anyhow::Result<()> {
        let db = self
            .folder
            .join(format!("device{}.db", self.devices.len() + 1));
        self.start("join", &[ticket], db)
    }

    fn start(&mut self, command: &str, arguments: &[&str], db: PathBuf) -> anyhow::Result<()> {
        let log = db.with_extension("log");
        let process = Command::new(std::env::current_exe()?)
            .arg(command)
            .args(LISTEN)
            .args(arguments)
            .arg(&db)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .context("a device could not be started")?;
        self.devices.push(Device {
            process: Some(process),
            db,
            log,
        });
        Ok(())
    }

    /// Waits until these devices, and only they, agree and know that they do.
    pub(super) async fn converged(&self, devices: Range<usize>, what: &str) -> anyhow::Result<()> {
        let began = now();
        let mut last = String::new();
        while began.elapsed() < PATIENCE {
            match self.agree(devices.clone()).await {
                Ok(None) => return Ok(()),
                Ok(Some(why)) => last = why,
                // A device that just starts does not answer yet.
                Err(error) => last = format!("{error:#}"),
            }
            sleep(LOOK).await;
        }
        bail!(
            "{what} did not arrive everywhere within {} s: {last}",
            PATIENCE.as_secs()
        )
    }

    /// Returns why these devices do not agree; `None` if they do.
    async fn agree(&self, devices: Range<usize>) -> anyhow::Result<Option<String>> {
        let mut statuses = Vec::new();
        for device in devices.clone() {
            statuses.push(self.status(device).await?);
        }
        for (status, device) in statuses.iter().zip(devices.clone()) {
            if status.pending_count > 0 || !status.waiting.is_empty() {
                return Ok(Some(format!(
                    "device {} has unsent or waiting changes",
                    device + 1
                )));
            }
            if status.peers.len() + 1 != devices.len() {
                let count = status.peers.len();
                return Ok(Some(format!(
                    "device {} is connected with {count}",
                    device + 1
                )));
            }
            if status
                .peers
                .iter()
                .any(|peer| peer.ahead_count > 0 || peer.lacks_count > 0)
            {
                return Ok(Some(format!("device {} is behind or ahead", device + 1)));
            }
        }
        let same = statuses
            .iter()
            .all(|status| status.digest == statuses[0].digest);
        Ok(if same {
            None
        } else {
            Some("the digests differ".to_owned())
        })
    }

    async fn status(&self, device: usize) -> anyhow::Result<Status> {
        match ask(&Home::of(&self.devices[device].db), &Request::Status).await? {
            Answer::Status(status) => Ok(*status),
            answer => bail!("device {} answered {answer:?}", device + 1),
        }
    }

    /// Returns every device's digest.
    pub(super) async fn digests(&self) -> anyhow::Result<Vec<String>> {
        let mut digests = Vec::new();
        for device in 0..self.devices.len() {
            digests.push(self.status(device).await?.digest);
        }
        Ok(digests)
    }

    /// Cuts the connections between the groups.
    pub(super) async fn part(&self, groups: &[&[usize]]) -> anyhow::Result<()> {
        self.for_pairs(groups, |peer| Request::Block { peer }).await
    }

    /// Lets every device connect with every other again.
    pub(super) async fn heal(&self) -> anyhow::Result<()> {
        let single: Vec<[usize; 1]> = (0..self.devices.len()).map(|device| [device]).collect();
        let single: Vec<&[usize]> = single.iter().map(|device| &device[..]).collect();
        self.for_pairs(&single, |peer| Request::Unblock { peer })
            .await
    }

    async fn for_pairs(
        &self,
        groups: &[&[usize]],
        request: impl Fn(String) -> Request,
    ) -> anyhow::Result<()> {
        let mut names = Vec::new();
        for device in 0..self.devices.len() {
            names.push(self.status(device).await?.peer);
        }
        for group in groups {
            for other in groups.iter().filter(|other| other != &group) {
                for device in *group {
                    for peer in *other {
                        let home = Home::of(&self.devices[*device].db);
                        ask(&home, &request(names[*peer].clone())).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a snapshot.
    pub(super) async fn snapshot(&self, device: usize) -> anyhow::Result<Snapshot> {
        match ask(&Home::of(&self.devices[device].db), &Request::Snapshot).await? {
            Answer::Snapshot(snapshot) => {
                snapshot
                    .failed
                    .iter()
                    .for_each(|failed| println!("    not placed: {failed}"));
                Ok(snapshot)
            }
            answer => bail!("no snapshot was taken: {answer:?}"),
        }
    }

    /// Returns the bytes of the slice files of these devices.
    pub(super) fn symbol_bytes(&self, devices: Range<usize>) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for device in devices {
            let folder = Home::of(&self.devices[device].db).folder().join("symbols");
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().ends_with(".slice") {
                    bytes += entry.metadata()?.len();
                }
            }
        }
        Ok(bytes)
    }

    /// Copies a device's rows aside, to compare with later.
    pub(super) fn keep_copy(&self, device: usize) -> anyhow::Result<PathBuf> {
        let copy = self.folder.join("kept.db");
        data::copy(&self.devices[device].db, &copy)?;
        Ok(copy)
    }

    /// Kills a device as a broken disk would, and deletes all its files.
    pub(super) fn lose(&mut self, device: usize) -> anyhow::Result<()> {
        let lost = &mut self.devices[device];
        if let Some(mut process) = lost.process.take() {
            process.kill()?;
            process.wait()?;
        }
        for ending in ["", "-wal", "-shm", "-journal"] {
            let mut path = lost.db.as_os_str().to_owned();
            path.push(ending);
            let path = PathBuf::from(path);
            if path.exists() {
                std::fs::remove_file(&path)?;
            }
        }
        std::fs::remove_dir_all(Home::of(&lost.db).folder())?;
        Ok(())
    }

    /// Returns a ticket from a device.
    pub(super) async fn ticket(&self, device: usize) -> anyhow::Result<String> {
        match ask(&Home::of(&self.devices[device].db), &Request::Ticket).await? {
            Answer::Ticket { text } => Ok(text),
            answer => bail!("device {} gave no ticket: {answer:?}", device + 1),
        }
    }

    /// Rebuilds the database in a new file, in a process of its own.
    pub(super) async fn restore(&self, ticket: &str) -> anyhow::Result<PathBuf> {
        let db = self.folder.join("rebuilt.db");
        let program = std::env::current_exe()?;
        let output = tokio::process::Command::new(program)
            .arg("restore")
            .args(LISTEN)
            .arg(ticket)
            .arg(&db)
            .stdin(Stdio::null())
            .output()
            .await?;
        if !output.status.success() {
            bail!(
                "restore failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let said = String::from_utf8_lossy(&output.stdout);
        said.lines().for_each(|line| {
            println!("    {}", line.replace(&*self.folder.to_string_lossy(), "."))
        });
        Ok(db)
    }

    /// Prints what the devices said, after a failure.
    pub(super) fn print_logs(&self) {
        for (number, device) in self.devices.iter().enumerate() {
            let said = std::fs::read_to_string(&device.log).unwrap_or_default();
            let tail: Vec<&str> = said.lines().rev().take(12).collect();
            eprintln!("device {} said last:", number + 1);
            tail.iter().rev().for_each(|line| eprintln!("    {line}"));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self
            .devices
            .iter_mut()
            .filter_map(|device| device.process.as_mut())
        {
            // A process that ended by itself cannot be killed, and need not be.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
