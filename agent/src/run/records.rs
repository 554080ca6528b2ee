//! The agent's records, for `status` when no agent runs: written beside the event loop, the latest of what there is to say.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
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
    agent: watch::Receiver<AgentRecord>,
    services: watch::Receiver<View>,
    path: PathBuf,
    /// Held while a file is written: two that write one at a time hinder each other, and the older text may be the last.
    writing: Arc<Mutex<()>>,
}

impl Records {
    pub(super) fn new(
        agent: watch::Receiver<AgentRecord>,
        services: watch::Receiver<View>,
        path: PathBuf,
    ) -> Self {
        Self { agent, services, path, writing: Arc::default() }
    }

    /// Starts writing them whenever they say something new.
    pub(super) fn start(&self, faults: &Faults) {
        let agent = self.clone();
        drop(faults.keep("record of the agent", move || agent.clone().keep_agent()));
        let services = self.clone();
        drop(faults.keep("record of services", move || services.clone().keep_services()));
    }

    async fn keep_agent(mut self) {
        loop {
            self.agent.mark_unchanged();
            let records = self.clone();
            // One that panicked has said so.
            drop(tokio::task::spawn_blocking(move || records.write_agent()).await);
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
                let (records, start) = (self.clone(), Instant::now());
                drop(tokio::task::spawn_blocking(move || records.write_services()).await);
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
        let records = self.clone();
        let writing = tokio::task::spawn_blocking(move || {
            records.write_agent();
            records.write_services();
        });
        drop(writing.await);
    }

    fn write_agent(&self) {
        self.write(&self.path, || self.agent.borrow().clone().write(&self.path));
    }

    fn write_services(&self) {
        let path = Path::new(SERVICES_FILE);
        self.write(path, || write_services(path, self.services.borrow().clone().states()));
    }

    /// Writes what is to be said when its turn has come.
    fn write(&self, path: &Path, write: impl FnOnce() -> io::Result<()>) {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = write() {
            tracing::warn!("{}: {error}", path.display());
        }
    }
}

fn is_same(former: &View, now: &View) -> bool {
    let is_same =
        Arc::ptr_eq(&former.desired, &now.desired) || former.desired.entries().eq(now.desired.entries());
    is_same && former.failed == now.failed
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn of_records_that_are_written_at_one_time_the_latest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.json");
        let (says, agent) = watch::channel(AgentRecord::default());
        let records = Records::new(agent, watch::channel(View::default()).1, path.clone());
        for pid in 1..=200 {
            says.send_modify(|record| record.pid = pid);
            thread::scope(|scope| {
                for _writer in 0..2 {
                    scope.spawn(|| records.write_agent());
                }
            });
            let (record, _) = AgentRecord::read(&path).unwrap().expect("a record");
            assert_eq!(record.pid, pid);
        }
    }
}
