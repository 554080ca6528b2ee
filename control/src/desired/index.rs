//! Which statements are about an address, so that one change finds what it touches; and the addresses of named VIPs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ipnet::Ipv4Net;

use super::{
    Name, Reserved, SourceId, Statement,
    named::{Moved, Named},
};
use crate::service::{Vip, VipSpec};

/// A statement's place.
pub(super) type Place = (SourceId, Name);

/// Statements by what they name.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    vips: HashMap<Vip, BTreeSet<Place>>,
    vip_addresses: HashMap<IpAddr, BTreeSet<Place>>,
    backends: HashMap<IpAddr, BTreeSet<Place>>,
    /// Definitions with a named VIP, by the VIP's name.
    users: HashMap<Name, BTreeMap<Place, User>>,
    named: Named,
}

/// A definition with a named VIP.
#[derive(Clone, Debug)]
struct User {
    vip: VipSpec,
    age: u64,
}

impl Index {
    /// An empty one, with what named VIPs get their addresses from.
    pub(super) fn new(range: Option<Ipv4Net>, reserved: Reserved) -> Self {
        Self { named: Named::new(range, reserved), ..Self::default() }
    }

    pub(super) fn named(&self) -> &Named {
        &self.named
    }

    /// The services whose VIP has a name.
    pub(super) fn services_named(&self, name: &str) -> impl Iterator<Item = &Name> {
        self.users.get(name).into_iter().flatten().map(|((_, service), _)| service)
    }

    /// Where a VIP is; `None`: it has a name, and that has no address.
    pub(super) fn resolve(&self, vip: &VipSpec) -> Option<Vip> {
        match vip {
            VipSpec::At(vip) => Some(*vip),
            VipSpec::Named { name, port, protocol } => {
                let address = IpAddr::V4(self.named.address(name)?);
                Some(Vip { address, port: *port, protocol: *protocol })
            }
        }
    }

    /// Adds a statement; gives the services whose VIP moved by it.
    pub(super) fn add(&mut self, source: SourceId, name: &Name, statement: &Statement) -> BTreeSet<Name> {
        let place = || (source, Arc::clone(name));
        // The definition first: all are linked where they were before anything moved.
        let mut moved = Vec::new();
        match statement.definition.as_ref().map(|definition| &definition.vip) {
            None => {}
            Some(VipSpec::At(vip)) => {
                self.link(*vip, place());
                moved.extend(self.block(vip.address));
            }
            Some(vip @ VipSpec::Named { name, .. }) => {
                let user = User { vip: vip.clone(), age: statement.age };
                if let Some(vip) = self.resolve(vip) {
                    self.link(vip, place());
                }
                self.users.entry(Arc::clone(name)).or_default().insert(place(), user);
                moved.extend(self.set_age(name));
            }
        }
        for backend in &statement.backends {
            self.backends.entry(backend.address).or_default().insert(place());
            moved.extend(self.block(backend.address));
        }
        self.follow(moved)
    }

    /// Takes a statement away; gives the services whose VIP moved by it.
    pub(super) fn remove(&mut self, source: SourceId, name: &Name, statement: &Statement) -> BTreeSet<Name> {
        let place = (source, Arc::clone(name));
        let mut moved = Vec::new();
        match statement.definition.as_ref().map(|definition| &definition.vip) {
            None => {}
            Some(VipSpec::At(vip)) => {
                self.unlink(vip, &place);
                moved.extend(self.unblock(vip.address));
            }
            Some(vip @ VipSpec::Named { name, .. }) => {
                if let Some(vip) = self.resolve(vip) {
                    self.unlink(&vip, &place);
                }
                if let Some(users) = self.users.get_mut(name) {
                    users.remove(&place);
                    if users.is_empty() {
                        self.users.remove(name);
                    }
                }
                moved.extend(self.set_age(name));
            }
        }
        for backend in &statement.backends {
            take(&mut self.backends, &backend.address, &place);
            moved.extend(self.unblock(backend.address));
        }
        self.follow(moved)
    }

    fn link(&mut self, vip: Vip, place: Place) {
        self.vip_addresses.entry(vip.address).or_default().insert(place.clone());
        self.vips.entry(vip).or_default().insert(place);
    }

    fn unlink(&mut self, vip: &Vip, place: &Place) {
        take(&mut self.vips, vip, place);
        take(&mut self.vip_addresses, &vip.address, place);
    }

    /// A VIP's name is as old as the oldest definition that has it.
    fn set_age(&mut self, name: &Name) -> Vec<Moved> {
        let users = self.users.get(name).into_iter().flatten();
        let age = users.map(|((source, _), user)| (*source, user.age)).min();
        self.named.set(name, age)
    }

    fn block(&mut self, address: IpAddr) -> Vec<Moved> {
        v4(address).map(|address| self.named.block(address)).unwrap_or_default()
    }

    fn unblock(&mut self, address: IpAddr) -> Vec<Moved> {
        v4(address).map(|address| self.named.unblock(address)).unwrap_or_default()
    }

    /// Finds the services of VIPs that moved under their new addresses; gives their names. Of a VIP that moved twice the
    /// first move says where it was.
    fn follow(&mut self, moved: Vec<Moved>) -> BTreeSet<Name> {
        let mut services = BTreeSet::new();
        let mut former: BTreeMap<Name, Option<Ipv4Addr>> = BTreeMap::new();
        for (name, address) in moved {
            former.entry(name).or_insert(address);
        }
        for (name, former) in former {
            let users = self.users.get(&name).cloned().unwrap_or_default();
            let now = self.named.address(&name);
            for (place, User { vip, .. }) in users {
                let at = |address: Option<Ipv4Addr>| match (&vip, address) {
                    (VipSpec::Named { port, protocol, .. }, Some(address)) => {
                        Some(Vip { address: address.into(), port: *port, protocol: *protocol })
                    }
                    _ => None,
                };
                if let Some(vip) = at(former) {
                    self.unlink(&vip, &place);
                }
                services.insert(Arc::clone(&place.1));
                if let Some(vip) = at(now) {
                    self.link(vip, place);
                }
            }
        }
        services
    }

    /// Definitions of a VIP.
    pub(super) fn with_vip(&self, vip: Vip) -> impl Iterator<Item = &Place> {
        self.vips.get(&vip).into_iter().flatten()
    }

    /// Definitions with a VIP of an address.
    pub(super) fn with_vip_address(&self, address: IpAddr) -> impl Iterator<Item = &Place> {
        self.vip_addresses.get(&address).into_iter().flatten()
    }

    /// Statements with a backend of an address.
    pub(super) fn with_backend(&self, address: IpAddr) -> impl Iterator<Item = &Place> {
        self.backends.get(&address).into_iter().flatten()
    }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn take<K: Hash + Eq>(map: &mut HashMap<K, BTreeSet<Place>>, key: &K, place: &Place) {
    if let Some(places) = map.get_mut(key) {
        places.remove(place);
        if places.is_empty() {
            map.remove(key);
        }
    }
}
