//! A look at fans: those of the files come up and go down, all that stand are repaired.

use std::time::Instant;

use anyhow::Result;
use control::{
    model::{FanSpec, Origin},
    observed::Observed,
    reconcile::{self, FanOp},
};

use super::{agent::Agent, report::Topic};
use crate::{
    kernel::{bpf::Datapath, lock::Lock},
    node::fan,
};

impl Agent {
    /// Looks at fans; says whether anything failed. An error means that the host's state can't be read.
    pub(super) async fn look_at_fans(&mut self, lock: &Lock) -> Result<bool> {
        let mut reasons = Vec::new();
        let observed = self.node.observe().await?;
        for op in reconcile::fans(&self.wanted, &standing(&observed)) {
            if let Err(error) = self.apply(lock, &observed, op).await {
                reasons.push(error.to_string());
            }
        }
        let observed = self.adopt_datapath(lock).await?;
        self.repair(lock, &mut reasons).await?;
        let failed = !reasons.is_empty();
        reasons.extend(observed.all_renumbered());
        reasons.dedup();
        self.report.set(Topic::Fans, reasons);
        Ok(failed)
    }

    async fn apply(&mut self, lock: &Lock, observed: &Observed, op: FanOp) -> Result<(), fan::Error> {
        match op {
            FanOp::Down(spec) => {
                let remarks = self.node.down(lock, &spec).await?;
                remarks.iter().for_each(|remark| tracing::info!("{remark}"));
                tracing::info!("fan {}: down, since the files don't have it any more", spec.overlay);
            }
            FanOp::Up { spec, origin, former } => {
                // A fan that stands in other words is compared once, not at every look.
                let same =
                    observed.fan(spec.overlay).map(|standing| (spec.clone(), standing.mark.spec.clone()));
                if same.as_ref().is_some_and(|same| self.accepted.contains(same)) {
                    return Ok(());
                }
                self.bring_up(lock, &spec, origin, former.as_ref()).await?;
                self.accepted.extend(same);
            }
        }
        Ok(())
    }

    /// Brings a fan up; where the files used to have another one over the same overlay, that goes first.
    async fn bring_up(
        &mut self,
        lock: &Lock,
        spec: &FanSpec,
        origin: Origin,
        former: Option<&FanSpec>,
    ) -> Result<(), fan::Error> {
        let up = match (self.node.up(lock, spec, origin).await, former) {
            (Err(fan::Error::Different { .. }), Some(former)) => {
                self.node.down(lock, former).await?;
                self.node.up(lock, spec, origin).await?
            }
            (up, _) => up?,
        };
        tracing::info!("fan {}: up on {} as {}", spec.overlay, up.fan.uplink.name, up.fan.bridge);
        Ok(())
    }

    /// Repairs all fans that stand.
    async fn repair(&mut self, lock: &Lock, reasons: &mut Vec<String>) -> Result<()> {
        let Some(datapath) = &self.datapath else { return Ok(()) };
        let (mut networks, mut is_whole) = (Vec::new(), true);
        for repair in self.node.repair(lock, datapath, &mut self.identities).await? {
            match repair.outcome {
                Ok((fan, changed)) => {
                    self.known.add_uplinks(fan.uplinks().map(|uplink| uplink.name.clone()));
                    networks.extend(fan.uplinks().map(|uplink| uplink.network));
                    if !changed.is_empty() {
                        tracing::info!("fan {}: {}", fan.spec.overlay, changed.join(", "));
                    }
                }
                Err(error) => {
                    is_whole = false;
                    reasons.push(error.to_string());
                }
            }
        }
        self.known.set_uplink_networks(networks, is_whole);
        Ok(())
    }

    /// Has the programs loaded while any fan stands; gives what was observed. The command line may have taken the last
    /// fan down and brought another one up meanwhile: then the maps are others. Nothing is opened while it does so.
    pub(super) async fn adopt_datapath(&mut self, _lock: &Lock) -> Result<Observed> {
        let observed = self.node.observe().await?;
        if observed.standing.is_empty() {
            self.set_datapath(None);
        } else if !self.datapath.as_ref().is_some_and(Datapath::is_pinned) {
            self.set_datapath(Some(Datapath::open_for(self.services.flows())?));
        }
        if let Some(datapath) = &self.datapath
            && self.services.needs_other_flows(datapath)?
        {
            if let Some(moving) = self.moving.take() {
                // It lets go of the former tables at its end, which are others now.
                moving.await?;
            }
            match datapath.with_other_flows(self.services.flows()) {
                Ok(other) => {
                    self.services.note_flows(None);
                    self.set_datapath(Some(other));
                }
                Err(error) => self.services.note_flows(Some(error.to_string())),
            }
        }
        // What fails is told of, and tried again at the next look.
        self.hear();
        Ok(observed)
    }

    /// Looks for rules of others that drop the fans' packets, if there may be others than before.
    pub(super) async fn look_at_filters(&mut self) {
        if !self.filters.is_due(Instant::now()) {
            return;
        }
        let reasons = match self.node.check_filters().await {
            Ok(reasons) => reasons,
            Err(error) => vec![error.to_string()],
        };
        self.filters.looked(Instant::now());
        self.report.set(Topic::Forward, reasons);
    }

    /// Takes everything of ours down: the fans of the files, and the programs of those that stay.
    pub(super) async fn take_down(&mut self, lock: &Lock) -> Result<()> {
        for (spec, origin) in standing(&self.node.observe().await?) {
            if origin != Origin::Manual
                && let Err(error) = self.node.down(lock, &spec).await
            {
                tracing::warn!("{error}");
            }
        }
        self.set_datapath(None);
        if let Some(datapath) = Datapath::open_existing()? {
            datapath.remove()?;
        }
        Ok(())
    }
}

/// The fans that stand under their present address.
fn standing(observed: &Observed) -> Vec<(FanSpec, Origin)> {
    let current = observed.standing.iter().filter(|standing| !standing.mark.stale);
    current.map(|standing| (standing.mark.spec.clone(), standing.mark.origin)).collect()
}
