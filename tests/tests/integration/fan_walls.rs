//! What a container must not send: others would take it for the host's.

use std::time::Duration;

use fanlight_tests::{
    Container, assert_counted, eventually,
    fleet::{Fleet, bridge, overlay, underlay},
    load::assert_reaches,
    packet::Ipv4,
};

/// Sends a packet from a container to its gateway, and waits until it is counted under this outcome.
#[track_caller]
fn refused(fleet: &Fleet, container: &Container<'_>, packet: &Ipv4, (hook, outcome): (&str, &str)) {
    let before = fleet[0].counters();
    let frame = packet.frame(fleet[0].mac(&bridge(0)), container.mac("eth0"));
    container.raw("eth0").send(&frame);
    eventually(&format!("{packet:?} is counted as {outcome}"), Duration::from_secs(2), || {
        (fleet[0].counters().since(&before).of(hook, outcome) > 0).then_some(())
    });
    assert_counted(&before, &fleet[0].counters(), &[(hook, outcome, 1)]);
}

//@ guest
#[test]
fn a_container_speaks_to_no_other_host_as_its_neighbour() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    let by_hand = fleet.port(0, 3);
    for container in [&one, &by_hand] {
        assert_reaches(container, overlay(1, 2));
    }
    let (inside, before) = (other.raw("eth0"), fleet[1].counters());
    let forged = Ipv4::udp((overlay(0, 9), 7), (overlay(1, 2), 9), b"as a neighbour");
    for (container, octet, hook) in [(&one, 2, "endpoint-ingress"), (&by_hand, 3, "bridge-ingress")] {
        for source in [overlay(0, octet), underlay(0)] {
            let tunnel = forged.inside(source, underlay(1));
            refused(&fleet, container, &tunnel, (hook, "drop-endpoint-tunnel"));
        }
        let lie = Ipv4::fragmentation_needed(
            overlay(0, octet),
            576,
            &Ipv4::udp((overlay(1, 2), 7), (overlay(0, 2), 9), &[0; 1400]).inside(underlay(1), underlay(0)),
            28,
        );
        let lie = lie.with(|packet| packet.dst = underlay(1));
        refused(&fleet, container, &lie, (hook, "drop-endpoint-error"));
        let as_gateway = Ipv4::udp((overlay(0, 1), 7), (overlay(1, 2), 9), b"as the gateway");
        refused(&fleet, container, &as_gateway, (hook, "drop-wrong-endpoint"));
    }
    let got = inside.receive(Duration::from_millis(300), |frame| {
        Ipv4::of_frame(frame).filter(|packet| packet.payload == forged.payload)
    });
    assert!(got.is_none(), "{got:?}");
    assert_eq!(fleet[1].counters().since(&before).of("uplink-ingress", "pass-path-mtu-learnt"), 0);
}

//@ guest
#[test]
fn priority_tags_hide_no_packet() {
    let fleet = Fleet::up(2);
    let (one, by_hand) = (fleet.endpoint(0, 2), fleet.port(0, 3));
    let (_other, wire) = (fleet.endpoint(1, 2), fleet[1].raw("eth0"));
    for (container, octet) in [(&one, 2), (&by_hand, 3)] {
        assert_reaches(container, overlay(1, 2));
        let forged = Ipv4::udp((overlay(0, 9), 7), (overlay(1, 2), 9), b"behind tags");
        let frame = forged
            .inside(overlay(0, octet), underlay(1))
            .frame(fleet[0].mac(&bridge(0)), container.mac("eth0"));
        for tags in 1..4 {
            let tagged = [&frame[..12], &[0x81, 0, 0, 0].repeat(tags), &frame[12..]].concat();
            container.raw("eth0").send(&tagged);
        }
    }
    let seen = wire.collect(Duration::from_millis(500), |frame| {
        Ipv4::of_frame(frame).filter(|outer| outer.inner().is_some_and(|inner| inner.src == overlay(0, 9)))
    });
    assert!(seen.is_empty(), "{seen:?}");
}
