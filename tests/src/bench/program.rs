//! `bench program`: what each program costs per packet, alone, under BPF_PROG_TEST_RUN.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;
use bytemuck::Zeroable;
use dataplane_common::{
    abi::{EndpointRecord, FanRecord},
    fan::mask,
    outcome::Hook,
};
use fanlight::{
    inspect::replay::Setup,
    kernel::bpf::{Context, Datapath, program_name},
};
use serde::Serialize;

use super::floor::Floor;
use crate::packet::Ipv4;

const HERE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 28);
const THERE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 27);
const LOCAL: Ipv4Addr = Ipv4Addr::new(250, 0, 28, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(250, 0, 27, 2);
/// The loopback device's address, for which test runs take a frame as sent to the host.
const TO_US: [u8; 6] = [0; 6];
const LOOPBACK: u32 = 1;

/// Nanoseconds of one program over many single runs, the price of a run included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// The fastest run.
    pub min: u64,
    /// A tenth of the runs was faster.
    pub p10: u64,
    /// Half of the runs was faster.
    pub median: u64,
}

/// A program beside what it is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// The hook's program.
    pub program: Spread,
    /// A program that does nothing.
    pub empty: Spread,
    /// A program that only prepends a constant header.
    pub floor: Spread,
    /// Instructions that the verifier walked through the hook's program.
    pub verified_instructions: Option<u32>,
}

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
        Ok(Row { name, cost: cost(&setup, hook, &frame, runs)? })
    });
    measured.collect()
}

/// Measures a hook's program on one frame.
///
/// Each run is a call of its own, since the kernel does not restore the packet between repetitions; the programs
/// take turns, so that a disturbance meets all of them.
fn cost(setup: &Setup, hook: Hook, frame: &[u8], runs: usize) -> Result<Cost> {
    /// Runs before measuring: caches and branch predictors warm up.
    const WARM_UP: usize = 100;
    let name = program_name(hook);
    let datapath = Datapath::private(&[name])?;
    setup.apply(&datapath)?;
    let (empty, floor) = (Floor::empty(), Floor::constant_header());
    let mut durations = [const { Vec::new() }; 3];
    for _ in 0..WARM_UP + runs.max(1) {
        let program = datapath.run(name, frame, Context::default())?.duration;
        for (durations, run) in durations.iter_mut().zip([program, empty.run(frame)?, floor.run(frame)?]) {
            durations.push(run);
        }
    }
    let [program, empty, floor] = durations.map(|durations| spread(durations.into_iter().skip(WARM_UP)));
    Ok(Cost { program, empty, floor, verified_instructions: datapath.verified_instructions(name)? })
}

fn spread(durations: impl Iterator<Item = Duration>) -> Spread {
    let mut sorted: Vec<_> = durations.map(|duration| duration.as_nanos() as u64).collect();
    sorted.sort_unstable();
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    Spread { min: at(0), p10: at(sorted.len() / 10), median: at(sorted.len() / 2) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_taken_from_the_sorted_runs() {
        let durations = (1..=100).rev().map(Duration::from_nanos);
        assert_eq!(spread(durations), Spread { min: 1, p10: 11, median: 51 });
    }
}
