//! The decisions on the host, packet by packet; the same functions run in the kernel.

use proptest::prelude::*;

use super::*;
use crate::{
    abi::{BackendRecord, Encapsulation, ServiceWord},
    checksum, ecn,
    fan::mask,
    memory::Memory,
    outcome::Hook,
    verdict::{Way, route_of},
    wire::PROTO_IPIP,
};

const GATEWAY_MAC: [u8; 6] = [2, 0xfa, 172, 30, 0, 28];
const HERE: u32 = 0xac1e_001c; // 172.30.0.28
const THERE: u32 = 0xac1e_001b; // 172.30.0.27
const LOCAL: u32 = 0xfa00_1c02; // 250.0.28.2
const NEIGHBOUR: u32 = 0xfa00_1c03;
const REMOTE: u32 = 0xfa00_1b02; // 250.0.27.2
const GATEWAY: u32 = 0xfa00_1c01;
const PORT: u32 = 7;

fn endpoint(address: u32, ifindex: u32) -> EndpointRecord {
    EndpointRecord { address, ifindex, mac: [2, 0, 0, 0, 0, ifindex as u8], flags: EndpointRecord::PEER }
}

/// Host 172.30.0.28 of 250/8 over 172.30/16, with two endpoints.
fn world() -> Memory {
    let fan = FanRecord {
        overlay: 250 << 24,
        overlay_mask: mask(8),
        underlay: 0xac1e_0000,
        underlay_mask: mask(16),
        slice: 0xfa00_1c00,
        slice_mask: mask(24),
        address: HERE,
        gateway: GATEWAY,
        mtu: 1480,
        uplink: 2,
        onlink: 0xac1e_0000,
        onlink_mask: mask(16),
        bridge: 3,
        bridge_mac: GATEWAY_MAC,
        shift: 8,
        encapsulation: Encapsulation::Ipip as u8,
        slot: 0,
        inlet: 0,
        outlet: 0,
        spare: [0; 24],
    };
    Memory::new(&[fan], &[endpoint(LOCAL, PORT), endpoint(NEIGHBOUR, 8)])
}

/// An IPv4 frame to the gateway's MAC, as a test changes it.
#[derive(Clone)]
struct Frame {
    bytes: Vec<u8>,
    meta: Meta,
}

impl Frame {
    fn new(src: u32, dst: u32, proto: u8, payload: &[u8]) -> Self {
        let mut bytes = vec![0; 34];
        bytes[..6].copy_from_slice(&GATEWAY_MAC);
        bytes[12..14].copy_from_slice(&[8, 0]);
        bytes[14] = 0x45;
        bytes[16..18].copy_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
        bytes[22] = 64;
        bytes[23] = proto;
        bytes[26..30].copy_from_slice(&src.to_be_bytes());
        bytes[30..34].copy_from_slice(&dst.to_be_bytes());
        bytes.extend_from_slice(payload);
        let mut frame = Self { bytes, meta: Meta { ifindex: PORT, to_us: true, ..Meta::default() } };
        frame.meta.len = frame.bytes.len() as u32;
        frame.sum()
    }

    fn udp(src: u32, dst: u32) -> Self {
        Self::new(src, dst, 17, &[0; 64])
    }

    /// This frame's packet inside an outer one.
    fn carried(&self, src: u32, dst: u32) -> Self {
        Self::new(src, dst, PROTO_IPIP, &self.bytes[14..])
    }

    fn with(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.sum()
    }

    fn sum(mut self) -> Self {
        self.bytes[24..26].fill(0);
        let header: [u8; 20] = self.bytes[14..34].try_into().expect("20 bytes");
        self.bytes[24..26].copy_from_slice(&checksum::finish(checksum::add(&header, 0)));
        self
    }

    fn meta(mut self, change: impl FnOnce(&mut Meta)) -> Self {
        change(&mut self.meta);
        self
    }

    fn sent_by_endpoint(&self, world: &Memory) -> String {
        describe(&complete(Hook::EndpointIngress, self.bytes.as_slice(), &self.meta, world))
    }

    fn sent_by_underlay(&self, world: &Memory) -> String {
        describe(&complete(Hook::UplinkIngress, self.bytes.as_slice(), &self.meta, world))
    }

