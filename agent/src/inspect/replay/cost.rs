//! What a program costs per packet.

use std::time::Duration;

use dataplane_common::outcome::Hook;
use serde::Serialize;

use super::{Error, Packet, Result, Setup, engine::received};
use crate::kernel::bpf::{Datapath, bench, program_name};

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

/// Measures a hook's program on one packet.
///
/// Each run is a call of its own, since the kernel does not restore the packet between repetitions; the programs
/// take turns, so that a disturbance meets all of them.
pub fn cost(setup: &Setup, hook: Hook, packet: &Packet, runs: usize) -> Result<Cost> {
    /// Runs before measuring: caches and branch predictors warm up.
    const WARM_UP: usize = 100;
    let names = [program_name(hook), bench::EMPTY, bench::FLOOR];
    let datapath = Datapath::private(&names)?;
    setup.apply(&datapath)?;
    let failed = |reason| Error::Packet { number: packet.number, reason };
    let (frame, context) = received(packet).map_err(failed)?;
    let mut durations = [const { Vec::new() }; 3];
    for _ in 0..WARM_UP + runs.max(1) {
        for (name, durations) in names.iter().zip(&mut durations) {
            durations.push(datapath.run(name, &frame, context)?.duration);
        }
    }
    let [program, empty, floor] = durations.map(|durations| spread(durations.into_iter().skip(WARM_UP)));
    let verified_instructions = datapath.verified_instructions(program_name(hook))?;
    Ok(Cost { program, empty, floor, verified_instructions })
}

fn spread(durations: impl Iterator<Item = Duration>) -> Spread {
    let mut sorted: Vec<_> = durations.map(|duration| duration.as_nanos() as u64).collect();
    sorted.sort_unstable();
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    Spread { min: at(0), p10: at(sorted.len() / 10), median: at(sorted.len() / 2) }
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
