//! Routes of single VIPs.

use std::{collections::BTreeSet, net::Ipv4Addr};

use control::{
    observed::Route,
    reconcile::{self, RouteOp, Vips},
};
use ipnet::Ipv4Net;

use crate::{
    kernel::{bpf::Datapath, netlink::Netlink},
    node::routes::change_routes,
};

/// What became of a change.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// What failed.
    pub(super) faults: Vec<String>,
    /// Others have routes in the place of some.
    pub(super) is_held: bool,
}

/// Sets routes to these addresses, and deletes those to others.
pub(super) async fn change(
    netlink: &Netlink,
    datapath: &Datapath,
    range: Option<Ipv4Net>,
    set: &BTreeSet<Ipv4Addr>,
    deleted: &BTreeSet<Ipv4Addr>,
) -> Changed {
    let mut changed = Changed::default();
    let (helper, _) = datapath.config().helper();
    let fans = datapath.config().fans();
    let routes = |vips: &Vips| reconcile::vips(helper, &fans, vips, &[]).ops;
    if !deleted.is_empty() {
        let old = routes(&Vips { addresses: deleted.clone(), range: None });
        let old = old.into_iter().filter_map(|op| match op {
            RouteOp::Set(old) => Some(RouteOp::Delete(old)),
            RouteOp::Delete(_) => None,
        });
        changed.faults.extend(change_routes(netlink, &old.collect::<Vec<_>>()).await);
    }
    if set.is_empty() {
        return changed;
    }
    let wanted = Vips { addresses: set.clone(), range };
    let there = netlink.routes_of(wanted.destinations()).await.unwrap_or_else(|error| {
        changed.faults.push(error.to_string());
        Vec::new()
    });
    let is_held = |wanted: &Route| {
        there.iter().any(|route| route.destination == wanted.destination && route.oif != Some(helper))
    };
    let (held, free): (Vec<_>, Vec<_>) =
        routes(&wanted).into_iter().partition(|op| matches!(op, RouteOp::Set(wanted) if is_held(wanted)));
    changed.faults.extend(change_routes(netlink, &free).await);
    changed.is_held = !held.is_empty();
    changed
}