    fn sent_by_host(&self, world: &Memory) -> String {
        describe(&self.by_host(world))
    }

    fn by_host(&self, world: &Memory) -> Verdict {
        complete(Hook::HostEgress, self.bytes.as_slice(), &self.meta, world)
    }

    /// The same to another port, as on the wire.
    fn with_dport(mut self, port: u16) -> Self {
        self.bytes[36..38].copy_from_slice(&port.to_ne_bytes());
        self
    }
}

fn describe(verdict: &Verdict) -> String {
    let Verdict { action, outcome, rewrite, out, words } = *verdict;
    match action {
        Action::Pass | Action::Track | Action::Drop => outcome.name().to_owned(),
        Action::Forward if rewrite.is_kept() => describe_out(out),
        Action::Forward => format!("{}, {}", describe_rewrite(rewrite), describe_out(out)),
        Action::Answer => describe_answer(Answer::of(words).expect("an answer")),
        Action::Route => format!("{}, route", describe_rewrite(route_of(words).0)),
        Action::RemoveOptions => "remove options".to_owned(),
        Action::Relay => "relay".to_owned(),
        Action::LearnPathMtu => format!("learn {} to {:08x}", words[1], words[0]),
        Action::Service | Action::CarriedService | Action::Begin => format!("{:?}", Case::of(words)),
        Action::Onward => format!("{:?}", Onward::of(words)),
    }
}

fn describe_answer(Answer { with, source, mtu, outcome }: Answer) -> String {
    let mtu = if mtu > 0 { format!(" {mtu}") } else { String::new() };
    match (with, with.error()) {
        (_, Some(error)) => format!("{} {error:?}{mtu} from {source:08x}", outcome.name()),
        (With::Echo, None) => "answer the echo request".to_owned(),
        (_, None) => format!("{} by reset", outcome.name()),
    }
}

fn describe_rewrite(rewrite: Tuple) -> String {
    let [src, dst] = [rewrite.src, rewrite.dst].map(u32::from_be);
    format!("from {src:08x} to {dst:08x}")
}

fn describe_out(Out { way, host, endpoint, tos, is_routed, .. }: Out) -> String {
    match way {
        Way::Tunnel => format!("encapsulate to {host:08x} routed {is_routed}"),
        Way::Decapsulated => format!("decapsulate to {:?} tos {tos:02x}", Some(endpoint.ifindex)),
        Way::DecapsulatedToStack => format!("decapsulate to None tos {tos:02x}"),
        Way::Endpoint => format!("deliver to {}", endpoint.ifindex),
        Way::Stack => "deliver to the host".to_owned(),
        Way::DecapsulatedAndRouted => format!("decapsulate and route tos {tos:02x}"),
        Way::Filtered => "filtered".to_owned(),
        Way::DecapsulatedFiltered => format!("decapsulate filtered tos {tos:02x}"),
        Way::DecapsulatedTracked => format!("decapsulate tracked tos {tos:02x}"),
    }
}

#[test]
fn a_packet_to_another_slice_is_encapsulated_to_the_computed_host() {
    assert_eq!(Frame::udp(LOCAL, REMOTE).sent_by_endpoint(&world()), "encapsulate to ac1e001b routed true");
    assert_eq!(Frame::udp(GATEWAY, REMOTE).sent_by_host(&world()), "encapsulate to ac1e001b routed false");
}

#[test]
fn traffic_of_others_is_passed_untouched() {
    let world = world();
    let not_ours = Outcome::PassNotOurs.name();
    assert_eq!(Frame::udp(LOCAL, 0x0808_0808).sent_by_endpoint(&world), not_ours);
    assert_eq!(Frame::udp(LOCAL, REMOTE).meta(|m| m.foreign_vlan = true).sent_by_endpoint(&world), not_ours);
    let to_another_port = Frame::udp(LOCAL, REMOTE).with(0, &[2, 9, 9, 9, 9, 9]).meta(|m| m.to_us = false);
    assert_eq!(to_another_port.sent_by_endpoint(&world), not_ours);
    let inner = Frame::udp(REMOTE, LOCAL);
    assert_eq!(inner.sent_by_underlay(&world), not_ours, "not a tunnel packet");
    assert_eq!(inner.carried(THERE, HERE + 1).sent_by_underlay(&world), not_ours, "to another host");
    assert_eq!(
        inner.carried(0x0a00_0001, HERE).sent_by_underlay(&world),
        not_ours,
        "from outside the underlay"
    );
    let foreign = Frame::udp(0x0a00_0001, 0x0a00_0002).carried(THERE, HERE);
    assert_eq!(foreign.sent_by_underlay(&world), not_ours, "another tunnel between the same hosts");
    let tagged = inner.carried(THERE, HERE).meta(|m| m.foreign_vlan = true);
    assert_eq!(tagged.sent_by_underlay(&world), not_ours);
}

