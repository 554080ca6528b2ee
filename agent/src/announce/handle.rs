//! What the rest of the agent has of the announcer: it is told what is so, and asked what it shows.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use control::announce::{Announcement, Facts, Placement, ServiceFact, What};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    command::{Command, Ending, Setup, Unanswered},
    rows::{AnnouncementRow, PeerRow, RouteRow, Switched},
    task::{self, Clusters},
};
use crate::kernel::tasks::Faults;

/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long withdrawals may hold up what stops being served.
const PATIENCE: Duration = Duration::from_millis(200);
/// Beyond the drain time: how long the end may take.
const END: Duration = Duration::from_secs(5);

/// Services that announcements are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Interest {
    #[default]
    Nothing,
    Names(BTreeSet<String>),
    All,
}

impl Interest {
    pub fn wants(&self, service: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Names(names) => names.contains(service),
            Self::All => true,
        }
    }

    fn of(announcements: &[Announcement]) -> Self {
        let mut wanted = BTreeSet::new();
        for announcement in announcements {
            match &announcement.what {
                What::Services(names, _) if names.is_empty() => return Self::All,
                What::Services(names, _) => wanted.extend(names.iter().cloned()),
                What::Prefixes(_) | What::Slices | What::Endpoints | What::Own(..) => {}
            }
        }
        if wanted.is_empty() { Self::Nothing } else { Self::Names(wanted) }
    }
}

/// Asks the announcer; clones ask the same.
#[derive(Clone, Debug)]
pub struct Reader {
    commands: mpsc::UnboundedSender<Command>,
    /// Whether its thread runs: nobody answers before.
    is_running: Arc<AtomicBool>,
    interest: Arc<Mutex<Arc<Interest>>>,
}

/// The announcer, whose thread runs once something is configured.
#[derive(Debug)]
pub struct Announcer {
    reader: Reader,
    /// Until the thread runs.
    inbox: Option<task::Inbox>,
    reasons: watch::Receiver<Vec<String>>,
    tables: Arc<watch::Sender<Option<Arc<Placement>>>>,
    setup: Setup,
    facts: Option<Facts>,
    faults: Faults,
}

impl Reader {
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).map_err(|_ended| Unanswered::NoAnswer)?;
        match timeout(ANSWER, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(Unanswered::NoAnswer),
        }
    }

    /// The services that it has to be told of.
    pub fn interest(&self) -> Arc<Interest> {
        Arc::clone(&self.interest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }

    /// # Errors
    /// There is no answer, and so with the others.
    pub async fn announcements(&self) -> Result<Vec<AnnouncementRow>, Unanswered> {
        if self.is_running() { self.ask(Command::Announcements).await } else { Ok(Vec::new()) }
    }

    pub async fn peers(&self) -> Result<Vec<PeerRow>, Unanswered> {
        if self.is_running() { self.ask(Command::Peers).await } else { Ok(Vec::new()) }
    }

    pub async fn routes(&self) -> Result<Vec<RouteRow>, Unanswered> {
        if self.is_running() { self.ask(Command::Routes).await } else { Ok(Vec::new()) }
    }

    /// Disables an announcement, or enables it again.
    pub async fn switch(&self, name: String, disable: bool) -> Result<Switched, Unanswered> {
        if !self.is_running() {
            return Err(Unanswered::Unknown(name));
        }
        self.ask(|answer| Command::Switch { name, disable, answer }).await?
    }

    /// Takes this node into maintenance, or back; none where nothing is announced, else whether that is new.
    pub async fn maintain(&self, is_on: bool) -> Result<Option<bool>, Unanswered> {
        if !self.is_running() {
            return Ok(None);
        }
        self.ask(|answer| Command::Maintain(is_on, answer)).await?.map(Some)
    }

    /// Has withdrawals sent of what is not served any more soon; waits for that, but not long.
    pub fn foresee(&self, services: impl FnOnce() -> Vec<ServiceFact>) {
        if self.is_running() {
            let (sent, wait) = std::sync::mpsc::channel();
            if self.commands.send(Command::Foresee(services(), sent)).is_ok() {
                // Late ones follow.
                let _late = wait.recv_timeout(PATIENCE);
            }
        }
    }
}

impl Announcer {
    pub fn new(clusters: Clusters, faults: Faults) -> Self {
        let tables = <Arc<watch::Sender<_>>>::default();
        let (commands, inbox, reasons) = task::Inbox::new(Arc::clone(&tables), clusters);
        let reader = Reader { commands, is_running: Arc::default(), interest: Arc::default() };
        Self { reader, inbox: Some(inbox), reasons, tables, setup: Setup::default(), facts: None, faults }
    }

    /// For the API.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// What tables of other speakers are to have; none while nobody knows.
    pub fn tables(&self) -> watch::Receiver<Option<Arc<Placement>>> {
        self.tables.subscribe()
    }

    /// Follows a configuration.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn configure(&mut self, setup: Setup) -> io::Result<()> {
        if setup == self.setup {
            return Ok(());
        }
        self.setup = setup.clone();
        let interest = Arc::new(Interest::of(&setup.announcements));
        *self.reader.interest.lock().unwrap_or_else(PoisonError::into_inner) = interest;
        if !setup.is_empty()
            && let Some(inbox) = self.inbox.take()
        {
            // What it begins with is all of it: marks of announcements that are no more end.
            task::start(inbox.with(setup, self.facts.clone()), &self.faults)?;
            self.reader.is_running.store(true, Ordering::Release);
        } else if self.inbox.is_none() {
            drop(self.reader.commands.send(Command::Configure(Box::new(setup))));
        }
        Ok(())
    }

    /// What the kernel holds now.
    pub fn hold(&mut self, facts: Facts) {
        if self.facts.as_ref() != Some(&facts) {
            self.facts = Some(facts.clone());
            if self.inbox.is_none() {
                drop(self.reader.commands.send(Command::Hold(facts)));
            } else if self.tables.borrow().is_none() {
                // What an earlier configuration announced ends.
                self.tables.send_replace(Some(Arc::default()));
            }
        }
    }

    /// Waits for other reasons to be degraded. Dropping this loses nothing.
    pub async fn changed(&mut self) -> Vec<String> {
        match self.reasons.changed().await {
            Ok(()) => self.reasons.borrow_and_update().clone(),
            Err(_ended) => std::future::pending().await,
        }
    }

    /// Ends all sessions; with `Detach` after their routes were announced as about to go.
    pub async fn stop(&mut self, ending: Ending) {
        if self.inbox.is_some() {
            return;
        }
        let drain = self.setup.bgp.as_ref().map(|bgp| bgp.drain).unwrap_or_default();
        let (done, end) = oneshot::channel();
        if self.reader.commands.send(Command::Stop(ending, done)).is_ok() {
            drop(timeout(drain + END, end).await);
        }
    }
}
