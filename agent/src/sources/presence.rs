//! Presence of local backends: those whose endpoint on this node has gone take no new flows.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use control::{
    desired::Input,
    service::{BackendLife, BackendState, Down, ServiceState},
};

/// What this source says while these endpoints are absent.
pub(crate) fn input(absent: &BTreeMap<Ipv4Addr, Down>) -> Input {
    let down = absent.iter().map(|(&address, &why)| (IpAddr::V4(address), why));
    Input { down: down.collect(), ..Input::default() }
}

/// The endpoints that were absent when an agent left these services.
pub(crate) fn absent(services: &[ServiceState]) -> BTreeMap<Ipv4Addr, Down> {
    let backends = services.iter().flat_map(|service| &service.backends);
    let is_absent = |backend: &&BackendState| {
        backend.state == BackendLife::Down && backend.reason.is_none_or(Down::is_of_endpoint)
    };
    let down = backends.filter(is_absent);
    let absent = down.filter_map(|backend| match backend.address.ip() {
        IpAddr::V4(address) => Some((address, backend.reason.unwrap_or(Down::EndpointGone))),
        IpAddr::V6(_) => None,
    });
    absent.collect()
}
