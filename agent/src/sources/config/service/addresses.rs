//! What contradicts the fans and other services: VIPs inside an overlay, backends that are VIPs, VIPs that are backends.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use control::{
    desired::{Desired, Inputs},
    service::{Declared, Service},
};
use ipnet::Ipv4Net;

use super::{Placed, Problem};

/// What contradicts the fans, and each other.
pub fn check_addresses(services: &[Placed], overlays: &[Ipv4Net]) -> Vec<Problem> {
    let vips = vips(services.iter().map(|placed| &placed.service));
    let mut problems = Vec::new();
    for placed in services {
        let Some(IpAddr::V4(vip)) = address_of(&placed.service) else { continue };
        if let Some(overlay) = overlays.iter().find(|overlay| overlay.contains(&vip)) {
            problems
                .push(placed.wrong_vip(format!("{vip} lies in overlay {overlay}; give an unused address")));
        }
        problems.extend(backends_among(placed, |address| vips.get(&address).copied()));
    }
    problems
}

/// What contradicts services that are there and that these do not replace. Looks at no others: a change of one among ten
/// thousand services costs what it names.
pub fn check_beside(placed: &[Placed], inputs: &Inputs, desired: &Desired) -> Vec<Problem> {
    let named: HashSet<&str> = placed.iter().map(|placed| placed.service.name.as_str()).collect();
    let stays = |service: &&Service| !named.contains(service.name.as_str());
    let vip_of = |address| Some(inputs.with_vip_address(desired, address).find(stays)?.name.as_str());
    let mut problems: Vec<_> =
        placed.iter().flat_map(|placed| backends_among(placed, vip_of).collect::<Vec<_>>()).collect();
    problems.extend(placed.iter().filter_map(|placed| {
        let vip = address_of(&placed.service)?;
        let owner = &inputs.with_backend(desired, vip).find(stays)?.name;
        let message =
            format!("{vip} is a backend's address of service {owner}; give the service another VIP");
        Some(placed.wrong_vip(message))
    }));
    problems
}

/// Whose VIP an address is.
fn vips<'a>(services: impl Iterator<Item = &'a Declared>) -> HashMap<IpAddr, &'a str> {
    services.filter_map(|service| Some((address_of(service)?, service.name.as_str()))).collect()
}

/// The address of a service's VIP, where that is given: a name never gets one that contradicts anything.
fn address_of(service: &Declared) -> Option<IpAddr> {
    service.vip.at().map(|vip| vip.address)
}

/// The service's backends that are VIPs; `vip_of` names the service that has an address as its VIP.
fn backends_among<'a>(
    placed: &'a Placed,
    vip_of: impl Fn(IpAddr) -> Option<&'a str>,
) -> impl Iterator<Item = Problem> {
    placed.service.backends.iter().enumerate().filter_map(move |(place, backend)| {
        let other = vip_of(backend.address)?;
        let message = format!("{} is the VIP of service {other}; name its backends", backend.address);
        Some(placed.wrong_backend(place, message))
    })
}
