//! Beside the host's own connection tracking: what it translates is answered through it, whoever wrote the rules.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use fanlight_tests::{
    Host, Site, eventually,
    fleet::{Fleet, overlay, underlay},
    load::{assert_reaches, ping},
    server::{Greeted, Named, ask},
    services::{configure, service},
};

const SOON: Duration = Duration::from_secs(10);
/// A virtual address of somebody else's.
const CLUSTER: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 11);

/// Translates a destination, with or without a port, in the forms of kube-proxy and container engines.
fn translate(host: &Host, what: &str, to: &str) {
    let chain = |hook, priority| {
        format!("chain {hook} {{ type nat hook {hook} priority {priority}; {what} dnat to {to}; }}\n")
    };
    let table = format!("table ip site {{\n{}{}}}\n", chain("prerouting", -100), chain("output", -100));
    host.command("nft").args(["-f", "-"]).input(table).ok();
}

/// A connection and datagrams are answered, and by whom they were sent to.
#[track_caller]
fn assert_served(from: &Site, to: SocketAddrV4, name: &str) {
    let greeted = Greeted::connect(from, to);
    let mut greeted = greeted.unwrap_or_else(|error| panic!("{} to {to}: {error}", from.name()));
    assert_eq!(greeted.name, name);
    assert_eq!(greeted.stream().peer_addr().expect("a peer"), SocketAddr::V4(to));
    for _ in 0..16 {
        greeted.echo(&[7; 1 << 16]).unwrap_or_else(|error| panic!("1 MB of {}: {error}", from.name()));
    }
    let (told, _) = ask(from, to).unwrap_or_else(|error| panic!("{} asks {to}: {error}", from.name()));
    assert_eq!(told, name);
}

const PUBLISHED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(250, 0, 27, 1), 8080);
const BOTH: &str = "meta l4proto { tcp, udp } th dport 8080";

//@ guest: 6.1, 6.12
#[test]
fn a_port_published_at_the_gateways_address_answers_containers_and_hosts_of_others() {
    for with_agent in [false, true] {
        let fleet = Fleet::up(2);
        let server = if with_agent { fleet.endpoint(0, 5) } else { fleet.port(0, 5) };
        let _server = Named::start(&server, "published", overlay(0, 5), 80);
        let client = fleet.endpoint(1, 6);
        let _agents = with_agent.then(|| [fleet[0].agent(), fleet[1].agent()]);
        translate(&fleet[0], &format!("ip daddr 250.0.27.1 {BOTH}"), "250.0.27.5:80");
        for from in [&*client, &*fleet[1]] {
            assert_served(from, PUBLISHED, "published");
            // Straight to the same port goes past the stack as ever.
            assert_served(from, SocketAddrV4::new(overlay(0, 5), 80), "published");
        }
        let greeted = Greeted::connect(&client, PUBLISHED).expect("it answers");
        assert_eq!(greeted.seen_as.ip(), overlay(1, 6), "its client is seen as it is");
        Greeted::connect(&fleet[0], PUBLISHED).expect("it answers its own host");
        let counted = fleet[0].counters();
        assert!(counted.total("pass-tracked") > 0 && counted.total("pass-translated") > 0, "{counted:?}");
    }
}

#[test]
fn answers_in_fragments_go_the_same_way() {
    let fleet = Fleet::up(2);
    let (server, client) = (fleet.endpoint(0, 5), fleet.endpoint(1, 6));
    translate(&fleet[0], "ip daddr 250.0.27.1 icmp type echo-request", "250.0.27.5");
    for size in ["56", "1452", "4000"] {
        let pinged = ping(&client, overlay(0, 1), 2, &["-s", size, "-i", "0.2"]);
        assert_eq!(pinged.lost(), 0, "{size} bytes");
    }
    drop(server);
}

