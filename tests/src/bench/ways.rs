//! Two hosts on one wire with a pair of containers for every way that their packets may take.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{
    rounds::Wire,
    vips::{Services, Translator, VIP},
};
use crate::{Container, Host, Process, network::wire, site::Offload};

/// How many VIPs more there are in the ways that are named so.
pub const MANY: u32 = 10_000;

/// How packets of two containers get from one host to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Plain kernel routing: every host knows the other's containers. What all others are compared with.
    Routing,
    /// The kernel's vxlan device with static entries.
    Vxlan,
    /// The kernel's ipip device.
    Ipip,
    /// Fanlight.
    Fan,
    /// Fanlight without an agent, its containers put into the bridge by hand.
    #[serde(rename = "fan-by-hand")]
    FanByHand,
    /// A VIP of Fanlight's, to a backend in the fan.
    Vip,
    /// The same among many.
    #[serde(rename = "vip-10000")]
    VipAmongMany,
    /// A VIP of Fanlight's, to a backend beyond the fan, over plain routing.
    #[serde(rename = "vip-routed")]
    VipRouted,
    /// A VIP of the kernel's ip_vs, as NAT, over plain routing.
    Ipvs,
    /// The same over the kernel's ipip device: to a backend in an overlay, as a fan's are.
    #[serde(rename = "ipvs-ipip")]
    IpvsOverIpip,
    /// A VIP of one rule of nftables, over plain routing.
    Nftables,
    /// The same over the kernel's ipip device: to a backend in an overlay, as a fan's are.
    #[serde(rename = "nftables-ipip")]
    NftablesOverIpip,
    /// A VIP of one rule of nftables with a map of many, over plain routing.
    #[serde(rename = "nftables-10000")]
    NftablesAmongMany,
    /// A VIP of iptables as kube-proxy writes it, over plain routing.
    Iptables,
    /// The same among many.
    #[serde(rename = "iptables-10000")]
    IptablesAmongMany,
}

impl Way {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Vxlan => "vxlan",
            Self::Ipip => "ipip",
            Self::Fan => "fan",
            Self::FanByHand => "fan-by-hand",
            Self::Vip => "vip",
            Self::VipAmongMany => "vip-10000",
            Self::VipRouted => "vip-routed",
            Self::Ipvs => "ipvs",
            Self::IpvsOverIpip => "ipvs-ipip",
            Self::Nftables => "nftables",
            Self::NftablesOverIpip => "nftables-ipip",
            Self::NftablesAmongMany => "nftables-10000",
            Self::Iptables => "iptables",
            Self::IptablesAmongMany => "iptables-10000",
        }
    }

    /// What translates, where the way leads through a VIP, and how many other VIPs there are.
    fn translation(self) -> Option<(Translator, u32)> {
        match self {
            Self::Routing | Self::Vxlan | Self::Ipip | Self::Fan | Self::FanByHand => None,
            Self::Vip | Self::VipRouted => Some((Translator::Fanlight, 0)),
            Self::VipAmongMany => Some((Translator::Fanlight, MANY)),
            Self::Ipvs | Self::IpvsOverIpip => Some((Translator::Ipvs, 0)),
            Self::Nftables | Self::NftablesOverIpip => Some((Translator::Nftables, 0)),
            Self::NftablesAmongMany => Some((Translator::Nftables, MANY)),
            Self::Iptables => Some((Translator::Iptables, 0)),
            Self::IptablesAmongMany => Some((Translator::Iptables, MANY)),
        }
    }

    fn has_hosts_of_its_own(self) -> bool {
        self.is_in_fan(0) || self.translation().is_some()
    }

    /// Whether the container of host 0 or 1 is in a fan.
    fn is_in_fan(self, host: u8) -> bool {
        match self {
            Self::Fan | Self::FanByHand | Self::Vip | Self::VipAmongMany => true,
            Self::VipRouted => host == 0,
            _ => false,
        }
    }

    /// Bytes that the way adds to a packet.
    fn overhead(self) -> u32 {
        match self {
            Self::Vxlan => 50,
            Self::Ipip | Self::IpvsOverIpip | Self::NftablesOverIpip => 20,
            _ if self.is_in_fan(1) => 20,
            _ => 0,
        }
    }

    /// The container's address on host 0 or 1.
    pub fn address(self, host: u8) -> Ipv4Addr {
        if self.is_in_fan(host) {
            Ipv4Addr::new(250, 0, 27 + host, 2)
        } else {
            Ipv4Addr::new(10, 1 + self as u8, 27 + host, 2)
        }
    }

    fn gateway(self, host: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.address(host).octets();
        Ipv4Addr::new(a, b, c, 1)
    }
}

