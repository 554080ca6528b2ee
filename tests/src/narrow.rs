//! Hosts whose link-layer networks meet over a smaller link.

use std::net::Ipv4Addr;

use crate::{
    container::Container,
    host::Host,
    network::{Router, Switch, wire},
    site::Site,
};

/// Two hosts of one fan, with a link of [`Narrow::MTU`] bytes between two routers on their way.
pub struct Narrow {
    /// The hosts, each on a network of its own.
    pub hosts: [Host; 2],
    switches: [Switch; 2],
    routers: [Router; 2],
}

impl Narrow {
    /// What the smaller link carries.
    pub const MTU: u32 = 1400;
    /// The container on the first host.
    pub const A: Ipv4Addr = Ipv4Addr::new(250, 1, 2, 7);
    /// The container on the second.
    pub const B: Ipv4Addr = Ipv4Addr::new(250, 2, 2, 7);

    /// Lays it.
    #[expect(clippy::new_without_default, reason = "it makes namespaces")]
    #[track_caller]
    pub fn new() -> Self {
        let switches = [Switch::new("left"), Switch::new("right")];
        let routers = [Router::new("near"), Router::new("far")];
        let hosts = [Host::new("one"), Host::new("other")];
        wire(Self::MTU, (&routers[0], "eth1", "10.9.9.1/30"), (&routers[1], "eth1", "10.9.9.2/30"));
        for (place, switch) in switches.iter().enumerate() {
            switch.join(&routers[place], "eth0", &format!("172.30.{}.1/24", place + 1));
            routers[place].ip(&format!("route add default via 10.9.9.{}", 2 - place));
        }
        let narrow = Self { hosts, switches, routers };
        for (place, host) in narrow.hosts.iter().enumerate() {
            narrow.join(place, host, 2);
            host.run("fan up 250.0.0.0/8 172.30.0.0/16");
        }
        narrow
    }

    /// The router of the first host's network.
    pub fn near(&self) -> &Router {
        &self.routers[0]
    }

    /// Gives a site an address beside a host: 172.30.1.`octet` or 172.30.2.`octet`.
    #[track_caller]
    pub fn join(&self, beside: usize, site: &Site, octet: u8) -> Ipv4Addr {
        let address = Ipv4Addr::new(172, 30, beside as u8 + 1, octet);
        self.switches[beside].join(site, "eth0", &format!("{address}/24"));
        site.ip(&format!("route add default via 172.30.{}.1", beside + 1));
        address
    }

    /// A container on each host, at [`Narrow::A`] and [`Narrow::B`].
    #[track_caller]
    pub fn containers(&self) -> (Container<'_>, Container<'_>) {
        let [one, other] = &self.hosts;
        let containers = (one.container("a"), other.container("b"));
        one.run(&format!("endpoint add --netns a --address {}", Self::A));
        other.run(&format!("endpoint add --netns b --address {}", Self::B));
        containers
    }
}
