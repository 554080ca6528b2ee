//! All logs brought together.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use super::{
    key::RecordKey,
    register::{Found, Register},
    service::Parts,
    value::{self, Facts, Forgotten},
};
use crate::{
    cluster::{
        clock::Stamp,
        log::{Bytes, Change, Item, Key, Logs, Name, Need},
    },
    service::VipSpec,
};

/// What a change was about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Services of which something is other now, and those that share a VIP with them.
    pub services: BTreeSet<Name>,
    /// User keys.
    pub users: BTreeSet<Name>,
    /// Nodes with other facts.
    pub nodes: BTreeSet<Name>,
    /// Nodes that were forgotten.
    pub forgotten: BTreeSet<Name>,
}

impl Touched {
    /// Adds what another change was about.
    pub fn extend(&mut self, other: Self) {
        self.services.extend(other.services);
        self.users.extend(other.users);
        self.nodes.extend(other.nodes);
        self.forgotten.extend(other.forgotten);
    }
}

/// All logs brought together: a function of what they hold, whatever the order in which it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    services: BTreeMap<Name, Parts>,
    /// Services by VIP: the one that was created first has it, of one stamp the one of the smaller creator.
    vips: BTreeMap<VipSpec, BTreeSet<(Stamp, Name, Name)>>,
    facts: BTreeMap<Name, BTreeMap<u32, (Stamp, Facts)>>,
    forgotten: BTreeMap<Name, Register<Forgotten>>,
    users: BTreeMap<Name, Register<Bytes>>,
    /// Bytes of the user keys and values that hold.
    user_bytes: usize,
}

impl View {
    /// The view of all that logs hold.
    pub fn of(logs: &Logs) -> Self {
        let mut view = Self::default();
        for (origin, slot, key, item) in logs.entries() {
            let (key, now) = (key.clone(), Some(item.clone()));
            view.follow(&[Change { origin: origin.clone(), slot, key, was: None, now }]);
        }
        view
    }

    /// Follows changes of the logs; gives what they were about.
    pub fn follow(&mut self, changes: &[Change]) -> Touched {
        let mut touched = Touched::default();
        for change in changes {
            match RecordKey::decode(&change.key) {
                Some(RecordKey::Definition(name)) => self.define(name, change, &mut touched),
                Some(RecordKey::Backend(name, socket)) => {
                    self.with_parts(name, &mut touched, |parts| parts.offer(socket, change));
                }
                Some(RecordKey::Drain(name, socket)) => {
                    self.with_parts(name, &mut touched, |parts| parts.drain(socket, change));
                }
                Some(RecordKey::Verdict(name, socket)) => {
                    self.with_parts(name, &mut touched, |parts| parts.judge(socket, change));
                }
                Some(RecordKey::Claim(name, file)) => {
                    self.with_parts(name, &mut touched, |parts| parts.claim(&file, change));
                }
                Some(RecordKey::Facts) => self.learn(change, &mut touched),
                Some(RecordKey::Forgotten(name)) => {
                    let register = self.forgotten.entry(name.clone()).or_default();
                    register.follow(change, |item| item.value.as_ref().and_then(value::decode));
                    if register.is_empty() {
                        self.forgotten.remove(&name);
                    }
                    touched.forgotten.insert(name);
                }
                Some(RecordKey::User(key)) => self.set_user(key, change, &mut touched),
                None => {}
            }
        }
        touched
    }

    fn with_parts(&mut self, name: Name, touched: &mut Touched, edit: impl FnOnce(&mut Parts)) {
        let parts = self.services.entry(name.clone()).or_default();
        edit(parts);
        if parts.is_empty() {
            self.services.remove(&name);
        }
        touched.services.insert(name);
    }

    fn define(&mut self, name: Name, change: &Change, touched: &mut Touched) {
        let before = self.claim_of(&name);
        self.with_parts(name.clone(), touched, |parts| parts.define(change));
        let after = self.claim_of(&name);
        if let Some((vip, claim)) = before.filter(|before| after.as_ref() != Some(before)) {
            let claims = self.vips.entry(vip.clone()).or_default();
            claims.remove(&claim);
            touched.services.extend(claims.iter().map(|(.., name)| name.clone()));
            if claims.is_empty() {
                self.vips.remove(&vip);
            }
        }
        if let Some((vip, claim)) = after {
            let claims = self.vips.entry(vip).or_default();
            if claims.insert(claim) {
                touched.services.extend(claims.iter().map(|(.., name)| name.clone()));
            }
        }
    }

