//! `bench vip`: a container's connections to a VIP whose backend lives on another host, by Fanlight and by what else
//! makes VIPs in the kernel, beside plain routing straight to the backend.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    load::Load,
    report::Summary,
    rounds::{Plan, Rounds, Wire},
    ways::{Lane, Pairs, Way},
};

/// The wires of this benchmark.
pub const WIRES: [Wire; 2] = [Wire { mtu: 1500, segmenting: false }, Wire { mtu: 1500, segmenting: true }];

const WAYS: [Way; 7] = [
    Way::Routing,
    Way::Nftables,
    Way::NftablesAmongMany,
    Way::Iptables,
    Way::IptablesAmongMany,
    Way::Vip,
    Way::VipAmongMany,
];

/// What was measured for one load on one wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The wire.
    pub wire: Wire,
    /// The load.
    pub load: Load,
    /// Best rate of plain routing to the backend: the scale of the machine on that day.
    pub routing_best: f64,
    /// A VIP's rate by those of the others, round by round.
    pub vip_to: Vec<Ratio>,
    /// Rate of a VIP among 10,000 by that of one alone.
    pub many_to_one: Summary,
    /// Processor time for a unit by plain routing's (for streams: per byte).
    pub cpu_to_routing: Summary,
}

/// Fanlight's rate by a peer's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ratio {
    /// Which of Fanlight's ways.
    pub ours: Way,
    /// With whom it is compared.
    pub peer: Way,
    /// Their ratio.
    pub ratio: Summary,
    /// What it has to reach.
    pub wanted: Option<f64>,
    /// How long its median round trip takes by theirs, and the 99th of a hundred; for round trips alone.
    pub latency: Option<[Summary; 2]>,
}

/// What is compared: each with as many services as the peer has.
const PAIRS: [(Way, Way); 5] = [
    (Way::Vip, Way::Routing),
    (Way::Vip, Way::Nftables),
    (Way::VipAmongMany, Way::NftablesAmongMany),
    (Way::Vip, Way::Iptables),
    (Way::VipAmongMany, Way::IptablesAmongMany),
];

/// The least that a ratio has to be.
fn wanted(wire: Wire, load: Load, peer: Way) -> Option<f64> {
    match (load, peer) {
        (Load::Stream | Load::Streams4, Way::Routing) => Some(if wire.segmenting { 0.97 } else { 1.0 }),
        (Load::Connections, Way::Nftables) => Some(1.25),
        (Load::Connections, Way::IptablesAmongMany) => Some(5.0),
        _ => None,
    }
}

/// The most processor time a byte, by plain routing's.
const CPU: f64 = 0.92;
/// How much many services may change a rate.
const CHANGE: f64 = 0.03;

/// Measures one wire.
pub fn measure(wire: Wire, plan: Plan) -> Result<Vec<Row>> {
    let pairs = Pairs::new(wire, plan.wiring, &WAYS);
    let lanes = WAYS.map(|way| pairs.lay(way));
    let _servers = lanes.each_ref().map(Lane::serve);
    let hosts = [Way::Vip, Way::VipAmongMany].map(|way| &pairs.hosts(way)[0]);
    let before = hosts.map(crate::Host::counters);
    let rounds = Rounds::run(&lanes, plan)?;
    for (host, before) in hosts.iter().zip(before) {
        let grown = host.counters().since(&before);
        ensure!(
            grown.of("endpoint-ingress", "encapsulated") > 1000,
            "a VIP's traffic did not take its path; counted: {grown}"
        );
    }
    plan.loads().map(|load| row(wire, load, &rounds)).collect()
}

fn row(wire: Wire, load: Load, rounds: &Rounds) -> Result<Row> {
    let ratio = |(ours, peer)| {
        let ratio = rounds.rate(load, ours, peer)?;
        let median = rounds.latency(load, ours, peer, |latency| latency.median)?;
        let latency = median.zip(rounds.latency(load, ours, peer, |latency| latency.p99)?);
        Ok(Ratio { ours, peer, ratio, wanted: wanted(wire, load, peer), latency: latency.map(Into::into) })
    };
    Ok(Row {
        wire,
        load,
        routing_best: rounds.best(load, Way::Routing)?,
        vip_to: PAIRS.into_iter().map(ratio).collect::<Result<_>>()?,
        many_to_one: rounds.rate(load, Way::VipAmongMany, Way::Vip)?,
        cpu_to_routing: rounds.cpu(load, Way::Vip, Way::Routing)?,
    })
}

/// The rows of one wire as a table.
pub fn print(wire: Wire, rows: &[Row]) {
    println!("\n{}; a VIP's rate by others', medians of per-round ratios [quartiles]", wire.name());
    println!("10,000 services: the one that is called is the last of them");
    for row in rows {
        println!("{}  (plain routing, best: {:.0})", row.load.name(), row.routing_best);
        for Ratio { ours, peer, ratio, wanted, latency } in &row.vip_to {
            let missed = wanted.filter(|&wanted| ratio.median < wanted);
            let mark = missed.map(|wanted| format!(" < {wanted}")).unwrap_or_default();
            let latency = latency.map(|[median, p99]| format!("; latency {median}, 99th percentile {p99}"));
            let latency = latency.unwrap_or_default();
            println!("  {:<10} / {:<15} {ratio}{mark}{latency}", ours.name(), peer.name());
        }
        let change = (row.many_to_one.median - 1.0).abs();
        let mark = if change >= CHANGE { format!(" changes by more than {CHANGE}") } else { String::new() };
        println!("  vip-10000  / vip             {}{mark}", row.many_to_one);
        let streams = matches!(row.load, Load::Stream | Load::Streams4);
        let mark =
            if streams && row.cpu_to_routing.median > CPU { format!(" > {CPU}") } else { String::new() };
        println!("  CPU a unit / routing         {}{mark}", row.cpu_to_routing);
    }
}
