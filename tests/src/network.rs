//! What lies between hosts.

use std::ops::Deref;

use crate::site::Site;

/// A switch that joins any number of hosts: a bridge in a namespace of its own.
pub struct Switch {
    site: Site,
    mtu: u32,
}

impl Switch {
    /// A switch whose links carry packets of 1500 bytes.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        Self::with_mtu(name, 1500)
    }

    /// A switch whose links carry packets of `mtu` bytes.
    #[track_caller]
    pub fn with_mtu(name: &str, mtu: u32) -> Self {
        let site = Site::bare(name);
        site.ip_lines(&[
            format!("link add name wire mtu {mtu} type bridge forward_delay 0 mcast_snooping 0"),
            "link set wire up".into(),
        ]);
        // Where the machine has br_netfilter, bridges drop what looks malformed; a wire does not look.
        site.sysctl_if_known("net.bridge.bridge-nf-call-iptables", "0");
        Self { site, mtu }
    }

    /// Gives a host a device on this switch.
    #[track_caller]
    pub fn join(&self, host: &Site, device: &str, address: &str) {
        let port = format!("p-{}-{device}", host.name());
        let port = port.get(..port.len().min(15)).unwrap_or(&port);
        let (own, other, mtu) = (self.holder(), host.holder(), self.mtu);
        self.ip_lines(&[
            format!("link add name {port} mtu {mtu} netns {own} type veth peer name {device} mtu {mtu} netns {other}"),
            format!("link set {port} master wire up"),
        ]);
        host.ip_lines(&[format!("address add {address} dev {device}"), format!("link set {device} up")]);
    }
}

impl Deref for Switch {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

/// A wire between two sites: a device and an address with its length at either end.
#[track_caller]
pub fn wire(mtu: u32, one: (&Site, &str, &str), other: (&Site, &str, &str)) {
    let (a, b) = (one.0.holder(), other.0.holder());
    one.0.ip(&format!(
        "link add name {} mtu {mtu} netns {a} type veth peer name {} mtu {mtu} netns {b}",
        one.1, other.1
    ));
    for (site, device, address) in [one, other] {
        site.ip_lines(&[format!("address add {address} dev {device}"), format!("link set {device} up")]);
    }
}

/// A namespace that forwards IPv4 between its devices, and answers as a router does.
pub struct Router {
    site: Site,
}

impl Router {
    /// A router without devices.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        let site = Site::bare(name);
        site.sysctl("net.ipv4.ip_forward", "1");
        // Tests make it answer often: no rate limit of ICMP errors.
        site.sysctl("net.ipv4.icmp_ratelimit", "0");
        Self { site }
    }
}

impl Deref for Router {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}
