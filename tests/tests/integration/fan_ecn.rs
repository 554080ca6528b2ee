//! ECN as RFC 6040 (normal mode) and DSCP as RFC 2983 (uniform) want it.

//@ guest: 6.1

use std::time::Duration;

use fanlight_tests::{
    assert_counted,
    fleet::{Fleet, overlay, underlay},
    load::assert_reaches,
    packet::Ipv4,
};

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;
const EXPEDITED: u8 = 46 << 2;

#[test]
fn what_stands_inside_is_copied_to_the_outside() {
    let fleet = Fleet::up(2);
    let (one, _other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    let (sender, wire) = (one.raw("eth0"), fleet[1].raw("eth0"));
    let gateway = fleet[0].mac("fan-250-0-27");
    for ecn in [NOT_ECT, ECT_1, ECT_0, CE] {
        let packet = Ipv4::udp((overlay(0, 2), 7), (overlay(1, 2), 9), b"dscp");
        let packet = packet.with(|packet| packet.tos = EXPEDITED | ecn);
        sender.send(&packet.frame(gateway, one.mac("eth0")));
        let outer = wire.receive(Duration::from_secs(2), |frame| {
            Ipv4::of_frame(frame)
                .filter(|outer| outer.inner().is_some_and(|inner| inner.payload.ends_with(b"dscp")))
        });
        let outer = outer.expect("a tunnel packet");
        assert_eq!(outer.tos, EXPEDITED | ecn);
        assert_eq!(outer.inner().map(|inner| inner.tos), Some(EXPEDITED | ecn));
    }
}

#[test]
fn a_mark_from_the_way_is_carried_inside_or_the_packet_dropped() {
    let fleet = Fleet::up(2);
    let (_one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    let (sender, receiver) = (fleet[0].raw("eth0"), other.raw("eth0"));
    let (to, from) = (fleet[1].mac("eth0"), fleet[0].mac("eth0"));
    // Inside, outside, delivered (RFC 6040, figure 4).
    let rows = [
        (NOT_ECT, NOT_ECT, Some(NOT_ECT)),
        (NOT_ECT, ECT_0, Some(NOT_ECT)),
        (NOT_ECT, CE, None),
        (ECT_0, NOT_ECT, Some(ECT_0)),
        (ECT_0, ECT_1, Some(ECT_1)),
        (ECT_0, CE, Some(CE)),
        (ECT_1, ECT_0, Some(ECT_1)),
        (ECT_1, CE, Some(CE)),
        (CE, NOT_ECT, Some(CE)),
        (CE, ECT_0, Some(CE)),
    ];
    for (inside, outside, delivered) in rows {
        let before = fleet[1].counters();
        let packet = Ipv4::udp((overlay(0, 2), 7), (overlay(1, 2), 9), b"mark");
        let packet = packet.with(|packet| packet.tos = inside);
        let outer = packet.inside(underlay(0), underlay(1)).with(|outer| outer.tos = EXPEDITED | outside);
        sender.send(&outer.frame(to, from));
        let limit = if delivered.is_some() { Duration::from_secs(2) } else { Duration::from_millis(200) };
        let got = receiver.receive(limit, |frame| {
            Ipv4::of_frame(frame).filter(|packet| packet.payload.ends_with(b"mark")).map(|packet| packet.tos)
        });
        assert_eq!(got, delivered.map(|ecn| EXPEDITED | ecn), "inside {inside}, outside {outside}");
        let dropped = u64::from(delivered.is_none());
        assert_counted(&before, &fleet[1].counters(), &[("uplink-ingress", "drop-ecn", dropped)]);
    }
}
