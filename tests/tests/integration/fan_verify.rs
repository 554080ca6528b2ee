//! What arrives in a tunnel packet is believed only when it fits; each refusal has its own reason.

use std::{collections::HashSet, net::Ipv4Addr, time::Duration};

use fanlight_tests::{
    Container, Counters, assert_counted, eventually,
    fleet::{Fleet, overlay, underlay},
    load::assert_reaches,
    packet::{IPIP, Ipv4},
    socket::RawSocket,
};

/// A fan of two hosts, and a socket that sends what it likes from the first host to the second.
struct Range {
    fleet: Fleet,
    sender: RawSocket,
    to: [u8; 6],
    from: [u8; 6],
}

impl Range {
    fn new() -> Self {
        let fleet = Fleet::up(2);
        let (sender, to, from) = (fleet[0].raw("eth0"), fleet[1].mac("eth0"), fleet[0].mac("eth0"));
        Self { fleet, sender, to, from }
    }

    fn endpoint(&self) -> Container<'_> {
        self.fleet.endpoint(1, 2)
    }

    fn counters(&self) -> Counters {
        self.fleet[1].counters()
    }

    /// Sends a packet and waits until it is counted under this outcome; nothing else may be dropped.
    #[track_caller]
    fn offer(&self, packet: &Ipv4, outcome: &str) {
        self.offer_frame(&packet.frame(self.to, self.from), outcome);
    }

    #[track_caller]
    fn offer_frame(&self, frame: &[u8], outcome: &str) {
        let before = self.counters();
        self.sender.send(frame);
        eventually(&format!("{frame:02x?} is counted as {outcome}"), Duration::from_secs(2), || {
            (self.counters().since(&before).of("uplink-ingress", outcome) > 0).then_some(())
        });
        if outcome.starts_with("drop-") {
            assert_counted(&before, &self.counters(), &[("uplink-ingress", outcome, 1)]);
        } else {
            assert_counted(&before, &self.counters(), &[]);
        }
    }
}

/// A datagram from a container of the first host to one of the second.
fn datagram() -> Ipv4 {
    Ipv4::udp((overlay(0, 2), 7), (overlay(1, 2), 9), b"a payload of some length")
}

fn tunnelled(inner: &Ipv4) -> Ipv4 {
    inner.inside(underlay(0), underlay(1))
}

//@ guest
#[test]
fn a_right_packet_is_delivered() {
    let range = Range::new();
    let endpoint = range.endpoint();
    let inside = endpoint.raw("eth0");
    range.offer(&tunnelled(&datagram()), "decapsulated");
    let got = inside.receive(Duration::from_secs(1), |frame| {
        Ipv4::of_frame(frame).filter(|packet| packet.payload == datagram().payload)
    });
    let got = got.expect("the datagram in the container");
    assert!(got.payload_intact());
    assert_eq!((got.src, got.dst, got.ttl), (overlay(0, 2), overlay(1, 2), 64));
}

//@ guest
#[test]
fn an_inner_source_that_does_not_compute_to_the_outer_one_is_spoofed() {
    let range = Range::new();
    let _endpoint = range.endpoint();
    let outside = Ipv4Addr::new(8, 8, 8, 8);
    let third = Ipv4Addr::new(250, 0, 99, 5);
    for source in [third, overlay(1, 5), overlay(1, 2), outside, Ipv4Addr::new(127, 0, 0, 1)] {
        let inner = datagram().with(|packet| packet.src = source);
        range.offer(&tunnelled(&inner), "drop-spoofed-source");
    }
    let own = datagram().with(|packet| packet.src = overlay(1, 3)).inside(underlay(1), underlay(1));
    range.offer(&own, "drop-spoofed-source");
}

//@ guest
#[test]
fn an_inner_destination_that_is_not_ours_is_refused() {
    let range = Range::new();
    for destination in [Ipv4Addr::new(250, 0, 99, 5), overlay(0, 3), Ipv4Addr::new(8, 8, 8, 8)] {
        let inner = datagram().with(|packet| packet.dst = destination);
        range.offer(&tunnelled(&inner), "drop-not-our-slice");
    }
}

//@ guest
#[test]
fn a_tunnel_packet_of_somebody_else_is_handed_on() {
    let range = Range::new();
    let (a, b) = (Ipv4Addr::new(10, 1, 1, 1), Ipv4Addr::new(10, 1, 1, 2));
    let foreign = Ipv4::udp((a, 1), (b, 2), b"not the fan's");
    range.offer(&tunnelled(&foreign), "pass-not-ours");
    range.offer(&datagram().inside(a, underlay(1)), "pass-not-ours");
    range.offer(&datagram().inside(underlay(0), underlay(7)), "pass-not-ours");
}

//@ guest: 6.1
#[test]
fn malformed_packets_are_dropped_each_with_its_reason() {
    let range = Range::new();
    let _endpoint = range.endpoint();
    let right = tunnelled(&datagram());
    let inner = |change: fn(&mut Ipv4)| tunnelled(&datagram().with(change));
    let outer = |change: fn(&mut Ipv4)| right.clone().with(change);
    range.offer(&outer(|packet| packet.check = Some(0x1111)), "drop-bad-checksum");
    range.offer(&outer(|packet| packet.frags = Ipv4::MF), "drop-outer-fragment");
    range.offer(&outer(|packet| packet.frags = 3), "drop-outer-fragment");
    range.offer(&outer(|packet| packet.total_len = Some(1400)), "drop-truncated");
    range.offer(&outer(|packet| packet.total_len = Some(39)), "drop-truncated");
    range.offer(&outer(|packet| packet.total_len = Some(19)), "drop-truncated");
    range.offer(&inner(|packet| packet.total_len = Some(600)), "drop-truncated");
    range.offer(&inner(|packet| packet.total_len = Some(12)), "drop-bad-header");
    range.offer(&inner(|packet| packet.version_ihl = Some(0x65)), "drop-bad-header");
    range.offer(&inner(|packet| packet.version_ihl = Some(0x43)), "drop-bad-header");
    range.offer(&inner(|packet| packet.version_ihl = Some(0x00)), "drop-bad-header");
    range.offer(&right.clone().with(|packet| packet.payload.truncate(10)), "drop-truncated");
}

