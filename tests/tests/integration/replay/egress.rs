//! From endpoints and from the host's stack.

//@ guest: 6.1

use dataplane_common::outcome::{Hook, Outcome};
use fanlight_tests::packet::{self, Ipv4};

use super::*;

fn one_hop_less(packet: Ipv4) -> Ipv4 {
    packet.with(|packet| packet.ttl -= 1)
}

#[test]
fn fan_an_endpoints_packet_is_encapsulated_with_one_hop_less() {
    let mut engine = engine();
    let packet = udp(LOCAL, REMOTE).with(|packet| {
        packet.tos = 0xb9;
        packet.frags = Ipv4::DF;
    });
    for hook in [Hook::EndpointIngress, Hook::BridgeIngress] {
        let out = carried(&one_hop_less(packet.clone())).frame(BRIDGE_MAC, LOCAL_MAC);
        expect(&mut engine, hook, sent(&packet), Outcome::Encapsulated, Some(out));
    }
}

#[test]
fn fan_a_fragment_is_encapsulated_as_it_is_and_the_outer_packet_forbids_more() {
    let mut engine = engine();
    let fragment = udp(LOCAL, REMOTE).with(|packet| packet.frags = Ipv4::MF | 185);
    let out = carried(&one_hop_less(fragment.clone()));
    assert_eq!(out.frags, Ipv4::DF);
    let out = out.frame(BRIDGE_MAC, LOCAL_MAC);
    expect(&mut engine, Hook::EndpointIngress, sent(&fragment), Outcome::Encapsulated, Some(out));
}

#[test]
fn fan_the_largest_packet_fits() {
    let mut engine = engine();
    let largest = Ipv4::udp((LOCAL, 1), (REMOTE, 2), &[7; 1452]).with(|packet| packet.frags = Ipv4::DF);
    assert_eq!(largest.bytes().len(), 1480);
    let out = carried(&one_hop_less(largest.clone())).frame(BRIDGE_MAC, LOCAL_MAC);
    expect(&mut engine, Hook::EndpointIngress, sent(&largest), Outcome::Encapsulated, Some(out));
}

#[test]
fn fan_a_neighbour_on_the_same_host_gets_the_packet_directly() {
    let mut engine = engine();
    let packet = udp(LOCAL, NEIGHBOUR);
    let out = one_hop_less(packet.clone()).frame(NEIGHBOUR_MAC, BRIDGE_MAC);
    for hook in [Hook::EndpointIngress, Hook::BridgeIngress] {
        expect(&mut engine, hook, sent(&packet), Outcome::DeliveredLocally, Some(out.clone()));
    }
}

#[test]
fn fan_what_an_endpoint_says_to_the_host_or_to_the_rest_of_the_world_passes() {
    let mut engine = engine();
    let hook = Hook::EndpointIngress;
    expect(&mut engine, hook, sent(&udp(LOCAL, GATEWAY)), Outcome::PassToHost, None);
    expect(&mut engine, hook, sent(&udp(LOCAL, OUTSIDE)), Outcome::PassNotOurs, None);
    let to_a_port = udp(LOCAL, REMOTE).frame(NEIGHBOUR_MAC, LOCAL_MAC);
    expect(&mut engine, hook, to_a_port, Outcome::PassNotOurs, None);
    let unknown = udp(LOCAL, Ipv4Addr::new(250, 0, 28, 77));
    expect(&mut engine, hook, sent(&unknown), Outcome::PassSlowPath, None);
    let options = udp(LOCAL, REMOTE).with(|packet| packet.options = vec![1, 1, 1, 0]);
    expect(&mut engine, hook, sent(&options), Outcome::PassSlowPath, None);
}

#[test]
fn fan_a_source_that_is_not_the_endpoints_is_refused() {
    let mut engine = engine();
    let foreign = sent(&udp(REMOTE, REMOTE));
    expect(&mut engine, Hook::EndpointIngress, foreign.clone(), Outcome::DropForeignSource, None);
    expect(&mut engine, Hook::BridgeIngress, foreign, Outcome::DropForeignSource, None);
    let neighbours = sent(&udp(NEIGHBOUR, REMOTE));
    expect(&mut engine, Hook::EndpointIngress, neighbours, Outcome::DropWrongEndpoint, None);
}

#[test]
fn fan_an_endpoint_speaks_neither_as_the_gateway_nor_from_an_address_that_is_nobodys() {
    let mut engine = engine();
    for source in [GATEWAY, Ipv4Addr::new(250, 0, 28, 0), Ipv4Addr::new(250, 0, 28, 255)] {
        for hook in [Hook::EndpointIngress, Hook::BridgeIngress] {
            for destination in [REMOTE, NEIGHBOUR] {
                let frame = sent(&udp(source, destination));
                expect(&mut engine, hook, frame, Outcome::DropWrongEndpoint, None);
            }
        }
    }
}

