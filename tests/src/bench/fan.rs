//! `bench fan`: container to container on two hosts, over Fanlight, plain routing and kernel vxlan, with both
//! ends of a load where [`super::processors`] says.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    load::{Load, Measured},
    report::{Summary, best},
    ways::{Lane, Pairs, Way, program},
};

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds; each runs every way once.
    pub rounds: usize,
    /// Length of one run.
    pub burst: Duration,
}

/// One wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wire {
    /// MTU of the uplinks.
    pub mtu: u32,
    /// Whether the uplink takes no super-packets, as a real wire.
    pub segmenting: bool,
}

impl Wire {
    /// The wires that the figures are given for.
    pub const ALL: [Self; 4] = [
        Self { mtu: 1500, segmenting: false },
        Self { mtu: 1500, segmenting: true },
        Self { mtu: 9000, segmenting: false },
        Self { mtu: 9000, segmenting: true },
    ];
}

/// What was measured for one load on one wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The wire.
    pub wire: Wire,
    /// The load.
    pub load: Load,
    /// Best rate of plain routing: the scale of the machine on that day.
    pub routing_best: f64,
    /// Fanlight's rate by plain routing's, round by round.
    pub fan_to_routing: Summary,
    /// Fanlight's rate by kernel vxlan's, round by round.
    pub fan_to_vxlan: Summary,
    /// Ratio of the undisturbed figures.
    pub best_to_routing: f64,
    /// Processor time for a unit, Fanlight's by plain routing's (for streams: per byte).
    pub cpu_to_routing: Summary,
}

/// Rates and processor times of one way, a value a round.
#[derive(Default)]
struct Series {
    rate: Vec<f64>,
    cpu: Vec<f64>,
}

const WAYS: [Way; 3] = [Way::Routing, Way::Vxlan, Way::Fan];

/// Measures one wire.
pub fn measure(wire: Wire, plan: Plan) -> Result<Vec<Row>> {
    let pairs = Pairs::new(wire.mtu, wire.segmenting);
    let lanes = WAYS.map(|way| pairs.lay(way));
    let _servers = lanes.each_ref().map(Lane::serve);
    let before = pairs.receiver().counters();
    let mut measured: BTreeMap<(Load, Way), Series> = BTreeMap::new();
    for round in 0..=plan.rounds {
        for load in Load::ALL {
            for turn in 0..lanes.len() {
                let lane = &lanes[(turn + round) % lanes.len()];
                let (rate, cpu) = burst(lane, load, plan.burst)?;
                // The first round warms neighbour tables, TCP metrics and caches.
                if round > 0 {
                    let series = measured.entry((load, lane.way)).or_default();
                    series.rate.push(rate);
                    series.cpu.push(cpu);
                }
            }
        }
    }
    let grown = pairs.receiver().counters().since(&before);
    ensure!(
        grown.of("uplink-ingress", "decapsulated") > 1000,
        "the fan's traffic did not take its path; counted: {grown}"
    );
    Load::ALL.iter().map(|&load| row(wire, load, &measured)).collect()
}

/// One run: units a second that arrived, and processor seconds a unit.
fn burst(lane: &Lane<'_>, load: Load, length: Duration) -> Result<(f64, f64)> {
    let before = busy_seconds()?;
    let name = clap::ValueEnum::to_possible_value(&load).context("every load has a name")?;
    let output = lane.ends[0]
        .command(program())
        .args(["load", name.get_name(), &lane.server().to_string(), &length.as_millis().to_string()])
        .run();
    ensure!(output.status.success(), "{} over {}: {output}", load.name(), lane.way.name());
    let measured: Measured = serde_json::from_str(&output.stdout).context("what the load measured")?;
    ensure!(measured.units > 0, "{} over {}: nothing arrived", load.name(), lane.way.name());
    Ok((measured.rate(), (busy_seconds()? - before) / measured.units as f64))
}

/// Processor time spent since boot by everything on this machine: proc(5), /proc/stat.
fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let total: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; ticks of 1/100 s.
    let idle = total.get(3).copied().unwrap_or_default() + total.get(4).copied().unwrap_or_default();
    Ok((total.iter().take(8).sum::<f64>() - idle) / 100.0)
}

fn row(wire: Wire, load: Load, measured: &BTreeMap<(Load, Way), Series>) -> Result<Row> {
    let series = |way| measured.get(&(load, way)).context("no round was run");
    let (routing, vxlan, fan) = (series(Way::Routing)?, series(Way::Vxlan)?, series(Way::Fan)?);
    let ratios = |ours: &[f64], theirs: &[f64]| Summary::of_ratios(ours, theirs).context("no round was run");
    Ok(Row {
        wire,
        load,
        routing_best: best(&routing.rate),
        fan_to_routing: ratios(&fan.rate, &routing.rate)?,
        fan_to_vxlan: ratios(&fan.rate, &vxlan.rate)?,
        best_to_routing: best(&fan.rate) / best(&routing.rate),
        cpu_to_routing: ratios(&fan.cpu, &routing.cpu)?,
    })
}

/// The ratio to routing and to vxlan that a row has to reach.
fn wanted(row: &Row) -> (f64, f64) {
    let to_routing = match row.load {
        Load::RoundTrips | Load::Connections => 1.1,
        Load::Stream | Load::Streams4 | Load::Datagrams if row.wire.segmenting => 0.93,
        Load::Stream | Load::Streams4 | Load::Datagrams => 1.0,
    };
    (to_routing, 1.2)
}

/// The rows of one wire as a table.
pub fn print(wire: Wire, rows: &[Row]) {
    let how =
        if wire.segmenting { "uplink segmenting, as a wire does" } else { "super-packets on the uplink" };
    println!("\nMTU {}, {how}; medians of per-round ratios [quartiles]", wire.mtu);
    println!(
        "{:<15} {:>14}  {:<24} {:<24} {:<12} CPU a unit",
        "load", "routing, best", "fan / routing", "fan / vxlan", "best/best"
    );
    for row in rows {
        let (to_routing, to_vxlan) = wanted(row);
        println!(
            "{:<15} {:>14.0}  {:<24} {:<24} {:<12.2} {}",
            row.load.name(),
            row.routing_best,
            cell(&row.fan_to_routing, to_routing),
            cell(&row.fan_to_vxlan, to_vxlan),
            row.best_to_routing,
            plain(&row.cpu_to_routing),
        );
    }
}

fn plain(summary: &Summary) -> String {
    format!("{:.2} [{:.2} {:.2}]", summary.median, summary.low, summary.high)
}

/// A ratio, marked where it misses what it has to reach.
fn cell(summary: &Summary, wanted: f64) -> String {
    let mark = if summary.median < wanted { format!(" < {wanted}") } else { String::new() };
    format!("{}{mark}", plain(summary))
}
