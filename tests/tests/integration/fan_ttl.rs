//! Time to live: the fan is one hop, at the sending host.

use std::time::Duration;

use fanlight_tests::{
    fleet::{Fleet, overlay},
    load::assert_reaches,
    packet::Ipv4,
    tools,
};

//@ guest
#[test]
fn the_sending_host_takes_one_from_the_ttl_and_nobody_else_does() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    let (uplink, inside) = (fleet[1].raw("eth0"), other.raw("eth0"));
    one.sh(&format!("ping -c 1 -W 2 -t 20 {}", overlay(1, 2)));
    let is_request = |packet: &Ipv4| packet.icmp() == Some((8, 0));
    let outer = uplink.receive(Duration::from_secs(1), |frame| {
        Ipv4::of_frame(frame).filter(|outer| outer.inner().is_some_and(|inner| is_request(&inner)))
    });
    let outer = outer.expect("a tunnel packet on the wire");
    assert_eq!(outer.inner().map(|inner| inner.ttl), Some(19));
    assert!(outer.ttl >= 32, "the outer TTL is {}", outer.ttl);
    let got = inside.receive(Duration::from_secs(1), |frame| Ipv4::of_frame(frame).filter(is_request));
    assert_eq!(got.map(|packet| packet.ttl), Some(19));
}

//@ guest: 6.1
#[test]
fn a_packet_whose_ttl_runs_out_is_answered_by_the_own_gateway() {
    let fleet = Fleet::up(2);
    let (one, _other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    let before = fleet[0].counters();
    let answer = one.sh_fails(&format!("ping -c 1 -W 2 -t 1 {}", overlay(1, 2)));
    let expected = format!("From {} icmp_seq=1 Time to live exceeded", overlay(0, 1));
    assert!(answer.stdout.contains(&expected), "{answer}");
    let counted = fleet[0].counters().since(&before);
    assert_eq!(counted.of("endpoint-ingress", "answered-ttl-exceeded"), 1, "{counted}");
    let passed = one.sh(&format!("ping -c 1 -W 2 -t 2 {}", overlay(1, 2)));
    assert!(passed.contains("1 received"));
}

//@ guest
#[test]
fn traceroute_shows_the_own_gateway_and_then_the_container() {
    if !tools::available(&["traceroute"]) {
        return;
    }
    let fleet = Fleet::up(2);
    let (one, _other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    for method in ["-I", "-U"] {
        let target = overlay(1, 2).to_string();
        let shown = one.command("traceroute").args(["-n", method, "-q", "1", "-w", "2", &target]).ok();
        let hop = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
        let hops: Vec<_> = shown.lines().skip(1).filter_map(hop).collect();
        assert_eq!(hops, [overlay(0, 1).to_string(), target], "{shown}");
    }
}
