//! What all logs say of one service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{
    register::{Found, Register},
    value::{self, BackendRecord, Claim, Definition, Verdict},
};
use crate::cluster::{
    clock::Stamp,
    log::{Change, Item, Name},
};

/// A backend that a node offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer<'v> {
    /// Address and port.
    pub socket: SocketAddr,
    /// Who contributes it.
    pub node: &'v Name,
    /// Its share of new flows, as this node sees it.
    pub weight: u32,
}

/// What all logs say of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    pub(super) definition: Register<Definition>,
    /// By address, origin and slot: stamp and weight.
    backends: BTreeMap<(SocketAddr, Name, u32), (Stamp, u32)>,
    pub(super) drains: BTreeMap<SocketAddr, Register<()>>,
    /// By address, origin and slot: stamp, and whether that node finds it up.
    verdicts: BTreeMap<(SocketAddr, Name, u32), (Stamp, bool)>,
    /// By origin, file and slot.
    claims: BTreeMap<(Name, Name, u32), (Stamp, Claim)>,
}

impl Parts {
    pub(super) fn define(&mut self, change: &Change) {
        self.definition.follow(change, |item| item.value.as_ref().and_then(value::decode));
    }

    pub(super) fn offer(&mut self, socket: SocketAddr, change: &Change) {
        let key = (socket, change.origin.clone(), change.slot);
        match read::<BackendRecord>(change.now.as_ref()) {
            Some((stamp, record)) => self.backends.insert(key, (stamp, record.weight)),
            None => self.backends.remove(&key),
        };
    }

    pub(super) fn drain(&mut self, socket: SocketAddr, change: &Change) {
        let register = self.drains.entry(socket).or_default();
        register.follow(change, |item| item.value.as_ref().map(|_mark| ()));
        if register.is_empty() {
            self.drains.remove(&socket);
        }
    }

    pub(super) fn judge(&mut self, socket: SocketAddr, change: &Change) {
        let key = (socket, change.origin.clone(), change.slot);
        match read::<Verdict>(change.now.as_ref()) {
            Some((stamp, verdict)) => self.verdicts.insert(key, (stamp, verdict.is_up)),
            None => self.verdicts.remove(&key),
        };
    }

    pub(super) fn claim(&mut self, file: &Name, change: &Change) {
        let key = (change.origin.clone(), file.clone(), change.slot);
        match read(change.now.as_ref()) {
            Some(claim) => self.claims.insert(key, claim),
            None => self.claims.remove(&key),
        };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.definition.is_empty()
            && self.backends.is_empty()
            && self.drains.is_empty()
            && self.verdicts.is_empty()
            && self.claims.is_empty()
    }

    /// The definition that holds, with the record that it stands in.
    pub fn definition(&self) -> Option<(&Found<Definition>, &Definition)> {
        self.definition.holds()
    }

    /// The last record at the definition: a removal, too.
    pub fn latest(&self) -> Option<&Found<Definition>> {
        self.definition.latest()
    }

    /// All definitions that logs have, what holds first.
    pub(super) fn all_definitions(&self) -> &[Found<Definition>] {
        self.definition.all()
    }

    /// The latest stamp at the definition: what is written later, replaces it.
    pub fn defined(&self) -> Stamp {
        let latest = self.definition.latest().map(Found::stamp).unwrap_or_default();
        latest.max(self.since())
    }

    /// When a service of this name was removed last. What was written of it before is no part of the one that there is now.
    pub fn since(&self) -> Stamp {
        self.definition.all().iter().map(removed).max().unwrap_or_default()
    }