    /// A service's VIP, with its place among those that have it.
    fn claim_of(&self, name: &Name) -> Option<(VipSpec, (Stamp, Name, Name))> {
        let (_, definition) = self.services.get(name)?.definition()?;
        Some((definition.vip.clone(), (definition.created, definition.creator.clone(), name.clone())))
    }

    fn learn(&mut self, change: &Change, touched: &mut Touched) {
        let slots = self.facts.entry(change.origin.clone()).or_default();
        let read = |item: &Item| Some((item.stamp, value::decode(item.value.as_ref()?)?));
        match change.now.as_ref().and_then(read) {
            Some(facts) => slots.insert(change.slot, facts),
            None => slots.remove(&change.slot),
        };
        if slots.is_empty() {
            self.facts.remove(&change.origin);
        }
        touched.nodes.insert(change.origin.clone());
    }

    fn set_user(&mut self, key: Name, change: &Change, touched: &mut Touched) {
        let register = self.users.entry(key.clone()).or_default();
        let size = |register: &Register<Bytes>| {
            register.holds().map_or(0, |(_, value)| key.len() + value.as_slice().len())
        };
        self.user_bytes -= size(register);
        register.follow(change, |item| item.value.clone());
        self.user_bytes += size(register);
        if register.is_empty() {
            self.users.remove(&key);
        }
        touched.users.insert(key);
    }

