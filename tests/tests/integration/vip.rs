//! Services: every client of a VIP reaches one of its backends, and sees the VIP alone.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use fanlight_tests::{
    Agent, eventually,
    fleet::{Fleet, overlay},
    load::{Iperf, IperfServer, ping},
    server::{Greeted, Named, ask},
    services::{configure, service},
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const WEB: SocketAddrV4 = SocketAddrV4::new(VIP, 80);
const SOON: Duration = Duration::from_secs(5);

/// The usual fan on all hosts; the first has an agent with these services.
fn serve(fleet: &Fleet, services: &[String]) -> Agent {
    configure(&fleet[0], services);
    fleet[0].agent()
}

fn addresses(servers: &[Named]) -> Vec<String> {
    servers.iter().map(Named::backend).collect()
}

//@ guest: 6.1, 6.12
#[test]
fn connections_of_a_container_reach_every_backend_and_keep_the_clients_address() {
    let fleet = Fleet::up(3);
    let (_containers, servers) = Named::on_each(&fleet);
    let _agent = serve(&fleet, &[service("web", "10.96.0.10:80/tcp", &addresses(&servers))]);
    let client = fleet.endpoint(0, 5);
    let mut met: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..60 {
        let mut greeted = Greeted::connect(&client, WEB).expect("a backend answers");
        assert_eq!(greeted.seen_as.ip(), overlay(0, 5));
        assert_eq!(greeted.stream().peer_addr().expect("a peer"), SocketAddr::V4(WEB));
        greeted.echo(&[7; 3000]).expect("bytes come back");
        *met.entry(greeted.name).or_default() += 1;
    }
    assert_eq!(met.len(), 3, "{met:?}");
    assert!(met.values().all(|&count| count >= 5), "{met:?}");
}

//@ guest: 6.1, 6.12
#[test]
fn processes_of_the_host_reach_local_and_remote_backends() {
    let fleet = Fleet::up(2);
    let (_containers, servers) = Named::on_each(&fleet);
    let _agent = serve(
        &fleet,
        &[
            service("web", "10.96.0.10:80/tcp", &addresses(&servers)),
            service("dns", "10.96.0.10:53/udp", &addresses(&servers)),
        ],
    );
    let mut met: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..20 {
        let mut greeted = Greeted::connect(&fleet[0], WEB).expect("a backend answers");
        greeted.echo(&[7; 100_000]).expect("bytes come back");
        *met.entry(greeted.name).or_default() += 1;
        let (name, _) = ask(&fleet[0], SocketAddrV4::new(VIP, 53)).expect("a backend answers");
        *met.entry(format!("{name} udp")).or_default() += 1;
    }
    assert_eq!(met.len(), 4, "{met:?}");
}

//@ guest: 6.1, 6.12
#[test]
fn datagrams_are_answered_from_the_vip() {
    let fleet = Fleet::up(3);
    let (_containers, servers) = Named::on_each(&fleet);
    let _agent = serve(&fleet, &[service("dns", "10.96.0.10:53/udp", &addresses(&servers))]);
    let client = fleet.endpoint(0, 5);
    let mut met: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..40 {
        // The socket is connected: an answer from another address would not be received.
        let (name, seen_as) = ask(&client, SocketAddrV4::new(VIP, 53)).expect("a backend answers");
        assert_eq!(seen_as.ip(), overlay(0, 5));
        *met.entry(name).or_default() += 1;
    }
    assert_eq!(met.len(), 3, "{met:?}");
}

//@ guest
#[test]
fn a_backend_that_calls_its_own_service_meets_itself_as_the_vip() {
    let fleet = Fleet::up(1);
    let (containers, servers) = Named::on_each(&fleet);
    let _agent = serve(
        &fleet,
        &[
            service("web", "10.96.0.10:80/tcp", &addresses(&servers)),
            service("dns", "10.96.0.10:53/udp", &addresses(&servers)),
        ],
    );
    let mut greeted = Greeted::connect(&containers[0], WEB).expect("it answers itself");
    assert_eq!(greeted.seen_as.ip(), VIP);
    greeted.echo(&[7; 200_000]).expect("bytes come back");
    let (_, seen_as) = ask(&containers[0], SocketAddrV4::new(VIP, 53)).expect("it answers itself");
    assert_eq!(seen_as.ip(), VIP);
}

