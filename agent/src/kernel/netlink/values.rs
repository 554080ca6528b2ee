//! What the kernel's tables hold, as plain values.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType},
    rule::{RuleAttribute, RuleMessage},
};

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MAC address; zero for interfaces without one.
    pub mac: [u8; 6],
    /// MTU.
    pub mtu: u32,
    /// Kind as `ip -d link` shows it (`bridge`, `veth`); `None` for hardware.
    pub kind: Option<String>,
    /// The bridge (or bond, or VRF) it is a port of.
    pub master: Option<u32>,
    /// Index of the veth's peer or the parent device, where [`peer_netns`](Self::peer_netns) says.
    pub peer: Option<u32>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it carries packets.
    pub carrier: bool,
    /// Whether neighbour resolution is off.
    pub noarp: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Whether its peer (veth) or parent is in another network namespace.
    pub peer_netns: bool,
    /// The alias that `ip link set alias` gives.
    pub alias: Option<String>,
}

impl Link {
    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }

    /// `None` for a message of another family (a bridge's view of a port, IPv6 settings) or without a name.
    pub(super) fn from_message(message: &LinkMessage) -> Option<Self> {
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
            loopback: flags.contains(LinkFlags::Loopback),
            peer_netns: false,
            alias: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.master = Some(*index),
                LinkAttribute::Link(index) => link.peer = Some(*index),
                LinkAttribute::LinkNetNsId(_) => link.peer_netns = true,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
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

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Interface index.
    pub index: u32,
    /// The address itself.
    pub address: Ipv4Addr,
    /// Length of the network that it makes directly connected.
    pub prefix_len: u8,
}

impl Address {
    /// The directly connected network.
    pub fn network(&self) -> Ipv4Net {
        Ipv4Net::new_assert(self.address, self.prefix_len).trunc()
    }

    pub(super) fn from_message(message: &AddressMessage) -> Option<Self> {
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

/// An IPv4 route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Destination network.
    pub destination: Ipv4Net,
    /// Next hop.
    pub gateway: Option<Ipv4Addr>,
    /// Outgoing interface; of the first next hop where there are several.
    pub oif: Option<u32>,
    /// Who made it: `RTPROT_*`.
    pub protocol: u8,
    /// Priority: the smaller wins.
    pub metric: u32,
    /// Source address of packets that the host itself sends.
    pub prefsrc: Option<Ipv4Addr>,
    /// Path MTU.
    pub mtu: Option<u32>,
    /// The next hop is taken to be directly connected, whatever the addresses say.
    pub onlink: bool,
    /// Whether there are several next hops.
    pub multipath: bool,
    /// It makes packets fail (`unreachable`, `blackhole`, `prohibit`, `throw`) instead of forwarding them.
    pub rejects: bool,
}

impl Route {
    /// `None` for another family and for what is no forwarding entry (local, broadcast, cloned).
    pub(super) fn from_message(message: &RouteMessage) -> Option<Self> {
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
                other => route.take(other),
            }
        }
        route.destination = Ipv4Net::new(destination, header.destination_prefix_length).ok()?.trunc();
        Some(route)
    }

    fn take(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => self.gateway = Some(*address),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => self.prefsrc = Some(*address),
            RouteAttribute::Oif(index) => self.oif = Some(*index),
            RouteAttribute::Priority(metric) => self.metric = *metric,
            RouteAttribute::Metrics(metrics) => {
                self.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
}

/// A policy routing rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The smaller is asked first.
    pub priority: u32,
    /// Table that it points to.
    pub table: u32,
    /// It applies to some packets only.
    pub selective: bool,
}

impl Rule {
    /// The three rules of every namespace: local, main, default.
    const STANDARD: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];

    /// Whether it is one of the three that every namespace starts with.
    pub fn is_standard(&self) -> bool {
        !self.selective && Self::STANDARD.contains(&(self.priority, self.table))
    }

    pub(super) fn from_message(message: &RuleMessage) -> Self {
        let header = &message.header;
        let mut rule = Self {
            priority: 0,
            table: header.table.into(),
            selective: header.src_len != 0 || header.dst_len != 0 || header.tos != 0,
        };
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Table(table) => rule.table = *table,
                // The kernel always reports these; all ones means "no limit".
                RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::Protocol(_) => {}
                _ => rule.selective = true,
            }
        }
        rule
    }
}

/// How much the kernel trusts a neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// The MAC address is known (reachable, stale, being probed, permanent).
    Known,
    /// It is being asked for.
    Incomplete,
    /// Nobody answered.
    Failed,
}

/// An IPv4 neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Interface index.
    pub index: u32,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its MAC address, if known.
    pub mac: Option<[u8; 6]>,
    /// What the kernel knows of it.
    pub state: NeighbourState,
}

impl Neighbour {
    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Self> {
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
        Some(Self { index: message.header.ifindex, address, mac: mac(message), state })
    }
}

/// An entry of a bridge's forwarding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// Index of the bridge.
    pub bridge: u32,
    /// Index of the port (of the bridge itself for its own address).
    pub port: u32,
    /// The MAC address behind it.
    pub mac: [u8; 6],
    /// It is the port's or bridge's own address.
    pub local: bool,
}

impl FdbEntry {
    /// `None` for another family and for entries of devices instead of bridges (`self` in `bridge fdb`).
    pub(super) fn from_message(message: &NeighbourMessage) -> Option<Self> {
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
