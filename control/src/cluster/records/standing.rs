//! What a node says of its part in groups, and groups as all logs have them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    groups::Group,
    record::Record,
    value::Standing,
    view::{Touched, View},
};
use crate::cluster::log::Name;

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
