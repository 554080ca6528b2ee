//! When tombstones may go.
//!
//! A tombstone is there for the replicas that still have what it removed. An exchange with a member leaves it with all that
//! was here when the exchange began, and this node with all that was there. So a tombstone may go once every member that is
//! not forgotten has finished an exchange which began when no log that is known here held an older record of its key any
//! more: then no replica has one, and none can get one.
//!
//! Of keys that one node alone writes, the log's next version is all that there is to hear. When half of the tombstones that a
//! log may have wait, those are kept for members that are reachable, and no longer for dead ones: such a member takes the whole
//! log when it returns.

use std::collections::{BTreeMap, BTreeSet};

use super::{Commit, Item, Key, Logs, Name, Writer, replica::seat};

/// A member that is to hear of removals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name.
    pub name: Name,
    /// Whether it answers.
    pub is_reachable: bool,
}

/// Who needs a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A log has something older that it covers.
    Older,
    /// No log that is known; of one that is not known, any node may have written it.
    Nobody,
    /// No log but this node's has such keys.
    OwnKey,
}

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
    pub fn all_heard(&self, logs: &Logs, own: &Name, members: &[Listener]) -> u64 {
        let mut asked: BTreeSet<Name> = members.iter().map(|member| member.name.clone()).collect();
        asked.extend(logs.origins().cloned());
        asked.remove(own);
        let heard = |member: &Name| self.heard.get(member).copied().unwrap_or_default();
        asked.iter().map(heard).min().unwrap_or_else(|| logs.steps())
    }

    /// Removes the tombstones that nobody needs any more; `None`: there are none.
    ///
    /// `members` are all but this node, dead ones too; nodes that have a log here are asked as well. `need` says what else is
    /// known of a tombstone's key.
    pub fn collect(
        &mut self,
        writer: &mut Writer,
        logs: &mut Logs,
        members: &[Listener],
        need: impl Fn(&Key, &Item) -> Need,
    ) -> Option<Commit> {
        let own = logs.origins.get(&seat(writer.name()))?.logs.first()?;
        if own.tombstones() == 0 || writer.has_lost(logs) {
            self.clear.clear();
            return None;
        }
        let all_heard = self.all_heard(logs, writer.name(), members);
        let is_crowded = own.tombstones() > logs.limits.tombstones / 2;
        let heard = |member: &Listener| self.heard.get(&member.name).copied().unwrap_or_default();
        let reachable = members.iter().filter(|member| member.is_reachable).map(heard).min();
        let some_heard = reachable.filter(|_| is_crowded).unwrap_or(all_heard);
        let mut clear = BTreeMap::new();
        let mut ripe = Vec::new();
        for (key, item) in own.entries().filter(|(_, item)| item.value.is_none()) {
            let heard = match need(key, item) {
                Need::Older => continue,
                Need::Nobody => all_heard,
                Need::OwnKey => all_heard.max(some_heard),
            };
            let since = self.clear.get(key).copied().unwrap_or_else(|| logs.steps());
            if since <= heard {
                ripe.push(key.clone());
            } else {
                clear.insert(key.clone(), since);
            }
        }
        self.clear = clear;
        (!ripe.is_empty()).then(|| writer.collect(logs, &ripe))
    }
}
