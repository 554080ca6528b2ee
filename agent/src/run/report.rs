//! What the agent says of itself: its record for `status`, and notices for systemd.

use std::{collections::BTreeMap, process, time::SystemTime};

use sd_notify::NotifyState;
use tokio::sync::watch;

use super::notices::Notices;
use crate::{
    inspect::status::{AgentRecord, ClusterState, seconds},
    node::{self, writer::Applied},
};

/// What a degraded reason is about. Each part of the agent replaces its own reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// The files.
    Config,
    /// That this is the only agent.
    Sole,
    /// Tasks that ended.
    Tasks,
    /// The API's socket.
    Api,
    /// That the kernel is written to.
    Writer,
    /// What the writer says.
    Kernel(node::writer::Topic),
    /// What was applied, and the log of it.
    Applied,
    /// VIPs that other software translates.
    Shadows,
    /// The cluster.
    Cluster,
    /// Tunnels to members.
    Tunnels,
    /// The announcer's thread.
    Announcer,
    /// What is announced, and to whom.
    Announced,
}

/// What the agent says of itself.
#[derive(Debug)]
pub(super) struct Report {
    record: AgentRecord,
    output: watch::Sender<AgentRecord>,
    reasons: BTreeMap<Topic, Vec<String>>,
    notices: Notices,
}

impl Report {
    /// A record of this process.
    pub(super) fn new(node: String) -> Self {
        let record = AgentRecord {
            node,
            pid: process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: seconds(SystemTime::now()),
            ..AgentRecord::default()
        };
        Self {
            output: watch::Sender::new(record.clone()),
            record,
            reasons: BTreeMap::new(),
            notices: Notices::to_systemd(),
        }
    }

    /// The cluster as this node knows it.
    pub(super) fn set_cluster(&mut self, cluster: ClusterState) {
        self.record.cluster = Some(cluster);
    }

    /// The record, whenever it says something new.
    pub(super) fn record(&self) -> watch::Receiver<AgentRecord> {
        self.output.subscribe()
    }

    /// The node's name, after a reload.
    pub(super) fn set_node(&mut self, node: String) {
        self.record.node = node;
    }

    /// Replaces the reasons of a topic. New ones are logged, once.
    pub(super) fn set(&mut self, topic: Topic, reasons: Vec<String>) {
        if self.reasons.get(&topic).is_some_and(|old| *old == reasons) {
            return;
        }
        let old = self.reasons.insert(topic, reasons).unwrap_or_default();
        let new = &self.reasons[&topic];
        for reason in new.iter().filter(|reason| !old.contains(reason)) {
            tracing::warn!("{reason}");
        }
        for reason in old.iter().filter(|reason| !new.contains(reason)) {
            tracing::info!("over: {reason}");
        }
    }

    /// Takes over what the writer says.
    pub(super) fn set_applied(&mut self, applied: &Applied) {
        for (&topic, reasons) in &*applied.reasons {
            self.set(Topic::Kernel(topic), reasons.clone());
        }
        self.record.flow_count = applied.flow_count;
        self.publish();
    }

    /// Hands the record out, if it says anything new, and tells systemd.
    pub(super) fn publish(&mut self) {
        self.record.degraded = self.reasons.values().flatten().cloned().collect();
        let record = &self.record;
        let is_news = self.output.send_if_modified(|former| {
            let is_news = former != record;
            if is_news {
                former.clone_from(record);
            }
            is_news
        });
        if !is_news {
            return;
        }
        let status = match self.record.degraded.as_slice() {
            [] => "as it ought to be".to_owned(),
            [first] => format!("degraded: {first}"),
            [first, rest @ ..] => format!("degraded: {first} (and {} more)", rest.len()),
        };
        self.say(&[NotifyState::Status(&status)]);
    }

    /// The last words: when it stopped.
    pub(super) fn stopped(&mut self) {
        self.record.stopped = Some(seconds(SystemTime::now()));
        self.publish();
    }

    /// Tells systemd, if it listens.
    pub(super) fn say(&mut self, states: &[NotifyState<'_>]) {
        self.notices.say(states);
    }

    /// Tells systemd what it had no room for, as soon as it has; else never ends. Dropping this loses nothing.
    pub(super) async fn say_rest(&mut self) {
        self.notices.send_rest().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stay_until_their_topic_says_otherwise() {
        let mut report = Report::new("a".to_owned());
        let record = report.record();
        report.set(Topic::Shadows, vec!["shadow".to_owned()]);
        report.set(Topic::Config, vec!["config-invalid".to_owned()]);
        report.publish();
        assert_eq!(record.borrow().degraded, ["config-invalid", "shadow"]);
        report.set(Topic::Config, vec![]);
        report.publish();
        assert_eq!(record.borrow().degraded, ["shadow"]);
    }

    #[test]
    fn a_record_is_handed_out_only_when_it_says_something_new() {
        let mut report = Report::new("a".to_owned());
        let record = report.record();
        report.set(Topic::Shadows, vec![]);
        report.publish();
        assert!(!record.has_changed().unwrap());
        report.stopped();
        assert!(record.borrow().stopped.is_some());
    }
}
