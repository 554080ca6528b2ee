//! What an endpoint must not say, because others would take it for this host's.

use super::{
    service::{VIP, answer, datagram, named, serving},
    *,
};
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
        let to_vip = datagram(source, VIP);
        assert_eq!(by_local_hooks(&to_vip, &serving(REMOTE)), [refused.name(); 2]);
    }
}

#[test]
fn a_path_is_learnt_from_errors_alone_that_ours_can_have_caused() {
    let world = world();
    let ours = Frame::new(LOCAL, REMOTE, 17, &[0; 1460]).carried(HERE, THERE).with(20, &[0x40, 0]);
    let not_ours = Outcome::PassNotOurs.name();
    let learnt = "learn 1280 to ac1e001b";
    assert_eq!(needed_by(&ours, 1300, 28).sent_by_underlay(&world), learnt);
    assert_eq!(needed_by(&ours, 1300, 200).sent_by_underlay(&world), learnt, "quoting more");
    for (changed, why) in [
        (ours.clone().with(16, &1300u16.to_be_bytes()), "it fits"),
        (ours.clone().with(16, &100u16.to_be_bytes()), "it is small"),
        (ours.clone().with(20, &[0, 0]), "it may be fragmented"),
        (ours.clone().with(14, &[0x46]), "ours have no options"),
        (ours.clone().with(23, &[17]), "no tunnel packet"),
    ] {
        assert_eq!(needed_by(&changed, 1300, 28).sent_by_underlay(&world), not_ours, "{why}");
    }
    let mut damaged = needed_by(&ours, 1300, 28);
    damaged.bytes[69] ^= 1;
    assert_eq!(damaged.sent_by_underlay(&world), not_ours, "its checksum is wrong");
    assert_eq!(needed_by(&ours, 1300, 20).sent_by_underlay(&world), not_ours, "it quotes too little");
    let cut = needed_by(&ours, 1300, 200).meta(|meta| meta.len -= 1);
    assert_eq!(cut.sent_by_underlay(&world), not_ours, "it is cut");
}

const CLIENT: u32 = 0x0a00_0005;

/// The answer of a backend elsewhere to a client that routes its packets to this host.
fn carried_answer(world: &Memory, client: u32, ttl: u8) -> String {
    let sent = datagram(client, VIP);
    let hook = if client == HERE { Hook::HostEgress } else { Hook::UplinkIngress };
    let forwarded = complete(hook, sent.bytes.as_slice(), &sent.meta, world);
    assert_eq!(u32::from_be(forwarded.rewrite.src), GATEWAY);
    let back = answer(REMOTE, GATEWAY).with_dport(forwarded.rewrite.sport).with(22, &[ttl]);
    named(&back.carried(THERE, HERE).sent_by_underlay(world))
}

#[test]
fn nothing_is_routed_out_of_a_tunnel_packet_on_its_last_hop() {
    let world = serving(REMOTE);
    for ttl in [0, 1] {
        // The first is of no established flow, the others of one.
        assert_eq!(carried_answer(&world, CLIENT, ttl), Outcome::DropTtlExceeded.name());
        assert_eq!(carried_answer(&world, CLIENT, ttl), Outcome::DropTtlExceeded.name());
    }
    let routed = "from VIP to CLIENT, decapsulate and route tos 00";
    assert_eq!(carried_answer(&world, CLIENT, 2), routed);
    let to_this_host = "from VIP to HERE, decapsulate and route tos 00";
    assert_eq!(carried_answer(&world, HERE, 1), to_this_host, "which ends here");
}

#[test]
fn an_answer_from_outside_to_this_host_itself_may_be_on_its_last_hop() {
    const SERVER: u32 = 0x0a00_0009;
    let world = serving(SERVER);
    let sent = datagram(HERE, VIP).by_host(&world);
    let (rewrite, _) = route_of(sent.words);
    let back = answer(SERVER, HERE).with_dport(rewrite.sport).with(22, &[1]);
    assert_eq!(named(&back.sent_by_underlay(&world)), "from VIP to HERE, route");
}

