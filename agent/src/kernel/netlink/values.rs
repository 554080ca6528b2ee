//! From the kernel's messages to the values of [`control::observed`].

use std::net::{IpAddr, Ipv4Addr};

use control::observed::{
    Address, FdbEntry, Link, Neighbour, NeighbourState, Route, Rule, XdpMode, XdpProgram,
};
use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType},
    rule::{RuleAttribute, RuleMessage},
};

/// A value that a message describes.
pub(super) trait FromMessage<M>: Sized {
    /// The value; `None` when the message is about something else.
    fn from_message(message: &M) -> Option<Self>;
}

impl FromMessage<LinkMessage> for Link {
    /// `None` for a message of another family (a bridge's view of a port, IPv6 settings) or without a name.
    fn from_message(message: &LinkMessage) -> Option<Self> {
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            kind: None,
            master: None,
            peer: None,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            noarp: flags.contains(LinkFlags::Noarp),
            gso_segments: 0,
            headerless: message.header.link_layer_type != LinkLayerType::Ether,
            loopback: flags.contains(LinkFlags::Loopback),
            peer_netns: false,
            alias: None,
            bus: None,
            xdp: xdp_programs(message),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::GsoMaxSegs(segments) => link.gso_segments = *segments,
                LinkAttribute::Controller(index) => link.master = Some(*index),
                LinkAttribute::Link(index) => link.peer = Some(*index),
                LinkAttribute::LinkNetNsId(_) => link.peer_netns = true,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::ParentDevBusName(bus) => link.bus = Some(bus.clone()),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }
}

/// The XDP programs of an interface.
pub(in crate::kernel) fn xdp_programs(message: &LinkMessage) -> Vec<XdpProgram> {
    let attributes = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    });
    attributes.flatten().filter_map(xdp_program).collect()
}

fn xdp_program(attribute: &LinkXdp) -> Option<XdpProgram> {
    let (mode, id) = match *attribute {
        LinkXdp::DrvProgId(id) => (XdpMode::Native, id),
        LinkXdp::SkbProgId(id) => (XdpMode::Generic, id),
        LinkXdp::HwProgId(id) => (XdpMode::Offloaded, id),
        _ => return None,
    };
    Some(XdpProgram { mode, id })
}

impl FromMessage<AddressMessage> for Address {
    fn from_message(message: &AddressMessage) -> Option<Self> {
        // On a point-to-point interface `Address` is the other end.
        let find =
            |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
        let address = find(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        })
        .or_else(|| {
            find(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        })?;
        match address {
            IpAddr::V4(address) if message.header.prefix_len <= 32 => {
                Some(Self { index: message.header.index, address, prefix_len: message.header.prefix_len })
            }
            _ => None,
        }
    }
}

impl FromMessage<RouteMessage> for Route {
    /// `None` for another family and for what is no forwarding entry (local, broadcast, cloned).
    fn from_message(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let rejects = match header.kind {
            RouteType::Unicast => false,
            RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw => true,
            _ => return None,
        };
        if header.address_family != AddressFamily::Inet || header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let mut route = Self {
            protocol: header.protocol.into(),
            onlink: header.flags.contains(RouteFlags::Onlink),
            rejects,
            ..Self::default()
        };
        let mut destination = Ipv4Addr::UNSPECIFIED;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
                RouteAttribute::MultiPath(hops) => {
                    route.multipath = true;
                    route.oif = hops.first().map(|hop| hop.interface_index);
                }
                other => take(&mut route, other),
            }
        }
        route.destination = Ipv4Net::new(destination, header.destination_prefix_length).ok()?.trunc();
        Some(route)
    }
}

fn take(route: &mut Route, attribute: &RouteAttribute) {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.gateway = Some(*address),
        RouteAttribute::PrefSource(RouteAddress::Inet(address)) => route.prefsrc = Some(*address),
        RouteAttribute::Oif(index) => route.oif = Some(*index),
        RouteAttribute::Priority(metric) => route.metric = *metric,
        RouteAttribute::Metrics(metrics) => {
            route.mtu = metrics.iter().find_map(|metric| match metric {
                RouteMetric::Mtu(mtu) => Some(*mtu),
                _ => None,
            });
        }
        _ => {}
    }
}

impl FromMessage<RuleMessage> for Rule {
    fn from_message(message: &RuleMessage) -> Option<Self> {
        let header = &message.header;
        let mut rule = Self {
            priority: 0,
            table: header.table.into(),
            protocol: 0,
            selective: header.src_len != 0 || header.dst_len != 0 || header.tos != 0,
        };
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Table(table) => rule.table = *table,
                // The kernel always reports these; all ones means "no limit".
                RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
                RuleAttribute::Protocol(protocol) => rule.protocol = (*protocol).into(),
                _ => rule.selective = true,
            }
        }
        Some(rule)
    }
}

impl FromMessage<NeighbourMessage> for Neighbour {
    fn from_message(message: &NeighbourMessage) -> Option<Self> {
        use netlink_packet_route::neighbour::NeighbourState as Kernel;
        if message.header.family != AddressFamily::Inet {
            return None;
        }
        let state = match message.header.state {
            Kernel::Failed => NeighbourState::Failed,
            Kernel::Incomplete | Kernel::None => NeighbourState::Incomplete,
            _ => NeighbourState::Known,
        };
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
            _ => None,
        })?;
        let is_static = message.header.state == Kernel::Permanent;
        Some(Self { index: message.header.ifindex, address, mac: mac(message), state, is_static })
    }
}

impl FromMessage<NeighbourMessage> for FdbEntry {
    /// `None` for another family and for entries of devices instead of bridges (`self` in `bridge fdb`).
    fn from_message(message: &NeighbourMessage) -> Option<Self> {
        use netlink_packet_route::neighbour::NeighbourState as Kernel;
        if message.header.family != AddressFamily::Bridge {
            return None;
        }
        let bridge = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Controller(index) => Some(*index),
            _ => None,
        })?;
        let local = message.header.state == Kernel::Permanent;
        Some(Self { bridge, port: message.header.ifindex, mac: mac(message)?, local })
    }
}

fn mac(message: &NeighbourMessage) -> Option<[u8; 6]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
