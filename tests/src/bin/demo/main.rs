//! `cargo xtask demo`: a small fleet in namespaces, shown at work line by line.

mod death;
mod narrator;
mod vip;

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use fanlight_tests::{
    Agent, Container, Host, Router, Site, Switch,
    cluster::{JOINED, are_members, configure, seed},
    fleet::{Fleet, OVERLAY, overlay, underlay},
    host, lab,
    load::{IperfServer, Ping},
};

use crate::narrator::Narrator;

const HOSTS: usize = 3;
const ROUTER: &str = "172.30.0.1";
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Last octets of the containers' addresses on every host.
const CONTAINERS: [u8; 2] = [2, 3];

/// Three hosts on one wire, two containers on each, a client outside behind a router.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Leave the fleet running, to look around in
    #[arg(long)]
    keep: bool,
    /// Remove fleets that were left running, and do nothing else
    #[arg(long, conflicts_with = "keep")]
    clean: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let narrator = Narrator::new();
    if arguments.clean {
        let ended = lab::clean();
        println!("{ended} processes of kept fleets ended; their namespaces are gone with them.");
        return ExitCode::SUCCESS;
    }
    if arguments.keep {
        lab::keep();
    }
    panic::set_hook(Box::new(|_| ()));
    let Err(panicked) = panic::catch_unwind(AssertUnwindSafe(|| demo(&narrator, arguments.keep))) else {
        return ExitCode::SUCCESS;
    };
    let text = panicked.downcast_ref::<String>().map(String::as_str);
    let why = text.or_else(|| panicked.downcast_ref::<&str>().copied()).unwrap_or("it failed");
    eprintln!("\ndemo: {why}");
    ExitCode::FAILURE
}

fn demo(narrator: &Narrator, keep: bool) {
    let start = Instant::now();
    narrator.title("Fanlight: container addresses that compute their host");
    let (fleet, outside) = build(narrator);
    let agents = start_agents(narrator, &fleet);
    let containers = add_containers(narrator, &fleet);
    show_ping(narrator, &containers);
    show_way(narrator, &containers[0]);
    show_stream(narrator, &containers);
    show_outside(narrator, &containers[0]);
    let mut agents = show_restart(narrator, &fleet, &containers, agents);
    let service = vip::show(narrator, &fleet, &containers);
    let server = death::show(narrator, (&fleet, vip::VIP), &containers, &mut agents);
    show_counters(narrator, &fleet);
    if keep {
        explain_kept(narrator, &fleet, &outside);
        return;
    }
    narrator.step("Cleaning up");
    drop((service, server, agents, containers));
    drop((fleet, outside));
    assert!(lab::left().is_empty(), "processes are left: {:?}", lab::left());
    narrator.line(&format!(
        "Every process, namespace, link and pin is gone. {} s in all.",
        start.elapsed().as_secs()
    ));
}

/// What lies beyond the hosts' wire.
struct Outside {
    client: Site,
    router: Router,
    switch: Switch,
}

fn build(narrator: &Narrator) -> (Fleet, Outside) {
    narrator.step("Three hosts on one wire, and a client outside behind a router");
    let fleet = Fleet::bare(HOSTS);
    let outside = Outside {
        client: Site::bare("client"),
        router: Router::new("router"),
        switch: Switch::new("outside"),
    };
    fleet.switch.join(&outside.router, "eth0", &format!("{ROUTER}/16"));
    outside.switch.join(&outside.router, "eth1", "192.0.2.1/24");
    outside.switch.join(&outside.client, "eth0", &format!("{CLIENT}/24"));
    outside.client.ip("route add default via 192.0.2.1");
    for (index, host) in fleet.hosts().iter().enumerate() {
        host.ip(&format!("route add default via {ROUTER}"));
        let (name, address, slice) = (host.name(), underlay(index), overlay(index, 0));
        narrator.line(&format!("{name:<9} {address:<12} owns {slice}/24, computed from its address alone"));
    }
    narrator.line(&format!("{:<9} {CLIENT}", outside.client.name()));
    (fleet, outside)
}

fn start_agents(narrator: &Narrator, fleet: &Fleet) -> Vec<Agent> {
    narrator.step("An agent on every host; they find each other");
    narrator.note("/etc/fanlight/fanlight.toml has [[fan]] with overlay = \"250.0.0.0/8\", and [cluster] with name, keys,");
    narrator.note(&format!("and join = [\"{}\"]", seed(0)));
    let start = |host: &Host| {
        configure(host, "demo", &[seed(0)], &format!("[[fan]]\noverlay = \"{OVERLAY}\"\n"));
        let start = Instant::now();
        let agent = host.agent();
        narrator.line(&format!("{:<9} ready after {} ms", host.name(), start.elapsed().as_millis()));
        agent
    };
    let agents = fleet.hosts().iter().map(start).collect();
    let last = Instant::now();
    are_members(fleet, &[0, 1, 2], JOINED);
    narrator.line(&format!(
        "members of each other {} ms after the last one is ready",
        last.elapsed().as_millis()
    ));
    agents
}

fn add_containers<'f>(narrator: &Narrator, fleet: &'f Fleet) -> Vec<Container<'f>> {
    narrator.step("Two containers on every host");
    narrator.note("fanlight endpoint add --netns NAME");
    let mut containers = Vec::new();
    for (index, host) in fleet.hosts().iter().enumerate() {
        for octet in CONTAINERS {
            let container = fleet.endpoint(index, octet);
            narrator.line(&format!("{:<9} {:<4} {}", host.name(), container.netns(), overlay(index, octet)));
            containers.push(container);
        }
    }
    containers
}

