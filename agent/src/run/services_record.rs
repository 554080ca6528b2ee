//! The record of services, for `status` when no agent runs: written beside the main loop, since many services take a
//! while.

use std::{collections::HashSet, path::Path, sync::Arc};

use control::service::{Entry, ServiceState, Vip};
use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

use crate::{
    inspect::status::{SERVICES_FILE, write_services},
    kernel::tasks::Faults,
};

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

    /// Writes it; says whether that went well.
    fn write(&self) -> bool {
        let states = self
            .entries
            .iter()
            .map(|entry| ServiceState::new(entry, !self.failed.contains(&entry.wanted.vip)));
        let written = write_services(Path::new(SERVICES_FILE), states);
        written.inspect_err(|error| tracing::warn!("{SERVICES_FILE}: {error}")).is_ok()
    }
}

/// Writes what is told, one after the other.
#[derive(Debug, Default)]
pub(super) struct Teller {
    told: Option<Arc<Told>>,
    writing: Option<JoinHandle<Option<bool>>>,
    faults: Faults,
}

impl Teller {
    /// Writes nothing yet; a write that panics is noted here.
    pub(super) fn new(faults: Faults) -> Self {
        Self { faults, ..Self::default() }
    }

    /// Has this written, if it says anything new; `false`: later, since the last is still being written.
    pub(super) fn tell(&mut self, told: Told) -> bool {
        if let Some(mut ended) = self.writing.take_if(|writing| writing.is_finished())
            && !matches!((&mut ended).now_or_never(), Some(Ok(Some(true))))
        {
            self.told = None;
        }
        if self.told.as_ref().is_some_and(|last| last.is(&told)) {
            return true;
        }
        if self.writing.is_some() {
            return false;
        }
        let told = Arc::new(told);
        self.told = Some(Arc::clone(&told));
        self.writing = Some(self.faults.blocking("services-record", move || told.write()));
        true
    }

    /// Writes this before anything else happens.
    pub(super) async fn tell_now(&mut self, told: Told) {
        if let Some(writing) = self.writing.take()
            && !matches!(writing.await, Ok(Some(true)))
        {
            self.told = None;
        }
        if self.told.as_ref().is_none_or(|last| !last.is(&told)) {
            told.write();
            self.told = Some(Arc::new(told));
        }
    }
}
