//! From the underlay.

//@ guest: 6.1

use dataplane_common::outcome::{Hook, Outcome};
use fanlight_tests::packet::{self, Ipv4};

use super::*;

/// The program on the uplink.
struct Uplink(MutexGuard<'static, Engine>);

impl Uplink {
    fn new() -> Self {
        Self(engine())
    }

    #[track_caller]
    fn expect(&mut self, packet: &Ipv4, outcome: Outcome, output: Option<Vec<u8>>) {
        expect(&mut self.0, Hook::UplinkIngress, arrived(packet), outcome, output);
    }
}

#[test]
fn fan_tunnel_packets_come_out_as_they_went_in_addressed_to_the_endpoint() {
    let mut uplink = Uplink::new();
    let inner = udp(REMOTE, LOCAL);
    let delivered = inner.frame(LOCAL_MAC, BRIDGE_MAC);
    uplink.expect(&received(&inner), Outcome::Decapsulated, Some(delivered));
}

#[test]
fn fan_tunnel_packets_to_the_gateway_and_to_unknown_endpoints_go_to_the_helper_device() {
    let mut uplink = Uplink::new();
    for destination in [GATEWAY, Ipv4Addr::new(250, 0, 28, 77)] {
        let inner = udp(REMOTE, destination);
        let handed = inner.frame(HELPER_MAC, [0; 6]);
        uplink.expect(&received(&inner), Outcome::DecapsulatedToHost, Some(handed));
    }
}

#[test]
fn fan_congestion_and_service_class_come_out_of_the_tunnel() {
    let mut uplink = Uplink::new();
    for (inner_tos, outer_tos, expected) in [(0x02, 0x03, 0x03), (0x00, 0xb8, 0xb8), (0xb9, 0x20, 0x21)] {
        let inner = udp(REMOTE, LOCAL).with(|packet| packet.tos = inner_tos);
        let outer = received(&inner).with(|packet| packet.tos = outer_tos);
        let delivered = inner.with(|packet| packet.tos = expected).frame(LOCAL_MAC, BRIDGE_MAC);
        uplink.expect(&outer, Outcome::Decapsulated, Some(delivered));
    }
    let outer = received(&udp(REMOTE, LOCAL)).with(|packet| packet.tos = 0x03);
    uplink.expect(&outer, Outcome::DropEcn, None);
}

#[test]
fn fan_a_source_that_does_not_compute_to_the_sender_is_refused() {
    let mut uplink = Uplink::new();
    let elsewhere = Ipv4Addr::new(250, 0, 26, 2);
    for source in [elsewhere, OUTSIDE, LOCAL] {
        uplink.expect(&received(&udp(source, LOCAL)), Outcome::DropSpoofedSource, None);
    }
}

#[test]
fn fan_a_destination_of_another_slice_is_refused() {
    let mut uplink = Uplink::new();
    for destination in [Ipv4Addr::new(250, 0, 29, 2), OUTSIDE] {
        uplink.expect(&received(&udp(REMOTE, destination)), Outcome::DropNotOurSlice, None);
    }
}

#[test]
fn fan_malformed_tunnel_packets_are_dropped_with_their_reason() {
    let mut uplink = Uplink::new();
    let inner = udp(REMOTE, LOCAL);
    let outer = received(&inner);
    for (packet, outcome) in [
        (received(&inner).with(|p| p.payload.truncate(12)), Outcome::DropTruncated),
        (received(&inner).with(|p| p.payload.truncate(40)), Outcome::DropTruncated),
        (outer.clone().with(|p| p.total_len = Some(1400)), Outcome::DropTruncated),
        (received(&inner.clone().with(|p| p.version_ihl = Some(0x65))), Outcome::DropBadHeader),
        (received(&inner.clone().with(|p| p.version_ihl = Some(0x44))), Outcome::DropBadHeader),
        (outer.clone().with(|p| p.check = Some(0x1234)), Outcome::DropBadChecksum),
        (outer.clone().with(|p| p.frags = Ipv4::MF), Outcome::DropOuterFragment),
        (outer.clone().with(|p| p.frags = 3), Outcome::DropOuterFragment),
    ] {
        uplink.expect(&packet, outcome, None);
    }
}

#[test]
fn fan_what_is_not_ours_passes_untouched() {
    let mut uplink = Uplink::new();
    let inner = udp(REMOTE, LOCAL);
    for packet in [
        inner.inside(THERE, ROUTER),
        inner.inside(OUTSIDE, HERE),
        received(&udp(OUTSIDE, Ipv4Addr::new(10, 0, 0, 1))),
        udp(THERE, HERE),
        Ipv4::echo(THERE, HERE, 1, 1, b"ping"),
        Ipv4::new(THERE, HERE, packet::TCP, vec![0; 20]),
    ] {
        uplink.expect(&packet, Outcome::PassNotOurs, None);
    }
    let arp = [&[0xff; 6][..], &WIRE_MAC, &[0x08, 0x06], &[0; 28]].concat();
    expect(&mut uplink.0, Hook::UplinkIngress, arp, Outcome::PassNotOurs, None);
}

#[test]
fn fan_outer_options_are_left_to_the_stack() {
    let mut uplink = Uplink::new();
    let outer = received(&udp(REMOTE, LOCAL)).with(|packet| packet.options = vec![1, 1, 1, 0]);
    uplink.expect(&outer, Outcome::PassSlowPath, None);
}

#[test]
fn fan_a_vlan_tag_makes_a_packet_somebody_elses_unless_it_only_carries_a_priority() {
    let inner = udp(REMOTE, LOCAL);
    let tagged =
        |vlan| Packet { number: 1, frame: arrived(&received(&inner)), vlan: Some(vlan), ..Packet::default() };
    let mut engine = engine();
    let foreign = engine.run(Hook::UplinkIngress, &tagged(5)).expect("it runs");
    assert_eq!((foreign.outcome, foreign.output), (Outcome::PassNotOurs, None));
    let priority = engine.run(Hook::UplinkIngress, &tagged(0)).expect("it runs");
    assert_eq!(priority.outcome, Outcome::Decapsulated);
    assert_eq!(priority.output, Some(inner.frame(LOCAL_MAC, BRIDGE_MAC)));
}
