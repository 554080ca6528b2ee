//! Every way in turn, round after round.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    load::{Latency, Load, Measured},
    report::{Summary, best},
    ways::{Lane, Way, Wiring, program},
};
use crate::Site;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds; each runs every way once.
    pub rounds: usize,
    /// Length of one run.
    pub burst: Duration,
    /// This load and no other.
    pub only: Option<Load>,
    /// How containers hang on their hosts.
    pub wiring: Wiring,
}

impl Plan {
    /// The loads to be run.
    pub fn loads(&self) -> impl Iterator<Item = Load> {
        let only = self.only;
        Load::ALL.into_iter().filter(move |&load| only.is_none_or(|only| only == load))
    }
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

    /// What tables say of it.
    pub fn name(self) -> String {
        let how =
            if self.segmenting { "uplink segmenting, as a wire does" } else { "super-packets on the uplink" };
        format!("MTU {}, {how}", self.mtu)
    }
}

/// What one load over one way gave, a value a round.
#[derive(Default)]
struct Series {
    rate: Vec<f64>,
    cpu: Vec<f64>,
    latency: Vec<Latency>,
}

/// What all rounds measured.
pub struct Rounds(BTreeMap<(Load, Way), Series>);

impl Rounds {
    /// Runs every load over every way in turn.
    pub fn run(lanes: &[Lane<'_>], plan: Plan) -> Result<Self> {
        let mut measured: BTreeMap<(Load, Way), Series> = BTreeMap::new();
        for round in 0..=plan.rounds {
            for load in plan.loads() {
                for turn in 0..lanes.len() {
                    let lane = &lanes[(turn + round) % lanes.len()];
                    let is_warm_up = round == 0;
                    let length = if is_warm_up { warm_up(load).max(plan.burst) } else { plan.burst };
                    let (arrived, cpu) = burst(lane, load, length)?;
                    if !is_warm_up {
                        let series = measured.entry((load, lane.way)).or_default();
                        series.rate.push(arrived.rate());
                        series.cpu.push(cpu);
                        series.latency.extend(arrived.latency);
                    }
                }
            }
        }
        Ok(Self(measured))
    }

    fn series(&self, load: Load, way: Way) -> Result<&Series> {
        self.0.get(&(load, way)).context("no round was run")
    }

    /// One way's rate by another's, round by round.
    pub fn rate(&self, load: Load, way: Way, to: Way) -> Result<Summary> {
        Summary::of_ratios(&self.series(load, way)?.rate, &self.series(load, to)?.rate)
            .context("no round was run")
    }

    /// One way's processor time for a unit by another's, round by round.
    pub fn cpu(&self, load: Load, way: Way, to: Way) -> Result<Summary> {
        Summary::of_ratios(&self.series(load, way)?.cpu, &self.series(load, to)?.cpu)
            .context("no round was run")
    }

    /// A quantile of one way's times by another's, round by round; `None` for a load whose units are not timed.
    pub fn latency(
        &self,
        load: Load,
        way: Way,
        to: Way,
        quantile: fn(&Latency) -> f64,
    ) -> Result<Option<Summary>> {
        let of =
            |way| -> Result<Vec<f64>> { Ok(self.series(load, way)?.latency.iter().map(quantile).collect()) };
        Ok(Summary::of_ratios(&of(way)?, &of(to)?))
    }

    /// A way's undisturbed rate.
    pub fn best(&self, load: Load, way: Way) -> Result<f64> {
        Ok(best(&self.series(load, way)?.rate))
    }
}

/// How long the first round is, which warms neighbour tables, TCP metrics and caches. For connections until a client has come
/// through its 28,232 ports: what goes on then is what a sustained rate meets, in every way's table of flows.
fn warm_up(load: Load) -> Duration {
    Duration::from_secs(if load == Load::Connections { 4 } else { 0 })
}

/// One run: what arrived, and processor seconds a unit.
fn burst(lane: &Lane<'_>, load: Load, length: Duration) -> Result<(Measured, f64)> {
    let before = busy_seconds()?;
    let measured = run(&lane.ends[0], load, lane.server(), length)
        .with_context(|| format!("{} over {}", load.name(), lane.way.name()))?;
    Ok((measured, (busy_seconds()? - before) / measured.units as f64))
}

/// Puts a load from a site on a server for some time.
pub fn run(from: &Site, load: Load, server: Ipv4Addr, length: Duration) -> Result<Measured> {
    let name = clap::ValueEnum::to_possible_value(&load).context("every load has a name")?;
    let output = from
        .command(program())
        .args(["load", name.get_name(), &server.to_string(), &length.as_millis().to_string()])
        .run();
    ensure!(output.status.success(), "{output}");
    let measured: Measured = serde_json::from_str(&output.stdout).context("what the load measured")?;
    ensure!(measured.units > 0, "nothing arrived");
    Ok(measured)
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
