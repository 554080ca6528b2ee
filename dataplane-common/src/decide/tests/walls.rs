//! What an endpoint must not say, because others would take it for this host's.

use super::{service::serving, *};
use crate::wire::{PROTO_GRE, PROTO_ICMP, PROTO_IPV6};

/// Another fan's underlay.
const ELSEWHERE: u32 = 0x0a63_0001;

fn by_local_hooks(frame: &Frame, world: &Memory) -> [String; 2] {
    [Hook::EndpointIngress, Hook::BridgeIngress]
        .map(|hook| describe(&complete(hook, frame.bytes.as_slice(), &frame.meta, world)))
}

#[track_caller]
fn assert_decided(frame: &Frame, outcome: Outcome, why: &str) {
    for world in [world(), serving(REMOTE)] {
        assert_eq!(by_local_hooks(frame, &world), [outcome.name(); 2], "{why}");
    }
}

#[test]
fn an_endpoint_sends_no_tunnel_packets_to_the_underlay() {
    for protocol in [PROTO_IPIP, PROTO_IPV6, PROTO_GRE] {
        // Nothing checks a source that is not the slice's.
        for source in [LOCAL, HERE, THERE + 1, 0x0a00_0001] {
            let frame = Frame::new(source, THERE, protocol, &[0; 64]);
            assert_decided(&frame, Outcome::DropEndpointTunnel, "a tunnel packet");
            assert_decided(
                &frame.clone().with(20, &[0x20, 0]),
                Outcome::DropEndpointTunnel,
                "its first fragment",
            );
            assert_decided(&frame.clone().with(20, &[0, 9]), Outcome::DropEndpointTunnel, "a later one");
            assert_decided(&frame.with(14, &[0x46]), Outcome::DropEndpointTunnel, "with options");
        }
        assert_decided(&Frame::new(LOCAL, ELSEWHERE, protocol, &[0; 64]), Outcome::PassNotOurs, "to others");
    }
    assert_decided(&Frame::udp(LOCAL, THERE), Outcome::PassNotOurs, "no tunnel packet");
    let mut two = world();
    two.config.fans[1] =
        FanRecord { overlay: 251 << 24, underlay: ELSEWHERE & mask(16), slot: 1, ..two.config.fans[0] };
    two.config.fan_slots = 2;
    let tunnel = Frame::new(LOCAL, ELSEWHERE, PROTO_IPIP, &[0; 64]);
    assert_eq!(by_local_hooks(&tunnel, &two), [Outcome::DropEndpointTunnel.name(); 2], "of another fan");
}

#[test]
fn tunnel_packets_between_containers_are_carried_as_any_other() {
    let nested = Frame::new(LOCAL, REMOTE, PROTO_IPIP, &[0; 64]);
    assert_eq!(nested.sent_by_endpoint(&world()), "encapsulate to ac1e001b routed true");
}

/// "Fragmentation needed" of an endpoint to another host, quoting that host's tunnel packet.
fn lie(options: &[u8], about: &Frame) -> Frame {
    let mut message = options.to_vec();
    message.extend([3, 4, 0, 0, 0, 0, 2, 88]);
    message.extend(&about.bytes[14..42]);
    Frame::new(LOCAL, THERE, PROTO_ICMP, &message).with(14, &[0x45 + (options.len() / 4) as u8])
}

#[test]
fn an_endpoint_tells_no_host_how_large_its_tunnel_packets_may_be() {
    let quoted = Frame::udp(REMOTE, LOCAL).carried(THERE, HERE);
    let dropped = Outcome::DropEndpointError;
    assert_decided(&lie(&[], &quoted), dropped, "as routers tell it");
    assert_decided(&lie(&[1; 8], &quoted), dropped, "behind options");
    assert_decided(&lie(&[], &quoted).with(34, &[11, 0]), dropped, "that its TTL ran out");
    let first = lie(&[], &Frame::udp(0x0a00_0001, LOCAL)).with(20, &[0x20, 0]);
    assert_decided(&first, dropped, "in fragments, which may quote anything");
}

#[test]
fn other_icmp_messages_of_an_endpoint_pass() {
    let passed = Outcome::PassNotOurs;
    assert_decided(&lie(&[], &Frame::udp(THERE, LOCAL)), passed, "about a packet to the endpoint");
    let foreign = Frame::udp(REMOTE, LOCAL).carried(ELSEWHERE, HERE);
    assert_decided(&lie(&[], &foreign), passed, "about others' tunnel packets");
    let ping = Frame::new(LOCAL, THERE, PROTO_ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]);
    assert_decided(&ping, passed, "a ping");
    assert_decided(&ping.clone().with(20, &[0x20, 0]), passed, "a large ping");
    assert_decided(&ping.with(20, &[0, 9]), passed, "the rest of it");
    assert_decided(&Frame::new(LOCAL, THERE, PROTO_ICMP, &[3, 4, 0]), passed, "cut before what it quotes");
}

#[test]
fn an_endpoint_speaks_neither_as_the_gateway_nor_from_an_address_that_is_nobodys() {
    let refused = Outcome::DropWrongEndpoint;
    for source in [GATEWAY, 0xfa00_1c00, 0xfa00_1cff] {
        for destination in [REMOTE, NEIGHBOUR, GATEWAY, 0xfa00_1c63] {
            assert_decided(&Frame::udp(source, destination), refused, &format!("{source:x}"));
        }
        let to_vip = service::datagram(source, service::VIP);
        assert_eq!(by_local_hooks(&to_vip, &serving(REMOTE)), [refused.name(); 2]);
    }
}
