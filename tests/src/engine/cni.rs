//! The Container Network Interface as a runtime such as containerd or CRI-O calls it.

use std::cell::RefCell;

use super::{Engine, IMAGE, Running, SERVER, Slice, make_image, ok};
use crate::{
    command::{Cmd, Process},
    fleet::{Fleet, bridge},
    host::Host,
};

/// Where distributions put the plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// The plugins `bridge` and `host-local`; a container is a namespace with the server in it.
pub struct Cni<'h> {
    host: &'h Host,
    network: String,
    servers: RefCell<Vec<(String, Process)>>,
}

impl Cni<'_> {
    fn plugin(&self, command: &str, name: &str) -> Cmd {
        let plugin = self.host.command(format!("{PLUGINS}/bridge"));
        let plugin = plugin.env("CNI_COMMAND", command).env("CNI_CONTAINERID", name);
        let plugin = plugin.env("CNI_NETNS", format!("/run/netns/{name}"));
        plugin.env("CNI_IFNAME", "eth0").env("CNI_PATH", PLUGINS).input(self.network.as_str())
    }
}

impl<'h> Engine<'h> for Cni<'h> {
    const NAME: &'static str = "CNI";
    const PROGRAMS: &'static [&'static str] =
        &["/usr/lib/cni/bridge", "/usr/lib/cni/host-local", "busybox", "curl"];
    const PUBLISHES: bool = false;

    #[track_caller]
    fn start(fleet: &'h Fleet, index: usize) -> Self {
        let Slice { network, gateway, first, last } = Slice::of(index);
        let range = serde_json::json!({
            "subnet": network, "rangeStart": first, "rangeEnd": last, "gateway": gateway,
        });
        let network = serde_json::json!({
            "cniVersion": "0.4.0",
            "name": "fan",
            "type": "bridge",
            "bridge": bridge(index),
            "isGateway": false,
            "ipMasq": false,
            "mtu": 1480,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni",
                "ranges": [[range]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        });
        let host = &fleet[index];
        make_image(host);
        Self { host, network: network.to_string(), servers: RefCell::default() }
    }

    #[track_caller]
    fn run(&self, name: &str) -> Running {
        self.host.ip(&format!("netns add {name}"));
        let added = ok(self.plugin("ADD", name));
        let added: serde_json::Value = serde_json::from_str(&added).expect("a plugin answers with JSON");
        let address = added["ips"][0]["address"].as_str().unwrap_or_default();
        let address = address.split('/').next().unwrap_or_default();
        let server = self.host.command("ip").args(["netns", "exec", name, "chroot", IMAGE]).args(SERVER);
        self.servers.borrow_mut().push((name.to_owned(), server.spawn()));
        let netns = self.host.path(&format!("/run/netns/{name}"));
        Running::at(self.host, name, &netns.to_string_lossy(), address)
    }

    #[track_caller]
    fn remove(&self, name: &str) {
        self.servers.borrow_mut().retain(|(server, _)| server != name);
        ok(self.plugin("DEL", name));
        self.host.ip(&format!("netns delete {name}"));
    }
}

impl Drop for Cni<'_> {
    fn drop(&mut self) {
        for (name, _) in self.servers.take() {
            let _ = self.plugin("DEL", &name).run();
        }
    }
}
