//! Gives the blocking replica a thread of its own.

use std::thread;

use tokio::sync::{mpsc, oneshot};

use crate::replica::Replica;

/// How many jobs wait for the replica before their senders do.
const JOBS_MAX: usize = 64;

type Job = Box<dyn FnOnce(&mut Replica) + Send>;

/// A handle to the replica's thread, which ends with the last handle.
#[derive(Clone)]
pub(crate) struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// Moves a replica to its own thread.
    pub(crate) fn start(mut replica: Replica) -> Self {
        let (jobs, mut inbox) = mpsc::channel::<Job>(JOBS_MAX);
        thread::spawn(move || {
            while let Some(job) = inbox.blocking_recv() {
                job(&mut replica);
            }
        });
        Store { jobs }
    }

    /// Runs a job on the replica and returns what it returns.
    ///
    /// # Panics
    ///
    /// If a job panicked before: the replica is gone then, and the node must not go on.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Replica) -> T + Send + 'static,
    ) -> T {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |replica| {
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(job(replica));
        });
        let sent = self.jobs.send(job).await;
        assert!(sent.is_ok(), "the replica's thread has stopped");
        answer
            .await
            .expect("the replica's thread answers every job")
    }
}
