//! Services beyond the overlays: clients that route a VIP here, and backends that no fan leads to.

use super::{
    service::{VIP, answer, datagram, named, serving},
    *,
};
use crate::wire::{PROTO_ICMP, PROTO_UDP};

const CLIENT: u32 = 0x0a00_0005; // 10.0.0.5
const SERVER: u32 = 0x0a00_0009;

/// The frame that answers one whose translation is described.
fn translated(to: &str, verdict: Verdict) -> Frame {
    let rewrite = if verdict.action == Action::Route { route_of(verdict.words).0 } else { verdict.rewrite };
    assert_eq!(named(&describe(&verdict)), to);
    let mut frame = answer(u32::from_be(rewrite.dst), u32::from_be(rewrite.src));
    frame.bytes[36..38].copy_from_slice(&rewrite.sport.to_ne_bytes());
    frame
}

fn by_underlay(frame: &Frame, world: &Memory) -> Verdict {
    complete(Hook::UplinkIngress, frame.bytes.as_slice(), &frame.meta, world)
}

#[test]
fn a_container_reaches_a_backend_outside_under_the_uplinks_address() {
    let world = serving(SERVER);
    let sent = datagram(LOCAL, VIP);
    let verdict = complete(Hook::EndpointIngress, sent.bytes.as_slice(), &sent.meta, &world);
    let back = translated("from HERE to SERVER, route", verdict);
    assert_eq!(named(&back.sent_by_underlay(&world)), "from VIP to LOCAL, deliver to 7");
    let stranger = answer(SERVER, HERE);
    assert_eq!(stranger.sent_by_underlay(&world), Outcome::PassNotOurs.name());
}

#[test]
fn what_the_uplink_does_not_carry_is_answered_or_left_for_fragments() {
    let world = serving(SERVER);
    let mut payload = [0; 1480];
    payload[..4].copy_from_slice(&[0, 7, 0, 9]);
    let large = Frame::new(LOCAL, VIP, PROTO_UDP, &[&payload[..], &[0]].concat());
    assert_eq!(named(&large.sent_by_endpoint(&world)), "from HERE to SERVER, route");
    let whole = large.with(20, &[0x40, 0]);
    let answer = "answered-too-big FragmentationNeeded 1500 from GATEWAY";
    assert_eq!(named(&whole.sent_by_endpoint(&world)), answer);
    let sender = Party { fan: 0, is_outside: false };
    let told =
        outgrown(whole.bytes.as_slice(), &world, sender, 1400).map(|answer| (answer.mtu, answer.source));
    assert_eq!(told, Some((1400, GATEWAY)));
    let fits = Frame::new(LOCAL, VIP, PROTO_UDP, &payload);
    assert_eq!(outgrown(fits.bytes.as_slice(), &world, sender, 1400), None);
}

#[test]
fn a_process_of_the_host_reaches_a_backend_outside() {
    let world = serving(SERVER);
    let sent = datagram(GATEWAY, VIP);
    let verdict = complete(Hook::HostEgress, sent.bytes.as_slice(), &sent.meta, &world);
    let back = translated("from HERE to SERVER, route", verdict);
    assert_eq!(named(&back.sent_by_underlay(&world)), "from VIP to GATEWAY, deliver to the host");
    let bound = datagram(HERE, VIP);
    let verdict = complete(Hook::HostEgress, bound.bytes.as_slice(), &bound.meta, &world);
    let back = translated("from HERE to SERVER, route", verdict);
    assert_eq!(named(&back.sent_by_underlay(&world)), "from VIP to HERE, route", "which ends at the host");
}

#[test]
fn a_backend_on_this_host_itself_answers_the_vip() {
    let mut world = serving(HERE);
    world.balancer.backends[0].flags = BackendRecord::HERE;
    assert_eq!(named(&datagram(LOCAL, VIP).sent_by_endpoint(&world)), "from VIP to HERE, route");
    assert_eq!(named(&answer(HERE, VIP).sent_by_host(&world)), "from VIP to LOCAL, deliver to 7");
}

