//! The node's state on one screen, with or without a running agent.

mod agent;
mod flows;
mod record;
mod shadowed;

use std::{io, path::Path};

use control::{
    observed::{Link, XdpMode},
    service::{ServiceState, against},
};
use dataplane_common::outcome::{Hook, Outcome};
use serde::{Serialize, Serializer, ser::SerializeMap};

pub use self::{
    agent::{AgentState, Life, Seen},
    flows::FlowsState,
    record::{
        AGENT_NAME, AgentRecord, ClusterState, LOCK_FILE, RECORD_FILE, SERVICES_FILE, host_name,
        read_services, seconds, write_services,
    },
};
use crate::{
    kernel::bpf::{Attachment, Counters, Datapath},
    node::{
        endpoint::forget_dead,
        fan::{FanState, Node, UplinkWay, hindered, ways},
    },
    serve::{Client, paths},
};

/// Why the state can't be told.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The agent's record.
    #[error("the agent's record {RECORD_FILE}: {0}; restart the agent")]
    Record(#[from] io::Error),
    /// What it says of services.
    #[error("the agent's record {SERVICES_FILE}: {0}; restart the agent")]
    Services(io::Error),
    /// The kernel's BPF side.
    #[error(transparent)]
    Datapath(#[from] crate::kernel::bpf::Error),
    /// The fans.
    #[error(transparent)]
    Fan(#[from] crate::node::fan::Error),
    /// The interfaces.
    #[error(transparent)]
    Netlink(#[from] crate::kernel::netlink::Error),
}

/// The node's state; the field names are the stable keys of the JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// The agent.
    pub agent: AgentState,
    /// The interfaces that carry the fans, joined by commas.
    pub uplink: String,
    /// Where tunnel packets are judged at each of them, and why there.
    #[serde(rename = "uplink-hook")]
    pub ways: Vec<UplinkWay>,
    /// Our programs.
    pub datapath: Vec<HookRow>,
    /// The fans.
    pub fans: Vec<FanState>,
    /// Services.
    pub services: Vec<ServiceState>,
    /// Packets by outcome, all hooks together.
    pub outcomes: Outcomes,
    /// Kernel memory.
    pub memory: Memory,
    /// The flow tables.
    pub flows: FlowsState,
    /// The cluster, while an agent runs that is a member of one.
    pub cluster: Option<ClusterState>,
    /// What is not as it ought to be.
    pub degraded: Vec<String>,
}

/// One program on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HookRow {
    /// Where packets meet it.
    pub hook: &'static str,
    /// The interface.
    pub device: String,
    /// The kernel's number for the program.
    pub program: u32,
    /// Who runs it, where that may be one or the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<XdpMode>,
}

/// Bytes of kernel memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All maps.
    pub maps: u64,
    /// The flow tables.
    pub flows: u64,
    /// The tables of services, backends and rings.
    pub services: u64,
}

/// Packets of each outcome, in the order of the list of outcomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcomes(pub Vec<(Outcome, u64)>);

impl Outcomes {
    fn of(counters: &Counters) -> Self {
        Self(Outcome::ALL.iter().map(|&outcome| (outcome, counters.total(outcome))).collect())
    }

    /// Those that happened.
    pub fn seen(&self) -> impl Iterator<Item = (Outcome, u64)> + '_ {
        self.0.iter().copied().filter(|&(_, packets)| packets > 0)
    }
}

impl Serialize for Outcomes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (outcome, packets) in &self.0 {
            map.serialize_entry(outcome.name(), packets)?;
        }
        map.end()
    }
}

/// Looks at the agent and what it says of itself.
///
/// # Errors
/// Its record can't be read.
pub fn look() -> Result<Seen, StatusError> {
    Ok(agent::look(Path::new(LOCK_FILE), AGENT_NAME, Path::new(RECORD_FILE))?)
}

