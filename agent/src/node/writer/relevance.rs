//! What a change in the kernel's tables concerns: nothing of ours, endpoints, or fans as well.

use control::{
    model::{HELPER, ROUTE_PROTOCOL, network},
    observed::{Link, Record, Route},
};
use dataplane_common::abi::FanRecord;
use ipnet::Ipv4Net;

use crate::{kernel::netlink::Event, node::table::KernelEndpoints};

/// What has to be reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Concern {
    /// Nothing of ours.
    Nothing,
    /// Endpoints, ports and path routes.
    Endpoints,
    /// Everything.
    Fans,
}

/// What we know when a change comes in.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The published fans.
    pub(super) fans: Vec<FanRecord>,
    /// Names of the fans' uplinks.
    pub(super) uplinks: Vec<String>,
    /// Their indices.
    pub(super) uplink_indices: Vec<u32>,
    /// Their networks: a route into one may lead elsewhere.
    pub(super) uplink_networks: Vec<Ipv4Net>,
    /// Devices on which endpoints live: bridges and routed endpoints.
    pub(super) devices: Vec<u32>,
}

impl Known {
    /// Adds uplinks; a name that was one stays known, because its device may come back.
    pub(super) fn add_uplinks(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if !self.uplinks.contains(&name) {
                self.uplinks.push(name);
            }
        }
    }

    /// Adds the networks of uplinks, or has these alone.
    pub(super) fn set_uplink_networks(&mut self, networks: Vec<Ipv4Net>, alone: bool) {
        if alone {
            self.uplink_networks.clear();
        }
        let fresh = networks.into_iter().filter(|network| !self.uplink_networks.contains(network));
        let fresh: Vec<Ipv4Net> = fresh.collect();
        self.uplink_networks.extend(fresh);
    }

    /// The networks towards which every route matters.
    pub(super) fn networks(&self) -> Vec<Ipv4Net> {
        let overlays = self.fans.iter().map(|fan| network(fan.overlay, fan.overlay_mask));
        overlays.chain(self.uplink_networks.iter().copied()).collect()
    }

    /// Takes over what a pass saw.
    pub(super) fn learn(&mut self, snapshot: &KernelEndpoints) {
        let bridges = snapshot.fans.iter().map(|fan| fan.bridge);
        let routed = snapshot.wired.iter().filter(|wired| wired.record.routed).map(|wired| wired.index);
        self.devices = bridges.chain(routed).collect();
        self.fans.clone_from(&snapshot.fans);
    }

    /// What an event concerns.
    pub(super) fn concern(&self, event: &Event) -> Concern {
        match event {
            Event::Link(link) | Event::LinkGone(link) => self.link(link),
            Event::Route(route) | Event::RouteGone(route) => self.route(route),
            Event::Neighbour(neighbour) | Event::NeighbourGone(neighbour) => self.device(neighbour.index),
            Event::Fdb(entry) | Event::FdbGone(entry) => self.device(entry.bridge),
            Event::Address(_) | Event::AddressGone(_) | Event::Rules | Event::Resync => Concern::Fans,
        }
    }

    /// Hosts with many containers see veths come and go all day: only those that carry fans concern fans.
    fn link(&self, link: &Link) -> Concern {
        let is_veth = link.kind.as_deref() == Some("veth");
        let carries_fans = HELPER.contains(&link.name.as_str()) || self.uplinks.contains(&link.name);
        let is_endpoint = link.alias.as_deref().and_then(Record::from_alias).is_some();
        let is_port = link.master.is_some_and(|master| self.fans.iter().any(|fan| fan.bridge == master));
        if (is_veth && !carries_fans) || is_endpoint || is_port { Concern::Endpoints } else { Concern::Fans }
    }

    /// Routers see thousands of routes change: only ours, default routes, and routes for a fan's networks matter.
    fn route(&self, route: &Route) -> Concern {
        let Route { destination, protocol, .. } = route;
        let concerns = |network: &Ipv4Net| network.contains(destination) || destination.contains(network);
        let ours = *protocol == ROUTE_PROTOCOL || destination.prefix_len() == 0;
        if ours || self.networks().iter().any(concerns) { Concern::Fans } else { Concern::Nothing }
    }

    fn device(&self, index: u32) -> Concern {
        if self.devices.contains(&index) { Concern::Endpoints } else { Concern::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use control::{
        observed::{FdbEntry, Neighbour, NeighbourState},
        reconcile::fixtures::{BRIDGE, address, fan, port, routed, veth},
    };

    use super::*;

    fn known() -> Known {
        let uplink_networks = vec!["172.30.0.0/20".parse().unwrap()];
        let uplinks = vec!["eth0".into()];
        let uplink_indices = vec![2];
        Known { fans: vec![fan()], uplinks, uplink_indices, uplink_networks, devices: vec![BRIDGE, 9] }
    }

    fn route(destination: &str, protocol: u8) -> Event {
        Event::RouteGone(Route { destination: destination.parse().unwrap(), protocol, ..Route::default() })
    }

    #[test]
    fn containers_that_come_and_go_concern_endpoints_only() {
        for link in [veth(4, "veth1"), port(4, "veth1"), routed(4, "fl", &[address(2)])] {
            assert_eq!(known().concern(&Event::LinkGone(link)), Concern::Endpoints);
        }
    }

    #[test]
    fn uplink_helper_and_devices_of_other_kinds_concern_fans() {
        let bridge = Link { kind: Some("bridge".into()), ..veth(2, "fan-250-0-28") };
        for link in [veth(3, "eth0"), veth(5, "fanlight0"), bridge] {
            assert_eq!(known().concern(&Event::LinkGone(link)), Concern::Fans);
        }
    }

    #[test]
    fn only_routes_of_ours_or_towards_a_fans_networks_matter() {
        for destination in ["0.0.0.0/0", "250.0.27.0/24", "172.30.0.0/16", "172.30.7.0/24"] {
            assert_eq!(known().concern(&route(destination, 4)), Concern::Fans, "{destination}");
        }
        assert_eq!(known().concern(&route("10.0.0.0/8", ROUTE_PROTOCOL)), Concern::Fans);
        for destination in ["10.0.0.0/8", "172.30.99.0/24"] {
            assert_eq!(known().concern(&route(destination, 4)), Concern::Nothing, "{destination}");
        }
    }

    #[test]
    fn neighbours_and_forwarding_entries_of_other_devices_concern_nobody() {
        let neighbour = |index| {
            Event::Neighbour(Neighbour {
                index,
                address: address(2),
                mac: None,
                state: NeighbourState::Failed,
                is_static: false,
            })
        };
        let entry = |bridge| Event::Fdb(FdbEntry { bridge, port: 4, mac: [2; 6], local: false });
        assert_eq!(known().concern(&neighbour(BRIDGE)), Concern::Endpoints);
        assert_eq!(known().concern(&neighbour(7)), Concern::Nothing);
        assert_eq!(known().concern(&entry(BRIDGE)), Concern::Endpoints);
        assert_eq!(known().concern(&entry(7)), Concern::Nothing);
    }
}
