//! What the host's connection tracking has to see.

use super::{
    service::{VIP, answer, datagram, serving},
    *,
};
use crate::abi::{Config, TRACKED_MARK};

const REMOTE_GATEWAY: u32 = 0xfa00_1b01;

fn marked(frame: Frame) -> Frame {
    frame.meta(|meta| meta.mark = TRACKED_MARK)
}

fn sent_to_endpoint(frame: &Frame, world: &mut Memory) -> String {
    let decided = describe(&complete(Hook::EndpointEgress, frame.bytes.as_slice(), &frame.meta, world));
    if !world.translated.borrow().is_empty() {
        world.config.detours |= Config::TRANSLATED;
    }
    decided
}

#[test]
fn an_endpoint_answers_what_was_translated_through_the_stack_and_all_else_past_it() {
    let mut world = world();
    assert_eq!(sent_to_endpoint(&datagram(REMOTE, LOCAL), &mut world), "pass-not-ours");
    assert_eq!(answer(LOCAL, REMOTE).sent_by_endpoint(&world), "encapsulate to ac1e001b routed true");
    assert_eq!(sent_to_endpoint(&marked(datagram(REMOTE, LOCAL)), &mut world), "pass-translated");
    assert_eq!(answer(LOCAL, REMOTE).sent_by_endpoint(&world), "pass-tracked");
    let others =
        [datagram(LOCAL, REMOTE), answer(LOCAL, REMOTE_GATEWAY), answer(LOCAL, REMOTE).with(23, &[6])];
    for other in others {
        assert_eq!(other.sent_by_endpoint(&world), "encapsulate to ac1e001b routed true");
    }
    assert_eq!(answer(NEIGHBOUR, REMOTE).sent_by_endpoint(&world), Outcome::DropWrongEndpoint.name());
}

#[test]
fn what_goes_to_the_host_or_beyond_the_overlays_anyway_is_not_remembered() {
    let mut world = world();
    for client in [GATEWAY, 0x0808_0808] {
        assert_eq!(sent_to_endpoint(&marked(datagram(client, LOCAL)), &mut world), "pass-not-ours");
    }
    assert!(world.translated.borrow().is_empty());
}

#[test]
fn all_fragments_of_two_that_have_a_translated_flow_go_by_the_stack() {
    let mut world = world();
    assert_eq!(sent_to_endpoint(&marked(datagram(REMOTE, LOCAL)), &mut world), "pass-translated");
    for frags in [[0x20, 0], [0, 9]] {
        assert_eq!(answer(LOCAL, REMOTE).with(20, &frags).sent_by_endpoint(&world), "pass-tracked");
        let elsewhere = answer(LOCAL, REMOTE_GATEWAY).with(20, &frags);
        assert_eq!(elsewhere.sent_by_endpoint(&world), "encapsulate to ac1e001b routed true");
    }
}

#[test]
fn an_error_about_a_translated_flow_goes_the_way_of_its_answers() {
    let mut world = world();
    assert_eq!(sent_to_endpoint(&marked(datagram(REMOTE, LOCAL)), &mut world), "pass-translated");
    let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
    message.extend(&datagram(REMOTE, LOCAL).bytes[14..42]);
    assert_eq!(Frame::new(LOCAL, REMOTE, 1, &message).sent_by_endpoint(&world), "pass-tracked");
}

#[test]
fn answers_to_what_the_stack_sent_translated_into_the_tunnel_come_back_through_it() {
    let mut world = world();
    let sent = marked(datagram(LOCAL, REMOTE));
    assert_eq!(sent.sent_by_host(&world), "encapsulate to ac1e001b routed false");
    world.config.detours |= Config::TRANSLATED;
    let back = |frame: Frame| frame.carried(THERE, HERE).sent_by_underlay(&world);
    assert_eq!(back(answer(REMOTE, LOCAL)), "decapsulate tracked tos 00");
    assert_eq!(back(datagram(REMOTE, LOCAL)), "decapsulate to Some(7) tos 00");
    assert_eq!(back(answer(REMOTE, NEIGHBOUR)), "decapsulate to Some(8) tos 00");
}

#[test]
fn an_answer_that_the_bridge_would_switch_goes_to_the_gateway() {
    let mut world = world();
    assert_eq!(sent_to_endpoint(&marked(datagram(NEIGHBOUR, LOCAL)), &mut world), "pass-translated");
    let switched = |frame: Frame| {
        frame.with(0, &[2, 0, 0, 0, 0, 8]).meta(|meta| meta.to_us = false).sent_by_endpoint(&world)
    };
    assert_eq!(switched(answer(LOCAL, NEIGHBOUR)), "pass-tracked");
    assert_eq!(switched(datagram(LOCAL, NEIGHBOUR)), "pass-not-ours");
}

#[test]
fn an_answer_to_a_vip_that_came_by_a_port_of_the_host_is_no_packet_for_the_vip() {
    let mut world = serving(GATEWAY);
    assert_eq!(sent_to_endpoint(&marked(datagram(VIP, LOCAL)), &mut world), "pass-translated");
    assert_eq!(answer(LOCAL, VIP).sent_by_endpoint(&world), "pass-tracked");
    assert!(datagram(LOCAL, VIP).sent_by_endpoint(&world).contains("deliver to the host"));
}

#[test]
fn what_was_translated_on_the_bridge_is_left_to_the_stack_by_its_own_hook() {
    let world = world();
    let frame = marked(datagram(LOCAL, REMOTE));
    let verdict = complete(Hook::BridgeIngress, frame.bytes.as_slice(), &frame.meta, &world);
    assert_eq!(describe(&verdict), "pass-tracked");
}