//@ guest: 6.1, 6.12
#[test]
fn a_virtual_address_of_others_answers_containers_and_processes_whose_backend_is_elsewhere() {
    for with_agent in [false, true] {
        let fleet = Fleet::up(2);
        let (client, server) = (fleet.endpoint(0, 6), fleet.endpoint(1, 5));
        let _server = Named::start(&server, "remote", overlay(1, 5), 80);
        let _agents = with_agent.then(|| [fleet[0].agent(), fleet[1].agent()]);
        fleet[0].ip("route add default dev eth0");
        translate(&fleet[0], &format!("ip daddr {CLUSTER} {BOTH}"), "250.0.28.5:80");
        let to = SocketAddrV4::new(CLUSTER, 8080);
        assert_served(&client, to, "remote");
        assert_served(&fleet[0], to, "remote");
        assert_served(&client, SocketAddrV4::new(overlay(1, 5), 80), "remote");
        assert_reaches(&client, overlay(1, 5));
        let greeted = Greeted::connect(&client, to).expect("it answers");
        assert_eq!(greeted.seen_as.ip(), overlay(0, 6), "its client is seen as it is");
        assert!(fleet[0].counters().of("uplink-ingress", "decapsulated-tracked") > 0);
    }
}

#[test]
fn a_virtual_address_of_others_answers_containers_on_the_bridge_of_its_backend() {
    let fleet = Fleet::up(1);
    let (client, server) = (fleet.endpoint(0, 6), fleet.endpoint(0, 5));
    let _server = Named::start(&server, "local", overlay(0, 5), 80);
    fleet[0].ip("route add default dev eth0");
    translate(&fleet[0], &format!("ip daddr {CLUSTER} {BOTH}"), "250.0.27.5:80");
    for shown_to_iptables in ["0", "1"] {
        fleet[0].sysctl("net.bridge.bridge-nf-call-iptables", shown_to_iptables);
        assert_served(&client, SocketAddrV4::new(CLUSTER, 8080), "local");
        assert_served(&fleet[0], SocketAddrV4::new(CLUSTER, 8080), "local");
    }
}

//@ guest: 6.1, 6.12
#[test]
fn a_backend_that_is_a_published_port_of_its_own_node_answers() {
    for backend in [overlay(0, 1), underlay(0)] {
        let fleet = Fleet::up(1);
        let (client, server) = (fleet.endpoint(0, 6), fleet.endpoint(0, 5));
        let _server = Named::start(&server, "published", overlay(0, 5), 80);
        translate(&fleet[0], &format!("ip daddr {backend} {BOTH}"), "250.0.27.5:80");
        let backends = [format!("{backend}:8080")];
        let services =
            ["tcp", "udp"].map(|protocol| service(protocol, format!("10.96.0.10:80/{protocol}"), &backends));
        configure(&fleet[0], &services);
        let _agent = fleet[0].agent();
        let vip = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
        eventually("the service is there", SOON, || Greeted::connect(&client, vip).ok());
        assert_served(&client, vip, "published");
        assert_served(&fleet[0], vip, "published");
    }
}

#[test]
fn explain_tells_an_answer_that_has_to_go_by_the_stack() {
    let fleet = Fleet::up(2);
    let (server, client) = (fleet.endpoint(0, 5), fleet.endpoint(1, 6));
    let _server = Named::start(&server, "published", overlay(0, 5), 80);
    translate(&fleet[0], &format!("ip daddr 250.0.27.1 {BOTH}"), "250.0.27.5:80");
    let greeted = Greeted::connect(&client, PUBLISHED).expect("it answers");
    let port = greeted.stream().local_addr().expect("it is connected").port();
    let outcome = |sport: u16, dport: u16| {
        let words =
            format!("explain 250.0.27.5 250.0.28.6 --proto tcp --sport {sport} --dport {dport} --json");
        let told: serde_json::Value = serde_json::from_str(&fleet[0].run(&words)).expect("JSON");
        told["outcome"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(outcome(80, port), "pass-tracked");
    assert_eq!(outcome(80, port ^ 1), "encapsulated");
    assert_eq!(outcome(81, port), "encapsulated");
}
