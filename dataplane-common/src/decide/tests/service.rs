//! Packets to and from services, hook by hook.

use super::*;
use crate::{
    abi::{BackendRecord, ServiceWord},
    wire::{PROTO_ICMP, PROTO_TCP, PROTO_UDP},
};

pub(super) const VIP: u32 = 0x0a60_000a; // 10.96.0.10
const TO_REMOTE: &str = "from LOCAL to REMOTE, encapsulate to ac1e001b routed true";

/// [`world`] with `VIP:9` over UDP and TCP on one backend, which serves that port too.
pub(super) fn serving(backend: u32) -> Memory {
    let mut world = world();
    let word = ServiceWord { base: 0, ring: 0, log2_bits: 0, flags: 0 };
    for protocol in [PROTO_UDP, PROTO_TCP] {
        world.balancer.services.insert((VIP.to_be(), 9u16.to_be(), protocol), (0, word));
    }
    let (address, port) = (backend.to_be(), 9u16.to_be());
    world.balancer.backends = vec![BackendRecord { address, port, flags: 0, service: 0, generation: 0 }];
    world.config.services = 1;
    world
}

/// From port 7 of one address to port 9 of another.
pub(super) fn datagram(src: u32, dst: u32) -> Frame {
    let mut payload = [0; 64];
    payload[..4].copy_from_slice(&[0, 7, 0, 9]);
    Frame::new(src, dst, PROTO_UDP, &payload)
}

/// The answer to it.
pub(super) fn answer(src: u32, dst: u32) -> Frame {
    let mut payload = [0; 64];
    payload[..4].copy_from_slice(&[0, 9, 0, 7]);
    Frame::new(src, dst, PROTO_UDP, &payload)
}

/// What was decided, with addresses by name.
pub(super) fn named(decided: &str) -> String {
    let names = [
        (LOCAL, "LOCAL"),
        (NEIGHBOUR, "NEIGHBOUR"),
        (REMOTE, "REMOTE"),
        (GATEWAY, "GATEWAY"),
        (VIP, "VIP"),
        (HERE, "HERE"),
        (0x0a00_0005, "CLIENT"),
        (0x0a00_0009, "SERVER"),
    ];
    names
        .iter()
        .fold(decided.to_owned(), |text, (address, name)| text.replace(&format!("{address:08x}"), name))
}

#[test]
fn a_packet_to_a_vip_goes_where_its_backend_lives_and_the_answer_comes_from_the_vip() {
    let world = serving(REMOTE);
    assert_eq!(named(&datagram(LOCAL, VIP).sent_by_endpoint(&world)), TO_REMOTE);
    let back = answer(REMOTE, LOCAL).carried(THERE, HERE).sent_by_underlay(&world);
    assert_eq!(named(&back), "from VIP to LOCAL, decapsulate to Some(7) tos 00");
    let world = serving(NEIGHBOUR);
    assert_eq!(
        named(&datagram(LOCAL, VIP).sent_by_endpoint(&world)),
        "from LOCAL to NEIGHBOUR, deliver to 8"
    );
    let back = answer(NEIGHBOUR, LOCAL).meta(|meta| meta.ifindex = 8).sent_by_endpoint(&world);
    assert_eq!(named(&back), "from VIP to LOCAL, deliver to 7");
}

#[test]
fn an_answer_that_the_bridge_would_switch_to_its_client_comes_from_the_vip() {
    let world = serving(NEIGHBOUR);
    let switched = |frame: Frame| {
        let frame = frame.with(0, &[2, 0, 0, 0, 0, 7]).meta(|meta| (meta.ifindex, meta.to_us) = (8, false));
        named(&frame.sent_by_endpoint(&world))
    };
    assert_eq!(switched(answer(NEIGHBOUR, LOCAL)), Outcome::PassNotOurs.name(), "no flow");
    assert_eq!(
        named(&datagram(LOCAL, VIP).sent_by_endpoint(&world)),
        "from LOCAL to NEIGHBOUR, deliver to 8"
    );
    assert_eq!(switched(answer(NEIGHBOUR, LOCAL)), "from VIP to LOCAL, deliver to 7");
    assert_eq!(switched(datagram(NEIGHBOUR, LOCAL)), Outcome::PassNotOurs.name(), "another port");
}

#[test]
fn a_process_of_the_host_is_served_as_an_endpoint_is() {
    let world = serving(REMOTE);
    let sent = datagram(GATEWAY, VIP).by_host(&world);
    assert_eq!(named(&describe(&sent)), "from GATEWAY to REMOTE, encapsulate to ac1e001b routed false");
    // The host's other connections may use the client's own port towards the backend, and no program sees them.
    assert!(u16::from_be(sent.rewrite.sport) >= 61_000, "{sent:?}");
    let back =
        answer(REMOTE, GATEWAY).with_dport(sent.rewrite.sport).carried(THERE, HERE).sent_by_underlay(&world);
    assert_eq!(named(&back), "from VIP to GATEWAY, decapsulate to None tos 00");
    let world = serving(LOCAL);
    let sent = datagram(GATEWAY, VIP).by_host(&world);
    assert_eq!(named(&describe(&sent)), "from GATEWAY to LOCAL, deliver to 7");
    let back = answer(LOCAL, GATEWAY).with_dport(sent.rewrite.sport).sent_by_endpoint(&world);
    assert_eq!(named(&back), "from VIP to GATEWAY, deliver to the host");
}