#[test]
fn a_tunnel_packet_is_delivered_when_its_source_computes_to_its_sender() {
    let world = world();
    let inner = Frame::udp(REMOTE, LOCAL);
    assert_eq!(inner.carried(THERE, HERE).sent_by_underlay(&world), "decapsulate to Some(7) tos 00");
    let spoofed = inner.carried(THERE + 1, HERE);
    assert_eq!(spoofed.sent_by_underlay(&world), Outcome::DropSpoofedSource.name());
    let own = Frame::udp(LOCAL, LOCAL).carried(HERE, HERE);
    assert_eq!(own.sent_by_underlay(&world), Outcome::DropSpoofedSource.name());
    let from_nowhere = Frame::udp(0x0a00_0001, LOCAL).carried(THERE, HERE);
    assert_eq!(from_nowhere.sent_by_underlay(&world), Outcome::DropSpoofedSource.name());
    let elsewhere = Frame::udp(REMOTE, 0xfa00_1d02).carried(THERE, HERE);
    assert_eq!(elsewhere.sent_by_underlay(&world), Outcome::DropNotOurSlice.name());
    let outside = Frame::udp(REMOTE, 0x0808_0808).carried(THERE, HERE);
    assert_eq!(outside.sent_by_underlay(&world), Outcome::DropNotOurSlice.name());
}

#[test]
fn the_gateway_and_addresses_not_learnt_yet_go_to_the_stack() {
    let world = world();
    for destination in [GATEWAY, 0xfa00_1c63] {
        let frame = Frame::udp(REMOTE, destination).carried(THERE, HERE);
        assert_eq!(frame.sent_by_underlay(&world), "decapsulate to None tos 00");
    }
    assert_eq!(Frame::udp(LOCAL, GATEWAY).sent_by_endpoint(&world), Outcome::PassToHost.name());
    assert_eq!(Frame::udp(LOCAL, 0xfa00_1c63).sent_by_endpoint(&world), Outcome::PassSlowPath.name());
}

#[test]
fn endpoints_of_one_host_reach_each_other_directly() {
    assert_eq!(Frame::udp(LOCAL, NEIGHBOUR).sent_by_endpoint(&world()), "deliver to 8");
}

#[test]
fn malformed_tunnel_packets_are_dropped_by_what_is_wrong_with_them() {
    let world = world();
    let good = Frame::udp(REMOTE, LOCAL).carried(THERE, HERE);
    let cases = [
        (good.clone().with(34, &[0x65]), Outcome::DropBadHeader, "inner version 6"),
        (good.clone().with(34, &[0x44]), Outcome::DropBadHeader, "inner header of 16 bytes"),
        (good.clone().with(36, &[0, 19]), Outcome::DropBadHeader, "inner length below its header"),
        (good.clone().with(36, &[1, 0]), Outcome::DropTruncated, "inner length beyond the outer"),
        (good.clone().meta(|m| m.len -= 1), Outcome::DropTruncated, "frame shorter than the outer length"),
        (good.clone().with(20, &[0x20, 0]), Outcome::DropOuterFragment, "first outer fragment"),
        (good.clone().with(20, &[0, 1]), Outcome::DropOuterFragment, "later outer fragment"),
    ];
    for (frame, outcome, what) in cases {
        assert_eq!(frame.sent_by_underlay(&world), outcome.name(), "{what}");
    }
    let mut short = good.clone();
    short.bytes.truncate(40);
    short.meta.len = 40;
    assert_eq!(short.sent_by_underlay(&world), Outcome::DropTruncated.name());
    let mut damaged = good;
    damaged.bytes[24] ^= 0xff;
    assert_eq!(damaged.sent_by_underlay(&world), Outcome::DropBadChecksum.name());
}

