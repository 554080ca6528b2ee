//! `bench clock`: what a round trip and a connection cost on a guest's instruction clock, where one nanosecond is
//! one instruction. Repeatable within a percent, whatever else the machine does.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{
    load::{Load, Measured},
    processors::Processors,
    report::Summary,
    ways::{Lane, Pairs, Way, program},
};
use crate::Host;

/// Instructions of one operation, by operation and way.
pub type Costs = BTreeMap<&'static str, BTreeMap<Way, f64>>;

/// What is counted: a 64-byte request and its answer; connect, request, answer, close.
const OPERATIONS: [(&str, Load, u64); 2] =
    [("round_trip", Load::RoundTrips, 1000), ("connection", Load::Connections, 200)];
const WAYS: [Way; 4] = [Way::Routing, Way::Vxlan, Way::Ipip, Way::Fan];
/// Every round runs every way once; what else the guest's one processor does falls into few of them.
const ROUNDS: usize = 5;
const WARM_UP: u64 = 20;

/// Measures every way; to be run in a guest with an instruction clock.
pub fn measure() -> Result<Costs> {
    let pairs = Pairs::new(1500, false);
    let ways = WAYS.into_iter().filter(|&way| way != Way::Ipip || ipip_works(pairs.peer()));
    let lanes: Vec<_> = ways.map(|way| pairs.lay(way)).collect();
    let _servers: Vec<_> = lanes.iter().map(Lane::serve).collect();
    let mut rounds: BTreeMap<(&str, Way), Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (operation, load, count) in OPERATIONS {
            for lane in &lanes {
                rounds.entry((operation, lane.way)).or_default().push(cost(lane, load, count)?);
            }
        }
    }
    let mut costs = Costs::new();
    for ((operation, way), values) in rounds {
        let summary = Summary::of(&values).context("no round was run")?;
        costs.entry(operation).or_default().insert(way, summary.median);
    }
    Ok(costs)
}

/// Some kernels have no ipip device.
fn ipip_works(host: &Host) -> bool {
    let made = host.command("ip").args(["link", "add", "probe", "type", "ipip", "remote", "192.0.2.1"]).run();
    made.status.success() && host.command("ip").args(["link", "del", "probe"]).run().status.success()
}

fn cost(lane: &Lane<'_>, load: Load, count: u64) -> Result<f64> {
    let name = clap::ValueEnum::to_possible_value(&load).context("every load has a name")?;
    let output = lane.ends[0]
        .command(program())
        .args([
            "count",
            name.get_name(),
            &lane.server().to_string(),
            &WARM_UP.to_string(),
            &count.to_string(),
        ])
        .limit(Duration::from_secs(300))
        .run();
    ensure!(output.status.success(), "{} over {}: {output}", load.name(), lane.way.name());
    let measured: Measured = serde_json::from_str(&output.stdout).context("what the load measured")?;
    Ok(measured.seconds * 1e9 / measured.units as f64)
}

/// Runs `count` operations after a warm-up: the command that [`measure`] starts in a container.
pub fn count(load: Load, server: Ipv4Addr, warm_up: u64, count: u64) -> Result<Measured> {
    Processors::allowed()?.pin_to_client()?;
    super::load::run_count(load, server, warm_up)?;
    super::load::run_count(load, server, count)
}

/// The costs as a table of ratios to plain routing.
pub fn print(kernel: &str, costs: &Costs) {
    println!(
        "\nInstruction clock, kernel {}: thousands of instructions (ratio to plain routing)",
        kernel.trim()
    );
    println!("{:<10} {:>18} {:>18}", "way", "round trip", "connection");
    for way in WAYS {
        let cell = |operation| {
            let of =
                |way| costs.get(operation).and_then(|costs| costs.get(&way)).copied().unwrap_or(f64::NAN);
            format!("{:.1} ({:.3})", of(way) / 1e3, of(way) / of(Way::Routing))
        };
        println!("{:<10} {:>18} {:>18}", way.name(), cell("round_trip"), cell("connection"));
    }
}