#[test]
fn the_stack_has_counted_the_hops_of_what_it_sends() {
    let world = serving(LOCAL);
    let sent = datagram(GATEWAY, VIP).with(22, &[1]).by_host(&world);
    assert_eq!(named(&describe(&sent)), "from GATEWAY to LOCAL, deliver to 7");
    assert!(!sent.out.is_routed);
    let frame = datagram(NEIGHBOUR, VIP).meta(|meta| meta.ifindex = 8);
    let routed = complete(Hook::EndpointIngress, frame.bytes.as_slice(), &frame.meta, &world);
    assert_eq!(named(&describe(&routed)), "from NEIGHBOUR to LOCAL, deliver to 7");
    assert!(routed.out.is_routed);
}

fn echo(src: u32, dst: u32) -> Frame {
    Frame::new(src, dst, PROTO_ICMP, &[8, 0, 0, 0, 0, 1, 0, 1])
}

#[test]
fn a_vip_serves_no_source_that_is_nobodys_or_its_own() {
    let world = serving(REMOTE);
    let bad = Outcome::DropBadSource.name();
    for source in [0x7f00_0001, 0xe000_0001, u32::MAX, 0, VIP] {
        let closed = datagram(source, VIP).with(36, &[0, 10]);
        for frame in [echo(source, VIP), datagram(source, VIP), closed, echo(source, VIP).with(22, &[1])] {
            assert_eq!(frame.sent_by_underlay(&world), bad, "{source:x}");
            assert_eq!(frame.sent_by_host(&world), bad, "{source:x}");
        }
    }
}

#[test]
fn a_vip_answers_pings_that_come_whole_and_says_nothing_of_others() {
    let world = serving(REMOTE);
    for frags in [[0x20, 0], [0x20, 9], [0, 9]] {
        let part = echo(LOCAL, VIP).with(20, &frags);
        assert_eq!(part.sent_by_endpoint(&world), Outcome::DropIcmpFragment.name());
        assert_eq!(
            echo(CLIENT, VIP).with(20, &frags).sent_by_underlay(&world),
            Outcome::DropIcmpFragment.name()
        );
    }
    assert_eq!(echo(LOCAL, VIP).sent_by_endpoint(&world), "answer the echo request");
}

#[test]
fn only_a_vip_is_answered_for_when_a_ttl_runs_out() {
    let mut world = serving(REMOTE);
    world.balancer.suspects.insert(CLIENT.to_be());
    for ttl in [0, 1] {
        let last = |src, dst| datagram(src, dst).with(22, &[ttl]);
        assert_eq!(last(LOCAL, CLIENT).sent_by_endpoint(&world), Outcome::PassNotOurs.name());
        assert_eq!(last(0x0a00_0009, CLIENT).sent_by_underlay(&world), Outcome::PassNotOurs.name());
    }
    let told = datagram(LOCAL, VIP).with(22, &[1]).sent_by_endpoint(&world);
    assert_eq!(named(&told), "answered-ttl-exceeded TtlExceeded from GATEWAY");
}

#[test]
fn priority_tags_hide_nothing_and_others_are_not_ours() {
    let tagged = |kind: [u8; 2], id: [u8; 2]| {
        let mut frame = Frame::new(LOCAL, THERE, PROTO_IPIP, &[0; 64]);
        frame.bytes.splice(12..12, [kind, id].concat());
        frame
    };
    for kind in [[0x81, 0], [0x88, 0xa8]] {
        assert_decided(
            &tagged(kind, [0, 0]),
            Outcome::DropStackedTags,
            "behind a tag that the kernel took out",
        );
        assert_decided(&tagged(kind, [0xe0, 0]), Outcome::DropStackedTags, "with a priority");
        assert_decided(&tagged(kind, [0, 5]), Outcome::PassNotOurs, "of a VLAN");
        let outer = tagged(kind, [0, 0]).meta(|meta| meta.foreign_vlan = true);
        assert_decided(&outer, Outcome::PassNotOurs, "inside a VLAN");
    }
}
