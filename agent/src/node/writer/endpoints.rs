//! Endpoints: every port has its program, the table holds what the kernel knows, and hosts behind a small path have a
//! route that says so.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::Result;
use control::{
    desired::Desired,
    observed::Presence,
    reconcile::{self, Inquiry, Learning, PortOp, Question},
};

use super::{events::Events, programs::Programs, relevance::Known};
use crate::{
    kernel::{bpf::Datapath, lock::Lock, netlink::Netlink},
    node::{
        endpoint,
        table::{self, KernelEndpoints},
    },
};

/// How often neighbours that nothing else confirms are asked whether they are there.
const PROBE: Duration = Duration::from_secs(30);

/// What is known of endpoints beside what the kernel holds.
#[derive(Debug)]
pub(super) struct Endpoints {
    pub(super) presence: Presence,
    /// Which backends are asked for, and which do not answer.
    inquiry: Inquiry,
    /// The moment from which the inquiry's times count.
    start: Instant,
    /// Addresses of backends, and the desired state that they were read from.
    backends: (u64, BTreeSet<Ipv4Addr>),
    /// Addresses of the endpoints that are there.
    pub(super) addresses: BTreeSet<Ipv4Addr>,
    /// When to look for backends again, if nothing happens before.
    pub(super) next_look: Option<Instant>,
    /// When neighbours are asked next whether they are there.
    next_probe: Instant,
}

impl Endpoints {
    pub(super) fn new(presence: Presence) -> Self {
        let now = Instant::now();
        let inquiry = Inquiry::default();
        Self {
            presence,
            inquiry,
            start: now,
            backends: Default::default(),
            addresses: BTreeSet::new(),
            next_look: None,
            next_probe: now,
        }
    }

    /// Notes which addresses backends have.
    pub(super) fn follow(&mut self, desired: &Desired) {
        if self.backends.0 == desired.generation {
            return;
        }
        let backends = desired.entries().flat_map(|entry| &entry.defined.backends);
        let addresses = backends.filter_map(|backend| match backend.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        self.backends = (desired.generation, addresses.collect());
    }

    /// Brings ports, table, MTUs and path routes to what is there; gives what failed.
    pub(super) async fn reconcile(
        &mut self,
        netlink: &Netlink,
        _lock: &Lock,
        programs: &mut Programs,
        known: &mut Known,
        events: &mut Events,
    ) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        let is_fresh = programs.is_fresh;
        let Some(datapath) = programs.datapath() else { return Ok(faults) };
        let snapshot = KernelEndpoints::read(netlink, datapath).await?;
        serve_ports(&snapshot, netlink, datapath, is_fresh, &mut faults).await?;
        let settled = table::settle(&snapshot, netlink, datapath, Learning::On).await;
        faults.extend(settled.err().map(|error| format!("endpoint table: {error}")));
        follow_mtu(&snapshot, netlink, &mut faults).await;
        set_path_routes(&snapshot, netlink, datapath, &mut faults).await?;
        let now = Instant::now();
        if now >= self.next_probe {
            self.next_probe = now + PROBE;
            probe(&snapshot, netlink).await;
        }
        programs.is_fresh = !faults.is_empty();
        known.learn(&snapshot);
        self.addresses =
            snapshot.wired.iter().flat_map(|wired| wired.record.addresses.iter().copied()).collect();
        events.follow_routes(known.networks())?;
        self.presence.lose(|device| !snapshot.links.iter().any(|link| link.index == device));
        self.presence.learn(reconcile::devices(&snapshot.observed()));
        let findings = self.inquiry.look(&snapshot.observed(), &self.backends.1, now - self.start);
        ask(&findings.ask, netlink).await;
        self.presence.hear(findings.down);
        self.next_look = findings.next.map(|next| self.start + next);
        Ok(faults)
    }
}

/// Attaches and detaches. With a datapath that was just loaded every port is visited: programs of another version are
/// replaced in place.
async fn serve_ports(
    snapshot: &KernelEndpoints,
    netlink: &Netlink,
    datapath: &Datapath,
    is_fresh: bool,
    faults: &mut Vec<String>,
) -> Result<()> {
    datapath.prune()?;
    let attached = table::attached(datapath)?;
    let mut ops = reconcile::ports(&snapshot.fans, &snapshot.links, &attached);
    if is_fresh {
        ops.retain(|op| matches!(op, PortOp::Detach { .. }));
        ops.extend(reconcile::ports(&snapshot.fans, &snapshot.links, &[]));
    }
    for op in ops {
        let Err(error) = table::change_port(datapath, &op) else {
            tracing::debug!(?op, "port");
            continue;
        };
        // A port that vanished meanwhile needs nothing.
        if netlink.link_by_index(op.ifindex()).await?.is_some() {
            faults.push(error.to_string());
        }
    }
    Ok(())
}

/// The inner ends of our veths have the MTU of their fans.
async fn follow_mtu(snapshot: &KernelEndpoints, netlink: &Netlink, faults: &mut Vec<String>) {
    for (wired, mtu) in reconcile::outdated(&snapshot.fans, &snapshot.wired) {
        match endpoint::follow_mtu(netlink, wired, mtu).await {
            Ok(()) => tracing::info!("endpoint {}: MTU {mtu}", wired.record.name),
            Err(error) => faults.push(format!("endpoint {}: MTU {mtu}: {error}", wired.record.name)),
        }
    }
}

async fn set_path_routes(
    snapshot: &KernelEndpoints,
    netlink: &Netlink,
    datapath: &Datapath,
    faults: &mut Vec<String>,
) -> Result<()> {
    let (helper, _) = datapath.config().helper();
    let plan = reconcile::paths(helper, &snapshot.fans, &datapath.refresh_paths()?, &snapshot.routes);
    for route in &plan.set {
        tracing::info!("path to {}: MTU {}", route.destination, route.mtu.unwrap_or_default());
        faults.extend(netlink.replace_route(route).await.err().map(|error| error.to_string()));
    }
    for route in &plan.delete {
        faults.extend(netlink.delete_route(route).await.err().map(|error| error.to_string()));
    }
    Ok(())
}

/// Asks the kernel to probe neighbours that may be gone; the answer, or its lack, is a change that wakes the writer.
async fn probe(snapshot: &KernelEndpoints, netlink: &Netlink) {
    for (device, address) in reconcile::suspects(&snapshot.observed()) {
        if let Err(error) = netlink.probe_neighbour(device, address).await {
            tracing::debug!("{error}");
        }
    }
}

/// Asks the kernel to probe backends; an answer, or its lack, is a change that wakes the writer.
async fn ask(questions: &[Question], netlink: &Netlink) {
    for &Question { device, address, anew } in questions {
        if anew && let Err(error) = netlink.delete_neighbour(device, address).await {
            tracing::debug!("{error}");
        }
        if let Err(error) = netlink.probe_neighbour(device, address).await {
            tracing::debug!("{error}");
        }
    }
}
