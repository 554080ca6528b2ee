//! Backends of the own slice that only listen: asked for where the kernel does not tell whether they are there.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use fanlight_tests::{
    Agent, Container, eventually,
    fleet::{Fleet, bridge, overlay},
    server::{Greeted, Named},
    services::{configure, service},
};

const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
/// A backend is back in rotation, or out of it, within a second; the rest is what asking takes on a loaded machine.
const SOON: Duration = Duration::from_secs(3);
/// The kernel asks three times, a second apart, before it takes an address for unused.
const SILENCE: Duration = Duration::from_secs(6);

/// The usual fan on one host, and `web` over one backend with this last octet.
fn served(octet: u8) -> (Fleet, Agent) {
    let fleet = Fleet::up(1);
    configure(&fleet[0], &[service("web", format!("{WEB}/tcp"), &[format!("{}:8080", overlay(0, octet))])]);
    let agent = fleet[0].agent();
    (fleet, agent)
}

/// A container with the backend's address, put into the bridge by hand, and a server in it that only listens.
#[track_caller]
fn started<'f>(fleet: &'f Fleet, name: &str) -> (Container<'f>, Named) {
    let container = fleet[0].container(name);
    container.join_bridge(&bridge(0), &format!("{}/24", overlay(0, 9)), &overlay(0, 1).to_string());
    let server = Named::start(&container, "b", overlay(0, 9), 8080);
    (container, server)
}

/// Waits until it was asked for and has answered: until then its state is a guess.
#[track_caller]
fn found(fleet: &Fleet) {
    let address = overlay(0, 9).to_string();
    let is_listed = || {
        fleet[0].json("endpoint list").as_array()?.iter().any(|one| one["address"] == address).then_some(())
    };
    eventually("the backend is found", SILENCE, is_listed);
    becomes(fleet, "up", SOON);
}

/// Ends it, its device too: a socket would keep the namespace.
#[track_caller]
fn ended(fleet: &Fleet, (container, server): (Container<'_>, Named)) {
    drop(server);
    container.die();
    let ports = || fleet.ports(0).len();
    eventually("the device is gone", Duration::from_secs(30), || (ports() == 0).then_some(()));
}

#[track_caller]
fn becomes(fleet: &Fleet, state: &str, limit: Duration) {
    let is_so = || fleet[0].json("status")["services"][0]["backends"][0]["state"] == state;
    eventually(&format!("the backend is {state}"), limit, || is_so().then_some(()));
}

#[track_caller]
fn answers(fleet: &Fleet, since: Instant) {
    let client = fleet.endpoint(0, 5);
    let greeted = eventually("the backend answers", SOON, || Greeted::connect(&client, WEB).ok());
    assert_eq!(greeted.name, "b", "{:?} after its start", since.elapsed());
}

#[test]
fn a_backend_that_only_listens_is_back_within_a_second_of_its_restart() {
    let (fleet, _agent) = served(9);
    let first = started(&fleet, "first");
    found(&fleet);
    ended(&fleet, first);
    becomes(&fleet, "down", SOON);
    let _restarted = started(&fleet, "second");
    let start = Instant::now();
    becomes(&fleet, "up", SOON);
    answers(&fleet, start);
}

#[test]
fn a_backend_that_restarts_twice_in_a_row_is_found_at_its_last_device() {
    let (fleet, _agent) = served(9);
    let first = started(&fleet, "first");
    found(&fleet);
    ended(&fleet, first);
    let second = started(&fleet, "second");
    ended(&fleet, second);
    let _restarted = started(&fleet, "third");
    let start = Instant::now();
    answers(&fleet, start);
    becomes(&fleet, "up", SOON);
}

#[test]
fn an_address_that_nobody_has_is_down_and_its_clients_are_told_at_once() {
    let (fleet, _agent) = served(77);
    let client = fleet.endpoint(0, 5);
    becomes(&fleet, "down", SILENCE);
    let start = Instant::now();
    let refused = Greeted::connect(&client, WEB).map(|greeted| greeted.name).expect_err("nobody is there");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn a_backend_whose_device_has_no_carrier_is_down_until_it_has() {
    let (fleet, _agent) = served(9);
    let (container, _server) = started(&fleet, "quiet");
    found(&fleet);
    container.ip("link set eth0 down");
    // At once where the agent has met it; else when nothing answers. The kernel tells of a lost carrier up to a second late
    // (net/core/link_watch.c).
    becomes(&fleet, "down", 2 * SILENCE);
    container.ip("link set eth0 up");
    becomes(&fleet, "up", SOON);
}
