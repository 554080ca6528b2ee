//! `bench cluster`: agents that are members of each other: how fast a service and a death reach every node's kernel, what an
//! agent takes at rest and while keys change, and how long many services take to every node.

use std::{
    fs,
    net::SocketAddrV4,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    report::{Summary, milliseconds},
    routes::seconds,
    services::{Row, service as many},
};
use crate::{
    Agent, Host, api,
    cluster::{JOINED, are_members, cluster, node, served, started, up},
    fleet::{Fleet, underlay},
    services::service,
};

/// How often a service is registered.
const REGISTRATIONS: u16 = 20;
/// How often an agent is killed.
const DEATHS: usize = 10;
/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at all nodes.
const LOOK: Duration = Duration::from_millis(1);
/// Services that are looked for first, of many: a list of all takes a node some 60 ms.
const SAMPLES: u32 = 100;
/// Until what the last measurement caused is over.
const REST: Duration = Duration::from_secs(5);

/// What to measure.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Plan {
    /// Members
    #[arg(long, default_value_t = 10)]
    pub nodes: usize,
    /// Keys that change a second
    #[arg(long, default_value_t = 1_000)]
    pub changes: u32,
    /// Services that one node registers at once
    #[arg(long, default_value_t = 10_000)]
    pub services: u32,
    /// Backends of each
    #[arg(long, default_value_t = 10)]
    pub backends: u32,
    /// Seconds of each measurement of processor time
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
}

/// Starts a cluster and measures it.
///
/// # Errors
/// An agent answers something else than was expected.
pub fn measure(plan: Plan) -> Result<Vec<Row>> {
    ensure!(plan.nodes >= 3, "a cluster of {} nodes has no majority without one of them", plan.nodes);
    let fleet = cluster(plan.nodes);
    let mut agents = started(&fleet);
    let row = |name, unit, value, most| Row { name, unit, value, most };
    let registered = registrations(&fleet)?;
    let died = deaths(&fleet, &mut agents)?;
    thread::sleep(REST);
    let length = Duration::from_secs(plan.seconds);
    let rest = used(&agents, length)?;
    let (memory, (changing, changed)) = (resident(&agents)?, changes(&fleet, &agents, plan)?);
    thread::sleep(REST);
    let before = resident(&agents)?;
    let loaded = load(&fleet, plan)?;
    let longest = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
    let median = |times: &[f64]| Summary::of(times).map_or(f64::NAN, |summary| summary.median);
    Ok(vec![
        row("a service on every node, median", "ms", median(&registered), None),
        row("a service on every node, longest", "ms", longest(&registered), Some(100.0)),
        row("a death out of every ring, median", "ms", median(&died), None),
        row("a death out of every ring, longest", "ms", longest(&died), Some(1_500.0)),
        row("an agent at rest", "% of a processor", rest, None),
        row("an agent's memory", "MiB", memory, None),
        row("changes a second", "", changed, None),
        row("an agent meanwhile", "% of a processor", changing, None),
        row("many services, on their node", "ms", loaded.own, None),
        row("many services, on every node", "ms", loaded.all, None),
        row("an agent's memory with them", "MiB", resident(&agents)?, None),
        row("as much more as", "MiB", resident(&agents)? - before, Some(64.0)),
    ])
}