    /// The backends that are offered, by address, then by node.
    pub fn offers(&self) -> impl Iterator<Item = Offer<'_>> {
        let since = self.since();
        let valid = self.backends.iter().filter(move |(_, (stamp, _))| *stamp > since);
        let mut last = None;
        valid.filter_map(move |((socket, node, _), (_, weight))| {
            // Of two logs of one origin, one is on its way into the other.
            let is_new = last.replace((socket, node)) != Some((socket, node));
            is_new.then_some(Offer { socket: *socket, node, weight: *weight })
        })
    }

    /// The nodes that offer a backend.
    pub fn contributors(&self, socket: SocketAddr) -> Vec<&Name> {
        self.offers().filter(|offer| offer.socket == socket).map(|offer| offer.node).collect()
    }

    /// The backends that take no new flows.
    pub fn drained(&self) -> impl Iterator<Item = SocketAddr> {
        let since = self.since();
        let holds =
            move |register: &Register<()>| register.holds().is_some_and(|(found, ())| found.stamp() > since);
        self.drains.iter().filter(move |(_, register)| holds(register)).map(|(socket, _)| *socket)
    }

    /// What nodes have found of a backend by checking it: the node, and whether it is up. Of two logs of one node the later
    /// record.
    pub fn verdicts(&self, socket: SocketAddr) -> BTreeMap<&Name, bool> {
        let since = self.since();
        let first = (socket, Name::from(""), 0);
        let own = self.verdicts.range(first..).take_while(|((other, ..), _)| *other == socket);
        let mut own: Vec<_> = own.filter(|(_, (stamp, _))| *stamp > since).collect();
        own.sort_by_key(|(_, (stamp, _))| *stamp);
        own.into_iter().map(|((_, node, _), (_, is_up))| (node, *is_up)).collect()
    }

    /// Verdicts of a node: of backends of a former service of this name, too, then with nothing found.
    pub(super) fn verdicts_of<'p>(
        &'p self,
        node: &'p str,
    ) -> impl Iterator<Item = (SocketAddr, Option<bool>)> + 'p {
        let since = self.since();
        let own = self.verdicts.iter().filter(move |((_, origin, _), _)| **origin == *node);
        own.map(move |((socket, ..), (stamp, is_up))| (*socket, (*stamp > since).then_some(*is_up)))
    }

    /// The latest stamp at a drain mark.
    pub fn marked(&self, socket: SocketAddr) -> Stamp {
        let latest = self.drains.get(&socket).and_then(Register::latest).map(Found::stamp);
        latest.unwrap_or_default().max(self.since())
    }

    /// What files say of it: node, file and claim. Of two logs of a node the later record.
    pub fn claims(&self) -> BTreeMap<(&Name, &Name), &Claim> {
        let mut claims: Vec<_> = self.claims.iter().collect();
        claims.sort_by_key(|(_, (stamp, _))| *stamp);
        claims.into_iter().map(|((node, file, _), (_, claim))| ((node, file), claim)).collect()
    }

    /// The addresses of a node's backends that ended with a service of this name.
    pub(super) fn ended_backends(&self, node: &str) -> BTreeSet<SocketAddr> {
        let since = self.since();
        let ended = |((_, origin, _), (stamp, _)): &(&(SocketAddr, Name, u32), &(Stamp, u32))| {
            **origin == *node && *stamp <= since
        };
        self.backends.iter().filter(ended).map(|((socket, ..), _)| *socket).collect()
    }

    /// The addresses of drain marks in a node's log that ended with a service of this name.
    pub(super) fn ended_drains(&self, node: &str) -> BTreeSet<SocketAddr> {
        let since = self.since();
        let ended =
            |found: &Found<()>| *found.origin == *node && !found.is_removal() && found.stamp() <= since;
        let marks = self.drains.iter().filter(|(_, register)| register.all().iter().any(ended));
        marks.map(|(socket, _)| *socket).collect()
    }

    /// Whether there is a backend or mark of up to a stamp.
    pub(super) fn has_ended_by(&self, stamp: Stamp) -> bool {
        let is_older = |found: &Found<()>| !found.is_removal() && found.stamp() <= stamp;
        self.backends.values().any(|(own, _)| *own <= stamp)
            || self.drains.values().any(|register| register.all().iter().any(is_older))
    }
}

/// The last removal that a record at a definition's key tells of.
pub(super) fn removed(found: &Found<Definition>) -> Stamp {
    if found.is_removal() { found.stamp() } else { found.value.as_ref().map_or(Stamp::ZERO, |own| own.since) }
}

fn read<T: serde::de::DeserializeOwned>(item: Option<&Item>) -> Option<(Stamp, T)> {
    let item = item?;
    Some((item.stamp, value::decode(item.value.as_ref()?)?))
}
