//! The record of services, for `status` when no agent runs: written beside the main loop, since many services take a
//! while.

use std::{collections::HashSet, path::Path, sync::Arc};

use control::service::{Entry, ServiceState, Vip};
use tokio::task::JoinHandle;

use crate::inspect::status::{SERVICES_FILE, write_services};

/// What is said of services.
#[derive(Debug, Default)]
pub(super) struct Told {
    entries: Vec<Arc<Entry>>,
    failed: Arc<HashSet<Vip>>,
}

impl Told {
    pub(super) fn new(entries: impl Iterator<Item = Arc<Entry>>, failed: &Arc<HashSet<Vip>>) -> Self {
        Self { entries: entries.collect(), failed: Arc::clone(failed) }
    }

    /// Whether both say the same; entries that did not change are the same ones.
    fn is(&self, other: &Self) -> bool {
        let pairs = || self.entries.iter().zip(&other.entries);
        self.entries.len() == other.entries.len()
            && self.failed == other.failed
            && pairs().all(|(own, other)| Arc::ptr_eq(own, other) || own == other)
    }

    fn write(&self) {
        let states = self
            .entries
            .iter()
            .map(|entry| ServiceState::new(entry, !self.failed.contains(&entry.wanted.vip)));
        if let Err(error) = write_services(Path::new(SERVICES_FILE), states) {
            tracing::warn!("{SERVICES_FILE}: {error}");
        }
    }
}

/// Writes what is told, one after the other.
#[derive(Debug, Default)]
pub(super) struct Teller {
    told: Option<Arc<Told>>,
    writing: Option<JoinHandle<()>>,
}

impl Teller {
    /// Has this written, if it says anything new; `false`: later, since the last is still being written.
    pub(super) fn tell(&mut self, told: Told) -> bool {
        if self.told.as_ref().is_some_and(|last| last.is(&told)) {
            return true;
        }
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return false;
        }
        let told = Arc::new(told);
        self.told = Some(Arc::clone(&told));
        self.writing = Some(tokio::task::spawn_blocking(move || told.write()));
        true
    }

    /// Writes this before anything else happens.
    pub(super) async fn tell_now(&mut self, told: Told) {
        if let Some(writing) = self.writing.take() {
            // One that panicked has said so.
            let _ended = writing.await;
        }
        if self.told.as_ref().is_none_or(|last| !last.is(&told)) {
            told.write();
            self.told = Some(Arc::new(told));
        }
    }
}
