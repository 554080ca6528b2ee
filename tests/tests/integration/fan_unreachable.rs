//! Hosts that cannot be reached: what the underlay says of tunnel packets reaches the senders of what is inside.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use fanlight_tests::{
    Site,
    fleet::{Fleet, overlay},
    narrow::Narrow,
    server::Greeted,
    services::{configure, service},
};

const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
/// An address of the slice that [`Fleet::outside`] would have.
const BEHIND_A_STRANGER: &str = "250.0.99.9";

/// Pings once; who says that the host is unreachable.
#[track_caller]
fn told_by(site: &Site, to: &str) -> String {
    let answer = site.sh_fails(&format!("ping -c 1 -W 3 {to}"));
    let line = answer.stdout.lines().find(|line| line.contains("Destination Host Unreachable"));
    let line = line.unwrap_or_else(|| panic!("{}: {answer}", site.name()));
    line.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

//@ guest: 6.1, 6.12
#[test]
fn a_host_without_a_fan_is_unreachable_to_containers_and_the_host_itself() {
    let fleet = Fleet::up(1);
    let outside = fleet.outside(*WEB.ip());
    outside.sysctl("net.ipv4.icmp_ratelimit", "0");
    let (routed, bridged) = (fleet.endpoint(0, 5), fleet.port(0, 6));
    let before = fleet[0].counters();
    assert_eq!(told_by(&routed, BEHIND_A_STRANGER), overlay(0, 1).to_string());
    told_by(&bridged, BEHIND_A_STRANGER);
    told_by(&fleet[0], BEHIND_A_STRANGER);
    let counted = fleet[0].counters().since(&before);
    assert_eq!(counted.of("uplink-ingress", "relayed-unreachable"), 3, "{counted}");
}

//@ guest: 6.1
#[test]
fn what_a_router_refuses_is_unreachable() {
    let narrow = Narrow::new();
    let (a, _b) = narrow.containers();
    for (way, host) in [("unreachable", 5), ("prohibit", 6)] {
        narrow.near().ip(&format!("route add {way} 172.30.{host}.0/24"));
        narrow.near().sysctl("net.ipv4.icmp_ratelimit", "0");
        assert_eq!(told_by(&a, &format!("250.{host}.2.7")), "250.1.2.1", "{way}");
    }
}

//@ guest: 6.1
#[test]
fn a_backend_behind_a_host_without_a_fan_is_unreachable_at_once() {
    let fleet = Fleet::up(1);
    let outside = fleet.outside(*WEB.ip());
    outside.sysctl("net.ipv4.icmp_ratelimit", "0");
    let client = fleet.stranger("client", Ipv4Addr::new(172, 30, 0, 97));
    client.ip(&format!("route add {} via {}", WEB.ip(), fanlight_tests::fleet::underlay(0)));
    configure(&fleet[0], &[service("web", format!("{WEB}/tcp"), &[format!("{BEHIND_A_STRANGER}:8080")])]);
    let _agent = fleet[0].agent();
    let (routed, bridged) = (fleet.endpoint(0, 5), fleet.port(0, 6));
    for (who, site) in
        [("container", &*routed), ("bridged", &*bridged), ("host", &*fleet[0]), ("another host", &client)]
    {
        let start = Instant::now();
        let refused = Greeted::connect(site, WEB).map(|greeted| greeted.name).expect_err("nobody is there");
        assert_eq!(refused.kind(), ErrorKind::HostUnreachable, "{who}: {refused}");
        assert!(start.elapsed() < Duration::from_secs(1), "{who}: {:?}", start.elapsed());
    }
}
