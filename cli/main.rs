//! The `syncline` program: a door to the engine, without logic of its own.

mod demo;
mod failure;
mod interrupt;
mod join;
mod leave;
mod node;
mod restore;
mod screen;
mod share;
mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use syncline_engine::{Chosen, Multiaddr, Options};

use failure::Failure;

/// Makes an ordinary SQLite database conflict-free, syncs it between devices, and keeps it alive on
/// them.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// A cr-sqlite extension to use as the database's CRR layer, in place of Syncline's own; all
    /// devices of a database use one, or none does. Its code runs with all your rights.
    #[arg(long, global = true, value_name = "FILE")]
    crr_extension: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Shares a database: tracks its tables, prints a ticket for other devices, and serves it.
    Share {
        /// The database's file.
        db: PathBuf,
        /// A table to track; may be repeated. Without it, every table that can be. How it is
        /// tracked may follow, as --table 'note={"ids":"counted"}'.
        #[arg(long = "table", value_name = "NAME[=OPTIONS]", value_parser = Chosen::parse)]
        tables: Vec<Chosen>,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Takes part in a database that another device shares, and serves it.
    Join {
        /// What `syncline share` printed there, or `-` to read it from standard input.
        ticket: String,
        /// The file to keep it in; made if there is none.
        db: PathBuf,
        /// Ends as soon as everything is here.
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Serves a database that takes part already.
    Serve {
        /// The database's file.
        db: PathBuf,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Prints a ticket for further devices, from the process that serves the database.
    Ticket {
        /// The database's file.
        db: PathBuf,
    },
    /// Takes a snapshot and spreads it over the connected devices, so that some of them may be lost.
    Snapshot {
        /// The database's file.
        db: PathBuf,
    },
    /// Shows the tables, devices, log and snapshots of a database.
    Status {
        /// The database's file.
        db: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Makes a database an ordinary file again.
    Leave {
        /// The database's file.
        db: PathBuf,
    },
    /// Brings a lost database back from the snapshot's pieces on the other devices.
    Restore {
        /// A ticket from any device that is left, or `-` to read it from standard input.
        ticket: String,
        /// The file to make.
        db: PathBuf,
        /// How many seconds to wait for devices that are not there yet.
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        patience: u32,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Shows all of it on this machine: five devices, conflicts, a partition, loss, recovery.
    Demo {
        /// A database to show it with, instead of one that is made; it is copied, not touched.
        #[arg(long, value_name = "FILE")]
        db: Option<PathBuf>,
    },
}

#[derive(Args)]
struct NetworkArgs {
    /// An address to listen on, such as /ip4/0.0.0.0/udp/4001/quic-v1; may be repeated. Without it,
    /// a free port of every interface.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<Multiaddr>,
}

impl NetworkArgs {
    fn options(self, crr_extension: Option<&Path>) -> Options {
        Options {
            listen: self.listen,
            crr_extension: crr_extension.map(Path::to_owned),
            ..Options::default()
        }
    }
}

fn main() -> ExitCode {
    // Only a usage error ends here, with exit code 2.
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("SYNCLINE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    std::panic::set_hook(Box::new(failure::report_bug));
    match std::panic::catch_unwind(|| run(cli)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => Failure::of(&error).report(),
        Err(_) => ExitCode::from(failure::BUG),
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let crr_extension = cli.crr_extension.as_deref();
    if let Some(file) = crr_extension.filter(|file| !file.exists()) {
        anyhow::bail!("there is no file `{}`", file.display());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Share {
                db,
                tables,
                network,
            } => share::run(&db, &tables, network.options(crr_extension)).await,
            Command::Join {
                ticket,
                db,
                once,
                network,
            } => join::run(&ticket, &db, once, network.options(crr_extension)).await,
            Command::Serve { db, network } => {
                node::serve(&db, network.options(crr_extension)).await
            }
            Command::Ticket { db } => node::ticket(&db).await,
            Command::Snapshot { db } => node::snapshot(&db).await,
            Command::Status { db, json } => status::run(&db, json, crr_extension).await,
            Command::Leave { db } => leave::run(&db, crr_extension),
            Command::Restore {
                ticket,
                db,
                patience,
                network,
            } => {
                let patience = Duration::from_secs(patience.into());
                restore::run(&ticket, &db, patience, network.options(crr_extension)).await
            }
            Command::Demo { db } => demo::run(db.as_deref()).await,
        }
    });
    // A thread that waits for a slow disk must not hold the prompt.
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}
