//! Groups of nodes whose announcements stand in for each other: what each node says of its part, and marks of maintenance.

use std::collections::BTreeMap;

use super::{
    register::Register,
    value::{self, Standing},
};
use crate::cluster::{
    clock::Stamp,
    log::{Change, Item, Name},
};

/// What is said of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// By node and its log's number.
    standings: BTreeMap<Name, BTreeMap<u32, (Stamp, Standing)>>,
    pub(super) mark: Register<()>,
}

impl Group {
    /// What each node says of its part.
    pub fn standings(&self) -> impl Iterator<Item = (&Name, &Standing)> {
        self.standings.iter().filter_map(|(node, slots)| {
            let (_, standing) = slots.values().max_by_key(|(stamp, _)| *stamp)?;
            Some((node, standing))
        })
    }

    /// Whether the whole group is in maintenance.
    pub fn is_in_maintenance(&self) -> bool {
        self.mark.holds().is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.standings.is_empty() && self.mark.is_empty()
    }

    pub(super) fn stand(&mut self, change: &Change) {
        let slots = self.standings.entry(change.origin.clone()).or_default();
        let read = |item: &Item| Some((item.stamp, value::decode(item.value.as_ref()?)?));
        match change.now.as_ref().and_then(read) {
            Some(standing) => slots.insert(change.slot, standing),
            None => slots.remove(&change.slot),
        };
        if slots.is_empty() {
            self.standings.remove(&change.origin);
        }
    }

    pub(super) fn mark(&mut self, change: &Change) {
        self.mark.follow(change, |item| value::decode(item.value.as_ref()?));
    }
}
