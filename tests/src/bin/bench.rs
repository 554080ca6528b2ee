//! Benchmarks, and the load generator that they start inside namespaces.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use fanlight_tests::{
    bench::{
        announce, api, clock, cluster, fan, flood, flows, health,
        load::{self, Load},
        processors::Processors,
        program, refuse,
        rounds::{Plan, Wire},
        routes, services, state, vip,
        ways::Wiring,
    },
    crowd::CrowdServer,
};
use serde::Serialize;

#[derive(Parser)]
#[command(name = "cargo xtask bench", about = "Fanlight beside its peers, in one interleaved run, as ratios")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Container to container on two hosts: Fanlight, plain routing, kernel vxlan
    Fan {
        /// Rounds; each runs every way once
        #[arg(long, default_value_t = 10)]
        rounds: usize,
        /// Milliseconds of one run
        #[arg(long, default_value_t = 300)]
        burst: u64,
        /// Only this load
        #[arg(long)]
        load: Option<Load>,
        /// Only wires of this MTU
        #[arg(long)]
        mtu: Option<u32>,
        /// How containers hang on their hosts
        #[arg(long, default_value = "bridged")]
        wiring: Wiring,
        /// Write the rows as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Container to a VIP with its backend on another host: Fanlight, nftables, iptables, plain routing
    Vip {
        /// Rounds; each runs every way once
        #[arg(long, default_value_t = 10)]
        rounds: usize,
        /// Milliseconds of one run
        #[arg(long, default_value_t = 300)]
        burst: u64,
        /// Only this load
        #[arg(long)]
        load: Option<Load>,
        /// How containers hang on their hosts
        #[arg(long, default_value = "bridged")]
        wiring: Wiring,
        /// Write the rows as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Forged clients beside established flows and a quiet client
    Flood {
        /// Seconds of each flood
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Forged clients a second
        #[arg(long, default_value_t = 100_000)]
        rate: u32,
        /// Established flows
        #[arg(long, default_value_t = 10_000)]
        flows: usize,
        /// Write the rows as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// A list of a large flow table: time, and what packets notice of it
    Flows {
        /// Flows in the table, two entries each
        #[arg(long, default_value_t = 500_000)]
        flows: u32,
        /// Rounds; each runs round trips once without lists and once beside them
        #[arg(long, default_value_t = 8)]
        rounds: usize,
        /// Milliseconds of one run
        #[arg(long, default_value_t = 2000)]
        burst: u64,
        /// Write the row as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Many services in one agent: time to load them, of one change, memory
    Services {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        services: u32,
        /// Backends of each
        #[arg(long, default_value_t = 10)]
        backends: u32,
        /// Write the rows as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// A large cluster's state on one node: time to join, memory, one change
    State {
        #[command(flatten)]
        plan: state::Plan,
        /// Write the rows as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Members of one cluster: how fast a service and a death reach every node, processor time, memory
    Cluster {
        #[command(flatten)]
        plan: cluster::Plan,
        /// Write the rows as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// How long readers of the API wait while services are applied one at a time and fans are repaired
    Api {
        /// Services that are applied
        #[arg(long, default_value_t = 10_000)]
        services: u32,
        /// Backends of each
        #[arg(long, default_value_t = 10)]
        backends: u32,
        /// Milliseconds from one break of a fan to the next
        #[arg(long, default_value_t = 500)]
        pause: u64,
        /// Write the rows as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Many health checks in one agent: whether they stay on schedule, and its processor time
    Health {
        #[command(flatten)]
        plan: health::Plan,
        /// Write the rows as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// An agent beside a router's table: processor time at rest, and while foreign routes change
    Routes {
        /// Foreign routes
        #[arg(long, default_value_t = 200_000)]
        routes: u32,
        /// Foreign routes that change a second
        #[arg(long, default_value_t = 1_000)]
        changes: u32,
        /// Seconds of each measurement
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Write the rows as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// How soon peers of BGP hear of a change, beside ExaBGP
    Announce {
        /// Prefixes that change at once
        #[arg(long, default_value_t = 1_000)]
        prefixes: u32,
        /// How often each change is measured
        #[arg(long, default_value_t = 10)]
        rounds: usize,
        /// Write the rows as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Forged tunnel packets refused at the uplink, on one processor: XDP, tc, nftables
    Refuse {
        /// Rounds; each runs every way once
        #[arg(long, default_value_t = 20)]
        rounds: usize,
        /// Milliseconds of one run
        #[arg(long, default_value_t = 300)]
        burst: u64,
        /// Write the rows as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Each program alone, per packet
    Program {
        /// Packets through each program
        #[arg(long, default_value_t = 20_000)]
        runs: usize,
        /// Write the rows as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Instructions of a round trip and a connection (a guest with an instruction clock runs this)
    Clock {
        /// How containers hang on their hosts
        #[arg(long, default_value = "bridged")]
        wiring: Wiring,
        /// Write the costs as JSON here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Serve loads until killed
    #[command(hide = true)]
    Serve,
    /// Send back what connections bring until killed
    #[command(hide = true)]
    Crowd { address: SocketAddrV4 },
    /// Run one load for a time and print what was measured, as JSON
    #[command(hide = true)]
    Load { load: Load, server: Ipv4Addr, milliseconds: u64 },
    /// Run one load so many times and print what was measured, as JSON
    #[command(hide = true)]
    Count { load: Load, server: Ipv4Addr, warm_up: u64, count: u64 },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Fan { rounds, burst, load, mtu, wiring, json } => {
            let plan = Plan { rounds, burst: Duration::from_millis(burst), only: load, wiring };
            tell(wiring)?;
            let mut all = Vec::new();
            for wire in Wire::ALL.into_iter().filter(|wire| mtu.is_none_or(|mtu| mtu == wire.mtu)) {
                let rows = fan::measure(wire, plan)?;
                fan::print(wire, &rows);
                all.extend(rows);
            }
            keep(json, &all)
        }
        Command::Vip { rounds, burst, load, wiring, json } => {
            let plan = Plan { rounds, burst: Duration::from_millis(burst), only: load, wiring };
            tell(wiring)?;
            let mut all = Vec::new();
            for wire in vip::WIRES {
                let rows = vip::measure(wire, plan)?;
                vip::print(wire, &rows);
                all.extend(rows);
            }
            keep(json, &all)
        }
        Command::Flood { seconds, rate, flows, json } => {
            flood_with(flood::Plan { length: Duration::from_secs(seconds), rate, flows }, json)
        }
        Command::Flows { flows: count, rounds, burst, json } => {
            let plan = flows::Plan { flows: count, rounds, burst: Duration::from_millis(burst) };
            show(&flows::measure(plan)?, flows::print, json)
        }
        Command::Services { services, backends, json } => load_services(services, backends, json),
        Command::State { plan, json } => hold(plan, json),
        Command::Cluster { plan, json } => join(plan, json),
        Command::Api { services, backends, pause, json } => {
            let plan = api::Plan { services, backends, pause: Duration::from_millis(pause) };
            show(&api::measure(plan)?, |report| api::print(plan, report), json)
        }
        Command::Health { plan, json } => {
            show(&health::measure(plan)?, |rows| health::print(plan, rows), json)
        }
        Command::Routes { routes, changes, seconds, json } => {
            route_beside(routes::Plan { routes, changes, length: Duration::from_secs(seconds) }, json)
        }
        Command::Announce { prefixes, rounds, json } => {
            announce_to(announce::Plan { prefixes, rounds }, json)
        }
        Command::Refuse { rounds, burst, json } => {
            refuse_in(refuse::Plan { rounds, burst: Duration::from_millis(burst) }, json)
        }
        Command::Program { runs, json } => show(&program::measure(runs)?, |rows| program::print(rows), json),
        Command::Clock { wiring, json } => count_instructions(wiring, json),
        Command::Serve => load::serve(),
        Command::Crowd { address } => Ok(CrowdServer::serve(address)?),
        Command::Load { load, server, milliseconds } => {
            report(&load::run(load, server, Duration::from_millis(milliseconds))?)
        }
        Command::Count { load, server, warm_up, count } => {
            report(&clock::count(load, server, warm_up, count)?)
        }
    }
}

fn route_beside(plan: routes::Plan, json: Option<PathBuf>) -> Result<()> {
    show(&routes::measure(plan)?, |rows| routes::print(rows), json)
}

fn refuse_in(plan: refuse::Plan, json: Option<PathBuf>) -> Result<()> {
    show(&refuse::measure(plan)?, |rows| refuse::print(rows), json)
}

fn flood_with(plan: flood::Plan, json: Option<PathBuf>) -> Result<()> {
    show(&flood::measure(plan)?, |rows| flood::print(rows), json)
}

fn announce_to(plan: announce::Plan, json: Option<PathBuf>) -> Result<()> {
    show(&announce::measure(plan)?, |rows| announce::print(rows), json)
}

fn count_instructions(wiring: Wiring, json: Option<PathBuf>) -> Result<()> {
    let costs = clock::measure(wiring)?;
    println!("Wiring: {}", wiring.name());
    clock::print(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default(), &costs);
    keep(json, &costs)
}

fn load_services(count: u32, backends: u32, json: Option<PathBuf>) -> Result<()> {
    let print = |rows: &Vec<_>| services::print(count, backends, rows);
    show(&services::measure(count, backends)?, print, json)
}

fn hold(plan: state::Plan, json: Option<PathBuf>) -> Result<()> {
    show(&state::measure(plan)?, |rows| state::print(plan, rows), json)
}

fn join(plan: cluster::Plan, json: Option<PathBuf>) -> Result<()> {
    show(&cluster::measure(plan)?, |rows| cluster::print(plan, rows), json)
}

fn show<T: Serialize>(result: &T, print: impl FnOnce(&T), json: Option<PathBuf>) -> Result<()> {
    print(result);
    keep(json, result)
}

/// The method, before the figures.
fn tell(wiring: Wiring) -> Result<()> {
    println!("{}\nWiring: {}", Processors::allowed()?, wiring.name());
    Ok(())
}

fn report(measured: &load::Measured) -> Result<()> {
    println!("{}", serde_json::to_string(measured)?);
    Ok(())
}

fn keep<T: Serialize>(file: Option<PathBuf>, result: &T) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    fs::write(&file, serde_json::to_string_pretty(result)?)
        .with_context(|| format!("write {}", file.display()))
}
