//! Any port that joins the bridge is served without being told: it was there before or comes later, with an agent
//! or without.

use std::{net::Ipv4Addr, time::Duration};

use fanlight_tests::{
    Container, eventually,
    fleet::{Fleet, bridge, overlay},
    load::{Iperf, IperfServer, assert_reaches},
};

fn assert_served(fleet: &Fleet, container: &Container<'_>, octet: u8, remote: &Container<'_>) {
    assert_reaches(container, overlay(1, 2));
    assert_reaches(remote, overlay(0, octet));
    assert_reaches(container, overlay(0, 1));
    assert_reaches(&fleet[0], overlay(0, octet));
}

//@ guest: 6.1
#[test]
fn ports_are_served_without_an_agent() {
    let fleet = Fleet::up(2);
    let remote = fleet.port(1, 2);
    let (first, second) = (fleet.port(0, 5), fleet.port(0, 6));
    let before = fleet[0].counters();
    assert_served(&fleet, &first, 5, &remote);
    assert_served(&fleet, &second, 6, &remote);
    assert_reaches(&first, overlay(0, 6));
    let counted = fleet[0].counters().since(&before);
    assert!(counted.of("bridge-ingress", "encapsulated") > 0, "{counted}");
}

//@ guest: 6.1, 6.12
#[test]
fn ports_that_were_there_before_the_agent_and_that_come_later_get_a_hook() {
    let fleet = Fleet::up(2);
    let remote = fleet.endpoint(1, 2);
    let first = fleet.port(0, 5);
    assert_reaches(&first, overlay(1, 2));
    let agent = fleet[0].agent();
    assert_served(&fleet, &first, 5, &remote);
    let second = fleet.port(0, 6);
    assert_served(&fleet, &second, 6, &remote);
    for (container, octet) in [(&first, 5), (&second, 6)] {
        eventually("the port's own hook serves it", Duration::from_secs(5), || {
            let before = fleet[0].counters();
            assert_reaches(container, overlay(1, 2));
            let counted = fleet[0].counters().since(&before);
            (counted.of("endpoint-ingress", "encapsulated") > 0
                && counted.of("bridge-ingress", "encapsulated") == 0)
                .then_some(())
        });
        eventually("packets for it take the short way", Duration::from_secs(5), || {
            let before = fleet[0].counters();
            assert_reaches(&remote, overlay(0, octet));
            (fleet[0].counters().since(&before).of("uplink-ingress", "decapsulated") > 0).then_some(())
        });
    }
    agent.kill9();
    let third = fleet.port(0, 7);
    assert_served(&fleet, &third, 7, &remote);
    assert_served(&fleet, &first, 5, &remote);
}

//@ guest
#[test]
fn a_fan_on_a_bridge_that_somebody_else_made_serves_its_ports() {
    let fleet = Fleet::bare(2);
    fleet[0].ip("link add br-mine type bridge forward_delay 0");
    fleet[0].ip("link set br-mine up");
    let early = fleet[0].container("early");
    early.plug("br-mine");
    fleet[0].run("fan up 250.0.0.0/8 eth0 bridge br-mine");
    fleet[1].run("fan up 250.0.0.0/8 eth0");
    let remote = fleet.endpoint(1, 2);
    early.address(&format!("{}/24", overlay(0, 5)), &overlay(0, 1).to_string());
    assert_served(&fleet, &early, 5, &remote);
}

//@ guest: 6.1
#[test]
fn a_container_that_moves_to_another_port_or_takes_over_an_address_is_followed() {
    let fleet = Fleet::up(2);
    let _agent = fleet[0].agent();
    let remote = fleet.endpoint(1, 2);
    let old = fleet.port(0, 5);
    assert_served(&fleet, &old, 5, &remote);
    old.die();
    let new = fleet[0].container("successor");
    new.join_bridge(&bridge(0), &format!("{}/24", overlay(0, 5)), &overlay(0, 1).to_string());
    let pings = |from: &Container<'_>, to: Ipv4Addr| {
        let output = from.command("ping").args(["-c", "1", "-W", "1", &to.to_string()]).run();
        output.status.success().then_some(())
    };
    // Until the agent has seen the old port go, the address is still known to be that port's.
    eventually("the new port is heard", Duration::from_secs(5), || pings(&new, overlay(0, 1)));
    eventually("the address is found at its new port", Duration::from_secs(5), || {
        pings(&remote, overlay(0, 5))
    });
}

//@ guest
#[test]
fn a_silent_container_is_found_when_somebody_asks_for_it() {
    let fleet = Fleet::up(2);
    let _agent = fleet[0].agent();
    let remote = fleet.endpoint(1, 2);
    let _silent = fleet.port(0, 9);
    assert_reaches(&remote, overlay(0, 9));
}

//@ guest
#[test]
fn bulk_tcp_flows_between_bridge_ports_of_two_hosts() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.port(0, 5), fleet.port(1, 5));
    let _server = IperfServer::start(&other);
    for options in [&["-n", "32M"] as &[_], &["-n", "32M", "-R"]] {
        let run = Iperf::run(&one, overlay(1, 5), options);
        assert!(run.bits_per_second() > 1e7, "{run:?}");
    }
}
