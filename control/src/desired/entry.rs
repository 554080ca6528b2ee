//! A service that is wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use super::{Provenance, SourceId};
use crate::{
    health::OnDown,
    service::{
        Backend, BackendLife, BackendState, Down, Forward, Outage, Service, ServiceLife, ServiceState,
    },
};

/// A service that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it is defined, with the backends that are contributed.
    pub defined: Service,
    /// The source that defines it.
    pub origin: SourceId,
    /// The address that its VIP's name hashes to, where that is another's.
    pub hashed: Option<Ipv4Addr>,
    /// Those of its backends that take no new flows until they are undrained.
    pub drained: BTreeSet<SocketAddr>,
    /// Those of its backends that are down.
    pub down: BTreeMap<SocketAddr, Outage>,
    /// Where its backends come from, by address, where that is known.
    pub provenance: Arc<[Provenance]>,
    /// Files of several nodes define it in different ways.
    pub is_conflict: bool,
    /// As the kernel is to hold it: drained backends and those that are down weigh nothing.
    pub wanted: Service,
}

impl Entry {
    /// A service whose backends all take new flows.
    pub(super) fn new(defined: Service, origin: SourceId) -> Self {
        let (hashed, drained, down, provenance, is_conflict) = Default::default();
        // How backends are checked is nothing to the kernel.
        let wanted = Service { checking: None, ..defined.clone() };
        Self { defined, origin, hashed, drained, down, provenance, is_conflict, wanted }
    }

    /// Takes backends out of rotation: those that are drained, that are down, and that a check does not have up.
    pub(super) fn set_out(
        &mut self,
        is_drained: impl Fn(SocketAddr) -> bool,
        is_checked: impl Fn(SocketAddr) -> Option<bool>,
        outage: impl Fn(&Backend) -> Option<Outage>,
    ) {
        let backends = self.defined.backends.iter();
        self.down = backends.clone().filter_map(|own| Some((own.socket(), outage(own)?))).collect();
        self.drained = backends.clone().map(Backend::socket).filter(|socket| is_drained(*socket)).collect();
        if self.defined.checking.is_some() {
            self.set_checked(is_checked);
        }
        let on_down = self.defined.checking.as_ref().map(|checking| checking.on_down).unwrap_or_default();
        let (down, drained) = (&self.down, &self.drained);
        self.wanted.backends.retain_mut(|backend| {
            let socket = backend.socket();
            let outage = down.get(&socket).filter(|outage| !outage.is_kept);
            if outage.is_some() || drained.contains(&socket) {
                backend.weight = 0;
            }
            on_down == OnDown::Keep || outage.is_none_or(|outage| outage.why != Down::CheckFailed)
        });
    }

    /// Takes out what checks do not have up; all that may serve otherwise, if none would be left.
    fn set_checked(&mut self, is_checked: impl Fn(SocketAddr) -> Option<bool>) {
        let may_serve = |own: &&Backend| {
            let is_out = self.down.get(&own.socket()).is_some_and(|outage| !outage.is_kept);
            own.weight > 0 && !is_out && !self.drained.contains(&own.socket())
        };
        let serving: BTreeSet<SocketAddr> =
            self.defined.backends.iter().filter(may_serve).map(Backend::socket).collect();
        let is_kept = !serving.iter().any(|socket| is_checked(*socket) == Some(true));
        for socket in self.defined.backends.iter().map(Backend::socket) {
            let why = match is_checked(socket) {
                Some(true) => continue,
                Some(false) => Down::CheckFailed,
                None => Down::Unchecked,
            };
            let outage = Outage { why, is_kept: is_kept && serving.contains(&socket) };
            // What else takes it out is the better reason.
            let former = self.down.entry(socket).or_insert(outage);
            if former.is_kept {
                *former = outage;
            }
        }
    }

    /// Where a backend comes from.
    pub fn provenance(&self, backend: SocketAddr) -> Option<&Provenance> {
        let place = self.provenance.binary_search_by_key(&backend, |own| own.socket).ok()?;
        self.provenance.get(place)
    }

    /// How many backends are down and take new flows all the same.
    pub(super) fn kept(&self) -> usize {
        self.defined.backends.iter().filter(|backend| self.is_kept(backend)).count()
    }

    /// Whether a backend that takes new flows is down for another reason than that it was not checked yet.
    fn has_failed(&self) -> bool {
        let mut kept = self.down.values().filter(|outage| outage.is_kept);
        kept.any(|outage| outage.why != Down::Unchecked)
    }

    fn is_kept(&self, backend: &Backend) -> bool {
        let address = backend.socket();
        let is_kept = self.down.get(&address).is_some_and(|outage| outage.is_kept);
        is_kept && backend.weight > 0 && !self.drained.contains(&address)
    }

    /// Whether new flows find a backend, and by which right.
    pub(super) fn rotation(&self) -> ServiceLife {
        let has_up = self.defined.backends.iter().any(|backend| self.life(backend) == BackendLife::Up);
        match (self.kept() > 0, has_up) {
            (true, true) => ServiceLife::Kept,
            // Nothing has failed yet.
            (true, false) if !self.has_failed() => ServiceLife::Up,
            (true, false) => ServiceLife::AllDown,
            (false, true) => ServiceLife::Up,
            (false, false) => ServiceLife::Down,
        }
    }

    /// What is said of it; `is_held`: the kernel holds it as it is wanted.
    pub fn state(&self, is_held: bool) -> ServiceState {
        let service = &self.defined;
        let backends: Vec<BackendState> =
            service.backends.iter().map(|backend| self.backend_state(backend)).collect();
        ServiceState {
            name: service.name.clone(),
            vip: service.vip.to_string(),
            forward: Forward::Nat,
            algorithm: service.algorithm,
            state: match is_held {
                false => ServiceLife::Failed,
                true if self.is_conflict => ServiceLife::Conflict,
                true => self.rotation(),
            },
            backends,
        }
    }

    /// How one of its backends is; one that is down may be kept.
    pub fn life(&self, backend: &Backend) -> BackendLife {
        let address = backend.socket();
        match backend.weight {
            _ if self.down.contains_key(&address) => BackendLife::Down,
            1.. if !self.drained.contains(&address) => BackendLife::Up,
            _ => BackendLife::Drained,
        }
    }

    fn backend_state(&self, backend: &Backend) -> BackendState {
        let address = backend.socket();
        let reason = self.down.get(&address).map(|outage| outage.why);
        let (state, kept) = (self.life(backend), self.is_kept(backend));
        BackendState { address, weight: backend.weight, state, reason, kept }
    }
}
