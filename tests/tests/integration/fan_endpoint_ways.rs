//! Endpoints bridged and routed, in one fan and in two.

use std::net::Ipv4Addr;

use fanlight_tests::{
    fleet::{Fleet, overlay},
    load::assert_reaches,
};

/// The address of the second fan with the same last octets.
fn second(host: usize, octet: u8) -> Ipv4Addr {
    let [_, rest @ ..] = overlay(host, octet).octets();
    Ipv4Addr::new(251, rest[0], rest[1], rest[2])
}

fn two_fans() -> Fleet {
    let fleet = Fleet::up(2);
    for host in fleet.hosts() {
        host.run("fan up 251.0.0.0/8 eth0");
    }
    fleet
}

#[test]
fn an_endpoint_in_two_fans_is_reached_by_both_addresses_bridged_or_routed() {
    let fleet = two_fans();
    for (host, way) in [(0, ""), (1, " --routed")] {
        let _container = fleet[host].container("both");
        fleet[host].run(&format!("endpoint add --netns both --name both{way}"));
        let listed = fleet[host].json("endpoint list");
        let fans: Vec<_> = listed.as_array().expect("a list").iter().map(|row| row["fan"].clone()).collect();
        assert_eq!(fans, ["250.0.0.0/8", "251.0.0.0/8"], "{listed}");
        let [first, other] = [overlay(host, 2), second(host, 2)];
        assert_reaches(&fleet[host], first);
        assert_reaches(&fleet[host], other);
        assert_reaches(&fleet[1 - host], first);
        assert_reaches(&fleet[1 - host], other);
        let has_route = || fleet[host].ip("route show").contains(&format!("{other} "));
        assert!(has_route());
        fleet[host].run("endpoint remove both");
        assert!(!has_route());
    }
}

#[test]
fn endpoints_of_two_fans_reach_each_other_from_the_address_of_the_destinations_fan() {
    let fleet = two_fans();
    let (one, other) = (fleet[0].container("one"), fleet[1].container("other"));
    fleet[0].run("endpoint add --netns one");
    fleet[1].run("endpoint add --netns other --routed");
    for (from, to) in [(&one, [overlay(1, 2), second(1, 2)]), (&other, [overlay(0, 2), second(0, 2)])] {
        for address in to {
            assert_reaches(from, address);
        }
    }
    let route = one.ip(&format!("route get {}", second(1, 2)));
    assert!(route.contains(&format!("src {}", second(0, 2))), "{route}");
}

#[test]
fn bridged_and_routed_endpoints_of_one_host_reach_each_other_and_the_host() {
    let fleet = Fleet::up(1);
    let (bridged, routed) = (fleet[0].container("bridged"), fleet[0].container("routed"));
    fleet[0].run("endpoint add --netns bridged");
    fleet[0].run("endpoint add --netns routed --routed");
    let port = fleet.port(0, 9);
    for container in [&bridged, &routed, &port] {
        for octet in [1, 2, 3, 9] {
            assert_reaches(container, overlay(0, octet));
        }
    }
}

#[test]
fn the_reserve_of_a_fan_is_left_alone_unless_asked_for() {
    let fleet = Fleet::bare(1);
    fleet[0].run("fan up 250.0.0.0/8 eth0 host-reserve 9");
    let (next, asked) = (fleet[0].container("next"), fleet[0].container("asked"));
    fleet[0].run("endpoint add --netns next");
    fleet[0].run(&format!("endpoint add --netns asked --address {}", overlay(0, 4)));
    assert_reaches(&next, overlay(0, 4));
    assert_reaches(&asked, overlay(0, 10));
}

#[test]
fn a_failing_step_takes_back_what_was_done() {
    let fleet = Fleet::up(1);
    let container = fleet[0].container("c");
    // The device's name on the host is taken: nothing of the pair may stay.
    fleet[0].ip("link add fl-other type veth peer name flfa001b02");
    let before = fleet[0].ip("-o link show");
    fleet[0].fanlight(["endpoint", "add", "--netns", "c"]).exits(1);
    assert_eq!(fleet[0].ip("-o link show"), before);
    assert!(!container.has_device("eth0"));
}
