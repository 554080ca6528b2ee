//! Any frame at all: the kernel's programs never fail, count it once, and decide as the same functions do here.

//@ guest: 6.1, 6.12

use std::collections::HashMap;

use control::service::{Algorithm, Backend, Protocol, Service, Vip};
use dataplane_common::{
    abi::{BackendRecord, Config, MAX_FANS, ServiceWord, TRACKED_MARK},
    decide::{self, Early, Meta},
    memory::Memory,
    outcome::{Hook, Outcome},
    verdict::{Action, Verdict, Way, route_of},
};
use fanlight_tests::packet::{self, Ipv4};

use super::*;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// VIPs with one backend each, at the same port.
fn services() -> Vec<Service> {
    let one = |port, protocol, backends: &[Ipv4Addr]| Service {
        name: format!("{port}/{protocol}"),
        vip: Vip { address: VIP.into(), port, protocol },
        algorithm: Algorithm::Maglev,
        checking: None,
        backends: backends.iter().map(|&at| Backend { address: at.into(), port, weight: 1 }).collect(),
    };
    vec![
        one(2, Protocol::Udp, &[REMOTE]),
        one(2, Protocol::Tcp, &[NEIGHBOUR]),
        one(3, Protocol::Udp, &[GATEWAY]),
        one(3, Protocol::Tcp, &[REMOTE]),
        one(4, Protocol::Tcp, &[]),
        one(4, Protocol::Udp, &[LOCAL]),
        one(1, Protocol::Udp, &[OUTSIDE]),
    ]
}

/// The tables that the programs get.
fn tables(setup: &Setup) -> Memory {
    assert!(setup.fans.len() <= MAX_FANS);
    let mut tables = Memory::new(&setup.fans, &setup.endpoints);
    tables.config.services = setup.services.len() as u32;
    for (index, service) in (0..).zip(&setup.services) {
        let base = tables.balancer.backends.len() as u32;
        let flags = if service.backends.is_empty() { ServiceWord::EMPTY } else { 0 };
        let word = ServiceWord { base, ring: 0, log2_bits: 0, flags };
        let Vip { port, protocol, .. } = service.vip;
        tables
            .balancer
            .services
            .insert((VIP.to_bits().to_be(), port.to_be(), protocol.number()), (index, word));
        let backends = service.backends.iter().filter_map(Backend::v4);
        tables.balancer.backends.extend(backends.map(|(address, port)| BackendRecord {
            address: address.to_bits().to_be(),
            port: port.to_be(),
            flags: 0,
            service: index,
            generation: 0,
        }));
    }
    tables
}

/// The outcome that the decision implies; what it teaches is remembered.
fn outcome(tables: &mut Memory, hook: Hook, frame: &[u8], mark: u32) -> Outcome {
    let meta = Meta {
        ifindex: LOOPBACK,
        to_us: frame[..6] == [0; 6],
        foreign_vlan: false,
        gso_size: 0,
        len: frame.len() as u32,
        mark,
    };
    let Verdict { action, outcome, out, words, .. } = decide::complete(hook, frame, &meta, tables);
    if !tables.translated.borrow().is_empty() {
        tables.config.detours |= Config::TRANSLATED;
    }
    match action {
        Action::Route => {
            let (rewrite, sender) = route_of(words);
            decide::unrouted(frame, tables, sender, rewrite)
                .map_or(Outcome::DeliveredToHost, |answer| answer.outcome)
        }
        Action::Relay if decide::relayed(frame, tables).is_none() => Outcome::PassNotOurs,
        // This namespace routes nothing: what ought to leave ends in its stack.
        Action::Forward if out.way == Way::DecapsulatedAndRouted => Outcome::DeliveredToHost,
        Action::LearnPathMtu => {
            let [host, mtu, ..] = words;
            tables.learn(host, mtu);
            outcome
        }
        Action::Service | Action::CarriedService | Action::Begin => panic!("nobody decides {action:?}"),
        _ => outcome,
    }
}

/// The frame as it is behind XDP, where the kernel has taken such a tag out.
fn behind_priority_tag(frame: &[u8]) -> Vec<u8> {
    let is_tagged = frame.len() >= 18 && decide::Tag::of(frame) == decide::Tag::Priority;
    if is_tagged { [&frame[..12], &frame[16..]].concat() } else { frame.to_vec() }
}

/// What XDP makes of a frame.
fn early(tables: &Memory, frame: &[u8]) -> Early {
    let to_us = frame[..6] == [0; 6];
    let meta = Meta { ifindex: LOOPBACK, to_us, len: frame.len() as u32, ..Meta::default() };
    decide::early(frame, &meta, tables)
}

/// SplitMix64: repeatable, and enough to pick bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }
}

fn port(random: &mut Random) -> u16 {
    random.one_of(&[1, 2, 2, 3, 3, 4])
}

/// A TCP segment of a length, cut where that is shorter than a header.
fn segment(random: &mut Random, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length.max(20)];
    bytes[..2].copy_from_slice(&port(random).to_be_bytes());
    bytes[2..4].copy_from_slice(&port(random).to_be_bytes());
    bytes[11] = random.one_of(&[0, 1]);
    bytes[12..14].copy_from_slice(&[0x50, random.one_of(&[0x02, 0x10, 0x12, 0x04, 0x11])]);
    bytes.truncate(length);
    bytes
}