    /// The names of all services of which anything is known.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.services.keys()
    }

    /// What is said of a service.
    pub fn service(&self, name: &str) -> Option<&Parts> {
        self.services.get(name)
    }

    /// The service that has a VIP, where that is another than `name`: it was created earlier.
    pub fn holder(&self, vip: &VipSpec, name: &str) -> Option<&Name> {
        let (.., holder) = self.vips.get(vip)?.first()?;
        (**holder != *name).then_some(holder)
    }

    /// Services that would have a VIP if `name` did not: they clash with it.
    pub fn behind(&self, vip: &VipSpec, name: &str) -> impl Iterator<Item = &Name> {
        let claims = self.vips.get(vip).into_iter().flatten();
        claims.map(|(.., other)| other).skip_while(move |other| ***other != *name).skip(1)
    }

    /// What the nodes say of themselves.
    pub fn facts(&self) -> impl Iterator<Item = (&Name, &Facts)> {
        self.facts.keys().filter_map(|name| Some((name, self.facts_of(name)?)))
    }

    /// What a node says of itself.
    pub fn facts_of(&self, node: &str) -> Option<&Facts> {
        let (_, facts) = self.facts.get(node)?.values().max_by_key(|(stamp, _)| *stamp)?;
        Some(facts)
    }

    /// How a node was forgotten, with the node that forgot it.
    pub fn forgotten(&self, node: &str) -> Option<(&Name, &Forgotten)> {
        let (found, forgotten) = self.forgotten.get(node)?.holds()?;
        Some((found.writer(), forgotten))
    }

    /// The nodes that were forgotten.
    pub fn all_forgotten(&self) -> Vec<Name> {
        self.forgotten.keys().cloned().collect()
    }

    /// The latest stamp at a node's mark of being forgotten.
    pub(super) fn forgotten_at(&self, node: &str) -> Stamp {
        self.forgotten.get(node).and_then(Register::latest).map(Found::stamp).unwrap_or_default()
    }

    /// A user key.
    pub fn user(&self, key: &str) -> Option<UserValue<'_>> {
        let (key, register) = self.users.get_key_value(key)?;
        UserValue::of(key, register)
    }

    /// The user keys that begin with a prefix, sorted.
    pub fn users<'v>(&'v self, prefix: &'v str) -> impl Iterator<Item = UserValue<'v>> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let with_prefix =
            self.users.range::<str, _>(from).take_while(move |(key, _)| key.starts_with(prefix));
        with_prefix.filter_map(|(key, register)| UserValue::of(key, register))
    }

    /// The latest stamp at a user key, of a removal too.
    pub(super) fn user_stamp(&self, key: &str) -> Stamp {
        self.users.get(key).and_then(Register::latest).map(Found::stamp).unwrap_or_default()
    }

    /// Bytes of all user keys with their values.
    pub fn user_bytes(&self) -> usize {
        self.user_bytes
    }

    /// The latest stamp of what a record at this key replaces.
    pub fn replaced(&self, key: &RecordKey) -> Stamp {
        let parts = |name: &Name| self.services.get(name);
        match key {
            RecordKey::Definition(name) => parts(name).map(Parts::defined).unwrap_or_default(),
            RecordKey::Backend(name, _) | RecordKey::Verdict(name, _) => {
                parts(name).map(Parts::since).unwrap_or_default()
            }
            RecordKey::Drain(name, socket) => parts(name).map(|own| own.marked(*socket)).unwrap_or_default(),
            RecordKey::Forgotten(name) => self.forgotten_at(name),
            RecordKey::User(key) => self.user_stamp(key),
            RecordKey::Facts | RecordKey::Claim(..) => Stamp::ZERO,
        }
    }

    /// Who needs a tombstone of this stamp.
    pub fn need(&self, key: &Key, stamp: Stamp) -> Need {
        fn has_older<T>(register: Option<&Register<T>>, stamp: Stamp) -> bool {
            let is_older = |found: &Found<T>| !found.is_removal() && found.stamp() <= stamp;
            register.is_some_and(|register| register.all().iter().any(is_older))
        }
        let has_older = match RecordKey::decode(key) {
            Some(RecordKey::Definition(name)) => self
                .services
                .get(&name)
                .is_some_and(|parts| has_older(Some(&parts.definition), stamp) || parts.has_ended_by(stamp)),
            Some(RecordKey::Drain(name, socket)) => {
                has_older(self.services.get(&name).and_then(|parts| parts.drains.get(&socket)), stamp)
            }
            Some(RecordKey::Forgotten(name)) => has_older(self.forgotten.get(&name), stamp),
            Some(RecordKey::User(key)) => has_older(self.users.get(&key), stamp),
            Some(
                RecordKey::Backend(..) | RecordKey::Facts | RecordKey::Claim(..) | RecordKey::Verdict(..),
            ) => return Need::OwnKey,
            // Of a later version, which knows.
            None => true,
        };
        if has_older { Need::Older } else { Need::Nobody }
    }

    /// What any node writes: all that logs have of it, by key, what holds first.
    pub(super) fn shared(&self) -> impl Iterator<Item = (RecordKey, Vec<Shared<'_>>)> {
        let services = self.services.iter().flat_map(|(name, parts)| {
            let definition = (RecordKey::Definition(name.clone()), erased(&parts.definition));
            let drains = parts.drains.iter();
            let drains =
                drains.map(|(socket, register)| (RecordKey::Drain(name.clone(), *socket), erased(register)));
            std::iter::once(definition).chain(drains)
        });
        let forgotten = self.forgotten.iter();
        let forgotten =
            forgotten.map(|(name, register)| (RecordKey::Forgotten(name.clone()), erased(register)));
        let users = self.users.iter();
        let users = users.map(|(key, register)| (RecordKey::User(key.clone()), erased(register)));
        services.chain(forgotten).chain(users)
    }

    /// The first user key of a prefix, after another one.
    pub(super) fn first_user_after(&self, prefix: &str, last: Option<&str>) -> Option<&Name> {
        let from = last.map_or(Bound::Included(prefix), Bound::Excluded);
        let mut later = self.users.range::<str, _>((from, Bound::Unbounded));
        let (key, _) =
            later.find(|(key, register)| !key.starts_with(prefix) || register.holds().is_some())?;
        key.starts_with(prefix).then_some(key)
    }
}

/// What a log has at a key that any node writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared<'v> {
    pub(super) origin: &'v Name,
    pub(super) item: &'v Item,
}

fn erased<T>(register: &Register<T>) -> Vec<Shared<'_>> {
    register.all().iter().map(|found| Shared { origin: &found.origin, item: &found.item }).collect()
}

/// A user key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserValue<'v> {
    /// The key.
    pub key: &'v Name,
    /// Its value.
    pub value: &'v Bytes,
    /// Grows with every change of the key.
    pub version: u64,
    /// Who wrote it.
    pub node: &'v Name,
    /// When, in milliseconds since 1970 by its writer's clock.
    pub time_ms: u64,
}

impl<'v> UserValue<'v> {
    fn of(key: &'v Name, register: &'v Register<Bytes>) -> Option<Self> {
        let (found, value) = register.holds()?;
        let (version, time_ms) = (found.stamp().number(), found.stamp().ms());
        Some(Self { key, value, version, node: found.writer(), time_ms })
    }
}
