//! What the agent says of itself: its record for `status`, and notices for systemd.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process,
    time::SystemTime,
};

use sd_notify::NotifyState;

use crate::inspect::status::{AgentRecord, seconds};
use crate::kernel::bpf::FlowCount;

/// What a degraded reason is about. Each part of a look replaces its own reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// The files.
    Config,
    /// That this is the only agent.
    Sole,
    /// The API's socket.
    Api,
    /// What the kernel tells of its tables.
    Kernel,
    /// What the kernel programs tell.
    Programs,
    /// The lock that commands hold.
    Lock,
    /// Fans.
    Fans,
    /// Foreign packet filters.
    Forward,
    /// Endpoints, ports, path routes.
    Endpoints,
    /// Services and their routes.
    Services,
    /// VIPs that others translate.
    Shadows,
    /// Tasks beside the main loop.
    Tasks,
}

/// The agent's record and who is told about it.
#[derive(Debug)]
pub(super) struct Report {
    path: PathBuf,
    record: AgentRecord,
    written: Option<AgentRecord>,
    reasons: BTreeMap<Topic, Vec<String>>,
}

impl Report {
    /// A record of this process, not yet written.
    pub(super) fn new(path: &Path, node: String) -> Self {
        let record = AgentRecord {
            node,
            pid: process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: seconds(SystemTime::now()),
            ..AgentRecord::default()
        };
        Self { path: path.to_owned(), record, written: None, reasons: BTreeMap::new() }
    }

    /// The node's name, after a reload.
    pub(super) fn set_node(&mut self, node: String) {
        self.record.node = node;
    }

    /// The node's name.
    pub(super) fn node(&self) -> &str {
        &self.record.node
    }

    /// What the flow tables hold.
    pub(super) fn set_flow_count(&mut self, count: Option<FlowCount>) {
        self.record.flow_count = count;
    }

    /// Replaces the reasons of a topic. New ones are logged, once.
    pub(super) fn set(&mut self, topic: Topic, reasons: Vec<String>) {
        let old = self.reasons.insert(topic, reasons).unwrap_or_default();
        let new = &self.reasons[&topic];
        for reason in new.iter().filter(|reason| !old.contains(reason)) {
            tracing::warn!("{reason}");
        }
        for reason in old.iter().filter(|reason| !new.contains(reason)) {
            tracing::info!("over: {reason}");
        }
    }

    /// Writes the record, if it says anything new, and tells systemd.
    pub(super) fn publish(&mut self) {
        self.record.degraded = self.reasons.values().flatten().cloned().collect();
        if self.written.as_ref() == Some(&self.record) {
            return;
        }
        match self.record.write(&self.path) {
            Ok(()) => self.written = Some(self.record.clone()),
            Err(error) => tracing::warn!("{}: {error}", self.path.display()),
        }
        let status = match self.record.degraded.as_slice() {
            [] => "as it ought to be".to_owned(),
            [first] => format!("degraded: {first}"),
            [first, rest @ ..] => format!("degraded: {first} (and {} more)", rest.len()),
        };
        notify(&[NotifyState::Status(&status)]);
    }

    /// The last words: when it stopped.
    pub(super) fn stopped(&mut self) {
        self.record.stopped = Some(seconds(SystemTime::now()));
        self.publish();
    }
}

/// Tells systemd, if it listens.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("notice to systemd: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> AgentRecord {
        AgentRecord::read(path).unwrap().unwrap().0
    }

    #[test]
    fn reasons_stay_until_their_topic_says_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.json");
        let mut report = Report::new(&path, "a".to_owned());
        report.set(Topic::Fans, vec!["fan".to_owned()]);
        report.set(Topic::Config, vec!["config-invalid".to_owned()]);
        report.publish();
        assert_eq!(read(&path).degraded, ["config-invalid", "fan"]);
        report.set(Topic::Config, vec![]);
        report.publish();
        assert_eq!(read(&path).degraded, ["fan"]);
    }

    #[test]
    fn a_record_is_written_only_when_it_says_something_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.json");
        let mut report = Report::new(&path, "a".to_owned());
        report.publish();
        std::fs::remove_file(&path).unwrap();
        report.set(Topic::Fans, vec![]);
        report.publish();
        assert!(!path.exists());
        report.stopped();
        assert!(read(&path).stopped.is_some());
    }
}
