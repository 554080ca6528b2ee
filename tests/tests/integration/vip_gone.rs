//! Backends that go: clients hear of it, and new connections go elsewhere.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{
    Agent, Host, Site, eventually,
    fleet::{Fleet, overlay},
    server::{Greeted, Named, ask, ask_from},
    services::{configure, service},
};
use serde_json::Value;

const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
/// Clients hear of a backend's end within this.
const TOLD: Duration = Duration::from_secs(1);

/// The usual fan, and `web` over these backends.
fn web_over(host: &Host, backends: &[String]) {
    configure(host, &[service("web", format!("{WEB}/tcp"), backends)]);
}

fn serve(fleet: &Fleet, servers: &[Named]) -> Agent {
    web_over(&fleet[0], &servers.iter().map(Named::backend).collect::<Vec<_>>());
    fleet[0].agent()
}

/// Connections of a site to both backends, which then say nothing.
fn idle(site: &Site) -> Vec<Greeted> {
    let open: Vec<_> = (0..12).map(|_| Greeted::connect(site, WEB).expect("a backend answers")).collect();
    for name in ["b0", "b1"] {
        assert!(open.iter().any(|greeted| greeted.name == name), "none of 12 connections met {name}");
    }
    open
}

/// The state of the first service's first backend.
fn first_backend(fleet: &Fleet) -> Value {
    fleet[0].json("status")["services"][0]["backends"][0]["state"].clone()
}

/// What a client that only listens hears, within the time for it.
fn heard(greeted: &mut Greeted) -> Option<ErrorKind> {
    greeted.stream().set_read_timeout(Some(TOLD)).expect("a socket takes a time");
    greeted.stream().read(&mut [0]).err().map(|error| error.kind())
}

