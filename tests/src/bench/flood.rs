//! `bench flood`: forged clients beside 10,000 established flows and a quiet client.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::ways::program;
use crate::{
    Container, Host, Process,
    crowd::Crowd,
    fleet::{Fleet, bridge, overlay},
    flood::{Flood, Forged, confirmed_flows},
    load::wait_until_listening,
    services::{configure, service},
};

const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 80);
/// Each established flow speaks once in this time.
const SPEAKS: Duration = Duration::from_secs(10);
/// New connections a second of the quiet client.
const QUIET: u32 = 50;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long each flood lasts.
    pub length: Duration,
    /// Forged clients a second.
    pub rate: u32,
    /// Established flows.
    pub flows: usize,
}

/// What a flood did.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What forged clients sent.
    pub forged: String,
    /// How many there were.
    pub clients: u64,
    /// How many a second.
    pub rate: f64,
    /// Established flows in the table before and after.
    pub flows: (usize, usize),
    /// How many of them failed.
    pub flows_failed: usize,
    /// New connections of the quiet client that were answered, and that failed.
    pub quiet: (u64, usize),
}

/// Runs both kinds of flood.
pub fn measure(plan: Plan) -> Result<Vec<Row>> {
    let fleet = Fleet::up(2);
    let backends = [fleet.endpoint(0, 9), fleet.endpoint(1, 9)];
    let address = |host| SocketAddrV4::new(overlay(host, 9), 8080);
    let _servers: Vec<_> =
        backends.iter().zip([0, 1]).map(|(site, host)| serve(site, address(host))).collect();
    let addresses = [address(0).to_string(), address(1).to_string()];
    configure(&fleet[0], &[service("web", format!("{VIP}/tcp"), &addresses)]);
    let _agent = fleet[0].agent();
    let (client, quiet) = (fleet.endpoint(0, 5), fleet.endpoint(0, 6));
    let attacker = fleet[0].container("attacker");
    attacker.plug(&bridge(0));
    let staying = Crowd::staying(&client, VIP, plan.flows, SPEAKS);
    let mut rows = Vec::new();
    for forged in [Forged::Syns, Forged::SynsAndAcks] {
        rows.push(flood(&fleet[0], (&attacker, &quiet), forged, plan)?);
    }
    let failed = staying.stop().failures.len();
    rows.iter_mut().for_each(|row| row.flows_failed = failed);
    Ok(rows)
}

/// In a process of its own: a process may not have the descriptors of both ends.
fn serve(site: &Container<'_>, address: SocketAddrV4) -> Process {
    let server = site.command(program()).args(["crowd", &address.to_string()]).spawn();
    wait_until_listening(site, address.port());
    server
}

fn flood(
    host: &Host,
    (attacker, quiet): (&Container<'_>, &Container<'_>),
    forged: Forged,
    plan: Plan,
) -> Result<Row> {
    let (counted, before) = (host.counters(), confirmed_flows(host, overlay(0, 5)));
    let flood = Flood::start((host, &bridge(0), overlay(0, 0)), attacker, VIP, forged, plan.rate);
    let coming = Crowd::coming_and_going(quiet, VIP, QUIET);
    thread::sleep(plan.length);
    let coming = coming.stop();
    let (clients, rate) = flood.stop();
    let after = confirmed_flows(host, overlay(0, 5));
    let grown = host.counters().since(&counted);
    let translated = grown.total("encapsulated") + grown.total("delivered-locally");
    ensure!(translated > clients, "the flood did not reach the service; counted: {grown}");
    Ok(Row {
        forged: format!("{forged:?}"),
        clients,
        rate,
        flows: (before, after),
        flows_failed: 0,
        quiet: (coming.answers, coming.failures.len()),
    })
}

/// The rows as a table.
pub fn print(rows: &[Row]) {
    println!(
        "\n{:<12} {:>10} {:>10}  {:<22} {:<14} quiet client",
        "forged", "clients", "a second", "established, after", "of them failed"
    );
    for Row { forged, clients, rate, flows: (before, after), flows_failed, quiet: (answered, failed) } in rows
    {
        let flows = format!("{before}, {after}");
        println!(
            "{forged:<12} {clients:>10} {rate:>10.0}  {flows:<22} {flows_failed:<14} {answered} answered, {failed} failed"
        );
    }
}
