//! Host routes of endpoints: a routed endpoint has one to each of its addresses; a bridged one is reached by its
//! bridge's own network, and needs routes only for addresses of further fans. They carry the MTU, since the devices
//! are larger.

use std::net::Ipv4Addr;

use dataplane_common::abi::FanRecord;
use ipnet::Ipv4Net;

use super::{fan_of_endpoint, mtu_of};
use crate::{
    model::ROUTE_PROTOCOL,
    observed::{Route, Wired},
};

/// A change of routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteOp {
    /// The route is missing or differs.
    Set(Route),
    /// Its endpoint is gone.
    Delete(Route),
}

/// The changes that give every endpoint its routes; `helper` is the device of the routes to VIPs.
pub fn plan(helper: u32, fans: &[FanRecord], wired: &[Wired], routes: &[Route]) -> Vec<RouteOp> {
    let wanted: Vec<Route> = wired.iter().flat_map(|wired| of(fans, wired)).collect();
    let ours = routes
        .iter()
        .filter(|route| route.protocol == ROUTE_PROTOCOL && is_host(route) && route.oif != Some(helper));
    let over = ours.filter(|route| !wanted.iter().any(|wanted| wanted.destination == route.destination));
    let missing = wanted.iter().filter(|route| !routes.contains(route));
    over.cloned().map(RouteOp::Delete).chain(missing.cloned().map(RouteOp::Set)).collect()
}

fn of(fans: &[FanRecord], wired: &Wired) -> Vec<Route> {
    let Wired { index, master, record, .. } = wired;
    let (device, skipped) = if record.routed { (*index, 0) } else { (master.unwrap_or(*index), 1) };
    let mtu = mtu_of(fans, wired);
    let route =
        |address| Some(Route { mtu, ..host_route(fan_of_endpoint(fans, address)?, address, device)? });
    record.addresses.iter().skip(skipped).copied().filter_map(route).collect()
}

fn host_route(fan: &FanRecord, address: Ipv4Addr, device: u32) -> Option<Route> {
    Some(Route {
        destination: Ipv4Net::new(address, 32).ok()?,
        oif: Some(device),
        protocol: ROUTE_PROTOCOL,
        prefsrc: Some(Ipv4Addr::from_bits(fan.gateway)),
        ..Route::default()
    })
}

fn is_host(route: &Route) -> bool {
    route.destination.prefix_len() == 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::{BRIDGE, GATEWAY, address, bridged, fan, routed};

    const HELPER: u32 = 99;

    fn route(last: u8, device: u32) -> Route {
        let destination = Ipv4Net::new(address(last), 32).unwrap();
        let prefsrc = Some(GATEWAY);
        let (oif, mtu) = (Some(device), Some(1480));
        Route { destination, oif, protocol: ROUTE_PROTOCOL, prefsrc, mtu, ..Route::default() }
    }

    #[test]
    fn a_routed_endpoint_has_a_route_to_each_address_and_a_bridged_one_to_each_further_address() {
        let links = [routed(4, "a", &[address(2)]), bridged(5, "b", &[address(3), address(4)])];
        let wired = Wired::among(&links);
        let expected = [RouteOp::Set(route(2, 4)), RouteOp::Set(route(4, BRIDGE))];
        assert_eq!(plan(HELPER, &[fan()], &wired, &[]), expected);
        assert_eq!(plan(HELPER, &[fan()], &wired, &[route(2, 4), route(4, BRIDGE)]), []);
    }

    #[test]
    fn a_route_follows_the_mtu_of_its_fan() {
        let wired = Wired::among(&[routed(4, "a", &[address(2)])]);
        let old = Route { mtu: None, ..route(2, 4) };
        assert_eq!(plan(HELPER, &[fan()], &wired, &[old]), [RouteOp::Set(route(2, 4))]);
    }

    #[test]
    fn routes_of_endpoints_that_are_gone_are_deleted_and_routes_of_others_stay() {
        let foreign = Route { protocol: 4, ..route(9, 4) };
        let network = Route { destination: "250.0.0.0/8".parse().unwrap(), ..route(9, 4) };
        let vip = route(9, HELPER);
        let routes = [route(9, 4), foreign, network, vip];
        assert_eq!(plan(HELPER, &[fan()], &[], &routes), [RouteOp::Delete(route(9, 4))]);
    }

    #[test]
    fn addresses_whose_fan_is_down_have_no_route() {
        let links = [routed(4, "a", &[address(2)])];
        assert_eq!(plan(HELPER, &[], &Wired::among(&links), &[]), []);
    }
}
