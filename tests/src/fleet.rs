//! The usual set-up: hosts on one wire, a fan on each, containers with addresses from the host's slice.

use std::{net::Ipv4Addr, ops::Index, thread};

use crate::{container::Container, host::Host, kit::Kit, network::Switch, site::Site};

/// Overlay of the usual fan.
pub const OVERLAY: &str = "250.0.0.0/8";
/// Underlay of the usual fan.
pub const UNDERLAY: &str = "172.30.0.0/16";

/// Hosts 172.30.0.27, .28, ... on one switch; their slices are 250.0.27.0/24, 250.0.28.0/24, ...
pub struct Fleet {
    hosts: Vec<Host>,
    /// What the hosts have that others may have after them.
    kits: Vec<Kit>,
    /// What joins them.
    pub switch: Switch,
}

impl Fleet {
    /// So many hosts, with an uplink `eth0` each and no fan yet.
    #[track_caller]
    pub fn bare(hosts: usize) -> Self {
        Self::on(Switch::new("wire"), hosts)
    }

    /// The same on a given switch.
    #[track_caller]
    pub fn on(switch: Switch, hosts: usize) -> Self {
        let hosts = (0..hosts).map(|index| {
            let host = Host::new(&format!("host-{}", 27 + index));
            switch.join(&host, "eth0", &format!("{}/16", underlay(index)));
            host
        });
        Self { hosts: hosts.collect(), kits: Vec::new(), switch }
    }

    /// So many hosts with the usual fan, brought up by hand. Programs and tables may be another host's, emptied.
    #[track_caller]
    pub fn up(hosts: usize) -> Self {
        let mut fleet = Self::bare(hosts);
        for host in &fleet.hosts {
            let lent = Kit::lend(host);
            host.run(&format!("fan up {OVERLAY} eth0"));
            fleet.kits.push(lent.unwrap_or_else(|| Kit::of(host)));
        }
        fleet
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A container on a host with the given last octet, wired by `fanlight endpoint add`.
    #[track_caller]
    pub fn endpoint(&self, host: usize, octet: u8) -> Container<'_> {
        let container = self.hosts[host].container(&format!("c{octet}"));
        let netns = container.netns();
        self.hosts[host].run(&format!("endpoint add --netns {netns} --address {}", overlay(host, octet)));
        container
    }

    /// The devices in a host's bridge that somebody has put there.
    #[track_caller]
    pub fn ports(&self, host: usize) -> Vec<String> {
        let listed = self.hosts[host].ip(&format!("-o link show master {}", bridge(host)));
        let names = listed.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next());
        names.filter(|name| !name.starts_with("fani0-")).map(str::to_owned).collect()
    }

    /// A container on a host with the given last octet, put into the bridge by hand.
    #[track_caller]
    pub fn port(&self, host: usize, octet: u8) -> Container<'_> {
        let container = self.hosts[host].container(&format!("c{octet}"));
        let (address, gateway) = (overlay(host, octet), overlay(host, 1));
        container.join_bridge(&bridge(host), &format!("{address}/24"), &gateway.to_string());
        container
    }

    /// A host on the wire without a fan.
    #[track_caller]
    pub fn stranger(&self, name: &str, address: Ipv4Addr) -> Site {
        let site = Site::bare(name);
        self.switch.join(&site, "eth0", &format!("{address}/16"));
        site
    }

    /// A stranger, at [`OUTSIDE`], who routes a VIP to the first host.
    #[track_caller]
    pub fn outside(&self, vip: Ipv4Addr) -> Site {
        let site = self.stranger("outside", OUTSIDE);
        site.ip(&format!("route add {vip} via {}", underlay(0)));
        site
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // A failed test may have left anything.
        if !thread::panicking() {
            self.kits.drain(..).zip(&self.hosts).for_each(|(kit, host)| kit.give_back(host));
        }
    }
}

/// Underlay address of a client without a fan: [`Fleet::outside`].
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 99);
/// Another one, for a [`Fleet::stranger`].
pub const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 98);

impl Index<usize> for Fleet {
    type Output = Host;

    fn index(&self, host: usize) -> &Host {
        &self.hosts[host]
    }
}

/// Underlay address of a host.
pub fn underlay(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, 27 + host as u8)
}

/// Overlay address with a given last octet on a host; 1 is the gateway.
pub fn overlay(host: usize, octet: u8) -> Ipv4Addr {
    Ipv4Addr::new(250, 0, 27 + host as u8, octet)
}

/// Name of a host's bridge.
pub fn bridge(host: usize) -> String {
    format!("fan-250-0-{}", 27 + host)
}
