//! A container: a network namespace on a host.

use std::ops::Deref;

use crate::{host::Host, lab, site::Site};

/// A network namespace under its host's `/run/netns`, until the value goes.
pub struct Container<'h> {
    site: Site,
    host: &'h Host,
    netns: String,
}

impl<'h> Container<'h> {
    #[track_caller]
    pub(crate) fn new(host: &'h Host, name: &str) -> Self {
        host.ip(&format!("netns add {name}"));
        let path = host.path(&format!("/run/netns/{name}"));
        let label = format!("{}/{name}", host.name());
        let site = Site::at(&label, &path.to_string_lossy(), host);
        site.ip("link set lo up");
        Self { site, host, netns: name.to_owned() }
    }

    /// Its name under `/run/netns`.
    pub fn netns(&self) -> &str {
        &self.netns
    }

    /// Wires it as a container engine does: a veth, one end into the bridge, the other one as `eth0` with
    /// an address and a default route.
    #[track_caller]
    pub fn join_bridge(&self, bridge: &str, address: &str, gateway: &str) {
        self.plug(bridge);
        self.address(address, gateway);
    }

    /// Puts one end of a new veth into the bridge and the other one inside as `eth0`, up, without an address.
    /// The name of the host's end.
    #[track_caller]
    pub fn plug(&self, bridge: &str) -> String {
        let (netns, port) = (&self.netns, format!("v{}", self.netns));
        self.host.ip(&format!("link add {port} type veth peer name eth0 netns {netns}"));
        self.host.ip(&format!("link set {port} master {bridge} up"));
        self.ip("link set eth0 up");
        port
    }

    /// Gives `eth0` an address with its length, and a default route.
    #[track_caller]
    pub fn address(&self, address: &str, gateway: &str) {
        self.ip(&format!("address add {address} dev eth0"));
        self.ip(&format!("route add default via {gateway}"));
    }

    /// Ends the namespace as an engine's crash does: without a word to anybody.
    pub fn die(self) {
        drop(self);
    }
}

impl Deref for Container<'_> {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if lab::kept() && !std::thread::panicking() {
            return;
        }
        // The host may be on its way out too.
        let _ = self.host.command("ip").args(["netns", "delete", &self.netns]).run();
    }
}
