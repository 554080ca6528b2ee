//! The datapath that the writer works on: loaded while any fan stands, with flow tables as large as the services need.
//! A node without services has small ones.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use control::{
    desired::Desired,
    observed::{ObservedHost, Presence},
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::events::Events;
use crate::{
    kernel::{
        bpf::{Datapath, IDLE_FLOWS, ServiceMap, Watcher, check_flows, room_for},
        lock::Lock,
        tasks::Faults,
    },
    node::fan::Node,
};

/// What tells of packets, and of which services.
pub(crate) struct Watched {
    /// What the programs see.
    pub(crate) watcher: Watcher,
    /// The services that they serve.
    pub(crate) services: ServiceMap,
}

/// The loaded programs with what hangs on them.
pub(super) struct Programs {
    datapath: Option<Datapath>,
    /// Counts the datapaths.
    number: u64,
    /// The datapath's programs may not be on every port yet.
    pub(super) is_fresh: bool,
    /// What the programs tell is followed.
    is_followed: bool,
    /// Readers of what the programs see: another one with each datapath.
    watchers: mpsc::Sender<Option<Watched>>,
    logs: Option<JoinHandle<()>>,
    /// Brings flows over from tables that others have replaced.
    moving: Option<JoinHandle<Option<()>>>,
    refused: Option<RefusedFlows>,
    faults: Faults,
}

/// Flow tables that the kernel did not give.
#[derive(Debug)]
struct RefusedFlows {
    /// As the configuration has them.
    configured: Option<u32>,
    why: String,
    again: Instant,
}

impl RefusedFlows {
    /// Each attempt asks the kernel for much memory.
    const REST: Duration = Duration::from_secs(60);

    /// Whether they need not be asked for now.
    fn holds(&self, configured: Option<u32>) -> bool {
        self.configured == configured && Instant::now() < self.again
    }
}

impl Programs {
    pub(super) fn new(watchers: mpsc::Sender<Option<Watched>>, faults: Faults) -> Self {
        Self {
            datapath: None,
            number: 0,
            is_fresh: false,
            is_followed: false,
            watchers,
            logs: None,
            moving: None,
            refused: None,
            faults,
        }
    }

    /// The datapath, while any fan stands.
    pub(super) fn datapath(&self) -> Option<&Datapath> {
        self.datapath.as_ref()
    }

    /// Uplinks that would not run a program are asked once more.
    pub(super) fn forget_refusals(&self) {
        self.datapath.iter().for_each(Datapath::forget_refusals);
    }

    /// Where what fails beside is noted.
    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Tells one datapath from another.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Loads the programs while any fan stands; gives what was observed. The command line may have taken the last
    /// fan down and brought another one up meanwhile: then the maps are others. Nothing is opened while it does so.
    pub(super) async fn adopt(
        &mut self,
        node: &Node,
        _lock: &Lock,
        desired: &Desired,
    ) -> Result<ObservedHost> {
        let observed = node.observe().await?;
        if observed.standing.is_empty() {
            self.replace(None).await;
        } else if !self.datapath.as_ref().is_some_and(Datapath::is_pinned) {
            self.replace(Some(Datapath::open_for(flows(desired))?)).await;
        }
        if self.needs_other_flows(desired)? {
            self.resize(desired).await?;
        }
        Ok(observed)
    }

    async fn resize(&mut self, desired: &Desired) -> Result<()> {
        if let Some(moving) = self.moving.take() {
            // It lets go of the former tables at its end, which are others now.
            moving.await?;
        }
        let Some(datapath) = &self.datapath else { return Ok(()) };
        match datapath.with_other_flows(flows(desired)) {
            Ok(other) => {
                self.refused = None;
                self.replace(Some(other)).await;
            }
            Err(error) => {
                let again = Instant::now() + RefusedFlows::REST;
                let configured = desired.settings.flows;
                self.refused = Some(RefusedFlows { configured, why: error.to_string(), again });
            }
        }
        Ok(())
    }

    /// Works on another datapath from now on, or on none.
    pub(super) async fn replace(&mut self, datapath: Option<Datapath>) {
        if self.datapath.is_none() && datapath.is_none() {
            return;
        }
        if let Some(reader) = self.logs.take() {
            reader.abort();
        }
        // Without a reader there is nobody to be told.
        drop(self.watchers.send(None).await);
        self.datapath = datapath;
        self.number += 1;
        self.is_fresh = true;
        self.is_followed = false;
    }

