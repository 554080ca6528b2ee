//! Changes on their way to the disk: the main loop goes on meanwhile, and takes no further request.

use std::{future::pending, io, path::Path};

use anyhow::{Context, Result};
use control::service::Change;
use tokio::task::JoinHandle;

use super::services::Services;
use crate::{
    serve::{Answer, Applied, Drained, Refusal},
    sources::applied::{FOLDER, Store, damaged},
};

/// Who waits for changes, and what they are told when these are made.
#[derive(Debug)]
pub(super) enum Waiting {
    /// Services are applied or removed.
    Applied(Answer<Applied>, Applied),
    /// A backend is drained or undrained.
    Drained(Answer<Drained>, Drained),
    /// The log is only written anew.
    Nobody,
}

impl Waiting {
    /// Tells them; they may have given up meanwhile.
    pub(super) fn tell(self, outcome: Result<(), Refusal>) {
        match self {
            Self::Applied(answer, applied) => drop(answer.send(outcome.map(|()| applied))),
            Self::Drained(answer, drained) => drop(answer.send(outcome.map(|()| drained))),
            Self::Nobody => {}
        }
    }
}

/// What is being written.
#[derive(Debug)]
pub(super) struct Keeping {
    pub(super) changes: Vec<Change>,
    pub(super) waiting: Waiting,
    task: JoinHandle<Kept>,
}

/// The log, and whether what was written stands in it.
pub(super) type Kept = (Store, io::Result<()>);

impl Keeping {
    /// Adds changes to the log.
    pub(super) fn append(store: Store, changes: Vec<Change>, waiting: Waiting) -> Self {
        let added = changes.clone();
        Self::start(store, changes, waiting, move |store| store.append(&added))
    }

    /// Writes the log anew.
    pub(super) fn rewrite(store: Store, all: Vec<Change>) -> Self {
        Self::start(store, Vec::new(), Waiting::Nobody, move |store| store.rewrite(&all))
    }

    /// Takes off the log's end what was refused.
    pub(super) fn mend(store: Store) -> Self {
        Self::start(store, Vec::new(), Waiting::Nobody, Store::mend)
    }

    fn start(
        mut store: Store,
        changes: Vec<Change>,
        waiting: Waiting,
        write: impl FnOnce(&mut Store) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let task = tokio::task::spawn_blocking(move || {
            let outcome = write(&mut store);
            (store, outcome)
        });
        Self { changes, waiting, task }
    }

    /// Waits for the end of what is being written, for ever where nothing is.
    pub(super) async fn end(keeping: &mut Option<Self>) -> Result<Kept> {
        match keeping {
            Some(keeping) => (&mut keeping.task).await.context("agent: keeping services"),
            None => pending().await,
        }
    }
}

impl Services {
    /// Writes the log anew where most of it is history, mends it where a write failed, and says what is wrong with it.
    pub(super) fn keep(&mut self) -> Vec<String> {
        let mut reasons = self.book.clashes();
        if let Some(store) = self.store.take_if(|store| store.is_unsure()) {
            reasons.push(format!(
                "services-log: {} can't be written, and a change that was refused may come back after a crash; see \
                 whether the disk is full or broken",
                store.path().display()
            ));
            self.keeping = Some(Keeping::mend(store));
        }
        if let Some(store) = self.store.take_if(|store| store.is_long()) {
            self.keeping = Some(Keeping::rewrite(store, self.book.changes().collect()));
        }
        let damaged = damaged(Path::new(FOLDER));
        if damaged.is_empty() && std::mem::take(&mut self.has_lost) {
            self.is_open = true;
        }
        self.has_lost = !damaged.is_empty();
        reasons.extend(damaged.iter().map(|path| {
            format!(
                "services-damaged: {} can't be read; the kernel's services stay as they are: apply again what is \
                 missing, then delete that file",
                path.display()
            )
        }));
        reasons
    }
}
