//! VLAN tags on the uplink.

//@ guest: 6.1

use std::time::Duration;

use fanlight_tests::{
    assert_counted, eventually,
    fleet::{Fleet, overlay, underlay},
    load::{Iperf, IperfServer, assert_reaches},
    packet::Ipv4,
    tools,
};

/// The frame with an 802.1Q tag.
fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    let [high, low] = tag.to_be_bytes();
    [&frame[..12], &[0x81, 0x00, high, low], &frame[12..]].concat()
}

#[test]
fn a_priority_tag_is_ignored_and_another_vlan_is_not_ours() {
    let fleet = Fleet::up(2);
    let other = fleet.endpoint(1, 2);
    let (sender, inside) = (fleet[0].raw("eth0"), other.raw("eth0"));
    let packet = Ipv4::udp((overlay(0, 2), 7), (overlay(1, 2), 9), b"tagged");
    let frame = packet.inside(underlay(0), underlay(1)).frame(fleet[1].mac("eth0"), fleet[0].mac("eth0"));
    let is_it = |frame: &[u8]| Ipv4::of_frame(frame).filter(|packet| packet.payload.ends_with(b"tagged"));

    // Priority 5, VLAN 0.
    sender.send(&tagged(&frame, 5 << 13));
    let got = inside.receive(Duration::from_secs(2), is_it);
    assert!(got.is_some_and(|packet| packet.payload_intact()), "a priority-tagged packet is delivered");

    let before = fleet[1].counters();
    sender.send(&tagged(&frame, 7));
    eventually("a packet of VLAN 7 is handed on", Duration::from_secs(2), || {
        (fleet[1].counters().since(&before).of("uplink-ingress", "pass-not-ours") > 0).then_some(())
    });
    assert_counted(&before, &fleet[1].counters(), &[("uplink-ingress", "decapsulated", 0)]);
    assert!(inside.receive(Duration::from_millis(100), is_it).is_none());
}

#[test]
fn the_uplink_may_be_a_vlan_device() {
    if !tools::kernel_has_device("vlan") {
        return;
    }
    let fleet = Fleet::bare(2);
    for (index, host) in fleet.hosts().iter().enumerate() {
        host.ip("address flush dev eth0");
        host.ip("link add link eth0 name eth0.7 type vlan id 7");
        host.ip(&format!("address add {}/16 dev eth0.7", underlay(index)));
        host.ip("link set eth0.7 up");
        host.run("fan up 250.0.0.0/8 eth0.7");
    }
    let (one, other) = (fleet.endpoint(0, 2), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    let _server = IperfServer::start(&other);
    let run = Iperf::run(&one, overlay(1, 2), &["-n", "4M"]);
    assert!(run.bits_per_second() > 1e6, "{run:?}");
}
