//! A look at endpoints: every port has its program, the table holds what the kernel knows, and hosts behind a small
//! path have a route that says so.

use std::time::{Duration, Instant};

use anyhow::Result;
use control::reconcile::{self, Learning, PortOp};

use super::{agent::Agent, report::Topic};
use crate::{
    kernel::{bpf::Datapath, netlink::Netlink},
    node::{
        endpoint,
        table::{self, Snapshot},
    },
};

/// How often neighbours that nothing else confirms are asked whether they are there.
const PROBE: Duration = Duration::from_secs(30);

impl Agent {
    /// Looks at endpoints, under the lock; says whether anything failed.
    pub(super) async fn look_at_endpoints(&mut self) -> Result<bool> {
        let mut reasons = Vec::new();
        if let Some(datapath) = &self.datapath {
            let netlink = self.node.netlink();
            let snapshot = Snapshot::read(netlink, datapath).await?;
            serve_ports(&snapshot, netlink, datapath, self.is_fresh, &mut reasons).await?;
            let settled = table::settle(&snapshot, netlink, datapath, Learning::On).await;
            reasons.extend(settled.err().map(|error| format!("endpoint table: {error}")));
            follow_mtu(&snapshot, netlink, &mut reasons).await;
            set_path_routes(&snapshot, netlink, datapath, &mut reasons).await?;
            let now = Instant::now();
            if now >= self.next_probe {
                self.next_probe = now + PROBE;
                probe(&snapshot, netlink).await;
            }
            self.is_fresh = !reasons.is_empty();
            self.known.learn(&snapshot);
            self.sources.follow_routes(self.known.networks())?;
            self.look_who_is_there(&snapshot);
        }
        let failed = !reasons.is_empty();
        self.report.set(Topic::Endpoints, reasons);
        Ok(failed)
    }
}

impl Agent {
    fn look_who_is_there(&mut self, snapshot: &Snapshot) {
        let has_lost = self.presence.lose(|device| !snapshot.links.iter().any(|link| link.index == device));
        let known = reconcile::devices(&snapshot.observed());
        if self.presence.learn(known) || has_lost {
            self.follow_presence();
        }
    }
}

/// Attaches and detaches. With a datapath that was just loaded every port is visited: programs of another version are
/// replaced in place.
async fn serve_ports(
    snapshot: &Snapshot,
    netlink: &Netlink,
    datapath: &Datapath,
    is_fresh: bool,
    reasons: &mut Vec<String>,
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
            reasons.push(error.to_string());
        }
    }
    Ok(())
}

/// The inner ends of our veths have the MTU of their fans.
async fn follow_mtu(snapshot: &Snapshot, netlink: &Netlink, reasons: &mut Vec<String>) {
    for (wired, mtu) in reconcile::outdated(&snapshot.fans, &snapshot.wired) {
        match endpoint::follow_mtu(netlink, wired, mtu).await {
            Ok(()) => tracing::info!("endpoint {}: MTU {mtu}", wired.record.name),
            Err(error) => reasons.push(format!("endpoint {}: MTU {mtu}: {error}", wired.record.name)),
        }
    }
}

async fn set_path_routes(
    snapshot: &Snapshot,
    netlink: &Netlink,
    datapath: &Datapath,
    reasons: &mut Vec<String>,
) -> Result<()> {
    let (helper, _) = datapath.config().helper();
    let plan = reconcile::paths(helper, &snapshot.fans, &datapath.refresh_paths()?, &snapshot.routes);
    for route in &plan.set {
        tracing::info!("path to {}: MTU {}", route.destination, route.mtu.unwrap_or_default());
        reasons.extend(netlink.replace_route(route).await.err().map(|error| error.to_string()));
    }
    for route in &plan.delete {
        reasons.extend(netlink.delete_route(route).await.err().map(|error| error.to_string()));
    }
    Ok(())
}

/// Has the kernel ask for neighbours that may be gone; the answer, or its lack, is a change that wakes the agent.
async fn probe(snapshot: &Snapshot, netlink: &Netlink) {
    for (device, address) in reconcile::suspects(&snapshot.observed()) {
        if let Err(error) = netlink.probe_neighbour(device, address).await {
            tracing::debug!("{error}");
        }
    }
}
