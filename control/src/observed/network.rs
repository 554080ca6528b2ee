//! What the kernel's tables of interfaces, addresses, routes and neighbours hold.

use std::{fmt, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::Serialize;

use crate::model::{ROUTE_PROTOCOL, SMALL_PATHS};

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
    /// Segments that a super-packet may have which is sent through it.
    pub gso_segments: u32,
    /// Whether its packets have no Ethernet headers.
    pub headerless: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Whether its peer (veth) or parent is in another network namespace.
    pub peer_netns: bool,
    /// The alias that `ip link set alias` gives.
    pub alias: Option<String>,
    /// The bus of the device behind it (`pci`, `virtio`), where there is one.
    pub bus: Option<String>,
    /// XDP programs: one, but for devices that run another one themselves.
    pub xdp: Vec<XdpProgram>,
}

/// An XDP program of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpProgram {
    /// Who runs it.
    pub mode: XdpMode,
    /// The kernel's number for it.
    pub id: u32,
}

/// Who runs an XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// The driver, before there is an `skb`.
    Native,
    /// The kernel, on every driver's packets.
    Generic,
    /// The device.
    Offloaded,
}

impl XdpMode {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
        }
    }
}

impl Link {
    /// Buses of devices that a hypervisor makes up, or a test.
    const VIRTUAL_BUSES: [&str; 4] = ["virtio", "vmbus", "xen", "netdevsim"];

    /// Whether there is hardware behind it, which cuts and puts together super-packets by itself: native XDP takes that
    /// from virtual devices.
    pub fn is_hardware(&self) -> bool {
        let is_real = |bus: &str| !Self::VIRTUAL_BUSES.contains(&bus);
        self.kind.is_none() && self.bus.as_deref().is_some_and(is_real)
    }

    /// Whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
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
    /// The protocol that made it: `RTPROT_*`.
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

/// A policy routing rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The smaller is asked first.
    pub priority: u32,
    /// Table that it points to.
    pub table: u32,
    /// It applies to some packets only.
    pub selective: bool,
    /// Who made it: `RTPROT_*`.
    pub protocol: u8,
}

impl Rule {
    /// The three rules of every namespace: local, main, default.
    const STANDARD: [(u32, u32); 3] = [(0, 255), (32766, 254), (32767, 253)];

    /// Whether it is ours, for what comes out of the helper device.
    pub fn is_ours(&self) -> bool {
        self.protocol == ROUTE_PROTOCOL && (self.priority, self.table) == (SMALL_PATHS, SMALL_PATHS)
    }

    /// Whether it is one of the three that every namespace starts with.
    pub fn is_standard(&self) -> bool {
        !self.selective && Self::STANDARD.contains(&(self.priority, self.table))
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
    /// It was entered for good: the kernel does not ask for it.
    pub is_static: bool,
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