#[test]
fn congestion_marks_travel_inward_or_drop_what_cannot_carry_them() {
    let world = world();
    let marked = |tos| Frame::udp(REMOTE, LOCAL).with(15, &[tos]).carried(THERE, HERE).with(15, &[0x03]);
    assert_eq!(marked(ecn::ECT_0).sent_by_underlay(&world), "decapsulate to Some(7) tos 03");
    assert_eq!(marked(ecn::NOT_ECT).sent_by_underlay(&world), Outcome::DropEcn.name());
}

#[test]
fn sources_that_are_not_the_endpoints_own_are_dropped() {
    let world = world();
    assert_eq!(Frame::udp(NEIGHBOUR, REMOTE).sent_by_endpoint(&world), Outcome::DropWrongEndpoint.name());
    assert_eq!(Frame::udp(0x0a00_0001, REMOTE).sent_by_endpoint(&world), Outcome::DropForeignSource.name());
    assert_eq!(Frame::udp(0xfa00_1d02, REMOTE).sent_by_endpoint(&world), Outcome::DropForeignSource.name());
    assert_eq!(Frame::udp(THERE, REMOTE).sent_by_host(&world), Outcome::DropForeignSource.name());
    assert_eq!(Frame::udp(0x0a00_0001, GATEWAY).sent_by_endpoint(&world), Outcome::PassToHost.name());
}

#[test]
fn a_host_speaks_into_the_overlay_from_its_address_in_the_underlay() {
    let world = world();
    assert_eq!(Frame::udp(HERE, REMOTE).sent_by_host(&world), "encapsulate to ac1e001b routed false");
    let from_there = Frame::udp(THERE, LOCAL);
    assert_eq!(from_there.carried(THERE, HERE).sent_by_underlay(&world), "decapsulate to Some(7) tos 00");
    let spoofed = Outcome::DropSpoofedSource.name();
    assert_eq!(from_there.carried(THERE + 1, HERE).sent_by_underlay(&world), spoofed);
    assert_eq!(Frame::udp(HERE, LOCAL).carried(HERE, HERE).sent_by_underlay(&world), spoofed);
}

#[test]
fn a_packet_whose_ttl_runs_out_is_answered_by_the_gateway() {
    let world = world();
    let expired = Frame::udp(LOCAL, REMOTE).with(22, &[1]);
    assert_eq!(expired.sent_by_endpoint(&world), "answered-ttl-exceeded TtlExceeded from fa001c01");
    let error = Frame::new(LOCAL, REMOTE, 1, &[11; 64]).with(22, &[1]);
    assert_eq!(error.sent_by_endpoint(&world), Outcome::DropTtlExceeded.name(), "no error about an error");
    let later = Frame::udp(LOCAL, REMOTE).with(22, &[0]).with(20, &[0, 9]);
    assert_eq!(later.sent_by_endpoint(&world), Outcome::DropTtlExceeded.name());
}

#[test]
fn a_packet_larger_than_the_path_is_answered_or_left_to_the_stack_to_fragment() {
    let mut world = world();
    let large = |frags: [u8; 2]| Frame::new(LOCAL, REMOTE, 17, &[0; 1480]).with(20, &frags);
    let answer = "answered-too-big FragmentationNeeded 1480 from fa001c01";
    assert_eq!(large([0x40, 0]).sent_by_endpoint(&world), answer);
    assert_eq!(large([0, 0]).sent_by_endpoint(&world), Outcome::PassSlowPath.name());
    let from_host = Frame::new(GATEWAY, REMOTE, 17, &[0; 1480]);
    assert_eq!(from_host.clone().sent_by_host(&world), "deliver to the host", "to be routed anew");
    assert_eq!(from_host.with(20, &[0x40, 0]).sent_by_host(&world), answer);

    world.learn(THERE, 1280);
    let medium = Frame::new(LOCAL, REMOTE, 17, &[0; 1300]).with(20, &[0x40, 0]);
    let answer = "answered-too-big FragmentationNeeded 1280 from fa001c01";
    assert_eq!(medium.sent_by_endpoint(&world), answer);
    let elsewhere = Frame::new(LOCAL, 0xfa00_1a02, 17, &[0; 1300]).with(20, &[0x40, 0]);
    assert_eq!(elsewhere.sent_by_endpoint(&world), "encapsulate to ac1e001a routed true");
}

