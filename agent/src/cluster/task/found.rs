//! What this node finds by checking backends, as records of its own.

use std::{collections::BTreeMap, time::Duration};

use control::cluster::records::verdicts;

use super::{Task, shared::Members};
use crate::cluster::services::Verdicts;

/// From one attempt to write it to the next.
const AGAIN: Duration = Duration::from_secs(1);

/// What this node has found: all of it, once that was heard.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Found {
    /// By service and address, whether the backend is up.
    all: BTreeMap<(control::cluster::log::Name, std::net::SocketAddr), bool>,
    is_known: bool,
}

impl Task<'_> {
    /// Hears what was found; `is_whole`: all there is.
    pub(super) fn hear_found(&mut self, found: Verdicts, is_whole: bool) {
        let own = &mut self.inbox.found;
        if is_whole {
            own.all.clear();
            own.is_known = true;
        }
        for (key, is_up) in &found {
            match is_up {
                Some(is_up) => own.all.insert(key.clone(), *is_up),
                None => own.all.remove(key),
            };
        }
        if own.is_known {
            self.write_found(found, is_whole);
        }
    }

    /// Writes all that was found, where the logs say otherwise.
    pub(super) fn write_all_found(&mut self) {
        self.services.unfound_at = None;
        if self.inbox.found.is_known {
            let all = self.inbox.found.all.iter().map(|(key, is_up)| (key.clone(), Some(*is_up))).collect();
            self.write_found(all, true);
        }
    }

    fn write_found(&mut self, found: Verdicts, is_whole: bool) {
        let (time, now) = (self.time(), self.now());
        let Some(shared) = self.shared.as_mut().filter(|_| self.services.has_begun()) else { return };
        let state = shared.replication.state();
        let records = verdicts(state.view(), state.name(), &found, is_whole);
        if records.is_empty() {
            return;
        }
        match shared.replication.write(records, time, &mut Members(&mut self.core)) {
            Ok(turn) => self.done(turn, Vec::new()),
            Err(error) => {
                tracing::warn!("cluster: what checks have found is not written: {error}");
                self.services.unfound_at = Some(now + AGAIN);
            }
        }
    }
}
