//! What a node is to be like, brought together from its sources.
//!
//! A service is a [`Definition`] (name, VIP, algorithm), contributions (backends of a node), drain marks and health. Each
//! source says its part of them as an [`Input`]; [`desired`] makes one value of all. Its rules:
//!
//! 1. Definitions are taken in the order of their sources ([`SourceId`]), then of their names. One is hidden where one that
//!    was taken before has its name or its VIP, or where packets of it would be taken for those of a service that was taken
//!    before: its VIP is a backend's address there, or a backend's address is a VIP there. A hidden definition is told
//!    ([`Desired::clashes`]) and comes back when the other goes.
//! 2. A source's contributions to a service count, unless its own definition of that name is hidden.
//! 3. An address that several nodes contribute is one backend, with the weight that the node of the smallest name gives it,
//!    and of one node's sources the first.
//! 4. A backend is drained where any source has a mark for it.
//! 5. A backend is down where any source says so. It takes no new flows, unless all that say so have it kept.
//! 6. A backend that is checked is down until it passes, and while it fails. If none would be left by that, those that nothing
//!    else takes out take new flows all the same (`entry.rs`).
//! 7. A named VIP has the address that its name hashes to, and the next that is free where an older name or anything else
//!    has that (`named.rs`). The order of age is that of the sources; of what was applied, that in which it was, and else
//!    that of the names; in the cluster, that of the services' creation. Such a VIP is told, too.
//! 8. While the cluster speaks, this node's own sources do not (`authority.rs`): what they say is among its records.
//!
//! One change of ten thousand services costs what it changes: entries and maps are shared with the former value.

mod authority;
mod changes;
mod clash;
mod entry;
mod index;
mod input;
mod merge;
mod named;
mod notes;
mod requests;
mod statement;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

pub use self::{
    changes::{Change, all_changes, make, none_left, stale},
    clash::NO_RANGE,
    entry::Entry,
    input::{Inputs, Settings},
    merge::desired,
    named::Reserved,
    requests::{ChangeError, check, drain, may_offer, offer, remove, withdraw},
    statement::{Input, Provenance, SourceId, Statement, Topic},
};
pub use crate::service::Definition;
use crate::service::{Down, Vip};

/// A service's name.
pub type Name = Arc<str>;

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dirty {
    /// Anything.
    All,
    /// The services of these names.
    Names(BTreeSet<Name>),
}

impl Default for Dirty {
    fn default() -> Self {
        Self::Names(BTreeSet::new())
    }
}

impl Dirty {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Names(names) if names.is_empty())
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Names(mut names), Self::Names(more)) => {
                names.extend(more);
                Self::Names(names)
            }
            _ => Self::All,
        }
    }
}

/// What a node is to be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Counts the values that were made.
    pub generation: u64,
    /// Whether the cluster speaks, and not this node's own sources.
    pub is_clustered: bool,
    /// What does not concern single services.
    pub settings: Arc<Settings>,
    /// All addresses that can't be reached, and why.
    pub down: Arc<BTreeMap<IpAddr, Down>>,
    entries: RedBlackTreeMapSync<Name, Arc<Entry>>,
    names: HashTrieMapSync<Vip, Name>,
    faults: Arc<BTreeMap<SourceId, Vec<String>>>,
    /// Why definitions are hidden, or have another VIP than they ask for.
    clashes: RedBlackTreeMapSync<(Name, SourceId), String>,
    /// What there is to tell of services.
    notes: RedBlackTreeMapSync<(Topic, Name), Arc<str>>,
}

impl Desired {
    /// The services, in the order of their names.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// The service of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.entries.get(name)
    }

    /// The service that has a VIP.
    pub fn at(&self, vip: Vip) -> Option<&Arc<Entry>> {
        self.entries.get(self.names.get(&vip)?)
    }

    /// How many services there are.
    pub fn len(&self) -> usize {
        self.entries.size()
    }

    /// Whether there is no service.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Why definitions are hidden, or have another VIP than they ask for, in the order of their names.
    pub fn clashes(&self) -> impl Iterator<Item = &str> {
        self.clashes.values().map(String::as_str)
    }

    /// What can't be followed of sources, in the order of their precedence.
    pub fn faults(&self) -> impl Iterator<Item = &str> {
        self.faults.values().flatten().map(String::as_str)
    }
}

#[cfg(test)]
mod tests;