//@ guest: 6.1
#[test]
fn ports_of_one_bridge_without_hooks_reach_each_other_through_a_vip() {
    let fleet = Fleet::up(1);
    let server = fleet.port(0, 9);
    let named = Named::start(&server, "b0", overlay(0, 9), 8080);
    let agent = serve(&fleet, &[service("web", "10.96.0.10:80/tcp", &[named.backend()])]);
    agent.kill9();
    let client = fleet.port(0, 6);
    let mut greeted = Greeted::connect(&client, WEB).expect("the backend answers");
    greeted.echo(&[7; 100_000]).expect("bytes come back");
}

//@ guest: 6.1
#[test]
fn a_closed_port_of_a_vip_and_a_service_without_backends_refuse_at_once() {
    let fleet = Fleet::up(1);
    let _agent = serve(
        &fleet,
        &[service("empty", "10.96.0.10:80/tcp", &[]), service("quiet", "10.96.0.10:53/udp", &[])],
    );
    let client = fleet.endpoint(0, 5);
    let before = fleet[0].counters();
    for (from, site) in [("container", &*client), ("host", &*fleet[0])] {
        for port in [80, 81] {
            let start = Instant::now();
            let refused =
                Greeted::connect(site, SocketAddrV4::new(VIP, port)).err().map(|error| error.kind());
            assert_eq!(refused, Some(ErrorKind::ConnectionRefused), "{from}, port {port}");
            assert!(start.elapsed() < Duration::from_millis(200), "{from}: {:?}", start.elapsed());
            let refused = ask(site, SocketAddrV4::new(VIP, port - 27)).err().map(|error| error.kind());
            assert_eq!(refused, Some(ErrorKind::ConnectionRefused), "{from}, UDP");
        }
    }
    let counted = fleet[0].counters().since(&before);
    assert_eq!(
        (counted.total("refused-no-backend"), counted.total("refused-no-service")),
        (4, 4),
        "{counted}"
    );
}

//@ guest
#[test]
fn a_vip_answers_pings_of_containers_and_of_the_host() {
    let fleet = Fleet::up(1);
    let _agent = serve(&fleet, &[service("web", "10.96.0.10:80/tcp", &[])]);
    let client = fleet.endpoint(0, 5);
    for site in [&*client, &*fleet[0]] {
        let pinged = ping(site, VIP, 3, &["-s", "1000", "-i", "0.1"]);
        assert_eq!(pinged.lost(), 0, "{pinged:?}");
    }
}

//@ guest
#[test]
fn one_port_to_two_vips_that_share_a_backend_makes_two_connections() {
    let fleet = Fleet::up(2);
    let (_containers, servers) = Named::on_each(&fleet);
    let shared = [servers[1].backend()];
    let _agent = serve(
        &fleet,
        &[service("one", "10.96.0.10:80/tcp", &shared), service("two", "10.96.0.11:80/tcp", &shared)],
    );
    let client = fleet.endpoint(0, 5);
    let from_port = |vip| Greeted::connect_from(&client, 40_000, SocketAddrV4::new(vip, 80));
    let mut first = from_port(VIP).expect("the backend answers");
    let mut second = from_port(Ipv4Addr::new(10, 96, 0, 11)).expect("the backend answers");
    for greeted in [&mut first, &mut second] {
        assert_eq!((greeted.name.as_str(), greeted.seen_as.ip()), ("b1", overlay(0, 5).into()));
        greeted.echo(&[7; 3000]).expect("bytes come back");
    }
    assert_ne!(first.seen_as.port(), second.seen_as.port());
}

