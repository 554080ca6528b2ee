//! `bench clock`: what a round trip and a connection cost on a guest's instruction clock, where one nanosecond is
//! one instruction. Repeatable within a percent, whatever else the machine does.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{
    load::{Load, Measured},
    processors::Processors,
    report::Summary,
    rounds::Wire,
    ways::{Lane, Pairs, Way, Wiring, program},
};
use crate::Host;

/// Instructions of one operation, by operation and way.
pub type Costs = BTreeMap<&'static str, BTreeMap<Way, f64>>;

/// What is counted: a 64-byte request and its answer; connect, request, answer, close.
const OPERATIONS: [(&str, Load, u64); 2] =
    [("round_trip", Load::RoundTrips, 1000), ("connection", Load::Connections, 200)];
const WAYS: [Way; 10] = [
    Way::Routing,
    Way::Vxlan,
    Way::Ipip,
    Way::Fan,
    Way::Ipvs,
    Way::IpvsOverIpip,
    Way::Nftables,
    Way::NftablesOverIpip,
    Way::Vip,
    Way::VipRouted,
];
/// What an operation through a VIP may cost at most by what it costs with a peer, per round trip and per connection:
/// where both route plainly between the hosts, where both use a tunnel, and where only ours does.
const WANTED: [(Way, Way, [f64; 2]); 6] = [
    (Way::VipRouted, Way::Ipvs, [0.79, 0.79]),
    (Way::VipRouted, Way::Nftables, [0.79, 0.78]),
    (Way::Vip, Way::IpvsOverIpip, [0.79, 0.79]),
    (Way::Vip, Way::NftablesOverIpip, [0.79, 0.78]),
    (Way::Vip, Way::Ipvs, [0.79, 0.79]),
    (Way::Vip, Way::Nftables, [0.79, 0.78]),
];
/// Every round runs every way once; what else the guest's one processor does falls into few of them.
const ROUNDS: usize = 5;
const WARM_UP: u64 = 20;

/// Measures every way; to be run in a guest with an instruction clock.
pub fn measure(wiring: Wiring) -> Result<Costs> {
    let pairs = Pairs::new(Wire { mtu: 1500, segmenting: false }, wiring, &WAYS);
    let ways = WAYS.into_iter().filter(|&way| is_known(way, &pairs.hosts(way)[0]));
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

/// Some kernels have no ipip device, some no ip_vs.
fn is_known(way: Way, host: &Host) -> bool {
    let works = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|program| host.command(program).args(words).run().status.success())
    };
    match way {
        Way::Ipip => works("ip link add probe type ipip remote 192.0.2.1") && works("ip link del probe"),
        Way::Ipvs => works("ipvsadm -L -n"),
        Way::NftablesOverIpip => is_known(Way::Ipip, host),
        Way::IpvsOverIpip => is_known(Way::Ipip, host) && is_known(Way::Ipvs, host),
        _ => true,
    }
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
    println!("{:<13} {:>18} {:>18}", "way", "round trip", "connection");
    for way in WAYS {
        let cell = |operation| {
            let of =
                |way| costs.get(operation).and_then(|costs| costs.get(&way)).copied().unwrap_or(f64::NAN);
            format!("{:.1} ({:.3})", of(way) / 1e3, of(way) / of(Way::Routing))
        };
        println!("{:<13} {:>18} {:>18}", way.name(), cell("round_trip"), cell("connection"));
    }
    println!("\nA VIP by its peers");
    for (ours, peer, most) in WANTED {
        for ((operation, ..), most) in OPERATIONS.into_iter().zip(most) {
            let of = |way| costs.get(operation).and_then(|costs| costs.get(&way));
            let (Some(cost), Some(peers)) = (of(ours), of(peer)) else { continue };
            let ratio = cost / peers;
            let mark = if ratio > most { format!(" > {most}") } else { String::new() };
            println!("{:<10} / {:<13} {operation:<11} {ratio:.3}{mark}", ours.name(), peer.name());
        }
    }
}
