//! The real programs, packet by packet, through the replay engine.

use std::{
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytemuck::Zeroable;
use dataplane_common::{
    abi::{Encapsulation, EndpointRecord, FanRecord},
    fan::mask,
    outcome::{Hook, Outcome},
};
use fanlight::inspect::replay::{Action, Engine, Packet, Setup};
use fanlight_tests::packet::{self, Ipv4};

mod agreement;
mod answers;
mod early;
mod egress;
mod ingress;
mod services;

/// This host and another one of the underlay 172.30.0.0/16.
const HERE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 28);
const THERE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 27);
/// A router between them.
const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// This host's address in the overlay 250.0.0.0/8, two endpoints of it, and one of the other host.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(250, 0, 28, 1);
const LOCAL: Ipv4Addr = Ipv4Addr::new(250, 0, 28, 2);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(250, 0, 28, 3);
const REMOTE: Ipv4Addr = Ipv4Addr::new(250, 0, 27, 2);
/// Of no overlay.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

const BRIDGE_MAC: [u8; 6] = [0x02, 0xfa, 172, 30, 0, 28];
const HELPER_MAC: [u8; 6] = [0x02, 0xfb, 0, 0, 0, 1];
const LOCAL_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 2];
const NEIGHBOUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 3];
const WIRE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x27];
/// Test runs take place on the loopback device.
const LOOPBACK: u32 = 1;

/// 250.0.0.0/8 over 172.30.0.0/16 on this host.
fn fan() -> FanRecord {
    FanRecord {
        overlay: Ipv4Addr::new(250, 0, 0, 0).into(),
        overlay_mask: mask(8),
        underlay: Ipv4Addr::new(172, 30, 0, 0).into(),
        underlay_mask: mask(16),
        slice: Ipv4Addr::new(250, 0, 28, 0).into(),
        slice_mask: mask(24),
        address: HERE.into(),
        gateway: GATEWAY.into(),
        mtu: 1480,
        uplink: 2,
        onlink: Ipv4Addr::new(172, 30, 0, 0).into(),
        onlink_mask: mask(16),
        bridge: 3,
        bridge_mac: BRIDGE_MAC,
        shift: 8,
        encapsulation: Encapsulation::Ipip as u8,
        ..FanRecord::zeroed()
    }
}

fn setup() -> Setup {
    let endpoint = |address: Ipv4Addr, ifindex, mac| EndpointRecord {
        address: address.to_bits(),
        ifindex,
        mac,
        flags: EndpointRecord::PEER,
    };
    Setup {
        filtered: Vec::new(),
        fans: vec![fan()],
        endpoints: vec![endpoint(LOCAL, LOOPBACK, LOCAL_MAC), endpoint(NEIGHBOUR, 8, NEIGHBOUR_MAC)],
        services: Vec::new(),
        helper: (9, HELPER_MAC),
    }
}

/// The programs on [`setup`], loaded once for all tests: verifying them takes seconds. Nothing is learnt yet.
fn engine() -> MutexGuard<'static, Engine> {
    static ENGINE: OnceLock<Mutex<Engine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| {
        let engine = Engine::new(&setup(), Hook::ALL);
        Mutex::new(engine.expect("the programs load"))
    });
    // A test that failed left it whole: what a run changes is undone here.
    let engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
    let tables = engine.datapath();
    for (host, _) in tables.paths().list().expect("the map reads") {
        tables.paths().remove(host).expect("it goes");
    }
    tables.config().set_smallest_path(u32::MAX);
    engine
}

fn udp(src: Ipv4Addr, dst: Ipv4Addr) -> Ipv4 {
    Ipv4::udp((src, 1000), (dst, 2000), &[0x5a; 64])
}

/// As an endpoint sends it to the gateway, which is also how the stack hands it to the helper device.
fn sent(packet: &Ipv4) -> Vec<u8> {
    packet.frame(BRIDGE_MAC, LOCAL_MAC)
}

/// As it arrives from the wire.
fn arrived(packet: &Ipv4) -> Vec<u8> {
    packet.frame([0; 6], WIRE_MAC)
}

/// The tunnel packet that ours become.
fn carried(inner: &Ipv4) -> Ipv4 {
    inner.inside(HERE, THERE).with(|outer| outer.id = 0)
}

/// A tunnel packet from the other host.
fn received(inner: &Ipv4) -> Ipv4 {
    inner.inside(THERE, HERE)
}

/// An ICMP error of this host about a packet.
fn error(kind: u8, code: u8, mtu: u16, about: &Ipv4) -> Ipv4 {
    let [high, low] = mtu.to_be_bytes();
    let mut message = vec![kind, code, 0, 0, 0, 0, high, low];
    message.extend(&about.bytes()[..28]);
    let sum = packet::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Ipv4 { tos: 0xc0, id: 0, ..Ipv4::new(GATEWAY, about.src, packet::ICMP, message) }
}

/// Runs a frame and checks action, outcome and the frame that came out.
#[track_caller]
fn expect(engine: &mut Engine, hook: Hook, frame: Vec<u8>, outcome: Outcome, output: Option<Vec<u8>>) {
    let action = match outcome {
        _ if outcome.name().starts_with("pass-") => Action::Pass,
        _ if outcome.is_drop() => Action::Drop,
        _ => Action::Redirect,
    };
    let packet = Packet { number: 1, frame, ..Packet::default() };
    let verdict = engine.run(hook, &packet).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(verdict.outcome.name(), outcome.name());
    assert_eq!(verdict.action, action);
    let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(verdict.output.as_ref().map(hex), output.as_ref().map(hex), "the frame that came out");
}
