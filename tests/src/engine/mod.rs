//! Container engines on a fan's bridge, as their users start them: they know nothing of Fanlight.
//!
//! A container of theirs answers HTTP on port 80 with the name of its host. Images are made of busybox on the spot,
//! and all that an engine keeps lies in the host's own `/run`.

mod cni;
mod command_line;
mod docker;
mod lxc;
mod podman;

use std::{net::Ipv4Addr, time::Duration};

pub use self::{cni::Cni, docker::Docker, lxc::Lxc, podman::Podman};
use crate::{
    command::{Cmd, eventually},
    fleet::{self, Fleet},
    host::Host,
    lab,
    site::Site,
    tools,
};

/// Limit of an engine's command on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The port on which a container answers.
pub const PORT: u16 = 80;

/// The port of its host on which a container of [`Engine::publish`] answers.
pub const PUBLISHED: u16 = 8080;

/// What an engine gives out of a host's slice: the upper half, beside endpoints and leases in the lower one.
const POOL: (u8, u8) = (128, 254);

/// A kind of container engine.
pub trait Engine<'h>: Sized {
    /// What it is called.
    const NAME: &'static str;
    /// Programs that it needs.
    const PROGRAMS: &'static [&'static str];
    /// Whether it publishes ports of containers.
    const PUBLISHES: bool;

    /// Starts it on one of the fleet's hosts.
    fn start(fleet: &'h Fleet, host: usize) -> Self;

    /// Starts a container.
    fn run(&self, name: &str) -> Running;

    /// Starts a container that answers on [`PUBLISHED`] of its host, too.
    fn publish(&self, name: &str) -> Running {
        panic!("{} publishes no port of {name}", Self::NAME)
    }

    /// Ends a container.
    fn remove(&self, name: &str);
}

/// Whether an engine is on this machine; see [`tools::available`].
#[track_caller]
pub fn available<'h, E: Engine<'h>>() -> bool {
    tools::available(E::PROGRAMS)
}

/// A container that runs.
pub struct Running {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its network namespace, with its host's files and programs.
    pub site: Site,
}

impl Running {
    #[track_caller]
    fn of_process(host: &Host, name: &str, pid: &str, address: &str) -> Self {
        Self::at(host, name, &format!("/proc/{pid}/ns/net"), address)
    }

    #[track_caller]
    fn at(host: &Host, name: &str, netns: &str, address: &str) -> Self {
        let address = address.parse().unwrap_or_else(|_| panic!("{name} has no address but {address:?}"));
        Self { address, site: Site::at(&format!("{}/{name}", host.name()), netns, host) }
    }
}

/// What answers on a port, read over HTTP; none when nothing does.
pub fn page(from: &Site, address: Ipv4Addr, port: u16) -> Option<String> {
    let url = format!("http://{address}:{port}/");
    let output = from.command("curl").args(["-s", "--max-time", "5", &url]).run();
    output.status.success().then(|| output.stdout.trim_end().to_owned())
}

/// Waits until a host's container answers on a port with its host's name.
#[track_caller]
pub fn assert_answers(from: &Site, address: Ipv4Addr, port: u16, host: &Host) {
    let what = format!("{} reads {} from {address}:{port}", from.name(), host.name());
    // A server takes a moment to listen.
    eventually(&what, Duration::from_secs(10), || {
        (page(from, address, port).as_deref() == Some(host.name())).then_some(())
    });
}

/// Where a host keeps the files of all images.
const IMAGE: &str = "/run/image";

/// What a container runs. The first word is the only program of the image.
const SERVER: [&str; 6] = ["/bin/busybox", "httpd", "-f", "-h", "/www", "-p80"];

/// Makes the files of an image: busybox, and a page with the host's name.
#[track_caller]
fn make_image(host: &Host) {
    host.write(&format!("{IMAGE}/www/index.html"), host.name());
    let script = format!(
        "cd {IMAGE} && mkdir -p bin dev etc proc sys tmp && cp $(command -v busybox) bin/ && tar -c . >{IMAGE}.tar"
    );
    host.command("sh").args(["-c", &script]).ok();
}

/// The mark of this run for a container's own environment: what a killed run leaves is found by it.
fn mark() -> String {
    format!("{}={}", lab::MARK, lab::mark())
}

/// The addresses of a host's slice: network with length, gateway, first and last of the pool.
struct Slice {
    network: String,
    gateway: Ipv4Addr,
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl Slice {
    fn of(host: usize) -> Self {
        Self {
            network: format!("{}/24", fleet::overlay(host, 0)),
            gateway: fleet::overlay(host, 1),
            first: fleet::overlay(host, POOL.0),
            last: fleet::overlay(host, POOL.1),
        }
    }
}

/// A command that must succeed within an engine's time.
#[track_caller]
fn ok(command: Cmd) -> String {
    command.limit(LIMIT).ok()
}
