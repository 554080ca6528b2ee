//! Fans: those of the files come up and go down, all that stand are repaired.

use anyhow::Result;
use control::{
    desired::Desired,
    model::{FanSpec, Origin, PortRange},
    observed::{Link, ObservedHost},
    reconcile::{self, FanOp},
};

use super::{
    programs::{Programs, flows},
    relevance::Known,
    silent,
};
use crate::{
    kernel::{bpf::Datapath, lock::Lock},
    node::fan::{self, Identities, Node},
};

/// What is known of fans beside what the kernel holds.
#[derive(Debug, Default)]
pub(super) struct Fans {
    /// Fans of the files that stand in other words: as wanted, as standing.
    accepted: Vec<(FanSpec, FanSpec)>,
    /// By which addresses fans know this host.
    identities: Identities,
}

/// What a pass found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What failed.
    pub(super) faults: Vec<String>,
    /// What an operator has to do.
    pub(super) notes: Vec<String>,
}

impl Fans {
    /// Other fans are wanted.
    pub(super) fn forget(&mut self) {
        self.accepted.clear();
    }

    /// Brings fans up and down and repairs them; the programs follow. An error means that the host's state can't be read.
    pub(super) async fn reconcile(
        &mut self,
        node: &Node,
        lock: &Lock,
        desired: &Desired,
        programs: &mut Programs,
        known: &mut Known,
    ) -> Result<Found> {
        let mut found = Found::default();
        let observed = node.observe().await?;
        for op in reconcile::fans(&desired.settings.fans, &standing(&observed)) {
            if let Err(error) = self.apply(node, lock, &observed, op).await {
                found.faults.push(error.to_string());
            }
        }
        let observed = programs.adopt(node, lock, desired).await?;
        if let Some(datapath) = programs.datapath() {
            // The host's own translation keeps off them.
            let PortRange(first, last) = desired.settings.nat_ports;
            datapath.config().set_nat_ports([first, last]);
            datapath.uplinks().set_asked(desired.settings.uplink_hook);
            datapath.config().set_host_filters(desired.settings.host_filters);
            self.repair((node, lock, datapath), &observed.links, known, &mut found).await?;
        }
        found.notes.extend(observed.all_renumbered());
        found.notes.dedup();
        Ok(found)
    }

    async fn apply(
        &mut self,
        node: &Node,
        lock: &Lock,
        observed: &ObservedHost,
        op: FanOp,
    ) -> Result<(), fan::Error> {
        match op {
            FanOp::Down(spec) => {
                let remarks = node.down(lock, &spec).await?;
                remarks.iter().for_each(|remark| tracing::info!("{remark}"));
                tracing::info!("fan {}: down, since the files don't have it any more", spec.overlay);
            }
            FanOp::Up { spec, origin, former } => {
                // A fan that stands in other words is compared once, not in every pass.
                let same =
                    observed.fan(spec.overlay).map(|standing| (spec.clone(), standing.mark.spec.clone()));
                if same.as_ref().is_some_and(|same| self.accepted.contains(same)) {
                    return Ok(());
                }
                bring_up(node, lock, &spec, origin, former.as_ref()).await?;
                self.accepted.extend(same);
            }
        }
        Ok(())
    }

    /// Repairs all fans that stand.
    async fn repair(
        &mut self,
        (node, lock, datapath): (&Node, &Lock, &Datapath),
        links: &[Link],
        known: &mut Known,
        found: &mut Found,
    ) -> Result<()> {
        let (mut networks, mut is_whole) = (Vec::new(), true);
        known.uplink_indices.clear();
        for repair in node.repair(lock, datapath, &mut self.identities).await? {
            match repair.outcome {
                Ok((fan, changed)) => {
                    known.add_uplinks(fan.uplinks().map(|uplink| uplink.name.clone()));
                    known.uplink_indices.extend(fan.uplinks().map(|uplink| uplink.index));
                    networks.extend(fan.uplinks().map(|uplink| uplink.network));
                    found.notes.extend(silent::tell_cut_off(&fan, links, datapath)?);
                    if !changed.is_empty() {
                        tracing::info!("fan {}: {}", fan.spec.overlay, changed.join(", "));
                    }
                }
                Err(error) => {
                    is_whole = false;
                    found.faults.push(error.to_string());
                }
            }
        }
        known.set_uplink_networks(networks, is_whole);
        found.notes.extend(node.hindered(datapath, &known.uplink_indices).await?);
        Ok(())
    }
}

/// The node, with what is asked of its datapath.
pub(super) fn wanting(node: Node, desired: &Desired) -> Node {
    let settings = &desired.settings;
    node.with_flows(flows(desired))
        .with_nat_ports(settings.nat_ports)
        .with_uplink_hook(settings.uplink_hook)
        .with_host_filters(settings.host_filters)
}

/// Brings a fan up; where the files used to have another one over the same overlay, that goes first.
async fn bring_up(
    node: &Node,
    lock: &Lock,
    spec: &FanSpec,
    origin: Origin,
    former: Option<&FanSpec>,
) -> Result<(), fan::Error> {
    let up = match (node.up(lock, spec, origin).await, former) {
        (Err(fan::Error::Different { .. }), Some(former)) => {
            node.down(lock, former).await?;
            node.up(lock, spec, origin).await?
        }
        (up, _) => up?,
    };
    tracing::info!("fan {}: up on {} as {}", spec.overlay, up.fan.uplink.name, up.fan.bridge);
    Ok(())
}

/// Takes the fans of the files down, and the programs of those that stay.
pub(super) async fn take_down(node: &Node, lock: &Lock, programs: &mut Programs) -> Result<()> {
    for (spec, origin) in standing(&node.observe().await?) {
        if origin != Origin::Manual
            && let Err(error) = node.down(lock, &spec).await
        {
            tracing::warn!("{error}");
        }
    }
    programs.replace(None).await;
    if let Some(datapath) = Datapath::open_existing()? {
        datapath.remove()?;
    }
    Ok(())
}

/// The fans that stand under their present address.
fn standing(observed: &ObservedHost) -> Vec<(FanSpec, Origin)> {
    let current = observed.standing.iter().filter(|standing| !standing.mark.stale);
    current.map(|standing| (standing.mark.spec.clone(), standing.mark.origin)).collect()
}