/// Reads the rest of the node's state; `name` is the node's, where the agent tells none.
///
/// # Errors
/// Something that should be readable is not.
pub async fn collect(seen: Seen, name: String, node: &Node) -> Result<Status, StatusError> {
    // The agent writes its answer while the kernel is asked.
    let kernel = async {
        forget_dead(node.netlink()).await;
        let observed = node.observe().await?;
        Ok::<_, StatusError>((node.show().await?, observed, Datapath::open_existing()?))
    };
    let (services, kernel) = tokio::join!(services(), kernel);
    let (services, (fans, observed, datapath)) = (services?, kernel?);
    let (attachments, counters, maps, vips) = match &datapath {
        Some(datapath) => {
            (datapath.attachments()?, datapath.counters()?, datapath.memory()?, datapath.services().vips()?)
        }
        None => Default::default(),
    };
    let hooks: Vec<_> = attachments.iter().map(|attachment| hook_row(attachment, &observed.links)).collect();
    let room = datapath.as_ref().map(|datapath| datapath.services().flow_room()).transpose()?;
    let counted = seen.record.as_ref().filter(|_| seen.state.state == Life::Running && datapath.is_some());
    let (room, count) = (room.unwrap_or_default(), counted.and_then(|record| record.flow_count));
    let mut degraded = degraded(&seen, &fans);
    if seen.state.state != Life::Running {
        degraded.extend(observed.all_renumbered());
        degraded.extend(
            node.filters(&observed, datapath.as_ref()).unwrap_or_else(|error| vec![error.to_string()]),
        );
    }
    let mut uplink_ways = Vec::new();
    if let Some(datapath) = &datapath {
        let uplinks = attachments.iter().filter(|own| own.hook == Hook::UplinkIngress);
        let uplinks: Vec<u32> = uplinks.map(|own| own.ifindex).collect();
        uplink_ways = ways(datapath, &observed.links, &uplinks)?;
        if seen.state.state != Life::Running {
            degraded.extend(hindered(datapath, &observed.links, &uplinks)?);
        }
        degraded.extend(shadowed::reasons(&datapath.shadowed(&attachments)?, &observed.links));
    }
    let is_running = seen.state.state == Life::Running;
    let record = seen.record.unwrap_or_default();
    Ok(Status {
        node: if record.node.is_empty() { name } else { record.node },
        agent: seen.state,
        uplink: uplinks(&hooks),
        ways: uplink_ways,
        datapath: hooks,
        fans,
        services: against(services, &vips),
        outcomes: Outcomes::of(&counters),
        memory: Memory { maps: maps.maps, flows: maps.flows, services: maps.services },
        flows: FlowsState::new(room, count),
        cluster: record.cluster.filter(|_| is_running),
        degraded,
    })
}

/// Services as the agent has them or, when none answers, as the last one had them.
///
/// # Errors
/// The record can't be read.
pub async fn services() -> Result<Vec<ServiceState>, StatusError> {
    if let Ok(mut client) = Client::connect().await
        && let Ok(services) = client.get(paths::STATES).await
    {
        return Ok(services);
    }
    read_services(Path::new(SERVICES_FILE)).map_err(StatusError::Services)
}

/// What the agent reports while it runs, and what can be seen without it.
fn degraded(seen: &Seen, fans: &[FanState]) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(record) = seen.record.as_ref().filter(|_| seen.state.state == Life::Running) {
        reasons.extend(record.degraded.iter().cloned());
    }
    if seen.died {
        reasons.push("agent-died: it ended without being stopped; start it again".to_owned());
    }
    for fan in fans.iter().filter(|fan| !fan.missing.is_empty()) {
        reasons.push(format!("fan {}: missing {}; bring it up again", fan.overlay, fan.missing.join(", ")));
    }
    reasons
}

fn hook_row(attachment: &Attachment, links: &[Link]) -> HookRow {
    let program = attachment.program_id;
    let xdp = links.iter().flat_map(|link| &link.xdp).find(|xdp| xdp.id == program);
    HookRow {
        hook: attachment.hook.name(),
        device: device(attachment.ifindex, links),
        program,
        mode: xdp.map(|xdp| xdp.mode),
    }
}

fn device(index: u32, links: &[Link]) -> String {
    let link = links.iter().find(|link| link.index == index);
    link.map_or_else(|| format!("#{index}"), |link| link.name.clone())
}

/// The devices that run the uplink's program.
fn uplinks(hooks: &[HookRow]) -> String {
    let uplinks = hooks.iter().filter(|row| row.hook == Hook::UplinkIngress.name());
    let mut names: Vec<&str> = uplinks.map(|row| row.device.as_str()).collect();
    names.sort_unstable();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(hook: Hook, device: &str) -> HookRow {
        HookRow { hook: hook.name(), device: device.to_owned(), program: 1, mode: None }
    }

    #[test]
    fn uplinks_are_the_devices_with_the_uplinks_program() {
        let hooks =
            [row(Hook::UplinkIngress, "eth1"), row(Hook::HostEgress, "x"), row(Hook::UplinkIngress, "eth0")];
        assert_eq!(uplinks(&hooks), "eth0,eth1");
    }

    #[test]
    fn outcomes_in_json_have_every_name_and_for_people_only_those_that_happened() {
        let mut outcomes = Outcomes::of(&Counters::default());
        let json = serde_json::to_value(&outcomes).unwrap();
        assert_eq!(json.as_object().unwrap().len(), Outcome::ALL.len());
        assert_eq!(json["encapsulated"], 0);
        assert_eq!(outcomes.seen().count(), 0);
        outcomes.0[0].1 = 7;
        assert_eq!(outcomes.seen().collect::<Vec<_>>(), [(Outcome::ALL[0], 7)]);
    }
}
