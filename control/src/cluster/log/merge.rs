//! What a log lacks of another one of its origin's.

use std::cmp::Ordering;

use super::{Head, Item, Key, single::Log};

/// The entries that `log` takes over from `lost`.
///
/// Where `log` continues an early state of `lost`, that state is common: what only one of the two has changed since is as
/// that one has it. What both have changed, or what is not common, is as the later stamp says.
pub(super) fn missing(log: &Log, head: &Head, lost: &Log) -> Vec<(Key, Item)> {
    let other = &lost.signed.head;
    let is_common =
        |ancestor: &&super::Ancestor| ancestor.is_line && ancestor.version.epoch == other.version.epoch;
    let common = head.ancestors.iter().find(is_common).map_or(0, |ancestor| ancestor.version.seq);
    let taken = lost.entries().filter(|(key, item)| match log.get(key) {
        // Removed since, and the tombstone is gone.
        None => item.seq > common,
        Some(own) if own.seq <= common => item.seq > common,
        Some(own) => item.seq > common && own.later(item) == Ordering::Less,
    });
    let mut taken: Vec<(Key, Item)> = taken.map(|(key, item)| (key.clone(), item.clone())).collect();
    // What `lost` has removed since, with its tombstones gone.
    let is_gone =
        |(key, own): &(&Key, &Item)| own.seq <= common && own.value.is_some() && lost.get(key).is_none();
    let gone = log.entries().filter(is_gone);
    taken.extend(gone.map(|(key, own)| (key.clone(), Item { value: None, ..own.clone() })));
    taken
}
