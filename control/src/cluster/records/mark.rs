//! Nodes that will not return.
//!
//! What a node alone may write goes with it; what belongs to the cluster stays: the node that forgets it takes that over,
//! with writer and stamp.

use std::collections::BTreeMap;

use super::{
    key::RecordKey,
    record::Record,
    value::Forgotten,
    view::{Shared, View},
};
use crate::cluster::log::{Item, Key, Logs, Name, Need, Put};

/// The record that forgets a node; `None`: there is nothing of it.
///
/// Before it is written, [`taken_over`] is, in the same version.
pub fn forget(view: &View, logs: &Logs, node: &Name) -> Option<Record> {
    let born = logs.heads(node).map(|head| head.version.epoch.count).max()?;
    let former = view.forgotten(node).map_or(0, |(_, forgotten)| forgotten.born);
    Some(Record::Forget(node.clone(), Forgotten { born: born.max(former) }))
}

/// What a node has written for the cluster, where it holds and no other node's log has it.
pub fn taken_over(view: &View, node: &Name) -> Vec<Put> {
    let mut puts = Vec::new();
    for (key, found) in view.shared() {
        let Some((latest, others)) = found.split_first() else { continue };
        let has_it = |other: &Shared<'_>| other.item.stamp == latest.item.stamp && other.origin != node;
        if latest.origin != node || others.iter().any(has_it) {
            continue;
        }
        let key = key.encode();
        if latest.item.value.is_some() || view.need(&key, latest.item.stamp) == Need::Older {
            let writer = Some(latest.item.writer.clone().unwrap_or_else(|| node.clone()));
            let (stamp, value) = (latest.item.stamp, latest.item.value.clone());
            puts.push(Put { key, stamp, writer, value });
        }
    }
    puts
}

/// What only a node itself may write, of its logs: for its next name.
pub fn owned(logs: &Logs, node: &Name) -> Vec<Put> {
    let is_owned = |key: &Key| {
        matches!(
            RecordKey::decode(key),
            Some(RecordKey::Backend(..) | RecordKey::Facts | RecordKey::Claim(..) | RecordKey::Verdict(..))
        )
    };
    let of_node = logs.entries().filter(|(origin, _, key, _)| *origin == node && is_owned(key));
    let mut latest: BTreeMap<&Key, &Item> = BTreeMap::new();
    for (_, _, key, item) in of_node {
        let held = latest.entry(key).or_insert(item);
        if held.later(item).is_lt() {
            *held = item;
        }
    }
    let written = latest.into_iter().filter(|(_, item)| item.value.is_some());
    written
        .map(|(key, item)| Put {
            key: key.clone(),
            stamp: item.stamp,
            writer: None,
            value: item.value.clone(),
        })
        .collect()
}
