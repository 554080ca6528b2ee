//! A record that any node writes: the latest one holds.

use std::cmp::Ordering;

use crate::cluster::{
    clock::Stamp,
    log::{Change, Item, Name},
};

/// What a log has at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// Whose log.
    pub origin: Name,
    /// Which of the origin's logs.
    pub slot: u32,
    /// What stands there.
    pub item: Item,
    /// Its value, read; `None`: a tombstone, or of a later version.
    pub value: Option<T>,
}

impl<T> Found<T> {
    /// The node that wrote it.
    pub fn writer(&self) -> &Name {
        self.item.writer.as_ref().unwrap_or(&self.origin)
    }

    /// When it was written.
    pub fn stamp(&self) -> Stamp {
        self.item.stamp
    }

    /// Whether it is a tombstone.
    pub fn is_removal(&self) -> bool {
        self.item.value.is_none()
    }

    /// Which of two holds: the later one; of one stamp, the one of the greater name.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let names = |one: &Self| (one.writer().clone(), one.origin.clone(), one.slot);
        self.item.later(&other.item).then_with(|| names(self).cmp(&names(other)))
    }
}

/// What all logs have at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Register<T>(Vec<Found<T>>);

impl<T> Default for Register<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Register<T> {
    /// Follows a change of one of the logs.
    pub(super) fn follow(&mut self, change: &Change, read: impl Fn(&Item) -> Option<T>) {
        self.0.retain(|found| (&found.origin, found.slot) != (&change.origin, change.slot));
        if let Some(item) = &change.now {
            let (origin, slot) = (change.origin.clone(), change.slot);
            // Mostly the only one.
            self.0.reserve_exact(1);
            self.0.push(Found { origin, slot, item: item.clone(), value: read(item) });
            self.0.sort_unstable_by(|one, other| other.order(one));
        }
    }

    /// All, the one that holds first.
    pub(super) fn all(&self) -> &[Found<T>] {
        &self.0
    }

    /// What holds, a removal too.
    pub(super) fn latest(&self) -> Option<&Found<T>> {
        self.0.first()
    }

    /// What holds, with its value.
    pub(super) fn holds(&self) -> Option<(&Found<T>, &T)> {
        let latest = self.latest()?;
        latest.value.as_ref().map(|value| (latest, value))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
