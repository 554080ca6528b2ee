//! The log of what was applied: written by blocking threads, one write at a time.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use control::desired::{Change, Name, Statement, all_changes};
use tokio::task::JoinHandle;

use crate::sources::applied::{FOLDER, Store, StoreError, damaged};

/// Logs that were put aside and are still there.
#[derive(Debug)]
pub(super) struct Damaged(Vec<PathBuf>);

impl Damaged {
    /// Finds them.
    pub(super) fn find() -> Self {
        Self(damaged(Path::new(FOLDER)))
    }
}

/// The log; not here while it is written.
#[derive(Debug)]
pub(super) struct Log {
    store: Option<Store>,
    path: PathBuf,
    damaged: Damaged,
    /// A crash could bring back a change that was refused.
    is_unsure: bool,
}

/// A write under way: the log comes back with it.
#[derive(Debug)]
pub(super) struct Writing(JoinHandle<(Store, io::Result<()>, Damaged)>);

impl Log {
    /// Opens it; gives the changes that it holds.
    ///
    /// # Errors
    /// It can't be read.
    pub(super) fn open() -> Result<(Self, Vec<Change>), StoreError> {
        let folder = Path::new(FOLDER);
        let (store, changes) = Store::open(folder)?;
        let path = store.path();
        let log = Self { store: Some(store), path, damaged: Damaged::find(), is_unsure: false };
        Ok((log, changes))
    }

    /// Begins to add changes; `None` while something is being written.
    pub(super) fn append(&mut self, changes: Vec<Change>) -> Option<Writing> {
        self.begin(move |store| store.append(&changes))
    }

    /// Begins to put right what has come to be wrong with it, where `all` tells, and waits for, what it ought to say.
    pub(super) fn mend(
        &mut self,
        all: impl FnOnce() -> io::Result<Vec<(Name, Arc<Statement>)>> + Send + 'static,
    ) -> Option<Writing> {
        self.begin(move |store| {
            store.mend()?;
            if store.is_long() {
                let all = all()?;
                store.rewrite(&all_changes(all.iter().map(|(name, own)| (name, own))))
            } else {
                Ok(())
            }
        })
    }

    fn begin(
        &mut self,
        write: impl FnOnce(&mut Store) -> io::Result<()> + Send + 'static,
    ) -> Option<Writing> {
        let mut store = self.store.take()?;
        Some(Writing(tokio::task::spawn_blocking(move || {
            let outcome = write(&mut store);
            (store, outcome, Damaged::find())
        })))
    }

    /// Waits for the end of a write, which goes on where this is dropped.
    ///
    /// # Errors
    /// The thread died, and the log with it.
    pub(super) async fn end(writing: &mut Writing) -> Result<Written> {
        (&mut writing.0).await.map(Written).context("agent: writing the log of services")
    }

    /// Takes the log back; says what became of the write.
    pub(super) fn take(&mut self, Written((store, outcome, damaged)): Written) -> io::Result<()> {
        self.is_unsure = store.is_unsure();
        self.store = Some(store);
        self.damaged = damaged;
        outcome
    }

    /// Takes over which logs were put aside.
    pub(super) fn set_damaged(&mut self, damaged: Damaged) {
        self.damaged = damaged;
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether services may have been applied that nobody can name: a log can't be read.
    pub(super) fn has_lost(&self) -> bool {
        !self.damaged.0.is_empty()
    }

    /// What is wrong with it.
    pub(super) fn reasons(&self) -> Vec<String> {
        let unsure = self.is_unsure.then(|| {
            format!(
                "services-log: {} can't be written, and a change that was refused may come back after a crash; see \
                 whether the disk is full or broken",
                self.path.display()
            )
        });
        let damaged = self.damaged.0.iter().map(|path| {
            format!(
                "services-damaged: {} can't be read; the kernel's services stay as they are: apply again what is \
                 missing, then delete that file",
                path.display()
            )
        });
        unsure.into_iter().chain(damaged).collect()
    }
}

/// A write that ended.
#[derive(Debug)]
pub(super) struct Written((Store, io::Result<()>, Damaged));