/// Waits until a service is so on all these hosts.
fn is_everywhere(hosts: &[&Host], name: &str, is_so: impl Fn(&Value) -> bool) -> Result<()> {
    let start = Instant::now();
    for host in hosts {
        while !served(host, name).is_some_and(|service| is_so(&service)) {
            ensure!(start.elapsed() < LIMIT, "{} does not have {name} as it ought to be", host.name());
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

/// Registers services, one after the other, each on the next host; milliseconds until all have it, from before the request.
fn registrations(fleet: &Fleet) -> Result<Vec<f64>> {
    let hosts: Vec<&Host> = fleet.hosts().iter().collect();
    let register = |number: u16| {
        let host = usize::from(number) % hosts.len();
        let name = format!("registered{number}");
        let vip = format!("10.96.1.{number}:80/tcp");
        let text = service(&name, vip, &[SocketAddrV4::new(underlay(host), 80).to_string()]);
        let start = Instant::now();
        let answer = api::ask(hosts[host], "POST", "/v1/services", &text)?;
        ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
        is_everywhere(&hosts, &name, |_| true)?;
        Ok(milliseconds(start.elapsed()))
    };
    (0..REGISTRATIONS).map(register).collect()
}

/// Kills agents, one after the other; milliseconds until a service has a backend less on all others.
fn deaths(fleet: &Fleet, agents: &mut Vec<Agent>) -> Result<Vec<f64>> {
    let backends: Vec<String> =
        (0..agents.len()).map(|host| SocketAddrV4::new(underlay(host), 80).to_string()).collect();
    let text = service("all", "10.96.2.1:80/tcp", &backends);
    api::ask(&fleet[0], "POST", "/v1/services", &text)?;
    let (all, number) = (fleet.hosts().iter().collect::<Vec<_>>(), agents.len());
    let mut times = Vec::new();
    for turn in 0..DEATHS {
        is_everywhere(&all, "all", |service| up(service) == number)?;
        let victim = turn % number;
        let others: Vec<&Host> = all.iter().filter(|host| host.name() != node(victim)).copied().collect();
        let start = Instant::now();
        agents.remove(victim).kill9();
        is_everywhere(&others, "all", |service| up(service) == number - 1)?;
        times.push(milliseconds(start.elapsed()));
        agents.insert(victim, fleet[victim].agent());
        are_members(fleet, &(0..number).collect::<Vec<_>>(), JOINED);
    }
    Ok(times)
}

/// Processor time of an agent, the mean of all.
fn used(agents: &[Agent], length: Duration) -> Result<f64> {
    let sum = || agents.iter().map(seconds).sum::<Result<f64>>();
    let (start, before) = (Instant::now(), sum()?);
    thread::sleep(length);
    Ok((sum()? - before) / start.elapsed().as_secs_f64() / agents.len() as f64 * 100.0)
}

/// Resident memory of an agent, the mean of all.
fn resident(agents: &[Agent]) -> Result<f64> {
    let of = |agent: &Agent| {
        let path = format!("/proc/{}/status", agent.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    };
    Ok(agents.iter().map(of).sum::<Result<f64>>()? / agents.len() as f64)
}

/// Keys change on all hosts; processor time of an agent meanwhile, and how many changes that were a second.
fn changes(fleet: &Fleet, agents: &[Agent], plan: Plan) -> Result<(f64, f64)> {
    let length = Duration::from_secs(plan.seconds);
    let gap = Duration::from_secs_f64(agents.len() as f64 / f64::from(plan.changes));
    let (start, until) = (Instant::now(), Instant::now() + length);
    let write = |host: &Host| -> Result<u32> {
        let mut written = 0;
        while Instant::now() < until {
            let path = format!("/v1/kv/{}-{}", host.name(), written % 100);
            let answer = api::ask(host, "PUT", &path, &written.to_string())?;
            ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
            written += 1;
            thread::sleep((gap * written).saturating_sub(start.elapsed()));
        }
        Ok(written)
    };
    thread::scope(|scope| {
        let writers: Vec<_> = fleet.hosts().iter().map(|host| scope.spawn(|| write(host))).collect();
        let used = used(agents, length)?;
        let written = writers.into_iter().map(|writer| writer.join().expect("a writer does not panic"));
        let written = written.sum::<Result<u32>>()?;
        Ok((used, f64::from(written) / start.elapsed().as_secs_f64()))
    })
}

/// How long many services take, in milliseconds from the start of their registration.
struct Loaded {
    own: f64,
    all: f64,
}

fn load(fleet: &Fleet, plan: Plan) -> Result<Loaded> {
    let text: String = (0..plan.services).map(|number| many(number, plan.backends, 1)).collect();
    let start = Instant::now();
    fleet[0].fanlight(["service", "apply", "-f", "-"]).input(text).limit(LIMIT).ok();
    let own = milliseconds(start.elapsed());
    let hosts: Vec<&Host> = fleet.hosts().iter().collect();
    let step = (plan.services / SAMPLES).max(1) as usize;
    for number in (0..plan.services).step_by(step) {
        is_everywhere(&hosts, &format!("s{number}"), |_| true)?;
    }
    // They come in parts, in any order.
    for host in hosts {
        while number_of_services(host)? < plan.services as usize {
            ensure!(start.elapsed() < LIMIT, "{} does not have all services", host.name());
        }
    }
    Ok(Loaded { own, all: milliseconds(start.elapsed()) })
}

fn number_of_services(host: &Host) -> Result<usize> {
    let answer = api::ask(host, "GET", "/v1/services", "")?;
    let all: Value = serde_json::from_slice(&answer.body)?;
    Ok(all.as_array().map_or(0, Vec::len))
}

/// The rows as a table.
pub fn print(plan: Plan, rows: &[Row]) {
    println!("\n{} nodes, {} services with {} backends each", plan.nodes, plan.services, plan.backends);
    super::services::print_rows(rows);
}
