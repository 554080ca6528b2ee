//! What a node takes out of its own log.

use std::collections::BTreeMap;

use super::{
    key::RecordKey,
    service::removed,
    view::{Shared, View},
};
use crate::cluster::{
    clock::Stamp,
    log::{Key, Logs, Name, Put},
};

/// Takes out of a node's log what another node's later record covers, once every member has that.
///
/// Each record of the cluster is then in one log, and a tombstone that covers it has nothing left to wait for.
#[derive(Clone, Debug, Default)]
pub struct Tidy {
    /// By key: the stamp that is covered, and [`Logs::steps`] when that was first seen.
    covered: BTreeMap<Key, (Stamp, u64)>,
}

impl Tidy {
    /// Whether there are covered records that stay until every member has heard of what covers them.
    pub fn waits(&self) -> bool {
        !self.covered.is_empty()
    }

    /// The entries that go. `all_heard` is the count of steps that every member has heard of.
    pub fn covered(&mut self, view: &View, logs: &Logs, own: &Name, all_heard: u64) -> Vec<Put> {
        let mut covered = BTreeMap::new();
        let mut puts = Vec::new();
        for (key, found) in view.shared() {
            let Some((latest, others)) = found.split_first() else { continue };
            let is_own = |other: &&Shared<'_>| other.origin == own && other.item.value.is_some();
            let Some(other) = others.iter().find(is_own) else { continue };
            if latest.origin == own || is_wanted(view, &key, own) {
                continue;
            }
            let (key, stamp) = (key.encode(), other.item.stamp);
            let known = self.covered.get(&key).filter(|(known, _)| *known == stamp);
            let since = known.map_or_else(|| logs.steps(), |(_, since)| *since);
            if since <= all_heard {
                // No stamp: nothing is removed by it.
                puts.push(Put { key, stamp: Stamp::ZERO, writer: None, value: None });
            } else {
                covered.insert(key, (stamp, since));
            }
        }
        self.covered = covered;
        puts
    }
}

/// Whether a definition of this node's says of a removal that no other one knows of, while there is something from before.
fn is_wanted(view: &View, key: &RecordKey, own: &Name) -> bool {
    let RecordKey::Definition(name) = key else { return false };
    let Some(parts) = view.service(name) else { return false };
    let (mine, others): (Vec<_>, Vec<_>) =
        parts.all_definitions().iter().partition(|found| found.origin == *own);
    let last = |found: Vec<&super::Found<super::Definition>>| {
        found.into_iter().map(removed).max().unwrap_or_default()
    };
    let (mine, others) = (last(mine), last(others));
    mine > others && parts.has_ended_by(mine)
}

/// This node's backends and drain marks that ended with a service of their name.
pub fn ended(view: &View, own: &Name) -> Vec<RecordKey> {
    let mut ended = Vec::new();
    for name in view.names() {
        let Some(parts) = view.service(name) else { continue };
        let backends = parts.ended_backends(own).into_iter();
        ended.extend(backends.map(|socket| RecordKey::Backend(name.clone(), socket)));
        let drains = parts.ended_drains(own).into_iter();
        ended.extend(drains.map(|socket| RecordKey::Drain(name.clone(), socket)));
    }
    ended
}