#[test]
fn options_are_for_the_stack_and_then_removed() {
    let world = serving(REMOTE);
    let frame = datagram(LOCAL, VIP).with(14, &[0x46]);
    assert_eq!(frame.sent_by_endpoint(&world), Outcome::PassSlowPath.name());
    assert_eq!(frame.sent_by_host(&world), "remove options");
    assert_eq!(datagram(0x0a00_0005, VIP).with(14, &[0x4f]).sent_by_host(&world), "remove options");
    let impossible = datagram(LOCAL, VIP).with(14, &[0x46]).with(16, &[0, 20]);
    assert_eq!(
        named(&impossible.sent_by_host(&world)),
        "refused-no-service PortUnreachable from GATEWAY",
        "longer than the packet"
    );
}

#[test]
fn where_an_answer_would_pass_no_program_the_backend_answers_the_vip() {
    let world = serving(NEIGHBOUR);
    let frame = datagram(LOCAL, VIP);
    let verdict = complete(Hook::BridgeIngress, frame.bytes.as_slice(), &frame.meta, &world);
    assert_eq!(named(&describe(&verdict)), "from VIP to NEIGHBOUR, deliver to 8");
    let back = answer(NEIGHBOUR, VIP);
    let verdict = complete(Hook::BridgeIngress, back.bytes.as_slice(), &back.meta, &world);
    assert_eq!(named(&describe(&verdict)), "from VIP to LOCAL, deliver to 7");
    let world = serving(LOCAL);
    assert_eq!(named(&datagram(LOCAL, VIP).sent_by_endpoint(&world)), "from VIP to LOCAL, deliver to 7");
    let world = serving(GATEWAY);
    assert_eq!(
        named(&datagram(LOCAL, VIP).sent_by_endpoint(&world)),
        "from VIP to GATEWAY, deliver to the host"
    );
    assert_eq!(named(&answer(GATEWAY, VIP).sent_by_host(&world)), "from VIP to LOCAL, deliver to 7");
}

#[test]
fn what_belongs_to_no_service_is_left_as_it_is() {
    let mut world = serving(REMOTE);
    let direct = answer(REMOTE, LOCAL).carried(THERE, HERE).sent_by_underlay(&world);
    assert_eq!(direct, "decapsulate to Some(7) tos 00");
    assert_eq!(datagram(LOCAL, 0x0808_0808).sent_by_endpoint(&world), Outcome::PassNotOurs.name());
    assert_eq!(datagram(0x0808_0808, VIP).sent_by_endpoint(&world), Outcome::PassNotOurs.name());
    world.config.services = 0;
    assert_eq!(datagram(LOCAL, VIP).sent_by_endpoint(&world), Outcome::PassNotOurs.name());
    assert_eq!(datagram(GATEWAY, VIP).sent_by_host(&world), Outcome::DropNoFan.name());
}

#[test]
fn what_a_vip_cannot_serve_is_refused_as_a_closed_port_refuses() {
    let mut world = serving(REMOTE);
    let refused = |world: &Memory, frame: Frame| named(&frame.sent_by_endpoint(world));
    let closed = datagram(LOCAL, VIP).with(36, &[0, 10]);
    assert_eq!(refused(&world, closed), "refused-no-service PortUnreachable from GATEWAY");
    let fragment = datagram(LOCAL, VIP).with(20, &[0, 1]);
    assert_eq!(refused(&world, fragment), Outcome::DropFragmentEarly.name());
    let nobody = Frame::new(LOCAL, VIP, PROTO_ICMP, &[13, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(refused(&world, nobody), "refused-no-service PortUnreachable from GATEWAY");
    for (_, word) in world.balancer.services.values_mut() {
        word.flags = ServiceWord::EMPTY;
    }
    let syn = |flags: u8| datagram(LOCAL, VIP).with(23, &[PROTO_TCP]).with(46, &[0x50, flags]);
    assert_eq!(refused(&world, syn(2)), "refused-no-backend by reset");
    assert_eq!(refused(&world, syn(4)), Outcome::RefusedNoBackend.name(), "a reset is not answered");
    assert_eq!(refused(&world, datagram(LOCAL, VIP)), "refused-no-backend PortUnreachable from GATEWAY");
}

#[test]
fn an_echo_request_to_a_vip_is_answered_and_one_on_its_last_hop_is_told() {
    let world = serving(REMOTE);
    let echo = Frame::new(LOCAL, VIP, PROTO_ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(echo.clone().sent_by_endpoint(&world), "answer the echo request");
    let last = datagram(LOCAL, VIP).with(22, &[1]).sent_by_endpoint(&world);
    assert_eq!(named(&last), "answered-ttl-exceeded TtlExceeded from GATEWAY");
}

#[test]
fn a_flow_to_a_process_of_the_host_ends_where_its_packets_have_no_hop_left() {
    let world = serving(GATEWAY);
    let sent = |ttl| named(&datagram(LOCAL, VIP).with(22, &[ttl]).sent_by_endpoint(&world));
    let begun = sent(64);
    assert_eq!(named(&answer(GATEWAY, VIP).sent_by_host(&world)), "from VIP to LOCAL, deliver to 7");
    assert_eq!(sent(1), begun, "the host is the last hop");
    assert_eq!(sent(0), Outcome::DropTtlExceeded.name());
}

#[test]
fn a_packet_too_large_for_the_way_to_its_backend_is_answered() {
    let world = serving(REMOTE);
    let large = Frame::new(LOCAL, VIP, PROTO_UDP, &{
        let mut payload = vec![0; 1480];
        payload[..4].copy_from_slice(&[0, 7, 0, 9]);
        payload
    });
    let told = large.with(20, &[0x40, 0]).sent_by_endpoint(&world);
    assert_eq!(named(&told), "answered-too-big FragmentationNeeded 1480 from GATEWAY");
}
