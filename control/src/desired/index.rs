//! Which statements are about an address, so that one change finds what it touches.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

use super::{Name, SourceId, Statement};
use crate::service::Vip;

/// A statement's place.
pub(super) type Place = (SourceId, Name);

/// Statements by what they name.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    vips: HashMap<Vip, BTreeSet<Place>>,
    vip_addresses: HashMap<IpAddr, BTreeSet<Place>>,
    backends: HashMap<IpAddr, BTreeSet<Place>>,
}

impl Index {
    pub(super) fn add(&mut self, source: SourceId, name: &Name, statement: &Statement) {
        let place = || (source, Arc::clone(name));
        if let Some(definition) = &statement.definition {
            self.vips.entry(definition.vip).or_default().insert(place());
            self.vip_addresses.entry(definition.vip.address).or_default().insert(place());
        }
        for backend in &statement.backends {
            self.backends.entry(backend.address).or_default().insert(place());
        }
    }

    pub(super) fn remove(&mut self, source: SourceId, name: &Name, statement: &Statement) {
        let place = (source, Arc::clone(name));
        if let Some(definition) = &statement.definition {
            take(&mut self.vips, &definition.vip, &place);
            take(&mut self.vip_addresses, &definition.vip.address, &place);
        }
        for backend in &statement.backends {
            take(&mut self.backends, &backend.address, &place);
        }
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

fn take<K: Hash + Eq>(map: &mut HashMap<K, BTreeSet<Place>>, key: &K, place: &Place) {
    if let Some(places) = map.get_mut(key) {
        places.remove(place);
        if places.is_empty() {
            map.remove(key);
        }
    }
}
