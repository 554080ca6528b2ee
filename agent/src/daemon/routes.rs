//! Routes of VIPs: changed one by one, and told of.

use crate::{
    kernel::netlink::{Link, Netlink, Route},
    reconcile::RouteOp,
};

/// Makes one change of routes.
pub(super) async fn route(netlink: &Netlink, op: &RouteOp) -> Option<String> {
    let outcome = match op {
        RouteOp::Set(route) => netlink.replace_route(route).await,
        RouteOp::Delete(route) => netlink.delete_route(route).await,
    };
    outcome.err().map(|error| error.to_string())
}

/// Why a VIP has no route of ours.
pub(super) fn held_by(route: &Route, links: &[Link]) -> String {
    let Route { destination, protocol, .. } = route;
    let target = if route.rejects { "nowhere".to_owned() } else { device(links, route.oif) };
    let vip = destination.addr();
    format!(
        "vip-route {vip}: held by a route to {target} (protocol {protocol}); delete it, or use another VIP"
    )
}

/// A device's name.
pub(super) fn device(links: &[Link], index: Option<u32>) -> String {
    let link = links.iter().find(|link| Some(link.index) == index);
    link.map_or_else(|| "an unknown device".to_owned(), |link| link.name.clone())
}
