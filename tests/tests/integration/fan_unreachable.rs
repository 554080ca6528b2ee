//! Hosts that cannot be reached: what the underlay says of tunnel packets reaches the senders of what is inside.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use fanlight_tests::{
    Site, eventually,
    fleet::{Fleet, overlay},
    narrow::Narrow,
    server::Greeted,
    services::{configure, service},
};
use nix::sys::socket::{setsockopt, sockopt};

const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
/// An address of the slice that [`Fleet::outside`] would have.
const BEHIND_A_STRANGER: &str = "250.0.99.9";

/// Pings once; who says that the host is unreachable.
#[track_caller]
fn told_by(site: &Site, to: &str) -> String {
    told_in(1, site, to)
}

/// The same by several pings: a router answers one packet a second for a route that refuses, and some it does not answer.
#[track_caller]
fn told_in(pings: u32, site: &Site, to: &str) -> String {
    let answer = site.sh_fails(&format!("ping -c {pings} -W 3 {to}"));
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
        assert_eq!(told_in(4, &a, &format!("250.{host}.2.7")), "250.1.2.1", "{way}");
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

/// An address of the slice of a host that does not exist.
const NOBODY: &str = "250.0.77.9";

//@ guest: 6.1
#[test]
fn a_host_that_does_not_answer_is_unreachable_until_it_does() {
    let fleet = Fleet::up(1);
    let _agent = fleet[0].agent();
    let (routed, bridged) = (fleet.endpoint(0, 5), fleet.port(0, 6));
    // The kernel asks three times, once a second.
    eventually("the silence is told", Duration::from_secs(10), || {
        routed
            .command("ping")
            .args(["-c", "1", "-W", "1", NOBODY])
            .run()
            .stdout
            .contains("Unreachable")
            .then_some(())
    });
    let before = fleet[0].counters();
    let start = Instant::now();
    assert_eq!(told_by(&routed, NOBODY), overlay(0, 1).to_string());
    told_by(&bridged, NOBODY);
    told_by(&fleet[0], NOBODY);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let counted = fleet[0].counters().since(&before);
    assert_eq!(counted.total("answered-silent-host"), 3, "{counted}");
    let told = fleet[0].json(&format!("explain {} {NOBODY}", overlay(0, 5)));
    assert_eq!(told["outcome"], "answered-silent-host", "{told}");
    assert!(told.to_string().contains("does not answer"), "{told}");
    // Longer than the programs believe it without the agent.
    std::thread::sleep(Duration::from_secs(17));
    told_by(&routed, NOBODY);
    let other = fleet.stranger("other", Ipv4Addr::new(172, 30, 0, 77));
    other.sysctl("net.ipv4.icmp_ratelimit", "0");
    let start = Instant::now();
    // It has no fan: that is told by itself, and counted apart.
    eventually("what comes back is the host's own answer", Duration::from_secs(3), || {
        let before = fleet[0].counters();
        told_by(&routed, NOBODY);
        (fleet[0].counters().since(&before).total("relayed-unreachable") == 1).then_some(())
    });
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

//@ guest: 6.1
#[test]
fn with_the_uplink_down_every_other_host_is_unreachable_at_once() {
    let fleet = Fleet::up(2);
    let agent = fleet[0].agent();
    let (client, there) = (fleet.endpoint(0, 5), fleet.endpoint(1, 9));
    let (near, far) = (fleet.endpoint(0, 6), overlay(1, 9).to_string());
    client.sh(&format!("ping -c 1 -W 3 {far}"));
    fleet[0].ip("link set eth0 down");
    eventually("it is told", Duration::from_secs(5), || {
        let answer = client.command("ping").args(["-c", "1", "-W", "1", &far]).run();
        answer.stdout.contains("Unreachable").then_some(())
    });
    client.sh(&format!("ping -c 1 -W 3 {}", overlay(0, 6)));
    let degraded = fleet[0].json("status")["degraded"].to_string();
    assert!(degraded.contains("uplink-down 250.0.0.0/8: eth0 carries nothing"), "{degraded}");
    fleet[0].ip("link set eth0 up");
    eventually("it is reached again", Duration::from_secs(5), || {
        client.command("ping").args(["-c", "1", "-W", "1", &far]).run().status.success().then_some(())
    });
    drop((agent, there, near));
}

/// Sends a datagram to the service from a connected socket.
fn asked(from: &Site) -> UdpSocket {
    from.inside(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        // It is told of what ends no connection, too.
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).expect("a socket takes it");
        socket.connect(WEB).expect("a route");
        socket.set_read_timeout(Some(Duration::from_secs(8))).expect("a socket takes a time");
        socket.send(b"who").expect("it is sent");
        socket
    })
}

//@ guest: 6.1
#[test]
fn that_nobody_has_a_backends_address_is_told_as_of_the_vip() {
    let fleet = Fleet::up(1);
    let outside = fleet.outside(*WEB.ip());
    let (routed, bridged) = (fleet.endpoint(0, 5), fleet.port(0, 6));
    let backend = [format!("{}:8080", overlay(0, 99))];
    configure(&fleet[0], &[service("web", format!("{WEB}/udp"), &backend)]);
    let _agent = fleet[0].agent();
    // A socket hears of what quotes its own packet, and of nothing else.
    let clients: [(&str, &Site); 3] =
        [("container", &routed), ("bridged", &bridged), ("another host", &outside)];
    let asked = clients.map(|(who, client)| (who, asked(client)));
    for (who, socket) in asked {
        let told = socket.recv(&mut [0; 8]).expect_err("nobody answers");
        assert_eq!(told.kind(), ErrorKind::HostUnreachable, "{who}: {told}, {}", fleet[0].counters());
    }
}
