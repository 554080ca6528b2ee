//! A service that is wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
};

use super::SourceId;
use crate::service::{Backend, BackendLife, BackendState, Down, Forward, Service, ServiceLife, ServiceState};

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
    /// Those of its backends that can't be reached, and why.
    pub down: BTreeMap<SocketAddr, Down>,
    /// As the kernel is to hold it: drained backends and those that can't be reached weigh nothing.
    pub wanted: Service,
}

impl Entry {
    pub(super) fn new(
        defined: Service,
        origin: SourceId,
        hashed: Option<Ipv4Addr>,
        is_drained: impl Fn(SocketAddr) -> bool,
        why_down: impl Fn(&Backend) -> Option<Down>,
    ) -> Self {
        let mut wanted = defined.clone();
        let (mut drained, mut down) = (BTreeSet::new(), BTreeMap::new());
        for backend in &mut wanted.backends {
            let socket = backend.socket();
            if is_drained(socket) {
                drained.insert(socket);
                backend.weight = 0;
            }
            if let Some(why) = why_down(backend) {
                down.insert(socket, why);
                backend.weight = 0;
            }
        }
        Self { defined, origin, hashed, drained, down, wanted }
    }

    /// What is said of it; `is_held`: the kernel holds it as it is wanted.
    pub fn state(&self, is_held: bool) -> ServiceState {
        let service = &self.defined;
        let backends: Vec<BackendState> =
            service.backends.iter().map(|backend| self.backend_state(backend)).collect();
        let has_usable = backends.iter().any(|backend| backend.state == BackendLife::Up);
        ServiceState {
            name: service.name.clone(),
            vip: service.vip.to_string(),
            forward: Forward::Nat,
            algorithm: service.algorithm,
            state: match (is_held, has_usable) {
                (false, _) => ServiceLife::Failed,
                (true, true) => ServiceLife::Up,
                (true, false) => ServiceLife::Down,
            },
            backends,
        }
    }

    /// Whether one of its backends takes new flows.
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
        let reason = self.down.get(&address).copied();
        BackendState { address, weight: backend.weight, state: self.life(backend), reason }
    }
}