#[test]
fn fan_an_endpoint_sends_the_underlay_no_tunnel_packet_and_no_error_about_one() {
    let mut engine = engine();
    let tunnel = udp(NEIGHBOUR, REMOTE).inside(LOCAL, THERE);
    let with_options = |packet: &Ipv4| packet.clone().with(|packet| packet.options = vec![1, 1, 1, 0]);
    let about = udp(REMOTE, LOCAL).inside(THERE, HERE);
    let error = Ipv4::fragmentation_needed(LOCAL, 576, &about, 28);
    let about_ours = Ipv4::fragmentation_needed(LOCAL, 576, &udp(THERE, LOCAL), 28);
    for hook in [Hook::EndpointIngress, Hook::BridgeIngress] {
        for (packet, outcome) in [
            (tunnel.clone(), Outcome::DropEndpointTunnel),
            (with_options(&tunnel), Outcome::DropEndpointTunnel),
            (tunnel.clone().with(|packet| packet.dst = OUTSIDE), Outcome::PassNotOurs),
            (error.clone(), Outcome::DropEndpointError),
            (with_options(&error), Outcome::DropEndpointError),
            (about_ours.clone(), Outcome::PassNotOurs),
        ] {
            expect(&mut engine, hook, sent(&packet), outcome, None);
        }
    }
}

#[test]
fn fan_the_stacks_packet_is_encapsulated_with_its_ttl() {
    let mut engine = engine();
    let packet = udp(GATEWAY, REMOTE).with(|packet| packet.ttl = 1);
    let out = carried(&packet).frame(BRIDGE_MAC, LOCAL_MAC);
    expect(&mut engine, Hook::HostEgress, sent(&packet), Outcome::Encapsulated, Some(out));
}

#[test]
fn fan_the_stacks_packets_that_no_host_could_take_are_dropped_with_their_reason() {
    let mut engine = engine();
    for (packet, outcome) in [
        (udp(GATEWAY, OUTSIDE), Outcome::DropNoFan),
        (udp(GATEWAY, LOCAL), Outcome::DropLoop),
        (udp(OUTSIDE, REMOTE), Outcome::DropForeignSource),
    ] {
        expect(&mut engine, Hook::HostEgress, sent(&packet), outcome, None);
    }
    let arp = [&[0xff; 6][..], &LOCAL_MAC, &[0x08, 0x06], &[0; 28]].concat();
    expect(&mut engine, Hook::HostEgress, arp, Outcome::DropNoFan, None);
}

#[test]
fn fan_the_stacks_packet_that_is_too_large_and_may_be_fragmented_goes_back_to_the_stack() {
    let mut engine = engine();
    let packet = Ipv4::udp((GATEWAY, 1), (REMOTE, 2), &[7; 1453]);
    let handed = packet.frame(HELPER_MAC, [0; 6]);
    expect(&mut engine, Hook::HostEgress, sent(&packet), Outcome::DeliveredToHost, Some(handed));
}

#[test]
fn fan_without_a_route_to_the_other_host_the_packet_is_counted_as_refused_by_the_kernel() {
    let by_route = FanRecord { uplink: 0, ..fan() };
    let site = fanlight_tests::Site::bare("no-route");
    site.inside(|| {
        let mut engine = Engine::new(&Setup { fans: vec![by_route], ..setup() }, &[Hook::EndpointIngress])
            .expect("it loads");
        let packet = sent(&udp(LOCAL, REMOTE));
        expect(&mut engine, Hook::EndpointIngress, packet, Outcome::DropHelperFailed, None);
    });
}

#[test]
fn fan_before_anything_is_configured_nothing_is_ours() {
    let mut engine = Engine::new(
        &Setup::default(),
        &[Hook::UplinkIngress, Hook::EndpointIngress, Hook::BridgeIngress, Hook::HostEgress],
    )
    .expect("the programs load");
    expect(&mut engine, Hook::EndpointIngress, sent(&udp(LOCAL, REMOTE)), Outcome::PassNotOurs, None);
    expect(&mut engine, Hook::BridgeIngress, sent(&udp(LOCAL, REMOTE)), Outcome::PassNotOurs, None);
    expect(&mut engine, Hook::HostEgress, sent(&udp(LOCAL, REMOTE)), Outcome::DropNoFan, None);
    let tunnelled = arrived(&received(&udp(REMOTE, LOCAL)));
    expect(&mut engine, Hook::UplinkIngress, tunnelled, Outcome::PassNotOurs, None);
}

