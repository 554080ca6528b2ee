//! What packet filters of the host's have to see.

use super::{
    service::{VIP, answer, datagram, named, serving},
    *,
};
use crate::abi::{Config, TRACKED_MARK};

fn filtered(mut world: Memory) -> Memory {
    world.config.detours |= Config::FILTERED;
    world
}

#[test]
fn packets_between_overlay_addresses_go_by_the_stack() {
    let world = filtered(world());
    for destination in [REMOTE, NEIGHBOUR] {
        let sent = Frame::udp(LOCAL, destination);
        assert_eq!(sent.sent_by_endpoint(&world), "filtered");
        assert_eq!(
            complete(Hook::BridgeIngress, &*sent.bytes, &sent.meta, &world).outcome,
            Outcome::PassFiltered
        );
    }
    let arrived = Frame::udp(REMOTE, LOCAL).carried(THERE, HERE);
    assert_eq!(arrived.sent_by_underlay(&world), "decapsulate filtered tos 00");
}

#[test]
fn what_the_stack_has_sent_goes_on() {
    let world = filtered(world());
    assert_eq!(Frame::udp(LOCAL, REMOTE).sent_by_host(&world), "encapsulate to ac1e001b routed false");
    let world = filtered(serving(NEIGHBOUR));
    assert_eq!(
        named(&datagram(GATEWAY, VIP).sent_by_host(&world)),
        "from GATEWAY to NEIGHBOUR, deliver to 8"
    );
}

#[test]
fn what_is_refused_or_answered_is_so_as_ever() {
    let world = filtered(world());
    let spent = Frame::udp(LOCAL, REMOTE).with(22, &[1]);
    assert_eq!(spent.sent_by_endpoint(&world), "answered-ttl-exceeded TtlExceeded from fa001c01");
    assert_eq!(Frame::udp(NEIGHBOUR, REMOTE).sent_by_endpoint(&world), Outcome::DropWrongEndpoint.name());
    assert_eq!(Frame::udp(LOCAL, GATEWAY).sent_by_endpoint(&world), Outcome::PassToHost.name());
    let spoofed = Frame::udp(0xfa00_1a02, LOCAL).carried(THERE, HERE);
    assert_eq!(spoofed.sent_by_underlay(&world), Outcome::DropSpoofedSource.name());
}

#[test]
fn another_fans_packets_are_left_alone() {
    let mut world = world();
    world.config.detours |= Config::filtered(1);
    assert_eq!(Frame::udp(LOCAL, REMOTE).sent_by_endpoint(&world), "encapsulate to ac1e001b routed true");
    let arrived = Frame::udp(REMOTE, LOCAL).carried(THERE, HERE);
    assert_eq!(arrived.sent_by_underlay(&world), "decapsulate to Some(7) tos 00");
}

#[test]
fn packets_of_a_service_go_by_the_stack_translated() {
    let world = filtered(serving(REMOTE));
    assert_eq!(named(&datagram(LOCAL, VIP).sent_by_endpoint(&world)), "from LOCAL to REMOTE, filtered");
    let back = answer(REMOTE, LOCAL).carried(THERE, HERE).sent_by_underlay(&world);
    assert_eq!(named(&back), "from VIP to LOCAL, decapsulate filtered tos 00");
    let world = filtered(serving(NEIGHBOUR));
    assert_eq!(named(&datagram(LOCAL, VIP).sent_by_endpoint(&world)), "from LOCAL to NEIGHBOUR, filtered");
}

#[test]
fn who_speaks_from_beyond_the_overlays_meets_filters_on_the_backends_host() {
    let client = 0x0a00_0005;
    let world = filtered(serving(LOCAL));
    assert_eq!(named(&datagram(client, VIP).sent_by_underlay(&world)), "from CLIENT to LOCAL, filtered");
    let world = filtered(serving(REMOTE));
    let decided = named(&datagram(client, VIP).sent_by_underlay(&world));
    assert_eq!(decided, "from GATEWAY to REMOTE, encapsulate to ac1e001b routed true");
}

#[test]
fn what_comes_to_the_bridge_translated_is_not_decided_again() {
    let world = filtered(serving(REMOTE));
    let sent = datagram(LOCAL, REMOTE).meta(|meta| meta.mark = TRACKED_MARK);
    let decided = complete(Hook::BridgeIngress, &*sent.bytes, &sent.meta, &world);
    assert_eq!(decided.outcome, Outcome::PassFiltered);
    assert_eq!(decided.action, Action::Pass);
}
