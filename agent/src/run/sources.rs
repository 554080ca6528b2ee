//! Sources that the configuration lists: opened, followed, and brought to the state.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::mpsc;

use crate::{
    kernel::tasks::Faults,
    sources::{
        config::SourceSpec,
        directory::{self, Running},
        followed::News,
    },
};

/// News that wait for the event loop; then their sources wait.
const WAITING: usize = 16;

/// The number of a source that was opened; another one each time.
pub(super) type Number = u64;

/// What all sources come in by; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Door {
    news: mpsc::Sender<(Number, News)>,
    faults: Faults,
    next: Arc<AtomicU64>,
}

/// A source that was opened, with what it tells first.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) listed: Listed,
    pub(super) running: Running,
}

impl Opened {
    /// What the state follows, and what runs.
    pub(super) fn split(opened: Vec<Self>) -> (Vec<Listed>, Vec<Running>) {
        opened.into_iter().map(|Self { listed, running }| (listed, running)).unzip()
    }
}

/// A source as the state is to follow it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) number: Number,
    pub(super) spec: SourceSpec,
    pub(super) first: News,
}

impl Door {
    /// A door, and where news come out.
    pub(super) fn new(faults: Faults) -> (Self, mpsc::Receiver<(Number, News)>) {
        let (news, received) = mpsc::channel(WAITING);
        (Self { news, faults, next: Arc::default() }, received)
    }

    /// Opens sources and reads them; they tell more once they are told to begin. Blocks.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub(super) fn open(&self, specs: &[SourceSpec]) -> io::Result<Vec<Opened>> {
        specs.iter().map(|spec| self.open_one(spec)).collect()
    }

    fn open_one(&self, spec: &SourceSpec) -> io::Result<Opened> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let news = self.news.clone();
        let tell = move |told| news.blocking_send((number, told)).is_ok();
        let SourceSpec::Directory(path) = spec;
        let (running, first) = directory::open(path, &self.faults, tell)?;
        Ok(Opened { listed: Listed { number, spec: spec.clone(), first }, running })
    }
}
