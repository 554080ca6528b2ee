//! Routes of VIPs: changed, and told of.

use control::{
    observed::{Link, Route},
    reconcile::RouteOp,
};
use futures_util::{StreamExt as _, stream};

use crate::kernel::netlink::Netlink;

/// How many changes are asked for before the first is answered: the answers fit a socket's buffer many times over.
const AT_ONCE: usize = 32;

/// Makes changes of routes, each of another; says which failed.
pub(crate) async fn change_routes<'o>(
    netlink: &Netlink,
    ops: impl IntoIterator<Item = &'o RouteOp>,
) -> Vec<String> {
    let outcomes = stream::iter(ops).map(|op| change_route(netlink, op)).buffered(AT_ONCE);
    outcomes.filter_map(async |fault| fault).collect().await
}

async fn change_route(netlink: &Netlink, op: &RouteOp) -> Option<String> {
    let outcome = match op {
        RouteOp::Set(route) => netlink.replace_route(route).await,
        RouteOp::Delete(route) => netlink.delete_route(route).await,
    };
    outcome.err().map(|error| error.to_string())
}

/// Why a VIP has no route of ours.
pub(crate) fn held_by(route: &Route, links: &[Link]) -> String {
    let Route { destination, protocol, .. } = route;
    let target = if route.rejects { "nowhere".to_owned() } else { device(links, route.oif) };
    let vip = destination.addr();
    format!(
        "vip-route {vip}: held by a route to {target} (protocol {protocol}); delete it, or use another VIP"
    )
}

/// A device's name.
pub(crate) fn device(links: &[Link], index: Option<u32>) -> String {
    let link = links.iter().find(|link| Some(link.index) == index);
    link.map_or_else(|| "an unknown device".to_owned(), |link| link.name.clone())
}