//@ guest: 6.1
#[test]
fn a_packet_cut_at_any_byte_is_counted_as_truncated_and_never_delivered() {
    const HEADERS: usize = 14 + 20;
    let range = Range::new();
    let endpoint = range.endpoint();
    let inside = endpoint.raw("eth0");
    let frame = tunnelled(&datagram()).frame(range.to, range.from);
    let before = range.counters();
    for length in 14..frame.len() {
        range.sender.send(&frame[..length]);
    }
    let truncated = (frame.len() - HEADERS) as u64;
    eventually("all are counted", Duration::from_secs(5), || {
        let counted = range.counters().since(&before).of("uplink-ingress", "drop-truncated");
        (counted >= truncated).then_some(())
    });
    assert_counted(&before, &range.counters(), &[("uplink-ingress", "drop-truncated", truncated)]);
    let delivered = inside.collect(Duration::from_millis(100), Ipv4::of_frame);
    assert!(delivered.iter().all(|packet| packet.src != overlay(0, 2)), "{delivered:?}");
}

//@ guest
#[test]
fn options_and_inner_fragments_are_not_malformed() {
    let range = Range::new();
    let endpoint = range.endpoint();
    let inside = endpoint.raw("eth0");
    // Router alert, RFC 2113.
    let options = datagram().with(|packet| packet.options = vec![0x94, 4, 0, 0]);
    let fragment = datagram().with(|packet| packet.frags = Ipv4::MF);
    for packet in [options, fragment] {
        range.sender.send(&tunnelled(&packet).frame(range.to, range.from));
        let got = inside.receive(Duration::from_secs(2), |frame| {
            Ipv4::of_frame(frame).filter(|got| got.payload == packet.payload)
        });
        assert_eq!(got.map(|got| (got.options, got.frags)), Some((packet.options, packet.frags)));
    }
}

/// What tells packets apart: the header as far as there is one, without what forwarding changes, TTL and checksum.
fn header(packet: &[u8]) -> Vec<u8> {
    let kept = packet.iter().take(20).enumerate().filter(|(at, _)| ![8, 10, 11].contains(at));
    kept.map(|(_, &byte)| byte).collect()
}

//@ guest: 6.1, 6.12
#[test]
fn random_tunnel_packets_are_counted_every_one_and_only_a_right_one_after_them_is_delivered() {
    const RANDOM: usize = 5000;
    let range = Range::new();
    let endpoint = range.endpoint();
    assert_reaches(&range.fleet[1], overlay(1, 2));
    let inside = endpoint.raw("eth0");
    let before = range.counters();
    // A linear congruential generator (Knuth's MMIX constants): the same packets in every run.
    let mut state: u64 = 1;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    let mut sent = HashSet::new();
    let mut send = |inner: Vec<u8>| {
        sent.insert(header(&inner));
        let packet = Ipv4::new(underlay(0), underlay(1), IPIP, inner);
        range.sender.send(&packet.frame(range.to, range.from));
    };
    for _ in 0..RANDOM {
        let length = usize::from(random()) % 80;
        let mut inner: Vec<u8> = (0..length).map(|_| random()).collect();
        // Half of them look like a packet of the overlay, so that they come past the first checks.
        if random() % 2 == 0 && inner.len() >= 20 {
            inner[12..14].copy_from_slice(&[250, 0]);
            inner[16..20].copy_from_slice(&overlay(1, 2).octets());
        }
        send(inner);
    }
    send(datagram().bytes());
    let seen = || -> u64 {
        range.counters().since(&before).iter().filter(|row| row.0 == "uplink-ingress").map(|row| row.2).sum()
    };
    eventually("all are counted", Duration::from_secs(5), || (seen() > RANDOM as u64).then_some(()));
    let counted = range.counters().since(&before);
    assert_eq!(counted.of("uplink-ingress", "decapsulated"), 1, "{counted}");
    // The container hears its neighbours too: only what was sent here matters.
    let delivered = inside.collect(Duration::from_millis(200), |frame| {
        frame.get(14..).map(header).filter(|header| sent.contains(header))
    });
    assert_eq!(delivered, [header(&datagram().bytes())]);
}

//@ guest
#[test]
fn a_container_may_not_send_with_anothers_address() {
    let fleet = Fleet::up(2);
    let _agent = fleet[0].agent();
    let (one, _victim, _other) = (fleet.endpoint(0, 2), fleet.endpoint(0, 3), fleet.endpoint(1, 2));
    assert_reaches(&one, overlay(1, 2));
    let sender = one.raw("eth0");
    let (gateway, own) = (fleet[0].mac("fan-250-0-27"), one.mac("eth0"));
    for (source, outcome) in [(overlay(0, 3), "drop-wrong-endpoint"), (overlay(1, 9), "drop-foreign-source")]
    {
        let before = fleet[0].counters();
        let packet = datagram().with(|packet| packet.src = source);
        sender.send(&packet.frame(gateway, own));
        eventually(outcome, Duration::from_secs(2), || {
            (fleet[0].counters().since(&before).total(outcome) == 1).then_some(())
        });
    }
}
