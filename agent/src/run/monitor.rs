//! Tells readers of the API's events what the kernel programs see, for as long as there are readers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Result;
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::{
    inspect::monitor::Names,
    kernel::{bpf::uptime, tasks::Faults},
    node::writer::Watched,
    serve::{Events, Lost, View},
};

/// Its name among tasks.
const TASK: &str = "monitor";
/// How long events may wait in the ring: the programs wake nobody.
const PERIOD: Duration = Duration::from_millis(50);
/// How often the programs are asked anew, and names are.
const ASK: Duration = Duration::from_secs(1);
/// For how long they are asked: longer than a pass takes.
const ASKED: Duration = Duration::from_secs(5);
/// Rest after something failed.
const REST: Duration = Duration::from_secs(1);

/// What it reads and where that goes.
pub(super) struct Monitor {
    /// The programs to ask; others with each datapath.
    watched: mpsc::Receiver<Option<Watched>>,
    /// Those that are asked.
    current: Option<Watched>,
    /// The services' names.
    view: watch::Receiver<View>,
    events: Events,
    /// Where it is noted that the programs can't be heard.
    faults: Faults,
}

impl Monitor {
    /// Starts it; it ends when no datapath can come any more.
    pub(super) fn start(
        watched: mpsc::Receiver<Option<Watched>>,
        view: watch::Receiver<View>,
        events: Events,
        faults: &Faults,
    ) {
        let monitor = Self { watched, current: None, view, events, faults: faults.clone() };
        let monitor = Arc::new(Mutex::new(monitor));
        drop(faults.keep(TASK, move || {
            let monitor = Arc::clone(&monitor);
            async move { monitor.lock().await.run().await }
        }));
    }

    async fn run(&mut self) {
        loop {
            tokio::select! {
                other = self.watched.recv() => match other {
                    Some(other) => self.current = other,
                    None => return,
                },
                () = follow(self.current.as_mut(), &self.events, &self.view, &self.faults) => {}
            }
        }
    }
}

/// Follows one datapath for ever.
async fn follow(
    watched: Option<&mut Watched>,
    events: &Events,
    view: &watch::Receiver<View>,
    faults: &Faults,
) {
    let Some(watched) = watched else { return std::future::pending().await };
    let mut readers = events.readers();
    // The events outlive this task's need of them: an error means that the agent ends.
    while readers.wait_for(|&readers| readers > 0).await.is_ok() {
        if let Err(error) = tell_readers(watched, events, view).await {
            faults.note(TASK, format!("events of the kernel programs: {error:#}"));
            sleep(REST).await;
        }
    }
    std::future::pending().await
}

/// Until the last reader has gone.
async fn tell_readers(watched: &mut Watched, events: &Events, view: &watch::Receiver<View>) -> Result<()> {
    // What a predecessor has left is old.
    watched.watcher.rest()?;
    let mut names = names(view)?;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due = Instant::now();
    while *events.readers().borrow() > 0 {
        if Instant::now() >= due {
            due = Instant::now() + ASK;
            watched.watcher.ask(ASKED)?;
            names = self::names(view)?;
            match watched.watcher.missed()? {
                0 => {}
                lost => events.tell(&Lost::new(lost)),
            }
        }
        ticks.tick().await;
        while let Some(traced) = watched.watcher.take() {
            if let Some(event) = names.tell(&traced, |index| watched.services.vip_of(index)) {
                events.tell(&event);
            }
        }
    }
    Ok(watched.watcher.rest()?)
}

fn names(view: &watch::Receiver<View>) -> Result<Names> {
    let desired = view.borrow().desired.clone();
    let named = desired.entries().map(|entry| (entry.wanted.vip, entry.wanted.name.clone()));
    Ok(Names::new(named.collect::<HashMap<_, _>>(), uptime()?))
}
