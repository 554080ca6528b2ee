//! LXC on a host.

use std::cell::RefCell;

use super::{Engine, IMAGE, Running, SERVER, Slice, make_image, mark, ok};
use crate::{
    command::Cmd,
    fleet::{Fleet, bridge},
    host::Host,
};

/// LXC looks for bridges in `/sys`, which must therefore be that of the host's network namespace.
const OWN_SYSFS: &str = "set -e
mkdir -p /run/machine/cgroup /run/machine/bpf
mount --rbind /sys/fs/cgroup /run/machine/cgroup
mount --bind /sys/fs/bpf /run/machine/bpf
mount -t sysfs sysfs /sys
mount --rbind /run/machine/cgroup /sys/fs/cgroup
mount --bind /run/machine/bpf /sys/fs/bpf";

/// Containers by name, each with its own copy of the image.
pub struct Lxc<'h> {
    host: &'h Host,
    index: usize,
    names: RefCell<Vec<String>>,
}

impl Lxc<'_> {
    fn command(&self, task: &str, name: &str) -> Cmd {
        self.host.command(format!("lxc-{task}")).args(["-P", "/run/lxc", "-n", name])
    }
}

impl<'h> Engine<'h> for Lxc<'h> {
    const NAME: &'static str = "LXC";
    const PROGRAMS: &'static [&'static str] = &["lxc-start", "busybox", "curl"];
    const PUBLISHES: bool = false;

    #[track_caller]
    fn start(fleet: &'h Fleet, index: usize) -> Self {
        let host = &fleet[index];
        make_image(host);
        host.command("sh").args(["-c", OWN_SYSFS]).ok();
        Self { host, index, names: RefCell::default() }
    }

    #[track_caller]
    fn run(&self, name: &str) -> Running {
        let Slice { gateway, first, .. } = Slice::of(self.index);
        let octet = first.octets()[3] + self.names.borrow().len() as u8;
        let address = crate::fleet::overlay(self.index, octet);
        let config = format!(
            "lxc.uts.name = {name}\n\
             lxc.rootfs.path = dir:/run/lxc/{name}/rootfs\n\
             lxc.init.cmd = {server}\n\
             lxc.environment = {mark}\n\
             lxc.net.0.type = veth\n\
             lxc.net.0.link = {bridge}\n\
             lxc.net.0.name = eth0\n\
             lxc.net.0.flags = up\n\
             lxc.net.0.mtu = 1480\n\
             lxc.net.0.ipv4.address = {address}/24\n\
             lxc.net.0.ipv4.gateway = {gateway}\n",
            server = SERVER.join(" "),
            mark = mark(),
            bridge = bridge(self.index),
        );
        self.host.write(&format!("/run/lxc/{name}/config"), &config);
        self.host.sh(&format!("cp -a {IMAGE} /run/lxc/{name}/rootfs"));
        self.names.borrow_mut().push(name.to_owned());
        ok(self.command("start", name).arg("--daemon"));
        let pid = ok(self.command("info", name).args(["-p", "-H"]));
        Running::of_process(self.host, name, &pid, &address.to_string())
    }

    #[track_caller]
    fn remove(&self, name: &str) {
        ok(self.command("stop", name).arg("--kill"));
    }
}

impl Drop for Lxc<'_> {
    fn drop(&mut self) {
        for name in self.names.take() {
            let _ = self.command("stop", &name).arg("--kill").run();
        }
    }
}
