//! What this node has written since its start.
//!
//! It was acknowledged by a node that is there, so that it outlives the log that it stands in: a node that comes back may write
//! before it hears that it was forgotten.

use std::collections::BTreeMap;

use crate::cluster::{
    clock::Stamp,
    log::{Change, Key, Logs, Need, Put},
    records::{RecordKey, View},
};

/// By key of this node's log: the stamp of what was written there last, since the start.
#[derive(Debug, Default)]
pub(super) struct Fresh(BTreeMap<Key, Stamp>);

impl Fresh {
    /// This was written.
    pub(super) fn wrote(&mut self, written: impl IntoIterator<Item = (Key, Stamp)>) {
        self.0.extend(written);
    }

    /// Follows a change of this node's logs: what was taken out of them is nothing to keep.
    pub(super) fn follow(&mut self, Change { key, was, now, .. }: &Change) {
        let Some(stamp) = self.0.get(key) else { return };
        let [was, now] = [was, now].map(|item| item.as_ref().is_some_and(|item| item.stamp == *stamp));
        if was && !now {
            self.0.remove(key);
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// All of it, out of the node's log, which is about to go.
    pub(super) fn take(&mut self, logs: &Logs, own: &str) -> Vec<Put> {
        let fresh = std::mem::take(&mut self.0).into_iter();
        let written = fresh.filter_map(|(key, stamp)| {
            let item = logs.at(own, &key).find(|item| item.stamp == stamp)?.clone();
            Some(Put { key, stamp, writer: item.writer, value: item.value })
        });
        written.collect()
    }
}

/// Whether something is to be written again into a node's next log: no other node's log says anything later, or the same, and it
/// is no removal of what only the former log had.
pub(super) fn is_missing(view: &View, put: &Put) -> bool {
    let Some(key) = RecordKey::decode(&put.key) else { return true };
    let is_own_removal = put.value.is_none() && view.need(&put.key, put.stamp) == Need::OwnKey;
    put.stamp > view.replaced(&key) && !is_own_removal
}
