//! `bench services`: many services in one agent: how long they take, what one change takes, what they hold.

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::report::{Summary, milliseconds};
use crate::{
    Agent, Host,
    fleet::{Fleet, overlay},
    services::{configure, weighted},
};

const FIRST_VIP: u32 = u32::from_be_bytes([10, 97, 0, 0]);
/// How often one change is measured.
const CHANGES: u32 = 20;
const LIMIT: Duration = Duration::from_secs(120);
/// Where metrics are read.
const LISTEN: &str = "127.0.0.1:7480";

/// What was measured, and what it may be at most.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What.
    pub name: &'static str,
    /// In this unit.
    pub unit: &'static str,
    /// So much.
    pub value: f64,
    /// The most that is wanted.
    pub most: Option<f64>,
}

/// Applies `services` services with `backends` backends each, and changes one of them.
pub fn measure(services: u32, backends: u32) -> Result<Vec<Row>> {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    configure(host, &[format!("[api]\nlisten = \"{LISTEN}\"\n")]);
    let agent = host.agent();
    let empty = memory(host);
    let all: String = (0..services).map(|number| service(number, backends, 1)).collect();
    let loaded = apply(host, &all, services)?;
    // Weight by weight, in services all over the table.
    let change = |turn| {
        let number = turn * (services / CHANGES).max(1) % services;
        apply(host, &service(number, backends, 2), 1)
    };
    let changes = (0..CHANGES).map(change).collect::<Result<Vec<_>>>()?;
    let by_agent: Vec<_> = changes.iter().map(|applied| applied.by_agent).collect();
    let by_agent = Summary::of(&by_agent).context("no change was made")?;
    let full = memory(host);
    let start = Instant::now();
    host.json("status");
    let status = start.elapsed();
    let scrapes = (0..CHANGES).map(|_| scrape(host)).collect::<Result<Vec<_>>>()?;
    let scrape = Summary::of(&scrapes).context("nothing was scraped")?;
    let descriptors = descriptors(&agent)?;
    agent.kill9();
    let start = Instant::now();
    let _agent = host.agent();
    let row = |name, unit, value, most| Row { name, unit, value, most };
    Ok(vec![
        row("load, by the agent's clock", "ms", loaded.by_agent, Some(2000.0)),
        row("load, by the command's", "ms", loaded.by_command, None),
        row("one change, median", "ms", by_agent.median, Some(5.0)),
        row("one change, third quartile", "ms", by_agent.high, None),
        row("an agent's start with them", "ms", milliseconds(start.elapsed()), None),
        row("status", "ms", milliseconds(status), None),
        row("/metrics, median", "ms", scrape.median, None),
        row("maps of services", "MiB", full.services, Some(100.0)),
        row("all maps but flows", "MiB", full.maps - full.flows, Some(100.0)),
        row("all maps but flows, without services", "MiB", empty.maps - empty.flows, None),
        row("the agent's descriptors", "", descriptors as f64, Some(200.0)),
    ])
}

/// How long one answer to Prometheus takes, by curl's clock.
fn scrape(host: &Host) -> Result<f64> {
    let url = format!("http://{LISTEN}/metrics");
    let words = ["-sSf", "--max-time", "10", "-o", "/dev/null", "-w", "%{time_total}", &url];
    let seconds: f64 = host.command("curl").args(words).ok().parse().context("a time of curl's")?;
    Ok(seconds * 1e3)
}

/// A service as `service apply` takes it.
pub(super) fn service(number: u32, backends: u32, weight: u32) -> String {
    let vip = Ipv4Addr::from_bits(FIRST_VIP + number);
    let backends = (0..backends).map(|backend| {
        let weight = if backend == 0 { weight } else { 1 };
        let place = number.wrapping_mul(backends) + backend;
        let address = Ipv4Addr::from_bits(overlay(0, 0).to_bits() + (1 << 16) + place);
        (format!("{address}:8080"), weight)
    });
    weighted(&format!("s{number}"), format!("{vip}:80/tcp"), &backends.collect::<Vec<_>>())
}

/// How long an application took.
struct Applied {
    by_agent: f64,
    by_command: f64,
}

fn apply(host: &Host, text: &str, count: u32) -> Result<Applied> {
    let start = Instant::now();
    let command = host.fanlight(["service", "apply", "-f", "-", "--json"]).input(text).limit(LIMIT);
    let answer: Value = serde_json::from_str(&command.ok()).context("what was applied")?;
    let by_command = milliseconds(start.elapsed());
    ensure!(answer["applied"] == count, "{count} services were to be applied: {answer}");
    Ok(Applied { by_agent: answer["ms"].as_f64().context("no time in the answer")?, by_command })
}

/// MiB.
struct Memory {
    maps: f64,
    flows: f64,
    services: f64,
}

fn memory(host: &Host) -> Memory {
    let status = host.json("status");
    let of = |name: &str| status["memory"][name].as_f64().unwrap_or(f64::NAN) / f64::from(1 << 20);
    Memory { maps: of("maps"), flows: of("flows"), services: of("services") }
}

fn descriptors(agent: &Agent) -> Result<usize> {
    let path = format!("/proc/{}/fd", agent.pid());
    Ok(fs::read_dir(&path).with_context(|| format!("read {path}"))?.count())
}

/// The rows as a table.
pub fn print(services: u32, backends: u32, rows: &[Row]) {
    println!("\n{services} services, {backends} backends each");
    print_rows(rows);
}

/// Rows as lines; what is beyond the most that is wanted is marked.
pub(super) fn print_rows(rows: &[Row]) {
    for Row { name, unit, value, most } in rows {
        let missed = most.filter(|most| value > most);
        let mark = missed.map(|most| format!(" > {most}")).unwrap_or_default();
        println!("{name:<38} {value:>10.1} {unit}{mark}");
    }
}
