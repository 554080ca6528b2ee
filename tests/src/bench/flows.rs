//! `bench flows`: `flow list` of a large table: how long it takes, and whether packets notice.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::{
    load::{CONNECT_PORT, ECHO_PORT, Load},
    processors::Processors,
    report::Summary,
    rounds::run,
    ways::program,
};
use crate::{
    Host,
    fleet::{Fleet, overlay},
    flows::{BACKEND, PORT, fill},
    load::wait_until_listening,
    services::{configure, service},
};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// How often the list is taken while nothing else runs.
const LISTS: usize = 5;
/// The longest that is wanted, in seconds.
const LONGEST: f64 = 2.0;
/// The least rate of round trips beside lists, by that without.
const LEAST: f64 = 0.95;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Flows in the table, of two entries each.
    pub flows: u32,
    /// Rounds; each runs round trips once without lists and once beside them.
    pub rounds: usize,
    /// Length of one run.
    pub burst: Duration,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Entries of the table.
    pub entries: u32,
    /// Seconds that `flow list --json` takes.
    pub list: Summary,
    /// Lists that were taken beside the round trips.
    pub lists: u32,
    /// Rate of round trips through a VIP of the host beside lists, by that without.
    pub beside: Summary,
}

/// Fills a host's flow table and lists it, again and again, on another processor than a client of the host's.
pub fn measure(plan: Plan) -> Result<Row> {
    let processors = Processors::allowed()?;
    let fleet = Fleet::up(2);
    let (client, server) = (fleet.endpoint(0, 5), fleet.endpoint(1, 9));
    let backend = |port| format!("{}:{port}", overlay(1, 9));
    let tables = [
        format!("[datapath]\nflows = {}\n", plan.flows + plan.flows / 4),
        service("echo", format!("{VIP}:{ECHO_PORT}/tcp"), &[backend(ECHO_PORT)]),
        service("silent", format!("{VIP}:{PORT}/tcp"), &[SocketAddrV4::new(BACKEND, PORT).to_string()]),
    ];
    configure(&fleet[0], &tables);
    let _server = server.command(program()).arg("serve").spawn();
    wait_until_listening(&server, CONNECT_PORT);
    let _agent = elsewhere(processors, || Ok(fleet[0].agent()))?;
    fill(&fleet[0], VIP, plan.flows);
    let taken = elsewhere(processors, || {
        (0..LISTS).map(|_| list(&fleet[0], plan.flows)).collect::<Result<Vec<_>>>()
    })?;
    let (mut alone, mut beside, lists) = (Vec::new(), Vec::new(), AtomicU32::new(0));
    for _ in 0..=plan.rounds {
        alone.push(run(&client, Load::RoundTrips, VIP, plan.burst)?.rate());
        let is_over = AtomicBool::new(false);
        let rate = thread::scope(|scope| {
            let lister = scope.spawn(|| {
                processors.pin_to_receiver()?;
                while !is_over.load(Ordering::Relaxed) {
                    list(&fleet[0], plan.flows)?;
                    lists.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            });
            let rate = run(&client, Load::RoundTrips, VIP, plan.burst);
            is_over.store(true, Ordering::Relaxed);
            lister.join().ok().context("the lister panicked")??;
            rate
        });
        beside.push(rate?.rate());
    }
    // The first round warms caches.
    let beside = Summary::of_ratios(&beside[1..], &alone[1..]).context("no round was run")?;
    let list = Summary::of(&taken).context("no list was taken")?;
    Ok(Row { entries: 2 * plan.flows, list, lists: lists.into_inner(), beside })
}

/// Runs something, and what it starts, on the processor that clients do not use.
fn elsewhere<T: Send>(processors: Processors, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(move || processors.pin_to_receiver().and_then(|()| work()));
        worker.join().ok().context("a worker panicked")?
    })
}

/// Seconds that a list takes, which has to be whole.
fn list(host: &Host, flows: u32) -> Result<f64> {
    let start = Instant::now();
    let text = host.run("flow list --json");
    let taken = start.elapsed().as_secs_f64();
    let listed = text.matches("\"client\"").count();
    ensure!(listed >= flows as usize, "{listed} of {flows} flows were listed");
    Ok(taken)
}

/// The row as lines.
pub fn print(row: &Row) {
    let Row { entries, list, lists, beside } = row;
    println!("\n{entries} entries in the flow table; medians [quartiles]");
    let mark = if list.median > LONGEST { format!(" > {LONGEST}") } else { String::new() };
    println!("flow list --json, seconds                      {list}{mark}");
    let mark = if beside.median < LEAST { format!(" < {LEAST}") } else { String::new() };
    println!("round trips beside {lists} lists / without          {beside}{mark}");
}