//@ guest: 6.1, 6.12
#[test]
fn idle_connections_are_reset_within_a_second_when_their_backend_is_removed() {
    let fleet = Fleet::up(2);
    let (_containers, servers) = Named::on_each(&fleet);
    let mut agent = serve(&fleet, &servers);
    let bridged = fleet.endpoint(0, 5);
    let routed = fleet[0].container("routed");
    fleet[0].run(&format!("endpoint add --netns routed --routed --address {}", overlay(0, 6)));
    let mut open = Vec::new();
    for (name, site) in [("bridged", &*bridged), ("routed", &*routed), ("host", &*fleet[0])] {
        open.extend(idle(site).into_iter().map(|greeted| (name, greeted)));
    }
    // A client acknowledges the greeting with a delay.
    thread::sleep(Duration::from_millis(300));
    web_over(&fleet[0], &[servers[0].backend()]);
    agent.reload();
    let start = Instant::now();
    for (name, greeted) in open.iter_mut().filter(|(_, greeted)| greeted.name == "b1") {
        assert_eq!(heard(greeted), Some(ErrorKind::ConnectionReset), "{name}");
        assert!(start.elapsed() < TOLD, "{name}: {:?}", start.elapsed());
    }
    for (name, greeted) in open.iter_mut().filter(|(_, greeted)| greeted.name == "b0") {
        greeted.echo(b"still there?").unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

//@ guest: 6.1
#[test]
fn a_local_backend_whose_endpoint_vanishes_leaves_rotation_and_comes_back_with_it() {
    let fleet = Fleet::up(2);
    let (mut containers, mut servers) = Named::on_each(&fleet);
    let _agent = serve(&fleet, &servers);
    let client = fleet.endpoint(0, 5);
    let state = || first_backend(&fleet);
    assert_eq!(state(), "up");
    let _ = idle(&client);

    servers.remove(0);
    containers.remove(0).die();
    let ports = || fleet.ports(0).len();
    eventually("the device is gone", Duration::from_secs(30), || (ports() == 1).then_some(()));
    eventually("the backend is down", TOLD, || (state() == "down").then_some(()));
    for _ in 0..20 {
        assert_eq!(Greeted::connect(&client, WEB).expect("the other backend answers").name, "b1");
    }

    let back = fleet.endpoint(0, 9);
    servers.push(Named::start(&back, "b0", overlay(0, 9), 8080));
    eventually("the backend is back", Duration::from_secs(10), || (state() == "up").then_some(()));
    let _ = idle(&client);
}

/// The host's end of an endpoint.
fn device_of(host: &Host, address: Ipv4Addr) -> String {
    let links = host.json("endpoint list");
    let mut links = links.as_array().expect("a list").iter();
    let link = links.find(|link| link["address"] == address.to_string()).expect("it is listed");
    link["device"].as_str().expect("a name").to_owned()
}

#[test]
fn new_connections_avoid_a_backend_whose_device_went_within_100_ms() {
    let fleet = Fleet::up(2);
    let (_containers, servers) = Named::on_each(&fleet);
    let _agent = serve(&fleet, &servers);
    let client = fleet.endpoint(0, 5);
    let _ = idle(&client);
    let device = device_of(&fleet[0], overlay(0, 9));
    fleet[0].ip(&format!("link delete {device}"));
    thread::sleep(Duration::from_millis(100));
    for _ in 0..20 {
        assert_eq!(Greeted::connect(&client, WEB).expect("the other backend answers").name, "b1");
    }
}

/// Calls a service every two milliseconds, from one port after the other; when the calls were made that had no answer in
/// the end.
fn unanswered(from: &Site, first: u16, service: SocketAddrV4) -> Vec<Instant> {
    from.inside(|| {
        let calls = (first..first + 150).map(|port| {
            thread::sleep(Duration::from_millis(2));
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a port");
            let time = Instant::now();
            socket.send_to(b"who", service).expect("it is sent");
            (time, socket)
        });
        let calls: Vec<_> = calls.collect();
        thread::sleep(Duration::from_millis(200));
        let is_answered = |socket: &UdpSocket| {
            socket.set_nonblocking(true).expect("a socket can be asked");
            socket.recv(&mut [0; 64]).is_ok()
        };
        calls.iter().filter(|(_, socket)| !is_answered(socket)).map(|(time, _)| *time).collect()
    })
}

#[test]
fn a_backend_whose_device_went_gets_no_new_flow_after_less_than_100_ms() {
    const DNS: SocketAddrV4 = SocketAddrV4::new(*WEB.ip(), 53);
    let fleet = Fleet::up(2);
    let (client, there) = (fleet.endpoint(0, 5), fleet.endpoint(1, 9));
    let backends = [0, 1].map(|host| format!("{}:8080", overlay(host, 9)));
    configure(&fleet[0], &[service("dns", format!("{DNS}/udp"), &backends)]);
    let _agent = fleet[0].agent();
    let _there = Named::start(&there, "b1", overlay(1, 9), 8080);
    // No port twice: a flow stays with its backend.
    let mut taken = [10_000, 11_000, 12_000, 13_000, 14_000].map(|first| {
        let here = fleet.endpoint(0, 9);
        let _here = Named::start(&here, "b0", overlay(0, 9), 8080);
        eventually("both backends answer", Duration::from_secs(10), || {
            let met: BTreeSet<_> = (0..20)
                .map(|_| ask(&client, DNS).map_or_else(|_| "nobody".to_owned(), |(name, _)| name))
                .collect();
            (met == BTreeSet::from(["b0".to_owned(), "b1".to_owned()])).then_some(())
        });
        let device = device_of(&fleet[0], overlay(0, 9));
        thread::scope(|scope| {
            let calls = scope.spawn(|| unanswered(&client, first, DNS));
            thread::sleep(Duration::from_millis(100));
            let start = Instant::now();
            fleet[0].ip(&format!("link delete {device}"));
            let lost = calls.join().expect("it does not panic");
            assert!(
                lost.iter().all(|&time| time + Duration::from_millis(20) > start),
                "it lost calls before"
            );
            lost.last().map_or(Duration::ZERO, |&last| last.saturating_duration_since(start))
        })
    });
    taken.sort_unstable();
    println!("last new flow to a backend whose device is being deleted, after {taken:?}");
    assert!(taken[4] > Duration::ZERO, "no call was lost, and nothing was measured");
    assert!(taken[2] < Duration::from_millis(100), "{taken:?}");
}

//@ guest: 6.1
#[test]
fn connections_that_a_dead_host_did_not_answer_go_elsewhere_once_its_backend_is_out_of_rotation() {
    const CLIENTS: usize = 12;
    let fleet = Fleet::up(2);
    let (_containers, servers) = Named::on_each(&fleet);
    let _agent = serve(&fleet, &servers);
    let client = fleet.endpoint(0, 5);
    // A SYN that waits for a neighbour would not be sent again.
    drop(idle(&client));
    let before = fleet[0].json("flow list").as_array().map_or(0, Vec::len);
    fleet.switch.ip(&format!("link set p-{}-eth0 down", fleet[1].name()));
    let connect = || {
        let begun = Instant::now();
        let name = Greeted::connect(&client, WEB).map(|greeted| greeted.name);
        (name.unwrap_or_else(|error| error.to_string()), begun.elapsed())
    };
    let met = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(connect)).collect();
        eventually("all have begun", TOLD, || {
            (fleet[0].json("flow list").as_array()?.len() == before + CLIENTS).then_some(())
        });
        fleet[0].run(&format!("service drain web {}", servers[1].backend()));
        clients.into_iter().map(|client| client.join().expect("a client ends")).collect::<Vec<_>>()
    });
    assert!(met.iter().all(|(name, _)| name == "b0"), "{met:?}");
    let is_late = |took: &Duration| *took > Duration::from_millis(500);
    assert!(met.iter().any(|(_, took)| is_late(took)), "none of them met the dead host: {met:?}");
}

