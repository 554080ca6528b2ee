//! Groups of nodes whose announcements stand in for each other: what each node says of its part, and marks of maintenance.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    record::Record,
    register::Register,
    value::{self, Standing},
    view::{Touched, View},
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

impl View {
    /// The groups of announcements.
    pub fn groups(&self) -> impl Iterator<Item = (&Name, &Group)> {
        self.groups.iter()
    }

    /// A group of announcements.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    pub(super) fn with_group(&mut self, name: Name, touched: &mut Touched, edit: impl FnOnce(&mut Group)) {
        let group = self.groups.entry(name.clone()).or_default();
        edit(group);
        if group.is_empty() {
            self.groups.remove(&name);
        }
        touched.groups.insert(name);
    }
}

/// The records that make what a node says of its parts this, and nothing of other groups.
pub fn standings(view: &View, own: &Name, wanted: &BTreeMap<Name, Standing>) -> Vec<Record> {
    let former: BTreeMap<&Name, &Standing> = view
        .groups()
        .filter_map(|(name, group)| {
            let (_, standing) = group.standings().find(|(node, _)| *node == own)?;
            Some((name, standing))
        })
        .collect();
    let names: BTreeSet<&Name> = former.keys().copied().chain(wanted.keys()).collect();
    let other = names.into_iter().filter(|name| former.get(*name).copied() != wanted.get(*name));
    other.map(|name| Record::Stand(name.clone(), wanted.get(name).cloned())).collect()
}