/// How containers hang on their hosts; the same for Fanlight's and its peers'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Wiring {
    /// As ports of a bridge that has the gateway's address: what `endpoint add`, Docker and the bridge plugin of CNI make.
    #[default]
    Bridged,
    /// Behind a veth with a route of its own, as the kernel forwards fastest: `endpoint add --routed`.
    Routed,
}

impl Wiring {
    /// For headings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridged => "containers as ports of a bridge",
            Self::Routed => "containers behind routed veths",
        }
    }
}

/// Pairs of hosts on wires alike: one for all ways between hosts, and one for each way with something of its own on the
/// client's host, so that neither firewall rules (which switch connection tracking on) nor services slow others down.
pub struct Pairs {
    peers: Pair,
    own: BTreeMap<Way, Pair>,
}

impl Pairs {
    /// Two hosts on one wire, as often as these ways need.
    pub fn new(wire: Wire, wiring: Wiring, ways: &[Way]) -> Self {
        let own = ways.iter().filter(|way| way.has_hosts_of_its_own());
        let own = own.map(|&way| (way, Pair::new(way.name(), wire, wiring)));
        Self { peers: Pair::new("peer", wire, wiring), own: own.collect() }
    }

    /// The hosts of a way: the client's and the server's.
    pub fn hosts(&self, way: Way) -> &[Host; 2] {
        &self.pair(way).hosts
    }

    fn pair(&self, way: Way) -> &Pair {
        self.own.get(&way).unwrap_or(&self.peers)
    }

    /// Lays a way between two hosts and a container at either end.
    pub fn lay(&self, way: Way) -> Lane<'_> {
        self.pair(way).lay(way)
    }
}

/// Two hosts, to which containers are added way by way.
struct Pair {
    hosts: [Host; 2],
    mtu: u32,
    wiring: Wiring,
}

impl Pair {
    /// Two hosts on one wire. A `segmenting` wire takes no super-packets, as a real one; the receiver merges.
    fn new(name: &str, Wire { mtu, segmenting }: Wire, wiring: Wiring) -> Self {
        let hosts = [27, 28].map(|octet| Host::new(&format!("{name}-{octet}")));
        wire(mtu, (&hosts[0], "eth0", "172.30.0.27/16"), (&hosts[1], "eth0", "172.30.0.28/16"));
        for host in &hosts {
            host.sysctl("net.ipv4.ip_forward", "1");
            if segmenting {
                host.offload("eth0", Offload::Tso, false);
                host.offload("eth0", Offload::Gro, true);
            }
        }
        Self { hosts, mtu, wiring }
    }

