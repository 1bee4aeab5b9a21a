//! How long replicas need to agree: on the simulated network, where the figures are the same on
//! every machine, and as real nodes over loopback.

#[path = "../tests/harness/mod.rs"]
#[expect(dead_code, reason = "the tests use the rest of it")]
mod harness;

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use harness::load::{Load, converge};
use rusqlite::Connection;
use syncline_engine::trust::DatabaseSecret;
use syncline_engine::{Home, Node, Options, track_tables};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Replicas, and transactions that each of them writes at once.
const LOADS: [(usize, usize); 6] = [(2, 10), (2, 100), (3, 100), (5, 10), (5, 100), (7, 100)];
/// Nodes over loopback, and transactions that each of them writes at once.
const LOOPBACK: [(usize, usize); 4] = [(2, 1), (2, 100), (5, 1), (5, 100)];
const LOOK: Duration = Duration::from_millis(1);

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut lines = simulated(&mut criterion);
    lines.extend(over_loopback(&mut criterion));
    criterion.final_summary();
    println!("\nuntil digests agree:");
    lines.iter().for_each(|line| println!("  {line}"));
}

fn simulated(criterion: &mut Criterion) -> Vec<String> {
    let mut lines = Vec::new();
    let mut group = criterion.benchmark_group("simulated");
    group.sampling_mode(SamplingMode::Flat);
    for (nodes_count, transactions_count) in LOADS {
        let load = Load {
            nodes_count,
            transactions_count,
            // By the sessions alone: with gossip that loses nothing it is one hop.
            has_gossip: false,
        };
        let name = format!("{nodes_count} replicas, {transactions_count} transactions each");
        let found = converge(load);
        lines.push(format!(
            "simulated, {name}: {} ms at 1 ms a frame, {:?}",
            found.virtual_ms, found.traffic
        ));
        group.bench_function(&name, |bencher| bencher.iter(|| converge(load)));
    }
    group.finish();
    lines
}

/// Nodes in one process, each with its own file, all connected.
struct Mesh {
    nodes: Vec<Node>,
    folder: TempDir,
    /// The next row that a transaction adds.
    next: i64,
}

impl Mesh {
    async fn start(count: usize) -> Mesh {
        let folder = tempfile::tempdir().expect("a folder for the files");
        let first = folder.path().join("0.db");
        let schema = "PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)";
        Connection::open(&first)
            .and_then(|conn| conn.execute_batch(schema))
            .expect("a file");
        track_tables(&first, &[], None).expect("the table is tracked");
        let opened = Home::of(&first)
            .create(|identity| Ok(DatabaseSecret::generate(identity.public_key())?))
            .expect("a new folder");
        let mut mesh = Mesh {
            nodes: vec![start(opened, None).await],
            folder,
            next: 0,
        };
        let ticket = mesh.nodes[0].ticket().await.expect("a ticket");
        for at in 1..count {
            let file = mesh.folder.path().join(format!("{at}.db"));
            let home = Home::of(&file);
            let opened = home
                .create(|_| Ok(ticket.secret().clone()))
                .expect("a new folder");
            mesh.nodes.push(start(opened, Some(&ticket)).await);
        }
        mesh.connected().await;
        mesh
    }

    async fn connected(&self) {
        let count = self.nodes.len();
        for node in &self.nodes {
            while node.status().await.expect("status").peers.len() + 1 < count {
                tokio::time::sleep(LOOK).await;
            }
        }
        self.agreed().await;
    }

    async fn agreed(&self) {
        loop {
            let mut digests = Vec::new();
            for node in &self.nodes {
                digests.push(node.digest().await.expect("digest"));
            }
            if digests.iter().all(|digest| *digest == digests[0]) && self.has_rows() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Equal digests before anything was written would prove nothing.
    fn has_rows(&self) -> bool {
        let last = self
            .folder
            .path()
            .join(format!("{}.db", self.nodes.len() - 1));
        let count = "SELECT count(*) FROM t";
        let count =
            Connection::open(last).and_then(|conn| conn.query_one(count, [], |row| row.get(0)));
        count.is_ok_and(|count: i64| count == self.next)
    }

    /// Writes on every file and returns how long it took until all agreed.
    async fn round(&mut self, transactions_count: usize) -> Duration {
        for at in 0..self.nodes.len() {
            let file = self.folder.path().join(format!("{at}.db"));
            let conn = Connection::open(file).expect("the file opens");
            conn.busy_timeout(Duration::from_secs(10))
                .expect("a timeout is set");
            for _ in 0..transactions_count {
                self.next += 1;
                conn.execute("INSERT INTO t VALUES(?1, 'some text')", [self.next])
                    .expect("write");
            }
        }
        let began = now();
        self.agreed().await;
        began.elapsed()
    }
}

async fn start(
    opened: syncline_engine::OpenHome,
    ticket: Option<&syncline_engine::trust::Ticket>,
) -> Node {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")];
    let options = Options {
        listen,
        ..Options::default()
    };
    let options = match ticket {
        Some(ticket) => options.dialing(ticket),
        None => options,
    };
    Node::start(opened, options).await.expect("the node starts")
}

fn over_loopback(criterion: &mut Criterion) -> Vec<String> {
    let runtime = Runtime::new().expect("a runtime");
    let mut lines = Vec::new();
    let mut group = criterion.benchmark_group("loopback");
    group.sampling_mode(SamplingMode::Flat);
    for (nodes_count, transactions_count) in LOOPBACK {
        let name = format!("{nodes_count} nodes, {transactions_count} transactions each");
        let mut mesh = runtime.block_on(Mesh::start(nodes_count));
        let mut times = Vec::new();
        group.bench_function(&name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    let took = runtime.block_on(mesh.round(transactions_count));
                    times.push(took);
                    total += took;
                }
                total
            });
        });
        times.sort();
        // A filter on the command line leaves cases out.
        if let (Some(median), Some(last)) = (times.get(times.len() / 2), times.last()) {
            lines.push(format!(
                "loopback, {name}: median {median:.1?}, longest {last:.1?}"
            ));
        }
        runtime.block_on(async {
            for node in &mesh.nodes {
                node.stop().await.expect("the node stops");
            }
        });
    }
    group.finish();
    lines
}

fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "the bench measures how long things take"
    )]
    Instant::now()
}