//@ guest
#[test]
fn a_connection_straight_to_the_backend_works_beside_one_through_the_vip() {
    let fleet = Fleet::up(2);
    let (_containers, servers) = Named::on_each(&fleet);
    let _agent = serve(&fleet, &[service("web", "10.96.0.10:80/tcp", &[servers[1].backend()])]);
    let client = fleet.endpoint(0, 5);
    let mut through = Greeted::connect_from(&client, 40_000, WEB).expect("the backend answers");
    let backend = SocketAddrV4::new(overlay(1, 9), 8080);
    let mut straight = Greeted::connect_from(&client, 40_000, backend).expect("the backend answers");
    for greeted in [&mut through, &mut straight] {
        greeted.echo(&[7; 3000]).expect("bytes come back");
    }
}

//@ guest: 6.1, 6.12
#[test]
fn bulk_tcp_flows_through_a_vip_in_both_directions() {
    let fleet = Fleet::up(2);
    let server = fleet.endpoint(1, 9);
    let _server = IperfServer::start(&server);
    let _agent = serve(&fleet, &[service("iperf", "10.96.0.10:5201/tcp", &["250.0.28.9:5201".into()])]);
    let client = fleet.endpoint(0, 5);
    for options in [&["-n", "64M"] as &[_], &["-n", "64M", "-R"]] {
        let run = Iperf::run(&client, VIP, options);
        assert!(run.bits_per_second() > 1e7, "{run:?}");
    }
}

//@ guest: 6.1
#[test]
fn connections_end_with_their_backend_and_new_ones_go_elsewhere() {
    let fleet = Fleet::up(3);
    let (_containers, servers) = Named::on_each(&fleet);
    let all = addresses(&servers);
    let mut agent = serve(&fleet, &[service("web", "10.96.0.10:80/tcp", &all)]);
    let client = fleet.endpoint(0, 5);
    let mut open: Vec<_> =
        (0..30).map(|_| Greeted::connect(&client, WEB).expect("a backend answers")).collect();
    configure(&fleet[0], &[service("web", "10.96.0.10:80/tcp", &all[..2])]);
    agent.reload();
    for greeted in &mut open {
        let went_on = greeted.echo(b"still there?");
        match greeted.name.as_str() {
            "b2" => assert_eq!(went_on.err().map(|error| error.kind()), Some(ErrorKind::ConnectionReset)),
            _ => went_on.expect("its backend is still there"),
        }
    }
    for _ in 0..30 {
        assert_ne!(Greeted::connect(&client, WEB).expect("a backend answers").name, "b2");
    }
}

//@ guest: 6.1
#[test]
fn connections_outlive_the_agent_and_its_successor_changes_nothing() {
    let fleet = Fleet::up(3);
    let (_containers, servers) = Named::on_each(&fleet);
    let agent = serve(&fleet, &[service("web", "10.96.0.10:80/tcp", &addresses(&servers))]);
    let client = fleet.endpoint(0, 5);
    let mut open: Vec<_> =
        (0..10).map(|_| Greeted::connect(&client, WEB).expect("a backend answers")).collect();
    agent.kill9();
    let check = |open: &mut Vec<Greeted>| {
        for greeted in open.iter_mut() {
            greeted.echo(&[1; 5000]).expect("the connection goes on");
        }
        open.push(Greeted::connect(&client, WEB).expect("a backend answers"));
    };
    check(&mut open);
    let _agent = fleet[0].agent();
    check(&mut open);
}

//@ guest
#[test]
fn a_service_that_leaves_the_file_takes_its_route_along() {
    let fleet = Fleet::up(1);
    let (_containers, servers) = Named::on_each(&fleet);
    let mut agent = serve(&fleet, &[service("web", "10.96.0.10:80/tcp", &addresses(&servers))]);
    assert!(fleet[0].ip("route show 10.96.0.10").contains("fanlight0"));
    assert_eq!(fleet[0].json("status")["services"][0]["name"], "web");
    configure(&fleet[0], &[]);
    agent.reload();
    eventually("the route is gone", SOON, || fleet[0].ip("route show 10.96.0.10").is_empty().then_some(()));
    assert_eq!(fleet[0].json("status")["services"].as_array().map(Vec::len), Some(0));
}
