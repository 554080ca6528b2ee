//! Which backends this node checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use control::{
    cluster::records::checkers,
    desired::{Desired, Entry, Name},
    health::{Check, State},
    service::{BackendLife, Down},
};

/// A backend that is checked: service and address.
pub(super) type Key = (Name, SocketAddr);

/// The members of a cluster, as far as it matters who checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    /// This node.
    pub(super) own: Name,
    /// Those that are alive, this node included.
    pub(super) live: Vec<Name>,
}

/// What is to be checked otherwise than before.
#[derive(Debug)]
pub(super) enum Turn {
    /// A backend is checked, by this check from now on; a new one begins in a state.
    Check(Key, Arc<Check>, State),
    /// A backend is checked no more.
    Leave(Key),
}

/// The backends that this node checks.
#[derive(Debug, Default)]
pub(super) struct Targets {
    former: Arc<Desired>,
    members: Option<Members>,
    checked: BTreeMap<Name, BTreeSet<SocketAddr>>,
}

impl Targets {
    /// Whether the cluster says what services there are.
    pub(super) fn is_clustered(&self) -> bool {
        self.former.is_clustered
    }

    /// The services of which backends are checked, with these.
    pub(super) fn checked(&self) -> impl Iterator<Item = (&Name, &BTreeSet<SocketAddr>)> {
        self.checked.iter()
    }

    /// The backends of a service that are checked.
    pub(super) fn of(&self, service: &str) -> impl Iterator<Item = SocketAddr> + '_ {
        self.checked.get(service).into_iter().flatten().copied()
    }

    /// Follows what services there are, and in a cluster its members.
    pub(super) fn follow(&mut self, desired: &Arc<Desired>, members: Option<Members>) -> Vec<Turn> {
        let former = std::mem::replace(&mut self.former, Arc::clone(desired));
        let is_same_context = former.is_clustered == desired.is_clustered && self.members == members;
        if is_same_context && Arc::ptr_eq(&former, desired) {
            return Vec::new();
        }
        self.members = members;
        let mut turns = Vec::new();
        let mut before = former.entries().peekable();
        for entry in desired.entries() {
            let name = &entry.defined.name;
            while let Some(gone) = before.next_if(|own| own.defined.name < *name) {
                self.leave(&gone.defined.name, &mut turns);
            }
            let was = before.next_if(|own| own.defined.name == *name);
            if is_same_context && was.is_some_and(|was| Arc::ptr_eq(was, entry)) {
                continue;
            }
            self.set(was.map(AsRef::as_ref), entry, &mut turns);
        }
        for gone in before {
            self.leave(&gone.defined.name, &mut turns);
        }
        turns
    }

    fn leave(&mut self, name: &str, turns: &mut Vec<Turn>) {
        if let Some((name, sockets)) = self.checked.remove_entry(name) {
            turns.extend(sockets.into_iter().map(|socket| Turn::Leave((Arc::clone(&name), socket))));
        }
    }

    fn set(&mut self, was: Option<&Entry>, entry: &Entry, turns: &mut Vec<Turn>) {
        let sockets = match &entry.defined.checking {
            Some(_) => self.own_of(entry),
            None => BTreeSet::new(),
        };
        let name = entry.defined.name.as_str();
        let former = self.checked.get(name).cloned().unwrap_or_default();
        let name = Name::from(name);
        let key = |socket: &SocketAddr| (Arc::clone(&name), *socket);
        turns.extend(former.difference(&sockets).map(|socket| Turn::Leave(key(socket))));
        if let Some(checking) = &entry.defined.checking {
            let check =
                |socket| Turn::Check(key(socket), Arc::clone(&checking.check), begins(was, entry, *socket));
            turns.extend(sockets.iter().map(check));
        }
        match sockets.is_empty() {
            true => self.checked.remove(&name),
            false => self.checked.insert(name, sockets),
        };
    }

    /// The backends of a service that this node checks: in a cluster those that it contributes, of which a member has the
    /// address, and its share of the others.
    fn own_of(&self, entry: &Entry) -> BTreeSet<SocketAddr> {
        let sockets = entry.defined.backends.iter().map(|backend| backend.socket());
        if !self.is_clustered() {
            return sockets.collect();
        }
        let Some(Members { own, live }) = &self.members else { return BTreeSet::new() };
        let is_own = |socket: &SocketAddr| {
            entry.provenance(*socket).is_some_and(|origin| match &origin.node {
                Some(_) => origin.contributors.contains(own),
                None => checkers(*socket, live).contains(&own),
            })
        };
        sockets.filter(is_own).collect()
    }
}

/// How a backend begins whose check begins: as it counts by now. One that took flows without a check is up.
fn begins(was: Option<&Entry>, entry: &Entry, socket: SocketAddr) -> State {
    let took_flows = |was: &Entry| {
        let mut backends = was.defined.backends.iter();
        let is_up = |backend: &&_| was.life(backend) == BackendLife::Up;
        was.defined.checking.is_none()
            && backends.find(|own| own.socket() == socket).as_ref().is_some_and(is_up)
    };
    match entry.down.get(&socket).map(|outage| outage.why) {
        None => State::Up,
        Some(Down::CheckFailed) => State::Down,
        Some(Down::Unchecked) if was.is_some_and(took_flows) => State::Up,
        Some(_) => State::Init,
    }
}

#[cfg(test)]
mod tests;