//@ guest
#[test]
fn datagrams_of_a_flow_move_on_when_the_device_of_their_backend_went() {
    const DNS: SocketAddrV4 = SocketAddrV4::new(*WEB.ip(), 53);
    let fleet = Fleet::up(2);
    let (_containers, servers) = Named::on_each(&fleet);
    let backends: Vec<_> = servers.iter().map(Named::backend).collect();
    configure(&fleet[0], &[service("dns", format!("{DNS}/udp"), &backends)]);
    let _agent = fleet[0].agent();
    let client = fleet.endpoint(0, 5);
    let ask_from = |port| ask_from(&client, port, DNS).expect("a backend answers").0;
    let with = |name: &str| (20_000..20_040).find(|&port| ask_from(port) == name).expect("one of 40 flows");
    let (moves, stays) = (with("b0"), with("b1"));
    let device = device_of(&fleet[0], overlay(0, 9));
    fleet[0].ip(&format!("link delete {device}"));
    eventually("the backend is down", TOLD, || (first_backend(&fleet) == "down").then_some(()));
    assert_eq!(ask_from(moves), "b1");
    assert_eq!(ask_from(stays), "b1");
}

#[test]
fn a_backend_that_never_spoke_stays_in_rotation_when_another_goes() {
    let fleet = Fleet::up(1);
    let dying = fleet.endpoint(0, 9);
    web_over(&fleet[0], &["250.0.27.77:8080".to_owned(), format!("{}:8080", overlay(0, 9))]);
    let _agent = fleet[0].agent();
    dying.die();
    let states = || {
        let status = fleet[0].json("status");
        let backends = status["services"][0]["backends"].as_array().expect("a list").iter();
        backends
            .map(|one| format!("{} {}", one["address"], one["state"]).replace('"', ""))
            .collect::<Vec<_>>()
    };
    eventually("the one that went is down", Duration::from_secs(30), || {
        (states() == ["250.0.27.77:8080 up", "250.0.27.9:8080 down"]).then_some(())
    });
}
