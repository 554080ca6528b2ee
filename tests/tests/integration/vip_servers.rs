//! Real servers behind VIPs, and real clients of them: in a container, on the host, in a container of another host.

//@ guest

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use fanlight_tests::{
    Agent, Container, Site,
    command::eventually,
    fleet::{Fleet, overlay},
    load::{Iperf, IperfServer},
    nginx::{LARGE, Nginx},
    services::{configure, service},
    tools::available,
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// Two hosts with a container for clients and one for servers on each, and an agent that knows the services: protocol,
/// port, and the hosts of their backends.
struct Scene<'f> {
    backends: Vec<Container<'f>>,
    clients: Vec<Container<'f>>,
    host: &'f Site,
    _agents: Vec<Agent>,
}

impl<'f> Scene<'f> {
    fn new(fleet: &'f Fleet, services: &[(&str, u16, &[usize])]) -> Self {
        let table = |(protocol, port, hosts): &(&str, u16, &[usize])| {
            let backends: Vec<_> = hosts.iter().map(|&host| format!("{}:{port}", overlay(host, 9))).collect();
            service(&format!("{protocol}-{port}"), format!("{VIP}:{port}/{protocol}"), &backends)
        };
        let tables: Vec<_> = services.iter().map(table).collect();
        let agents = fleet.hosts().iter().map(|host| {
            configure(host, &tables);
            host.agent()
        });
        Self {
            _agents: agents.collect(),
            backends: vec![fleet.endpoint(0, 9), fleet.endpoint(1, 9)],
            clients: vec![fleet.endpoint(0, 5), fleet.endpoint(1, 5)],
            host: &fleet[0],
        }
    }

    /// A container, the host, a container of another host.
    fn everyone(&self) -> [&Site; 3] {
        [&self.clients[0], self.host, &self.clients[1]]
    }
}

#[test]
fn nginx_behind_a_vip_serves_curl_from_everywhere() {
    if !available(&["nginx", "curl"]) {
        return;
    }
    let fleet = Fleet::up(2);
    let scene = Scene::new(&fleet, &[("tcp", 80, &[0, 1])]);
    let servers = fleet.hosts().iter().zip(&scene.backends).zip(["b0", "b1"]);
    let servers: Vec<_> = servers.map(|((host, site), name)| Nginx::start(host, site, name)).collect();
    let names = format!("http://{VIP}/name");
    for site in scene.everyone() {
        let met: BTreeSet<_> = (0..20)
            .map(|_| site.command("curl").args(["-sS", "--fail", "--max-time", "5", &names]).ok())
            .collect();
        assert_eq!(met, BTreeSet::from(["b0".to_owned(), "b1".to_owned()]), "{}", site.name());
        let large = format!("http://{VIP}/large");
        let size = ["-sS", "--fail", "--max-time", "20", "-o", "/dev/null", "-w", "%{size_download}", &large];
        assert_eq!(site.command("curl").args(size).ok(), LARGE.to_string(), "{}", site.name());
    }
    assert_eq!(servers.iter().map(Nginx::answered).sum::<usize>(), 3 * (20 + 1));
}

#[test]
fn iperf3_fills_a_vip_from_everywhere_both_ways_by_tcp_and_udp() {
    if !available(&["iperf3"]) {
        return;
    }
    let fleet = Fleet::up(2);
    // Its control connection and its streams have to meet one server.
    let scene = Scene::new(&fleet, &[("tcp", 5201, &[1]), ("udp", 5201, &[1])]);
    let _server = IperfServer::start(&scene.backends[1]);
    for site in scene.everyone() {
        for options in [&["-n", "16M"] as &[_], &["-n", "16M", "-R"], &["-u", "-b", "50M", "-t", "1"]] {
            let run = Iperf::run(site, VIP, options);
            assert!(run.bits_per_second() > 1e6, "{}: {options:?}: {run:?}", site.name());
        }
    }
}

#[test]
fn a_name_server_behind_a_vip_answers_everyone() {
    if !available(&["dnsmasq", "busybox"]) {
        return;
    }
    let fleet = Fleet::up(2);
    let scene = Scene::new(&fleet, &[("udp", 53, &[0, 1])]);
    let options = ["--no-daemon", "--no-hosts", "--no-resolv", "--conf-file=/dev/null", "--user=root"];
    let servers = scene.backends.iter().zip(["192.0.2.1", "192.0.2.2"]);
    let _servers: Vec<_> = servers
        .map(|(site, answer)| {
            let name = format!("--address=/backend.example/{answer}");
            site.command("dnsmasq").args(options).arg(name).arg("--pid-file=").spawn()
        })
        .collect();
    for site in scene.everyone() {
        let mut met = BTreeSet::new();
        eventually("answers of both", Duration::from_secs(10), || {
            let asked = ["nslookup", "-type=a", "backend.example", &VIP.to_string()];
            let output = site.command("busybox").args(asked).run();
            let answers = ["192.0.2.1", "192.0.2.2"].into_iter();
            met.extend(answers.filter(|answer| output.stdout.contains(answer)));
            (met.len() == 2).then_some(())
        });
    }
}
