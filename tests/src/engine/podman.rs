//! Podman on a host, with netavark.

use super::{Engine, IMAGE, PORT, PUBLISHED, Running, SERVER, Slice, make_image, mark, ok};
use crate::{
    command::Cmd,
    fleet::{Fleet, bridge},
    host::Host,
};

/// The network `fan` of podman, which is the fan's bridge.
pub struct Podman<'h> {
    host: &'h Host,
}

impl Podman<'_> {
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

    #[track_caller]
    fn start_container(&self, name: &str, options: &[&str]) -> Running {
        // Root may be without the right to raise a limit.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        let run = ["run", "-d", "--name", name, "--network", "fan", "-e", &mark()];
        ok(self.command(&run).args(limits).args(options).arg("box").args(SERVER));
        let format = "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let found = ok(self.command(&["inspect", "-f", format, name]));
        let (pid, address) = found.split_once(' ').unwrap_or_else(|| panic!("{name}: {found}"));
        Running::of_process(self.host, name, pid, address)
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
        make_image(host);
        let podman = Self { host };
        ok(podman.command(&["import", &format!("{IMAGE}.tar"), "box"]));
        podman
    }

    #[track_caller]
    fn run(&self, name: &str) -> Running {
        self.start_container(name, &[])
    }

    #[track_caller]
    fn publish(&self, name: &str) -> Running {
        self.start_container(name, &["-p", &format!("{PUBLISHED}:{PORT}")])
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
