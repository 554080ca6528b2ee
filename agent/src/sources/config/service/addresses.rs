//! What contradicts the fans and other services: VIPs inside an overlay, backends that are VIPs, VIPs that are backends.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use control::service::Service;
use ipnet::Ipv4Net;

use super::{Placed, Problem};

/// What contradicts the fans, and each other.
pub fn check_addresses(services: &[Placed], overlays: &[Ipv4Net]) -> Vec<Problem> {
    let vips = vips(services.iter().map(|placed| &placed.service));
    let mut problems = Vec::new();
    for placed in services {
        let IpAddr::V4(vip) = placed.service.vip.address else { continue };
        if let Some(overlay) = overlays.iter().find(|overlay| overlay.contains(&vip)) {
            problems
                .push(placed.wrong_vip(format!("{vip} lies in overlay {overlay}; give an unused address")));
        }
        problems.extend(backends_among(placed, &vips));
    }
    problems
}

/// What contradicts services that are there and that these do not replace.
pub fn check_beside<'a>(
    placed: &[Placed],
    standing: impl Iterator<Item = &'a Service> + Clone,
) -> Vec<Problem> {
    let named: HashSet<&str> = placed.iter().map(|placed| placed.service.name.as_str()).collect();
    let is_named = |service: &&Service| named.contains(service.name.as_str());
    let others = standing.clone().filter(|service| !is_named(service));
    let held = vips(others.clone());
    let mut problems: Vec<_> = placed.iter().flat_map(|placed| backends_among(placed, &held)).collect();
    let former = standing.filter(is_named).map(|service| (service.name.as_str(), service.vip.address));
    let former: HashMap<&str, IpAddr> = former.collect();
    // A VIP that stays has been checked: one change among thousands of services looks at no other's backends.
    let new = placed.iter().filter(|placed| {
        let Service { name, vip, .. } = &placed.service;
        former.get(name.as_str()) != Some(&vip.address)
    });
    problems.extend(vips_among_backends(&new.collect::<Vec<_>>(), others));
    problems
}

/// The VIPs that are addresses of others' backends.
fn vips_among_backends<'a>(new: &[&Placed], others: impl Iterator<Item = &'a Service>) -> Vec<Problem> {
    let addresses: HashSet<IpAddr> = new.iter().map(|placed| placed.service.vip.address).collect();
    if addresses.is_empty() {
        return Vec::new();
    }
    let owned =
        others.flat_map(|service| service.backends.iter().map(move |backend| (backend.address, service)));
    let owners: HashMap<IpAddr, &Service> =
        owned.filter(|(address, _)| addresses.contains(address)).collect();
    let wrong = new.iter().filter_map(|placed| {
        let vip = placed.service.vip.address;
        let owner = &owners.get(&vip)?.name;
        let message =
            format!("{vip} is a backend's address of service {owner}; give the service another VIP");
        Some(placed.wrong_vip(message))
    });
    wrong.collect()
}

/// Whose VIP an address is.
fn vips<'a>(services: impl Iterator<Item = &'a Service>) -> HashMap<IpAddr, &'a str> {
    services.map(|service| (service.vip.address, service.name.as_str())).collect()
}

/// The service's backends that are VIPs.
fn backends_among(placed: &Placed, vips: &HashMap<IpAddr, &str>) -> Vec<Problem> {
    let backends = placed.service.backends.iter().enumerate();
    let wrong = backends.filter_map(|(place, backend)| {
        let other = vips.get(&backend.address)?;
        let message = format!("{} is the VIP of service {other}; name its backends", backend.address);
        Some(placed.wrong_backend(place, message))
    });
    wrong.collect()
}
