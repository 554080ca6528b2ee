//! Learnt path MTUs become the MTU of a route for the remote host's slice, so that the host's own stack, too,
//! answers or fragments what is too large for that path.

use std::net::Ipv4Addr;

use dataplane_common::{
    abi::{FanRecord, PathRecord},
    fan::FanMap,
};
use ipnet::Ipv4Net;

use crate::{
    model::{ROUTE_PROTOCOL, network},
    observed::Route,
};

/// What to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathPlan {
    /// Routes to add or change.
    pub set: Vec<Route>,
    /// Routes to delete.
    pub delete: Vec<Route>,
}

/// Plans the routes of the learnt paths that still count; `helper` is the device that our routes point to.
pub fn plan(
    helper: u32,
    fans: &[FanRecord],
    learnt: &[(Ipv4Addr, PathRecord)],
    routes: &[Route],
) -> PathPlan {
    let wanted: Vec<Route> = learnt
        .iter()
        .flat_map(|(host, path)| {
            fans.iter().filter_map(move |fan| slice_route(fan, host.to_bits(), path.mtu))
        })
        .map(|route| Route { oif: Some(helper), protocol: ROUTE_PROTOCOL, ..route })
        .collect();
    let ours = |route: &&Route| {
        let is_overlay = fans.iter().any(|fan| is_overlay(fan, route));
        // VIPs lie outside, and have routes to the helper too.
        let address = route.destination.addr().to_bits();
        let is_inside = fans.iter().any(|fan| address & fan.overlay_mask == fan.overlay);
        route.protocol == ROUTE_PROTOCOL && route.oif == Some(helper) && !is_overlay && is_inside
    };
    let same_place = |a: &Route, b: &Route| a.destination == b.destination && a.metric == b.metric;
    let over = |route: &&Route| !wanted.iter().any(|wanted| same_place(wanted, route));
    PathPlan {
        set: wanted.iter().filter(|route| !routes.contains(route)).cloned().collect(),
        delete: routes.iter().filter(ours).filter(over).cloned().collect(),
    }
}

/// The route to the slice of `host`, when the path to it is smaller than the fan's own.
fn slice_route(fan: &FanRecord, host: u32, mtu: u32) -> Option<Route> {
    let is_small = mtu < fan.mtu && mtu != PathRecord::SILENT;
    let slice = map_of(fan)?.slice_of(host).filter(|_| is_small && host != fan.address)?;
    let destination = network(slice, fan.slice_mask);
    let prefsrc = Some(Ipv4Addr::from_bits(fan.gateway));
    Some(Route { destination, prefsrc, mtu: Some(mtu), ..Route::default() })
}

fn map_of(fan: &FanRecord) -> Option<FanMap> {
    let parts = |network: Ipv4Net| (network.addr(), network.prefix_len());
    let (overlay, underlay) =
        (network(fan.overlay, fan.overlay_mask), network(fan.underlay, fan.underlay_mask));
    FanMap::new(parts(overlay), parts(underlay)).ok()
}

fn is_overlay(fan: &FanRecord, route: &Route) -> bool {
    fan.in_use() && route.destination == network(fan.overlay, fan.overlay_mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::fan;

    const HELPER: u32 = 7;
    const HOST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 27);

    fn path(mtu: u32) -> PathRecord {
        PathRecord { until: 1, mtu, spare: 0 }
    }

    fn overlay_route() -> Route {
        let destination = "250.0.0.0/8".parse().unwrap();
        Route {
            destination,
            oif: Some(HELPER),
            protocol: ROUTE_PROTOCOL,
            mtu: Some(1480),
            ..Route::default()
        }
    }

    fn path_route(mtu: u32) -> Route {
        let destination = "250.0.27.0/24".parse().unwrap();
        let prefsrc = Some(Ipv4Addr::new(250, 0, 28, 1));
        Route { destination, prefsrc, mtu: Some(mtu), ..overlay_route() }
    }

    #[test]
    fn a_learnt_path_becomes_a_route_for_the_slice_of_its_host() {
        let plan = plan(HELPER, &[fan()], &[(HOST, path(1280))], &[overlay_route()]);
        assert_eq!(plan, PathPlan { set: vec![path_route(1280)], delete: vec![] });
    }

    #[test]
    fn a_route_that_is_there_already_is_left_alone_and_one_of_another_mtu_is_changed() {
        let learnt = [(HOST, path(1280))];
        assert_eq!(plan(HELPER, &[fan()], &learnt, &[path_route(1280)]), PathPlan::default());
        let changed = plan(HELPER, &[fan()], &learnt, &[path_route(1300)]);
        assert_eq!(changed, PathPlan { set: vec![path_route(1280)], delete: vec![] });
    }

    #[test]
    fn a_path_that_is_over_takes_its_route_along() {
        let plan = plan(HELPER, &[fan()], &[], &[overlay_route(), path_route(1280)]);
        assert_eq!(plan, PathPlan { set: vec![], delete: vec![path_route(1280)] });
    }

    #[test]
    fn routes_of_others_and_paths_that_make_no_difference_are_left_alone() {
        let foreign = Route { protocol: 4, ..path_route(1000) };
        let elsewhere = Route { oif: Some(9), ..path_route(1000) };
        let learnt = [(HOST, path(1480)), (Ipv4Addr::new(10, 0, 0, 1), path(1000))];
        assert_eq!(plan(HELPER, &[fan()], &learnt, &[foreign, elsewhere]), PathPlan::default());
    }
}
