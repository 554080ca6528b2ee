//! Podman on a host, with netavark.

use super::{Engine, Running, Slice, command_line::CommandLine, ok};
use crate::{
    command::Cmd,
    fleet::{Fleet, bridge},
    host::Host,
};

/// The network `fan` of podman, which is the fan's bridge.
pub struct Podman<'h> {
    host: &'h Host,
}

impl CommandLine for Podman<'_> {
    const ADDRESS: &'static str = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    // Root may be without the right to raise a limit.
    const OPTIONS: &'static [&'static str] =
        &["--network", "fan", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

    fn host(&self) -> &Host {
        self.host
    }

    fn command(&self, words: &[&str]) -> Cmd {
        let places = [
            ["--root", "/run/podman/data"],
            ["--runroot", "/run/podman/run"],
            ["--tmpdir", "/run/podman/tmp"],
            ["--network-config-dir", "/run/podman/networks"],
            // No systemd is asked for control groups or a journal.
            ["--cgroup-manager", "cgroupfs"],
            ["--events-backend", "file"],
        ];
        self.host.command("podman").args(places.as_flattened()).args(words)
    }
}

impl<'h> Engine<'h> for Podman<'h> {
    const NAME: &'static str = "podman";
    const PROGRAMS: &'static [&'static str] = &["podman", "/usr/lib/podman/netavark", "busybox", "curl"];
    const PUBLISHES: bool = true;

    /// `podman network create` refuses a bridge whose network the host has already: its file is written instead.
    #[track_caller]
    fn start(fleet: &'h Fleet, index: usize) -> Self {
        let host = &fleet[index];
        let Slice { network, gateway, first, last } = Slice::of(index);
        let network = serde_json::json!({
            "name": "fan",
            "id": "fa".repeat(32),
            "driver": "bridge",
            "network_interface": bridge(index),
            "created": "2026-01-01T00:00:00Z",
            "subnets": [{
                "subnet": network,
                "gateway": gateway,
                "lease_range": { "start_ip": first, "end_ip": last },
            }],
            "ipv6_enabled": false,
            "internal": false,
            "dns_enabled": false,
            "options": { "mtu": "1480" },
            "ipam_options": { "driver": "host-local" },
        });
        host.write("/run/podman/networks/fan.json", &network.to_string());
        let podman = Self { host };
        podman.import();
        podman
    }

    #[track_caller]
    fn run(&self, name: &str) -> Running {
        self.start_container(name, &[])
    }

    #[track_caller]
    fn publish(&self, name: &str) -> Running {
        self.start_published(name)
    }

    #[track_caller]
    fn remove(&self, name: &str) {
        ok(self.command(&["rm", "--force", "--time", "0", name]));
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--force", "--time", "0", "--all"]).run();
    }
}