    /// Lays a way between the hosts and a container at either end.
    fn lay(&self, way: Way) -> Lane<'_> {
        let ends = [0, 1].map(|index| {
            if way.is_in_fan(index as u8) { self.fan_end(way, index) } else { self.plain_end(way, index) }
        });
        match way {
            Way::Vxlan => self.lay_vxlan(),
            Way::Ipip | Way::IpvsOverIpip | Way::NftablesOverIpip => {
                self.each(way, |host, other, underlay| {
                    host.ip(&format!("link add tunnel type ipip remote {underlay} dev eth0"));
                    host.ip("link set tunnel up");
                    host.ip(&format!("route add {other} dev tunnel"));
                })
            }
            _ if way.is_in_fan(1) => {}
            _ => self.each(way, |host, other, underlay| {
                host.ip(&format!("route add {other} via {underlay}"));
            }),
        }
        let translation = way.translation();
        let services = translation
            .map(|(translator, others)| Services::start(translator, &self.hosts[0], way.address(1), others));
        Lane { way, ends, _services: services }
    }

    /// Gives `lay` each host with the other's container network and underlay address.
    fn each(&self, way: Way, lay: impl Fn(&Host, String, Ipv4Addr)) {
        for (index, host) in self.hosts.iter().enumerate() {
            let other = 1 - index as u8;
            let [a, b, c, _] = way.address(other).octets();
            lay(host, format!("{a}.{b}.{c}.0/24"), Ipv4Addr::new(172, 30, 0, 27 + other));
        }
    }

    fn lay_vxlan(&self) {
        for (index, host) in self.hosts.iter().enumerate() {
            let (own, other) = (27 + index, 28 - index);
            host.ip(&format!(
                "link add vx address 02:00:00:00:00:{own:02x} type vxlan id 7 dstport 4789 local 172.30.0.{own} dev eth0"
            ));
            host.ip(&format!("address add 10.9.0.{own}/24 dev vx"));
            host.ip("link set vx up");
            let mac = format!("02:00:00:00:00:{other:02x}");
            host.ip(&format!("neigh add 10.9.0.{other} lladdr {mac} dev vx nud permanent"));
            host.sh(&format!("bridge fdb append {mac} dev vx dst 172.30.0.{other}"));
            host.ip(&format!("route add 10.2.{other}.0/24 via 10.9.0.{other}"));
        }
    }

    /// A container that its host's kernel forwards for.
    fn plain_end(&self, way: Way, index: usize) -> Container<'_> {
        let host = &self.hosts[index];
        let container = host.container(way.name());
        let (address, gateway) = (way.address(index as u8), way.gateway(index as u8));
        let (device, netns, mtu) = (format!("c{}", way as u8), container.netns(), self.mtu - way.overhead());
        host.ip(&format!("link add {device} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {netns}"));
        let prefix = match self.wiring {
            Wiring::Bridged => {
                let bridge = format!("b{}", way as u8);
                host.ip(&format!("link add {bridge} mtu {mtu} type bridge"));
                host.ip(&format!("address add {gateway}/24 dev {bridge}"));
                host.ip(&format!("link set {bridge} up"));
                host.ip(&format!("link set {device} master {bridge} up"));
                24
            }
            Wiring::Routed => {
                host.ip(&format!("address add {gateway}/32 dev {device}"));
                host.ip(&format!("link set {device} up"));
                host.ip(&format!("route add {address}/32 dev {device}"));
                32
            }
        };
        container.ip(&format!("address add {address}/{prefix} dev eth0"));
        container.ip("link set eth0 up");
        if self.wiring == Wiring::Routed {
            container.ip(&format!("route add {gateway}/32 dev eth0"));
        }
        container.ip(&format!("route add default via {gateway}"));
        container
    }

    fn fan_end(&self, way: Way, index: usize) -> Container<'_> {
        let host = &self.hosts[index];
        host.run("fan up 250.0.0.0/8 eth0");
        let container = host.container(way.name());
        let address = way.address(index as u8);
        if way == Way::FanByHand {
            let [a, b, c, _] = address.octets();
            let (bridge, mtu) = (format!("fan-{a}-{b}-{c}"), self.mtu - way.overhead());
            let port = container.plug(&bridge);
            host.ip(&format!("link set {port} mtu {mtu}"));
            container.ip(&format!("link set eth0 mtu {mtu}"));
            container.address(&format!("{address}/24"), &way.gateway(index as u8).to_string());
            return container;
        }
        let routed = if self.wiring == Wiring::Routed { " --routed" } else { "" };
        host.run(&format!("endpoint add --netns {} --address {address}{routed}", container.netns()));
        container
    }
}

/// A way with its two containers.
pub struct Lane<'h> {
    /// Which way.
    pub way: Way,
    /// The client's and the server's container.
    pub ends: [Container<'h>; 2],
    _services: Option<Services>,
}

impl Lane<'_> {
    /// Starts the load server at the far end.
    pub fn serve(&self) -> Process {
        let server = self.ends[1].command(program()).arg("serve").spawn();
        crate::load::wait_until_listening(&self.ends[1], super::load::CONNECT_PORT);
        server
    }

    /// The address by which the server is called.
    pub fn server(&self) -> Ipv4Addr {
        if self.way.translation().is_some() { VIP } else { self.way.address(1) }
    }
}

/// This very program, which holds the load generator too.
pub fn program() -> PathBuf {
    std::env::current_exe().expect("a running program has a path")
}
