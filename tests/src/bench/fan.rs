//! `bench fan`: container to container on two hosts, over Fanlight, plain routing and kernel vxlan, with both
//! ends of a load where [`super::processors`] says.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    load::Load,
    report::Summary,
    rounds::{Plan, Rounds, Wire},
    ways::{Lane, Pairs, Way},
};

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
    /// The rate for containers put into the bridge by hand, without an agent, by plain routing's, round by round.
    pub by_hand_to_routing: Summary,
    /// Ratio of the undisturbed figures.
    pub best_to_routing: f64,
    /// Processor time for a unit, Fanlight's by plain routing's (for streams: per byte).
    pub cpu_to_routing: Summary,
}

const WAYS: [Way; 4] = [Way::Routing, Way::Vxlan, Way::Fan, Way::FanByHand];

/// Measures one wire.
pub fn measure(wire: Wire, plan: Plan) -> Result<Vec<Row>> {
    let pairs = Pairs::new(wire, plan.wiring, &WAYS);
    let lanes = WAYS.map(|way| pairs.lay(way));
    let _servers = lanes.each_ref().map(Lane::serve);
    let receiver = &pairs.hosts(Way::Fan)[1];
    let before = receiver.counters();
    let rounds = Rounds::run(&lanes, plan)?;
    let grown = receiver.counters().since(&before);
    ensure!(
        grown.of("uplink-ingress", "decapsulated") > 1000,
        "the fan's traffic did not take its path; counted: {grown}"
    );
    plan.loads().map(|load| row(wire, load, &rounds)).collect()
}

fn row(wire: Wire, load: Load, rounds: &Rounds) -> Result<Row> {
    Ok(Row {
        wire,
        load,
        routing_best: rounds.best(load, Way::Routing)?,
        fan_to_routing: rounds.rate(load, Way::Fan, Way::Routing)?,
        fan_to_vxlan: rounds.rate(load, Way::Fan, Way::Vxlan)?,
        by_hand_to_routing: rounds.rate(load, Way::FanByHand, Way::Routing)?,
        best_to_routing: rounds.best(load, Way::Fan)? / rounds.best(load, Way::Routing)?,
        cpu_to_routing: rounds.cpu(load, Way::Fan, Way::Routing)?,
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

/// The ratio to routing that a row has to reach without an agent: small packets go by the stack.
fn by_hand(row: &Row) -> f64 {
    if matches!(row.load, Load::Stream | Load::Streams4) { 0.95 } else { 0.0 }
}

/// The rows of one wire as a table.
pub fn print(wire: Wire, rows: &[Row]) {
    println!("\n{}; medians of per-round ratios [quartiles]", wire.name());
    println!(
        "{:<15} {:>14}  {:<24} {:<24} {:<24} {:<12} CPU a unit",
        "load", "routing, best", "fan / routing", "fan / vxlan", "by hand / routing", "best/best"
    );
    for row in rows {
        let (to_routing, to_vxlan) = wanted(row);
        println!(
            "{:<15} {:>14.0}  {:<24} {:<24} {:<24} {:<12.2} {}",
            row.load.name(),
            row.routing_best,
            cell(&row.fan_to_routing, to_routing),
            cell(&row.fan_to_vxlan, to_vxlan),
            cell(&row.by_hand_to_routing, by_hand(row)),
            row.best_to_routing,
            row.cpu_to_routing,
        );
    }
}

/// A ratio, marked where it misses what it has to reach.
fn cell(summary: &Summary, wanted: f64) -> String {
    let mark = if summary.median < wanted { format!(" < {wanted}") } else { String::new() };
    format!("{summary}{mark}")
}
