//! When tombstones may go.
//!
//! A tombstone is there for the replicas that still have what it removed. An exchange with a member leaves it with all that
//! was here when the exchange began, and this node with all that was there. So a tombstone may go once every member that is
//! not forgotten has finished an exchange which began when no log that is known here held an older record of its key any
//! more: then no replica has one, and none can get one.

use std::collections::{BTreeMap, BTreeSet};

use super::{Commit, Item, Key, Logs, Name, Writer, replica::seat};

/// Knows which members have heard of what.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    /// By member: [`Logs::steps`] when the last exchange that was finished began.
    heard: BTreeMap<Name, u64>,
    /// By tombstone of this node's: the steps when it was first seen that nothing needs it.
    clear: BTreeMap<Key, u64>,
}

impl Collector {
    /// An exchange with a member is over that began at a count of steps.
    pub fn heard(&mut self, member: &Name, steps: u64) {
        let last = self.heard.entry(member.clone()).or_default();
        *last = steps.max(*last);
    }

    /// A member was forgotten.
    pub fn forget(&mut self, member: &str) {
        self.heard.remove(member);
    }

    /// A record of a key has come that may need a tombstone.
    pub fn touch(&mut self, key: &Key) {
        self.clear.remove(key);
    }

    /// Members that have not heard of what was here at a count of steps.
    pub fn behind<'m>(&self, members: impl IntoIterator<Item = &'m Name>, steps: u64) -> Vec<&'m Name> {
        let has_heard = |member: &Name| self.heard.get(member).is_some_and(|heard| *heard >= steps);
        members.into_iter().filter(|member| !has_heard(member)).collect()
    }

    /// The count of steps that every other member, dead ones too, and every node that has a log here has heard of.
    pub fn all_heard<'m>(&self, logs: &Logs, own: &Name, members: impl IntoIterator<Item = &'m Name>) -> u64 {
        let mut asked: BTreeSet<Name> = members.into_iter().cloned().collect();
        asked.extend(logs.origins().cloned());
        asked.remove(own);
        let heard = |member: &Name| self.heard.get(member).copied().unwrap_or_default();
        asked.iter().map(heard).min().unwrap_or_else(|| logs.steps())
    }

    /// Removes the tombstones that nobody needs any more; `None`: there are none.
    ///
    /// `members` are all but this node, dead ones too; nodes that have a log here are asked as well. `is_needed` says
    /// whether an older record that a tombstone covers is in any log here.
    pub fn collect<'m>(
        &mut self,
        writer: &mut Writer,
        logs: &mut Logs,
        members: impl IntoIterator<Item = &'m Name>,
        is_needed: impl Fn(&Key, &Item) -> bool,
    ) -> Option<Commit> {
        let all_heard = self.all_heard(logs, writer.name(), members);
        let own = logs.origins.get(&seat(writer.name()))?.logs.first()?;
        if own.tombstones() == 0 || writer.has_lost(logs) {
            self.clear.clear();
            return None;
        }
        let mut clear = BTreeMap::new();
        let tombstones = own.entries().filter(|(_, item)| item.value.is_none());
        for (key, _) in tombstones.filter(|(key, item)| !is_needed(key, item)) {
            let since = self.clear.get(key).copied().unwrap_or_else(|| logs.steps());
            clear.insert(key.clone(), since);
        }
        let ripe: Vec<Key> =
            clear.iter().filter(|(_, since)| **since <= all_heard).map(|(key, _)| key.clone()).collect();
        clear.retain(|_, since| *since > all_heard);
        self.clear = clear;
        (!ripe.is_empty()).then(|| writer.collect(logs, &ripe))
    }
}