#[test]
fn fan_each_of_two_fans_takes_its_own_packets_and_a_withdrawn_one_takes_none() {
    let second = FanRecord {
        overlay: Ipv4Addr::new(251, 0, 0, 0).into(),
        slice: Ipv4Addr::new(251, 0, 28, 0).into(),
        gateway: Ipv4Addr::new(251, 0, 28, 1).into(),
        ..fan()
    };
    let mut engine = Engine::new(&Setup { fans: vec![fan(), second], ..setup() }, &[Hook::BridgeIngress])
        .expect("it loads");
    let (local, remote) = (Ipv4Addr::new(251, 0, 28, 5), Ipv4Addr::new(251, 0, 27, 5));
    for (from, to) in [(LOCAL, REMOTE), (local, remote), (LOCAL, remote), (local, REMOTE)] {
        let packet = udp(from, to);
        let out = carried(&one_hop_less(packet.clone())).frame(BRIDGE_MAC, LOCAL_MAC);
        expect(&mut engine, Hook::BridgeIngress, sent(&packet), Outcome::Encapsulated, Some(out));
    }
    assert!(engine.datapath().config().withdraw("250.0.0.0/8".parse().expect("a network")));
    expect(&mut engine, Hook::BridgeIngress, sent(&udp(LOCAL, REMOTE)), Outcome::PassNotOurs, None);
    let packet = udp(local, remote);
    let out = carried(&one_hop_less(packet.clone())).frame(BRIDGE_MAC, LOCAL_MAC);
    expect(&mut engine, Hook::BridgeIngress, sent(&packet), Outcome::Encapsulated, Some(out));
}

#[test]
fn fan_a_super_packet_is_judged_by_its_segments() {
    let mut engine = engine();
    let mut segment = vec![0; 3000];
    segment[12] = 0x50;
    let packet =
        Ipv4::new(LOCAL, REMOTE, packet::TCP, segment.clone()).with(|packet| packet.frags = Ipv4::DF);
    let mut run = |hook, frame: Vec<u8>, gso_size| {
        let verdict = engine.run(hook, &Packet { number: 1, frame, gso_size, ..Packet::default() });
        let verdict = verdict.unwrap_or_else(|error| panic!("{error}"));
        (verdict.outcome, verdict.output, verdict.unsegmented)
    };
    let out = carried(&one_hop_less(packet.clone())).frame(BRIDGE_MAC, LOCAL_MAC);
    assert_eq!(run(Hook::EndpointIngress, sent(&packet), 1440), (Outcome::Encapsulated, Some(out), true));
    let (refused, _, unsegmented) = run(Hook::EndpointIngress, sent(&packet), 1441);
    assert_eq!((refused, unsegmented), (Outcome::AnsweredTooBig, false));
    let inner = Ipv4::new(REMOTE, LOCAL, packet::TCP, segment);
    let delivered = inner.frame(LOCAL_MAC, BRIDGE_MAC);
    let arrived = arrived(&received(&inner));
    assert_eq!(run(Hook::UplinkIngress, arrived, 1440), (Outcome::Decapsulated, Some(delivered), true));
}

#[test]
fn fan_a_frame_longer_than_a_page_runs_as_well() {
    let mut engine = engine();
    let inner = Ipv4::udp((REMOTE, 1), (LOCAL, 2), &[0xa5; 15_000]);
    let delivered = inner.frame(LOCAL_MAC, BRIDGE_MAC);
    let outcome = Outcome::Decapsulated;
    expect(&mut engine, Hook::UplinkIngress, arrived(&received(&inner)), outcome, Some(delivered));
    let packet = Ipv4::udp((LOCAL, 1), (REMOTE, 2), &[0xa5; 15_000]).with(|packet| packet.frags = Ipv4::DF);
    let answer = error(3, 4, 1480, &packet).frame(LOCAL_MAC, BRIDGE_MAC);
    expect(&mut engine, Hook::EndpointIngress, sent(&packet), Outcome::AnsweredTooBig, Some(answer));
}

#[test]
fn a_frame_that_cannot_run_is_an_error_with_its_number() {
    let mut engine = engine();
    let packet = Packet { number: 7, frame: sent(&udp(LOCAL, REMOTE)), ..Packet::default() };
    let mut error =
        |packet| engine.run(Hook::EndpointIngress, &packet).expect_err("it can't run").to_string();
    let short = Packet { frame: vec![0; 13], ..packet.clone() };
    assert_eq!(error(short), "packet 7: 13 bytes are less than an Ethernet header");
    let nowhere = Packet { ifindex: Some(999_999), ..packet };
    assert_eq!(error(nowhere), "packet 7: no interface 999999 in this network namespace");
}
