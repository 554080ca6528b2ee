//! A VIP over backends on three hosts, under load while the backends change.

use std::{
    net::SocketAddrV4,
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{
    Container, Host,
    fleet::{Fleet, overlay},
    http::HttpLoad,
    nginx::Nginx,
    services::weighted,
};

use crate::{death::await_up, narrator::Narrator};

pub(crate) const VIP: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(10, 96, 0, 10), 80);
/// Clients of the load generator: as many requests are on their way at any time.
const CLIENTS: u32 = 4;
/// Length of one run of it.
const SECONDS: u32 = 3;

/// A server, with its address as the service names it.
struct Backend {
    address: String,
    server: Nginx,
}

/// The servers, which live as long as this value.
pub(crate) struct Shown {
    _backends: Vec<Backend>,
}

/// Shows it. Containers come in pairs, one pair a host; the first one of all is the client.
pub(crate) fn show(narrator: &Narrator, fleet: &Fleet, containers: &[Container<'_>]) -> Shown {
    narrator.step(&format!("A VIP, {VIP}, over nginx in a container on each of the three hosts"));
    let client = &containers[0];
    let begin = |host: usize, place: usize| {
        let container = &containers[2 * host + place];
        let name = format!("{}-{}", fleet[host].name(), container.netns());
        Backend {
            address: format!("{}:80", overlay(host, 2 + place as u8)),
            server: Nginx::start(&fleet[host], container, &name),
        }
    };
    let mut backends: Vec<_> = (0..fleet.hosts().len()).map(|host| begin(host, 1)).collect();
    let node = &fleet[0];
    narrator.note(&format!("on {} alone: fanlight service apply -f -", node.name()));
    let start = Instant::now();
    apply(narrator, node, &backends, |_| 1);
    fleet.hosts().iter().for_each(|host| await_up(host, backends.len()));
    narrator.line(&format!(
        "served on every host {} ms after the command was given",
        start.elapsed().as_millis()
    ));
    let stage = Stage { narrator, client };
    stage.undisturbed("three backends of equal weight", &backends, || ());

    let drained = &backends[1].address;
    stage.undisturbed(&format!("service drain web {drained}"), &backends, || {
        node.run(&format!("service drain web {drained}"));
    });
    stage.undisturbed(&format!("service undrain web {drained}"), &backends, || {
        node.run(&format!("service undrain web {drained}"));
    });
    stage.undisturbed("service apply: the first backend gets weight 4", &backends, || {
        apply(narrator, node, &backends, |place| if place == 0 { 4 } else { 1 });
    });
    backends.push(begin(1, 0));
    stage.undisturbed("service apply: a fourth backend, all of weight 1", &backends, || {
        apply(narrator, node, &backends, |_| 1);
    });

    let dying = backends.remove(2);
    let failed =
        stage.watch("service apply without the third backend, then SIGKILL of its nginx", &backends, || {
            apply(narrator, node, &backends, |_| 1);
            dying.server.kill();
        });
    narrator.line(&format!("At most the {CLIENTS} requests then on their way can fail: {failed} did."));
    assert!(failed <= u64::from(CLIENTS), "{failed} requests failed");
    narrator.note("fanlight service list");
    node.run("service list").lines().for_each(|line| narrator.quote(line));
    Shown { _backends: backends }
}

/// Gives the agent of the client's host the service, over these backends.
fn apply(narrator: &Narrator, node: &Host, backends: &[Backend], weight: impl Fn(usize) -> u32) {
    let listed = backends.iter().enumerate();
    let listed: Vec<_> =
        listed.map(|(place, backend)| (backend.address.to_string(), weight(place))).collect();
    let service = weighted("web", format!("{VIP}/tcp"), &listed);
    let answer = node.fanlight(["service", "apply", "-f", "-"]).input(service).ok();
    answer.lines().for_each(|line| narrator.quote(line));
}

/// Where requests come from and what became of them is told.
struct Stage<'a> {
    narrator: &'a Narrator,
    client: &'a Container<'a>,
}

impl Stage<'_> {
    /// [`Self::watch`], and no request may fail.
    fn undisturbed(&self, what: &str, backends: &[Backend], change: impl FnOnce()) {
        let failed = self.watch(what, backends, change);
        assert_eq!(failed, 0, "requests failed");
    }

    /// Runs the load generator, changes something in the middle of its run, and tells who answered since the change.
    /// How many requests failed.
    fn watch(&self, what: &str, backends: &[Backend], change: impl FnOnce()) -> u64 {
        self.narrator.line(what);
        let load = HttpLoad::start(self.client, VIP, CLIENTS, SECONDS);
        thread::sleep(Duration::from_secs(1));
        change();
        // Connections that were under way at the change still count for the backend they have.
        thread::sleep(Duration::from_millis(100));
        let before: Vec<_> = backends.iter().map(|backend| backend.server.answered()).collect();
        let requested = load.finish();
        let after = backends.iter().zip(before);
        let shares = after.map(|(backend, before)| backend.server.answered() - before).collect::<Vec<_>>();
        let all = shares.iter().sum::<usize>().max(1);
        let shares = backends.iter().zip(&shares);
        let shares = shares.map(|(backend, &share)| format!("{} {} %", backend.address, 100 * share / all));
        self.narrator.line(&format!("  {}", shares.collect::<Vec<_>>().join("   ")));
        let (answered, failed) = (requested.answered, requested.failed);
        self.narrator.line(&format!("  {answered} requests answered, {failed} failed"));
        failed
    }
}
