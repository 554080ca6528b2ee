//! `bench routes`: an agent beside a router's table of foreign routes: the processor time that it takes at rest, and
//! while that table changes.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    Agent, Host,
    fleet::Fleet,
    services::{configure, service},
};

/// The foreign routes: every other address from here on.
const FIRST: u32 = u32::from_be_bytes([10, 0, 0, 0]);
/// Routes that one `ip -batch` of the changing table takes away and puts back.
const BURST: u32 = 100;
const LIMIT: Duration = Duration::from_secs(300);
/// The kernel counts processor time in hundredths of a second (`USER_HZ`).
const TICK: f64 = 0.01;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Foreign routes.
    pub routes: u32,
    /// Routes that change a second.
    pub changes: u32,
    /// How long processor time is counted.
    pub length: Duration,
}

/// An agent's processor time.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What happens meanwhile.
    pub name: String,
    /// Part of one processor, in per cent.
    pub percent: f64,
    /// The most that is wanted.
    pub most: f64,
}

/// A host with the usual fan and one service, alone and beside foreign routes.
pub fn measure(plan: Plan) -> Result<Vec<Row>> {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    configure(host, &[service("web", "10.96.0.10:80/tcp", &["250.0.27.9:8080".to_owned()])]);
    let agent = host.agent();
    let row = |name: String, percent| Row { name, percent, most: 1.0 };
    let mut rows = vec![row("at rest, no foreign route".to_owned(), used(&agent, plan.length)?)];
    add_routes(host, plan.routes);
    // What the routes' coming has caused is over.
    thread::sleep(Duration::from_secs(6));
    let count = plan.routes;
    rows.push(row(format!("at rest, {count} foreign routes"), used(&agent, plan.length)?));
    let (percent, changed) = thread::scope(|scope| {
        let changing = scope.spawn(|| change_routes(host, plan));
        (used(&agent, plan.length), changing.join().expect("changes of routes"))
    });
    rows.push(row(format!("while {changed:.0} of them change a second"), percent?));
    Ok(rows)
}

/// Routes to every other address of 10.0.0.0/8, by a neighbour on the wire, as a routing daemon (protocol 186, BGP) sets
/// them.
pub fn add_routes(host: &Host, count: u32) {
    let mut batch = String::new();
    for number in 0..count {
        writeln!(batch, "route add {}", foreign(number)).expect("a string takes everything");
    }
    host.command("ip").args(["-batch", "-"]).input(batch).limit(LIMIT).ok();
}

fn foreign(number: u32) -> String {
    format!("{}/32 via 172.30.0.1 dev eth0 proto 186", Ipv4Addr::from_bits(FIRST + 2 * number))
}

/// Takes routes away and puts them back; how many changes that was a second.
fn change_routes(host: &Host, plan: Plan) -> f64 {
    let start = Instant::now();
    let mut changes = 0;
    while start.elapsed() < plan.length {
        let first = changes / 2 % plan.routes.saturating_sub(BURST).max(1);
        let mut batch = String::new();
        for number in first..first + BURST {
            let route = foreign(number);
            writeln!(batch, "route del {route}\nroute add {route}").expect("a string takes everything");
        }
        host.command("ip").args(["-batch", "-"]).input(batch).ok();
        changes += 2 * BURST;
        let due = Duration::from_secs_f64(f64::from(changes) / f64::from(plan.changes));
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    f64::from(changes) / start.elapsed().as_secs_f64()
}

/// The processor time that an agent uses, in per cent of one processor.
fn used(agent: &Agent, length: Duration) -> Result<f64> {
    let (start, before) = (Instant::now(), seconds(agent)?);
    thread::sleep(length);
    Ok((seconds(agent)? - before) / start.elapsed().as_secs_f64() * 100.0)
}

/// Processor time of all its threads so far, the kernel's for it included.
pub fn seconds(agent: &Agent) -> Result<f64> {
    let path = format!("/proc/{}/stat", agent.pid());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // utime and stime are the 14th and 15th fields; the second, in brackets, may hold spaces.
    let (_, fields) = text.rsplit_once(") ").with_context(|| format!("{path}: {text}"))?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 * TICK)
}

/// The rows as a table.
pub fn print(rows: &[Row]) {
    println!("\nThe agent's processor time");
    for Row { name, percent, most } in rows {
        let mark = if percent > most { format!(" > {most} %") } else { String::new() };
        println!("{name:<48} {percent:>8.2} %{mark}");
    }
}
