//! Backends beyond the overlays that are reached by a device whose answers no program sees.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use control::{
    desired::{Desired, Name},
    observed::Link,
    reconcile::Surroundings,
    service::Backend,
};

use crate::{kernel::netlink::Netlink, node::routes::device};

/// Backends that are asked for in one pass.
const QUESTIONS: usize = 256;

/// The indices of these devices.
pub(super) fn indices(names: &[String], links: &[Link]) -> BTreeSet<u32> {
    links.iter().filter(|link| names.contains(&link.name)).map(|link| link.index).collect()
}

/// Whether one of these services has a backend that the next pass over everything has to ask for.
pub(super) fn may_stray(desired: &Desired, names: &BTreeSet<Name>, around: &Surroundings) -> bool {
    let entries = names.iter().filter_map(|name| desired.get(name));
    let mut backends = entries.flat_map(|entry| entry.wanted.backends.iter().filter_map(Backend::v4));
    backends.any(|(address, _)| around.may_stray(address))
}

/// Says which services have backends behind which devices that are no uplinks.
pub(super) async fn strays(
    netlink: &Netlink,
    desired: &Desired,
    around: &Surroundings,
    links: &[Link],
) -> Vec<String> {
    let mut suspects: BTreeMap<Ipv4Addr, BTreeSet<&str>> = BTreeMap::new();
    for entry in desired.entries() {
        for (address, _) in entry.wanted.backends.iter().filter_map(Backend::v4) {
            if around.may_stray(address) {
                suspects.entry(address).or_default().insert(&entry.wanted.name);
            }
        }
    }
    let mut strays: BTreeMap<(&str, u32), Vec<Ipv4Addr>> = BTreeMap::new();
    for (address, names) in suspects.into_iter().take(QUESTIONS) {
        // One without a route is answered as unreachable.
        let Some(oif) = netlink.route_to(address).await.ok().and_then(|route| route.oif) else { continue };
        let is_here = links.iter().any(|link| link.index == oif && link.loopback);
        if !is_here && !around.is_uplink(oif) {
            names.into_iter().for_each(|name| strays.entry((name, oif)).or_default().push(address));
        }
    }
    let reason = |((name, oif), addresses): ((&str, u32), Vec<Ipv4Addr>)| {
        let by = device(links, Some(oif));
        let more = match addresses.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let first = addresses.first().map(ToString::to_string).unwrap_or_default();
        format!(
            "backend-device {name}: backend {first}{more} is reached by {by}, where no program sees its answers; add {by} to \
             `uplink` in [node]"
        )
    };
    strays.into_iter().map(reason).collect()
}