fn show_ping(narrator: &Narrator, containers: &[Container<'_>]) {
    let (from, to) = (&containers[0], overlay(1, 2));
    narrator.step(&format!("A ping across the fan: {} to {to}", from.name()));
    from.command("ping").args(["-c", "5", "-i", "0.3", &to.to_string()]).show(|line| narrator.quote(line));
    for (from, host) in [(&containers[0], 2), (&containers[5], 0)] {
        let to = overlay(host, 3);
        let ping = from.command("ping").args(["-q", "-c", "20", "-i", "0.02", &to.to_string()]).ok();
        let summary = ping.lines().find(|line| line.contains("transmitted")).unwrap_or_default();
        narrator.line(&format!("{} to {to}: {summary}", from.name()));
    }
}

fn show_way(narrator: &Narrator, from: &Site) {
    narrator.step("The way there: the own gateway, then the container");
    let to = overlay(2, 2).to_string();
    let shown = from.command("traceroute").args(["-n", "-I", "-q", "1", "-w", "2", &to]).ok();
    shown.lines().skip(1).for_each(|line| narrator.quote(line.trim()));
}

fn show_stream(narrator: &Narrator, containers: &[Container<'_>]) {
    let (from, to) = (&containers[0], &containers[2]);
    narrator.step(&format!("A TCP stream across the fan: {} to {}", from.name(), to.name()));
    let _server = IperfServer::start(to);
    let address = overlay(1, 2).to_string();
    let stream =
        from.command("iperf3").args(["-c", &address, "-t", "4", "-i", "1", "-f", "g", "--forceflush"]);
    stream.show(|line| {
        // Columns: [ID] Interval Transfer Bitrate; the last rows are the sender's and the receiver's sums.
        let words: Vec<_> = line.split_once(']').map_or(line, |(_, row)| row).split_whitespace().collect();
        let [interval, "sec", _, _, rate, "Gbits/sec", ..] = words[..] else { return };
        match words.last() {
            Some(&"sender") => (),
            Some(&"receiver") => narrator.line(&format!("{interval:>11} s {rate:>6} Gbit/s arrived in all")),
            _ => narrator.line(&format!("{interval:>11} s {rate:>6} Gbit/s")),
        }
    });
}

fn show_outside(narrator: &Narrator, from: &Site) {
    narrator.step(&format!("Out of the overlay: {} to the client, with the host's address", from.name()));
    let ping = from.command("ping").args(["-c", "3", "-i", "0.3", &CLIENT.to_string()]);
    ping.show(|line| narrator.quote(line));
}

fn show_restart(
    narrator: &Narrator,
    fleet: &Fleet,
    containers: &[Container<'_>],
    agents: Vec<Agent>,
) -> Vec<Agent> {
    narrator.step("kill -9 of every agent during 200 pings a second");
    let ping = Ping::start_counted(&containers[1], overlay(1, 3), 200, 800);
    thread::sleep(Duration::from_millis(800));
    for agent in agents {
        agent.kill9();
    }
    narrator.line("The agents are dead. The programs stay in the kernel.");
    thread::sleep(Duration::from_millis(1200));
    let agents = fleet.hosts().iter().map(Host::agent).collect();
    are_members(fleet, &[0, 1, 2], JOINED);
    narrator.line("The agents run again, and have found each other.");
    let pinged = ping.finish();
    narrator.line(&format!("{} pings sent, {} lost.", pinged.sent, pinged.lost()));
    agents
}

fn show_counters(narrator: &Narrator, fleet: &Fleet) {
    narrator.step("Packets by outcome, from `fanlight status` on each host");
    let statuses: Vec<_> = fleet.hosts().iter().map(|host| host.json("status")["outcomes"].clone()).collect();
    let cells = |cells: Vec<String>| cells.iter().map(|cell| format!("{cell:>11}")).collect::<String>();
    let heading = cells(fleet.hosts().iter().map(|host| host.name().to_owned()).collect());
    narrator.note(&format!("{:<24}{heading}", ""));
    let names =
        statuses.iter().filter_map(|outcomes| outcomes.as_object()).flat_map(|outcomes| outcomes.keys());
    for name in names.collect::<BTreeSet<_>>() {
        let packets = statuses.iter().map(|outcomes| outcomes[name].as_u64().unwrap_or_default());
        let packets: Vec<_> = packets.map(|packets| packets.to_string()).collect();
        if packets.iter().any(|packets| packets != "0") {
            narrator.line(&format!("{name:<24}{}", cells(packets)));
        }
    }
}

fn explain_kept(narrator: &Narrator, fleet: &Fleet, outside: &Outside) {
    narrator.step("The fleet stays. A shell on each of its members:");
    for host in fleet.hosts() {
        narrator.line(&format!("{:<11} nsenter -t {} -n -m -u bash", host.name(), host.holder()));
    }
    for site in [&outside.client, &*outside.router, &*outside.switch, &*fleet.switch] {
        narrator.line(&format!("{:<11} nsenter -t {} -n bash", site.name(), site.holder()));
    }
    let (name, pid) = (fleet[0].name(), fleet[0].holder());
    narrator.line(&format!("{:<11} nsenter -t {pid} -n -m -u ip netns exec c2 bash", format!("{name}/c2")));
    narrator.line("");
    narrator.line(&format!("On a host:   {} status", host::binary().display()));
    narrator.line("Remove all:  cargo xtask demo --clean");
}
