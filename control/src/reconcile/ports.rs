//! Which devices carry the `endpoint-ingress` program: every port of a fan's bridge, and every endpoint that we wired,
//! even while its bridge is away. And which bridge such an endpoint belongs to.

use std::collections::BTreeMap;

use dataplane_common::abi::FanRecord;

use crate::{
    model::inlet_names,
    observed::{Link, Wired},
};

/// A change of attachments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortOp {
    /// The device has no program yet.
    Attach {
        /// Its index.
        ifindex: u32,
        name: String,
    },
    /// The device is no port any more, or gone.
    Detach {
        /// Its index.
        ifindex: u32,
    },
}

impl PortOp {
    /// The device that it concerns.
    pub fn ifindex(&self) -> u32 {
        match *self {
            Self::Attach { ifindex, .. } | Self::Detach { ifindex } => ifindex,
        }
    }
}

/// The changes that give every port its program: attachments first, so that a port is never left out for long.
pub fn plan(fans: &[FanRecord], links: &[Link], attached: &[u32]) -> Vec<PortOp> {
    let wanted: BTreeMap<u32, &str> = wanted(fans, links).collect();
    let missing = wanted.iter().filter(|(index, _)| !attached.contains(index));
    let over = attached.iter().filter(|index| !wanted.contains_key(index));
    missing
        .map(|(&ifindex, &name)| PortOp::Attach { ifindex, name: name.to_owned() })
        .chain(over.map(|&ifindex| PortOp::Detach { ifindex }))
        .collect()
}

/// The endpoints that lost their bridge, because it was deleted and made again, and the bridge each belongs to.
pub fn strays(fans: &[FanRecord], wired: &[Wired]) -> Vec<(u32, u32)> {
    let stray = |wired: &Wired| {
        let fan = super::fan_of_endpoint(fans, *wired.record.addresses.first()?)?;
        (!wired.record.routed && wired.master != Some(fan.bridge)).then_some((wired.index, fan.bridge))
    };
    wired.iter().filter_map(stray).collect()
}

fn wanted<'a>(fans: &[FanRecord], links: &'a [Link]) -> impl Iterator<Item = (u32, &'a str)> {
    let in_a_fan = |wired: &Wired| super::mtu_of(fans, wired).is_some();
    let wired = Wired::among(links).into_iter().filter(in_a_fan);
    let endpoints: Vec<u32> = wired.map(|wired| wired.index).collect();
    let bridges: Vec<u32> = fans.iter().filter(|fan| fan.in_use()).map(|fan| fan.bridge).collect();
    let of_a_fan = links.iter().filter(|link| bridges.contains(&link.index));
    // By name: one that a plan makes has no index yet.
    let inlets: Vec<String> = of_a_fan.map(|bridge| inlet_names(&bridge.name)[0].clone()).collect();
    links
        .iter()
        .filter(move |link| !inlets.contains(&link.name))
        .filter(move |link| {
            link.master.is_some_and(|master| bridges.contains(&master)) || endpoints.contains(&link.index)
        })
        .map(|link| (link.index, link.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::{BRIDGE, address, bridged, fan, port, routed, veth};

    fn attach(ifindex: u32, name: &str) -> PortOp {
        PortOp::Attach { ifindex, name: name.into() }
    }

    #[test]
    fn bridge_ports_and_routed_endpoints_get_the_program_and_nothing_else_does() {
        let links = [veth(3, "other"), port(4, "port"), routed(5, "routed", &[address(9)])];
        assert_eq!(plan(&[fan()], &links, &[]), [attach(4, "port"), attach(5, "routed")]);
        assert_eq!(plan(&[fan()], &links, &[4, 5]), []);
    }

    #[test]
    fn the_port_by_which_the_programs_put_packets_into_the_bridge_gets_none() {
        let bridge = Link { index: BRIDGE, master: None, ..veth(BRIDGE, "fan-250-0-28") };
        let [inlet, _] = inlet_names(&bridge.name);
        let links = [bridge, port(4, &inlet), port(5, "port")];
        assert_eq!(plan(&[fan()], &links, &[]), [attach(5, "port")]);
    }

    #[test]
    fn a_device_that_left_the_bridge_or_the_host_loses_the_program() {
        let links = [veth(3, "left")];
        let expected = [PortOp::Detach { ifindex: 3 }, PortOp::Detach { ifindex: 8 }];
        assert_eq!(plan(&[fan()], &links, &[3, 8]), expected);
    }

    #[test]
    fn an_endpoint_that_lost_its_bridge_keeps_the_program() {
        let links = [Link { master: None, ..bridged(6, "lost", &[address(3)]) }];
        assert_eq!(plan(&[fan()], &links, &[6]), []);
    }

    #[test]
    fn ports_of_a_fan_that_went_down_lose_the_program() {
        let links = [port(4, "port")];
        assert_eq!(links[0].master, Some(BRIDGE));
        assert_eq!(plan(&[], &links, &[4]), [PortOp::Detach { ifindex: 4 }]);
    }

    #[test]
    fn a_bridged_endpoint_returns_to_its_fans_bridge_and_others_stay_where_they_are() {
        let lost = Link { master: None, ..bridged(6, "lost", &[address(3)]) };
        let links =
            [lost, bridged(4, "there", &[address(2)]), routed(5, "routed", &[address(9)]), veth(7, "other")];
        assert_eq!(strays(&[fan()], &Wired::among(&links)), [(6, BRIDGE)]);
        assert_eq!(strays(&[], &Wired::among(&links)), []);
    }
}
