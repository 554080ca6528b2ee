//! From the underlay through both shells: XDP in front of tc, and tc alone. What becomes of a packet is the same.

//@ guest: 6.1, 6.12

use dataplane_common::outcome::{Hook, Outcome};
use fanlight_tests::packet::Ipv4;

use super::*;

/// Packets, what becomes of each, and whether XDP ends it.
fn fixtures() -> Vec<(Ipv4, Outcome, bool)> {
    let inner = udp(REMOTE, LOCAL);
    let outer = received(&inner);
    let spoofed = received(&udp(Ipv4Addr::new(250, 0, 26, 2), LOCAL));
    let inside = |change: fn(&mut Ipv4)| received(&inner.clone().with(change));
    vec![
        (outer.clone(), Outcome::Decapsulated, false),
        (received(&udp(REMOTE, GATEWAY)), Outcome::DecapsulatedToHost, false),
        (outer.clone().with(|packet| packet.options = vec![1, 1, 1, 0]), Outcome::PassSlowPath, false),
        (received(&udp(OUTSIDE, Ipv4Addr::new(10, 0, 0, 1))), Outcome::PassNotOurs, false),
        (inner.inside(OUTSIDE, HERE), Outcome::PassNotOurs, false),
        (inner.inside(THERE, ROUTER), Outcome::PassNotOurs, false),
        (udp(THERE, HERE), Outcome::PassNotOurs, false),
        (Ipv4::echo(THERE, HERE, 1, 1, b"ping"), Outcome::PassNotOurs, false),
        (spoofed, Outcome::DropSpoofedSource, true),
        (received(&udp(OUTSIDE, LOCAL)), Outcome::DropSpoofedSource, true),
        (received(&udp(LOCAL, LOCAL)), Outcome::DropSpoofedSource, true),
        (received(&udp(REMOTE, Ipv4Addr::new(250, 0, 29, 2))), Outcome::DropNotOurSlice, true),
        (received(&udp(REMOTE, OUTSIDE)), Outcome::DropNotOurSlice, true),
        (outer.clone().with(|packet| packet.payload.truncate(12)), Outcome::DropTruncated, true),
        (outer.clone().with(|packet| packet.payload.truncate(0)), Outcome::DropTruncated, true),
        (outer.clone().with(|packet| packet.total_len = Some(1400)), Outcome::DropTruncated, true),
        (inside(|packet| packet.total_len = Some(600)), Outcome::DropTruncated, true),
        (inside(|packet| packet.version_ihl = Some(0x65)), Outcome::DropBadHeader, true),
        (inside(|packet| packet.version_ihl = Some(0x44)), Outcome::DropBadHeader, true),
        (outer.clone().with(|packet| packet.version_ihl = Some(0x55)), Outcome::DropBadHeader, true),
        (outer.clone().with(|packet| packet.check = Some(0x1234)), Outcome::DropBadChecksum, true),
        (outer.clone().with(|packet| packet.frags = Ipv4::MF), Outcome::DropOuterFragment, true),
        (outer.clone().with(|packet| packet.frags = 3), Outcome::DropOuterFragment, true),
        (outer.with(|packet| packet.tos = 3), Outcome::DropEcn, true),
    ]
}

#[track_caller]
fn assert_same(engine: &mut Engine, packet: &Packet, outcome: Outcome, is_early: bool, why: &str) {
    let [early, late] = [Hook::UplinkXdp, Hook::UplinkIngress].map(|hook| {
        engine.run(hook, packet).unwrap_or_else(|error| panic!("{why}: {}: {error}", hook.name()))
    });
    assert_eq!((early.outcome, late.outcome), (outcome, outcome), "{why}");
    assert_eq!((early.action, &early.output), (late.action, &late.output), "{why}");
    let ended = if is_early { Hook::UplinkXdp } else { Hook::UplinkIngress };
    assert_eq!((early.hook, late.hook), (Some(ended), None), "{why}");
}

fn packet(frame: Vec<u8>) -> Packet {
    Packet { number: 1, frame, ..Packet::default() }
}

#[test]
fn fan_one_table_of_packets_has_the_same_outcomes_through_xdp_and_tc() {
    let mut engine = engine();
    for (fixture, outcome, is_early) in fixtures() {
        let packet = packet(arrived(&fixture));
        assert_same(&mut engine, &packet, outcome, is_early, &format!("{fixture:?}"));
    }
}

#[test]
fn fan_a_priority_tag_in_the_packet_changes_nothing_and_another_makes_it_somebody_elses() {
    let mut engine = engine();
    for (fixture, outcome, is_early) in fixtures() {
        let why = format!("{fixture:?}");
        let tagged = |vlan| Packet { vlan: Some(vlan), ..packet(arrived(&fixture)) };
        // Priority 5, VLAN 0.
        assert_same(&mut engine, &tagged(5 << 13), outcome, is_early, &why);
        assert_same(&mut engine, &tagged(5 << 13 | 7), Outcome::PassNotOurs, false, &why);
    }
}

#[test]
fn fan_a_frame_to_another_mac_address_is_tcs_to_refuse() {
    let mut engine = engine();
    for (fixture, outcome, _) in fixtures() {
        for mac in [LOCAL_MAC, [0xff; 6]] {
            let packet = packet(fixture.frame(mac, WIRE_MAC));
            assert_same(&mut engine, &packet, outcome, false, &format!("{fixture:?}"));
        }
    }
}

#[test]
fn fan_a_frame_of_several_buffers_is_judged_by_its_whole_length() {
    let mut engine = engine();
    let long = |src| received(&Ipv4::udp((src, 1), (LOCAL, 2), &[7; 8900]));
    let other = Ipv4Addr::new(250, 0, 26, 2);
    assert_same(&mut engine, &packet(arrived(&long(REMOTE))), Outcome::Decapsulated, false, "right");
    assert_same(&mut engine, &packet(arrived(&long(other))), Outcome::DropSpoofedSource, true, "spoofed");
    let cut = long(REMOTE).with(|packet| packet.total_len = Some(9100));
    assert_same(&mut engine, &packet(arrived(&cut)), Outcome::DropTruncated, true, "truncated");
}

#[test]
fn fan_a_super_packet_is_put_together_behind_xdp() {
    let large = received(&Ipv4::udp((Ipv4Addr::new(250, 0, 26, 2), 1), (LOCAL, 2), &[7; 3000]));
    let packet = Packet { gso_size: 1000, ..packet(arrived(&large)) };
    let verdict = engine().run(Hook::UplinkXdp, &packet).expect("it runs");
    assert_eq!((verdict.outcome, verdict.hook), (Outcome::DropSpoofedSource, None));
}
