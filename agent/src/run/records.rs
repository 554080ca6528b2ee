//! The agent's records, for `status` when no agent runs: written beside the event loop, the latest of what there is to say.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use crate::{
    inspect::status::{AgentRecord, SERVICES_FILE, write_services},
    kernel::tasks::Faults,
    serve::View,
};

/// Rest between two writes of services.
const REST: Duration = Duration::from_millis(80);
/// As many times as long as the last write took is the least rest: ten thousand services that come one by one would keep a
/// processor busy with records alone.
const REST_BY_WRITE: u32 = 9;

/// What is recorded.
#[derive(Clone, Debug)]
pub(super) struct Records {
    pub(super) agent: watch::Receiver<AgentRecord>,
    pub(super) services: watch::Receiver<View>,
    pub(super) path: PathBuf,
}

impl Records {
    /// Starts writing them whenever they say something new.
    pub(super) fn start(&self, faults: &Faults) {
        let agent = self.clone();
        drop(faults.keep("record of the agent", move || agent.clone().keep_agent()));
        let services = self.clone();
        drop(faults.keep("record of services", move || services.clone().keep_services()));
    }

    async fn keep_agent(mut self) {
        loop {
            let (agent, path) = (self.agent.borrow_and_update().clone(), self.path.clone());
            // One that panicked has said so.
            drop(tokio::task::spawn_blocking(move || write_agent(&path, &agent)).await);
            if self.agent.changed().await.is_err() {
                return;
            }
        }
    }

    async fn keep_services(mut self) {
        let mut written: Option<View> = None;
        loop {
            let services = self.services.borrow_and_update().clone();
            if written.as_ref().is_none_or(|written| !is_same(written, &services)) {
                let (own, start) = (services.clone(), Instant::now());
                drop(tokio::task::spawn_blocking(move || write(&own)).await);
                written = Some(services);
                sleep(REST.max(REST_BY_WRITE * start.elapsed())).await;
            }
            if self.services.changed().await.is_err() {
                return;
            }
        }
    }

    /// Writes them before anything else happens.
    pub(super) async fn write_now(&self) {
        let (agent, services) = (self.agent.borrow().clone(), self.services.borrow().clone());
        let path = self.path.clone();
        let writing = tokio::task::spawn_blocking(move || {
            write_agent(&path, &agent);
            write(&services);
        });
        drop(writing.await);
    }
}

fn is_same(former: &View, now: &View) -> bool {
    let is_same =
        Arc::ptr_eq(&former.desired, &now.desired) || former.desired.entries().eq(now.desired.entries());
    is_same && former.failed == now.failed
}

fn write_agent(path: &Path, agent: &AgentRecord) {
    if let Err(error) = agent.write(path) {
        tracing::warn!("{}: {error}", path.display());
    }
}

fn write(services: &View) {
    if let Err(error) = write_services(Path::new(SERVICES_FILE), services.states()) {
        tracing::warn!("{SERVICES_FILE}: {error}");
    }
}