/// A packet that means something to some hook.
fn meaningful(random: &mut Random) -> Ipv4 {
    let addresses = [
        GATEWAY,
        LOCAL,
        NEIGHBOUR,
        REMOTE,
        OUTSIDE,
        VIP,
        HERE,
        THERE,
        ROUTER,
        Ipv4Addr::new(250, 0, 0, 3),
        Ipv4Addr::new(250, 0, 28, 90),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::UNSPECIFIED,
    ];
    let likely = [
        (LOCAL, VIP),
        (LOCAL, VIP),
        (GATEWAY, VIP),
        (NEIGHBOUR, LOCAL),
        (LOCAL, GATEWAY),
        (LOCAL, REMOTE),
        (LOCAL, NEIGHBOUR),
        (GATEWAY, REMOTE),
        (REMOTE, LOCAL),
        (REMOTE, GATEWAY),
    ];
    let (src, dst) = match random.below(3) {
        0 => (random.one_of(&addresses), random.one_of(&addresses)),
        _ => random.one_of(&likely),
    };
    let length = random.one_of(&[0, 1, 64, 1300, 1452, 1500]);
    let packet = match random.below(4) {
        0 => Ipv4::echo(src, dst, 1, 1, &vec![0; length]),
        1 => Ipv4::new(src, dst, packet::TCP, segment(random, length)),
        _ => Ipv4::udp((src, port(random)), (dst, port(random)), &vec![0; length]),
    };
    let packet = packet.with(|packet| {
        packet.ttl = random.one_of(&[64, 64, 64, 2, 1, 0]);
        packet.tos = random.one_of(&[0, 0, 1, 2, 3, 0xb8]);
        packet.frags = random.one_of(&[0, 0, Ipv4::DF, Ipv4::MF, 185]);
    });
    let outer_source = random.one_of(&[HERE, THERE, THERE, ROUTER, OUTSIDE]);
    match random.below(5) {
        0 | 1 => packet,
        2 => {
            let mtu = random.one_of(&[0, 576, 1280, 1499]);
            let code = random.one_of(&[4, 4, 4, 1]);
            Ipv4::fragmentation_needed(ROUTER, mtu, &carried(&packet), 48)
                .with(|error| error.payload[1] = code)
        }
        _ => packet.inside(outer_source, HERE).with(|outer| {
            outer.tos = random.one_of(&[0, 3, 3, 0xb8]);
            outer.frags = random.one_of(&[Ipv4::DF, Ipv4::DF, Ipv4::DF, 0, Ipv4::MF]);
        }),
    }
}

fn frame(random: &mut Random) -> Vec<u8> {
    let to = random.one_of(&[BRIDGE_MAC, BRIDGE_MAC, [0; 6], LOCAL_MAC, [0xff; 6]]);
    let mut frame = meaningful(random).frame(to, LOCAL_MAC);
    for _ in 0..random.one_of(&[0, 0, 1, 2, 4]) {
        let place = random.below(frame.len().min(70));
        let any = random.next() as u8;
        frame[place] = random.one_of(&[0, 1, 4, 0x45, 0x46, 0x40, 0xff, any]);
    }
    // A wire's frame; behind XDP such a tag stands beside the frame.
    if random.below(16) == 0 {
        frame.splice(12..12, [0x81, 0, 0x20, random.one_of(&[0, 5])]);
    }
    if random.below(4) == 0 {
        frame.truncate(14 + random.below(frame.len() - 13));
    }
    frame
}

#[test]
fn fan_the_kernel_decides_on_any_frame_as_the_host_does() {
    const FRAMES: usize = 12_000;
    let mut random = Random(0x0fa4_1113);
    let setup = Setup { services: services(), ..setup() };
    let mut engine = Engine::new(&setup, Hook::ALL).expect("the programs load");
    let mut tables = tables(&setup);
    let (mut seen, mut seen_early) = (HashMap::new(), HashMap::new());
    for number in 0..FRAMES {
        if number == FRAMES / 4 * 3 {
            engine.datapath().config().set_filtered(&["250.0.0.0/8".parse().expect("a network")]);
            tables.config.detours |= Config::FILTERED;
        }
        let hook = random.one_of(Hook::ALL);
        let mark = random.one_of(&[0, 0, 0, 0, 0, 0, 0, TRACKED_MARK]);
        let packet = Packet { number: number as u64, frame: frame(&mut random), mark, ..Packet::default() };
        let early = early(&tables, &packet.frame);
        let expected = outcome(&mut tables, hook, &behind_priority_tag(&packet.frame), mark);
        let verdict = engine.run(hook, &packet).unwrap_or_else(|error| {
            panic!("{}: {error}: {:02x?}", hook.name(), packet.frame);
        });
        assert_eq!(verdict.outcome, expected, "{} frame {number}: {:02x?}", hook.name(), packet.frame);
        if hook == Hook::UplinkXdp {
            let refused = Early::Refuse(verdict.outcome);
            let ended = if early == refused { Hook::UplinkXdp } else { Hook::UplinkIngress };
            assert_eq!(verdict.hook, Some(ended), "frame {number}: {early:?}: {:02x?}", packet.frame);
            *seen_early.entry(early).or_insert(0) += 1;
        }
        *seen.entry(expected).or_insert(0) += 1;
    }
    let missed: Vec<_> = Outcome::ALL.iter().filter(|outcome| !seen.contains_key(outcome)).collect();
    let never = [
        &Outcome::Routed,
        &Outcome::RefusedCollision,
        &Outcome::DropHelperFailed,
        &Outcome::DropStageMissing,
        &Outcome::DropStackedTags,
        &Outcome::AnsweredSilentHost,
        &Outcome::DropSilentHost,
        &Outcome::Segmented,
    ];
    assert_eq!(missed, never, "{seen:?}");
    let refused = seen_early.keys().filter(|early| **early != Early::GoOn).count();
    assert!(refused >= 5 && seen_early.contains_key(&Early::GoOn), "{seen_early:?}");
}