#[test]
fn a_client_outside_reaches_a_backend_here_and_is_answered_by_the_vip() {
    let world = serving(LOCAL);
    assert_eq!(named(&datagram(CLIENT, VIP).sent_by_underlay(&world)), "from CLIENT to LOCAL, deliver to 7");
    assert_eq!(named(&answer(LOCAL, CLIENT).sent_by_endpoint(&world)), "from VIP to CLIENT, route");
    assert_eq!(answer(LOCAL, SERVER).sent_by_endpoint(&world), Outcome::PassNotOurs.name());
}

#[test]
fn a_client_outside_reaches_a_backend_elsewhere_under_the_gateways_address() {
    let world = serving(REMOTE);
    let to = "from GATEWAY to REMOTE, encapsulate to ac1e001b routed true";
    let back = translated(to, by_underlay(&datagram(CLIENT, VIP), &world));
    let back = back.carried(THERE, HERE).sent_by_underlay(&world);
    assert_eq!(named(&back), "from VIP to CLIENT, decapsulate and route tos 00");
}

#[test]
fn a_client_outside_reaches_a_backend_outside_under_the_uplinks_address() {
    let world = serving(SERVER);
    let back = translated("from HERE to SERVER, route", by_underlay(&datagram(CLIENT, VIP), &world));
    assert_eq!(named(&back.sent_by_underlay(&world)), "from VIP to CLIENT, route");
}

#[test]
fn from_outside_only_what_a_service_serves_is_touched() {
    let mut world = serving(REMOTE);
    let not_ours = Outcome::PassNotOurs.name();
    assert_eq!(
        datagram(CLIENT, VIP).with(36, &[0, 10]).sent_by_underlay(&world),
        not_ours,
        "no service there"
    );
    assert_eq!(datagram(CLIENT, VIP).meta(|m| m.to_us = false).sent_by_underlay(&world), not_ours);
    assert_eq!(datagram(REMOTE, VIP).sent_by_underlay(&world), Outcome::DropSpoofedSource.name());
    let echo = Frame::new(CLIENT, VIP, PROTO_ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(echo.sent_by_underlay(&world), "answer the echo request");
    let last = datagram(CLIENT, VIP).with(22, &[1]).sent_by_underlay(&world);
    assert_eq!(named(&last), "answered-ttl-exceeded TtlExceeded from HERE");
    let over = datagram(CLIENT, VIP).with(22, &[0]).sent_by_underlay(&world);
    assert_eq!(over, Outcome::DropTtlExceeded.name());
    for (_, word) in world.balancer.services.values_mut() {
        word.flags = ServiceWord::EMPTY;
    }
    let refused = datagram(CLIENT, VIP).sent_by_underlay(&world);
    assert_eq!(named(&refused), "refused-no-backend PortUnreachable from HERE");
    world.config.services = 0;
    assert_eq!(datagram(CLIENT, VIP).sent_by_underlay(&world), not_ours);
}

#[test]
fn an_address_that_only_shares_a_vips_bit_is_not_taken_for_one() {
    let mut world = serving(REMOTE);
    world.balancer.suspects.insert(CLIENT.to_be());
    let echo = Frame::new(LOCAL, CLIENT, PROTO_ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(echo.sent_by_endpoint(&world), Outcome::PassNotOurs.name());
    assert_eq!(datagram(LOCAL, CLIENT).sent_by_endpoint(&world), Outcome::PassNotOurs.name());
    let nobody = datagram(GATEWAY, CLIENT).sent_by_host(&world);
    assert_eq!(named(&nobody), "answered-unreachable HostUnreachable from GATEWAY");
    assert_eq!(datagram(SERVER, CLIENT).sent_by_underlay(&world), Outcome::PassNotOurs.name());
}

#[test]
fn a_source_that_is_nobodys_is_not_served() {
    let world = serving(REMOTE);
    for source in [0x7f00_0001, 0xe000_0001] {
        let sent = datagram(source, VIP);
        assert_eq!(sent.sent_by_underlay(&world), Outcome::DropBadSource.name());
        assert_eq!(sent.sent_by_host(&world), Outcome::DropBadSource.name());
    }
}