#[test]
fn a_host_that_does_not_answer_is_unreachable_and_so_is_every_one_without_an_uplink() {
    let mut world = world();
    let (ping, elsewhere) =
        (Frame::new(LOCAL, REMOTE, 1, &[8, 0, 0, 0, 0, 0, 0, 0]), Frame::udp(LOCAL, 0xfa00_1a02));
    world.learn(THERE, PathRecord::SILENT);
    let told = "answered-silent-host HostUnreachable from fa001c01";
    assert_eq!(ping.sent_by_endpoint(&world), told);
    assert_eq!(Frame::udp(GATEWAY, REMOTE).sent_by_host(&world), told);
    let error = Frame::new(LOCAL, REMOTE, 1, &[3, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(error.sent_by_endpoint(&world), Outcome::DropSilentHost.name());
    assert_eq!(elsewhere.sent_by_endpoint(&world), "encapsulate to ac1e001a routed true");
    world.balancer.now.set(1_000);
    world.config.cut_off[0] = 1_001;
    assert_eq!(elsewhere.sent_by_endpoint(&world), told);
    world.balancer.now.set(1_002);
    assert_eq!(
        elsewhere.sent_by_endpoint(&world),
        "encapsulate to ac1e001a routed true",
        "nobody says so any more"
    );
}

#[test]
fn a_super_packet_is_measured_by_its_segments() {
    let world = world();
    let mut tcp = vec![0; 20_000];
    tcp[12] = 8 << 4;
    let frame = |gso_size| {
        Frame::new(LOCAL, REMOTE, 6, &tcp).with(20, &[0x40, 0]).meta(|meta| meta.gso_size = gso_size)
    };
    assert_eq!(frame(1428).sent_by_endpoint(&world), "encapsulate to ac1e001b routed true");
    let answer = "answered-too-big FragmentationNeeded 1480 from fa001c01";
    assert_eq!(frame(1429).sent_by_endpoint(&world), answer);
}

#[test]
fn rare_packets_take_the_stacks_way() {
    let world = world();
    let mut with_options = Frame::udp(LOCAL, REMOTE);
    with_options.bytes[14] = 0x46;
    assert_eq!(with_options.sent_by_endpoint(&world), Outcome::PassSlowPath.name());
    let enormous = Frame::udp(LOCAL, REMOTE).with(16, &u16::MAX.to_be_bytes()).meta(|meta| meta.len = 70_000);
    assert_eq!(enormous.sent_by_endpoint(&world), Outcome::PassSlowPath.name());
}

#[test]
fn overlay_addresses_that_no_host_can_own_are_unreachable() {
    for nobody in [0xfa00_0002, 0xfaff_ff02] {
        let verdict = Frame::udp(LOCAL, nobody).sent_by_endpoint(&world());
        assert_eq!(verdict, "answered-unreachable HostUnreachable from fa001c01");
    }
}

/// "Fragmentation needed" from a router, quoting our own tunnel packet of 1,500 bytes to `to`.
fn fragmentation_needed(mtu: u16, from: u32, to: u32) -> Frame {
    let quoted = Frame::new(LOCAL, REMOTE, 17, &[0; 1460]).carried(from, to).with(20, &[0x40, 0]);
    needed_by(&quoted, mtu, 28)
}

/// The same, quoting so many bytes of any packet.
fn needed_by(about: &Frame, mtu: u16, bytes: usize) -> Frame {
    let [high, low] = mtu.to_be_bytes();
    let quoted = &about.bytes[14..14 + bytes];
    let words = quoted.chunks(2).map(|word| u16::from_ne_bytes([word[0], word[1]]));
    let sum = words.fold(checksum::add(&[3, 4, high, low], 0), |sum, word| sum + u32::from(word));
    let [first, second] = checksum::finish(sum);
    let message = [&[3, 4, first, second, 0, 0, high, low], quoted].concat();
    Frame::new(0xac1e_0001, HERE, 1, &message)
}

#[test]
fn a_smaller_path_is_learnt_from_errors_about_our_own_packets_alone() {
    let mut world = world();
    let not_ours = Outcome::PassNotOurs.name();
    assert_eq!(fragmentation_needed(1300, HERE, THERE).sent_by_underlay(&world), "learn 1280 to ac1e001b");
    assert_eq!(fragmentation_needed(575, HERE, THERE).sent_by_underlay(&world), not_ours, "absurdly small");
    assert_eq!(fragmentation_needed(1500, HERE, THERE).sent_by_underlay(&world), not_ours, "not smaller");
    assert_eq!(
        fragmentation_needed(1300, HERE + 1, THERE).sent_by_underlay(&world),
        not_ours,
        "not our source"
    );
    assert_eq!(
        fragmentation_needed(1300, HERE, 0x0a00_0001).sent_by_underlay(&world),
        not_ours,
        "no fan host"
    );
    world.learn(THERE, 1200);
    assert_eq!(fragmentation_needed(1300, HERE, THERE).sent_by_underlay(&world), not_ours, "never raised");
}

#[test]
fn packets_between_two_fans_of_a_node_are_told_apart() {
    let mut world = world();
    world.config.fans[1] =
        FanRecord { overlay: 251 << 24, slice: 0xfb00_1c00, gateway: 0xfb00_1c01, ..world.config.fans[0] };
    world.config.fan_slots = 2;
    let other = Frame::udp(LOCAL, 0xfb00_1b02);
    assert_eq!(other.sent_by_endpoint(&world), "encapsulate to ac1e001b routed true");
    let across = Frame::udp(0xfb00_1b02, LOCAL).carried(THERE, HERE);
    assert_eq!(across.sent_by_underlay(&world), "decapsulate to Some(7) tos 00");
    (world.config.fans[1].overlay, world.config.fans[1].overlay_mask) = FanRecord::UNUSED;
    assert_eq!(
        other.sent_by_endpoint(&world),
        Outcome::PassNotOurs.name(),
        "a withdrawn fan matches nothing"
    );
    assert_eq!(across.sent_by_underlay(&world), Outcome::DropSpoofedSource.name());
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_decided_without_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..120),
        gso_size in 0u32..2000,
        to_us: bool,
        steer in 0u8..4,
    ) {
        // Half-valid frames reach further than noise alone.
        if bytes.len() >= 62 && steer > 0 {
            bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
            bytes[30..34].copy_from_slice(&if steer == 1 { REMOTE } else { HERE }.to_be_bytes());
            if steer > 1 {
                bytes[23] = if steer == 2 { PROTO_IPIP } else { 1 };
                bytes[26..30].copy_from_slice(&THERE.to_be_bytes());
            }
        }
        let meta = Meta { ifindex: PORT, to_us, gso_size, len: bytes.len() as u32, ..Meta::default() };
        let frame = Frame { bytes, meta };
        let world = world();
        for verdict in [frame.sent_by_endpoint(&world), frame.sent_by_underlay(&world), frame.sent_by_host(&world)] {
            // What has no room for two headers goes nowhere.
            let is_forwarded = ["encapsulate", "decapsulate", "deliver"].iter().any(|way| verdict.starts_with(way));
            prop_assert!(!is_forwarded || frame.bytes.len() >= 34, "{verdict}");
        }
    }

    #[test]
    fn what_one_host_encapsulates_the_computed_host_accepts(bits: u32, to in 2u8..255) {
        let mut here = world();
        here.endpoints.clear();
        let host = bits & 0xffff;
        prop_assume!(host != 0 && host != 0xffff && host != HERE & 0xffff);
        let destination = 250 << 24 | host << 8 | u32::from(to);
        let packet = Frame::udp(LOCAL, destination);
        let outer = 0xac1e_0000 | host;
        prop_assert_eq!(packet.sent_by_endpoint(&here), format!("encapsulate to {outer:08x} routed true"));
        let mut there = world();
        there.endpoints.clear();
        let fan = &mut there.config.fans[0];
        (fan.address, fan.slice, fan.gateway) = (outer, destination & mask(24), destination & mask(24) | 1);
        let carried = packet.carried(HERE, outer);
        prop_assert_eq!(carried.sent_by_underlay(&there), "decapsulate to None tos 00");
    }
}

mod beyond;
mod early;
mod filtered;
mod relay;
mod service;
mod tracked;
mod walls;
