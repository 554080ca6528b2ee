//! Learnt path MTUs become the MTU of a route for the remote host's slice, so that the host's own stack, too,
//! answers or fragments what is too large for that path.

use std::net::Ipv4Addr;

use dataplane_common::{
    abi::{FanRecord, PathRecord},
    fan::FanMap,
};
use ipnet::Ipv4Net;

use crate::kernel::netlink::Route;

/// What to change, and when to look again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPlan {
    /// The value of [`Config::smallest_path_mtu`](dataplane_common::abi::Config::smallest_path_mtu).
    pub smallest: u32,
    /// Routes to add or change.
    pub set: Vec<Route>,
    /// Routes to delete.
    pub delete: Vec<Route>,
    /// Hosts whose record is over.
    pub expired: Vec<Ipv4Addr>,
    /// When the next record is over, `CLOCK_MONOTONIC` nanoseconds.
    pub next_expiry: Option<u64>,
}

/// Plans the routes of learnt paths. `protocol` marks our routes, `helper` is the device they point to, `now` is
/// `CLOCK_MONOTONIC` nanoseconds.
pub fn plan(
    (helper, protocol): (u32, u8),
    fans: &[FanRecord],
    learnt: &[(Ipv4Addr, PathRecord)],
    routes: &[Route],
    now: u64,
) -> PathPlan {
    let (live, over): (Vec<_>, Vec<_>) = learnt.iter().partition(|(_, path)| path.until > now);
    let wanted: Vec<Route> = live
        .iter()
        .flat_map(|(host, path)| {
            fans.iter().filter_map(move |fan| slice_route(fan, host.to_bits(), path.mtu))
        })
        .map(|route| Route { oif: Some(helper), protocol, ..route })
        .collect();
    let ours = |route: &&Route| {
        route.protocol == protocol
            && route.oif == Some(helper)
            && !fans.iter().any(|fan| is_overlay(fan, route))
    };
    let same_place = |a: &Route, b: &Route| a.destination == b.destination && a.metric == b.metric;
    PathPlan {
        smallest: live.iter().map(|(_, path)| path.mtu).min().unwrap_or(u32::MAX),
        set: wanted.iter().filter(|route| !routes.contains(route)).cloned().collect(),
        delete: routes
            .iter()
            .filter(ours)
            .filter(|route| !wanted.iter().any(|wanted| same_place(wanted, route)))
            .cloned()
            .collect(),
        expired: over.iter().map(|(host, _)| *host).collect(),
        next_expiry: live.iter().map(|(_, path)| path.until).min(),
    }
}

/// The route to the slice of `host`, when the path to it is smaller than the fan's own.
fn slice_route(fan: &FanRecord, host: u32, mtu: u32) -> Option<Route> {
    let slice = map_of(fan)?.slice_of(host).filter(|_| mtu < fan.mtu && host != fan.address)?;
    let destination = Ipv4Net::new(Ipv4Addr::from_bits(slice), prefix_len(fan.slice_mask)).ok()?;
    let prefsrc = Some(Ipv4Addr::from_bits(fan.gateway));
    Some(Route { destination, prefsrc, mtu: Some(mtu), ..Route::default() })
}

fn map_of(fan: &FanRecord) -> Option<FanMap> {
    let network = |address, mask| (Ipv4Addr::from_bits(address), prefix_len(mask));
    FanMap::new(network(fan.overlay, fan.overlay_mask), network(fan.underlay, fan.underlay_mask)).ok()
}

fn is_overlay(fan: &FanRecord, route: &Route) -> bool {
    let destination = (route.destination.addr().to_bits(), route.destination.prefix_len());
    fan.in_use() && destination == (fan.overlay, prefix_len(fan.overlay_mask))
}

fn prefix_len(mask: u32) -> u8 {
    mask.leading_ones() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::fan;

    const HELPER: (u32, u8) = (7, 186);
    const NOW: u64 = 1_000;
    const HOST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 27);

    fn path(until: u64, mtu: u32) -> PathRecord {
        PathRecord { until, mtu, spare: 0 }
    }

    fn overlay_route() -> Route {
        let destination = "250.0.0.0/8".parse().unwrap();
        Route { destination, oif: Some(7), protocol: 186, mtu: Some(1480), ..Route::default() }
    }

    fn path_route(mtu: u32) -> Route {
        let destination = "250.0.27.0/24".parse().unwrap();
        let prefsrc = Some(Ipv4Addr::new(250, 0, 28, 1));
        Route { destination, oif: Some(7), protocol: 186, prefsrc, mtu: Some(mtu), ..Route::default() }
    }

    #[test]
    fn a_learnt_path_becomes_a_route_for_the_slice_of_its_host() {
        let plan = plan(HELPER, &[fan()], &[(HOST, path(NOW + 1, 1280))], &[overlay_route()], NOW);
        assert_eq!(plan.set, [path_route(1280)]);
        assert_eq!((plan.smallest, plan.next_expiry), (1280, Some(NOW + 1)));
        assert_eq!((plan.delete, plan.expired), (vec![], vec![]));
    }

    #[test]
    fn a_route_that_is_there_already_is_left_alone_and_one_of_another_mtu_is_changed() {
        let learnt = [(HOST, path(NOW + 1, 1280))];
        let same = plan(HELPER, &[fan()], &learnt, &[path_route(1280)], NOW);
        assert_eq!((same.set, same.delete), (vec![], vec![]));
        let changed = plan(HELPER, &[fan()], &learnt, &[path_route(1300)], NOW);
        assert_eq!((changed.set, changed.delete), (vec![path_route(1280)], vec![]));
    }

    #[test]
    fn a_path_that_is_over_takes_its_route_along_and_the_look_up_threshold_rises_again() {
        let plan =
            plan(HELPER, &[fan()], &[(HOST, path(NOW, 1280))], &[overlay_route(), path_route(1280)], NOW);
        assert_eq!(plan.delete, [path_route(1280)]);
        assert_eq!(plan.expired, [HOST]);
        assert_eq!((plan.set, plan.smallest, plan.next_expiry), (vec![], u32::MAX, None));
    }

    #[test]
    fn routes_of_others_and_paths_that_make_no_difference_are_left_alone() {
        let foreign = Route { protocol: 4, ..path_route(1000) };
        let elsewhere = Route { oif: Some(9), ..path_route(1000) };
        let learnt = [(HOST, path(NOW + 1, 1480)), (Ipv4Addr::new(10, 0, 0, 1), path(NOW + 1, 1000))];
        let plan = plan(HELPER, &[fan()], &learnt, &[foreign, elsewhere], NOW);
        assert_eq!((plan.set, plan.delete), (vec![], vec![]));
    }
}
