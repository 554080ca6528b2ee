//! `bench program`: what each program costs per packet, alone, under BPF_PROG_TEST_RUN.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;
use bytemuck::Zeroable;
use dataplane_common::{
    abi::{EndpointRecord, FanRecord},
    fan::mask,
    outcome::Hook,
};
use fanlight::inspect::replay::{Cost, Packet, Setup, cost};
use serde::Serialize;

use crate::packet::Ipv4;

const HERE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 28);
const THERE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 27);
const LOCAL: Ipv4Addr = Ipv4Addr::new(250, 0, 28, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(250, 0, 27, 2);
/// The loopback device's address, for which test runs take a frame as sent to the host.
const TO_US: [u8; 6] = [0; 6];
const LOOPBACK: u32 = 1;

/// A program on a packet, and what that costs.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The program and its packet.
    pub name: &'static str,
    /// Nanoseconds.
    pub cost: Cost,
}

fn setup() -> Setup {
    let fan = FanRecord {
        overlay: 250 << 24,
        overlay_mask: mask(8),
        underlay: HERE.to_bits() & mask(16),
        underlay_mask: mask(16),
        slice: LOCAL.to_bits() & mask(24),
        slice_mask: mask(24),
        address: HERE.to_bits(),
        gateway: LOCAL.to_bits() & mask(24) | 1,
        mtu: 1480,
        uplink: LOOPBACK,
        onlink: HERE.to_bits() & mask(16),
        onlink_mask: mask(16),
        bridge: LOOPBACK,
        shift: 8,
        ..FanRecord::zeroed()
    };
    let endpoint = EndpointRecord {
        address: LOCAL.to_bits(),
        ifindex: LOOPBACK,
        mac: [2, 0, 0, 0, 0, 2],
        flags: EndpointRecord::PEER,
    };
    Setup { fans: vec![fan], endpoints: vec![endpoint], helper: (LOOPBACK, TO_US), ..Setup::default() }
}

/// Measures every program on the packets that it meets most.
pub fn measure(runs: usize) -> Result<Vec<Row>> {
    let setup = setup();
    let out = Ipv4::udp((LOCAL, 4000), (REMOTE, 4000), &[0; 36]);
    let back = Ipv4::udp((REMOTE, 4000), (LOCAL, 4000), &[0; 36]);
    let elsewhere = Ipv4::udp((LOCAL, 4000), (Ipv4Addr::new(192, 0, 2, 1), 53), &[0; 36]);
    let cases = [
        ("endpoint-ingress: encapsulate", Hook::EndpointIngress, out.clone()),
        ("host-egress: encapsulate", Hook::HostEgress, out),
        ("uplink-ingress: decapsulate", Hook::UplinkIngress, back.inside(THERE, HERE)),
        ("endpoint-ingress: not ours", Hook::EndpointIngress, elsewhere.clone()),
        ("uplink-ingress: not ours", Hook::UplinkIngress, elsewhere),
    ];
    let measured = cases.into_iter().map(|(name, hook, packet)| {
        let frame = packet.frame(TO_US, [2, 0, 0, 0, 0, 9]);
        let packet = Packet {
            number: 1,
            frame,
            mark: 0,
            ifindex: None,
            vlan: None,
            gso_size: 0,
            time: Duration::ZERO,
        };
        Ok(Row { name, cost: cost(&setup, hook, &packet, runs)? })
    });
    measured.collect()
}

/// The rows as a table, an empty program subtracted.
pub fn print(rows: &[Row]) {
    println!("\nNanoseconds per packet, an empty program subtracted: p10 / median");
    println!("{:<32} {:>14} {:>16} {:>10}", "program", "ours", "constant header", "ratio");
    for Row { name, cost } in rows {
        let net = |value: u64, empty: u64| value.saturating_sub(empty);
        let ours = (net(cost.program.p10, cost.empty.p10), net(cost.program.median, cost.empty.median));
        let floor = (net(cost.floor.p10, cost.empty.p10), net(cost.floor.median, cost.empty.median));
        println!(
            "{name:<32} {:>14} {:>16} {:>10.2}",
            format!("{} / {}", ours.0, ours.1),
            format!("{} / {}", floor.0, floor.1),
            ours.1 as f64 / floor.1.max(1) as f64
        );
    }
}
