//! Talks to a running node from another process of the same user: one JSON object a line, over a
//! Unix socket that only its owner can reach.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use crate::home::{Home, HomeError};
use crate::node::{Node, NodeError, Status};

/// The most bytes a request may have.
pub const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// The most bytes an answer may have.
pub const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What can be asked of a running node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Its state.
    Status,
    /// A ticket for further devices.
    Ticket,
    /// A snapshot, taken now and spread over the connected members.
    Snapshot,
    /// No connection with a member, until `unblock`.
    Block {
        /// The member's name in the network.
        peer: String,
    },
    /// The member back.
    Unblock {
        /// Its name in the network.
        peer: String,
    },
    /// Its end.
    Stop,
}

/// What a node answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// Its state.
    Status(Box<Status>),
    /// A ticket: a secret.
    Ticket {
        /// Its text.
        text: String,
    },
    /// What became of the snapshot.
    Snapshot(Snapshot),
    /// It is done.
    Done,
    /// It is not done.
    Failed {
        /// Why, and what caused that.
        reasons: Vec<String>,
    },
}

/// A snapshot that was spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id in hexadecimal.
    pub id: String,
    /// The bytes of the sealed object.
    pub bytes: u64,
    /// How many slices bring it back.
    pub slices_needed: u8,
    /// How many were made.
    pub slices_total: u8,
    /// Who holds them, by slot.
    pub holders: Vec<String>,
    /// Who did not take one, and why.
    pub failed: Vec<String>,
    /// How many of the holders may be lost.
    pub losses_survived: usize,
}

/// Why a running node gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No node runs on this database.
    #[error("no syncline process serves `{}`", database.display())]
    NotRunning {
        /// The database.
        database: PathBuf,
    },
    /// The folder of the database cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The connection broke.
    #[error("the running node did not answer")]
    Io(#[from] io::Error),
    /// The answer is none.
    #[error("the running node answered something else; is it of another version?")]
    Answer(#[from] serde_json::Error),
}

/// Asks the node that runs on a database.
///
/// # Errors
///
/// [`AskError::NotRunning`] if there is none; see [`AskError`].
pub async fn ask(home: &Home, request: &Request) -> Result<Answer, AskError> {
    let not_running = || AskError::NotRunning {
        database: home.database().to_owned(),
    };
    if !home.exists() {
        return Err(HomeError::Absent {
            database: home.database().to_owned(),
        }
        .into());
    }
    let mut stream = UnixStream::connect(home.socket()?)
        .await
        .map_err(|_| not_running())?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    BufReader::new(stream)
        .take(ANSWER_BYTES_MAX)
        .read_until(b'\n', &mut answer)
        .await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// The socket of a running node; its file goes when this is dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Begins to listen. Only for whoever has the folder open: a socket that a killed process left
    /// is replaced.
    ///
    /// # Errors
    ///
    /// If the socket cannot be made.
    pub fn bind(home: &Home) -> Result<Self, HomeError> {
        let path = home.socket()?;
        let at = |source| HomeError::Io {
            path: path.clone(),
            source,
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(at)?,
        }
        let listener = UnixListener::bind(&path).map_err(at)?;
        Ok(Control { listener, path })
    }

    /// Returns where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers requests until one asks the node to stop.
    pub async fn serve(&self, node: Arc<Node>) {
        let stop = Arc::new(Notify::new());
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let (node, stop) = (Arc::clone(&node), Arc::clone(&stop));
                        tokio::spawn(async move {
                            if let Err(error) = answer(&node, &stop, stream).await {
                                tracing::info!(%error, "a request was not answered");
                            }
                        });
                    }
                    Err(error) => tracing::warn!(%error, "a request was not accepted"),
                },
                () = stop.notified() => return,
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Whoever comes next replaces what is left.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(node: &Node, stop: &Notify, stream: UnixStream) -> Result<(), AskError> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    BufReader::new(reader)
        .take(REQUEST_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .await?;
    let request: Result<Request, _> = serde_json::from_slice(&line);
    let answer = match &request {
        Ok(request) => act(node, request).await,
        Err(error) => Answer::Failed {
            reasons: vec![format!("not a request: {error}")],
        },
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.shutdown().await?;
    if matches!(request, Ok(Request::Stop)) {
        stop.notify_one();
    }
    Ok(())
}

async fn act(node: &Node, request: &Request) -> Answer {
    let done = match request {
        Request::Status => node
            .status()
            .await
            .map(|status| Answer::Status(Box::new(status))),
        Request::Ticket => node.ticket().await.map(|ticket| Answer::Ticket {
            text: ticket.to_text().to_string(),
        }),
        Request::Snapshot => node
            .snapshot(|_| {})
            .await
            .map(|s| Answer::Snapshot(Snapshot::from(s))),
        Request::Block { peer } => match peer.parse() {
            Ok(peer) => node.block(peer).await.map(|()| Answer::Done),
            Err(_) => return unknown_peer(peer),
        },
        Request::Unblock { peer } => match peer.parse() {
            Ok(peer) => node.unblock(peer).await.map(|()| Answer::Done),
            Err(_) => return unknown_peer(peer),
        },
        Request::Stop => Ok(Answer::Done),
    };
    done.unwrap_or_else(|error| Answer::Failed {
        reasons: reasons(&error),
    })
}

fn unknown_peer(peer: &str) -> Answer {
    Answer::Failed {
        reasons: vec![format!("`{peer}` is not the name of a peer")],
    }
}

fn reasons(error: &NodeError) -> Vec<String> {
    let mut reasons = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reasons.push(cause.to_string());
        source = cause.source();
    }
    reasons
}

impl From<crate::cold::Spread> for Snapshot {
    fn from(spread: crate::cold::Spread) -> Self {
        Snapshot {
            id: spread.snapshot.to_string(),
            bytes: spread.bytes,
            slices_needed: spread.slices_needed,
            slices_total: spread.slices_total,
            holders: spread
                .holders
                .iter()
                .map(|(_, peer)| peer.to_string())
                .collect(),
            failed: spread
                .failed
                .iter()
                .map(|(peer, why)| format!("{peer}: {why}"))
                .collect(),
            losses_survived: spread.losses_survived,
        }
    }
}
