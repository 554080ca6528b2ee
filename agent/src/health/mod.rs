//! Health checks: this node checks backends of its services, and tells what it finds.
//!
//! A thread of its own ([`task`]) follows what services there are, decides which of their backends this node checks ([`targets`]),
//! makes the checks that `control::health` says are due ([`probe`]), and tells what changes: to the cluster, whose records bring
//! together what members find, or without one to the event loop. A check begins as its backend counts by then, so that a restart
//! takes nobody out. The last results are there for readers ([`results`]).

mod probe;
mod results;
mod targets;
mod task;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use control::{
    desired::{Desired, Name},
    health::{Check, State},
};
use tokio::sync::{mpsc, oneshot, watch};

use self::probe::{Prober, Subject};
pub use self::results::{BOUNDS, Found, Last, Results, Totals};
use crate::{cluster, kernel::tasks::Faults};

/// News that wait for the event loop; then the thread keeps them.
const WAITING: usize = 16;
/// How long the thread may take to end.
const END: Duration = Duration::from_secs(1);
/// Turns among the news that wait: of more, the last are told.
const TURNS: usize = 1_024;

/// What checks have found, for the event loop.
#[derive(Debug, Default)]
pub struct News {
    /// Without a cluster: services of which something else was found, with all that was: backends, and whether they are up.
    pub found: BTreeMap<Name, BTreeMap<SocketAddr, bool>>,
    /// All of it: nothing is known of services that are not among them.
    pub is_whole: bool,
    /// Backends that went up or down.
    pub turns: Vec<Turned>,
}

/// A backend that went up or down by its check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// When.
    pub time: SystemTime,
    /// The service's name.
    pub service: Name,
    /// The backend.
    pub backend: SocketAddr,
    /// How it was.
    pub former: State,
    /// How it is.
    pub state: State,
    /// What the last check has seen.
    pub said: String,
}

/// The running checks.
#[derive(Debug)]
pub struct Health {
    desired: watch::Sender<Arc<Desired>>,
    news: mpsc::Receiver<News>,
    reader: Reader,
    /// Ends with the thread.
    ended: oneshot::Receiver<Infallible>,
}

impl Health {
    /// Starts checking what is desired.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub fn start(cluster: watch::Receiver<Option<cluster::Reader>>, faults: &Faults) -> io::Result<Self> {
        let (output, desired) = watch::channel(Arc::default());
        let (telling, news) = mpsc::channel(WAITING);
        let reader = Reader::default();
        let own = reader.clone();
        let (runs, ended) = oneshot::channel();
        faults.keep_thread("health", move || {
            let _runs = &runs;
            task::run(desired.clone(), cluster.clone(), &telling, &own);
        })?;
        Ok(Self { desired: output, news, reader, ended })
    }

    /// Checks the backends of these services.
    pub fn follow(&self, desired: &Arc<Desired>) {
        self.desired.send_if_modified(|former| {
            let is_other = !Arc::ptr_eq(former, desired);
            if is_other {
                former.clone_from(desired);
            }
            is_other
        });
    }

    /// What was found since; for ever where nothing more comes. Dropping this loses nothing.
    pub async fn news(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }

    /// Makes no more checks; programs that are under way are killed.
    pub async fn stop(&mut self) {
        // The thread ends with who says what there is to check.
        self.desired = watch::Sender::default();
        drop(tokio::time::timeout(END, &mut self.ended).await);
    }

    /// For readers.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }
}

/// What readers have of the checks; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// What they have found.
    pub results: Results,
    prober: Prober,
}

/// What one check has seen that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether it passed.
    pub passed: bool,
    /// What it has seen, in one line.
    pub said: String,
    /// How long it took.
    pub took: Duration,
    /// What a program has written.
    pub output: Option<String>,
}

impl Reader {
    /// Checks what an announcement stands for.
    pub async fn check_announcement(&self, check: &Check, name: &str, target: SocketAddr) -> Seen {
        let outcome = self.prober.make(check, &Subject::announcement(name, target), false).await;
        Seen { passed: outcome.passed, said: outcome.said, took: outcome.took, output: None }
    }

    /// Checks a backend of a service now, beside all other checks; that does not count.
    pub async fn check(&self, check: &Check, service: &str, backend: SocketAddr) -> Seen {
        let outcome = self.prober.make(check, &Subject::backend(service, backend), true).await;
        Seen { passed: outcome.passed, said: outcome.said, took: outcome.took, output: outcome.output }
    }
}
