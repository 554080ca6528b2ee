//! `fanlight status`

use std::{io, path::Path, process::ExitCode};

use anyhow::Context;
use control::service::ServiceState;

use super::{
    failure::{FAILED, Failure},
    fan::fan_table,
    output::Output,
    runtime,
    service::{state, usable},
};
use crate::{
    inspect::status::{self, ClusterState, FlowsState, Life, Status},
    node::fan::{Node, UplinkWay},
    sources::config::{self, CONFIG_FILE, FANS_FILE},
};

pub(super) fn run(output: &mut Output<'_>) -> Result<ExitCode, Failure> {
    runtime::require_privileges("status")?;
    let seen = status::look().context("status")?;
    // Reading the configuration of 10,000 services takes longer than all the rest.
    let name = match seen.node() {
        Some(name) => name.to_owned(),
        None => node_name()?,
    };
    let status = runtime::block_on(async {
        let node = Node::open(Vec::new())?;
        status::collect(seen, name, &node).await.context("status")
    })?;
    output.print(&status, screen)?;
    Ok(if status.degraded.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// The name in the configuration, if that can be read, else the host's.
fn node_name() -> anyhow::Result<String> {
    let configured = config::load(Path::new(CONFIG_FILE), Path::new(FANS_FILE)).ok();
    match configured.and_then(|sources| sources.config.node.name) {
        Some(name) => Ok(name),
        None => status::host_name().context("status: the host's name"),
    }
}

fn screen(status: &Status, output: &mut Output<'_>) -> io::Result<()> {
    let agent = &status.agent;
    let since = agent.since.as_deref().unwrap_or("unknown");
    let agent = match (agent.state, agent.pid) {
        (Life::Running, Some(pid)) => format!("running since {since}, process {pid}"),
        (Life::Running, None) => "starting".to_owned(),
        (Life::Stale, _) => format!("not running, stale since {since}"),
        (Life::None, _) => "not running".to_owned(),
    };
    let uplink = if status.uplink.is_empty() { "none" } else { &status.uplink };
    writeln!(output.writer, "node      {}", status.node)?;
    writeln!(output.writer, "agent     {agent}")?;
    writeln!(output.writer, "uplink    {uplink}")?;
    for way in &status.ways {
        writeln!(output.writer, "hook      {}", way_words(way))?;
    }
    writeln!(output.writer, "memory    {} of maps", size(status.memory.maps))?;
    if let Some(flows) = flows(&status.flows) {
        writeln!(output.writer, "flows     {flows}")?;
    }
    if let Some(cluster) = &status.cluster {
        writeln!(output.writer, "cluster   {}", cluster_words(cluster))?;
    }
    if status.degraded.is_empty() {
        writeln!(output.writer, "degraded  no")?;
    }
    for reason in &status.degraded {
        writeln!(output.writer, "degraded  {reason}")?;
    }
    writeln!(output.writer)?;
    fan_table(&status.fans, output)?;
    section(output, ["SERVICE", "VIP", "FORWARD", "ALGORITHM", "STATE", "BACKENDS"], service_rows(status))?;
    let hooks = status.datapath.iter();
    let hooks = hooks.map(|row| [row.hook.to_owned(), row.device.clone(), row.program.to_string()]);
    section(output, ["HOOK", "DEVICE", "PROGRAM"], hooks.collect())?;
    let outcomes =
        status.outcomes.seen().map(|(outcome, packets)| [outcome.name().to_owned(), packets.to_string()]);
    section(output, ["OUTCOME", "PACKETS"], outcomes.collect())
}

/// How many members are alive, and what the others are.
fn cluster_words(ClusterState { name, members }: &ClusterState) -> String {
    let all: usize = members.values().sum();
    let alive = members.get("alive").copied().unwrap_or_default();
    let others = members.iter().filter(|(state, _)| *state != "alive");
    let others: String = others.map(|(state, count)| format!(", {count} {state}")).collect();
    format!("{name}: {alive} of {all} members alive{others}")
}

/// Where an uplink's packets are judged, and why there.
fn way_words(UplinkWay { device, asked, mode, why, .. }: &UplinkWay) -> String {
    match (mode, why) {
        (Some(mode), _) => format!("{device}: xdp ({}), then tc; {asked} is asked for", mode.name()),
        (None, why) => {
            let why = why.as_deref().map_or(String::new(), |why| format!(": {why}"));
            format!("{device}: tc; {asked} is asked for{why}")
        }
    }
}

/// Backends are counted.
fn service_rows(status: &Status) -> Vec<[String; 6]> {
    let row = |service: &ServiceState| {
        let states = service.backends.iter().map(|backend| backend.state);
        [
            service.name.clone(),
            service.vip.clone(),
            service.forward.to_string(),
            service.algorithm.to_string(),
            state(service.state).to_owned(),
            usable(states),
        ]
    };
    status.services.iter().map(row).collect()
}

/// How full the flow tables are, where that is known.
fn flows(flows: &FlowsState) -> Option<String> {
    let part = |held: Option<u64>, capacity, what: &str, evicted: Option<u64>| {
        let evicted = match evicted? {
            0 => String::new(),
            evicted => format!(" (about {evicted} evicted)"),
        };
        Some(format!("{} of {capacity} {what}{evicted}", held?))
    };
    let parts = [
        part(flows.held, flows.capacity, "entries", flows.evicted)?,
        part(flows.datagrams, flows.datagrams_capacity, "of datagrams", flows.datagrams_evicted)?,
        part(flows.unconfirmed, flows.unconfirmed_capacity, "not established", flows.unconfirmed_evicted)?,
    ];
    Some(parts.join(", "))
}

/// A table after an empty line, or nothing when it has no rows.
fn section<const N: usize>(
    output: &mut Output<'_>,
    header: [&str; N],
    rows: Vec<[String; N]>,
) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(output.writer)?;
    output.table(header, rows)
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use dataplane_common::outcome::Outcome;

    use control::{
        model::UplinkHook,
        observed::XdpMode,
        service::{Algorithm, BackendLife, BackendState, Forward, ServiceLife},
    };

    use super::*;
    use crate::inspect::status::{AgentState, HookRow, Memory, Outcomes};

    fn status() -> Status {
        Status {
            node: "host-28".to_owned(),
            agent: AgentState {
                state: Life::Stale,
                pid: None,
                since: Some("2026-11-21 06:34:12Z".to_owned()),
            },
            uplink: "eth0".to_owned(),
            ways: vec![UplinkWay {
                device: "eth0".to_owned(),
                asked: UplinkHook::Xdp,
                hook: "xdp",
                mode: Some(XdpMode::Native),
                why: None,
            }],
            datapath: vec![
                HookRow { hook: "uplink-ingress", device: "eth0".to_owned(), program: 17, mode: None },
                HookRow {
                    hook: "uplink-xdp",
                    device: "eth0".to_owned(),
                    program: 18,
                    mode: Some(XdpMode::Native),
                },
            ],
            fans: Vec::new(),
            services: vec![ServiceState {
                name: "web".to_owned(),
                vip: "10.96.0.10:80/tcp".to_owned(),
                forward: Forward::Nat,
                algorithm: Algorithm::Maglev,
                state: ServiceLife::Up,
                backends: vec![BackendState {
                    reason: None,
                    kept: false,
                    address: ([250, 0, 28, 2], 80).into(),
                    weight: 1,
                    state: BackendLife::Up,
                }],
            }],
            outcomes: Outcomes(vec![(Outcome::Encapsulated, 5), (Outcome::Decapsulated, 0)]),
            memory: Memory { maps: 3 << 20, ..Memory::default() },
            flows: FlowsState {
                capacity: 131_072,
                held: Some(12),
                evicted: Some(0),
                datagrams_capacity: 32_768,
                datagrams: Some(4),
                datagrams_evicted: Some(0),
                unconfirmed_capacity: 131_072,
                unconfirmed: Some(131_000),
                unconfirmed_evicted: Some(70_000),
            },
            cluster: Some(ClusterState {
                name: "prod".to_owned(),
                members: [("alive".to_owned(), 2), ("dead".to_owned(), 1)].into(),
            }),
            degraded: vec!["renumbered".to_owned()],
        }
    }

    fn printed(json: bool) -> String {
        let mut out = Vec::new();
        Output::new(&mut out, json).print(&status(), screen).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_screen_tells_stale_degraded_and_only_outcomes_that_happened() {
        assert_eq!(
            printed(false),
            "node      host-28\n\
             agent     not running, stale since 2026-11-21 06:34:12Z\n\
             uplink    eth0\n\
             hook      eth0: xdp (native), then tc; xdp is asked for\n\
             memory    3.0 MiB of maps\n\
             flows     12 of 131072 entries, 4 of 32768 of datagrams, 131000 of 131072 not established (about 70000 evicted)\n\
             cluster   prod: 2 of 3 members alive, 1 dead\n\
             degraded  renumbered\n\
             \n\
             BRIDGE  OVERLAY  UNDERLAY  GATEWAY  MTU  STATE  FLAGS\n\
             \n\
             SERVICE  VIP                FORWARD  ALGORITHM  STATE  BACKENDS\n\
             web      10.96.0.10:80/tcp  nat      maglev     up     1 of 1\n\
             \n\
             HOOK            DEVICE  PROGRAM\n\
             uplink-ingress  eth0    17\n\
             uplink-xdp      eth0    18\n\
             \n\
             OUTCOME       PACKETS\n\
             encapsulated  5\n"
        );
    }

    #[test]
    fn the_json_has_the_keys_that_scripts_rely_on() {
        let json: serde_json::Value = serde_json::from_str(&printed(true)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "node": "host-28",
                "agent": {"state": "stale", "since": "2026-11-21 06:34:12Z"},
                "uplink": "eth0",
                "uplink-hook": [
                    {"device": "eth0", "asked": "xdp", "hook": "xdp", "mode": "native", "why": null},
                ],
                "datapath": [
                    {"hook": "uplink-ingress", "device": "eth0", "program": 17},
                    {"hook": "uplink-xdp", "device": "eth0", "program": 18, "mode": "native"},
                ],
                "fans": [],
                "services": [{
                    "name": "web", "vip": "10.96.0.10:80/tcp", "forward": "nat", "algorithm": "maglev", "state": "up",
                    "backends": [{"address": "250.0.28.2:80", "weight": 1, "state": "up"}],
                }],
                "outcomes": {"encapsulated": 5, "decapsulated": 0},
                "memory": {"maps": 3_145_728, "flows": 0, "services": 0},
                "flows": {
                    "capacity": 131_072, "held": 12, "evicted": 0,
                    "datagrams_capacity": 32_768, "datagrams": 4, "datagrams_evicted": 0,
                    "unconfirmed_capacity": 131_072, "unconfirmed": 131_000, "unconfirmed_evicted": 70_000,
                },
                "cluster": {"name": "prod", "members": {"alive": 2, "dead": 1}},
                "degraded": ["renumbered"],
            })
        );
    }

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        assert_eq!([size(12), size(2_048), size(2_603_648)], ["12 B", "2 KiB", "2.5 MiB"]);
    }
}
