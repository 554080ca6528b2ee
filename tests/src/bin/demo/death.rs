//! A host that dies under load, and comes back.

use std::{
    net::SocketAddrV4,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use crate::narrator::Narrator;
use fanlight_tests::{
    Agent, Container, Host,
    cluster::{JOINED, are_members, served, up},
    command::End,
    eventually,
    fleet::{Fleet, overlay},
    http::Paced,
    nginx::Nginx,
    services::service,
};

/// Clients at a time.
const CLIENTS: usize = 4;
/// Longer than it may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The host that dies.
const VICTIM: usize = 2;

/// Shows it, with a service over a container on each host. The first container of all is the client; the agent of the host
/// that dies is the last one. The server on it lives as long as what is given back.
pub(crate) fn show(
    narrator: &Narrator,
    (fleet, vip): (&Fleet, SocketAddrV4),
    containers: &[Container<'_>],
    agents: &mut Vec<Agent>,
) -> Nginx {
    let victim = &fleet[VICTIM];
    narrator.step(&format!("{} dies: its agent is killed, its wire is cut", victim.name()));
    let server = Nginx::start(victim, &containers[2 * VICTIM], "again");
    let backends = [overlay(0, 3), overlay(1, 3), overlay(VICTIM, 2)].map(|address| format!("{address}:80"));
    fleet[0]
        .fanlight(["service", "apply", "-f", "-"])
        .input(service("web", format!("{vip}/tcp"), &backends))
        .ok();
    let await_all = |number| fleet.hosts().iter().take(VICTIM).for_each(|host| await_up(host, number));
    await_all(3);
    let is_over = AtomicBool::new(false);
    let (out, paced) = thread::scope(|scope| {
        let end = End(&is_over);
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| Paced::run(&containers[0], vip, &is_over))).collect();
        thread::sleep(Duration::from_secs(1));
        let killed = Instant::now();
        fleet.switch.ip(&format!("link set p-{}-eth0 down", victim.name()));
        agents.pop().expect("an agent on each host").kill9();
        await_all(2);
        let out = killed.elapsed();
        thread::sleep(Duration::from_secs(2));
        drop(end);
        let paced = clients.into_iter().map(|client| client.join().expect("a client does not panic"));
        (out, paced.collect::<Vec<_>>())
    });
    narrator.line(&format!("out of every ring after {} ms", out.as_millis()));
    let answered: u64 = paced.iter().map(|paced| paced.answered).sum();
    let failed: usize = paced.iter().map(|paced| paced.failed.len()).sum();
    let longest = paced.iter().map(|paced| paced.longest).max().unwrap_or_default();
    narrator.line(&format!(
        "{CLIENTS} clients: {answered} requests answered, {failed} connections failed; the longest took {} ms",
        longest.as_millis()
    ));
    narrator.note("fanlight node list");
    fleet[0].run("node list").lines().for_each(|line| narrator.quote(line));
    fleet.switch.ip(&format!("link set p-{}-eth0 up", victim.name()));
    agents.push(victim.agent());
    are_members(fleet, &[0, 1, 2], JOINED);
    await_all(3);
    narrator.line(&format!("{} is back, and its backend in every ring.", victim.name()));
    server
}

/// Waits until so many backends of the service take new flows on a host.
pub(crate) fn await_up(host: &Host, number: usize) {
    let is_so = || (up(&served(host, "web")?) == number).then_some(());
    eventually("the service is served", LIMIT, is_so);
}
