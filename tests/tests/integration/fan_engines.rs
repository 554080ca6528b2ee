//! Container engines on the fan's bridge: they know nothing of Fanlight, and it is told nothing of theirs.

use std::time::Duration;

use fanlight_tests::{
    Host, Process, eventually,
    fleet::{Fleet, bridge, overlay},
    load::assert_reaches,
    tools,
};
use nix::sys::signal::Signal;

/// A Docker daemon of a host, on the fan's bridge.
struct Docker<'h> {
    host: &'h Host,
    daemon: Option<Process>,
}

impl<'h> Docker<'h> {
    const SOCKET: &'static str = "unix:///run/docker.sock";

    #[track_caller]
    fn start(host: &'h Host, bridge: &str, slice: &str) -> Self {
        let data =
            ["--data-root", "/run/docker-data", "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"];
        let network = ["-b", bridge, "--fixed-cidr", slice, "--default-ulimit", "nofile=1024:1024"];
        let daemon = host.command("dockerd").args(["-H", Self::SOCKET]).args(data).args(network).spawn();
        let docker = Self { host, daemon: Some(daemon) };
        let answers = || docker.command(&["info"]).run().status.success().then_some(());
        eventually("the Docker daemon answers", Duration::from_secs(30), answers);
        docker
    }

    fn command(&self, words: &[&str]) -> fanlight_tests::Cmd {
        self.host.command("docker").args(["-H", Self::SOCKET]).args(words).limit(Duration::from_secs(60))
    }

    /// An image of busybox and nothing else.
    #[track_caller]
    fn import_busybox(&self) {
        let script = "mkdir -p /run/image/bin && cp $(command -v busybox) /run/image/bin/ && \
                      tar -C /run/image -c . | docker -H unix:///run/docker.sock import - box";
        self.host.command("sh").args(["-c", script]).ok();
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        // A daemon that is killed leaves its containers and its own helpers behind.
        let _ = self.command(&["rm", "--force", "one"]).run();
        if let Some(daemon) = self.daemon.take() {
            daemon.signal(Signal::SIGTERM);
            daemon.finish(Duration::from_secs(20));
        }
    }
}

#[test]
fn docker_containers_on_the_bridge_are_served_without_and_with_an_agent() {
    if !tools::has("dockerd") || !tools::has("docker") || !tools::has("busybox") {
        println!("skipped: no Docker daemon on this machine");
        return;
    }
    let fleet = Fleet::up(2);
    let remote = fleet.endpoint(1, 2);
    let docker = Docker::start(&fleet[0], &bridge(0), "250.0.27.128/25");
    docker.import_busybox();
    let run = ["run", "-d", "--name", "one", "--mac-address", "02:42:fa:00:1b:80"];
    docker.command(&run).args(["box", "/bin/busybox", "sleep", "1000"]).ok();
    let format = "{{.NetworkSettings.IPAddress}}";
    let address = docker.command(&["inspect", "-f", format, "one"]).ok();
    let ping =
        |to: &str| docker.command(&["exec", "one", "/bin/busybox", "ping", "-c", "2", "-W", "2", to]).ok();
    let address = address.parse().expect("the container has an address");
    for with_agent in [false, true] {
        let _agent = with_agent.then(|| fleet[0].agent());
        ping(&overlay(1, 2).to_string());
        ping(&overlay(1, 1).to_string());
        assert_reaches(&remote, address);
        assert_reaches(&fleet[0], address);
    }
}
