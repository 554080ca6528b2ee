//! A Docker daemon of a host.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{Engine, LIMIT, Running, Slice, command_line::CommandLine, ok};
use crate::{
    command::{Cmd, Process, eventually},
    fleet::{Fleet, bridge},
    host::Host,
};

const SOCKET: &str = "unix:///run/docker.sock";

/// The daemon, with `-b` on the fan's bridge.
pub struct Docker<'h> {
    host: &'h Host,
    daemon: Process,
}

impl CommandLine for Docker<'_> {
    const ADDRESS: &'static str = "{{.NetworkSettings.IPAddress}}";
    const OPTIONS: &'static [&'static str] = &[];

    fn host(&self) -> &Host {
        self.host
    }

    fn command(&self, words: &[&str]) -> Cmd {
        self.host.command("docker").args(["-H", SOCKET]).args(words)
    }
}

impl<'h> Engine<'h> for Docker<'h> {
    const NAME: &'static str = "Docker";
    const PROGRAMS: &'static [&'static str] = &["dockerd", "docker", "busybox", "curl"];
    const PUBLISHES: bool = true;

    #[track_caller]
    fn start(fleet: &'h Fleet, index: usize) -> Self {
        let host = &fleet[index];
        // Where this machine has settings of Docker's, its host has a link to them.
        host.sh("rm -f /etc/docker");
        let pool = format!("{}/25", Slice::of(index).first);
        let data =
            ["--data-root", "/run/docker-data", "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"];
        // Root may be without the right to raise a limit.
        let limits = ["--default-ulimit", "nofile=1024:1024"];
        let network = ["-b", &bridge(index), "--fixed-cidr", &pool];
        let daemon =
            host.command("dockerd").args(["-H", SOCKET]).args(data).args(limits).args(network).spawn();
        let docker = Self { host, daemon };
        let answers = || docker.command(&["info"]).run().status.success().then_some(());
        eventually("the Docker daemon answers", LIMIT, answers);
        docker.import();
        docker
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
        ok(self.command(&["rm", "--force", name]));
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        // A daemon that is killed leaves its containers and what serves them behind.
        let containers = self.command(&["ps", "-aq"]).run().stdout;
        for container in containers.split_whitespace() {
            let _ = self.command(&["rm", "--force", container]).run();
        }
        if self.daemon.runs() {
            self.daemon.signal(Signal::SIGTERM);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.daemon.runs() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
}
