//! ICMP errors: those that the programs send, and those that they learn from.

//@ guest: 6.1

use dataplane_common::outcome::{Hook, Outcome};
use fanlight_tests::packet::{self, Ipv4};

use super::*;

fn large(src: Ipv4Addr, dst: Ipv4Addr, length: usize, frags: u16) -> Ipv4 {
    Ipv4::udp((src, 1000), (dst, 2000), &vec![0x5a; length - 28]).with(|packet| packet.frags = frags)
}

#[test]
fn fan_a_packet_on_its_last_hop_is_answered_by_the_gateway() {
    let mut engine = engine();
    for destination in [REMOTE, NEIGHBOUR] {
        let packet = udp(LOCAL, destination).with(|packet| packet.ttl = 1);
        let answer = error(11, 0, 0, &packet).frame(LOCAL_MAC, BRIDGE_MAC);
        let outcome = Outcome::AnsweredTtlExceeded;
        expect(&mut engine, Hook::EndpointIngress, sent(&packet), outcome, Some(answer));
    }
}

#[test]
fn fan_errors_and_later_fragments_are_not_answered() {
    let mut engine = engine();
    let about = udp(REMOTE, LOCAL);
    let error = error(3, 1, 0, &about).with(|packet| {
        (packet.src, packet.dst, packet.ttl) = (LOCAL, REMOTE, 1);
    });
    let fragment = udp(LOCAL, REMOTE).with(|packet| (packet.ttl, packet.frags) = (1, 185));
    for packet in [error, fragment] {
        expect(&mut engine, Hook::EndpointIngress, sent(&packet), Outcome::DropTtlExceeded, None);
    }
}

#[test]
fn fan_an_address_that_no_host_can_own_is_answered_as_unreachable() {
    let mut engine = engine();
    for destination in [Ipv4Addr::new(250, 0, 0, 9), Ipv4Addr::new(250, 255, 255, 9)] {
        let packet = udp(LOCAL, destination);
        let answer = error(3, 1, 0, &packet).frame(LOCAL_MAC, BRIDGE_MAC);
        let outcome = Outcome::AnsweredUnreachable;
        expect(&mut engine, Hook::EndpointIngress, sent(&packet), outcome, Some(answer));
    }
}

#[test]
fn fan_a_packet_that_is_too_big_is_answered_or_left_to_be_fragmented() {
    let forbidden = large(LOCAL, REMOTE, 1500, Ipv4::DF);
    let answer = error(3, 4, 1480, &forbidden).frame(LOCAL_MAC, BRIDGE_MAC);
    let mut engine = engine();
    expect(&mut engine, Hook::EndpointIngress, sent(&forbidden), Outcome::AnsweredTooBig, Some(answer));
    let allowed = large(LOCAL, REMOTE, 1500, 0);
    expect(&mut engine, Hook::EndpointIngress, sent(&allowed), Outcome::PassSlowPath, None);
    let of_the_host = large(GATEWAY, REMOTE, 1500, Ipv4::DF);
    let answer = error(3, 4, 1480, &of_the_host).frame(HELPER_MAC, [0; 6]);
    expect(&mut engine, Hook::HostEgress, sent(&of_the_host), Outcome::AnsweredTooBig, Some(answer));
}

#[test]
fn fan_a_smaller_path_is_learnt_for_its_host_and_kept() {
    let mut engine = engine();
    let outer = carried(&large(LOCAL, REMOTE, 1480, Ipv4::DF));
    let needed = Ipv4::fragmentation_needed(ROUTER, 1300, &outer, 48);
    let uplink = Hook::UplinkIngress;
    expect(&mut engine, uplink, arrived(&needed), Outcome::PassPathMtuLearnt, None);
    assert_eq!(engine.datapath().config().smallest_path_mtu(), 1280);
    let learnt = engine.datapath().paths().list().expect("the map reads");
    assert_eq!(learnt.iter().map(|(host, path)| (*host, path.mtu)).collect::<Vec<_>>(), [(THERE, 1280)]);

    let forbidden = large(LOCAL, REMOTE, 1281, Ipv4::DF);
    let answer = error(3, 4, 1280, &forbidden).frame(LOCAL_MAC, BRIDGE_MAC);
    let endpoint = Hook::EndpointIngress;
    expect(&mut engine, endpoint, sent(&forbidden), Outcome::AnsweredTooBig, Some(answer));
    let fits = large(LOCAL, REMOTE, 1280, Ipv4::DF);
    let out = carried(&fits.clone().with(|packet| packet.ttl -= 1)).frame(BRIDGE_MAC, LOCAL_MAC);
    expect(&mut engine, endpoint, sent(&fits), Outcome::Encapsulated, Some(out));
    let elsewhere = large(LOCAL, Ipv4Addr::new(250, 0, 26, 2), 1480, Ipv4::DF);
    let verdict = engine.run(endpoint, &Packet { frame: sent(&elsewhere), ..Packet::default() });
    assert_eq!(verdict.expect("it runs").outcome, Outcome::Encapsulated, "another host's path is as it was");

    // It can only get smaller.
    let larger = Ipv4::fragmentation_needed(ROUTER, 1400, &outer, 48);
    expect(&mut engine, uplink, arrived(&larger), Outcome::PassNotOurs, None);
}

#[test]
fn fan_errors_that_cannot_be_about_our_packets_teach_nothing() {
    let mut engine = engine();
    let inner = large(LOCAL, REMOTE, 1480, Ipv4::DF);
    let outer = carried(&inner);
    let needed = |about: &Ipv4, mtu| Ipv4::fragmentation_needed(ROUTER, mtu, about, 48);
    let not_tunnelled =
        Ipv4::new(HERE, THERE, packet::UDP, vec![0; 1400]).with(|packet| packet.frags = Ipv4::DF);
    let mut damaged = Ipv4::fragmentation_needed(ROUTER, 1300, &outer, 28);
    expect(&mut engine, Hook::UplinkIngress, arrived(&damaged), Outcome::PassPathMtuLearnt, None);
    engine.datapath().paths().remove(THERE).expect("it goes");
    damaged.payload[35] ^= 1;
    let to_elsewhere = inner.inside(HERE, OUTSIDE);
    let other_source = needed(&inner.inside(THERE, ROUTER), 1300).with(|packet| packet.dst = HERE);
    for packet in [
        needed(&outer, 575),
        needed(&outer, 1500),
        needed(&not_tunnelled, 1300),
        needed(&to_elsewhere, 1300),
        other_source,
        needed(&carried(&udp(LOCAL, REMOTE)), 1300),
        needed(&outer.clone().with(|outer| outer.frags = 0), 1300),
        Ipv4::fragmentation_needed(ROUTER, 1300, &outer, 20),
        damaged,
    ] {
        expect(&mut engine, Hook::UplinkIngress, arrived(&packet), Outcome::PassNotOurs, None);
    }
}
