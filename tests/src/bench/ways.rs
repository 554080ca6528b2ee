//! Two hosts on one wire with a pair of containers for every way that their packets may take.

use std::{net::Ipv4Addr, path::PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{Container, Host, Process, network::wire, site::Offload};

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
}

impl Way {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::Vxlan => "vxlan",
            Self::Ipip => "ipip",
            Self::Fan => "fan",
        }
    }

    /// Bytes that the way adds to a packet.
    fn overhead(self) -> u32 {
        match self {
            Self::Routing => 0,
            Self::Vxlan => 50,
            Self::Ipip | Self::Fan => 20,
        }
    }

    /// The container's address on host 0 or 1.
    pub fn address(self, host: u8) -> Ipv4Addr {
        match self {
            Self::Fan => Ipv4Addr::new(250, 0, 27 + host, 2),
            _ => Ipv4Addr::new(10, 1 + self as u8, 27 + host, 2),
        }
    }

    fn gateway(self, host: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.address(host).octets();
        Ipv4Addr::new(a, b, c, 1)
    }
}

/// Two pairs of hosts on wires alike: Fanlight has one to itself, so that its firewall rules (which switch connection
/// tracking on) do not slow its peers down.
pub struct Pairs {
    peers: Pair,
    ours: Pair,
}

impl Pairs {
    /// Two hosts on one wire, twice.
    pub fn new(mtu: u32, segmenting: bool) -> Self {
        Self { peers: Pair::new("peer", mtu, segmenting), ours: Pair::new("ours", mtu, segmenting) }
    }

    /// The receiving host of Fanlight's pair.
    pub fn receiver(&self) -> &Host {
        &self.ours.hosts[1]
    }

    /// A host without Fanlight.
    pub fn peer(&self) -> &Host {
        &self.peers.hosts[0]
    }

    /// Lays a way between two hosts and a container at either end.
    pub fn lay(&self, way: Way) -> Lane<'_> {
        match way {
            Way::Fan => self.ours.lay(way),
            Way::Routing | Way::Vxlan | Way::Ipip => self.peers.lay(way),
        }
    }
}

/// Two hosts, to which containers are added way by way.
struct Pair {
    hosts: [Host; 2],
    mtu: u32,
}

impl Pair {
    /// Two hosts on one wire. A `segmenting` wire takes no super-packets, as a real one; the receiver merges.
    fn new(name: &str, mtu: u32, segmenting: bool) -> Self {
        let hosts = [27, 28].map(|octet| Host::new(&format!("{name}-{octet}")));
        wire(mtu, (&hosts[0], "eth0", "172.30.0.27/16"), (&hosts[1], "eth0", "172.30.0.28/16"));
        for host in &hosts {
            host.sysctl("net.ipv4.ip_forward", "1");
            if segmenting {
                host.offload("eth0", Offload::Tso, false);
                host.offload("eth0", Offload::Gro, true);
            }
        }
        Self { hosts, mtu }
    }

    /// Lays a way between the hosts and a container at either end.
    fn lay(&self, way: Way) -> Lane<'_> {
        let ends = [0, 1].map(|index| match way {
            Way::Fan => self.fan_end(index),
            _ => self.routed_end(way, index),
        });
        match way {
            Way::Routing => self.each(way, |host, other, underlay| {
                host.ip(&format!("route add {other} via {underlay}"));
            }),
            Way::Vxlan => self.lay_vxlan(),
            Way::Ipip => self.each(way, |host, other, underlay| {
                host.ip(&format!("link add tunnel type ipip remote {underlay} dev eth0"));
                host.ip("link set tunnel up");
                host.ip(&format!("route add {other} dev tunnel"));
            }),
            Way::Fan => {}
        }
        Lane { way, ends }
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

    /// A container behind a routed veth of its own, as the kernel forwards fastest.
    fn routed_end(&self, way: Way, index: usize) -> Container<'_> {
        let host = &self.hosts[index];
        let container = host.container(way.name());
        let (address, gateway) = (way.address(index as u8), way.gateway(index as u8));
        let (device, netns, mtu) =
            (format!("c-{}", way.name()), container.netns(), self.mtu - way.overhead());
        host.ip(&format!("link add {device} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {netns}"));
        host.ip(&format!("address add {gateway}/32 dev {device}"));
        host.ip(&format!("link set {device} up"));
        host.ip(&format!("route add {address}/32 dev {device}"));
        container.ip(&format!("address add {address}/32 dev eth0"));
        container.ip("link set eth0 up");
        container.ip(&format!("route add {gateway}/32 dev eth0"));
        container.ip(&format!("route add default via {gateway}"));
        container
    }

    fn fan_end(&self, index: usize) -> Container<'_> {
        let host = &self.hosts[index];
        host.run("fan up 250.0.0.0/8 eth0");
        let container = host.container(Way::Fan.name());
        let address = Way::Fan.address(index as u8);
        host.run(&format!("endpoint add --netns {} --address {address}", container.netns()));
        container
    }
}

/// A way with its two containers.
pub struct Lane<'h> {
    /// Which way.
    pub way: Way,
    /// The client's and the server's container.
    pub ends: [Container<'h>; 2],
}

impl Lane<'_> {
    /// Starts the load server at the far end.
    pub fn serve(&self) -> Process {
        let server = self.ends[1].command(program()).arg("serve").spawn();
        crate::load::wait_until_listening(&self.ends[1], super::load::CONNECT_PORT);
        server
    }

    /// The server's address.
    pub fn server(&self) -> Ipv4Addr {
        self.way.address(1)
    }
}

/// This very program, which holds the load generator too.
pub fn program() -> PathBuf {
    std::env::current_exe().expect("a running program has a path")
}
