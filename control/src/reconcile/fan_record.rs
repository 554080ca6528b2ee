//! A fan as the kernel programs see it: a pure function of the fan, its bridge and the routes around its uplink.

use dataplane_common::{abi::FanRecord, fan::mask};
use ipnet::Ipv4Net;

use crate::{
    model::Fan,
    observed::{Link, Route, Rule},
};

/// The record to publish for a fan; `inlet` are the indices of its bridge's port for the programs and of that port's other end, or 0.
pub fn fan_record(fan: &Fan, bridge: &Link, inlet: [u32; 2], routes: &[Route], rules: &[Rule]) -> FanRecord {
    let several = !fan.more_uplinks.is_empty();
    let (onlink, onlink_mask) = match onlink(fan, routes, rules) {
        Some(network) if !several => bits(network),
        _ => FanRecord::NOTHING_ONLINK,
    };
    let (overlay, overlay_mask) = bits(fan.spec.overlay);
    let (underlay, underlay_mask) = bits(fan.underlay);
    let (slice, slice_mask) = bits(fan.slice);
    FanRecord {
        overlay,
        overlay_mask,
        underlay,
        underlay_mask,
        slice,
        slice_mask,
        address: fan.address.to_bits(),
        gateway: fan.gateway.to_bits(),
        mtu: fan.mtu,
        uplink: if several { 0 } else { fan.uplink.index },
        onlink,
        onlink_mask,
        bridge: bridge.index,
        bridge_mac: bridge.mac,
        shift: fan.map.shift(),
        encapsulation: fan.spec.encapsulation.abi() as u8,
        slot: 0,
        inlet: inlet[0],
        outlet: inlet[1],
        spare: [0; 24],
    }
}

/// The network whose hosts are their own next hop on the uplink, if no route inside it and no policy rule can say
/// otherwise.
fn onlink(fan: &Fan, routes: &[Route], rules: &[Rule]) -> Option<Ipv4Net> {
    let network = fan.uplink.network;
    if network.prefix_len() == 32 || !rules.iter().all(|rule| rule.is_standard() || rule.is_ours()) {
        return None;
    }
    let connected = |route: &&Route| route.destination == network && plain(route, fan.uplink.index);
    let differs = |route: &&Route| network.contains(&route.destination) && !plain(route, fan.uplink.index);
    let found = routes.iter().find(connected).is_some();
    (found && !routes.iter().any(|route| differs(&route))).then_some(network)
}

/// A route straight out of the uplink, as an address makes it.
fn plain(route: &Route, uplink: u32) -> bool {
    route.oif == Some(uplink) && route.gateway.is_none() && !route.multipath && !route.rejects
}

fn bits(network: Ipv4Net) -> (u32, u32) {
    (network.network().to_bits(), mask(network.prefix_len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{FanSpec, Origin, ROUTE_PROTOCOL, SMALL_PATHS, Uplink},
        reconcile::Host,
    };

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: [2, 0xfa, 172, 30, 0, 28],
            mtu: 1500,
            up: true,
            carrier: true,
            ..Link::default()
        }
    }

    fn route(destination: &str, oif: u32) -> Route {
        Route { destination: destination.parse().unwrap(), oif: Some(oif), ..Route::default() }
    }

    fn fan() -> Fan {
        let host = Host {
            links: vec![link(2, "eth0")],
            addresses: vec![crate::observed::Address {
                index: 2,
                address: [172, 30, 0, 28].into(),
                prefix_len: 16,
            }],
            ..Host::default()
        };
        host.resolve(&FanSpec::example(), Origin::Manual).unwrap()
    }

    fn record(routes: &[Route], rules: &[Rule]) -> FanRecord {
        fan_record(&fan(), &link(9, "fan-250-0-28"), [0; 2], routes, rules)
    }

    const RULES: [Rule; 3] = [
        Rule { priority: 0, table: 255, selective: false, protocol: 2 },
        Rule { priority: 32766, table: 254, selective: false, protocol: 2 },
        Rule { priority: 32767, table: 253, selective: false, protocol: 2 },
    ];

    #[test]
    fn a_record_holds_the_fans_numbers_in_host_order() {
        let record = record(&[route("172.30.0.0/16", 2)], &RULES);
        assert_eq!((record.overlay, record.overlay_mask), (0xfa00_0000, 0xff00_0000));
        assert_eq!((record.slice, record.slice_mask), (0xfa00_1c00, 0xffff_ff00));
        assert_eq!((record.address, record.gateway), (0xac1e_001c, 0xfa00_1c01));
        assert_eq!((record.mtu, record.uplink, record.bridge, record.shift), (1480, 2, 9, 8));
        assert_eq!((record.onlink, record.onlink_mask), (0xac1e_0000, 0xffff_0000));
    }

    #[test]
    fn hosts_of_the_connected_network_need_no_look_up_only_if_nothing_can_say_otherwise() {
        let nothing = FanRecord::NOTHING_ONLINK;
        let onlink = |routes: &[Route], rules: &[Rule]| {
            let record = record(routes, rules);
            (record.onlink, record.onlink_mask)
        };
        let connected = route("172.30.0.0/16", 2);
        assert_ne!(onlink(std::slice::from_ref(&connected), &RULES), nothing);
        assert_ne!(onlink(&[connected.clone(), route("10.0.0.0/8", 5)], &RULES), nothing);
        assert_eq!(onlink(&[], &RULES), nothing, "no connected route");
        assert_eq!(onlink(&[connected.clone(), route("172.30.7.0/24", 5)], &RULES), nothing);
        let via = Route { gateway: Some([172, 30, 0, 1].into()), ..route("172.30.9.9/32", 2) };
        assert_eq!(onlink(&[connected.clone(), via], &RULES), nothing);
        let mark =
            [RULES[0], Rule { priority: 100, table: 100, selective: true, protocol: 4 }, RULES[1], RULES[2]];
        assert_eq!(onlink(std::slice::from_ref(&connected), &mark), nothing, "a policy rule");
        let own =
            Rule { priority: SMALL_PATHS, table: SMALL_PATHS, selective: true, protocol: ROUTE_PROTOCOL };
        assert_ne!(onlink(&[connected], &[RULES[0], own, RULES[1], RULES[2]]), nothing, "our own rule");
    }

    #[test]
    fn with_several_uplinks_the_routing_table_is_asked() {
        let mut several = fan();
        several.more_uplinks.push(Uplink {
            index: 3,
            name: "eth1".to_owned(),
            mtu: 1500,
            network: "10.0.0.0/8".parse().unwrap(),
        });
        let record = fan_record(&several, &link(9, "b"), [0; 2], &[route("172.30.0.0/16", 2)], &RULES);
        assert_eq!((record.uplink, record.onlink), (0, FanRecord::NOTHING_ONLINK.0));
    }
}
