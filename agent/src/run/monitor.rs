//! Tells readers of the API's events what the kernel programs see, for as long as there are readers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::{
    inspect::monitor::Names,
    kernel::{
        bpf::{ServiceMap, Watcher, uptime},
        tasks::Faults,
    },
    serve::{Events, Lost, Request},
};

/// How long events may wait in the ring: the programs wake nobody.
const LOOK: Duration = Duration::from_millis(50);
/// How often the programs are asked anew, and names are.
const ASK: Duration = Duration::from_secs(1);
/// For how long they are asked: longer than a look at everything takes.
const ASKED: Duration = Duration::from_secs(5);
/// Rest after something failed.
const REST: Duration = Duration::from_secs(1);

/// What it reads and where that goes.
pub(super) struct Monitor {
    pub(super) watcher: Watcher,
    pub(super) services: ServiceMap,
    pub(super) events: Events,
    /// To the main loop, which knows the services' names.
    pub(super) requests: mpsc::Sender<Request>,
}

impl Monitor {
    /// Starts it.
    pub(super) fn spawn(self, faults: &Faults) -> JoinHandle<()> {
        let monitor = Arc::new(Mutex::new(self));
        faults.keep("monitor", move || {
            let monitor = Arc::clone(&monitor);
            async move { monitor.lock().await.run().await }
        })
    }

    async fn run(&mut self) {
        let mut readers = self.events.readers();
        // The events outlive this task's need of them: an error means that the agent ends.
        while readers.wait_for(|&readers| readers > 0).await.is_ok() {
            if let Err(error) = self.follow().await {
                tracing::warn!("events of the kernel programs: {error:#}");
                sleep(REST).await;
            }
        }
    }

    /// Until the last reader has gone.
    async fn follow(&mut self) -> Result<()> {
        // What a predecessor has left is old.
        self.watcher.rest()?;
        let mut names = self.names().await?;
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = Instant::now();
        while *self.events.readers().borrow() > 0 {
            if Instant::now() >= due {
                due = Instant::now() + ASK;
                self.watcher.ask(ASKED)?;
                names = self.names().await?;
                self.tell_lost()?;
            }
            ticks.tick().await;
            self.tell(&names);
        }
        Ok(self.watcher.rest()?)
    }

    fn tell(&mut self, names: &Names) {
        while let Some(sighting) = self.watcher.take() {
            if let Some(event) = names.tell(&sighting, |index| self.services.vip_of(index)) {
                self.events.tell(&event);
            }
        }
    }

    fn tell_lost(&mut self) -> Result<()> {
        match self.watcher.untold()? {
            0 => {}
            lost => self.events.tell(&Lost::new(lost)),
        }
        Ok(())
    }

    async fn names(&self) -> Result<Names> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Services(answer)).await.context("asking for the services' names")?;
        let services = answered.await.context("asking for the services' names")?;
        let entries = services.map(|snapshot| snapshot.entries).unwrap_or_default();
        let named = entries.iter().map(|entry| (entry.wanted.vip, entry.wanted.name.clone()));
        Ok(Names::new(named.collect::<HashMap<_, _>>(), uptime()?))
    }
}
