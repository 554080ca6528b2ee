//! Any frame at all: the kernel's programs never fail, count it once, and decide as the same functions do here.

use std::collections::HashMap;

use dataplane_common::{
    abi::MAX_FANS,
    decide::{self, Forward, Meta, Verdict},
    memory::Memory,
    outcome::{Hook, Outcome},
};
use fanlight_tests::packet::{self, Ipv4};

use super::*;

/// The tables that the programs get.
fn tables(setup: &Setup) -> Memory {
    assert!(setup.fans.len() <= MAX_FANS);
    Memory::new(&setup.fans, &setup.endpoints)
}

/// The outcome that the decision implies; what it teaches is remembered.
fn outcome(tables: &mut Memory, hook: Hook, frame: &[u8]) -> Outcome {
    let meta = Meta {
        ifindex: LOOPBACK,
        to_us: frame[..6] == [0; 6],
        foreign_vlan: false,
        gso_size: 0,
        len: frame.len() as u32,
    };
    let verdict = match hook {
        Hook::UplinkIngress => decide::uplink_ingress(frame, &meta, tables),
        Hook::EndpointIngress | Hook::BridgeIngress => decide::local_ingress(hook, frame, &meta, tables),
        Hook::HostEgress => decide::host_egress(frame, &meta, tables),
    };
    match verdict {
        Verdict::Pass(outcome) | Verdict::Drop(outcome) | Verdict::Answer { outcome, .. } => outcome,
        Verdict::Forward(forward) | Verdict::Translate { forward, .. } => forwarded(forward),
        Verdict::Reset(outcome) => outcome,
        Verdict::Echo => Outcome::AnsweredEcho,
        Verdict::LearnPathMtu { host, mtu } => {
            tables.learn(host, mtu);
            Outcome::PassPathMtuLearnt
        }
    }
}

fn forwarded(forward: Forward<'_>) -> Outcome {
    match forward {
        Forward::Encapsulate { .. } => Outcome::Encapsulated,
        Forward::Decapsulate { endpoint: Some(_), .. } => Outcome::Decapsulated,
        Forward::Decapsulate { endpoint: None, .. } => Outcome::DecapsulatedToHost,
        Forward::Deliver { .. } => Outcome::DeliveredLocally,
        Forward::ToHost => Outcome::DeliveredToHost,
    }
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

/// A packet that means something to some hook.
fn meaningful(random: &mut Random) -> Ipv4 {
    let addresses = [
        GATEWAY,
        LOCAL,
        NEIGHBOUR,
        REMOTE,
        OUTSIDE,
        HERE,
        THERE,
        ROUTER,
        Ipv4Addr::new(250, 0, 0, 3),
        Ipv4Addr::new(250, 0, 28, 90),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::UNSPECIFIED,
    ];
    let likely = [(LOCAL, REMOTE), (LOCAL, NEIGHBOUR), (GATEWAY, REMOTE), (REMOTE, LOCAL), (REMOTE, GATEWAY)];
    let (src, dst) = match random.below(3) {
        0 => (random.one_of(&addresses), random.one_of(&addresses)),
        _ => random.one_of(&likely),
    };
    let length = random.one_of(&[0, 1, 64, 1300, 1452, 1500]);
    let packet = match random.below(4) {
        0 => Ipv4::echo(src, dst, 1, 1, &vec![0; length]),
        1 => Ipv4::new(src, dst, packet::TCP, vec![0x50; length]),
        _ => Ipv4::udp((src, 1), (dst, 2), &vec![0; length]),
    };
    let packet = packet.with(|packet| {
        packet.ttl = random.one_of(&[64, 64, 64, 2, 1, 0]);
        packet.tos = random.one_of(&[0, 0, 1, 2, 3, 0xb8]);
        packet.frags = random.one_of(&[0, 0, Ipv4::DF, Ipv4::MF, 185]);
    });
    let outer_source = random.one_of(&[HERE, THERE, THERE, ROUTER, OUTSIDE]);
    match random.below(5) {
        0 | 1 => packet,
        2 => Ipv4::fragmentation_needed(ROUTER, random.one_of(&[0, 576, 1280, 1499]), &carried(&packet), 48),
        _ => packet.inside(outer_source, HERE).with(|outer| {
            outer.tos = random.one_of(&[0, 0, 3, 0xb8]);
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
    if random.below(4) == 0 {
        frame.truncate(14 + random.below(frame.len() - 13));
    }
    frame
}

#[test]
fn fan_the_kernel_decides_on_any_frame_as_the_host_does() {
    const FRAMES: usize = 6000;
    let mut random = Random(0x0fa4_1113);
    let (mut engine, mut tables) = (engine(Hook::ALL), tables(&setup()));
    let mut seen = HashMap::new();
    for number in 0..FRAMES {
        let hook = random.one_of(Hook::ALL);
        let packet = Packet { number: number as u64, frame: frame(&mut random), ..Packet::default() };
        let expected = outcome(&mut tables, hook, &packet.frame);
        let verdict = engine.run(hook, &packet).unwrap_or_else(|error| {
            panic!("{}: {error}: {:02x?}", hook.name(), packet.frame);
        });
        assert_eq!(verdict.outcome, expected, "{} frame {number}: {:02x?}", hook.name(), packet.frame);
        *seen.entry(expected).or_insert(0) += 1;
    }
    let missed: Vec<_> = Outcome::ALL.iter().filter(|outcome| !seen.contains_key(outcome)).collect();
    assert_eq!(missed, [&Outcome::DropHelperFailed], "{seen:?}");
}
