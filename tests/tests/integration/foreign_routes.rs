//! Beside a router's table: a foreign route is noticed where it matters, and costs nothing where it does not.

use std::{
    thread,
    time::{Duration, Instant},
};

use fanlight_tests::{
    Host,
    bench::routes::{add_routes, seconds},
    eventually,
    fleet::Fleet,
    services::{configure, service},
};

const FOREIGN: u32 = 20_000;
/// What DESIGN allows for a route, with some time for a busy machine.
const SECOND: Duration = Duration::from_millis(1500);
const VIP: &str = "10.200.0.10";

fn web() -> String {
    service("web", format!("{VIP}:80/tcp"), &["250.0.27.9:8080".to_owned()])
}

fn shows(host: &Host, destination: &str, words: &str) -> Option<()> {
    host.ip(&format!("route show {destination}")).contains(words).then_some(())
}

#[test]
fn foreign_routes_take_no_processor_time() {
    let fleet = Fleet::up(1);
    configure(&fleet[0], &[web()]);
    add_routes(&fleet[0], FOREIGN);
    let agent = fleet[0].agent();
    thread::sleep(Duration::from_secs(1));
    let before = seconds(&agent).expect("its processor time");
    let start = Instant::now();
    thread::sleep(Duration::from_secs(10));
    let used = seconds(&agent).expect("its processor time") - before;
    println!("{used:.2} s of {:?} beside {FOREIGN} foreign routes", start.elapsed());
    assert!(used < 0.5, "{used} s of ten");
}

#[test]
fn our_routes_are_put_back_within_a_second_beside_foreign_ones() {
    let fleet = Fleet::up(1);
    configure(&fleet[0], &[web()]);
    add_routes(&fleet[0], FOREIGN);
    let _agent = fleet[0].agent();
    for (destination, device) in [("250.0.0.0/8", "fanlight0"), (VIP, "fanlight0")] {
        assert_eq!(shows(&fleet[0], destination, device), Some(()));
        fleet[0].ip(&format!("route del {destination}"));
        eventually("the lost route is back", SECOND, || shows(&fleet[0], destination, device));
        // Another takes its place, of the same metric.
        fleet[0].ip(&format!("route replace {destination} via 172.30.0.1 dev eth0 proto 186"));
        if destination != VIP {
            eventually("ours is back", SECOND, || shows(&fleet[0], destination, device));
        }
    }
}

#[test]
fn a_foreign_route_to_a_vip_is_noticed_when_the_service_comes_and_when_the_route_does() {
    let fleet = Fleet::up(1);
    configure(&fleet[0], &[web()]);
    add_routes(&fleet[0], FOREIGN);
    // The routes are to every other address: this one is among them.
    let other = service("other", "10.0.0.10:80/tcp", &["250.0.27.9:8080".to_owned()]);
    let _agent = fleet[0].agent();
    let degraded = || fleet[0].json("status")["degraded"].to_string();
    assert_eq!(degraded(), "[]");
    fleet[0].fanlight(["service", "apply", "-f", "-"]).input(other).ok();
    eventually("the route in its way is told of", Duration::from_secs(2), || {
        degraded().contains("vip-route 10.0.0.10: held by a route to eth0 (protocol 186)").then_some(())
    });
    fleet[0].ip("route del 10.0.0.10");
    eventually("its own route is set", Duration::from_secs(7), || shows(&fleet[0], "10.0.0.10", "fanlight0"));
    fleet[0].ip(&format!("route replace {VIP} via 172.30.0.1 dev eth0 proto 186"));
    eventually("the route that came is told of", Duration::from_secs(7), || {
        degraded().contains(&format!("vip-route {VIP}: held by a route to eth0")).then_some(())
    });
}

#[test]
fn routes_that_go_silently_with_their_source_address_are_put_back() {
    let fleet = Fleet::up(1);
    add_routes(&fleet[0], FOREIGN);
    let _agent = fleet[0].agent();
    fleet[0].ip("addr del 250.0.27.1/24 dev fan-250-0-27");
    eventually("address and route are back", SECOND, || {
        shows(&fleet[0], "250.0.0.0/8", "src 250.0.27.1")
            .filter(|()| fleet[0].ip("addr show dev fan-250-0-27").contains("250.0.27.1/24"))
    });
}
