//! Routes of VIPs: one to each, so that packets of host processes and those of the slow path meet the datapath.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use dataplane_common::abi::FanRecord;
use ipnet::Ipv4Net;

use super::RouteOp;
use crate::{model::ROUTE_PROTOCOL, observed::Route};

/// What to change, and what stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VipPlan {
    /// Routes to set and to delete.
    pub ops: Vec<RouteOp>,
    /// Routes of others to VIPs that therefore have none of ours.
    pub held: Vec<Route>,
}

/// What is to be routed to the datapath: a range of VIPs as one, and each VIP outside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vips {
    /// Addresses that services have.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// The configured range.
    pub range: Option<Ipv4Net>,
}

impl Vips {
    /// The destinations of their routes.
    pub fn destinations(&self) -> BTreeSet<Ipv4Net> {
        let outside =
            self.addresses.iter().filter(|vip| !self.range.is_some_and(|range| range.contains(*vip)));
        outside.map(|&vip| Ipv4Net::from(vip)).chain(self.range).collect()
    }
}

/// Plans the routes; `helper` is the device that they point to, their source the first fan's gateway.
pub fn plan(helper: u32, fans: &[FanRecord], vips: &Vips, routes: &[Route]) -> VipPlan {
    let (Some(first), mtu) = (fans.first(), fans.iter().map(|fan| fan.mtu).min()) else {
        return VipPlan::default();
    };
    let wanted = vips.destinations();
    // Overlays have routes to the helper too, and hosts with a smaller path one inside.
    let in_overlay =
        |network: Ipv4Net| fans.iter().any(|fan| network.addr().to_bits() & fan.overlay_mask == fan.overlay);
    let mut plan = VipPlan::default();
    let over = routes.iter().filter(|route| {
        is_ours(route, helper) && !wanted.contains(&route.destination) && !in_overlay(route.destination)
    });
    plan.ops.extend(over.map(|route| RouteOp::Delete(route.clone())));
    let mut present: BTreeMap<Ipv4Net, Vec<&Route>> = BTreeMap::new();
    for route in routes.iter().filter(|route| wanted.contains(&route.destination)) {
        present.entry(route.destination).or_default().push(route);
    }
    for destination in wanted {
        let wanted = Route {
            destination,
            oif: Some(helper),
            protocol: ROUTE_PROTOCOL,
            prefsrc: Some(Ipv4Addr::from_bits(first.gateway)),
            mtu,
            ..Route::default()
        };
        let there = present.get(&destination).map(Vec::as_slice).unwrap_or_default();
        let has_own = there.iter().any(|route| is_ours(route, helper));
        match there.iter().find(|route| !is_ours(route, helper)) {
            // Ours has the smallest metric: beside it, another route takes no packet.
            Some(&other) if !has_own => plan.held.push(other.clone()),
            _ if there.iter().any(|&route| *route == wanted) => {}
            _ => plan.ops.push(RouteOp::Set(wanted)),
        }
    }
    plan
}

fn is_ours(route: &Route, helper: u32) -> bool {
    route.protocol == ROUTE_PROTOCOL && route.oif == Some(helper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::{GATEWAY, fan};

    const HELPER: u32 = 7;
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

    fn ours() -> Route {
        Route {
            destination: Ipv4Net::from(VIP),
            oif: Some(HELPER),
            protocol: ROUTE_PROTOCOL,
            prefsrc: Some(GATEWAY),
            mtu: Some(1480),
            ..Route::default()
        }
    }

    fn of(vips: &[Ipv4Addr]) -> Vips {
        Vips { addresses: vips.iter().copied().collect(), range: None }
    }

    fn ops(vips: &[Ipv4Addr], routes: &[Route]) -> Vec<RouteOp> {
        plan(HELPER, &[fan()], &of(vips), routes).ops
    }

    #[test]
    fn every_vip_has_one_route_and_no_other_address_has() {
        assert_eq!(ops(&[VIP], &[]), [RouteOp::Set(ours())]);
        assert_eq!(ops(&[VIP], &[ours()]), []);
        assert_eq!(ops(&[], &[ours()]), [RouteOp::Delete(ours())]);
        let old = Route { prefsrc: None, ..ours() };
        assert_eq!(ops(&[VIP], &[old]), [RouteOp::Set(ours())]);
    }

    #[test]
    fn a_range_is_one_route_and_a_vip_outside_it_has_its_own() {
        let range: Ipv4Net = "10.96.0.0/16".parse().unwrap();
        let outside = Ipv4Addr::new(10, 97, 0, 1);
        let vips = Vips { addresses: [VIP, outside].into(), range: Some(range) };
        let route = |destination| Route { destination, ..ours() };
        let wanted = [route(range), route(outside.into())];
        let planned = plan(HELPER, &[fan()], &vips, &[]).ops;
        assert_eq!(planned, wanted.clone().map(RouteOp::Set));
        assert_eq!(plan(HELPER, &[fan()], &vips, &wanted), VipPlan::default());
        let own = [ours(), route(range), route(outside.into())];
        assert_eq!(plan(HELPER, &[fan()], &vips, &own).ops, [RouteOp::Delete(ours())]);
        assert_eq!(ops(&[VIP, outside], &own), [RouteOp::Delete(route(range))]);
    }

    #[test]
    fn routes_of_fans_endpoints_and_others_stay() {
        let overlay = Route { destination: "250.0.0.0/8".parse().unwrap(), ..ours() };
        let endpoint = Route { destination: "250.0.28.2/32".parse().unwrap(), oif: Some(3), ..ours() };
        let foreign = Route { destination: "10.96.0.11/32".parse().unwrap(), protocol: 4, ..ours() };
        assert_eq!(ops(&[], &[overlay, endpoint, foreign]), []);
    }

    #[test]
    fn a_route_of_another_owner_is_not_replaced() {
        let other = Route { protocol: 4, oif: Some(3), ..ours() };
        let found = plan(HELPER, &[fan()], &of(&[VIP]), std::slice::from_ref(&other));
        assert_eq!(found, VipPlan { ops: Vec::new(), held: vec![other.clone()] });
        let worse = Route { metric: 100, ..other };
        assert_eq!(plan(HELPER, &[fan()], &of(&[VIP]), &[worse, ours()]), VipPlan::default());
    }

    #[test]
    fn without_a_fan_there_is_nothing_to_route_to() {
        assert_eq!(plan(HELPER, &[], &of(&[VIP]), &[]), VipPlan::default());
    }
}