    /// Follows what the datapath's programs tell, where that is not so: all of it, or none, and it is tried again.
    pub(super) async fn follow(&mut self, events: &mut Events, presence: &mut Presence) -> Result<()> {
        if self.datapath.is_none() {
            events.set_paths(None);
        }
        let Some(datapath) = self.datapath.as_ref().filter(|_| !self.is_followed) else { return Ok(()) };
        events.set_paths(None);
        let held = datapath.endpoints().list()?;
        let (paths, logs) = (datapath.events()?, datapath.forward_logs()?);
        let watched = Watched { watcher: datapath.watcher()?, services: datapath.services().clone() };
        // Those of a former agent, whose devices may have gone since.
        presence.learn(held.into_iter().map(|(address, record)| (address, record.ifindex)).collect());
        events.set_paths(Some(paths));
        self.watchers.send(Some(watched)).await.context("nobody reads them")?;
        if let Some(former) = self.logs.take() {
            former.abort();
        }
        self.logs = logs.map(|logs| self.faults.once("logs", logs));
        self.is_followed = true;
        Ok(())
    }

    /// What the programs tell is followed no more.
    pub(super) fn unfollow(&mut self) {
        self.is_followed = false;
    }

    /// Whether the services need other flow tables: larger ones than those of a node without any, or such as are
    /// configured. The last service leaves them as they are.
    pub(super) fn needs_other_flows(&self, desired: &Desired) -> Result<bool> {
        let Some(datapath) = self.datapath.as_ref().filter(|_| !desired.is_empty()) else { return Ok(false) };
        let configured = desired.settings.flows;
        let held = datapath.services().flow_room()?;
        if configured.is_some_and(|flows| check_flows(flows).is_err()) {
            // Tables of a size that was possible stay; those of a node without services hold too little.
            return Ok(held.flows <= room_for(Some(IDLE_FLOWS))?.flows);
        }
        if self.refused.as_ref().is_some_and(|refused| refused.holds(configured)) {
            return Ok(false);
        }
        let wanted = room_for(flows(desired))?;
        Ok(held.is_less(&wanted) || held.flows > wanted.flows && configured.is_some())
    }

    /// What there is to say of the flow table's size.
    pub(super) fn lacks_room(&self, desired: &Desired) -> Result<Option<String>> {
        let Some(datapath) = self.datapath.as_ref().filter(|_| !desired.is_empty()) else { return Ok(None) };
        if let Some(Err(error)) = desired.settings.flows.map(check_flows) {
            return Ok(Some(format!("config-invalid: datapath.flows: {error}")));
        }
        if let Some(RefusedFlows { why, .. }) = &self.refused {
            let held = datapath.services().flow_capacity()?;
            return Ok(Some(format!(
                "flow-tables: they stay at {held} flows, whose flows go on: {why}; free memory or set fewer in \
                 datapath.flows; it is tried again every minute"
            )));
        }
        let Some(configured) = desired.settings.flows else { return Ok(None) };
        let least = room_for(Some(configured))?.connections();
        Ok((least != configured).then(|| {
            format!(
                "config-invalid: datapath.flows: {configured} is fewer than 1,024 for each possible CPU; use at least \
                 {least}"
            )
        }))
    }

    /// Moves the flows that are left in replaced tables to the present ones. In a thread of its own: there may be
    /// a million.
    pub(super) fn bring_flows_over(&mut self) {
        let is_over = self.moving.as_ref().is_none_or(JoinHandle::is_finished);
        if is_over && self.datapath.as_ref().is_some_and(Datapath::has_former_flows) {
            self.moving = Some(self.faults.blocking("moving flows", || match Datapath::bring_flows_over() {
                Ok(entries) => tracing::info!(entries, "flows: brought over to other tables"),
                Err(error) => tracing::warn!("flows: {error}; it is tried again"),
            }));
        }
    }
}

/// How many flows the datapath ought to hold; `None`: as the memory allows.
pub(super) fn flows(desired: &Desired) -> Option<u32> {
    if desired.is_empty() {
        return Some(IDLE_FLOWS);
    }
    desired.settings.flows.filter(|&flows| check_flows(flows).is_ok())
}
